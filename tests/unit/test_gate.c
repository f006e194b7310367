/*
 * test_gate.c - actors/gate*: odd questions of ZAP, and what the list of clients says of a request.
 */
#include "actors/gate.h"
#include "actors/tcp.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/unit/wire_text.h"

#define ADA "rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7"

static void *zmq;
static struct mn_gate *gate;
static struct mn_store store;
static struct mn_settings settings;
static char folder[] = "/tmp/mn-gate-XXXXXX";

static void write_list(const char *text)
{
    char path[128];
    FILE *file = fopen(mn_tcp_clients_path(&settings, folder, (char[MN_PATH_MAX]){0}), "w");
    snprintf(path, sizeof path, "%s/clients", folder);
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
    chmod(path, 0600);
}

/* ---- ZAP ---- */

/* Asks and returns the status; the user's id goes to `user`. */
static int ask(const char *const *frames, int count, const void *key, char *user)
{
    char reply[6][64] = {{0}};
    int patience = 60000, linger = 0;
    void *socket = zmq_socket(zmq, ZMQ_REQ);
    zmq_setsockopt(socket, ZMQ_RCVTIMEO, &patience, sizeof patience);
    zmq_setsockopt(socket, ZMQ_LINGER, &linger, sizeof linger);
    assert_int_equal(zmq_connect(socket, "inproc://zeromq.zap.01"), 0);
    for (int i = 0; i < count; i++)
        zmq_send(socket, frames[i], strlen(frames[i]), i + 1 < count || key ? ZMQ_SNDMORE : 0);
    if (key)
        zmq_send(socket, key, 32, 0);
    for (int i = 0; i < 6; i++)
        assert_true(zmq_recv(socket, reply[i], sizeof reply[i] - 1, 0) >= 0);
    if (count > 1)
        assert_string_equal(reply[1], frames[1]);
    snprintf(user, MN_USER_MAX, "%.*s", MN_USER_MAX - 1, reply[4]);
    zmq_close(socket);
    return atoi(reply[2]);
}

static void questions_over_ipc(void **state)
{
    char own[64], root[] = "localhost:0:0:1", user[MN_USER_MAX];
    snprintf(own, sizeof own, "localhost:%u:1:99", geteuid());
    const struct {
        const char *address, *mechanism;
        int status;
    } table[] = {{own, "NULL", 200},
                 {root, "NULL", 200},
                 {"localhost:4242:4242:1", "NULL", 400},
                 {own, "PLAIN", 400},
                 {"127.0.0.1", "NULL", 400},
                 {"", "NULL", 400},
                 {"localhost:::", "NULL", 400},
                 {"localhost:-1:x:", "NULL", 400}};
    for (size_t i = 0; i < MN_ARRAY_LEN(table); i++) {
        const char *frames[] = {"1.0", "7", "ipc/write", table[i].address, "", table[i].mechanism};
        assert_int_equal(ask(frames, 6, NULL, user), table[i].status);
        assert_string_equal(user, table[i].status == 200 ? MN_USER_LOCAL : "");
    }
}

static void questions_over_tcp(void **state)
{
    uint8_t key[32], other[32] = {1};
    char user[MN_USER_MAX];
    assert_non_null(zmq_z85_decode(key, ADA));
    const char *curve[] = {"1.0", "1", "tcp/write", "10.0.0.1", "", "CURVE"};
    const char *plain[] = {"1.0", "1", "tcp/write", "10.0.0.1", "", "NULL"};
    const char *disguise[] = {"1.0", "1", "tcp/write", "fe80::0:0:1", "", "NULL"}; /* looks like what ipc says */
    const char *pub[] = {"1.0", "1", "tcp/stats.pub", "10.0.0.1", "", "CURVE"};
    assert_int_equal(ask(curve, 6, key, user), 200);
    assert_string_equal(user, ADA);
    assert_int_equal(ask(pub, 6, key, user), 200);
    assert_int_equal(ask(curve, 6, other, user), 400);
    assert_int_equal(ask(curve, 6, NULL, user), 400);
    assert_int_equal(ask(plain, 6, NULL, user), 400);
    assert_int_equal(ask(disguise, 6, NULL, user), 400);
    write_list(ADA " ada write *\n");
    assert_int_equal(mn_gate_reload(gate), MN_OK);
    assert_int_equal(ask(pub, 6, key, user), 400);
    assert_int_equal(ask(curve, 6, key, user), 200);
}

static void questions_that_are_none(void **state)
{
    char user[MN_USER_MAX], longest[400];
    memset(longest, 'x', sizeof longest - 1);
    longest[sizeof longest - 1] = '\0';
    const char *version[] = {"2.0", "1", "ipc/write", "localhost:0:0:1", "", "NULL"};
    const char *domain[] = {"1.0", "1", "other", "localhost:0:0:1", "", "NULL"};
    const char *long_one[] = {"1.0", "1", "ipc/write", longest, "", "NULL"};
    const char *many[] = {"1.0", "1", "ipc/write", "localhost:5:5:5", "", "NULL", "", "a", "b", "c", "d"};
    assert_int_equal(ask(version, 6, NULL, user), 400);
    assert_int_equal(ask(domain, 6, NULL, user), 400);
    assert_int_equal(ask(long_one, 6, NULL, user), 400);
    assert_int_equal(ask(version, 2, NULL, user), 400);
    assert_int_equal(ask(version, 1, NULL, user), 400);
    assert_int_equal(ask(many, 11, NULL, user), 400);
}

