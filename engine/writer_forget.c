/*
 * writer_forget.c - forget in its four modes, by ids or by what a filter selected.
 */
#include <inttypes.h>
#include <stdlib.h>

#include "engine/fault.h"
#include "engine/filter.h"
#include "engine/writer_state.h"
#include "shm/process.h"

/* ---- restore: a whole new version from the suppressed one ---- */

/* The memory that stands at a place, as if it were to be remembered again. tags: room for MN_TAGS_MAX. */
static enum mn_status read_back(const struct mn_part *part, uint32_t row, struct mn_memory *m, struct mn_str *tags)
{
    const uint32_t *numbers;
    *m = (struct mn_memory){.embedding = mn_part_vector(part, row),
                            .confidence = mn_part_confidence(part, row),
                            .at = mn_part_at(part, row),
                            .expires = mn_part_expires(part, row),
                            .tags = tags};
    if (!m->embedding)
        return MN_FAIL(MN_CORRUPT, "the embedding of a memory to restore is damaged on disk");
    m->tag_count = mn_part_tags(part, row, &numbers);
    for (uint32_t i = 0; i < m->tag_count && i < MN_TAGS_MAX; i++)
        tags[i] = mn_part_string(part, numbers[i]);
    MN_TRY(mn_part_meta(part, row, &m->meta));
    return mn_part_content(part, row, &m->content, &m->content_bin);
}

/* True when an id is suppressed and can come back. */
static bool is_restorable(struct mn_writer *w, const struct mn_forget *request, const struct mn_id *id,
                          uint64_t space_hash, struct mn_place *place)
{
    return mn_index_find(w->parts.index, request->write.space, id, mn_id_hash(space_hash, id), place) &&
           place->suppressed && mn_part_expires(mn_writer_part(w, *place), place->row) > request->write.now;
}

static enum mn_status restore(struct mn_writer *w, const struct mn_forget *request, uint64_t seq, uint32_t *count)
{
    uint64_t space_hash = mn_str_hash(request->write.space);
    for (uint32_t i = 0; i < request->id_count; i++) {
        struct mn_place place;
        struct mn_memory memory;
        struct mn_str tags[MN_TAGS_MAX];
        if (!is_restorable(w, request, &request->ids[i], space_hash, &place))
            continue;
        const struct mn_part *part = mn_writer_part(w, place);
        MN_TRY(read_back(part, place.row, &memory, tags));
        MN_TRY(
            mn_writer_add_put(w, &request->write, &request->ids[i], 0, &memory, mn_part_scale(part, place.row), seq));
        ++*count;
    }
    return MN_OK;
}

/* ---- delete, suppress, purge: one record of ids ---- */

/* Applies the forget to the index; ids[] gets those that it takes effect on: all of them for a purge, and while a
 * segment cannot be opened, which may hold them (engine/ledger_marks.h). */
static enum mn_status hide(struct mn_writer *w, const struct mn_forget *request, uint64_t seq, struct mn_id *ids,
                           uint32_t *id_count, uint32_t *count)
{
    uint64_t space_hash = mn_str_hash(request->write.space);
    for (uint32_t i = 0; i < request->id_count; i++) {
        const struct mn_id *id = &request->ids[i];
        uint64_t hash = mn_id_hash(space_hash, id);
        struct mn_mark mark;
        bool marked;
        if (request->mode == MN_FORGET_SUPPRESS)
            MN_TRY(mn_parts_suppress(&w->parts, request->write.space, id, hash, seq, &mark, &marked));
        else
            marked = mn_parts_remove(&w->parts, request->write.space, id, hash, seq, &mark);
        if (marked)
            MN_TRY(mn_writer_add_mark(w, &mark));
        if (marked || request->mode == MN_FORGET_PURGE || w->missing != 0)
            ids[(*id_count)++] = *id;
        *count += marked && mn_part_expires(&w->parts.own[mark.part]->part, mark.row) > request->write.now;
    }
    return MN_OK;
}

