/*
 * stats.c - STATS.md, from the table of statistics.
 */
#include "ops/docgen/docgen.h"
#include "shm/status.h"

#include <string.h>

struct row {
    const char *owner, *name, *kind, *unit, *help;
};

static const struct row rows[] = {
#define X(owner, name, kind, unit, help) {#owner, #name, #kind, #unit, help},
#include "shm/stats.def"
#undef X
};

static const char *const stats_head[] = {
    "# Statistics",
    "",
    "Made by `ops/docs` from `shm/stats.def`; change it there.",
    "",
    "`mneme stat` and `mneme top` show them, the `stats` socket answers them (as a map, JSON or Prometheus text, where",
    "every name begins with `mneme_`), and each process counts in shared memory, so that looking costs it nothing.",
    "",
    "- **counter**: only grows while the cluster runs; take differences.",
    "- **gauge**: the value now.",
    "- **histogram**: count, sum, largest, p50, p90, p99, p99.9; a quantile is right to 12.5 %.",
};

/* The enum's word in lower case. */
static const char *kind_word(const char *kind)
{
    if (strcmp(kind, "COUNTER") == 0)
        return "counter";
    return strcmp(kind, "GAUGE") == 0 ? "gauge" : "histogram";
}

void docgen_stats(FILE *out)
{
    const char *owner = "";
    docgen_lines(out, stats_head, MN_ARRAY_LEN(stats_head));
    for (size_t i = 0; i < MN_ARRAY_LEN(rows); i++) {
        if (strcmp(owner, rows[i].owner) != 0) {
            owner = rows[i].owner;
            fprintf(out, "\n## %s\n\n| name | kind | unit | meaning |\n|---|---|---|---|\n", owner);
        }
        fprintf(out, "| `%s` | %s | %s | ", rows[i].name, kind_word(rows[i].kind), rows[i].unit);
        docgen_cell(out, rows[i].help);
        fprintf(out, " |\n");
    }
}
