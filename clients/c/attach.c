/*
 * attach.c - recall inside the program that asks: the store mapped read-only, a reader slot, no socket.
 *
 * The folder of the running instance is found through run/instance and checked like any role checks it (boot, build,
 * store). A call pins, searches, unpins; nothing is held between calls but mappings and the slot. An instance that has
 * gone shows as a folder without a name: the next call looks for the one that came after it. What stops or kills this
 * program can leave a pin behind, which the supervisor clears when the process is gone and the writer overlooks when it
 * has grown old; files that went meanwhile live on under our mappings, so a call that was stopped in the middle ends
 * with the right answer of its time.
 */
#include "clients/c/attach.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "actors/wire.h"
#include "engine/guard.h"
#include "shm/process.h"

#define POOL_BYTES   (64u << 10)
#define INSTANCE_MAX 127
#define OPEN_LOOK_NS 2000000
#define SEQ_LOOK_NS  50000

void *mn_attach_take(struct mneme_attached *a, size_t bytes)
{
    void *place = msgpack_zone_malloc(&a->pool, bytes > 0 ? bytes : 1);
    return place ? memset(place, 0, bytes) : NULL;
}

/* Leaves the sentence of the last failure in the handle. */
static enum mneme_code conclude(struct mneme_attached *a, enum mn_status status)
{
    a->error[0] = 0;
    if (status == MN_OK)
        return MNEME_OK;
    snprintf(a->error, sizeof a->error, "%s", mn_error_text());
    const char *word = mn_status_word(status == MN_NOT_READY ? MN_UNAVAILABLE : status);
    return mneme_code_from_word(word, strlen(word));
}

/* ---- the store and its instance ---- */

static enum mn_status check_access(const char *path, int mode)
{
    if (faccessat(AT_FDCWD, path, mode, AT_EACCESS) == 0 || errno != EACCES)
        return MN_OK; /* what else is wrong shows, with its own sentence, when it is opened */
    return MN_FAIL(MN_UNAUTHORIZED, "this user may not use %s: its owner may, and the members of security.group", path);
}

static enum mn_status open_store(struct mneme_attached *a, const char *dir)
{
    char path[PATH_MAX], store[PATH_MAX + 8];
    if (!realpath(dir, path))
        return errno == ENOENT   ? MN_FAIL(MN_UNAVAILABLE, "there is no folder %s", dir)
               : errno == EACCES ? MN_FAIL(MN_UNAUTHORIZED, "this user may not look into %s", dir)
                                 : MN_FAIL_ERRNO("cannot find %s", dir);
    snprintf(store, sizeof store, "%s/STORE", path);
    MN_TRY(check_access(store, R_OK));
    enum mn_status status = mn_store_open(&a->store, &mn_io_posix, path);
    if (status == MN_NOT_FOUND)
        return MN_FAIL(MN_UNAVAILABLE, "no store is in %s: start one with `mnemed --dir %s`", path, path);
    mn_uuid_text(a->store.uuid, a->uuid);
    return status;
}

static enum mn_status find_instance(const struct mneme_attached *a, char noted[INSTANCE_MAX + 1])
{
    char path[MN_PATH_MAX];
    void *text;
    size_t bytes;
    MN_TRY(check_access(mn_store_path(&a->store, path, "run/instance"), R_OK));
    enum mn_status status = mn_io_slurp(&mn_io_posix, path, INSTANCE_MAX, &text, &bytes);
    if (status == MN_NOT_FOUND)
        return MN_FAIL(MN_UNAVAILABLE, "no store is served at %s: start it with `mnemed --dir %s`", a->store.dir,
                       a->store.dir);
    MN_TRY(status);
    memcpy(noted, text, bytes);
    noted[bytes] = 0;
    noted[strcspn(noted, "\n")] = 0;
    free(text);
    return check_access(noted, R_OK | X_OK);
}

