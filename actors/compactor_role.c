/*
 * compactor_role.c - the role that turns log into columns, merges them, and looks after them.
 *
 * Work comes from three sides: jobs over run/role.compactor (consolidate, snapshot and verify from the supervisor, wake
 * from the writer when a purge waits), the regular look at what is worth compacting, and upkeep (census, scrubber). One
 * thing at a time, in that order. A failed piece of work is told and counted; it never ends the process.
 */
#include <stdlib.h>
#include <sys/stat.h>

#include "actors/compactor.h"
#include "actors/gate.h"
#include "engine/snapshot.h"
#include "shm/process.h"

#define HIGH_WATER       1000
#define RECEIVE_MAX      64
#define CENSUS_NS        5000000000u
#define SETTLE_RETRY_NS  20000000u
#define FAILURE_PAUSE_NS 1000000000u /* doubles with every failure in a row */
#define FAILURES_DOUBLED 6

struct mn_writer_life mn_compactor_writer(const struct mn_compactor_role *c)
{
    const struct mn_role_slot *slot = &c->actor->instance.control->roles[MN_SLOT_WAL_WRITER];
    uint32_t pid = atomic_load(&slot->pid), state = atomic_load_explicit(&slot->state, memory_order_acquire);
    if (pid == 0 || state != MN_ROLE_READY)
        return (struct mn_writer_life){0};
    return (struct mn_writer_life){.pid = pid, .start_time = atomic_load(&slot->start_time)};
}

/* ---- the queue ---- */

static void forget_job(struct mn_job *job)
{
    free(job->rid);
    free(job->path);
    *job = (struct mn_job){0};
}

static char *copy_str(struct mn_str s)
{
    char *copy = malloc((size_t)s.length + 1);
    if (copy) {
        memcpy(copy, s.data, s.length);
        copy[s.length] = 0;
    }
    return copy;
}

static enum mn_status enqueue(struct mn_compactor_role *c, const struct mn_request *request, const struct mn_peer *peer,
                              struct mn_str path, bool replies)
{
    if (c->actor->draining)
        return MN_FAIL(MN_UNAVAILABLE, "the cluster is stopping");
    if (c->job_count == MN_JOBS_MAX)
        return MN_FAIL(MN_BUSY, "%d jobs already wait for the compactor", MN_JOBS_MAX);
    struct mn_job *job = &c->jobs[(c->job_first + c->job_count) % MN_JOBS_MAX];
    *job = (struct mn_job){.op = request->op, .replies = replies, .peer = *peer};
    if (request->rid.length && replies) {
        job->rid = copy_str(request->rid);
        job->rid_bytes = job->rid ? request->rid.length : 0;
    }
    job->path = path.length ? copy_str(path) : NULL;
    c->job_count++;
    return MN_OK;
}

/* Leaves a reply in c->reply, or queues the job and clears *answered. */
static enum mn_status take_request(struct mn_compactor_role *c, const struct mn_peer *peer,
                                   const struct mn_request *request, bool *answered)
{
    struct mn_wire field;
    struct mn_str path = {0};
    bool wait = false;
    switch (request->op) {
    case MN_OP_WAKE:
        c->purge_waits = true;
        break;
    case MN_OP_CONSOLIDATE:
        MN_TRY(mn_wire_field(request, "wait", &field));
        MN_TRY(mn_wire_bool(&field, "wait", &wait));
        *answered = !wait;
        MN_TRY(enqueue(c, request, peer, path, wait));
        break;
    case MN_OP_SNAPSHOT:
        MN_TRY(mn_wire_field(request, "path", &field));
        MN_TRY(mn_wire_need(&field, "path"));
        MN_TRY(mn_wire_str(&field, "path", 1, MN_PATH_MAX - 1, &path));
        *answered = false;
        return enqueue(c, request, peer, path, true);
    default:
        *answered = false;
        return enqueue(c, request, peer, path, true);
    }
    mn_reply_begin(&c->reply, request->rid, 0);
    return MN_OK;
}

/* The socket takes what the supervisor forwards in its public form, and wake. */
static enum mn_status open_request(struct mn_request *request, zmq_msg_t *body)
{
    enum mn_status status = mn_wire_open(request, zmq_msg_data(body), zmq_msg_size(body), MN_SERVICE_COMPACTOR);
    bool forwarded = request->op == MN_OP_CONSOLIDATE || request->op == MN_OP_SNAPSHOT || request->op == MN_OP_VERIFY;
    return status == MN_BAD_OP && forwarded ? MN_OK : status;
}

