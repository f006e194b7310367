/*
 * test_forward.c - requests handed to the compactor and what becomes of them, with a compactor that the test plays
 * itself.
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

#include "actors/actor.h"
#include "actors/forward.h"
#include "shm/process.h"

static char dir[64];
static struct mn_store store;
static const struct mn_router_limits limits = {
    .sends = 100, .receives = 100, .peer_bytes = UINT64_C(256) << 20, .all_bytes = UINT64_C(1) << 30};
static void *zmq, *client;
static struct mn_router control, compactor;
static struct mn_reply reply;
static struct mn_forward forward;

static int set_up(void **state)
{
    char endpoint[MN_ENDPOINT_MAX], run[128];
    int patience = 60000, none = 0;
    strcpy(dir, "/tmp/mn-forward-XXXXXX");
    if (!mkdtemp(dir))
        return -1;
    snprintf(run, sizeof run, "%s/run", dir);
    snprintf(store.dir, sizeof store.dir, "%s", dir);
    mkdir(run, 0700);
    zmq = zmq_ctx_new();
    client = zmq_socket(zmq, ZMQ_DEALER);
    zmq_setsockopt(client, ZMQ_RCVTIMEO, &patience, sizeof patience);
    zmq_setsockopt(client, ZMQ_LINGER, &none, sizeof none);
    mn_reply_init(&reply);
    return mn_router_bind(&control, zmq, mn_actor_endpoint(&store, endpoint, "control"), &limits) != MN_OK ||
           mn_router_bind(&compactor, zmq, mn_actor_endpoint(&store, endpoint, "role.compactor"), &limits) != MN_OK ||
           zmq_connect(client, mn_actor_endpoint(&store, endpoint, "control")) != 0 ||
           mn_forward_open(&forward, zmq, &store, &control, &reply) != MN_OK;
}

static int tear_down(void **state)
{
    mn_forward_close(&forward);
    mn_router_close(&control);
    mn_router_close(&compactor);
    mn_reply_free(&reply);
    zmq_close(client);
    zmq_ctx_term(zmq);
    return mn_io_remove_tree(&mn_io_posix, dir) != MN_OK;
}

/* Waits for a message on a router. */
static void receive(struct mn_router *router, struct mn_peer *peer, zmq_msg_t *body)
{
    bool malformed;
    zmq_pollitem_t item = {.socket = router->socket, .events = ZMQ_POLLIN};
    assert_int_equal(zmq_poll(&item, 1, 60000), 1);
    assert_int_equal(mn_router_receive(router, peer, body, &malformed), MN_OK);
    assert_false(malformed);
}

/* The client sends `request`; the supervisor hands it on. */
static void ask(const char *request, size_t bytes)
{
    struct mn_peer peer;
    struct mn_request parsed;
    zmq_msg_t body;
    assert_int_equal(zmq_send(client, request, bytes, 0), (int)bytes);
    receive(&control, &peer, &body);
    assert_int_equal(mn_wire_open(&parsed, zmq_msg_data(&body), zmq_msg_size(&body), MN_SERVICE_CONTROL), MN_OK);
    assert_int_equal(mn_forward_send(&forward, &peer, &parsed, NULL, true), MN_OK);
    zmq_msg_close(&body);
}
#define ASK(request) ask(request, sizeof(request) - 1)

/* The compactor takes a request and answers {ok, rid, files: 3}. */
static void serve(const char *op)
{
    struct mn_peer peer;
    struct mn_request parsed;
    struct mn_reply answer;
    zmq_msg_t body;
    receive(&compactor, &peer, &body);
    (void)!mn_wire_open(&parsed, zmq_msg_data(&body), zmq_msg_size(&body), MN_SERVICE_CONTROL);
    assert_string_equal(mn_op_word(parsed.op), op);
    mn_reply_init(&answer);
    mn_reply_begin(&answer, parsed.rid, 1);
    mn_reply_uint(&answer, "files", 3);
    mn_router_reply(&compactor, &peer, answer.data, answer.bytes);
    mn_reply_free(&answer);
    zmq_msg_close(&body);
}