static enum mn_status open_instance(struct mneme_attached *a)
{
    char noted[INSTANCE_MAX + 1];
    MN_TRY(find_instance(a, noted));
    enum mn_status status = mn_instance_open(&a->instance, noted, false);
    if (status == MN_NOT_FOUND || status == MN_NOT_READY)
        return MN_FAIL(MN_UNAVAILABLE, "the store at %s is stopped, or just starting", a->store.dir);
    MN_TRY(status);
    const struct mn_control *control = a->instance.control;
    if (memcmp(control->store_uuid, a->store.uuid, sizeof a->store.uuid) == 0 && control->dim == a->store.dim &&
        control->metric == (uint32_t)a->store.metric)
        return MN_OK;
    mn_instance_close(&a->instance);
    return MN_FAIL(MN_UNAVAILABLE, "another store than the one attached to is now served at %s", a->store.dir);
}

static void close_instance(struct mneme_attached *a)
{
    mn_reader_close(a->reader);
    a->reader = NULL;
    if (a->instance.control)
        mn_instance_close(&a->instance);
}

/* The last name of the folder goes when the cluster stops, or when the next supervisor finds it orphaned: before
 * anything is written to its successor. */
static bool instance_gone(const struct mneme_attached *a)
{
    struct stat st;
    return a->instance.control && (fstat(a->instance.dir_fd, &st) != 0 || st.st_nlink == 0);
}

/* Attached, with a reader: to the instance that is there now. */
static enum mn_status be_attached(struct mneme_attached *a)
{
    if (getpid() != a->pid)
        return MN_FAIL(MN_BAD_REQUEST, "this handle was attached before a fork: attach anew in the child");
    if (instance_gone(a))
        close_instance(a);
    if (!a->instance.control)
        MN_TRY(open_instance(a));
    return a->reader ? MN_OK : mn_reader_open(&a->reader, &a->store, &a->instance);
}

/* ---- a snapshot ---- */

/* The seq 0 is before the first write; for the reader it means now, so it is set here. */
static enum mn_status pin_before_all(struct mneme_attached *a, struct mn_snapshot *snapshot)
{
    if (atomic_load(&a->instance.control->oldest_seq) > 0) {
        mn_reader_unpin(a->reader);
        return MN_FAIL(MN_UNAVAILABLE, "as_of 0 is older than the history that is kept; info tells the oldest_seq");
    }
    snapshot->seq = 0;
    return MN_OK;
}

static enum mn_status pin(struct mneme_attached *a, const uint64_t *as_of, struct mn_snapshot *snapshot)
{
    enum mn_status status = mn_reader_pin(a->reader, as_of ? *as_of : 0, snapshot);
    if (status != MN_OK && instance_gone(a)) {
        MN_TRY(be_attached(a));
        status = mn_reader_pin(a->reader, as_of ? *as_of : 0, snapshot);
    }
    if (status == MN_NOT_READY)
        return MN_FAIL(MN_UNAVAILABLE, "the store is still starting; try again");
    MN_TRY(status);
    return as_of && *as_of == 0 ? pin_before_all(a, snapshot) : MN_OK;
}

static void nap(long ns)
{
    nanosleep(&(struct timespec){.tv_nsec = ns}, NULL);
}

static enum mn_status await_seq(struct mneme_attached *a, const uint64_t *min_seq)
{
    uint64_t until = mn_clock_ns() + MN_MIN_SEQ_WAIT_MS * UINT64_C(1000000);
    while (min_seq && atomic_load_explicit(&a->instance.control->visible_seq, memory_order_acquire) < *min_seq) {
        if (mn_clock_ns() > until)
            return MN_FAIL(MN_DEADLINE, "min_seq %llu was not visible within %d ms; try again",
                           (unsigned long long)*min_seq, MN_MIN_SEQ_WAIT_MS);
        nap(SEQ_LOOK_NS);
        MN_TRY(be_attached(a));
    }
    return MN_OK;
}

/* ---- pages that cannot be read ---- */

