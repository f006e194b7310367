/*
 * ledger.c - idem keys and id counters: a hash table in order of age, a small table of spaces, and their file.
 *
 * File: "MNLEDGE1" | entries, spaces (uint32 each) | entries | spaces | marks | CRC32C of all before, seeded with the
 * store's uuid and the seq. Entries as in the log; marks fill what is left.
 */
#include "engine/ledger.h"

#include <stdio.h>
#include <stdlib.h>

#include "engine/crc.h"
#include "engine/fault.h"
#include "engine/request.h"

#define MAGIC          "MNLEDGE1"
#define FILE_BYTES_MAX (UINT64_C(4) << 30)

struct space_counter {
    char *name;
    uint32_t length;
    uint64_t next_id;
};

/* Entries stand in a ring in order of admission (they expire from its front); a table of slots finds them by key. */
struct mn_ledger {
    struct mn_idem_entry *ring;
    uint64_t first, count, ring_max; /* ring_max: a power of two */
    uint64_t *slots;                 /* entry number + 1 (numbers grow for ever), 0 = empty */
    uint64_t slot_mask;
    uint64_t slots_used; /* including those of expired entries, swept when the table is rebuilt */
    struct space_counter *spaces;
    uint32_t space_count, space_max; /* space_max: a power of two, open addressing */
    struct mn_ledger_marks marks;
};

enum mn_status mn_ledger_new(struct mn_ledger **ledger)
{
    struct mn_ledger *l = calloc(1, sizeof *l);
    if (l) {
        l->ring_max = 1024;
        l->ring = calloc(l->ring_max, sizeof *l->ring);
        l->slot_mask = 4095;
        l->slots = calloc(l->slot_mask + 1, sizeof *l->slots);
        l->space_max = 64;
        l->spaces = calloc(l->space_max, sizeof *l->spaces);
    }
    if (!l || !l->ring || !l->slots || !l->spaces) {
        mn_ledger_free(l);
        return MN_FAIL(MN_INTERNAL, "no memory for the ledger");
    }
    *ledger = l;
    return MN_OK;
}

static struct mn_idem_entry *entry_at(const struct mn_ledger *l, uint64_t number)
{
    return &l->ring[number & (l->ring_max - 1)];
}

void mn_ledger_free(struct mn_ledger *ledger)
{
    if (!ledger)
        return;
    for (uint64_t i = 0; ledger->ring && i < ledger->count; i++)
        free(entry_at(ledger, ledger->first + i)->runs);
    for (uint32_t i = 0; ledger->spaces && i < ledger->space_max; i++)
        free(ledger->spaces[i].name);
    free(ledger->ring);
    free(ledger->slots);
    free(ledger->spaces);
    mn_ledger_marks_free(&ledger->marks);
    free(ledger);
}

uint64_t mn_ledger_entries(const struct mn_ledger *ledger)
{
    return ledger->count;
}

struct mn_ledger_marks *mn_ledger_marks(struct mn_ledger *ledger)
{
    return &ledger->marks;
}

/* The number of the newest entry with this key, or UINT64_MAX. Expired numbers may still stand in slots: they are
 * skipped. */
static uint64_t find_number(const struct mn_ledger *l, struct mn_str key)
{
    uint64_t found = UINT64_MAX;
    for (uint64_t i = mn_str_hash(key) & l->slot_mask; l->slots[i] != 0; i = (i + 1) & l->slot_mask) {
        uint64_t number = l->slots[i] - 1;
        if (number < l->first)
            continue;
        const struct mn_idem_entry *e = entry_at(l, number);
        if (mn_str_equal(key, (struct mn_str){e->key, e->key_bytes}) && (found == UINT64_MAX || number > found))
            found = number;
    }
    return found;
}

const struct mn_idem_entry *mn_ledger_find(const struct mn_ledger *ledger, struct mn_str key)
{
    uint64_t number = find_number(ledger, key);
    return number == UINT64_MAX ? NULL : entry_at(ledger, number);
}

static void add_slot(struct mn_ledger *l, uint64_t number)
{
    const struct mn_idem_entry *e = entry_at(l, number);
    uint64_t i = mn_str_hash((struct mn_str){e->key, e->key_bytes}) & l->slot_mask;
    while (l->slots[i] != 0)
        i = (i + 1) & l->slot_mask;
    l->slots[i] = number + 1;
    l->slots_used++;
}

