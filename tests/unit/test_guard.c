/*
 * test_guard.c - pages that cannot be read cost a call, and nothing else; other people's SIGBUS stays theirs.
 */
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "engine/guard.h"
#include "engine/io.h"

#define PAGES 8u

struct mapped {
    char path[64];
    int fd;
    const void *base;
};

static void map(struct mapped *m)
{
    snprintf(m->path, sizeof m->path, "/tmp/mn-guard-XXXXXX");
    m->fd = mkstemp(m->path);
    assert_true(m->fd >= 0);
    assert_int_equal(ftruncate(m->fd, PAGES * 4096), 0);
    assert_int_equal(mn_io_posix.map(m->fd, PAGES * 4096, &m->base), MN_OK);
}

static void unmap(struct mapped *m)
{
    mn_io_posix.unmap(m->base, PAGES * 4096);
    close(m->fd);
    unlink(m->path);
}

static enum mn_status touch(void *context)
{
    return *(volatile const uint8_t *)context == 0 ? MN_OK : MN_CORRUPT;
}

static void a_fault_ends_the_call(void **state)
{
    struct mapped m;
    const void *fault;
    map(&m);
    const char *page = (const char *)m.base + 5 * 4096 + 17;
    assert_int_equal(mn_guarded(touch, (void *)(uintptr_t)page, &fault), MN_OK);
    assert_null(fault);
    assert_int_equal(ftruncate(m.fd, 2 * 4096), 0);
    for (int again = 0; again < 3; again++) { /* the signal is not left blocked */
        assert_int_equal(mn_guarded(touch, (void *)(uintptr_t)page, &fault), MN_CORRUPT);
        assert_ptr_equal(fault, page);
        assert_non_null(strstr(mn_error_text(), m.path));
    }
    assert_int_equal(mn_guarded(touch, (void *)(uintptr_t)m.base, &fault), MN_OK);
    unmap(&m);
}

struct nested {
    const void *page;
    enum mn_status inner;
};

static enum mn_status call_inner(void *context)
{
    struct nested *n = context;
    n->inner = mn_guarded(touch, (void *)(uintptr_t)n->page, NULL);
    return touch((void *)(uintptr_t)n->page);
}

static void calls_nest(void **state)
{
    struct mapped m;
    map(&m);
    struct nested n = {m.base, MN_OK};
    const void *fault;
    assert_int_equal(ftruncate(m.fd, 0), 0);
    assert_int_equal(mn_guarded(call_inner, &n, &fault), MN_CORRUPT);
    assert_int_equal(n.inner, MN_CORRUPT);
    assert_ptr_equal(fault, m.base);
    unmap(&m);
}

static void *fault_a_thousand_times(void *context)
{
    uintptr_t bad = 0;
    for (int i = 0; i < 1000; i++)
        bad += mn_guarded(touch, context, NULL) != MN_CORRUPT;
    return (void *)bad; // NOLINT(performance-no-int-to-ptr)
}

static void threads_do_not_meet(void **state)
{
    struct mapped m, other;
    pthread_t threads[4];
    map(&m);
    assert_int_equal(ftruncate(m.fd, 0), 0);
    for (int t = 0; t < 4; t++)
        assert_int_equal(pthread_create(&threads[t], NULL, fault_a_thousand_times, (void *)(uintptr_t)m.base), 0);
    for (int i = 0; i < 1000; i++) { /* the list changes meanwhile */
        map(&other);
        unmap(&other);
    }
    for (int t = 0; t < 4; t++) {
        void *bad;
        assert_int_equal(pthread_join(threads[t], &bad), 0);
        assert_null(bad);
    }
    unmap(&m);
}

/* ---- in a child: what ends the process, and who is asked ---- */

static int theirs_pipe;

static void theirs(int signal, siginfo_t *info, void *context)
{
    ssize_t ignored = write(theirs_pipe, "t", 1);
    (void)ignored;
    _exit(7);
}

static void run_child(const char *what)
{
    struct mapped m;
    static char words[320];
    if (strcmp(what, "theirs") == 0) {
        struct sigaction action = {.sa_sigaction = theirs, .sa_flags = SA_SIGINFO};
        sigaction(SIGBUS, &action, NULL);
    }
    mn_last_words_slot(words, sizeof words);
    map(&m);
    if (ftruncate(m.fd, 0) != 0)
        _exit(9);
    if (strcmp(what, "theirs") == 0) { /* a mapping that is not ours */
        void *own = mmap(NULL, 4096, PROT_READ, MAP_SHARED, m.fd, 0);
        enum mn_status ignored = mn_guarded(touch, own, NULL);
        (void)ignored;
    } else {
        unlink(m.path);
        enum mn_status ignored = touch((void *)(uintptr_t)m.base);
        (void)ignored;
    }
    _exit(8);
}

static int child(const char *what, char *told, size_t size)
{
    int out[2], status;
    assert_int_equal(pipe(out), 0);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        signal(SIGBUS, SIG_DFL); /* the test program's own guard is another's */
        theirs_pipe = out[1];
        dup2(out[1], STDERR_FILENO);
        execl("/proc/self/exe", "test_guard", what, (char *)NULL);
        _exit(10);
    }
    close(out[1]);
    size_t n = 0;
    for (ssize_t got; n + 1 < size && (got = read(out[0], told + n, size - 1 - n)) > 0;)
        n += (size_t)got;
    told[n] = 0;
    close(out[0]);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return status;
}

/* A sanitizer has the signal before us, tells of it, and aborts or exits. */
static bool is_the_end(int status)
{
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    return !WIFEXITED(status) || WEXITSTATUS(status) != 0;
#else
    return WIFSIGNALED(status) && WTERMSIG(status) == SIGBUS;
#endif
}

static void without_a_guard_it_is_the_end(void **state)
{
    char told[512];
    int status = child("ours", told, sizeof told);
    assert_true(is_the_end(status));
    assert_non_null(strstr(told, "a page of /tmp/mn-guard-"));
    assert_non_null(strstr(told, "cannot be read"));
}

static void what_is_not_ours_is_passed_on(void **state)
{
    char told[512];
    int status = child("theirs", told, sizeof told);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 7);
}

int main(int argc, char **argv)
{
    theirs_pipe = STDERR_FILENO;
    if (argc > 1)
        run_child(argv[1]);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_fault_ends_the_call),         cmocka_unit_test(calls_nest),
        cmocka_unit_test(threads_do_not_meet),           cmocka_unit_test(without_a_guard_it_is_the_end),
        cmocka_unit_test(what_is_not_ours_is_passed_on),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
