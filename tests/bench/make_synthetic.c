/*
 * make_synthetic.c - rows that are distributed like embeddings of text, as many as wanted, fast.
 *
 *     make_synthetic ROWS DIM QUERIES BASE.f32 QUERIES.f32
 *
 * A row is a mean that all share, plus what its topic, its subject, its thread and the row itself add: normal deviates
 * whose variance falls along the axes as the eigenvalues of real text embeddings do, slower for rows than for topics.
 * Topics differ in size (as 1/rank) and threads in tightness. Then everything is rotated, so that no axis is special,
 * and brought to length 1. Queries are further rows of the same make, held out. Everything follows from the numbers
 * given: the same call writes the same bytes on the same machine.
 */
#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LEVELS = 4, SUBJECT_ROWS = 500, THREAD_ROWS = 12, SUBJECTS_A_TOPIC = 24, BLOCK = 256 };

/* Shares of the variance: topic, subject, thread, row; and of the mean. */
static const double shares[LEVELS] = {.26, .18, .13, .43};
static const double mean_share = .15;

struct world {
    uint64_t rows, topics, subjects, threads;
    uint32_t dim, power;           /* power: the largest power of two up to dim */
    float *spread[LEVELS];         /* standard deviation along each axis */
    float *mean, *topic, *subject; /* [.][dim] */
    double *weight;                /* of topics, summed up */
    uint8_t *signs;                /* [3][dim] */
};

static void *need(size_t bytes)
{
    void *p = calloc(1, bytes);
    if (!p) {
        fprintf(stderr, "make_synthetic: out of memory\n");
        exit(1);
    }
    return p;
}

