/*
 * stats.h - counters, gauges and histograms in shared memory: one page per actor, one writer per page.
 *
 * Writers add with relaxed atomics on their own page; readers sum over pages and may be a moment behind, which harms
 * nobody. The segment describes itself (a table of names, kinds, units and offsets behind its header), so that a
 * program which was compiled against another version can still show it.
 */
#ifndef MN_SHM_STATS_H
#define MN_SHM_STATS_H

#include "shm/layout.h"
#include "shm/segment.h"
#include "shm/status.h"

#define X(owner, name, kind, unit, help) MN_STAT_##name,
enum mn_stat {
#include "shm/stats.def"
    MN_STAT_COUNT
};
#undef X

enum mn_stat_kind { MN_STAT_COUNTER, MN_STAT_GAUGE, MN_STAT_HISTOGRAM };

/* Log-linear buckets: 8 per power of two, so a quantile is right to 12.5 %. */
#define MN_HISTOGRAM_BUCKETS 496

struct mn_histogram {
    _Atomic uint64_t count, sum, max;
    _Atomic uint64_t buckets[MN_HISTOGRAM_BUCKETS];
};

struct mn_stat_info {
    const char *owner, *name, *unit, *help;
    enum mn_stat_kind kind;
};
const struct mn_stat_info *mn_stat_info(enum mn_stat stat);

struct mn_stats_page; /* one actor's values */

struct mn_stats {
    struct mn_segment segment;
};

/* Bytes of a stats segment; lays out descriptors and MN_STATS_PAGES pages (supervisor, before publishing). */
uint64_t mn_stats_bytes(void);
void mn_stats_layout(struct mn_stats *stats);

/* Page `index` (a role slot number); the caller is its only writer. A restarted role goes on with its slot's page. */
struct mn_stats_page *mn_stats_page(struct mn_stats *stats, uint32_t index);

void mn_stat_add(struct mn_stats_page *page, enum mn_stat stat, uint64_t n);
void mn_stat_set(struct mn_stats_page *page, enum mn_stat stat, uint64_t value);
/* Adds one value to a histogram. A page may be shared by the threads of its role: all adds are atomic. */
void mn_stat_record(struct mn_stats_page *page, enum mn_stat stat, uint64_t value);

/* Over all pages: counters and gauges summed (gauges named *_percent and *_lag: the largest). */
uint64_t mn_stats_value(const struct mn_stats *stats, enum mn_stat stat);

struct mn_stat_summary {
    uint64_t count, sum, max, p50, p90, p99, p999;
};
void mn_stats_summary(const struct mn_stats *stats, enum mn_stat stat, struct mn_stat_summary *summary);

/* A histogram's buckets over all pages; and a quantile (0..1) of such buckets, or of the difference between two looks
 * at them: what happened in between. 0 when they are empty. */
void mn_stats_buckets(const struct mn_stats *stats, enum mn_stat stat, uint64_t buckets[MN_HISTOGRAM_BUCKETS]);
uint64_t mn_stats_quantile(const uint64_t buckets[MN_HISTOGRAM_BUCKETS], double q);

#endif
