/*
 * shared.c - the fingerprint of the engine's shared structs.
 */
#include "engine/shared.h"

#define FIELD_TEXT(offset, type, name, dims, help) #offset " " #type " " #name #dims ";"
#define STRUCT_TEXT(tag, FIELDS, size) #tag "{" FIELDS(FIELD_TEXT, FIELD_TEXT) "}"

uint64_t mn_engine_fingerprint(void)
{
    return mn_layout_hash(mn_layout_fingerprint(), MN_ENGINE_LAYOUT_TABLE(STRUCT_TEXT));
}

#define CHECK_ROW(offset, type, name, dims, help)                                                                      \
    _Static_assert(offsetof(struct mn_tail_row, name) == (offset), "mn_tail_row." #name " has moved");
#define CHECK_TAIL(offset, type, name, dims, help)                                                                     \
    _Static_assert(offsetof(struct mn_tail_header, name) == (offset), "mn_tail_header." #name " has moved");
#define CHECK_STRING(offset, type, name, dims, help)                                                                   \
    _Static_assert(offsetof(struct mn_tail_string, name) == (offset), "mn_tail_string." #name " has moved");
#define CHECK_LIVE(offset, type, name, dims, help)                                                                     \
    _Static_assert(offsetof(struct mn_live, name) == (offset), "mn_live." #name " has moved");
#define CHECK_COLUMNS(offset, type, name, dims, help)                                                                  \
    _Static_assert(offsetof(struct mn_view_columns, name) == (offset), "mn_view_columns." #name " has moved");
#define CHECK_CHUNK(offset, type, name, dims, help)                                                                    \
    _Static_assert(offsetof(struct mn_view_chunk, name) == (offset), "mn_view_chunk." #name " has moved");
#define CHECK_VIEW(offset, type, name, dims, help)                                                                     \
    _Static_assert(offsetof(struct mn_view, name) == (offset), "mn_view." #name " has moved");
MN_TAIL_ROW_FIELDS(CHECK_ROW, CHECK_ROW)
MN_TAIL_HEADER_FIELDS(CHECK_TAIL, CHECK_TAIL)
MN_TAIL_STRING_FIELDS(CHECK_STRING, CHECK_STRING)
MN_LIVE_FIELDS(CHECK_LIVE, CHECK_LIVE)
MN_VIEW_COLUMNS_FIELDS(CHECK_COLUMNS, CHECK_COLUMNS)
MN_VIEW_CHUNK_FIELDS(CHECK_CHUNK, CHECK_CHUNK)
MN_VIEW_FIELDS(CHECK_VIEW, CHECK_VIEW)
