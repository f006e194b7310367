/*
 * compactor_load.c - recalls per second and their p99, window by window. See compactor_load.h.
 */
#include "actors/compactor_load.h"

#include <string.h>

void mn_load_note(struct mn_load *load, uint64_t requests, const uint64_t buckets[MN_HISTOGRAM_BUCKETS],
                  uint64_t now_ns)
{
    if (load->began_ns != 0) {
        uint64_t between[MN_HISTOGRAM_BUCKETS], took = now_ns - load->began_ns;
        if (took < MN_LOAD_WINDOW_NS)
            return;
        for (uint32_t b = 0; b < MN_HISTOGRAM_BUCKETS; b++)
            between[b] = buckets[b] - load->buckets[b];
        load->rate = (requests - load->requests) * 1000000000u / took;
        load->p99_us = mn_stats_quantile(between, 0.99);
    }
    load->began_ns = now_ns;
    load->requests = requests;
    memcpy(load->buckets, buckets, sizeof load->buckets);
}

void mn_load_look(struct mn_load *load, const struct mn_stats *stats, uint64_t now_ns)
{
    uint64_t buckets[MN_HISTOGRAM_BUCKETS];
    if (load->began_ns != 0 && now_ns - load->began_ns < MN_LOAD_WINDOW_NS)
        return;
    mn_stats_buckets(stats, MN_STAT_recall_us, buckets);
    mn_load_note(load, mn_stats_value(stats, MN_STAT_recall_requests), buckets, now_ns);
}

bool mn_load_suffers(const struct mn_load *load, const struct mn_settings *settings)
{
    return load->p99_us * 1000 > settings->compact_idle_p99;
}

bool mn_load_idle(const struct mn_load *load, const struct mn_settings *settings)
{
    return load->rate < settings->compact_idle_recalls && !mn_load_suffers(load, settings);
}