static enum mn_status add_hidden(struct mn_writer *w, const struct mn_forget *request, uint64_t seq, uint32_t *count)
{
    uint32_t id_count = 0;
    struct mn_id *ids = malloc(request->id_count * sizeof *ids + 1);
    if (!ids)
        return MN_FAIL(MN_INTERNAL, "no memory for a forget of %u ids", request->id_count);
    enum mn_status status = hide(w, request, seq, ids, &id_count, count);
    if (status == MN_OK && id_count > 0 && !MN_BUG(forget_not_logged)) {
        struct mn_record record = {.op = MN_RECORD_FORGET,
                                   .flags = (uint16_t)request->mode,
                                   .seq = seq,
                                   .wall_ns = request->write.now,
                                   .space_hash = mn_str_hash(request->write.space)};
        struct mn_record_parts parts = {.space = request->write.space,
                                        .content = {(const char *)ids, id_count * (uint32_t)sizeof *ids}};
        mn_batch_add(&w->batch.log, &record, &parts);
    }
    free(ids);
    return status;
}

/* ---- admission ---- */

/* Expired memories are absent: forgetting them hides nothing that a client could see. But they are removed all the
 * same. */
static enum mn_status check_versions(struct mn_writer *w, const struct mn_forget *request)
{
    uint64_t space_hash = mn_str_hash(request->write.space);
    for (uint32_t i = 0; request->has_if_version && i < request->id_count; i++) {
        struct mn_place place;
        char text[MN_ID_TEXT_MAX];
        bool there = mn_index_find(w->parts.index, request->write.space, &request->ids[i],
                                   mn_id_hash(space_hash, &request->ids[i]), &place);
        uint64_t version = there ? mn_part_born(mn_writer_part(w, place), place.row) : 0;
        if (there && version == request->if_version)
            continue;
        mn_id_text(&request->ids[i], text);
        return there ? MN_FAIL(MN_VERSION_MISMATCH, "id %s has version %llu, not %llu", text,
                               (unsigned long long)version, (unsigned long long)request->if_version)
                     : MN_FAIL(MN_VERSION_MISMATCH, "id %s is not there, so it has no version %llu", text,
                               (unsigned long long)request->if_version);
    }
    return MN_OK;
}

static enum mn_status forget_room(struct mn_writer *w, const struct mn_forget *request, struct mn_room *room)
{
    uint64_t space_hash = mn_str_hash(request->write.space);
    *room = (struct mn_room){.bytes = mn_writer_idem_room(&request->write), .records = 1};
    if (request->mode != MN_FORGET_RESTORE) {
        room->bytes +=
            mn_record_bytes(0, (uint64_t)request->id_count * sizeof(struct mn_id) + request->write.space.length);
        room->records++;
        room->touched = request->id_count;
        return MN_OK;
    }
    for (uint32_t i = 0; i < request->id_count; i++) {
        struct mn_place place;
        struct mn_memory memory;
        struct mn_str tags[MN_TAGS_MAX];
        if (!is_restorable(w, request, &request->ids[i], space_hash, &place))
            continue;
        if (!mn_writer_in_log(w, place))
            return MN_FAIL(MN_NOT_READY, "a version to restore is in this batch");
        MN_TRY(read_back(mn_writer_part(w, place), place.row, &memory, tags));
        mn_writer_put_room(w, request->write.space, &memory, room);
    }
    return MN_OK;
}

