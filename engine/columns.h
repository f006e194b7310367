/*
 * columns.h - a column segment: a folder of immutable column files, written once by the compactor, mapped by readers.
 *
 * Files in columns/<id>/: embeddings ids spaces born times expires confidence scale (one fixed-size element a row),
 * tags meta content (bytes, then offsets), strings (the dictionary, sorted), idhash (rows by bucket of their id's
 * hash), postings (roaring bitmaps per string), metaindex (rows by the values of their meta, meta_index.h), died
 * (liveness it was born with) and died.<seq> (later ones); all with suffix .col. Rows are sorted by (at, id). The
 * layout of a file is in columns_file.h. Small columns are checked whole when an instance first opens a segment;
 * embeddings, meta and content block by block at the first touch by each process; everything by the scrubber, in time.
 *
 * All threads of a process share one mapping of a segment (and its record of what was checked): opening it a second
 * time costs a look-up.
 */
#ifndef MN_ENGINE_COLUMNS_H
#define MN_ENGINE_COLUMNS_H

#include "engine/part.h"
#include "engine/store.h"

/* ---- writing ---- */

#define MN_COLUMNS_ROWS_MAX (1u << 30)

/* One row to be. space and tags are numbers of strings[] below. */
struct mn_columns_row {
    struct mn_id id;
    uint32_t space;
    uint64_t born, died; /* died: see mn_died_make */
    int64_t at, expires;
    float confidence, scale;
    const float *vector; /* dim floats, any alignment */
    const uint32_t *tags;
    uint32_t tag_count;
    struct mn_str meta;    /* compact; length 0 = none */
    struct mn_str content; /* data NULL = none */
    bool content_bin;
};

struct mn_columns_writer;

/* Begins columns/<segment>.tmp for exactly `rows` rows (1..MN_COLUMNS_ROWS_MAX). strings: the dictionary, sorted by
 * bytes, no two equal; it must live until the end. What an earlier attempt left under that name is removed. */
enum mn_status mn_columns_create(struct mn_columns_writer **writer, const struct mn_store *store, uint64_t segment,
                                 uint32_t rows, const struct mn_str *strings, uint32_t string_count) MN_MUST_USE;
/* Rows come in order of (at, id). Everything is copied. */
enum mn_status mn_columns_append(struct mn_columns_writer *writer, const struct mn_columns_row *row) MN_MUST_USE;
/* Writes the rest, syncs every file and the folder, renames it to columns/<segment> and syncs columns/; *bytes: of its
 * files. Frees the writer, whatever it returns; after a failure nothing is left of the segment. */
enum mn_status mn_columns_finish(struct mn_columns_writer *writer, uint64_t *bytes) MN_MUST_USE;
/* Gives a segment up and removes its folder. */
void mn_columns_abandon(struct mn_columns_writer *writer);

/* ---- reading ---- */

/* How much of a segment is checked when it is opened; headers, lengths and tables of checksums always are. */
enum mn_columns_check {
    MN_COLUMNS_CHECK = 0, /* the small columns whole */
    MN_COLUMNS_DEEP = 1,  /* every block of every column */
    MN_COLUMNS_TRUST = 2  /* no data: somebody has checked the small columns in this instance (mn_live.checked) */
};

/* Maps a segment. Small columns that are damaged are made again in memory where parity.col has what it takes, and
 * indexes that are lost are done without: mn_columns_mended tells. MN_CORRUPT, beyond that (DEEP: of any damage), names
 * the file that is damaged or missing. */
enum mn_status mn_columns_open(struct mn_columns **columns, const struct mn_store *store, uint64_t segment,
                               enum mn_columns_check check) MN_MUST_USE;
void mn_columns_close(struct mn_columns *columns);

/* True when files of the segment are damaged and others who open it must look for themselves (no MN_COLUMNS_TRUST). */
bool mn_columns_mended(const struct mn_columns *columns);

/* A page of the segment could not be read (engine/guard.h). `covers`: whether an address lies in its files. `fail`: who
 * opens it from now on in this process gets a new mapping, checked anew; those who have it open see `failed`. */
bool mn_columns_covers(const struct mn_columns *columns, const void *address);
void mn_columns_fail(struct mn_columns *columns);
bool mn_columns_failed(const struct mn_columns *columns);

/* True when more embeddings are mapped by this process than memory holds: then mn_part_ahead asks the disk for rows,
 * all at once, without waiting; else it does nothing. */
bool mn_columns_scattered(void);

/* Fills the column side of a part (died and dead are the caller's to set: they are in shared memory). */
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

/* The rows that lie in a space, or carry a tag (one string may be both): a frozen roaring bitmap (const
 * roaring_bitmap_t *) over the mapping, valid while the segment is open; not to be freed. NULL when no row does
 * (mn_columns_posting_rows is 0) or the postings cannot be read: then look at the rows themselves. */
enum mn_posting { MN_POSTING_SPACE = 0, MN_POSTING_TAG = 1 };
const void *mn_columns_postings(const struct mn_columns *columns, enum mn_posting kind, uint32_t string);
/* How many rows that is: costs one load. 0 for MN_NONE. */
uint32_t mn_columns_posting_rows(const struct mn_columns *columns, enum mn_posting kind, uint32_t string);

/* The index of meta (engine/meta_index.h); valid while the segment is open. */
struct mn_meta_index;
const struct mn_meta_index *mn_columns_meta_index(const struct mn_columns *columns);

/* True when a block has failed its checksum at first touch, in this process, since the segment was opened. */
bool mn_columns_damaged(const struct mn_columns *columns);

/* Bytes of the embeddings column, and how many of them are in the page cache now (mincore). */
void mn_columns_residency(const struct mn_columns *columns, uint64_t *bytes, uint64_t *resident);

/* Copies the newest durable liveness of a segment into died[rows]: died.<died_seq>.col, or its copy where that is
 * damaged, or died.col when died_seq is 0, made again from parity where that is damaged. */
enum mn_status mn_columns_read_died(const struct mn_store *store, uint64_t segment, uint64_t died_seq, uint64_t rows,
                                    uint64_t *died) MN_MUST_USE;
/* Writes died.<died_seq>.col, twice, and syncs both and their folder. */
enum mn_status mn_columns_write_died(const struct mn_store *store, uint64_t segment, uint64_t died_seq, uint64_t rows,
                                     const _Atomic uint64_t *died) MN_MUST_USE;

/* Checks every checksum of every file of a segment; calls `damaged` for each bad piece, goes on, adds to files and
 * bytes. */
typedef void (*mn_damage_fn)(void *context, const char *path, const char *what);
enum mn_status mn_columns_verify(const struct mn_store *store, uint64_t segment, uint64_t *files, uint64_t *bytes,
                                 mn_damage_fn damaged, void *context) MN_MUST_USE;

#endif
