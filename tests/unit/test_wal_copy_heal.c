/*
 * test_wal_copy_heal.c - damage in either folder of a log that is kept twice: recovery heals it from the other.
 */
#include "tests/unit/copied_log.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum where { HOME, COPY };
static const char *dir_of(struct fixture *f, enum where where)
{
    return where == HOME ? f->dir : copied_log_dir;
}

static void harm(struct fixture *f, enum where where, uint64_t number, uint64_t offset, const void *bytes, size_t size)
{
    char path[MN_PATH_MAX];
    snprintf(path, sizeof path, "%s/wal/%08llu.wal", dir_of(f, where), (unsigned long long)number);
    int fd = open(path, O_WRONLY);
    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, bytes, size, (off_t)offset), size);
    close(fd);
}

static void cut_file(struct fixture *f, enum where where, uint64_t number, off_t length)
{
    char path[MN_PATH_MAX];
    snprintf(path, sizeof path, "%s/wal/%08llu.wal", dir_of(f, where), (unsigned long long)number);
    assert_int_equal(length < 0 ? unlink(path) : truncate(path, length), 0);
}

/* Two segments with memories 1..59 and 60..89. */
static struct fixture *filled(void)
{
    struct fixture *f = copied_log_prepare();
    fixture_start(f);
    copied_log_put(f, 1, 60);
    copied_log_seal(f);
    copied_log_put(f, 60, 90);
    fixture_power_cut(f);
    return f;
}

static void check_healed(struct fixture *f, bool home_too)
{
    fixture_start(f);
    assert_false(f->report.lost);
    assert_int_equal(f->report.quarantined, 0);
    if (home_too)
        assert_true(f->report.healed > 0);
    copied_log_await_current(f);
    assert_int_equal(atomic_load(&f->instance.control->reasons), 0);
    copied_log_check(f, 1, 90);
    copied_log_check_twins(f);
    assert_int_equal(copied_log_damages(f), 0);
    fixture_restart(f); /* once is enough */
    assert_int_equal(f->report.healed, 0);
    assert_int_equal(atomic_load(&f->instance.control->reasons), 0);
    copied_log_check(f, 1, 90);
}

static void damage_in_one_is_healed_from_the_other(void **state)
{
    static const uint8_t junk[9000] = {[0 ... 8999] = 0x5a};
    static const uint8_t zeros[4096];
    for (enum where where = HOME; where <= COPY; where++)
        for (int how = 0; how < 11; how++) {
            struct fixture *f = filled();
            uint64_t number = how % 2 ? 2 : 1;
            switch (how) {
            case 0:
                harm(f, where, number, 0, junk, 4096); /* a header */
                break;
            case 1:
                harm(f, where, number, (1u << 20) - 4096, junk, 4096); /* the other */
                break;
            case 2: /* both */
                harm(f, where, number, 0, junk, 4096);
                harm(f, where, number, (1u << 20) - 4096, junk, 4096);
                break;
            case 3:
                harm(f, where, number, 0, zeros, 4096);
                break;
            case 4:
                harm(f, where, number, 4096, junk, 60); /* a batch header */
                break;
            case 5:
                harm(f, where, number, 4096 + 300, junk, 1); /* a record */
                break;
            case 6:
                harm(f, where, number, 3 * 4096, zeros, 4096); /* blocks */
                break;
            case 7:
                harm(f, where, number, 2 * 4096 + 700, junk, sizeof junk);
                break;
            case 8:
                cut_file(f, where, number, 3 * 4096 + 10);
                break;
            case 9:
                cut_file(f, where, number, 0);
                break;
            case 10:
                cut_file(f, where, number, -1);
                break;
            }
            check_healed(f, where == HOME);
            if (where == HOME && how != 3)
                assert_true(fixture_files(f, "quarantine", ".json") > 0); /* told, and not degraded */
            copied_log_end(f);
        }
}

/* One batch harmed here, another there; then a record each of the same batch. */
static void damage_in_both_is_made_up_between_them(void **state)
{
    static const uint8_t junk[64] = {0x5a, 1, 2, 3};
    struct fixture *f = filled();
    harm(f, HOME, 1, 4096 + 200, junk, sizeof junk);
    harm(f, COPY, 1, 3 * 4096 + 200, junk, sizeof junk);
    harm(f, HOME, 1, (1u << 20) - 4096, junk, sizeof junk);
    harm(f, COPY, 1, 0, junk, sizeof junk);
    harm(f, COPY, 2, 2 * 4096 + 200, junk, sizeof junk);
    cut_file(f, HOME, 2, 9 * 4096);
    check_healed(f, true);
    copied_log_end(f);
    f = filled();
    cut_file(f, HOME, 1, -1);
    cut_file(f, COPY, 2, -1);
    check_healed(f, true);
    copied_log_end(f);
}

/* The same batch in both: what is whole in either is there, and the rest is told of. */
static void what_is_damaged_in_both_is_lost_alone(void **state)
{
    struct fixture *f = filled();
    size_t bytes;
    uint8_t *data = copied_log_slurp(f->dir, 1, &bytes);
    /* The second batch holds 4, 5 and 6: the contents of 4 here, of 6 there. */
    uint64_t at[3] = {0}, found = 0;
    for (uint64_t i = 2 * 4096; i < 3 * 4096 && found < 3; i++)
        if (memcmp(data + i, "content of", 10) == 0)
            at[found++] = i;
    assert_int_equal(found, 3);
    free(data);
    harm(f, HOME, 1, at[0], "x", 1);
    harm(f, COPY, 1, at[2], "x", 1);
    fixture_start(f);
    copied_log_check(f, 1, 90);
    fixture_power_cut(f);
    harm(f, HOME, 1, at[1], "x", 1);
    harm(f, COPY, 1, at[1], "y", 1);
    fixture_start(f);
    assert_true(f->report.lost);
    assert_true(atomic_load(&f->instance.control->reasons) & MN_DEGRADED_LOST);
    copied_log_check(f, 1, 5);
    copied_log_check(f, 6, 90);
    assert_false(fixture_holds(f, "s", 5, 5, "content of a memory"));
    copied_log_end(f);
}

/* Bytes at random places of both folders, never the same stretch of both. */
static void random_damage_is_healed(void **state)
{
    for (uint64_t seed = 1; seed <= 12; seed++) {
        struct fixture *f = filled();
        f->random = seed * 7919;
        uint64_t blocks = (1u << 20) / 4096;
        enum where first = fixture_random(f, 2);
        for (int i = 0; i < 6; i++) {
            uint8_t junk[600];
            for (size_t b = 0; b < sizeof junk; b++)
                junk[b] = (uint8_t)fixture_random(f, 256);
            uint64_t number = 1 + (uint64_t)(i % 2), block = fixture_random(f, 12);
            if (fixture_random(f, 4) == 0)
                block = blocks - 1;
            enum where where = number == 1 ? first : 1 - first;
            harm(f, where, number, block * 4096 + fixture_random(f, 3400), junk, 1 + fixture_random(f, sizeof junk));
        }
        check_healed(f, true);
        copied_log_end(f);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(damage_in_one_is_healed_from_the_other),
        cmocka_unit_test(damage_in_both_is_made_up_between_them),
        cmocka_unit_test(what_is_damaged_in_both_is_lost_alone),
        cmocka_unit_test(random_damage_is_healed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
