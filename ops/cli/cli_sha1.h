/*
 * cli_sha1.h - SHA-1 and the name-based UUIDs (version 5, RFC 4122) that stand on it.
 *
 * Used where the same input must give the same name in every run: ids for imported lines that have none, and idem keys
 * of batches. Not for security.
 */
#ifndef MNEME_OPS_CLI_CLI_SHA1_H
#define MNEME_OPS_CLI_CLI_SHA1_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct mn_cli_sha1 {
    uint32_t state[5];
    uint64_t bytes;
    uint8_t block[64];
};

void mn_cli_sha1_begin(struct mn_cli_sha1 *sha);
void mn_cli_sha1_add(struct mn_cli_sha1 *sha, const void *bytes, size_t size);
void mn_cli_sha1_end(struct mn_cli_sha1 *sha, uint8_t digest[20]);

/* The version 5 UUID of a hash that began with a namespace's 16 bytes; `out` has 37 bytes. */
void mn_cli_sha1_uuid(struct mn_cli_sha1 *sha, char *out);
/* The 16 bytes of a UUID's text; false when it is none. */
bool mn_cli_sha1_parse_uuid(const char *text, uint8_t bytes[16]);

#endif