/* After a call that was ended in the middle: what it used is let go of, and made anew. */
static void clear_up(struct mneme_attached *a, const void *fault)
{
    struct mn_search search;
    if (!fault)
        return;
    if (a->reader)
        mn_reader_blame(a->reader, fault);
    if (mn_search_init(&search, a->store.metric, a->store.dim) != MN_OK)
        return; /* the old scratch is usable too: what it had begun counts for nothing */
    mn_search_free(&a->search);
    mn_batch_free(a->batch);
    a->batch = NULL;
    a->search = search;
}

/* Runs a call under a guard (engine/guard.h). */
static enum mn_status run_guarded(struct mneme_attached *a, enum mn_status (*call)(void *context), void *context)
{
    char text[MN_CLIENT_ERROR_SIZE];
    const void *fault;
    enum mn_status status = mn_guarded(call, context, &fault);
    if (!fault)
        return status;
    snprintf(text, sizeof text, "%s", mn_error_text());
    clear_up(a, fault);
    return MN_FAIL(MN_CORRUPT, "%s; the rest of the store is there at the next call", text);
}

/* ---- recall ---- */

struct asked {
    struct mn_query query;
    struct mn_attach_want want;
    struct mn_snapshot snapshot;
};

/* The embedding of the memory that the hits shall be like. */
static enum mn_status set_like(struct mneme_attached *a, struct asked *r)
{
    char text[MN_ID_TEXT_MAX];
    struct mn_row_ref ref = mn_read_find(&r->snapshot, r->query.exclude_space, &r->query.exclude);
    if (ref.part == MN_NONE) {
        mn_id_text(&r->query.exclude, text);
        return MN_FAIL(MN_NOT_FOUND, "there is no memory %s in that space for like", text);
    }
    const float *vector = mn_part_vector(&r->snapshot.parts[ref.part], ref.row);
    if (!vector)
        return MN_FAIL(MN_CORRUPT, "the embedding of the memory in like lies in a damaged block; verify tells more");
    memcpy(a->query, vector, a->store.dim * sizeof *vector);
    return MN_OK;
}

/* What came of one query goes into the answer. */
static enum mn_status add_hits(struct mneme_attached *a, struct asked *r, const struct mn_search *search,
                               uint32_t context, struct mneme_hits *hits, struct mneme_answer *answer)
{
    answer->exact = answer->exact && search->exact && search->damaged == 0 && r->snapshot.missing == 0;
    answer->scanned += search->scanned;
    return mn_attach_hits(a, &r->snapshot, &r->query, search, &r->want, context, hits);
}

static enum mn_status search_one(struct mneme_attached *a, const struct mneme_query *q, struct asked *r,
                                 struct mneme_hits *results, struct mneme_answer *answer)
{
    r->query.embedding = a->query;
    if (q->like)
        MN_TRY(set_like(a, r));
    else
        memcpy(a->query, q->embeddings, a->store.dim * sizeof *a->query);
    MN_TRY(mn_recall_search(&a->search, &r->snapshot, &r->query));
    return add_hits(a, r, &a->search, q->context, results, answer);
}

/* As many at a time as are searched together. */
static enum mn_status search_batch(struct mneme_attached *a, const struct mneme_query *q, struct asked *r,
                                   struct mneme_hits *results, struct mneme_answer *answer)
{
    size_t dim = a->store.dim;
    uint32_t count = (uint32_t)q->count, some;
    if (!a->batch)
        MN_TRY(mn_batch_open(&a->batch, a->store.metric, a->store.dim));
    for (uint32_t first = 0; first < count; first += some) {
        MN_TRY(
            mn_recall_batch(a->batch, &r->snapshot, &r->query, q->embeddings + first * dim, dim, count - first, &some));
        for (uint32_t i = 0; i < some; i++)
            MN_TRY(add_hits(a, r, mn_batch_result(a->batch, i), q->context, &results[first + i], answer));
    }
    return MN_OK;
}

