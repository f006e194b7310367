/*
 * test_recovery_again.c - what a recovery comes to, it comes to again: after it, cut short anywhere, and whichever bit
 * of the store is flipped; and nothing that was taken away rises.
 */
#include "tests/unit/sixty.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/read.h"
#include "engine/verify.h"
#include "engine/wal.h"
#include "tests/unit/fail_once.h"

/* ---- what was taken away stays away ---- */

enum { ZEROED, FILLED, STALE, FLIPPED, DAMAGES };

/* Id 1 is replaced, 2 and 12 are deleted (12 by a forget of many), 3 is suppressed, 4 revised, 5 superseded, 6 purged;
 * then life goes on. */
static struct fixture *taken_away(void)
{
    struct fixture *f = sixty_store();
    struct mn_outcome outcome;
    for (uint64_t id = 1; id <= 40; id++)
        fixture_put(f, "s", id, id, "old");
    fixture_commit(f);
    fixture_put(f, "s", 1, 101, "new");
    fixture_commit(f);
    fixture_forget(f, "s", 2, MN_FORGET_DELETE);
    fixture_commit(f);
    fixture_forget(f, "s", 3, MN_FORGET_SUPPRESS);
    fixture_commit(f);
    struct mn_revise revise = {.write = fixture_write(f, "s"), .id = number_id(4), .set_confidence = true};
    ok(mn_writer_revise(f->writer, &revise, &outcome));
    fixture_commit(f);
    struct mn_id superseded = number_id(5);
    struct mn_memory m = fixture_memory(50, 50, "supersedes 5");
    m.supersedes = &superseded;
    m.supersede_count = 1;
    struct mn_remember remember = {.write = fixture_write(f, "s"), .memories = &m, .count = 1};
    ok(mn_writer_remember(f->writer, &remember, &outcome));
    fixture_commit(f);
    fixture_forget(f, "s", 6, MN_FORGET_PURGE);
    fixture_commit(f);
    struct mn_id many[10];
    for (uint64_t i = 0; i < 10; i++)
        many[i] = number_id(11 + i);
    struct mn_forget forget = {.write = fixture_write(f, "s"), .ids = many, .id_count = 10, .mode = MN_FORGET_DELETE};
    ok(mn_writer_forget(f->writer, &forget, &outcome));
    fixture_commit(f);
    fixture_put(f, "s", 60, 60, "later");
    fixture_commit(f);
    fixture_power_cut(f);
    return f;
}

static void damage_block(struct fixture *f, uint64_t block, int how)
{
    uint8_t bytes[4096];
    size_t length;
    uint8_t *log = fixture_slurp(f, "wal/00000001.wal", &length);
    memset(bytes, how == FILLED ? 0xff : 0, sizeof bytes);
    if (how == STALE)
        memcpy(bytes, log + (block + 1) * sizeof bytes, sizeof bytes);
    if (how == FLIPPED) {
        memcpy(bytes, log + block * sizeof bytes, sizeof bytes);
        bytes[130] ^= 4; /* two bits, so that nobody can tell where: the first record's header */
        bytes[145] ^= 1;
    }
    free(log);
    fixture_scribble(f, "wal/00000001.wal", block * sizeof bytes, bytes, sizeof bytes);
}

static bool risen(struct fixture *f, uint64_t id)
{
    return fixture_holds(f, "s", id, id, "old");
}

static void nothing_rises_whichever_block_is_lost(void **state)
{
    uint64_t blocks = 0;
    for (int how = 0; how < DAMAGES; how++)
        for (uint64_t block = 1; block == 1 || block <= blocks; block++) {
            struct fixture *f = taken_away();
            if (blocks == 0) {
                size_t length;
                uint8_t *log = fixture_slurp(f, "wal/00000001.wal", &length);
                for (blocks = length / 4096 - 2; mn_wal_zero(log + blocks * 4096, 4096);)
                    blocks--;
                assert_true(blocks > 15);
                free(log);
            }
            damage_block(f, block, how);
            for (int round = 0; round < 2; round++) {
                fixture_start(f);
                assert_false(risen(f, 1));
                for (uint64_t id = 2; id <= 6; id++) /* 4 was revised: the same content, a later version */
                    assert_true(id == 4 || fixture_absent(f, "s", id));
                for (uint64_t id = 11; id <= 20; id++)
                    assert_true(fixture_absent(f, "s", id));
                assert_int_equal(fixture_forget(f, "s", 6, MN_FORGET_RESTORE), 0);
                assert_true(atomic_load(&f->instance.control->reasons) & MN_DEGRADED_QUARANTINE);
                fixture_power_cut(f);
            }
            fixture_free(f);
        }
}

