/*
 * test_wal_scan.c - a small log segment with several batches, and everything that may happen to its bytes: each flipped
 * bit, torn writes, zeroed, repeated and swapped blocks, impossible lengths, a file cut short.
 *
 * Whatever happens, a scan shows only records that are bit for bit what was written, and verify finds every flipped
 * bit.
 */
#include "tests/unit/store_fixture.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "engine/wal.h"

#define SEGMENT_BYTES (64u << 10)
#define BATCHES       6u
#define RECORDS_MAX   64u

/* A segment on disk, its bytes as they were written, and which records they hold. */
struct log {
    struct fixture *f;
    char path[MN_PATH_MAX];
    uint8_t written[SEGMENT_BYTES];
    uint8_t *live; /* the same file, mapped to be damaged */
    struct mn_wal wal;
    uint64_t batch_at[BATCHES + 1], batch_seq[BATCHES + 1]; /* offset, and the newest seq, of each */
    uint64_t record_at[RECORDS_MAX], record_seq[RECORDS_MAX], record_id[RECORDS_MAX];
    uint32_t records;
};

static void make_zero_file(const char *path, uint64_t bytes)
{
    int fd = open(path, O_RDWR | O_CREAT | O_EXCL, 0600);
    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, (off_t)bytes), 0);
    close(fd);
}

/* `takes`: as if it took something away, so that its footer has blocks of its own. */
static void add_batch(struct log *log, uint32_t number, uint32_t records, bool takes)
{
    static uint8_t data[SEGMENT_BYTES];
    uint32_t record_at[RECORDS_MAX];
    char content[1100];
    struct mn_batch batch = {
        .data = data, .bytes_max = sizeof data, .record_at = record_at, .records_max = RECORDS_MAX};
    mn_batch_begin(&batch, log->wal.offset, log->wal.salt);
    for (uint32_t i = 0; i < records; i++) {
        uint32_t length = (number * 7919 + i * 613) % sizeof content;
        memset(content, (int)('a' + i), length);
        struct mn_str tags[2] = {text_str("red"), text_str("")};
        struct mn_record record = {.op = MN_RECORD_PUT,
                                   .seq = log->wal.last_seq + 1 + i / 2, /* two records a seq */
                                   .wall_ns = 5,
                                   .id = number_id(number * 100 + i),
                                   .space_hash = mn_str_hash(text_str("s")),
                                   .expires = MN_NEVER,
                                   .confidence = 1,
                                   .scale = 1};
        struct mn_record_parts parts = {.vector = fixture_vector(i),
                                        .vector_bytes = FIXTURE_DIM * 4,
                                        .space = text_str("s"),
                                        .content = {content, length},
                                        .tags = tags,
                                        .tag_count = i % 3};
        log->record_seq[log->records] = record.seq;
        log->record_id[log->records] = record.id.lo;
        log->record_at[log->records++] = mn_batch_add(&batch, &record, &parts);
    }
    batch.takes = takes;
    log->batch_at[number] = log->wal.offset;
    ok(mn_wal_append(&log->wal, &batch, 6));
    ok(mn_wal_sync(&log->wal));
    log->batch_seq[number] = log->wal.last_seq;
}

