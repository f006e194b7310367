/*
 * tail_coder_make.c - the files of the coder: made, filled with flat codes, and put in each other's place.
 *
 * The order of a replacement: next is ready, codes_gen tells of it, current is unlinked.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "engine/fault.h"
#include "engine/tail_coder_inside.h"

#define RESERVE_ROWS 1024u /* pages are reserved for so many rows at a time */

/* ---- life ---- */

void mn_tail_made_close(struct mn_tail_made *m)
{
    free(m->cluster);
    free(m->filled);
    if (m->begun && m->fd >= 0)
        close(m->fd);
    mn_tail_codes_unmap(&m->codes);
    *m = (struct mn_tail_made){0};
}

void mn_tail_codes_unlink(struct mn_tail_coder *c, const struct mn_codes_name *name)
{
    char text[96];
    mn_codes_name_text(text, name);
    unlinkat(c->instance->dir_fd, text, 0); /* one that cannot be removed now goes with the instance */
}

void mn_tail_made_remove(struct mn_tail_coder *c, struct mn_tail_made *m)
{
    if (m->codes.header)
        mn_tail_codes_unlink(c, &m->codes.name);
    mn_tail_made_close(m);
}

void mn_tail_made_begin(struct mn_tail_coder *c, struct mn_tail_made *m, uint32_t clustered)
{
    mn_tail_made_remove(c, m);
    *m = (struct mn_tail_made){.begun = true, .with = c->codebook->gen, .clustered = clustered, .fd = -1};
}

enum mn_status mn_tail_made_create(struct mn_tail_coder *c, const struct mn_tail_coded *k, struct mn_tail_made *m,
                                   uint32_t blocks, uint32_t shared)
{
    char text[96];
    const struct mn_codebook *codebook;
    struct mn_codes_name name = {k->key.instance_gen, k->key.wal_number, c->serial + 1};
    struct mn_codes_room room = {k->tail.header->rows_max, m->clustered, blocks, shared};
    c->serial++; /* given, whatever becomes of the file */
    MN_TRY(mn_codebook_open(&codebook, &c->store, c->codebook->gen));
    MN_TRY(mn_tail_codes_create(&m->codes, c->instance, &name, codebook, &room));
    mn_codes_name_text(text, &name);
    m->fd = openat(c->instance->dir_fd, text, O_RDWR | O_CLOEXEC);
    return m->fd >= 0 ? MN_OK : MN_FAIL_ERRNO("cannot open %s", text);
}

enum mn_status mn_tail_made_reserve(const struct mn_tail_made *m, uint64_t at, uint64_t bytes)
{
    if (bytes == 0)
        return MN_OK;
    errno = posix_fallocate(m->fd, (off_t)at, (off_t)bytes);
    return errno == 0 ? MN_OK : MN_FAIL_ERRNO("cannot reserve shared memory for codes (is /dev/shm full?)");
}

/* For flat rows up to `end` at least. */
static enum mn_status reserve_rows(struct mn_tail_made *m, uint32_t end)
{
    const struct mn_codes *h = m->codes.header;
    if (end <= m->reserved)
        return MN_OK;
    uint32_t flat = m->rows - m->clustered, first = m->clustered + flat / MN_IVF_LANES * MN_IVF_LANES;
    uint32_t last = h->rows_max - first > RESERVE_ROWS ? first + RESERVE_ROWS : h->rows_max;
    uint64_t block = (first - m->clustered) / MN_IVF_LANES, block_bytes = mn_ivf_block_bytes(h->width);
    uint64_t blocks = (last - m->clustered + MN_IVF_LANES - 1) / MN_IVF_LANES - block;
    MN_TRY(mn_tail_made_reserve(m, h->flat_at + block * block_bytes, blocks * block_bytes));
    MN_TRY(mn_tail_made_reserve(m, h->codes8_at + (uint64_t)first * h->width, (uint64_t)(last - first) * h->width));
    MN_TRY(mn_tail_made_reserve(m, h->fine_at + first * sizeof(struct mn_ivf_fine),
                                (last - first) * sizeof(struct mn_ivf_fine)));
    m->reserved = last;
    return MN_OK;
}

/* ---- coding ---- */

