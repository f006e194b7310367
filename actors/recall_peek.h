/*
 * recall_peek.h - a look into a request on the recall socket before it is decoded: which lane it is for, and whether it
 * waits for a write.
 */
#ifndef MN_ACTORS_RECALL_PEEK_H
#define MN_ACTORS_RECALL_PEEK_H

#include "actors/wire_read.h"

struct mn_recall_peek {
    struct mn_request request;
    bool slow;        /* work that the fast lane is kept free of */
    uint64_t min_seq; /* 0: does not wait */
};
/* Checks the frame. On failure peek->request.rid is what could be found. */
enum mn_status mn_recall_peek(struct mn_recall_peek *peek, const void *data, size_t bytes) MN_MUST_USE;

#endif
