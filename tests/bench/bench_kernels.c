/*
 * bench_kernels.c - what each kernel costs, per instruction set.
 *
 *     bench_kernels [width = 768] [megabytes = 256]
 *
 * One thread; each figure is the best of several runs: the machine is rarely alone. "cached": over and over the same
 * few blocks, codes or rows, which the second-level cache holds: the arithmetic. "stream": through that many megabytes,
 * each byte once, as a search that meets its clusters for the first time does; "probe": clusters of 8 blocks here and
 * there in them, the next one prefetched while one is scanned. Per row where not said otherwise.
 */
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>

#include "engine/ivf.h"

#define RUNS         7
#define CACHED       64 /* blocks */
#define CACHED_ROWS  256
#define PROBE_BLOCKS 8
#define PRODUCT_ROWS 256
#define PRODUCT_COLS 1024

static const char *const names[] = {"portable", "avx2", "avx512"};

struct bench {
    uint32_t width;
    size_t bytes;    /* of memory */
    uint8_t *memory; /* in huge pages where there are any */
    float *vectors, *products;
    uint32_t *signs;
    uint8_t *table, *codes, *block;
    int8_t *fine_codes;
    struct mn_scan_query scan;
    struct mn_fine_query fine;
    const struct mn_kernels *kernels;
    float found;
};

static double now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static void *need(size_t bytes)
{
    size_t huge = (size_t)2 << 20, whole = mn_round_up(bytes, huge);
    void *p = aligned_alloc(huge, whole);
    if (!p) {
        fprintf(stderr, "bench_kernels: out of memory\n");
        exit(1);
    }
    (void)madvise(p, whole, MADV_HUGEPAGE); /* without them the figures are a little worse */
    memset(p, 0x55, whole);
    return p;
}

/* ns of one `run`, at best. */
static double best(struct bench *b, void (*run)(struct bench *b))
{
    double least = 1e18;
    for (int i = 0; i < RUNS; i++) {
        double begin = now_ns();
        run(b);
        double ns = now_ns() - begin;
        least = ns < least ? ns : least;
    }
    return least;
}

static void rotate(struct bench *b)
{
    for (uint32_t i = 0; i < CACHED_ROWS; i++)
        b->kernels->rotate(b->vectors + (size_t)i * b->width, b->width, b->signs);
}

static void make_table(struct bench *b)
{
    for (uint32_t i = 0; i < CACHED_ROWS; i++)
        b->kernels->make_table(b->vectors + (size_t)i * b->width, b->width, b->table, &b->scan);
}

static void make_fine(struct bench *b)
{
    for (uint32_t i = 0; i < CACHED_ROWS; i++)
        b->kernels->make_fine(b->vectors + (size_t)i * b->width, b->width, b->fine_codes, &b->fine);
}

static void encode(struct bench *b)
{
    struct mn_ivf_fine fine;
    mn_ivf_clear_block(b->block, b->width);
    for (uint32_t i = 0; i < CACHED_ROWS; i++)
        mn_ivf_encode(b->kernels, MN_METRIC_COSINE, b->width, b->vectors + (size_t)i * b->width, b->vectors, b->block,
                      i % 32, b->codes, &fine);
}

static void scan_blocks(struct bench *b, const uint8_t *from, size_t blocks)
{
    _Alignas(64) float low[32];
    for (size_t i = 0; i < blocks; i++) {
        uint32_t near = b->kernels->scan_block(&b->scan, from + i * mn_ivf_block_bytes(b->width), 1, 1, 0, low);
        b->found += (float)near;
    }
}

static void scan_cached(struct bench *b)
{
    for (int i = 0; i < 100; i++)
        scan_blocks(b, b->memory, CACHED);
}

static void scan_stream(struct bench *b)
{
    scan_blocks(b, b->memory, b->bytes / mn_ivf_block_bytes(b->width));
}

/* Eight blocks here, eight there, the next eight asked for while these are scanned. */
static void scan_probe(struct bench *b)
{
    size_t bytes = mn_ivf_block_bytes(b->width), clusters = b->bytes / (PROBE_BLOCKS * bytes), at = 0;
    _Alignas(64) float low[32], ones[32];
    for (unsigned i = 0; i < 32; i++)
        ones[i] = 1;
    for (size_t i = 0; i < clusters; i++) {
        size_t next = (at + clusters / 2 + 7) % clusters;
        for (size_t j = 0; j < PROBE_BLOCKS; j++) {
            const uint8_t *block = b->memory + (at * PROBE_BLOCKS + j) * bytes;
            const uint8_t *ahead = b->memory + (next * PROBE_BLOCKS + j) * bytes;
            b->found += (float)b->kernels->scan_ahead(&b->scan, block, ahead, ones, ones, 0, low);
        }
        at = next;
    }
}