/* Makes room for one more: a larger ring, and a table of slots without the expired ones. */
static enum mn_status make_room(struct mn_ledger *l)
{
    if (l->count == l->ring_max) {
        struct mn_idem_entry *ring = calloc(l->ring_max * 2, sizeof *ring);
        if (!ring)
            return MN_FAIL(MN_INTERNAL, "no memory for idem keys");
        for (uint64_t i = l->first; i < l->first + l->count; i++)
            ring[i & (l->ring_max * 2 - 1)] = *entry_at(l, i);
        free(l->ring);
        l->ring = ring;
        l->ring_max *= 2;
    }
    if ((l->slots_used + 1) * 2 > l->slot_mask) {
        uint64_t size = l->slot_mask + 1;
        while (size < (l->count + 1) * 4)
            size *= 2;
        uint64_t *slots = calloc(size, sizeof *slots);
        if (!slots)
            return MN_FAIL(MN_INTERNAL, "no memory for idem keys");
        free(l->slots);
        l->slots = slots;
        l->slot_mask = size - 1;
        l->slots_used = 0;
        for (uint64_t i = l->first; i < l->first + l->count; i++)
            add_slot(l, i);
    }
    return MN_OK;
}

enum mn_status mn_ledger_put(struct mn_ledger *ledger, const struct mn_idem_entry *entry)
{
    MN_TRY(make_room(ledger));
    struct mn_id_run *runs = NULL;
    if (entry->run_count > 0) {
        // NOLINTNEXTLINE(clang-analyzer-optin.portability.UnixAPI): run_count is not 0 here
        runs = malloc(entry->run_count * sizeof *runs);
        if (!runs)
            return MN_FAIL(MN_INTERNAL, "no memory for an idem key");
        memcpy(runs, entry->runs, entry->run_count * sizeof *runs);
    }
    uint64_t number = ledger->first + ledger->count++;
    *entry_at(ledger, number) = *entry;
    entry_at(ledger, number)->runs = runs;
    add_slot(ledger, number);
    return MN_OK;
}

void mn_ledger_expire(struct mn_ledger *ledger, int64_t wall_ns, uint32_t most)
{
    for (; most > 0 && ledger->count > 0; most--) {
        struct mn_idem_entry *oldest = entry_at(ledger, ledger->first);
        if (oldest->wall_ns >= wall_ns)
            return;
        free(oldest->runs);
        oldest->runs = NULL;
        ledger->first++;
        ledger->count--;
    }
}

/* ---- id counters ---- */

static struct space_counter *counter_of(const struct mn_ledger *l, struct mn_str space)
{
    uint32_t i = (uint32_t)mn_str_hash(space) & (l->space_max - 1);
    while (l->spaces[i].name && !mn_str_equal(space, (struct mn_str){l->spaces[i].name, l->spaces[i].length}))
        i = (i + 1) & (l->space_max - 1);
    return &l->spaces[i];
}

uint64_t mn_ledger_next_id(const struct mn_ledger *ledger, struct mn_str space)
{
    const struct space_counter *counter = counter_of(ledger, space);
    return counter->name ? counter->next_id : 1;
}

static enum mn_status grow_spaces(struct mn_ledger *l)
{
    struct space_counter *old = l->spaces;
    uint32_t old_max = l->space_max;
    struct space_counter *spaces = calloc((size_t)old_max * 2, sizeof *spaces);
    if (!spaces)
        return MN_FAIL(MN_INTERNAL, "no memory for id counters");
    l->spaces = spaces;
    l->space_max = old_max * 2;
    for (uint32_t i = 0; i < old_max; i++)
        if (old[i].name)
            *counter_of(l, (struct mn_str){old[i].name, old[i].length}) = old[i];
    free(old);
    return MN_OK;
}

enum mn_status mn_ledger_raise_id(struct mn_ledger *ledger, struct mn_str space, uint64_t next)
{
    struct space_counter *counter = counter_of(ledger, space);
    if (!counter->name) {
        if ((ledger->space_count + 1) * 2 > ledger->space_max) {
            MN_TRY(grow_spaces(ledger));
            counter = counter_of(ledger, space);
        }
        char *name = malloc(space.length ? space.length : 1);
        if (!name)
            return MN_FAIL(MN_INTERNAL, "no memory for an id counter");
        memcpy(name, space.data, space.length);
        *counter = (struct space_counter){name, space.length, 1};
        ledger->space_count++;
    }
    if (next > counter->next_id)
        counter->next_id = next;
    return MN_OK;
}

/* ---- as bytes ---- */

