/*
 * test_router.c - actors/router: forms of requests, peers that are gone, one path for one process.
 */
#include "actors/router.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

static const struct mn_router_limits limits = {
    .sends = 100, .receives = 100, .peer_bytes = UINT64_C(256) << 20, .all_bytes = UINT64_C(1) << 30};
static void *zmq;
static struct mn_router router;
static char folder[] = "/tmp/mn-router-XXXXXX", endpoint[64];

static void *connect_peer(int type)
{
    int linger = 0, patience = 5000;
    void *peer = zmq_socket(zmq, type);
    zmq_setsockopt(peer, ZMQ_LINGER, &linger, sizeof linger);
    zmq_setsockopt(peer, ZMQ_RCVTIMEO, &patience, sizeof patience);
    assert_int_equal(zmq_connect(peer, endpoint), 0);
    return peer;
}

static void receive(struct mn_peer *peer, zmq_msg_t *body, bool *malformed)
{
    zmq_pollitem_t item = {.socket = router.socket, .events = ZMQ_POLLIN};
    assert_int_equal(zmq_poll(&item, 1, 5000), 1);
    assert_int_equal(mn_router_receive(&router, peer, body, malformed), MN_OK);
}

static void assert_body(zmq_msg_t *body, const char *text)
{
    assert_int_equal(zmq_msg_size(body), strlen(text));
    assert_memory_equal(zmq_msg_data(body), text, strlen(text));
    zmq_msg_close(body);
}

static void answers_in_the_form_that_came(void **state)
{
    struct mn_peer from;
    zmq_msg_t body;
    bool malformed;
    char buffer[16];
    void *plain = connect_peer(ZMQ_DEALER), *req = connect_peer(ZMQ_REQ);
    zmq_send(plain, "one", 3, 0);
    receive(&from, &body, &malformed);
    assert_true(!malformed && !from.delimiter);
    assert_body(&body, "one");
    mn_router_reply(&router, &from, "1", 1);
    assert_int_equal(zmq_recv(plain, buffer, sizeof buffer, 0), 1);
    zmq_send(req, "two", 3, 0);
    receive(&from, &body, &malformed);
    assert_true(!malformed && from.delimiter);
    assert_body(&body, "two");
    mn_router_reply(&router, &from, "22", 2);
    assert_int_equal(zmq_recv(req, buffer, sizeof buffer, 0), 2);
    assert_int_equal(router.lost, 0);
    zmq_close(plain);
    zmq_close(req);
}

static void too_many_frames(void **state)
{
    struct mn_peer from;
    zmq_msg_t body;
    bool malformed;
    void *peer = connect_peer(ZMQ_DEALER);
    zmq_send(peer, "", 0, ZMQ_SNDMORE);
    zmq_send(peer, "a", 1, ZMQ_SNDMORE);
    zmq_send(peer, "b", 1, ZMQ_SNDMORE);
    zmq_send(peer, "c", 1, 0);
    receive(&from, &body, &malformed);
    assert_true(malformed && from.delimiter);
    zmq_msg_close(&body);
    zmq_send(peer, "", 0, 0); /* a lone empty frame is a body without bytes */
    receive(&from, &body, &malformed);
    assert_false(malformed || from.delimiter);
    assert_body(&body, "");
    zmq_send(peer, "next", 4, 0);
    receive(&from, &body, &malformed);
    assert_false(malformed);
    assert_body(&body, "next");
    assert_int_equal(mn_router_receive(&router, &from, &body, &malformed), MN_NOT_FOUND);
    zmq_close(peer);
}

static void a_peer_that_is_gone_loses_its_reply(void **state)
{
    struct mn_peer from;
    zmq_msg_t body;
    bool malformed;
    void *peer = connect_peer(ZMQ_DEALER);
    zmq_send(peer, "bye", 3, 0);
    receive(&from, &body, &malformed);
    zmq_msg_close(&body);
    zmq_close(peer);
    uint64_t before = router.lost;
    for (int i = 0; i < 500 && router.lost == before; i++) {
        mn_router_reply(&router, &from, "late", 4);
        usleep(10000);
    }
    assert_true(router.lost > before);
}

static void a_peer_that_does_not_read_blocks_nobody(void **state)
{
    static char reply[4096];
    struct mn_peer from;
    zmq_msg_t body;
    bool malformed;
    void *deaf = connect_peer(ZMQ_DEALER);
    zmq_send(deaf, "talk", 4, 0);
    receive(&from, &body, &malformed);
    zmq_msg_close(&body);
    uint64_t before = router.lost;
    for (int i = 0; i < 20000; i++)
        mn_router_reply(&router, &from, reply, sizeof reply);
    assert_true(router.lost > before);
    zmq_close(deaf);
}

static void a_path_has_one_server(void **state)
{
    struct mn_router second;
    assert_int_equal(mn_router_bind(&second, zmq, endpoint, &limits), MN_BUSY);
    assert_null(second.socket);
    mn_router_close(&second);
}

static int set_up(void **state)
{
    zmq = zmq_ctx_new();
    if (!mkdtemp(folder))
        return -1;
    snprintf(endpoint, sizeof endpoint, "ipc://%s/s", folder);
    return mn_router_bind(&router, zmq, endpoint, &limits) == MN_OK ? 0 : -1;
}

static int tear_down(void **state)
{
    char path[96];
    mn_router_close(&router);
    zmq_ctx_term(zmq);
    snprintf(path, sizeof path, "%s/s.lock", folder);
    unlink(path);
    snprintf(path, sizeof path, "%s/s", folder);
    unlink(path);
    return rmdir(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(answers_in_the_form_that_came), cmocka_unit_test(too_many_frames),
        cmocka_unit_test(a_peer_that_is_gone_loses_its_reply),
        cmocka_unit_test(a_peer_that_does_not_read_blocks_nobody), cmocka_unit_test(a_path_has_one_server)};
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
