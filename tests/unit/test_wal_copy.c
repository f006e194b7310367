/*
 * test_wal_copy.c - the log kept twice: equal twins, a copy that fails in every way while the writer goes on, folders
 * of others, and damage in either folder that recovery heals from the other.
 */
#include "tests/unit/store_fixture.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/verify.h"
#include "engine/wal.h"
#include "engine/wal_copy.h"
#include "shm/process.h"

#define PATIENCE_MS 20000

/* ---- a copy that fails on demand ---- */

static volatile enum { WELL, NO_OPEN, NO_WRITE, NO_SYNC, NO_ROOM, HANGS } copy_disk;
/* Which calls hang, then. */
static volatile enum calls { ALL_CALLS, OPENS, RESERVES, WRITES, RENAMES, UNLINKS } hanging;
static char copy_dir[80];
static _Atomic bool in_copy[1024]; /* by file descriptor */

static bool below_copy(const char *path)
{
    return strncmp(path, copy_dir, strlen(copy_dir)) == 0;
}

static void hang(enum calls call, bool in_it)
{
    while (in_it && copy_disk == HANGS && (hanging == call || hanging == ALL_CALLS))
        usleep(1000);
}

static enum mn_status copy_open(const char *path, int flags, int *fd)
{
    hang(OPENS, below_copy(path));
    if (copy_disk == NO_OPEN && below_copy(path))
        return MN_FAIL(MN_SYSTEM, "cannot open %s: Input/output error", path);
    enum mn_status status = mn_io_posix.open(path, flags, fd);
    if (status == MN_OK)
        in_copy[*fd] = below_copy(path);
    return status;
}

static enum mn_status copy_write(int fd, const void *data, size_t bytes, uint64_t offset)
{
    hang(WRITES, in_copy[fd]);
    return copy_disk == NO_WRITE && in_copy[fd] ? MN_FAIL(MN_SYSTEM, "cannot write: Input/output error")
                                                : mn_io_posix.write(fd, data, bytes, offset);
}

static enum mn_status copy_sync(int fd)
{
    return copy_disk == NO_SYNC && in_copy[fd] ? MN_FAIL(MN_SYSTEM, "fdatasync: Input/output error")
                                               : mn_io_posix.datasync(fd);
}

static enum mn_status copy_reserve(int fd, uint64_t bytes)
{
    hang(RESERVES, in_copy[fd]);
    bool full = (copy_disk == NO_ROOM || copy_disk == NO_WRITE) && in_copy[fd];
    return full ? MN_FAIL(MN_READ_ONLY, "no space left on device") : mn_io_posix.reserve(fd, bytes);
}

static enum mn_status copy_rename(const char *from, const char *to)
{
    hang(RENAMES, below_copy(to));
    return mn_io_posix.rename(from, to);
}

static enum mn_status copy_unlink(const char *path)
{
    hang(UNLINKS, below_copy(path));
    return mn_io_posix.unlink(path);
}

/* ---- stores with a copy ---- */

static struct fixture *prepare(void)
{
    static struct mn_io io;
    struct fixture *f = fixture_prepare();
    io = mn_io_posix;
    io.open = copy_open;
    io.write = copy_write;
    io.datasync = copy_sync;
    io.reserve = copy_reserve;
    io.rename = copy_rename;
    io.unlink = copy_unlink;
    f->store.io = &io;
    copy_disk = WELL;
    hanging = ALL_CALLS;
    snprintf(copy_dir, sizeof copy_dir, "%s.copy", f->dir);
    f->settings.store_copies = 2;
    snprintf(f->settings.store_copy_dir, sizeof f->settings.store_copy_dir, "%s", copy_dir);
    return f;
}

static void end(struct fixture *f)
{
    fixture_power_cut(f);
    f->store.io = &mn_io_posix;
    ok(mn_io_remove_tree(&mn_io_posix, copy_dir));
    fixture_free(f);
}

static bool degraded(const struct fixture *f)
{
    return atomic_load(&f->instance.control->reasons) & MN_DEGRADED_COPY;
}

static void await_current(struct fixture *f)
{
    char text[512];
    for (int ms = 0; degraded(f) && ms < PATIENCE_MS; ms += 10) {
        mn_writer_tend(f->writer, mn_wall_ns());
        usleep(10000);
    }
    if (degraded(f) && mn_writer_news(f->writer, text, sizeof text))
        print_error("%s\n", text);
    assert_false(degraded(f));
}

