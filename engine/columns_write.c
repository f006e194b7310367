/*
 * columns_write.c - writing a column segment: rows come in order, each column is a stream into its own file.
 *
 * Memory is bounded by what a row needs besides its bytes: three offsets and a hash, and MN_SINK_BYTES per column. What
 * follows from the rows is made at the end (columns_derive.h; engine/meta_index.h says what it takes), then parity.
 *
 * The folder is columns/<id>.tmp until every file in it is synced. Whoever finds such a folder later may remove it.
 */
#include <stdio.h>
#include <stdlib.h>

#include "engine/columns.h"
#include "engine/columns_derive.h"
#include "engine/columns_parity.h"
#include "engine/fault.h"

struct mn_columns_writer {
    struct mn_store store;
    uint64_t segment;
    uint32_t rows, row; /* promised, appended */
    const struct mn_str *strings;
    uint32_t string_count;
    struct mn_column_sink sinks[MN_COLUMN_COUNT];
    uint64_t *space_hashes; /* [string_count] */
    uint64_t *hashes;       /* [rows]: of ids */
    uint64_t *tags_start, *meta_start, *content_start;
    uint64_t *counts[2]; /* [string_count]: rows per posting kind */
    char dir[MN_PATH_MAX];
};

/* ---- beginning and end ---- */

static void free_writer(struct mn_columns_writer *w)
{
    for (uint32_t c = 0; c < MN_COLUMN_COUNT; c++)
        mn_column_sink_close(&w->sinks[c]);
    free(w->space_hashes);
    free(w->hashes);
    free(w->tags_start);
    free(w->meta_start);
    free(w->content_start);
    free(w->counts[MN_POSTING_SPACE]);
    free(w->counts[MN_POSTING_TAG]);
    free(w);
}

void mn_columns_abandon(struct mn_columns_writer *w)
{
    char text[1024];
    if (!w)
        return;
    for (uint32_t c = 0; c < MN_COLUMN_COUNT; c++)
        mn_column_sink_close(&w->sinks[c]);
    /* What cannot be removed now is swept at the next start; the sentence that counts is the one about why. */
    snprintf(text, sizeof text, "%s", mn_error_text());
    if (mn_io_remove_tree(w->store.io, w->dir) != MN_OK || strcmp(text, mn_error_text()) != 0)
        mn_error_set(MN_SYSTEM, __FILE__, __LINE__, "%s", text);
    free_writer(w);
}

static enum mn_status allocate(struct mn_columns_writer *w)
{
    size_t strings = w->string_count ? w->string_count : 1;
    w->space_hashes = calloc(strings, sizeof *w->space_hashes);
    w->hashes = calloc(w->rows, sizeof *w->hashes);
    w->tags_start = calloc((size_t)w->rows + 1, sizeof *w->tags_start);
    w->meta_start = calloc((size_t)w->rows + 1, sizeof *w->meta_start);
    w->content_start = calloc((size_t)w->rows + 1, sizeof *w->content_start);
    w->counts[MN_POSTING_SPACE] = calloc(strings, sizeof(uint64_t));
    w->counts[MN_POSTING_TAG] = calloc(strings, sizeof(uint64_t));
    if (!w->space_hashes || !w->hashes || !w->tags_start || !w->meta_start || !w->content_start ||
        !w->counts[MN_POSTING_SPACE] || !w->counts[MN_POSTING_TAG])
        return MN_FAIL(MN_SYSTEM, "no memory to write a column segment of %u rows", w->rows);
    return MN_OK;
}

static void column_path(const struct mn_columns_writer *w, enum mn_column column, char path[MN_PATH_MAX])
{
    snprintf(path, MN_PATH_MAX, "%.*s/%s.col", MN_PATH_MAX - 32, w->dir, mn_column_info[column].name);
}

static enum mn_status open_sinks(struct mn_columns_writer *w)
{
    MN_TRY(mn_io_remove_tree(w->store.io, w->dir));
    MN_TRY(w->store.io->mkdir(w->dir));
    for (uint32_t c = 0; c < MN_COLUMN_COUNT; c++) {
        char path[MN_PATH_MAX];
        column_path(w, c, path);
        MN_TRY(mn_column_sink_open(&w->sinks[c], &w->store, w->segment, c, path));
    }
    return MN_OK;
}

enum mn_status mn_columns_create(struct mn_columns_writer **writer, const struct mn_store *store, uint64_t segment,
                                 uint32_t rows, const struct mn_str *strings, uint32_t string_count)
{
    *writer = NULL;
    MN_ASSERT(rows > 0 && rows <= MN_COLUMNS_ROWS_MAX);
    struct mn_columns_writer *w = calloc(1, sizeof *w);
    if (!w)
        return MN_FAIL(MN_SYSTEM, "no memory to write a column segment");
    w->store = *store;
    w->segment = segment;
    w->rows = rows;
    w->strings = strings;
    w->string_count = string_count;
    for (uint32_t c = 0; c < MN_COLUMN_COUNT; c++)
        w->sinks[c].fd = -1;
    char dir[MN_PATH_MAX];
    snprintf(w->dir, sizeof w->dir, "%.*s.tmp", MN_PATH_MAX - 8, mn_store_columns_dir(store, dir, segment));
    enum mn_status status = allocate(w);
    if (status == MN_OK)
        status = open_sinks(w);
    if (status != MN_OK) {
        mn_columns_abandon(w);
        return mn_error_pass(status, __FILE__, __LINE__);
    }
    for (uint32_t s = 0; s < string_count; s++)
        w->space_hashes[s] = mn_str_hash(strings[s]);
    *writer = w;
    return MN_OK;
}

