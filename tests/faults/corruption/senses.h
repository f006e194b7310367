/*
 * senses.h - is the judge blind? Lies about an undamaged specimen that he must see.
 */
#ifndef MN_TESTS_SENSES_H
#define MN_TESTS_SENSES_H

#include "tests/faults/corruption/judge.h"

/* Tells the judge of each kind of lie; false, with a sentence on stderr, when he does not notice one of them. The
 * specimen is mounted and whole, before and after. */
bool senses_work(struct judge *judge, struct specimen *specimen);

#endif
