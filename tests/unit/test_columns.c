/*
 * test_columns.c - column segments: what goes in comes out bit for bit, and no damage goes unseen.
 */
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <roaring/roaring.h>

#include "engine/columns.h"
#include "tests/unit/expect.h"

#define DIM 24u

static const char *const columns[] = {"ids",    "spaces",     "born", "times",     "expires", "confidence",
                                      "scale",  "embeddings", "tags", "meta",      "content", "strings",
                                      "idhash", "postings",   "died", "metaindex", "parity"};

struct fixture {
    struct mn_store store;
    char dir[128];
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    snprintf(f->dir, sizeof f->dir, "/dev/shm/mn-columns-XXXXXX");
    if (!f || !mkdtemp(f->dir) || mn_store_create(&f->store, &mn_io_posix, f->dir, DIM, MN_METRIC_COSINE) != MN_OK)
        return -1;
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    int failed = mn_io_remove_tree(&mn_io_posix, f->dir) != MN_OK;
    free(f);
    return failed;
}

/* ---- rows that follow from their number ---- */

static const char *const words[] = {"alpha", "beta", "both", "gamma", "zeta"};
#define WORDS ((uint32_t)MN_ARRAY_LEN(words))

static void dictionary(struct mn_str strings[WORDS])
{
    for (uint32_t w = 0; w < WORDS; w++)
        strings[w] = (struct mn_str){words[w], (uint32_t)strlen(words[w])};
}

struct sample {
    float vector[DIM];
    uint32_t tags[3];
    char meta[64], content[512];
    struct mn_columns_row row;
};

static void make_sample(struct sample *s, uint32_t n)
{
    for (uint32_t d = 0; d < DIM; d++)
        s->vector[d] = sinf((float)(n * DIM + d));
    for (uint32_t t = 0; t < 3; t++)
        s->tags[t] = (n + t) % WORDS;
    snprintf(s->meta, sizeof s->meta, "meta of %u", n);
    memset(s->content, 'a' + (int)(n % 26), sizeof s->content);
    s->row = (struct mn_columns_row){.id = n % 3 ? (struct mn_id){.lo = n / 2} : (struct mn_id){n, ~n, MN_ID_UUID, 0},
                                     .space = n % 2 ? 2 : 4,
                                     .born = 100 + n,
                                     .died = n % 5 ? MN_ALIVE : mn_died_make(1000 + n, n % 2),
                                     .at = -50 + (int64_t)n,
                                     .expires = n % 7 ? MN_NEVER : (int64_t)n,
                                     .confidence = (float)n / 7,
                                     .scale = 1 / (1 + (float)n),
                                     .vector = s->vector,
                                     .tags = s->tags,
                                     .tag_count = n % 4,
                                     .meta = {s->meta, n % 6 ? (uint32_t)strlen(s->meta) : 0},
                                     .content = {n % 9 ? s->content : NULL, n % 9 ? n % 500 : 0},
                                     .content_bin = n % 2 == 0 && n % 9};
}

static uint64_t write_segment(struct fixture *f, uint64_t segment, uint32_t rows)
{
    struct mn_str strings[WORDS];
    struct mn_columns_writer *writer;
    struct sample *s = malloc(sizeof *s);
    uint64_t bytes = 0;
    dictionary(strings);
    ok(mn_columns_create(&writer, &f->store, segment, rows, strings, WORDS));
    for (uint32_t n = 0; n < rows; n++) {
        make_sample(s, n);
        ok(mn_columns_append(writer, &s->row));
    }
    ok(mn_columns_finish(writer, &bytes));
    free(s);
    return bytes;
}

