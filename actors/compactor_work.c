/*
 * compactor_work.c - a compaction from its plan to its commit.
 *
 * The compactor prepares, the writer commits. Between the two lies a message, and either side may die on the way; the
 * files of a proposal may be removed only when it is certain that nobody will commit it. `settle` makes it certain: the
 * proposals are unlinked, so that the writer cannot read them, and then the writer answers one more request, so that it
 * is not in the middle of one. Only after that comes the sweep.
 */
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include "actors/compactor.h"
#include "engine/fault.h"
#include "engine/ivf_file.h"
#include "shm/process.h"

#define WAIT_MS          20
#define SETTLE_NS        10000000000u /* for a writer that hangs; the supervisor kills it before that */
#define MISMATCHES_MAX   3
#define LOG_SEGMENTS_MIN 4     /* sealed log segments that are worth a compaction however few rows they hold */
#define UNSEALED_ROWS    65536 /* an idle machine seals the active log segment from here on */
#define NAP_NS           2000000
#define FORCED_LOOKS_MAX 20
#define FORCED_LOOK_NS   10000000
#define WRITER_WAIT_NS   5000000000u
#define PROPOSAL_PREFIX  "proposal."

/* ---- asking the writer ---- */

static bool same_life(struct mn_writer_life a, struct mn_writer_life b)
{
    return a.pid == b.pid && a.start_time == b.start_time;
}

/* A line to the writer that serves now: never one that still holds what another was asked. */
enum mn_status mn_compactor_reach_writer(struct mn_compactor_role *c)
{
    struct mn_writer_life life = mn_compactor_writer(c);
    if (life.pid == 0)
        return MN_FAIL(MN_UNAVAILABLE, "no writer serves now: try again");
    if (!c->writer.socket || !same_life(life, c->writer_life))
        MN_TRY(mn_link_cut(&c->writer));
    c->writer_life = life;
    return MN_OK;
}

static enum mn_status read_answer(const struct mn_wire *map, uint64_t *seq)
{
    static const char *const names[] = {"ok", "code", "error", "seq"};
    struct mn_wire fields[4];
    bool ok = false;
    struct mn_str code = {0}, error = {0};
    MN_TRY(mn_wire_fields(map, "the writer's reply", names, 4, false, fields));
    MN_TRY(mn_wire_bool(&fields[0], "ok", &ok));
    if (ok)
        return seq ? mn_wire_uint(&fields[3], "seq", 0, UINT64_MAX, seq) : MN_OK;
    MN_TRY(mn_wire_str(&fields[1], "code", 1, 64, &code));
    MN_TRY(mn_wire_str(&fields[2], "error", 0, 4096, &error));
    for (unsigned s = 0; s < MN_STATUS_COUNT; s++)
        if (mn_wire_is(code, mn_status_word((enum mn_status)s)))
            return MN_FAIL((enum mn_status)s, "%.*s", (int)error.length, error.data);
    return MN_FAIL(MN_INTERNAL, "%.*s", (int)error.length, error.data);
}

/* True when the message answers request `rid`; *status is what it says. */
static bool is_answer(zmq_msg_t *body, uint64_t rid, uint64_t *seq, enum mn_status *status)
{
    static const char *const names[] = {"rid"};
    struct mn_wire map, field;
    uint64_t got = 0;
    if (mn_wire_check(zmq_msg_data(body), zmq_msg_size(body), &map) != MN_OK || map.type != MN_WIRE_MAP ||
        mn_wire_fields(&map, "the writer's reply", names, 1, false, &field) != MN_OK ||
        mn_wire_uint(&field, "rid", 0, UINT64_MAX, &got) != MN_OK || got != rid)
        return false;
    *status = read_answer(&map, seq);
    return true;
}

/* Waits for the answer to the request just sent. MN_UNAVAILABLE when the writer dies or we are to stop, MN_DEADLINE
 * when it does not answer in time: then its decision is not known. */
static enum mn_status await_answer(struct mn_compactor_role *c, uint64_t patience_ns, uint64_t *seq)
{
    uint64_t end = mn_clock_ns() + patience_ns;
    while (mn_clock_ns() < end) {
        zmq_msg_t body;
        zmq_pollitem_t item = {.socket = c->writer.socket, .events = ZMQ_POLLIN};
        while (mn_link_receive(&c->writer, &body)) {
            enum mn_status status;
            bool answer = is_answer(&body, c->writer.last_rid, seq, &status);
            zmq_msg_close(&body);
            if (answer)
                return status;
        }
        if (mn_actor_breathe(c->actor))
            return MN_FAIL(MN_UNAVAILABLE, "the cluster is stopping");
        if (!same_life(mn_compactor_writer(c), c->writer_life))
            return MN_FAIL(MN_UNAVAILABLE, "the writer has ended meanwhile: try again");
        mn_compactor_receive(c);
        zmq_poll(&item, 1, WAIT_MS);
    }
    return MN_FAIL(MN_DEADLINE, "the writer has not answered in time");
}

