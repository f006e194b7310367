/*
 * client.c - opening and closing a client of a store, and what it knows about the store.
 */
#include "clients/c/client.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum { TIMEOUT_MS = 10000, SLOW_TIMEOUT_MS = 3600000, RETRY_OPEN_MS = 2 };

static _Thread_local char open_error[MN_CLIENT_ERROR_SIZE];

static const char *const code_words[MNEME_CODE_COUNT] = {
#define X(name, word) [MNEME_##name] = word,
    MNEME_CODES(X)
#undef X
};

const char *mneme_code_word(enum mneme_code code)
{
    return (unsigned)code < MNEME_CODE_COUNT ? code_words[code] : "internal";
}

enum mneme_code mneme_code_from_word(const char *word, size_t size)
{
    for (unsigned i = 0; i < MNEME_CODE_COUNT; i++)
        if (strlen(code_words[i]) == size && memcmp(code_words[i], word, size) == 0)
            return (enum mneme_code)i;
    return MNEME_INTERNAL;
}

enum mneme_code mn_client_fail(struct mneme *client, enum mneme_code code, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    vsnprintf(client->error, sizeof client->error, fmt, args);
    va_end(args);
    return code;
}

/* xorshift64* */
uint64_t mn_client_draw(struct mneme *client)
{
    uint64_t x = client->random_state;
    x ^= x >> 12;
    x ^= x << 25;
    x ^= x >> 27;
    client->random_state = x;
    return x * 0x2545f4914f6cdd1dull;
}

/* ---- opening ---- */

/* ZeroMQ would wait in silence for a server that is not there, so local endpoints are tried first. */
static enum mneme_code probe(struct mneme *client, const char *dir)
{
    const char *endpoint = client->lanes[MNEME_CONTROL].endpoint;
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strncmp(endpoint, "ipc://", 6) != 0)
        return MNEME_OK;
    const char *path = endpoint + 6;
    if (strlen(path) >= sizeof address.sun_path)
        return mn_client_fail(client, MNEME_BAD_REQUEST,
                              "the path of the control socket has %zu bytes, and %zu is the most a socket can have: %s",
                              strlen(path), sizeof address.sun_path - 1, path);
    memcpy(address.sun_path, path, strlen(path));
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return mn_client_fail(client, MNEME_SYSTEM, "could not make a socket: %s", strerror(errno));
    int result = connect(fd, (struct sockaddr *)&address, sizeof address);
    int error = errno;
    close(fd);
    if (result == 0)
        return MNEME_OK;
    if (error == EACCES)
        return mn_client_fail(client, MNEME_UNAUTHORIZED, "this user may not connect to %s", path);
    return mn_client_fail(client, MNEME_UNAVAILABLE, "no store is served at %s (%s): start one with `mnemed --dir %s`",
                          dir ? dir : endpoint, strerror(error), dir ? dir : "DIR");
}

static char *copy(const char *text)
{
    return text ? strdup(text) : NULL;
}

static char *copy_bytes(struct mneme_value value)
{
    size_t size;
    const char *text = mneme_value_bytes(value, &size);
    return text ? strndup(text, size) : NULL;
}

static void keep_text(char *to, size_t room, struct mneme_value value)
{
    size_t size;
    const char *text = mneme_value_bytes(value, &size);
    if (size >= room)
        size = room - 1;
    if (text)
        memcpy(to, text, size);
    to[text ? size : 0] = 0;
}

/* Takes the endpoints and the store's shape from an `info` reply. */
static enum mneme_code learn(struct mneme *client, const struct mneme_reply *info)
{
    struct mneme_value endpoints = mneme_reply_get(info, "endpoints");
    struct mneme_value recall = mneme_value_get(endpoints, "recall");
    uint64_t protocol = mneme_value_u64(mneme_reply_get(info, "protocol"), 0);
    if (protocol != 1)
        return mn_client_fail(client, MNEME_BAD_REQUEST, "the store speaks protocol %llu, this library speaks 1",
                              (unsigned long long)protocol);
    client->lanes[MNEME_WRITE].endpoint = copy_bytes(mneme_value_get(endpoints, "write"));
    client->lanes[2].endpoint = copy_bytes(mneme_value_get(endpoints, "stats"));
    size_t workers = mneme_value_length(recall);
    for (size_t i = 0; i < workers && i < MN_CLIENT_RECALL_MAX; i++) {
        char *endpoint = copy_bytes(mneme_value_at(recall, i));
        if (!endpoint)
            break;
        client->lanes[MN_CLIENT_FIRST_RECALL + client->recall_count++].endpoint = endpoint;
    }
    if (!client->lanes[MNEME_WRITE].endpoint || client->recall_count == 0)
        return mn_client_fail(client, MNEME_INTERNAL, "the store's `info` names no write or recall endpoint");
    client->dim = (uint32_t)mneme_value_u64(mneme_reply_get(info, "dim"), 0);
    keep_text(client->uuid, sizeof client->uuid, mneme_reply_get(info, "uuid"));
    keep_text(client->metric, sizeof client->metric, mneme_reply_get(info, "metric"));
    return MNEME_OK;
}

