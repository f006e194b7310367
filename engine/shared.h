/*
 * shared.h - the engine's own shared segments, declared like those of shm/layout.h: tail chunks, liveness, codes,
 * views.
 *
 * A *tail chunk* indexes one log segment: they are born, sealed and retired together. It holds a row per memory in that
 * log segment (the embedding, content and meta stay in the mapped log), a hash table of ids, and a dictionary of the
 * space names and tags that its rows use. A *liveness* file holds the `died` word of each row of one column segment. A
 * *codes* file holds the rows of a tail chunk as codes (engine/tail_codes.h). A *view* is an immutable list of the
 * column segments and tail chunks that together are the store.
 */
#ifndef MN_ENGINE_SHARED_H
#define MN_ENGINE_SHARED_H

#include "engine/types.h"

#define MN_TAIL_ROW_FIELDS(F, L)                                                                                       \
    F(0, struct mn_id, id, , "writer")                                                                                 \
    F(24, uint64_t, born, , "writer: seq that wrote this version")                                                     \
    F(32, _Atomic uint64_t, died, , "writer: see mn_died_make; a stale MN_ALIVE is right for the reader's seq")        \
    F(40, int64_t, at, , "writer: time in ns since the epoch")                                                         \
    F(48, int64_t, expires, , "writer: MN_NEVER or ns since the epoch")                                                \
    F(56, uint32_t, space, , "writer: string number in the chunk's dictionary")                                        \
    F(60, float, confidence, , "writer")                                                                               \
    F(64, float, scale, , "writer: 1/|x| under cosine, else 1")                                                        \
    F(68, uint32_t, vector_at, , "writer: byte offset of the embedding in the log segment, 64-byte aligned")           \
    F(72, uint32_t, content_at, , "writer: byte offset of the content")                                                \
    F(76, uint32_t, content_bytes, , "writer: length | MN_CONTENT_BIN | MN_CONTENT_NONE")                              \
    F(80, uint32_t, meta_at, , "writer: byte offset of the compact meta")                                              \
    F(84, uint32_t, meta_bytes, , "writer: 0 = none")                                                                  \
    F(88, uint32_t, tags_at, , "writer: index of the first tag in the arena, as uint32_t[]")                           \
    F(92, uint32_t, tags_count, , "writer")                                                                            \
    F(96, _Atomic uint32_t, next, , "writer: older row of the same hash bucket, or MN_NONE")                           \
    F(100, uint32_t, record_at, , "writer: byte offset of the record header")                                          \
    F(104, uint64_t, hash, , "writer: mn_id_hash")                                                                     \
    F(112, uint8_t, spare, [16], "nobody")

#define MN_CONTENT_BIN           (1u << 31) /* content is msgpack bin, not str */
#define MN_CONTENT_NONE          (1u << 30) /* no content was given */
#define MN_CONTENT_LENGTH(bytes) ((bytes) & ~(MN_CONTENT_BIN | MN_CONTENT_NONE))

#define MN_TAIL_HEADER_FIELDS(F, L)                                                                                    \
    F(0, struct mn_segment_header, header, , "writer")                                                                 \
    F(128, uint64_t, wal_number, , "writer: the log segment that this chunk indexes")                                  \
    F(136, uint32_t, rows_max, , "writer")                                                                             \
    F(140, uint32_t, buckets, , "writer: a power of two, for ids and for strings each")                                \
    F(144, uint64_t, rows_at, , "writer: byte offset of mn_tail_row[rows_max]")                                        \
    F(152, uint64_t, id_buckets_at, , "writer: byte offset of _Atomic uint32_t[buckets], row + 1, 0 = empty")          \
    F(160, uint64_t, string_buckets_at, ,                                                                              \
      "writer: byte offset of _Atomic uint32_t[buckets], string number, 0 = empty")                                    \
    F(168, uint64_t, arena_at, , "writer: byte offset of the arena: strings and tag lists")                            \
    F(176, uint64_t, arena_max, , "writer: bytes")                                                                     \
    L(192, _Atomic uint32_t, rows, , "writer: published rows; store with release after they are filled")               \
    F(196, _Atomic uint32_t, sealed, , "writer: 1 when no more rows will come")                                        \
    F(200, _Atomic uint64_t, last_seq, , "writer: the newest seq in the log segment")                                  \
    F(208, _Atomic uint32_t, space, , "writer: string number of the space of all rows; MN_NONE: of several")

