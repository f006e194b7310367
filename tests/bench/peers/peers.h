/*
 * peers.h - one measurement for all engines: the same rows, the same queries, the same clock, the same judge.
 *
 * An engine is a struct of functions. It is opened on the data (which builds it, or takes up what an earlier run left
 * in its folder), tuned to an effort, and asked one query after the other by the thread that opened it.
 */
#ifndef MNEME_TESTS_BENCH_PEERS_H
#define MNEME_TESTS_BENCH_PEERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define PEER_K     10
#define PEER_MANY  16 /* engines, and knobs of one */
#define PEER_SPARE 64 /* of the queries: asked before a timed run, never timed */

/* Rows and queries of unit length (cosine). Queries lie `stride` floats apart, 64-byte aligned. */
struct peer_data {
    uint32_t dim, stride;
    uint64_t rows, queries;
    const void *base; /* mapped */
    bool half;        /* base holds f16, else f32 */
    float *query;
    float *worst; /* of each query: the similarity of its k-th nearest row */
    const char *name;
};
/* Maps rows and reads queries (.f32 or .f16, raw, little-endian); `rows` and `queries` 0: all there are. Ends the
 * program when it cannot. */
void peer_data_open(struct peer_data *data, const char *base, const char *queries_path, uint32_t dim, uint64_t rows,
                    uint64_t queries);
void peer_data_close(struct peer_data *data);
/* Row i at unit length into out[dim]. */
void peer_data_row(const struct peer_data *data, uint64_t i, float *out);
/* Fills `worst`, from `path` when an earlier run on the same data left it there, else by brute force. */
void peer_data_truth(struct peer_data *data, const char *path);
/* How many of the rows ids[count] belong to the k nearest of query q. Rows that tie with the k-th belong. */
uint32_t peer_data_found(const struct peer_data *data, uint64_t q, const uint32_t *ids, uint32_t count);

/* What an engine costs. Bytes are of all rows together; 0: does not apply. */
struct peer_cost {
    double load_s, build_s;
    double resident;        /* in memory: all of it */
    double resident_vector; /* of that: full embeddings, which may be left on disk */
    double disk;
};

struct peer {
    const char *name;
    char note[96];
    bool sweeps; /* the knob is an effort to be found, else it is the wanted recall itself */
    void *state;
    /* Both end the program with a sentence when something fails: a table with holes compares nothing. */
    void (*open)(struct peer *peer, const struct peer_data *data, const char *dir);
    void (*close)(struct peer *peer);
    void (*tune)(struct peer *peer, double knob);
    /* The k nearest as row numbers, best first; returns how many. *scanned: rows that were looked at. */
    uint32_t (*ask)(struct peer *peer, const float *query, uint32_t *ids, uint64_t *scanned);
    void (*cost)(struct peer *peer, struct peer_cost *cost);
};

extern const struct peer peer_mneme, peer_zeromq, peer_echo, peer_busy, peer_hnswlib, peer_usearch;

/* How the mneme engines get their store. Set before they are opened; strings outlive them. */
struct peer_mneme_options {
    const char *mnemed;
    const char *sets[PEER_MANY];
    size_t set_count;
    bool compact;        /* from the start; else from the build on, so that it is all of the build */
    int core;            /* that all of mnemed runs on; -1: anywhere */
    double index_wait_s; /* how long to wait for the index after the consolidation; 0: not at all */
};
extern struct peer_mneme_options peer_mneme_options;
/* What the mneme engines are made of, for a measurement of its own: starts mnemed on dir/store, writes rows [first,
 * end) of the data with their numbers + 1 as ids, compacts and waits for the index (false: it did not come in time). */
void peer_mneme_start(const struct peer_data *data, const char *dir);
void peer_mneme_load(uint64_t first, uint64_t end);
bool peer_mneme_build(void);
void peer_mneme_stop(void);
/* Microseconds that the last answer over ZeroMQ spent in its worker (set before each query of zmq-busy, which works as
 * long), and its bytes. */
extern double peer_zeromq_worker_us;
extern size_t peer_zeromq_reply_bytes;

/* ---- what all use ---- */

uint64_t peer_now_ns(void);
/* Processor time of this thread: what a build on one thread takes, whoever else uses the machine. */
uint64_t peer_cpu_ns(void);
/* Says so on stderr, and ends the program with status 1 in the second case. */
void peer_say(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void peer_die(const char *fmt, ...) __attribute__((format(printf, 1, 2), noreturn));
/* Bytes of anonymous memory that this process has in use now. */
double peer_anonymous(void);
/* A quantile of values, which it sorts. */
double peer_quantile(double *values, size_t count, double share);
/* Lengths of the regular files under a path. */
double peer_disk(const char *path);
/* Two numbers beside what was kept in a folder: seconds of the load and of the build. */
void peer_times_write(const char *dir, const char *engine, double load_s, double build_s);
bool peer_times_read(const char *dir, const char *engine, double *load_s, double *build_s);

#ifdef __cplusplus
}
#endif
#endif