/* Ends the active log segment: everything up to now can then be compacted. */
static enum mn_status seal(struct mn_compactor_role *c)
{
    uint64_t seq;
    MN_TRY(mn_compactor_reach_writer(c));
    MN_TRY(mn_link_ask(&c->writer, "seal", NULL, NULL));
    return await_answer(c, SETTLE_NS, &seq);
}

/* ---- certainty ---- */

static enum mn_status unlink_proposal(void *context, const char *name)
{
    const struct mn_instance *instance = context;
    if (strncmp(name, PROPOSAL_PREFIX, strlen(PROPOSAL_PREFIX)) == 0)
        unlinkat(instance->dir_fd, name, 0);
    return MN_OK;
}

enum mn_status mn_compactor_settle(struct mn_compactor_role *c)
{
    struct mn_actor *actor = c->actor;
    c->settled = false;
    c->doubting = false;
    MN_TRY(mn_compactor_reach_writer(c));
    MN_TRY(mn_io_posix.list(actor->instance.path, unlink_proposal, &actor->instance));
    /* A proposal that does not exist: the writer's refusal says that it is between two requests. */
    MN_TRY(mn_link_ask(&c->writer, "publish", "name", PROPOSAL_PREFIX "none"));
    enum mn_status status = await_answer(c, SETTLE_NS, NULL);
    if (status == MN_UNAVAILABLE || status == MN_DEADLINE)
        return status;
    if (c->engine)
        mn_compactor_close(c->engine);
    c->engine = NULL;
    MN_TRY(mn_compactor_open(&c->engine, &actor->store, &actor->instance));
    mn_actor_pulse_begin(actor, false);
    status = mn_compactor_sweep(c->engine);
    mn_actor_pulse_end(actor);
    MN_TRY(status);
    c->settled = true;
    return MN_OK;
}

/* ---- build and publish ---- */

struct mn_compact_policy mn_compactor_policy(const struct mn_settings *s)
{
    return (struct mn_compact_policy){.min_rows = s->compact_min_rows,
                                      .min_log_segments = LOG_SEGMENTS_MIN,
                                      .fanout = (uint32_t)s->compact_fanout,
                                      .dead_percent = (uint32_t)s->compact_dead_percent,
                                      .segment_rows_max = s->compact_segment_rows_max,
                                      .idem_window_ns = (int64_t)s->write_idem_window,
                                      .codebook_rows_min = s->index_rows_min,
                                      .ivf_rows_min =
                                          s->index_rows_min < MN_IVF_ROWS_MIN ? s->index_rows_min : MN_IVF_ROWS_MIN};
}

/* Called every few ms of a build: shows that we live, gives way to recalls, and says when to give up. */
bool mn_compactor_pause(void *context)
{
    struct mn_compactor_role *c = context;
    struct mn_actor *actor = c->actor;
    if (mn_actor_breathe(actor) || !same_life(mn_compactor_writer(c), c->writer_life))
        return true;
    mn_compactor_receive(c);
    mn_load_look(&c->load, &actor->instance.stats, mn_clock_ns());
    bool high = atomic_load(&actor->instance.control->tail_rows) >= actor->settings.tail_high_rows;
    if (!c->urgent && !high && mn_load_suffers(&c->load, &actor->settings))
        nanosleep(&(struct timespec){.tv_nsec = NAP_NS}, NULL);
    return false;
}

enum mn_status mn_compactor_publish(struct mn_compactor_role *c, const struct mn_compact_proposal *proposal)
{
    struct mn_actor *actor = c->actor;
    char name[64];
    mn_compactor_hot_ahead(c, &proposal->next);
    snprintf(name, sizeof name, PROPOSAL_PREFIX "%d.%u", (int)getpid(), ++c->proposals);
    /* Not settled from here on: until the writer has answered, what we propose may become the store. */
    c->settled = false;
    MN_TRY(mn_compact_proposal_write(proposal, &actor->instance, name));
    MN_FAULT_POINT(compact_proposed);
    enum mn_status status = mn_link_ask(&c->writer, "publish", "name", name);
    if (status == MN_OK)
        status = await_answer(c, SETTLE_NS, NULL);
    unlinkat(actor->instance.dir_fd, name, 0);
    c->settled = status == MN_OK;
    return status;
}

