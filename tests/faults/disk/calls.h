/*
 * calls.h - the system calls as they are, past the simulated disk: the linker gives these names to what --wrap hides.
 */
#ifndef MN_TESTS_FAULTS_DISK_CALLS_H
#define MN_TESTS_FAULTS_DISK_CALLS_H

#include <stddef.h>
#include <sys/types.h>

int __real_open(const char *path, int flags, ...);
int __real_openat(int folder, const char *path, int flags, ...);
int __real_close(int fd);
int __real_fcntl(int fd, int command, ...);
ssize_t __real_pread(int fd, void *data, size_t bytes, off_t offset);
ssize_t __real_pwrite(int fd, const void *data, size_t bytes, off_t offset);
int __real_fdatasync(int fd);
int __real_fsync(int fd);
int __real_posix_fallocate(int fd, off_t offset, off_t bytes);
int __real_sync_file_range(int fd, off64_t offset, off64_t bytes, unsigned flags);
int __real_rename(const char *from, const char *to);
int __real_unlink(const char *path);
int __real_mkdir(const char *path, mode_t mode);
int __real_rmdir(const char *path);
int __real_ioctl(int fd, unsigned long request, ...);
ssize_t __real_copy_file_range(int from, off64_t *from_at, int to, off64_t *to_at, size_t bytes, unsigned flags);
ssize_t __real_sendfile(int to, int from, off_t *from_at, size_t bytes);

#endif