bool mn_tail_coded_rotate(const struct mn_tail_coder *c, const struct mn_tail_coded *k,
                          const struct mn_codebook *codebook, uint32_t row, float *out)
{
    const float *x = mn_part_vector(&k->part, row);
    if (x)
        mn_codebook_rotate(codebook, c->kernels, x, mn_part_scale(&k->part, row), out);
    return x != NULL;
}

void mn_tail_made_encode(const struct mn_tail_coder *c, const struct mn_tail_coded *k, const struct mn_tail_made *m,
                         uint32_t row, const float *centroid, uint8_t *block, uint32_t lane, uint32_t slot)
{
    const struct mn_codes *h = m->codes.header;
    uint8_t *base = m->codes.segment.base;
    struct mn_ivf_fine *fine = (struct mn_ivf_fine *)(void *)(base + h->fine_at) + slot;
    uint8_t *codes8 = base + h->codes8_at + (uint64_t)slot * h->width;
    if (mn_tail_coded_rotate(c, k, m->codes.codebook, row, c->rows)) {
        mn_ivf_encode(c->kernels, c->store.metric, h->width, c->rows, centroid, block, lane, codes8, fine);
    } else {
        memset(codes8, 128, h->width);
        *fine = (struct mn_ivf_fine){.add = MN_IVF_FAR};
    }
}

enum mn_status mn_tail_made_code(struct mn_tail_coder *c, const struct mn_tail_coded *k, struct mn_tail_made *m,
                                 uint32_t end, uint32_t *budget)
{
    const struct mn_codes *h = m->codes.header;
    uint64_t block_bytes = mn_ivf_block_bytes(h->width);
    end = end < h->rows_max ? end : h->rows_max;
    while (*budget > 0 && m->rows < end) {
        uint32_t first = m->rows, rows = end - first < MN_IVF_LANES ? end - first : MN_IVF_LANES;
        if (rows < MN_IVF_LANES && !k->sealed)
            break;
        MN_TRY(reserve_rows(m, first + rows));
        uint64_t number = (first - m->clustered) / MN_IVF_LANES;
        uint8_t *block = (uint8_t *)m->codes.segment.base + h->flat_at + number * block_bytes;
        mn_ivf_clear_block(block, h->width);
        for (uint32_t i = 0; i < rows; i++)
            mn_tail_made_encode(c, k, m, first + i, NULL, block, i, first + i);
        m->rows = first + rows;
        MN_FAULT_POINT(codes_coded);
        /* Release: whoever sees the count sees the codes below it. */
        atomic_store_explicit(&m->codes.header->rows, m->rows, memory_order_release);
        *budget -= rows < *budget ? rows : *budget;
    }
    return MN_OK;
}

/* ---- the next file ---- */

/* From here on readers find `next`, and nobody finds `current`. */
static void replace(struct mn_tail_coder *c, struct mn_tail_coded *k)
{
    MN_FAULT_POINT(codes_made);
    mn_segment_publish(&k->next.codes.segment);
    /* Release, and before the unlink: a reader that has seen the new number finds the new file; one that has not may
     * miss both for one pin, and looks again at its next. */
    atomic_store_explicit(&c->instance->control->codes_gen, k->next.codes.name.serial, memory_order_release);
    MN_FAULT_POINT(codes_published);
    mn_tail_made_remove(c, &k->current);
    k->current = k->next;
    k->next = (struct mn_tail_made){0};
}

enum mn_status mn_tail_next_step(struct mn_tail_coder *c, struct mn_tail_coded *k, uint32_t rows, uint32_t *worked)
{
    struct mn_tail_made *m = &k->next;
    uint32_t budget = MN_TAIL_CODER_TURN_ROWS;
    *worked = MN_TAIL_CODER_STEP_ROWS;
    if (!mn_tail_clusters_made(m))
        return mn_tail_clusters_step(c, k);
    if (!m->codes.header)
        MN_TRY(mn_tail_made_create(c, k, m, 0, 0));
    MN_TRY(mn_tail_made_code(c, k, m, rows, &budget));
    if (m->rows > 0 && m->rows >= k->current.rows)
        replace(c, k);
    return MN_OK;
}