static enum mn_status search_all(struct mneme_attached *a, const struct mneme_query *q, struct asked *r,
                                 struct mneme_answer *answer)
{
    struct mneme_hits *results;
    size_t count = q->embeddings && q->count > 1 ? q->count : 1;
    MN_POOL_ARRAY(a, results, count);
    *answer = (struct mneme_answer){.results = results, .count = count, .seq = r->snapshot.seq, .exact = true};
    return count > 1 ? search_batch(a, q, r, results, answer) : search_one(a, q, r, results, answer);
}

static enum mn_status recall(struct mneme_attached *a, const struct mneme_query *q, struct mneme_answer *answer)
{
    struct asked r;
    msgpack_zone_clear(&a->pool);
    MN_TRY(be_attached(a));
    MN_TRY(mn_attach_query(a, q, &r.query, &r.want));
    MN_TRY(await_seq(a, q->min_seq));
    MN_TRY(pin(a, q->as_of, &r.snapshot));
    enum mn_status status = search_all(a, q, &r, answer);
    mn_reader_unpin(a->reader);
    return status;
}

struct recall_call {
    struct mneme_attached *a;
    const struct mneme_query *query;
    struct mneme_answer *answer;
};

static enum mn_status call_recall(void *context)
{
    const struct recall_call *c = context;
    return recall(c->a, c->query, c->answer);
}

enum mneme_code mneme_attached_recall(struct mneme_attached *a, const struct mneme_query *query,
                                      struct mneme_answer *answer)
{
    uint64_t begun_ns = mn_clock_ns();
    enum mn_status status = run_guarded(a, call_recall, &(struct recall_call){a, query, answer});
    if (status == MN_OK)
        answer->us = (mn_clock_ns() - begun_ns) / 1000;
    else
        *answer = (struct mneme_answer){0};
    return conclude(a, status);
}

/* ---- get ---- */

static enum mn_status find_all(struct mneme_attached *a, const struct mn_snapshot *snapshot, struct mn_str space,
                               const struct mneme_id *ids, const struct mn_attach_want *want,
                               struct mneme_memories *out)
{
    const struct mneme_found **memories;
    MN_POOL_ARRAY(a, memories, out->count); // NOLINT(bugprone-sizeof-expression): an array of pointers
    for (size_t i = 0; i < out->count; i++) {
        struct mn_id id;
        struct mneme_found *found;
        MN_TRY(mn_attach_id(&ids[i], &id));
        struct mn_row_ref ref = mn_read_find(snapshot, space, &id);
        if (ref.part == MN_NONE)
            continue;
        MN_POOL_ARRAY(a, found, 1);
        MN_TRY(mn_attach_found(a, snapshot, ref, want, found));
        if (found->damaged.at)
            return MN_FAIL(MN_CORRUPT, "what was asked for of a memory lies in a damaged block; verify tells more");
        memories[i] = found;
    }
    out->memory = memories;
    return MN_OK;
}

static enum mn_status get(struct mneme_attached *a, const char *space, const struct mneme_id *ids,
                          const struct mn_attach_want *want, const uint64_t *as_of, struct mneme_memories *out)
{
    struct mn_str name;
    struct mn_snapshot snapshot;
    MN_TRY(mn_attach_space(space, &name));
    if (!ids || out->count == 0 || out->count > MN_WIRE_IDS_MAX)
        return MN_FAIL(MN_BAD_REQUEST, "there are %zu ids to get; there must be 1 to %d", out->count, MN_WIRE_IDS_MAX);
    MN_TRY(be_attached(a));
    MN_TRY(pin(a, as_of, &snapshot));
    out->seq = snapshot.seq;
    enum mn_status status = find_all(a, &snapshot, name, ids, want, out);
    mn_reader_unpin(a->reader);
    return status;
}

struct get_call {
    struct mneme_attached *a;
    const char *space;
    const struct mneme_id *ids;
    const struct mn_attach_want *want;
    const uint64_t *as_of;
    struct mneme_memories *out;
};

static enum mn_status call_get(void *context)
{
    const struct get_call *c = context;
    return get(c->a, c->space, c->ids, c->want, c->as_of, c->out);
}

