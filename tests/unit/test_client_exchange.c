/*
 * test_client_exchange.c - libmneme against a server that plays tricks: busy, silence, broken connections, refusals.
 *
 * The server is a thread with the four sockets of a store. Each request other than `info` and `ping` takes the next
 * letter of a script: o  answers ok          b  answers busy        d  drops the request k  closes its socket, so that
 * the connection breaks, and binds again e  answers with an error                       u  answers `unknown` The last
 * letter stays for good. It counts the requests it saw, and those that carried the idem of the first.
 */
#include "clients/c/client.h"
#include "clients/c/scan.h"

#include <msgpack.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>
#include <zmq.h>

enum { SOCKETS = 4, DIM = 2 };

static const char *const names[SOCKETS] = {"control", "write", "recall.0", "stats"};

static struct {
    char dir[64];
    void *context, *sockets[SOCKETS];
    pthread_t thread;
    _Atomic bool stop;
    bool second; /* `info` names another recall worker, whom nobody reaches */
    const char *_Atomic script;
    _Atomic unsigned seen, same_idem;
    char idem[65];
} server;

/* ---- the server ---- */

static void endpoint_of(unsigned i, char *out, size_t size)
{
    snprintf(out, size, "ipc://%s/run/%s", server.dir, names[i]);
}

static void bind_socket(unsigned i)
{
    char endpoint[128];
    int none = 0;
    endpoint_of(i, endpoint, sizeof endpoint);
    server.sockets[i] = zmq_socket(server.context, ZMQ_ROUTER);
    zmq_setsockopt(server.sockets[i], ZMQ_LINGER, &none, sizeof none);
    while (zmq_bind(server.sockets[i], endpoint) != 0) /* while the old one lets go */
        usleep(1000);
}

static void text(msgpack_packer *p, const char *s)
{
    msgpack_pack_str(p, strlen(s));
    msgpack_pack_str_body(p, s, strlen(s));
}

static void pack_info(msgpack_packer *p)
{
    char endpoint[128];
    text(p, "protocol");
    msgpack_pack_int(p, 1);
    text(p, "dim");
    msgpack_pack_int(p, DIM);
    text(p, "uuid");
    text(p, "550e8400-e29b-41d4-a716-446655440000");
    text(p, "metric");
    text(p, "cosine");
    text(p, "endpoints");
    msgpack_pack_map(p, 3);
    for (unsigned i = 1; i < SOCKETS; i++) {
        endpoint_of(i, endpoint, sizeof endpoint);
        text(p, i == 2 ? "recall" : names[i]);
        if (i == 2)
            msgpack_pack_array(p, server.second ? 2 : 1);
        text(p, endpoint);
        if (i == 2 && server.second)
            text(p, strcat(endpoint, ".1"));
    }
}

static void answer(unsigned socket, zmq_msg_t *identity, struct mn_scan request, char act, bool info)
{
    msgpack_sbuffer buffer;
    msgpack_packer p;
    struct mn_scan value;
    uint64_t rid = 0;
    assert_true(mn_scan_find(request, "rid", &value) && mn_scan_u64(&value, &rid));
    msgpack_sbuffer_init(&buffer);
    msgpack_packer_init(&p, &buffer, msgpack_sbuffer_write);
    msgpack_pack_map(&p, info ? 7 : act == 'o' ? 2 : 4);
    text(&p, "rid");
    msgpack_pack_uint64(&p, rid);
    text(&p, "ok");
    act == 'o' ? msgpack_pack_true(&p) : msgpack_pack_false(&p);
    if (act != 'o') {
        text(&p, "code");
        text(&p, act == 'b' ? "busy" : act == 'u' ? "unknown" : "not_found");
        text(&p, "error");
        text(&p, "because");
    } else if (info) {
        pack_info(&p);
    }
    zmq_msg_send(identity, server.sockets[socket], ZMQ_SNDMORE);
    zmq_send(server.sockets[socket], buffer.data, buffer.size, 0);
    msgpack_sbuffer_destroy(&buffer);
}

static void note_idem(struct mn_scan request)
{
    struct mn_scan value;
    const char *idem = "";
    size_t size = 0;
    if (mn_scan_find(request, "idem", &value))
        assert_true(mn_scan_string(&value, &idem, &size));
    if (server.seen++ == 0)
        snprintf(server.idem, sizeof server.idem, "%.*s", (int)size, idem);
    server.same_idem += strlen(server.idem) == size && memcmp(server.idem, idem, size) == 0;
}

