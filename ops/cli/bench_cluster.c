/*
 * bench_cluster.c - clusters for measurements (see bench_cluster.h).
 */
#include "ops/cli/bench_cluster.h"

#include "ops/cli/cli_time.h"
#include "shm/instance.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { START_MS = 120000, STOP_MS = 30000, POLL_US = 500 };

volatile sig_atomic_t mn_bench_interrupted;

static void interrupted(int signal_number)
{
    mn_bench_interrupted = 1;
}

static void pause_us(long us)
{
    nanosleep(&(struct timespec){.tv_sec = us / 1000000, .tv_nsec = us % 1000000 * 1000}, NULL);
}

/* ---- the machine ---- */

double mn_bench_cluster_load(void)
{
    double load = 0;
    return getloadavg(&load, 1) == 1 ? load : -1;
}

const char *mn_bench_cluster_file_system(const char *path)
{
    static const struct {
        long magic;
        const char *name;
    } known[] = {{0xef53, "ext4"},          {0x01021994, "tmpfs"}, {0x58465342, "xfs"}, {0x9123683e, "btrfs"},
                 {0x794c7630, "overlayfs"}, {0x2fc12fc1, "zfs"},   {0x6969, "nfs"},     {0xf2f52010, "f2fs"}};
    struct statfs fs;
    if (statfs(path, &fs) != 0)
        return "unknown";
    for (size_t i = 0; i < MN_ARRAY_LEN(known); i++)
        if ((long)fs.f_type == known[i].magic)
            return known[i].name;
    return "unknown";
}

/* The fields of /proc/<pid>/stat behind the name, which may hold anything. */
static bool read_stat(pid_t pid, char *state, double *cpu)
{
    char path[40], text[1024];
    unsigned long user = 0, system = 0;
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    FILE *in = fopen(path, "re");
    if (!in)
        return false;
    size_t n = fread(text, 1, sizeof text - 1, in);
    fclose(in);
    text[n] = 0;
    char *behind = strrchr(text, ')');
    if (!behind ||
        sscanf(behind + 1, " %c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", state, &user, &system) != 3)
        return false;
    *cpu = (double)(user + system) / (double)sysconf(_SC_CLK_TCK);
    return true;
}

double mn_bench_cluster_cpu(const pid_t *pids, size_t count)
{
    double sum = 0, cpu;
    char state;
    for (size_t i = 0; i < count; i++)
        if (read_stat(pids[i], &state, &cpu))
            sum += cpu;
    return sum;
}

static bool is_alive(pid_t pid)
{
    char state;
    double cpu;
    return read_stat(pid, &state, &cpu) && state != 'Z' && state != 'X';
}

/* ---- finding mnemed ---- */

static char *beside(const char *folder, const char *name)
{
    char *path;
    if (asprintf(&path, "%s/%s", folder, name) < 0)
        return NULL;
    if (access(path, X_OK) == 0)
        return path;
    free(path);
    return NULL;
}

static char *in_path(const char *name)
{
    const char *paths = getenv("PATH");
    char *copy = strdup(paths ? paths : ""), *save, *found = NULL;
    for (char *p = copy ? strtok_r(copy, ":", &save) : NULL; p && !found; p = strtok_r(NULL, ":", &save))
        found = beside(p, name);
    free(copy);
    return found;
}

/* Beside this program, in a build tree's other folders, or in PATH. */
static enum mn_status find_mnemed(const struct mn_cli_args *args, const char **out)
{
    static const char *const near[] = {"mnemed", "../actors/mnemed", "../../actors/mnemed", "../bin/mnemed"};
    char self[4096];
    const char *given = mn_cli_args_text(args, "mnemed");
    *out = given;
    if (given)
        return access(given, X_OK) == 0 ? MN_OK : MN_FAIL_ERRNO("--mnemed: cannot run %s", given);
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    self[n > 0 ? n : 0] = 0;
    const char *folder = dirname(self);
    for (size_t i = 0; i < MN_ARRAY_LEN(near) && !*out; i++)
        *out = beside(folder, near[i]);
    if (!*out)
        *out = in_path("mnemed");
    return *out ? MN_OK
                : MN_FAIL(MN_USAGE, "there is no mnemed beside this program or in PATH: say where with --mnemed PATH");
}