static void expect_row(const struct mn_part *p, uint32_t row, const struct mn_columns_row *want)
{
    assert_true(mn_id_equal(mn_part_id(p, row), &want->id));
    assert_int_equal(mn_part_space(p, row), want->space);
    assert_int_equal(mn_part_born(p, row), want->born);
    assert_int_equal(mn_part_at(p, row), want->at);
    assert_int_equal(mn_part_expires(p, row), want->expires);
    assert_memory_equal(&p->confidence[row], &want->confidence, 4);
    assert_memory_equal(&p->scale[row], &want->scale, 4);
    assert_memory_equal(mn_columns_vector(p->columns, row), want->vector, DIM * sizeof(float));
    const uint32_t *tags;
    assert_int_equal(mn_columns_tags(p->columns, row, &tags), want->tag_count);
    assert_memory_equal(tags, want->tags, want->tag_count * sizeof *tags);
    struct mn_str bytes;
    bool bin;
    ok(mn_columns_meta(p->columns, row, &bytes));
    assert_true(mn_str_equal(bytes, want->meta));
    ok(mn_columns_content(p->columns, row, &bytes, &bin));
    assert_int_equal(bytes.data == NULL, want->content.data == NULL);
    assert_int_equal(bin, want->content_bin);
    assert_int_equal(bytes.length, want->content.length);
    if (bytes.length > 0)
        assert_memory_equal(bytes.data, want->content.data, bytes.length);
}

static void rows_come_back(void **state)
{
    struct fixture *f = *state;
    const uint32_t rows = 5000; /* several blocks of embeddings and content */
    uint64_t bytes = write_segment(f, 7, rows), on_disk = 0, files = 0, damage = 0;
    struct mn_columns *c, *again;
    struct mn_part part;
    ok(mn_columns_open(&c, &f->store, 7, MN_COLUMNS_DEEP));
    ok(mn_columns_open(&again, &f->store, 7, MN_COLUMNS_CHECK));
    assert_ptr_equal(c, again);
    mn_columns_close(again);
    mn_columns_part(c, &part);
    assert_int_equal(part.rows, rows);
    assert_int_equal(part.number, 7);
    struct sample *s = malloc(sizeof *s);
    uint64_t *died = malloc(rows * sizeof *died);
    ok(mn_columns_read_died(&f->store, 7, 0, rows, died));
    for (uint32_t n = 0; n < rows; n++) {
        make_sample(s, n);
        expect_row(&part, n, &s->row);
        assert_int_equal(died[n], s->row.died);
    }
    uint64_t resident;
    mn_columns_residency(c, &on_disk, &resident);
    assert_int_equal(on_disk, rows * DIM * sizeof(float));
    assert_true(resident <= on_disk);
    on_disk = 0;
    ok(mn_columns_verify(&f->store, 7, &files, &on_disk, NULL, NULL));
    assert_int_equal(files, MN_ARRAY_LEN(columns));
    assert_int_equal(on_disk, bytes);
    assert_int_equal(damage, 0);
    free(died);
    free(s);
    mn_columns_close(c);
}

static void ids_are_found(void **state)
{
    struct fixture *f = *state;
    const uint32_t rows = 3000;
    write_segment(f, 8, rows);
    struct mn_columns *c;
    ok(mn_columns_open(&c, &f->store, 8, MN_COLUMNS_CHECK));
    struct sample *s = malloc(sizeof *s), *other = malloc(sizeof *other);
    for (uint32_t n = 0; n < rows; n++) {
        make_sample(s, n);
        struct mn_str space = mn_columns_string(c, s->row.space);
        struct mn_part_find find = {
            .hash = mn_id_hash(mn_str_hash(space), &s->row.id), .id = s->row.id, .space = s->row.space};
        uint32_t found = 0;
        bool self = false;
        for (uint32_t row = mn_columns_find_first(c, &find); row != MN_NONE;
             row = mn_columns_find_next(c, &find), found++) {
            make_sample(other, row);
            assert_true(mn_id_equal(&other->row.id, &s->row.id) && other->row.space == s->row.space);
            self |= row == n;
        }
        assert_true(self);
        assert_true(found >= 1 && found <= 2);
        find.id.lo += 1000000;
        find.hash = mn_id_hash(mn_str_hash(space), &find.id);
        assert_int_equal(mn_columns_find_first(c, &find), MN_NONE);
    }
    free(s);
    free(other);
    mn_columns_close(c);
}

