/*
 * status.h - what a function of Mneme may return, and how an error finds its way up.
 *
 * Three kinds of trouble (see README, "Errors"):
 *   expected    full disk, bad request, peer gone: MN_FAIL(code, "sentence") at the origin, MN_TRY(call) on the way up;
 *   a bug       MN_ASSERT: last words, then abort, in release builds too;
 *   bad bytes   from disk, wire or another process: MN_FAIL(MN_CORRUPT, ...), never an assert, never a crash.
 *
 * The sentence and the places it passed are kept per thread (mn_error_text, mn_error_trail): the engine never logs, the
 * actor's loop logs the trail once, and a request's reply carries the sentence.
 */
#ifndef MN_SHM_STATUS_H
#define MN_SHM_STATUS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* One row per status: enum name, protocol word, whether the same request may succeed when tried again.
 * Rows below MN_NOT_READY never leave the process; the others are the error codes of the wire protocol. */
#define MN_STATUS_TABLE(X)                                                                                             \
    X(MN_OK, "ok", false)                                                                                              \
    X(MN_BAD_REQUEST, "bad_request", false)                                                                            \
    X(MN_BAD_OP, "bad_op", false)                                                                                      \
    X(MN_BAD_DIM, "bad_dim", false)                                                                                    \
    X(MN_BAD_VALUE, "bad_value", false)                                                                                \
    X(MN_NOT_FOUND, "not_found", false)                                                                                \
    X(MN_EXISTS, "exists", false)                                                                                      \
    X(MN_VERSION_MISMATCH, "version_mismatch", false)                                                                  \
    X(MN_TOO_LARGE, "too_large", false)                                                                                \
    X(MN_BUSY, "busy", true)                                                                                           \
    X(MN_READ_ONLY, "read_only", true)                                                                                 \
    X(MN_UNKNOWN, "unknown", true)                                                                                     \
    X(MN_UNAVAILABLE, "unavailable", true)                                                                             \
    X(MN_DEADLINE, "deadline", true)                                                                                   \
    X(MN_UNAUTHORIZED, "unauthorized", false)                                                                          \
    X(MN_CORRUPT, "corrupt", false)                                                                                    \
    X(MN_INTERNAL, "internal", false)                                                                                  \
    X(MN_NOT_READY, "not_ready", true) /* a shared segment is not laid out yet */                                      \
    X(MN_SYSTEM, "system", false)      /* a system call failed: the sentence names it and errno */                     \
    X(MN_USAGE, "usage", false)        /* a command line or a setting is wrong: exit status 2 */

#define X(name, word, retry) name,
enum mn_status { MN_STATUS_TABLE(X) MN_STATUS_COUNT };
#undef X

#define MN_MUST_USE         __attribute__((warn_unused_result))
#define MN_PRINTF(fmt, arg) __attribute__((format(printf, fmt, arg)))

/* The protocol word of a status ("bad_request"), and whether a retry may help. Never NULL. */
const char *mn_status_word(enum mn_status status);
bool mn_status_retry(enum mn_status status);

/* Records `code` with a sentence; its value is `code` (as a constant, so that a compiler sees that it is not MN_OK).
 * Sentences say what was wrong and what would be right. */
#define MN_FAIL(code, ...)                                                                                             \
    __extension__({                                                                                                    \
        mn_error_set((code), __FILE__, __LINE__, __VA_ARGS__);                                                         \
        (code);                                                                                                        \
    })

/* As MN_FAIL(MN_SYSTEM, ...), with ": strerror(errno)" behind the sentence; ENOSPC, EDQUOT, EROFS and EFBIG become
 * MN_READ_ONLY. */
#define MN_FAIL_ERRNO(...)                                                                                             \
    (mn_error_set_errno(__FILE__, __LINE__, __VA_ARGS__) == MN_READ_ONLY ? MN_READ_ONLY : MN_SYSTEM)

/* Evaluates a call; on failure notes this place in the trail and returns the status to the caller. */
#define MN_TRY(expr)                                                                                                   \
    do {                                                                                                               \
        enum mn_status mn_try_ = (expr);                                                                               \
        if (__builtin_expect(mn_try_ != MN_OK, 0)) {                                                                   \
            mn_error_pass(mn_try_, __FILE__, __LINE__);                                                                \
            return mn_try_;                                                                                            \
        }                                                                                                              \
    } while (0)

/* As MN_TRY where things must be released: jumps to `out` with `status` set (declare `enum mn_status status = MN_OK;`).
 */
#define MN_TRY_OUT(expr)                                                                                               \
    do {                                                                                                               \
        status = (expr);                                                                                               \
        if (__builtin_expect(status != MN_OK, 0)) {                                                                    \
            mn_error_pass(status, __FILE__, __LINE__);                                                                 \
            goto out;                                                                                                  \
        }                                                                                                              \
    } while (0)

enum mn_status mn_error_set(enum mn_status code, const char *file, int line, const char *fmt, ...) MN_PRINTF(4, 5);
enum mn_status mn_error_set_errno(const char *file, int line, const char *fmt, ...) MN_PRINTF(3, 4);
enum mn_status mn_error_pass(enum mn_status code, const char *file, int line);

/* The last failure of this thread: its sentence, and "sentence (a.c:12 < b.c:40)". Valid until the next failure. */
const char *mn_error_text(void);
const char *mn_error_trail(void);

/* A broken invariant: writes last words to stderr and to the slot given to mn_last_words_slot, then aborts. */
#define MN_ASSERT(cond)                                                                                                \
    do {                                                                                                               \
        if (__builtin_expect(!(cond), 0))                                                                              \
            mn_assert_failed(#cond, __FILE__, __LINE__, __func__);                                                     \
    } while (0)
_Noreturn void mn_assert_failed(const char *cond, const char *file, int line, const char *func);

/* Where a process leaves a last sentence for its supervisor: `size` bytes of shared memory, NUL-terminated text. */
void mn_last_words_slot(char *slot, size_t size);
/* Leaves `text` there without dying (the actor calls it before a failed role exits). Async-signal-safe. */
void mn_last_words(const char *text);

#define MN_ARRAY_LEN(a) (sizeof(a) / sizeof((a)[0]))

static inline uint64_t mn_round_up(uint64_t n, uint64_t to)
{
    return (n + to - 1) / to * to;
}

#endif
