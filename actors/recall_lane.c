/*
 * recall_lane.c - recall, get, list, count, spaces: from the frame to the reply (see recall_lane.h).
 *
 * A reply is encoded while the snapshot is pinned, straight from the mapped columns; then the pin is let go. A request
 * that fails, for whatever reason, costs its own answer and nothing else.
 */
#include "actors/recall_lane.h"

#include <stdio.h>
#include <stdlib.h>

#include "actors/wire_cursor.h"
#include "actors/wire_encode.h"
#include "engine/guard.h"
#include "shm/process.h"

enum mn_status mn_recall_lane_open(struct mn_recall_lane *lane, struct mn_actor *actor)
{
    *lane = (struct mn_recall_lane){.store = actor->store, .instance = &actor->instance, .stats = actor->stats};
    mn_reply_init(&lane->reply);
    mn_decoder_init(&lane->decoder, lane->store.dim, lane->store.metric);
    MN_TRY(mn_search_init(&lane->search, lane->store.metric, lane->store.dim));
    return mn_reader_open(&lane->reader, &lane->store, lane->instance);
}

void mn_recall_lane_close(struct mn_recall_lane *lane)
{
    if (lane->reader)
        mn_reader_close(lane->reader);
    mn_search_free(&lane->search);
    mn_batch_free(lane->batch);
    mn_reading_free(&lane->reading);
    mn_decoder_free(&lane->decoder);
    mn_reply_free(&lane->reply);
    free(lane->spaces);
    *lane = (struct mn_recall_lane){0};
}

/* What a read had to leave out because its checksum failed is told: info says degraded, verify names the file. */
static void tell_damage(struct mn_recall_lane *lane, uint64_t blocks)
{
    if (blocks == 0)
        return;
    mn_stat_add(lane->stats, MN_STAT_column_damage, blocks);
    atomic_fetch_or(&lane->instance->control->reasons, MN_DEGRADED_COLUMN);
}

/* ---- pinning */

/* The seq 0 is before the first write; for the reader it means now, so it is set here. */
static enum mn_status pin_before_all(struct mn_recall_lane *lane, struct mn_snapshot *snapshot)
{
    if (atomic_load(&lane->instance->control->oldest_seq) > 0) {
        mn_reader_unpin(lane->reader);
        return MN_FAIL(MN_UNAVAILABLE, "as_of 0 is older than the history that is kept; info tells the oldest_seq");
    }
    snapshot->seq = 0;
    return MN_OK;
}

static enum mn_status pin(struct mn_recall_lane *lane, const struct mn_moment *moment, struct mn_snapshot *snapshot)
{
    enum mn_status status = mn_reader_pin(lane->reader, moment ? moment->as_of : 0, snapshot);
    if (status == MN_NOT_READY)
        return MN_FAIL(MN_UNAVAILABLE, "the store is still starting; try again");
    MN_TRY(status);
    tell_damage(lane, snapshot->missing);
    if (snapshot->uncoded > 0) /* scanned exactly; the compactor sees this bit and looks */
        atomic_fetch_or(&lane->instance->control->reasons, MN_DEGRADED_INDEX);
    if (moment && moment->has_as_of && moment->as_of == 0)
        return pin_before_all(lane, snapshot);
    return MN_OK;
}

static uint64_t elapsed_us(uint64_t since_ns)
{
    return (mn_clock_ns() - since_ns) / 1000;
}

/* ---- recall */

struct recall {
    struct mn_recall_lane *lane;
    const struct mn_request *request;
    struct mn_recall_request asked;
    struct mn_snapshot snapshot;
    int64_t now; /* wall clock when it was decoded, ns */
    bool exact;
    uint64_t scanned, encode_ns;
};

