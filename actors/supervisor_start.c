/*
 * supervisor_start.c - everything before the first child: whose folder this is, who else was here, what is shared.
 *
 * Order matters. The lock comes before anything is read or made; orphans of an earlier supervisor are gone before their
 * shared memory is swept; the instance is noted in run/instance only when it is laid out. Each failure here ends mnemed
 * with one line.
 */
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <grp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/pidfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include "actors/actor.h"
#include "actors/supervisor.h"
#include "actors/tcp.h"
#include "engine/fault.h"
#include "engine/wal.h"
#include "engine/wal_copy.h"
#include "shm/process.h"

#define LONGEST_SOCKET  "run/role.wal-writer"
#define SOCKET_PATH_MAX 99 /* libzmq and the kernel stop at 107; some clients earlier */
#define ORPHAN_WAIT_NS  2000000000u
#define ORPHAN_KILL_NS  2000000000u
#define ORPHAN_LOOK_US  10000
#define START_BYTES     (256u << 10) /* of disk, for run/ */

char *mn_supervisor_settings_path(const struct mn_supervisor *s, char *path)
{
    return mn_store_path(&s->store, path, "run/settings");
}

/* Absolute, but with symbolic links left alone: a short link is a way round the limit on socket paths. */
static enum mn_status make_absolute(const char *dir, char *path, size_t size)
{
    char cwd[MN_PATH_MAX] = "";
    if (dir[0] != '/' && !getcwd(cwd, sizeof cwd))
        return MN_FAIL_ERRNO("getcwd");
    while (dir[0] == '.' && dir[1] == '/')
        dir += 2;
    int n = strcmp(dir, ".") == 0 ? snprintf(path, size, "%s", cwd)
                                  : snprintf(path, size, "%s%s%s", cwd, cwd[0] && cwd[1] ? "/" : "", dir);
    if (n < 0 || (size_t)n >= size)
        return MN_FAIL(MN_BAD_REQUEST, "the path of the data folder is too long");
    while (n > 1 && path[n - 1] == '/')
        path[--n] = 0;
    size_t max = SOCKET_PATH_MAX - strlen("/" LONGEST_SOCKET);
    if ((size_t)n > max)
        return MN_FAIL(MN_BAD_REQUEST,
                       "the path of the data folder has %d bytes; its sockets need one of at most %zu (a symbolic link "
                       "from a short path will do)",
                       n, max);
    return MN_OK;
}

static enum mn_status lock_folder(struct mn_supervisor *s, const char *dir)
{
    char path[MN_PATH_MAX];
    if (mkdir(dir, 0700) != 0 && errno != EEXIST)
        return MN_FAIL_ERRNO("cannot make the data folder %s", dir);
    snprintf(path, sizeof path, "%s/LOCK", dir);
    enum mn_status status = mn_store_lock(path, &s->lock_fd);
    return status == MN_BUSY ? MN_FAIL(MN_BUSY, "another mnemed serves %s", dir) : status;
}

static enum mn_status open_store(struct mn_supervisor *s, const char *dir)
{
    const struct mn_supervisor_options *o = s->options;
    enum mn_status status = mn_store_open(&s->store, &mn_io_posix, dir);
    if (status == MN_NOT_FOUND) {
        MN_TRY(mn_store_create(&s->store, &mn_io_posix, dir, o->dim ? o->dim : MN_DIM_DEFAULT,
                               o->metric >= 0 ? (enum mn_metric)o->metric : MN_METRIC_COSINE));
        mn_log(NULL, "made a new store in %s: dim %u, %s", dir, s->store.dim, mn_metric_word(s->store.metric));
        return MN_OK;
    }
    MN_TRY(status);
    if (o->dim && o->dim != s->store.dim)
        return MN_FAIL(MN_BAD_DIM, "the store %s has dim %u, not %u: leave --dim out, or give another folder", dir,
                       s->store.dim, o->dim);
    if (o->metric >= 0 && (enum mn_metric)o->metric != s->store.metric)
        return MN_FAIL(MN_BAD_REQUEST, "the store %s has metric %s, not %s: leave --metric out, or give another folder",
                       dir, mn_metric_word(s->store.metric), mn_metric_word((unsigned)o->metric));
    return MN_OK;
}

/* The log's second copy is recovery's and the writer's; that it is given up should not go unnoticed. */
static enum mn_status look_at_copy(const struct mn_supervisor *s)
{
    struct mn_copy_folder noted;
    if (s->settings.store_copies < 2 && mn_copy_folder_noted(&noted, &s->store) == MN_OK)
        mn_log(NULL,
               "store.copies is 1: the log was kept in %s too, and is kept once from now on; that copy is removed",
               noted.copy.dir);
    return mn_copy_folder_check(&s->store, &s->settings);
}

