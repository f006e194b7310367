/*
 * test_codebook_odd.c - codebooks of odd samples, on disks that fail, in files that are damaged or lie: no sample is
 * too odd, and no damage goes unseen.
 */
#include "tests/unit/codebook_rows.h"

#include <fcntl.h>
#include <malloc.h>
#include <math.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/unit/fail_once.h"

/* ---- odd samples ---- */

static uint64_t next_gen = 100;

/* Trains, opens, checks, assigns the rows themselves. Returns the number of clusters. */
static uint32_t expect_trained(struct book_place *p, struct book_rows *r, uint32_t clusters, const char *what)
{
    uint64_t gen = next_gen++;
    if (book_train(&p->store, gen, clusters, r, 1) != MN_OK)
        fail_msg("%s: %s", what, mn_error_trail());
    const struct mn_codebook *codebook = book_open(&p->store, gen);
    book_expect_sound(codebook);
    float *rows = book_rotated(codebook, r), *distances = calloc(r->count, sizeof *distances);
    uint32_t *out = calloc(r->count, sizeof *out), found = codebook->clusters;
    mn_codebook_assign(codebook, mn_kernels_best(), rows, r->count, out, distances);
    for (uint32_t i = 0; i < r->count; i++)
        if (out[i] >= codebook->clusters || !(distances[i] >= 0))
            fail_msg("%s: row %u is in cluster %u at %g", what, i, out[i], (double)distances[i]);
    free(rows);
    free(distances);
    free(out);
    mn_codebook_close(codebook);
    return found;
}

static void odd_samples(void **state)
{
    (void)state;
    enum { DIM = 20, N = 600 };
    struct book_place p = book_place(DIM, MN_METRIC_L2);
    struct book_rows r = book_mixture(N, DIM, 4), zeros = {.at = book_floats(N * DIM), .count = N, .dim = DIM};
    struct book_rows one = {.at = r.at, .count = 1, .dim = DIM}, few = {.at = r.at, .count = 9, .dim = DIM};
    assert_int_equal(expect_trained(&p, &one, 32, "one row"), 2);
    assert_int_equal(expect_trained(&p, &few, 32, "fewer rows than clusters"), 9);
    assert_int_equal(expect_trained(&p, &few, 1, "one cluster"), 2);
    assert_int_equal(expect_trained(&p, &few, 2, "two clusters"), 2);
    assert_int_equal(expect_trained(&p, &zeros, 32, "zeros"), 2);
    for (uint32_t i = 0; i < N * DIM; i++)
        zeros.at[i] = 0.3f;
    assert_int_equal(expect_trained(&p, &zeros, 32, "all the same"), 2);
    for (uint32_t i = 0; i < N; i += 2)
        zeros.at[i * DIM] = -0.3f;
    assert_true(expect_trained(&p, &zeros, 32, "two different ones") <= 4);
    for (uint32_t i = 0; i < N; i++) /* nine in ten are the same */
        if (i % 10)
            memcpy(r.at + (size_t)i * DIM, r.at, DIM * sizeof *r.at);
    assert_true(expect_trained(&p, &r, 32, "duplicates") > 16);
    free(r.at);
    free(zeros.at);
    book_place_remove(&p);
}

