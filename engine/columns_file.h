/*
 * columns_file.h - one file of a column segment: its layout, writing it as a stream, mapping and checking it.
 *
 * File = header (256 bytes) | data, padded with zeros to 64 bytes | CRC32C of each 64 KiB block of padded data | CRC32C
 * of those. The header's own checksum covers its first 252 bytes. Block checksums are seeded with the store's uuid,
 * segment, column and block number, so that a block of another place does not pass. Every byte of a file is under one
 * of the three. Numbers are little-endian. Used by the columns_*.c files only.
 */
#ifndef MN_ENGINE_COLUMNS_FILE_H
#define MN_ENGINE_COLUMNS_FILE_H

#include "engine/store.h"

/* name, number on disk (written by hand, never reused), file, bytes of an element (0: not of one size; DIM: an
 * embedding), whether it is checked whole when a segment is opened. */
#define MN_COLUMN_DIM UINT32_MAX
#define MN_COLUMN_TABLE(X)                                                                                             \
    X(IDS, 1, "ids", 24, true)                                                                                         \
    X(SPACES, 2, "spaces", 4, true)                                                                                    \
    X(BORN, 3, "born", 8, true)                                                                                        \
    X(TIMES, 4, "times", 8, true)                                                                                      \
    X(EXPIRES, 5, "expires", 8, true)                                                                                  \
    X(CONFIDENCE, 6, "confidence", 4, true)                                                                            \
    X(SCALE, 7, "scale", 4, true)                                                                                      \
    X(EMBEDDINGS, 8, "embeddings", MN_COLUMN_DIM, false)                                                               \
    X(TAGS, 9, "tags", 0, true)                                                                                        \
    X(META, 10, "meta", 0, false)                                                                                      \
    X(CONTENT, 11, "content", 0, false)                                                                                \
    X(STRINGS, 12, "strings", 0, true)                                                                                 \
    X(IDHASH, 13, "idhash", 0, true)                                                                                   \
    X(POSTINGS, 14, "postings", 0, true)                                                                               \
    X(DIED, 15, "died", 8, true)                                                                                       \
    X(METAINDEX, 16, "metaindex", 0, true)

/* Later liveness is kept twice: died.<seq>.col, and under this name. */
#define MN_DIED_COPY "died-copy."

/* Files of the same layout that are no columns: what is derived from them, codebooks (whose `segment` is their
 * generation), and what columns are mended with (columns_parity.h). */
#define MN_COLUMN_DERIVED_TABLE(X)                                                                                     \
    X(IVF, 32, "ivf", 0, false)                                                                                        \
    X(CODEBOOK, 33, "codebook", 0, true)                                                                               \
    X(PARITY, 34, "parity", 0, false)

#define X(name, number, file, element, whole) MN_COLUMN_##name,
enum mn_column { MN_COLUMN_TABLE(X) MN_COLUMN_DERIVED_TABLE(X) MN_COLUMN_KINDS, MN_COLUMN_COUNT = MN_COLUMN_IVF };
#undef X

struct mn_column_info {
    uint32_t number;
    const char *name;
    uint32_t element; /* bytes, 0 or MN_COLUMN_DIM */
    bool whole;
};
extern const struct mn_column_info mn_column_info[MN_COLUMN_KINDS];

#define MN_COLUMN_BLOCK (64u << 10)
#define MN_COLUMN_MAGIC UINT64_C(0x314c4f434d454e4d) /* "MNEMCOL1" */

struct mn_column_header {
    uint64_t magic;
    uint32_t version; /* MN_FORMAT_VERSION */
    uint32_t header_bytes;
    uint8_t uuid[16];
    uint64_t segment;
    uint32_t column; /* mn_column_info.number */
    uint32_t element_bytes;
    uint64_t rows;       /* elements: rows of the segment, strings of the dictionary, lists of postings */
    uint64_t data_bytes; /* without the padding */
    uint64_t extra;      /* idhash: buckets; died: the seq it holds liveness as of */
    uint32_t dim;
    uint32_t block_bytes;
    uint8_t spare[172]; /* zeros */
    uint32_t checksum;  /* CRC32C of the bytes before */
};
_Static_assert(sizeof(struct mn_column_header) == 256, "the header of a column file");

/* Columns of variable elements (tags, meta, content, strings): the elements' bytes, zeros up to a multiple of 8, then
 * uint64_t start[rows + 1]. The two top bits of a start are flags of that element. */
#define MN_COLUMN_FLAG_BIN    (UINT64_C(1) << 63) /* content is msgpack bin */
#define MN_COLUMN_FLAG_NONE   (UINT64_C(1) << 62) /* no content was given */
#define MN_COLUMN_START(word) ((word) & ~(MN_COLUMN_FLAG_BIN | MN_COLUMN_FLAG_NONE))

/* An element of the directory at the end of postings.col, [2][strings]: first of spaces, then of tags. */
struct mn_posting_entry {
    uint64_t at; /* byte offset in the data, a multiple of 32 */
    uint32_t bytes;
    uint32_t rows; /* 0: no bitmap */
};

