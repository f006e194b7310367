/*
 * status.c - the error of a thread: one sentence, the places it passed; and the end of a process that met a bug.
 */
#include "shm/status.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const struct {
    const char *word;
    bool retry;
} statuses[MN_STATUS_COUNT] = {
#define X(name, word, retry) [name] = {word, retry},
    MN_STATUS_TABLE(X)
#undef X
};

/* Per thread, so that threads of one process do not mix their errors. */
static _Thread_local struct {
    char text[512];
    char trail[1024];
} last_error;

static char *last_words_slot;
static size_t last_words_size;

const char *mn_status_word(enum mn_status status)
{
    return (unsigned)status < MN_STATUS_COUNT ? statuses[status].word : "internal";
}

bool mn_status_retry(enum mn_status status)
{
    return (unsigned)status < MN_STATUS_COUNT && statuses[status].retry;
}

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

static void start_trail(const char *file, int line)
{
    snprintf(last_error.trail, sizeof last_error.trail, "%s (%s:%d)", last_error.text, base_name(file), line);
}

enum mn_status mn_error_set(enum mn_status code, const char *file, int line, const char *fmt, ...)
{
    char text[sizeof last_error.text]; /* an argument may be the last error's own text */
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    memcpy(last_error.text, text, sizeof text);
    start_trail(file, line);
    return code;
}

enum mn_status mn_error_set_errno(const char *file, int line, const char *fmt, ...)
{
    int error = errno;
    va_list args;
    va_start(args, fmt);
    int n = vsnprintf(last_error.text, sizeof last_error.text, fmt, args);
    va_end(args);
    if (n >= 0 && (size_t)n < sizeof last_error.text)
        snprintf(last_error.text + n, sizeof last_error.text - (size_t)n, ": %s", strerror(error));
    start_trail(file, line);
    return error == ENOSPC || error == EDQUOT || error == EROFS || error == EFBIG ? MN_READ_ONLY : MN_SYSTEM;
}

enum mn_status mn_error_pass(enum mn_status code, const char *file, int line)
{
    size_t n = strlen(last_error.trail);
    if (n > 0 && last_error.trail[n - 1] == ')')
        snprintf(last_error.trail + n - 1, sizeof last_error.trail - n + 1, " < %s:%d)", base_name(file), line);
    return code;
}

const char *mn_error_text(void)
{
    return last_error.text;
}

const char *mn_error_trail(void)
{
    return last_error.trail;
}

void mn_last_words_slot(char *slot, size_t size)
{
    last_words_slot = slot;
    last_words_size = size;
}

void mn_last_words(const char *text)
{
    if (!last_words_slot || last_words_size == 0)
        return;
    size_t i = 0;
    for (; text[i] && i + 1 < last_words_size; i++)
        last_words_slot[i] = text[i];
    last_words_slot[i] = 0;
}

_Noreturn void mn_assert_failed(const char *cond, const char *file, int line, const char *func)
{
    char words[256];
    int n = snprintf(words, sizeof words, "bug: %s does not hold in %s (%s:%d)\n", cond, func, base_name(file), line);
    mn_last_words(words);
    if (n > 0 && write(STDERR_FILENO, words, (size_t)n < sizeof words ? (size_t)n : sizeof words - 1) < 0)
        abort();
    abort();
}