/* The embedding of the memory that the hits shall be like. */
static enum mn_status set_like(struct recall *r)
{
    char text[MN_ID_TEXT_MAX];
    struct mn_row_ref ref = mn_read_find(&r->snapshot, r->asked.like_space, &r->asked.like);
    if (ref.part == MN_NONE) {
        mn_id_text(&r->asked.like, text);
        return MN_FAIL(MN_NOT_FOUND, "there is no memory %s in that space for like", text);
    }
    const float *vector = mn_part_vector(&r->snapshot.parts[ref.part], ref.row);
    if (!vector)
        return MN_FAIL(MN_CORRUPT, "the embedding of the memory in like lies in a damaged block; verify tells more");
    size_t bytes = r->lane->store.dim * sizeof *vector;
    float *copy = mn_arena_take(&r->lane->decoder.arena, bytes, 64);
    if (!copy)
        return MN_FAIL(MN_INTERNAL, "no memory for the request");
    memcpy(copy, vector, bytes);
    r->asked.embeddings = copy;
    r->asked.count = 1;
    return MN_OK;
}

static void record_search(struct mn_recall_lane *lane, const struct mn_search *search)
{
    tell_damage(lane, search->damaged);
    mn_stat_record(lane->stats, MN_STAT_recall_coarse_ns, search->coarse_ns);
    mn_stat_record(lane->stats, MN_STAT_recall_scan_ns, search->scan_ns);
    mn_stat_record(lane->stats, MN_STAT_recall_rerank_ns, search->rerank_ns);
    mn_stat_add(lane->stats, MN_STAT_recall_queries, 1);
    mn_stat_add(lane->stats, MN_STAT_recall_scanned, search->scanned);
}

/* What came of one query goes into the reply. */
static enum mn_status pack_hits(struct recall *r, const struct mn_search *search)
{
    struct mn_recall_lane *lane = r->lane;
    struct mn_encode_hits how = {.snapshot = &r->snapshot,
                                 .want = &r->asked.want,
                                 .query = &r->asked.query,
                                 .context = r->asked.context,
                                 .reading = &lane->reading};
    record_search(lane, search);
    r->exact = r->exact && search->exact && search->damaged == 0 && r->snapshot.missing == 0;
    r->scanned += search->scanned;
    uint64_t begun_ns = mn_clock_ns();
    enum mn_status status = mn_encode_hits(&lane->reply, &how, search->hits, search->hit_count);
    r->encode_ns += mn_clock_ns() - begun_ns;
    tell_damage(lane, how.damaged);
    return status;
}

static enum mn_status search_one(struct recall *r)
{
    struct mn_recall_lane *lane = r->lane;
    r->asked.query.embedding = r->asked.embeddings;
    MN_TRY(mn_recall_search(&lane->search, &r->snapshot, &r->asked.query));
    return pack_hits(r, &lane->search);
}

/* As many at a time as are searched together. */
static enum mn_status search_batch(struct recall *r)
{
    struct mn_recall_lane *lane = r->lane;
    uint32_t count = r->asked.count, some;
    if (!lane->batch)
        MN_TRY(mn_batch_open(&lane->batch, lane->store.metric, lane->store.dim));
    for (uint32_t first = 0; first < count && !mn_reply_over(&lane->reply); first += some) {
        MN_TRY(mn_recall_batch(lane->batch, &r->snapshot, &r->asked.query,
                               r->asked.embeddings + (size_t)first * r->asked.stride, r->asked.stride, count - first,
                               &some));
        for (uint32_t i = 0; i < some && !mn_reply_over(&lane->reply); i++)
            MN_TRY(pack_hits(r, mn_batch_result(lane->batch, i)));
    }
    return MN_OK;
}

static enum mn_status search_all(struct recall *r)
{
    struct mn_reply *reply = &r->lane->reply;
    if (r->asked.has_like)
        MN_TRY(set_like(r));
    mn_reply_begin(reply, r->request->rid, 5);
    mn_reply_key(reply, r->asked.batch ? "results" : "hits");
    if (!r->asked.batch)
        return search_one(r);
    msgpack_pack_array(&reply->pack, r->asked.count);
    return search_batch(r);
}

