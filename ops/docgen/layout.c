/*
 * layout.c - LAYOUT.md: every struct that processes share, from the field lists of shm/layout.h and engine/shared.h.
 */
#include "shm/layout.h"
#include "engine/shared.h"
#include "ops/docgen/docgen.h"
#include "shm/status.h"

#include <string.h>

static const char *const layout_head[] = {
    "# Shared structures",
    "",
    "Made by `ops/docs` from `shm/layout.h` and `engine/shared.h`; change it there.",
    "",
    "All numbers are little-endian. Offsets are in bytes; a line is 64 bytes, and a field that begins a line of its",
    "own is marked with ▸: nobody else writes there. A process that maps a segment checks its length, magic, version,",
    "fingerprint and boot id before it trusts anything else in it.",
};

/* A row's help reads "who writes it: what it is"; one word alone is who writes it, anything else what it is. */
static void print_field(FILE *out, const char *mark, size_t offset, const char *type, const char *name,
                        const char *dims, const char *help)
{
    const char *colon = strstr(help, ": ");
    size_t writer = colon ? (size_t)(colon - help) : 0;
    const char *meaning = colon ? colon + 2 : help;
    if (!colon && help[strspn(help, "abcdefghijklmnopqrstuvwxyz")] == '\0') {
        writer = strlen(help);
        meaning = "";
    }
    fprintf(out, "| %s%zu | `%s%s` | `%s` | %.*s | ", mark, offset, type, dims, name, (int)writer, help);
    docgen_cell(out, meaning);
    fprintf(out, " |\n");
}

void docgen_layout(FILE *out)
{
    docgen_lines(out, layout_head, MN_ARRAY_LEN(layout_head));
    fprintf(out, "\nLayout version: %d.\n", MN_LAYOUT_VERSION);
#define FIELD(offset, type, name, dims, help)      print_field(out, "", offset, #type, #name, #dims, help);
#define LINE_FIELD(offset, type, name, dims, help) print_field(out, "▸ ", offset, #type, #name, #dims, help);
#define STRUCT(tag, FIELDS, size)                                                                                      \
    fprintf(out, "\n## %s (%zu bytes)\n\n", #tag, sizeof(struct tag));                                                 \
    fprintf(out, "| offset | type | field | written by | meaning |\n|---|---|---|---|---|\n");                         \
    FIELDS(FIELD, LINE_FIELD)
    MN_LAYOUT_TABLE(STRUCT)
    MN_ENGINE_LAYOUT_TABLE(STRUCT)
#undef STRUCT
#undef LINE_FIELD
#undef FIELD
}
