/*
 * writer_admit.c - remember and revise: every check first, then the records, rows and marks of the change.
 *
 * Nothing is changed before the last check has passed. After that only memory can fail, and then the writer is broken
 * on purpose: its role ends, recovery finds what was durable.
 */
#include <float.h>
#include <math.h>

#include "engine/meta.h"
#include "engine/writer_state.h"

/* ---- checks ---- */

enum mn_status mn_writer_check(struct mn_writer *w, const struct mn_write *write)
{
    if (w->broken)
        return MN_FAIL(MN_INTERNAL, "the writer has failed and is about to be restarted");
    if (write->space.length < 1 || write->space.length > MN_SPACE_BYTES_MAX)
        return MN_FAIL(MN_BAD_REQUEST, "space must have 1 to %u bytes, it has %u", MN_SPACE_BYTES_MAX,
                       write->space.length);
    if (write->idem.length > MN_IDEM_BYTES_MAX)
        return MN_FAIL(MN_BAD_REQUEST, "idem must have at most %u bytes, it has %u", MN_IDEM_BYTES_MAX,
                       write->idem.length);
    if (write->idem.length > 0 && mn_ledger_entries(w->ledger) >= w->settings.write_idem_max)
        return MN_FAIL(
            MN_BUSY,
            "%llu idem keys are remembered, as many as write.idem_max allows; they expire after write.idem_window",
            (unsigned long long)w->settings.write_idem_max);
    if (mn_wal_keeper_full(w->keeper))
        return MN_FAIL(MN_READ_ONLY,
                       "the disk has less free space than disk.reserve (%llu MiB): recall goes on, writes resume by "
                       "themselves when there is space",
                       (unsigned long long)(w->settings.disk_reserve >> 20));
    return MN_OK;
}

static enum mn_status check_limits(const struct mn_memory *m)
{
    if (m->content.length > MN_CONTENT_BYTES_MAX)
        return MN_FAIL(MN_TOO_LARGE, "content has %u bytes, the limit is %u", m->content.length, MN_CONTENT_BYTES_MAX);
    if (m->meta.length > MN_META_COMPACT_MAX)
        return MN_FAIL(MN_TOO_LARGE, "meta takes %u bytes, the limit is %u", m->meta.length, MN_META_COMPACT_MAX);
    if (m->tag_count > MN_TAGS_MAX)
        return MN_FAIL(MN_TOO_LARGE, "a memory has %u tags, the limit is %u", m->tag_count, MN_TAGS_MAX);
    for (uint32_t i = 0; i < m->tag_count; i++)
        if (m->tags[i].length > MN_TAG_BYTES_MAX)
            return MN_FAIL(MN_TOO_LARGE, "a tag has %u bytes, the limit is %u", m->tags[i].length, MN_TAG_BYTES_MAX);
    if (!(m->confidence >= 0.0f && m->confidence <= 1.0f))
        return MN_FAIL(MN_BAD_VALUE, "confidence must be 0 to 1");
    return MN_OK;
}

/* Refuses NaN, Inf, and what cosine cannot use; *scale = 1/|x| under cosine, else 1. */
static enum mn_status check_embedding(const struct mn_writer *w, const void *embedding, float *scale)
{
    double norm2;
    if (!w->kernels->check(embedding, w->store.dim, &norm2))
        return MN_FAIL(MN_BAD_VALUE, "the embedding holds NaN or Inf");
    *scale = 1.0f;
    if (w->store.metric != MN_METRIC_COSINE)
        return mn_kernel_check_norm(w->store.metric, norm2);
    *scale = (float)(1.0 / sqrt(norm2));
    if (!(norm2 > 0))
        return MN_FAIL(MN_BAD_VALUE, "the embedding is zero, which has no direction under cosine");
    if (!isnormal(*scale) || norm2 > (double)FLT_MAX)
        return MN_FAIL(MN_BAD_VALUE,
                       "the embedding's norm is %g, out of the reach of floats: scale it, cosine sees no"
                       " difference",
                       sqrt(norm2));
    return MN_OK;
}

static bool is_expired(const struct mn_part *part, uint32_t row, int64_t now)
{
    return mn_part_expires(part, row) <= now;
}

bool mn_writer_visible(struct mn_writer *w, struct mn_str space, const struct mn_id *id, uint64_t hash, int64_t now,
                       struct mn_place *place)
{
    return mn_index_find(w->parts.index, space, id, hash, place) && !place->suppressed &&
           !is_expired(mn_writer_part(w, *place), place->row, now);
}

