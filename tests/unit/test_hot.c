/*
 * test_hot.c - hot copies: what they hold, who takes them when, and everything that can keep one from being made: no
 * room, no budget, damage, somebody in a hurry, a compactor that died. On a machine with one node; test_hot_make.c has
 * one with several.
 */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "engine/hot.h"
#include "engine/ivf_file.h"
#include "tests/unit/live_store.h"
#include "tests/unit/made_up_nodes.h"

#define ROWS   1500u
#define PLENTY UINT64_C(1000000000)

static int setup(void **state)
{
    struct live_store *s = live_store_new();
    live_remember(s, 0, 0, ROWS);
    live_seal(s);
    live_compact(s, true);
    *state = s;
    return 0;
}

static int teardown(void **state)
{
    live_store_free(*state);
    return 0;
}

/* The newest segment that has codes. */
static struct mn_manifest_segment newest(struct live_store *s)
{
    struct mn_manifest manifest = live_manifest(s);
    assert_true(manifest.segment_count > 0);
    struct mn_manifest_segment segment = manifest.segments[manifest.segment_count - 1];
    assert_true(segment.codebook != 0);
    mn_manifest_free(&manifest);
    return segment;
}

static enum mn_status make(struct live_store *s, uint64_t budget, bool (*pause)(void *context))
{
    struct mn_manifest_segment segment = newest(s);
    return mn_hot_make(&s->store, &s->instance, segment.id, segment.codebook, budget, pause, NULL);
}

static enum mn_status count_one(void *context, const char *name)
{
    uint32_t *count = context;
    assert_int_equal(strncmp(name, "hot.", 4), 0);
    ++*count;
    return MN_OK;
}

static uint32_t copies_of(struct live_store *s, uint64_t segment)
{
    uint32_t count = 0;
    ok(mn_hot_visit(&s->instance, segment, count_one, &count));
    return count;
}

/* Whether the reader of the store searches the newest segment through a copy; its codes are right in any case. */
static bool is_hot(struct live_store *s)
{
    struct mn_snapshot snapshot;
    bool hot = false;
    ok(mn_reader_pin(s->reader, 0, &snapshot));
    for (uint32_t p = 0; p < snapshot.part_count; p++)
        if (!snapshot.parts[p].tail && snapshot.parts[p].number == newest(s).id) {
            assert_non_null(snapshot.parts[p].ivf);
            hot = !snapshot.parts[p].ivf->check; /* nothing is left to check */
        }
    mn_reader_unpin(s->reader);
    live_check_codes(s);
    return hot;
}

static void a_copy_is_what_the_file_holds(void **state)
{
    struct live_store *s = *state;
    struct mn_manifest_segment segment = newest(s);
    struct mn_column_file file;
    struct mn_hot hot;
    char path[MN_PATH_MAX];
    assert_false(mn_hot_there(&s->instance, segment.id, segment.codebook));
    assert_int_equal(mn_hot_map(&hot, &s->instance, segment.id, segment.codebook), MN_NOT_FOUND);
    assert_null(hot.base);
    mn_hot_unmap(&hot);
    ok(make(s, PLENTY, NULL));
    assert_true(mn_hot_there(&s->instance, segment.id, segment.codebook));
    assert_false(mn_hot_there(&s->instance, segment.id, segment.codebook + 1));
    ok(mn_hot_map(&hot, &s->instance, segment.id, segment.codebook));
    ok(mn_column_file_map(&file, &s->store, segment.id, MN_COLUMN_IVF,
                          mn_ivf_path(&s->store, path, segment.id, segment.codebook)));
    assert_int_equal(hot.data_bytes, file.data_bytes);
    assert_memory_equal(hot.data, file.data, file.data_bytes);
    assert_memory_equal(hot.header, file.header, sizeof *file.header);
    assert_int_equal((uintptr_t)hot.data % (2u << 20), 0);
    mn_column_file_unmap(&file);
    mn_hot_unmap(&hot);
    assert_int_equal(copies_of(s, segment.id), 1);
    assert_int_equal(copies_of(s, segment.id + 1), 0);
}

