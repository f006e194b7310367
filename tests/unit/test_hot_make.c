/*
 * test_hot_make.c - hot copies on a machine with several NUMA nodes: one on each, and who takes which.
 *
 * The machine is made up: node 0 and node 2 have CPUs and memory, node 5 has CPUs, node 1 memory alone.
 * tests/faults/numa tries machines whose kernel has nodes.
 */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <unistd.h>

#include <cmocka.h>

#include "engine/hot.h"
#include "engine/ivf_file.h"
#include "tests/unit/live_store.h"
#include "tests/unit/made_up_nodes.h"

#define ROWS   1500u
#define PLENTY UINT64_C(1000000000)
#define MARK   UINT64_C(7777)

/* ---- the store ---- */

static struct mn_manifest_segment only; /* its one segment */

static int setup(void **state)
{
    machine = (struct mn_numa_nodes){.count = 3, .node = {{0, true}, {2, true}, {5, false}}};
    last = 5;
    struct live_store *s = live_store_new();
    live_remember(s, 0, 0, ROWS);
    live_seal(s);
    live_compact(s, true);
    struct mn_manifest manifest = live_manifest(s);
    assert_int_equal(manifest.segment_count, 1);
    only = manifest.segments[0];
    mn_manifest_free(&manifest);
    here = placed_count = 0;
    *state = s;
    return 0;
}

static int teardown(void **state)
{
    live_store_free(*state);
    return 0;
}

static const char *name_of(char name[64], uint32_t node)
{
    snprintf(name, 64, "hot.%llu.%llu.%u", (unsigned long long)only.id, (unsigned long long)only.codebook, node);
    return name;
}

static bool is_there(struct live_store *s, uint32_t node)
{
    char name[64];
    return faccessat(s->instance.dir_fd, name_of(name, node), F_OK, 0) == 0;
}

/* One bit for each node that has a copy. */
static uint32_t copies(struct live_store *s)
{
    uint32_t nodes = 0;
    for (uint32_t node = 0; node < 32; node++)
        nodes |= (uint32_t)is_there(s, node) << node;
    return nodes;
}

/* The copy on this node can be told by its mark from now on. */
static void mark(struct live_store *s, uint32_t node)
{
    char name[64];
    struct mn_segment segment;
    struct mn_segment_identity identity = s->instance.identity;
    identity.magic = MN_MAGIC_HOT;
    identity.fingerprint = mn_engine_fingerprint();
    ok(mn_segment_map(&segment, s->instance.dir_fd, name_of(name, node), true, &identity));
    ((struct mn_hot_header *)segment.base)->huge_bytes = MARK;
    mn_segment_unmap(&segment);
}

/* Whether whoever runs on `node` takes the copy with the mark. */
static bool takes_marked(struct live_store *s, uint32_t node)
{
    struct mn_hot hot;
    here = node;
    ok(mn_hot_map(&hot, &s->instance, only.id, only.codebook));
    bool marked = ((const struct mn_hot_header *)hot.base)->huge_bytes == MARK;
    mn_hot_unmap(&hot);
    return marked;
}

/* ---- tests ---- */

static void each_node_with_cpus_and_memory_has_one(void **state)
{
    struct live_store *s = *state;
    struct mn_hot_report report = live_tend_hot(s, PLENTY);
    assert_true(report.changed && report.copied == 1 && report.refused == 0);
    assert_int_equal(copies(s), 1u << 0 | 1u << 2);
    assert_int_equal(placed_count, 2);
    assert_int_equal(placed[0], 0);
    assert_int_equal(placed[1], 2);
    assert_false(live_tend_hot(s, PLENTY).changed);
    live_check(s);
}

static void one_takes_the_copy_of_the_node_one_runs_on(void **state)
{
    struct live_store *s = *state;
    live_tend_hot(s, PLENTY);
    mark(s, 2);
    assert_true(takes_marked(s, 2));
    assert_false(takes_marked(s, 0));
    /* Nodes without a copy: that of the lowest that has one. */
    assert_false(takes_marked(s, 5));
    assert_false(takes_marked(s, 1));
    char name[64];
    assert_int_equal(unlinkat(s->instance.dir_fd, name_of(name, 0), 0), 0);
    assert_true(takes_marked(s, 5));
    assert_true(takes_marked(s, 0));
    /* One is missing: all are made again. */
    struct mn_hot_report report = live_tend_hot(s, PLENTY);
    assert_true(report.changed && report.copied == 1);
    assert_false(takes_marked(s, 2));
    assert_int_equal(copies(s), 1u << 0 | 1u << 2);
}

