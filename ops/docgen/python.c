/*
 * python.c - the constants of the Python client: what the wire calls errors and operations.
 */
#include "actors/wire.h"
#include "ops/docgen/docgen.h"
#include "shm/status.h"

static const char *service_word(enum mn_service service)
{
    switch (service) {
    case MN_SERVICE_CONTROL:
        return "control";
    case MN_SERVICE_WRITE:
        return "write";
    case MN_SERVICE_RECALL:
        return "recall";
    case MN_SERVICE_STATS:
        return "stats";
    }
    return "";
}

/* MN_NOT_READY and what follows it never leave the server. */
void docgen_python_errors(FILE *out)
{
    fputs("ERROR_CODES = {\n", out);
    for (enum mn_status status = MN_OK + 1; status < MN_NOT_READY; status++)
        fprintf(out, "    \"%s\": %s,\n", mn_status_word(status), mn_status_retry(status) ? "True" : "False");
    fputs("}\n", out);
}

void docgen_python_operations(FILE *out)
{
    fputs("OPERATIONS = {\n", out);
#define X(name, word, service, ...) fprintf(out, "    \"%s\": \"%s\",\n", word, service_word(service));
    MN_OP_TABLE(X)
#undef X
    fputs("}\n", out);
}