enum mn_status mn_writer_forget(struct mn_writer *w, const struct mn_forget *request, struct mn_outcome *outcome)
{
    bool found;
    struct mn_room room;
    uint32_t count = 0;
    MN_TRY(mn_writer_replay(w, &request->write, outcome, &found));
    if (found)
        return MN_OK;
    MN_TRY(mn_writer_check(w, &request->write));
    MN_TRY(check_versions(w, request));
    MN_TRY(forget_room(w, request, &room));
    MN_TRY(mn_writer_make_room(w, &room));
    uint64_t seq = ++w->seq;
    uint32_t records_before = w->batch.log.records;
    w->run_count = 0;
    enum mn_status status =
        request->mode == MN_FORGET_RESTORE ? restore(w, request, seq, &count) : add_hidden(w, request, seq, &count);
    if (status == MN_OK)
        status = mn_writer_add_idem(w, &request->write, seq, count);
    if (status != MN_OK) {
        w->broken = true;
        return mn_error_pass(status, __FILE__, __LINE__);
    }
    if (w->batch.log.records == records_before)
        seq = --w->seq; /* nothing to forget and no key to keep: the log does not hear of it */
    else if (request->mode == MN_FORGET_PURGE)
        w->purge_admitted = seq;
    w->batch.forgets += request->mode == MN_FORGET_RESTORE ? 0 : count;
    *outcome = (struct mn_outcome){.seq = seq, .count = count};
    return MN_OK;
}

/* ---- selections ---- */

struct mn_selection {
    struct mn_writer *w;
    const struct mn_scope *scope;
    struct mn_id *ids;              /* those that were forgotten, for the outcome */
    bool visible, suppressed, dead; /* which rows it takes */
    struct mn_reader *reader;
    struct mn_snapshot snapshot;
    struct mn_matcher matcher;
    uint32_t part, row; /* where it stands */
    struct selected {
        struct mn_id id;
        uint64_t born;
    } * selected;
    uint32_t count, max;
};

enum mn_status mn_selection_start(struct mn_writer *w, const struct mn_scope *scope, enum mn_forget_mode mode,
                                  struct mn_selection **selection)
{
    MN_ASSERT(!mn_writer_pending(w));
    if (w->missing != 0 && mode != MN_FORGET_RESTORE)
        return MN_FAIL(MN_CORRUPT,
                       "column segment %" PRIu64 " is too damaged to be opened, and which of its memories match cannot "
                       "be told. Forget by ids, which holds for that segment too; or put columns/%" PRIu64
                       " back from a copy and start again; or, when it is lost for good, go on without it: `mneme "
                       "export`, and `mneme import` into a new folder",
                       w->missing, w->missing);
    if (w->selections >= MN_SELECTIONS_MAX)
        return MN_FAIL(MN_BUSY, "%u forgets by filter are under way, as many as run at once; try again", w->selections);
    struct mn_selection *s = calloc(1, sizeof *s);
    if (!s)
        return MN_FAIL(MN_INTERNAL, "no memory for a selection");
    s->w = w;
    s->scope = scope;
    s->visible = mode != MN_FORGET_RESTORE;
    s->suppressed = mode != MN_FORGET_SUPPRESS;
    s->dead = mode == MN_FORGET_PURGE && mn_filter_is_open(&scope->filter);
    w->selections++;
    enum mn_status status = mn_reader_open(&s->reader, &w->store, w->instance);
    if (status == MN_OK)
        status = mn_reader_pin(s->reader, 0, &s->snapshot);
    if (status == MN_OK)
        status = mn_matcher_begin(&s->matcher, scope);
    if (status != MN_OK) {
        mn_selection_free(s);
        return status;
    }
    *selection = s;
    return MN_OK;
}

static enum mn_status select_row(struct mn_selection *s, const struct mn_part *part, uint32_t row)
{
    if (s->count == MN_SELECTED_IDS_MAX)
        return MN_FAIL(MN_TOO_LARGE, "more than %u memories match: forget them in several steps, by time or by tag",
                       MN_SELECTED_IDS_MAX);
    if (s->count == s->max) {
        uint32_t max = s->max ? s->max * 2 : 1024;
        struct selected *selected = realloc(s->selected, max * sizeof *selected);
        if (!selected)
            return MN_FAIL(MN_INTERNAL, "no memory for a selection of %u ids", max);
        s->selected = selected;
        s->max = max;
    }
    s->selected[s->count++] = (struct selected){*mn_part_id(part, row), mn_part_born(part, row)};
    return MN_OK;
}

