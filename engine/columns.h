/*
 * columns.h - a column segment: a folder of immutable column files, written once by the compactor, mapped by readers.
 *
 * Files in columns/<id>/: embeddings ids spaces born times expires confidence scale (one fixed-size element a row), tags meta
 * content (offsets + bytes), strings (the dictionary), idhash (open addressing, row + 1), postings (roaring bitmaps per string), died
 * (liveness it was born with) and died.<seq> (later ones); all with suffix .col. Rows are sorted by (at, id).
 * File = 256-byte header (magic, format version, store uuid, segment id, column, rows, element bytes, dim, data bytes, checksum) |
 * data | CRC32C per 64 KiB block of data | CRC32C of those. Small columns are checked whole when a segment is opened;
 * embeddings, meta and content block by block at the first touch by each process.
 */
#ifndef MN_ENGINE_COLUMNS_H
#define MN_ENGINE_COLUMNS_H

#include "engine/part.h"
#include "engine/store.h"

/* ---- reading ---- */

/* Maps a segment. deep: check every block of every column now. MN_CORRUPT names the file that is damaged or missing. */
enum mn_status mn_columns_open(struct mn_columns **columns, const struct mn_store *store, uint64_t segment,
                               bool deep) MN_MUST_USE;
void mn_columns_close(struct mn_columns *columns);

/* Fills the column side of a part (died is the caller's to set: it is in shared memory). */
void mn_columns_part(const struct mn_columns *columns, struct mn_part *part);

/* The column side of the accessors of part.h; same contracts. */
enum mn_status mn_columns_meta(const struct mn_columns *columns, uint32_t row, struct mn_str *meta) MN_MUST_USE;
enum mn_status mn_columns_content(const struct mn_columns *columns, uint32_t row, struct mn_str *content,
                                  bool *bin) MN_MUST_USE;
uint32_t mn_columns_tags(const struct mn_columns *columns, uint32_t row, const uint32_t **tags);
uint32_t mn_columns_lookup(const struct mn_columns *columns, struct mn_str s);
struct mn_str mn_columns_string(const struct mn_columns *columns, uint32_t number);
uint32_t mn_columns_find_first(const struct mn_columns *columns, struct mn_part_find *find);
uint32_t mn_columns_find_next(const struct mn_columns *columns, struct mn_part_find *find);

/* Rows of a string (a space or a tag) as a frozen roaring bitmap (const roaring_bitmap_t *) in the mapping, or NULL. */
const void *mn_columns_postings(const struct mn_columns *columns, uint32_t string);

/* Bytes of the embeddings column, and how many of them are in the page cache now (mincore). */
void mn_columns_residency(const struct mn_columns *columns, uint64_t *bytes, uint64_t *resident);

/* Copies the newest durable liveness of a segment into died[rows]: died.<died_seq>.col, or died.col when died_seq is 0. */
enum mn_status mn_columns_read_died(const struct mn_store *store, uint64_t segment, uint64_t died_seq, uint64_t rows,
                                    uint64_t *died) MN_MUST_USE;
/* Writes died.<died_seq>.col and syncs it and its folder. */
enum mn_status mn_columns_write_died(const struct mn_store *store, uint64_t segment, uint64_t died_seq, uint64_t rows,
                                     const _Atomic uint64_t *died) MN_MUST_USE;

/* Checks every checksum of every file of a segment; calls `damaged` for each bad piece, goes on, adds to files and bytes. */
typedef void (*mn_damage_fn)(void *context, const char *path, const char *what);
enum mn_status mn_columns_verify(const struct mn_store *store, uint64_t segment, uint64_t *files, uint64_t *bytes,
                                 mn_damage_fn damaged, void *context) MN_MUST_USE;

#endif