/* ---- starting ---- */

/* In the child: nothing but what is safe after a fork. */
static _Noreturn void become_mnemed(const struct mn_bench_cluster *c, const char **argv, const char *log)
{
    int out = open(log, O_WRONLY | O_CREAT | O_APPEND, 0600), in = open("/dev/null", O_RDONLY);
    setpgid(0, 0);
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (out >= 0 && in >= 0 && dup2(in, 0) >= 0 && dup2(out, 1) >= 0 && dup2(out, 2) >= 0)
        execv(c->mnemed, (char *const *)argv);
    _exit(127);
}

enum mn_status mn_bench_cluster_start(struct mn_bench_cluster *c)
{
    const char *argv[2 * MN_BENCH_SETS + 10];
    char dim[16], log[128];
    size_t n = 0;
    snprintf(dim, sizeof dim, "%u", c->dim);
    snprintf(log, sizeof log, "%s/log", c->root);
    argv[n++] = c->mnemed;
    argv[n++] = "--dir";
    argv[n++] = c->dir;
    argv[n++] = "--dim";
    argv[n++] = dim;
    argv[n++] = "--metric";
    argv[n++] = c->metric;
    for (size_t i = 0; i < c->set_count; i++) {
        argv[n++] = "--set";
        argv[n++] = c->sets[i];
    }
    argv[n] = NULL;
    pid_t pid = fork();
    if (pid < 0)
        return MN_FAIL_ERRNO("could not fork");
    if (pid == 0)
        become_mnemed(c, argv, log);
    c->pid = pid;
    return MN_OK;
}

/* What mnemed said last, when it would not start. */
static void last_words(const struct mn_bench_cluster *c, char *out, size_t size)
{
    char path[128], text[2048];
    snprintf(path, sizeof path, "%s/log", c->root);
    FILE *in = fopen(path, "re");
    out[0] = 0;
    while (in && fgets(text, sizeof text, in)) {
        text[strcspn(text, "\n")] = 0;
        if (text[0])
            snprintf(out, size, "%.*s", (int)size - 1, text);
    }
    if (in)
        fclose(in);
}

static enum mn_status check_running(struct mn_bench_cluster *c)
{
    char words[256];
    int status;
    if (mn_bench_interrupted)
        return MN_FAIL(MN_UNAVAILABLE, "interrupted");
    if (!c->own || waitpid(c->pid, &status, WNOHANG) != c->pid)
        return MN_OK;
    c->pid = 0;
    last_words(c, words, sizeof words);
    return MN_FAIL(MN_UNAVAILABLE, "mnemed ended before it was ready: %s", words[0] ? words : "it said nothing");
}

static bool is_ready(struct mneme *client)
{
    struct mneme_reply *info;
    if (mneme_info(client, &info) != MNEME_OK)
        return false;
    struct mneme_value state = mneme_reply_get(info, "state");
    bool ready = mneme_value_is(state, "ready") || mneme_value_is(state, "degraded");
    mneme_reply_free(info);
    return ready;
}

enum mn_status mn_bench_cluster_wait_ready(struct mn_bench_cluster *c)
{
    uint64_t until = mn_cli_time_monotonic() + START_MS * 1000000ull;
    struct mneme *client = NULL;
    enum mn_status status = MN_OK;
    while (status == MN_OK && mn_cli_time_monotonic() < until) {
        if (!client && mn_cli_open(c->cli, c->dir, 20, &client) != MN_OK)
            client = NULL;
        if (client && is_ready(client)) {
            mneme_close(client);
            return MN_OK;
        }
        status = check_running(c);
        pause_us(POLL_US);
    }
    mneme_close(client);
    return status != MN_OK ? status : MN_FAIL(MN_UNAVAILABLE, "the cluster was not ready after %d s", START_MS / 1000);
}

