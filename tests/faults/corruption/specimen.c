/*
 * specimen.c - see specimen.h.
 */
#include "tests/faults/corruption/specimen.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "engine/manifest.h"
#include "engine/meta.h"
#include "engine/read.h"
#include "engine/wal.h"
#include "shm/process.h"
#include "tests/unit/store_fixture.h"

/* A request with an idem key asks for room for the longest answer there is, 64 KiB, though it takes a few bytes. */
#define SEGMENT_BYTES (80u << 10)

const char *const specimen_names[SPECIMEN_SHAPES] = {"young", "grown"};

static const char *const spaces[] = {"agents", "agents/inner", "notes"};
enum { AGENTS, INNER, NOTES };

struct mn_str specimen_space(uint32_t space)
{
    return text_str(spaces[space]);
}

/* A specimen in the making. */
struct making {
    struct specimen *specimen;
    struct fixture *f;
    struct mn_compactor *compactor;
    uint32_t idem;
};

/* ---- the model ---- */

static struct specimen_memory *memory_of(struct specimen *s, uint32_t space, struct mn_id id)
{
    for (uint32_t i = 0; i < s->memory_count; i++)
        if (s->memories[i].space == space && mn_id_equal(&s->memories[i].id, &id))
            return &s->memories[i];
    assert_true(s->memory_count < SPECIMEN_MEMORIES_MAX);
    struct specimen_memory *made = &s->memories[s->memory_count++];
    *made = (struct specimen_memory){.space = space, .id = id};
    return made;
}

const struct specimen_memory *specimen_find(const struct specimen *s, struct mn_str space, const struct mn_id *id)
{
    for (uint32_t i = 0; i < s->memory_count; i++)
        if (mn_id_equal(&s->memories[i].id, id) && mn_str_equal(space, specimen_space(s->memories[i].space)))
            return &s->memories[i];
    return NULL;
}

static int content_of(const struct specimen_memory *m, uint32_t version, char *text, size_t bytes)
{
    char id[MN_ID_TEXT_MAX];
    mn_id_text(&m->id, id);
    return snprintf(text, bytes, "<%s of %s, version %u>", id, spaces[m->space], version);
}

uint32_t specimen_version(const struct specimen_memory *m, const uint8_t *row, size_t bytes)
{
    char text[160];
    for (uint32_t version = 1; version <= m->version; version++) {
        int length = content_of(m, version, text, sizeof text);
        if (memmem(row, bytes, text, (size_t)length))
            return version;
    }
    return 0;
}

/* ---- what a reader sees ---- */

struct description {
    uint8_t *bytes;
    size_t at;
};

static void put(struct description *d, const void *bytes, size_t length)
{
    size_t room = SPECIMEN_ROW_BYTES - d->at;
    memcpy(d->bytes + d->at, bytes, length < room ? length : room); /* longer than any that was written: it differs */
    d->at += length < room ? length : room;
}

static void put_str(struct description *d, struct mn_str s)
{
    put(d, &s.length, sizeof s.length);
    if (s.length > 0)
        put(d, s.data, s.length);
}

static int by_text(const void *a, const void *b)
{
    const struct mn_str *x = a, *y = b;
    int order = memcmp(x->data, y->data, x->length < y->length ? x->length : y->length);
    return order ? order : (x->length > y->length) - (x->length < y->length);
}

/* A part numbers strings in its own way: by their bytes, then. */
static void put_tags(struct description *d, const struct mn_part *part, uint32_t row)
{
    const uint32_t *numbers;
    struct mn_str tags[16];
    uint32_t count = mn_part_tags(part, row, &numbers), some = count < 16 ? count : 16;
    for (uint32_t t = 0; t < some; t++)
        tags[t] = mn_part_string(part, numbers[t]);
    if (some > 1)
        qsort(tags, some, sizeof tags[0], by_text);
    put(d, &count, sizeof count);
    for (uint32_t t = 0; t < some; t++)
        put_str(d, tags[t]);
}

