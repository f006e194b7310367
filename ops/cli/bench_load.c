/*
 * bench_load.c - the running of processes in step (see bench_load.h).
 */
#include "ops/cli/bench_load.h"

#include "ops/cli/cli_time.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { READY_MS = 60000, END_MS = 90000 };

/* ---- random numbers and hashes ---- */

uint64_t mn_bench_load_random(uint64_t *state)
{
    uint64_t x = *state += 0x9e3779b97f4a7c15ull;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ull;
    x = (x ^ x >> 27) * 0x94d049bb133111ebull;
    return x ^ x >> 31;
}

float mn_bench_load_normal(uint64_t *state)
{
    double u = ((double)(mn_bench_load_random(state) >> 11) + 1) * 0x1p-53;
    double v = (double)(mn_bench_load_random(state) >> 11) * 0x1p-53;
    return (float)(sqrt(-2 * log(u)) * cos(6.283185307179586 * v));
}

static uint64_t mix(uint64_t h, uint64_t word)
{
    h = (h ^ word) * 0x9fb21c651e98df25ull;
    return h ^ h >> 29;
}

static uint64_t hash_bytes(uint64_t h, const void *bytes, size_t size)
{
    const char *at = bytes;
    uint64_t word;
    h = mix(h, size);
    for (; size >= sizeof word; at += sizeof word, size -= sizeof word) {
        memcpy(&word, at, sizeof word);
        h = mix(h, word);
    }
    word = 0;
    if (size)
        memcpy(&word, at, size);
    return mix(h, word);
}

uint64_t mn_bench_load_hash(uint64_t id, const void *embedding, size_t embedding_size, const void *content,
                            size_t content_size)
{
    return hash_bytes(hash_bytes(mix(0x2545f4914f6cdd1dull, id), embedding, embedding_size), content, content_size);
}

/* ---- processes ---- */

void mn_bench_load_pause(long us)
{
    nanosleep(&(struct timespec){.tv_nsec = us * 1000}, NULL);
}

enum mn_status mn_bench_load_init(struct mn_bench_load *load)
{
    memset(load, 0, sizeof *load);
    void *memory = mmap(NULL, sizeof *load->shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        return MN_FAIL_ERRNO("could not map memory for the clients' counters");
    load->shared = memory;
    return MN_OK;
}

static _Noreturn void run_client(struct mn_bench_load *load, size_t index, mn_bench_body *body, const void *work)
{
    struct mn_bench_client *me = &load->shared->clients[index];
    struct rusage usage;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    signal(SIGINT, SIG_IGN); /* the bench hears it and says STOP */
    signal(SIGTERM, SIG_DFL);
    enum mn_status status = body(load->shared, me, index, work);
    if (status != MN_OK)
        snprintf(me->error, sizeof me->error, "%s", mn_error_text());
    getrusage(RUSAGE_SELF, &usage);
    me->cpu_ns = (uint64_t)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1000000000ull +
                 (uint64_t)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) * 1000ull;
    atomic_store(&me->ended, 1);
    _exit(status == MN_OK ? 0 : 1);
}

enum mn_status mn_bench_load_fork(struct mn_bench_load *load, mn_bench_body *body, const void *work)
{
    if (load->count == MN_BENCH_CLIENTS)
        return MN_FAIL(MN_USAGE, "at most %d clients", MN_BENCH_CLIENTS);
    pid_t pid = fork();
    if (pid < 0)
        return MN_FAIL_ERRNO("could not fork a client");
    if (pid == 0)
        run_client(load, load->count, body, work);
    load->pids[load->count++] = pid;
    return MN_OK;
}

/* Reaps what has ended. */
enum mn_status mn_bench_load_check(struct mn_bench_load *load)
{
    for (size_t i = 0; i < load->count; i++) {
        int status;
        if (load->pids[i] <= 0 || waitpid(load->pids[i], &status, WNOHANG) != load->pids[i])
            continue;
        load->pids[i] = 0;
        if (!WIFEXITED(status))
            return MN_FAIL(MN_INTERNAL, "client %zu died of signal %d", i, WTERMSIG(status));
        if (WEXITSTATUS(status) != 0)
            return MN_FAIL(MN_INTERNAL, "client %zu: %s", i, load->shared->clients[i].error);
    }
    return mn_bench_interrupted ? MN_FAIL(MN_UNAVAILABLE, "interrupted") : MN_OK;
}

enum mn_status mn_bench_load_wait_ready(struct mn_bench_load *load)
{
    uint64_t until = mn_cli_time_monotonic() + READY_MS * 1000000ull;
    for (size_t i = 0; i < load->count;) {
        MN_TRY(mn_bench_load_check(load));
        if (atomic_load(&load->shared->clients[i].ready))
            i++;
        else if (mn_cli_time_monotonic() > until)
            return MN_FAIL(MN_UNAVAILABLE, "client %zu was not ready after %d s", i, READY_MS / 1000);
        else
            mn_bench_load_pause(500);
    }
    return MN_OK;
}

enum mn_status mn_bench_load_run(struct mn_bench_load *load, enum mn_bench_phase phase, double seconds)
{
    uint64_t until = mn_cli_time_monotonic() + (uint64_t)(seconds * 1e9), now;
    atomic_store(&load->shared->phase, phase);
    while ((now = mn_cli_time_monotonic()) < until) {
        MN_TRY(mn_bench_load_check(load));
        mn_bench_load_pause((long)((until - now) / 1000 < 20000 ? (until - now) / 1000 + 1 : 20000));
    }
    return mn_bench_load_check(load);
}

enum mn_status mn_bench_load_stop(struct mn_bench_load *load)
{
    uint64_t until = mn_cli_time_monotonic() + END_MS * 1000000ull;
    atomic_store(&load->shared->phase, MN_BENCH_STOP);
    for (size_t i = 0; i < load->count;) {
        MN_TRY(mn_bench_load_check(load));
        if (load->pids[i] == 0)
            i++;
        else if (mn_cli_time_monotonic() > until)
            return MN_FAIL(MN_UNAVAILABLE, "client %zu did not end within %d s", i, END_MS / 1000);
        else
            mn_bench_load_pause(500);
    }
    return MN_OK;
}

void mn_bench_load_end(struct mn_bench_load *load)
{
    for (size_t i = 0; i < load->count; i++) {
        if (load->pids[i] > 0) {
            kill(load->pids[i], SIGKILL);
            waitpid(load->pids[i], NULL, 0);
        }
        load->pids[i] = 0;
    }
    if (load->shared)
        munmap(load->shared, sizeof *load->shared);
    load->shared = NULL;
}

struct mn_cli_hist *mn_bench_load_latency(const struct mn_bench_load *load, size_t from, size_t to, bool worker)
{
    struct mn_cli_hist *sum = calloc(1, sizeof *sum);
    for (size_t i = from; sum && i < to; i++)
        mn_cli_hist_merge(sum, worker ? &load->shared->clients[i].worker_us : &load->shared->clients[i].latency_ns);
    return sum;
}
