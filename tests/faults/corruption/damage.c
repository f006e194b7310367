/*
 * damage.c - see damage.h.
 */
#include "tests/faults/corruption/damage.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "engine/crc.h"
#include "engine/record.h"

#define SECTOR 512u
#define BLOCK  4096u

#define X(name, word, help) word,
const char *const damage_words[DAMAGE_KINDS] = {DAMAGE_TABLE(X)};
#undef X

const char *const damage_file_names[DAMAGE_FILES] = {"log",   "columns", "liveness",        "codes", "manifest",
                                                     "STORE", "ledger",  "high-water mark", "notes"};

static bool begins(const char *name, const char *with)
{
    return strncmp(name, with, strlen(with)) == 0;
}

static bool is_log(const char *name)
{
    return begins(name, "wal/") && strstr(name, ".wal");
}

enum damage_file damage_file_of(const char *name)
{
    if (begins(name, "wal/"))
        return is_log(name) ? DAMAGE_LOG : DAMAGE_MARK;
    if (begins(name, "columns/") && !strstr(name, "/ivf."))
        return strstr(name, "/died") ? DAMAGE_LIVENESS : DAMAGE_COLUMN;
    if (begins(name, "columns/") || begins(name, "codebooks/"))
        return DAMAGE_CODES;
    if (begins(name, "quarantine/"))
        return DAMAGE_NOTE;
    return begins(name, "MANIFEST") ? DAMAGE_MANIFEST : begins(name, "STORE") ? DAMAGE_STORE : DAMAGE_LEDGER;
}

/* ---- planning ---- */

static struct damage_group *add_group(struct damage_plan *plan, const struct specimen *s, uint32_t file,
                                      enum damage_kind kind, uint64_t count, uint64_t *where)
{
    if (plan->group_count == plan->group_max) {
        plan->group_max = plan->group_max ? plan->group_max * 2 : 256;
        plan->groups = realloc(plan->groups, plan->group_max * sizeof *plan->groups);
        if (!plan->groups)
            abort();
    }
    struct damage_group *group = &plan->groups[plan->group_count++];
    *group = (struct damage_group){s, file, kind, count, 1, 0, where};
    return group;
}

static uint64_t *places(uint64_t count)
{
    uint64_t *where = calloc(count + 1, sizeof *where);
    if (!where)
        abort();
    return where;
}

/* Bits up to the end of what is used, then the first of each sector. */
static void plan_flips(struct damage_plan *plan, const struct specimen *s, uint32_t file, bool zeros)
{
    const struct disk_blob *blob = s->disk.files[file].blob;
    size_t used = blob->bytes;
    if (!zeros && is_log(s->disk.files[file].name) && blob->bytes > BLOCK) {
        /* The last block is the second copy of the header. */
        size_t end = blob->bytes - BLOCK;
        for (used = end; used > 0 && blob->data[used - 1] == 0;)
            used--;
        used = mn_round_up(used, BLOCK);
        uint64_t sectors = (end - used) / SECTOR, bits = (used + (used > 0 ? BLOCK : 0)) * 8;
        uint64_t *where = places(bits + sectors + BLOCK / SECTOR), n = 0;
        for (uint64_t bit = 0; bit < used * 8; bit++)
            where[n++] = bit;
        for (uint64_t at = used; at < end; at += SECTOR)
            where[n++] = at * 8;
        for (uint64_t at = end; at < blob->bytes && used > 0; at++)
            for (uint32_t bit = 0; bit < 8; bit++)
                where[n++] = at * 8 + bit;
        for (uint64_t at = end; at < blob->bytes && used == 0; at += SECTOR)
            where[n++] = at * 8;
        add_group(plan, s, file, DAMAGE_FLIP, n, where);
        return;
    }
    add_group(plan, s, file, DAMAGE_FLIP, used * 8, NULL);
}

static void plan_steps(struct damage_plan *plan, const struct specimen *s, uint32_t file, enum damage_kind kind,
                       uint32_t step)
{
    uint64_t bytes = s->disk.files[file].blob->bytes, n = 0;
    uint64_t *where = places(bytes / step + 2);
    for (uint64_t at = 0; at < bytes; at += step)
        where[n++] = at;
    if (kind == DAMAGE_CUT && bytes > 0)
        where[n++] = bytes - 1;
    if (kind == DAMAGE_REPEAT && n > 0)
        n--; /* nothing follows the last block */
    add_group(plan, s, file, kind, n, where);
}

