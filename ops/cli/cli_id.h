/*
 * cli_id.h - ids and embeddings as they are written on a command line.
 */
#ifndef MNEME_OPS_CLI_CLI_ID_H
#define MNEME_OPS_CLI_CLI_ID_H

#include "clients/c/mneme.h"
#include "shm/status.h"

enum { MN_CLI_ID_SIZE = 40 };

/* An integer below 2^63 or a UUID; letters may be of either case. MN_USAGE otherwise. */
MN_MUST_USE enum mn_status mn_cli_id_parse(const char *text, struct mneme_id *id);
/* Writes the id as text; answers `out`, of MN_CLI_ID_SIZE bytes. */
const char *mn_cli_id_print(const struct mneme_id *id, char *out);
bool mn_cli_id_equal(const struct mneme_id *a, const struct mneme_id *b);

#endif