/* Fixed part of an entry in the log and in the file; runs and key follow. */
struct idem_bytes {
    uint64_t request_hash, seq;
    int64_t wall_ns;
    uint32_t count, run_count, key_bytes, zero;
};
_Static_assert(sizeof(struct idem_bytes) == 40 && sizeof(struct mn_id_run) == 16, "on disk");

uint32_t mn_idem_encode(const struct mn_idem_entry *entry, uint8_t *data)
{
    struct idem_bytes head = {entry->request_hash, entry->seq, entry->wall_ns, entry->count, entry->run_count,
                              entry->key_bytes,    0};
    uint32_t runs = entry->run_count * (uint32_t)sizeof *entry->runs;
    memcpy(data, &head, sizeof head);
    if (runs > 0)
        memcpy(data + sizeof head, entry->runs, runs);
    memcpy(data + sizeof head + runs, entry->key, entry->key_bytes);
    return (uint32_t)sizeof head + runs + entry->key_bytes;
}

/* Puts the entry that begins at `data`; *used: its length. */
static enum mn_status put_encoded(struct mn_ledger *l, const uint8_t *data, uint64_t bytes, uint64_t *used)
{
    struct idem_bytes head;
    struct mn_idem_entry entry = {0};
    if (bytes < sizeof head)
        return MN_FAIL(MN_CORRUPT, "an idem entry ends early");
    memcpy(&head, data, sizeof head);
    uint64_t runs = (uint64_t)head.run_count * sizeof *entry.runs;
    if (head.key_bytes > MN_IDEM_BYTES_MAX || head.run_count > MN_REQUEST_ROWS_MAX ||
        runs + head.key_bytes > bytes - sizeof head)
        return MN_FAIL(MN_CORRUPT, "an idem entry has lengths that it cannot have");
    entry.request_hash = head.request_hash;
    entry.seq = head.seq;
    entry.wall_ns = head.wall_ns;
    entry.count = head.count;
    entry.run_count = head.run_count;
    entry.key_bytes = head.key_bytes;
    memcpy(entry.key, data + sizeof head + runs, head.key_bytes);
    struct mn_id_run *copy = malloc(runs ? runs : 1); /* the bytes may be unaligned */
    if (!copy)
        return MN_FAIL(MN_INTERNAL, "no memory for an idem entry");
    memcpy(copy, data + sizeof head, runs);
    entry.runs = copy;
    enum mn_status status = mn_ledger_put(l, &entry);
    free(copy);
    *used = sizeof head + runs + head.key_bytes;
    return status;
}

enum mn_status mn_ledger_fold_record(struct mn_ledger *ledger, const struct mn_record *record)
{
    struct mn_record_fields f = mn_record_fields(record);
    const uint8_t *base = (const uint8_t *)record;
    uint64_t used;
    if (record->op == MN_RECORD_IDEM && !MN_BUG(idem_forgotten))
        return put_encoded(ledger, base + f.content, MN_CONTENT_LENGTH(record->content_bytes), &used);
    if (record->op == MN_RECORD_PUT && (record->flags & MN_RECORD_ASSIGNED) && !MN_BUG(id_given_twice))
        return mn_ledger_raise_id(ledger, (struct mn_str){(const char *)base + f.space, record->space_bytes},
                                  record->id.lo + 1);
    return MN_OK;
}

/* ---- the file ---- */

struct file_head {
    char magic[8];
    uint32_t entries, spaces;
};

static uint64_t file_bytes(const struct mn_ledger *l)
{
    uint64_t bytes = sizeof(struct file_head) + 4 + l->marks.bytes;
    for (uint64_t i = l->first; i < l->first + l->count; i++)
        bytes += MN_IDEM_RECORD_MAX(entry_at(l, i)->run_count);
    for (uint32_t i = 0; i < l->space_max; i++)
        bytes += l->spaces[i].name ? 12 + l->spaces[i].length : 0;
    return bytes;
}

static enum mn_status write_under(const struct mn_ledger *ledger, const struct mn_io *io, const char *path,
                                  int64_t expire_before_ns, uint32_t seed)
{
    uint8_t *data = malloc(file_bytes(ledger));
    if (!data)
        return MN_FAIL(MN_INTERNAL, "no memory to write the ledger");
    struct file_head head = {.magic = MAGIC};
    uint8_t *to = data + sizeof head;
    for (uint64_t i = ledger->first; i < ledger->first + ledger->count; i++) {
        if (entry_at(ledger, i)->wall_ns < expire_before_ns)
            continue;
        to += mn_idem_encode(entry_at(ledger, i), to);
        head.entries++;
    }
    for (uint32_t i = 0; i < ledger->space_max; i++) {
        const struct space_counter *c = &ledger->spaces[i];
        if (!c->name)
            continue;
        memcpy(to, &c->next_id, 8);
        memcpy(to + 8, &c->length, 4);
        memcpy(to + 12, c->name, c->length);
        to += 12 + c->length;
        head.spaces++;
    }
    memcpy(data, &head, sizeof head);
    if (ledger->marks.bytes > 0)
        memcpy(to, ledger->marks.data, ledger->marks.bytes);
    to += ledger->marks.bytes;
    uint32_t crc = mn_crc32c(seed, data, (size_t)(to - data));
    memcpy(to, &crc, 4);
    enum mn_status status = mn_io_replace(io, path, data, (size_t)(to + 4 - data));
    free(data);
    return status;
}