/* Many versions of one id share a bucket: all are found, and writing them is not quadratic. */
static void versions_are_found(void **state)
{
    struct fixture *f = *state;
    const uint32_t rows = 200000;
    struct mn_str strings[1] = {{"s", 1}};
    struct mn_columns_writer *writer;
    struct mn_columns *c;
    float vector[DIM] = {0};
    uint64_t bytes;
    ok(mn_columns_create(&writer, &f->store, 9, rows, strings, 1));
    for (uint32_t n = 0; n < rows; n++) {
        struct mn_columns_row row = {.id = {.lo = 5}, .born = n, .died = mn_died_make(n + 1, false), .vector = vector};
        ok(mn_columns_append(writer, &row));
    }
    ok(mn_columns_finish(writer, &bytes));
    ok(mn_columns_open(&c, &f->store, 9, MN_COLUMNS_CHECK));
    struct mn_id id = {.lo = 5};
    struct mn_part_find find = {.hash = mn_id_hash(mn_str_hash(strings[0]), &id), .id = id};
    uint32_t found = 0;
    for (uint32_t row = mn_columns_find_first(c, &find); row != MN_NONE; row = mn_columns_find_next(c, &find))
        found++;
    assert_int_equal(found, rows);
    mn_columns_close(c);
}

static void strings_and_postings(void **state)
{
    struct fixture *f = *state;
    const uint32_t rows = 70000; /* two roaring containers */
    write_segment(f, 10, rows);
    struct mn_columns *c;
    ok(mn_columns_open(&c, &f->store, 10, MN_COLUMNS_CHECK));
    uint64_t want[2][WORDS] = {{0}};
    struct sample *s = malloc(sizeof *s);
    for (uint32_t n = 0; n < rows; n++) {
        make_sample(s, n);
        want[MN_POSTING_SPACE][s->row.space]++;
        for (uint32_t t = 0; t < s->row.tag_count; t++)
            want[MN_POSTING_TAG][s->tags[t]]++;
    }
    for (uint32_t w = 0; w < WORDS; w++) {
        assert_int_equal(mn_columns_lookup(c, (struct mn_str){words[w], (uint32_t)strlen(words[w])}), w);
        for (unsigned kind = 0; kind < 2; kind++) {
            const roaring_bitmap_t *bitmap = mn_columns_postings(c, kind, w);
            assert_int_equal(mn_columns_posting_rows(c, kind, w), want[kind][w]);
            assert_int_equal(bitmap ? roaring_bitmap_get_cardinality(bitmap) : 0, want[kind][w]);
            assert_ptr_equal(bitmap, mn_columns_postings(c, kind, w));
        }
    }
    for (uint32_t n = 0; n < rows; n += 97) {
        make_sample(s, n);
        assert_true(roaring_bitmap_contains(mn_columns_postings(c, MN_POSTING_SPACE, s->row.space), n));
        for (uint32_t t = 0; t < s->row.tag_count; t++)
            assert_true(roaring_bitmap_contains(mn_columns_postings(c, MN_POSTING_TAG, s->tags[t]), n));
    }
    assert_int_equal(mn_columns_lookup(c, (struct mn_str){"alph", 4}), MN_NONE);
    assert_int_equal(mn_columns_lookup(c, (struct mn_str){"zz", 2}), MN_NONE);
    assert_null(mn_columns_postings(c, MN_POSTING_TAG, MN_NONE));
    assert_int_equal(mn_columns_posting_rows(c, MN_POSTING_SPACE, MN_NONE), 0);
    assert_int_equal(mn_columns_string(c, MN_NONE).length, 0);
    free(s);
    mn_columns_close(c);
}