/* ---- twice, and cut short ---- */

struct file_list {
    char names[200][96];
    uint64_t bytes[200];
    uint32_t count;
};

static void list_files(const struct fixture *f, const char *folder, struct file_list *list)
{
    char path[MN_PATH_MAX];
    DIR *dir = opendir(mn_store_path(&f->store, path, folder));
    assert_non_null(dir);
    for (struct dirent *entry; (entry = readdir(dir)) != NULL;) {
        char name[80];
        struct stat st;
        if (entry->d_name[0] == '.' || strcmp(entry->d_name, "LOCK") == 0)
            continue;
        snprintf(name, sizeof name, "%.30s%s%.40s", folder, folder[0] ? "/" : "", entry->d_name);
        assert_int_equal(stat(mn_store_path(&f->store, path, name), &st), 0);
        if (S_ISDIR(st.st_mode)) {
            list_files(f, name, list);
        } else if (st.st_size > 0) {
            assert_true(list->count < MN_ARRAY_LEN(list->names));
            snprintf(list->names[list->count], sizeof list->names[0], "%s", name);
            list->bytes[list->count++] = (uint64_t)st.st_size;
        }
    }
    closedir(dir);
}

static void count_finding(void *context, const char *path, const char *what)
{
    print_error("%s: %s\n", path, what);
    ++*(uint32_t *)context;
}

/* A file's bytes, as a number; folders and what recovery does not write are left out. */
static uint64_t hash_of_folders(struct fixture *f)
{
    static const char *const folders[] = {"wal", "quarantine"};
    uint64_t hash = 0;
    for (size_t i = 0; i < MN_ARRAY_LEN(folders); i++) {
        struct file_list *list = calloc(1, sizeof *list);
        list_files(f, folders[i], list);
        for (uint32_t n = 0; n < list->count; n++) {
            size_t bytes;
            uint8_t *data = fixture_slurp(f, list->names[n], &bytes);
            if (!strstr(list->names[n], "MARK"))
                hash += mn_str_hash((struct mn_str){(const char *)data, (uint32_t)bytes}) ^
                        mn_str_hash(text_str(list->names[n]));
            free(data);
        }
        free(list);
    }
    return hash;
}

/* Several kinds of damage at once. */
static struct fixture *damaged_store(void)
{
    struct fixture *f = taken_away();
    damage_block(f, 3, ZEROED);
    damage_block(f, 6, FLIPPED);
    fixture_flip(f, "wal/00000001.wal", 9 * 4096 + 200, 4);
    damage_block(f, 12, FILLED);
    fixture_flip(f, "wal/00000001.wal", 20, 4); /* the segment's first header */
    return f;
}

static void recovering_twice_gives_the_same_bytes(void **state)
{
    struct fixture *f = damaged_store();
    fixture_open_instance(f);
    ok(fixture_recover(f));
    uint64_t first = hash_of_folders(f), quarantined = f->report.quarantined, count = fixture_count(f);
    assert_true(quarantined >= 4 && f->report.lost);
    for (int round = 0; round < 3; round++) {
        if (round == 1) {
            fixture_power_cut(f);
            fixture_open_instance(f);
        }
        ok(fixture_recover(f));
        assert_int_equal(f->report.quarantined, 0); /* nothing new */
        assert_true(f->report.lost);                /* and still told */
        assert_true(hash_of_folders(f) == first);
        assert_int_equal(fixture_count(f), count);
    }
    struct mn_verify_result result;
    uint32_t damaged = 0;
    ok(mn_verify(&f->store, UINT64_MAX, count_finding, NULL, &damaged, &result));
    assert_int_equal(damaged, 0);
    fixture_free(f);
}

/* Recovery fails at any of its steps, and comes to the same end the next time. */
static void a_recovery_cut_short_anywhere_comes_to_the_same_end(void **state)
{
    struct fixture *f = damaged_store();
    size_t bytes;
    char path[MN_PATH_MAX];
    uint8_t *damaged = fixture_slurp(f, "wal/00000001.wal", &bytes);
    fixture_open_instance(f);
    ok(fixture_recover(f));
    uint64_t wanted = hash_of_folders(f), count = fixture_count(f);
    const struct mn_io *quick = f->store.io;
    bool failed = true;
    for (uint32_t n = 1; failed; n++) {
        struct mn_io io = fail_once_io();
        fixture_power_cut(f);
        fixture_scribble(f, "wal/00000001.wal", 0, damaged, bytes);
        ok(mn_io_remove_tree(&mn_io_posix, mn_store_path(&f->store, path, "quarantine")));
        ok(mn_io_posix.mkdir(path));
        fixture_open_instance(f);
        fail_once = (struct fail_once){.fail_at = n, .status = MN_SYSTEM};
        f->store.io = &io;
        failed = fixture_recover(f) != MN_OK;
        assert_true(failed || n > 10);
        f->store.io = quick;
        if (n % 2) {
            fixture_power_cut(f);
            fixture_open_instance(f);
        }
        ok(fixture_recover(f));
        assert_true(hash_of_folders(f) == wanted);
        assert_int_equal(fixture_count(f), count);
    }
    free(damaged);
    fixture_free(f);
}