/* What mn_kmeans sees is brought to a common unit: huge and tiny rows are clustered as well as others. */
static void huge_and_tiny_rows(void **state)
{
    (void)state;
    static const float units[] = {0x1p60f, 0x1p-60f};
    struct book_place p = book_place(64, MN_METRIC_IP);
    struct book_rows r = book_mixture(3000, 64, 4);
    ok(book_train(&p.store, 1, 40, &r, 1));
    const struct mn_codebook *codebook = book_open(&p.store, 1);
    for (size_t u = 0; u < MN_ARRAY_LEN(units); u++) {
        struct book_rows scaled = {.at = book_floats((size_t)r.count * 64), .count = r.count, .dim = 64};
        for (size_t i = 0; i < (size_t)r.count * 64; i++)
            scaled.at[i] = r.at[i] * units[u];
        ok(book_train(&p.store, 2 + u, 40, &scaled, 1));
        const struct mn_codebook *other = book_open(&p.store, 2 + u);
        book_expect_sound(other);
        for (size_t i = 0; i < (size_t)40 * 64; i++)
            assert_true(other->centroids[i] == codebook->centroids[i] * units[u]);
        mn_codebook_close(other);
        free(scaled.at);
    }
    /* As long as admission lets rows be. */
    for (size_t i = 0; i < (size_t)r.count * 64; i++)
        r.at[i] *= 5e17f;
    expect_trained(&p, &r, 40, "the longest rows");
    free(r.at);
    mn_codebook_close(codebook);
    book_place_remove(&p);
}

static void unreadable_rows(void **state)
{
    (void)state;
    enum { DIM = 20, N = 600 };
    struct book_place p = book_place(DIM, MN_METRIC_L2);
    struct book_rows r = book_mixture(N, DIM, 4);
    const struct mn_codebook *codebook;
    r.skip = 3;
    r.at[7 * DIM + 3] = NAN; /* damage that no checksum has seen */
    r.at[8 * DIM + 3] = INFINITY;
    ok(book_train(&p.store, 1, 32, &r, 1));
    codebook = book_open(&p.store, 1);
    book_expect_sound(codebook);
    mn_codebook_close(codebook);
    r.skip = 1;
    assert_int_equal(book_train(&p.store, 2, 32, &r, 1), MN_NOT_FOUND);
    r.count = 0;
    assert_int_equal(book_train(&p.store, 2, 32, &r, 1), MN_NOT_FOUND);
    assert_int_equal(mn_codebook_open(&codebook, &p.store, 2), MN_NOT_FOUND);
    free(r.at);
    book_place_remove(&p);
}

/* A sample that would take more memory than it may is thinned out, evenly. */
struct endless {
    uint64_t calls, last, gap;
};

static bool give_any(void *context, uint64_t i, float *out)
{
    struct endless *e = context;
    uint64_t gap = e->calls ? i - e->last : 0, seed = i;
    e->gap = gap > e->gap ? gap : e->gap;
    e->last = i;
    e->calls++;
    memset(out, 0, MN_DIM_MAX * sizeof *out);
    out[i % MN_DIM_MAX] = book_uniform(&seed);
    return true;
}

static bool stop_at_once(void *context)
{
    const struct endless *e = context;
    return e->calls == MN_CODEBOOK_SAMPLE_BYTES / (MN_DIM_MAX * sizeof(float));
}

static void large_samples_are_thinned(void **state)
{
    (void)state;
    struct book_place p = book_place(MN_DIM_MAX, MN_METRIC_L2);
    struct endless e = {0, 0, 0};
    struct mn_codebook_sample sample = {.rows = 1000000, .row = give_any, .context = &e};
    uint64_t most = MN_CODEBOOK_SAMPLE_BYTES / (MN_DIM_MAX * sizeof(float));
    assert_int_equal(mn_codebook_train(&p.store, 1, 32, 1, &sample, 1, stop_at_once, &e), MN_DEADLINE);
    assert_int_equal(e.calls, most);
    assert_true(e.last >= 1000000 - 1000000 / most - 1);
    assert_true(e.gap <= 1000000 / most + 1);
    book_place_remove(&p);
}

/* ---- little memory ---- */

/* Bytes that the program has allocated now; sanitizers have allocators of their own. */
size_t __sanitizer_get_current_allocated_bytes(void) __attribute__((weak));

static uint64_t allocated(void)
{
    if (__sanitizer_get_current_allocated_bytes)
        return __sanitizer_get_current_allocated_bytes();
    struct mallinfo2 info = mallinfo2();
    return info.uordblks + info.hblkhd;
}

