/*
 * guest.c - what runs beside mnemed in a machine that will be switched off: clients that check, then write.
 *
 *     power_guest DIR [check] ACKED...       one client for each number: the last of its deeds that was acknowledged
 *
 * A client's deeds are numbered, and each follows from the client and its number alone, so the number of the last one
 * says what its space must hold. One is in flight at a time: after a power cut the space is what deed N made it, or N
 * + 1. Each client looks which, bit for bit, tells, and goes on from there until the power goes. With `check` it only
 * looks.
 *
 * Tells on stdout, a serial line, each line on its way out of the machine before anything else is done:
 *     at CLIENT N          the space is as deed N left it
 *     ack CLIENT N         deed N was acknowledged
 *     bad KIND SENTENCE    KIND as in the report line: lost, risen, wrong, crashes
 *     checked              all clients have looked, and verify has found no damage
 */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include "clients/c/mneme.h"

#define DIM         24u
#define IDS         60u
#define BATCH_MAX   4u
#define CONTENT_MAX 6000u
#define CLIENTS_MAX 8u
#define AHEAD_MAX   8u     /* deeds that were done, and whose telling came too late */
#define PATIENCE_MS 120000 /* an emulated machine is slow */

/* What an id holds: the deeds that gave it its embedding and its content; 0: nothing. */
struct memory {
    uint64_t embedding, content;
    bool hidden;
};

struct client {
    struct mneme *m;
    uint32_t number;
    char space[16];
    struct memory memories[IDS];
};

static void tell(const char *format, ...)
{
    char line[256];
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(line, sizeof line - 1, format, arguments);
    va_end(arguments);
    length = length < (int)sizeof line - 1 ? length : (int)sizeof line - 2;
    line[length++] = '\n';
    if (write(STDOUT_FILENO, line, (size_t)length) != length)
        _exit(1);
    tcdrain(STDOUT_FILENO);
}

static void stop(const char *kind, const char *sentence)
{
    tell("bad %s %s", kind, sentence);
    _exit(1);
}

/* ---- deeds ---- */

static uint64_t scramble(uint64_t x)
{
    x += UINT64_C(0x9e3779b97f4a7c15);
    x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
    return x ^ (x >> 31);
}

/* The `nth` number that belongs to a deed. */
static uint64_t draw(const struct client *c, uint64_t deed, uint64_t nth)
{
    return scramble(scramble(scramble(c->number) + deed) + nth);
}

enum kind { REMEMBER, REVISE, DELETE, SUPPRESS, RESTORE, PURGE };
struct deed {
    enum kind kind;
    uint32_t first, count; /* ids first .. first + count - 1; all but REMEMBER: one */
};

/* What deed `number` is to this client, whose memories are as the one before left them. */
static struct deed deed_of(const struct client *c, uint64_t number)
{
    uint32_t choice = (uint32_t)(draw(c, number, 0) % 100), first = (uint32_t)(draw(c, number, 1) % (IDS - BATCH_MAX));
    const struct memory *m = &c->memories[first];
    bool there = m->content != 0;
    if (there && m->hidden)
        return (struct deed){choice < 60 ? RESTORE : DELETE, first, 1};
    if (there && choice < 15)
        return (struct deed){REVISE, first, 1};
    if (there && choice < 35)
        return (struct deed){choice < 25 ? DELETE : SUPPRESS, first, 1};
    if (there && choice < 37)
        return (struct deed){PURGE, first, 1};
    return (struct deed){REMEMBER, first, 1 + (uint32_t)(draw(c, number, 2) % BATCH_MAX)};
}

/* The client's memories after the deed. */
static void apply(struct client *c, uint64_t number, struct deed deed)
{
    for (uint32_t id = deed.first; id < deed.first + deed.count; id++) {
        struct memory *m = &c->memories[id];
        if (deed.kind == REMEMBER)
            *m = (struct memory){.embedding = number, .content = number};
        else if (deed.kind == REVISE)
            m->content = number;
        else if (deed.kind == SUPPRESS || deed.kind == RESTORE)
            m->hidden = deed.kind == SUPPRESS;
        else
            *m = (struct memory){0};
    }
}

