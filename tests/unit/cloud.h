/*
 * cloud.h - exact searches against the plainest one, over rows that make it hard.
 *
 * Rows lie in clusters, a quarter of them twice or more often, so that ties are common. Versions are born and dead at
 * any seq, expired or not; few different times, ids in two spaces. The same is asked of the rows with no codes and one
 * by one; through codes; and among other queries, all searched together: in every instruction set the answers must be
 * the same to the last bit.
 */
#ifndef MN_TESTS_CLOUD_H
#define MN_TESTS_CLOUD_H

#include "engine/recall_batch.h"
#include "tests/unit/fake_parts.h"

#define CLOUD_SEQ     10
#define CLOUD_CENTERS 30
#define CLOUD_SETS    3 /* of instructions */

struct cloud {
    enum mn_metric metric;
    uint32_t dim, rows;
    uint64_t random;
    float *vectors, *centers, *embedding; /* embedding: of the last question */
    struct fake_memory *memories;
    const struct fake_memory **list;
    struct fake_parts *parts;
    struct mn_search plain, coded[CLOUD_SETS]; /* kernels NULL: not on this CPU */
    struct mn_batch *batch[CLOUD_SETS];
    uint64_t spared, scanned, asked;
};

struct cloud *cloud_new(enum mn_metric metric, uint32_t dim, uint32_t rows);
void cloud_free(struct cloud *c);
uint32_t cloud_below(struct cloud *c, uint32_t n);
/* A row of some cluster. */
void cloud_fill(struct cloud *c, float *x);
/* Columns on two codebooks, a sealed tail chunk by cluster, and a growing one: flat, its newest rows not coded. */
void cloud_make_parts(struct cloud *c);
/* An exact query by c->embedding: a row, or one that lies near some. */
struct mn_query cloud_question(struct cloud *c, uint32_t k);
/* Asks every way; the others in the batch are like the query, and one is the same. */
void cloud_ask(struct cloud *c, const struct mn_query *query, uint64_t seq);
/* The same of `count` embeddings of `stride` floats each. */
void cloud_ask_together(struct cloud *c, const struct mn_query *query, uint64_t seq, const float *embeddings,
                        size_t stride, uint32_t count);
/* Of what was scanned one by one, so much must not have needed its embedding: else nothing was tested. */
void cloud_assert_spared(const struct cloud *c, double share);

#endif
