/*
 * cli_json.h - JSON to MessagePack and back, losing nothing.
 *
 * What JSON cannot say is written as a map with one marked key, and read back from it:
 *     {"$base64": "AAEC"}     binary
 *     {"$text64": "/w=="}     a string that is not UTF-8
 *     {"$number": "nan"}      NaN, infinities, and integers of 2^63 and above
 *     {"$$base64": ...}       a real map whose one key is "$base64" (each mark gains one `$` on the way out, loses one
 * on the way in) Map keys that are no strings become their JSON text. A reply's `embedding` in binary becomes an array
 * of numbers.
 */
#ifndef MNEME_OPS_CLI_CLI_JSON_H
#define MNEME_OPS_CLI_CLI_JSON_H

#include "clients/c/mneme.h"
#include "shm/status.h"

#include <jansson.h>
#include <msgpack.h>

/* Deepest nesting that is followed, as in msgpack-c. */
enum { MN_CLI_JSON_DEPTH = 32 };

/* A new reference, NULL when out of memory or too deep. */
json_t *mn_cli_json_from_value(struct mneme_value value);
/* The same for bytes: string when they are UTF-8 text and `binary` is false, else a marked map. */
json_t *mn_cli_json_from_bytes(const char *bytes, size_t size, bool binary);

/* Appends `json` to a packer. MN_BAD_REQUEST with a sentence for a broken mark or too deep a nesting. */
MN_MUST_USE enum mn_status mn_cli_json_pack(msgpack_packer *packer, const json_t *json);
/* Appends text that needs no mark: a key, a word, a name. */
void mn_cli_json_pack_text(msgpack_packer *packer, const char *text);
/* Reads a string, or the bytes of a marked map. The result is in *bytes (owned: free it) and *binary. MN_BAD_REQUEST
 * otherwise. */
MN_MUST_USE enum mn_status mn_cli_json_to_bytes(const json_t *json, char **bytes, size_t *size, bool *binary);

/* Parses one document; the sentence of a failure says where. MN_USAGE. */
MN_MUST_USE enum mn_status mn_cli_json_parse(const char *text, size_t size, const char *what, json_t **out);
/* Parses a document and packs it; `*bytes` is kept (mn_cli_keep). */
MN_MUST_USE enum mn_status mn_cli_json_parse_packed(const char *text, const char *what, void **bytes, size_t *size);

/* Prints a document and a newline to stdout: indented on a terminal, on one line otherwise. Steals the reference.
 * MN_SYSTEM when stdout takes no more. */
MN_MUST_USE enum mn_status mn_cli_json_print(json_t *json, bool indented);

/* The same for a whole reply. */
MN_MUST_USE enum mn_status mn_cli_json_print_reply(const struct mneme_reply *reply, bool indented);

#endif
