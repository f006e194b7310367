/*
 * meta_order.h - the order of meta values as a sequence of integers, so that an index can sort and search them.
 *
 * Values fall into classes that never compare with each other. Within one the order and the equality are those of
 * mn_meta_compare and mn_meta_equal (meta.h). A value is a sequence of pieces, compared one after the other as unsigned
 * integers: of a number, the nearest double and then what it lacks; of a string, seven bytes at a time and how many of
 * them there are. Two values are equal when their pieces are, up to one that is the last. Pure, thread-safe.
 */
#ifndef MN_ENGINE_META_ORDER_H
#define MN_ENGINE_META_ORDER_H

#include "engine/meta.h"

enum mn_meta_class {
    MN_META_CLASS_NUMBER,
    MN_META_CLASS_STR,
    MN_META_CLASS_BIN,
    MN_META_CLASS_BOOL,
    MN_META_CLASS_NIL,
    MN_META_CLASS_OTHER, /* arrays, maps, NaN: one group, and what equals what in it is for mn_meta_equal to say */
    MN_META_CLASSES
};

#define MN_META_PIECES      36u                  /* of a string: what is longer is cut */
#define MN_META_CUT_BYTES   (7 * MN_META_PIECES) /* strings of the same first so many bytes are not told apart */
#define MN_META_PIECE_BYTES 7u

enum mn_meta_class mn_meta_class_of(const struct mn_meta_value *value);

/* Piece `depth`, 0.. MN_META_PIECES - 1; those before were not the last. */
uint64_t mn_meta_piece(const struct mn_meta_value *value, uint32_t depth);
/* Whether no piece follows. */
bool mn_meta_piece_last(enum mn_meta_class class, uint64_t piece, uint32_t depth);

/* True when equal pieces do not mean equal values: of OTHER, and of strings longer than MN_META_CUT_BYTES. */
bool mn_meta_unsure(const struct mn_meta_value *value);

/* Order of two values of one class: <0, 0, >0. Of 0, see mn_meta_unsure. */
int mn_meta_order(const struct mn_meta_value *a, const struct mn_meta_value *b);

#endif
