/*
 * view.c - making and mapping view files.
 */
#include "engine/view.h"

#include <errno.h>
#include <stdio.h>
#include <unistd.h>

void mn_view_name(char name[64], uint64_t gen)
{
    snprintf(name, 64, "view.%llu", (unsigned long long)gen);
}

static struct mn_segment_identity view_identity(const struct mn_instance *instance)
{
    struct mn_segment_identity identity = instance->identity;
    identity.magic = MN_MAGIC_VIEW;
    identity.fingerprint = mn_engine_fingerprint();
    return identity;
}

static uint64_t view_bytes(uint64_t columns, uint64_t chunks)
{
    return sizeof(struct mn_view) + columns * sizeof(struct mn_view_columns) + chunks * sizeof(struct mn_view_chunk);
}

enum mn_status mn_view_map(struct mn_view_list *view, struct mn_instance *instance, uint64_t gen)
{
    char name[64];
    struct mn_segment_identity identity = view_identity(instance);
    *view = (struct mn_view_list){0};
    mn_view_name(name, gen);
    MN_TRY(mn_segment_map(&view->segment, instance->dir_fd, name, false, &identity));
    const struct mn_view *file = view->segment.base;
    if (view->segment.bytes < sizeof *file || file->gen != gen ||
        view->segment.bytes != view_bytes(file->columns, file->chunks)) {
        mn_view_unmap(view);
        return MN_FAIL(MN_CORRUPT, "view %s does not have the length that it says", name);
    }
    view->gen = gen;
    view->log_seq = file->log_seq;
    view->columns = file->columns;
    view->chunks = file->chunks;
    view->missing = file->missing;
    view->column = (const struct mn_view_columns *)(const void *)(file + 1);
    view->chunk = (const struct mn_view_chunk *)(const void *)(view->column + view->columns);
    return MN_OK;
}

void mn_view_unmap(struct mn_view_list *view)
{
    mn_segment_unmap(&view->segment);
    *view = (struct mn_view_list){0};
}

enum mn_status mn_view_publish(struct mn_instance *instance, const struct mn_view_list *list)
{
    char name[64];
    struct mn_segment segment;
    struct mn_segment_identity identity = view_identity(instance);
    mn_view_name(name, list->gen);
    /* One that its maker died over was never named by view_gen, so nobody has it. */
    if (unlinkat(instance->dir_fd, name, 0) != 0 && errno != ENOENT)
        return MN_FAIL_ERRNO("cannot remove an unfinished %s", name);
    MN_TRY(
        mn_segment_create(&segment, instance->dir_fd, name, view_bytes(list->columns, list->chunks), &identity, 0600));
    struct mn_view *file = segment.base;
    file->gen = list->gen;
    file->log_seq = list->log_seq;
    file->columns = list->columns;
    file->chunks = list->chunks;
    file->missing = list->missing;
    struct mn_view_columns *columns = (struct mn_view_columns *)(void *)(file + 1);
    if (list->columns > 0)
        memcpy(columns, list->column, list->columns * sizeof *columns);
    if (list->chunks > 0)
        memcpy(columns + list->columns, list->chunk, list->chunks * sizeof *list->chunk);
    mn_segment_publish(&segment);
    mn_segment_unmap(&segment);
    /* seq_cst: a reader either sees this generation, or its pin of an older one is seen by whoever scans the slots
     * next. */
    atomic_store_explicit(&instance->control->view_gen, list->gen, memory_order_seq_cst);
    return MN_OK;
}
