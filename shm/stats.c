/*
 * stats.c - the statistics segment: a table that describes it, then one page per actor.
 */
#include "shm/stats.h"

#include <string.h>

static const struct mn_stat_info infos[MN_STAT_COUNT] = {
#define X(owner, name, kind, unit, help) [MN_STAT_##name] = {#owner, #name, #unit, help, MN_STAT_##kind},
#include "shm/stats.def"
#undef X
};

/* What stands in the segment for each statistic, for programs that were built against another table. */
struct descriptor {
    char name[48], owner[16], unit[16];
    uint32_t kind;
    uint32_t page_offset; /* of the value or histogram in each page */
};

/* Scalars first, one word each; then the histograms. */
#define COUNT_HISTOGRAM(owner, name, kind, unit, help) +(MN_STAT_##kind == MN_STAT_HISTOGRAM)
enum {
#define X COUNT_HISTOGRAM
    HISTOGRAMS = 0
#include "shm/stats.def"
#undef X
};
#define PAGE_BYTES                                                                                                     \
    ((sizeof(_Atomic uint64_t) * MN_STAT_COUNT + sizeof(struct mn_histogram) * HISTOGRAMS + 4095) / 4096 * 4096)

struct mn_stats_page {
    _Atomic uint64_t values[MN_STAT_COUNT];
    struct mn_histogram histograms[HISTOGRAMS];
};

struct stats_layout {
    struct mn_segment_header header;
    uint32_t stats, pages, page_bytes, descriptor_bytes;
    uint64_t pages_at;
    uint64_t spare[5];
    struct descriptor descriptors[MN_STAT_COUNT];
};

const struct mn_stat_info *mn_stat_info(enum mn_stat stat)
{
    return &infos[stat];
}

/* Index of a statistic among the histograms; counted once. */
static uint32_t histogram_index(enum mn_stat stat)
{
    static uint8_t index[MN_STAT_COUNT];
    static _Atomic int known;
    if (!atomic_load_explicit(&known, memory_order_acquire)) {
        uint8_t next = 0;
        for (int i = 0; i < MN_STAT_COUNT; i++)
            index[i] = infos[i].kind == MN_STAT_HISTOGRAM ? next++ : 0;
        atomic_store_explicit(&known, 1, memory_order_release);
    }
    return index[stat];
}

static uint64_t pages_at(void)
{
    return mn_round_up(sizeof(struct stats_layout), 4096);
}

uint64_t mn_stats_bytes(void)
{
    return pages_at() + PAGE_BYTES * MN_STATS_PAGES;
}

void mn_stats_layout(struct mn_stats *stats)
{
    struct stats_layout *layout = stats->segment.base;
    layout->stats = MN_STAT_COUNT;
    layout->pages = MN_STATS_PAGES;
    layout->page_bytes = (uint32_t)PAGE_BYTES;
    layout->descriptor_bytes = sizeof(struct descriptor);
    layout->pages_at = pages_at();
    for (int i = 0; i < MN_STAT_COUNT; i++) {
        struct descriptor *d = &layout->descriptors[i];
        strncpy(d->name, infos[i].name, sizeof d->name - 1);
        strncpy(d->owner, infos[i].owner, sizeof d->owner - 1);
        strncpy(d->unit, infos[i].unit, sizeof d->unit - 1);
        d->kind = infos[i].kind;
        size_t at = infos[i].kind == MN_STAT_HISTOGRAM
                        ? offsetof(struct mn_stats_page, histograms) +
                              histogram_index((enum mn_stat)i) * sizeof(struct mn_histogram)
                        : (size_t)i * sizeof(uint64_t);
        d->page_offset = (uint32_t)at;
    }
}

struct mn_stats_page *mn_stats_page(struct mn_stats *stats, uint32_t index)
{
    MN_ASSERT(index < MN_STATS_PAGES);
    return (struct mn_stats_page *)(void *)((char *)stats->segment.base + pages_at() + index * PAGE_BYTES);
}

void mn_stat_add(struct mn_stats_page *page, enum mn_stat stat, uint64_t n)
{
    if (page)
        atomic_fetch_add_explicit(&page->values[stat], n, memory_order_relaxed);
}

void mn_stat_set(struct mn_stats_page *page, enum mn_stat stat, uint64_t value)
{
    if (page)
        atomic_store_explicit(&page->values[stat], value, memory_order_relaxed);
}

/* 8 buckets per power of two: values below 8 are exact, above, the top three bits after the leading one choose. */
static uint32_t bucket_of(uint64_t value)
{
    if (value < 8)
        return (uint32_t)value;
    uint32_t exponent = 63 - (uint32_t)__builtin_clzll(value);
    return (exponent - 2) * 8 + (uint32_t)(value >> (exponent - 3) & 7);
}