/* Notes an id of the request; false when it was there already. */
static bool note_id(struct mn_writer *w, const struct mn_id *id)
{
    uint64_t at = mn_id_hash(1, id);
    for (;; at++) {
        uint32_t slot = (uint32_t)at & (MN_DUP_SLOTS - 1);
        if (w->seen[slot].stamp != w->seen_stamp) {
            w->seen[slot].stamp = w->seen_stamp;
            w->seen[slot].id = *id;
            return true;
        }
        if (mn_id_equal(&w->seen[slot].id, id))
            return false;
    }
}

static enum mn_status check_given_id(struct mn_writer *w, const struct mn_write *write, uint64_t space_hash,
                                     const struct mn_memory *m)
{
    struct mn_place place;
    char text[MN_ID_TEXT_MAX];
    if (!note_id(w, &m->id)) {
        mn_id_text(&m->id, text);
        return MN_FAIL(MN_BAD_REQUEST, "id %s stands twice in one request", text);
    }
    if (!m->if_absent && !m->has_if_version)
        return MN_OK;
    bool there = mn_writer_visible(w, write->space, &m->id, mn_id_hash(space_hash, &m->id), write->now, &place);
    mn_id_text(&m->id, text);
    if (m->if_absent && there)
        return MN_FAIL(MN_EXISTS, "id %s is there already (if_absent)", text);
    if (m->has_if_version && !there)
        return MN_FAIL(MN_VERSION_MISMATCH, "id %s is not there, so it has no version %llu", text,
                       (unsigned long long)m->if_version);
    uint64_t version = there ? mn_part_born(mn_writer_part(w, place), place.row) : 0;
    if (m->has_if_version && version != m->if_version)
        return MN_FAIL(MN_VERSION_MISMATCH, "id %s has version %llu, not %llu", text, (unsigned long long)version,
                       (unsigned long long)m->if_version);
    return MN_OK;
}

/* Gives ids to the memories that have none: the space's counter, skipping what is used. Sets w->ids and w->runs. */
static enum mn_status assign_ids(struct mn_writer *w, const struct mn_remember *request, uint64_t space_hash)
{
    uint64_t next = mn_ledger_next_id(w->ledger, request->write.space);
    w->run_count = 0;
    for (uint32_t i = 0; i < request->count; i++) {
        const struct mn_memory *m = &request->memories[i];
        struct mn_place place;
        if (m->has_id) {
            w->ids[i] = m->id;
            continue;
        }
        struct mn_id id = {.lo = next};
        while (mn_index_find(w->parts.index, request->write.space, &id, mn_id_hash(space_hash, &id), &place) ||
               !note_id(w, &id))
            id.lo = ++next;
        if (next >= UINT64_C(1) << 63)
            return MN_FAIL(MN_TOO_LARGE, "the space has no integer ids left");
        if (m->has_if_version)
            return MN_FAIL(MN_VERSION_MISMATCH, "a memory without an id has no version to match");
        w->ids[i] = id;
        struct mn_id_run *last = w->run_count ? &w->runs[w->run_count - 1] : NULL;
        if (last && last->first + last->count == next && last->at + last->count == i)
            last->count++;
        else
            w->runs[w->run_count++] = (struct mn_id_run){next, i, 1};
        next++;
    }
    return MN_OK;
}

/* Ids that the request supersedes must not be given to its memories. (The counter may well come to a number that is
 * superseded though nothing has it: there is nothing to hide then, since this is done before the memories are added.)
 */
static enum mn_status check_supersedes(struct mn_writer *w, const struct mn_remember *request, uint32_t *count)
{
    *count = 0;
    for (uint32_t i = 0; i < request->count; i++) {
        const struct mn_memory *m = &request->memories[i];
        *count += m->supersede_count;
        for (uint32_t j = 0; j < m->supersede_count; j++)
            for (uint32_t slot = (uint32_t)mn_id_hash(1, &m->supersedes[j]) & (MN_DUP_SLOTS - 1);
                 w->seen[slot].stamp == w->seen_stamp; slot = (slot + 1) & (MN_DUP_SLOTS - 1))
                if (mn_id_equal(&w->seen[slot].id, &m->supersedes[j]))
                    return MN_FAIL(MN_BAD_REQUEST, "an id is written and superseded in one request");
    }
    return MN_OK;
}

/* ---- idem keys ---- */

enum mn_status mn_writer_replay(struct mn_writer *w, const struct mn_write *write, struct mn_outcome *outcome,
                                bool *found)
{
    *found = false;
    if (write->idem.length == 0)
        return MN_OK;
    const struct mn_idem_entry *entry = mn_ledger_find(w->ledger, write->idem);
    if (!entry || entry->wall_ns < write->now - (int64_t)w->settings.write_idem_window)
        return MN_OK;
    if (entry->request_hash != write->request_hash)
        return MN_FAIL(MN_BAD_REQUEST, "this idem key belongs to another request: use a new key for each write");
    *outcome = (struct mn_outcome){.replayed = true, .seq = entry->seq, .count = entry->count};
    *found = true;
    return MN_OK;
}

