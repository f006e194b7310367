/*
 * cli_out.c - tables and text for people (see cli_out.h).
 */
#include "ops/cli/cli_out.h"

#include "ops/cli/cli_json.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>
#include <wchar.h>

enum { FIELD_COLUMN = 18, WIDTH_UNKNOWN = 1 << 20, CELL_MAX = 4096 };

static const char *code(const struct mn_cli *cli, const char *sequence)
{
    return cli->colour ? sequence : "";
}

const char *mn_cli_out_bold(const struct mn_cli *cli)
{
    return code(cli, "\033[1m");
}

const char *mn_cli_out_dim(const struct mn_cli *cli)
{
    return code(cli, "\033[2m");
}

const char *mn_cli_out_red(const struct mn_cli *cli)
{
    return code(cli, "\033[31m");
}

const char *mn_cli_out_green(const struct mn_cli *cli)
{
    return code(cli, "\033[32m");
}

const char *mn_cli_out_plain(const struct mn_cli *cli)
{
    return code(cli, "\033[0m");
}

/* ---- escaping ---- */

/* Columns that text takes on the terminal; what does not decode counts a column a byte. */
static int width_of(const char *text)
{
    int width = 0;
    mbstate_t state = {0};
    while (*text) {
        wchar_t c;
        size_t n = mbrtowc(&c, text, MB_CUR_MAX, &state);
        if (n == (size_t)-1 || n == (size_t)-2) {
            memset(&state, 0, sizeof state);
            n = 1;
            width++;
        } else {
            int w = wcwidth(c);
            width += w > 0 ? w : 0;
        }
        text += n;
    }
    return width;
}

/* The bytes of the longest prefix that takes at most `columns`. */
static size_t fit(const char *text, int columns)
{
    size_t at = 0;
    mbstate_t state = {0};
    while (text[at] && columns > 0) {
        wchar_t c;
        size_t n = mbrtowc(&c, text + at, MB_CUR_MAX, &state);
        bool bad = n == (size_t)-1 || n == (size_t)-2;
        int w = bad ? 1 : wcwidth(c);
        if (bad) {
            memset(&state, 0, sizeof state);
            n = 1;
        }
        if (w > columns)
            break;
        columns -= w > 0 ? w : 0;
        at += n;
    }
    return at;
}

/* C1 controls (U+0080 to U+009F) become visible too. */
char *mn_cli_out_escaped(const char *bytes, size_t size, size_t most)
{
    bool cut = size > most;
    if (!bytes)
        return mn_cli_keep(1);
    size = cut ? most : size;
    while (cut && size > 0 && ((unsigned char)bytes[size] & 0xc0) == 0x80)
        size--; /* not inside a character */
    char *out = mn_cli_keep(4 * size + 4), *at = out;
    for (size_t i = 0; i < size; i++) {
        unsigned char c = (unsigned char)bytes[i];
        bool c1 = c == 0xc2 && i + 1 < size && (unsigned char)bytes[i + 1] < 0xa0;
        if (c == '\n' || c == '\t')
            at += sprintf(at, "%s", c == '\n' ? "\\n" : "\\t");
        else if (c < 32 || c == 127)
            at += sprintf(at, "\\x%02x", c);
        else if (c1)
            at += sprintf(at, "\\x%02x", (unsigned char)bytes[++i]);
        else
            *at++ = (char)c;
    }
    if (cut)
        memcpy(at, "…", sizeof "…");
    return out;
}

/* ---- tables ---- */

void mn_cli_out_begin(struct mn_cli_out_table *table, const struct mn_cli *cli, const char *titles)
{
    char *save;
    memset(table, 0, sizeof *table);
    table->cli = cli;
    snprintf(table->text, sizeof table->text, "%s", titles);
    for (char *title = strtok_r(table->text, "|", &save); title; title = strtok_r(NULL, "|", &save)) {
        MN_ASSERT(table->columns < MN_CLI_OUT_COLUMNS);
        table->titles[table->columns++] = title;
    }
    MN_ASSERT(table->columns > 0);
}

static void put_cell(struct mn_cli_out_table *table, char *text)
{
    if (table->rows == table->room) {
        size_t room = table->room ? 2 * table->room : 256;
        char **cells = mn_cli_keep(room * sizeof *cells);
        if (table->rows)
            memcpy(cells, table->cells, table->rows * sizeof *cells);
        table->cells = cells;
        table->room = room;
    }
    table->cells[table->rows++] = text;
}

