/*
 * mneme.c - Mneme twice: in process and over ZeroMQ (see peers.h).
 *
 * Both share one mnemed that is started here, on a store in the bench's folder, and stopped at the end. In process is
 * an attached program, over ZeroMQ the C client.
 */
#include <fcntl.h>
#include <math.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "clients/c/mneme.h"
#include "engine/codebook.h"
#include "engine/hot.h"
#include "engine/kernels.h"
#include "engine/reader.h"
#include "engine/tune.h"
#include "tests/bench/peers/peers.h"

enum { LOAD_ROWS = 256, START_MS = 120000, STOP_MS = 60000, HOT_MS = 15000 };

struct peer_mneme_options peer_mneme_options = {.core = -1};
double peer_zeromq_worker_us;
size_t peer_zeromq_reply_bytes = 400;

/* ---- the daemon ---- */

static struct cluster {
    uint32_t users;
    pid_t pid;
    char dir[200];
    const struct peer_data *data;
    struct mneme *client;
    double load_s, build_s;
} cluster;

static void pause_ms(long ms)
{
    nanosleep(&(struct timespec){.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000}, NULL);
}

/* Compaction is a setting that can be reloaded, in the file; what the caller set stays on the command line. */
static void configure(const struct cluster *c, bool compact)
{
    char path[256];
    snprintf(path, sizeof path, "%s.conf", c->dir);
    FILE *file = fopen(path, "we");
    if (!file || fprintf(file, "[compact]\nenabled = %s\n", compact ? "yes" : "no") < 0 || fclose(file) != 0)
        peer_die("cannot write %s", path);
}

static void start_daemon(struct cluster *c, bool kept)
{
    const struct peer_mneme_options *o = &peer_mneme_options;
    const char *argv[2 * PEER_MANY + 12];
    char dim[16], log[256], conf[256];
    size_t n = 0;
    snprintf(dim, sizeof dim, "%u", c->data->dim);
    snprintf(log, sizeof log, "%s.log", c->dir);
    snprintf(conf, sizeof conf, "%s.conf", c->dir);
    const char *fixed[] = {o->mnemed, "--dir", c->dir, "--dim", dim, "--metric", "cosine", "--config", conf};
    configure(c, o->compact || kept);
    for (; n < sizeof fixed / sizeof *fixed; n++)
        argv[n] = fixed[n];
    for (size_t i = 0; i < o->set_count; i++) {
        argv[n++] = "--set";
        argv[n++] = o->sets[i];
    }
    argv[n] = NULL;
    c->pid = fork();
    if (c->pid < 0)
        peer_die("cannot fork");
    if (c->pid > 0)
        return;
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(o->core < 0 ? 0 : o->core, &set);
    if (o->core >= 0 && sched_setaffinity(0, sizeof set, &set) != 0)
        _exit(126);
    int out = open(log, O_WRONLY | O_CREAT | O_APPEND, 0600), in = open("/dev/null", O_RDONLY);
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (out >= 0 && in >= 0 && dup2(in, 0) >= 0 && dup2(out, 1) >= 0 && dup2(out, 2) >= 0)
        execv(o->mnemed, (char *const *)argv);
    _exit(127);
}

static bool is_ready(struct mneme *client)
{
    struct mneme_reply *info;
    if (mneme_info(client, &info) != MNEME_OK)
        return false;
    bool ready = mneme_value_is(mneme_reply_get(info, "state"), "ready");
    mneme_reply_free(info);
    return ready;
}

static void await_ready(struct cluster *c)
{
    struct mneme_options options = {.wait_ms = START_MS, .timeout_ms = START_MS};
    if (mneme_open(&c->client, c->dir, &options) != MNEME_OK)
        peer_die("mnemed: %s; its log is %s.log", mneme_open_error(), c->dir);
    for (int waited = 0; !is_ready(c->client); waited++) {
        if (waited > START_MS / 20 || waitpid(c->pid, NULL, WNOHANG) == c->pid)
            peer_die("mnemed did not become ready; its log is %s.log", c->dir);
        pause_ms(20);
    }
}

static void stop_daemon(struct cluster *c)
{
    mneme_close(c->client);
    c->client = NULL;
    kill(c->pid, SIGTERM);
    for (int waited = 0; waited < STOP_MS / 20; waited++) {
        if (waitpid(c->pid, NULL, WNOHANG) == c->pid)
            return;
        pause_ms(20);
    }
    peer_die("mnemed (pid %d) did not stop", (int)c->pid);
}

