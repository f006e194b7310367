/*
 * live_store.c - see live_store.h.
 */
#include "tests/unit/live_store.h"

#include <dirent.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "engine/ivf_file.h"
#include "engine/meta.h"
#include "engine/read.h"
#include "engine/recovery.h"
#include "engine/writer_state.h"
#include "shm/process.h"

static const char *const space_names[LIVE_SPACES] = {"agents", "notes", "agents/inner"};
static const char *const tag_names[] = {"red", "green", "blue", "agents", "x"};

uint32_t live_random(struct live_store *s, uint32_t below)
{
    s->random = s->random * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(s->random >> 33) % below;
}

static struct mn_str space_str(uint32_t space)
{
    return (struct mn_str){space_names[space], (uint32_t)strlen(space_names[space])};
}

/* ---- what a version is made of ---- */

struct version {
    float vector[LIVE_DIM];
    char content[256];
    uint8_t meta[32];
    struct mn_str tags[3];
    struct mn_memory memory;
};

uint32_t live_content(uint32_t space, uint32_t id, uint32_t version, char content[256])
{
    int n = snprintf(content, 256, "<memory %u of space %u in version %u>", id, space, version);
    for (; n < (int)(64 + version % 100); n++)
        content[n] = (char)('a' + n % 26);
    return (uint32_t)n;
}

static void make_vector(float vector[LIVE_DIM], uint32_t space, uint32_t id, uint32_t version)
{
    uint64_t seed = (uint64_t)version << 32 | id << 2 | space;
    for (uint32_t d = 0; d < LIVE_DIM; d++) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        float noise = (float)(seed >> 40) / (1 << 24) - 0.5f;
        if (version >= LIVE_SEVEN)
            vector[d] = sinf((float)(version % (version >= LIVE_ONE ? 1 : 7) * 16 + d)) + 0.001f;
        else if (version >= LIVE_ALIKE)
            vector[d] = 1 + noise / 1000;
        else if (version >= LIVE_STRANGE)
            vector[d] = noise;
        else
            vector[d] = sinf((float)(id * 131 + version * 7 + d + space)) + 0.001f;
    }
}

static void make_version(struct version *v, uint32_t space, uint32_t id, uint32_t version)
{
    struct mn_meta_writer meta = {.data = v->meta, .bytes_max = sizeof v->meta};
    mn_meta_uint(&meta, version);
    make_vector(v->vector, space, id, version);
    uint32_t tags = version % 4;
    for (uint32_t t = 0; t < tags; t++) {
        const char *name = tag_names[(version + t) % MN_ARRAY_LEN(tag_names)];
        v->tags[t] = (struct mn_str){name, (uint32_t)strlen(name)};
    }
    uint32_t length = live_content(space, id, version, v->content);
    v->memory = (struct mn_memory){.has_id = true,
                                   .id = {.lo = id},
                                   .embedding = v->vector,
                                   .content = {version % 7 ? v->content : NULL, version % 7 ? length : 0},
                                   .content_bin = version % 7 && version % 2,
                                   .meta = {(const char *)v->meta, version % 5 ? meta.bytes : 0},
                                   .tags = v->tags,
                                   .tag_count = tags,
                                   .confidence = (float)(version % 10) / 10,
                                   .at = INT64_C(1700000000000000000) + (int64_t)(version * 37 % 1000) * 1000,
                                   .expires = MN_NEVER};
}

/* ---- a life ---- */

void live_store_start(struct live_store *s)
{
    struct mn_instance_shape shape = {.dim = s->store.dim, .metric = s->store.metric, .reader_slots = 16};
    struct mn_recovery_report report;
    memcpy(shape.store_uuid, s->store.uuid, sizeof shape.store_uuid);
    ok(mn_instance_create(&s->instance, &shape));
    ok(mn_recover(&s->store, &s->instance, 1, NULL, &report));
    assert_true(s->damaged || (!report.lost && report.quarantined == 0));
    ok(mn_writer_open(&s->writer, &s->store, &s->instance, &s->settings, mn_stats_page(&s->instance.stats, 0)));
    ok(mn_reader_open(&s->reader, &s->store, &s->instance));
    ok(mn_compactor_open(&s->compactor, &s->store, &s->instance));
    ok(mn_compactor_sweep(s->compactor));
}