static void serve_one(unsigned socket)
{
    zmq_msg_t identity, body;
    struct mn_scan value;
    zmq_msg_init(&identity);
    zmq_msg_init(&body);
    if (zmq_msg_recv(&identity, server.sockets[socket], 0) < 0 || zmq_msg_recv(&body, server.sockets[socket], 0) < 0)
        return;
    const uint8_t *bytes = zmq_msg_data(&body);
    struct mn_scan request = {bytes, bytes + zmq_msg_size(&body)};
    assert_true(mn_scan_find(request, "op", &value));
    bool info = mn_scan_is(value, "info"), plain = info || mn_scan_is(value, "ping");
    const char *script = server.script;
    char act = plain ? 'o' : *script;
    if (!plain) {
        note_idem(request);
        server.script = script + (script[1] != 0);
    }
    if (act == 'k') {
        zmq_close(server.sockets[socket]);
        bind_socket(socket);
    } else if (act != 'd') {
        answer(socket, &identity, request, act, info);
    }
    zmq_msg_close(&identity);
    zmq_msg_close(&body);
}

static void *serve(void *nothing)
{
    while (!server.stop) {
        zmq_pollitem_t items[SOCKETS];
        for (unsigned i = 0; i < SOCKETS; i++)
            items[i] = (zmq_pollitem_t){.socket = server.sockets[i], .events = ZMQ_POLLIN};
        if (zmq_poll(items, SOCKETS, 5) > 0)
            for (unsigned i = 0; i < SOCKETS; i++)
                if (items[i].revents & ZMQ_POLLIN)
                    serve_one(i);
    }
    return nothing;
}

static int start(void **state)
{
    char path[96];
    strcpy(server.dir, "/tmp/mneme-test-client-XXXXXX");
    assert_non_null(mkdtemp(server.dir));
    snprintf(path, sizeof path, "%s/run", server.dir);
    assert_int_equal(mkdir(path, 0700), 0);
    server.context = zmq_ctx_new();
    for (unsigned i = 0; i < SOCKETS; i++)
        bind_socket(i);
    return pthread_create(&server.thread, NULL, serve, NULL);
}

static int stop(void **state)
{
    char path[128];
    server.stop = true;
    pthread_join(server.thread, NULL);
    for (unsigned i = 0; i < SOCKETS; i++)
        zmq_close(server.sockets[i]);
    zmq_ctx_term(server.context);
    for (unsigned i = 0; i < SOCKETS; i++) {
        snprintf(path, sizeof path, "%s/run/%s", server.dir, names[i]);
        unlink(path);
    }
    snprintf(path, sizeof path, "%s/run", server.dir);
    rmdir(path);
    return rmdir(server.dir);
}

/* ---- the client ---- */

static struct mneme *client_with(const char *script, int timeout_ms, int resend_ms)
{
    struct mneme *client;
    struct mneme_options options = {
        .timeout_ms = timeout_ms, .resend_ms = resend_ms, .wait_ms = 10000 /* a socket may just be bound again */};
    server.script = script;
    server.seen = server.same_idem = 0;
    assert_int_equal(mneme_open(&client, server.dir, &options), MNEME_OK);
    assert_int_equal(mneme_dim(client), DIM);
    return client;
}

static enum mneme_code write_one(struct mneme *client, const char *idem)
{
    static const float embedding[DIM] = {1, 2};
    struct mneme_memory memory = {.embedding = embedding};
    return mneme_remember(client, NULL, &memory, 1, idem, NULL);
}

/* The server has seen all that a client has sent again and again: the next one's script is not for those. */
static void await_quiet(void)
{
    unsigned seen = server.seen;
    for (int still = 0; still < 50; still++) {
        usleep(10000);
        if (server.seen != seen)
            still = 0;
        seen = server.seen;
    }
}

static uint64_t now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static void busy_is_tried_again(void **state)
{
    struct mneme *client = client_with("bbbo", 20000, 0);
    assert_int_equal(write_one(client, NULL), MNEME_OK);
    assert_int_equal(server.seen, 4);
    assert_int_equal(server.same_idem, 4);
    assert_string_equal(server.idem, mneme_last_idem(client));
    mneme_close(client);
}