/* ---- rows ---- */

static enum mn_status append_fixed(struct mn_columns_writer *w, const struct mn_columns_row *row)
{
    struct mn_id id = {.hi = row->id.hi, .lo = row->id.lo, .kind = row->id.kind};
    struct mn_column_sink *s = w->sinks;
    MN_TRY(mn_column_sink_append(&s[MN_COLUMN_IDS], &id, sizeof id));
    MN_TRY(mn_column_sink_append(&s[MN_COLUMN_SPACES], &row->space, sizeof row->space));
    MN_TRY(mn_column_sink_append(&s[MN_COLUMN_BORN], &row->born, sizeof row->born));
    MN_TRY(mn_column_sink_append(&s[MN_COLUMN_TIMES], &row->at, sizeof row->at));
    MN_TRY(mn_column_sink_append(&s[MN_COLUMN_EXPIRES], &row->expires, sizeof row->expires));
    MN_TRY(mn_column_sink_append(&s[MN_COLUMN_CONFIDENCE], &row->confidence, sizeof row->confidence));
    MN_TRY(mn_column_sink_append(&s[MN_COLUMN_SCALE], &row->scale, sizeof row->scale));
    MN_TRY(mn_column_sink_append(&s[MN_COLUMN_DIED], &row->died, sizeof row->died));
    return mn_column_sink_append(&s[MN_COLUMN_EMBEDDINGS], row->vector, w->store.dim * sizeof(float));
}

static enum mn_status append_variable(struct mn_columns_writer *w, const struct mn_columns_row *row)
{
    struct mn_column_sink *s = w->sinks;
    uint64_t flags = row->content.data ? 0 : MN_COLUMN_FLAG_NONE;
    if (row->content.data && row->content_bin)
        flags = MN_COLUMN_FLAG_BIN;
    w->tags_start[w->row] = mn_column_sink_at(&s[MN_COLUMN_TAGS]);
    w->meta_start[w->row] = mn_column_sink_at(&s[MN_COLUMN_META]);
    w->content_start[w->row] = mn_column_sink_at(&s[MN_COLUMN_CONTENT]) | flags;
    MN_TRY(mn_column_sink_append(&s[MN_COLUMN_TAGS], row->tags, row->tag_count * sizeof *row->tags));
    MN_TRY(mn_column_sink_append(&s[MN_COLUMN_META], row->meta.data, row->meta.length));
    if (row->content.data)
        MN_TRY(mn_column_sink_append(&s[MN_COLUMN_CONTENT], row->content.data, row->content.length));
    return MN_OK;
}

enum mn_status mn_columns_append(struct mn_columns_writer *w, const struct mn_columns_row *row)
{
    MN_ASSERT(w->row < w->rows && row->space < w->string_count);
    MN_TRY(append_fixed(w, row));
    MN_TRY(append_variable(w, row));
    w->hashes[w->row] = mn_id_hash(w->space_hashes[row->space], &row->id);
    w->counts[MN_POSTING_SPACE][row->space]++;
    for (uint32_t t = 0; t < row->tag_count; t++) {
        MN_ASSERT(row->tags[t] < w->string_count);
        w->counts[MN_POSTING_TAG][row->tags[t]]++;
    }
    w->row++;
    return MN_OK;
}

/* ---- what follows from the rows ---- */

static enum mn_status end_variable(struct mn_column_sink *sink, uint64_t *start, uint64_t rows)
{
    start[rows] = mn_column_sink_at(sink);
    MN_TRY(mn_column_sink_align(sink, 8));
    MN_TRY(mn_column_sink_append(sink, start, (rows + 1) * sizeof *start));
    return mn_column_sink_end(sink, rows, 0);
}

static enum mn_status end_row_columns(struct mn_columns_writer *w)
{
    MN_TRY(end_variable(&w->sinks[MN_COLUMN_TAGS], w->tags_start, w->rows));
    MN_TRY(end_variable(&w->sinks[MN_COLUMN_META], w->meta_start, w->rows));
    MN_TRY(end_variable(&w->sinks[MN_COLUMN_CONTENT], w->content_start, w->rows));
    for (uint32_t c = 0; c < MN_COLUMN_COUNT; c++)
        if (mn_column_info[c].element != 0)
            MN_TRY(mn_column_sink_end(&w->sinks[c], w->rows, 0));
    return MN_OK;
}

