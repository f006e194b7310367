/*
 * wal_writer.h - the state of the WAL writer's role, shared by its files and nobody else.
 *
 *     wal_writer_role.c     the story: receive, admit, commit, acknowledge
 *     wal_writer_queue.c    requests not yet admitted, and replies not yet sent
 *     wal_writer_admit.c    one request from its frame to the batch
 *     wal_writer_forget.c   forgets by filter, which take many turns; purges, which wait for the compactor
 *     wal_writer_inside.c   the compactor's requests
 */
#ifndef MN_ACTORS_WAL_WRITER_H
#define MN_ACTORS_WAL_WRITER_H

#include "actors/actor.h"
#include "actors/link.h"
#include "actors/router.h"
#include "actors/wire_decode.h"
#include "actors/wire_reply.h"
#include "engine/writer.h"

#define MN_WAL_WRITER_QUEUE_BYTES (256u << 20) /* of frames that wait; more is busy */
#define MN_WAL_WRITER_PURGES_MAX  1024         /* purges that wait for their rewrite; more is busy */

/* A reply that waits for the commit of the batch its request is in. */
struct mn_ack {
    struct mn_peer peer;
    uint64_t received_ns;
    struct mn_str rid;
    struct mn_str reply;
};

/* Those of a batch; what they point to is in the arena. */
struct mn_acks {
    struct mn_ack *list;
    uint32_t count, room;
    struct mn_arena arena;
};

/* A forget by filter on its way through the store. */
struct mn_forget_job {
    bool used;
    bool seen_all; /* the selection is complete; its forget waits for admission */
    struct mn_held held;
    struct mn_request request;
    struct mn_forget_request forget;
    struct mn_decoder decoder;
    struct mn_selection *selection;
};

/* A purge that is durable and waits until no file holds its bytes. rid and ids are owned. */
struct mn_purge_wait {
    struct mn_peer peer;
    uint64_t received_ns, seq, files_before;
    struct mn_str rid;
    struct mn_id *ids;
    uint32_t id_count, count;
};

struct mn_wal_writer {
    struct mn_actor *actor;
    struct mn_writer *writer;
    struct mn_router public, internal;
    struct mn_link compactor;
    struct mn_decoder decoder;
    struct mn_reply reply;
    uint64_t lost_told; /* of public.lost, what the statistics know */

    struct mn_held *queue; /* a ring */
    uint32_t queue_first, queue_count, queue_max;
    uint64_t queue_bytes;
    bool closing; /* drained once: what comes now is refused */

    struct mn_acks acks; /* of the batch that takes what is admitted */
    struct mn_acks due;  /* of the batch that is being committed */

    struct mn_forget_job jobs[MN_SELECTIONS_MAX];
    struct mn_purge_wait *purges;
    uint32_t purge_count;
    uint64_t last_seq; /* newest that was given out: an outcome that is not newer wrote nothing */
    uint64_t woken_ns; /* when the compactor was last told of them */

    /* of the batch that is being made */
    uint64_t decode_ns, admit_ns;
    uint64_t commit_ns; /* how long a commit takes of late */
};

/* ---- queue */

/* Room for write.queue_max requests; and lets go of those that wait, unanswered, and of all replies. */
enum mn_status mn_wal_writer_queue_open(struct mn_wal_writer *w) MN_MUST_USE;
void mn_wal_writer_queue_close(struct mn_wal_writer *w);
/* Takes what has come, as far as there is room; the rest of it is answered busy. Returns how many came. */
uint32_t mn_wal_writer_receive(struct mn_wal_writer *w);
/* Answers everything that has not been admitted. */
void mn_wal_writer_refuse_all(struct mn_wal_writer *w, enum mn_status status, const char *text);
/* Lets go of the first request in the queue; it has been dealt with. */
void mn_wal_writer_drop_first(struct mn_wal_writer *w);

/* Answers an error at once: the last one of this thread, or `text`. */
void mn_wal_writer_refuse(struct mn_wal_writer *w, const struct mn_peer *peer, struct mn_str rid, enum mn_status status,
                          const char *text);
/* Keeps what w->reply holds until the batch is durable. MN_UNKNOWN when memory ends: the write is carried out. */
enum mn_status mn_wal_writer_defer(struct mn_wal_writer *w, const struct mn_held *held, struct mn_str rid) MN_MUST_USE;
/* Sends what w->reply holds now. */
void mn_wal_writer_send(struct mn_wal_writer *w, const struct mn_peer *peer, uint64_t received_ns);
/* The batch is about to be committed: its replies are due, those of the next one gather. */
void mn_wal_writer_turn_acks(struct mn_wal_writer *w);
/* The batch is durable and visible: its replies leave. */
void mn_wal_writer_send_acks(struct mn_wal_writer *w);
/* The log failed: those in a batch hear `unknown`. */
void mn_wal_writer_fail_acks(struct mn_wal_writer *w);

/* ---- admission */

/* Admits what is queued until the batch is full, the queue is empty, or something needs a commit first. Returns how
 * many requests it has dealt with. */
uint32_t mn_wal_writer_admit(struct mn_wal_writer *w);
/* Counts an outcome; true when it wrote something to the batch. */
bool mn_wal_writer_note(struct mn_wal_writer *w, const struct mn_outcome *outcome);
/* MN_DEADLINE when the request cannot be answered in time any more. */
enum mn_status mn_wal_writer_in_time(const struct mn_wal_writer *w, const struct mn_held *held,
                                     const struct mn_request *request) MN_MUST_USE;

/* ---- forgets and purges */

/* Hands a forget by filter over to a job, frame and all (`held` is empty then). MN_BUSY when there are too many. */
enum mn_status mn_wal_writer_job_begin(struct mn_wal_writer *w, struct mn_held *held) MN_MUST_USE;
/* Before admission: the forgets of selections that are complete. Between batches: starts jobs, goes on with them. Both
 * return how much they did. */
uint32_t mn_wal_writer_jobs_admit(struct mn_wal_writer *w);
uint32_t mn_wal_writer_jobs_turn(struct mn_wal_writer *w);
/* Jobs that are not answered yet. */
uint32_t mn_wal_writer_jobs_under_way(const struct mn_wal_writer *w);
/* Answers a forget that has been admitted: with the batch, or (purge) when its bytes are gone. ids: of the receipt. */
enum mn_status mn_wal_writer_forgotten(struct mn_wal_writer *w, const struct mn_held *held, struct mn_str rid,
                                       const struct mn_forget *forget, const struct mn_id *ids, uint32_t id_count,
                                       const struct mn_outcome *outcome) MN_MUST_USE;
/* MN_BUSY when no more purges can wait. */
enum mn_status mn_wal_writer_purge_room(const struct mn_wal_writer *w) MN_MUST_USE;
/* Answers the purges that are done; wakes the compactor for the others. Returns how many were answered. */
uint32_t mn_wal_writer_purges_turn(struct mn_wal_writer *w);
/* Answers all jobs and purges. in_doubt: the batch was lost. */
void mn_wal_writer_jobs_refuse(struct mn_wal_writer *w, enum mn_status status, const char *text);
void mn_wal_writer_purges_refuse(struct mn_wal_writer *w, bool in_doubt);
/* Frees what jobs and purges hold. */
void mn_wal_writer_jobs_close(struct mn_wal_writer *w);

/* ---- the compactor's requests; between batches */

/* Carries out and answers what has come. Returns how many. */
uint32_t mn_wal_writer_inside_turn(struct mn_wal_writer *w);

#endif
