/*
 * meta.h - the compact form in which meta is kept: a tagged tree that a filter walks with no parsing and no allocation.
 *
 * It keeps everything that msgpack can say with string keys (nil, bool, integers, f32, f64, str, bin, array, map),
 * members in the order given. The format is documented in meta.c and is part of the store's format: its type bytes are
 * never reused. Readers check all lengths: bytes from disk are never trusted. All functions are pure and thread-safe.
 */
#ifndef MN_ENGINE_META_H
#define MN_ENGINE_META_H

#include "engine/types.h"

#define MN_META_DEPTH_MAX 16 /* arrays and maps inside each other, the outermost included */

/* A byte of MessagePack becomes at most nine: the head of an empty array or map; all others become two or fewer. What
 * meets the limit of a request so always has a place in the store. */
#define MN_META_GROWTH      9u
#define MN_META_COMPACT_MAX (MN_META_GROWTH * MN_META_BYTES_MAX)

enum mn_meta_type {
    MN_META_NIL = 1,
    MN_META_BOOL = 2,
    MN_META_INT = 3,  /* int64, negative */
    MN_META_UINT = 4, /* uint64 */
    MN_META_F32 = 5,
    MN_META_F64 = 6,
    MN_META_STR = 7,
    MN_META_BIN = 8,
    MN_META_ARRAY = 9,
    MN_META_MAP = 10
};

/* Writes one value into a caller's buffer. Any call that would pass `bytes_max` or nest too deep sets `failed`, and the
 * rest do nothing: check once at the end (`failed`, or depth != 0: something was not ended). Maps: begin, then key and
 * value by turns, then end. Begins as {.data = buffer, .bytes_max = room}. */
struct mn_meta_writer {
    uint8_t *data;
    uint32_t bytes, bytes_max;
    bool failed;
    uint32_t depth;
    uint32_t open[MN_META_DEPTH_MAX]; /* offsets of unfinished arrays and maps */
};
void mn_meta_nil(struct mn_meta_writer *w);
void mn_meta_bool(struct mn_meta_writer *w, bool value);
void mn_meta_int(struct mn_meta_writer *w, int64_t value); /* a value >= 0 is kept as UINT */
void mn_meta_uint(struct mn_meta_writer *w, uint64_t value);
void mn_meta_f32(struct mn_meta_writer *w, float value);
void mn_meta_f64(struct mn_meta_writer *w, double value);
void mn_meta_str(struct mn_meta_writer *w, struct mn_str s);
void mn_meta_bin(struct mn_meta_writer *w, struct mn_str s);
void mn_meta_array_begin(struct mn_meta_writer *w, uint32_t count);
void mn_meta_map_begin(struct mn_meta_writer *w, uint32_t count);
void mn_meta_key(struct mn_meta_writer *w, struct mn_str key);
void mn_meta_end(struct mn_meta_writer *w);

/* Reads one value. mn_meta_next moves `*in` behind the value's head: scalars are complete, of arrays (count values) and
 * maps (count times key, value) the members follow. False when the bytes are damaged or end early. */
struct mn_meta_value {
    enum mn_meta_type type;
    bool boolean;
    int64_t i64;
    uint64_t u64;
    double f64;      /* also F32 */
    struct mn_str s; /* STR, BIN: the bytes; ARRAY, MAP: the bytes of all members, for whoever wants to skip them */
    uint32_t count;
};
bool mn_meta_next(struct mn_str *in, struct mn_meta_value *value);
bool mn_meta_next_key(struct mn_str *in, struct mn_str *key);

/* The value of a key in a compact map. A key that is there literally wins; else the part before its first dot names a
 * map inside, in which the rest is looked for in the same way. Of equal keys the first counts. False when it is not
 * there or the bytes are damaged. `found` is the value's compact bytes, inside `map`. */
bool mn_meta_find(struct mn_str map, struct mn_str key, struct mn_str *found);

/* Equality by value: numbers whatever their type, exactly (the double 2^53 is not the integer 2^53 + 1); arrays member
 * by member; maps key by key in any order (each key once: a map that names one twice is equal to itself, and that is
 * all that is promised). NaN equals nothing; damaged bytes and what nests too deep equal nothing. Order: <0, 0, >0, or
 * MN_META_UNORDERED when the two are of different kinds or not ordered (numbers, strings and bins are; strings and bins
 * by their bytes). */
#define MN_META_UNORDERED 2
bool mn_meta_equal(struct mn_str a, struct mn_str b);
int mn_meta_compare(struct mn_str a, struct mn_str b);

#endif
