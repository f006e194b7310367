/*
 * filter_inside.h - what filter.c and filter_walk.c share, and nobody else sees.
 */
#ifndef MN_ENGINE_FILTER_INSIDE_H
#define MN_ENGINE_FILTER_INSIDE_H

#include "engine/filter.h"

/* Chooses where the rows of [first, last) come from that may match, once the scope is in the part's numbers, and begins
 * the walk over them. */
void mn_matcher_choose(struct mn_matcher *matcher);

#endif
