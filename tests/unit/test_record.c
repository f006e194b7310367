/*
 * test_record.c - a batch encoded and read back, field by field; sizes promised before are the sizes made.
 */
#include "tests/unit/store_fixture.h"

#include <stdlib.h>

#include "engine/crc.h"
#include "engine/record.h"

#define BUFFER (4u << 20)

static struct mn_batch make_batch(uint64_t offset, uint32_t salt)
{
    struct mn_batch batch = {.bytes_max = BUFFER, .records_max = 5000};
    batch.data = aligned_alloc(64, BUFFER);
    memset(batch.data, 0xee, BUFFER); /* what was there before must not show */
    batch.record_at = malloc(batch.records_max * sizeof *batch.record_at);
    mn_batch_begin(&batch, offset, salt);
    return batch;
}

static void free_batch(struct mn_batch *batch)
{
    free(batch->data);
    free(batch->record_at);
}

static void a_record_is_read_back_field_by_field(void **state)
{
    struct mn_batch batch = make_batch(8192, 99);
    float vector[3] = {1, 2, 3};
    struct mn_str tags[3] = {text_str("red"), text_str(""), text_str("a longer tag")};
    struct mn_record record = {.op = MN_RECORD_PUT,
                               .flags = MN_RECORD_ASSIGNED,
                               .seq = 12,
                               .wall_ns = -5,
                               .id = uuid_id(7, 8),
                               .space_hash = 44,
                               .at = -1,
                               .expires = 77,
                               .confidence = 0.5f,
                               .scale = 0.25f};
    struct mn_record_parts parts = {.vector = vector,
                                    .vector_bytes = sizeof vector,
                                    .space = text_str("space"),
                                    .meta = text_str("meta!"),
                                    .content = text_str("content"),
                                    .tags = tags,
                                    .tag_count = 3,
                                    .content_flags = MN_CONTENT_BIN};
    uint64_t offset = mn_batch_add(&batch, &record, &parts);
    assert_int_equal(offset, 8192 + sizeof(struct mn_batch_header));
    const struct mn_record *r = (const void *)(batch.data + offset - 8192);
    struct mn_record_fields f = mn_record_fields(r);
    const char *base = (const char *)r;
    assert_true(mn_record_header_valid(r, 99, offset, offset + sizeof *r + r->payload_bytes));
    assert_true(mn_record_payload_valid(r, 99, offset));
    assert_int_equal(r->seq, 12);
    assert_int_equal(r->flags, MN_RECORD_ASSIGNED);
    assert_true(mn_id_equal(&r->id, &record.id));
    assert_true(r->at == -1 && r->expires == 77 && r->wall_ns == -5 && r->confidence == 0.5f && r->scale == 0.25f);
    assert_int_equal((f.vector + offset) % 64, 0);
    assert_memory_equal(base + f.vector, vector, sizeof vector);
    assert_memory_equal(base + f.space, "space", 5);
    assert_memory_equal(base + f.tags, "\3\0red\0\0\14\0a longer tag", 3 * 2 + 3 + 12);
    assert_int_equal(r->tags_bytes, 3 * 2 + 3 + 12);
    assert_memory_equal(base + f.meta, "meta!", 5);
    assert_memory_equal(base + f.content, "content", 7);
    assert_int_equal(MN_CONTENT_LENGTH(r->content_bytes), 7);
    assert_true(r->content_bytes & MN_CONTENT_BIN);
    uint64_t end = f.content + 7;
    for (; end < sizeof *r + r->payload_bytes; end++)
        assert_int_equal(base[end], 0);
    for (uint32_t i = f.vector + sizeof vector; i < f.space; i++)
        assert_int_equal(base[i], 0);
    free_batch(&batch);
}