/* The ids of a replayed remember: given ones stand in the retry, assigned ones in the entry's runs. */
static void replay_ids(struct mn_writer *w, const struct mn_remember *request, struct mn_outcome *outcome)
{
    const struct mn_idem_entry *entry = mn_ledger_find(w->ledger, request->write.idem);
    for (uint32_t i = 0; i < request->count; i++)
        w->ids[i] = request->memories[i].id;
    for (uint32_t r = 0; r < entry->run_count; r++)
        for (uint32_t i = 0; i < entry->runs[r].count && entry->runs[r].at + i < request->count; i++)
            w->ids[entry->runs[r].at + i] = (struct mn_id){.lo = entry->runs[r].first + i};
    outcome->ids = w->ids;
    outcome->id_count = request->count;
}

uint64_t mn_writer_idem_room(const struct mn_write *write)
{
    return write->idem.length ? mn_record_bytes(0, MN_IDEM_RECORD_MAX(MN_REQUEST_ROWS_MAX)) : 0;
}

enum mn_status mn_writer_add_idem(struct mn_writer *w, const struct mn_write *write, uint64_t seq, uint32_t count)
{
    if (write->idem.length == 0)
        return MN_OK;
    struct mn_idem_entry entry = {.request_hash = write->request_hash,
                                  .seq = seq,
                                  .wall_ns = write->now,
                                  .count = count,
                                  .run_count = w->run_count,
                                  .runs = w->runs,
                                  .key_bytes = write->idem.length};
    memcpy(entry.key, write->idem.data, write->idem.length);
    uint32_t bytes = mn_idem_encode(&entry, w->idem_bytes);
    struct mn_record record = {.op = MN_RECORD_IDEM, .seq = seq, .wall_ns = write->now};
    struct mn_record_parts parts = {.content = {(const char *)w->idem_bytes, bytes}};
    mn_batch_add(&w->batch.log, &record, &parts);
    return mn_ledger_put(w->ledger, &entry);
}

/* ---- one memory ---- */

void mn_writer_put_room(const struct mn_writer *w, struct mn_str space, const struct mn_memory *m, struct mn_room *room)
{
    uint64_t rest = (uint64_t)space.length + m->meta.length + m->content.length;
    uint64_t arena = space.length + 32;
    for (uint32_t i = 0; i < m->tag_count; i++) {
        rest += m->tags[i].length + 2u;
        arena += m->tags[i].length + 36u; /* a string's entry, its padding, and its place in the list */
    }
    room->bytes += mn_record_bytes(w->store.dim, rest);
    room->arena += arena + 8;
    room->records++;
    room->rows++;
    room->touched++;
}

enum mn_status mn_writer_add_put(struct mn_writer *w, const struct mn_write *write, const struct mn_id *id,
                                 uint32_t flags, const struct mn_memory *m, float scale, uint64_t seq)
{
    uint64_t space_hash = mn_str_hash(write->space);
    struct mn_record record = {.op = MN_RECORD_PUT,
                               .flags = (uint16_t)flags,
                               .seq = seq,
                               .wall_ns = write->now,
                               .id = *id,
                               .space_hash = space_hash,
                               .at = m->at,
                               .expires = m->expires,
                               .confidence = m->confidence,
                               .scale = scale};
    struct mn_record_parts parts = {.vector = m->embedding,
                                    .vector_bytes = w->store.dim * 4,
                                    .space = write->space,
                                    .meta = m->meta,
                                    .content = m->content,
                                    .tags = m->tags,
                                    .tag_count = m->tag_count,
                                    .content_flags = (m->content_bin ? MN_CONTENT_BIN : 0) |
                                                     (m->content.data ? 0 : MN_CONTENT_NONE)};
    uint64_t at = w->batch.log.at;
    uint64_t offset = mn_batch_add(&w->batch.log, &record, &parts);
    struct mn_tail *tail = &w->parts.own[w->active]->tail;
    struct mn_place place = {.part = w->active};
    struct mn_mark mark;
    bool marked;
    MN_TRY(
        mn_tail_add_record(tail, (const struct mn_record *)(const void *)(w->batch.log.data + at), offset, &place.row));
    MN_TRY(mn_parts_put(&w->parts, write->space, id, mn_id_hash(space_hash, id), place, seq, &mark, &marked));
    w->batch.log.takes |= marked;
    if (marked)
        MN_TRY(mn_writer_add_mark(w, &mark));
    w->tail_rows++;
    w->batch.memories++;
    return MN_OK;
}

