/*
 * cli_damage.h - what a damaged piece of a store or a snapshot means to a person, and what may be done about it.
 */
#ifndef MNEME_OPS_CLI_CLI_DAMAGE_H
#define MNEME_OPS_CLI_CLI_DAMAGE_H

struct mn_cli_damage {
    const char *in;      /* a part of its path */
    const char *means;   /* what it is */
    const char *next;    /* what is to be done about it in a store */
    const char *missing; /* what a store lacks that is restored from it all the same */
};

/* What the damage of the file at `path` means; there is always an answer. */
const struct mn_cli_damage *mn_cli_damage_of(const char *path);

#endif