static enum mn_status recall(struct mn_recall_lane *lane, const struct mn_request *request, uint64_t received_ns)
{
    struct recall r = {.lane = lane, .request = request, .now = mn_wall_ns(), .exact = true};
    uint64_t begun_ns = mn_clock_ns();
    MN_TRY(mn_decode_recall(&lane->decoder, request, r.now, &r.asked));
    mn_stat_record(lane->stats, MN_STAT_recall_decode_ns, mn_clock_ns() - begun_ns);
    MN_TRY(pin(lane, &r.asked.moment, &r.snapshot));
    enum mn_status status = search_all(&r);
    if (status == MN_OK && lane->shadow)
        mn_recall_shadow_note(lane->shadow, &r.asked, r.now, &r.snapshot, &lane->search);
    mn_reader_unpin(lane->reader);
    MN_TRY(status);
    uint64_t us = elapsed_us(received_ns);
    mn_reply_uint(&lane->reply, "seq", r.snapshot.seq);
    mn_reply_bool(&lane->reply, "exact", r.exact);
    mn_reply_uint(&lane->reply, "scanned", r.scanned);
    mn_reply_uint(&lane->reply, "us", us);
    MN_TRY(mn_reply_end(&lane->reply, "ask for a smaller k, fewer embeddings or fewer fields"));
    mn_stat_add(lane->stats, MN_STAT_recall_requests, 1);
    mn_stat_record(lane->stats, MN_STAT_recall_reply_ns, r.encode_ns);
    mn_stat_record(lane->stats, MN_STAT_recall_us, us);
    return MN_OK;
}

/* ---- recall, once more */

static void record_check(struct recall *r, const struct mn_shadow_answer *answer)
{
    struct mn_recall_lane *lane = r->lane;
    uint32_t wanted = lane->search.hit_count;
    if (!lane->search.exact || lane->search.damaged > 0 || r->snapshot.missing > 0 || wanted == 0)
        return;
    uint32_t found = mn_recall_shadow_found(answer, &r->snapshot, &lane->search);
    mn_stat_add(lane->stats, MN_STAT_recall_shadow_missed, wanted - found);
    mn_stat_record(lane->stats, MN_STAT_recall_observed, found * 1000u / wanted);
    mn_stat_add(lane->stats, MN_STAT_recall_shadowed, 1); /* last: who sees it counted finds what came of it */
}

static enum mn_status search_again(struct recall *r, const struct mn_shadow_answer *answer)
{
    if (r->asked.has_like)
        MN_TRY(set_like(r));
    r->asked.query.embedding = r->asked.embeddings;
    r->asked.query.exact = true;
    MN_TRY(mn_recall_search(&r->lane->search, &r->snapshot, &r->asked.query));
    record_check(r, answer);
    return MN_OK;
}

static enum mn_status check(struct mn_recall_lane *lane, const struct mn_request *request,
                            const struct mn_shadow_answer *answer)
{
    struct recall r = {.lane = lane, .request = request};
    struct mn_moment moment = {.has_as_of = true, .as_of = answer->seq};
    MN_TRY(mn_decode_recall(&lane->decoder, request, answer->now, &r.asked));
    MN_TRY(pin(lane, &moment, &r.snapshot));
    enum mn_status status = search_again(&r, answer);
    mn_reader_unpin(lane->reader);
    return status;
}

/* ---- get */

static enum mn_status pack_found(struct mn_recall_lane *lane, const struct mn_snapshot *snapshot,
                                 const struct mn_get_request *asked)
{
    msgpack_pack_array(&lane->reply.pack, asked->count);
    for (uint32_t i = 0; i < asked->count && !mn_reply_over(&lane->reply); i++) {
        struct mn_row_ref ref = mn_read_find(snapshot, asked->space, &asked->ids[i]);
        MN_TRY(mn_encode_memory(&lane->reply, snapshot, ref, &asked->want));
    }
    return MN_OK;
}

static enum mn_status get(struct mn_recall_lane *lane, const struct mn_request *request)
{
    struct mn_get_request asked;
    struct mn_snapshot snapshot;
    MN_TRY(mn_decode_get(&lane->decoder, request, &asked));
    MN_TRY(pin(lane, &asked.moment, &snapshot));
    mn_reply_begin(&lane->reply, request->rid, 2);
    mn_reply_uint(&lane->reply, "seq", snapshot.seq);
    mn_reply_key(&lane->reply, "memories");
    enum mn_status status = pack_found(lane, &snapshot, &asked);
    mn_reader_unpin(lane->reader);
    MN_TRY(status);
    return mn_reply_end(&lane->reply, "ask for fewer ids or fields");
}