struct peak {
    uint64_t before, most;
};

static bool pause_watching(void *context)
{
    struct peak *peak = context;
    uint64_t now = allocated();
    peak->most = now > peak->before + peak->most ? now - peak->before : peak->most;
    return false;
}

/* What the training holds at most; *energy: how far all rows are from their centroids then. */
static uint64_t train_within(const struct book_place *p, uint64_t gen, struct book_rows *r, uint64_t bytes,
                             double *energy)
{
    struct mn_codebook_sample sample = book_sample(r);
    struct peak peak = {allocated(), 0};
    uint32_t nearest[512];
    float distance2[512];
    sample.bytes = bytes;
    ok(mn_codebook_train(&p->store, gen, 256, r->count, &sample, 1, pause_watching, &peak));
    const struct mn_codebook *codebook = book_open(&p->store, gen);
    book_expect_sound(codebook);
    float *rotated = book_rotated(codebook, r);
    *energy = 0;
    for (uint32_t at = 0; at < r->count; at += 512) {
        uint32_t some = r->count - at < 512 ? r->count - at : 512;
        mn_codebook_assign(codebook, mn_kernels_best(), rotated + (size_t)at * codebook->width, some, nearest,
                           distance2);
        for (uint32_t i = 0; i < some; i++)
            *energy += (double)distance2[i] / r->count;
    }
    assert_true(fabs((double)codebook->energy - *energy) < 0.02 * *energy); /* it has seen them all */
    free(rotated);
    mn_codebook_close(codebook);
    return peak.most;
}

static void keeps_within_memory(void **state)
{
    (void)state;
    enum { DIM = 256, N = 16384, MIB = 1 << 20 };
    struct book_place p = book_place(DIM, MN_METRIC_L2);
    struct book_rows r = book_mixture(N, DIM, 6);
    double all, little;
    assert_true(train_within(&p, 1, &r, 0, &all) > N * DIM * sizeof(float));
    assert_int_equal(r.calls, N);
    uint64_t most = train_within(&p, 2, &r, MIB, &little);
    assert_true(r.calls > 2 * N); /* they were read again */
    assert_true(most < 4 * MIB);  /* a sixteenth of the rows, a chunk of them, centroids three times */
    assert_true(little < 1.05 * all);
    free(r.at);
    book_place_remove(&p);
}

static void odd_rows_are_read_again(void **state)
{
    (void)state;
    enum { DIM = 64, N = 4096, BYTES = 256 * DIM * sizeof(float) };
    struct book_place p = book_place(DIM, MN_METRIC_L2);
    struct book_rows r = book_mixture(N, DIM, 7);
    struct mn_codebook_sample sample = book_sample(&r);
    sample.bytes = BYTES;
    r.skip = 3;
    for (uint32_t i = 1; i < N; i += 16) /* none of them among those in memory, one in sixteen */
        r.at[(size_t)i * DIM] = i % 32 == 1 ? 3e38f : NAN;
    ok(mn_codebook_train(&p.store, 1, 32, N, &sample, 1, NULL, NULL));
    const struct mn_codebook *codebook = book_open(&p.store, 1);
    book_expect_sound(codebook);
    mn_codebook_close(codebook);
    sample.bytes = 1; /* less than a row: one lies there all the same */
    r.skip = 0;
    ok(mn_codebook_train(&p.store, 2, 32, N, &sample, 1, NULL, NULL));
    codebook = book_open(&p.store, 2);
    book_expect_sound(codebook);
    mn_codebook_close(codebook);
    free(r.at);
    book_place_remove(&p);
}

/* ---- stopping, disks ---- */

struct pauses {
    uint32_t calls, stop_at;
};

static bool pause_counted(void *context)
{
    struct pauses *p = context;
    return ++p->calls == p->stop_at;
}

