/*
 * tail_codes.c - names, layout and mapping of the files with codes of tail chunks.
 */
#include "engine/tail_codes.h"

#include <stdio.h>
#include <stdlib.h>

#define PAGE 4096u

/* ---- names ---- */

void mn_codes_name_text(char text[96], const struct mn_codes_name *name)
{
    snprintf(text, 96, "codes.%llu.%llu.%llu", (unsigned long long)name->instance_gen,
             (unsigned long long)name->wal_number, (unsigned long long)name->serial);
}

bool mn_codes_name_parse(const char *text, struct mn_codes_name *name)
{
    unsigned long long gen, number, serial;
    char same[96];
    if (sscanf(text, "codes.%llu.%llu.%llu", &gen, &number, &serial) != 3)
        return false;
    *name = (struct mn_codes_name){gen, number, serial};
    mn_codes_name_text(same, name);
    return strcmp(same, text) == 0;
}

static enum mn_status add_name(void *context, const char *text)
{
    struct mn_codes_list *list = context;
    struct mn_codes_name name;
    if (!mn_codes_name_parse(text, &name))
        return MN_OK;
    if (list->count == list->max) {
        uint32_t max = list->max ? list->max * 2 : 32;
        struct mn_codes_name *names = realloc(list->names, max * sizeof *names);
        if (!names)
            return MN_FAIL(MN_INTERNAL, "no memory for a list of codes");
        list->names = names;
        list->max = max;
    }
    list->names[list->count++] = name;
    return MN_OK;
}

enum mn_status mn_codes_list_make(struct mn_codes_list *list, const struct mn_store *store,
                                  const struct mn_instance *instance)
{
    list->count = 0;
    return store->io->list(instance->path, add_name, list);
}

const struct mn_codes_name *mn_codes_list_find(const struct mn_codes_list *list, uint64_t instance_gen,
                                               uint64_t wal_number)
{
    const struct mn_codes_name *best = NULL;
    for (uint32_t i = 0; i < list->count; i++) {
        const struct mn_codes_name *name = &list->names[i];
        if (name->instance_gen == instance_gen && name->wal_number == wal_number &&
            (!best || name->serial > best->serial))
            best = name;
    }
    return best;
}

/* ---- layout ---- */

static uint64_t blocks_of(uint32_t rows)
{
    return (rows + UINT64_C(31)) / MN_IVF_LANES;
}

/* Where everything lies, from the numbers that decide it: width, clusters, clustered, rows_max, blocks, shared. */
static void plan(struct mn_codes *h, uint64_t *bytes)
{
    uint64_t at = sizeof(struct mn_codes), block_bytes = mn_ivf_block_bytes(h->width);
    uint64_t directory = mn_round_up(((uint64_t)h->clusters + 1) * sizeof(uint32_t), MN_LINE);
    uint64_t rows = mn_round_up((uint64_t)h->clustered * sizeof(uint32_t), MN_LINE);
    if (h->clustered > 0) {
        h->first_slot_at = at;
        h->first_block_at = h->first_slot_at + directory;
        h->rest_at = h->first_block_at + directory;
        h->homes_at = h->rest_at + directory;
        h->slots_at = h->homes_at + (uint64_t)h->shared * MN_IVF_LANES * sizeof(uint32_t);
        h->order_at = h->slots_at + rows;
        at = h->order_at + rows;
    }
    h->blocks_at = mn_round_up(at, PAGE);
    h->flat_at = mn_round_up(h->blocks_at + h->blocks * block_bytes, PAGE);
    h->codes8_at = mn_round_up(h->flat_at + blocks_of(h->rows_max - h->clustered) * block_bytes, PAGE);
    h->fine_at = mn_round_up(h->codes8_at + (uint64_t)h->rows_max * h->width, PAGE);
    *bytes = mn_round_up(h->fine_at + (uint64_t)h->rows_max * sizeof(struct mn_ivf_fine), PAGE);
}