static struct log *log_new_with(bool last_takes)
{
    struct log *log = calloc(1, sizeof *log);
    log->f = fixture_prepare();
    mn_store_wal_path(&log->f->store, log->path, 1);
    make_zero_file(log->path, SEGMENT_BYTES);
    ok(mn_wal_begin(&log->wal, &log->f->store, 1, &(struct mn_wal){0}));
    for (uint32_t b = 0; b < BATCHES; b++)
        add_batch(log, b, 1 + b * 2, last_takes && b == BATCHES - 1);
    log->batch_at[BATCHES] = log->wal.offset;
    assert_true(log->wal.offset < SEGMENT_BYTES - (last_takes ? 1 : 3) * MN_WAL_BLOCK);
    mn_wal_end(&log->wal);
    int fd = open(log->path, O_RDWR);
    log->live = mmap(NULL, SEGMENT_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    assert_true(log->live != MAP_FAILED);
    close(fd);
    memcpy(log->written, log->live, SEGMENT_BYTES);
    return log;
}

static struct log *log_new(void)
{
    return log_new_with(false);
}

static void log_free(struct log *log)
{
    munmap(log->live, SEGMENT_BYTES);
    fixture_free(log->f);
    free(log);
}

static void heal(struct log *log)
{
    memcpy(log->live, log->written, SEGMENT_BYTES);
}

/* ---- what a scan sees ---- */

struct seen {
    struct log *log;
    uint32_t records, lost, damages, salvaged, intact;
    uint64_t last_at; /* of the last record */
    bool visited[RECORDS_MAX], named[RECORDS_MAX];
    uint32_t wrong; /* records that are not what was written */
};

static enum mn_status see_record(void *context, const struct mn_wal_segment *segment, const struct mn_record *record,
                                 uint64_t offset)
{
    struct seen *seen = context;
    seen->records++;
    if (offset <= seen->last_at)
        seen->wrong++; /* out of order */
    seen->last_at = offset;
    uint64_t bytes = sizeof *record + record->payload_bytes;
    for (uint32_t i = 0; i < seen->log->records; i++)
        if (seen->log->record_at[i] == offset) {
            seen->visited[i] = true;
            seen->wrong += memcmp(seen->log->written + offset, record, bytes) != 0;
            return MN_OK;
        }
    seen->wrong++; /* never written there */
    return MN_OK;
}

/* What was lost is told by the ids that it touched. */
static enum mn_status see_lost(void *context, const struct mn_wal_segment *segment, const struct mn_wal_lost *lost)
{
    struct seen *seen = context;
    seen->lost++;
    for (uint32_t i = 0; i < lost->touched; i++) {
        bool known = false;
        for (uint32_t r = 0; r < seen->log->records; r++)
            if (seen->log->record_id[r] == lost->touches[i].lo) {
                seen->named[r] = known = true;
                seen->wrong += seen->visited[r];
            }
        seen->wrong += !known || lost->touches[i].space_hash != mn_str_hash(text_str("s"));
    }
    return MN_OK;
}

static enum mn_status see_damage(void *context, const struct mn_wal_segment *segment,
                                 const struct mn_wal_damage *damage)
{
    struct seen *seen = context;
    seen->damages++;
    seen->salvaged += damage->salvaged;
    seen->intact += damage->intact;
    assert_true(damage->offset + damage->bytes <= segment->bytes);
    assert_non_null(damage->what);
    return MN_OK;
}

/* wants: of mn_wal_visitor; may be NULL. */
static struct seen scan_wanted(struct log *log, const struct mn_wal_segment *segment,
                               bool (*wants)(void *context, const struct mn_batch_footer *footer),
                               struct mn_wal_extent *extent)
{
    struct seen seen = {.log = log};
    struct mn_wal_visitor visitor = {
        .context = &seen, .record = see_record, .lost = see_lost, .damage = see_damage, .wants = wants};
    ok(mn_wal_scan(segment, &visitor, extent));
    return seen;
}

static struct seen scan_segment(struct log *log, const struct mn_wal_segment *segment, struct mn_wal_extent *extent)
{
    return scan_wanted(log, segment, NULL, extent);
}

static struct seen scan(struct log *log, struct mn_wal_extent *extent)
{
    struct mn_wal_segment segment;
    ok(mn_wal_map(&segment, &log->f->store, 1));
    struct seen seen = scan_segment(log, &segment, extent);
    mn_wal_unmap(&segment);
    return seen;
}

static uint32_t verify(struct log *log, uint64_t durable_seq)
{
    uint32_t damaged = 0;
    uint64_t bytes = 0;
    ok(mn_wal_verify(&log->f->store, 1, durable_seq, &bytes, count_damage, &damaged));
    return damaged;
}

/* ---- tests ---- */

static void an_undamaged_segment_is_read_back(void **state)
{
    struct log *log = log_new();
    struct mn_wal_extent extent;
    struct seen seen = scan(log, &extent);
    assert_int_equal(seen.records, log->records);
    assert_int_equal(seen.wrong + seen.lost + seen.damages, 0);
    assert_int_equal(extent.batches, BATCHES);
    assert_int_equal(extent.last_seq, log->batch_seq[BATCHES - 1]);
    assert_int_equal(extent.last_durable, log->batch_seq[BATCHES - 2]);
    assert_int_equal(extent.end, log->batch_at[BATCHES]);
    assert_int_equal(extent.last_wall_ns, 6);
    assert_int_equal(verify(log, UINT64_MAX), 0);
    log_free(log);
}

static bool wants_the_third(void *context, const struct mn_batch_footer *footer)
{
    const struct seen *seen = context;
    return footer->first_seq == seen->log->batch_seq[1] + 1;
}

/* Nothing of them is read but header and footer; the walk is the same. */
static void unwanted_batches_are_passed_over(void **state)
{
    struct log *log = log_new();
    struct mn_wal_segment segment;
    struct mn_wal_extent all, some;
    scan(log, &all);
    for (uint32_t hit = 0; hit < BATCHES; hit++) {
        log->live[log->batch_at[hit] + sizeof(struct mn_batch_header) + 70] ^= 1; /* in its first record */
        ok(mn_wal_map(&segment, &log->f->store, 1));
        struct seen seen = scan_wanted(log, &segment, wants_the_third, &some);
        mn_wal_unmap(&segment);
        assert_int_equal(seen.wrong, 0);
        assert_int_equal(seen.records + seen.lost, 5); /* 1 + 2 * 2 */
        assert_int_equal(seen.damages, hit == 2);
        assert_int_equal(some.batches, all.batches);
        assert_int_equal(some.end, all.end);
        assert_int_equal(some.last_seq, all.last_seq);
        assert_int_equal(some.last_durable, all.last_durable);
        assert_int_equal(some.last_wall_ns, all.last_wall_ns);
        heal(log);
    }
    log_free(log);
}

/* Which batch an offset lies in; BATCHES: none. */
static uint32_t batch_of(const struct log *log, uint64_t offset)
{
    for (uint32_t b = 0; b < BATCHES; b++)
        if (offset >= log->batch_at[b] && offset < log->batch_at[b + 1])
            return b;
    return BATCHES;
}

/* One flipped bit costs one record at most: the one that it is in. */
static void check_flip(struct log *log, const struct mn_wal_segment *segment, uint64_t offset)
{
    struct mn_wal_extent extent;
    struct seen seen = scan_segment(log, segment, &extent);
    uint32_t missing = 0;
    assert_int_equal(seen.wrong, 0);
    for (uint32_t i = 0; i < log->records; i++) {
        const struct mn_record *r = (const void *)(log->written + log->record_at[i]);
        bool hit = offset >= log->record_at[i] && offset < log->record_at[i] + sizeof *r + r->payload_bytes;
        missing += !seen.visited[i] && !hit;
    }
    uint32_t batch = batch_of(log, offset);
    if (batch == BATCHES - 1 && missing > 0) {
        /* The last batch, in a block with a sector of zeros: it cannot be told from one that was being written. */
        assert_int_equal(missing + 1, 1 + 2 * batch);
        assert_int_equal(seen.salvaged, 0);
    } else {
        assert_int_equal(missing, 0);
    }
}

static void each_flipped_bit_is_found_and_costs_one_record_at_most(void **state)
{
    struct log *log = log_new();
    struct mn_wal_segment copy;
    uint32_t unseen = 0, flips = 0;
    ok(mn_wal_map(&copy, &log->f->store, 1));
    for (uint64_t at = 0; at < SEGMENT_BYTES; at++) {
        bool used = at < log->batch_at[BATCHES];
        for (int bit = 0; bit < 8; bit++) {
            /* Behind the end and in the padding all bytes are alike: one bit of each is enough. */
            if ((!used || log->written[at] == 0) && bit != (int)(at % 8))
                continue;
            log->live[at] ^= (uint8_t)(1 << bit);
            check_flip(log, &copy, at);
            if (bit == (int)(at % 8)) {
                flips++;
                unseen += verify(log, UINT64_MAX) == 0;
            }
            log->live[at] ^= (uint8_t)(1 << bit);
        }
    }
    mn_wal_unmap(&copy);
    assert_int_equal(flips, SEGMENT_BYTES);
    assert_int_equal(unseen, 0);
    log_free(log);
}

/* The last write reaches the disk in part: a prefix of 512-byte sectors, or any subset of them. */
static void tear_the_last_batch(struct log *log)
{
    struct mn_wal_extent extent;
    uint64_t begin = log->batch_at[BATCHES - 1], end = log->batch_at[BATCHES];
    uint32_t before = log->records - (1 + (BATCHES - 1) * 2);
    uint32_t sectors = (uint32_t)((end - begin) / 512);
    for (uint32_t round = 0; round < 4000; round++) {
        uint32_t landed = 0, needed = 0;
        heal(log);
        for (uint32_t s = 0; s < sectors; s++) {
            uint8_t *sector = log->live + begin + s * 512;
            bool zero = true;
            for (int i = 0; i < 512; i++)
                zero &= sector[i] == 0;
            bool lands = round < sectors ? s < round : fixture_random(log->f, 100) < round % 100;
            needed += !zero;
            landed += !zero && lands;
            if (!lands)
                memset(sector, 0, 512);
        }
        struct seen seen = scan(log, &extent);
        assert_int_equal(seen.wrong, 0);
        bool there = seen.records == log->records;
        if (!there) {
            assert_int_equal(seen.records, before);
            assert_int_equal(seen.salvaged, 0);
            assert_int_equal(extent.last_seq, log->batch_seq[BATCHES - 2]);
        }
        assert_int_equal(there, landed == needed);
        assert_int_equal(verify(log, log->batch_seq[BATCHES - 2]), 0); /* above durable_seq nothing is judged */
    }
    log_free(log);
}

static void a_torn_batch_is_absent_as_a_whole(void **state)
{
    tear_the_last_batch(log_new());
}

static void a_torn_batch_with_a_footer_apart_is_absent_as_a_whole(void **state)
{
    tear_the_last_batch(log_new_with(true));
}

/* Sectors of a batch that a later one knew durable: what is whole is salvaged, the rest reported. */
static void holes_in_durable_batches_are_salvaged(void **state)
{
    struct log *log = log_new();
    struct mn_wal_extent extent;
    for (uint64_t at = log->batch_at[0]; at < log->batch_at[BATCHES - 1]; at += 512) {
        heal(log);
        if (memcmp(log->live + at, log->live + SEGMENT_BYTES - MN_WAL_BLOCK - 512, 512) == 0)
            continue; /* zeros as it is */
        memset(log->live + at, 0, 512);
        struct seen seen = scan(log, &extent);
        assert_int_equal(seen.wrong, 0);
        assert_int_equal(seen.damages, 1);
        assert_int_equal(seen.salvaged, 1);
        assert_int_equal(extent.last_seq, log->batch_seq[BATCHES - 1]);
        for (uint32_t i = 0; i < log->records; i++) {
            const struct mn_record *r = (const void *)(log->written + log->record_at[i]);
            uint64_t record_end = log->record_at[i] + sizeof *r + r->payload_bytes;
            bool hit = at < record_end && at + 512 > log->record_at[i] &&
                       memcmp(log->live + log->record_at[i], r, record_end - log->record_at[i]) != 0;
            assert_int_equal(seen.visited[i], !hit);
        }
        assert_true(verify(log, UINT64_MAX) > 0);
    }
    log_free(log);
}

static void whole_blocks_lost_repeated_or_swapped(void **state)
{
    struct log *log = log_new();
    struct mn_wal_extent extent;
    uint32_t blocks = (uint32_t)(log->batch_at[BATCHES] / MN_WAL_BLOCK);
    for (uint32_t a = 1; a < blocks; a++) {
        heal(log);
        memset(log->live + a * MN_WAL_BLOCK, 0, MN_WAL_BLOCK);
        assert_int_equal(scan(log, &extent).wrong, 0);
        assert_true(verify(log, UINT64_MAX) > 0);
        for (uint32_t b = 1; b <= blocks; b++) {
            if (a == b)
                continue;
            heal(log);
            memcpy(log->live + b * MN_WAL_BLOCK, log->written + a * MN_WAL_BLOCK, MN_WAL_BLOCK);
            struct seen seen = scan(log, &extent);
            assert_int_equal(seen.wrong, 0);
            assert_true(seen.damages > 0);
            memcpy(log->live + a * MN_WAL_BLOCK, log->written + b * MN_WAL_BLOCK, MN_WAL_BLOCK);
            assert_int_equal(scan(log, &extent).wrong, 0);
            assert_true(verify(log, UINT64_MAX) > 0);
        }
    }
    log_free(log);
}

static void random_garbage_is_never_taken_for_a_record(void **state)
{
    struct log *log = log_new();
    struct mn_wal_extent extent;
    for (int round = 0; round < 3000; round++) {
        heal(log);
        for (uint32_t pieces = 1 + fixture_random(log->f, 4); pieces > 0; pieces--) {
            uint64_t at = MN_WAL_BLOCK + fixture_random(log->f, SEGMENT_BYTES - 2 * MN_WAL_BLOCK);
            uint64_t length = 1 + fixture_random(log->f, 1u << fixture_random(log->f, 13));
            for (uint64_t i = at; i < at + length && i < SEGMENT_BYTES - MN_WAL_BLOCK; i++)
                log->live[i] = round % 3 ? (uint8_t)fixture_random(log->f, 256) : 0xff;
        }
        assert_int_equal(scan(log, &extent).wrong, 0);
    }
    log_free(log);
}

/* Lengths that a checksum vouches for are still held against the segment: a header that somebody made. */
static void impossible_lengths_are_refused(void **state)
{
    struct log *log = log_new();
    struct mn_wal_segment segment;
    ok(mn_wal_map(&segment, &log->f->store, 1));
    uint32_t salt = segment.header.salt;
    mn_wal_unmap(&segment);
    const struct mn_batch_header *whole = (const void *)(log->written + log->batch_at[1]);
    uint64_t at = log->batch_at[1];
    assert_true(mn_batch_header_valid(whole, salt, at, SEGMENT_BYTES - MN_WAL_BLOCK));
    assert_false(mn_batch_header_valid(whole, salt, at + MN_WAL_BLOCK, SEGMENT_BYTES - MN_WAL_BLOCK)); /* misplaced */
    assert_false(mn_batch_header_valid(whole, salt + 1, at, SEGMENT_BYTES - MN_WAL_BLOCK));            /* stale */
    assert_false(mn_batch_header_valid(whole, salt, at, at + whole->bytes - MN_WAL_BLOCK));            /* cut off */
    const struct mn_record *r = (const void *)(log->written + log->record_at[1]);
    uint64_t record_end = log->record_at[1] + sizeof *r + r->payload_bytes;
    assert_true(mn_record_header_valid(r, salt, log->record_at[1], record_end));
    assert_false(mn_record_header_valid(r, salt, log->record_at[1], record_end - 1));
    assert_false(mn_record_header_valid(r, salt, log->record_at[1], log->record_at[1] + 100));
    log_free(log);
}

static void one_copy_of_the_segment_header_is_enough(void **state)
{
    struct log *log = log_new();
    struct mn_wal_extent extent;
    struct mn_wal_segment segment;
    memset(log->live, 0, MN_WAL_BLOCK);
    assert_int_equal(scan(log, &extent).records, log->records);
    assert_true(verify(log, UINT64_MAX) > 0);
    heal(log);
    memset(log->live + SEGMENT_BYTES - MN_WAL_BLOCK, 0xaa, MN_WAL_BLOCK);
    assert_int_equal(scan(log, &extent).records, log->records);
    assert_true(verify(log, UINT64_MAX) > 0);
    memset(log->live, 0xaa, MN_WAL_BLOCK);
    fails(MN_CORRUPT, mn_wal_map(&segment, &log->f->store, 1));
    assert_non_null(segment.base);
    mn_wal_unmap(&segment);
    assert_true(verify(log, UINT64_MAX) > 0);
    heal(log);
    log->f->store.uuid[3] ^= 1; /* of another store */
    fails(MN_CORRUPT, mn_wal_map(&segment, &log->f->store, 1));
    mn_wal_unmap(&segment);
    fails(MN_NOT_FOUND, mn_wal_map(&segment, &log->f->store, 2));
    mn_wal_unmap(&segment);
    log_free(log);
}

static void what_a_short_file_still_holds_is_read(void **state)
{
    struct log *log = log_new();
    struct mn_wal_extent extent;
    struct mn_wal_segment segment;
    munmap(log->live, SEGMENT_BYTES);
    log->live = NULL;
    for (int64_t bytes = SEGMENT_BYTES - 1; bytes >= 0; bytes -= 1021) {
        assert_int_equal(truncate(log->path, bytes), 0);
        assert_true(verify(log, UINT64_MAX) > 0);
        if (bytes < 2 * (int64_t)MN_WAL_BLOCK) {
            fails(MN_CORRUPT, mn_wal_map(&segment, &log->f->store, 1));
            assert_null(segment.base);
            continue;
        }
        struct seen seen = scan(log, &extent);
        assert_int_equal(seen.wrong, 0);
        assert_true(seen.damages > 0);
        uint32_t whole = 0;
        for (uint32_t b = 0; b < BATCHES; b++)
            whole += log->batch_at[b + 1] <= (uint64_t)bytes;
        assert_true(seen.records >= whole * whole); /* 1 + 3 + 5 + ... */
    }
    log->live = mmap(NULL, SEGMENT_BYTES, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    log_free(log);
}

/* A torn end is damage only as long as nothing says that the log went on without it. */
static void a_torn_end_that_was_gone_on_behind_is_no_damage(void **state)
{
    struct log *log = log_new();
    char path[MN_PATH_MAX];
    struct mn_wal next, last = {.number = 1};
    uint64_t end = log->batch_at[BATCHES];
    memset(log->live + end - MN_WAL_BLOCK, 0, MN_WAL_BLOCK); /* the footer of the last batch never came */
    assert_true(verify(log, UINT64_MAX) > 0);
    mn_store_wal_path(&log->f->store, path, 2);
    make_zero_file(path, SEGMENT_BYTES);
    last.last_seq = log->batch_seq[BATCHES - 2];
    ok(mn_wal_begin(&next, &log->f->store, 2, &last));
    mn_wal_end(&next);
    assert_int_equal(verify(log, UINT64_MAX), 0);
    assert_int_equal(truncate(path, 0), 0);
    assert_int_equal(truncate(path, SEGMENT_BYTES), 0);
    last.last_seq = log->batch_seq[BATCHES - 1]; /* it was acknowledged after all */
    ok(mn_wal_begin(&next, &log->f->store, 2, &last));
    mn_wal_end(&next);
    assert_true(verify(log, UINT64_MAX) > 0);
    log_free(log);
}

/* A prepared segment is zero; a first batch that landed without the headers in a power cut is no damage, a flipped bit
 * is. */
static void a_prepared_segment_is_verified(void **state)
{
    struct log *log = log_new();
    memset(log->live, 0, SEGMENT_BYTES);
    assert_int_equal(verify(log, UINT64_MAX), 0);
    for (uint64_t at = 0; at < SEGMENT_BYTES; at += 997) {
        log->live[at] = 0x10;
        assert_true(verify(log, UINT64_MAX) > 0);
        log->live[at] = 0;
    }
    memcpy(log->live + log->batch_at[1], log->written + log->batch_at[1], 8192);
    assert_int_equal(verify(log, UINT64_MAX), 0);
    log_free(log);
}

static void only_segment_files_are_listed_in_order(void **state)
{
    struct fixture *f = fixture_prepare();
    static const char *const names[] = {
        "00000010.wal", "00000002.wal", "123456789012.wal", "MARK", "00000003.wal.tmp", "x.wal", "LOCK", ".wal"};
    uint64_t *numbers;
    uint32_t count;
    ok(mn_wal_list(&f->store, &numbers, &count));
    assert_int_equal(count, 0);
    free(numbers);
    for (size_t i = 0; i < MN_ARRAY_LEN(names); i++) {
        char path[MN_PATH_MAX + 32];
        snprintf(path, sizeof path, "%s/wal/%s", f->dir, names[i]);
        make_zero_file(path, 0);
    }
    ok(mn_wal_list(&f->store, &numbers, &count));
    assert_int_equal(count, 3);
    assert_int_equal(numbers[0], 2);
    assert_int_equal(numbers[1], 10);
    assert_int_equal(numbers[2], UINT64_C(123456789012));
    free(numbers);
    fixture_free(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_undamaged_segment_is_read_back),
        cmocka_unit_test(unwanted_batches_are_passed_over),
        cmocka_unit_test(each_flipped_bit_is_found_and_costs_one_record_at_most),
        cmocka_unit_test(a_torn_batch_is_absent_as_a_whole),
        cmocka_unit_test(a_torn_batch_with_a_footer_apart_is_absent_as_a_whole),
        cmocka_unit_test(holes_in_durable_batches_are_salvaged),
        cmocka_unit_test(whole_blocks_lost_repeated_or_swapped),
        cmocka_unit_test(random_garbage_is_never_taken_for_a_record),
        cmocka_unit_test(impossible_lengths_are_refused),
        cmocka_unit_test(one_copy_of_the_segment_header_is_enough),
        cmocka_unit_test(what_a_short_file_still_holds_is_read),
        cmocka_unit_test(a_torn_end_that_was_gone_on_behind_is_no_damage),
        cmocka_unit_test(a_prepared_segment_is_verified),
        cmocka_unit_test(only_segment_files_are_listed_in_order),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
