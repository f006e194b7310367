/*
 * test_rowset.c - engine/rowset: every operation against plain loops, over bitmaps of each kind of container.
 */
#include "engine/rowset.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>
#include <roaring/roaring.h>

#include "engine/kernels.h"

#define ROWS_MAX 200000u

static uint64_t bits[ROWS_MAX / 64 + 2], other[ROWS_MAX / 64 + 2];
static uint8_t model[ROWS_MAX + 64];
static uint32_t listed[ROWS_MAX];
static uint64_t state = 1;

static uint32_t below(uint32_t n)
{
    state = state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)(state >> 33) % n;
}

static void expect(uint32_t rows)
{
    uint64_t words = mn_rowset_words(rows), count = 0;
    for (uint32_t r = 0; r < rows; r++) {
        if (mn_rowset_has(bits, r) != model[r])
            fail_msg("row %u of %u should%s be there", r, rows, model[r] ? "" : " not");
        count += model[r];
    }
    assert_int_equal(mn_rowset_count(bits, words), count);
    assert_int_equal(mn_rowset_list(bits, words, listed), count);
    for (uint32_t i = 0; i < count; i++)
        assert_true(model[listed[i]] && (i == 0 || listed[i] > listed[i - 1]));
}

static void clear(void)
{
    memset(bits, 0, sizeof bits);
    memset(model, 0, sizeof model);
}

/* Rows of every sort: few (arrays), many (bits), neighbours (runs). */
static roaring_bitmap_t *some_rows(uint32_t rows, uint8_t *into)
{
    roaring_bitmap_t *bitmap = roaring_bitmap_create();
    uint32_t kind = below(3), n = kind == 0 ? below(50) : kind == 1 ? rows / 3 : 1 + below(5);
    for (uint32_t i = 0; i < n; i++) {
        uint32_t first = below(rows), length = kind == 2 ? 1 + below(rows - first) : 1;
        for (uint32_t r = first; r < first + length; r++) {
            roaring_bitmap_add(bitmap, r);
            into[r] = 1;
        }
    }
    roaring_bitmap_run_optimize(bitmap);
    return bitmap;
}

static void bitmaps_are_added(void **unused)
{
    for (int turn = 0; turn < 60; turn++) {
        uint32_t rows = 1 + below(ROWS_MAX);
        clear();
        for (int i = 0; i < 2; i++) {
            roaring_bitmap_t *bitmap = some_rows(rows, model);
            mn_rowset_add(bits, mn_rowset_words(rows), bitmap);
            roaring_bitmap_free(bitmap);
        }
        expect(rows);
    }
}

static void rows_behind_the_last_word_are_left_out(void **unused)
{
    const uint32_t words[] = {1, 2, 1023, 1024, 1025, 3000};
    for (size_t w = 0; w < MN_ARRAY_LEN(words); w++) {
        for (int kind = 0; kind < 3; kind++) {
            roaring_bitmap_t *bitmap = roaring_bitmap_create();
            clear();
            for (uint32_t r = 0; r < ROWS_MAX; r += kind == 0 ? 1000 : kind == 1 ? 2 : 1) {
                roaring_bitmap_add(bitmap, r);
                model[r] = r < 64 * words[w];
            }
            roaring_bitmap_run_optimize(bitmap);
            mn_rowset_add(bits, words[w], bitmap);
            roaring_bitmap_free(bitmap);
            expect(ROWS_MAX);
        }
    }
}

static void sets_are_joined(void **unused)
{
    for (int turn = 0; turn < 40; turn++) {
        static uint8_t wanted[ROWS_MAX + 64];
        uint32_t rows = 1 + below(ROWS_MAX);
        uint64_t words = mn_rowset_words(rows);
        clear();
        memset(wanted, 0, sizeof wanted);
        memset(other, 0, sizeof other);
        roaring_bitmap_t *a = some_rows(rows, model), *b = some_rows(rows, wanted);
        mn_rowset_add(bits, words, a);
        mn_rowset_add(other, words, b);
        if (turn % 2 == 0)
            mn_rowset_and(bits, other, words);
        else
            mn_rowset_and_not(bits, other, words);
        for (uint32_t r = 0; r < rows; r++)
            model[r] = model[r] && wanted[r] == (turn % 2 == 0);
        roaring_bitmap_free(a);
        roaring_bitmap_free(b);
        expect(rows);
    }
}

static void ranges_are_filled_and_trimmed(void **unused)
{
    for (int turn = 0; turn < 300; turn++) {
        uint32_t rows = 1 + below(turn % 3 == 0 ? 130 : 3000), first = below(rows + 1), end = below(rows + 1);
        uint64_t words = mn_rowset_words(rows);
        clear();
        if (turn % 2 == 0)
            mn_rowset_fill(bits, words, 0, rows);
        mn_rowset_trim(bits, words, first, end);
        if (turn % 2 == 1)
            mn_rowset_fill(bits, words, first, end);
        for (uint32_t r = first; r < end; r++)
            model[r] = 1;
        expect(rows);
    }
}

static void values_are_compared(void **unused)
{
    static float values[5000];
    static const float special[] = {0, -0.0f, NAN, INFINITY, -INFINITY, 0.5f, 0.50000006f, 1e-40f};
    for (int turn = 0; turn < 200; turn++) {
        uint32_t rows = 1 + below(turn % 2 ? 5000 : 200);
        float least = turn % 3 ? 0.5f : special[below(MN_ARRAY_LEN(special))];
        clear();
        for (uint32_t r = 0; r < rows; r++) {
            values[r] = below(4) == 0 ? special[below(MN_ARRAY_LEN(special))] : (float)below(1000) / 1000;
            model[r] = below(3) > 0;
            bits[r / 64] |= (uint64_t)model[r] << (r % 64);
        }
        mn_rowset_at_least(bits, mn_rowset_words(rows), values, rows, least);
        for (uint32_t r = 0; r < rows; r++)
            model[r] = model[r] && values[r] >= least;
        expect(rows);
    }
}

static void sets_are_asked(void **unused)
{
    for (int round = 0; round < 300; round++) {
        uint32_t rows = 33 + below(3000), first, end, wanted[32];
        clear();
        for (uint32_t r = 0; r < rows; r++) {
            model[r] = below(40) == 0;
            bits[r / 64] |= (uint64_t)model[r] << (r % 64);
        }
        first = below(rows);
        end = first + below(rows - first + 1);
        bool any = false;
        for (uint32_t r = first; r < end; r++)
            any = any || model[r];
        assert_int_equal(mn_rowset_any(bits, first, end), any);
        uint32_t count = round % 2 ? 32 : 1 + below(32), slice = 0, which = 0;
        first = below(rows - 32);
        for (uint32_t i = 0; i < count; i++) {
            wanted[i] = below(rows);
            slice |= (uint32_t)model[first + i] << i;
            which |= (uint32_t)model[wanted[i]] << i;
        }
        assert_int_equal(mn_rowset_slice(bits, first, count), slice);
        assert_int_equal(mn_rowset_has_which(bits, wanted, count), which);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bitmaps_are_added),   cmocka_unit_test(rows_behind_the_last_word_are_left_out),
        cmocka_unit_test(sets_are_joined),     cmocka_unit_test(ranges_are_filled_and_trimmed),
        cmocka_unit_test(values_are_compared), cmocka_unit_test(sets_are_asked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
