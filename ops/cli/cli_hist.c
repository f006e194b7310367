/*
 * cli_hist.c - log-linear histograms, after HdrHistogram.
 */
#include "ops/cli/cli_hist.h"

/* Values below 2^BITS have a bucket each; above, the leading BITS + 1 bits choose it. */
static unsigned bucket_of(uint64_t value)
{
    if (value < 1u << MN_CLI_HIST_BITS)
        return (unsigned)value;
    unsigned shift = 63u - (unsigned)__builtin_clzll(value) - MN_CLI_HIST_BITS;
    return (shift + 1) * (1u << MN_CLI_HIST_BITS) + (unsigned)((value >> shift) & ((1u << MN_CLI_HIST_BITS) - 1));
}

static uint64_t top_of(unsigned bucket)
{
    unsigned group = bucket >> MN_CLI_HIST_BITS;
    uint64_t low = bucket & ((1u << MN_CLI_HIST_BITS) - 1);
    if (group == 0)
        return low;
    unsigned shift = group - 1;
    return ((low + (1u << MN_CLI_HIST_BITS)) << shift) + ((1ull << shift) - 1);
}

void mn_cli_hist_add(struct mn_cli_hist *hist, uint64_t value)
{
    hist->buckets[bucket_of(value)]++;
    hist->count++;
    hist->sum += value;
    if (value > hist->max)
        hist->max = value;
}

void mn_cli_hist_merge(struct mn_cli_hist *into, const struct mn_cli_hist *from)
{
    for (unsigned i = 0; i < MN_CLI_HIST_BUCKETS; i++)
        into->buckets[i] += from->buckets[i];
    into->count += from->count;
    into->sum += from->sum;
    if (from->max > into->max)
        into->max = from->max;
}

uint64_t mn_cli_hist_quantile(const struct mn_cli_hist *hist, double share)
{
    uint64_t seen = 0, wanted = (uint64_t)(share * (double)hist->count + 0.999999);
    if (hist->count == 0)
        return 0;
    wanted = wanted < 1 ? 1 : wanted > hist->count ? hist->count : wanted;
    for (unsigned i = 0; i < MN_CLI_HIST_BUCKETS; i++) {
        seen += hist->buckets[i];
        if (seen >= wanted)
            return top_of(i) < hist->max ? top_of(i) : hist->max;
    }
    return hist->max;
}
