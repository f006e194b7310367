/*
 * live_codes.c - the codes of a live store (see live_codes.h).
 */
#include "tests/unit/live_codes.h"

#include "engine/ivf_file.h"

int live_codes_setup(void **state)
{
    struct live_store *s = live_store_new();
    s->policy.fanout = 64; /* no merges but those asked for */
    *state = s;
    return s ? 0 : -1;
}

int live_codes_teardown(void **state)
{
    live_store_free(*state);
    return 0;
}

void live_add_segment(struct live_store *s, uint32_t space, uint32_t id, uint32_t count)
{
    live_remember(s, space, id, count);
    live_seal(s);
    assert_true(live_compact(s, false));
}

uint32_t live_care_all(struct live_store *s)
{
    struct mn_compact_care care;
    uint32_t steps = 0;
    while (live_care(s, &care)) {
        live_check(s);
        steps += !care.tuned;
        assert_true(steps < 100);
    }
    assert_true(care.sound);
    return steps;
}

uint64_t live_codebook(struct live_store *s)
{
    struct mn_manifest m = live_manifest(s);
    uint64_t gen = m.codebook;
    mn_manifest_free(&m);
    return gen;
}

void live_all_on(struct live_store *s, uint64_t gen)
{
    struct mn_manifest m = live_manifest(s);
    assert_int_equal(m.codebook, gen);
    for (uint32_t i = 0; i < m.segment_count; i++)
        assert_int_equal(m.segments[i].codebook, gen);
    mn_manifest_free(&m);
}

bool live_ivf_there(const struct live_store *s, uint64_t segment, uint64_t gen)
{
    char path[MN_PATH_MAX];
    return file_exists(mn_ivf_path(&s->store, path, segment, gen));
}

uint64_t live_only_segment(struct live_store *s)
{
    struct mn_manifest m = live_manifest(s);
    assert_int_equal(m.segment_count, 1);
    uint64_t id = m.segments[0].id;
    mn_manifest_free(&m);
    return id;
}

uint32_t live_uncoded(struct live_store *s)
{
    struct mn_snapshot snapshot;
    ok(mn_reader_pin(s->reader, 0, &snapshot));
    mn_reader_unpin(s->reader);
    return snapshot.uncoded;
}
