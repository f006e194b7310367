/*
 * bench_write.h - a client of the bench that writes (bench_load.h runs it).
 */
#ifndef MNEME_OPS_CLI_BENCH_WRITE_H
#define MNEME_OPS_CLI_BENCH_WRITE_H

#include "ops/cli/bench_load.h"

/* What writers do. */
struct mn_bench_writer {
    const struct mn_bench_cluster *cluster;
    uint64_t batch, in_flight, content;
    double rate; /* memories/s of this client; 0: as many as go through */
    const float
        *rows; /* [row_count][dim]: what is written, from the beginning again, a little changed; NULL: anything */
    uint64_t row_count;
    bool ring; /* tell a prober */
    bool hash; /* sum up what was acknowledged */
};

/* A mn_bench_body; `work` is a struct mn_bench_writer. */
enum mn_status mn_bench_write(struct mn_bench_shared *shared, struct mn_bench_client *me, size_t index,
                              const void *work);

#endif