/* ---- access ---- */

static gid_t access_gid;

static int give_to_group(const char *path, const struct stat *st, int kind, struct FTW *ftw)
{
    /* Not the locks: whoever may read one may hold it. Nor the key: whoever has it is this server. */
    const char *name = path + ftw->base;
    if (kind == FTW_SL || strcmp(name, "LOCK") == 0 || strcmp(name, MN_TCP_KEY_FILE) == 0)
        return 0;
    if (st->st_gid != access_gid && chown(path, (uid_t)-1, access_gid) != 0)
        return -1;
    /* Set-group-ID on folders: what is made in them later belongs to the group by itself. */
    mode_t mode = kind == FTW_D ? (st->st_mode & 07777) | S_ISGID | 0050 : (st->st_mode & 07777) | 0040;
    return mode == (st->st_mode & 07777) || chmod(path, mode) == 0 ? 0 : -1;
}

static enum mn_status share(const char *path)
{
    return nftw(path, give_to_group, 16, FTW_PHYS) == 0 ? MN_OK
                                                        : MN_FAIL_ERRNO("cannot give %s to security.group", path);
}

/* The table of reader slots is the one thing that attached programs write. */
static enum mn_status share_instance(const struct mn_instance *instance)
{
    MN_TRY(share(instance->path));
    return fchmodat(instance->dir_fd, "readers", 0660, 0) == 0
               ? MN_OK
               : MN_FAIL_ERRNO("cannot give the reader slots to security.group");
}

/* Without security.group everything is the owner's alone. With it, the group reads the store and connects to its
 * sockets. */
static enum mn_status set_access(struct mn_supervisor *s)
{
    char path[MN_PATH_MAX];
    umask(s->settings.security_group[0] ? 0007 : 0077);
    if (mkdir(mn_store_path(&s->store, path, "run"), 0700) != 0 && errno != EEXIST)
        return MN_FAIL_ERRNO("cannot make %s", path);
    if (!s->settings.security_group[0])
        return chmod(path, 0700) == 0 ? MN_OK : MN_FAIL_ERRNO("chmod %s", path);
    const struct group *group = getgrnam(s->settings.security_group);
    if (!group)
        return MN_FAIL(MN_BAD_REQUEST, "security.group names the group %s, which does not exist",
                       s->settings.security_group);
    access_gid = group->gr_gid;
    return share(s->store.dir);
}

/* ---- what an earlier supervisor left ---- */

static enum mn_status read_noted_instance(const struct mn_supervisor *s, char *noted, size_t size)
{
    char path[MN_PATH_MAX];
    void *text;
    size_t bytes;
    MN_TRY(mn_io_slurp(&mn_io_posix, mn_store_path(&s->store, path, "run/instance"), size - 1, &text, &bytes));
    memcpy(noted, text, bytes);
    noted[bytes] = 0;
    noted[strcspn(noted, "\n")] = 0;
    free(text);
    return MN_OK;
}

/* How many processes of the old instance still run; with a signal, sends it to each. Pid and start time name a process;
 * the pidfd is opened before the start time is compared, so that the signal cannot reach another. */
static uint32_t look_at_orphans(const struct mn_control *control, int signal)
{
    uint32_t alive = 0;
    for (uint32_t i = 1; i < MN_ROLE_SLOTS; i++) {
        uint32_t pid = atomic_load(&control->roles[i].pid);
        int fd = pid ? pidfd_open((pid_t)pid, 0) : -1;
        if (fd < 0)
            continue;
        if (mn_process_alive(pid, atomic_load(&control->roles[i].start_time))) {
            alive++;
            if (signal)
                pidfd_send_signal(fd, signal, NULL, 0);
        }
        close(fd);
    }
    return alive;
}

static bool await_orphans(const struct mn_control *control, uint64_t patience_ns)
{
    uint64_t end = mn_clock_ns() + patience_ns;
    while (look_at_orphans(control, 0) > 0) {
        if (mn_clock_ns() > end)
            return false;
        usleep(ORPHAN_LOOK_US);
    }
    return true;
}