static void make_embedding(const struct client *c, uint64_t deed, uint32_t id, float *embedding)
{
    for (uint32_t i = 0; i < DIM; i++)
        embedding[i] = (float)(draw(c, deed, 1000 + id * DIM + i) % 20001) / 10000.0f - 0.99995f;
}

/* Begins with the deed that made it, so that an old one can be told. */
static size_t make_content(const struct client *c, uint64_t deed, uint32_t id, char *content)
{
    size_t length = 40 + draw(c, deed, 10 + id) % (deed % 8 == 0 ? CONTENT_MAX - 40 : 200);
    int head = snprintf(content, 40, "%" PRIu64 " %u of %u:", deed, id, c->number);
    for (size_t i = (size_t)head; i < length; i++)
        content[i] = (char)('a' + draw(c, deed, 100000 + i / 8) % 26);
    return length;
}

static enum mneme_code remember(struct client *c, uint64_t number, struct deed deed, const char *idem)
{
    static float embeddings[BATCH_MAX][DIM];
    static char contents[BATCH_MAX][CONTENT_MAX];
    struct mneme_memory memories[BATCH_MAX] = {0};
    struct mneme_id ids[BATCH_MAX] = {0};
    for (uint32_t i = 0; i < deed.count; i++) {
        ids[i].number = deed.first + i + 1;
        make_embedding(c, number, deed.first + i, embeddings[i]);
        memories[i] = (struct mneme_memory){.id = &ids[i], .embedding = embeddings[i], .content = contents[i]};
        memories[i].content_size = make_content(c, number, deed.first + i, contents[i]);
    }
    return mneme_remember(c->m, c->space, memories, deed.count, idem, NULL);
}

static enum mneme_code revise(struct client *c, uint64_t number, struct deed deed, const char *idem)
{
    static char content[CONTENT_MAX];
    struct mneme_id id = {.number = deed.first + 1};
    struct mneme_changes changes = {.content = content};
    changes.content_size = make_content(c, number, deed.first, content);
    return mneme_revise(c->m, c->space, &id, &changes, NULL, idem, NULL);
}

static enum mneme_code forget(struct client *c, struct deed deed, const char *idem)
{
    static const enum mneme_forget_mode modes[] = {
        [DELETE] = MNEME_DELETE, [SUPPRESS] = MNEME_SUPPRESS, [RESTORE] = MNEME_RESTORE, [PURGE] = MNEME_PURGE};
    struct mneme_id id = {.number = deed.first + 1};
    struct mneme_forgetting what = {.ids = &id, .id_count = 1, .mode = modes[deed.kind]};
    return mneme_forget(c->m, c->space, &what, idem, NULL);
}

static void live(struct client *c, uint64_t number)
{
    for (;;) {
        char idem[64];
        struct deed deed = deed_of(c, ++number);
        snprintf(idem, sizeof idem, "%s.%" PRIu64, c->space, number);
        enum mneme_code code = deed.kind == REMEMBER ? remember(c, number, deed, idem)
                               : deed.kind == REVISE ? revise(c, number, deed, idem)
                                                     : forget(c, deed, idem);
        if (code != MNEME_OK)
            stop("crashes", mneme_error(c->m));
        tell("ack %u %" PRIu64, c->number, number);
        apply(c, number, deed);
    }
}

/* ---- looking ---- */

static struct mneme_reply *get_all(struct client *c)
{
    static const char *const fields[] = {"embedding", "content"};
    struct mneme_id ids[IDS] = {0};
    struct mneme_reply *reply;
    for (uint32_t i = 0; i < IDS; i++)
        ids[i].number = i + 1;
    if (mneme_get(c->m, c->space, ids, IDS, fields, 2, NULL, &reply) != MNEME_OK)
        stop("crashes", mneme_error(c->m));
    return reply;
}

/* NULL when id `id` is as it must be, else the kind of what is wrong. */
static const char *differs(const struct client *c, struct mneme_value memories, uint32_t id)
{
    const struct memory *m = &c->memories[id];
    struct mneme_found found;
    float embedding[DIM];
    char content[CONTENT_MAX];
    bool wanted = m->content != 0 && !m->hidden;
    if (!mneme_value_found(mneme_value_at(memories, id), &found))
        return wanted ? "lost" : NULL;
    if (!wanted || !found.content)
        return wanted ? "wrong" : "risen";
    make_embedding(c, m->embedding, id, embedding);
    if (make_content(c, m->content, id, content) == found.content_size &&
        memcmp(content, found.content, found.content_size) == 0 && found.embedding_size == sizeof embedding &&
        memcmp(embedding, found.embedding, sizeof embedding) == 0)
        return NULL;
    return strtoull(found.content, NULL, 10) < m->content ? "risen" : "wrong";
}

