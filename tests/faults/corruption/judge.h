/*
 * judge.h - what a store makes of a damage: verify, recovery, and everything that a reader sees, held against the
 * specimen.
 */
#ifndef MN_TESTS_JUDGE_H
#define MN_TESTS_JUDGE_H

#include "shm/instance.h"
#include "tests/faults/corruption/damage.h"

struct verdict {
    bool told;        /* verify has reported something */
    bool refused;     /* the store did not start */
    bool degraded;    /* recovery or a reader has noticed, too */
    bool unsteady;    /* recovering a second time gave something else */
    uint32_t missing; /* memories that lay in what is damaged and cannot be read */
    uint32_t lost;    /* missing ones that did not lie there */
    uint32_t risen;   /* forgotten ones, or old versions, that are served */
    uint32_t unknown; /* the same, where nothing is left that knows better */
    uint32_t wrong;   /* bytes that nobody wrote */
    char what[512];   /* the first of them, in words */
};

/* One instance in shared memory, used for every case of a process. */
struct judge {
    char dir[256];
    struct mn_instance instance;
    void *control; /* as it was made */
    bool loud;     /* says what it finds as it goes */
};

/* dir: an existing folder with a wal/ in it, for locks. False, with a sentence on stderr: no shared memory. */
bool judge_open(struct judge *judge, const char *dir);
void judge_close(struct judge *judge);

/* Judges the mounted disk of a specimen. damage NULL: there is none. */
void judge_case(struct judge *judge, const struct specimen *specimen, const struct damage *damage,
                struct verdict *verdict);

#endif
