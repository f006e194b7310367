/*
 * cli_hist.h - a histogram of latencies: log-linear, 128 buckets per power of two, so every quantile is right to 0.8 %.
 *
 * Plain memory without pointers: it may lie in memory shared between processes, with one writer; read it when the
 * writer is done.
 */
#ifndef MNEME_OPS_CLI_CLI_HIST_H
#define MNEME_OPS_CLI_CLI_HIST_H

#include <stdint.h>

enum { MN_CLI_HIST_BITS = 7, MN_CLI_HIST_BUCKETS = (64 - MN_CLI_HIST_BITS + 1) << MN_CLI_HIST_BITS };

struct mn_cli_hist {
    uint64_t count, sum, max;
    uint64_t buckets[MN_CLI_HIST_BUCKETS];
};

void mn_cli_hist_add(struct mn_cli_hist *hist, uint64_t value);
void mn_cli_hist_merge(struct mn_cli_hist *into, const struct mn_cli_hist *from);
/* The value that a share of 0..1 of all values does not exceed (the bucket's upper end, at most the maximum); 0 when
 * empty. */
uint64_t mn_cli_hist_quantile(const struct mn_cli_hist *hist, double share);

#endif