static void readers_take_it_and_let_it_go(void **state)
{
    struct live_store *s = *state;
    assert_false(is_hot(s));
    struct mn_hot_report report = live_tend_hot(s, PLENTY);
    assert_true(report.changed && report.copied == 1 && report.refused == 0 && report.bytes > 0);
    assert_true(report.huge_bytes <= report.bytes);
    assert_true(is_hot(s));
    live_check(s);
    report = live_tend_hot(s, PLENTY);
    assert_true(!report.changed && report.copied == 1);
    /* The budget shrinks while it is mapped. */
    report = live_tend_hot(s, 4096);
    assert_true(report.changed && report.copied == 0 && report.refused == 1 && report.bytes == 0);
    assert_int_equal(copies_of(s, newest(s).id), 0);
    assert_false(is_hot(s));
    assert_true(live_tend_hot(s, PLENTY).changed);
    assert_true(is_hot(s));
}

static void a_reader_that_comes_later_finds_it(void **state)
{
    struct live_store *s = *state;
    struct mn_reader *late;
    struct mn_snapshot snapshot;
    ok(make(s, PLENTY, NULL)); /* not announced */
    assert_int_equal(atomic_load(&s->instance.control->hot_gen), 0);
    ok(mn_reader_open(&late, &s->store, &s->instance));
    ok(mn_reader_pin(late, 0, &snapshot));
    assert_non_null(snapshot.parts[snapshot.part_count - 1].ivf);
    assert_null(snapshot.parts[snapshot.part_count - 1].ivf->check);
    mn_reader_close(late);
}

static void a_pinned_copy_may_go(void **state)
{
    struct live_store *s = *state;
    struct mn_snapshot snapshot;
    live_tend_hot(s, PLENTY);
    ok(mn_reader_pin(s->reader, 0, &snapshot));
    const struct mn_part *part = &snapshot.parts[snapshot.part_count - 1];
    const struct mn_ivf *ivf = part->ivf;
    assert_null(ivf->check);
    uint32_t *before = malloc(ROWS * sizeof *before), *after = malloc(ROWS * sizeof *after);
    mn_ivf_clusters(ivf, before);
    live_tend_hot(s, 0);
    mn_ivf_clusters(ivf, after); /* what is mapped lives on */
    assert_memory_equal(before, after, ROWS * sizeof *before);
    mn_reader_unpin(s->reader);
    free(after);
    free(before);
}

static void the_newest_come_first(void **state)
{
    struct live_store *s = *state;
    uint64_t first = newest(s).id;
    uint64_t one = live_tend_hot(s, PLENTY).bytes;
    live_remember(s, 1, 0, ROWS);
    live_seal(s);
    live_compact(s, false);
    struct mn_manifest manifest = live_manifest(s);
    assert_int_equal(manifest.segment_count, 2);
    mn_manifest_free(&manifest);
    struct mn_hot_report report = live_tend_hot(s, one * 3 / 2);
    assert_true(report.copied == 1 && report.refused == 1 && report.bytes <= one * 3 / 2);
    assert_int_equal(copies_of(s, newest(s).id), 1);
    assert_int_equal(copies_of(s, first), 0);
    assert_int_equal(make(s, PLENTY, NULL), MN_OK); /* over what is there */
    report = live_tend_hot(s, one * 3);
    assert_true(report.copied == 2 && report.refused == 0);
    /* Codes of the tail count against it. */
    int fd = openat(s->instance.dir_fd, "codes.9.9.9", O_CREAT | O_RDWR | O_CLOEXEC, 0600);
    assert_int_equal(posix_fallocate(fd, 0, (off_t)one), 0);
    close(fd);
    report = live_tend_hot(s, one * 2);
    assert_true(report.copied == 1 && report.refused == 1);
    unlinkat(s->instance.dir_fd, "codes.9.9.9", 0);
    live_check(s);
}

static void what_is_retired_takes_its_copies_along(void **state)
{
    struct live_store *s = *state;
    uint64_t old = newest(s).id;
    live_tend_hot(s, PLENTY);
    assert_int_equal(copies_of(s, old), 1);
    live_forget(s, 0, 3, MN_FORGET_PURGE);
    live_seal(s);
    live_compact(s, true);
    live_tend(s);
    assert_true(newest(s).id != old);
    assert_int_equal(copies_of(s, old), 0);
    assert_true(live_tend_hot(s, PLENTY).changed);
    assert_true(is_hot(s));
    live_check(s);
}

