/*
 * compact_sort.c - the order of the output: keys sorted by (at, id, born).
 *
 * Column segments are sorted already and log segments nearly are, so the keys come as few long runs: a natural merge
 * sort takes about one pass per doubling of runs, reads in order and needs one spare array.
 */
#include <stdlib.h>

#include "engine/compact_inside.h"

static int compare(const struct mn_compact_build *b, const struct mn_compact_key *x, const struct mn_compact_key *y)
{
    if (x->at != y->at)
        return x->at < y->at ? -1 : 1;
    const struct mn_part *p = b->inputs[x->input].part, *q = b->inputs[y->input].part;
    int order = mn_id_compare(mn_part_id(p, x->row), mn_part_id(q, y->row));
    if (order != 0)
        return order;
    uint64_t born = mn_part_born(p, x->row), other = mn_part_born(q, y->row);
    return born == other ? 0 : born < other ? -1 : 1;
}

/* Where the run that begins at `begin` ends. */
static uint64_t run_end(const struct mn_compact_build *b, const struct mn_compact_key *keys, uint64_t begin)
{
    uint64_t end = begin + 1;
    while (end < b->key_count && compare(b, &keys[end - 1], &keys[end]) <= 0)
        end++;
    return end;
}

static void merge(const struct mn_compact_build *b, const struct mn_compact_key *from, uint64_t begin, uint64_t middle,
                  uint64_t end, struct mn_compact_key *to)
{
    uint64_t left = begin, right = middle, at = begin;
    while (left < middle && right < end)
        to[at++] = compare(b, &from[left], &from[right]) <= 0 ? from[left++] : from[right++];
    memcpy(to + at, from + left, (middle - left) * sizeof *to);
    memcpy(to + at + (middle - left), from + right, (end - right) * sizeof *to);
}

/* Merges neighbouring runs into `to`; false when `from` was one run already (and `to` is not touched). */
static bool merge_pass(const struct mn_compact_build *b, const struct mn_compact_key *from, struct mn_compact_key *to)
{
    uint64_t begin = 0, middle = run_end(b, from, 0);
    if (middle == b->key_count)
        return false;
    while (begin < b->key_count) {
        uint64_t end = middle < b->key_count ? run_end(b, from, middle) : middle;
        merge(b, from, begin, middle, end, to);
        begin = end;
        middle = begin < b->key_count ? run_end(b, from, begin) : begin;
    }
    return true;
}

enum mn_status mn_compact_sort(struct mn_compact_build *build)
{
    if (build->key_count == 0)
        return MN_OK;
    struct mn_compact_key *keys = build->keys, *spare = malloc(build->key_count * sizeof *spare);
    if (!spare)
        return MN_FAIL(MN_SYSTEM, "no memory to sort %llu rows", (unsigned long long)build->key_count);
    while (merge_pass(build, keys, spare)) {
        struct mn_compact_key *sorted = spare;
        spare = keys;
        keys = sorted;
    }
    build->keys = keys;
    free(spare);
    return MN_OK;
}