static void dot8(struct bench *b, size_t rows)
{
    int64_t sum = 0;
    for (size_t i = 0; i < rows; i++)
        sum += b->kernels->dot8(b->memory + i * b->width, b->fine_codes, b->width);
    b->found += (float)sum;
}

static void dot8_cached(struct bench *b)
{
    for (int i = 0; i < 100; i++)
        dot8(b, CACHED_ROWS);
}

static void dot8_stream(struct bench *b)
{
    dot8(b, b->bytes / b->width);
}

static void products(struct bench *b)
{
    const float *columns = b->vectors + (size_t)PRODUCT_ROWS * b->width;
    b->kernels->products(b->vectors, PRODUCT_ROWS, columns, PRODUCT_COLS, b->width, b->products, PRODUCT_COLS);
}

/* One line: a kernel in one situation. A run does `count` units of `bytes` each, the best implementation named last. */
static void line(struct bench *b, const char *what, const char *unit, void (*run)(struct bench *b), double count,
                 double bytes)
{
    double ns = 0;
    printf("%-22s %-8s", what, unit);
    for (size_t i = 0; i < MN_ARRAY_LEN(names); i++) {
        b->kernels = mn_kernels_named(names[i]);
        if (b->kernels) {
            ns = best(b, run) / count;
            printf(" %10.2f", ns);
        } else {
            printf(" %10s", "-");
        }
    }
    printf(" %10.1f\n", bytes / ns);
    fflush(stdout);
}

static void make_bench(struct bench *b, uint32_t width, size_t bytes)
{
    uint64_t random = 1;
    size_t rows = PRODUCT_ROWS + PRODUCT_COLS;
    *b =
        (struct bench){.width = width, .bytes = bytes, .memory = need(bytes), .block = need(mn_ivf_block_bytes(width))};
    b->vectors = need(rows * width * sizeof *b->vectors);
    b->products = need((size_t)PRODUCT_ROWS * PRODUCT_COLS * sizeof *b->products);
    b->signs = need(4 * (size_t)width / 8);
    b->table = need(4 * (size_t)width);
    b->codes = need(width);
    b->fine_codes = need(width);
    for (size_t i = 0; i < rows * width; i++) {
        random = random * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        b->vectors[i] = (float)(int32_t)(random >> 32) * 0x1p-31f;
    }
}

static void free_bench(struct bench *b)
{
    void *all[] = {b->memory, b->vectors, b->products, b->signs, b->table, b->codes, b->fine_codes, b->block};
    for (size_t i = 0; i < MN_ARRAY_LEN(all); i++)
        free(all[i]);
}

static void lines(struct bench *b)
{
    double w = b->width, block = mn_ivf_block_bytes(b->width);
    uint64_t blocks = b->bytes / mn_ivf_block_bytes(b->width), probed = blocks - blocks % PROBE_BLOCKS;
    line(b, "rotate", "ns/row", rotate, CACHED_ROWS, 4 * w);
    line(b, "make_table", "ns/query", make_table, CACHED_ROWS, 4 * w);
    line(b, "make_fine", "ns/query", make_fine, CACHED_ROWS, 4 * w);
    line(b, "mn_ivf_encode", "ns/row", encode, CACHED_ROWS, 4 * w);
    line(b, "scan_block, cached", "ns/row", scan_cached, 100.0 * CACHED * 32, block / 32);
    line(b, "scan_block, stream", "ns/row", scan_stream, (double)blocks * 32, block / 32);
    line(b, "scan_ahead, probe", "ns/row", scan_probe, (double)probed * 32, block / 32);
    line(b, "dot8, cached", "ns/row", dot8_cached, 100.0 * CACHED_ROWS, w);
    line(b, "dot8, stream", "ns/row", dot8_stream, (double)b->bytes / w, w);
    line(b, "products", "ns/pair", products, (double)PRODUCT_ROWS * PRODUCT_COLS, 2 * w);
}

int main(int argc, char **argv)
{
    unsigned long width = argc > 1 ? strtoul(argv[1], NULL, 10) : 768,
                  megabytes = argc > 2 ? strtoul(argv[2], NULL, 10) : 256;
    struct bench b;
    if (width < 64 || width > MN_DIM_MAX || width % 64 != 0 || megabytes < 16 || megabytes > 65536) {
        fprintf(stderr, "usage: bench_kernels [width = 768, a multiple of 64] [megabytes = 256, at least 16]\n");
        return 2;
    }
    make_bench(&b, (uint32_t)width, megabytes << 20);
    printf("%-22s %-8s %10s %10s %10s %10s\n", "width / megabytes", "", names[0], names[1], names[2], "GB/s, best");
    printf("%lu / %lu (products: GFlop/s)\n", width, megabytes);
    lines(&b);
    free_bench(&b);
    return 0;
}