/* Children of a supervisor that was killed see the end of their pipe and go; those that do not are killed. */
static enum mn_status outlive_orphans(struct mn_supervisor *s)
{
    char noted[128];
    struct mn_instance old;
    if (read_noted_instance(s, noted, sizeof noted) != MN_OK || mn_instance_open(&old, noted, false) != MN_OK)
        return MN_OK; /* a clean stop, another boot, or another build: wal/LOCK still guards the log */
    enum mn_status status = MN_OK;
    bool ours = memcmp(old.control->store_uuid, s->store.uuid, sizeof s->store.uuid) == 0;
    /* Of this boot, so exact: recovery compares the log with it, and says so when something acknowledged is missing. */
    if (ours)
        s->acked_seq = atomic_load(&old.control->acked_seq);
    if (ours && !await_orphans(old.control, ORPHAN_WAIT_NS)) {
        mn_log(NULL, "killing %u processes that an earlier supervisor left", look_at_orphans(old.control, SIGKILL));
        if (!await_orphans(old.control, ORPHAN_KILL_NS))
            status = MN_FAIL(MN_BUSY, "processes that an earlier mnemed started on %s cannot be killed (a hung disk?)",
                             s->store.dir);
    }
    mn_instance_close(&old);
    return status;
}

/* ---- the new instance ---- */

static enum mn_status note_instance(struct mn_supervisor *s)
{
    char path[MN_PATH_MAX], text[sizeof s->instance.path + 1];
    int n = snprintf(text, sizeof text, "%s\n", s->instance.path);
    return mn_io_replace(&mn_io_posix, mn_store_path(&s->store, path, "run/instance"), text, (size_t)n);
}

static enum mn_status make_instance(struct mn_supervisor *s)
{
    struct mn_instance_shape shape = {
        .dim = s->store.dim, .metric = s->store.metric, .reader_slots = (uint32_t)s->settings.reader_slots};
    memcpy(shape.store_uuid, s->store.uuid, sizeof shape.store_uuid);
    MN_TRY(mn_instance_create(&s->instance, &shape));
    MN_FAULT_POINT(instance_created);
    atomic_store(&s->instance.control->acked_seq, s->acked_seq);
    struct mn_role_slot *slot = &s->instance.control->roles[MN_SLOT_SUPERVISOR];
    atomic_store(&slot->heartbeat_ns, mn_clock_ns());
    atomic_store(&slot->state, MN_ROLE_READY);
    atomic_store(&slot->role, MN_ROLE_SUPERVISOR + 1);
    s->stats = mn_stats_page(&s->instance.stats, MN_SLOT_SUPERVISOR);
    if (s->settings.security_group[0])
        MN_TRY(share_instance(&s->instance));
    return note_instance(s);
}

enum mn_status mn_supervisor_open(struct mn_supervisor *s)
{
    char dir[MN_PATH_MAX / 2], path[MN_PATH_MAX];
    MN_TRY(make_absolute(s->options->dir, dir, sizeof dir));
    MN_TRY(lock_folder(s, dir));
    MN_TRY(open_store(s, dir));
    MN_TRY(look_at_copy(s));
    MN_TRY(set_access(s));
    MN_TRY(outlive_orphans(s));
    mn_instance_sweep(s->store.uuid);
    MN_TRY(mn_tcp_check(&s->settings, s->store.dir));
    mn_wal_make_room(&s->store, START_BYTES);
    MN_TRY(mn_settings_write_file(&s->settings, mn_supervisor_settings_path(s, path)));
    MN_TRY(make_instance(s));
    MN_FAULT_POINT(instance_noted);
    if (pipe2(s->pipe_fds, O_CLOEXEC) != 0)
        return MN_FAIL_ERRNO("pipe2");
    mn_children_lay_out(s);
    return MN_OK;
}

/* Sockets and their lock files: nobody serves them any more, and libzmq leaves them lying. */
static enum mn_status remove_socket(void *context, const char *name)
{
    const struct mn_supervisor *s = context;
    char path[MN_PATH_MAX], relative[MN_PATH_MAX / 2];
    struct stat st;
    snprintf(relative, sizeof relative, "run/%s", name);
    mn_store_path(&s->store, path, relative);
    size_t n = strlen(name);
    bool lock = n > 5 && strcmp(name + n - 5, ".lock") == 0;
    if (lstat(path, &st) == 0 && (S_ISSOCK(st.st_mode) || lock))
        unlink(path);
    return MN_OK;
}

void mn_supervisor_close(struct mn_supervisor *s)
{
    char path[MN_PATH_MAX], shared[sizeof s->instance.path];
    if (s->instance.control) {
        memcpy(shared, s->instance.path, sizeof shared);
        unlink(mn_store_path(&s->store, path, "run/instance"));
        mn_instance_close(&s->instance);
        if (mn_instance_remove(shared) != MN_OK)
            mn_log(NULL, "%s", mn_error_text());
        if (mn_io_posix.list(mn_store_path(&s->store, path, "run"), remove_socket, s) != MN_OK)
            mn_log(NULL, "%s", mn_error_text());
    }
    for (int i = 0; i < 2; i++)
        if (s->pipe_fds[i] >= 0)
            close(s->pipe_fds[i]);
    if (s->lock_fd >= 0)
        close(s->lock_fd);
}