/* Where the log's headers are, and what they are made to say: where = offset * 256 + which. */
struct hostility {
    uint32_t field;
    uint64_t value;
};
static const struct hostility of_batches[] = {
    {offsetof(struct mn_batch_header, bytes), 0},          {offsetof(struct mn_batch_header, bytes), 0xfffff000},
    {offsetof(struct mn_batch_header, bytes), 7},          {offsetof(struct mn_batch_header, footer_at), 0},
    {offsetof(struct mn_batch_header, footer_at), ~0u},    {offsetof(struct mn_batch_header, records), 0},
    {offsetof(struct mn_batch_header, records), ~0u},      {offsetof(struct mn_batch_header, footer_bytes), 0},
    {offsetof(struct mn_batch_header, footer_bytes), ~0u},
};
static const struct hostility of_records[] = {
    {offsetof(struct mn_record, payload_bytes), 0},
    {offsetof(struct mn_record, payload_bytes), ~0u},
    {offsetof(struct mn_record, payload_bytes), 0x7fffffc0},
    {offsetof(struct mn_record, vector_bytes), 0},
    {offsetof(struct mn_record, vector_bytes), ~0u},
    {offsetof(struct mn_record, space_bytes), ~0u},
    {offsetof(struct mn_record, tag_count), ~0u},
    {offsetof(struct mn_record, tags_bytes), ~0u},
    {offsetof(struct mn_record, meta_bytes), ~0u},
    {offsetof(struct mn_record, content_bytes), 0x3fffffff},
};

static bool is_batch(const struct disk_blob *blob, uint64_t at)
{
    return at % BLOCK == 0 && memcmp(blob->data + at, &(uint64_t){MN_BATCH_MAGIC}, 8) == 0;
}

static bool is_record(const struct disk_blob *blob, uint64_t at)
{
    return memcmp(blob->data + at, &(uint32_t){MN_RECORD_MAGIC}, 4) == 0;
}

static void plan_hostile(struct damage_plan *plan, const struct specimen *s, uint32_t file)
{
    const struct disk_blob *blob = s->disk.files[file].blob;
    uint64_t *where = places(blob->bytes / MN_RECORD_ALIGN * MN_ARRAY_LEN(of_records)), n = 0;
    for (uint64_t at = 0; at + sizeof(struct mn_record) <= blob->bytes; at += MN_RECORD_ALIGN) {
        size_t ways = is_batch(blob, at)    ? MN_ARRAY_LEN(of_batches)
                      : is_record(blob, at) ? MN_ARRAY_LEN(of_records)
                                            : 0;
        for (size_t way = 0; way < ways; way++)
            where[n++] = at * 256 + way;
    }
    add_group(plan, s, file, DAMAGE_HOSTILE, n, where);
}

static void plan_file(struct damage_plan *plan, const struct specimen *s, uint32_t file, bool zeros)
{
    plan_flips(plan, s, file, zeros);
    plan_steps(plan, s, file, DAMAGE_CUT, SECTOR);
    plan_steps(plan, s, file, DAMAGE_ZERO_BLOCK, BLOCK);
    plan_steps(plan, s, file, DAMAGE_ZERO_SECTOR, SECTOR);
    plan_steps(plan, s, file, DAMAGE_REPEAT, BLOCK);
    add_group(plan, s, file, DAMAGE_GROWN, 4, NULL);
    if (is_log(s->disk.files[file].name))
        plan_hostile(plan, s, file);
    uint64_t *others = places(s->disk.count), n = 0;
    for (uint32_t other = file + 1; other < s->disk.count; other++)
        others[n++] = other;
    add_group(plan, s, file, DAMAGE_SWAP, n, others);
    add_group(plan, s, file, DAMAGE_FOREIGN, 1, NULL);
    add_group(plan, s, file, DAMAGE_GONE, 1, NULL);
}

void damage_plan_add(struct damage_plan *plan, const struct specimen *specimen, bool zeros)
{
    for (uint32_t file = 0; file < specimen->disk.count; file++)
        plan_file(plan, specimen, file, zeros);
}

/* The most that a group may have, so that all of them together come to `cases`: found by halving. */
static uint64_t share_of(const struct damage_plan *plan, uint64_t cases)
{
    uint64_t low = 1, high = UINT64_C(1) << 40;
    while (low + 1 < high) {
        uint64_t middle = low + (high - low) / 2, sum = 0;
        for (uint32_t g = 0; g < plan->group_count; g++)
            sum += plan->groups[g].count < middle ? plan->groups[g].count : middle;
        *(sum <= cases ? &low : &high) = middle;
    }
    return low;
}

void damage_plan_number(struct damage_plan *plan, uint64_t cases)
{
    uint64_t share = cases ? share_of(plan, cases) : UINT64_MAX;
    plan->cases = 0;
    for (uint32_t g = 0; g < plan->group_count; g++) {
        struct damage_group *group = &plan->groups[g];
        group->step = group->count > share ? (group->count + share - 1) / share | 1 : 1;
        group->first = plan->cases;
        plan->cases += (group->count + group->step - 1) / group->step;
    }
}

