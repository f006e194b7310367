/*
 * config.c - CONFIG.md and the example file, from the table of settings.
 */
#include "config/settings.h"
#include "ops/docgen/docgen.h"

#include <string.h>

static const char *const config_head[] = {
    "# Settings",
    "",
    "Made by `ops/docs` from `config/settings.def`; change it there.",
    "",
    "A cluster takes its settings from the built-in defaults, then from the file given with `--config`, then from",
    "`--set key=value` on the command line. `mneme config` prints what is in effect. `mneme reload` makes a running",
    "cluster read the file again; settings that change *on restart* then keep their old value until the next start.",
    "",
    "The file is INI: `[wal]` begins a section and `prepared = 2` sets `wal.prepared`; lines that begin with `#` or",
    "`;`, and what follows ` ;` in a line, are comments. A key that does not exist, a value of another type or out of",
    "its range, and a key set twice are refused, with the line's number.",
    "",
    "| type | is written as |",
    "|---|---|",
    "| yes or no | `yes` or `no` |",
    "| number, size | a whole number, also with K, M, G (thousands) or KiB, MiB, GiB |",
    "| duration | a whole number and one of ns, us, ms, s, min, h, d |",
    "| text | as it is, at most 255 bytes |",
    "| list of paths | paths with colons between them |",
};

static const char *const example_head[] = {
    "# mneme.conf - all settings with their defaults. Give it to mnemed with --config.",
    "# Made by ops/docs from config/settings.def; CONFIG.md says how values are written.",
};

static void print_section(FILE *out, const char *key)
{
    fprintf(out, "\n## %.*s\n\n", (int)strcspn(key, "."), key);
    fprintf(out, "| setting | default | range | change takes effect | meaning |\n|---|---|---|---|---|\n");
}

static bool same_section(const struct mn_settings_row *a, const struct mn_settings_row *b)
{
    size_t length = strcspn(a->key, ".");
    return length == strcspn(b->key, ".") && strncmp(a->key, b->key, length) == 0;
}

void docgen_config(FILE *out)
{
    const struct mn_settings_row *row, *before = NULL;
    docgen_lines(out, config_head, MN_ARRAY_LEN(config_head));
    for (size_t i = 0; (row = mn_settings_row(i)); before = row, i++) {
        char value[MN_SETTINGS_VALUE_MAX], range[64];
        mn_settings_default_value(row, value, sizeof value);
        mn_settings_range(row, range, sizeof range);
        if (!before || !same_section(row, before))
            print_section(out, row->key);
        fprintf(out, "| `%s` | %s | %s | on %s | ", row->key, *value ? value : "(empty)",
                *range ? range : mn_settings_type_word(row), row->reloadable ? "reload" : "restart");
        docgen_cell(out, row->help);
        fprintf(out, " |\n");
    }
}

/* Prints `text` as comment lines of at most 100 columns. */
static void print_comment(FILE *out, const char *text)
{
    enum { WIDTH = 98 };
    while (*text) {
        size_t take = strlen(text);
        if (take > WIDTH) {
            take = WIDTH;
            while (take > 1 && text[take] != ' ')
                take--;
        }
        fprintf(out, "# %.*s\n", (int)take, text);
        text += take + strspn(text + take, " ");
    }
}

void docgen_example(FILE *out)
{
    const struct mn_settings_row *row, *before = NULL;
    docgen_lines(out, example_head, MN_ARRAY_LEN(example_head));
    for (size_t i = 0; (row = mn_settings_row(i)); before = row, i++) {
        char value[MN_SETTINGS_VALUE_MAX], range[64];
        mn_settings_default_value(row, value, sizeof value);
        mn_settings_range(row, range, sizeof range);
        if (!before || !same_section(row, before))
            fprintf(out, "\n[%.*s]\n", (int)strcspn(row->key, "."), row->key);
        fprintf(out, "\n");
        print_comment(out, row->help);
        fprintf(out, "# %s%s%s%s\n", mn_settings_type_word(row), *range ? ", " : "", range,
                row->reloadable ? "" : "; needs a restart");
        fprintf(out, "#%s = %s\n", strchr(row->key, '.') + 1, value);
    }
}