uint32_t mn_compactor_receive(struct mn_compactor_role *c)
{
    uint32_t received = 0;
    struct mn_peer peer;
    zmq_msg_t body;
    bool malformed;
    while (received < RECEIVE_MAX && mn_router_receive(&c->router, &peer, &body, &malformed) == MN_OK) {
        struct mn_request request = {0};
        bool answered = true;
        enum mn_status status = malformed ? mn_router_malformed() : open_request(&request, &body);
        if (status == MN_OK)
            status = take_request(c, &peer, &request, &answered);
        if (status != MN_OK)
            mn_reply_error(&c->reply, request.rid, status, mn_error_text());
        if (answered || status != MN_OK)
            mn_router_reply(&c->router, &peer, c->reply.data, c->reply.bytes);
        zmq_msg_close(&body);
        received++;
    }
    return received;
}

/* ---- jobs: each fills c->reply ---- */

static enum mn_status consolidate(struct mn_compactor_role *c, struct mn_str rid)
{
    struct mn_compacted result = {0};
    MN_TRY(mn_compactor_consolidate(c, &result));
    c->purge_waits = false;
    mn_actor_pulse_begin(c->actor, true);
    mn_compactor_census(c); /* who waited for it looks at info next */
    mn_actor_pulse_end(c->actor);
    mn_reply_begin(&c->reply, rid, 3);
    mn_reply_uint(&c->reply, "rows_in", result.rows_in);
    mn_reply_uint(&c->reply, "rows_out", result.rows_out);
    mn_reply_uint(&c->reply, "segments", result.segments);
    return MN_OK;
}

static void show_progress(void *context, uint64_t done, uint64_t total)
{
    struct mn_compactor_role *c = context;
    atomic_store(&c->actor->slot->progress, total ? (uint32_t)(done * 100 / total) : 0);
}

static enum mn_status snapshot(struct mn_compactor_role *c, struct mn_str rid, const char *path)
{
    struct mn_copy_result result = {0};
    if (!path)
        return MN_FAIL(MN_INTERNAL, "no memory");
    mn_actor_pulse_begin(c->actor, false);
    enum mn_status status = mn_snapshot_make(&c->actor->store, &c->actor->instance, path, show_progress, c, &result);
    mn_actor_pulse_end(c->actor);
    MN_TRY(status);
    mn_log(c->actor, "snapshot of seq %llu in %s: %llu files, %.1f MiB", (unsigned long long)result.seq, path,
           (unsigned long long)result.files, (double)result.bytes / (1 << 20));
    if (result.damaged > 0)
        mn_log(c->actor, "%llu pieces of that snapshot are damaged as they are in the store, the first: %s",
               (unsigned long long)result.damaged, result.damage);
    mn_reply_begin(&c->reply, rid, 4);
    mn_reply_uint(&c->reply, "seq", result.seq);
    mn_reply_uint(&c->reply, "bytes", result.bytes);
    mn_reply_uint(&c->reply, "files", result.files);
    mn_reply_uint(&c->reply, "damaged", result.damaged);
    return MN_OK;
}

static void answer_job(struct mn_compactor_role *c, struct mn_job *job, enum mn_status status)
{
    struct mn_str rid = {job->rid, job->rid_bytes};
    if (status == MN_OK)
        status = mn_reply_end(&c->reply, "there is too much to tell");
    if (status != MN_OK)
        mn_reply_error(&c->reply, rid, status, mn_error_text());
    if (job->replies)
        mn_router_reply(&c->router, &job->peer, c->reply.data, c->reply.bytes);
}

static void run_job(struct mn_compactor_role *c)
{
    struct mn_job job = c->jobs[c->job_first];
    struct mn_str rid = {job.rid, job.rid_bytes};
    enum mn_status status;
    c->jobs[c->job_first] = (struct mn_job){0};
    c->job_first = (c->job_first + 1) % MN_JOBS_MAX;
    c->job_count--;
    if (job.op == MN_OP_CONSOLIDATE)
        status = consolidate(c, rid);
    else if (job.op == MN_OP_SNAPSHOT)
        status = snapshot(c, rid, job.path);
    else
        status = mn_compactor_verify(c, rid);
    answer_job(c, &job, status);
    atomic_store(&c->actor->slot->progress, 0);
    forget_job(&job);
}

static void refuse_jobs(struct mn_compactor_role *c)
{
    while (c->job_count > 0) {
        struct mn_job *job = &c->jobs[c->job_first];
        answer_job(c, job, MN_FAIL(MN_UNAVAILABLE, "the cluster is stopping"));
        forget_job(job);
        c->job_first = (c->job_first + 1) % MN_JOBS_MAX;
        c->job_count--;
    }
}

/* ---- the regular work ---- */