enum mneme_code mneme_attached_get(struct mneme_attached *a, const char *space, const struct mneme_id *ids,
                                   size_t count, const char *const *fields, size_t field_count, const uint64_t *as_of,
                                   struct mneme_memories *memories)
{
    struct mn_attach_want want = {0};
    *memories = (struct mneme_memories){.count = count};
    msgpack_zone_clear(&a->pool);
    enum mn_status status = mn_attach_fields(fields, field_count, &want);
    if (status == MN_OK)
        status = run_guarded(a, call_get, &(struct get_call){a, space, ids, &want, as_of, memories});
    if (status != MN_OK)
        *memories = (struct mneme_memories){0};
    return conclude(a, status);
}

/* ---- the handle ---- */

static enum mn_status make_scratch(struct mneme_attached *a)
{
    MN_TRY(mn_search_init(&a->search, a->store.metric, a->store.dim));
    a->query = aligned_alloc(MN_LINE, mn_round_up((uint64_t)a->store.dim * sizeof *a->query, MN_LINE));
    return a->query ? MN_OK : MN_FAIL(MN_INTERNAL, "out of memory for an embedding");
}

/* Pins once: the first call then finds everything mapped. */
static enum mn_status attach_now(struct mneme_attached *a)
{
    struct mn_snapshot snapshot;
    MN_TRY(be_attached(a));
    MN_TRY(pin(a, NULL, &snapshot));
    mn_reader_unpin(a->reader);
    return MN_OK;
}

static enum mn_status attach_in_time(struct mneme_attached *a, const char *dir, int wait_ms)
{
    uint64_t until = mn_clock_ns() + (uint64_t)(wait_ms > 0 ? wait_ms : 0) * 1000000;
    enum mn_status status;
    while ((status = open_store(a, dir)) == MN_UNAVAILABLE && mn_clock_ns() < until)
        nap(OPEN_LOOK_NS);
    MN_TRY(status);
    MN_TRY(make_scratch(a));
    while ((status = attach_now(a)) == MN_UNAVAILABLE && mn_clock_ns() < until)
        nap(OPEN_LOOK_NS);
    return status;
}

enum mneme_code mneme_attach(struct mneme_attached **out, const char *dir, int wait_ms)
{
    *out = NULL;
    struct mneme_attached *a = calloc(1, sizeof *a);
    if (!a || !msgpack_zone_init(&a->pool, POOL_BYTES)) {
        free(a);
        mn_client_note_open_error("out of memory");
        return MNEME_NO_MEMORY;
    }
    a->pid = getpid();
    enum mneme_code code = conclude(a, attach_in_time(a, dir, wait_ms));
    if (code != MNEME_OK) {
        mn_client_note_open_error(a->error);
        mneme_detach(a);
        return code;
    }
    *out = a;
    return MNEME_OK;
}

void mneme_attached_release(struct mneme_attached *a)
{
    msgpack_zone_clear(&a->pool);
    if (getpid() != a->pid)
        return;
    mn_reader_close(a->reader);
    a->reader = NULL;
}

void mneme_detach(struct mneme_attached *a)
{
    if (!a)
        return;
    close_instance(a); /* in a forked child too: a slot is only given back by the process that claimed it */
    mn_search_free(&a->search);
    mn_batch_free(a->batch);
    mn_reading_free(&a->reading);
    msgpack_zone_destroy(&a->pool);
    msgpack_sbuffer_destroy(&a->packed);
    free(a->query);
    free(a);
}

const char *mneme_attached_error(const struct mneme_attached *a)
{
    return a->error;
}

uint32_t mneme_attached_dim(const struct mneme_attached *a)
{
    return a->store.dim;
}

const char *mneme_attached_uuid(const struct mneme_attached *a)
{
    return a->uuid;
}

const char *mneme_attached_metric(const struct mneme_attached *a)
{
    return mn_metric_word(a->store.metric);
}
