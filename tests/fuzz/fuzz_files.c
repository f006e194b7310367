/*
 * fuzz_files.c - any bytes as a file that the store opens: STORE, a settings file, a column, a ledger.
 *
 * The first byte says which. STORE, a ledger and the header of a column are given a right checksum, so that what is
 * behind it is reached; a column is opened as what its header says it is, and what is mapped may then be read to its
 * end.
 */
#include "config/settings.h"
#include "engine/columns_file.h"
#include "engine/crc.h"
#include "engine/ledger.h"

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
    char text[4096 + 32];
    const uint8_t *line = memmem(data, size, "crc32c=", 7);
    size_t bytes = size < 4096 ? size : 4096;
    memcpy(text, data, bytes);
    if (line && (size_t)(line - data) < 4096)
        bytes = (size_t)(line - data) +
                (size_t)snprintf(text + (line - data), 32, "crc32c=%08x\n", mn_crc32c(0, data, (size_t)(line - data)));
    snprintf(path, sizeof path, "%s/STORE", dir);
    write_file(path, text, bytes);
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

/* The kind that a header's number names; any other is taken for one, too. */
static enum mn_column kind_of(uint32_t number)
{
    for (enum mn_column column = 0; column < MN_COLUMN_KINDS; column++)
        if (mn_column_info[column].number == number)
            return column;
    return number % MN_COLUMN_KINDS;
}

static void check_column(const struct mn_store *store, const struct mn_column_header *header, const char *path)
{
    struct mn_column_file file;
    if (mn_column_file_map(&file, store, header->segment, kind_of(header->column), path) != MN_OK) {
        MN_ASSERT(mn_error_text()[0] != 0);
        return;
    }
    uint64_t intact = 0;
    MN_ASSERT(file.data + file.data_bytes <= file.base + file.file_bytes);
    for (uint64_t block = 0; block < file.blocks; block++)
        intact += mn_column_file_intact(&file, block);
    MN_ASSERT((mn_column_file_check(&file, path) == MN_OK) == (intact == file.blocks));
    mn_column_file_unmap(&file);
}

static void map_column(const uint8_t *data, size_t size)
{
    struct mn_column_header header;
    struct mn_store store = {.io = &mn_io_posix};
    char path[128];
    if (size < sizeof header)
        return;
    uint8_t *copy = malloc(size);
    if (!copy)
        return;
    memcpy(copy, data, size);
    memcpy(&header, copy, sizeof header);
    header.column = mn_column_info[kind_of(header.column)].number;
    header.checksum = mn_crc32c(0, &header, offsetof(struct mn_column_header, checksum));
    memcpy(copy, &header, sizeof header);
    memcpy(store.uuid, header.uuid, sizeof store.uuid);
    store.dim = header.dim;
    snprintf(path, sizeof path, "%s/a.col", dir);
    write_file(path, copy, size);
    free(copy);
    check_column(&store, &header, path);
}

/* What was read is written, and read again the same. */
static void read_ledger(const uint8_t *data, size_t size)
{
    struct mn_ledger *ledger, *again;
    char path[128], twice[128];
    uint8_t *copy = malloc(size + 1);
    if (!copy)
        return;
    memcpy(copy, data, size);
    if (size > sizeof(uint32_t)) {
        uint32_t crc = mn_crc32c(0, copy, size - sizeof crc);
        memcpy(copy + size - sizeof crc, &crc, sizeof crc);
    }
    snprintf(path, sizeof path, "%s/ledger", dir);
    snprintf(twice, sizeof twice, "%s/ledger.again", dir);
    write_file(path, copy, size);
    free(copy);
    MN_ASSERT(mn_ledger_new(&ledger) == MN_OK && mn_ledger_new(&again) == MN_OK);
    if (mn_ledger_read(ledger, &mn_io_posix, path) == MN_OK) {
        unlink(twice);
        MN_ASSERT(mn_ledger_write(ledger, &mn_io_posix, twice, INT64_MIN) == MN_OK);
        MN_ASSERT(mn_ledger_read(again, &mn_io_posix, twice) == MN_OK);
        MN_ASSERT(mn_ledger_entries(ledger) == mn_ledger_entries(again));
    }
    mn_ledger_free(ledger);
    mn_ledger_free(again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!dir[0]) {
        snprintf(dir, sizeof dir, "/dev/shm/fuzz-files-%d", (int)getpid());
        MN_ASSERT(mn_io_posix.mkdir(dir) == MN_OK && atexit(remove_dir) == 0);
    }
    if (size == 0)
        return 0;
    static void (*const kinds[])(const uint8_t *, size_t) = {open_store, read_settings, map_column, read_ledger};
    kinds[data[0] % MN_ARRAY_LEN(kinds)](data + 1, size - 1);
    return 0;
}