/* What the client gets, once it is handed on: its fields rid, files, code. */
static void heard(struct mn_wire fields[3], uint32_t members)
{
    static const char *const names[] = {"rid", "files", "code"};
    static char frame[4096];
    struct mn_wire map;
    zmq_pollitem_t item = {.socket = client, .events = ZMQ_POLLIN};
    for (int turns = 0; turns < 60000 && zmq_poll(&item, 1, 1) == 0; turns++)
        mn_forward_turn(&forward, mn_clock_ns());
    int bytes = zmq_recv(client, frame, sizeof frame, 0);
    assert_true(bytes > 0);
    assert_int_equal(mn_wire_check(frame, (size_t)bytes, &map), MN_OK);
    assert_int_equal(map.count, members);
    assert_int_equal(mn_wire_fields(&map, "the reply", names, 3, false, fields), MN_OK);
}

static void the_clients_rid_comes_back(void **state)
{
    struct mn_wire fields[3];
    ASK("\x82\xa2op\xa6verify\xa3rid\x93\x01\xa1x\xc0"); /* rid: [1, "x", nil] */
    serve("verify");
    heard(fields, 3);
    assert_int_equal(fields[0].type, MN_WIRE_ARRAY);
    assert_int_equal(fields[0].count, 3);
    assert_int_equal(fields[1].u64, 3);
}

static void no_rid_comes_back_when_none_was_sent(void **state)
{
    struct mn_wire fields[3];
    ASK("\x81\xa2op\xa6verify");
    serve("verify");
    heard(fields, 2);
    assert_int_equal(fields[0].type, MN_WIRE_ABSENT);
}

static void a_deadline_is_answered_and_the_late_reply_dropped(void **state)
{
    struct mn_wire fields[3];
    ASK("\x83\xa2op\xab"
        "consolidate\xa3rid\x07\xab"
        "deadline_ms\x14");
    assert_true(mn_forward_next_ns(&forward) < mn_clock_ns() + 20000000u);
    heard(fields, 5);
    assert_int_equal(fields[0].u64, 7);
    assert_true(mn_wire_is(fields[2].s, "deadline"));
    assert_int_equal(mn_forward_next_ns(&forward), UINT64_MAX);
    serve("consolidate");
    ASK("\x82\xa2op\xa6verify\xa3rid\x08");
    serve("verify");
    heard(fields, 3);
    assert_int_equal(fields[0].u64, 8);
}

static void a_death_is_told_to_all(void **state)
{
    struct mn_wire fields[3];
    ASK("\x82\xa2op\xa6verify\xa3rid\x01");
    ASK("\x82\xa2op\xa6verify\xa3rid\x02");
    mn_forward_refuse_all(&forward);
    for (uint64_t rid = 1; rid <= 2; rid++) {
        heard(fields, 5);
        assert_int_equal(fields[0].u64, rid);
        assert_true(mn_wire_is(fields[2].s, "unavailable"));
    }
}

static void there_is_an_end_to_what_may_wait(void **state)
{
    struct mn_peer peer = {0};
    struct mn_request request = {.op = MN_OP_VERIFY};
    for (int i = 0; i < MN_FORWARD_MAX; i++)
        assert_int_equal(mn_forward_send(&forward, &peer, &request, NULL, false), MN_OK);
    assert_int_equal(mn_forward_send(&forward, &peer, &request, NULL, false), MN_BUSY);
    mn_forward_refuse_all(&forward);
    assert_int_equal(mn_forward_send(&forward, &peer, &request, NULL, false), MN_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_clients_rid_comes_back),
        cmocka_unit_test(no_rid_comes_back_when_none_was_sent),
        cmocka_unit_test(a_deadline_is_answered_and_the_late_reply_dropped),
        cmocka_unit_test(a_death_is_told_to_all),
        cmocka_unit_test(there_is_an_end_to_what_may_wait),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