size_t specimen_describe(const struct mn_part *part, uint32_t row, uint8_t bytes[SPECIMEN_ROW_BYTES])
{
    struct description d = {.bytes = bytes};
    struct mn_str meta, content;
    bool bin;
    const float *vector = mn_part_vector(part, row);
    const struct mn_id *id = mn_part_id(part, row);
    if (!vector || mn_part_content(part, row, &content, &bin) != MN_OK || mn_part_meta(part, row, &meta) != MN_OK)
        return 0;
    uint32_t kind = id->kind, given = content.data != NULL, binary = bin;
    int64_t at = mn_part_at(part, row), expires = mn_part_expires(part, row);
    float confidence = mn_part_confidence(part, row), scale = mn_part_scale(part, row);
    put(&d, &id->hi, sizeof id->hi);
    put(&d, &id->lo, sizeof id->lo);
    put(&d, &kind, sizeof kind);
    put(&d, &at, sizeof at);
    put(&d, &expires, sizeof expires);
    put(&d, &confidence, sizeof confidence);
    put(&d, &scale, sizeof scale);
    put(&d, &given, sizeof given);
    put(&d, &binary, sizeof binary);
    put(&d, vector, part->dim * sizeof *vector);
    put_str(&d, mn_part_string(part, mn_part_space(part, row)));
    put_str(&d, meta);
    put_str(&d, content);
    put_tags(&d, part, row);
    return d.at;
}

/* ---- a life ---- */

static void settle(struct making *m)
{
    fixture_commit(m->f);
}

/* A log segment that is full is sealed by the next batch: what waits goes out first. */
#define admit(m, call)                                                                                                 \
    do {                                                                                                               \
        enum mn_status admitted = (call);                                                                              \
        if (admitted == MN_NOT_READY) {                                                                                \
            settle(m);                                                                                                 \
            admitted = (call);                                                                                         \
        }                                                                                                              \
        ok(admitted);                                                                                                  \
    } while (0)

static void remember_with(struct making *m, uint32_t space, struct mn_id id, const char *idem)
{
    static const struct mn_str tags[] = {{"red", 3}, {"green", 5}, {"agents", 6}};
    struct specimen_memory *known = memory_of(m->specimen, space, id);
    char content[160];
    uint8_t data[128];
    struct mn_meta_writer meta = {.data = data, .bytes_max = sizeof data};
    struct mn_outcome outcome;
    uint32_t version = ++known->version;
    mn_meta_map_begin(&meta, 2);
    mn_meta_key(&meta, text_str("version"));
    mn_meta_uint(&meta, version);
    mn_meta_key(&meta, text_str("kind"));
    mn_meta_str(&meta, text_str(version % 2 ? "odd" : "even"));
    mn_meta_end(&meta);
    struct mn_memory memory = fixture_memory(1, id.lo * 16 + version, NULL);
    memory.id = id;
    memory.content = (struct mn_str){content, (uint32_t)content_of(known, version, content, sizeof content)};
    memory.content_bin = id.lo % 5 == 0;
    memory.confidence = (float)(id.lo % 10) / 10;
    memory.at = INT64_C(1700000000000000000) + (int64_t)(id.lo * 37 % 50) * 1000;
    if (id.lo % 4 != 0)
        memory.meta = (struct mn_str){(const char *)data, meta.bytes};
    memory.tags = tags + id.lo % 2;
    memory.tag_count = (uint32_t)(id.lo % 3);
    struct mn_remember request = {.write = fixture_write(m->f, spaces[space]), .memories = &memory, .count = 1};
    request.write.idem = text_str(idem);
    request.write.request_hash = id.lo;
    admit(m, mn_writer_remember(m->f->writer, &request, &outcome));
    known->there = true;
}

static void remember(struct making *m, uint32_t space, uint64_t id)
{
    remember_with(m, space, number_id(id), NULL);
}

