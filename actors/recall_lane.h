/*
 * recall_lane.h - one thread's way from a request on the recall socket to its reply: decode, pin, search or read,
 * encode.
 *
 * A lane owns a reader slot and all scratch, and is used by one thread. It knows no sockets.
 */
#ifndef MN_ACTORS_RECALL_LANE_H
#define MN_ACTORS_RECALL_LANE_H

#include "actors/actor.h"
#include "actors/recall_shadow.h"
#include "actors/wire_decode.h"
#include "actors/wire_reply.h"
#include "engine/recall_batch.h"

struct mn_space_count {
    struct mn_str space;
    uint64_t count;
};

struct mn_recall_lane {
    struct mn_store store;
    struct mn_instance *instance;
    struct mn_stats_page *stats;
    struct mn_reader *reader;
    struct mn_search search;
    struct mn_batch *batch; /* NULL: none was asked for yet */
    struct mn_reading reading;
    struct mn_decoder decoder;
    struct mn_reply reply; /* of the last request */
    struct mn_space_count *spaces;
    uint32_t space_count, space_room;
    struct mn_recall_shadow *shadow; /* of the fast lane; NULL: its recalls are not shadowed */
};

/* The instance and the stats page of `actor` must outlive the lane. MN_BUSY when no reader slot is free. */
enum mn_status mn_recall_lane_open(struct mn_recall_lane *lane, struct mn_actor *actor) MN_MUST_USE;
void mn_recall_lane_close(struct mn_recall_lane *lane);

/* Carries the request out; whatever comes of it is in lane->reply. */
void mn_recall_lane_answer(struct mn_recall_lane *lane, const struct mn_request *request, uint64_t received_ns);
/* Answers a recall again, exactly and as of the moment of `answer`, and records how much of that was right. There is no
 * reply; what fails, or lies too far back by now, is not recorded. */
void mn_recall_lane_check(struct mn_recall_lane *lane, const struct mn_request *request,
                          const struct mn_shadow_answer *answer);
/* The error that has just happened (or `text`), as a reply. */
void mn_recall_lane_refuse(struct mn_recall_lane *lane, struct mn_str rid, enum mn_status status, const char *text);

#endif
