/*
 * segment.c - creating, publishing, checking and mapping shared memory files.
 */
#include "shm/segment.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "shm/huge.h"

static enum mn_status map_fd(struct mn_segment *segment, int fd, const char *name, uint64_t bytes, bool writable)
{
    MN_TRY(mn_huge_map(fd, bytes, writable, name, &segment->base));
    segment->bytes = bytes;
    return MN_OK;
}

/* A folder that is shared with a group (set-group-ID and open to it, by security.group) has files that it may read. */
static unsigned shared_mode(int dir_fd, unsigned mode)
{
    struct stat st;
    bool shared = fstat(dir_fd, &st) == 0 && (st.st_mode & S_ISGID) && (st.st_mode & 0050) == 0050;
    return shared ? mode | 0040 : mode;
}

/* A page that is a hole raises SIGBUS when it is written and /dev/shm is full: here it is a sentence. */
static enum mn_status reserve_fd(int fd, const char *name, uint64_t offset, uint64_t bytes)
{
    do
        errno = posix_fallocate(fd, (off_t)offset, (off_t)bytes);
    while (errno == EINTR);
    return errno == 0 ? MN_OK
                      : MN_FAIL_ERRNO("no shared memory for %llu bytes of %s (is /dev/shm full?)",
                                      (unsigned long long)bytes, name);
}

static enum mn_status size_fd(int fd, const char *name, uint64_t bytes, uint64_t front_bytes, unsigned mode)
{
    if (ftruncate(fd, (off_t)bytes) != 0 || fchmod(fd, mode) != 0)
        return MN_FAIL_ERRNO("cannot size shared segment %s to %llu bytes", name, (unsigned long long)bytes);
    return reserve_fd(fd, name, 0, front_bytes);
}

enum mn_status mn_segment_reserve(int dir_fd, const char *name, uint64_t offset, uint64_t bytes)
{
    int fd = openat(dir_fd, name, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return MN_FAIL_ERRNO("cannot open shared segment %s", name);
    enum mn_status status = reserve_fd(fd, name, offset, bytes);
    close(fd);
    return status;
}

enum mn_status mn_segment_create(struct mn_segment *segment, int dir_fd, const char *name, uint64_t bytes,
                                 const struct mn_segment_identity *identity, unsigned mode)
{
    return mn_segment_create_sparse(segment, dir_fd, name, bytes, bytes, identity, mode);
}

enum mn_status mn_segment_create_sparse(struct mn_segment *segment, int dir_fd, const char *name, uint64_t bytes,
                                        uint64_t front_bytes, const struct mn_segment_identity *identity, unsigned mode)
{
    *segment = (struct mn_segment){0};
    int fd = openat(dir_fd, name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0)
        return MN_FAIL_ERRNO("cannot create shared segment %s", name);
    enum mn_status status = MN_OK;
    MN_TRY_OUT(size_fd(fd, name, bytes, front_bytes, shared_mode(dir_fd, mode)));
    MN_TRY_OUT(map_fd(segment, fd, name, bytes, true));
    struct mn_segment_header *header = segment->header;
    header->magic = identity->magic;
    header->version = MN_LAYOUT_VERSION;
    header->header_bytes = sizeof *header;
    header->fingerprint = identity->fingerprint;
    header->bytes = bytes;
    memcpy(header->boot_id, identity->boot_id, sizeof header->boot_id);
    memcpy(header->instance, identity->instance, sizeof header->instance);
out:
    close(fd);
    if (status != MN_OK)
        unlinkat(dir_fd, name, 0);
    return status;
}

void mn_segment_publish(struct mn_segment *segment)
{
    /* Release: whoever reads ready = 1 with acquire sees everything that was laid out before. */
    atomic_store_explicit(&segment->header->ready, 1, memory_order_release);
}

static enum mn_status check_header(const struct mn_segment *segment, const char *name,
                                   const struct mn_segment_identity *identity)
{
    const struct mn_segment_header *header = segment->header;
    static const uint8_t any[16];
    if (atomic_load_explicit(&header->ready, memory_order_acquire) != 1)
        return MN_FAIL(MN_NOT_READY, "shared segment %s is not laid out yet", name);
    if (header->magic != identity->magic)
        return MN_FAIL(MN_CORRUPT, "shared segment %s is not of the kind it should be", name);
    if (header->version != MN_LAYOUT_VERSION || header->header_bytes != sizeof *header)
        return MN_FAIL(MN_CORRUPT, "shared segment %s has layout version %u, this program knows %u", name,
                       header->version, MN_LAYOUT_VERSION);
    if (header->fingerprint != identity->fingerprint)
        return MN_FAIL(MN_CORRUPT, "shared segment %s was laid out by another build of mneme", name);
    if (header->bytes != segment->bytes)
        return MN_FAIL(MN_CORRUPT, "shared segment %s has %llu bytes, its header says %llu", name,
                       (unsigned long long)segment->bytes, (unsigned long long)header->bytes);
    if (memcmp(header->boot_id, identity->boot_id, 16) != 0)
        return MN_FAIL(MN_CORRUPT, "shared segment %s is from another boot of this machine", name);
    if (memcmp(identity->instance, any, 16) != 0 && memcmp(header->instance, identity->instance, 16) != 0)
        return MN_FAIL(MN_CORRUPT, "shared segment %s belongs to another instance", name);
    return MN_OK;
}

enum mn_status mn_segment_map(struct mn_segment *segment, int dir_fd, const char *name, bool writable,
                              const struct mn_segment_identity *identity)
{
    *segment = (struct mn_segment){0};
    int fd = openat(dir_fd, name, (writable ? O_RDWR : O_RDONLY) | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0 && errno == ENOENT)
        return MN_FAIL(MN_NOT_FOUND, "there is no shared segment %s", name);
    if (fd < 0)
        return MN_FAIL_ERRNO("cannot open shared segment %s", name);
    enum mn_status status = MN_OK;
    struct stat st;
    if (fstat(fd, &st) != 0)
        status = MN_FAIL_ERRNO("cannot stat shared segment %s", name);
    else if ((uint64_t)st.st_size < sizeof(struct mn_segment_header))
        status = MN_FAIL(MN_NOT_READY, "shared segment %s is not sized yet", name);
    else
        status = map_fd(segment, fd, name, (uint64_t)st.st_size, writable);
    close(fd);
    if (status == MN_OK) {
        status = check_header(segment, name, identity);
        if (status != MN_OK)
            mn_segment_unmap(segment);
    }
    return status;
}

void mn_segment_unmap(struct mn_segment *segment)
{
    if (segment->base)
        munmap(segment->base, segment->bytes);
    *segment = (struct mn_segment){0};
}