static uint8_t *slurp(const char *dir, uint64_t number, size_t *bytes)
{
    char path[MN_PATH_MAX];
    void *data;
    snprintf(path, sizeof path, "%s/wal/%08llu.wal", dir, (unsigned long long)number);
    if (mn_io_slurp(&mn_io_posix, path, 1u << 30, &data, bytes) != MN_OK)
        return NULL;
    return data;
}

/* Every segment that was begun is there twice, with the same bytes. Returns how many. */
static uint32_t check_twins(struct fixture *f)
{
    uint64_t *numbers;
    uint32_t count, begun = 0;
    ok(mn_wal_list(&f->store, &numbers, &count));
    for (uint32_t i = 0; i < count; i++) {
        size_t ours, theirs = 0;
        uint8_t *a = slurp(f->dir, numbers[i], &ours), *b = slurp(copy_dir, numbers[i], &theirs);
        assert_non_null(a);
        bool unused = a[0] == 0 && memcmp(a, a + 1, ours - 1) == 0;
        if (!unused) {
            begun++;
            assert_non_null(b);
            assert_int_equal(ours, theirs);
            assert_memory_equal(a, b, ours);
        }
        free(a);
        free(b);
    }
    free(numbers);
    return begun;
}

static void put_some(struct fixture *f, uint64_t first, uint64_t end_)
{
    for (uint64_t id = first; id < end_; id++) {
        fixture_put(f, "s", id, id, "content of a memory");
        if (id % 3 == 0)
            fixture_commit(f);
    }
    fixture_commit(f);
}

static void check_all(struct fixture *f, uint64_t first, uint64_t end_)
{
    for (uint64_t id = first; id < end_; id++)
        assert_true(fixture_holds(f, "s", id, id, "content of a memory"));
}

/* Ends the active segment, so that what follows is in another. */
static void seal(struct fixture *f)
{
    uint64_t sealed;
    ok(mn_writer_seal(f->writer, &sealed));
}

/* ---- writing ---- */

static void count_damage(void *context, const char *path, const char *what)
{
    print_error("%s: %s\n", path, what);
    ++*(uint32_t *)context;
}

static uint32_t damages(struct fixture *f)
{
    uint32_t damaged = 0;
    struct mn_verify_result result;
    ok(mn_verify(&f->store, atomic_load(&f->instance.control->durable_seq), count_damage, NULL, &damaged, &result));
    return damaged;
}

