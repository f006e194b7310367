/*
 * bench_data.c - rows to load and queries to ask: random clusters, or raw files.
 *
 * Random data: normal deviates around centres, which are normal deviates themselves. Row i depends on i alone, so a
 * query can be made from a row without the rows being kept anywhere.
 */
#include "ops/cli/bench.h"
#include "ops/cli/cli_json.h"
#include "ops/cli/cli_progress.h"
#include "ops/cli/cli_vector.h"

#include <msgpack.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { LOAD_BATCH = 64, LOAD_FLIGHT = 4, ROWS_A_CENTER = 200, CENTERS_MIN = 8, CENTERS_MAX = 4096 };

static enum mn_status rows_in_file(const char *path, uint32_t dim, uint64_t *rows)
{
    struct stat st;
    enum mn_cli_vector_element element = MN_CLI_VECTOR_F32;
    MN_TRY(mn_cli_vector_element_of(path, &element));
    if (stat(path, &st) != 0)
        return MN_FAIL_ERRNO("could not look at %s", path);
    size_t row = dim * mn_cli_vector_width(element);
    if (st.st_size == 0 || (size_t)st.st_size % row)
        return MN_FAIL(MN_BAD_DIM, "%s is no whole number of rows of %zu bytes: is --dim %u right?", path, row, dim);
    *rows = (uint64_t)st.st_size / row;
    return MN_OK;
}

enum mn_status mn_bench_data_open(struct mn_bench_data *d, const struct mn_bench_options *o, uint32_t dim)
{
    uint64_t there;
    memset(d, 0, sizeof *d);
    *d = (struct mn_bench_data){.dim = dim,
                                .rows = o->rows,
                                .queries = o->queries,
                                .spread = (float)o->spread,
                                .path = o->vectors,
                                .query_path = o->query_vectors};
    if (d->path) {
        MN_TRY(rows_in_file(d->path, dim, &there));
        d->rows = there < d->rows ? there : d->rows;
    }
    if (d->query_path) {
        MN_TRY(rows_in_file(d->query_path, dim, &there));
        d->queries = there < d->queries ? there : d->queries;
    }
    if (d->path)
        return MN_OK;
    uint64_t state = 0xce17e5ull;
    size_t wanted = d->rows / ROWS_A_CENTER;
    d->centers = wanted < CENTERS_MIN ? CENTERS_MIN : wanted > CENTERS_MAX ? CENTERS_MAX : wanted;
    d->center = malloc(d->centers * dim * sizeof *d->center);
    if (!d->center)
        return MN_FAIL(MN_INTERNAL, "out of memory for %zu centres", d->centers);
    for (size_t i = 0; i < d->centers * dim; i++)
        d->center[i] = mn_bench_load_normal(&state);
    return MN_OK;
}

void mn_bench_data_close(struct mn_bench_data *d)
{
    free(d->center);
    d->center = NULL;
}

static void make_row(const struct mn_bench_data *d, uint64_t row, uint64_t seed, float *out)
{
    uint64_t state = row * 0x9e3779b97f4a7c15ull + seed;
    const float *center = d->center + mn_bench_load_random(&state) % d->centers * d->dim;
    for (uint32_t i = 0; i < d->dim; i++)
        out[i] = center[i] + d->spread * mn_bench_load_normal(&state);
}

/* ---- loading ---- */

struct loader {
    const struct mn_bench_data *data;
    const char *space;
    struct mneme *client;
    FILE *in;
    enum mn_cli_vector_element element;
    char *raw;
    float *row;
    uint64_t next;
    msgpack_sbuffer request;
};

static enum mn_status read_row(struct loader *l)
{
    size_t bytes = l->data->dim * mn_cli_vector_width(l->element);
    if (!l->in) {
        make_row(l->data, l->next, 1, l->row);
        return MN_OK;
    }
    if (fread(l->raw, 1, bytes, l->in) != bytes)
        return MN_FAIL(MN_SYSTEM, "%s ended early", l->data->path);
    mn_cli_vector_decode(l->raw, l->element, l->data->dim, l->row);
    return MN_OK;
}

static enum mn_status pack_batch(struct loader *l, size_t count)
{
    msgpack_packer p;
    size_t bytes = l->data->dim * sizeof *l->row;
    msgpack_sbuffer_clear(&l->request);
    msgpack_packer_init(&p, &l->request, msgpack_sbuffer_write);
    msgpack_pack_map(&p, 3);
    mn_cli_json_pack_text(&p, "op");
    mn_cli_json_pack_text(&p, "remember");
    mn_cli_json_pack_text(&p, "space");
    mn_cli_json_pack_text(&p, l->space);
    mn_cli_json_pack_text(&p, "memories");
    msgpack_pack_array(&p, count);
    for (size_t i = 0; i < count; i++, l->next++) {
        MN_TRY(read_row(l));
        msgpack_pack_map(&p, 2);
        mn_cli_json_pack_text(&p, "id");
        msgpack_pack_uint64(&p, l->next);
        mn_cli_json_pack_text(&p, "embedding");
        msgpack_pack_bin(&p, bytes);
        msgpack_pack_bin_body(&p, l->row, bytes);
    }
    return MN_OK;
}

static enum mn_status collect_to(struct loader *l, size_t most)
{
    while (mneme_in_flight(l->client) > most) {
        uint64_t ticket = 0;
        MN_CLI_TRY(l->client, mneme_collect(l->client, &ticket, NULL));
    }
    return MN_OK;
}