static void stops_when_told(void **state)
{
    (void)state;
    struct book_place p = book_place(96, MN_METRIC_L2);
    struct book_rows r = book_mixture(3000, 96, 5);
    struct pauses pauses = {0, 0};
    const struct mn_codebook *codebook;
    struct mn_codebook_sample sample = book_sample(&r);
    ok(mn_codebook_train(&p.store, 1, 64, 1, &sample, 1, pause_counted, &pauses));
    uint32_t all = pauses.calls;
    assert_true(all > 20);
    for (uint32_t stop = 1; stop <= all; stop++) {
        pauses = (struct pauses){0, stop};
        sample = book_sample(&r);
        assert_int_equal(mn_codebook_train(&p.store, 2, 64, 1, &sample, 1, pause_counted, &pauses), MN_DEADLINE);
        assert_int_equal(pauses.calls, stop);
        assert_int_equal(mn_codebook_open(&codebook, &p.store, 2), MN_NOT_FOUND);
    }
    free(r.at);
    book_place_remove(&p);
}

static void folder_is_made(void **state)
{
    (void)state;
    struct book_place p = book_place(20, MN_METRIC_L2);
    struct book_rows r = book_mixture(300, 20, 5);
    char path[MN_PATH_MAX];
    struct stat st;
    mn_store_path(&p.store, path, "codebooks");
    assert_int_equal(stat(path, &st), 0); /* by mn_store_create */
    assert_int_equal(st.st_mode & 07777, 0700);
    assert_int_equal(rmdir(path), 0);
    ok(book_train(&p.store, 1, 16, &r, 1));
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0700);
    mn_codebook_close(book_open(&p.store, 1));
    free(r.at);
    book_place_remove(&p);
}

/* The disk fails at one change, whichever: an error, and the next attempt is not hindered. */
static void disk_fails_once(void **state)
{
    (void)state;
    struct book_rows r = book_mixture(300, 20, 5);
    struct book_place p = book_place(20, MN_METRIC_L2);
    struct mn_io io = fail_once_io();
    struct mn_store failing = p.store;
    char folder[MN_PATH_MAX];
    uint32_t failures = 0;
    bool failed = true;
    mn_store_path(&p.store, folder, "codebooks");
    failing.io = &io;
    for (uint32_t at = 1; failed; at++) {
        ok(mn_io_remove_tree(&mn_io_posix, folder)); /* it is made again: a change as well */
        fail_once = (struct fail_once){.calls = 0, .fail_at = at, .status = MN_READ_ONLY};
        enum mn_status status = book_train(&failing, 1, 16, &r, 1);
        failed = fail_once.calls >= at;
        failures += failed;
        assert_int_equal(status, failed ? MN_READ_ONLY : MN_OK);
        fail_once.fail_at = 0;
        ok(book_train(&p.store, 1, 16, &r, 1));
        mn_codebook_close(book_open(&p.store, 1));
    }
    assert_true(failures >= 8); /* mkdir, sync, four writes, sync, rename, sync */
    free(r.at);
    book_place_remove(&p);
}

/* ---- damage ---- */

static void put_file(const char *path, const uint8_t *data, size_t bytes)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, data, bytes), (ssize_t)bytes);
    close(fd);
}

/* Opens as a process would for which it is the first time. */
static void expect_corrupt(const struct mn_store *store, const char *path, const char *what, size_t at)
{
    const struct mn_codebook *codebook;
    enum mn_status status = mn_codebook_open(&codebook, store, 1);
    if (status != MN_CORRUPT)
        fail_msg("%s %zu: %s", what, at, mn_status_word(status));
    assert_null(codebook);
    assert_non_null(strstr(mn_error_text(), path));
}