void damage_plan_free(struct damage_plan *plan)
{
    for (uint32_t g = 0; g < plan->group_count; g++)
        free(plan->groups[g].where);
    free(plan->groups);
    *plan = (struct damage_plan){0};
}

void damage_at(const struct damage_plan *plan, uint64_t number, struct damage *damage)
{
    uint32_t low = 0, high = plan->group_count;
    while (low + 1 < high) { /* an empty group has the number of the next, and is passed over */
        uint32_t middle = low + (high - low) / 2;
        *(plan->groups[middle].first <= number ? &low : &high) = middle;
    }
    const struct damage_group *group = &plan->groups[low];
    uint64_t n = (number - group->first) * group->step;
    *damage = (struct damage){.group = group, .where = group->where ? group->where[n] : n};
}

/* ---- names ---- */

void damage_name(const struct damage *d, char name[256])
{
    const struct specimen *s = d->group->specimen;
    int n = snprintf(name, 256, "%s/%s:%s", specimen_names[s->shape], s->disk.files[d->group->file].name,
                     damage_words[d->group->kind]);
    if (d->group->kind == DAMAGE_SWAP)
        snprintf(name + n, 256 - (size_t)n, ":%s", s->disk.files[d->where].name);
    else if (d->group->kind == DAMAGE_HOSTILE)
        snprintf(name + n, 256 - (size_t)n, ":%" PRIu64 ".%" PRIu64, d->where / 256, d->where % 256);
    else if (d->group->count > 1)
        snprintf(name + n, 256 - (size_t)n, ":%" PRIu64, d->where);
}

bool damage_named(const struct damage_plan *plan, const char *name, struct damage *damage)
{
    char candidate[256];
    for (uint32_t g = 0; g < plan->group_count; g++) {
        const struct damage_group *group = &plan->groups[g];
        for (uint64_t n = 0; n < group->count; n++) {
            *damage = (struct damage){.group = group, .where = group->where ? group->where[n] : n};
            damage_name(damage, candidate);
            if (strcmp(candidate, name) == 0)
                return true;
            if (n == 0 && strncmp(candidate, name, strcspn(candidate, ":")) != 0)
                break; /* another file */
        }
    }
    return false;
}

/* ---- doing it ---- */

static const struct disk_file *file_of(const struct damage *d)
{
    return &d->group->specimen->disk.files[d->group->file];
}

static void put_zeros(const struct disk_file *file, uint64_t at, uint64_t bytes)
{
    uint8_t *data = malloc(file->blob->bytes);
    if (!data)
        abort();
    memcpy(data, file->blob->data, file->blob->bytes);
    memset(data + at, 0, file->blob->bytes - at < bytes ? file->blob->bytes - at : bytes);
    disk_put(file->name, data, file->blob->bytes);
    free(data);
}

static void put_repeat(const struct disk_file *file, uint64_t at)
{
    uint64_t left = file->blob->bytes - at - BLOCK;
    uint8_t *data = malloc(file->blob->bytes);
    if (!data)
        abort();
    memcpy(data, file->blob->data, file->blob->bytes);
    memcpy(data + at + BLOCK, data + at, left < BLOCK ? left : BLOCK);
    disk_put(file->name, data, file->blob->bytes);
    free(data);
}

static void put_grown(const struct disk_file *file, uint64_t way)
{
    const size_t more[] = {1, SECTOR, BLOCK, file->blob->bytes};
    uint8_t *data = calloc(1, file->blob->bytes + more[way] + 1);
    if (!data)
        abort();
    memcpy(data, file->blob->data, file->blob->bytes);
    for (size_t i = 0; way < 2 && i < more[way]; i++)
        data[file->blob->bytes + i] = (uint8_t)(i * 131 + 7);
    if (way == 3)
        memcpy(data + file->blob->bytes, file->blob->data, more[way]);
    disk_put(file->name, data, file->blob->bytes + more[way]);
    free(data);
}

static void put_hostile(const struct disk_file *file, uint64_t at, uint64_t way)
{
    uint8_t *data = malloc(file->blob->bytes);
    if (!data)
        abort();
    memcpy(data, file->blob->data, file->blob->bytes);
    bool batch = is_batch(file->blob, at);
    const struct hostility *h = batch ? &of_batches[way] : &of_records[way];
    size_t crc_at = batch ? offsetof(struct mn_batch_header, crc) : offsetof(struct mn_record, crc);
    uint32_t value = (uint32_t)h->value, salt = ((const struct mn_wal_header *)(const void *)file->blob->data)->salt;
    memcpy(data + at + h->field, &value, sizeof value);
    uint32_t crc = mn_crc32c(salt ^ (uint32_t)at, data + at, crc_at);
    memcpy(data + at + crc_at, &crc, sizeof crc);
    disk_put(file->name, data, file->blob->bytes);
    free(data);
}