/* The first difference, or NULL. */
static const char *first_difference(const struct client *c, struct mneme_value memories, uint32_t *id)
{
    for (*id = 0; *id < IDS; ++*id) {
        const char *kind = differs(c, memories, *id);
        if (kind)
            return kind;
    }
    return NULL;
}

/* Finds the deed, `acked` or a little later, that the space is as; the client's memories are then so. */
static uint64_t look(struct client *c, uint64_t acked)
{
    uint32_t first, id;
    uint64_t n = 0;
    struct mneme_reply *reply = get_all(c);
    struct mneme_value memories = mneme_reply_get(reply, "memories");
    for (; n < acked; n++)
        apply(c, n + 1, deed_of(c, n + 1));
    const char *kind = first_difference(c, memories, &first), *now = kind;
    for (; now && n < acked + AHEAD_MAX; n++) {
        apply(c, n + 1, deed_of(c, n + 1));
        now = first_difference(c, memories, &id);
    }
    if (now) {
        tell("bad %s client %u, id %u, after deed %" PRIu64, kind, c->number, first + 1, acked);
        _exit(1);
    }
    mneme_reply_free(reply);
    tell("at %u %" PRIu64, c->number, n);
    return n;
}

/* ---- processes ---- */

static struct mneme *connect_to(const char *dir)
{
    struct mneme *m;
    struct mneme_options options = {.wait_ms = PATIENCE_MS, .timeout_ms = PATIENCE_MS};
    if (mneme_open(&m, dir, &options) != MNEME_OK)
        stop("crashes", mneme_open_error());
    return m;
}

/* Waits until the store serves, and says what is wrong with it. */
static void inspect(struct mneme *m)
{
    struct mneme_reply *reply;
    if (mneme_info(m, &reply) != MNEME_OK)
        stop("crashes", mneme_error(m));
    if (mneme_value_is(mneme_reply_get(reply, "state"), "degraded"))
        stop("lost", "the store says that it is degraded");
    mneme_reply_free(reply);
    if (mneme_verify(m, &reply) != MNEME_OK)
        stop("crashes", mneme_error(m));
    if (mneme_value_length(mneme_reply_get(reply, "damaged")) > 0)
        stop("wrong", "verify has found damage");
    mneme_reply_free(reply);
}

static void consolidate_for_ever(const char *dir)
{
    struct mneme *m = connect_to(dir);
    for (;;) {
        usleep(700000);
        if (mneme_consolidate(m, true, NULL) != MNEME_OK)
            stop("crashes", mneme_error(m));
    }
}

/* One client's life. `looked` counts those that have looked. */
static void be_client(const char *dir, uint32_t number, uint64_t acked, bool only_look, _Atomic uint32_t *looked)
{
    static struct client c;
    c.number = number;
    c.m = connect_to(dir);
    snprintf(c.space, sizeof c.space, "c%u", number);
    acked = look(&c, acked);
    ++*looked;
    if (!only_look)
        live(&c, acked);
    _exit(0);
}

int main(int count, char **words)
{
    bool only_look = count > 2 && strcmp(words[2], "check") == 0;
    char **acked = words + (only_look ? 3 : 2);
    uint32_t clients = (uint32_t)(words + count - acked);
    _Atomic uint32_t *looked = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (count < 3 || clients == 0 || clients > CLIENTS_MAX || looked == MAP_FAILED)
        return 2;
    for (uint32_t i = 0; i < clients; i++)
        if (fork() == 0)
            be_client(words[1], i, strtoull(acked[i], NULL, 10), only_look, looked);
    while (*looked < clients)
        usleep(1000);
    inspect(connect_to(words[1]));
    tell("checked");
    if (!only_look && fork() == 0)
        consolidate_for_ever(words[1]);
    while (wait(NULL) > 0)
        continue;
    return 0;
}
