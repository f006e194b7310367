/*
 * flips.c - every bit of a small store flipped, one at a time: scenario 41.
 *
 *     flips [STEP = 1 [FIRST = 0]]        every STEP-th bit of each file, beginning with bit FIRST
 *
 * The store has column segments, log behind them, a manifest, a ledger, forgotten memories, and whatever else the
 * engine keeps in its folder by then: the files are found, not listed. Per flip, on a fresh copy: verify must report
 * damage; then recovery and a reader. A memory that can be read is what was written, bit for bit; one that was
 * forgotten is not there; one that is missing was reported (verify, quarantine, a segment that did not open), or the
 * store refused to start with a sentence. Zeros behind the end of a log segment are flipped at the first bit of each
 * 512 bytes only, whatever the step. Prints one line a file; exit status 1 when a flip went unnoticed or anything wrong
 * was served.
 */
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/read.h"
#include "engine/verify.h"
#include "shm/process.h"
#include "tests/unit/store_fixture.h"

#define MEMORIES  120u
#define FILES_MAX 256u
#define REPLACED  3u /* every third memory was written twice */
#define FORGOTTEN 5u /* every fifth is gone */
#define SECTOR    512u
#define SHOWN     20u

struct file {
    char name[256];
    uint8_t *bytes;
    size_t length, used; /* behind `used` there are only zeros */
};

struct tally {
    uint64_t flips, by_verify, refused, missing, unnoticed, wrong, risen;
};

static struct file files[FILES_MAX];
static uint32_t file_count;

/* The kernel's files without waiting for the disk: a flip does not ask what was synced. */
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
    fixture_start(f);
    return f;
}

/* ---- the store ---- */

static const char *content_of(uint64_t number)
{
    static char text[64];
    snprintf(text, sizeof text, "content of version %llu", (unsigned long long)number);
    return text;
}

/* The version that must be visible; 0: none. */
static uint64_t version_of(uint64_t id)
{
    if (id % FORGOTTEN == 0)
        return 0;
    return id % REPLACED == 0 ? id + 1000 : id;
}

static void compact(struct fixture *f)
{
    struct mn_compact_policy policy = {
        .min_rows = 1, .min_log_segments = 1, .fanout = 4, .dead_percent = 25, .segment_rows_max = 100000};
    struct mn_compactor *compactor;
    struct mn_compact_plan plan;
    struct mn_compact_proposal proposal;
    uint64_t seq;
    ok(mn_writer_seal(f->writer, &seq));
    ok(mn_compactor_open(&compactor, &f->store, &f->instance));
    ok(mn_compact_plan_make(compactor, &policy, true, &plan));
    ok(mn_compact_build(compactor, &plan, &policy, NULL, NULL, &proposal));
    ok(mn_writer_commit_proposal(f->writer, &proposal));
    mn_compact_proposal_free(&proposal);
    mn_compact_plan_free(&plan);
    mn_compactor_close(compactor);
    /* The log segment that it has taken goes when no reader can have it pinned; a thread removes it. */
    for (int i = 0; i < 5000 && fixture_exists(f, "wal/00000001.wal"); i++) {
        mn_writer_tend(f->writer, mn_wall_ns());
        usleep(1000);
    }
    assert_false(fixture_exists(f, "wal/00000001.wal"));
}

/* Half of it in columns; replacements and forgets on both sides. */
static void fill(struct fixture *f)
{
    for (uint64_t id = 1; id <= MEMORIES; id++) {
        fixture_put(f, "default", id, id, content_of(id));
        if (id == MEMORIES / 2) {
            fixture_commit(f);
            compact(f);
        }
    }
    for (uint64_t id = REPLACED; id <= MEMORIES; id += REPLACED)
        fixture_put(f, "default", id, id + 1000, content_of(id + 1000));
    fixture_commit(f);
    for (uint64_t id = FORGOTTEN; id <= MEMORIES; id += FORGOTTEN)
        fixture_forget(f, "default", id, MN_FORGET_DELETE);
    fixture_commit(f);
}

/* ---- its files ---- */

