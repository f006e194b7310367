/*
 * columns_died.c - reading the liveness of a column segment as of a seq: from its file, the copy of that, or parity.
 */
#include <stdio.h>

#include "engine/columns_inside.h"

static enum mn_status copy_died(const struct mn_column_file *file, uint64_t died_seq, uint64_t rows, const char *path,
                                uint64_t *died)
{
    MN_TRY(mn_column_file_check(file, path));
    // NOLINTNEXTLINE(clang-analyzer-core.NullDereference): what was checked has a header
    if (file->header->rows != rows || file->header->extra != died_seq)
        return MN_FAIL(MN_CORRUPT, "%s holds the liveness of %llu rows as of seq %llu, not of %llu as of %llu", path,
                       (unsigned long long)file->header->rows, (unsigned long long)file->header->extra,
                       (unsigned long long)rows, (unsigned long long)died_seq);
    memcpy(died, file->data, rows * sizeof *died);
    return MN_OK;
}

static enum mn_status read_died(const struct mn_store *store, uint64_t segment, const char *name, uint64_t died_seq,
                                uint64_t rows, uint64_t *died)
{
    char path[MN_PATH_MAX];
    struct mn_column_file file;
    mn_store_column_path(store, path, segment, name);
    MN_TRY(mn_column_file_map(&file, store, segment, MN_COLUMN_DIED, path));
    enum mn_status status = copy_died(&file, died_seq, rows, path, died);
    mn_column_file_unmap(&file);
    return status;
}

/* That of the segment's birth, from parity. */
static enum mn_status make_died(const struct mn_store *store, uint64_t segment, uint64_t rows, uint64_t *died)
{
    struct mn_columns_parity parity;
    struct mn_column_file file = {0};
    MN_TRY(mn_columns_parity_open(&parity, store, segment));
    enum mn_status status = mn_columns_make_small(&file, &parity, MN_COLUMN_DIED);
    mn_columns_parity_close(&parity);
    if (status == MN_OK)
        status = copy_died(&file, 0, rows, "parity.col", died);
    mn_column_file_unmap(&file);
    return status;
}

enum mn_status mn_columns_read_died(const struct mn_store *store, uint64_t segment, uint64_t died_seq, uint64_t rows,
                                    uint64_t *died)
{
    char name[64], why[512];
    snprintf(name, sizeof name, died_seq ? "died.%llu" : "died", (unsigned long long)died_seq);
    enum mn_status again, status = read_died(store, segment, name, died_seq, rows, died);
    if (status != MN_CORRUPT && status != MN_NOT_FOUND)
        return status;
    snprintf(why, sizeof why, "%s", mn_error_text());
    snprintf(name, sizeof name, MN_DIED_COPY "%llu", (unsigned long long)died_seq);
    again = died_seq ? read_died(store, segment, name, died_seq, rows, died) : make_died(store, segment, rows, died);
    return again == MN_OK ? MN_OK : MN_FAIL(status, "%s", why);
}
