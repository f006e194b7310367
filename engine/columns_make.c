/*
 * columns_make.c - a damaged column file made again in memory, of what parity (columns_parity.h) knows of it: the whole
 * of a small one, header and checksums of a large one.
 */
#include <stdlib.h>

#include "engine/columns_inside.h"

enum mn_status mn_columns_make_small(struct mn_column_file *file, const struct mn_columns_parity *p,
                                     enum mn_column column)
{
    const struct mn_column_header *header = &p->headers[column];
    uint64_t stored = mn_round_up(header->data_bytes, 64), blocks = mn_columns_parity_blocks(p, column);
    uint8_t *image = malloc(sizeof *header + (blocks + 1) * MN_COLUMN_BLOCK + blocks * sizeof(uint32_t));
    if (!image)
        return MN_FAIL(MN_SYSTEM, "no memory to make %s.col again", mn_column_info[column].name);
    uint8_t *data = image + sizeof *header;
    memcpy(image, header, sizeof *header);
    memcpy(data + stored, mn_columns_parity_checksums(p, column), blocks * sizeof(uint32_t));
    enum mn_status status = MN_OK;
    for (uint64_t block = 0; block < blocks && status == MN_OK; block++) {
        uint8_t made[MN_COLUMN_BLOCK];
        uint32_t bytes = 0;
        status = mn_columns_parity_block(p, column, block, made, &bytes, NULL);
        if (status == MN_OK)
            memcpy(data + block * MN_COLUMN_BLOCK, made, bytes);
    }
    if (status != MN_OK) {
        free(image);
        return mn_error_pass(status, __FILE__, __LINE__);
    }
    mn_column_file_unmap(file);
    *file = (struct mn_column_file){.io = p->store->io,
                                    .image = image,
                                    .header = (const void *)image,
                                    .data = data,
                                    .data_bytes = header->data_bytes,
                                    .blocks = blocks,
                                    .checksums = (const void *)(data + stored),
                                    .seed = p->raw[column].seed};
    return MN_OK;
}

enum mn_status mn_columns_make_frame(struct mn_column_file *file, const struct mn_columns_parity *p, uint64_t segment,
                                     enum mn_column column)
{
    const struct mn_column_header *header = &p->headers[column];
    uint64_t stored = mn_round_up(header->data_bytes, 64), blocks = mn_columns_parity_blocks(p, column);
    uint64_t table = (blocks + 1) * sizeof(uint32_t);
    struct mn_column_file made = {.io = p->store->io,
                                  .file_bytes = sizeof *header + stored + table,
                                  .data_bytes = header->data_bytes,
                                  .blocks = blocks,
                                  .seed = p->raw[column].seed};
    uint8_t *image = malloc(sizeof *header + table);
    const void *base = NULL;
    char path[MN_PATH_MAX];
    int fd;
    if (!image)
        return MN_FAIL(MN_SYSTEM, "no memory to make the header of %s.col again", mn_column_info[column].name);
    memcpy(image, header, sizeof *header);
    memcpy(image + sizeof *header, mn_columns_parity_checksums(p, column), blocks * sizeof(uint32_t));
    made.image = image;
    made.header = (const void *)image;
    made.checksums = (const void *)(image + sizeof *header);
    mn_store_column_path(p->store, path, segment, mn_column_info[column].name);
    if (p->store->io->open(path, MN_IO_READ, &fd) == MN_OK) {
        if (p->store->io->map(fd, made.file_bytes, &base) != MN_OK)
            base = NULL;
        p->store->io->close(fd);
    }
    made.base = base;
    made.data = base ? made.base + sizeof *header : NULL;
    mn_column_file_unmap(file);
    *file = made;
    return MN_OK;
}
