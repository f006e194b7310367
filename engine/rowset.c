/*
 * rowset.c - see rowset.h.
 *
 * Bitmaps are read container by container, past the library's iterators: a container of bits is a run of words as it
 * is, and of an array or a run each row is one operation.
 */
#include "engine/rowset.h"

#include <roaring/roaring.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "engine/kernels.h"

#define CONTAINER_WORDS 1024 /* 65,536 rows */

/* ---- joining ---- */

/* `bits` begins at the container's first row; `room` words are there. */
static void add_bitset(uint64_t *bits, uint64_t room, const bitset_container_t *container)
{
    uint64_t words = room < CONTAINER_WORDS ? room : CONTAINER_WORDS;
    for (uint64_t w = 0; w < words; w++)
        bits[w] |= container->array[w];
}

static void add_array(uint64_t *bits, uint64_t room, const array_container_t *container)
{
    int32_t count = container->cardinality;
    while (count > 0 && container->array[count - 1] / 64u >= room)
        count--;
    for (int32_t i = 0; i < count; i++) {
        uint32_t row = container->array[i];
        bits[row / 64] |= UINT64_C(1) << (row % 64);
    }
}

static void add_range(uint64_t *bits, uint64_t first, uint64_t end)
{
    if (first >= end)
        return;
    uint64_t low = first / 64, high = (end - 1) / 64;
    uint64_t head = ~UINT64_C(0) << (first % 64), tail = ~UINT64_C(0) >> (63 - (end - 1) % 64);
    if (low == high) {
        bits[low] |= head & tail;
        return;
    }
    bits[low] |= head;
    memset(bits + low + 1, 0xff, (high - low - 1) * sizeof *bits);
    bits[high] |= tail;
}

static void add_runs(uint64_t *bits, uint64_t room, const run_container_t *container)
{
    for (int32_t i = 0; i < container->n_runs; i++) {
        uint64_t first = container->runs[i].value, end = first + container->runs[i].length + 1;
        add_range(bits, first, end < room * 64 ? end : room * 64);
    }
}

void mn_rowset_add(uint64_t *bits, uint64_t words, const void *bitmap)
{
    const roaring_array_t *all = &((const roaring_bitmap_t *)bitmap)->high_low_container;
    for (int32_t i = 0; i < all->size; i++) {
        uint64_t at = (uint64_t)all->keys[i] * CONTAINER_WORDS;
        if (at >= words)
            break;
        switch (all->typecodes[i]) {
        case BITSET_CONTAINER_TYPE_CODE:
            add_bitset(bits + at, words - at, all->containers[i]);
            break;
        case ARRAY_CONTAINER_TYPE_CODE:
            add_array(bits + at, words - at, all->containers[i]);
            break;
        default:
            add_runs(bits + at, words - at, all->containers[i]);
        }
    }
}

void mn_rowset_and(uint64_t *bits, const uint64_t *other, uint64_t words)
{
    for (uint64_t w = 0; w < words; w++)
        bits[w] &= other[w];
}

void mn_rowset_and_not(uint64_t *bits, const uint64_t *other, uint64_t words)
{
    for (uint64_t w = 0; w < words; w++)
        bits[w] &= ~other[w];
}

void mn_rowset_fill(uint64_t *bits, uint64_t words, uint32_t first, uint32_t end)
{
    memset(bits, 0, words * sizeof *bits);
    add_range(bits, first, end);
}

void mn_rowset_trim(uint64_t *bits, uint64_t words, uint32_t first, uint32_t end)
{
    if (first >= end) {
        memset(bits, 0, words * sizeof *bits);
        return;
    }
    uint64_t low = first / 64, high = (end - 1) / 64;
    memset(bits, 0, low * sizeof *bits);
    bits[low] &= ~UINT64_C(0) << (first % 64);
    bits[high] &= ~UINT64_C(0) >> (63 - (end - 1) % 64);
    memset(bits + high + 1, 0, (words - high - 1) * sizeof *bits);
}

/* ---- numbers ---- */

/* Of up to 64 rows. */
static uint64_t compare_plain(const float *values, uint32_t count, float least)
{
    uint64_t mask = 0;
    for (uint32_t i = 0; i < count; i++)
        mask |= (uint64_t)(values[i] >= least) << i;
    return mask;
}

static void at_least_portable(uint64_t *bits, uint64_t words, const float *values, float least)
{
    for (uint64_t w = 0; w < words; w++) {
        if (bits[w])
            bits[w] &= compare_plain(values + 64 * w, 64, least);
    }
}

#if defined(__x86_64__)
__attribute__((target("avx2"))) static void at_least_avx2(uint64_t *bits, uint64_t words, const float *values,
                                                          float least)
{
    __m256 bound = _mm256_set1_ps(least);
    for (uint64_t w = 0; w < words; w++) {
        uint64_t mask = 0;
        if (!bits[w])
            continue;
        for (unsigned i = 0; i < 64; i += 8) {
            __m256 reached = _mm256_cmp_ps(_mm256_loadu_ps(values + 64 * w + i), bound, _CMP_GE_OQ);
            mask |= (uint64_t)(uint32_t)_mm256_movemask_ps(reached) << i;
        }
        bits[w] &= mask;
    }
}

