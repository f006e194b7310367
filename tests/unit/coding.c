/*
 * coding.c - a store's tail and its coder (see coding.h).
 */
#include "tests/unit/coding.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>

_Thread_local bool coding_shm_full;
_Thread_local uint32_t coding_reservations;

/* Takes the place of the C library's in this program. */
int posix_fallocate(int fd, off_t offset, off_t length)
{
    coding_reservations++;
    if (coding_shm_full)
        return ENOSPC;
    return fallocate(fd, 0, offset, length) == 0 ? 0 : errno;
}

static struct mn_stats_page *page_of(struct fixture *f)
{
    return mn_stats_page(&f->instance.stats, 1);
}

uint64_t coding_statistic(struct fixture *f, enum mn_stat stat)
{
    return mn_stats_value(&f->instance.stats, stat);
}

struct coding coding_new(void)
{
    struct coding t = {.f = fixture_prepare(), .now = 1};
    t.f->settings.wal_segment_bytes = 4u << 20;
    fixture_start(t.f);
    ok(mn_tail_coder_open(&t.coder, &t.f->store, &t.f->instance, page_of(t.f)));
    ok(mn_reader_open(&t.reader, &t.f->store, &t.f->instance));
    coding_shm_full = false;
    return t;
}

void coding_free(struct coding *t)
{
    mn_reader_close(t->reader);
    mn_tail_coder_close(t->coder);
    fixture_free(t->f);
}

void coding_another_coder(struct coding *t)
{
    mn_tail_coder_close(t->coder);
    ok(mn_tail_coder_open(&t->coder, &t->f->store, &t->f->instance, page_of(t->f)));
}

void coding_code_all(struct coding *t)
{
    uint32_t worked = 1;
    for (int turns = 0; worked > 0; turns++) {
        assert_true(turns < 2000);
        ok(mn_tail_coder_turn(t->coder, t->now, &worked));
    }
}

void coding_put(struct coding *t, uint64_t first, uint64_t count)
{
    for (uint64_t id = first; id < first + count; id++)
        fixture_put(t->f, "s", id, id, "x");
    fixture_commit(t->f);
}

void coding_seal(struct coding *t)
{
    uint64_t seq;
    ok(mn_writer_seal(t->f->writer, &seq));
}

const struct mn_part *coding_pin(struct coding *t)
{
    mn_reader_unpin(t->reader);
    ok(mn_reader_pin(t->reader, 0, &t->snapshot));
    assert_true(t->snapshot.part_count > 0);
    return &t->snapshot.parts[0];
}

struct mn_codes_list coding_files(struct fixture *f)
{
    struct mn_codes_list list = {0};
    ok(mn_codes_list_make(&list, &f->store, &f->instance));
    return list;
}

uint32_t coding_count_files(struct fixture *f)
{
    struct mn_codes_list list = coding_files(f);
    free(list.names);
    return list.count;
}

struct mn_codes_name coding_only_file(struct fixture *f)
{
    struct mn_codes_list list = coding_files(f);
    assert_int_equal(list.count, 1);
    struct mn_codes_name name = list.names[0];
    free(list.names);
    return name;
}

void coding_expect_row(const struct fixture *f, const struct mn_part *part, uint32_t row, uint32_t lane,
                       const float *centroid, struct coding_expected *e)
{
    _Alignas(64) float x[CODING_WIDTH];
    const struct mn_kernels *kernels = mn_kernels_best();
    mn_codebook_rotate(part->ivf->codebook, kernels, mn_part_vector(part, row), mn_part_scale(part, row), x);
    mn_ivf_encode(kernels, f->store.metric, CODING_WIDTH, x, centroid, e->block, lane, e->codes8, &e->fine);
}

void coding_check_flat_of(const struct fixture *f, const struct mn_part *part, const struct mn_ivf *ivf)
{
    struct coding_expected e;
    assert_int_equal(ivf->codebook->width, CODING_WIDTH);
    assert_true(mn_ivf_flat(ivf));
    for (uint32_t row = ivf->first; row < ivf->rows; row++) {
        uint32_t lane = (row - ivf->first) % 32, block = (row - ivf->first) / 32;
        if (lane == 0)
            mn_ivf_clear_block(e.block, CODING_WIDTH);
        coding_expect_row(f, part, row, lane, NULL, &e);
        assert_memory_equal(ivf->codes8 + (size_t)row * CODING_WIDTH, e.codes8, CODING_WIDTH);
        assert_memory_equal(&ivf->fine[row], &e.fine, sizeof e.fine);
        if (lane == 31 || row + 1 == ivf->rows)
            assert_memory_equal(ivf->blocks + (size_t)block * mn_ivf_block_bytes(CODING_WIDTH), e.block,
                                mn_ivf_block_bytes(CODING_WIDTH));
    }
}

void coding_check_flat(const struct fixture *f, const struct mn_part *part)
{
    assert_int_equal(part->ivf->first, 0);
    coding_check_flat_of(f, part, part->ivf);
}