/* An id without any version: only files still know of it. */
static bool is_gone(const struct mn_selection *s, const struct mn_id *id)
{
    struct mn_str space = s->scope->spaces[0];
    struct mn_place place;
    return !mn_index_find(s->w->parts.index, space, id, mn_id_hash(mn_str_hash(space), id), &place);
}

/* A purge of everything also takes what has expired, and what was deleted as long as a file may still hold it. */
static bool is_candidate(const struct mn_selection *s, const struct mn_part *part, uint32_t row)
{
    uint64_t died = mn_part_died(part, row);
    if (mn_part_born(part, row) > s->snapshot.seq)
        return false;
    if (!s->dead && mn_part_expires(part, row) <= s->snapshot.now)
        return false;
    if (s->snapshot.seq < mn_died_seq(died))
        return s->visible;
    return (s->suppressed && mn_died_suppressed(died)) || (s->dead && is_gone(s, mn_part_id(part, row)));
}

enum mn_status mn_selection_turn(struct mn_selection *s, uint32_t rows_max, bool *done)
{
    for (; s->part < s->snapshot.part_count; s->part++, s->row = 0) {
        const struct mn_part *part = &s->snapshot.parts[s->part];
        if (s->row == 0 && !mn_matcher_part(&s->matcher, part, 0, part->rows))
            continue;
        for (; s->row < part->rows; s->row++, rows_max--) {
            if (rows_max == 0) {
                *done = false;
                return MN_OK;
            }
            if (is_candidate(s, part, s->row) && mn_matcher_row(&s->matcher, s->row))
                MN_TRY(select_row(s, part, s->row));
        }
    }
    *done = true;
    return MN_OK;
}

/* Only what is still the version that matched: a newer one was never looked at. An id that has no version any more is
 * taken for what its old ones left in files. */
static bool is_still_selected(struct mn_writer *w, const struct mn_selection *s, struct mn_str space,
                              const struct selected *selected)
{
    struct mn_place place;
    if (!mn_index_find(w->parts.index, space, &selected->id, mn_id_hash(mn_str_hash(space), &selected->id), &place))
        return s->dead;
    return mn_part_born(mn_writer_part(w, place), place.row) == selected->born;
}

static int by_id(const void *a, const void *b)
{
    return mn_id_compare(a, b);
}

/* Several dead rows may have had one id. */
static uint32_t make_unique(struct mn_id *ids, uint32_t count)
{
    uint32_t kept = 0;
    qsort(ids, count, sizeof *ids, by_id);
    for (uint32_t i = 0; i < count; i++)
        if (kept == 0 || !mn_id_equal(&ids[kept - 1], &ids[i]))
            ids[kept++] = ids[i];
    return kept;
}

enum mn_status mn_writer_forget_selected(struct mn_writer *w, struct mn_selection *s, const struct mn_forget *request,
                                         struct mn_outcome *outcome)
{
    struct mn_forget by_ids = *request;
    struct mn_id *ids = s->ids ? s->ids : malloc(s->count * sizeof *ids + 1);
    if (!ids)
        return MN_FAIL(MN_INTERNAL, "no memory for a forget of %u ids", s->count);
    s->ids = ids;
    by_ids.ids = ids;
    by_ids.id_count = 0;
    for (uint32_t i = 0; i < s->count; i++)
        if (is_still_selected(w, s, request->write.space, &s->selected[i]))
            ids[by_ids.id_count++] = s->selected[i].id;
    if (s->dead)
        by_ids.id_count = make_unique(ids, by_ids.id_count);
    MN_TRY(mn_writer_forget(w, &by_ids, outcome));
    if (!outcome->replayed) {
        outcome->ids = ids;
        outcome->id_count = by_ids.id_count;
    }
    return MN_OK;
}

void mn_selection_free(struct mn_selection *s)
{
    if (!s)
        return;
    mn_reader_close(s->reader);
    mn_matcher_free(&s->matcher);
    free(s->selected);
    free(s->ids);
    s->w->selections--;
    free(s);
}
