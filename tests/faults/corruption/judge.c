/*
 * judge.c - see judge.h.
 */
#include "tests/faults/corruption/judge.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "engine/read.h"
#include "engine/recall.h"
#include "engine/recovery.h"
#include "engine/verify.h"
#include "tests/faults/corruption/memory_shm.h"

/* A case at hand. */
struct trial {
    struct judge *judge;
    const struct specimen *specimen;
    const struct damage *damage;
    struct verdict *verdict;
    struct mn_store store;
    uint32_t silent; /* memories missing though nothing was noticed while they were read */
    uint64_t seen;   /* a hash of all that was read */
};

bool judge_open(struct judge *judge, const char *dir)
{
    struct mn_instance_shape shape = {.dim = 8, .metric = MN_METRIC_IP, .reader_slots = 8};
    snprintf(judge->dir, sizeof judge->dir, "%s", dir);
    judge->control = malloc(sizeof(struct mn_control));
    if (!judge->control || mn_instance_create(&judge->instance, &shape) != MN_OK) {
        fprintf(stderr, "no instance: %s\n", mn_error_text());
        return false;
    }
    memcpy(judge->control, judge->instance.control, sizeof(struct mn_control));
    shm_mount(judge->instance.dir_fd);
    return true;
}

void judge_close(struct judge *judge)
{
    char path[sizeof judge->instance.path];
    memcpy(path, judge->instance.path, sizeof path);
    shm_mount(-1);
    mn_instance_close(&judge->instance);
    if (mn_instance_remove(path) != MN_OK)
        fprintf(stderr, "%s is left\n", path);
    free(judge->control);
}

static enum mn_status remove_made(void *context, const char *name)
{
    const struct mn_instance *instance = context;
    if (name[0] != '.' && strcmp(name, "control") != 0 && strcmp(name, "readers") != 0 && strcmp(name, "stats") != 0)
        unlinkat(instance->dir_fd, name, 0);
    return MN_OK;
}

/* As after a power cut: nothing in shared memory. */
static void forget_boot(struct judge *judge)
{
    memcpy(judge->instance.control, judge->control, sizeof(struct mn_control));
    shm_reset();
    if (mn_instance_list(&judge->instance, remove_made, &judge->instance) != MN_OK)
        abort();
}

