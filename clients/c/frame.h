/*
 * frame.h - from the caller's request to the frame that is sent (private to libmneme, used by exchange.c). Errors are
 * noted in the client.
 */
#ifndef MNEME_CLIENTS_C_FRAME_H
#define MNEME_CLIENTS_C_FRAME_H

#include "clients/c/client.h"
#include "clients/c/scan.h"

/* What the caller's map says that the exchange must know. */
struct mn_frame_facts {
    uint32_t entries;
    const uint8_t *body; /* behind the map's header */
    const char *op;
    size_t op_size;
    const char *idem;
    size_t idem_size;
    bool has_rid, has_deadline, purge, wait;
};

/* Walks the request once; the facts point into it. MNEME_BAD_REQUEST when it is not one map with what a request needs.
 */
enum mneme_code mn_frame_read(struct mneme *client, const void *request, size_t size, struct mn_frame_facts *facts);

/* client->last_idem: the caller's, or one that the next ticket makes. Before mn_frame_make of a write. */
void mn_frame_choose_idem(struct mneme *client, const struct mn_frame_facts *facts);

/* p->frame: rid, deadline_ms and idem first, then the caller's entries, up to `end`, as they are. p->service, ticket
 * and timeout_ms must be set. */
enum mneme_code mn_frame_make(struct mneme *client, struct mn_pending *p, const struct mn_frame_facts *facts,
                              const uint8_t *end);

/* How long a request may take and whether it may be sent twice follows from what it asks. */
void mn_frame_set_patience(const struct mneme *client, struct mn_pending *p, const struct mn_frame_facts *facts);

#endif