/* ---- requests ---- */

static enum mn_status allow(const char *user, unsigned service, const char *text)
{
    struct mn_peer peer = {0};
    struct mn_request request;
    msgpack_sbuffer frame;
    msgpack_sbuffer_init(&frame);
    wire_text_pack(&frame, text);
    snprintf(peer.user, sizeof peer.user, "%s", user);
    assert_int_equal(mn_wire_open(&request, frame.data, frame.size, service), MN_OK);
    enum mn_status status = mn_gate_allow(gate, &peer, &request);
    msgpack_sbuffer_destroy(&frame);
    return status;
}

static void who_may_do_what(void **state)
{
    write_list(ADA " ada read default,mine\n");
    assert_int_equal(mn_gate_reload(gate), MN_OK);
    assert_int_equal(allow(MN_USER_LOCAL, MN_SERVICE_CONTROL, "{\"op\": \"drain\"}"), MN_OK);
    assert_int_equal(allow("", MN_SERVICE_CONTROL, "{\"op\": \"ping\"}"), MN_UNAUTHORIZED);
    assert_int_equal(allow("somebody", MN_SERVICE_CONTROL, "{\"op\": \"ping\"}"), MN_UNAUTHORIZED);
    assert_int_equal(allow(ADA, MN_SERVICE_CONTROL, "{\"op\": \"info\"}"), MN_OK);
    assert_int_equal(allow(ADA, MN_SERVICE_CONTROL, "{\"op\": \"drain\"}"), MN_UNAUTHORIZED);
    assert_int_equal(allow(ADA, MN_SERVICE_STATS, "{\"op\": \"stats\"}"), MN_OK);
    assert_int_equal(allow(ADA, MN_SERVICE_WRITE, "{\"op\": \"forget\", \"space\": \"mine\"}"), MN_UNAUTHORIZED);
    assert_int_equal(allow(ADA, MN_SERVICE_RECALL, "{\"op\": \"count\"}"), MN_OK);
    assert_int_equal(allow(ADA, MN_SERVICE_RECALL, "{\"op\": \"count\", \"space\": [\"mine\", \"default\"]}"), MN_OK);
    assert_int_equal(allow(ADA, MN_SERVICE_RECALL, "{\"op\": \"count\", \"space\": [[1], \"other\"]}"),
                     MN_UNAUTHORIZED);
    assert_int_equal(allow(ADA, MN_SERVICE_RECALL, "{\"op\": \"count\", \"space\": null}"), MN_UNAUTHORIZED);
    assert_int_equal(allow(ADA, MN_SERVICE_RECALL, "{\"op\": \"spaces\"}"), MN_UNAUTHORIZED);
    write_list("nonsense\n");
    assert_int_equal(mn_gate_reload(gate), MN_USAGE);
    assert_int_equal(allow(ADA, MN_SERVICE_RECALL, "{\"op\": \"count\"}"), MN_OK);
    write_list("");
    assert_int_equal(mn_gate_reload(gate), MN_OK);
    assert_int_equal(allow(ADA, MN_SERVICE_CONTROL, "{\"op\": \"ping\"}"), MN_UNAUTHORIZED);
}

/* ---- endpoints ---- */

static void endpoints(void **state)
{
    char text[MN_TCP_ENDPOINT_MAX];
    struct mn_settings s;
    mn_settings_default(&s);
    assert_false(mn_tcp_on(&s));
    assert_string_equal(mn_tcp_bind_endpoint(&s, "write", text), "");
    snprintf(s.tcp_bind, sizeof s.tcp_bind, "0.0.0.0");
    assert_string_equal(mn_tcp_bind_endpoint(&s, "write", text), "tcp://0.0.0.0:7701");
    assert_null(strstr(mn_tcp_public_endpoint(&s, "recall.2", text), "0.0.0.0"));
    snprintf(s.tcp_host, sizeof s.tcp_host, "example.org");
    assert_string_equal(mn_tcp_public_endpoint(&s, "recall.2", text), "tcp://example.org:7706");
    snprintf(s.tcp_host, sizeof s.tcp_host, "fe80::1");
    assert_string_equal(mn_tcp_public_endpoint(&s, "control", text), "tcp://[fe80::1]:7700");
}

static int open_gate(void **state)
{
    struct mn_tcp_keys keys;
    bool made;
    if (!mkdtemp(folder))
        return -1;
    snprintf(store.dir, sizeof store.dir, "%s", folder);
    mn_settings_default(&settings);
    snprintf(settings.tcp_bind, sizeof settings.tcp_bind, "127.0.0.1");
    write_list(ADA " ada read *\n");
    zmq = zmq_ctx_new();
    return mn_tcp_keys_ensure(&keys, folder, &made) != MN_OK || !made ||
                   mn_gate_open(&gate, zmq, &store, &settings, NULL) != MN_OK
               ? -1
               : 0;
}

static int close_gate(void **state)
{
    char command[128];
    mn_gate_close(gate);
    zmq_ctx_term(zmq);
    snprintf(command, sizeof command, "rm -rf %s", folder);
    return system(command);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(questions_over_ipc),
        cmocka_unit_test(questions_over_tcp),
        cmocka_unit_test(questions_that_are_none),
        cmocka_unit_test(who_may_do_what),
        cmocka_unit_test(endpoints),
    };
    return cmocka_run_group_tests(tests, open_gate, close_gate);
}