static void say(struct trial *t, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void say(struct trial *t, const char *format, ...)
{
    char line[512];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    if (t->judge->loud)
        printf("  %s\n", line);
}

/* The first bad thing is kept for the report. */
static void blame(struct trial *t, uint32_t *count, const char *what, const struct specimen_memory *m)
{
    char id[MN_ID_TEXT_MAX];
    mn_id_text(&m->id, id);
    struct mn_str space = specimen_space(m->space);
    if (t->verdict->what[0] == 0)
        snprintf(t->verdict->what, sizeof t->verdict->what, "%s: %s of %.*s", what, id, (int)space.length, space.data);
    say(t, "%s: %s of %.*s", what, id, (int)space.length, space.data);
    ++*count;
}

/* ---- verify ---- */

static void take_damage(void *context, const char *path, const char *what)
{
    struct trial *t = context;
    t->verdict->told = true;
    say(t, "verify: %s: %s", path, what);
}

static void verify(struct trial *t)
{
    struct mn_verify_result result;
    enum mn_status status = mn_verify(&t->store, UINT64_MAX, take_damage, NULL, t, &result);
    if (status == MN_OK)
        return;
    t->verdict->told = true;
    say(t, "verify ends with: %s", mn_error_text());
}

/* ---- reading ---- */

static void mix(struct trial *t, const uint8_t *bytes, size_t length)
{
    t->seen = t->seen * 31 + mn_str_hash((struct mn_str){(const char *)bytes, (uint32_t)length});
}

/* A row that is served, of a memory that has this name. */
static void judge_row(struct trial *t, const struct specimen_memory *m, const uint8_t *row, size_t bytes)
{
    mix(t, row, bytes);
    if (m->there && bytes == m->row_bytes && memcmp(row, m->row, bytes) == 0)
        return;
    uint32_t version = specimen_version(m, row, bytes);
    bool old = version > 0 && (!m->there || version < m->version);
    if (old && t->damage && damage_silences(t->damage, m))
        t->verdict->unknown++;
    else if (old)
        blame(t, &t->verdict->risen, m->there ? "an old version is served" : "it was forgotten and is served", m);
    else
        blame(t, &t->verdict->wrong, "other bytes than were written", m);
}

static void judge_missing(struct trial *t, const struct specimen_memory *m)
{
    t->silent++;
    if (!t->damage || !damage_touches(t->damage, m))
        blame(t, &t->verdict->lost, "it was not touched and is missing", m);
    else
        t->verdict->missing++;
}

/* Each memory by its name. */
static void find_all(struct trial *t, const struct mn_snapshot *snapshot)
{
    uint8_t bytes[SPECIMEN_ROW_BYTES];
    for (uint32_t i = 0; i < t->specimen->memory_count; i++) {
        const struct specimen_memory *m = &t->specimen->memories[i];
        struct mn_row_ref ref = mn_read_find(snapshot, specimen_space(m->space), &m->id);
        size_t length = ref.part == MN_NONE ? 0 : specimen_describe(&snapshot->parts[ref.part], ref.row, bytes);
        if (length > 0)
            judge_row(t, m, bytes, length);
        else if (m->there)
            judge_missing(t, m);
        if (ref.part != MN_NONE && length == 0)
            t->verdict->degraded = true; /* the read itself tells */
    }
}

/* Each row that can be seen: none may be there that no name leads to. */
static void walk_all(struct trial *t, const struct mn_snapshot *snapshot)
{
    for (uint32_t p = 0; p < snapshot->part_count; p++) {
        const struct mn_part *part = &snapshot->parts[p];
        for (uint32_t row = 0; row < part->rows; row++) {
            if (!mn_part_visible(part, row, snapshot->seq, snapshot->now))
                continue;
            struct mn_str space = mn_part_string(part, mn_part_space(part, row));
            const struct specimen_memory *m = specimen_find(t->specimen, space, mn_part_id(part, row));
            struct mn_row_ref ref = mn_read_find(snapshot, space, mn_part_id(part, row));
            if (!m && t->verdict->wrong++ == 0)
                snprintf(t->verdict->what, sizeof t->verdict->what, "a row of part %u that nobody wrote", p);
            else if (m && (ref.part != p || ref.row != row))
                blame(t, &t->verdict->risen, "a row is visible that its name does not lead to", m);
        }
    }
}

/* Through tags and codes: whatever is found must be what was written. */
static void search(struct trial *t, const struct mn_snapshot *snapshot, bool exact)
{
    static const struct mn_str tag = {"green", 5};
    _Alignas(64) float embedding[8] = {1, 2, 3, 4, 5, 6, 7, 8};
    uint8_t bytes[SPECIMEN_ROW_BYTES];
    struct mn_search search;
    struct mn_query query = {.scope = {.all_spaces = true, .after = INT64_MIN}, .embedding = embedding, .k = 64};
    query.exact = exact;
    query.target = 0.95;
    query.scope.filter.tags_any = &tag;
    query.scope.filter.tags_any_count = exact;
    query.scope.filter.has_tags_any = exact;
    if (mn_search_init(&search, MN_METRIC_IP, 8) != MN_OK)
        abort();
    if (mn_recall_search(&search, snapshot, &query) != MN_OK)
        say(t, "a search fails: %s", mn_error_text());
    t->verdict->degraded |= search.damaged > 0;
    for (uint32_t h = 0; h < search.hit_count; h++) {
        const struct mn_part *part = &snapshot->parts[search.hits[h].part];
        uint32_t row = search.hits[h].row;
        size_t length = specimen_describe(part, row, bytes);
        const struct specimen_memory *m =
            specimen_find(t->specimen, mn_part_string(part, mn_part_space(part, row)), mn_part_id(part, row));
        if (m && length > 0)
            judge_row(t, m, bytes, length);
    }
    mn_search_free(&search);
}

static void read_all(struct trial *t)
{
    struct mn_reader *reader;
    struct mn_snapshot snapshot;
    if (mn_reader_open(&reader, &t->store, &t->judge->instance) != MN_OK)
        abort();
    enum mn_status status = mn_reader_pin(reader, 0, &snapshot);
    if (status == MN_OK) {
        t->verdict->degraded |= snapshot.missing > 0;
        find_all(t, &snapshot);
        walk_all(t, &snapshot);
        search(t, &snapshot, false);
        search(t, &snapshot, true);
    } else {
        say(t, "a reader is refused: %s", mn_error_text());
        t->verdict->refused = true;
        snprintf(t->verdict->what, sizeof t->verdict->what, "a reader is refused: %s", mn_error_text());
    }
    mn_reader_close(reader);
}

/* ---- recovery ---- */

static bool recover(struct trial *t)
{
    struct mn_recovery_report report;
    enum mn_status status = mn_store_open(&t->store, disk_io(), t->judge->dir);
    if (status == MN_OK)
        status = mn_recover(&t->store, &t->judge->instance, 1, NULL, &report);
    if (status != MN_OK) {
        say(t, "refused: %s", mn_error_text());
        snprintf(t->verdict->what, sizeof t->verdict->what, "refused: %s", mn_error_text());
        t->verdict->refused = true;
        return false;
    }
    say(t, "recovery: lost %d, quarantined %llu, torn %llu, last seq %llu", report.lost,
        (unsigned long long)report.quarantined, (unsigned long long)report.torn_bytes,
        (unsigned long long)report.last_seq);
    t->verdict->degraded |= report.lost || report.quarantined > 0;
    return true;
}

/* Recovering what recovery has left, after the power has gone once more, is the same. */
static void recover_again(struct trial *t)
{
    struct verdict *first = t->verdict, second = {0};
    uint64_t seen = t->seen;
    t->seen = 0;
    t->verdict = &second;
    forget_boot(t->judge);
    if (recover(t))
        read_all(t);
    t->verdict = first;
    first->unsteady = t->seen != seen || second.refused || second.lost > first->lost || second.risen > first->risen ||
                      second.wrong > first->wrong;
    if (first->unsteady && first->what[0] == 0)
        snprintf(first->what, sizeof first->what, "recovering again gives something else: %.400s", second.what);
}

void judge_case(struct judge *judge, const struct specimen *specimen, const struct damage *damage,
                struct verdict *verdict)
{
    struct trial t = {.judge = judge, .specimen = specimen, .damage = damage, .verdict = verdict};
    *verdict = (struct verdict){0};
    forget_boot(judge);
    enum mn_status status = mn_store_open(&t.store, disk_io(), judge->dir);
    if (status != MN_OK) {
        say(&t, "refused: %s", mn_error_text());
        snprintf(verdict->what, sizeof verdict->what, "refused: %s", mn_error_text());
        verdict->told = verdict->refused = true;
        return;
    }
    verify(&t);
    if (!recover(&t))
        return;
    read_all(&t);
    if (t.silent + verdict->unknown > 0 && !verdict->degraded) {
        verdict->told = false;
        snprintf(verdict->what, sizeof verdict->what,
                 "memories are missing or have risen, and recovery has not said so");
    }
    if (!damage || damage->group->kind != DAMAGE_FLIP)
        recover_again(&t);
}