static struct mn_segment_identity identity_of(const struct mn_instance *instance)
{
    struct mn_segment_identity identity = instance->identity;
    identity.magic = MN_MAGIC_CODES;
    identity.fingerprint = mn_engine_fingerprint();
    return identity;
}

/* Whether the header describes this very file: then no offset leads out of it. */
static bool laid_out_well(const struct mn_tail_codes *codes, const struct mn_store *store)
{
    if (codes->segment.bytes < sizeof(struct mn_codes))
        return false;
    const struct mn_codes *h = codes->segment.base;
    struct mn_codes should = {.width = h->width,
                              .clusters = h->clusters,
                              .clustered = h->clustered,
                              .rows_max = h->rows_max,
                              .blocks = h->blocks,
                              .shared = h->shared};
    uint64_t bytes;
    if (h->clustered > h->rows_max)
        return false;
    plan(&should, &bytes);
    return h->instance_gen == codes->name.instance_gen && h->wal_number == codes->name.wal_number &&
           h->width == MN_CODEBOOK_WIDTH(store->dim) && h->clusters > 0 && bytes == codes->segment.bytes &&
           (h->clustered > 0) == (h->clusters > 1) && (h->clustered > 0 || h->blocks == 0) && h->shared <= h->blocks &&
           h->first_slot_at == should.first_slot_at && h->first_block_at == should.first_block_at &&
           h->rest_at == should.rest_at && h->homes_at == should.homes_at && h->slots_at == should.slots_at &&
           h->order_at == should.order_at && h->blocks_at == should.blocks_at && h->flat_at == should.flat_at &&
           h->codes8_at == should.codes8_at && h->fine_at == should.fine_at;
}

/* Of the rows by cluster: all of them are there, and their directory holds. */
static bool directory_holds(const struct mn_ivf *ivf, const struct mn_codes *h)
{
    return atomic_load_explicit(&h->rows, memory_order_acquire) >= ivf->rows &&
           ivf->block_count - ivf->first_block[ivf->clusters] == h->shared && mn_ivf_holds(ivf);
}

static void adopt(struct mn_tail_codes *codes)
{
    uint8_t *base = codes->segment.base;
    const struct mn_codes *h = codes->header = codes->segment.base;
    codes->ivf = (struct mn_ivf){
        .codebook = codes->codebook,
        .clusters = h->clusters,
        .rows = h->clustered,
        .block_count = h->blocks,
        .blocks = base + h->blocks_at,
        .codes8 = base + h->codes8_at,
        .fine = (const struct mn_ivf_fine *)(const void *)(base + h->fine_at),
    };
    codes->flat = codes->ivf;
    codes->flat.clusters = 1;
    codes->flat.first = codes->ivf.rows;
    codes->flat.blocks = base + h->flat_at;
    if (codes->ivf.rows > 0) {
        codes->ivf.first_slot = (const uint32_t *)(const void *)(base + h->first_slot_at);
        codes->ivf.first_block = (const uint32_t *)(const void *)(base + h->first_block_at);
        codes->ivf.rest = (const uint32_t *)(const void *)(base + h->rest_at);
        codes->ivf.homes = (const uint32_t *)(const void *)(base + h->homes_at);
        codes->ivf.slots = (const uint32_t *)(const void *)(base + h->slots_at);
        codes->ivf.order = (const uint32_t *)(const void *)(base + h->order_at);
    }
}

/* ---- mapping ---- */

static enum mn_status check(struct mn_tail_codes *codes, const struct mn_store *store, const char *text)
{
    const struct mn_codes *h = codes->segment.base;
    if (!laid_out_well(codes, store))
        return MN_FAIL(MN_CORRUPT, "%s is not laid out as it should be", text);
    MN_TRY(mn_codebook_open(&codes->codebook, store, h->codebook));
    adopt(codes); /* and from here on what was adopted is looked at: the header is shared */
    bool clustered = codes->ivf.rows > 0;
    if (codes->codebook->width != h->width || (clustered && codes->codebook->clusters != codes->ivf.clusters))
        return MN_FAIL(MN_CORRUPT, "%s does not fit its codebook", text);
    if (clustered && !directory_holds(&codes->ivf, h))
        return MN_FAIL(MN_CORRUPT, "the directory of %s is damaged", text);
    return MN_OK;
}

