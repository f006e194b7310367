/*
 * frame.c - a request before it goes out: what its map asks, the frame that is sent for it, and how long it may take.
 */
#include "clients/c/frame.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool word_is(const char *text, size_t size, const char *word)
{
    return size == strlen(word) && memcmp(text, word, size) == 0;
}

static bool note_fact(struct mn_frame_facts *f, const char *key, size_t size, struct mn_scan value)
{
    if (word_is(key, size, "op"))
        return mn_scan_string(&value, &f->op, &f->op_size);
    if (word_is(key, size, "idem"))
        return mn_scan_string(&value, &f->idem, &f->idem_size);
    if (word_is(key, size, "rid"))
        f->has_rid = true;
    else if (word_is(key, size, "deadline_ms"))
        f->has_deadline = true;
    else if (word_is(key, size, "mode"))
        f->purge = mn_scan_is(value, "purge");
    else if (word_is(key, size, "wait"))
        return mn_scan_bool(&value, &f->wait);
    return true;
}

enum mneme_code mn_frame_read(struct mneme *client, const void *request, size_t size, struct mn_frame_facts *f)
{
    const uint8_t *bytes = request;
    struct mn_scan scan = {bytes, bytes + size};
    memset(f, 0, sizeof *f);
    bool whole = mn_scan_map(&scan, &f->entries);
    f->body = scan.at;
    for (uint32_t i = 0; whole && i < f->entries; i++) {
        const char *key;
        size_t key_size;
        whole = mn_scan_string(&scan, &key, &key_size);
        struct mn_scan value = scan;
        whole = whole && mn_scan_skip(&scan) && note_fact(f, key, key_size, value);
    }
    if (!whole || scan.at != scan.end)
        return mn_client_fail(client, MNEME_BAD_REQUEST, "the request is not one MessagePack map with string keys");
    if (!f->op)
        return mn_client_fail(client, MNEME_BAD_REQUEST, "the request has no `op`");
    if (f->has_rid)
        return mn_client_fail(client, MNEME_BAD_REQUEST, "`rid` is added by the library: leave it out");
    if (f->idem && (f->idem_size == 0 || f->idem_size >= MN_CLIENT_IDEM_SIZE))
        return mn_client_fail(client, MNEME_BAD_REQUEST, "`idem` must have 1 to 64 bytes, this one has %zu",
                              f->idem_size);
    return MNEME_OK;
}

static uint8_t *put_key(uint8_t *at, const char *key)
{
    *at++ = (uint8_t)(0xa0 | strlen(key)); /* keys here are shorter than 32 bytes */
    return (uint8_t *)stpcpy((char *)at, key);
}

static uint8_t *put_uint(uint8_t *at, uint8_t tag, unsigned width, uint64_t value)
{
    *at++ = tag;
    for (unsigned i = 0; i < width; i++)
        *at++ = (uint8_t)(value >> (8 * (width - 1 - i)));
    return at;
}

void mn_frame_choose_idem(struct mneme *client, const struct mn_frame_facts *f)
{
    if (f->idem) {
        memcpy(client->last_idem, f->idem, f->idem_size);
        client->last_idem[f->idem_size] = 0;
    } else {
        snprintf(client->last_idem, sizeof client->last_idem, "%016llx-%llx", (unsigned long long)client->idem_prefix,
                 (unsigned long long)client->next_ticket);
    }
}

enum mneme_code mn_frame_make(struct mneme *client, struct mn_pending *p, const struct mn_frame_facts *f,
                              const uint8_t *end)
{
    size_t body = (size_t)(end - f->body);
    uint8_t *at = p->frame = malloc(body + 128);
    if (!p->frame)
        return mn_client_fail(client, MNEME_NO_MEMORY, "out of memory for a request of %zu bytes", body);
    bool own_idem = p->service == MNEME_WRITE && !f->idem;
    at = put_uint(at, 0xdf, 4, (uint64_t)f->entries + 1 + !f->has_deadline + own_idem);
    at = put_uint(put_key(at, "rid"), 0xcf, 8, p->ticket);
    if (!f->has_deadline)
        at = put_uint(put_key(at, "deadline_ms"), 0xce, 4, (uint64_t)p->timeout_ms);
    if (own_idem) {
        size_t n = strlen(client->last_idem);
        at = put_uint(put_key(at, "idem"), 0xd9, 1, n);
        at = (uint8_t *)stpcpy((char *)at, client->last_idem);
    }
    memcpy(at, f->body, body);
    p->size = (size_t)(at - p->frame) + body;
    return MNEME_OK;
}

void mn_frame_set_patience(const struct mneme *client, struct mn_pending *p, const struct mn_frame_facts *f)
{
    bool quick_control = word_is(f->op, f->op_size, "info") || word_is(f->op, f->op_size, "ping") ||
                         word_is(f->op, f->op_size, "reload");
    bool starts_work = word_is(f->op, f->op_size, "consolidate") && !f->wait;
    bool slow = p->service == MNEME_CONTROL ? !quick_control && !starts_work : f->purge;
    bool may_be_long = slow || word_is(f->op, f->op_size, "forget");
    p->timeout_ms = slow ? client->slow_timeout_ms : client->timeout_ms;
    p->resendable = p->service != MNEME_CONTROL || quick_control || starts_work;
    int resend_ms = client->resend_ms ? client->resend_ms : p->timeout_ms / 3;
    p->resend_ns = may_be_long ? 0 : (uint64_t)resend_ms * MN_CLIENT_MS;
    p->give_up_ns = mn_exchange_now() + (uint64_t)p->timeout_ms * MN_CLIENT_MS;
}
