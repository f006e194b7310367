/*
 * test_cli_args.c - the command line's parser: forms of options, repeated ones, words, and the sentences of mistakes.
 */
#include "ops/cli/cli_args.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const struct mn_cli_option options[] = {
    {"limit", 'n', "N", "a number"}, {"tag", 't', "TAG", "repeated"}, {"exact", 0, NULL, "a flag"},
    {"ratio", 0, "X", "a share"},    {"wait", 0, "T", "a duration"},  {0},
};

static enum mn_status parse(struct mn_cli_args *args, bool stop, int argc, ...)
{
    char *argv[16];
    va_list list;
    va_start(list, argc);
    for (int i = 0; i < argc; i++)
        argv[i] = va_arg(list, char *);
    va_end(list);
    return mn_cli_args_parse(args, argc, argv, options, NULL, stop);
}

static void assert_says(enum mn_status status, const char *part)
{
    assert_int_equal(status, MN_USAGE);
    if (!strstr(mn_error_text(), part))
        fail_msg("expected \"%s\" in \"%s\"", part, mn_error_text());
}

static void options_have_four_forms(void **state)
{
    static const char *const forms[][2] = {{"--limit=7", NULL}, {"--limit", "7"}, {"-n7", NULL}, {"-n", "7"}};
    for (size_t i = 0; i < MN_ARRAY_LEN(forms); i++) {
        struct mn_cli_args args;
        uint64_t limit = 0;
        assert_int_equal(parse(&args, false, forms[i][1] ? 2 : 1, forms[i][0], forms[i][1]), MN_OK);
        assert_int_equal(mn_cli_args_u64(&args, "limit", 1, 10, &limit), MN_OK);
        assert_int_equal(limit, 7);
        assert_int_equal(args.word_count, 0);
        mn_cli_args_free(&args);
    }
}

static void repeated_options_keep_all_values(void **state)
{
    struct mn_cli_args args;
    size_t cursor = 0;
    assert_int_equal(parse(&args, false, 5, "-t", "a", "word", "--tag=b", "--exact"), MN_OK);
    assert_string_equal(mn_cli_args_next(&args, "tag", &cursor), "a");
    assert_string_equal(mn_cli_args_next(&args, "tag", &cursor), "b");
    assert_null(mn_cli_args_next(&args, "tag", &cursor));
    assert_string_equal(mn_cli_args_text(&args, "tag"), "b");
    assert_int_equal(mn_cli_args_count(&args, "tag"), 2);
    assert_true(mn_cli_args_has(&args, "exact"));
    assert_false(mn_cli_args_has(&args, "limit"));
    assert_int_equal(args.word_count, 1);
    mn_cli_args_free(&args);
}

static void dashes_can_be_words_and_values(void **state)
{
    struct mn_cli_args args;
    int64_t wait = 0;
    assert_int_equal(parse(&args, false, 4, "-", "--", "-n", "--tag"), MN_OK);
    assert_int_equal(args.word_count, 3);
    assert_string_equal(args.words[0], "-");
    assert_string_equal(args.words[2], "--tag");
    mn_cli_args_free(&args);
    assert_int_equal(parse(&args, false, 2, "--wait", "-1h"), MN_OK);
    assert_string_equal(mn_cli_args_text(&args, "wait"), "-1h");
    assert_int_equal(mn_cli_args_time(&args, "wait", &wait), MN_OK);
    mn_cli_args_free(&args);
}

static void the_first_word_can_end_the_options(void **state)
{
    struct mn_cli_args args;
    assert_int_equal(parse(&args, true, 4, "--exact", "recall", "--nothing-of-ours", "-x"), MN_OK);
    assert_int_equal(args.word_count, 3);
    assert_string_equal(args.words[1], "--nothing-of-ours");
    mn_cli_args_free(&args);
}

static void mistakes_are_named(void **state)
{
    struct mn_cli_args args;
    uint64_t n = 3;
    double x = 0.5;
    int64_t t = 1;
    static const char *const typos[][2] = {{"--limti=3", "did you mean --limit?"},
                                           {"--ilmit", "did you mean --limit?"},
                                           {"--rati", "did you mean --ratio?"},
                                           {"--wiat", "did you mean --wait?"},
                                           {"--atg=x", "did you mean --tag?"}};
    for (size_t i = 0; i < MN_ARRAY_LEN(typos); i++) {
        assert_says(parse(&args, false, 1, typos[i][0]), typos[i][1]);
        mn_cli_args_free(&args);
    }
    assert_int_equal(parse(&args, false, 1, "--colour"), MN_USAGE);
    assert_null(strstr(mn_error_text(), "did you mean"));
    mn_cli_args_free(&args);
    assert_says(parse(&args, false, 1, "--limit"), "needs a value");
    mn_cli_args_free(&args);
    assert_says(parse(&args, false, 1, "--exact=yes"), "takes no value");
    mn_cli_args_free(&args);
    assert_says(parse(&args, false, 1, "-q"), "no option -q");
    mn_cli_args_free(&args);
    assert_int_equal(parse(&args, false, 4, "--limit=11", "--ratio=nan", "--wait=7", "word"), MN_OK);
    assert_says(mn_cli_args_u64(&args, "limit", 1, 10, &n), "from 1 to 10");
    assert_says(mn_cli_args_f64(&args, "ratio", 0, 1, &x), "from 0 to 1");
    assert_says(mn_cli_args_duration(&args, "wait", &t), "takes a duration");
    assert_says(mn_cli_args_words(&args, 2, 2, "a file"), "a file is missing");
    assert_says(mn_cli_args_words(&args, 0, 0, ""), "`word` is too much");
    assert_int_equal(n, 3);
    assert_true(x == 0.5 && t == 1);
    mn_cli_args_free(&args);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(options_have_four_forms),
        cmocka_unit_test(repeated_options_keep_all_values),
        cmocka_unit_test(dashes_can_be_words_and_values),
        cmocka_unit_test(the_first_word_can_end_the_options),
        cmocka_unit_test(mistakes_are_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