/* Blocks that `bytes` of data take. */
static inline uint64_t mn_column_blocks(uint64_t bytes)
{
    return (mn_round_up(bytes, 64) + MN_COLUMN_BLOCK - 1) / MN_COLUMN_BLOCK;
}

/* ---- writing ---- */

/* A file being written: a buffer of MN_SINK_BYTES, checksums as it empties, written back as it goes, so that the last
 * sync is short and the log's syncs never wait behind gigabytes. */
#define MN_SINK_BYTES (1u << 20)

struct mn_column_sink {
    const struct mn_io *io;
    int fd; /* -1: not open */
    struct mn_column_header header;
    uint8_t *buffer;
    uint32_t buffered;
    uint64_t written; /* bytes of data */
    uint32_t *checksums;
    uint64_t blocks, blocks_max;
    uint32_t seed;
    bool branch; /* the file is another's */
};

/* Makes `path`. On failure there is nothing to close. */
enum mn_status mn_column_sink_open(struct mn_column_sink *sink, const struct mn_store *store, uint64_t segment,
                                   enum mn_column column, const char *path) MN_MUST_USE;
enum mn_status mn_column_sink_append(struct mn_column_sink *sink, const void *data, uint64_t bytes) MN_MUST_USE;
/* Zeros up to a multiple of `to`. */
enum mn_status mn_column_sink_align(struct mn_column_sink *sink, uint32_t to) MN_MUST_USE;
static inline uint64_t mn_column_sink_at(const struct mn_column_sink *sink)
{
    return sink->written + sink->buffered;
}
/* A second stream into the file of `trunk`, for data that begins at `at`, a multiple of MN_COLUMN_BLOCK. Both are
 * appended to, in any order; closed like a sink, before or after the trunk. */
enum mn_status mn_column_sink_branch(struct mn_column_sink *branch, const struct mn_column_sink *trunk,
                                     uint64_t at) MN_MUST_USE;
/* Ends the branch, a multiple of 64 bytes: zeros fill the trunk up to where it began, and what the branch has written
 * becomes the trunk's. Only mn_column_sink_end may follow. */
enum mn_status mn_column_sink_join(struct mn_column_sink *trunk, struct mn_column_sink *branch) MN_MUST_USE;
/* Writes what is left, checksums and header. The file is whole then, but not synced; the buffer is freed. */
enum mn_status mn_column_sink_end(struct mn_column_sink *sink, uint64_t rows, uint64_t extra) MN_MUST_USE;
enum mn_status mn_column_sink_sync(struct mn_column_sink *sink) MN_MUST_USE;
/* Closes the file, ended or not; harmless on one that is not open. */
void mn_column_sink_close(struct mn_column_sink *sink);
uint64_t mn_column_sink_file_bytes(const struct mn_column_sink *sink);

/* ---- reading ---- */

struct mn_column_file {
    const struct mn_io *io;
    const uint8_t *base; /* NULL: not mapped */
    void *image; /* bytes made again from parity, owned: header, data and table lie there; NULL: they are mapped */
    uint64_t file_bytes;
    const struct mn_column_header *header;
    const uint8_t *data;
    uint64_t data_bytes, blocks;
    const uint32_t *checksums;
    uint32_t seed;
    _Atomic bool scattered; /* see mn_column_file_scatter */
};

/* Maps a file and checks its header, its length and its table of checksums, but no data. MN_CORRUPT names the path; a
 * missing file is MN_NOT_FOUND. */
enum mn_status mn_column_file_map(struct mn_column_file *file, const struct mn_store *store, uint64_t segment,
                                  enum mn_column column, const char *path) MN_MUST_USE;
void mn_column_file_unmap(struct mn_column_file *file);
/* The seeds of a file's checksums, and of one of its blocks. */
uint32_t mn_column_seed(const struct mn_store *store, uint64_t segment, enum mn_column column);
static inline uint32_t mn_column_block_seed(uint32_t seed, uint64_t block)
{
    return seed ^ ((uint32_t)block * 2654435761u);
}
/* True when the block's bytes are what was written; false too when the disk does not give them. */
bool mn_column_file_intact(const struct mn_column_file *file, uint64_t block);
/* For files that do not all stay in memory: from `from` on (a place in the data) a page that is touched is read alone,
 * not with its neighbours; and whoever knows that more will be touched says so with mn_column_file_ahead, which asks
 * the disk and does not wait (and does nothing for other files). */
void mn_column_file_scatter(struct mn_column_file *file, uint64_t from);
void mn_column_file_ahead(const struct mn_column_file *file, uint64_t at, uint64_t bytes);
/* What was checked and will hardly be read again need not stay in this process's memory: whole pages of the data from
 * `at` to `end`. */
void mn_column_file_let_go(const struct mn_column_file *file, uint64_t at, uint64_t end);
/* MN_CORRUPT when any block is not intact. */
enum mn_status mn_column_file_check(const struct mn_column_file *file, const char *path) MN_MUST_USE;

#endif