/* ---- loading and building ---- */

void peer_mneme_load(uint64_t from, uint64_t end)
{
    struct cluster *c = &cluster;
    uint32_t dim = c->data->dim;
    float *rows = malloc((size_t)LOAD_ROWS * dim * sizeof *rows);
    struct mneme_memory memories[LOAD_ROWS];
    struct mneme_id ids[LOAD_ROWS];
    uint64_t told = peer_now_ns();
    for (uint64_t first = from; first < end; first += LOAD_ROWS) {
        size_t count = end - first < LOAD_ROWS ? end - first : LOAD_ROWS;
        for (size_t i = 0; i < count; i++) {
            peer_data_row(c->data, first + i, rows + i * dim);
            ids[i] = (struct mneme_id){.number = first + i + 1};
            memories[i] = (struct mneme_memory){.id = &ids[i], .embedding = rows + i * dim};
        }
        if (mneme_remember(c->client, NULL, memories, count, NULL, NULL) != MNEME_OK)
            peer_die("loading: %s", mneme_error(c->client));
        if (peer_now_ns() - told > 20000000000u) {
            told = peer_now_ns();
            peer_say("mneme: loaded %.0f %%", 100.0 * (double)(first - from) / (double)(end - from));
        }
    }
    free(rows);
}

/* ---- a look inside ---- */

struct inside {
    struct mn_store store;
    struct mn_instance instance;
    struct mn_reader *reader;
};

static void check(enum mn_status status)
{
    if (status != MN_OK)
        peer_die("mneme: %s", mn_error_trail());
}

static void inside_open(struct inside *in, const struct cluster *c)
{
    char path[256], text[160] = "";
    snprintf(path, sizeof path, "%s/run/instance", c->dir);
    FILE *file = fopen(path, "re");
    if (!file || !fgets(text, sizeof text, file))
        peer_die("cannot read %s", path);
    fclose(file);
    text[strcspn(text, "\n")] = 0;
    check(mn_store_open(&in->store, &mn_io_posix, c->dir));
    check(mn_instance_open(&in->instance, text, false));
    check(mn_reader_open(&in->reader, &in->store, &in->instance));
}

static void inside_close(struct inside *in)
{
    mn_reader_close(in->reader);
    mn_instance_close(&in->instance);
}

/* Whether recall is tuned for about so many rows: the compactor calibrates anew when a fifth has changed. */
static bool is_tuned(const struct mn_snapshot *snapshot, double rows)
{
    struct mn_tuning tuning = mn_tune_read(snapshot->tuning);
    return mn_tuned(&tuning) && fabs((double)tuning.rows - rows) <= 0.25 * rows;
}

/* Every row lies in columns with codes, and recall is tuned. */
static bool is_indexed(struct inside *in)
{
    struct mn_snapshot snapshot;
    double rows = 0;
    check(mn_reader_pin(in->reader, 0, &snapshot));
    bool good = true;
    for (uint32_t i = 0; i < snapshot.part_count; i++) {
        good = good && (snapshot.parts[i].ivf || snapshot.parts[i].rows == 0);
        rows += snapshot.parts[i].rows;
    }
    good = good && is_tuned(&snapshot, rows);
    mn_reader_unpin(in->reader);
    return good;
}

/* Every segment's codes have their copy in shared memory. */
static bool is_hot(struct inside *in)
{
    struct mn_snapshot snapshot;
    bool hot = true;
    check(mn_reader_pin(in->reader, 0, &snapshot));
    for (uint32_t i = 0; i < snapshot.part_count; i++) {
        const struct mn_part *part = &snapshot.parts[i];
        if (!part->tail && part->ivf)
            hot = hot && mn_hot_there(&in->instance, part->number, part->ivf->codebook->gen);
    }
    mn_reader_unpin(in->reader);
    return hot;
}

/* After a start the copies are made while recalls already run: the measurement is of the state that lasts. */
static void await_hot(struct inside *in)
{
    for (int waited = 0; waited < HOT_MS / 20; waited++) {
        if (is_hot(in))
            return;
        pause_ms(20);
    }
    peer_say("mneme: some codes are read from their files, there is no copy in shared memory");
}