static enum mn_status take_entry(void *context, const char *name)
{
    const struct fixture *f = ((const struct fixture *const *)context)[0];
    const char *folder = ((const char *const *)context)[1];
    char relative[256], path[MN_PATH_MAX];
    struct stat st;
    snprintf(relative, sizeof relative, "%s%s%s", folder, folder[0] ? "/" : "", name);
    mn_store_path(&f->store, path, relative);
    assert_int_equal(lstat(path, &st), 0);
    if (S_ISDIR(st.st_mode)) {
        const void *inner[2] = {f, relative};
        return strcmp(relative, "run") == 0 ? MN_OK : quick.list(path, take_entry, inner);
    }
    if (!S_ISREG(st.st_mode) || strstr(name, "LOCK"))
        return MN_OK;
    assert_true(file_count < FILES_MAX);
    struct file *file = &files[file_count++];
    snprintf(file->name, sizeof file->name, "%s", relative);
    file->bytes = fixture_slurp(f, relative, &file->length);
    for (file->used = file->length; file->used > 0 && file->bytes[file->used - 1] == 0;)
        file->used--;
    return MN_OK;
}

static void take_files(const struct fixture *f)
{
    const void *context[2] = {f, ""};
    ok(quick.list(f->dir, take_entry, context));
}

/* Makes the folder what it was: files back, and nothing else in the folders that recovery writes to. */
static void put_files(const struct fixture *f)
{
    static const char *const folders[] = {"wal", "columns", "quarantine", "codebooks"};
    char path[MN_PATH_MAX];
    for (size_t i = 0; i < MN_ARRAY_LEN(folders); i++) {
        ok(mn_io_remove_tree(&quick, mn_store_path(&f->store, path, folders[i])));
        ok(quick.mkdir(path));
    }
    for (uint32_t i = 0; i < file_count; i++) {
        mn_store_path(&f->store, path, files[i].name);
        char *slash = strrchr(path, '/');
        *slash = 0;
        mkdir(path, 0700); /* columns/<id> */
        *slash = '/';
        FILE *out = fopen(path, "w");
        assert_non_null(out);
        assert_int_equal(fwrite(files[i].bytes, 1, files[i].used, out), files[i].used);
        assert_int_equal(fclose(out), 0);
        assert_int_equal(truncate(path, (off_t)files[i].length), 0);
    }
}

/* ---- one flip ---- */

static void note_damage(void *context, const char *path, const char *what)
{
    (void)path;
    (void)what;
    ++*(uint64_t *)context;
}

static bool row_is(const struct mn_part *part, uint32_t row, uint64_t version)
{
    struct mn_str content;
    bool bin;
    const float *vector = mn_part_vector(part, row);
    return vector && memcmp(vector, fixture_vector(version), FIXTURE_DIM * sizeof *vector) == 0 &&
           mn_part_at(part, row) == (int64_t)version && mn_part_content(part, row, &content, &bin) == MN_OK && !bin &&
           mn_str_equal(content, text_str(content_of(version)));
}

/* What cannot be read is not served: it counts as missing, and the read itself has told. */
static bool unreadable(const struct mn_part *part, uint32_t row)
{
    struct mn_str content;
    bool bin;
    return !mn_part_vector(part, row) || mn_part_content(part, row, &content, &bin) == MN_CORRUPT;
}

/* Holds what a reader finds against what must be there; returns how many memories are missing. */
static uint64_t look(struct fixture *f, struct tally *tally)
{
    struct mn_reader *reader;
    struct mn_snapshot snapshot;
    uint64_t missing = 0;
    ok(mn_reader_open(&reader, &f->store, &f->instance));
    ok(mn_reader_pin(reader, 0, &snapshot));
    for (uint64_t id = 1; id <= MEMORIES; id++) {
        struct mn_id key = number_id(id);
        uint64_t version = version_of(id);
        struct mn_row_ref ref = mn_read_find(&snapshot, text_str("default"), &key);
        const struct mn_part *part = ref.part == MN_NONE ? NULL : &snapshot.parts[ref.part];
        if (!part || unreadable(part, ref.row))
            missing += version != 0;
        else if (version == 0)
            tally->risen++;
        else
            tally->wrong += !row_is(part, ref.row, version);
    }
    mn_reader_close(reader);
    return missing;
}

