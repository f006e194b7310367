/*
 * types.h - the small values that the whole engine passes around: strings, ids, limits.
 *
 * What the contracts of the engine leave unsaid:
 *   threads  a function may be called from any thread; what it changes belongs to one thread at a time, and what it is
 *            given as const may be read by many
 *   errors   besides the codes that are named: MN_SYSTEM (or MN_INTERNAL, where a client will hear of it) when memory
 *            ends, and those of the I/O table (engine/io.h) where files are read or written
 *   memory   what a call makes is let go of by the close, end, unmap or free that stands beside it; what it returns
 *            points into what it was given, unless it says that it is owned or malloc'd
 */
#ifndef MN_ENGINE_TYPES_H
#define MN_ENGINE_TYPES_H

#include <stdatomic.h>
#include <string.h>

#include "shm/layout.h"
#include "shm/status.h"

/* Limits of the protocol; an error that tells one names it. */
#define MN_SPACE_BYTES_MAX   128u
#define MN_TAG_BYTES_MAX     128u
#define MN_TAGS_MAX          64u
#define MN_CONTENT_BYTES_MAX (1u << 20)
#define MN_META_BYTES_MAX    (64u << 10)
#define MN_IDEM_BYTES_MAX    64u
#define MN_REQUEST_ROWS_MAX  4096u
#define MN_REQUEST_BYTES_MAX (16u << 20)
#define MN_K_MAX             10000u
#define MN_DIM_MAX           65536u

#define MN_NONE  UINT32_MAX /* no row, no string, no part */
#define MN_NEVER INT64_MAX  /* expires: never */

/* `length` bytes that somebody else owns; not NUL-terminated. */
struct mn_str {
    const char *data;
    uint32_t length;
};

static inline bool mn_str_equal(struct mn_str a, struct mn_str b)
{
    // NOLINTNEXTLINE(clang-analyzer-core.UndefinedBinaryOperatorResult): callers compare what is set
    return a.length == b.length && (a.length == 0 || memcmp(a.data, b.data, a.length) == 0);
}

/* Order by bytes, a prefix before what it begins: <0, 0, >0. */
static inline int mn_str_compare(struct mn_str a, struct mn_str b)
{
    uint32_t shorter = a.length < b.length ? a.length : b.length;
    int order = shorter > 0 ? memcmp(a.data, b.data, shorter) : 0;
    return order != 0 ? order : (a.length > b.length) - (a.length < b.length);
}

enum mn_id_kind { MN_ID_INTEGER = 0, MN_ID_UUID = 1 };

/* An id: an unsigned integer below 2^63 (hi = 0, lo = value) or a UUID (hi, lo: its 16 bytes read big-endian).
 * Also an element of ids.col. Integers sort before UUIDs; UUIDs by their bytes. */
struct mn_id {
    uint64_t hi, lo;
    uint32_t kind;
    uint32_t zero;
};
_Static_assert(sizeof(struct mn_id) == 24, "ids.col element");

static inline int mn_id_compare(const struct mn_id *a, const struct mn_id *b)
{
    if (a->kind != b->kind)
        return a->kind < b->kind ? -1 : 1;
    if (a->hi != b->hi)
        return a->hi < b->hi ? -1 : 1;
    return a->lo == b->lo ? 0 : a->lo < b->lo ? -1 : 1;
}

static inline bool mn_id_equal(const struct mn_id *a, const struct mn_id *b)
{
    return a->hi == b->hi && a->lo == b->lo && a->kind == b->kind;
}

/* 64-bit hash of a string, and of an id in the space whose name hashes to `space_hash`: the same in every process and
 * for the life of a store (tail chunks and idhash.col are built on it). Never 0. */
uint64_t mn_str_hash(struct mn_str s);
uint64_t mn_id_hash(uint64_t space_hash, const struct mn_id *id);

/* 1 to 20 digits or 36 characters, and NUL. Returns the length. */
#define MN_ID_TEXT_MAX 37
size_t mn_id_text(const struct mn_id *id, char text[MN_ID_TEXT_MAX]);

/*
 * Liveness of a row, as the `died` word holds it: seq << 1 | suppressed, or MN_ALIVE. A version is visible at S when
 * born <= S < died. A suppressed row is hidden but can be restored, so compaction keeps it.
 */
#define MN_ALIVE UINT64_MAX
/* The last seq that is given out: what doubles or adds to one cannot wrap around. */
#define MN_SEQ_MAX (UINT64_C(1) << 62)
static inline uint64_t mn_died_make(uint64_t seq, bool suppressed)
{
    return seq << 1 | (suppressed ? 1u : 0u);
}
static inline uint64_t mn_died_seq(uint64_t died)
{
    return died >> 1;
}
static inline bool mn_died_suppressed(uint64_t died)
{
    return died != MN_ALIVE && (died & 1) != 0;
}

#endif