/* In the arena, 8-byte aligned; its number is offset / 8. Number 0 is never given out. */
#define MN_TAIL_STRING_FIELDS(F, L)                                                                                    \
    F(0, uint64_t, hash, , "writer: mn_str_hash")                                                                      \
    F(8, _Atomic uint32_t, next, , "writer: next string of the bucket, 0 = last")                                      \
    F(12, uint32_t, length, , "writer: bytes that follow")

#define MN_LIVE_FIELDS(F, L)                                                                                           \
    F(0, struct mn_segment_header, header, , "compactor or recovery")                                                  \
    F(128, uint64_t, segment, , "creator: id of the column segment")                                                   \
    F(136, uint64_t, rows, , "creator: words in died[]")                                                               \
    L(192, _Atomic uint64_t, dirty_seq, ,                                                                              \
      "writer: the newest seq that changed a word; what died.<seq>.col must cover")                                    \
    F(200, _Atomic uint64_t, dead, , "writer: words that are not MN_ALIVE")                                            \
    F(208, _Atomic uint32_t, checked, , "compactor, writer or recovery: 1 = the small columns passed their checksums") \
    L(256, _Atomic uint64_t, died, [], "writer: see mn_died_make")

/* Byte offsets count from the beginning of the file. */
#define MN_CODES_FIELDS(F, L)                                                                                          \
    F(0, struct mn_segment_header, header, , "compactor")                                                              \
    F(128, uint64_t, instance_gen, , "compactor: with wal_number, the chunk whose rows are coded")                     \
    F(136, uint64_t, wal_number, , "compactor")                                                                        \
    F(144, uint64_t, codebook, , "compactor: generation of the codebook; 0 = the plain one")                           \
    F(152, uint32_t, width, , "compactor: of the rotated space")                                                       \
    F(156, uint32_t, clusters, , "compactor: of the codebook; 1 = all of it is flat, in the order of rows")            \
    F(160, uint32_t, rows_max, , "compactor: rows that there is room for")                                             \
    F(164, uint32_t, blocks, , "compactor: blocks of the rows that are by cluster")                                    \
    F(168, uint32_t, shared, , "compactor: of them at the end, that clusters share")                                   \
    F(172, uint32_t, clustered, , "compactor: the rows below it are by cluster, those from it on flat")                \
    F(176, uint64_t, first_slot_at, , "compactor: uint32_t[clusters + 1]; 0 in a flat one")                            \
    F(184, uint64_t, first_block_at, , "compactor: uint32_t[clusters + 1]; 0 in a flat one")                           \
    F(192, uint64_t, rest_at, , "compactor: uint32_t[clusters]; 0 in a flat one")                                      \
    F(200, uint64_t, homes_at, , "compactor: uint32_t[shared][32]; 0 in a flat one")                                   \
    F(208, uint64_t, slots_at, , "compactor: uint32_t[clustered], row -> slot; 0 in a flat one")                       \
    F(216, uint64_t, order_at, , "compactor: uint32_t[clustered], slot -> row; 0 in a flat one")                       \
    F(224, uint64_t, blocks_at, , "compactor: blocks of 32 rows: 1-bit codes and struct mn_ivf_lanes")                 \
    F(232, uint64_t, codes8_at, , "compactor: uint8_t[rows_max][width], by slot; that of a flat row is its number")    \
    F(240, uint64_t, fine_at, , "compactor: struct mn_ivf_fine[rows_max], by slot")                                    \
    F(248, uint64_t, flat_at, , "compactor: blocks of the rows from `clustered` on")                                   \
    L(256, _Atomic uint32_t, rows, , "compactor: rows below it are coded for good; store with release")