__attribute__((target("avx512f"))) static void at_least_avx512(uint64_t *bits, uint64_t words, const float *values,
                                                               float least)
{
    __m512 bound = _mm512_set1_ps(least);
    for (uint64_t w = 0; w < words; w++) {
        uint64_t mask = 0;
        if (!bits[w])
            continue;
        for (unsigned i = 0; i < 64; i += 16) {
            __mmask16 reached = _mm512_cmp_ps_mask(_mm512_loadu_ps(values + 64 * w + i), bound, _CMP_GE_OQ);
            mask |= (uint64_t)reached << i;
        }
        bits[w] &= mask;
    }
}
#endif

static void at_least(uint64_t *bits, uint64_t words, const float *values, float least)
{
#if defined(__x86_64__)
    if (mn_kernels_best() == &mn_kernels_avx512) {
        at_least_avx512(bits, words, values, least);
        return;
    }
    if (mn_kernels_best() == &mn_kernels_avx2) {
        at_least_avx2(bits, words, values, least);
        return;
    }
#endif
    at_least_portable(bits, words, values, least);
}

void mn_rowset_at_least(uint64_t *bits, uint64_t words, const float *values, uint32_t rows, float least)
{
    uint64_t whole = rows / 64u < words ? rows / 64u : words;
    at_least(bits, whole, values, least);
    if (whole < words && bits[whole])
        bits[whole] &= compare_plain(values + 64 * whole, rows % 64, least);
}

/* ---- asking ---- */

bool mn_rowset_any(const uint64_t *bits, uint64_t first, uint64_t end)
{
    if (first >= end)
        return false;
    uint64_t low = first / 64, high = (end - 1) / 64;
    uint64_t head = ~UINT64_C(0) << (first % 64), tail = ~UINT64_C(0) >> (63 - (end - 1) % 64);
    if (low == high)
        return (bits[low] & head & tail) != 0;
    uint64_t any = (bits[low] & head) | (bits[high] & tail);
    for (uint64_t w = low + 1; w < high; w++)
        any |= bits[w];
    return any != 0;
}

static uint32_t which_portable(const uint64_t *bits, const uint32_t *rows, uint32_t count)
{
    uint32_t which = 0;
    for (uint32_t i = 0; i < count; i++)
        which |= (uint32_t)mn_rowset_has(bits, rows[i]) << i;
    return which;
}

#if defined(__x86_64__)
/* In words of 32 rows. */
__attribute__((target("avx512f"))) static uint32_t which_avx512(const uint64_t *bits, const uint32_t *rows)
{
    uint32_t which = 0;
    for (unsigned i = 0; i < 32; i += 16) {
        __m512i row = _mm512_loadu_si512(rows + i), one = _mm512_set1_epi32(1);
        __m512i words = _mm512_i32gather_epi32(_mm512_srli_epi32(row, 5), bits, 4);
        __m512i bit = _mm512_sllv_epi32(one, _mm512_and_si512(row, _mm512_set1_epi32(31)));
        which |= (uint32_t)_mm512_test_epi32_mask(words, bit) << i;
    }
    return which;
}
#endif

uint32_t mn_rowset_has_which(const uint64_t *bits, const uint32_t *rows, uint32_t count)
{
#if defined(__x86_64__)
    if (count == 32 && mn_kernels_best() == &mn_kernels_avx512)
        return which_avx512(bits, rows);
#endif
    return which_portable(bits, rows, count);
}

/* ---- counting and listing ---- */

static uint64_t count_portable(const uint64_t *bits, uint64_t words)
{
    uint64_t count = 0;
    for (uint64_t w = 0; w < words; w++)
        count += (uint64_t)__builtin_popcountll(bits[w]);
    return count;
}

#if defined(__x86_64__)
__attribute__((target("popcnt"))) static uint64_t count_popcnt(const uint64_t *bits, uint64_t words)
{
    uint64_t sums[4] = {0}, w = 0;
    for (; w + 4 <= words; w += 4) {
        for (unsigned i = 0; i < 4; i++)
            sums[i] += (uint64_t)__builtin_popcountll(bits[w + i]);
    }
    for (; w < words; w++)
        sums[0] += (uint64_t)__builtin_popcountll(bits[w]);
    return sums[0] + sums[1] + sums[2] + sums[3];
}
#endif

uint64_t mn_rowset_count(const uint64_t *bits, uint64_t words)
{
#if defined(__x86_64__)
    if (mn_kernels_best() != &mn_kernels_portable) /* each of the others has popcnt */
        return count_popcnt(bits, words);
#endif
    return count_portable(bits, words);
}

uint32_t mn_rowset_list(const uint64_t *bits, uint64_t words, uint32_t *rows)
{
    uint32_t n = 0;
    for (uint64_t w = 0; w < words; w++) {
        for (uint64_t left = bits[w]; left; left &= left - 1)
            rows[n++] = (uint32_t)(64 * w + (uint64_t)__builtin_ctzll(left));
    }
    return n;
}
