/*
 * fuzz_files.c - any bytes as a file that the store opens: STORE, a column, a settings file.
 *
 * The first byte says which. A column's header is given a right checksum, place and length, so that the checks behind
 * it are reached; what is mapped may then be read to its end.
 */
#include "config/settings.h"
#include "engine/columns_file.h"
#include "engine/crc.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char dir[64];

static void remove_dir(void)
{
    MN_ASSERT(mn_io_remove_tree(&mn_io_posix, dir) == MN_OK);
}

static void write_file(const char *path, const void *bytes, size_t length)
{
    FILE *file = fopen(path, "w");
    MN_ASSERT(file && fwrite(bytes, 1, length, file) == length);
    MN_ASSERT(fclose(file) == 0);
}

static void open_store(const uint8_t *data, size_t size)
{
    struct mn_store store;
    char path[128];
    snprintf(path, sizeof path, "%s/STORE", dir);
    write_file(path, data, size);
    if (mn_store_open(&store, &mn_io_posix, dir) == MN_OK)
        MN_ASSERT(store.dim >= 1 && store.dim <= MN_DIM_MAX && store.metric < MN_METRIC_COUNT);
}

static void read_settings(const uint8_t *data, size_t size)
{
    struct mn_settings settings;
    char path[128];
    snprintf(path, sizeof path, "%s/mneme.conf", dir);
    write_file(path, data, size);
    mn_settings_default(&settings);
    if (mn_settings_read_file(&settings, path) == MN_OK && mn_settings_check(&settings) != MN_OK)
        MN_ASSERT(mn_error_text()[0] != 0);
}

static void map_column(const uint8_t *data, size_t size)
{
    struct mn_store store = {.io = &mn_io_posix, .dim = 4};
    struct mn_column_header header;
    struct mn_column_file file;
    char path[128];
    uint8_t *copy = malloc(size + 1);
    if (size < sizeof header || !copy) {
        free(copy);
        return;
    }
    memcpy(copy, data, size);
    memcpy(&header, copy, sizeof header);
    header.magic = MN_COLUMN_MAGIC;
    header.version = MN_FORMAT_VERSION;
    header.header_bytes = sizeof header;
    header.block_bytes = MN_COLUMN_BLOCK;
    memset(header.uuid, 0, sizeof header.uuid);
    header.segment = 1;
    header.dim = 4;
    enum mn_column column = header.column % MN_COLUMN_KINDS;
    header.column = mn_column_info[column].number;
    header.checksum = mn_crc32c(0, &header, offsetof(struct mn_column_header, checksum));
    memcpy(copy, &header, sizeof header);
    snprintf(path, sizeof path, "%s/a.col", dir);
    write_file(path, copy, size);
    free(copy);
    if (mn_column_file_map(&file, &store, 1, column, path) != MN_OK)
        return;
    MN_ASSERT(file.data + file.data_bytes <= file.base + file.file_bytes);
    MN_ASSERT(mn_column_file_check(&file, path) == MN_OK || mn_error_text()[0] != 0);
    mn_column_file_unmap(&file);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!dir[0]) {
        snprintf(dir, sizeof dir, "/tmp/fuzz-files-%d", (int)getpid());
        MN_ASSERT(mn_io_posix.mkdir(dir) == MN_OK && atexit(remove_dir) == 0);
    }
    if (size == 0)
        return 0;
    static void (*const kinds[])(const uint8_t *, size_t) = {open_store, read_settings, map_column};
    kinds[data[0] % MN_ARRAY_LEN(kinds)](data + 1, size - 1);
    return 0;
}