/* ---- remember ---- */

static enum mn_status check_memory(struct mn_writer *w, const struct mn_remember *request, uint64_t space_hash,
                                   const struct mn_memory *m, float *scale)
{
    MN_TRY(check_limits(m));
    MN_TRY(check_embedding(w, m->embedding, scale));
    return m->has_id ? check_given_id(w, &request->write, space_hash, m) : MN_OK;
}

static enum mn_status name_memory(enum mn_status status, uint32_t index)
{
    char sentence[400];
    snprintf(sentence, sizeof sentence, "%s", mn_error_text());
    return MN_FAIL(status, "memories[%u]: %s", index, sentence);
}

/* Everything that can be wrong with the request, and how much room it takes. Fills w->scales. */
static enum mn_status check_remember(struct mn_writer *w, const struct mn_remember *request, struct mn_room *room)
{
    uint64_t space_hash = mn_str_hash(request->write.space);
    uint32_t supersedes;
    *room = (struct mn_room){0};
    if (request->count < 1)
        return MN_FAIL(MN_BAD_REQUEST, "memories is empty: give 1 to %u", MN_REQUEST_ROWS_MAX);
    if (request->count > MN_REQUEST_ROWS_MAX)
        return MN_FAIL(MN_TOO_LARGE, "a request has %u memories, the limit is %u", request->count, MN_REQUEST_ROWS_MAX);
    w->seen_stamp++;
    for (uint32_t i = 0; i < request->count; i++) {
        const struct mn_memory *m = &request->memories[i];
        enum mn_status status = check_memory(w, request, space_hash, m, &w->scales[i]);
        if (status != MN_OK)
            return name_memory(status, i);
        mn_writer_put_room(w, request->write.space, m, room);
    }
    if (room->bytes > MN_REQUEST_BYTES_MAX)
        return MN_FAIL(MN_TOO_LARGE, "a request takes %llu bytes of log, the limit is %u: send fewer memories at once",
                       (unsigned long long)room->bytes, MN_REQUEST_BYTES_MAX);
    MN_TRY(check_supersedes(w, request, &supersedes));
    MN_TRY(assign_ids(w, request, space_hash));
    room->bytes += supersedes * mn_record_bytes(0, sizeof(struct mn_id) + request->write.space.length);
    room->records += supersedes;
    room->touched += supersedes;
    room->bytes += mn_writer_idem_room(&request->write);
    room->records++;
    return MN_OK;
}

/* A record for each id that the request supersedes and that is there, or may lie in a segment that is missing. */
static enum mn_status add_supersedes(struct mn_writer *w, const struct mn_remember *request, uint64_t seq)
{
    uint64_t space_hash = mn_str_hash(request->write.space);
    struct mn_record record = {.op = MN_RECORD_FORGET,
                               .flags = MN_FORGET_DELETE,
                               .seq = seq,
                               .wall_ns = request->write.now,
                               .space_hash = space_hash};
    struct mn_record_parts parts = {.space = request->write.space};
    for (uint32_t i = 0; i < request->count; i++) {
        const struct mn_memory *m = &request->memories[i];
        for (uint32_t j = 0; j < m->supersede_count; j++) {
            const struct mn_id *id = &m->supersedes[j];
            struct mn_mark mark;
            bool there = mn_parts_remove(&w->parts, request->write.space, id, mn_id_hash(space_hash, id), seq, &mark);
            if (!there && w->missing == 0)
                continue;
            if (there)
                MN_TRY(mn_writer_add_mark(w, &mark));
            w->batch.forgets += there;
            parts.content = (struct mn_str){(const char *)id, sizeof *id};
            mn_batch_add(&w->batch.log, &record, &parts);
        }
    }
    return MN_OK;
}

static enum mn_status add_remember(struct mn_writer *w, const struct mn_remember *request, uint64_t seq)
{
    MN_TRY(add_supersedes(w, request, seq));
    for (uint32_t i = 0; i < request->count; i++) {
        const struct mn_memory *m = &request->memories[i];
        uint32_t flags = m->has_id ? 0 : MN_RECORD_ASSIGNED;
        MN_TRY(mn_writer_add_put(w, &request->write, &w->ids[i], flags, m, w->scales[i], seq));
    }
    for (uint32_t r = 0; r < w->run_count; r++)
        MN_TRY(mn_ledger_raise_id(w->ledger, request->write.space, w->runs[r].first + w->runs[r].count));
    return mn_writer_add_idem(w, &request->write, seq, request->count);
}

