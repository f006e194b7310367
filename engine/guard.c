/*
 * guard.c - the handler of SIGBUS, and the list of mappings that are ours.
 *
 * The handler may run at any instruction, so it only loads: the list is chunks of slots that are never freed, a slot is
 * filled before its `begin` is stored with release, and taken away by storing 0 there. Changing the list takes a mutex
 * (files are mapped when segments appear).
 *
 * No signal mask is saved or restored (that would be two system calls for each recall): the handler is installed with
 * SA_NODEFER, so that a thread that has jumped out of it can be interrupted again. ThreadSanitizer puts a handler of
 * its own before ours, with every signal blocked: there the mask is saved.
 */
#include "engine/guard.h"

#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "engine/store.h"

#define SLOTS      256
#define NAME_BYTES 104

#ifdef __SANITIZE_THREAD__
#define SAVES_MASK 1
#else
#define SAVES_MASK 0
#endif

struct slot {
    _Atomic uintptr_t begin; /* 0: free */
    uintptr_t end;
    struct slot *next_free;
    char name[NAME_BYTES]; /* the end of the file's path */
};

struct chunk {
    struct chunk *_Atomic next;
    struct slot slots[SLOTS];
};

struct guard {
    sigjmp_buf at;
    struct guard *outer;
    const void *address;
    const struct slot *slot;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct chunk *_Atomic chunks;
static struct slot *free_slots;
static struct sigaction previous;
static _Thread_local struct guard *innermost;
static _Thread_local bool passing; /* a fault on, to the previous handler */

/* ---- the list ---- */

static const struct slot *find(uintptr_t address)
{
    for (const struct chunk *c = atomic_load_explicit(&chunks, memory_order_acquire); c;
         c = atomic_load_explicit(&c->next, memory_order_acquire))
        for (size_t s = 0; s < SLOTS; s++) {
            uintptr_t begin = atomic_load_explicit(&c->slots[s].begin, memory_order_acquire);
            if (begin != 0 && address >= begin && address < c->slots[s].end)
                return &c->slots[s];
        }
    return NULL;
}

static struct slot *take_slot(void)
{
    if (!free_slots) {
        struct chunk *c = calloc(1, sizeof *c);
        for (size_t s = 0; c && s < SLOTS; s++) {
            c->slots[s].next_free = free_slots;
            free_slots = &c->slots[s];
        }
        if (!c)
            return NULL;
        atomic_store_explicit(&c->next, atomic_load_explicit(&chunks, memory_order_relaxed), memory_order_relaxed);
        atomic_store_explicit(&chunks, c, memory_order_release);
    }
    struct slot *slot = free_slots;
    free_slots = slot->next_free;
    return slot;
}

static void name_slot(struct slot *slot, int fd)
{
    char link[64], path[MN_PATH_MAX + 64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path);
    const char *name = n > 0 ? path : "a mapped file";
    size_t bytes = n > 0 ? (size_t)n : strlen(name),
           skip = bytes < sizeof slot->name ? 0 : bytes - sizeof slot->name + 1;
    memcpy(slot->name, name + skip, bytes - skip);
    slot->name[bytes - skip] = 0;
}

/* ---- the handler ---- */

static size_t put(char *text, size_t at, size_t size, const char *more)
{
    while (*more && at + 1 < size)
        text[at++] = *more++;
    text[at] = 0;
    return at;
}

static void say_last_words(const struct slot *slot)
{
    char words[256];
    size_t n = put(words, 0, sizeof words, "a page of ");
    n = put(words, n, sizeof words, slot->name);
    n = put(words, n, sizeof words, " cannot be read: the file was cut while it was in use, or the disk fails\n");
    mn_last_words(words);
    ssize_t ignored = write(STDERR_FILENO, words, n);
    (void)ignored;
}

/* To whoever had the signal before us. By default the instruction is tried again, and ends the process; so it is when
 * the previous handler asks us in turn. */
static void pass_on(int signal, siginfo_t *info, void *context)
{
    bool asked_back = passing;
    passing = true;
    if (asked_back)
        sigaction(signal, &(struct sigaction){.sa_handler = SIG_DFL}, NULL);
    else if (previous.sa_flags & SA_SIGINFO)
        previous.sa_sigaction(signal, info, context);
    else if (previous.sa_handler != SIG_DFL && previous.sa_handler != SIG_IGN)
        previous.sa_handler(signal);
    else
        sigaction(signal, &(struct sigaction){.sa_handler = SIG_DFL}, NULL);
    passing = asked_back;
}

static void on_fault(int signal, siginfo_t *info, void *context)
{
    struct guard *guard = innermost;
    const struct slot *slot = info->si_code > 0 ? find((uintptr_t)info->si_addr) : NULL;
    if (slot && guard) {
        innermost = guard->outer;
        guard->address = info->si_addr;
        guard->slot = slot;
        siglongjmp(guard->at, 1);
    }
    if (slot)
        say_last_words(slot);
    pass_on(signal, info, context);
}

/* Also when somebody has put another handler in the place of ours: it becomes the previous one. */
static void install(void)
{
    struct sigaction now;
    if (sigaction(SIGBUS, NULL, &now) != 0 || ((now.sa_flags & SA_SIGINFO) && now.sa_sigaction == on_fault))
        return;
    previous = now;
    struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_NODEFER | SA_ONSTACK};
    sigemptyset(&action.sa_mask);
    sigaction(SIGBUS, &action, NULL);
}

/* ---- what others call ---- */

void mn_guard_note(const void *base, uint64_t bytes, int fd)
{
    pthread_mutex_lock(&lock);
    install();
    struct slot *slot = take_slot();
    if (slot) { /* without memory a fault in this mapping is nobody's, and ends the process */
        name_slot(slot, fd);
        slot->end = (uintptr_t)base + mn_round_up(bytes, 4096);
        atomic_store_explicit(&slot->begin, (uintptr_t)base, memory_order_release);
    }
    pthread_mutex_unlock(&lock);
}

void mn_guard_forget(const void *base)
{
    pthread_mutex_lock(&lock);
    const struct slot *found = base ? find((uintptr_t)base) : NULL;
    if (found && atomic_load_explicit(&found->begin, memory_order_relaxed) == (uintptr_t)base) {
        struct slot *slot = (struct slot *)(uintptr_t)found;
        atomic_store_explicit(&slot->begin, 0, memory_order_release);
        slot->next_free = free_slots;
        free_slots = slot;
    }
    pthread_mutex_unlock(&lock);
}

static enum mn_status tell(const struct guard *guard)
{
    return MN_FAIL(MN_CORRUPT, "a page of %s cannot be read: the file was cut while it was in use, or the disk fails",
                   guard->slot->name);
}

enum mn_status mn_guarded(enum mn_status (*work)(void *context), void *context, const void **fault)
{
    struct guard guard;
    guard.outer = innermost;
    if (fault)
        *fault = NULL;
    if (sigsetjmp(guard.at, SAVES_MASK) != 0) {
        if (fault)
            *fault = guard.address; // cppcheck-suppress uninitStructMember ; the handler has filled it
        return tell(&guard);
    }
    innermost = &guard;
    enum mn_status status = work(context);
    innermost = guard.outer;
    return status;
}
