/*
 * cli_id.c - ids as text.
 */
#include "ops/cli/cli_id.h"

#include "ops/cli/cli_sha1.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum mn_status mn_cli_id_parse(const char *text, struct mneme_id *id)
{
    uint8_t bytes[16];
    size_t n = strlen(text);
    memset(id, 0, sizeof *id);
    if (n > 0 && n <= 19 && strspn(text, "0123456789") == n) {
        id->number = strtoull(text, NULL, 10);
        if (id->number <= INT64_MAX)
            return MN_OK;
    } else if (mn_cli_sha1_parse_uuid(text, bytes)) {
        for (size_t i = 0; i < n; i++)
            id->uuid[i] = (char)tolower((unsigned char)text[i]);
        return MN_OK;
    }
    return MN_FAIL(MN_USAGE, "`%s` is no id: ids are integers below 2^63 or UUIDs", text);
}

const char *mn_cli_id_print(const struct mneme_id *id, char *out)
{
    if (id->uuid[0])
        memcpy(out, id->uuid, sizeof id->uuid);
    else
        snprintf(out, MN_CLI_ID_SIZE, "%llu", (unsigned long long)id->number);
    return out;
}

bool mn_cli_id_equal(const struct mneme_id *a, const struct mneme_id *b)
{
    return strcmp(a->uuid, b->uuid) == 0 && (a->uuid[0] || a->number == b->number);
}
