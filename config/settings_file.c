/*
 * settings_file.c - settings in a file: INI, read with libinih, written so that the same reader takes them back.
 *
 * libinih hands over section, name and value but no line number, and cuts long lines in two without a word. So it reads
 * through next_line() below, which counts lines and refuses what would be cut.
 */
#include "config/settings.h"

#include <errno.h>
#include <fcntl.h>
#include <ini.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { ROWS_MAX = 256 };

struct reading {
    FILE *file;
    const char *path;
    int line;
    struct mn_settings *settings;
    bool seen[ROWS_MAX]; /* keys this file has set: a second time is a mistake that would pass unnoticed */
    enum mn_status status;
    char trouble[512];
};

/* Keeps the first trouble; what follows it in the file is skipped. */
static void note_trouble(struct reading *reading, enum mn_status status, const char *sentence)
{
    if (reading->status != MN_OK)
        return;
    reading->status = status;
    snprintf(reading->trouble, sizeof reading->trouble, "%s:%d: %s", reading->path, reading->line, sentence);
}

/* An fgets for libinih. Blanks in front are dropped: libinih would take such a line for a continuation. */
static char *next_line(char *out, int size, void *stream)
{
    struct reading *reading = stream;
    char line[MN_SETTINGS_LINE_MAX];
    if (reading->status != MN_OK || !fgets(line, sizeof line, reading->file))
        return NULL;
    reading->line++;
    const char *from = line + strspn(line, " \t");
    if (strlen(from) >= (size_t)size || (!strchr(from, '\n') && !feof(reading->file))) {
        note_trouble(reading, MN_USAGE, "this line is too long");
        return NULL;
    }
    return strcpy(out, from);
}

/* True the first time a key is met. Unknown keys pass: setting them says more. */
static bool first_time(struct reading *reading, const char *key)
{
    for (size_t i = 0; i < ROWS_MAX && mn_settings_row(i); i++) {
        if (strcmp(mn_settings_row(i)->key, key) != 0)
            continue;
        bool first = !reading->seen[i];
        reading->seen[i] = true;
        return first;
    }
    return true;
}

/* libinih's handler: 1 to go on, 0 for an error. */
static int take(void *user, const char *section, const char *name, const char *value)
{
    struct reading *reading = user;
    char key[128];
    if (reading->status != MN_OK)
        return 0;
    snprintf(key, sizeof key, "%s%s%s", section, *section ? "." : "", name);
    if (!first_time(reading, key)) {
        char sentence[192];
        snprintf(sentence, sizeof sentence, "%s is set a second time in this file", key);
        note_trouble(reading, MN_USAGE, sentence);
        return 0;
    }
    enum mn_status status = mn_settings_set_value(reading->settings, key, value);
    if (status != MN_OK)
        note_trouble(reading, status, mn_error_text());
    return status == MN_OK;
}

static void parse(struct reading *reading)
{
    ini_use_stack = false; /* long lists of paths: the default buffer has 200 bytes */
    ini_initial_alloc = ini_max_line = MN_SETTINGS_LINE_MAX;
    ini_stop_on_first_error = true;
    int bad_line = ini_parse_stream(next_line, reading, take, reading);
    if (bad_line > 0 && reading->status == MN_OK) {
        reading->line = bad_line;
        note_trouble(reading, MN_USAGE, "this line is neither `key = value` nor `[section]` nor a comment");
    }
    if (bad_line < 0)
        note_trouble(reading, MN_SYSTEM, "no memory to read the settings");
    if (ferror(reading->file))
        note_trouble(reading, MN_SYSTEM, "the file cannot be read");
}

enum mn_status mn_settings_read_file(struct mn_settings *settings, const char *path)
{
    struct mn_settings fresh = *settings;
    struct reading reading = {.path = path, .settings = &fresh};
    reading.file = fopen(path, "re");
    if (!reading.file)
        return MN_FAIL(MN_SYSTEM, "cannot read the settings file %s: %s", path, strerror(errno));
    parse(&reading);
    fclose(reading.file);
    if (reading.status != MN_OK)
        return MN_FAIL(reading.status, "%s", reading.trouble);
    *settings = fresh;
    return MN_OK;
}

static bool is_default(const struct mn_settings_row *row, const char *value)
{
    char standard[MN_SETTINGS_VALUE_MAX];
    mn_settings_default_value(row, standard, sizeof standard);
    return strcmp(standard, value) == 0;
}

void mn_settings_print(const struct mn_settings *settings, FILE *out, bool only_changed)
{
    const struct mn_settings_row *row;
    const char *section = "";
    size_t length = 0;
    for (size_t i = 0; (row = mn_settings_row(i)); i++) {
        char value[MN_SETTINGS_VALUE_MAX];
        mn_settings_value(settings, row, value, sizeof value);
        if (only_changed && is_default(row, value))
            continue;
        size_t dot = strcspn(row->key, ".");
        if (dot != length || strncmp(row->key, section, dot) != 0) {
            fprintf(out, "%s[%.*s]\n", length ? "\n" : "", (int)dot, row->key);
            section = row->key;
            length = dot;
        }
        fprintf(out, "%s = %s\n", row->key + dot + 1, value);
    }
}

/* Opens `<path>.<pid>.tmp`, whose name goes to `name`. */
static enum mn_status open_temporary(const char *path, char *name, size_t size, FILE **out)
{
    if ((size_t)snprintf(name, size, "%s.%d.tmp", path, (int)getpid()) >= size)
        return MN_FAIL(MN_USAGE, "the path of the settings file is too long: %s", path);
    int fd = open(name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0640);
    if (fd < 0)
        return MN_FAIL_ERRNO("cannot create %s", name);
    *out = fdopen(fd, "w");
    if (!*out) {
        close(fd);
        return MN_FAIL_ERRNO("cannot write %s", name);
    }
    return MN_OK;
}

enum mn_status mn_settings_write_file(const struct mn_settings *settings, const char *path)
{
    char name[4096];
    FILE *file;
    MN_TRY(open_temporary(path, name, sizeof name, &file));
    fprintf(file, "# The settings in effect, written by the supervisor for its children. Change the file given with "
                  "--config instead.\n");
    mn_settings_print(settings, file, false);
    bool bad = ferror(file) != 0;
    bad |= fclose(file) != 0;
    if (bad || rename(name, path) != 0) {
        enum mn_status status = MN_FAIL_ERRNO("cannot write %s", path);
        unlink(name);
        return status;
    }
    return MN_OK;
}