/* True when the store says that something is wrong, whoever notices. */
static bool try_store(struct fixture *f, struct tally *tally)
{
    uint64_t told = 0;
    struct mn_verify_result result;
    enum mn_status status = mn_verify(&f->store, UINT64_MAX, note_damage, NULL, &told, &result);
    bool noticed = told > 0 || status != MN_OK;
    tally->by_verify += noticed;
    struct mn_store again;
    if (mn_store_open(&again, &quick, f->dir) != MN_OK) {
        tally->refused++;
        return true;
    }
    fixture_open_instance(f);
    status = fixture_recover(f);
    if (status == MN_OK) {
        uint64_t missing = look(f, tally);
        bool said = noticed || f->report.lost || f->report.quarantined > 0;
        tally->missing += missing;
        tally->unnoticed += missing > 0 && !said;
        noticed = said;
    } else {
        tally->refused++;
        noticed = true;
    }
    fixture_power_cut(f);
    return noticed;
}

static void flip(struct fixture *f, const struct file *file, uint64_t bit, struct tally *tally)
{
    struct tally before = *tally;
    put_files(f);
    fixture_flip(f, file->name, bit / 8, (uint8_t)(1u << (bit % 8)));
    tally->flips++;
    tally->unnoticed += !try_store(f, tally);
    if (tally->unnoticed + tally->wrong + tally->risen > before.unnoticed + before.wrong + before.risen &&
        before.unnoticed + before.wrong + before.risen < SHOWN)
        printf("  %s, byte %llu, bit %llu: %s\n", file->name, (unsigned long long)(bit / 8),
               (unsigned long long)(bit % 8),
               tally->wrong > before.wrong   ? "wrong"
               : tally->risen > before.risen ? "risen"
                                             : "unnoticed");
}

static void flip_file(struct fixture *f, const struct file *file, uint64_t step, uint64_t first, struct tally *all)
{
    struct tally tally = {0};
    for (uint64_t bit = first; bit < file->used * 8; bit += step)
        flip(f, file, bit, &tally);
    for (uint64_t byte = mn_round_up(file->used, SECTOR); byte < file->length; byte += SECTOR * step)
        flip(f, file, byte * 8, &tally);
    printf("%-28s %8llu flips %8llu by verify %6llu refused %6llu missing %4llu unnoticed %4llu wrong %4llu risen\n",
           file->name, (unsigned long long)tally.flips, (unsigned long long)tally.by_verify,
           (unsigned long long)tally.refused, (unsigned long long)tally.missing, (unsigned long long)tally.unnoticed,
           (unsigned long long)tally.wrong, (unsigned long long)tally.risen);
    fflush(stdout);
    all->flips += tally.flips;
    all->unnoticed += tally.unnoticed;
    all->wrong += tally.wrong;
    all->risen += tally.risen;
}

static uint64_t step = 1, first;

static void test_flips(void **state)
{
    (void)state;
    struct fixture *f = quick_fixture();
    struct tally all = {0};
    fill(f);
    fixture_power_cut(f);
    take_files(f);
    put_files(f);
    struct tally calm = {0};
    assert_false(try_store(f, &calm)); /* as it is, there is nothing to report */
    assert_int_equal(calm.missing, 0);
    for (uint32_t i = 0; i < file_count; i++)
        flip_file(f, &files[i], step, first, &all);
    printf("%llu flips in %u files: %llu unnoticed, %llu wrong, %llu risen\n", (unsigned long long)all.flips,
           file_count, (unsigned long long)all.unnoticed, (unsigned long long)all.wrong, (unsigned long long)all.risen);
    for (uint32_t i = 0; i < file_count; i++)
        free(files[i].bytes);
    fixture_free(f);
    assert_int_equal(all.unnoticed + all.wrong + all.risen, 0);
}

int main(int argc, char **argv)
{
    step = argc > 1 ? strtoull(argv[1], NULL, 10) : 1;
    first = argc > 2 ? strtoull(argv[2], NULL, 10) : 0;
    if (step == 0) {
        fprintf(stderr, "usage: flips [STEP = 1 [FIRST = 0]]\n");
        return 2;
    }
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_flips)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
