/*
 * python.c - the constants of the Python client: what the wire calls errors and operations.
 */
#include "ops/docgen/docgen.h"
#include "shm/status.h"

/* MN_NOT_READY and what follows it never leave the server. */
void docgen_python_errors(FILE *out)
{
    fputs("ERROR_CODES = {\n", out);
    for (enum mn_status status = MN_OK + 1; status < MN_NOT_READY; status++)
        fprintf(out, "    \"%s\": %s,\n", mn_status_word(status), mn_status_retry(status) ? "True" : "False");
    fputs("}\n", out);
}