/* Random batches: sizes are what mn_record_bytes and mn_batch_bytes said, and every check passes. */
static void sizes_are_what_was_promised(void **state)
{
    struct fixture random = {.random = 5};
    static char bytes[5000];
    for (int round = 0; round < 300; round++) {
        uint64_t offset = MN_WAL_BLOCK * (1 + fixture_random(&random, 100)), total = 0, chain = 5;
        uint32_t salt = fixture_random(&random, UINT32_MAX),
                 count = 1 + fixture_random(&random, round % 10 ? 20 : 2000);
        struct mn_batch batch = make_batch(offset, salt);
        for (uint32_t i = 0; i < count; i++) {
            uint32_t dim = fixture_random(&random, 40), content = fixture_random(&random, count > 100 ? 300 : 5000);
            struct mn_record record = {.op = MN_RECORD_PUT, .seq = 10 + i, .id = number_id(1000 + i)};
            struct mn_record_parts parts = {
                .vector = bytes, .vector_bytes = dim * 4, .space = text_str("s"), .content = {bytes, content}};
            uint64_t before = batch.at;
            mn_batch_add(&batch, &record, &parts);
            assert_int_equal(batch.at - before, mn_record_bytes(dim, content + 1));
            total += batch.at - before;
        }
        uint64_t made = mn_batch_finish(&batch, 9, 3, &chain);
        assert_true(made <= mn_batch_bytes(total, count, count));
        assert_true(made + MN_WAL_BLOCK >= mn_batch_bytes(total, count, count)); /* a footer by itself takes a block */
        assert_int_equal(made % MN_WAL_BLOCK, 0);
        const struct mn_batch_header *h = (const void *)batch.data;
        assert_true(mn_batch_header_valid(h, salt, offset, offset + made));
        assert_int_equal(h->first_seq, 10);
        assert_int_equal(h->last_seq, 9 + count);
        assert_int_equal(h->durable_seq, 9);
        assert_int_equal(h->prev_chain, 5);
        const struct mn_batch_footer *footer = (const void *)(batch.data + h->footer_at);
        assert_true(mn_batch_footer_valid(footer, salt, offset, offset + h->footer_at, h->footer_bytes));
        assert_false(mn_batch_footer_valid(footer, salt, offset, offset + h->footer_at, h->footer_bytes - 1));
        assert_int_equal(footer->chain, chain);
        assert_int_equal(footer->touched, count);
        assert_int_equal(footer->records_end, h->footer_at);
        const uint32_t *offsets = mn_footer_records(footer);
        for (uint32_t i = 0; i < count; i++) {
            const struct mn_record *r = (const void *)(batch.data + offsets[i]);
            assert_true(mn_record_header_valid(r, salt, offset + offsets[i], offset + made));
            assert_int_equal(r->seq, 10 + i);
            assert_int_equal(mn_footer_touches(footer)[i].lo, 1000 + i);
            assert_int_equal(mn_footer_touches(footer)[i].record, i);
        }
        for (uint64_t i = (uint64_t)h->footer_at + h->footer_bytes; i < made; i++)
            assert_int_equal(batch.data[i], 0);
        free_batch(&batch);
    }
}

/* A right checksum does not make a footer of a place where none can begin. Found by tests/fuzz/fuzz_log. */
static void a_footer_begins_where_records_do(void **state)
{
    struct mn_batch batch = make_batch(MN_WAL_BLOCK, 7);
    struct mn_record record = {.op = MN_RECORD_PUT, .seq = 1, .id = number_id(1)};
    uint64_t chain = 0;
    mn_batch_add(&batch, &record, &(struct mn_record_parts){.space = text_str("s")});
    uint64_t made = mn_batch_finish(&batch, 1, 3, &chain);
    struct mn_batch_header *h = (void *)batch.data;
    for (uint32_t by = 0; by < MN_RECORD_ALIGN; by++) {
        h->footer_at += by;
        h->crc = mn_crc32c(7 ^ MN_WAL_BLOCK, h, offsetof(struct mn_batch_header, crc));
        assert_int_equal(mn_batch_header_valid(h, 7, MN_WAL_BLOCK, MN_WAL_BLOCK + made), by == 0);
        h->footer_at -= by;
    }
    free_batch(&batch);
}

