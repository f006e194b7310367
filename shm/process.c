/*
 * process.c - facts about processes and clocks, read from the kernel.
 */
#include "shm/process.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

static uint64_t read_clock(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

uint64_t mn_clock_ns(void)
{
    return read_clock(CLOCK_MONOTONIC);
}

int64_t mn_wall_ns(void)
{
    return (int64_t)read_clock(CLOCK_REALTIME);
}

/* Reads a small /proc file into `text`; returns its length, 0 when it cannot be read. */
static size_t read_small(const char *path, char *text, size_t size)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    ssize_t n = read(fd, text, size - 1);
    close(fd);
    if (n < 0)
        n = 0;
    text[n] = 0;
    return (size_t)n;
}

uint64_t mn_process_start_time(uint32_t pid)
{
    char path[32], text[1024];
    snprintf(path, sizeof path, "/proc/%u/stat", pid);
    if (pid == 0 || read_small(path, text, sizeof text) == 0)
        return 0;
    /* The name may hold blanks and parentheses: fields are counted from behind the last ')'. */
    char *p = strrchr(text, ')');
    if (!p || p[1] == 0 || p[2] == 'Z' || p[2] == 'X')
        return 0;
    p += 2; /* field 3, the state */
    for (int field = 3; field < 22; field++) {
        p = strchr(p, ' ');
        if (!p)
            return 0;
        p++;
    }
    return strtoull(p, NULL, 10);
}

bool mn_process_alive(uint32_t pid, uint64_t start_time)
{
    uint64_t now = mn_process_start_time(pid);
    return now != 0 && now == start_time;
}

/* A file that holds one number; UINT64_MAX when there is none (or "max", which is none). */
static uint64_t number_in(const char *path)
{
    unsigned long long number = UINT64_MAX;
    FILE *file = fopen(path, "re");
    if (!file)
        return UINT64_MAX;
    if (fscanf(file, "%llu", &number) != 1 || number == 0)
        number = UINT64_MAX;
    fclose(file);
    return number;
}

/* The least limit of a group and of those that it is in. `group` is cut short on the way up. */
static uint64_t limit_of(const char *root, char *group, const char *name)
{
    char path[1200];
    uint64_t least = UINT64_MAX;
    for (;;) {
        snprintf(path, sizeof path, "%s%s/%s", root, group, name);
        uint64_t limit = number_in(path);
        least = limit < least ? limit : least;
        char *slash = strrchr(group, '/');
        if (!slash || !group[0])
            return least;
        *slash = 0;
    }
}

/* Each line of /proc/self/cgroup is number:controllers:group; of version 2, which has no list of controllers, 0::group.
 */
static uint64_t group_limit(void)
{
    char line[1024];
    uint64_t least = UINT64_MAX;
    FILE *file = fopen("/proc/self/cgroup", "re");
    while (file && fgets(line, sizeof line, file)) {
        char *controllers = strchr(line, ':'), *group = controllers ? strchr(controllers + 1, ':') : NULL;
        if (!group)
            continue;
        group[strcspn(group, "\n")] = 0;
        uint64_t limit = UINT64_MAX;
        if (group == controllers + 1)
            limit = limit_of("/sys/fs/cgroup", group + 1, "memory.max");
        else if (strncmp(controllers + 1, "memory:", 7) == 0)
            limit = limit_of("/sys/fs/cgroup/memory", group + 1, "memory.limit_in_bytes");
        least = limit < least ? limit : least;
    }
    if (file)
        fclose(file);
    return least;
}

uint64_t mn_memory_bytes(void)
{
    uint64_t machine = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE), limit = group_limit();
    return limit < machine ? limit : machine;
}

enum mn_status mn_boot_id(uint8_t id[16])
{
    char text[64];
    size_t n = read_small("/proc/sys/kernel/random/boot_id", text, sizeof text);
    if (n < 36 || !mn_uuid_parse(text, 36, id))
        return MN_FAIL(MN_SYSTEM, "cannot read the boot id from /proc/sys/kernel/random/boot_id");
    return MN_OK;
}

enum mn_status mn_uuid_make(uint8_t uuid[16])
{
    if (getrandom(uuid, 16, 0) != 16)
        return MN_FAIL_ERRNO("getrandom");
    uuid[6] = (uint8_t)((uuid[6] & 0x0f) | 0x40);
    uuid[8] = (uint8_t)((uuid[8] & 0x3f) | 0x80);
    return MN_OK;
}

void mn_uuid_text(const uint8_t uuid[16], char text[37])
{
    static const char digits[] = "0123456789abcdef";
    char *out = text;
    for (int i = 0; i < 16; i++) {
        if (i == 4 || i == 6 || i == 8 || i == 10)
            *out++ = '-';
        *out++ = digits[uuid[i] >> 4];
        *out++ = digits[uuid[i] & 15];
    }
    *out = 0;
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c = (char)(c | 0x20);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

bool mn_uuid_parse(const char *text, size_t length, uint8_t uuid[16])
{
    if (length != 36)
        return false;
    size_t at = 0;
    for (int i = 0; i < 16; i++) {
        if (i == 4 || i == 6 || i == 8 || i == 10) {
            if (text[at++] != '-')
                return false;
        }
        int high = hex_digit(text[at]), low = hex_digit(text[at + 1]);
        if (high < 0 || low < 0)
            return false;
        uuid[i] = (uint8_t)(high << 4 | low);
        at += 2;
    }
    return true;
}
