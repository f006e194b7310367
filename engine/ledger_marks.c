/*
 * ledger_marks.c - marks as bytes: a head and the name of the space, one after the other, as they lie in the file.
 */
#include "engine/ledger_marks.h"

#include <stdlib.h>

#include "engine/request.h"

struct mark_bytes {
    uint64_t seq;
    struct mn_id id;
    uint32_t mode, space_bytes; /* the name follows, padded to 8 */
};
_Static_assert(sizeof(struct mark_bytes) == 40, "in ledger files");

void mn_ledger_marks_free(struct mn_ledger_marks *marks)
{
    free(marks->data);
    *marks = (struct mn_ledger_marks){0};
}

static enum mn_status reserve(struct mn_ledger_marks *marks, uint64_t more)
{
    if (marks->data && marks->max - marks->bytes >= more)
        return MN_OK;
    uint64_t max = 2 * marks->max + more + 4096;
    uint8_t *grown = realloc(marks->data, max);
    if (!grown)
        return MN_FAIL(MN_INTERNAL, "no memory for marks on what cannot be opened");
    marks->data = grown;
    marks->max = max;
    return MN_OK;
}

enum mn_status mn_ledger_marks_add(struct mn_ledger_marks *marks, const struct mn_ledger_mark *mark)
{
    struct mark_bytes head = {mark->seq, mark->id, mark->mode, mark->space.length};
    uint64_t name = mn_round_up(mark->space.length, 8);
    MN_TRY(reserve(marks, sizeof head + name));
    uint8_t *to = marks->data + marks->bytes;
    memset(to, 0, sizeof head + name);
    memcpy(to, &head, sizeof head);
    if (mark->space.length > 0)
        memcpy(to + sizeof head, mark->space.data, mark->space.length);
    marks->bytes += sizeof head + name;
    return MN_OK;
}

enum mn_status mn_ledger_marks_record(struct mn_ledger_marks *marks, const struct mn_record *record)
{
    struct mn_record_fields f = mn_record_fields(record);
    const char *base = (const char *)record;
    struct mn_ledger_mark mark = {
        .seq = record->seq, .mode = MN_FORGET_DELETE, .space = {base + f.space, record->space_bytes}};
    if (record->op == MN_RECORD_PUT && !(record->flags & MN_RECORD_ASSIGNED)) {
        mark.id = record->id;
        return mn_ledger_marks_add(marks, &mark);
    }
    if (record->op != MN_RECORD_FORGET)
        return MN_OK;
    mark.mode = record->flags;
    uint32_t count = MN_CONTENT_LENGTH(record->content_bytes) / (uint32_t)sizeof mark.id;
    for (uint32_t i = 0; i < count; i++) {
        memcpy(&mark.id, base + f.content + i * sizeof mark.id, sizeof mark.id);
        MN_TRY(mn_ledger_marks_add(marks, &mark));
    }
    return MN_OK;
}

bool mn_ledger_marks_next(const struct mn_ledger_marks *marks, uint64_t *at, struct mn_ledger_mark *mark)
{
    struct mark_bytes head;
    if (*at >= marks->bytes)
        return false;
    const uint8_t *from = marks->data + *at;
    memcpy(&head, from, sizeof head);
    *mark = (struct mn_ledger_mark){head.seq, head.id, head.mode, {(const char *)from + sizeof head, head.space_bytes}};
    *at += sizeof head + mn_round_up(head.space_bytes, 8);
    return true;
}

enum mn_status mn_ledger_marks_load(struct mn_ledger_marks *marks, const uint8_t *data, uint64_t bytes)
{
    struct mark_bytes head;
    for (uint64_t at = 0; at < bytes; at += sizeof head + mn_round_up(head.space_bytes, 8)) {
        if (bytes - at < sizeof head)
            return MN_FAIL(MN_CORRUPT, "the marks of a ledger end early");
        memcpy(&head, data + at, sizeof head);
        if (head.space_bytes > MN_SPACE_BYTES_MAX || bytes - at - sizeof head < mn_round_up(head.space_bytes, 8))
            return MN_FAIL(MN_CORRUPT, "a mark of a ledger names a space of impossible length");
    }
    marks->bytes = 0;
    MN_TRY(reserve(marks, bytes));
    if (bytes > 0)
        memcpy(marks->data, data, bytes);
    marks->bytes = bytes;
    return MN_OK;
}

/* ---- thinning ---- */

static int by_id(const void *a, const void *b)
{
    const struct mn_ledger_mark *x = a, *y = b;
    int order = mn_str_compare(x->space, y->space);
    if (order == 0)
        order = mn_id_compare(&x->id, &y->id);
    if (order == 0)
        order = x->seq < y->seq ? -1 : x->seq > y->seq;
    return order;
}

static bool same_id(const struct mn_ledger_mark *x, const struct mn_ledger_mark *y)
{
    return mn_id_equal(&x->id, &y->id) && mn_str_equal(x->space, y->space);
}

static uint32_t kind_of(const struct mn_ledger_mark *mark)
{
    return mark->mode == MN_FORGET_SUPPRESS || mark->mode == MN_FORGET_PURGE ? mark->mode : MN_FORGET_DELETE;
}

/* Of the sorted list of all: the first of its id, or the last of its kind there. */
static bool tells_more(const struct mn_ledger_mark *list, uint64_t count, uint64_t i)
{
    if (i == 0 || !same_id(&list[i - 1], &list[i]))
        return true;
    for (uint64_t later = i + 1; later < count && same_id(&list[later], &list[i]); later++)
        if (kind_of(&list[later]) == kind_of(&list[i]))
            return false;
    return true;
}

enum mn_status mn_ledger_marks_thin(struct mn_ledger_marks *marks)
{
    struct mn_ledger_marks kept = {0};
    struct mn_ledger_mark mark, *list = malloc(marks->bytes / sizeof(struct mark_bytes) * sizeof *list + 1);
    uint64_t count = 0, at = 0;
    enum mn_status status = list ? MN_OK : MN_FAIL(MN_INTERNAL, "no memory to go through the marks of a ledger");
    while (list && mn_ledger_marks_next(marks, &at, &mark))
        list[count++] = mark;
    if (count > 1)
        qsort(list, count, sizeof *list, by_id);
    for (uint64_t i = 0; i < count && status == MN_OK; i++)
        if (tells_more(list, count, i))
            status = mn_ledger_marks_add(&kept, &list[i]);
    free(list);
    if (status != MN_OK) {
        mn_ledger_marks_free(&kept);
        return status;
    }
    mn_ledger_marks_free(marks);
    *marks = kept;
    return MN_OK;
}
