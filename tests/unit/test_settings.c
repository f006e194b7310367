/*
 * test_settings.c - config/: defaults, values of each type, the sentences of mistakes, files there and back, reload.
 */
#include "config/settings.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static void write_text(const char *path, const char *text)
{
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fputs(text, file);
    assert_int_equal(fclose(file), 0);
}

static char *temporary(void)
{
    static char path[] = "/tmp/mneme-test-settings-XXXXXX";
    strcpy(path + strlen(path) - 6, "XXXXXX");
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    close(fd);
    return path;
}

static void assert_says(enum mn_status status, const char *part)
{
    assert_int_equal(status, MN_USAGE);
    if (!strstr(mn_error_text(), part))
        fail_msg("expected \"%s\" in \"%s\"", part, mn_error_text());
}

static void defaults_pass_their_own_check(void **state)
{
    struct mn_settings s;
    mn_settings_default(&s);
    assert_int_equal(s.wal_segment_bytes, 64 << 20);
    assert_int_equal(s.supervisor_heartbeat, 1000000000);
    assert_true(s.compact_enabled);
    assert_string_equal(s.security_group, "");
    assert_int_equal(mn_settings_check(&s), MN_OK);
}

static void every_default_can_be_set_as_it_prints(void **state)
{
    const struct mn_settings_row *row;
    struct mn_settings s, defaults;
    mn_settings_default(&s);
    mn_settings_default(&defaults);
    for (size_t i = 0; (row = mn_settings_row(i)); i++) {
        char value[MN_SETTINGS_VALUE_MAX];
        mn_settings_default_value(row, value, sizeof value);
        assert_int_equal(mn_settings_set_value(&s, row->key, value), MN_OK);
        assert_ptr_equal(mn_settings_find(row->key), row);
        assert_true(strlen(row->help) > 20);
    }
    assert_memory_equal(&s, &defaults, sizeof s);
}

static void values_take_their_suffixes(void **state)
{
    struct mn_settings s;
    mn_settings_default(&s);
    assert_int_equal(mn_settings_set(&s, "wal.segment_bytes=8MiB"), MN_OK);
    assert_int_equal(s.wal_segment_bytes, 8 << 20);
    assert_int_equal(mn_settings_set(&s, " write.idem_max = 2 M "), MN_OK);
    assert_int_equal(s.write_idem_max, 2000000);
    assert_int_equal(mn_settings_set(&s, "compact.idle_p99=1500us"), MN_OK);
    assert_int_equal(s.compact_idle_p99, 1500000);
    assert_int_equal(mn_settings_set(&s, "history.window=0"), MN_OK);
    assert_int_equal(s.history_window, 0);
    assert_int_equal(mn_settings_set(&s, "scrub.interval=7d"), MN_OK);
    assert_int_equal(s.scrub_interval, UINT64_C(7) * 86400 * 1000000000);
    assert_int_equal(mn_settings_set(&s, "compact.enabled=no"), MN_OK);
    assert_false(s.compact_enabled);
    assert_int_equal(mn_settings_set(&s, "security.group=mneme"), MN_OK);
    assert_string_equal(s.security_group, "mneme");
}

static void mistakes_are_explained(void **state)
{
    struct mn_settings s, before;
    mn_settings_default(&s);
    before = s;
    assert_says(mn_settings_set(&s, "wal.segment_byte=1"), "did you mean 'wal.segment_bytes'?");
    assert_says(mn_settings_set(&s, "segment_bytes=1"), "did you mean 'wal.segment_bytes'?");
    assert_says(mn_settings_set(&s, "gibberish.of.sorts=1"), "`mneme config` lists them all");
    assert_says(mn_settings_set(&s, "wal.prepared=17"), "wal.prepared = 17 is out of range: 1 to 16 segments");
    assert_says(mn_settings_set(&s, "wal.segment_bytes=2GiB"), "out of range: 1MiB to 1GiB");
    assert_says(mn_settings_set(&s, "wal.segment_bytes=64MB"), "wal.segment_bytes = '64MB' is not a size");
    assert_says(mn_settings_set(&s, "wal.prepared=-1"), "is not a number");
    assert_says(mn_settings_set(&s, "wal.prepared="), "is not a number");
    assert_says(mn_settings_set(&s, "wal.prepared=99999999999999999999"), "is not a number");
    assert_says(mn_settings_set(&s, "history.window=99999999999999d"), "is not a duration");
    assert_says(mn_settings_set(&s, "history.window=10"), "is not a duration");
    assert_says(mn_settings_set(&s, "compact.enabled=true"), "is neither yes nor no");
    assert_says(mn_settings_set(&s, "wal.prepared"), "write key=value");
    assert_says(mn_settings_set(&s, "snapshot.roots=/a;/b"), "semicolon");
    assert_memory_equal(&s, &before, sizeof s);
}

