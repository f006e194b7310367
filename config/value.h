/*
 * value.h - how one setting is written and read: "yes", "4096", "64MiB", "1500ms".
 *
 * Used by settings.c only. Parsing is strict: a whole number, an optional blank, a suffix that the type knows, nothing
 * behind it. Printing gives the shortest form that parses back to the same number.
 */
#ifndef MN_CONFIG_VALUE_H
#define MN_CONFIG_VALUE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Each returns false, and leaves `*out` alone, when the text is not of its kind or does not fit 64 bits. */
bool mn_value_parse_bool(const char *text, bool *out);
bool mn_value_parse_uint(const char *text, uint64_t *out); /* suffixes K M G (thousands), KiB MiB GiB */
bool mn_value_parse_duration(const char *text,
                             uint64_t *out); /* ns; suffixes ns us ms s min h d, one of them required but for 0 */

/* Each writes a NUL-terminated text, cut at `size` (32 always suffice). */
void mn_value_print_uint(uint64_t value, char *out, size_t size);
void mn_value_print_bytes(uint64_t value, char *out, size_t size);
void mn_value_print_duration(uint64_t value_ns, char *out, size_t size);

#endif