void mn_cli_out_cell(struct mn_cli_out_table *table, const char *fmt, ...)
{
    char text[CELL_MAX];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    char *copy = mn_cli_keep(strlen(text) + 1);
    strcpy(copy, text);
    put_cell(table, copy);
}

void mn_cli_out_text(struct mn_cli_out_table *table, const char *bytes, size_t size, size_t most)
{
    put_cell(table, mn_cli_out_escaped(bytes, size, most));
}

static int terminal_width(const struct mn_cli *cli)
{
    struct winsize size;
    if (!cli->out_is_terminal || ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_col < 20)
        return WIDTH_UNKNOWN;
    return size.ws_col;
}

static void print_cell(const struct mn_cli_out_table *t, size_t column, const char *text, int width, int left,
                       bool last)
{
    bool right = t->titles[column][0] == '-';
    int pad = width - width_of(text);
    if (column + 1 == t->columns && !right)
        printf("%.*s", (int)fit(text, left), text);
    else
        printf("%*s%s%*s", right ? pad : 0, "", text, right || last ? 0 : pad, "");
    fputs(last ? "\n" : "  ", stdout);
}

/* Empty cells at the end of a row are not there. */
static void print_row(const struct mn_cli_out_table *t, const char *const *cells, const int *widths, int left)
{
    size_t used = t->columns;
    while (used > 1 && !cells[used - 1][0])
        used--;
    for (size_t c = 0; c < used; c++)
        print_cell(t, c, cells[c], widths[c], left, c + 1 == used);
}

void mn_cli_out_end(struct mn_cli_out_table *t)
{
    MN_ASSERT(t->columns > 0);
    const char *titles[MN_CLI_OUT_COLUMNS];
    int widths[MN_CLI_OUT_COLUMNS] = {0}, left = terminal_width(t->cli);
    for (size_t c = 0; c < t->columns; c++) {
        titles[c] = t->titles[c] + (t->titles[c][0] == '-');
        widths[c] = width_of(titles[c]);
    }
    for (size_t i = 0; i < t->rows; i++) {
        int w = width_of(t->cells[i]);
        widths[i % t->columns] = w > widths[i % t->columns] ? w : widths[i % t->columns];
    }
    for (size_t c = 0; c + 1 < t->columns; c++)
        left -= widths[c] + 2;
    left = left < 8 ? 8 : left;
    fputs(mn_cli_out_bold(t->cli), stdout);
    print_row(t, titles, widths, left);
    fputs(mn_cli_out_plain(t->cli), stdout);
    for (size_t i = 0; i + t->columns <= t->rows; i += t->columns)
        print_row(t, (const char *const *)t->cells + i, widths, left);
}

void mn_cli_out_field(const struct mn_cli *cli, const char *name, const char *fmt, ...)
{
    va_list args;
    printf("%s%-*s%s", mn_cli_out_bold(cli), FIELD_COLUMN, name, mn_cli_out_plain(cli));
    va_start(args, fmt);
    vprintf(fmt, args);
    va_end(args);
    putchar('\n');
}

/* ---- values ---- */

const char *mn_cli_out_count(uint64_t n, char *out)
{
    char digits[24];
    int length = snprintf(digits, sizeof digits, "%llu", (unsigned long long)n), at = 0;
    for (int i = 0; i < length; i++) {
        if (i && (length - i) % 3 == 0)
            out[at++] = ' ';
        out[at++] = digits[i];
    }
    out[at] = 0;
    return out;
}

const char *mn_cli_out_bytes(double bytes, char *out)
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
    size_t unit = 0;
    while (bytes >= 1024 && unit + 1 < MN_ARRAY_LEN(units)) {
        bytes /= 1024;
        unit++;
    }
    snprintf(out, 32, unit && bytes < 100 ? "%.1f %s" : "%.0f %s", bytes, units[unit]);
    return out;
}

char *mn_cli_out_summary(const struct mneme_found *found)
{
    char *meta = NULL, *text = NULL;
    if (mneme_value_length(found->meta)) {
        json_t *json = mn_cli_json_from_value(found->meta);
        meta = json ? json_dumps(json, JSON_COMPACT) : NULL;
        json_decref(json);
    }
    int n;
    if (found->content_is_binary)
        n = asprintf(&text, "(%zu bytes)%s%s", found->content_size, meta ? "  " : "", meta ? meta : "");
    else
        n = asprintf(&text, "%.*s%s%s", (int)found->content_size, found->content ? found->content : "",
                     meta && found->content_size ? "  " : "", meta ? meta : "");
    free(meta);
    return n < 0 ? NULL : text;
}