static enum mn_status parse(struct mn_ledger *l, const uint8_t *data, uint64_t bytes, const char *path, uint32_t seed)
{
    struct file_head head;
    uint32_t crc;
    if (bytes < sizeof head + 4)
        return MN_FAIL(MN_CORRUPT, "%s is too short for a ledger", path);
    memcpy(&head, data, sizeof head);
    memcpy(&crc, data + bytes - 4, 4);
    if (memcmp(head.magic, MAGIC, 8) != 0 || crc != mn_crc32c(seed, data, bytes - 4))
        return MN_FAIL(MN_CORRUPT, "%s does not match its checksum", path);
    const uint8_t *at = data + sizeof head, *end = data + bytes - 4;
    for (uint32_t i = 0; i < head.entries; i++) {
        uint64_t used;
        MN_TRY(put_encoded(l, at, (uint64_t)(end - at), &used));
        at += used;
    }
    for (uint32_t i = 0; i < head.spaces; i++) {
        uint64_t next;
        struct mn_str space;
        if (end - at < 12)
            return MN_FAIL(MN_CORRUPT, "%s ends early", path);
        memcpy(&next, at, 8);
        memcpy(&space.length, at + 8, 4);
        space.data = (const char *)at + 12;
        if (space.length > MN_SPACE_BYTES_MAX || (uint64_t)(end - at) < 12u + space.length)
            return MN_FAIL(MN_CORRUPT, "%s names a space of impossible length", path);
        MN_TRY(mn_ledger_raise_id(l, space, next));
        at += 12 + space.length;
    }
    return mn_ledger_marks_load(&l->marks, at, (uint64_t)(end - at));
}

static enum mn_status read_under(struct mn_ledger *ledger, const struct mn_io *io, const char *path, uint32_t seed)
{
    void *data;
    size_t bytes;
    MN_TRY(mn_io_slurp(io, path, FILE_BYTES_MAX, &data, &bytes));
    enum mn_status status = parse(ledger, data, bytes, path, seed);
    free(data);
    return status;
}

enum mn_status mn_ledger_read(struct mn_ledger *ledger, const struct mn_io *io, const char *path)
{
    return read_under(ledger, io, path, 0);
}

enum mn_status mn_ledger_write(const struct mn_ledger *ledger, const struct mn_io *io, const char *path,
                               int64_t expire_before_ns)
{
    return write_under(ledger, io, path, expire_before_ns, 0);
}

/* Another store's ledger, or one of another seq, does not match its checksum here. */
static uint32_t place_seed(const struct mn_store *store, uint64_t seq)
{
    return mn_crc32c(mn_crc32c(0, store->uuid, sizeof store->uuid), &seq, sizeof seq);
}

static char *ledger_path(const struct mn_store *store, uint64_t seq, char path[MN_PATH_MAX])
{
    char name[64];
    snprintf(name, sizeof name, "ledger.%llu", (unsigned long long)seq);
    return mn_store_path(store, path, name);
}

enum mn_status mn_ledger_load(struct mn_ledger *ledger, const struct mn_store *store, uint64_t seq)
{
    char path[MN_PATH_MAX];
    return read_under(ledger, store->io, ledger_path(store, seq, path), place_seed(store, seq));
}

enum mn_status mn_ledger_save(const struct mn_ledger *ledger, const struct mn_store *store, uint64_t seq,
                              int64_t expire_before_ns)
{
    char path[MN_PATH_MAX];
    struct mn_ledger *again;
    MN_TRY(write_under(ledger, store->io, ledger_path(store, seq, path), expire_before_ns, place_seed(store, seq)));
    /* Read back: the log that it stands for is about to go. */
    MN_TRY(mn_ledger_new(&again));
    enum mn_status status = mn_ledger_load(again, store, seq);
    mn_ledger_free(again);
    return status;
}