void live_store_stop(struct live_store *s)
{
    if (!s->writer)
        return;
    mn_compactor_close(s->compactor);
    mn_reader_close(s->reader);
    mn_writer_close(s->writer);
    s->writer = NULL;
    char path[128];
    snprintf(path, sizeof path, "%s", s->instance.path);
    mn_instance_close(&s->instance);
    ok(mn_instance_remove(path));
}

static struct live_store *make(void)
{
    struct live_store *s = calloc(1, sizeof *s);
    assert_non_null(s);
    mn_settings_default(&s->settings);
    s->settings.wal_segment_bytes = 1u << 20;
    s->settings.wal_prepared = 1;
    s->settings.history_window = 0;
    s->policy = (struct mn_compact_policy){.min_rows = 100,
                                           .min_log_segments = 4,
                                           .fanout = 4,
                                           .dead_percent = 25,
                                           .segment_rows_max = 100000,
                                           .idem_window_ns = INT64_C(600000000000),
                                           .codebook_rows_min = 300,
                                           .ivf_rows_min = MN_IVF_ROWS_MIN};
    s->random =
        getenv("LIVE_SEED") ? strtoull(getenv("LIVE_SEED"), NULL, 10) : 42; /* another life, to search for trouble */
    return s;
}

struct live_store *live_store_new(void)
{
    struct live_store *s = make();
    snprintf(s->dir, sizeof s->dir, "/dev/shm/mn-live-XXXXXX");
    assert_non_null(mkdtemp(s->dir));
    ok(mn_store_create(&s->store, &mn_io_posix, s->dir, LIVE_DIM, MN_METRIC_COSINE));
    live_store_start(s);
    return s;
}

struct live_store *live_store_open(const char *dir)
{
    struct live_store *s = make();
    snprintf(s->dir, sizeof s->dir, "%s", dir);
    ok(mn_store_open(&s->store, &mn_io_posix, s->dir));
    live_store_start(s);
    return s;
}

void live_store_free(struct live_store *s)
{
    live_store_stop(s);
    ok(mn_io_remove_tree(&mn_io_posix, s->dir));
    free(s);
}

void live_store_restart(struct live_store *s)
{
    live_store_stop(s);
    live_store_start(s);
}

/* ---- changes ---- */

static void commit_batch(struct live_store *s)
{
    ok(mn_writer_append(s->writer));
    ok(mn_writer_sync(s->writer));
    mn_writer_publish(s->writer);
    mn_writer_acked(s->writer);
}

static void admit(struct live_store *s, struct mn_remember *request)
{
    struct mn_outcome outcome;
    enum mn_status status = mn_writer_remember(s->writer, request, &outcome);
    for (int i = 0; status == MN_NOT_READY && i < 100; i++) {
        commit_batch(s);
        status = mn_writer_remember(s->writer, request, &outcome);
    }
    ok(status);
}

void live_remember(struct live_store *s, uint32_t space, uint32_t id, uint32_t count)
{
    for (uint32_t i = id; i < id + count; i++) {
        struct version v;
        struct live_memory *m = &s->model[space][i];
        *m = (struct live_memory){LIVE_VISIBLE, ++s->next_version};
        make_version(&v, space, i, m->version);
        struct mn_remember request = {.write = {.space = space_str(space), .now = mn_wall_ns()}, &v.memory, 1};
        admit(s, &request);
    }
    commit_batch(s);
}

void live_remember_expired(struct live_store *s, uint32_t space, uint32_t id)
{
    struct version v;
    make_version(&v, space, id, ++s->next_version);
    v.memory.expires = mn_wall_ns() - 1;
    s->model[space][id] = (struct live_memory){LIVE_DELETED, s->next_version};
    struct mn_remember request = {.write = {.space = space_str(space), .now = mn_wall_ns()}, &v.memory, 1};
    admit(s, &request);
    commit_batch(s);
}