static void later_liveness(void **state)
{
    struct fixture *f = *state;
    enum { ROWS = 3000 };
    write_segment(f, 11, ROWS);
    static _Atomic uint64_t died[ROWS];
    static uint64_t back[ROWS];
    for (uint32_t r = 0; r < ROWS; r++)
        atomic_store(&died[r], r % 2 ? MN_ALIVE : mn_died_make(r, r % 3 == 0));
    ok(mn_columns_write_died(&f->store, 11, 77, ROWS, died));
    ok(mn_columns_write_died(&f->store, 11, 77, ROWS, died)); /* again, after a crash */
    ok(mn_columns_read_died(&f->store, 11, 77, ROWS, back));
    for (uint32_t r = 0; r < ROWS; r++)
        assert_int_equal(back[r], atomic_load(&died[r]));
    assert_int_equal(mn_columns_read_died(&f->store, 11, 77, ROWS - 1, back), MN_CORRUPT);
    assert_int_equal(mn_columns_read_died(&f->store, 11, 78, ROWS, back), MN_NOT_FOUND);
}

/* ---- damage ---- */

static uint32_t damage_found(struct fixture *f, uint64_t segment)
{
    uint32_t damage = 0;
    uint64_t files = 0, bytes = 0;
    ok(mn_columns_verify(&f->store, segment, &files, &bytes, count_damage, &damage));
    return damage;
}

/* One bit in each byte of each file: verify and a deep open see every one. */
static void every_flip_is_seen(void **state)
{
    struct fixture *f = *state;
    write_segment(f, 12, 3);
    assert_int_equal(damage_found(f, 12), 0);
    for (size_t column = 0; column < MN_ARRAY_LEN(columns); column++) {
        char path[MN_PATH_MAX];
        mn_store_column_path(&f->store, path, 12, columns[column]);
        off_t bytes = (off_t)file_length(path);
        for (off_t at = 0; at < bytes; at++) {
            file_flip(path, at, (uint8_t)(1 << at % 8));
            if (damage_found(f, 12) == 0)
                fail_msg("a flipped bit in byte %ld of %s.col passes", (long)at, columns[column]);
            struct mn_columns *c;
            assert_int_equal(mn_columns_open(&c, &f->store, 12, MN_COLUMNS_DEEP), MN_CORRUPT);
            assert_non_null(strstr(mn_error_text(), columns[column]));
            file_flip(path, at, (uint8_t)(1 << at % 8));
        }
    }
    assert_int_equal(damage_found(f, 12), 0);
}

static void cut_and_missing_files(void **state)
{
    struct fixture *f = *state;
    struct mn_columns *c;
    uint64_t segment = 20;
    for (size_t column = 0; column < MN_ARRAY_LEN(columns); column++) {
        char path[MN_PATH_MAX];
        write_segment(f, ++segment, 40);
        mn_store_column_path(&f->store, path, segment, columns[column]);
        assert_int_equal(truncate(path, (off_t)file_length(path) - 1), 0);
        assert_int_equal(mn_columns_open(&c, &f->store, segment, MN_COLUMNS_DEEP), MN_CORRUPT);
        assert_int_equal(damage_found(f, segment), 1);
        assert_int_equal(truncate(path, 100), 0);
        assert_int_equal(mn_columns_open(&c, &f->store, segment, MN_COLUMNS_DEEP), MN_CORRUPT);
        assert_int_equal(unlink(path), 0);
        enum mn_status status = mn_columns_open(&c, &f->store, segment, MN_COLUMNS_DEEP);
        assert_true(status == MN_CORRUPT || status == MN_NOT_FOUND);
        assert_non_null(strstr(mn_error_text(), columns[column]));
        assert_int_equal(damage_found(f, segment), 1);
    }
}