static void put_foreign(const struct damage *d)
{
    const struct disk *other = &d->group->specimen->other;
    const char *name = file_of(d)->name;
    for (uint32_t i = 0; i < other->count; i++)
        if (strcmp(other->files[i].name, name) == 0)
            disk_put(name, other->files[i].blob->data, other->files[i].blob->bytes);
}

static void put_damage(struct damage *d)
{
    const struct disk_file *file = file_of(d);
    switch (d->group->kind) {
    case DAMAGE_CUT:
        disk_put(file->name, file->blob->data, d->where);
        break;
    case DAMAGE_ZERO_BLOCK:
        put_zeros(file, d->where, BLOCK);
        break;
    case DAMAGE_ZERO_SECTOR:
        put_zeros(file, d->where, SECTOR);
        break;
    case DAMAGE_REPEAT:
        put_repeat(file, d->where);
        break;
    case DAMAGE_GROWN:
        put_grown(file, d->where);
        break;
    case DAMAGE_HOSTILE:
        put_hostile(file, d->where / 256, d->where % 256);
        break;
    case DAMAGE_SWAP:
        disk_swap(file->name, d->group->specimen->disk.files[d->where].name);
        break;
    case DAMAGE_FOREIGN:
        put_foreign(d);
        break;
    default:
        disk_remove(file->name);
    }
}

static bool equal(const struct disk_blob *a, const struct disk_blob *b)
{
    return a && b && a->bytes == b->bytes && memcmp(a->data, b->data, a->bytes) == 0;
}

bool damage_do(struct damage *d)
{
    const struct disk_file *files = d->group->specimen->disk.files;
    disk_reset();
    if (d->group->kind == DAMAGE_FLIP) {
        disk_flip(file_of(d)->name, d->where);
        return true;
    }
    put_damage(d);
    d->files[d->file_count++] = d->group->file;
    if (d->group->kind == DAMAGE_SWAP)
        d->files[d->file_count++] = (uint32_t)d->where;
    bool changed = false;
    for (uint32_t i = 0; i < d->file_count; i++) {
        d->after[i] = disk_find(files[d->files[i]].name);
        changed |= !equal(d->after[i], files[d->files[i]].blob);
    }
    return changed;
}

void damage_undo(const struct damage *d)
{
    disk_reset();
    if (d->group->kind == DAMAGE_FLIP)
        disk_flip(file_of(d)->name, d->where);
}

/* ---- what it has touched ---- */

/* The file's name tells whether the memory's row is in it. */
static bool holds(const char *name, const struct specimen_memory *m)
{
    char own[64];
    enum damage_file kind = damage_file_of(name);
    if (m->wal != 0) {
        snprintf(own, sizeof own, "wal/%08" PRIu64 ".wal", m->wal);
        return strcmp(name, own) == 0;
    }
    snprintf(own, sizeof own, "columns/%" PRIu64 "/", m->columns);
    return (kind == DAMAGE_COLUMN || kind == DAMAGE_LIVENESS) && begins(name, own);
}

/* True when any of the bytes [begin, end) of the file that holds the memory is not what it was. */
static bool changes(const struct damage *d, const struct specimen_memory *m, uint64_t begin, uint64_t end)
{
    const struct disk_file *files = d->group->specimen->disk.files;
    if (d->group->kind == DAMAGE_FLIP)
        return holds(file_of(d)->name, m) && (m->wal == 0 || (d->where / 8 >= begin && d->where / 8 < end));
    for (uint32_t i = 0; i < d->file_count; i++) {
        const struct disk_file *before = &files[d->files[i]];
        const struct disk_blob *after = d->after[i];
        if (holds(before->name, m) && (m->wal == 0 || !after || after->bytes < end ||
                                       memcmp(after->data + begin, before->blob->data + begin, end - begin) != 0))
            return true;
    }
    return false;
}

/* True when bytes are lost that hold [begin, end). The log is read in blocks: a cut takes the one that it goes through.
 */
static bool takes(const struct damage *d, const struct specimen_memory *m, uint64_t begin, uint64_t end)
{
    bool cut =
        d->group->kind == DAMAGE_CUT && m->wal != 0 && holds(file_of(d)->name, m) && d->where < mn_round_up(end, BLOCK);
    return cut || changes(d, m, begin, end);
}

bool damage_touches(const struct damage *d, const struct specimen_memory *m)
{
    return takes(d, m, m->begin, m->end);
}

bool damage_silences(const struct damage *d, const struct specimen_memory *m)
{
    return m->wal != 0 && damage_touches(d, m) && takes(d, m, m->footer_begin, m->footer_end);
}