/* ---- one flipped bit anywhere ---- */

/* Of ids 1..80: multiples of 7 are deleted, others there. Returns how many are missing or unreadable. */
static uint32_t look_at_all(struct fixture *f, uint32_t *risen)
{
    struct mn_reader *reader;
    struct mn_snapshot snapshot;
    uint32_t missing = 0;
    ok(mn_reader_open(&reader, &f->store, &f->instance));
    ok(mn_reader_pin(reader, 0, &snapshot));
    for (uint64_t id = 1; id <= 80; id++) {
        struct mn_id key = number_id(id);
        struct mn_row_ref ref = mn_read_find(&snapshot, text_str("s"), &key);
        struct mn_str content = {0}, wanted;
        char text[64];
        bool bin;
        if (id % 7 == 0) {
            *risen += ref.part != MN_NONE;
            continue;
        }
        if (ref.part == MN_NONE) {
            missing++;
            continue;
        }
        const struct mn_part *part = &snapshot.parts[ref.part];
        const float *vector = mn_part_vector(part, ref.row);
        enum mn_status status = mn_part_content(part, ref.row, &content, &bin);
        wanted = text_str(sixty_content(id, text));
        if (!vector || status == MN_CORRUPT) {
            missing++; /* told by its block's checksum */
            continue;
        }
        ok(status);
        assert_memory_equal(vector, fixture_vector(id), FIXTURE_DIM * sizeof(float)); /* never wrong bytes */
        assert_true(mn_str_equal(content, wanted));
        assert_int_equal(mn_part_at(part, ref.row), id);
    }
    if (missing > 0 && snapshot.missing > 0)
        missing = UINT32_MAX; /* a whole segment, and told of */
    mn_reader_close(reader);
    return missing;
}

static struct fixture *store_of_all_kinds(void)
{
    static const struct mn_compact_policy policy = {
        .min_rows = 1, .min_log_segments = 1, .fanout = 4, .dead_percent = 25, .segment_rows_max = 1000};
    struct fixture *f = fixture_new();
    struct mn_compactor *compactor;
    struct mn_compact_plan plan;
    struct mn_compact_proposal proposal;
    char text[64];
    uint64_t sealed;
    ok(mn_compactor_open(&compactor, &f->store, &f->instance));
    for (uint64_t id = 1; id <= 80; id++) {
        fixture_put(f, "s", id, id, sixty_content(id, text));
        if (id % 4 == 0)
            fixture_commit(f);
        if (id % 14 == 0)
            fixture_forget(f, "s", id - 7, MN_FORGET_DELETE);
        if (id != 50)
            continue;
        fixture_commit(f);
        ok(mn_writer_seal(f->writer, &sealed));
        atomic_store(&f->instance.control->history_seq, sealed);
        ok(mn_compact_plan_make(compactor, &policy, true, &plan));
        ok(mn_compact_build(compactor, &plan, &policy, NULL, NULL, &proposal));
        ok(mn_writer_commit_proposal(f->writer, &proposal));
        mn_compact_proposal_free(&proposal);
        mn_compact_plan_free(&plan);
    }
    for (uint64_t id = 7; id <= 80; id += 7)
        fixture_forget(f, "s", id, MN_FORGET_DELETE);
    fixture_commit(f);
    mn_compactor_close(compactor);
    fixture_power_cut(f);
    return f;
}

static void check_one_flip(struct fixture *f, const char *name, uint64_t offset, uint8_t mask)
{
    struct mn_store as_was = f->store;
    size_t bytes;
    uint8_t *before = fixture_slurp(f, name, &bytes);
    fixture_flip(f, name, offset, mask);
    enum mn_status status = mn_store_open(&f->store, &mn_io_posix, f->dir);
    ok(status); /* nothing keeps the rest from being served */
    f->store = as_was;
    fixture_open_instance(f);
    ok(fixture_recover(f));
    uint32_t risen = 0, missing = look_at_all(f, &risen);
    uint32_t reasons = atomic_load(&f->instance.control->reasons);
    bool in_block = missing > 0 && strncmp(name, "columns/", 8) == 0; /* found by whoever touches it */
    if ((missing > 0 || risen > 0) && reasons == 0 && !in_block)
        print_error("%s at %llu: %u missing, %u risen, and nothing said\n", name, (unsigned long long)offset, missing,
                    risen);
    assert_true((missing == 0 && risen == 0) || reasons != 0 || in_block);
    assert_true(risen == 0 || (reasons & MN_DEGRADED_LOST));
    fixture_power_cut(f);
    char path[MN_PATH_MAX];
    if (strncmp(name, "ledger.", 7) != 0)
        fixture_scribble(f, name, offset, &before[offset], 1); /* a ledger was made anew */
    free(before);
    ok(mn_io_remove_tree(&mn_io_posix, mn_store_path(&f->store, path, "quarantine")));
    ok(mn_io_posix.mkdir(path));
}