enum mn_status mn_writer_remember(struct mn_writer *w, const struct mn_remember *request, struct mn_outcome *outcome)
{
    bool found;
    struct mn_room room;
    MN_TRY(mn_writer_replay(w, &request->write, outcome, &found));
    if (found) {
        replay_ids(w, request, outcome);
        return MN_OK;
    }
    MN_TRY(mn_writer_check(w, &request->write));
    MN_TRY(check_remember(w, request, &room));
    MN_TRY(mn_writer_make_room(w, &room));
    uint64_t seq = ++w->seq;
    enum mn_status status = add_remember(w, request, seq);
    if (status != MN_OK) {
        w->broken = true;
        return mn_error_pass(status, __FILE__, __LINE__);
    }
    *outcome = (struct mn_outcome){.seq = seq, .count = request->count, .ids = w->ids, .id_count = request->count};
    return MN_OK;
}

/* ---- revise ---- */

/* The memory as it will be: what is set, and the rest from the version that is there. tags: room for MN_TAGS_MAX. */
static enum mn_status merge_revision(struct mn_writer *w, const struct mn_revise *request, struct mn_place place,
                                     struct mn_memory *merged, struct mn_str *tags, float *scale)
{
    const struct mn_part *part = mn_writer_part(w, place);
    const struct mn_memory *set = &request->set;
    uint32_t row = place.row;
    *merged = *set;
    merged->embedding = mn_part_vector(part, row);
    if (!merged->embedding)
        return MN_FAIL(MN_CORRUPT, "the embedding of this memory is damaged on disk");
    *scale = mn_part_scale(part, row);
    if (!request->set_confidence)
        merged->confidence = mn_part_confidence(part, row);
    if (!request->set_at)
        merged->at = mn_part_at(part, row);
    if (!request->set_expires)
        merged->expires = mn_part_expires(part, row);
    if (!request->set_meta)
        MN_TRY(mn_part_meta(part, row, &merged->meta));
    if (!request->set_content)
        MN_TRY(mn_part_content(part, row, &merged->content, &merged->content_bin));
    if (!request->set_tags) {
        const uint32_t *numbers;
        merged->tag_count = mn_part_tags(part, row, &numbers);
        for (uint32_t i = 0; i < merged->tag_count; i++)
            tags[i] = mn_part_string(part, numbers[i]);
        merged->tags = tags;
    }
    return MN_OK;
}

enum mn_status mn_writer_revise(struct mn_writer *w, const struct mn_revise *request, struct mn_outcome *outcome)
{
    bool found;
    struct mn_place place;
    struct mn_memory merged;
    struct mn_str tags[MN_TAGS_MAX];
    float scale = 1.0f;
    char text[MN_ID_TEXT_MAX];
    MN_TRY(mn_writer_replay(w, &request->write, outcome, &found));
    if (found)
        return MN_OK;
    MN_TRY(mn_writer_check(w, &request->write));
    mn_id_text(&request->id, text);
    uint64_t hash = mn_id_hash(mn_str_hash(request->write.space), &request->id);
    if (!mn_writer_visible(w, request->write.space, &request->id, hash, request->write.now, &place))
        return MN_FAIL(MN_NOT_FOUND, "id %s is not there", text);
    uint64_t version = mn_part_born(mn_writer_part(w, place), place.row);
    if (request->has_if_version && request->if_version != version)
        return MN_FAIL(MN_VERSION_MISMATCH, "id %s has version %llu, not %llu", text, (unsigned long long)version,
                       (unsigned long long)request->if_version);
    if (!mn_writer_in_log(w, place))
        return MN_FAIL(MN_NOT_READY, "the version to revise is in this batch");
    MN_TRY(merge_revision(w, request, place, &merged, tags, &scale));
    MN_TRY(check_limits(&merged));
    struct mn_room room = {.bytes = mn_writer_idem_room(&request->write), .records = 1};
    mn_writer_put_room(w, request->write.space, &merged, &room);
    MN_TRY(mn_writer_make_room(w, &room));
    uint64_t seq = ++w->seq;
    w->run_count = 0;
    enum mn_status status = mn_writer_add_put(w, &request->write, &request->id, 0, &merged, scale, seq);
    if (status == MN_OK)
        status = mn_writer_add_idem(w, &request->write, seq, 1);
    if (status != MN_OK) {
        w->broken = true;
        return mn_error_pass(status, __FILE__, __LINE__);
    }
    *outcome = (struct mn_outcome){.seq = seq, .count = 1};
    return MN_OK;
}
