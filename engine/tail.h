/*
 * tail.h - tail chunks: the rows of one log segment in shared memory (layout: engine/shared.h).
 *
 * The writer (or recovery) fills rows and publishes them with one release-store of `rows`; readers map the chunk
 * read-only.
 */
#ifndef MN_ENGINE_TAIL_H
#define MN_ENGINE_TAIL_H

#include "engine/part.h"
#include "engine/record.h"
#include "engine/store.h"
#include "shm/instance.h"

struct mn_tail {
    struct mn_segment segment;
    struct mn_tail_header *header; /* the writer's mapping is writable */
    struct mn_tail_row *rows;
    _Atomic uint32_t *id_buckets, *string_buckets;
    uint8_t *arena;
    uint64_t arena_used;
    uint32_t filled; /* rows filled; header->rows of them are published */
    uint64_t instance_gen;
    int dir_fd;              /* the instance's, for more pages */
    uint32_t rows_reserved;  /* those that have their pages */
    uint64_t arena_reserved; /* bytes of the arena that have */
};

/* Makes tail.<instance_gen>.<wal_number> with room for every row that a log segment of wal_bytes can hold. Rows and
 * arena get their pages piece by piece, as they are filled; MN_READ_ONLY when /dev/shm is full. */
enum mn_status mn_tail_create(struct mn_tail *tail, struct mn_instance *instance, uint32_t dim, uint64_t wal_bytes,
                              uint64_t instance_gen, uint64_t wal_number) MN_MUST_USE;
/* Maps an existing one. */
enum mn_status mn_tail_map(struct mn_tail *tail, struct mn_instance *instance, uint64_t instance_gen,
                           uint64_t wal_number, bool writable) MN_MUST_USE;
void mn_tail_unmap(struct mn_tail *tail);
/* Unlinks a chunk that was made and is not going to be published. */
void mn_tail_remove(struct mn_instance *instance, uint64_t instance_gen, uint64_t wal_number);
/* Its name in the instance's folder. */
void mn_tail_name(char name[64], uint64_t instance_gen, uint64_t wal_number);

/* Makes sure that so many more rows, and bytes of the arena, have their pages: what fits fills without a failure then.
 * MN_READ_ONLY when /dev/shm is full. */
enum mn_status mn_tail_reserve(struct mn_tail *tail, uint32_t rows, uint64_t arena) MN_MUST_USE;
/* The number of a string, entered when new. MN_TOO_LARGE when the arena is full (cannot happen for strings of the log
 * segment). */
enum mn_status mn_tail_intern(struct mn_tail *tail, struct mn_str s, uint32_t *number) MN_MUST_USE;
/* Bytes of strings and tag lists that still fit: a string takes its length + 24 at most, a tag list 4 a tag + 4. */
uint64_t mn_tail_arena_left(const struct mn_tail *tail);
/* Copies a row (hash set, next and tags_at not) and its tag numbers into the next free place and links it into its
 * bucket; *row is its number. Not visible before mn_tail_publish. */
enum mn_status mn_tail_fill(struct mn_tail *tail, const struct mn_tail_row *values, const uint32_t *tags,
                            uint32_t tag_count, uint32_t *row) MN_MUST_USE;
/* Fills the row of a PUT record that stands at `offset` of the log segment: the one way from a record to a row, for the
 * writer and for recovery alike. */
enum mn_status mn_tail_add_record(struct mn_tail *tail, const struct mn_record *record, uint64_t offset,
                                  uint32_t *row) MN_MUST_USE;
/* Makes the first `rows` rows, which are filled, visible to whoever reads `rows` with acquire. */
void mn_tail_publish(struct mn_tail *tail, uint32_t rows, uint64_t last_seq);

/* The chunk as a part; wal: the mapped log segment it indexes. Rows as published now. */
void mn_tail_part(const struct mn_tail *tail, const uint8_t *wal, uint64_t wal_bytes, uint32_t dim,
                  struct mn_part *part);

/* Liveness files live.<gen>.<segment>: made with every word `died[i]` (NULL: MN_ALIVE), and mapped. */
enum mn_status mn_live_create(struct mn_segment *segment, struct mn_instance *instance, uint64_t gen,
                              uint64_t column_segment, uint64_t rows, const uint64_t *died) MN_MUST_USE;
enum mn_status mn_live_map(struct mn_segment *segment, struct mn_instance *instance, uint64_t gen,
                           uint64_t column_segment, uint64_t rows, bool writable) MN_MUST_USE;

#endif
