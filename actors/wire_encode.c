/*
 * wire_encode.c - memories and hits into a reply (see wire_encode.h).
 */
#include "actors/wire_encode.h"

#include "actors/wire_meta.h"

/* What a memory will carry: known before the head of its map is packed. */
struct row {
    const struct mn_part *part;
    uint32_t row;
    uint32_t fields;  /* those that it has */
    uint32_t damaged; /* those that cannot be read */
    struct mn_str content, meta;
    bool content_bin;
    const float *embedding;
};

static bool wants(uint32_t fields, enum mn_field field)
{
    return (fields & MN_FIELD_BIT(field)) != 0;
}

static enum mn_status look_at_embedding(struct row *row)
{
    row->embedding = mn_part_vector(row->part, row->row);
    return row->embedding ? MN_OK : MN_FAIL(MN_CORRUPT, "the embedding lies in a damaged block; verify tells more");
}

/* A field that was asked for: the memory has it, does not, or it cannot be read. */
static enum mn_status settle(struct row *row, enum mn_field field, enum mn_status status, bool has)
{
    uint32_t bit = MN_FIELD_BIT(field);
    if (status == MN_CORRUPT)
        row->damaged |= bit;
    else
        MN_TRY(status);
    if (status == MN_CORRUPT || !has)
        row->fields &= ~bit;
    return MN_OK;
}

static enum mn_status look(const struct mn_snapshot *snapshot, struct mn_row_ref ref, const struct mn_want *want,
                           struct row *row)
{
    uint32_t fields = want->fields | (want->space ? MN_FIELD_BIT(MN_FIELD_SPACE) : 0);
    enum mn_status status;
    *row = (struct row){.part = &snapshot->parts[ref.part], .row = ref.row, .fields = fields};
    if (wants(fields, MN_FIELD_CONTENT)) {
        status = mn_part_content(row->part, row->row, &row->content, &row->content_bin);
        MN_TRY(settle(row, MN_FIELD_CONTENT, status, row->content.data != NULL));
    }
    if (wants(fields, MN_FIELD_META)) {
        status = mn_part_meta(row->part, row->row, &row->meta);
        MN_TRY(settle(row, MN_FIELD_META, status, row->meta.length > 0));
    }
    if (wants(fields, MN_FIELD_EXPIRES))
        MN_TRY(settle(row, MN_FIELD_EXPIRES, MN_OK, mn_part_expires(row->part, row->row) != MN_NEVER));
    return wants(fields, MN_FIELD_EMBEDDING) ? settle(row, MN_FIELD_EMBEDDING, look_at_embedding(row), true) : MN_OK;
}

static void pack_damaged(struct mn_reply *reply, const struct row *row)
{
    if (row->damaged == 0)
        return;
    mn_reply_key(reply, "damaged");
    msgpack_pack_array(&reply->pack, (uint32_t)__builtin_popcount(row->damaged));
    for (uint32_t field = 0; field < MN_FIELDS; field++)
        if (wants(row->damaged, field)) {
            const char *word = mn_field_word(field);
            mn_reply_pack_str(reply, (struct mn_str){word, (uint32_t)strlen(word)});
        }
}

static void pack_tags(struct mn_reply *reply, const struct row *row)
{
    const uint32_t *tags;
    uint32_t count = mn_part_tags(row->part, row->row, &tags);
    mn_reply_key(reply, "tags");
    msgpack_pack_array(&reply->pack, count);
    for (uint32_t i = 0; i < count; i++)
        mn_reply_pack_str(reply, mn_part_string(row->part, tags[i]));
}

static void pack_content(struct mn_reply *reply, const struct row *row)
{
    mn_reply_key(reply, "content");
    if (row->content_bin)
        mn_reply_pack_bin(reply, row->content.data, row->content.length);
    else
        mn_reply_pack_str(reply, row->content);
}

/* id and version, which every memory has, and the fields. */
static enum mn_status pack_fields(struct mn_reply *reply, const struct row *row)
{
    const struct mn_part *part = row->part;
    mn_reply_key(reply, "id");
    mn_reply_pack_id(reply, mn_part_id(part, row->row));
    mn_reply_uint(reply, "version", mn_part_born(part, row->row));
    if (wants(row->fields, MN_FIELD_SPACE))
        mn_reply_str(reply, "space", mn_part_string(part, mn_part_space(part, row->row)));
    if (wants(row->fields, MN_FIELD_CONTENT))
        pack_content(reply, row);
    if (wants(row->fields, MN_FIELD_TAGS))
        pack_tags(reply, row);
    if (wants(row->fields, MN_FIELD_AT))
        mn_reply_int(reply, "at", mn_part_at(part, row->row));
    if (wants(row->fields, MN_FIELD_CONFIDENCE)) {
        mn_reply_key(reply, "confidence");
        msgpack_pack_float(&reply->pack, mn_part_confidence(part, row->row));
    }
    if (wants(row->fields, MN_FIELD_EXPIRES))
        mn_reply_int(reply, "expires", mn_part_expires(part, row->row));
    if (wants(row->fields, MN_FIELD_EMBEDDING)) {
        mn_reply_key(reply, "embedding");
        mn_reply_pack_bin(reply, row->embedding, part->dim * sizeof(float));
    }
    pack_damaged(reply, row);
    if (!wants(row->fields, MN_FIELD_META))
        return MN_OK;
    mn_reply_key(reply, "meta");
    return mn_wire_meta_pack(reply, row->meta);
}

