/*
 * fake_world.h - a small random store and random questions about it, with the plainest possible answers.
 *
 * The rows go into parts (fake_parts.h); the answers come from the rows' own fields, by loops that share no code with
 * the engine. Everything follows from a seed.
 */
#ifndef MN_TESTS_FAKE_WORLD_H
#define MN_TESTS_FAKE_WORLD_H

#include "engine/query.h"
#include "tests/unit/fake_parts.h"

#define FAKE_ROWS_MAX 2000
#define FAKE_DIM      19 /* odd on purpose */

/* What a memory's meta says, as the model sees it. */
struct fake_meta {
    bool has_number, has_word, has_deep;
    double number; /* written as an integer when it is one and `as_float` does not forbid it */
    bool as_float;
    const char *word;
    int64_t deep; /* {"a": {"b": deep}} */
};

struct fake_world {
    uint64_t random;
    uint64_t seq; /* the newest */
    int64_t now;
    uint32_t count;
    struct fake_memory memories[FAKE_ROWS_MAX];
    struct fake_meta metas[FAKE_ROWS_MAX]; /* of memories[i] */
    float vectors[FAKE_ROWS_MAX][FAKE_DIM];
    uint8_t meta_bytes[FAKE_ROWS_MAX][96];
    struct fake_parts *parts;
};

/* A scope and what its pointers need. */
struct fake_scope {
    struct mn_scope scope;
    struct mn_str spaces[4], tags[3][3];
    struct mn_id ids[12];
    struct mn_where where[2];
    struct mn_str values[2][3];
    uint8_t value_bytes[2][3][32];
};

/* `count` rows (versions included) over tails and, if `columns`, column segments. Free with fake_world_free. */
struct fake_world *fake_world_new(uint64_t seed, enum mn_metric metric, uint32_t count, bool columns);
void fake_world_free(struct fake_world *world);

uint64_t fake_random(struct fake_world *world);
uint32_t fake_below(struct fake_world *world, uint32_t n); /* uniform enough, 0..n-1 */
float fake_float(struct fake_world *world);                /* -1..1 */

/* A random scope: sometimes everything, often a few conditions. */
void fake_scope_make(struct fake_world *world, struct fake_scope *out);

/* The model: whether memory i is visible, and matches. */
bool fake_visible(const struct fake_world *world, uint32_t i, uint64_t seq, int64_t now);
bool fake_matches(const struct fake_world *world, uint32_t i, const struct mn_scope *scope);
/* The index of what a row was made of. */
uint32_t fake_index(const struct fake_world *world, uint32_t part, uint32_t row);

#endif
