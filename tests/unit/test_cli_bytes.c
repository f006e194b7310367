/*
 * test_cli_bytes.c - base64, SHA-1 and version 5 UUIDs against published values; half floats; histograms of latencies.
 */
#include "ops/cli/cli_base64.h"
#include "ops/cli/cli_hist.h"
#include "ops/cli/cli_sha1.h"
#include "ops/cli/cli_vector.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* RFC 4648, section 10. */
static void base64_as_published(void **state)
{
    static const char *const vectors[][2] = {{"", ""},
                                             {"f", "Zg=="},
                                             {"fo", "Zm8="},
                                             {"foo", "Zm9v"},
                                             {"foob", "Zm9vYg=="},
                                             {"fooba", "Zm9vYmE="},
                                             {"foobar", "Zm9vYmFy"}};
    for (size_t i = 0; i < MN_ARRAY_LEN(vectors); i++) {
        char text[16], bytes[16];
        size_t size = 99;
        mn_cli_base64_encode(vectors[i][0], strlen(vectors[i][0]), text);
        assert_string_equal(text, vectors[i][1]);
        assert_true(mn_cli_base64_decode(text, strlen(text), bytes, &size));
        assert_int_equal(size, strlen(vectors[i][0]));
        assert_memory_equal(bytes, vectors[i][0], size);
    }
}

static void base64_of_all_bytes(void **state)
{
    unsigned char all[256], back[258];
    char text[345];
    size_t size;
    for (unsigned i = 0; i < 256; i++)
        all[i] = (unsigned char)i;
    for (size_t n = 0; n <= sizeof all; n++) {
        mn_cli_base64_encode(all, n, text);
        assert_int_equal(strlen(text), mn_cli_base64_size(n));
        assert_true(mn_cli_base64_decode(text, strlen(text), back, &size));
        assert_int_equal(size, n);
        assert_memory_equal(all, back, n);
    }
}

static void base64_is_strict(void **state)
{
    static const char *const bad[] = {
        "Zg", "Zg=", "Zg==Zg==", "Zh==", "Zm9=", "Z===", "====", "Zm 9", "Zm9v\n", "Zm9-"};
    for (size_t i = 0; i < MN_ARRAY_LEN(bad); i++) {
        char bytes[16];
        size_t size;
        if (mn_cli_base64_decode(bad[i], strlen(bad[i]), bytes, &size))
            fail_msg("`%s` decoded", bad[i]);
    }
}

/* FIPS 180's examples, and a message that crosses blocks in every way. */
static void sha1_as_published(void **state)
{
    static const struct {
        const char *message, *digest;
    } known[] = {
        {"", "da39a3ee5e6b4b0d3255bfef95601890afd80709"},
        {"abc", "a9993e364706816aba3e25717850c26c9cd0d89d"},
        {"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq", "84983e441c3bd26ebaae4aa1f95129e5e54670f1"}};
    for (size_t i = 0; i < MN_ARRAY_LEN(known); i++) {
        struct mn_cli_sha1 sha;
        uint8_t digest[20];
        char text[41];
        mn_cli_sha1_begin(&sha);
        mn_cli_sha1_add(&sha, known[i].message, strlen(known[i].message));
        mn_cli_sha1_end(&sha, digest);
        for (unsigned b = 0; b < 20; b++)
            snprintf(text + 2 * b, 3, "%02x", digest[b]);
        assert_string_equal(text, known[i].digest);
    }
}

static void sha1_in_pieces(void **state)
{
    char message[300];
    memset(message, 'm', sizeof message);
    for (size_t n = 0; n <= sizeof message; n++) {
        struct mn_cli_sha1 whole, pieces;
        uint8_t a[20], b[20];
        mn_cli_sha1_begin(&whole);
        mn_cli_sha1_add(&whole, message, n);
        mn_cli_sha1_end(&whole, a);
        mn_cli_sha1_begin(&pieces);
        for (size_t at = 0, step = 1; at < n; at += step, step = step * 3 % 71) {
            step = step < n - at ? step : n - at;
            mn_cli_sha1_add(&pieces, message + at, step);
        }
        mn_cli_sha1_end(&pieces, b);
        assert_memory_equal(a, b, sizeof a);
    }
}

/* RFC 4122's DNS namespace; the UUID of "python.org" is a value that many libraries give in their manuals. */
static void uuid_as_published(void **state)
{
    struct mn_cli_sha1 sha;
    uint8_t namespace[16];
    char text[37];
    assert_true(mn_cli_sha1_parse_uuid("6ba7b810-9dad-11d1-80b4-00c04fd430c8", namespace));
    mn_cli_sha1_begin(&sha);
    mn_cli_sha1_add(&sha, namespace, sizeof namespace);
    mn_cli_sha1_add(&sha, "python.org", 10);
    mn_cli_sha1_uuid(&sha, text);
    assert_string_equal(text, "886313e1-3b8a-5372-9b90-0c9aee199e5d");
}

static void half_floats(void **state)
{
    static const struct {
        uint16_t half;
        float value;
    } known[] = {{0x0000, 0},         {0x3c00, 1},           {0xc000, -2},
                 {0x7bff, 65504},     {0x3555, 0.33325195f}, {0x0001, 0x1p-24f},
                 {0x8001, -0x1p-24f}, {0x0400, 0x1p-14f},    {0x03ff, 0x1.ff8p-15f}};
    for (size_t i = 0; i < MN_ARRAY_LEN(known); i++)
        assert_true(mn_cli_vector_from_half(known[i].half) == known[i].value);
    assert_true(signbit(mn_cli_vector_from_half(0x8000)) != 0);
    assert_true(isinf(mn_cli_vector_from_half(0x7c00)));
    assert_true(isnan(mn_cli_vector_from_half(0x7e00)));
}

static void quantiles_are_right_to_one_percent(void **state)
{
    struct mn_cli_hist *hist = calloc(1, sizeof *hist);
    assert_non_null(hist);
    assert_int_equal(mn_cli_hist_quantile(hist, 0.5), 0);
    for (uint64_t i = 1; i <= 100000; i++)
        mn_cli_hist_add(hist, i * 1000);
    static const double shares[] = {0.001, 0.01, 0.5, 0.9, 0.99, 0.999};
    for (size_t i = 0; i < MN_ARRAY_LEN(shares); i++) {
        double exact = shares[i] * 1e8, found = (double)mn_cli_hist_quantile(hist, shares[i]);
        assert_true(found >= exact && found <= exact * 1.01);
    }
    assert_int_equal(mn_cli_hist_quantile(hist, 1), 100000000);
    mn_cli_hist_add(hist, UINT64_MAX);
    assert_true(mn_cli_hist_quantile(hist, 1) == UINT64_MAX);
    free(hist);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(base64_as_published), cmocka_unit_test(base64_of_all_bytes),
        cmocka_unit_test(base64_is_strict),    cmocka_unit_test(sha1_as_published),
        cmocka_unit_test(sha1_in_pieces),      cmocka_unit_test(uuid_as_published),
        cmocka_unit_test(half_floats),         cmocka_unit_test(quantiles_are_right_to_one_percent),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