static void texts_have_a_limit(void **state)
{
    struct mn_settings s;
    char value[MN_SETTINGS_STRING_MAX + 1];
    mn_settings_default(&s);
    memset(value, 'g', sizeof value - 1);
    value[sizeof value - 1] = '\0';
    assert_says(mn_settings_set_value(&s, "security.group", value), "is 256 bytes long: at most 255");
    value[MN_SETTINGS_STRING_MAX - 1] = '\0';
    assert_int_equal(mn_settings_set_value(&s, "security.group", value), MN_OK);
    assert_string_equal(s.security_group, value);
    /* A shorter text leaves nothing of the longer one behind: reload compares whole fields. */
    assert_int_equal(mn_settings_set_value(&s, "security.group", "a"), MN_OK);
    for (size_t i = 1; i < sizeof s.security_group; i++)
        assert_int_equal(s.security_group[i], 0);
}

static void pairs_must_be_in_order(void **state)
{
    struct mn_settings s;
    mn_settings_default(&s);
    s.wal_segment_bytes += 1;
    assert_says(mn_settings_check(&s), "not a multiple of 4KiB");
    mn_settings_default(&s);
    s.tail_rows_max = 1024;
    assert_says(mn_settings_check(&s), "tail.high_rows = 65536 is above tail.rows_max = 1024");
    mn_settings_default(&s);
    s.supervisor_stall = s.supervisor_heartbeat;
    assert_says(mn_settings_check(&s), "supervisor.stall");
    mn_settings_default(&s);
    s.supervisor_backoff_min = MN_SECONDS(20);
    assert_says(mn_settings_check(&s), "supervisor.backoff_min = 20s is above supervisor.backoff_max = 10s");
}

static void a_file_is_read(void **state)
{
    struct mn_settings s;
    const char *path = temporary();
    mn_settings_default(&s);
    write_text(path,
               "recall.threads = 4 ; before any section\n# comment\n\n[wal]\n  prepared = 3\nsegment_bytes: 1MiB\n"
               "[snapshot]\nroots = /srv/a:/srv/b");
    assert_int_equal(mn_settings_read_file(&s, path), MN_OK);
    assert_int_equal(s.recall_threads, 4);
    assert_int_equal(s.wal_prepared, 3);
    assert_int_equal(s.wal_segment_bytes, 1 << 20);
    assert_string_equal(s.snapshot_roots, "/srv/a:/srv/b");
    unlink(path);
    assert_int_equal(mn_settings_read_file(&s, path), MN_SYSTEM);
    assert_non_null(strstr(mn_error_text(), path));
}

static void mistakes_in_a_file_name_their_line(void **state)
{
    static const struct {
        const char *text, *says;
    } cases[] = {
        {"[wal]\n\nprepared = 0\n", ":3: wal.prepared = 0 is out of range"},
        {"[wal]\nprepared = 2\nsize = 1\n", ":3: there is no setting 'wal.size'"},
        {"[wal]\nprepared\n", ":2: this line is neither"},
        {"[wal\nprepared = 2\n", ":1: this line is neither"},
        {"[wal]\nprepared = 2\n[recall]\nthreads=2\n[wal]\nprepared = 3\n", ":6: wal.prepared is set a second time"},
        {"[wal]\nprepared = 2\n continued = 3\n", ":3: there is no setting 'wal.continued'"},
    };
    struct mn_settings s, before;
    mn_settings_default(&s);
    before = s;
    for (size_t i = 0; i < MN_ARRAY_LEN(cases); i++) {
        const char *path = temporary();
        write_text(path, cases[i].text);
        assert_says(mn_settings_read_file(&s, path), cases[i].says);
        assert_memory_equal(&s, &before, sizeof s);
        unlink(path);
    }
}

static void a_line_too_long_is_refused(void **state)
{
    struct mn_settings s;
    const char *path = temporary();
    FILE *file = fopen(path, "w");
    fputs("[snapshot]\nroots = /", file);
    for (int i = 0; i < 3 * MN_SETTINGS_LINE_MAX; i++)
        fputc('a', file);
    fclose(file);
    mn_settings_default(&s);
    assert_says(mn_settings_read_file(&s, path), ":2: this line is too long");
    unlink(path);
}

static void what_is_written_reads_back_equal(void **state)
{
    struct mn_settings s, back;
    struct stat st;
    const char *path = temporary();
    mn_settings_default(&s);
    assert_int_equal(mn_settings_set(&s, "snapshot.roots=/srv/one two:/srv/b"), MN_OK);
    assert_int_equal(mn_settings_set(&s, "compact.idle_p99=1234567ns"), MN_OK);
    assert_int_equal(mn_settings_set(&s, "write.batch_bytes=12345"), MN_OK);
    memset(s.snapshot_roots, 'r', sizeof s.snapshot_roots - 1);
    assert_int_equal(mn_settings_write_file(&s, path), MN_OK);
    mn_settings_default(&back);
    assert_int_equal(mn_settings_read_file(&back, path), MN_OK);
    assert_memory_equal(&s, &back, sizeof s);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0007, 0);
    unlink(path);
    assert_int_equal(mn_settings_write_file(&s, "/nowhere/at/all"), MN_SYSTEM);
}