static uint32_t members(const struct row *row)
{
    return 2 + (uint32_t)__builtin_popcount(row->fields) + (row->damaged != 0);
}

static enum mn_status pack_memory(struct mn_reply *reply, const struct row *row)
{
    msgpack_pack_map(&reply->pack, members(row));
    return pack_fields(reply, row);
}

enum mn_status mn_encode_memory(struct mn_reply *reply, const struct mn_snapshot *snapshot, struct mn_row_ref ref,
                                const struct mn_want *want)
{
    struct row row;
    if (ref.part == MN_NONE) {
        msgpack_pack_nil(&reply->pack);
        return MN_OK;
    }
    MN_TRY(look(snapshot, ref, want, &row));
    if (row.damaged == 0)
        return pack_memory(reply, &row);
    char id[MN_ID_TEXT_MAX];
    mn_id_text(mn_part_id(row.part, row.row), id);
    return MN_FAIL(MN_CORRUPT, "what was asked for of memory %s lies in a damaged block; verify tells more", id);
}

enum mn_status mn_encode_memories(struct mn_reply *reply, const struct mn_snapshot *snapshot,
                                  const struct mn_row_ref *refs, uint32_t count, const struct mn_want *want,
                                  uint64_t *damaged)
{
    struct row row;
    msgpack_pack_array(&reply->pack, count);
    for (uint32_t i = 0; i < count && !mn_reply_over(reply); i++) {
        MN_TRY(look(snapshot, refs[i], want, &row));
        *damaged += row.damaged != 0;
        MN_TRY(pack_memory(reply, &row));
    }
    return MN_OK;
}

/* What the score was made of: similarity x confidence x decay (PROTOCOL.md, rank). */
static void pack_parts(struct mn_reply *reply, const struct mn_rank *rank, const struct mn_hit *hit)
{
    double weight = rank->confidence_weight;
    mn_reply_key(reply, "parts");
    msgpack_pack_map(&reply->pack, 3);
    mn_reply_double(reply, "similarity", hit->similarity > 0 ? hit->similarity : 0);
    mn_reply_double(reply, "confidence", 1 - weight + weight * (double)hit->confidence);
    mn_reply_double(reply, "decay", hit->decay);
}

static enum mn_status pack_context(struct mn_reply *reply, struct mn_encode_hits *how, struct mn_row_ref ref)
{
    uint32_t before, after;
    MN_TRY(mn_read_context(how->reading, how->snapshot, ref, how->context, &before, &after));
    mn_reply_key(reply, "before");
    MN_TRY(mn_encode_memories(reply, how->snapshot, how->reading->rows, before, how->want, &how->damaged));
    mn_reply_key(reply, "after");
    return mn_encode_memories(reply, how->snapshot, how->reading->rows + before, after, how->want, &how->damaged);
}

static enum mn_status pack_hit(struct mn_reply *reply, struct mn_encode_hits *how, const struct mn_hit *hit)
{
    struct mn_row_ref ref = {hit->part, hit->row};
    struct row row;
    MN_TRY(look(how->snapshot, ref, how->want, &row));
    how->damaged += row.damaged != 0;
    msgpack_pack_map(&reply->pack, members(&row) + 2 + (how->query->rank.on ? 1 : 0) + (how->context ? 2 : 0));
    mn_reply_double(reply, "score", hit->score);
    mn_reply_double(reply, "similarity", hit->similarity);
    if (how->query->rank.on)
        pack_parts(reply, &how->query->rank, hit);
    MN_TRY(pack_fields(reply, &row));
    return how->context ? pack_context(reply, how, ref) : MN_OK;
}

enum mn_status mn_encode_hits(struct mn_reply *reply, struct mn_encode_hits *how, const struct mn_hit *hits,
                              uint32_t count)
{
    msgpack_pack_array(&reply->pack, count);
    for (uint32_t i = 0; i < count && !mn_reply_over(reply); i++)
        MN_TRY(pack_hit(reply, how, &hits[i]));
    return MN_OK;
}
