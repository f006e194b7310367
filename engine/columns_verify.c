/*
 * columns_verify.c - every checksum of every file of a column segment, of an inverted file and of a codebook, and a
 * word about each that does not hold.
 */
#include <stdio.h>

#include "engine/columns_file.h"
#include "engine/ivf_file.h"

struct survey {
    const struct mn_store *store;
    uint64_t segment;
    uint64_t died_seq; /* what a file of liveness says that it is as of */
    uint64_t *files, *bytes;
    mn_damage_fn damaged;
    void *context;
};

/* The file of a column at `path`. */
static void check_path(const struct survey *survey, enum mn_column column, const char *path, bool may_be_gone)
{
    char what[96];
    struct mn_column_file file;
    enum mn_status status = mn_column_file_map(&file, survey->store, survey->segment, column, path);
    if (status == MN_NOT_FOUND && may_be_gone)
        return;
    (*survey->files)++;
    if (status != MN_OK) {
        survey->damaged(survey->context, path, status == MN_NOT_FOUND ? "the file is missing" : mn_error_text());
        return;
    }
    for (uint64_t block = 0; block < file.blocks; block++) {
        if (mn_column_file_intact(&file, block))
            continue;
        snprintf(what, sizeof what, "block %llu of %llu does not match its checksum", (unsigned long long)block,
                 (unsigned long long)file.blocks);
        survey->damaged(survey->context, path, what);
    }
    if (column == MN_COLUMN_DIED && file.header->extra != survey->died_seq)
        survey->damaged(survey->context, path, "it holds the liveness of another seq");
    *survey->bytes += file.file_bytes;
    mn_column_file_unmap(&file);
}

static void check_file(const struct survey *survey, enum mn_column column, const char *name, bool may_be_gone)
{
    char path[MN_PATH_MAX];
    check_path(survey, column, mn_store_column_path(survey->store, path, survey->segment, name), may_be_gone);
}

/* died.<seq>.col. One that a later manifest has made obsolete may go while we look. */
static enum mn_status check_later_died(void *context, const char *entry)
{
    unsigned long long seq;
    char name[64], expected[80];
    bool copy = sscanf(entry, MN_DIED_COPY "%llu.col", &seq) == 1;
    if (!copy && sscanf(entry, "died.%llu.col", &seq) != 1)
        return MN_OK;
    snprintf(name, sizeof name, "%s%llu", copy ? MN_DIED_COPY : "died.", seq);
    snprintf(expected, sizeof expected, "%s.col", name);
    struct survey later = *(const struct survey *)context;
    later.died_seq = seq;
    if (strcmp(entry, expected) == 0)
        check_file(&later, MN_COLUMN_DIED, name, true);
    return MN_OK;
}

enum mn_status mn_columns_verify(const struct mn_store *store, uint64_t segment, uint64_t *files, uint64_t *bytes,
                                 mn_damage_fn damaged, void *context)
{
    struct survey survey = {store, segment, 0, files, bytes, damaged, context};
    char dir[MN_PATH_MAX];
    for (uint32_t column = 0; column < MN_COLUMN_COUNT; column++)
        check_file(&survey, column, mn_column_info[column].name, false);
    check_file(&survey, MN_COLUMN_PARITY, mn_column_info[MN_COLUMN_PARITY].name, false);
    enum mn_status status = store->io->list(mn_store_columns_dir(store, dir, segment), check_later_died, &survey);
    return status == MN_NOT_FOUND ? MN_OK : status;
}

void mn_ivf_verify(const struct mn_store *store, uint64_t segment, uint64_t codebook, uint64_t *files, uint64_t *bytes,
                   mn_damage_fn damaged, void *context)
{
    struct survey survey = {store, segment, 0, files, bytes, damaged, context};
    char path[MN_PATH_MAX];
    check_path(&survey, MN_COLUMN_IVF, mn_ivf_path(store, path, segment, codebook), false);
}

void mn_codebook_verify(const struct mn_store *store, uint64_t gen, uint64_t *files, uint64_t *bytes,
                        mn_damage_fn damaged, void *context)
{
    struct survey survey = {store, gen, 0, files, bytes, damaged, context};
    char path[MN_PATH_MAX];
    check_path(&survey, MN_COLUMN_CODEBOOK, mn_codebook_path(store, path, gen), false);
}