static void busy_to_the_end_says_so(void **state)
{
    struct mneme *client = client_with("b", 1000, 0);
    enum mneme_code code = MNEME_UNKNOWN;
    for (int calls = 0; code == MNEME_UNKNOWN && calls < 60; calls++) /* a last try that is not answered in time */
        code = write_one(client, NULL);
    assert_int_equal(code, MNEME_BUSY);
    assert_string_equal(mneme_error(client), "because");
    assert_true(server.seen > 2);
    mneme_close(client);
}

static void an_unknown_fate_is_asked_again_with_the_same_idem(void **state)
{
    struct mneme *client = client_with("uo", 20000, 0);
    assert_int_equal(write_one(client, "mine"), MNEME_OK);
    assert_string_equal(server.idem, "mine");
    assert_int_equal(server.same_idem, 2);
    mneme_close(client);
}

static void silence_is_answered_by_sending_again(void **state)
{
    struct mneme *client = client_with("ddo", 60000, 500);
    assert_int_equal(write_one(client, NULL), MNEME_OK);
    mneme_close(client);
    await_quiet();
    assert_true(server.seen >= 3); /* more where the server was so slow that it was taken for silent */
    assert_int_equal(server.same_idem, server.seen);
}

static void a_broken_connection_is_noticed_at_once(void **state)
{
    struct mneme *client = client_with("ko", 60000, 50000);
    uint64_t began = now_ms();
    assert_int_equal(write_one(client, NULL), MNEME_OK);
    assert_true(now_ms() - began < 45000); /* before the silence would have counted */
    assert_int_equal(server.same_idem, 2);
    mneme_close(client);
}

/* Whichever the client begins with; nobody waits for the silence to count. */
static void a_worker_that_is_not_there_is_passed_over(void **state)
{
    server.second = true;
    for (unsigned i = 0; i < 12; i++) {
        struct mneme *client = client_with("o", 20000, 50000);
        for (unsigned request = 1; request <= 3; request++) {
            assert_int_equal(mneme_spaces(client, NULL), MNEME_OK);
            assert_int_equal(server.seen, request);
        }
        mneme_close(client);
    }
    server.second = false;
}

static void a_worker_that_goes_is_left(void **state)
{
    server.second = true;
    struct mneme *client = client_with("oko", 20000, 50000);
    for (unsigned request = 0; request < 6; request++)
        assert_int_equal(mneme_spaces(client, NULL), MNEME_OK);
    assert_int_equal(server.seen, 7);
    mneme_close(client);
    server.second = false;
}

static void out_of_time(void **state)
{
    struct mneme *client = client_with("d", 2000, 50); /* time enough to connect and send */
    assert_int_equal(write_one(client, NULL), MNEME_UNKNOWN);
    assert_non_null(strstr(mneme_error(client), "same idem"));
    assert_int_equal(mneme_count(client, NULL, NULL), MNEME_UNAVAILABLE);
    assert_int_equal(mneme_in_flight(client), 0);
    mneme_close(client);
    await_quiet();
}

/* Whatever becomes of a recall, it becomes the same of one that looks for its reply before it sleeps. */
static void recalls_that_look_for_their_reply(void **state)
{
    static const enum mneme_code expected[] = {MNEME_OK, MNEME_NOT_FOUND, MNEME_OK, MNEME_OK, MNEME_OK};
    struct mneme *client = client_with("oeboko", 60000, 50000);
    client->spin.limit_ns = client->spin.slept_ns = 1000000;
    client->spin.looking = true;
    for (unsigned i = 0; i < sizeof expected / sizeof *expected; i++) {
        assert_int_equal(mneme_count(client, NULL, NULL), expected[i]);
        assert_int_equal(client->spin.calls, i + 1);
        client->spin.in_vain = 0; /* of which too many would end it */
        assert_int_equal(mneme_in_flight(client), 0);
    }
    assert_int_equal(server.seen, 7);
    assert_int_equal(write_one(client, NULL), MNEME_OK); /* is not timed */
    assert_int_equal(client->spin.calls, sizeof expected / sizeof *expected);
    mneme_close(client);
}

static void what_is_not_repeated(void **state)
{
    struct mneme *client = client_with("ko", 20000, 0);
    assert_int_equal(mneme_snapshot(client, "/nowhere", NULL), MNEME_UNAVAILABLE);
    assert_int_equal(server.seen, 1);
    mneme_close(client);
}

