/*
 * sixty.c - see sixty.h.
 */
#include "tests/unit/sixty.h"

#include <stdio.h>

const char *sixty_content(uint64_t number, char text[64])
{
    snprintf(text, 64, "content %llu", (unsigned long long)number);
    return number % 5 == 0 ? NULL : text;
}

static enum mn_status no_sync(int fd)
{
    return MN_OK;
}

static enum mn_status no_flush(int fd, uint64_t offset, uint64_t bytes)
{
    return MN_OK;
}

static enum mn_status no_folder_sync(const char *path)
{
    return MN_OK;
}

struct fixture *sixty_store(void)
{
    static struct mn_io quick;
    struct fixture *f = fixture_prepare();
    quick = mn_io_posix;
    quick.datasync = no_sync;
    quick.flush = no_flush;
    quick.sync_dir = no_folder_sync;
    f->store.io = &quick;
    fixture_start(f);
    return f;
}

struct fixture *sixty_memories(void)
{
    struct fixture *f = sixty_store();
    char text[64];
    uint64_t sealed;
    for (uint64_t id = 1; id <= 60; id++) {
        fixture_put(f, "s", id, id, sixty_content(id, text));
        fixture_commit(f);
        if (id % 20 == 0)
            ok(mn_writer_seal(f->writer, &sealed));
    }
    fixture_power_cut(f);
    return f;
}

uint32_t sixty_there(struct fixture *f, uint64_t first, uint64_t last)
{
    uint32_t count = 0;
    char text[64];
    for (uint64_t id = first; id <= last; id++) {
        bool holds = fixture_holds(f, "s", id, id, sixty_content(id, text));
        assert_true(holds || fixture_absent(f, "s", id));
        count += holds;
    }
    return count;
}
