/*
 * test_quarantine.c - damaged pieces aside: copies, notes that a program can read, and no second ones.
 */
#include "tests/unit/store_fixture.h"

#include <stdlib.h>
#include <unistd.h>

#include <jansson.h>

#include "engine/quarantine.h"

static json_t *note(const struct fixture *f, const char *name)
{
    size_t bytes;
    char *text = (char *)fixture_slurp(f, name, &bytes);
    json_error_t error;
    json_t *json = json_loads(text, 0, &error);
    if (!json)
        print_error("%s: %s in %s\n", name, error.text, text);
    assert_non_null(json);
    free(text);
    return json;
}

static int64_t number(const json_t *note, const char *key)
{
    const json_t *value = json_object_get(note, key);
    assert_true(json_is_integer(value));
    return json_integer_value(value);
}

static void a_stretch_is_copied_with_a_note(void **state)
{
    struct fixture *f = fixture_new();
    struct mn_wal_segment segment;
    size_t bytes;
    assert_false(mn_quarantine_holds(&f->store));
    for (uint64_t id = 1; id <= 3; id++)
        fixture_put(f, "s", id, id, "x");
    fixture_forget(f, "s", 1, MN_FORGET_DELETE);
    fixture_commit(f);
    ok(mn_wal_map(&segment, &f->store, 1));
    struct mn_quarantine_note what = {.wal_number = 1,
                                      .offset = 4096,
                                      .bytes = 8192,
                                      .first_seq = 1,
                                      .last_seq = 4,
                                      .reason = "a \"reason\"\nwith \\ odd\tbytes"};
    ok(mn_quarantine_wal(&f->store, &segment, &what));
    assert_true(mn_quarantine_holds(&f->store));
    uint8_t *copy = fixture_slurp(f, "quarantine/wal-00000001-4096.bin", &bytes);
    assert_int_equal(bytes, 8192);
    assert_memory_equal(copy, segment.base + 4096, 8192);
    free(copy);
    json_t *json = note(f, "quarantine/wal-00000001-4096.json");
    assert_string_equal(json_string_value(json_object_get(json, "reason")), what.reason);
    assert_string_equal(json_string_value(json_object_get(json, "file")), "wal-00000001-4096.bin");
    assert_int_equal(number(json, "wal"), 1);
    assert_int_equal(number(json, "offset"), 4096);
    assert_int_equal(number(json, "bytes"), 8192);
    assert_int_equal(number(json, "first_seq"), 1);
    assert_int_equal(number(json, "last_seq"), 4);
    assert_int_equal(json_array_size(json_object_get(json, "ids")), 3);
    assert_non_null(strstr(json_string_value(json_object_get(json, "next")), "out of quarantine/"));
    json_decref(json);

    what.reason = "another"; /* a second recovery adds nothing */
    ok(mn_quarantine_wal(&f->store, &segment, &what));
    json = note(f, "quarantine/wal-00000001-4096.json");
    assert_string_not_equal(json_string_value(json_object_get(json, "reason")), "another");
    json_decref(json);
    mn_wal_unmap(&segment);
    fixture_free(f);
}

static void what_is_not_there_gets_a_note_alone(void **state)
{
    struct fixture *f = fixture_prepare();
    struct mn_quarantine_note what = {
        .wal_number = 5, .first_seq = 9, .last_seq = 12, .reason = "a log segment is missing"};
    ok(mn_quarantine_wal(&f->store, NULL, &what));
    assert_false(fixture_exists(f, "quarantine/wal-00000005-0.bin"));
    json_decref(note(f, "quarantine/wal-00000005-0.json"));
    ok(mn_quarantine_note_columns(&f->store, 3, "ids.col is \"gone\""));
    ok(mn_quarantine_note_columns(&f->store, 3, "ids.col is \"gone\""));
    json_t *json = note(f, "quarantine/columns-3.json");
    assert_string_equal(json_string_value(json_object_get(json, "file")), "columns/3");
    json_decref(json);
    assert_int_equal(fixture_files(f, "quarantine", ""), 2);
    fixture_free(f);
}