static void note_stats(struct mn_compactor_role *c, const struct mn_compact_proposal *proposal, uint64_t began_ns)
{
    struct mn_stats_page *stats = c->actor->stats;
    mn_stat_add(stats, MN_STAT_compact_runs, 1);
    mn_stat_add(stats, MN_STAT_compact_rows_in, proposal->rows_in);
    mn_stat_add(stats, MN_STAT_compact_rows_out, proposal->rows_out);
    mn_stat_add(stats, MN_STAT_compact_bytes, proposal->bytes_out);
    mn_stat_record(stats, MN_STAT_compact_ns, mn_clock_ns() - began_ns);
    mn_log(c->actor, "compacted %llu rows into %llu in %u segments (%.1f MiB) in %.1f ms",
           (unsigned long long)proposal->rows_in, (unsigned long long)proposal->rows_out, proposal->output_count,
           (double)proposal->bytes_out / (1 << 20), (double)(mn_clock_ns() - began_ns) / 1e6);
    if (proposal->rows_lost)
        mn_log(c->actor,
               "DAMAGE: a purge had to rewrite a damaged segment; %llu rows in it could not be read and are lost",
               (unsigned long long)proposal->rows_lost);
}

static enum mn_status carry_out(struct mn_compactor_role *c, const struct mn_compact_plan *plan,
                                struct mn_compacted *result)
{
    struct mn_compact_policy policy = mn_compactor_policy(&c->actor->settings);
    struct mn_compact_proposal proposal = {0};
    uint64_t began = mn_clock_ns();
    MN_TRY(mn_compactor_reach_writer(c));
    mn_actor_pulse_begin(c->actor, false); /* sorting and syncing take their time between two pauses */
    enum mn_status status = mn_compact_build(c->engine, plan, &policy, mn_compactor_pause, c, &proposal);
    mn_actor_pulse_end(c->actor);
    if (status == MN_DEADLINE)
        return MN_FAIL(MN_UNAVAILABLE, "given up half-way: the writer has ended, or the cluster is stopping");
    MN_TRY(status);
    status = mn_compactor_publish(c, &proposal);
    if (status == MN_OK) {
        note_stats(c, &proposal, began);
        mn_compactor_note_codes(c, &proposal);
        *result = (struct mn_compacted){
            .rows_in = proposal.rows_in, .rows_out = proposal.rows_out, .segments = proposal.next.segment_count};
        c->next_census_ns = 0;
    }
    mn_compact_proposal_free(&proposal);
    return status;
}

/* Counts a failure, and settles what is left of it when the writer still serves. */
static enum mn_status fail(struct mn_compactor_role *c, enum mn_status status)
{
    char text[512];
    snprintf(text, sizeof text, "%s", mn_error_text());
    c->settled = false; /* what was half built is swept */
    if (c->actor->draining)
        return status;
    mn_stat_add(c->actor->stats, MN_STAT_compact_failures, 1);
    mn_log(c->actor, "a compaction was given up: %s", mn_error_trail());
    if (status == MN_CORRUPT)
        mn_compactor_degrade(c, text);
    if (mn_compactor_settle(c) != MN_OK)
        mn_log(c->actor, "not settled yet: %s", mn_error_text());
    return MN_FAIL(status, "%s", text);
}

static enum mn_status count_segments(struct mn_compactor_role *c, struct mn_compacted *result)
{
    struct mn_manifest manifest = {0};
    *result = (struct mn_compacted){0};
    MN_TRY(mn_manifest_read(&manifest, &c->actor->store, NULL));
    result->segments = manifest.segment_count;
    mn_manifest_free(&manifest);
    return MN_OK;
}

/* Plans by force. For a moment after a commit manifest and view may not agree, and then there is no plan: while rows
 * still wait in the tail that is worth another look. */
static enum mn_status plan_by_force(struct mn_compactor_role *c, struct mn_compact_plan *plan)
{
    struct mn_compact_policy policy = mn_compactor_policy(&c->actor->settings);
    for (int look = 0; look < FORCED_LOOKS_MAX; look++) {
        MN_TRY(mn_compact_plan_make(c->engine, &policy, true, plan));
        if (plan->worth || atomic_load(&c->actor->instance.control->tail_rows) == 0 || mn_actor_breathe(c->actor))
            break;
        mn_compact_plan_free(plan);
        nanosleep(&(struct timespec){.tv_nsec = FORCED_LOOK_NS}, NULL);
    }
    return MN_OK;
}