/* A damaged block costs the rows in it, and no others. */
static void damage_stays_local(void **state)
{
    struct fixture *f = *state;
    const uint32_t rows = 5000, block = 65536;
    write_segment(f, 50, rows);
    char path[MN_PATH_MAX];
    file_flip(mn_store_column_path(&f->store, path, 50, "embeddings"), 256 + 2 * block + 5, 1);
    file_flip(mn_store_column_path(&f->store, path, 50, "content"), 256 + 3 * block + 5, 1);
    struct mn_columns *c;
    ok(mn_columns_open(&c, &f->store, 50, MN_COLUMNS_CHECK));
    uint32_t vectors_lost = 0, contents_lost = 0;
    for (uint32_t row = 0; row < rows; row++) {
        uint64_t first = row * DIM * 4 / block, last = (row * DIM * 4 + DIM * 4 - 1) / block;
        const float *vector = mn_columns_vector(c, row);
        assert_int_equal(vector == NULL, first <= 2 && last >= 2);
        vectors_lost += vector == NULL;
        struct mn_str content;
        bool bin;
        enum mn_status status = mn_columns_content(c, row, &content, &bin);
        assert_true(status == MN_OK || status == MN_CORRUPT);
        if (status == MN_CORRUPT)
            assert_non_null(strstr(mn_error_text(), "content.col: block 3"));
        contents_lost += status == MN_CORRUPT;
    }
    assert_in_range(vectors_lost, block / (DIM * 4), block / (DIM * 4) + 2);
    assert_in_range(contents_lost, block / 500, rows / 4);
    mn_columns_close(c);
}

static void foreign_files(void **state)
{
    struct fixture *f = *state;
    struct mn_columns *c;
    char path[MN_PATH_MAX], other[MN_PATH_MAX];
    write_segment(f, 60, 40);
    write_segment(f, 61, 40);
    struct mn_store stranger = f->store;
    stranger.uuid[3] ^= 1;
    assert_int_equal(mn_columns_open(&c, &stranger, 60, MN_COLUMNS_CHECK), MN_CORRUPT);
    stranger = f->store;
    stranger.dim++;
    assert_int_equal(mn_columns_open(&c, &stranger, 60, MN_COLUMNS_CHECK), MN_CORRUPT);
    assert_int_equal(
        rename(mn_store_column_path(&f->store, path, 60, "times"), mn_store_column_path(&f->store, other, 61, "times")),
        0);
    assert_int_equal(unlink(mn_store_column_path(&f->store, path, 61, "parity")), 0);
    assert_int_equal(mn_columns_open(&c, &f->store, 61, MN_COLUMNS_CHECK), MN_CORRUPT);
    assert_non_null(strstr(mn_error_text(), "misplaced"));
}

/* Trust maps without looking at data; a later, stricter opening of the same mapping looks. */
static void trust_and_check(void **state)
{
    struct fixture *f = *state;
    char path[MN_PATH_MAX], other[MN_PATH_MAX], aside[MN_PATH_MAX + 8];
    struct mn_columns *trusted, *checked;
    snprintf(aside, sizeof aside, "%s/aside", f->dir);
    write_segment(f, 63, 100);
    file_flip(mn_store_column_path(&f->store, path, 63, "born"), 300, 1);
    ok(mn_columns_open(&trusted, &f->store, 63, MN_COLUMNS_TRUST));
    ok(mn_columns_open(&checked, &f->store, 63, MN_COLUMNS_CHECK));
    assert_true(mn_columns_mended(checked) && !mn_columns_mended(trusted) && mn_columns_failed(trusted));
    mn_columns_close(checked);
    assert_int_equal(rename(mn_store_column_path(&f->store, other, 63, "parity"), aside), 0);
    assert_int_equal(mn_columns_open(&checked, &f->store, 63, MN_COLUMNS_CHECK), MN_CORRUPT);
    assert_int_equal(mn_columns_open(&checked, &f->store, 63, MN_COLUMNS_DEEP), MN_CORRUPT);
    assert_non_null(mn_columns_vector(trusted, 99));
    assert_false(mn_columns_damaged(trusted));
    file_flip(path, 300, 1);
    ok(mn_columns_open(&checked, &f->store, 63, MN_COLUMNS_CHECK));
    mn_columns_close(checked);
    mn_columns_close(trusted);
    file_flip(path, 16, 1); /* headers are always looked at */
    assert_int_equal(mn_columns_open(&trusted, &f->store, 63, MN_COLUMNS_TRUST), MN_CORRUPT);
}