enum mn_status mn_bench_cluster_open(const struct mn_bench_cluster *c, struct mneme **client)
{
    return mn_cli_open(c->cli, c->dir, 0, client);
}

static enum mn_status read_sets(struct mn_bench_cluster *c, const struct mn_cli_args *args, const char *extra_set)
{
    size_t cursor = 0;
    const char *set;
    if (extra_set)
        c->sets[c->set_count++] = extra_set;
    while ((set = mn_cli_args_next(args, "set", &cursor))) {
        if (c->set_count == MN_BENCH_SETS)
            return MN_FAIL(MN_USAGE, "at most %d --set", MN_BENCH_SETS);
        c->sets[c->set_count++] = set;
    }
    return MN_OK;
}

static enum mn_status make_folder(struct mn_bench_cluster *c, const struct mn_cli_args *args)
{
    const char *tmp = mn_cli_args_text(args, "tmp"), *env = getenv("TMPDIR");
    tmp = tmp ? tmp : env && *env ? env : "/var/tmp";
    if ((size_t)snprintf(c->root, sizeof c->root, "%s/mneme-bench-XXXXXX", tmp) >= sizeof c->root)
        return MN_FAIL(MN_USAGE, "%s is too long a path for the sockets of a store", tmp);
    if (!mkdtemp(c->root)) {
        c->root[0] = 0;
        return MN_FAIL_ERRNO("could not make a folder in %s", tmp);
    }
    snprintf(c->dir, sizeof c->dir, "%s/store", c->root);
    return MN_OK;
}

static enum mn_status use_running(struct mn_bench_cluster *c, const struct mn_cli *cli)
{
    struct mneme *client;
    if (strlen(cli->dir) >= sizeof c->dir)
        return MN_FAIL(MN_USAGE, "%s is too long a path", cli->dir);
    strcpy(c->dir, cli->dir);
    MN_TRY(mn_bench_cluster_open(c, &client));
    c->dim = mneme_dim(client);
    mneme_close(client);
    return MN_OK;
}

enum mn_status mn_bench_cluster_begin(struct mn_bench_cluster *c, const struct mn_cli *cli,
                                      const struct mn_cli_args *args, const char *extra_set)
{
    uint64_t dim = 768;
    const char *metric = mn_cli_args_text(args, "metric");
    struct sigaction action = {.sa_handler = interrupted};
    memset(c, 0, sizeof *c);
    c->cli = cli;
    c->own = !cli->dir_given;
    c->metric = metric ? metric : "cosine";
    c->keep = mn_cli_args_has(args, "keep");
    snprintf(c->space, sizeof c->space, "bench-%llx", (unsigned long long)mn_cli_time_now());
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    MN_TRY(mn_cli_args_u64(args, "dim", 1, 65536, &dim));
    c->dim = (uint32_t)dim;
    if (!c->own)
        return use_running(c, cli);
    MN_TRY(find_mnemed(args, &c->mnemed));
    MN_TRY(read_sets(c, args, extra_set));
    MN_TRY(make_folder(c, args));
    MN_TRY(mn_bench_cluster_start(c));
    return mn_bench_cluster_wait_ready(c);
}

/* ---- ending ---- */

enum mn_status mn_bench_cluster_pids(const struct mn_bench_cluster *c, struct mneme *client, pid_t *pids, size_t *count)
{
    struct mneme_reply *info;
    *count = 0;
    MN_CLI_TRY(client, mneme_info(client, &info));
    struct mneme_value roles = mneme_reply_get(info, "roles");
    for (size_t i = 0; i < mneme_value_length(roles) && *count < MN_BENCH_PIDS; i++) {
        int64_t pid = mneme_value_i64(mneme_value_get(mneme_value_at(roles, i), "pid"), 0);
        if (pid > 1)
            pids[(*count)++] = (pid_t)pid;
    }
    mneme_reply_free(info);
    return MN_OK;
}