static enum mn_status force(struct mn_compactor_role *c, struct mn_compacted *result)
{
    struct mn_compact_plan plan = {0};
    MN_TRY(plan_by_force(c, &plan));
    enum mn_status status = plan.worth ? carry_out(c, &plan, result) : count_segments(c, result);
    mn_compact_plan_free(&plan);
    return status;
}

/* A writer that has just died is back in a moment: somebody who asked to consolidate would only have to ask again. */
static void await_writer(struct mn_compactor_role *c)
{
    uint64_t end = mn_clock_ns() + WRITER_WAIT_NS;
    while (mn_compactor_writer(c).pid == 0 && !mn_actor_breathe(c->actor) && mn_clock_ns() < end) {
        mn_compactor_receive(c);
        nanosleep(&(struct timespec){.tv_nsec = FORCED_LOOK_NS}, NULL);
    }
}

enum mn_status mn_compactor_consolidate(struct mn_compactor_role *c, struct mn_compacted *result)
{
    await_writer(c);
    if (!c->settled)
        MN_TRY(mn_compactor_settle(c));
    MN_TRY(seal(c));
    c->urgent = true;
    enum mn_status status = force(c, result);
    for (int i = 0; status == MN_VERSION_MISMATCH && i < MISMATCHES_MAX; i++) {
        status = mn_compactor_settle(c);
        if (status == MN_OK)
            status = force(c, result);
    }
    c->urgent = false;
    return status == MN_OK ? MN_OK : fail(c, status);
}

/* ---- by itself ---- */

/* Is it time to end the active log segment? Always when the tail is too long and most of it is not sealed; on an idle
 * machine when there is enough. */
static bool should_seal(const struct mn_compactor_role *c, uint64_t tail_rows, uint64_t sealed_rows)
{
    const struct mn_settings *settings = &c->actor->settings;
    uint64_t unsealed = tail_rows > sealed_rows ? tail_rows - sealed_rows : 0;
    uint64_t enough = settings->compact_min_rows > UNSEALED_ROWS ? settings->compact_min_rows : UNSEALED_ROWS;
    if (tail_rows >= settings->tail_high_rows)
        return unsealed > sealed_rows;
    return unsealed >= enough && mn_load_idle(&c->load, settings);
}

static enum mn_status plan_regular(struct mn_compactor_role *c, struct mn_compact_plan *plan)
{
    struct mn_compact_policy policy = mn_compactor_policy(&c->actor->settings);
    MN_TRY(mn_compact_plan_make(c->engine, &policy, false, plan));
    uint64_t tail_rows = atomic_load(&c->actor->instance.control->tail_rows);
    /* A writer that cannot seal now (a full disk) leaves us what is sealed already. */
    if (should_seal(c, tail_rows, plan->log_rows) && seal(c) == MN_OK) {
        mn_compact_plan_free(plan);
        *plan = (struct mn_compact_plan){0};
        MN_TRY(mn_compact_plan_make(c->engine, &policy, false, plan));
    }
    mn_stat_set(c->actor->stats, MN_STAT_compact_debt_rows, plan->log_rows);
    return MN_OK;
}

static enum mn_status consider(struct mn_compactor_role *c, uint32_t *worked)
{
    struct mn_actor *actor = c->actor;
    struct mn_compact_plan plan = {0};
    struct mn_compacted result;
    enum mn_status status = MN_OK;
    MN_TRY_OUT(plan_regular(c, &plan));
    bool high = atomic_load(&actor->instance.control->tail_rows) >= actor->settings.tail_high_rows;
    if (!plan.worth) {
        status = mn_compactor_care(c, worked);
        goto out;
    }
    if (!high && !mn_load_idle(&c->load, &actor->settings)) {
        mn_stat_add(actor->stats, MN_STAT_compact_deferred, 1);
        goto out;
    }
    *worked = 1;
    MN_TRY_OUT(carry_out(c, &plan, &result));
out:
    mn_compact_plan_free(&plan);
    return status;
}

enum mn_status mn_compactor_consider(struct mn_compactor_role *c, uint32_t *worked)
{
    struct mn_actor *actor = c->actor;
    if (!actor->settings.compact_enabled || mn_compactor_writer(c).pid == 0)
        return MN_OK;
    if (!c->settled)
        MN_TRY(mn_compactor_settle(c));
    mn_load_look(&c->load, &actor->instance.stats, mn_clock_ns());
    enum mn_status status = consider(c, worked);
    if (status == MN_VERSION_MISMATCH)
        return mn_compactor_settle(c); /* the manifest moved on, by no fault of anybody's: the next look plans anew */
    return status == MN_OK ? MN_OK : fail(c, status);
}
