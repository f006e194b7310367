/*
 * wire_read.h - a request's bytes, made safe once and then read in place.
 *
 * mn_wire_open walks a frame before anybody looks at it: nesting at most MN_WIRE_DEPTH_MAX deep, no declared length
 * beyond the bytes that came, exactly one object, no byte behind it. After that, values are read where they lie, with
 * no tree of objects beside them: a hostile frame costs its own size and no more. Values point into the frame and live
 * as long as it.
 *
 * Readers of single fields follow one convention: an absent field leaves *out as it was (set the default first); a
 * wrong one fails with a sentence that names it, says what came and what would be right.
 */
#ifndef MN_ACTORS_WIRE_READ_H
#define MN_ACTORS_WIRE_READ_H

#include "actors/wire.h"
#include "engine/types.h"

enum mn_wire_type {
    MN_WIRE_ABSENT,
    MN_WIRE_NIL,
    MN_WIRE_BOOL,
    MN_WIRE_UINT,
    MN_WIRE_INT,   /* negative */
    MN_WIRE_FLOAT, /* 32 bits if `single` */
    MN_WIRE_STR,
    MN_WIRE_BIN,
    MN_WIRE_ARRAY,
    MN_WIRE_MAP,
    MN_WIRE_EXT
};

struct mn_wire {
    enum mn_wire_type type;
    bool boolean, single;
    uint32_t count;             /* members of an array, pairs of a map */
    uint64_t u64;               /* UINT */
    int64_t i64;                /* INT */
    double f64;                 /* FLOAT */
    struct mn_str s;            /* STR, BIN, EXT */
    const uint8_t *at, *inside; /* its first byte; the first byte behind its head */
};

/* What every request has. */
struct mn_request {
    enum mn_op op;
    struct mn_str rid; /* its msgpack bytes, to be echoed; length 0 = none */
    bool has_deadline;
    uint64_t deadline_ms;
    struct mn_wire body; /* the map */
};

/* Checks a frame and reads op, rid and deadline_ms. MN_BAD_REQUEST, or MN_BAD_OP when `service` (a value of
 * enum mn_service or mn_internal_service) does not answer the operation. rid is set wherever it can be found, on
 * failure too. `data` must outlive the request. */
enum mn_status mn_wire_open(struct mn_request *request, const void *data, size_t bytes, unsigned service) MN_MUST_USE;
/* When the time of a request that was received then is over, by the same clock; UINT64_MAX: never. */
uint64_t mn_wire_until(const struct mn_request *request, uint64_t received_ns);
/* The check alone, and the object it found. */
enum mn_status mn_wire_check(const void *data, size_t bytes, struct mn_wire *value) MN_MUST_USE;

/* Walking checked bytes. next: reads the value at *at and moves behind its head (behind all of a scalar); skip: the
 * first byte behind the whole value at `at`. */
void mn_wire_next(const uint8_t **at, struct mn_wire *value);
const uint8_t *mn_wire_skip(const uint8_t *at);

/* The values of the named keys of a map into values[count], MN_WIRE_ABSENT where a key is not there. A known key that
 * comes twice is MN_BAD_REQUEST, a key that is no string too; an unknown one is passed over unless `strict`. `what`
 * names the map in sentences ("the request", "filter"). */
enum mn_status mn_wire_fields(const struct mn_wire *map, const char *what, const char *const *names, uint32_t count,
                              bool strict, struct mn_wire *values) MN_MUST_USE;
/* One key of a request's body. */
enum mn_status mn_wire_field(const struct mn_request *request, const char *name, struct mn_wire *value) MN_MUST_USE;

/* MN_BAD_REQUEST when the value is absent. */
enum mn_status mn_wire_need(const struct mn_wire *v, const char *name) MN_MUST_USE;
/* Single fields, by the convention above. Strings must be UTF-8 of min..max bytes; integers of any msgpack form but
 * float. */
enum mn_status mn_wire_bool(const struct mn_wire *v, const char *name, bool *out) MN_MUST_USE;
enum mn_status mn_wire_uint(const struct mn_wire *v, const char *name, uint64_t min, uint64_t max,
                            uint64_t *out) MN_MUST_USE;
enum mn_status mn_wire_time(const struct mn_wire *v, const char *name, int64_t *out) MN_MUST_USE;
/* An integer or a float; NaN and Inf are MN_BAD_VALUE. */
enum mn_status mn_wire_number(const struct mn_wire *v, const char *name, double *out) MN_MUST_USE;
enum mn_status mn_wire_str(const struct mn_wire *v, const char *name, uint32_t min, uint32_t max,
                           struct mn_str *out) MN_MUST_USE;
enum mn_status mn_wire_id(const struct mn_wire *v, const char *name, struct mn_id *out) MN_MUST_USE;
/* The type and at most `max` members (MN_TOO_LARGE above). */
enum mn_status mn_wire_array(const struct mn_wire *v, const char *name, uint32_t max) MN_MUST_USE;
enum mn_status mn_wire_map(const struct mn_wire *v, const char *name) MN_MUST_USE;

/* MN_BAD_REQUEST: "<name> is <what came>; it must be <wanted>". */
enum mn_status mn_wire_wrong(const struct mn_wire *v, const char *name, const char *wanted);
/* Puts a place before the sentence of the failure that has just happened: "memories[3]: ...". Returns `status`. */
enum mn_status mn_wire_within(enum mn_status status, const char *fmt, ...) MN_PRINTF(2, 3);

/* Whether a string is that word; whether bytes are UTF-8. */
bool mn_wire_is(struct mn_str s, const char *word);
bool mn_wire_utf8(const char *data, size_t bytes);
/* Foreign bytes for a sentence: printable ASCII, the rest as '?', cut at 40. Returns `text`. */
#define MN_WIRE_SHOWN_MAX 48
const char *mn_wire_shown(struct mn_str s, char text[MN_WIRE_SHOWN_MAX]);

/* An operation's name on the wire, and the service that answers it (enum mn_service or mn_internal_service). */
const char *mn_op_word(enum mn_op op);
unsigned mn_op_service(enum mn_op op);

#endif