/* A copy that was cut short by a power cut is made again: the note comes last. */
static void a_copy_without_its_note_is_made_again(void **state)
{
    struct fixture *f = fixture_new();
    struct mn_wal_segment segment;
    char path[MN_PATH_MAX];
    size_t bytes;
    fixture_put(f, "s", 1, 1, "x");
    fixture_commit(f);
    ok(mn_io_replace(&mn_io_posix, mn_store_path(&f->store, path, "quarantine/wal-00000001-4096.bin"), "half", 4));
    assert_true(mn_quarantine_holds(&f->store)); /* whatever it is, a person should look */
    ok(mn_wal_map(&segment, &f->store, 1));
    struct mn_quarantine_note what = {.wal_number = 1, .offset = 4096, .bytes = 4096, .reason = "r"};
    ok(mn_quarantine_wal(&f->store, &segment, &what));
    free(fixture_slurp(f, "quarantine/wal-00000001-4096.bin", &bytes));
    assert_int_equal(bytes, 4096);
    mn_wal_unmap(&segment);
    fixture_free(f);
}

static bool folder_fails;
static uint32_t folder_syncs;

static enum mn_status sync_folder(const char *path)
{
    folder_syncs++;
    return folder_fails ? MN_FAIL(MN_SYSTEM, "cannot sync %s", path) : mn_io_posix.sync_dir(path);
}

/* What a note speaks of is mended next, so the note must be there to stay, whichever try wrote it. */
static void a_note_has_its_name_for_good(void **state)
{
    struct fixture *f = fixture_prepare();
    struct mn_io io = mn_io_posix;
    struct mn_quarantine_note what = {.wal_number = 5, .reason = "a log segment is missing"};
    io.sync_dir = sync_folder;
    f->store.io = &io;
    folder_fails = true;
    fails(MN_SYSTEM, mn_quarantine_wal(&f->store, NULL, &what));
    assert_true(fixture_exists(f, "quarantine/wal-00000005-0.json"));
    fails(MN_SYSTEM, mn_quarantine_wal(&f->store, NULL, &what));
    folder_fails = false;
    folder_syncs = 0;
    ok(mn_quarantine_wal(&f->store, NULL, &what));
    assert_int_equal(folder_syncs, 1);
    f->store.io = &mn_io_posix;
    fixture_free(f);
}

static uint32_t troubles(const struct fixture *f)
{
    uint32_t count = 0;
    uint64_t files = 0;
    ok(mn_quarantine_verify(&f->store, &files, count_damage, &count));
    return count;
}

/* What is aside can rot, too. */
static void any_flip_in_quarantine_is_found(void **state)
{
    static const char *const names[] = {"quarantine/wal-00000001-4096.bin", "quarantine/wal-00000001-4096.json",
                                        "quarantine/columns-7.json"};
    struct fixture *f = fixture_new();
    struct mn_wal_segment segment;
    char path[MN_PATH_MAX];
    fixture_put(f, "s", 1, 1, "x");
    fixture_commit(f);
    ok(mn_wal_map(&segment, &f->store, 1));
    struct mn_quarantine_note what = {.wal_number = 1, .offset = 4096, .bytes = 512, .reason = "r"};
    ok(mn_quarantine_wal(&f->store, &segment, &what));
    mn_wal_unmap(&segment);
    ok(mn_quarantine_note_columns(&f->store, 7, "a reason"));
    assert_int_equal(troubles(f), 0);
    for (size_t n = 0; n < MN_ARRAY_LEN(names); n++) {
        size_t bytes;
        free(fixture_slurp(f, names[n], &bytes));
        for (size_t bit = 0; bit < bytes * 8; bit++) {
            fixture_flip(f, names[n], bit / 8, (uint8_t)(1 << bit % 8));
            assert_int_equal(troubles(f), 1);
            fixture_flip(f, names[n], bit / 8, (uint8_t)(1 << bit % 8));
        }
    }
    ok(mn_io_posix.unlink(mn_store_path(&f->store, path, names[0]))); /* its note misses it */
    assert_int_equal(troubles(f), 1);
    ok(mn_io_posix.unlink(mn_store_path(&f->store, path, names[1]))); /* both are gone: a person has read them */
    assert_int_equal(troubles(f), 0);
    fixture_free(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_flip_in_quarantine_is_found),       cmocka_unit_test(a_stretch_is_copied_with_a_note),
        cmocka_unit_test(what_is_not_there_gets_a_note_alone),   cmocka_unit_test(a_note_has_its_name_for_good),
        cmocka_unit_test(a_copy_without_its_note_is_made_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