enum mn_status mn_tail_codes_map(struct mn_tail_codes *codes, const struct mn_store *store,
                                 struct mn_instance *instance, const struct mn_codes_name *name, bool writable)
{
    char text[96];
    struct mn_segment_identity identity = identity_of(instance);
    mn_codes_name_text(text, name);
    *codes = (struct mn_tail_codes){.name = *name};
    MN_TRY(mn_segment_map(&codes->segment, instance->dir_fd, text, writable, &identity));
    enum mn_status status = check(codes, store, text);
    if (status != MN_OK)
        mn_tail_codes_unmap(codes);
    return status;
}

void mn_tail_codes_unmap(struct mn_tail_codes *codes)
{
    if (codes->codebook)
        mn_codebook_close(codes->codebook);
    mn_segment_unmap(&codes->segment);
    *codes = (struct mn_tail_codes){0};
}

static const struct mn_ivf *look_at_flat(struct mn_tail_codes *codes, uint32_t rows)
{
    struct mn_ivf *flat = &codes->flat;
    uint32_t count = rows - flat->first;
    codes->flat_blocks[1] = count / MN_IVF_LANES;
    codes->flat_slots[0] = flat->first;
    codes->flat_slots[1] = rows;
    codes->flat_rest = count % MN_IVF_LANES ? count - count % MN_IVF_LANES : MN_NONE;
    flat->rows = rows;
    flat->first_block = codes->flat_blocks;
    flat->first_slot = codes->flat_slots;
    flat->rest = &codes->flat_rest;
    flat->block_count = (uint32_t)blocks_of(count);
    return flat;
}

const struct mn_ivf *mn_tail_codes_look(struct mn_tail_codes *codes)
{
    /* Acquire: the codes of all rows below it are there, and the rows themselves were published before it. */
    uint32_t rows = atomic_load_explicit(&codes->header->rows, memory_order_acquire), clustered = codes->flat.first;
    if (rows == 0 || rows < clustered || rows > codes->header->rows_max)
        return NULL;
    const struct mn_ivf *flat = rows > clustered ? look_at_flat(codes, rows) : NULL;
    if (clustered == 0)
        return flat;
    codes->ivf.fresh = flat;
    return &codes->ivf;
}

enum mn_status mn_tail_codes_create(struct mn_tail_codes *codes, struct mn_instance *instance,
                                    const struct mn_codes_name *name, const struct mn_codebook *codebook,
                                    const struct mn_codes_room *room)
{
    char text[96];
    uint64_t bytes;
    struct mn_segment_identity identity = identity_of(instance);
    struct mn_codes h = {.instance_gen = name->instance_gen,
                         .wal_number = name->wal_number,
                         .codebook = codebook->gen,
                         .width = codebook->width,
                         .clusters = room->clustered > 0 ? codebook->clusters : 1,
                         .clustered = room->clustered,
                         .rows_max = room->rows_max,
                         .blocks = room->blocks,
                         .shared = room->shared};
    plan(&h, &bytes);
    mn_codes_name_text(text, name);
    *codes = (struct mn_tail_codes){.name = *name, .codebook = codebook};
    enum mn_status status =
        mn_segment_create_sparse(&codes->segment, instance->dir_fd, text, bytes, 4096, &identity, 0600);
    if (status != MN_OK) {
        mn_tail_codes_unmap(codes);
        return mn_error_pass(status, __FILE__, __LINE__);
    }
    h.header = *codes->segment.header;
    memcpy(codes->segment.base, &h, sizeof h);
    adopt(codes);
    return MN_OK;
}
