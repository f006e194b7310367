/*
 * fake_parts.h - a snapshot made by hand: tail chunks in plain memory, column segments in a temporary folder.
 *
 * Tests of filters, recall and reads say which rows exist and get parts as a reader would show them, with no log, no
 * writer and no shared memory.
 */
#ifndef MN_TESTS_FAKE_PARTS_H
#define MN_TESTS_FAKE_PARTS_H

#include "engine/codebook.h"
#include "engine/reader.h"

#define FAKE_TAGS_MAX 6

/* One version of a memory. */
struct fake_memory {
    const char *space;
    struct mn_id id;
    uint64_t born, died; /* died: mn_died_make or MN_ALIVE */
    int64_t at, expires;
    float confidence;
    const float *vector; /* dim floats */
    const char *tags[FAKE_TAGS_MAX];
    uint32_t tag_count;
    struct mn_str meta;    /* compact; length 0 = none */
    struct mn_str content; /* data NULL = none */
    bool content_bin;
};

struct fake_parts;

struct fake_parts *fake_parts_new(uint32_t dim, enum mn_metric metric);
void fake_parts_free(struct fake_parts *fakes);

/* Adds a part with these rows; the memories must live as long as the parts. A column segment sorts its rows. A part
 * added later is an older one. */
void fake_parts_tail(struct fake_parts *fakes, const struct fake_memory *const *rows, uint32_t count);
void fake_parts_columns(struct fake_parts *fakes, const struct fake_memory *const *rows, uint32_t count);

/* Trains codebook `gen` on the rows of all parts added so far (gen 0: the plain one, as it is). The parts' until they
 * are freed. */
const struct mn_codebook *fake_parts_codebook(struct fake_parts *fakes, uint64_t gen, uint32_t clusters);
/* Codes the first `rows` rows of a part in memory: by cluster, or flat; replaces what it had. */
void fake_parts_code(struct fake_parts *fakes, uint32_t part, uint32_t rows, const struct mn_codebook *codebook,
                     bool flat);
/* Codes a part of columns whole, in a file, and opens it; damage: bytes of its 8-bit codes that are flipped before. */
void fake_parts_code_file(struct fake_parts *fakes, uint32_t part, const struct mn_codebook *codebook, uint32_t damage);
/* Takes a part's codes away. */
void fake_parts_uncode(struct fake_parts *fakes, uint32_t part);

/* All parts added so far. Valid until another is added. */
struct mn_snapshot fake_parts_snapshot(struct fake_parts *fakes, uint64_t seq, int64_t now);
/* What a row was made of. */
const struct fake_memory *fake_parts_memory(const struct fake_parts *fakes, uint32_t part, uint32_t row);

struct mn_str fake_str(const char *text);
struct mn_id fake_id(uint64_t number);

#endif
