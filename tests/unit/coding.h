/*
 * coding.h - for tests of the coder of tail chunks: a store's tail, its coder, and the codes that must come of it, made
 * here row by row. /dev/shm is full when a test says so.
 */
#ifndef MN_TESTS_UNIT_CODING_H
#define MN_TESTS_UNIT_CODING_H

#include "tests/unit/store_fixture.h"

#include "engine/reader.h"
#include "engine/tail_coder.h"
#include "engine/tail_codes.h"

#define CODING_WIDTH 64u

/* Each thread has its own: the keeper, which prepares log segments in a thread of the fixture's writer, has room. */
extern _Thread_local bool coding_shm_full;
extern _Thread_local uint32_t coding_reservations;

struct coding {
    struct fixture *f;
    struct mn_tail_coder *coder;
    struct mn_reader *reader;
    struct mn_snapshot snapshot;
    uint64_t now;
};

struct coding coding_new(void);
void coding_free(struct coding *t);

/* The coder dies, and another goes on. */
void coding_another_coder(struct coding *t);
/* Turns until there is nothing to do. */
void coding_code_all(struct coding *t);

/* Writes memories `first` and on in one batch; ends the active chunk. */
void coding_put(struct coding *t, uint64_t first, uint64_t count);
void coding_seal(struct coding *t);

/* The newest part of a new pin. */
const struct mn_part *coding_pin(struct coding *t);

/* The files of codes (list.names is the caller's), how many, and the only one. */
struct mn_codes_list coding_files(struct fixture *f);
uint32_t coding_count_files(struct fixture *f);
struct mn_codes_name coding_only_file(struct fixture *f);
uint64_t coding_statistic(struct fixture *f, enum mn_stat stat);

/* The codes of one row, made here. */
struct coding_expected {
    _Alignas(64) uint8_t block[4 * CODING_WIDTH + sizeof(struct mn_ivf_lanes)];
    _Alignas(64) uint8_t codes8[CODING_WIDTH];
    struct mn_ivf_fine fine;
};

void coding_expect_row(const struct fixture *f, const struct mn_part *part, uint32_t row, uint32_t lane,
                       const float *centroid, struct coding_expected *e);

/* Every block and slot of what is flat: of a part from its first row on, or of these codes. */
void coding_check_flat(const struct fixture *f, const struct mn_part *part);
void coding_check_flat_of(const struct fixture *f, const struct mn_part *part, const struct mn_ivf *ivf);

#endif