void live_forget(struct live_store *s, uint32_t space, uint32_t id, enum mn_forget_mode mode)
{
    struct mn_id ids[1] = {{.lo = id}};
    struct mn_forget request = {
        .write = {.space = space_str(space), .now = mn_wall_ns()}, .ids = ids, .id_count = 1, .mode = mode};
    struct mn_outcome outcome;
    struct live_memory *m = &s->model[space][id];
    enum mn_status status = mn_writer_forget(s->writer, &request, &outcome);
    for (int i = 0; status == MN_NOT_READY && i < 100; i++) {
        commit_batch(s);
        status = mn_writer_forget(s->writer, &request, &outcome);
    }
    ok(status);
    if (mode == MN_FORGET_SUPPRESS && m->state == LIVE_VISIBLE)
        m->state = LIVE_SUPPRESSED;
    else if (mode == MN_FORGET_RESTORE && m->state == LIVE_SUPPRESSED)
        m->state = LIVE_VISIBLE;
    else if (mode == MN_FORGET_DELETE && m->state != LIVE_NEVER)
        m->state = LIVE_DELETED;
    else if (mode == MN_FORGET_PURGE && m->state != LIVE_NEVER)
        m->state = LIVE_PURGED;
    commit_batch(s);
}

void live_seal(struct live_store *s)
{
    uint64_t seq;
    ok(mn_writer_seal(s->writer, &seq));
}

void live_tend(struct live_store *s)
{
    struct mn_writer *w = s->writer;
    uint32_t left = 1;
    for (int i = 0; i < 60000 && left > 0; i++) {
        w->gauges_ns = 0; /* all of it is due */
        uint32_t done = mn_writer_tend(w, mn_wall_ns()), removals = mn_wal_keeper_removals(w->keeper);
        if (removals > 0)
            usleep(1000);
        left = done + removals;
    }
    assert_int_equal(left, 0);
}

struct mn_hot_report live_tend_hot(struct live_store *s, uint64_t budget)
{
    struct mn_hot_report report;
    struct mn_manifest manifest = live_manifest(s);
    ok(mn_hot_tend(&s->store, &s->instance, &manifest, budget, NULL, NULL, &report));
    mn_manifest_free(&manifest);
    return report;
}

/* ---- compaction ---- */

void live_build(struct live_store *s, bool force, struct mn_compact_proposal *proposal)
{
    struct mn_compact_plan plan;
    ok(mn_compact_plan_make(s->compactor, &s->policy, force, &plan));
    ok(mn_compact_build(s->compactor, &plan, &s->policy, NULL, NULL, proposal));
    mn_compact_plan_free(&plan);
}

void live_commit(struct live_store *s, const struct mn_compact_proposal *proposal)
{
    struct mn_compact_proposal received;
    ok(mn_compact_proposal_write(proposal, &s->instance, "proposal"));
    ok(mn_compact_proposal_read(&received, &s->instance, "proposal"));
    ok(mn_writer_commit_proposal(s->writer, &received));
    mn_compact_proposal_free(&received);
    unlinkat(s->instance.dir_fd, "proposal", 0);
    live_tend(s);
}

bool live_compact(struct live_store *s, bool force)
{
    struct mn_compact_plan plan;
    struct mn_compact_proposal proposal;
    ok(mn_compact_plan_make(s->compactor, &s->policy, force, &plan));
    bool worth = plan.worth;
    if (worth) {
        ok(mn_compact_build(s->compactor, &plan, &s->policy, NULL, NULL, &proposal));
        live_commit(s, &proposal);
        mn_compact_proposal_free(&proposal);
    }
    mn_compact_plan_free(&plan);
    return worth;
}

/* ---- the check ---- */