static bool wait_gone(pid_t pid, long ms)
{
    for (long waited = 0; waited < ms && is_alive(pid); waited++)
        pause_us(1000);
    return !is_alive(pid);
}

enum mn_status mn_bench_cluster_kill(struct mn_bench_cluster *c)
{
    pid_t pids[MN_BENCH_PIDS];
    size_t count;
    struct mneme *client;
    MN_TRY(mn_bench_cluster_open(c, &client));
    enum mn_status status = mn_bench_cluster_pids(c, client, pids, &count);
    mneme_close(client);
    if (status != MN_OK)
        return status;
    kill(-c->pid, SIGKILL); /* all at once, as a power cut would; then, by pid, those that left the group */
    for (size_t i = 0; i < count; i++)
        kill(pids[i], SIGKILL);
    if (waitpid(c->pid, NULL, 0) != c->pid)
        return MN_FAIL_ERRNO("could not wait for mnemed");
    c->pid = 0;
    for (size_t i = 0; i < count; i++)
        if (!wait_gone(pids[i], 10000))
            return MN_FAIL(MN_SYSTEM, "process %d outlived SIGKILL", (int)pids[i]);
    return MN_OK;
}

/* SIGKILL leaves the instance's shared memory behind, noted in a file that a clean stop removes; there is no next start
 * to sweep it. */
static void remove_shared_memory(const struct mn_bench_cluster *c)
{
    char path[160], text[256] = "";
    snprintf(path, sizeof path, "%s/run/instance", c->dir);
    FILE *in = fopen(path, "re");
    if (!in)
        return;
    if (fgets(text, sizeof text, in)) {
        text[strcspn(text, "\n")] = 0;
        if (strncmp(text, "/dev/shm/mneme-", 15) == 0 && mn_instance_remove(text) != MN_OK)
            fprintf(stderr, "mneme bench: %s\n", mn_error_text());
    }
    fclose(in);
}

static void stop(struct mn_bench_cluster *c)
{
    if (c->pid <= 0)
        return;
    kill(c->pid, SIGTERM);
    for (int waited = 0; waited < STOP_MS; waited += 2) {
        if (waitpid(c->pid, NULL, WNOHANG) == c->pid) {
            c->pid = 0;
            return;
        }
        pause_us(2000);
    }
    fprintf(stderr, "mneme bench: the cluster did not stop within %d s and is killed\n", STOP_MS / 1000);
    kill(-c->pid, SIGKILL);
    waitpid(c->pid, NULL, 0);
    c->pid = 0;
}

static int remove_entry(const char *path, const struct stat *st, int kind, struct FTW *ftw)
{
    return remove(path);
}

static void forget_space(struct mn_bench_cluster *c)
{
    struct mneme *client;
    struct mneme_forgetting all = {.all = true};
    if (mn_bench_cluster_open(c, &client) != MN_OK)
        return;
    if (mneme_forget(client, c->space, &all, NULL, NULL) != MNEME_OK)
        fprintf(stderr, "mneme bench: the space %s stays behind: %s\n", c->space, mneme_error(client));
    mneme_close(client);
}

void mn_bench_cluster_end(struct mn_bench_cluster *c)
{
    char sentence[512];
    snprintf(sentence, sizeof sentence, "%s", mn_error_text()); /* ending must not hide why it ended */
    if (!c->own && c->dir[0])
        forget_space(c);
    if (c->own)
        stop(c);
    if (c->own && c->root[0])
        remove_shared_memory(c);
    if (c->own && c->root[0] && c->keep)
        fprintf(stderr, "the store stays in %s\n", c->dir);
    else if (c->own && c->root[0] && nftw(c->root, remove_entry, 16, FTW_DEPTH | FTW_PHYS) != 0)
        fprintf(stderr, "mneme bench: could not remove %s: %s\n", c->root, strerror(errno));
    if (sentence[0])
        (void)MN_FAIL(MN_INTERNAL, "%s", sentence);
}
