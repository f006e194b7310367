/*
 * test_clients.c - config/clients: lines, escapes, mistakes, and who is found.
 */
#include "config/clients.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#define ADA "rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7"
#define BOB "#ne@$w-vo<fVvi]a<NY6T1ed:M$fCG*[IaLV{hID" /* begins like a comment and is none */

static struct mn_clients clients;

static enum mn_status parse(const char *text)
{
    return mn_clients_parse(&clients, text, strlen(text), "list");
}

static void lines_that_are_right(void **state)
{
    const struct mn_client *ada, *bob;
    assert_int_equal(
        parse("# a comment\n\n   #\n" ADA " ada read,write notes,with%2Ccomma,%2A,50%25\r\n\t" BOB "\tbob\tadmin  *"),
        MN_OK);
    assert_int_equal(clients.count, 2);
    ada = mn_clients_find(&clients, ADA);
    bob = mn_clients_find(&clients, BOB);
    assert_string_equal(ada->name, "ada");
    assert_int_equal(ada->rights, MN_RIGHT_READ | MN_RIGHT_WRITE);
    assert_int_equal(ada->line, 4);
    assert_int_equal(bob->rights, MN_RIGHT_ADMIN);
    assert_true(mn_client_may_use(ada, "notes", 5) && mn_client_may_use(ada, "with,comma", 10));
    assert_true(mn_client_may_use(ada, "*", 1) && mn_client_may_use(ada, "50%", 3));
    assert_false(mn_client_may_use(ada, "note", 4) || mn_client_may_use(ada, "notes2", 6));
    assert_false(mn_client_may_use(ada, "notes\0", 6));
    assert_true(mn_client_may_use(bob, "anything", 8) && bob->all_spaces);
    assert_null(mn_clients_find(&clients, "0000000000000000000000000000000000000000"));
    assert_null(mn_clients_find(&clients, ""));
    mn_clients_free(&clients);
}

static void an_empty_list_lets_nobody_in(void **state)
{
    assert_int_equal(parse(""), MN_OK);
    assert_null(mn_clients_find(&clients, ADA));
    mn_clients_free(&clients);
}

static void mistakes_name_their_line(void **state)
{
    static const char *const wrong[][2] = {
        {"\n" ADA " ada read\n", "list:2: a line has four words"},
        {ADA " ada read * more", "list:1: a line has four words"},
        {"# x\n" ADA "x ada read *", "list:2: a line begins with a public key"},
        {"rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf\" ada read *", "list:1: a line begins with a public key"},
        {ADA " ada red *", "list:1: rights are"},
        {ADA " ada read, *", "list:1: rights are"},
        {ADA " ada ,read *", "list:1: rights are"},
        {ADA " ada read a,,b", "list:1: \"\" is no name"},
        {ADA " ada read a%2", "list:1: \"a%2\" is no name"},
        {ADA " ada read a%zz", "list:1: \"a%zz\" is no name"},
        {ADA " ada read %00", "list:1: \"%00\" is no name"},
        {ADA " \x01 read *", "list:1: a name is printable"},
        {ADA " ada read *\n\n" ADA " bob write *", "list:3: this key is on line 1"},
    };
    for (size_t i = 0; i < MN_ARRAY_LEN(wrong); i++) {
        assert_int_equal(parse(wrong[i][0]), MN_USAGE);
        assert_ptr_equal(strstr(mn_error_text(), wrong[i][1]), mn_error_text());
        assert_int_equal(clients.count, 0);
    }
    assert_int_equal(mn_clients_parse(&clients, ADA "\0", sizeof ADA, "list"), MN_USAGE);
}

static void names_have_an_end(void **state)
{
    char text[1024];
    for (int over = 0; over < 2; over++) {
        snprintf(text, sizeof text, "%s %0*d read *", ADA, (int)MN_CLIENTS_NAME_MAX + over, 0);
        assert_int_equal(parse(text), over ? MN_USAGE : MN_OK);
        mn_clients_free(&clients);
        snprintf(text, sizeof text, "%s ada read %0*d", ADA, (int)MN_CLIENTS_SPACE_MAX + over, 0);
        assert_int_equal(parse(text), over ? MN_USAGE : MN_OK);
        mn_clients_free(&clients);
    }
}

static void rights_in_words(void **state)
{
    char text[64], small[8];
    assert_string_equal(mn_rights_text(MN_RIGHT_READ | MN_RIGHT_ADMIN, text, sizeof text), "read, admin");
    assert_string_equal(mn_rights_text(MN_RIGHT_ANY, text, sizeof text), "any");
    assert_string_equal(mn_rights_text(7, small, sizeof small), "read, w");
}

static void files_that_others_can_write(void **state)
{
    char path[] = "/tmp/mn-clients-XXXXXX";
    int fd = mkstemp(path);
    assert_int_equal(write(fd, ADA " ada read *\n", 52), 52);
    assert_int_equal(fchmod(fd, 0644), 0);
    assert_int_equal(mn_clients_read(&clients, path), MN_OK);
    assert_int_equal(clients.count, 1);
    mn_clients_free(&clients);
    assert_int_equal(fchmod(fd, 0664), 0);
    assert_int_equal(mn_clients_read(&clients, path), MN_USAGE);
    assert_int_equal(fchmod(fd, 0600), 0);
    assert_int_equal(ftruncate(fd, MN_CLIENTS_FILE_MAX + 1), 0);
    assert_int_equal(mn_clients_read(&clients, path), MN_USAGE);
    close(fd);
    unlink(path);
    assert_int_equal(mn_clients_read(&clients, path), MN_SYSTEM);
    assert_int_equal(mn_clients_read(&clients, "/tmp"), MN_USAGE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lines_that_are_right),     cmocka_unit_test(an_empty_list_lets_nobody_in),
        cmocka_unit_test(mistakes_name_their_line), cmocka_unit_test(names_have_an_end),
        cmocka_unit_test(rights_in_words),          cmocka_unit_test(files_that_others_can_write),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