static void check_tags(const struct mn_part *part, uint32_t row, const struct version *want)
{
    const uint32_t *tags;
    uint32_t count = mn_part_tags(part, row, &tags);
    assert_int_equal(count, want->memory.tag_count);
    for (uint32_t t = 0; t < count; t++) {
        struct mn_str tag = mn_part_string(part, tags[t]);
        bool found = false;
        for (uint32_t w = 0; w < count; w++)
            found |= mn_str_equal(tag, want->tags[w]);
        assert_true(found);
    }
}

static void check_row(const struct mn_part *part, uint32_t row, uint32_t space, uint32_t id, uint32_t version)
{
    struct version want;
    struct mn_str bytes;
    bool bin;
    make_version(&want, space, id, version);
    const float *vector = mn_part_vector(part, row);
    assert_non_null(vector);
    assert_memory_equal(vector, want.vector, sizeof want.vector);
    assert_true(mn_str_equal(mn_part_string(part, mn_part_space(part, row)), space_str(space)));
    assert_int_equal(mn_part_at(part, row), want.memory.at);
    assert_true(mn_part_expires(part, row) == MN_NEVER);
    float confidence = mn_part_confidence(part, row);
    assert_memory_equal(&confidence, &want.memory.confidence, sizeof confidence);
    ok(mn_part_meta(part, row, &bytes));
    assert_true(mn_str_equal(bytes, want.memory.meta));
    ok(mn_part_content(part, row, &bytes, &bin));
    assert_int_equal(bytes.data == NULL, want.memory.content.data == NULL);
    if (bytes.data) {
        assert_int_equal(bin, want.memory.content_bin);
        assert_true(mn_str_equal(bytes, want.memory.content));
    }
    check_tags(part, row, &want);
}

void live_check(struct live_store *s)
{
    struct mn_snapshot snapshot;
    uint64_t wanted = 0, there = 0;
    ok(mn_reader_pin(s->reader, 0, &snapshot));
    for (uint32_t space = 0; space < LIVE_SPACES; space++) {
        for (uint32_t id = 0; id < LIVE_IDS; id++) {
            const struct live_memory *m = &s->model[space][id];
            struct mn_id key = {.lo = id};
            struct mn_row_ref ref = mn_read_find(&snapshot, space_str(space), &key);
            if (m->state != LIVE_VISIBLE) {
                assert_int_equal(ref.part, MN_NONE);
                continue;
            }
            wanted++;
            assert_int_not_equal(ref.part, MN_NONE);
            check_row(&snapshot.parts[ref.part], ref.row, space, id, m->version);
        }
    }
    for (uint32_t p = 0; p < snapshot.part_count; p++)
        for (uint32_t row = 0; row < snapshot.parts[p].rows; row++)
            there += mn_part_visible(&snapshot.parts[p], row, snapshot.seq, snapshot.now);
    assert_int_equal(there, wanted);
    mn_reader_unpin(s->reader);
    live_check_codes(s);
}

/* ---- codes ---- */

/* Where a row has to be: nearest to its centroid, but for what the order of additions does to a tie. */
static void check_cluster(const struct mn_ivf *ivf, const float *x, uint32_t cluster)
{
    const struct mn_codebook *codebook = ivf->codebook;
    const struct mn_kernels *kernels = mn_kernels_best();
    uint32_t nearest;
    float best;
    mn_codebook_assign(codebook, kernels, x, 1, &nearest, &best);
    float here = kernels->l2(x, codebook->centroids + (size_t)cluster * codebook->width, codebook->width);
    assert_true(here <= best * 1.001f + 1e-5f);
}