static enum mneme_code discover(struct mneme *client, const char *dir, int wait_ms)
{
    uint64_t until = mn_exchange_now() + (uint64_t)wait_ms * MN_CLIENT_MS;
    enum mneme_code code;
    while ((code = probe(client, dir)) == MNEME_UNAVAILABLE && mn_exchange_now() < until)
        nanosleep(&(struct timespec){.tv_nsec = RETRY_OPEN_MS * 1000000l}, NULL);
    if (code != MNEME_OK)
        return code;
    struct mneme_reply *info;
    code = mneme_info(client, &info);
    if (code != MNEME_OK)
        return code;
    code = learn(client, info);
    mneme_reply_free(info);
    return code;
}

static int or_default(int value, int otherwise)
{
    return value > 0 ? value : otherwise;
}

static enum mneme_code prepare(struct mneme *client, const char *dir, const struct mneme_options *o)
{
    uint64_t seeds[3];
    if (!dir && !o->control)
        return mn_client_fail(client, MNEME_BAD_REQUEST, "give the store's folder or a control endpoint");
    if (!!o->server_key != !!o->public_key || !!o->server_key != !!o->secret_key)
        return mn_client_fail(client, MNEME_BAD_REQUEST, "server_key, public_key and secret_key go together");
    if (getrandom(seeds, sizeof seeds, 0) != sizeof seeds)
        return mn_client_fail(client, MNEME_SYSTEM, "could not get random bytes: %s", strerror(errno));
    client->idem_prefix = seeds[0];
    client->random_state = seeds[1] | 1;
    client->recall_next = (unsigned)(seeds[2] >> 33);
    client->next_ticket = 1;
    client->default_timeout_ms = client->timeout_ms = or_default(o->timeout_ms, TIMEOUT_MS);
    client->slow_timeout_ms = or_default(o->slow_timeout_ms, SLOW_TIMEOUT_MS);
    client->resend_ms = or_default(o->resend_ms, 0);
    mn_spin_init(&client->spin, o->spin_us);
    client->server_key = copy(o->server_key);
    client->public_key = copy(o->public_key);
    client->secret_key = copy(o->secret_key);
    char *control = copy(o->control);
    if (!control && asprintf(&control, "ipc://%s/run/control", dir) < 0)
        control = NULL;
    client->lanes[MNEME_CONTROL].endpoint = control;
    client->owns_context = !o->zmq_context;
    client->context = o->zmq_context ? o->zmq_context : zmq_ctx_new();
    if (!control || !client->context ||
        (o->server_key && !(client->server_key && client->public_key && client->secret_key)))
        return mn_client_fail(client, MNEME_NO_MEMORY, "out of memory");
    return MNEME_OK;
}

enum mneme_code mneme_open(struct mneme **out, const char *dir, const struct mneme_options *options)
{
    static const struct mneme_options none;
    const struct mneme_options *o = options ? options : &none;
    *out = NULL;
    struct mneme *client = calloc(1, sizeof *client);
    if (!client) {
        mn_client_note_open_error("out of memory");
        return MNEME_NO_MEMORY;
    }
    enum mneme_code code = prepare(client, dir, o);
    if (code == MNEME_OK)
        code = discover(client, o->control ? NULL : dir, o->wait_ms);
    if (code != MNEME_OK) {
        mn_client_note_open_error(client->error);
        mneme_close(client);
        return code;
    }
    *out = client;
    return MNEME_OK;
}

void mn_client_note_open_error(const char *text)
{
    snprintf(open_error, sizeof open_error, "%s", text);
}

const char *mneme_open_error(void)
{
    return open_error;
}

void mneme_close(struct mneme *client)
{
    if (!client)
        return;
    mn_exchange_close(client);
    if (client->owns_context && client->context)
        zmq_ctx_term(client->context);
    for (unsigned i = 0; i < MN_CLIENT_LANES; i++)
        free(client->lanes[i].endpoint);
    free(client->server_key);
    free(client->public_key);
    free(client->secret_key);
    free(client);
}

/* ---- what a client knows ---- */

const char *mneme_error(const struct mneme *client)
{
    return client->error;
}

const char *mneme_last_idem(const struct mneme *client)
{
    return client->last_idem;
}

uint32_t mneme_dim(const struct mneme *client)
{
    return client->dim;
}

const char *mneme_uuid(const struct mneme *client)
{
    return client->uuid;
}

const char *mneme_metric(const struct mneme *client)
{
    return client->metric;
}

void mneme_set_timeout(struct mneme *client, int timeout_ms)
{
    client->timeout_ms = or_default(timeout_ms, client->default_timeout_ms);
}