static bool await_index(struct cluster *c)
{
    struct inside in = {0};
    uint64_t until = peer_now_ns() + (uint64_t)(peer_mneme_options.index_wait_s * 1e9);
    inside_open(&in, c);
    bool good = is_indexed(&in);
    while (!good && peer_now_ns() < until) {
        pause_ms(10);
        good = is_indexed(&in);
    }
    inside_close(&in);
    if (!good)
        peer_say("mneme: there is no index over all rows, or it is not tuned: what it lacks is searched exactly");
    return good;
}

bool peer_mneme_build(void)
{
    configure(&cluster, true);
    if (mneme_reload(cluster.client, NULL) != MNEME_OK)
        peer_die("reload: %s", mneme_error(cluster.client));
    if (mneme_consolidate(cluster.client, true, NULL) != MNEME_OK)
        peer_die("consolidate: %s", mneme_error(cluster.client));
    return await_index(&cluster);
}

static void build(struct cluster *c, const char *dir)
{
    uint64_t begun = peer_now_ns();
    peer_mneme_load(0, c->data->rows);
    c->load_s = (double)(peer_now_ns() - begun) / 1e9;
    begun = peer_now_ns();
    peer_mneme_build();
    c->build_s = (double)(peer_now_ns() - begun) / 1e9;
    peer_times_write(dir, "mneme", c->load_s, c->build_s);
}

/* A store that was left half loaded has no times beside it. */
static void check_rows(struct cluster *c)
{
    struct mneme_reply *reply;
    if (mneme_count(c->client, NULL, &reply) != MNEME_OK)
        peer_die("count: %s", mneme_error(c->client));
    uint64_t count = mneme_value_u64(mneme_reply_get(reply, "count"), 0);
    mneme_reply_free(reply);
    if (count != c->data->rows)
        peer_die("%s holds %llu memories: remove it", c->dir, (unsigned long long)count);
}

void peer_mneme_start(const struct peer_data *data, const char *dir)
{
    struct cluster *c = &cluster;
    c->data = data;
    if ((size_t)snprintf(c->dir, sizeof c->dir, "%s/store", dir) > 80)
        peer_die("%s is too long a path for sockets", dir);
    start_daemon(c, peer_times_read(dir, "mneme", &c->load_s, &c->build_s));
    await_ready(c);
}

void peer_mneme_stop(void)
{
    stop_daemon(&cluster);
}

static void cluster_use(const struct peer_data *data, const char *dir)
{
    struct cluster *c = &cluster;
    if (c->users++ > 0)
        return;
    peer_mneme_start(data, dir);
    if (!peer_times_read(dir, "mneme", &c->load_s, &c->build_s))
        build(c, dir);
    check_rows(c);
}

static void cluster_leave(void)
{
    if (--cluster.users == 0)
        stop_daemon(&cluster);
}

/* ---- in process ---- */

static double wanted = .95; /* recall */

static void attached_begin(struct peer *self, const struct peer_data *data, const char *dir)
{
    struct inside in = {0};
    struct mneme_attached *attached;
    cluster_use(data, dir);
    inside_open(&in, &cluster);
    if (!is_indexed(&in))
        peer_say("mneme: not all rows have an index");
    await_hot(&in);
    inside_close(&in);
    if (mneme_attach(&attached, cluster.dir, 0) != MNEME_OK)
        peer_die("attach: %s", mneme_open_error());
    snprintf(self->note, sizeof self->note, "attached, kernels %s", mn_kernels_best()->name);
    self->state = attached;
}

static void attached_end(struct peer *self)
{
    mneme_detach(self->state);
    cluster_leave();
}

static void set_wanted(struct peer *self, double knob)
{
    wanted = knob;
}

static struct mneme_query query_of(const float *embedding)
{
    static const char *const no_fields[] = {NULL};
    return (struct mneme_query){.embeddings = embedding, .k = PEER_K, .target = &wanted, .fields = no_fields};
}

static uint32_t attached_ask(struct peer *self, const float *query, uint32_t *ids, uint64_t *scanned)
{
    struct mneme_query asked = query_of(query);
    struct mneme_answer answer;
    if (mneme_attached_recall(self->state, &asked, &answer) != MNEME_OK)
        peer_die("recall: %s", mneme_attached_error(self->state));
    for (size_t i = 0; i < answer.results[0].count; i++)
        ids[i] = (uint32_t)answer.results[0].hit[i].memory.id.number - 1;
    *scanned = answer.scanned;
    return (uint32_t)answer.results[0].count;
}

/* ---- what it costs ---- */