static void damage_is_not_copied(void **state)
{
    struct live_store *s = *state;
    struct mn_manifest_segment segment = newest(s);
    char path[MN_PATH_MAX];
    struct stat st;
    mn_ivf_path(&s->store, path, segment.id, segment.codebook);
    assert_int_equal(stat(path, &st), 0);
    const off_t places[] = {300, st.st_size / 2, st.st_size - 300};
    for (size_t i = 0; i < MN_ARRAY_LEN(places); i++) {
        uint8_t byte;
        int fd = open(path, O_RDWR | O_CLOEXEC);
        assert_int_equal(pread(fd, &byte, 1, places[i]), 1);
        byte ^= 4;
        assert_int_equal(pwrite(fd, &byte, 1, places[i]), 1);
        assert_int_equal(make(s, PLENTY, NULL), MN_CORRUPT);
        assert_int_equal(copies_of(s, segment.id), 0);
        struct mn_hot_report report = live_tend_hot(s, PLENTY);
        assert_true(report.copied == 0 && report.refused == 0);
        byte ^= 4;
        assert_int_equal(pwrite(fd, &byte, 1, places[i]), 1);
        close(fd);
    }
    ok(make(s, PLENTY, NULL));
    unlink(path);
    struct mn_hot_report report = live_tend_hot(s, PLENTY); /* it will be written anew, and then copied */
    assert_true(report.copied == 0 && report.changed);
}

static bool at_once(void *context)
{
    return true;
}

static void no_room_and_no_time(void **state)
{
    struct live_store *s = *state;
    assert_int_equal(make(s, 4096, NULL), MN_READ_ONLY);
    assert_int_equal(copies_of(s, newest(s).id), 0);
    assert_int_equal(make(s, PLENTY, at_once), MN_DEADLINE);
    assert_int_equal(copies_of(s, newest(s).id), 0);
    assert_true(mn_hot_budget(&s->instance, 12345) == 12345 || mn_hot_budget(&s->instance, 12345) == 0);
    assert_true(mn_hot_budget(&s->instance, UINT64_MAX) <= mn_hot_budget(&s->instance, 0) * 1000);
    assert_true(mn_hot_budget(&s->instance, 0) < UINT64_MAX / 2);
}

static void leftovers_and_foreign_bytes(void **state)
{
    struct live_store *s = *state;
    struct mn_manifest_segment segment = newest(s);
    struct mn_segment half, seen;
    struct mn_hot hot;
    char name[64];
    snprintf(name, sizeof name, "hot.%llu.%llu.0", (unsigned long long)segment.id,
             (unsigned long long)segment.codebook);
    struct mn_segment_identity identity = s->instance.identity;
    identity.magic = MN_MAGIC_HOT;
    identity.fingerprint = mn_engine_fingerprint();
    /* A compactor that died half-way. */
    ok(mn_segment_create(&half, s->instance.dir_fd, name, 3u << 20, &identity, 0600));
    assert_false(mn_hot_there(&s->instance, segment.id, segment.codebook));
    assert_int_equal(mn_hot_map(&hot, &s->instance, segment.id, segment.codebook), MN_NOT_FOUND);
    assert_false(is_hot(s));
    mn_segment_unmap(&half);
    assert_int_equal(live_tend_hot(s, PLENTY).copied, 1);
    assert_true(is_hot(s));
    /* One that is not what it is called. */
    ok(mn_segment_map(&seen, s->instance.dir_fd, name, true, &identity));
    ((struct mn_hot_header *)seen.base)->segment++;
    mn_segment_unmap(&seen);
    assert_int_equal(mn_hot_map(&hot, &s->instance, segment.id, segment.codebook), MN_CORRUPT);
    /* And names that nobody asked for go. */
    int fd = openat(s->instance.dir_fd, "hot.99.1.0", O_CREAT | O_RDWR | O_CLOEXEC, 0600);
    close(fd);
    live_tend_hot(s, PLENTY);
    assert_int_equal(copies_of(s, 99), 0);
}

static void a_restart_makes_them_anew(void **state)
{
    struct live_store *s = *state;
    live_tend_hot(s, PLENTY);
    live_store_restart(s);
    assert_false(is_hot(s));
    assert_true(live_tend_hot(s, PLENTY).changed);
    assert_true(is_hot(s));
    mn_hot_place(5, true); /* a node that has none: the first one's; a lock that may be refused */
    assert_true(mn_hot_there(&s->instance, newest(s).id, newest(s).codebook));
    mn_hot_announce(&s->instance);
    assert_true(is_hot(s));
    mn_hot_place(0, false);
}