static void a_flipped_bit_anywhere_gives_no_wrong_bytes_and_is_told(void **state)
{
    struct fixture *f = store_of_all_kinds();
    struct file_list *list = calloc(1, sizeof *list);
    list_files(f, "", list);
    assert_true(list->count > 15);
    for (uint32_t round = 0; round < 600; round++) {
        uint32_t n = round % list->count;
        bool log = strstr(list->names[n], ".wal") != NULL; /* most of which is zeros behind its end */
        uint64_t below = log && round % 5 != 0 ? 16 * 4096 : list->bytes[n];
        check_one_flip(f, list->names[n],
                       fixture_random(f, (uint32_t)(below < list->bytes[n] ? below : list->bytes[n])),
                       (uint8_t)(1 << fixture_random(f, 8)));
    }
    fixture_start(f); /* and undamaged it is all there */
    uint32_t risen = 0;
    assert_int_equal(look_at_all(f, &risen), 0);
    assert_int_equal(risen, 0);
    assert_int_equal(atomic_load(&f->instance.control->reasons), 0);
    free(list);
    fixture_free(f);
}

/* Ids that were assigned are not assigned again, though what knew of them is gone. */
static void a_lost_ledger_is_made_anew(void **state)
{
    for (int how = 0; how < 2; how++) {
        struct fixture *f = store_of_all_kinds();
        char name[64], path[MN_PATH_MAX];
        struct mn_manifest manifest;
        ok(mn_manifest_read(&manifest, &f->store, NULL));
        snprintf(name, sizeof name, "ledger.%llu", (unsigned long long)manifest.ledger_seq);
        mn_manifest_free(&manifest);
        if (how == 0)
            fixture_flip(f, name, 9, 1);
        else
            assert_int_equal(unlink(mn_store_path(&f->store, path, name)), 0);
        for (int round = 0; round < 2; round++) {
            uint32_t risen = 0;
            fixture_start(f);
            assert_int_equal(f->report.lost, round == 0);
            assert_int_equal(f->report.quarantined, round == 0);
            assert_int_equal(fixture_files(f, "quarantine", ".json"), 1);
            assert_int_equal(fixture_files(f, "quarantine", ".bin"), how == 0);
            assert_int_equal(look_at_all(f, &risen) + risen, 0);
            assert_true(fixture_exists(f, name));
            struct mn_memory m = fixture_memory(0, 1, "x");
            struct mn_remember request = {.write = fixture_write(f, "s"), .memories = &m, .count = 1};
            struct mn_outcome outcome;
            ok(mn_writer_remember(f->writer, &request, &outcome));
            assert_int_equal(outcome.ids[0].lo, 81 + round);
            fixture_commit(f);
            fixture_power_cut(f);
        }
        fixture_free(f);
    }
}

static void a_damaged_manifest_or_store_is_refused_with_a_sentence(void **state)
{
    struct fixture *f = sixty_memories();
    char path[MN_PATH_MAX];
    FILE *file = fopen(mn_store_path(&f->store, path, "MANIFEST"), "w");
    assert_non_null(file);
    fputs("this is no manifest, whatever it was before, and it is long enough for one", file);
    fclose(file);
    fixture_open_instance(f);
    fails(MN_CORRUPT, fixture_recover(f));
    assert_int_equal(atomic_load(&f->instance.control->view_gen), 0);
    assert_int_equal(unlink(path), 0);
    ok(fixture_recover(f));
    fixture_free(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_rises_whichever_block_is_lost),
        cmocka_unit_test(recovering_twice_gives_the_same_bytes),
        cmocka_unit_test(a_recovery_cut_short_anywhere_comes_to_the_same_end),
        cmocka_unit_test(a_damaged_manifest_or_store_is_refused_with_a_sentence),
        cmocka_unit_test(a_lost_ledger_is_made_anew),
        cmocka_unit_test(a_flipped_bit_anywhere_gives_no_wrong_bytes_and_is_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