/* ---- list */

static enum mn_status pack_page(struct mn_recall_lane *lane, const struct mn_request *request,
                                const struct mn_snapshot *snapshot, const struct mn_list_request *asked)
{
    struct mn_reading *reading = &lane->reading;
    struct mn_reply *reply = &lane->reply;
    bool more;
    MN_TRY(mn_read_list(reading, snapshot, &asked->scope, asked->newest_first, &asked->cursor, asked->limit, &more));
    more = more && reading->row_count > 0;
    mn_reply_begin(reply, request->rid, more ? 3 : 2);
    mn_reply_uint(reply, "seq", snapshot->seq);
    if (more) {
        struct mn_cursor cursor;
        char text[MN_WIRE_CURSOR_MAX];
        mn_cursor_at(&cursor, snapshot, reading->rows[reading->row_count - 1]);
        mn_reply_str(reply, "cursor", (struct mn_str){text, mn_wire_cursor_write(&cursor, asked->newest_first, text)});
    }
    mn_reply_key(reply, "memories");
    uint64_t damaged = 0;
    enum mn_status status =
        mn_encode_memories(reply, snapshot, reading->rows, reading->row_count, &asked->want, &damaged);
    tell_damage(lane, damaged);
    return status;
}

static enum mn_status list(struct mn_recall_lane *lane, const struct mn_request *request)
{
    struct mn_list_request asked;
    struct mn_snapshot snapshot;
    MN_TRY(mn_decode_list(&lane->decoder, request, &asked));
    MN_TRY(pin(lane, NULL, &snapshot));
    enum mn_status status = pack_page(lane, request, &snapshot, &asked);
    mn_reader_unpin(lane->reader);
    MN_TRY(status);
    return mn_reply_end(&lane->reply, "ask for a shorter page (limit) or fewer fields");
}

/* ---- count, spaces */

static enum mn_status count(struct mn_recall_lane *lane, const struct mn_request *request)
{
    struct mn_scope scope;
    struct mn_snapshot snapshot;
    uint64_t found = 0;
    MN_TRY(mn_decode_count(&lane->decoder, request, &scope));
    MN_TRY(pin(lane, NULL, &snapshot));
    enum mn_status status = mn_read_count(&lane->reading, &snapshot, &scope, &found);
    mn_reader_unpin(lane->reader);
    MN_TRY(status);
    mn_reply_begin(&lane->reply, request->rid, 2);
    mn_reply_uint(&lane->reply, "count", found);
    mn_reply_uint(&lane->reply, "seq", snapshot.seq);
    return MN_OK;
}

static enum mn_status note_space(void *context, struct mn_str space, uint64_t found)
{
    struct mn_recall_lane *lane = context;
    if (lane->space_count == lane->space_room) {
        uint32_t room = lane->space_room ? lane->space_room * 2 : 64;
        struct mn_space_count *spaces = realloc(lane->spaces, room * sizeof *spaces);
        if (!spaces)
            return MN_FAIL(MN_INTERNAL, "no memory for the names of the spaces");
        lane->spaces = spaces;
        lane->space_room = room;
    }
    lane->spaces[lane->space_count++] = (struct mn_space_count){space, found};
    return MN_OK;
}

static void pack_spaces(struct mn_recall_lane *lane, const struct mn_request *request)
{
    struct mn_reply *reply = &lane->reply;
    mn_reply_begin(reply, request->rid, 1);
    mn_reply_key(reply, "spaces");
    msgpack_pack_array(&reply->pack, lane->space_count);
    for (uint32_t i = 0; i < lane->space_count && !mn_reply_over(reply); i++) {
        msgpack_pack_map(&reply->pack, 2);
        mn_reply_str(reply, "space", lane->spaces[i].space);
        mn_reply_uint(reply, "count", lane->spaces[i].count);
    }
}