/* Else it would keep the copy of another node, for it looks again only when the segment goes. */
static bool look_while_made(void *context)
{
    struct live_store *s = context;
    assert_int_equal(copies(s), 1u << 0 | 1u << 2);
    for (here = 0; here <= 5; here++)
        assert_false(mn_hot_there(&s->instance, only.id, only.codebook));
    return true;
}

static void nobody_takes_anothers_while_his_own_is_made(void **state)
{
    struct live_store *s = *state;
    struct mn_hot hot;
    char name[64];
    assert_int_equal(mn_hot_make(&s->store, &s->instance, only.id, only.codebook, PLENTY, look_while_made, s),
                     MN_DEADLINE);
    assert_int_equal(copies(s), 0);
    live_tend_hot(s, PLENTY);
    struct mn_segment_identity identity = s->instance.identity;
    struct mn_segment unready;
    identity.magic = MN_MAGIC_HOT;
    identity.fingerprint = mn_engine_fingerprint();
    assert_int_equal(unlinkat(s->instance.dir_fd, name_of(name, 2), 0), 0);
    ok(mn_segment_create_sparse(&unready, s->instance.dir_fd, name, 4u << 20, 4096, &identity, 0600));
    here = 2;
    assert_false(mn_hot_there(&s->instance, only.id, only.codebook));
    assert_int_equal(mn_hot_map(&hot, &s->instance, only.id, only.codebook), MN_NOT_FOUND);
    here = 0;
    assert_true(mn_hot_there(&s->instance, only.id, only.codebook));
    mn_segment_unmap(&unready);
    live_check(s);
}

static void the_budget_counts_every_copy(void **state)
{
    struct live_store *s = *state;
    uint64_t both = live_tend_hot(s, PLENTY).bytes;
    struct mn_hot_report report = live_tend_hot(s, both - 1);
    assert_true(report.changed && report.copied == 0 && report.refused == 1 && report.bytes == 0);
    assert_int_equal(copies(s), 0);
    assert_int_equal(mn_hot_make(&s->store, &s->instance, only.id, only.codebook, both / 2, NULL, NULL), MN_READ_ONLY);
    assert_int_equal(copies(s), 0);
    report = live_tend_hot(s, both + 65536);
    assert_true(report.copied == 1 && report.bytes == both);
}

static void all_of_them_go(void **state)
{
    struct live_store *s = *state;
    char name[64];
    live_tend_hot(s, PLENTY);
    /* Of a node that is no longer ours, and of one that never had memory. */
    close(openat(s->instance.dir_fd, name_of(name, 1), O_CREAT | O_RDWR | O_CLOEXEC, 0600));
    close(openat(s->instance.dir_fd, name_of(name, 5), O_CREAT | O_RDWR | O_CLOEXEC, 0600));
    assert_true(live_tend_hot(s, PLENTY).changed);
    assert_int_equal(copies(s), 1u << 0 | 1u << 2);
    mn_hot_remove(&s->instance, only.id, only.codebook);
    assert_int_equal(copies(s), 0);
    live_tend_hot(s, PLENTY);
    live_forget(s, 0, 3, MN_FORGET_PURGE);
    live_seal(s);
    live_compact(s, true);
    live_tend(s);
    assert_int_equal(copies(s), 0); /* the segment is retired */
    live_check(s);
}

/* Last: it holds for the process. */
static void a_worker_keeps_to_its_node_wherever_it_runs(void **state)
{
    struct live_store *s = *state;
    live_tend_hot(s, PLENTY);
    mark(s, 2);
    mn_hot_place(2, false);
    assert_true(takes_marked(s, 0) && takes_marked(s, 2));
    mn_hot_place(0, false);
    assert_false(takes_marked(s, 2));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(each_node_with_cpus_and_memory_has_one, setup, teardown),
        cmocka_unit_test_setup_teardown(one_takes_the_copy_of_the_node_one_runs_on, setup, teardown),
        cmocka_unit_test_setup_teardown(nobody_takes_anothers_while_his_own_is_made, setup, teardown),
        cmocka_unit_test_setup_teardown(the_budget_counts_every_copy, setup, teardown),
        cmocka_unit_test_setup_teardown(all_of_them_go, setup, teardown),
        cmocka_unit_test_setup_teardown(a_worker_keeps_to_its_node_wherever_it_runs, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
