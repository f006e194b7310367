/*
 * scan.h - walks over MessagePack bytes without building anything.
 *
 * Enough to read the top level of a request or reply (which `op`, which `rid`, is it `ok`) at the cost of touching its
 * headers. Every function answers false at the first byte that is not what it wants, or when the bytes end early; the
 * position is then undefined and the scan is over. Never reads outside [at, end), never recurses.
 */
#ifndef MNEME_CLIENTS_C_SCAN_H
#define MNEME_CLIENTS_C_SCAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct mn_scan {
    const uint8_t *at;
    const uint8_t *end;
};

/* A map header: *entries key-value pairs follow. */
bool mn_scan_map(struct mn_scan *scan, uint32_t *entries);
/* An array header: *elements values follow. */
bool mn_scan_array(struct mn_scan *scan, uint32_t *elements);
/* A string; *text points into the scanned bytes. */
bool mn_scan_string(struct mn_scan *scan, const char **text, size_t *size);
/* A non-negative integer. */
bool mn_scan_u64(struct mn_scan *scan, uint64_t *value);
bool mn_scan_bool(struct mn_scan *scan, bool *value);
/* Any one value, with all it contains. */
bool mn_scan_skip(struct mn_scan *scan);

/* True when the next value is a string equal to `text`; the position stays. */
bool mn_scan_is(struct mn_scan scan, const char *text);
/* Finds the value of `key` in the map at `scan`; true with *value standing on it. */
bool mn_scan_find(struct mn_scan scan, const char *key, struct mn_scan *value);

#endif