static void refusals_carry_the_sentence(void **state)
{
    struct mneme *client = client_with("eo", 20000, 0);
    struct mneme_reply *reply;
    assert_int_equal(mneme_count(client, NULL, &reply), MNEME_NOT_FOUND);
    assert_null(reply);
    assert_string_equal(mneme_error(client), "because");
    assert_int_equal(mneme_count(client, NULL, &reply), MNEME_OK);
    assert_string_equal(mneme_error(client), "");
    assert_true(mneme_value_bool(mneme_reply_get(reply, "ok"), false));
    assert_int_equal(mneme_value_type(mneme_value_get(mneme_reply_get(reply, "no"), "such")), MNEME_TYPE_ABSENT);
    mneme_reply_free(reply);
    mneme_close(client);
}

static void many_in_flight(void **state)
{
    static const unsigned char ping[] = {0x81, 0xa2, 'o', 'p', 0xa4, 'p', 'i', 'n', 'g'};
    struct mneme *client = client_with("o", 20000, 0);
    uint64_t tickets[MNEME_IN_FLIGHT_MAX], ticket;
    for (unsigned i = 0; i < MNEME_IN_FLIGHT_MAX; i++)
        assert_int_equal(mneme_submit(client, MNEME_CONTROL, ping, sizeof ping, &tickets[i]), MNEME_OK);
    assert_int_equal(mneme_submit(client, MNEME_CONTROL, ping, sizeof ping, &ticket), MNEME_BUSY);
    ticket = tickets[40];
    assert_int_equal(mneme_collect(client, &ticket, NULL), MNEME_OK);
    assert_int_equal(ticket, tickets[40]);
    assert_int_equal(mneme_collect(client, &ticket, NULL), MNEME_NOT_FOUND);
    while (mneme_in_flight(client)) {
        ticket = 0;
        assert_int_equal(mneme_collect(client, &ticket, NULL), MNEME_OK);
        assert_true(ticket != 0);
    }
    ticket = 0;
    assert_int_equal(mneme_collect(client, &ticket, NULL), MNEME_NOT_FOUND);
    mneme_close(client);
}

static void requests_that_are_none(void **state)
{
    static const struct {
        const char *bytes, *why;
        size_t size;
    } bad[] = {{"\x80", "no `op`", 1},
               {"\xc0", "not one MessagePack map", 1},
               {"\x81\xa2op", "not one MessagePack map", 4},
               {"\x81\x01\x02", "not one MessagePack map", 3},
               {"\x81\xa2op\xa1x\xc0", "not one MessagePack map", 7},
               {"\x82\xa2op\xa1x\xa3rid\x01", "`rid` is added", 11},
               {"\x82\xa2op\xa1x\xa4idem\xa0", "1 to 64 bytes", 12}};
    struct mneme *client = client_with("o", 20000, 0);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_int_equal(mneme_call(client, MNEME_WRITE, bad[i].bytes, bad[i].size, NULL), MNEME_BAD_REQUEST);
        if (!strstr(mneme_error(client), bad[i].why))
            fail_msg("expected \"%s\" in \"%s\"", bad[i].why, mneme_error(client));
    }
    assert_int_equal(server.seen, 0);
    mneme_close(client);
}

static void nobody_there(void **state)
{
    struct mneme *client;
    assert_int_equal(mneme_open(&client, "/tmp/no such store", NULL), MNEME_UNAVAILABLE);
    assert_null(client);
    assert_non_null(strstr(mneme_open_error(), "mnemed --dir"));
    assert_int_equal(mneme_open(&client, NULL, NULL), MNEME_BAD_REQUEST);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(busy_is_tried_again),
        cmocka_unit_test(busy_to_the_end_says_so),
        cmocka_unit_test(an_unknown_fate_is_asked_again_with_the_same_idem),
        cmocka_unit_test(silence_is_answered_by_sending_again),
        cmocka_unit_test(a_broken_connection_is_noticed_at_once),
        cmocka_unit_test(a_worker_that_is_not_there_is_passed_over),
        cmocka_unit_test(a_worker_that_goes_is_left),
        cmocka_unit_test(out_of_time),
        cmocka_unit_test(recalls_that_look_for_their_reply),
        cmocka_unit_test(what_is_not_repeated),
        cmocka_unit_test(refusals_carry_the_sentence),
        cmocka_unit_test(many_in_flight),
        cmocka_unit_test(requests_that_are_none),
        cmocka_unit_test(nobody_there),
    };
    return cmocka_run_group_tests(tests, start, stop);
}