/* An id that the engine gives: its counter must outlive the log. It expires at once, so that nobody sees it. */
static void assign(struct making *m, uint32_t space)
{
    struct mn_memory memory = fixture_memory(0, 3, "assigned");
    struct mn_remember request = {.write = fixture_write(m->f, spaces[space]), .memories = &memory, .count = 1};
    struct mn_outcome outcome;
    memory.expires = 1;
    admit(m, mn_writer_remember(m->f->writer, &request, &outcome));
}

static void revise(struct making *m, uint32_t space, uint64_t id)
{
    struct specimen_memory *known = memory_of(m->specimen, space, number_id(id));
    char content[160];
    struct mn_outcome outcome;
    struct mn_revise request = {.write = fixture_write(m->f, spaces[space]), .id = number_id(id), .set_content = true};
    request.set.content = (struct mn_str){content, (uint32_t)content_of(known, ++known->version, content, 160)};
    admit(m, mn_writer_revise(m->f->writer, &request, &outcome));
}

static void forget(struct making *m, uint32_t space, uint64_t id, enum mn_forget_mode mode)
{
    assert_int_equal(fixture_forget(m->f, spaces[space], id, mode), 1);
    memory_of(m->specimen, space, number_id(id))->there = mode == MN_FORGET_RESTORE;
}

/* Ids first .. first + count - 1 in two spaces, a few a batch; with idem keys, assigned ids and a uuid among them. */
static void remember_run(struct making *m, uint64_t first, uint32_t count)
{
    char idem[32];
    for (uint64_t id = first; id < first + count; id++) {
        remember(m, AGENTS, id);
        if (id % 3 == 0)
            remember(m, NOTES, id);
        if (id % 7 == 0) {
            snprintf(idem, sizeof idem, "idem key %u", ++m->idem);
            remember_with(m, INNER, number_id(id), id % 50 == 7 ? idem : NULL);
            remember_with(m, INNER, uuid_id(id, 77), NULL);
        }
        if (id % 9 == 0)
            assign(m, INNER);
        if (id % 4 == 0)
            settle(m);
    }
    settle(m);
}

/* Every kind of end that a memory can have; of ids that stand. In few batches: one that takes something away has two
 * blocks at least, and each of their bits is a case. */
static void end_some(struct making *m, uint64_t first)
{
    remember(m, AGENTS, first); /* replaced */
    remember(m, AGENTS, first + 1);
    revise(m, AGENTS, first + 2);
    forget(m, AGENTS, first + 3, MN_FORGET_DELETE);
    forget(m, AGENTS, first + 4, MN_FORGET_SUPPRESS);
    forget(m, AGENTS, first + 5, MN_FORGET_SUPPRESS);
    remember(m, AGENTS, first + 6); /* twice, then forgotten */
    settle(m);
    forget(m, AGENTS, first + 5, MN_FORGET_RESTORE);
    remember(m, AGENTS, first + 6);
    settle(m);
    forget(m, AGENTS, first + 6, MN_FORGET_DELETE);
    settle(m);
}

/* A memory whose record rots: recovery sets it aside with a note. */
static void lose_one(struct making *m)
{
    static const char text[] = "this will rot";
    struct mn_memory memory = fixture_memory(9999, 1, text);
    struct mn_remember request = {.write = fixture_write(m->f, spaces[NOTES]), .memories = &memory, .count = 1};
    struct mn_outcome outcome;
    size_t bytes;
    admit(m, mn_writer_remember(m->f->writer, &request, &outcome));
    settle(m);
    remember(m, NOTES, 1);
    settle(m);
    fixture_power_cut(m->f);
    uint8_t *log = fixture_slurp(m->f, "wal/00000001.wal", &bytes);
    const uint8_t *found = memmem(log, bytes, text, strlen(text));
    assert_non_null(found);
    fixture_flip(m->f, "wal/00000001.wal", (uint64_t)(found - log), 3); /* one bit would be mended */
    free(log);
    fixture_start(m->f);
    assert_true(m->f->report.quarantined > 0);
}

/* ---- compaction ---- */

/* One inverted file is like another: only segments of so many rows get one. */
#define CODES_ROWS_MIN 40