static enum mn_status load_all(struct loader *l, const struct mn_cli *cli, bool consolidate)
{
    struct mn_cli_progress progress;
    enum mn_status status = MN_OK;
    uint64_t ticket;
    mn_cli_progress_begin(&progress, cli, "loading", "rows", l->data->rows);
    while (status == MN_OK && l->next <= l->data->rows && !mn_bench_interrupted) {
        uint64_t left = l->data->rows - l->next + 1;
        status = pack_batch(l, left < LOAD_BATCH ? left : LOAD_BATCH);
        if (status == MN_OK)
            status = collect_to(l, LOAD_FLIGHT - 1);
        if (status == MN_OK &&
            mneme_submit(l->client, MNEME_WRITE, l->request.data, l->request.size, &ticket) != MNEME_OK)
            status = MN_FAIL(MN_INTERNAL, "%s", mneme_error(l->client));
        mn_cli_progress_show(&progress, l->next, l->next);
    }
    if (status == MN_OK)
        status = collect_to(l, 0);
    mn_cli_progress_end(&progress);
    if (status == MN_OK && mn_bench_interrupted)
        status = MN_FAIL(MN_UNAVAILABLE, "interrupted");
    if (status == MN_OK && consolidate)
        MN_CLI_TRY(l->client, mneme_consolidate(l->client, true, NULL));
    return status;
}

enum mn_status mn_bench_data_load(const struct mn_bench_data *d, const struct mn_bench_cluster *cluster,
                                  bool consolidate)
{
    struct loader l = {.data = d, .space = cluster->space, .next = 1};
    enum mn_status status = MN_OK;
    if (d->path) {
        MN_TRY(mn_cli_vector_element_of(d->path, &l.element));
        l.in = fopen(d->path, "rbe");
        if (!l.in)
            return MN_FAIL_ERRNO("could not open %s", d->path);
    }
    l.raw = mn_cli_keep(d->dim * sizeof(float));
    l.row = mn_cli_keep(d->dim * sizeof(float));
    msgpack_sbuffer_init(&l.request);
    MN_TRY_OUT(mn_bench_cluster_open(cluster, &l.client));
    MN_TRY_OUT(load_all(&l, cluster->cli, consolidate));
out:
    mneme_close(l.client);
    msgpack_sbuffer_destroy(&l.request);
    if (l.in)
        fclose(l.in);
    return status;
}

/* ---- rows to write, and queries ---- */

/* Random rows again, each moved by half of the spread: near something that is there, and equal to nothing. */
static void make_queries(const struct mn_bench_data *d, float *out)
{
    uint64_t state = 0x9e71e5ull;
    for (uint64_t q = 0; q < d->queries; q++) {
        float *query = out + q * d->dim;
        make_row(d, 1 + mn_bench_load_random(&state) % d->rows, 1, query);
        for (uint32_t i = 0; i < d->dim; i++)
            query[i] += d->spread / 2 * mn_bench_load_normal(&state);
    }
}

/* `count` rows of a file from row `first` on, and from the beginning again where it ends. */
static enum mn_status read_rows(const struct mn_bench_data *d, const char *path, uint64_t first, uint64_t count,
                                float *out)
{
    enum mn_cli_vector_element element = MN_CLI_VECTOR_F32;
    MN_TRY(mn_cli_vector_element_of(path, &element));
    size_t bytes = d->dim * mn_cli_vector_width(element);
    char *raw = mn_cli_keep(bytes);
    FILE *in = fopen(path, "rbe");
    enum mn_status status = in ? MN_OK : MN_FAIL_ERRNO("could not open %s", path);
    if (in && fseeko(in, (off_t)(first * bytes), SEEK_SET) != 0)
        status = MN_FAIL_ERRNO("could not read %s", path);
    for (uint64_t q = 0; status == MN_OK && q < count; q++) {
        if (fread(raw, 1, bytes, in) != bytes && (rewind(in), fread(raw, 1, bytes, in) != bytes))
            status = MN_FAIL(MN_SYSTEM, "%s ended early", path);
        mn_cli_vector_decode(raw, element, d->dim, out + q * d->dim);
    }
    if (in)
        fclose(in);
    return status;
}

float *mn_bench_data_queries(const struct mn_bench_data *d)
{
    float *queries = malloc(d->queries * d->dim * sizeof *queries);
    const char *path = d->query_path ? d->query_path : d->path;
    if (!queries) {
        (void)MN_FAIL(MN_INTERNAL, "out of memory for %llu queries", (unsigned long long)d->queries);
        return NULL;
    }
    if (!path) {
        make_queries(d, queries);
    } else if (read_rows(d, path, 0, d->queries, queries) != MN_OK) {
        free(queries);
        return NULL;
    }
    return queries;
}

float *mn_bench_data_more(const struct mn_bench_data *d, uint64_t count)
{
    float *rows = malloc(count * d->dim * sizeof *rows);
    if (!rows) {
        (void)MN_FAIL(MN_INTERNAL, "out of memory for %llu rows", (unsigned long long)count);
        return NULL;
    }
    for (uint64_t i = 0; !d->path && i < count; i++)
        make_row(d, d->rows + 1 + i, 1, rows + i * d->dim);
    if (d->path && read_rows(d, d->path, d->rows, count, rows) != MN_OK) {
        free(rows);
        return NULL;
    }
    return rows;
}