/* The example shows each setting commented out, with its default: without the comment signs it changes nothing. */
static void the_example_holds_the_defaults(void **state)
{
    struct mn_settings s, defaults;
    char line[MN_SETTINGS_LINE_MAX];
    const char *path = temporary();
    FILE *in = fopen(MN_TEST_SOURCE_DIR "/config/mneme.conf.example", "r");
    FILE *out = fopen(path, "w");
    size_t settings = 0;
    assert_true(in && out);
    while (fgets(line, sizeof line, in)) {
        bool setting = line[0] == '#' && line[1] != ' ';
        settings += setting;
        fputs(line + setting, out);
    }
    fclose(in);
    fclose(out);
    mn_settings_default(&s);
    defaults = s;
    s.wal_prepared = 1;
    s.disk_reserve = 0;
    assert_int_equal(mn_settings_read_file(&s, path), MN_OK);
    assert_memory_equal(&s, &defaults, sizeof s);
    assert_null(mn_settings_row(settings));
    assert_non_null(mn_settings_row(settings - 1));
    unlink(path);
}

/* Changes, drops and doubles bytes of a valid file at random: what comes of it is read, or refused with a sentence. */
static void damaged_files_are_refused_in_words(void **state)
{
    struct mn_settings s, valid, back;
    char text[16384], damaged[16384];
    const char *path = temporary();
    mn_settings_default(&valid);
    FILE *out = fmemopen(text, sizeof text, "w");
    mn_settings_print(&valid, out, false);
    fclose(out);
    srand(1);
    for (int turn = 0; turn < 1000; turn++) {
        strcpy(damaged, text);
        for (int i = rand() % 4; i >= 0; i--) {
            char *at = damaged + (size_t)rand() % strlen(damaged);
            if (rand() % 2)
                *at = (char)(1 + rand() % 255);
            else
                memmove(at, at + 1, strlen(at));
        }
        write_text(path, damaged);
        s = valid;
        if (mn_settings_read_file(&s, path) == MN_OK) {
            assert_int_equal(mn_settings_write_file(&s, path), MN_OK);
            back = valid;
            assert_int_equal(mn_settings_read_file(&back, path), MN_OK);
            assert_memory_equal(&s, &back, sizeof s);
        } else {
            assert_non_null(strstr(mn_error_text(), path));
            assert_memory_equal(&s, &valid, sizeof s);
        }
    }
    unlink(path);
}

static void print_shows_what_changed(void **state)
{
    struct mn_settings s;
    char text[512] = "";
    FILE *out = fmemopen(text, sizeof text, "w");
    mn_settings_default(&s);
    s.wal_prepared = 3;
    s.stats_interval = MN_MILLISECONDS(2500);
    mn_settings_print(&s, out, true);
    fclose(out);
    assert_string_equal(text, "[wal]\nprepared = 3\n\n[stats]\ninterval = 2500ms\n");
}

static void reload_takes_what_it_may(void **state)
{
    struct mn_settings now, wanted;
    char restart[256];
    mn_settings_default(&now);
    wanted = now;
    assert_int_equal(mn_settings_reload(&now, &wanted, restart, sizeof restart), 0);
    assert_string_equal(restart, "");
    wanted.history_window = 0;
    wanted.compact_fanout = 4;
    wanted.wal_prepared = now.wal_prepared - 1;
    wanted.recall_threads = 8;
    assert_int_equal(mn_settings_reload(&now, &wanted, restart, sizeof restart), 2);
    assert_int_equal(now.history_window, 0);
    assert_int_equal(now.compact_fanout, 4);
    assert_int_equal(now.wal_prepared, wanted.wal_prepared + 1);
    assert_string_equal(restart, "wal.prepared, recall.threads");
}

static void lists_are_walked(void **state)
{
    char part[16];
    const char *cursor = ":/a::/b/c:";
    assert_true(mn_settings_list_next(&cursor, part, sizeof part));
    assert_string_equal(part, "/a");
    assert_true(mn_settings_list_next(&cursor, part, sizeof part));
    assert_string_equal(part, "/b/c");
    assert_false(mn_settings_list_next(&cursor, part, sizeof part));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(defaults_pass_their_own_check),
        cmocka_unit_test(every_default_can_be_set_as_it_prints),
        cmocka_unit_test(values_take_their_suffixes),
        cmocka_unit_test(mistakes_are_explained),
        cmocka_unit_test(texts_have_a_limit),
        cmocka_unit_test(pairs_must_be_in_order),
        cmocka_unit_test(a_file_is_read),
        cmocka_unit_test(mistakes_in_a_file_name_their_line),
        cmocka_unit_test(a_line_too_long_is_refused),
        cmocka_unit_test(what_is_written_reads_back_equal),
        cmocka_unit_test(the_example_holds_the_defaults),
        cmocka_unit_test(damaged_files_are_refused_in_words),
        cmocka_unit_test(print_shows_what_changed),
        cmocka_unit_test(reload_takes_what_it_may),
        cmocka_unit_test(lists_are_walked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