static void expect_rows(const struct mn_columns *c, uint32_t rows)
{
    struct mn_part part;
    struct sample *s = malloc(sizeof *s);
    mn_columns_part(c, &part);
    assert_int_equal(part.rows, rows);
    for (uint32_t n = 0; n < rows; n++) {
        make_sample(s, n);
        expect_row(&part, n, &s->row);
        struct mn_part_find find = {.hash = mn_id_hash(mn_str_hash(mn_columns_string(c, s->row.space)), &s->row.id),
                                    .id = s->row.id,
                                    .space = s->row.space};
        assert_int_not_equal(mn_columns_find_first(c, &find), MN_NONE);
    }
    free(s);
}

/* Whatever one flipped bit, cut, missing or foreign small file there is: every row is there, bit for bit. */
static void small_files_are_mended(void **state)
{
    struct fixture *f = *state;
    struct mn_columns *c;
    const uint32_t rows = 300;
    uint64_t segment = 100;
    for (size_t column = 0; column < MN_ARRAY_LEN(columns); column++) {
        char path[MN_PATH_MAX];
        bool large = strchr("emc", columns[column][0]) && strlen(columns[column]) > 3 &&
                     (strcmp(columns[column], "embeddings") == 0 || strcmp(columns[column], "meta") == 0 ||
                      strcmp(columns[column], "content") == 0);
        write_segment(f, ++segment, rows);
        mn_store_column_path(&f->store, path, segment, columns[column]);
        for (off_t at = 0; at < (off_t)file_length(path); at += 1 + (off_t)file_length(path) / 101) {
            bool data = at >= 256 && at < (off_t)file_length(path) - 12;
            if (large && data)
                continue;
            file_flip(path, at, 1);
            ok(mn_columns_open(&c, &f->store, segment, MN_COLUMNS_CHECK));
            expect_rows(c, rows);
            mn_columns_close(c);
            file_flip(path, at, 1);
        }
        if (large)
            continue;
        assert_int_equal(truncate(path, (off_t)file_length(path) / 2), 0);
        ok(mn_columns_open(&c, &f->store, segment, MN_COLUMNS_CHECK));
        expect_rows(c, rows);
        mn_columns_close(c);
        assert_int_equal(unlink(path), 0);
        ok(mn_columns_open(&c, &f->store, segment, MN_COLUMNS_CHECK));
        expect_rows(c, rows);
        mn_columns_close(c);
    }
}

/* Of a large file that is gone or cut only its own rows' bytes are. */
static void large_files_may_be_missing(void **state)
{
    struct fixture *f = *state;
    struct mn_columns *c;
    struct mn_str bytes;
    bool bin;
    char path[MN_PATH_MAX];
    write_segment(f, 140, 500);
    assert_int_equal(unlink(mn_store_column_path(&f->store, path, 140, "content")), 0);
    ok(mn_columns_open(&c, &f->store, 140, MN_COLUMNS_CHECK));
    assert_true(mn_columns_mended(c) && mn_columns_damaged(c));
    for (uint32_t row = 0; row < 500; row++) {
        assert_non_null(mn_columns_vector(c, row));
        assert_int_equal(mn_columns_content(c, row, &bytes, &bin), MN_CORRUPT);
    }
    mn_columns_close(c);
    write_segment(f, 141, 5000);
    mn_store_column_path(&f->store, path, 141, "embeddings");
    assert_int_equal(truncate(path, 256 + 3 * 65536), 0);
    ok(mn_columns_open(&c, &f->store, 141, MN_COLUMNS_CHECK));
    for (uint32_t row = 0; row < 5000; row++) {
        assert_int_equal(mn_columns_vector(c, row) != NULL, (row + 1) * DIM * 4 <= 3 * 65536);
        ok(mn_columns_content(c, row, &bytes, &bin));
    }
    mn_columns_close(c);
}

