/*
 * cli_lines.c - reading a file line by line (see cli_lines.h).
 */
#include "ops/cli/cli_lines.h"

#include <stdlib.h>
#include <string.h>

enum { READ_AHEAD = 1 << 18 };

void mn_cli_lines_open(struct mn_cli_lines *lines, FILE *in)
{
    *lines = (struct mn_cli_lines){.in = in};
}

void mn_cli_lines_close(struct mn_cli_lines *lines)
{
    free(lines->buffer);
    lines->buffer = NULL;
}

/* Moves what is left to the front and reads more behind it. */
static enum mn_status fill(struct mn_cli_lines *r)
{
    if (r->at > 0) {
        memmove(r->buffer, r->buffer + r->at, r->size - r->at);
        r->size -= r->at;
        r->at = 0;
    }
    if (r->size > MN_CLI_LINES_LONGEST)
        return MN_FAIL(MN_TOO_LARGE, "line %llu is longer than %d MiB", (unsigned long long)r->line + 1,
                       MN_CLI_LINES_LONGEST >> 20);
    if (r->room - r->size < READ_AHEAD) {
        size_t room = r->room ? 2 * r->room : 4 * (size_t)READ_AHEAD;
        char *larger = realloc(r->buffer, room);
        if (!larger)
            return MN_FAIL(MN_INTERNAL, "out of memory for a line");
        r->buffer = larger;
        r->room = room;
    }
    size_t n = fread(r->buffer + r->size, 1, r->room - r->size, r->in);
    r->size += n;
    r->ended = n == 0;
    if (n == 0 && ferror(r->in))
        return MN_FAIL_ERRNO("could not read line %llu", (unsigned long long)r->line + 1);
    return MN_OK;
}

static bool is_blank(const char *line, size_t size)
{
    for (size_t i = 0; i < size; i++)
        if (line[i] != ' ' && line[i] != '\t' && line[i] != '\r')
            return false;
    return true;
}

/* The next line, blank or not. A last line need not end in a newline. */
static enum mn_status take_line(struct mn_cli_lines *r, const char **line, size_t *size)
{
    char *newline;
    size_t searched = 0;
    *line = NULL;
    while (!(newline = r->size - r->at > searched
                           ? memchr(r->buffer + r->at + searched, '\n', r->size - r->at - searched)
                           : NULL) &&
           !r->ended) {
        searched = r->size - r->at;
        MN_TRY(fill(r));
    }
    if (!newline && r->at == r->size)
        return MN_OK;
    *line = r->buffer + r->at;
    *size = newline ? (size_t)(newline - *line) : r->size - r->at;
    r->at += *size + (newline != NULL);
    r->bytes += *size + (newline != NULL);
    r->line++;
    return MN_OK;
}

enum mn_status mn_cli_lines_next(struct mn_cli_lines *lines, const char **line, size_t *size)
{
    do {
        MN_TRY(take_line(lines, line, size));
    } while (*line && is_blank(*line, *size));
    return MN_OK;
}
