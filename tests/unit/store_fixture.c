/*
 * store_fixture.c - see store_fixture.h.
 */
#include "tests/unit/store_fixture.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/read.h"
#include "shm/process.h"

/* ---- life and death ---- */

/* Fixtures whose test has not freed them: a failed one must leave nothing in /dev/shm. */
static struct fixture *alive[64];

static void sweep_alive(void)
{
    for (size_t i = 0; i < MN_ARRAY_LEN(alive); i++) {
        if (!alive[i])
            continue;
        if (alive[i]->instance.control && mn_instance_remove(alive[i]->instance.path) != MN_OK)
            print_error("%s is left\n", alive[i]->instance.path);
        if (mn_io_remove_tree(&mn_io_posix, alive[i]->dir) != MN_OK)
            print_error("%s is left\n", alive[i]->dir);
    }
}

static void swap_alive(struct fixture *from, struct fixture *to)
{
    for (size_t i = 0; i < MN_ARRAY_LEN(alive); i++)
        if (alive[i] == from) {
            alive[i] = to;
            return;
        }
}

struct fixture *fixture_prepare(void)
{
    static bool registered;
    struct fixture *f = calloc(1, sizeof *f);
    assert_non_null(f);
    if (!registered)
        atexit(sweep_alive);
    registered = true;
    swap_alive(NULL, f);
    mn_settings_default(&f->settings);
    f->settings.wal_segment_bytes = 1u << 20;
    f->settings.wal_prepared = 1;
    f->settings.history_window = 0;
    f->settings.disk_reserve = 0;
    f->random = 0x9e3779b97f4a7c15u;
    snprintf(f->dir, sizeof f->dir, "/dev/shm/mn-unit-XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    ok(mn_store_create(&f->store, &mn_io_posix, f->dir, FIXTURE_DIM, MN_METRIC_IP));
    return f;
}

struct fixture *fixture_new(void)
{
    struct fixture *f = fixture_prepare();
    fixture_start(f);
    return f;
}

void fixture_open_instance(struct fixture *f)
{
    struct mn_instance_shape shape = {.dim = f->store.dim, .metric = f->store.metric, .reader_slots = 16};
    memcpy(shape.store_uuid, f->store.uuid, sizeof shape.store_uuid);
    ok(mn_instance_create(&f->instance, &shape));
}

enum mn_status fixture_recover(struct fixture *f)
{
    return mn_recover(&f->store, &f->instance, 2, NULL, &f->report);
}

void fixture_open_writer(struct fixture *f)
{
    ok(mn_writer_open(&f->writer, &f->store, &f->instance, &f->settings, mn_stats_page(&f->instance.stats, 0)));
}

void fixture_start(struct fixture *f)
{
    fixture_open_instance(f);
    ok(fixture_recover(f));
    fixture_open_writer(f);
}

void fixture_crash(struct fixture *f)
{
    mn_writer_close(f->writer);
    f->writer = NULL;
}

void fixture_power_cut(struct fixture *f)
{
    char path[sizeof f->instance.path];
    fixture_crash(f);
    if (!f->instance.control)
        return;
    memcpy(path, f->instance.path, sizeof path);
    mn_instance_close(&f->instance);
    ok(mn_instance_remove(path));
}

void fixture_restart(struct fixture *f)
{
    fixture_power_cut(f);
    fixture_start(f);
}

void fixture_free(struct fixture *f)
{
    fixture_power_cut(f);
    ok(mn_io_remove_tree(&mn_io_posix, f->dir));
    swap_alive(f, NULL);
    free(f);
}

/* ---- requests ---- */

struct mn_str text_str(const char *text)
{
    return (struct mn_str){text, text ? (uint32_t)strlen(text) : 0};
}

struct mn_id number_id(uint64_t number)
{
    return (struct mn_id){.lo = number};
}

struct mn_id uuid_id(uint64_t hi, uint64_t lo)
{
    return (struct mn_id){.hi = hi, .lo = lo, .kind = MN_ID_UUID};
}

const float *fixture_vector(uint64_t number)
{
    static float ring[64][FIXTURE_DIM];
    static uint32_t next;
    float *v = ring[next++ % MN_ARRAY_LEN(ring)];
    for (uint32_t d = 0; d < FIXTURE_DIM; d++)
        v[d] = (float)((number * 31 + d * 7) % 1009) + 1.0f;
    return v;
}

struct mn_memory fixture_memory(uint64_t id, uint64_t number, const char *content)
{
    return (struct mn_memory){.has_id = id != 0,
                              .id = number_id(id),
                              .embedding = fixture_vector(number),
                              .content = text_str(content),
                              .confidence = 1.0f,
                              .at = (int64_t)number,
                              .expires = MN_NEVER};
}

struct mn_write fixture_write(const struct fixture *f, const char *space)
{
    return (struct mn_write){.space = text_str(space), .now = f->now ? f->now : mn_wall_ns()};
}

void fixture_commit(struct fixture *f)
{
    ok(mn_writer_append(f->writer));
    ok(mn_writer_sync(f->writer));
    mn_writer_publish(f->writer);
    mn_writer_acked(f->writer);
}

uint64_t fixture_put(struct fixture *f, const char *space, uint64_t id, uint64_t number, const char *content)
{
    struct mn_memory memory = fixture_memory(id, number, content);
    struct mn_remember request = {.write = fixture_write(f, space), .memories = &memory, .count = 1};
    struct mn_outcome outcome;
    enum mn_status status = mn_writer_remember(f->writer, &request, &outcome);
    if (status == MN_NOT_READY) {
        fixture_commit(f);
        status = mn_writer_remember(f->writer, &request, &outcome);
    }
    ok(status);
    return outcome.seq;
}

uint32_t fixture_forget(struct fixture *f, const char *space, uint64_t id, enum mn_forget_mode mode)
{
    struct mn_id ids[1] = {number_id(id)};
    struct mn_forget request = {.write = fixture_write(f, space), .ids = ids, .id_count = 1, .mode = mode};
    struct mn_outcome outcome;
    enum mn_status status = mn_writer_forget(f->writer, &request, &outcome);
    if (status == MN_NOT_READY) {
        fixture_commit(f);
        status = mn_writer_forget(f->writer, &request, &outcome);
    }
    ok(status);
    return outcome.count;
}

/* ---- looking ---- */

static bool row_matches(const struct mn_part *part, uint32_t row, uint64_t number, const char *content)
{
    struct mn_str bytes;
    bool bin;
    const float *vector = mn_part_vector(part, row);
    return vector && memcmp(vector, fixture_vector(number), FIXTURE_DIM * sizeof *vector) == 0 &&
           mn_part_content(part, row, &bytes, &bin) == MN_OK && !bin && (bytes.data != NULL) == (content != NULL) &&
           (!content || mn_str_equal(bytes, text_str(content))) && mn_part_at(part, row) == (int64_t)number;
}

/* 1: there as told; 0: not there; -1: there, and different. */
static int look(struct fixture *f, const char *space, uint64_t id, uint64_t number, const char *content)
{
    struct mn_reader *reader;
    struct mn_snapshot snapshot;
    struct mn_id key = number_id(id);
    ok(mn_reader_open(&reader, &f->store, &f->instance));
    ok(mn_reader_pin(reader, 0, &snapshot));
    struct mn_row_ref ref = mn_read_find(&snapshot, text_str(space), &key);
    int found = ref.part == MN_NONE ? 0 : row_matches(&snapshot.parts[ref.part], ref.row, number, content) ? 1 : -1;
    mn_reader_close(reader);
    return found;
}

bool fixture_holds(struct fixture *f, const char *space, uint64_t id, uint64_t number, const char *content)
{
    return look(f, space, id, number, content) == 1;
}

bool fixture_absent(struct fixture *f, const char *space, uint64_t id)
{
    return look(f, space, id, 0, NULL) == 0;
}

uint64_t fixture_count(struct fixture *f)
{
    struct mn_reader *reader;
    struct mn_snapshot snapshot;
    uint64_t count = 0;
    ok(mn_reader_open(&reader, &f->store, &f->instance));
    ok(mn_reader_pin(reader, 0, &snapshot));
    for (uint32_t p = 0; p < snapshot.part_count; p++)
        for (uint32_t row = 0; row < snapshot.parts[p].rows; row++)
            count += mn_part_visible(&snapshot.parts[p], row, snapshot.seq, snapshot.now);
    mn_reader_close(reader);
    return count;
}

/* ---- the disk ---- */

uint8_t *fixture_slurp(const struct fixture *f, const char *name, size_t *bytes)
{
    char path[MN_PATH_MAX];
    void *data;
    ok(mn_io_slurp(&mn_io_posix, mn_store_path(&f->store, path, name), 1u << 30, &data, bytes));
    return data;
}

void fixture_scribble(const struct fixture *f, const char *name, uint64_t offset, const void *bytes, size_t length)
{
    char path[MN_PATH_MAX];
    int fd = open(mn_store_path(&f->store, path, name), O_WRONLY);
    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, bytes, length, (off_t)offset), length);
    close(fd);
}