static void each_batch_is_in_both(void **state)
{
    struct fixture *f = prepare();
    char text[512];
    fixture_start(f);
    assert_false(degraded(f));
    put_some(f, 1, 60);
    seal(f);
    put_some(f, 60, 90);
    assert_int_equal(check_twins(f), 2);
    assert_false(mn_writer_news(f->writer, text, sizeof text));
    assert_int_equal(damages(f), 0);
    struct stat st;
    assert_int_equal(stat(copy_dir, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0700);
    for (int round = 0; round < 3; round++) {
        fixture_restart(f);
        assert_false(degraded(f));
        assert_int_equal(f->report.healed + f->report.quarantined, 0);
        put_some(f, 90 + (uint64_t)round * 10, 100 + (uint64_t)round * 10);
        check_twins(f);
    }
    check_all(f, 1, 120);
    end(f);
}

/* Turned on late, a new folder, a folder that is lost between two starts: made anew, and said. */
static void a_missing_copy_is_made_anew(void **state)
{
    struct fixture *f = prepare();
    char text[512], moved[sizeof copy_dir];
    f->settings.store_copies = 1;
    fixture_start(f);
    put_some(f, 1, 40);
    f->settings.store_copies = 2;
    fixture_restart(f);
    assert_true(degraded(f));
    assert_true(mn_writer_news(f->writer, text, sizeof text));
    assert_non_null(strstr(text, "missing or empty"));
    await_current(f);
    assert_true(mn_writer_news(f->writer, text, sizeof text));
    assert_non_null(strstr(text, "kept twice again"));
    put_some(f, 40, 50);
    check_twins(f);
    fixture_power_cut(f);
    ok(mn_io_remove_tree(&mn_io_posix, copy_dir));
    fixture_start(f);
    assert_true(degraded(f));
    put_some(f, 50, 60);
    await_current(f);
    assert_int_equal(check_twins(f), 3);
    fixture_power_cut(f); /* moved by its owner */
    memcpy(moved, copy_dir, sizeof moved);
    strcat(copy_dir, "2");
    assert_int_equal(rename(moved, copy_dir), 0);
    snprintf(f->settings.store_copy_dir, sizeof f->settings.store_copy_dir, "%s/", copy_dir);
    fixture_start(f);
    await_current(f);
    check_twins(f);
    fixture_restart(f);
    assert_false(degraded(f));
    check_all(f, 1, 60);
    end(f);
}

/* Whatever fails there: the write is acknowledged with the store degraded, and the copy comes back by itself. */
static void a_copy_that_fails_is_left_and_taken_up_again(void **state)
{
    for (int how = NO_OPEN; how <= NO_ROOM; how++) {
        struct fixture *f = prepare();
        fixture_start(f);
        put_some(f, 1, 20);
        assert_false(degraded(f));
        copy_disk = how;
        for (uint64_t id = 20; !degraded(f) && id < 29; id++) {
            fixture_put(f, "s", id, id, "content of a memory");
            ok(mn_writer_append(f->writer));
            ok(mn_writer_sync(f->writer));
            assert_true(how == NO_OPEN || how == NO_ROOM || degraded(f)); /* before the acknowledgement */
            mn_writer_publish(f->writer);
            mn_writer_acked(f->writer);
            if (how == NO_OPEN || how == NO_ROOM) {
                seal(f); /* such a disk shows when something is opened or made */
                usleep(100000);
            }
        }
        assert_true(degraded(f));
        char text[512];
        assert_true(mn_writer_news(f->writer, text, sizeof text));
        put_some(f, 29, 40);
        check_all(f, 29, 40);
        usleep(1500000);                                            /* tries in vain */
        assert_false(mn_writer_news(f->writer, text, sizeof text)); /* told once */
        assert_true(degraded(f));
        copy_disk = WELL;
        await_current(f);
        check_twins(f);
        put_some(f, 40, 50);
        assert_false(degraded(f));
        check_twins(f);
        assert_int_equal(damages(f), 0);
        fixture_restart(f);
        assert_false(degraded(f));
        assert_int_equal(f->report.healed, 0);
        check_all(f, 29, 50);
        end(f);
    }
}

static void a_disk_that_hangs_is_left_and_taken_up_again(void **state)
{
    struct fixture *f = prepare();
    char text[512];
    f->settings.store_copy_wait = 50000000;
    fixture_start(f);
    put_some(f, 1, 20);
    await_current(f); /* so short a wait passes on a busy machine, too */
    copy_disk = HANGS;
    fixture_put(f, "s", 20, 20, "content of a memory");
    ok(mn_writer_append(f->writer));
    ok(mn_writer_sync(f->writer));
    assert_true(degraded(f)); /* before the acknowledgement */
    mn_writer_publish(f->writer);
    mn_writer_acked(f->writer);
    assert_true(mn_writer_news(f->writer, text, sizeof text));
    assert_non_null(strstr(text, "store.copy_wait"));
    put_some(f, 21, 40); /* at their own pace */
    seal(f);
    check_all(f, 1, 40);
    copy_disk = WELL;
    put_some(f, 40, 50);
    await_current(f);
    check_twins(f);
    put_some(f, 50, 60);
    await_current(f);
    check_twins(f);
    assert_int_equal(damages(f), 0);
    fixture_restart(f);
    assert_int_equal(f->report.healed, 0);
    check_all(f, 1, 60);
    end(f);
}

/* A disk that begins to hang in whatever a new segment needs of it: writes go on, the store says that they are kept
 * once, and the copy comes back by itself. */
static void a_disk_that_hangs_at_a_rotation_is_left_too(void **state)
{
    static const enum calls calls[] = {OPENS, RESERVES, RENAMES, UNLINKS};
    for (size_t call = 0; call < MN_ARRAY_LEN(calls); call++) {
        struct fixture *f = prepare();
        char text[512];
        uint64_t id = 1;
        f->settings.store_copy_wait = 50000000;
        fixture_start(f);
        for (int round = 0; round < 3; round++, id += 3) {
            put_some(f, id, id + 3);
            seal(f);
        }
        hanging = calls[call];
        copy_disk = HANGS;
        for (int round = 0; round < 100 && !degraded(f); round++, id += 3) {
            put_some(f, id, id + 3);
            seal(f);
            mn_writer_tend(f->writer, mn_wall_ns());
        }
        assert_true(degraded(f));
        assert_true(mn_writer_news(f->writer, text, sizeof text));
        for (int round = 0; round < 5; round++, id += 3) {
            put_some(f, id, id + 3);
            seal(f);
        }
        check_all(f, 1, id);
        copy_disk = WELL;
        put_some(f, id, id + 3);
        await_current(f);
        put_some(f, id + 3, id + 6);
        await_current(f);
        check_twins(f);
        assert_int_equal(damages(f), 0);
        fixture_restart(f);
        assert_int_equal(f->report.healed, 0);
        check_all(f, 1, id + 6);
        end(f);
    }
}

static void a_copy_that_is_deleted_under_the_writer_is_noticed(void **state)
{
    struct fixture *f = prepare();
    fixture_start(f);
    put_some(f, 1, 20);
    ok(mn_io_remove_tree(&mn_io_posix, copy_dir));
    for (int i = 0; i < 1000 && !degraded(f); i++)
        usleep(10000);
    assert_true(degraded(f));
    put_some(f, 20, 30);
    await_current(f);
    assert_int_equal(check_twins(f), 1);
    put_some(f, 30, 40);
    check_twins(f);
    check_all(f, 1, 40);
    end(f);
}

/* The writer dies while the copy is behind: the next one knows. */
static void a_copy_that_is_behind_is_not_trusted(void **state)
{
    struct fixture *f = prepare();
    fixture_start(f);
    put_some(f, 1, 20);
    copy_disk = NO_WRITE;
    put_some(f, 20, 30);
    assert_true(degraded(f));
    fixture_crash(f);
    copy_disk = NO_OPEN; /* so that recovery cannot set it right either */
    ok(fixture_recover(f));
    copy_disk = WELL;
    fixture_open_writer(f);
    assert_true(degraded(f));
    await_current(f);
    check_twins(f);
    fixture_restart(f);
    assert_int_equal(f->report.healed, 0);
    check_all(f, 1, 30);
    end(f);
}

/* ---- folders ---- */

static void folders_of_others_are_refused(void **state)
{
    struct fixture *f = prepare(), *other = fixture_prepare();
    struct mn_settings *s = &f->settings;
    char path[256];
    other->settings.store_copies = 2;
    snprintf(other->settings.store_copy_dir, sizeof other->settings.store_copy_dir, "%s", copy_dir);
    fixture_start(other);
    fixture_put(other, "s", 1, 1, "x");
    fixture_commit(other);
    fails(MN_EXISTS, mn_copy_folder_check(&f->store, s));
    assert_non_null(strstr(mn_error_text(), "another store"));
    fixture_power_cut(other);
    fails(MN_EXISTS, mn_copy_folder_check(&f->store, s));
    ok(mn_io_remove_tree(&mn_io_posix, copy_dir));
    assert_int_equal(mkdir(copy_dir, 0700), 0);
    snprintf(path, sizeof path, "%s/letters", copy_dir);
    ok(mn_io_replace(&mn_io_posix, path, "x", 1));
    fails(MN_EXISTS, mn_copy_folder_check(&f->store, s));
    assert_int_equal(unlink(path), 0);
    ok(mn_copy_folder_check(&f->store, s)); /* empty */
    snprintf(s->store_copy_dir, sizeof s->store_copy_dir, "relative");
    fails(MN_USAGE, mn_copy_folder_check(&f->store, s));
    snprintf(s->store_copy_dir, sizeof s->store_copy_dir, "%s/copy", f->dir);
    fails(MN_USAGE, mn_copy_folder_check(&f->store, s));
    s->store_copy_dir[0] = 0;
    fails(MN_USAGE, mn_copy_folder_check(&f->store, s));
    s->store_copies = 1;
    ok(mn_copy_folder_check(&f->store, s));
    snprintf(s->store_copy_dir, sizeof s->store_copy_dir, "/nowhere/at/all");
    s->store_copies = 2;
    ok(mn_copy_folder_check(&f->store, s)); /* not reached: the writer tells of it */
    fixture_start(f);
    assert_true(degraded(f));
    put_some(f, 1, 5);
    snprintf(s->store_copy_dir, sizeof s->store_copy_dir, "%s", copy_dir);
    fixture_free(other);
    end(f);
}

/* Another folder of the same store, a snapshot that was started say, does not take over what the first has written. */
static void another_folder_of_the_same_store_is_refused(void **state)
{
    struct fixture *f = prepare();
    struct mn_store twin;
    char dir[sizeof f->dir + 8], command[300];
    fixture_start(f);
    put_some(f, 1, 10);
    snprintf(dir, sizeof dir, "%s.two", f->dir);
    snprintf(command, sizeof command, "cp -r %s %s && rm %s/COPY", f->dir, dir, dir);
    assert_int_equal(system(command), 0);
    ok(mn_store_open(&twin, &mn_io_posix, dir));
    fails(MN_EXISTS, mn_copy_folder_check(&twin, &f->settings));
    ok(mn_io_remove_tree(&mn_io_posix, dir));
    /* The note lost, or a folder of both marks damaged: the writer of the right folder goes on. */
    fixture_power_cut(f);
    fixture_flip(f, "COPY", 30, 4);
    ok(mn_copy_folder_check(&f->store, &f->settings));
    fixture_start(f);
    await_current(f);
    fixture_restart(f);
    assert_false(degraded(f));
    end(f);
}

static void back_to_one_copy(void **state)
{
    struct fixture *f = prepare();
    char path[MN_PATH_MAX];
    fixture_start(f);
    put_some(f, 1, 20);
    f->settings.store_copies = 1;
    fixture_restart(f);
    assert_false(degraded(f));
    assert_false(fixture_exists(f, "COPY"));
    snprintf(path, sizeof path, "%s/wal", copy_dir);
    assert_int_not_equal(access(path, F_OK), 0);
    put_some(f, 20, 30);
    f->settings.store_copies = 2;
    fixture_restart(f);
    await_current(f);
    check_twins(f);
    check_all(f, 1, 30);
    end(f);
}

/* ---- healing ---- */

enum where { HOME, COPY };
static const char *dir_of(struct fixture *f, enum where where)
{
    return where == HOME ? f->dir : copy_dir;
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
    struct fixture *f = prepare();
    fixture_start(f);
    put_some(f, 1, 60);
    seal(f);
    put_some(f, 60, 90);
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
    await_current(f);
    assert_int_equal(atomic_load(&f->instance.control->reasons), 0);
    check_all(f, 1, 90);
    check_twins(f);
    assert_int_equal(damages(f), 0);
    fixture_restart(f); /* once is enough */
    assert_int_equal(f->report.healed, 0);
    assert_int_equal(atomic_load(&f->instance.control->reasons), 0);
    check_all(f, 1, 90);
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
            end(f);
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
    end(f);
    f = filled();
    cut_file(f, HOME, 1, -1);
    cut_file(f, COPY, 2, -1);
    check_healed(f, true);
    end(f);
}

/* The same batch in both: what is whole in either is there, and the rest is told of. */
static void what_is_damaged_in_both_is_lost_alone(void **state)
{
    struct fixture *f = filled();
    size_t bytes;
    uint8_t *data = slurp(f->dir, 1, &bytes);
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
    check_all(f, 1, 90);
    fixture_power_cut(f);
    harm(f, HOME, 1, at[1], "x", 1);
    harm(f, COPY, 1, at[1], "y", 1);
    fixture_start(f);
    assert_true(f->report.lost);
    assert_true(atomic_load(&f->instance.control->reasons) & MN_DEGRADED_LOST);
    check_all(f, 1, 5);
    check_all(f, 6, 90);
    assert_false(fixture_holds(f, "s", 5, 5, "content of a memory"));
    end(f);
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
        end(f);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_batch_is_in_both),
        cmocka_unit_test(a_missing_copy_is_made_anew),
        cmocka_unit_test(a_copy_that_fails_is_left_and_taken_up_again),
        cmocka_unit_test(a_disk_that_hangs_is_left_and_taken_up_again),
        cmocka_unit_test(a_disk_that_hangs_at_a_rotation_is_left_too),
        cmocka_unit_test(a_copy_that_is_deleted_under_the_writer_is_noticed),
        cmocka_unit_test(a_copy_that_is_behind_is_not_trusted),
        cmocka_unit_test(folders_of_others_are_refused),
        cmocka_unit_test(another_folder_of_the_same_store_is_refused),
        cmocka_unit_test(back_to_one_copy),
        cmocka_unit_test(damage_in_one_is_healed_from_the_other),
        cmocka_unit_test(damage_in_both_is_made_up_between_them),
        cmocka_unit_test(what_is_damaged_in_both_is_lost_alone),
        cmocka_unit_test(random_damage_is_healed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