/* No block holds both a record that takes something away and the ids that it takes. */
static void what_is_taken_away_stands_twice(void **state)
{
    struct mn_id ids[3] = {number_id(5), uuid_id(6, 7), number_id(8)};
    for (int how = 0; how < 3; how++) { /* a put, one that replaces, a forget */
        struct mn_batch batch = make_batch(4096, 7);
        uint64_t chain = 0;
        struct mn_record record = {.op = MN_RECORD_PUT, .seq = 3, .id = ids[0], .space_hash = 44};
        struct mn_record_parts parts = {.space = text_str("s")};
        if (how == 2) {
            record.op = MN_RECORD_FORGET;
            record.flags = 2;
            parts.content = (struct mn_str){(const char *)ids, sizeof ids};
        }
        mn_batch_add(&batch, &record, &parts);
        batch.takes |= how == 1;
        assert_int_equal(mn_batch_finish(&batch, 0, 0, &chain), how == 0 ? 4096 : 8192);
        const struct mn_batch_header *h = (const void *)batch.data;
        const struct mn_batch_footer *footer = (const void *)(batch.data + h->footer_at);
        assert_true(mn_batch_footer_valid(footer, 7, 4096, 4096 + h->footer_at, h->footer_bytes));
        assert_int_equal(h->footer_at, how == 0 ? footer->records_end : 4096);
        assert_int_equal(footer->touched, how == 2 ? 3 : 1);
        for (uint32_t i = 0; i < footer->touched; i++) {
            const struct mn_batch_touch *touch = &mn_footer_touches(footer)[i];
            struct mn_id id = mn_touch_id(touch);
            assert_true(mn_id_equal(&id, &ids[i]));
            assert_int_equal(touch->space_hash, 44);
            assert_int_equal(touch->op, record.op);
            assert_int_equal(touch->flags, record.flags);
        }
        free_batch(&batch);
    }
}

static void the_chain_depends_on_all_before(void **state)
{
    const uint32_t crcs[] = {1, 2, 3}, swapped[] = {2, 1, 3};
    uint64_t chain = mn_batch_chain(7, crcs, 3);
    assert_true(chain == mn_batch_chain(7, crcs, 3));
    assert_true(chain != mn_batch_chain(8, crcs, 3));
    assert_true(chain != mn_batch_chain(7, crcs, 2));
    assert_true(chain != mn_batch_chain(7, swapped, 3));
}

static void a_segment_header_belongs_to_one_place(void **state)
{
    struct mn_wal_header h = {
        .magic = MN_WAL_MAGIC, .format = MN_WAL_FORMAT, .store_uuid = "0123456789abcde", .number = 7, .bytes = 65536};
    uint8_t uuid[16];
    memcpy(uuid, h.store_uuid, 16);
    mn_wal_header_seal(&h);
    assert_true(mn_wal_header_valid(&h, uuid, 7, 65536));
    assert_false(mn_wal_header_valid(&h, uuid, 8, 65536));
    assert_false(mn_wal_header_valid(&h, uuid, 7, 65537));
    uuid[0]++;
    assert_false(mn_wal_header_valid(&h, uuid, 7, 65536));
    uuid[0]--;
    for (size_t bit = 0; bit < sizeof h * 8; bit++) {
        ((uint8_t *)&h)[bit / 8] ^= (uint8_t)(1 << bit % 8);
        assert_false(mn_wal_header_valid(&h, uuid, 7, 65536));
        ((uint8_t *)&h)[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_record_is_read_back_field_by_field),  cmocka_unit_test(sizes_are_what_was_promised),
        cmocka_unit_test(what_is_taken_away_stands_twice),       cmocka_unit_test(the_chain_depends_on_all_before),
        cmocka_unit_test(a_segment_header_belongs_to_one_place), cmocka_unit_test(a_footer_begins_where_records_do),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