static void compact(struct making *m, bool all)
{
    struct mn_compact_policy policy = {.min_rows = 1,
                                       .min_log_segments = 1,
                                       .fanout = 100,
                                       .dead_percent = 99,
                                       .segment_rows_max = 100000,
                                       .idem_window_ns = INT64_C(86400000000000),
                                       .codebook_rows_min = 16,
                                       .ivf_rows_min = CODES_ROWS_MIN};
    struct mn_compact_plan plan;
    struct mn_compact_proposal proposal;
    uint64_t seq;
    ok(mn_writer_seal(m->f->writer, &seq));
    ok(mn_compactor_open(&m->compactor, &m->f->store, &m->f->instance));
    ok(mn_compact_plan_make(m->compactor, &policy, all, &plan));
    ok(mn_compact_build(m->compactor, &plan, &policy, NULL, NULL, &proposal));
    ok(mn_writer_commit_proposal(m->f->writer, &proposal));
    mn_compact_proposal_free(&proposal);
    mn_compact_plan_free(&plan);
    ok(mn_compactor_sweep(m->compactor)); /* what the manifest does not name any more */
    mn_compactor_close(m->compactor);
    m->compactor = NULL;
}

/* Until the log segments that were taken are gone: a thread removes them. */
static void tend(struct making *m)
{
    struct mn_manifest manifest;
    char path[MN_PATH_MAX];
    ok(mn_manifest_read(&manifest, &m->f->store, NULL));
    for (int i = 0; i < 5000; i++) {
        mn_writer_tend(m->f->writer, mn_wall_ns());
        if (manifest.wal_first < 2 || access(mn_store_wal_path(&m->f->store, path, manifest.wal_first - 1), F_OK) != 0)
            break;
        usleep(1000);
    }
    mn_manifest_free(&manifest);
}

static void live_young(struct making *m)
{
    remember_run(m, 1, 24);
    end_some(m, 1);
    end_some(m, 11);
}

static void live_grown(struct making *m)
{
    lose_one(m);
    remember_run(m, 1, 24);
    forget(m, NOTES, 24, MN_FORGET_PURGE);
    end_some(m, 1);
    compact(m, true);
    tend(m);
    remember_run(m, 31, 16);
    end_some(m, 8);
    end_some(m, 31);
    compact(m, false);
    tend(m);
    remember_run(m, 51, 14);
    end_some(m, 15);
    end_some(m, 38);
    end_some(m, 51);
    forget(m, AGENTS, 22, MN_FORGET_PURGE);
    settle(m);
}

/* ---- where everything lies ---- */

/* Notes the record at `at` as the last that was said of a memory. */
static void take_record(struct specimen_memory *m, const uint8_t *log, uint64_t number, uint64_t at)
{
    uint64_t batch = at / MN_WAL_BLOCK * MN_WAL_BLOCK;
    while (memcmp(log + batch, &(uint64_t){MN_BATCH_MAGIC}, 8) != 0)
        batch -= MN_WAL_BLOCK;
    const struct mn_batch_header *header = (const struct mn_batch_header *)(const void *)(log + batch);
    m->wal = number;
    m->begin = at;
    m->end = at + sizeof(struct mn_record) + ((const struct mn_record *)(const void *)(log + at))->payload_bytes;
    m->footer_begin = batch + header->footer_at;
    m->footer_end = m->footer_begin + header->footer_bytes;
}

static struct specimen_memory *known(struct specimen *s, struct mn_str space, const struct mn_id *id)
{
    const struct specimen_memory *m = specimen_find(s, space, id);
    assert_non_null(m);
    return &s->memories[m - s->memories];
}

static enum mn_status take_forget(void *context, const struct mn_wal_segment *segment, const struct mn_record *record,
                                  uint64_t offset)
{
    struct specimen *s = context;
    struct mn_record_fields f = mn_record_fields(record);
    const char *base = (const char *)record;
    struct mn_id id;
    if (record->op != MN_RECORD_FORGET)
        return MN_OK;
    memcpy(&id, base + f.content, sizeof id);
    struct specimen_memory *m = known(s, (struct mn_str){base + f.space, record->space_bytes}, &id);
    if (!m->there)
        take_record(m, segment->base, segment->number, offset);
    return MN_OK;
}

