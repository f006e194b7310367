/*
 * layout.c - the words of the shared enums, and the fingerprint of the shared structs.
 */
#include "shm/layout.h"

#include "shm/status.h"

#define X(name, word) word,
static const char *const role_words[] = {MN_ROLE_TABLE(X)};
static const char *const role_state_words[] = {MN_ROLE_STATE_TABLE(X)};
static const char *const store_state_words[] = {MN_STORE_STATE_TABLE(X)};
static const char *const metric_words[] = {MN_METRIC_TABLE(X)};
static const char *const scheduling_words[] = {MN_SCHEDULING_TABLE(X)};
#undef X

#define WORD_OF(function, words)                                                                                       \
    const char *function(unsigned n)                                                                                   \
    {                                                                                                                  \
        return n < MN_ARRAY_LEN(words) ? words[n] : "?";                                                               \
    }
WORD_OF(mn_role_word, role_words)
WORD_OF(mn_role_state_word, role_state_words)
WORD_OF(mn_store_state_word, store_state_words)
WORD_OF(mn_metric_word, metric_words)
WORD_OF(mn_scheduling_word, scheduling_words)

uint64_t mn_layout_hash(uint64_t hash, const char *text)
{
    for (; *text; text++)
        hash = (hash ^ (uint8_t)*text) * UINT64_C(0x100000001b3);
    return hash;
}

uint64_t mn_layout_fingerprint(void)
{
    return mn_layout_hash(UINT64_C(0xcbf29ce484222325), MN_LAYOUT_TABLE(MN_STRUCT_TEXT));
}