/* Bytes of a mapping that are in memory, whoever brought them there. */
static double resident_of(unsigned long from, unsigned long to)
{
    size_t pages = (to - from + 4095) / 4096, there = 0;
    unsigned char *map = malloc(pages);
    if (map && mincore((void *)from, to - from, map) == 0)
        for (size_t i = 0; i < pages; i++)
            there += map[i] & 1;
    free(map);
    return (double)there * 4096;
}

static bool is_ours(const char *path, const char *instance)
{
    bool column = strncmp(path, cluster.dir, strlen(cluster.dir)) == 0 && !strstr(path, "/wal/");
    return column || strncmp(path, instance, strlen(instance)) == 0;
}

/* What this process uses of the store and of its shared memory: of copies of codes all that there is, of the rest the
 * pages that its recalls have touched. The log is left out: it is a ring of files. */
static void add_resident(struct peer_cost *cost)
{
    char line[600], path[512] = "";
    unsigned long from = 0, to = 0, kib;
    struct inside in = {0};
    inside_open(&in, &cluster);
    FILE *maps = fopen("/proc/self/smaps", "re");
    while (maps && fgets(line, sizeof line, maps)) {
        if (sscanf(line, "%lx-%lx %*s %*s %*s %*s %511s", &from, &to, path) == 2)
            path[0] = 0; /* a mapping without a file */
        if (sscanf(line, "Rss: %lu kB", &kib) != 1 || !is_ours(path, in.instance.path))
            continue;
        double bytes = strstr(path, "/hot.") ? resident_of(from, to) : (double)kib * 1024;
        cost->resident += bytes;
        if (strstr(path, "/embeddings.col"))
            cost->resident_vector += bytes;
        if (bytes >= (double)cluster.data->rows)
            peer_say("resident: %7.1f bytes a row of %s", bytes / (double)cluster.data->rows, strrchr(path, '/') + 1);
    }
    if (maps)
        fclose(maps);
    inside_close(&in);
}

static void attached_cost(struct peer *self, struct peer_cost *cost)
{
    char path[256];
    *cost = (struct peer_cost){.load_s = cluster.load_s, .build_s = cluster.build_s};
    add_resident(cost);
    snprintf(path, sizeof path, "%s/columns", cluster.dir);
    cost->disk = peer_disk(path);
    snprintf(path, sizeof path, "%s/codebooks", cluster.dir);
    cost->disk += peer_disk(path);
}

const struct peer peer_mneme = {.name = "mneme",
                                .open = attached_begin,
                                .close = attached_end,
                                .tune = set_wanted,
                                .ask = attached_ask,
                                .cost = attached_cost};

/* ---- over ZeroMQ ---- */

static void outside_begin(struct peer *self, const struct peer_data *data, const char *dir)
{
    cluster_use(data, dir);
    snprintf(self->note, sizeof self->note, "C client, one worker, ipc");
}

static void outside_end(struct peer *self)
{
    cluster_leave();
}

static uint32_t outside_ask(struct peer *self, const float *query, uint32_t *ids, uint64_t *scanned)
{
    struct mneme_query asked = query_of(query);
    struct mneme_reply *reply;
    if (mneme_recall(cluster.client, &asked, &reply) != MNEME_OK)
        peer_die("recall: %s", mneme_error(cluster.client));
    struct mneme_value hits = mneme_reply_get(reply, "hits");
    uint32_t count = (uint32_t)mneme_value_length(hits);
    for (uint32_t i = 0; i < count; i++)
        ids[i] = (uint32_t)mneme_value_u64(mneme_value_get(mneme_value_at(hits, i), "id"), 0) - 1;
    *scanned = mneme_value_u64(mneme_reply_get(reply, "scanned"), 0);
    peer_zeromq_worker_us = mneme_value_f64(mneme_reply_get(reply, "us"), 0);
    (void)mneme_reply_bytes(reply, &peer_zeromq_reply_bytes);
    mneme_reply_free(reply);
    return count;
}

static void outside_cost(struct peer *self, struct peer_cost *cost)
{
    *cost = (struct peer_cost){.load_s = cluster.load_s, .build_s = cluster.build_s};
}

const struct peer peer_zeromq = {.name = "mneme-zmq",
                                 .open = outside_begin,
                                 .close = outside_end,
                                 .tune = set_wanted,
                                 .ask = outside_ask,
                                 .cost = outside_cost};