static void take_forgets(struct specimen *s, struct fixture *f)
{
    uint64_t *numbers;
    uint32_t count;
    ok(mn_wal_list(&f->store, &numbers, &count));
    for (uint32_t i = 0; i < count; i++) {
        struct mn_wal_segment segment;
        struct mn_wal_extent extent;
        struct mn_wal_visitor visitor = {.context = s, .record = take_forget};
        ok(mn_wal_map(&segment, &f->store, numbers[i]));
        ok(mn_wal_scan(&segment, &visitor, &extent));
        mn_wal_unmap(&segment);
    }
    free(numbers);
}

static void take_row(struct specimen *s, const struct mn_part *part, uint32_t row)
{
    struct specimen_memory *m = known(s, mn_part_string(part, mn_part_space(part, row)), mn_part_id(part, row));
    assert_true(m->there);
    m->row_bytes = specimen_describe(part, row, m->row);
    assert_true(m->row_bytes > 0 && m->row_bytes < sizeof m->row);
    assert_int_equal(specimen_version(m, m->row, m->row_bytes), m->version);
    if (part->tail) /* the embedding stands right behind its record's header */
        take_record(m, part->wal, part->number, part->tail_rows[row].vector_at - sizeof(struct mn_record));
    else
        m->columns = part->number;
}

static void take_rows(struct specimen *s, struct fixture *f)
{
    struct mn_reader *reader;
    struct mn_snapshot snapshot;
    ok(mn_reader_open(&reader, &f->store, &f->instance));
    ok(mn_reader_pin(reader, 0, &snapshot));
    for (uint32_t p = 0; p < snapshot.part_count; p++)
        for (uint32_t row = 0; row < snapshot.parts[p].rows; row++)
            if (mn_part_visible(&snapshot.parts[p], row, snapshot.seq, snapshot.now))
                take_row(s, &snapshot.parts[p], row);
    mn_reader_close(reader);
    for (uint32_t i = 0; i < s->memory_count; i++)
        assert_true(!s->memories[i].there || s->memories[i].row_bytes > 0);
}

/* ---- making ---- */

static struct mn_io quick;

static enum mn_status no_sync(int fd)
{
    (void)fd;
    return MN_OK;
}

static enum mn_status no_flush(int fd, uint64_t offset, uint64_t bytes)
{
    (void)offset;
    (void)bytes;
    return no_sync(fd);
}

static enum mn_status no_folder_sync(const char *path)
{
    (void)path;
    return MN_OK;
}

static struct fixture *quick_fixture(void)
{
    struct fixture *f = fixture_prepare();
    quick = mn_io_posix;
    quick.datasync = no_sync;
    quick.flush = no_flush;
    quick.sync_dir = no_folder_sync;
    f->store.io = &quick;
    f->settings.wal_segment_bytes = SEGMENT_BYTES;
    fixture_start(f);
    return f;
}

static void live(struct specimen *specimen, struct disk *disk)
{
    struct making m = {.specimen = specimen, .f = quick_fixture()};
    if (specimen->shape == SPECIMEN_YOUNG)
        live_young(&m);
    else
        live_grown(&m);
    fixture_restart(m.f);
    take_rows(specimen, m.f);
    take_forgets(specimen, m.f);
    fixture_power_cut(m.f);
    disk_take(disk, m.f->dir);
    fixture_free(m.f);
}

void specimen_make(struct specimen *specimen, enum specimen_shape shape)
{
    struct specimen *scratch = calloc(1, sizeof *scratch);
    assert_non_null(scratch);
    scratch->shape = shape;
    *specimen = (struct specimen){.shape = shape};
    live(specimen, &specimen->disk);
    live(scratch, &specimen->other);
    free(scratch);
}
