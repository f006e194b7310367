/*
 * test_cli_lines.c - reading lines of any shape: blank, the last without an end, and longer than any memory is.
 */
#include "ops/cli/cli_lines.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static FILE *file_of(const char *text, size_t size)
{
    FILE *file = tmpfile();
    assert_non_null(file);
    assert_int_equal(fwrite(text, 1, size, file), size);
    rewind(file);
    return file;
}

static void lines_are_counted_and_blank_ones_skipped(void **state)
{
    static const char text[] = "one\n\n  \r\ntwo\nlast";
    static const struct {
        const char *text;
        uint64_t number;
    } expected[] = {{"one", 1}, {"two", 4}, {"last", 5}};
    struct mn_cli_lines lines;
    const char *line;
    size_t size;
    FILE *file = file_of(text, sizeof text - 1);
    mn_cli_lines_open(&lines, file);
    for (size_t i = 0; i < MN_ARRAY_LEN(expected); i++) {
        assert_int_equal(mn_cli_lines_next(&lines, &line, &size), MN_OK);
        assert_int_equal(size, strlen(expected[i].text));
        assert_memory_equal(line, expected[i].text, size);
        assert_int_equal(lines.line, expected[i].number);
    }
    assert_int_equal(mn_cli_lines_next(&lines, &line, &size), MN_OK);
    assert_null(line);
    assert_int_equal(lines.bytes, sizeof text - 1);
    mn_cli_lines_close(&lines);
    fclose(file);
}

static void long_lines_grow_the_buffer_to_a_limit(void **state)
{
    struct mn_cli_lines lines;
    const char *line;
    size_t size, large = 3 << 20, huge = MN_CLI_LINES_LONGEST + (4 << 20);
    char *text = malloc(huge);
    assert_non_null(text);
    memset(text, 'x', huge);
    text[large] = '\n';
    FILE *file = file_of(text, huge);
    mn_cli_lines_open(&lines, file);
    assert_int_equal(mn_cli_lines_next(&lines, &line, &size), MN_OK);
    assert_int_equal(size, large);
    mn_cli_lines_close(&lines);
    fclose(file);
    text[large] = 'x';
    file = file_of(text, huge);
    mn_cli_lines_open(&lines, file);
    assert_int_equal(mn_cli_lines_next(&lines, &line, &size), MN_TOO_LARGE);
    mn_cli_lines_close(&lines);
    fclose(file);
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lines_are_counted_and_blank_ones_skipped),
        cmocka_unit_test(long_lines_grow_the_buffer_to_a_limit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
