/*
 * instance.c - the folder of a running cluster under /dev/shm.
 */
#include "shm/instance.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "shm/process.h"

#define SHM_ROOT      "/dev/shm"
#define FOLDER_PREFIX "mneme-"

static struct mn_segment_identity identity_of(const struct mn_instance *instance, uint64_t magic)
{
    struct mn_segment_identity identity = instance->identity;
    identity.magic = magic;
    return identity;
}

static enum mn_status make_segment(struct mn_instance *instance, struct mn_segment *segment, const char *name,
                                   uint64_t magic, uint64_t bytes)
{
    struct mn_segment_identity identity = identity_of(instance, magic);
    return mn_segment_create(segment, instance->dir_fd, name, bytes, &identity, 0600);
}

static void adopt(struct mn_instance *instance)
{
    instance->control = instance->control_segment.base;
    instance->epoch = (struct mn_epoch){
        .slots = (struct mn_reader_slot *)(void *)((char *)instance->readers_segment.base +
                                                   sizeof(struct mn_segment_header)),
        .count = instance->control->reader_slots,
        .control = instance->control,
    };
}

static enum mn_status lay_out(struct mn_instance *instance, const struct mn_instance_shape *shape)
{
    MN_TRY(make_segment(instance, &instance->control_segment, "control", MN_MAGIC_CONTROL, sizeof(struct mn_control)));
    MN_TRY(make_segment(instance, &instance->readers_segment, "readers", MN_MAGIC_READERS,
                        sizeof(struct mn_segment_header) + sizeof(struct mn_reader_slot) * shape->reader_slots));
    MN_TRY(make_segment(instance, &instance->stats.segment, "stats", MN_MAGIC_STATS, mn_stats_bytes()));
    struct mn_control *control = instance->control_segment.base;
    memcpy(control->store_uuid, shape->store_uuid, sizeof control->store_uuid);
    control->dim = shape->dim;
    control->metric = shape->metric;
    control->reader_slots = shape->reader_slots;
    adopt(instance);
    /* Before anybody can open it: an instance without a living supervisor is swept away by the next one that starts. */
    atomic_store(&control->roles[0].start_time, mn_process_start_time((uint32_t)getpid()));
    atomic_store(&control->roles[0].pid, (uint32_t)getpid());
    mn_stats_layout(&instance->stats);
    mn_segment_publish(&instance->readers_segment);
    mn_segment_publish(&instance->stats.segment);
    mn_segment_publish(&instance->control_segment);
    return MN_OK;
}

