/*
 * test_snapshot_path.c - where a snapshot may be written, and where not.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "actors/snapshot_path.h"

/* <base>/d is the store, <base>/taken exists, <base>/out leads to /etc, <elsewhere> is another folder. */
static char base[64], elsewhere[64];
static struct mn_store store;

static const char *in_base(const char *name)
{
    static char paths[4][MN_PATH_MAX];
    static unsigned next;
    char *path = paths[next++ % 4];
    snprintf(path, MN_PATH_MAX, "%s/%s", base, name);
    return path;
}

static int set_up(void **state)
{
    strcpy(base, "/tmp/mn-snapshot-path-XXXXXX");
    strcpy(elsewhere, "/tmp/mn-snapshot-else-XXXXXX");
    if (!mkdtemp(base) || !mkdtemp(elsewhere))
        return -1;
    snprintf(store.dir, sizeof store.dir, "%s", in_base("d"));
    return mkdir(store.dir, 0700) || mkdir(in_base("taken"), 0700) || mkdir(in_base("d/columns"), 0700) ||
           symlink("/etc", in_base("out")) || symlink(elsewhere, in_base("link"));
}

static int tear_down(void **state)
{
    unlink(in_base("out"));
    unlink(in_base("link"));
    rmdir(in_base("taken"));
    rmdir(in_base("d/columns"));
    rmdir(store.dir);
    rmdir(elsewhere);
    return rmdir(base);
}

static enum mn_status check(const char *roots, const char *path, char *resolved)
{
    return mn_snapshot_path_check(&store, roots, (struct mn_str){path, (uint32_t)strlen(path)}, resolved);
}

static void beside_the_store_is_allowed(void **state)
{
    char resolved[MN_PATH_MAX];
    assert_int_equal(check("", in_base("copy"), resolved), MN_OK);
    assert_string_equal(resolved, in_base("copy"));
    assert_int_equal(check("", in_base("copy///"), resolved), MN_OK);
    assert_string_equal(resolved, in_base("copy"));
    assert_int_equal(check("", in_base("taken/../taken/./deep"), resolved), MN_OK);
    assert_string_equal(resolved, in_base("taken/deep"));
}

static void what_exists_is_refused(void **state)
{
    char resolved[MN_PATH_MAX];
    assert_int_equal(check("", in_base("taken"), resolved), MN_EXISTS);
    assert_int_equal(check("", in_base("out"), resolved), MN_EXISTS); /* the link itself */
    assert_int_equal(check("", in_base("d"), resolved), MN_EXISTS);
}

static void outside_is_refused(void **state)
{
    char resolved[MN_PATH_MAX];
    assert_int_equal(check("", "/etc/mneme-snapshot", resolved), MN_UNAUTHORIZED);
    assert_int_equal(check("", "/etc/passwd", resolved), MN_UNAUTHORIZED); /* not: exists */
    assert_int_equal(check("", in_base("../../etc/mneme-snapshot"), resolved), MN_UNAUTHORIZED);
    assert_int_equal(check("", in_base("out/mneme-snapshot"), resolved), MN_UNAUTHORIZED);
    assert_int_equal(check("", in_base("link/copy"), resolved), MN_UNAUTHORIZED);
    assert_int_equal(check("", in_base("d/columns/9"), resolved), MN_UNAUTHORIZED);
    assert_int_equal(check(base, "/tmp/mneme-snapshot", resolved), MN_UNAUTHORIZED);
}

static void roots_replace_the_default(void **state)
{
    char resolved[MN_PATH_MAX], wanted[MN_PATH_MAX], roots[MN_PATH_MAX];
    assert_int_equal(check(elsewhere, in_base("copy"), resolved), MN_UNAUTHORIZED);
    snprintf(wanted, sizeof wanted, "%s/copy", elsewhere);
    assert_int_equal(check(elsewhere, wanted, resolved), MN_OK);
    snprintf(roots, sizeof roots, "/nowhere:%s", elsewhere);
    assert_int_equal(check(roots, in_base("link/copy"), resolved), MN_OK);
    assert_string_equal(resolved, wanted);
    /* A name that merely begins like a root is not in it. */
    snprintf(wanted, sizeof wanted, "%s-more/copy", elsewhere);
    assert_int_not_equal(check(elsewhere, wanted, resolved), MN_OK);
}

static void nonsense_is_refused(void **state)
{
    char resolved[MN_PATH_MAX];
    const char *const bad[] = {"", "relative", "./x", "/", "//", "/..", "/tmp/.", "/tmp/.."};
    for (size_t i = 0; i < MN_ARRAY_LEN(bad); i++)
        assert_int_equal(check("", bad[i], resolved), MN_BAD_REQUEST);
    assert_int_equal(check("", in_base("no/such/folder"), resolved), MN_BAD_REQUEST);
    assert_int_equal(mn_snapshot_path_check(&store, "", (struct mn_str){"/tmp/a\0b", 8}, resolved), MN_BAD_REQUEST);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(beside_the_store_is_allowed), cmocka_unit_test(what_exists_is_refused),
        cmocka_unit_test(outside_is_refused),          cmocka_unit_test(roots_replace_the_default),
        cmocka_unit_test(nonsense_is_refused),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
