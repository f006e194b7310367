/*
 * process.h - facts about processes and clocks that generations are made of.
 */
#ifndef MN_SHM_PROCESS_H
#define MN_SHM_PROCESS_H

#include "shm/status.h"

/* CLOCK_MONOTONIC and CLOCK_REALTIME in nanoseconds. */
uint64_t mn_clock_ns(void);
int64_t mn_wall_ns(void);

/* Start time of a process in clock ticks since boot (/proc/<pid>/stat, field 22): with the pid it names one process for
 * as long as the machine is up. 0 when there is no such process (or it is a zombie). */
uint64_t mn_process_start_time(uint32_t pid);

/* True when `pid` runs and is the one that started at `start_time`. */
bool mn_process_alive(uint32_t pid, uint64_t start_time);

/* Memory that this process may use: the machine's, or less when a control group that it is in has a limit. Read anew by
 * each call (some 50 us). */
uint64_t mn_memory_bytes(void);

/* The kernel's boot id as 16 bytes. */
enum mn_status mn_boot_id(uint8_t id[16]) MN_MUST_USE;

/* 16 random bytes as a version 4 UUID, and its 36 characters + NUL. */
enum mn_status mn_uuid_make(uint8_t uuid[16]) MN_MUST_USE;
void mn_uuid_text(const uint8_t uuid[16], char text[37]);
/* Reads 36 characters (any case of hex); false when it is not a UUID. */
bool mn_uuid_parse(const char *text, size_t length, uint8_t uuid[16]);

#endif
