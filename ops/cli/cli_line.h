/*
 * cli_line.h - one memory as one line of JSON: what `mneme export` writes and `mneme import` reads.
 *
 * The keys are those of a memory in the protocol's `remember`, and `space`. Times are nanoseconds or RFC 3339.
 * `embedding` is an array of numbers or {"$f32": base64 of little-endian floats}; `content` a string or {"$base64":
 * ...}. `version`, `score` and `similarity`, which replies carry, are passed over; any other key is an error, for a
 * typo there would lose data in silence.
 */
#ifndef MNEME_OPS_CLI_CLI_LINE_H
#define MNEME_OPS_CLI_CLI_LINE_H

#include "clients/c/mneme.h"
#include "shm/status.h"

#include <msgpack.h>
#include <stdio.h>

enum { MN_CLI_LINE_SPACE_MAX = 128 };

/* ---- a line to a memory ---- */

struct mn_cli_line {
    bool has_id;
    struct mneme_id id;
    char space[MN_CLI_LINE_SPACE_MAX + 1]; /* "" when the line names none */
};

/* Appends the memory of a line to `out` as a MessagePack map. `vector` is used in place of the line's `embedding` when
 * not NULL (the line then must not have one); a line of NULL is an empty object. On failure `out` is as it was, and the
 * sentence says what is wrong with the line. */
MN_MUST_USE enum mn_status mn_cli_line_pack(const char *line, size_t size, uint32_t dim, const float *vector,
                                            struct mn_cli_line *facts, msgpack_sbuffer *out);
/* Gives the last memory of `out`, which begins at `header` and has no id, this one. */
void mn_cli_line_add_id(msgpack_sbuffer *out, size_t header, const struct mneme_id *id);

/* ---- a memory to a line ---- */

enum mn_cli_line_embedding { MN_CLI_LINE_ARRAY, MN_CLI_LINE_BASE64, MN_CLI_LINE_NONE };

/* Writes one memory and a newline. `space` is named in the line unless it is "default". */
MN_MUST_USE enum mn_status mn_cli_line_write(FILE *out, const struct mneme_found *memory, const char *space,
                                             enum mn_cli_line_embedding embedding);

#endif
