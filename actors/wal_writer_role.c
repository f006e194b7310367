/*
 * wal_writer_role.c - the WAL writer: the one process that changes the store.
 *
 * A turn takes what has come, admits it into a batch, makes the batch durable, then visible, then acknowledges it.
 * What comes while the disk writes a batch is the next one, and is admitted meanwhile; there is no timer. Fatal is a
 * failed append or sync: nobody knows then what is on disk, so everything in flight hears `unknown`, the process ends,
 * and recovery finds out.
 */
#include "actors/gate.h"
#include "actors/wal_writer.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "shm/process.h"

#define IDLE_MS  100 /* housekeeping goes on while nobody writes */
#define PURGE_MS 5   /* a client waits for files to be unlinked */
#define RUN_NS   UINT64_C(5000000)

static enum mn_status bind_sockets(struct mn_wal_writer *w)
{
    struct mn_actor *actor = w->actor;
    /* Replies are small; a client may have as many on their way as the queue takes, and hear `busy` about more. */
    uint64_t most = actor->settings.write_queue_max * 4;
    int high_water = (int)(most > actor->settings.recall_high_water ? most : actor->settings.recall_high_water);
    MN_TRY(mn_gate_serve(actor->gate, &w->public, "write", true, high_water));
    mn_actor_poll(actor, w->public.socket);
    mode_t mask = umask(0077); /* for the store's own processes: not for security.group either */
    enum mn_status status = mn_gate_serve(actor->gate, &w->internal, "role.wal-writer", false, high_water);
    umask(mask);
    MN_TRY(status);
    mn_actor_poll(actor, w->internal.socket);
    return mn_link_open(&w->compactor, actor->zmq, &actor->store, "role.compactor");
}

static enum mn_status start(struct mn_actor *actor, void **state)
{
    struct mn_wal_writer *w = calloc(1, sizeof *w);
    if (!w)
        return MN_FAIL(MN_INTERNAL, "no memory for the writer");
    *state = w;
    w->actor = actor;
    w->public.lock_fd = w->internal.lock_fd = -1;
    actor->idle_ms = IDLE_MS;
    mn_decoder_init(&w->decoder, actor->store.dim, actor->store.metric);
    mn_reply_init(&w->reply);
    w->purges = calloc(MN_WAL_WRITER_PURGES_MAX, sizeof *w->purges);
    if (!w->purges)
        return MN_FAIL(MN_INTERNAL, "no memory for the writer");
    MN_TRY(mn_wal_writer_queue_open(w));
    MN_TRY(mn_writer_open(&w->writer, &actor->store, &actor->instance, &actor->settings, actor->stats));
    w->last_seq = atomic_load(&actor->instance.control->durable_seq);
    return bind_sockets(w);
}

static void stop(struct mn_actor *actor, void *state)
{
    struct mn_wal_writer *w = state;
    if (!w)
        return;
    mn_wal_writer_jobs_close(w);
    mn_link_close(&w->compactor);
    mn_router_close(&w->internal);
    mn_router_close(&w->public);
    if (w->queue)
        mn_wal_writer_queue_close(w);
    if (w->writer)
        mn_writer_close(w->writer);
    mn_decoder_free(&w->decoder);
    mn_reply_free(&w->reply);
    free(w);
}

/* ---- the commit */

/* Ends a stage that began at *mark. */
static void record_stage(struct mn_wal_writer *w, enum mn_stat stat, uint64_t *mark)
{
    uint64_t now = mn_clock_ns();
    mn_stat_record(w->actor->stats, stat, now - *mark);
    *mark = now;
}

/* What a batch took before its commit; the next one begins to count. */
static void record_admission(struct mn_wal_writer *w)
{
    mn_stat_record(w->actor->stats, MN_STAT_write_receive_ns, w->decode_ns);
    mn_stat_record(w->actor->stats, MN_STAT_write_encode_ns, w->admit_ns);
    w->decode_ns = w->admit_ns = 0;
}

/* Receives and admits; returns how much there was. */
static uint32_t take(struct mn_wal_writer *w)
{
    uint32_t worked = mn_wal_writer_receive(w);
    worked += mn_wal_writer_jobs_admit(w);
    worked += mn_wal_writer_admit(w);
    return worked;
}

/* Writes what is admitted, makes it durable, then visible. With `overlap` the next batch is admitted while the disk
 * writes this one; *next: how much of it there was. */