/* Behind it the header of the inverted file, from 2 MiB on its data (engine/hot.h). */
#define MN_HOT_FIELDS(F, L)                                                                                            \
    F(0, struct mn_segment_header, header, , "compactor")                                                              \
    F(128, uint64_t, segment, , "compactor: id of the column segment")                                                 \
    F(136, uint64_t, codebook, , "compactor: generation of the codebook that the codes are on")                        \
    F(144, uint64_t, data_bytes, , "compactor: length of the inverted file's data")                                    \
    F(152, uint64_t, huge_bytes, , "compactor: of them in huge pages when they were copied")                           \
    F(160, uint8_t, spare, [32], "0")

#define MN_VIEW_COLUMNS_FIELDS(F, L)                                                                                   \
    F(0, uint64_t, segment, , "id of the column segment")                                                              \
    F(8, uint64_t, rows, , "rows in it")                                                                               \
    F(16, uint64_t, live_gen, , "its liveness file is live.<live_gen>.<segment>")                                      \
    F(24, uint64_t, codebook, , "its codes are ivf.<codebook>.col; 0 = it has none")

#define MN_VIEW_CHUNK_FIELDS(F, L)                                                                                     \
    F(0, uint64_t, wal_number, , "log segment")                                                                        \
    F(8, uint64_t, instance_gen, , "its chunk is tail.<instance_gen>.<wal_number>")

#define MN_VIEW_FIELDS(F, L)                                                                                           \
    F(0, struct mn_segment_header, header, , "writer or recovery")                                                     \
    F(128, uint64_t, gen, , "the epoch this file is: its name is view.<gen>")                                          \
    F(136, uint64_t, log_seq, , "all up to here is in the columns below")                                              \
    F(144, uint32_t, columns, , "entries of mn_view_columns[] behind this struct, oldest first")                       \
    F(148, uint32_t, chunks, , "entries of mn_view_chunk[] behind those, oldest first")                                \
    F(152, uint32_t, missing, , "column segments of the manifest that could not be opened and are not listed")         \
    F(156, uint8_t, spare, [36], "0")

MN_STRUCT(mn_tail_row, MN_TAIL_ROW_FIELDS)
MN_STRUCT(mn_tail_header, MN_TAIL_HEADER_FIELDS)
MN_STRUCT(mn_tail_string, MN_TAIL_STRING_FIELDS)
MN_STRUCT(mn_live, MN_LIVE_FIELDS)
MN_STRUCT(mn_codes, MN_CODES_FIELDS)
MN_STRUCT(mn_hot_header, MN_HOT_FIELDS)
MN_STRUCT(mn_view_columns, MN_VIEW_COLUMNS_FIELDS)
MN_STRUCT(mn_view_chunk, MN_VIEW_CHUNK_FIELDS)
MN_STRUCT(mn_view, MN_VIEW_FIELDS)

#define MN_ENGINE_LAYOUT_TABLE(X)                                                                                      \
    X(mn_tail_row, MN_TAIL_ROW_FIELDS, 128)                                                                            \
    X(mn_tail_header, MN_TAIL_HEADER_FIELDS, 256)                                                                      \
    X(mn_tail_string, MN_TAIL_STRING_FIELDS, 16)                                                                       \
    X(mn_live, MN_LIVE_FIELDS, 256)                                                                                    \
    X(mn_codes, MN_CODES_FIELDS, 320)                                                                                  \
    X(mn_hot_header, MN_HOT_FIELDS, 192)                                                                               \
    X(mn_view_columns, MN_VIEW_COLUMNS_FIELDS, 32)                                                                     \
    X(mn_view_chunk, MN_VIEW_CHUNK_FIELDS, 16)                                                                         \
    X(mn_view, MN_VIEW_FIELDS, 192)
MN_ENGINE_LAYOUT_TABLE(MN_CHECK_STRUCT)

/* As mn_layout_fingerprint, over the tables of shm/layout.h and this one. */
uint64_t mn_engine_fingerprint(void);

#endif
