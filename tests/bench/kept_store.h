/*
 * kept_store.h - the store under a bench of recalls: column segments with a codebook and codes over rows from a file,
 * made once, kept in a folder from run to run, and opened as the parts of a snapshot.
 *
 * For programs of one thread that run once: what fails ends the program with a sentence, and what is opened stays open.
 */
#ifndef MNEME_TESTS_BENCH_KEPT_STORE_H
#define MNEME_TESTS_BENCH_KEPT_STORE_H

#include "engine/ivf_file.h"
#include "engine/recall.h"

#define KEPT_PARTS_MAX 32

/* The first five are set by the program; the rest is here after kept_store_open. */
struct kept_store {
    const char *folder;
    uint32_t dim, rows, part_count;
    uint32_t clusters; /* 0: as many as the engine would make */
    struct mn_store store;
    struct mn_part parts[KEPT_PARTS_MAX];
    _Atomic uint64_t dead; /* none */
    _Atomic uint32_t tuning[MN_TUNING_WORDS];
};

/* The rows of one segment, of which the program knows more than their vectors: appends `rows` rows from `first` on. */
typedef void kept_write_fn(void *context, struct mn_columns_writer *writer, uint32_t first, uint32_t rows);

/* What every segment's columns are created with: the names of tags and spaces in their order, and its rows. */
struct kept_rows {
    const float *base; /* [rows][dim], of any length but 0 */
    const struct mn_str *names;
    uint32_t name_count;
    kept_write_fn *write;
    void *context;
};

/* The first row of a part; of the part behind the last: how many rows there are. */
uint32_t kept_store_first(const struct kept_store *kept, uint32_t part);
/* Makes it where the folder holds none; cosine. What it took goes to stderr. */
void kept_store_need(struct kept_store *kept, const struct kept_rows *rows);
/* Opens it, checked, and touches every row and code. */
void kept_store_open(struct kept_store *kept);
/* Learns how far recalls must look; kept->tuning has it. `points` as in tune.h, or NULL. */
struct mn_tuning kept_store_calibrate(struct kept_store *kept, struct mn_tune_point *points);
/* All of it, as a search wants it. */
struct mn_snapshot kept_store_snapshot(const struct kept_store *kept);

/* ---- for such programs */

/* Ends the program unless `good`: `what`, and the trail of the engine's failure. */
void kept_must(bool good, const char *what);
double kept_now_us(void);
/* Memory for vectors. */
void *kept_need(size_t bytes);
/* Raw floats of a file, at most *rows rows (0: all there are), which becomes how many they are. */
float *kept_load(const char *path, uint32_t dim, uint32_t *rows);
double kept_norm(const float *x, uint32_t dim);
/* Whether an argument is NAME=VALUE. */
bool kept_option(const char *argument, const char *name, const char **value);

#endif
