/*
 * test_status.c - the error of a thread, its trail, and last words.
 */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "shm/status.h"

static enum mn_status origin(int n)
{
    return n < 0 ? MN_OK : MN_FAIL(MN_TOO_LARGE, "%d is too much", n);
}

static enum mn_status passes(int n)
{
    MN_TRY(origin(n));
    return MN_OK;
}

static enum mn_status cleans_up(int n, int *cleaned)
{
    enum mn_status status = MN_OK;
    MN_TRY_OUT(passes(n));
out:
    ++*cleaned;
    return status;
}

static void every_status_has_a_word_of_its_own(void **state)
{
    for (unsigned a = 0; a < MN_STATUS_COUNT; a++) {
        const char *word = mn_status_word((enum mn_status)a);
        assert_non_null(word);
        for (unsigned b = 0; b < a; b++)
            assert_string_not_equal(word, mn_status_word((enum mn_status)b));
    }
    assert_string_equal(mn_status_word((enum mn_status)999), "internal");
    assert_false(mn_status_retry((enum mn_status)999));
    assert_true(mn_status_retry(MN_BUSY));
    assert_false(mn_status_retry(MN_BAD_REQUEST));
}

static void a_failure_carries_its_sentence_and_its_way(void **state)
{
    int cleaned = 0;
    assert_int_equal(cleans_up(-1, &cleaned), MN_OK);
    assert_int_equal(cleans_up(7, &cleaned), MN_TOO_LARGE);
    assert_int_equal(cleaned, 2);
    assert_string_equal(mn_error_text(), "7 is too much");
    const char *trail = mn_error_trail();
    assert_int_equal(strncmp(trail, "7 is too much (test_status.c:", 29), 0);
    int places = 1;
    for (const char *p = trail; (p = strstr(p, " < test_status.c:")) != NULL; p++)
        places++;
    assert_int_equal(places, 3);
    assert_int_equal(trail[strlen(trail) - 1], ')');
}

static void a_full_disk_is_read_only(void **state)
{
    static const struct {
        int error;
        enum mn_status status;
    } cases[] = {
        {ENOSPC, MN_READ_ONLY}, {EDQUOT, MN_READ_ONLY}, {EROFS, MN_READ_ONLY}, {EIO, MN_SYSTEM}, {EACCES, MN_SYSTEM}};
    for (size_t i = 0; i < MN_ARRAY_LEN(cases); i++) {
        errno = cases[i].error;
        assert_int_equal(MN_FAIL_ERRNO("cannot write %s", "it"), cases[i].status);
        assert_int_equal(strncmp(mn_error_text(), "cannot write it: ", 17), 0);
        assert_non_null(strstr(mn_error_text(), strerror(cases[i].error)));
    }
}

static void long_sentences_and_long_ways_are_cut(void **state)
{
    char text[2000];
    memset(text, 'y', sizeof text - 1);
    text[sizeof text - 1] = 0;
    assert_int_equal(MN_FAIL(MN_INTERNAL, "%s", text), MN_INTERNAL);
    assert_true(strlen(mn_error_text()) > 100 && strlen(mn_error_text()) < sizeof text);
    for (int i = 0; i < 500; i++)
        mn_error_pass(MN_INTERNAL, "some/folder/with_a_name.c", i);
    assert_true(strlen(mn_error_trail()) < 2000);
    errno = EIO;
    assert_int_equal(MN_FAIL_ERRNO("%s", text), MN_SYSTEM);
}

static void *fail_elsewhere(void *context)
{
    *(enum mn_status *)context = MN_FAIL(MN_BUSY, "elsewhere");
    return NULL;
}

static void threads_do_not_mix_their_errors(void **state)
{
    pthread_t thread;
    enum mn_status other = MN_OK;
    assert_int_equal(MN_FAIL(MN_EXISTS, "here"), MN_EXISTS);
    assert_int_equal(pthread_create(&thread, NULL, fail_elsewhere, &other), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_int_equal(other, MN_BUSY);
    assert_string_equal(mn_error_text(), "here");
}

static void last_words_fit_their_slot(void **state)
{
    char slot[8] = "1234567";
    mn_last_words_slot(slot, 4);
    mn_last_words("abcdefgh");
    assert_string_equal(slot, "abc");
    assert_int_equal(slot[4], '5');
    mn_last_words("");
    assert_string_equal(slot, "");
    mn_last_words_slot(NULL, 0);
    mn_last_words("nowhere");
}

static void a_broken_invariant_leaves_words_and_aborts(void **state)
{
    char *slot = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    int status, silence[2];
    assert_int_equal(pipe(silence), 0);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        dup2(silence[1], STDERR_FILENO);
        signal(SIGABRT, SIG_DFL);
        mn_last_words_slot(slot, 240);
        MN_ASSERT(1 + 1 == 2);
        MN_ASSERT(1 + 1 == 3);
        _exit(0);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
    assert_non_null(strstr(slot, "1 + 1 == 3"));
    assert_non_null(strstr(slot, "test_status.c:"));
    close(silence[0]);
    close(silence[1]);
    munmap(slot, 4096);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_status_has_a_word_of_its_own),
        cmocka_unit_test(a_failure_carries_its_sentence_and_its_way),
        cmocka_unit_test(a_full_disk_is_read_only),
        cmocka_unit_test(long_sentences_and_long_ways_are_cut),
        cmocka_unit_test(threads_do_not_mix_their_errors),
        cmocka_unit_test(last_words_fit_their_slot),
        cmocka_unit_test(a_broken_invariant_leaves_words_and_aborts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