/* When to look again: soon while not settled, later with every failure in a row. */
static uint64_t plan_pause(const struct mn_compactor_role *c)
{
    if (!c->settled && c->failures == 0)
        return SETTLE_RETRY_NS;
    if (c->failures == 0)
        return c->actor->settings.compact_interval;
    return (uint64_t)FAILURE_PAUSE_NS << (c->failures < FAILURES_DOUBLED ? c->failures - 1 : FAILURES_DOUBLED);
}

static void look_for_work(struct mn_compactor_role *c, uint32_t *worked)
{
    struct mn_compacted result;
    enum mn_status status = MN_OK;
    if (mn_compactor_writer(c).pid != 0) {
        if (!c->settled)
            status = mn_compactor_settle(c);
        if (status == MN_OK && c->purge_waits) {
            c->purge_waits = false;
            *worked = 1;
            status = mn_compactor_consolidate(c, &result);
            c->purge_waits = c->purge_waits || status != MN_OK;
        } else if (status == MN_OK) {
            status = mn_compactor_consider(c, worked);
        }
    }
    /* A writer that went away is no failure of ours. */
    c->failures = status == MN_OK || status == MN_UNAVAILABLE ? 0 : c->failures + 1;
    c->next_plan_ns = mn_clock_ns() + plan_pause(c);
}

static int until_next(const struct mn_compactor_role *c, uint64_t now)
{
    uint64_t next = c->next_plan_ns < c->next_census_ns ? c->next_plan_ns : c->next_census_ns;
    next = c->next_scrub_ns < next ? c->next_scrub_ns : next;
    return next <= now ? 0 : (int)((next - now) / 1000000 + 1 < 1000 ? (next - now) / 1000000 + 1 : 1000);
}

static enum mn_status turn(struct mn_actor *actor, void *state, uint32_t *worked)
{
    struct mn_compactor_role *c = state;
    *worked = mn_compactor_receive(c);
    if (actor->draining) {
        refuse_jobs(c);
        mn_actor_done(actor);
        return MN_OK;
    }
    mn_compactor_codes_switch(c->codes, actor->settings.index_rows_min > 0);
    uint64_t now = mn_clock_ns();
    if (c->job_count > 0) {
        run_job(c);
        *worked += 1;
    } else if (now >= c->next_plan_ns || (c->purge_waits && c->failures == 0)) {
        look_for_work(c, worked);
    } else if (now >= c->next_census_ns) {
        mn_actor_pulse_begin(actor, true); /* a new segment is checked when it is mapped */
        mn_compactor_census(c);
        mn_actor_pulse_end(actor);
        c->next_census_ns = mn_clock_ns() + CENSUS_NS;
    } else if (mn_compactor_scrub_due(c, now)) {
        mn_compactor_scrub(c, now);
    }
    actor->idle_ms = until_next(c, mn_clock_ns());
    return MN_OK;
}

static enum mn_status start(struct mn_actor *actor, void **state)
{
    struct mn_compactor_role *c = calloc(1, sizeof *c);
    if (!c)
        return MN_FAIL(MN_INTERNAL, "no memory");
    *state = c;
    c->actor = actor;
    c->router.lock_fd = -1;
    mn_reply_init(&c->reply);
    /* Not at once: a cluster that is often restarted must not scrub without end. */
    c->next_scrub_ns = mn_clock_ns() + actor->settings.scrub_interval / 8;
    MN_TRY(mn_link_open(&c->writer, actor->zmq, &actor->store, "role.wal-writer"));
    /* Between the roles: closed to the members of security.group too. */
    mode_t mask = umask(0077);
    enum mn_status status = mn_gate_serve(actor->gate, &c->router, "role.compactor", false, HIGH_WATER);
    umask(mask);
    MN_TRY(status);
    mn_actor_poll(actor, c->router.socket);
    mn_compactor_scrub_start(c);
    mn_compactor_codes_start(&c->codes, actor);
    return MN_OK;
}

static void stop(struct mn_actor *actor, void *state)
{
    struct mn_compactor_role *c = state;
    if (!c)
        return;
    mn_compactor_codes_stop(c->codes);
    mn_compactor_unwatch(c);
    if (c->engine)
        mn_compactor_close(c->engine);
    mn_link_close(&c->writer);
    mn_router_close(&c->router);
    mn_reply_free(&c->reply);
    while (c->job_count > 0) {
        forget_job(&c->jobs[c->job_first]);
        c->job_first = (c->job_first + 1) % MN_JOBS_MAX;
        c->job_count--;
    }
    free(c);
}

const struct mn_role_ops mn_compactor_role = {.role = MN_ROLE_COMPACTOR, .start = start, .turn = turn, .stop = stop};