/* The codes of a slot are what coding its row gives: into its lane of blocks that are made beside. */
static void check_slot(const struct mn_part *part, uint32_t cluster, uint32_t slot, uint8_t *blocks)
{
    const struct mn_ivf *ivf = part->ivf;
    const struct mn_codebook *codebook = ivf->codebook;
    const struct mn_kernels *kernels = mn_kernels_best();
    uint32_t row = mn_ivf_row(ivf, slot), lane = mn_ivf_lane(ivf, cluster, slot);
    _Alignas(64) uint8_t codes8[64];
    _Alignas(64) float x[64];
    struct mn_ivf_fine fine;
    assert_true(row < part->rows);
    assert_int_equal(mn_ivf_slot(ivf, row), slot);
    mn_codebook_rotate(codebook, kernels, mn_part_vector(part, row), mn_part_scale(part, row), x);
    check_cluster(ivf, x, cluster);
    mn_ivf_encode(kernels, codebook->metric, codebook->width, x,
                  codebook->centroids + (size_t)cluster * codebook->width,
                  blocks + (size_t)(lane / MN_IVF_LANES) * mn_ivf_block_bytes(codebook->width), lane % MN_IVF_LANES,
                  codes8, &fine);
    assert_true(mn_ivf_intact(ivf, slot));
    assert_memory_equal(ivf->codes8 + (size_t)slot * codebook->width, codes8, codebook->width);
    assert_memory_equal(&ivf->fine[slot], &fine, sizeof fine);
}

static void check_codes(const struct mn_part *part)
{
    const struct mn_ivf *ivf = part->ivf;
    uint32_t width = ivf->codebook->width;
    size_t block_bytes = mn_ivf_block_bytes(width);
    uint8_t *blocks = aligned_alloc(64, ivf->block_count * block_bytes);
    assert_non_null(blocks);
    assert_int_equal(ivf->rows, part->rows);
    assert_int_equal(width, 64);
    assert_true(mn_ivf_holds(ivf)); /* every row once */
    for (uint32_t b = 0; b < ivf->block_count; b++)
        mn_ivf_clear_block(blocks + b * block_bytes, width);
    for (uint32_t c = 0; c < ivf->clusters; c++)
        for (uint32_t slot = ivf->first_slot[c]; slot < ivf->first_slot[c + 1]; slot++)
            check_slot(part, c, slot, blocks);
    assert_memory_equal(ivf->blocks, blocks, ivf->block_count * block_bytes);
    free(blocks);
}

uint64_t live_check_codes(struct live_store *s)
{
    struct mn_snapshot snapshot;
    uint64_t rows = 0;
    ok(mn_reader_pin(s->reader, 0, &snapshot));
    for (uint32_t p = 0; p < snapshot.part_count; p++) {
        if (snapshot.parts[p].tail || !snapshot.parts[p].ivf)
            continue;
        check_codes(&snapshot.parts[p]);
        rows += snapshot.parts[p].rows;
    }
    mn_reader_unpin(s->reader);
    return rows;
}

bool live_care(struct live_store *s, struct mn_compact_care *care)
{
    struct mn_compact_proposal proposal;
    ok(mn_compact_care_for(s->compactor, &s->policy, NULL, NULL, &proposal, care));
    if (care->worth)
        live_commit(s, &proposal);
    mn_compact_proposal_free(&proposal);
    return care->worth;
}

struct mn_manifest live_manifest(struct live_store *s)
{
    struct mn_manifest manifest;
    ok(mn_manifest_read(&manifest, &s->store, NULL));
    return manifest;
}

static bool grep_file(const char *path, const void *bytes, size_t length)
{
    void *data;
    size_t size;
    ok(mn_io_slurp(&mn_io_posix, path, 1u << 30, &data, &size));
    bool found = memmem(data, size, bytes, length) != NULL;
    free(data);
    return found;
}

bool live_grep(const char *dir, const void *bytes, size_t length)
{
    DIR *d = opendir(dir);
    assert_non_null(d);
    bool found = false;
    for (struct dirent *entry; !found && (entry = readdir(d)) != NULL;) {
        char path[4096];
        struct stat st;
        snprintf(path, sizeof path, "%s/%s", dir, entry->d_name);
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0 || lstat(path, &st) != 0)
            continue;
        found = S_ISDIR(st.st_mode) ? live_grep(path, bytes, length)
                                    : S_ISREG(st.st_mode) && grep_file(path, bytes, length);
    }
    closedir(d);
    return found;
}
