/*
 * senses.c - see senses.h. The store is as it was made; what changes is what the judge believes was written, so that
 * each kind of failure is shown to him once, as a broken engine would.
 */
#include "tests/faults/corruption/senses.h"

#include <stdio.h>

#include "tests/faults/corruption/lanes.h"

/* The last memory that is there. */
static struct specimen_memory *victim(struct specimen *s)
{
    struct specimen_memory *m = &s->memories[s->memory_count - 1];
    while (!m->there)
        m--;
    return m;
}

static struct verdict judged(struct judge *judge, const struct specimen *s)
{
    struct verdict v;
    judge_case(judge, s, NULL, &v);
    return v;
}

/* A memory that was acknowledged and is nowhere. */
static bool sees_lost(struct judge *judge, struct specimen *s)
{
    struct specimen_memory *m = &s->memories[s->memory_count++];
    *m = (struct specimen_memory){.space = 0, .id = {.lo = 999999}, .there = true, .version = 1, .row_bytes = 1};
    struct verdict v = judged(judge, s);
    s->memory_count--;
    return v.lost == 1;
}

static bool sees_forgotten(struct judge *judge, struct specimen *s)
{
    struct specimen_memory *m = victim(s);
    m->there = false;
    struct verdict v = judged(judge, s);
    m->there = true;
    return v.risen > 0;
}

static bool sees_replaced(struct judge *judge, struct specimen *s)
{
    struct specimen_memory *m = victim(s);
    m->version++;
    m->row[0] ^= 1;
    struct verdict v = judged(judge, s);
    m->version--;
    m->row[0] ^= 1;
    return v.risen > 0;
}

static bool sees_wrong_bits(struct judge *judge, struct specimen *s)
{
    struct specimen_memory *m = victim(s);
    bool all = true;
    for (size_t at = 0; at < m->row_bytes; at++) {
        m->row[at] ^= 0x10;
        all &= judged(judge, s).wrong > 0;
        m->row[at] ^= 0x10;
    }
    return all;
}

/* A row that nobody wrote. */
static bool sees_strangers(struct judge *judge, struct specimen *s)
{
    struct specimen_memory *m = victim(s);
    m->id.lo ^= UINT64_C(1) << 40;
    m->there = false;
    struct verdict v = judged(judge, s);
    m->id.lo ^= UINT64_C(1) << 40;
    m->there = true;
    return v.wrong > 0;
}

/* A damage that verify does not tell of: there is none, and the judge is told that there is. */
static bool sees_undetected(struct judge *judge, struct specimen *s)
{
    struct damage_group group = {.specimen = s, .file = 0, .kind = DAMAGE_FLIP, .count = 2, .step = 1};
    struct damage damage = {.group = &group};
    struct verdict v;
    struct tally tally = {0};
    char text[800];
    judge_case(judge, s, &damage, &v);
    return !lanes_good(&damage, &v, &tally, text) && tally.undetected == 1;
}

static bool sees_refusal(struct judge *judge, struct specimen *s)
{
    disk_remove("STORE");
    disk_remove("STORE.copy");
    struct verdict v = judged(judge, s);
    disk_reset();
    return v.refused;
}

bool senses_work(struct judge *judge, struct specimen *specimen)
{
    static const struct {
        const char *of;
        bool (*work)(struct judge *judge, struct specimen *specimen);
    } senses[] = {
        {"a memory that is lost", sees_lost},
        {"one that was forgotten and is served", sees_forgotten},
        {"an old version that is served", sees_replaced},
        {"one wrong bit", sees_wrong_bits},
        {"a row that nobody wrote", sees_strangers},
        {"a damage that verify does not tell of", sees_undetected},
        {"a store that does not start", sees_refusal},
    };
    bool all = true;
    for (size_t i = 0; i < MN_ARRAY_LEN(senses); i++) {
        if (senses[i].work(judge, specimen))
            continue;
        fprintf(stderr, "the judge of %s does not see %s\n", specimen_names[specimen->shape], senses[i].of);
        all = false;
    }
    return all;
}