static enum mn_status write_strings(struct mn_columns_writer *w)
{
    struct mn_column_sink *sink = &w->sinks[MN_COLUMN_STRINGS];
    uint64_t *start = calloc((size_t)w->string_count + 1, sizeof *start);
    if (!start)
        return MN_FAIL(MN_SYSTEM, "no memory for a dictionary of %u strings", w->string_count);
    enum mn_status status = MN_OK;
    for (uint32_t s = 0; s < w->string_count; s++) {
        start[s] = mn_column_sink_at(sink);
        MN_TRY_OUT(mn_column_sink_append(sink, w->strings[s].data, w->strings[s].length));
    }
    MN_TRY_OUT(end_variable(sink, start, w->string_count));
out:
    free(start);
    return status;
}

/* ---- publication ---- */

static enum mn_status make_durable(struct mn_columns_writer *w)
{
    MN_FAULT_POINT(columns_written);
    for (uint32_t c = 0; c < MN_COLUMN_COUNT; c++)
        MN_TRY(mn_column_sink_sync(&w->sinks[c]));
    MN_TRY(w->store.io->sync_dir(w->dir));
    MN_FAULT_POINT(columns_synced);
    char dir[MN_PATH_MAX], parent[MN_PATH_MAX];
    mn_store_columns_dir(&w->store, dir, w->segment);
    MN_TRY(w->store.io->rename(w->dir, dir));
    memcpy(w->dir, dir, sizeof w->dir); /* what abandon removes from here on */
    MN_FAULT_POINT(columns_renamed);
    return MN_BUG(publish_before_folder_sync) ? MN_OK
                                              : w->store.io->sync_dir(mn_store_path(&w->store, parent, "columns"));
}

enum mn_status mn_columns_finish(struct mn_columns_writer *w, uint64_t *bytes)
{
    enum mn_status status = MN_OK;
    struct mn_columns_facts facts = {.store = &w->store,
                                     .segment = w->segment,
                                     .dir = w->dir,
                                     .rows = w->rows,
                                     .string_count = w->string_count,
                                     .hashes = w->hashes,
                                     .tags_start = w->tags_start,
                                     .meta_start = w->meta_start,
                                     .counts = {w->counts[0], w->counts[1]},
                                     .sinks = w->sinks};
    MN_ASSERT(w->row == w->rows);
    MN_TRY_OUT(end_row_columns(w));
    MN_TRY_OUT(write_strings(w));
    MN_TRY_OUT(mn_columns_write_idhash(&facts));
    MN_TRY_OUT(mn_columns_write_postings(&facts));
    MN_TRY_OUT(mn_columns_write_meta_index(&facts));
    MN_TRY_OUT(mn_columns_parity_write(&w->store, w->segment, w->dir, MN_PARITY_NAME, bytes));
    MN_TRY_OUT(make_durable(w));
    for (uint32_t c = 0; c < MN_COLUMN_COUNT; c++)
        *bytes += mn_column_sink_file_bytes(&w->sinks[c]);
out:
    if (status == MN_OK)
        free_writer(w);
    else
        mn_columns_abandon(w);
    return status;
}

/* ---- liveness that came later ---- */

static enum mn_status append_words(struct mn_column_sink *sink, const _Atomic uint64_t *died, uint64_t rows)
{
    uint64_t words[1024];
    for (uint64_t r = 0; r < rows;) {
        uint64_t n = 0;
        for (; n < MN_ARRAY_LEN(words) && r < rows; n++, r++)
            words[n] = atomic_load_explicit(&died[r], memory_order_relaxed);
        MN_TRY(mn_column_sink_append(sink, words, n * sizeof *words));
    }
    return MN_OK;
}

static enum mn_status write_died(const struct mn_store *store, uint64_t segment, const char *prefix, uint64_t died_seq,
                                 uint64_t rows, const _Atomic uint64_t *died)
{
    char name[64], path[MN_PATH_MAX], made[MN_PATH_MAX];
    snprintf(name, sizeof name, "%s%llu", prefix, (unsigned long long)died_seq);
    mn_store_column_path(store, path, segment, name);
    snprintf(made, sizeof made, "%.*s.tmp", MN_PATH_MAX - 8, path);
    enum mn_status status = store->io->unlink(made); /* left by a crash, perhaps */
    if (status != MN_OK && status != MN_NOT_FOUND)
        return mn_error_pass(status, __FILE__, __LINE__);
    struct mn_column_sink sink;
    MN_TRY(mn_column_sink_open(&sink, store, segment, MN_COLUMN_DIED, made));
    MN_TRY_OUT(append_words(&sink, died, rows));
    MN_TRY_OUT(mn_column_sink_end(&sink, rows, died_seq));
    MN_TRY_OUT(mn_column_sink_sync(&sink));
    MN_TRY_OUT(store->io->rename(made, path));
    MN_FAULT_POINT(died_renamed);
out:
    mn_column_sink_close(&sink);
    return status;
}

enum mn_status mn_columns_write_died(const struct mn_store *store, uint64_t segment, uint64_t died_seq, uint64_t rows,
                                     const _Atomic uint64_t *died)
{
    char dir[MN_PATH_MAX];
    MN_TRY(write_died(store, segment, MN_DIED_COPY, died_seq, rows, died));
    MN_TRY(write_died(store, segment, "died.", died_seq, rows, died));
    return store->io->sync_dir(mn_store_columns_dir(store, dir, segment));
}