enum mn_status mn_instance_create(struct mn_instance *instance, const struct mn_instance_shape *shape)
{
    *instance = (struct mn_instance){.dir_fd = -1};
    MN_TRY(mn_boot_id(instance->identity.boot_id));
    MN_TRY(mn_uuid_make(instance->identity.instance));
    instance->identity.fingerprint = mn_layout_fingerprint();
    char text[37];
    mn_uuid_text(instance->identity.instance, text);
    snprintf(instance->path, sizeof instance->path, SHM_ROOT "/" FOLDER_PREFIX "%s", text);
    if (mkdir(instance->path, 0700) != 0)
        return MN_FAIL_ERRNO("cannot make the shared memory folder %s", instance->path);
    instance->dir_fd = open(instance->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    enum mn_status status =
        instance->dir_fd < 0 ? MN_FAIL_ERRNO("cannot open %s", instance->path) : lay_out(instance, shape);
    if (status != MN_OK) {
        char path[sizeof instance->path];
        memcpy(path, instance->path, sizeof path);
        mn_instance_close(instance);
        if (mn_instance_remove(path) != MN_OK)
            return status;
    }
    return status;
}

enum mn_status mn_instance_open(struct mn_instance *instance, const char *path, bool writable)
{
    *instance = (struct mn_instance){.dir_fd = -1};
    if (strlen(path) >= sizeof instance->path)
        return MN_FAIL(MN_BAD_REQUEST, "the path of a shared memory folder is too long: %s", path);
    strcpy(instance->path, path);
    MN_TRY(mn_boot_id(instance->identity.boot_id));
    instance->identity.fingerprint = mn_layout_fingerprint();
    instance->dir_fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    if (instance->dir_fd < 0)
        return errno == ENOENT ? MN_FAIL(MN_NOT_FOUND, "no instance runs at %s", path)
                               : MN_FAIL_ERRNO("cannot open %s", path);
    enum mn_status status = MN_OK;
    struct mn_segment_identity identity = identity_of(instance, MN_MAGIC_CONTROL);
    MN_TRY_OUT(mn_segment_map(&instance->control_segment, instance->dir_fd, "control", writable, &identity));
    memcpy(instance->identity.instance, instance->control_segment.header->instance, 16);
    identity = identity_of(instance, MN_MAGIC_READERS);
    MN_TRY_OUT(mn_segment_map(&instance->readers_segment, instance->dir_fd, "readers", true, &identity));
    identity = identity_of(instance, MN_MAGIC_STATS);
    MN_TRY_OUT(mn_segment_map(&instance->stats.segment, instance->dir_fd, "stats", writable, &identity));
    const struct mn_control *control = instance->control_segment.base;
    if (instance->control_segment.bytes != sizeof *control || instance->stats.segment.bytes != mn_stats_bytes() ||
        instance->readers_segment.bytes !=
            sizeof(struct mn_segment_header) + sizeof(struct mn_reader_slot) * (uint64_t)control->reader_slots)
        status = MN_FAIL(MN_CORRUPT, "the shared segments in %s do not have the sizes they should have", path);
    else
        adopt(instance);
out:
    if (status != MN_OK)
        mn_instance_close(instance);
    return status;
}

void mn_instance_close(struct mn_instance *instance)
{
    mn_segment_unmap(&instance->control_segment);
    mn_segment_unmap(&instance->readers_segment);
    mn_segment_unmap(&instance->stats.segment);
    if (instance->dir_fd >= 0)
        close(instance->dir_fd);
    instance->dir_fd = -1;
    instance->control = NULL;
}

enum mn_status mn_instance_list(const struct mn_instance *instance,
                                enum mn_status (*visit)(void *context, const char *name), void *context)
{
    int fd = openat(instance->dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = fd < 0 ? NULL : fdopendir(fd);
    if (!dir) {
        enum mn_status status = MN_FAIL_ERRNO("cannot list %s", instance->path);
        if (fd >= 0)
            close(fd);
        return status;
    }
    enum mn_status status = MN_OK;
    for (struct dirent *entry; status == MN_OK && (entry = readdir(dir)) != NULL;)
        status = visit(context, entry->d_name);
    closedir(dir);
    return status;
}

enum mn_status mn_instance_remove(const char *path)
{
    DIR *dir = opendir(path);
    if (!dir)
        return errno == ENOENT ? MN_OK : MN_FAIL_ERRNO("cannot open %s", path);
    for (struct dirent *entry; (entry = readdir(dir)) != NULL;) {
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            unlinkat(dirfd(dir), entry->d_name, 0);
    }
    closedir(dir);
    return rmdir(path) == 0 ? MN_OK : MN_FAIL_ERRNO("cannot remove the shared memory folder %s", path);
}

/* An instance is gone when it cannot be trusted (another boot) or its supervisor (role slot 0) does not live. Folders
 * of other stores and of other builds are left alone. */
static bool is_orphan(const char *path, const uint8_t store_uuid[16])
{
    struct mn_instance instance;
    if (mn_instance_open(&instance, path, false) != MN_OK)
        return false;
    const struct mn_role_slot *supervisor = &instance.control->roles[0];
    bool orphan = memcmp(instance.control->store_uuid, store_uuid, 16) == 0 &&
                  !mn_process_alive(atomic_load(&supervisor->pid), atomic_load(&supervisor->start_time));
    mn_instance_close(&instance);
    return orphan;
}

void mn_instance_sweep(const uint8_t store_uuid[16])
{
    DIR *dir = opendir(SHM_ROOT);
    if (!dir)
        return;
    for (struct dirent *entry; (entry = readdir(dir)) != NULL;) {
        char path[sizeof SHM_ROOT + sizeof entry->d_name + 1];
        if (strncmp(entry->d_name, FOLDER_PREFIX, strlen(FOLDER_PREFIX)) != 0)
            continue;
        snprintf(path, sizeof path, SHM_ROOT "/%s", entry->d_name);
        if (is_orphan(path, store_uuid) && mn_instance_remove(path) != MN_OK)
            continue; /* somebody else sweeps too */
    }
    closedir(dir);
}
