/*
 * shared.c - the fingerprint of the engine's shared structs.
 */
#include "engine/shared.h"

uint64_t mn_engine_fingerprint(void)
{
    return mn_layout_hash(mn_layout_fingerprint(), MN_ENGINE_LAYOUT_TABLE(MN_STRUCT_TEXT));
}