static uint64_t bucket_top(uint32_t bucket)
{
    if (bucket < 8)
        return bucket;
    uint32_t exponent = bucket / 8 + 2;
    return ((uint64_t)(8 + bucket % 8 + 1) << (exponent - 3)) - 1;
}

void mn_stat_record(struct mn_stats_page *page, enum mn_stat stat, uint64_t value)
{
    if (!page)
        return;
    struct mn_histogram *h = &page->histograms[histogram_index(stat)];
    atomic_fetch_add_explicit(&h->buckets[bucket_of(value)], 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&h->sum, value, memory_order_relaxed);
    atomic_fetch_add_explicit(&h->count, 1, memory_order_relaxed);
    uint64_t max = atomic_load_explicit(&h->max, memory_order_relaxed);
    while (value > max &&
           !atomic_compare_exchange_weak_explicit(&h->max, &max, value, memory_order_relaxed, memory_order_relaxed)) {
    }
}

static const struct mn_stats_page *page_at(const struct mn_stats *stats, uint32_t index)
{
    return (const struct mn_stats_page *)(const void *)((const char *)stats->segment.base + pages_at() +
                                                        index * PAGE_BYTES);
}

static bool takes_largest(const char *name)
{
    size_t n = strlen(name);
    return (n > 8 && strcmp(name + n - 8, "_percent") == 0) || (n > 4 && strcmp(name + n - 4, "_lag") == 0);
}

uint64_t mn_stats_value(const struct mn_stats *stats, enum mn_stat stat)
{
    uint64_t sum = 0, largest = 0;
    for (uint32_t i = 0; i < MN_STATS_PAGES; i++) {
        uint64_t value = atomic_load_explicit(&page_at(stats, i)->values[stat], memory_order_relaxed);
        sum += value;
        if (value > largest)
            largest = value;
    }
    return takes_largest(infos[stat].name) ? largest : sum;
}

static uint64_t quantile(const uint64_t *buckets, uint64_t count, double q, uint64_t max)
{
    double at = q * (double)count;
    uint64_t rank = at < (double)(count - 1) ? (uint64_t)at : count - 1, seen = 0;
    for (uint32_t b = 0; b < MN_HISTOGRAM_BUCKETS; b++) {
        seen += buckets[b];
        if (seen > rank)
            return bucket_top(b) < max ? bucket_top(b) : max;
    }
    return max;
}

void mn_stats_summary(const struct mn_stats *stats, enum mn_stat stat, struct mn_stat_summary *summary)
{
    uint64_t buckets[MN_HISTOGRAM_BUCKETS] = {0};
    *summary = (struct mn_stat_summary){0};
    for (uint32_t i = 0; i < MN_STATS_PAGES; i++) {
        const struct mn_histogram *h = &page_at(stats, i)->histograms[histogram_index(stat)];
        if (atomic_load_explicit(&h->count, memory_order_relaxed) == 0)
            continue;
        summary->sum += atomic_load_explicit(&h->sum, memory_order_relaxed);
        uint64_t max = atomic_load_explicit(&h->max, memory_order_relaxed);
        if (max > summary->max)
            summary->max = max;
        for (uint32_t b = 0; b < MN_HISTOGRAM_BUCKETS; b++) {
            uint64_t n = atomic_load_explicit(&h->buckets[b], memory_order_relaxed);
            buckets[b] += n;
            summary->count += n;
        }
    }
    if (summary->count == 0)
        return;
    summary->p50 = quantile(buckets, summary->count, 0.50, summary->max);
    summary->p90 = quantile(buckets, summary->count, 0.90, summary->max);
    summary->p99 = quantile(buckets, summary->count, 0.99, summary->max);
    summary->p999 = quantile(buckets, summary->count, 0.999, summary->max);
}

void mn_stats_buckets(const struct mn_stats *stats, enum mn_stat stat, uint64_t buckets[MN_HISTOGRAM_BUCKETS])
{
    memset(buckets, 0, MN_HISTOGRAM_BUCKETS * sizeof *buckets);
    for (uint32_t i = 0; i < MN_STATS_PAGES; i++) {
        const struct mn_histogram *h = &page_at(stats, i)->histograms[histogram_index(stat)];
        if (atomic_load_explicit(&h->count, memory_order_relaxed) == 0)
            continue;
        for (uint32_t b = 0; b < MN_HISTOGRAM_BUCKETS; b++)
            buckets[b] += atomic_load_explicit(&h->buckets[b], memory_order_relaxed);
    }
}

uint64_t mn_stats_quantile(const uint64_t buckets[MN_HISTOGRAM_BUCKETS], double q)
{
    uint64_t count = 0;
    for (uint32_t b = 0; b < MN_HISTOGRAM_BUCKETS; b++)
        count += buckets[b];
    return count == 0 ? 0 : quantile(buckets, count, q, UINT64_MAX);
}