static void damage_is_seen(void **state)
{
    (void)state;
    struct book_place p = book_place(20, MN_METRIC_L2);
    struct book_rows r = book_mixture(300, 20, 5);
    char path[MN_PATH_MAX];
    size_t bytes;
    ok(book_train(&p.store, 1, 16, &r, 1));
    uint8_t *file = book_slurp(mn_codebook_path(&p.store, path, 1), &bytes);
    for (size_t at = 0; at < bytes; at += at < 1024 ? 1 : 61) {
        file[at] ^= (uint8_t)(1u << at % 8);
        put_file(path, file, bytes);
        expect_corrupt(&p.store, path, "flipped at", at);
        file[at] ^= (uint8_t)(1u << at % 8);
    }
    for (size_t cut = 0; cut < bytes; cut += cut < 512 ? 1 : 97) {
        put_file(path, file, cut);
        expect_corrupt(&p.store, path, "cut to", cut);
    }
    put_file(path, file, bytes);
    mn_codebook_close(book_open(&p.store, 1)); /* nothing of it sticks */
    char other[MN_PATH_MAX];
    put_file(mn_codebook_path(&p.store, other, 2), file, bytes);
    const struct mn_codebook *codebook;
    assert_int_equal(mn_codebook_open(&codebook, &p.store, 2), MN_CORRUPT); /* misplaced */
    assert_non_null(strstr(mn_error_text(), other));
    free(file);
    free(r.at);
    book_place_remove(&p);
}

/* Sound checksums around a body that lies. */
static void lies_are_seen(void **state)
{
    (void)state;
    struct book_place p = book_place(20, MN_METRIC_L2);
    struct book_rows r = book_mixture(300, 20, 5);
    char path[MN_PATH_MAX];
    size_t bytes;
    ok(book_train(&p.store, 1, 16, &r, 1));
    uint8_t *file = book_slurp(mn_codebook_path(&p.store, path, 1), &bytes);
    const struct mn_column_header *header = (const void *)file;
    uint64_t length = header->data_bytes, rows = header->rows;
    uint8_t *data = malloc(length);
    const struct mn_codebook_body *body = (const void *)(file + sizeof *header);
    uint64_t child_at = body->child_at;
    for (uint64_t at = 0; at < sizeof *body + 8; at += 4) {
        if (at == offsetof(struct mn_codebook_body, trained_rows) ||
            at == offsetof(struct mn_codebook_body, trained_rows) + 4)
            continue; /* any number is as good as another there: its two halves */
        uint64_t lie = at < sizeof *body ? at : child_at + (at - sizeof *body);
        memcpy(data, file + sizeof *header, length);
        data[lie + 3] ^= 0x80; /* a sign, or far too much */
        struct mn_column_sink sink;
        unlink(path);
        ok(mn_column_sink_open(&sink, &p.store, 1, MN_COLUMN_CODEBOOK, path));
        ok(mn_column_sink_append(&sink, data, length));
        ok(mn_column_sink_end(&sink, rows, 0));
        mn_column_sink_close(&sink);
        expect_corrupt(&p.store, path, "a lie at", lie);
    }
    for (uint64_t shorter = 0; shorter < 256; shorter += 64) {
        struct mn_column_sink sink;
        unlink(path);
        ok(mn_column_sink_open(&sink, &p.store, 1, MN_COLUMN_CODEBOOK, path));
        ok(mn_column_sink_append(&sink, file + sizeof *header, shorter));
        ok(mn_column_sink_end(&sink, rows, 0));
        mn_column_sink_close(&sink);
        expect_corrupt(&p.store, path, "shortened to", shorter);
    }
    free(data);
    free(file);
    free(r.at);
    book_place_remove(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(odd_samples),         cmocka_unit_test(huge_and_tiny_rows),
        cmocka_unit_test(unreadable_rows),     cmocka_unit_test(large_samples_are_thinned),
        cmocka_unit_test(keeps_within_memory), cmocka_unit_test(odd_rows_are_read_again),
        cmocka_unit_test(stops_when_told),     cmocka_unit_test(folder_is_made),
        cmocka_unit_test(disk_fails_once),     cmocka_unit_test(damage_is_seen),
        cmocka_unit_test(lies_are_seen),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
