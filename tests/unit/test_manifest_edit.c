/*
 * test_manifest_edit.c - an edit of the manifest as bytes: there and back, and no byte of it may change.
 */
#include "tests/unit/manifest_store.h"

#include <stdlib.h>

static void encode_and_decode(void **state)
{
    struct mn_manifest m, back;
    void *data;
    size_t bytes;
    manifest_state_make(&m, 9, 33);
    ok(mn_manifest_encode(&m, &data, &bytes));
    ok(mn_manifest_decode(&back, data, bytes));
    manifest_state_expect(&back, 9, 33);
    mn_manifest_free(&back);
    for (size_t cut = 0; cut < bytes; cut += 7)
        assert_int_equal(mn_manifest_decode(&back, data, cut), MN_CORRUPT);
    for (size_t at = 0; at < bytes; at++) {
        ((uint8_t *)data)[at] ^= 0x10;
        assert_int_equal(mn_manifest_decode(&back, data, bytes), MN_CORRUPT);
        ((uint8_t *)data)[at] ^= 0x10;
    }
    ok(mn_manifest_copy(&back, &m));
    manifest_state_expect(&back, 9, 33);
    mn_manifest_free(&back);
    mn_manifest_free(&m);
    free(data);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(encode_and_decode),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
