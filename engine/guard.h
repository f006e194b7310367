/*
 * guard.h - a page of a mapped file that cannot be read costs one call, not the process.
 *
 * A file that was cut behind our back, and a disk that fails a read, raise SIGBUS in whoever touches the mapping. The
 * I/O table notes what it maps (guard.c); the handler takes only faults in those mappings. On a thread inside
 * mn_guarded it ends that call with MN_CORRUPT. On any other thread it is the end of the process, with last words that
 * name the file. Faults elsewhere, and signals that somebody sent, are the previous handler's.
 *
 * A program that attaches keeps its handler: ours calls it for everything that is not ours. One that it installs later
 * has the signal to itself until the next file is mapped, and is then called in the same way.
 */
#ifndef MN_ENGINE_GUARD_H
#define MN_ENGINE_GUARD_H

#include "engine/types.h"

/* Calls work(context) and returns what it returns. A fault on the way ends it where it stood, as longjmp does:
 * MN_CORRUPT then, with a sentence that names the file, and *fault (may be NULL) is the address. So what `work` calls
 * may hold no lock and keep nothing half-changed while it touches a mapping, but through a call of its own here; what
 * it had allocated is lost. Calls nest; costs some ten ns. Any thread. */
enum mn_status mn_guarded(enum mn_status (*work)(void *context), void *context, const void **fault) MN_MUST_USE;

/* Told by the I/O table: a file is mapped, or will not be any more. Installs the handler where it is not. */
void mn_guard_note(const void *base, uint64_t bytes, int fd);
void mn_guard_forget(const void *base);

#endif