static enum mn_status write_batch(struct mn_wal_writer *w, bool overlap, uint32_t *next)
{
    uint64_t begun_ns = mn_clock_ns(), mark = begun_ns;
    bool pending = mn_writer_pending(w->writer);
    MN_TRY(mn_writer_append(w->writer)); /* also tells of a change that was admitted by half */
    mn_wal_writer_turn_acks(w);
    if (!pending)
        return MN_OK;
    record_stage(w, MN_STAT_write_write_ns, &mark);
    record_admission(w);
    if (overlap) {
        *next = take(w);
        mark = mn_clock_ns();
    }
    MN_TRY(mn_writer_sync(w->writer)); /* durable from here */
    record_stage(w, MN_STAT_write_sync_ns, &mark);
    mn_writer_publish(w->writer); /* visible from here */
    record_stage(w, MN_STAT_write_publish_ns, &mark);
    w->commit_ns = (w->commit_ns * 7 + mark - begun_ns) / 8;
    return MN_OK;
}

/* What was admitted may or may not be on disk; what was not has not happened. */
static void give_up(struct mn_wal_writer *w)
{
    static const char text[] = "the log failed; this write did not happen; try again when the writer is back";
    mn_wal_writer_fail_acks(w);
    mn_wal_writer_purges_refuse(w, true);
    mn_wal_writer_jobs_refuse(w, MN_UNAVAILABLE, text);
    mn_wal_writer_refuse_all(w, MN_UNAVAILABLE, text);
}

static enum mn_status commit_batch(struct mn_wal_writer *w, bool overlap, uint32_t *next)
{
    char sentence[512];
    enum mn_status status = write_batch(w, overlap, next);
    if (status != MN_OK) {
        snprintf(sentence, sizeof sentence, "%s", mn_error_text());
        give_up(w);
        return MN_FAIL(status, "%s", sentence);
    }
    if (w->due.count == 0)
        return MN_OK;
    mn_writer_acked(w->writer);
    mn_wal_writer_send_acks(w);
    return MN_OK;
}

/* Commits what is admitted, and what is admitted while the disk writes that, and so on; at the end nothing is pending:
 * jobs and the compactor wait for that, and no longer than RUN_NS and a commit. */
static enum mn_status commit(struct mn_wal_writer *w, uint32_t *worked)
{
    uint64_t begun_ns = mn_clock_ns();
    uint32_t next;
    do {
        bool overlap = mn_clock_ns() - begun_ns < RUN_NS && !mn_wal_writer_jobs_under_way(w) && !w->actor->draining;
        next = 0;
        MN_TRY(commit_batch(w, overlap, &next));
        *worked += next;
    } while (next > 0);
    return MN_OK;
}

/* ---- the turn */

/* SIGTERM came: what was received is finished, later requests are refused; purges that still wait are told so. */
static void drain(struct mn_wal_writer *w)
{
    if (!w->closing && !w->queue_count) {
        w->closing = true;
        return;
    }
    if (!w->closing || mn_wal_writer_jobs_under_way(w))
        return;
    mn_wal_writer_purges_refuse(w, false);
    mn_actor_done(w->actor);
}

static void show_gauges(struct mn_wal_writer *w)
{
    struct mn_stats_page *stats = w->actor->stats;
    char text[512];
    if (mn_writer_news(w->writer, text, sizeof text))
        mn_log(w->actor, "%s", text);
    mn_stat_set(stats, MN_STAT_write_queue, w->queue_count + w->acks.count);
    if (w->public.lost > w->lost_told)
        mn_stat_add(stats, MN_STAT_write_lost_replies, w->public.lost - w->lost_told);
    w->lost_told = w->public.lost;
}

static enum mn_status turn(struct mn_actor *actor, void *state, uint32_t *worked)
{
    struct mn_wal_writer *w = state;
    *worked += take(w);
    show_gauges(w);
    MN_TRY(commit(w, worked));
    *worked += mn_wal_writer_jobs_turn(w);
    *worked += mn_wal_writer_inside_turn(w);
    *worked += mn_wal_writer_purges_turn(w);
    *worked += mn_writer_tend(w->writer, mn_wall_ns());
    *worked += w->queue_count;
    actor->idle_ms = w->purge_count ? PURGE_MS : IDLE_MS;
    if (actor->draining) {
        *worked += 1;
        drain(w);
    }
    return MN_OK;
}

static void reload(struct mn_actor *actor, void *state)
{
    struct mn_wal_writer *w = state;
    mn_writer_reload(w->writer, &actor->settings);
}

const struct mn_role_ops mn_wal_writer_role = {
    .role = MN_ROLE_WAL_WRITER, .start = start, .turn = turn, .stop = stop, .reload = reload};