/* A compaction that copies ahead of its publication and dies: the next one is given the same number. */
static void what_was_never_published_leaves_no_copy(void **state)
{
    struct live_store *s = *state;
    for (uint32_t more = 0; more <= 100; more += 100) { /* as many rows as those that never came, and more */
        struct mn_compact_proposal proposal;
        live_remember(s, 1, 0, 300);
        live_seal(s);
        live_build(s, true, &proposal);
        assert_int_equal(proposal.output_count, 1);
        uint64_t id = proposal.outputs[0], codebook = proposal.next.codebook;
        ok(mn_hot_make(&s->store, &s->instance, id, codebook, PLENTY, NULL, NULL));
        mn_compact_proposal_free(&proposal);
        live_remember(s, 1, 0, 300 + more);
        live_seal(s);
        ok(mn_compactor_sweep(s->compactor));
        assert_true(live_compact(s, true));
        assert_int_equal(newest(s).id, id);
        assert_int_equal(newest(s).codebook, codebook);
        assert_false(is_hot(s));
        assert_true(live_tend_hot(s, PLENTY).changed);
        assert_true(is_hot(s));
        live_check(s);
    }
}

static void a_sweep_spares_what_is_named(void **state)
{
    struct live_store *s = *state;
    struct mn_manifest_segment segment = newest(s);
    char name[64];
    live_tend_hot(s, PLENTY);
    snprintf(name, sizeof name, "hot.%llu.%llu.0", (unsigned long long)segment.id,
             (unsigned long long)segment.codebook + 1); /* on a codebook that was never published */
    close(openat(s->instance.dir_fd, name, O_CREAT | O_RDWR | O_CLOEXEC, 0600));
    assert_int_equal(copies_of(s, segment.id), 2);
    ok(mn_compactor_sweep(s->compactor));
    assert_int_equal(copies_of(s, segment.id), 1);
    assert_true(mn_hot_there(&s->instance, segment.id, segment.codebook));
    assert_true(is_hot(s));
}

/* A copy that cannot be used goes with the codes that are made anew because of it; else that would never end. */
static void what_is_coded_anew_is_copied_anew(void **state)
{
    struct live_store *s = *state;
    struct mn_manifest_segment segment = newest(s);
    struct mn_segment seen;
    struct mn_segment_identity identity = s->instance.identity;
    struct mn_compact_care care;
    char name[64];
    while (live_care(s, &care))
        ;
    live_tend_hot(s, PLENTY);
    identity.magic = MN_MAGIC_HOT;
    identity.fingerprint = mn_engine_fingerprint();
    snprintf(name, sizeof name, "hot.%llu.%llu.0", (unsigned long long)segment.id,
             (unsigned long long)segment.codebook);
    ok(mn_segment_map(&seen, s->instance.dir_fd, name, true, &identity));
    ((struct mn_column_header *)(void *)((struct mn_hot_header *)seen.base + 1))->rows++;
    mn_segment_unmap(&seen);
    assert_true(live_care(s, &care));
    assert_false(care.sound);
    assert_int_equal(care.segment, segment.id);
    assert_int_equal(copies_of(s, segment.id), 0);
    assert_false(live_care(s, &care));
    assert_true(care.sound);
    live_tend_hot(s, PLENTY);
    assert_true(is_hot(s));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_copy_is_what_the_file_holds, setup, teardown),
        cmocka_unit_test_setup_teardown(readers_take_it_and_let_it_go, setup, teardown),
        cmocka_unit_test_setup_teardown(a_reader_that_comes_later_finds_it, setup, teardown),
        cmocka_unit_test_setup_teardown(a_pinned_copy_may_go, setup, teardown),
        cmocka_unit_test_setup_teardown(the_newest_come_first, setup, teardown),
        cmocka_unit_test_setup_teardown(what_is_retired_takes_its_copies_along, setup, teardown),
        cmocka_unit_test_setup_teardown(damage_is_not_copied, setup, teardown),
        cmocka_unit_test_setup_teardown(no_room_and_no_time, setup, teardown),
        cmocka_unit_test_setup_teardown(leftovers_and_foreign_bytes, setup, teardown),
        cmocka_unit_test_setup_teardown(a_restart_makes_them_anew, setup, teardown),
        cmocka_unit_test_setup_teardown(what_was_never_published_leaves_no_copy, setup, teardown),
        cmocka_unit_test_setup_teardown(a_sweep_spares_what_is_named, setup, teardown),
        cmocka_unit_test_setup_teardown(what_is_coded_anew_is_copied_anew, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
