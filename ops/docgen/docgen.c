/*
 * docgen.c - mneme-docgen: prints a document that is made from a table in the code.
 *
 *   mneme-docgen DOCUMENT        (config, example, stats, layout, python-errors, python-operations)
 *
 * The documents are checked in beside their source, so that they can be read without a build. `ops/docs` writes them
 * all; the test `documents` fails when one of them differs from what the code says.
 */
#include "ops/docgen/docgen.h"

#include "shm/status.h"

#include <string.h>

static const struct {
    const char *name;
    void (*print)(FILE *out);
} documents[] = {
    {"config", docgen_config},
    {"example", docgen_example},
    {"stats", docgen_stats},
    {"layout", docgen_layout},
    {"python-errors", docgen_python_errors},
    {"python-operations", docgen_python_operations},
};

void docgen_cell(FILE *out, const char *text)
{
    for (; *text; text++)
        fprintf(out, "%s%c", *text == '|' ? "\\" : "", *text);
}

void docgen_lines(FILE *out, const char *const *lines, size_t count)
{
    for (size_t i = 0; i < count; i++)
        fprintf(out, "%s\n", lines[i]);
}

int main(int argc, char **argv)
{
    for (size_t i = 0; argc == 2 && i < MN_ARRAY_LEN(documents); i++) {
        if (strcmp(documents[i].name, argv[1]) != 0)
            continue;
        documents[i].print(stdout);
        return fflush(stdout) == 0 ? 0 : 1;
    }
    fprintf(stderr, "usage: mneme-docgen DOCUMENT, one of:");
    for (size_t i = 0; i < MN_ARRAY_LEN(documents); i++)
        fprintf(stderr, " %s", documents[i].name);
    fprintf(stderr, "\n");
    return 2;
}