static enum mn_status spaces(struct mn_recall_lane *lane, const struct mn_request *request)
{
    struct mn_snapshot snapshot;
    lane->space_count = 0;
    MN_TRY(pin(lane, NULL, &snapshot));
    enum mn_status status = mn_read_spaces(&snapshot, note_space, lane);
    if (status == MN_OK)
        pack_spaces(lane, request); /* the names lie in mapped dictionaries: pack before the pin goes */
    mn_reader_unpin(lane->reader);
    MN_TRY(status);
    return mn_reply_end(&lane->reply, "there are too many spaces to name them all");
}

/* ---- any of them */

static enum mn_status in_time(const struct mn_request *request, uint64_t received_ns)
{
    uint64_t now = mn_clock_ns();
    if (now <= mn_wire_until(request, received_ns))
        return MN_OK;
    return MN_FAIL(MN_DEADLINE, "the request waited %.1f ms for its turn; deadline_ms is %llu",
                   (double)(now - received_ns) / 1e6, (unsigned long long)request->deadline_ms);
}

static enum mn_status dispatch(struct mn_recall_lane *lane, const struct mn_request *request, uint64_t received_ns)
{
    MN_TRY(in_time(request, received_ns));
    switch (request->op) {
    case MN_OP_RECALL:
        return recall(lane, request, received_ns);
    case MN_OP_GET:
        return get(lane, request);
    case MN_OP_LIST:
        return list(lane, request);
    case MN_OP_COUNT:
        return count(lane, request);
    case MN_OP_SPACES:
        return spaces(lane, request);
    default:
        return MN_FAIL(MN_INTERNAL, "a recall worker has no operation %s", mn_op_word(request->op));
    }
}

/* ---- under a guard */

struct guarded {
    struct mn_recall_lane *lane;
    const struct mn_request *request;
    uint64_t received_ns;
    const struct mn_shadow_answer *shadow;
};

static enum mn_status dispatch_guarded(void *context)
{
    const struct guarded *g = context;
    return dispatch(g->lane, g->request, g->received_ns);
}

/* A page could not be read in the middle of a request: what it used is let go of, and made anew. */
static void clear_up(struct mn_recall_lane *lane, const void *fault)
{
    struct mn_search search;
    mn_reader_blame(lane->reader, fault);
    mn_stat_add(lane->stats, MN_STAT_recall_faults, 1);
    if (mn_search_init(&search, lane->store.metric, lane->store.dim) != MN_OK)
        return; /* the old scratch is usable too: what it had begun counts for nothing */
    mn_search_free(&lane->search);
    mn_batch_free(lane->batch);
    lane->batch = NULL;
    lane->search = search;
}

void mn_recall_lane_answer(struct mn_recall_lane *lane, const struct mn_request *request, uint64_t received_ns)
{
    struct guarded g = {.lane = lane, .request = request, .received_ns = received_ns};
    const void *fault;
    char text[512];
    enum mn_status status = mn_guarded(dispatch_guarded, &g, &fault);
    snprintf(text, sizeof text, "%s", status == MN_OK ? "" : mn_error_text());
    if (fault)
        clear_up(lane, fault);
    tell_damage(lane, status == MN_CORRUPT);
    if (status != MN_OK)
        mn_recall_lane_refuse(lane, request->rid, status, text);
    else if (request->op != MN_OP_RECALL)
        mn_stat_add(lane->stats, MN_STAT_recall_reads, 1);
}

static enum mn_status check_guarded(void *context)
{
    const struct guarded *g = context;
    return check(g->lane, g->request, g->shadow);
}

void mn_recall_lane_check(struct mn_recall_lane *lane, const struct mn_request *request,
                          const struct mn_shadow_answer *answer)
{
    struct guarded g = {.lane = lane, .request = request, .shadow = answer};
    const void *fault = NULL;
    if (answer->seq == 0)
        return;
    enum mn_status ignored = mn_guarded(check_guarded, &g, &fault);
    (void)ignored; /* the client has its answer; what is damaged is told where it is asked for */
    if (fault)
        clear_up(lane, fault);
}

void mn_recall_lane_refuse(struct mn_recall_lane *lane, struct mn_str rid, enum mn_status status, const char *text)
{
    mn_reply_error(&lane->reply, rid, status, text);
    mn_stat_add(lane->stats, MN_STAT_recall_errors, 1);
}