void fixture_flip(const struct fixture *f, const char *name, uint64_t offset, uint8_t mask)
{
    char path[MN_PATH_MAX];
    uint8_t byte;
    int fd = open(mn_store_path(&f->store, path, name), O_RDWR);
    assert_true(fd >= 0);
    assert_int_equal(pread(fd, &byte, 1, (off_t)offset), 1);
    byte ^= mask;
    assert_int_equal(pwrite(fd, &byte, 1, (off_t)offset), 1);
    close(fd);
}

bool fixture_exists(const struct fixture *f, const char *name)
{
    char path[MN_PATH_MAX];
    struct stat st;
    return stat(mn_store_path(&f->store, path, name), &st) == 0;
}

uint32_t fixture_files(const struct fixture *f, const char *folder, const char *suffix)
{
    char path[MN_PATH_MAX];
    uint32_t count = 0;
    DIR *dir = opendir(mn_store_path(&f->store, path, folder));
    assert_non_null(dir);
    for (struct dirent *entry; (entry = readdir(dir)) != NULL;) {
        size_t length = strlen(entry->d_name), ending = strlen(suffix);
        count += length >= ending && entry->d_name[0] != '.' && strcmp(entry->d_name + length - ending, suffix) == 0;
    }
    closedir(dir);
    return count;
}

uint32_t fixture_random(struct fixture *f, uint32_t below)
{
    f->random = f->random * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(f->random >> 33) % below;
}