/* What follows from other columns is done without when it cannot be made again. */
static void indexes_are_done_without(void **state)
{
    struct fixture *f = *state;
    struct mn_columns *c;
    char path[MN_PATH_MAX];
    write_segment(f, 150, 300);
    assert_int_equal(unlink(mn_store_column_path(&f->store, path, 150, "parity")), 0);
    assert_int_equal(unlink(mn_store_column_path(&f->store, path, 150, "idhash")), 0);
    assert_int_equal(truncate(mn_store_column_path(&f->store, path, 150, "postings"), 0), 0);
    file_flip(mn_store_column_path(&f->store, path, 150, "metaindex"), 260, 1);
    ok(mn_columns_open(&c, &f->store, 150, MN_COLUMNS_CHECK));
    assert_true(mn_columns_mended(c));
    expect_rows(c, 300);
    assert_null(mn_columns_postings(c, MN_POSTING_SPACE, 2));
    assert_true(mn_columns_posting_rows(c, MN_POSTING_SPACE, 2) > 0);
    mn_columns_close(c);
}

/* A block of one column put in the place of another of the same file does not pass. */
static void swapped_blocks(void **state)
{
    struct fixture *f = *state;
    char path[MN_PATH_MAX];
    static uint8_t one[65536], two[65536];
    write_segment(f, 62, 5000);
    int fd = open(mn_store_column_path(&f->store, path, 62, "embeddings"), O_RDWR);
    assert_int_equal(pread(fd, one, sizeof one, 256), sizeof one);
    assert_int_equal(pread(fd, two, sizeof two, 256 + sizeof one), sizeof two);
    assert_int_equal(pwrite(fd, two, sizeof two, 256), sizeof two);
    assert_int_equal(pwrite(fd, one, sizeof one, 256 + sizeof one), sizeof one);
    close(fd);
    assert_int_equal(damage_found(f, 62), 2);
}

static void abandoned_leaves_nothing(void **state)
{
    struct fixture *f = *state;
    struct mn_str strings[WORDS];
    struct mn_columns_writer *writer;
    struct stat st;
    char dir[MN_PATH_MAX], half[MN_PATH_MAX + 8];
    dictionary(strings);
    ok(mn_columns_create(&writer, &f->store, 70, 10, strings, WORDS));
    snprintf(half, sizeof half, "%s.tmp", mn_store_columns_dir(&f->store, dir, 70));
    assert_int_equal(stat(half, &st), 0);
    mn_columns_abandon(writer);
    assert_int_equal(stat(half, &st), -1);
    /* Nor does what a dead process left stand in the way. */
    ok(mn_columns_create(&writer, &f->store, 70, 10, strings, WORDS));
    struct mn_columns_writer *next;
    ok(mn_columns_create(&next, &f->store, 70, 10, strings, WORDS));
    mn_columns_abandon(next);
    mn_columns_abandon(writer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_come_back),
        cmocka_unit_test(ids_are_found),
        cmocka_unit_test(versions_are_found),
        cmocka_unit_test(strings_and_postings),
        cmocka_unit_test(later_liveness),
        cmocka_unit_test(every_flip_is_seen),
        cmocka_unit_test(cut_and_missing_files),
        cmocka_unit_test(damage_stays_local),
        cmocka_unit_test(foreign_files),
        cmocka_unit_test(swapped_blocks),
        cmocka_unit_test(trust_and_check),
        cmocka_unit_test(abandoned_leaves_nothing),
        cmocka_unit_test(small_files_are_mended),
        cmocka_unit_test(large_files_may_be_missing),
        cmocka_unit_test(indexes_are_done_without),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