static uint64_t draw(uint64_t *state)
{
    uint64_t z = (*state += UINT64_C(0x9e3779b97f4a7c15));
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

static double uniform(uint64_t *state)
{
    return (double)(draw(state) >> 11) * 0x1p-53;
}

/* Near enough to a normal deviate: the sum of four uniform ones. Its light tails do not matter in so many axes. */
static float normal(uint64_t *state)
{
    uint64_t bits = draw(state);
    int32_t sum = (int32_t)(bits & 0xffff) + (int32_t)(bits >> 16 & 0xffff) + (int32_t)(bits >> 32 & 0xffff) +
                  (int32_t)(bits >> 48);
    return (float)(sum - 131070) * 2.6429e-5f; /* 1 / (65536 / sqrt 3) */
}

static void add_normals(const struct world *w, int level, uint64_t seed, float scale, float *x)
{
    uint64_t state = seed * UINT64_C(0xd1342543de82ef95) + (uint64_t)level;
    for (uint32_t i = 0; i < w->dim; i++)
        x[i] += scale * w->spread[level][i] * normal(&state);
}

/* The eigenvalues of real text fall like this; deeper levels are flatter. */
static void make_spreads(struct world *w)
{
    for (int level = 0; level < LEVELS; level++) {
        double sum = 0, bend = 100.0 * w->dim / 768 * (1 + level), fall = .85 - .12 * level;
        float *spread = w->spread[level] = need(w->dim * sizeof *spread);
        for (uint32_t i = 0; i < w->dim; i++)
            sum += spread[i] = (float)(pow(1 + i, -fall) / (1 + pow(i / bend, 1.6)));
        for (uint32_t i = 0; i < w->dim; i++)
            spread[i] = (float)sqrt((1 - mean_share) * shares[level] * spread[i] / sum);
    }
}

static void make_world(struct world *w, uint64_t rows, uint32_t dim)
{
    uint64_t state = 7;
    *w = (struct world){.rows = rows, .dim = dim, .power = 1};
    while (w->power * 2 <= dim)
        w->power *= 2;
    w->subjects = rows / SUBJECT_ROWS + 8;
    w->topics = w->subjects / SUBJECTS_A_TOPIC + 4;
    w->threads = rows / THREAD_ROWS + 8;
    make_spreads(w);
    w->mean = need(dim * sizeof *w->mean);
    w->topic = need(w->topics * dim * sizeof *w->topic);
    w->subject = need(w->subjects * dim * sizeof *w->subject);
    w->weight = need(w->topics * sizeof *w->weight);
    w->signs = need(3 * (size_t)dim);
    for (uint32_t i = 0; i < dim; i++)
        w->mean[i] = (float)sqrt(mean_share / dim) * (draw(&state) & 1 ? 1 : -1);
    for (uint32_t i = 0; i < 3 * dim; i++)
        w->signs[i] = draw(&state) & 1;
    for (uint64_t t = 0; t < w->topics; t++) {
        add_normals(w, 0, t, 1, w->topic + t * dim);
        w->weight[t] = 1.0 / pow((double)(t + 4), .7) + (t ? w->weight[t - 1] : 0);
    }
    /* A subject knows its topic: larger topics have more subjects. */
    for (uint64_t s = 0; s < w->subjects; s++) {
        double at = uniform(&state) * w->weight[w->topics - 1];
        uint64_t t = 0;
        while (t + 1 < w->topics && w->weight[t] < at)
            t++;
        memcpy(w->subject + s * dim, w->topic + t * dim, dim * sizeof(float));
        add_normals(w, 1, s, 1, w->subject + s * dim);
    }
}

static void hadamard(float *x, uint32_t n)
{
    for (uint32_t half = 1; half < n; half *= 2)
        for (uint32_t i = 0; i < n; i += 2 * half)
            for (uint32_t j = i; j < i + half; j++) {
                float a = x[j], b = x[j + half];
                x[j] = a + b;
                x[j + half] = a - b;
            }
    float scale = 1 / sqrtf((float)n);
    for (uint32_t i = 0; i < n; i++)
        x[i] *= scale;
}

static void rotate(const struct world *w, float *x)
{
    for (uint32_t round = 0; round < 3; round++) {
        for (uint32_t i = 0; i < w->dim; i++)
            x[i] = w->signs[round * w->dim + i] ? -x[i] : x[i];
        hadamard(round % 2 ? x + w->dim - w->power : x, w->power);
    }
}

static void make_row(const struct world *w, uint64_t seed, float *x)
{
    uint64_t state = seed * UINT64_C(0x2545f4914f6cdd1d) + 99;
    uint64_t thread = draw(&state) % w->threads, thread_state = thread * 31 + 5;
    uint64_t subject = draw(&thread_state) % w->subjects;
    /* Some threads say the same again and again, others wander. */
    float tightness = (float)(.65 + .55 * uniform(&thread_state));
    memcpy(x, w->subject + subject * w->dim, w->dim * sizeof *x);
    for (uint32_t i = 0; i < w->dim; i++)
        x[i] += w->mean[i];
    add_normals(w, 2, thread, 1, x);
    add_normals(w, 3, seed, tightness * (float)(.8 + .4 * uniform(&state)), x);
    rotate(w, x);
    double norm2 = 0;
    for (uint32_t i = 0; i < w->dim; i++)
        norm2 += (double)x[i] * x[i];
    float scale = (float)(1 / sqrt(norm2));
    for (uint32_t i = 0; i < w->dim; i++)
        x[i] *= scale;
}

static void write_rows(const struct world *w, uint64_t first, uint64_t count, const char *path)
{
    float *block = need((size_t)BLOCK * w->dim * sizeof *block);
    FILE *file = fopen(path, "wbe");
    bool ok = file != NULL;
    for (uint64_t at = 0; ok && at < count; at += BLOCK) {
        size_t rows = count - at < BLOCK ? count - at : BLOCK;
        for (size_t i = 0; i < rows; i++)
            make_row(w, first + at + i, block + i * w->dim);
        ok = fwrite(block, w->dim * sizeof *block, rows, file) == rows;
    }
    if (!file || fclose(file) != 0 || !ok) {
        fprintf(stderr, "make_synthetic: cannot write %s\n", path);
        exit(1);
    }
    free(block);
}

int main(int argc, char **argv)
{
    struct world w;
    uint64_t rows = argc == 6 ? strtoull(argv[1], NULL, 10) : 0, dim = argc == 6 ? strtoull(argv[2], NULL, 10) : 0;
    if (rows < 100 || dim < 2 || dim > 65536) {
        fprintf(stderr, "usage: make_synthetic ROWS DIM QUERIES BASE.f32 QUERIES.f32\n");
        return 2;
    }
    make_world(&w, rows, (uint32_t)dim);
    write_rows(&w, 1, rows, argv[4]);
    write_rows(&w, rows + 1, strtoull(argv[3], NULL, 10), argv[5]);
    return 0;
}
