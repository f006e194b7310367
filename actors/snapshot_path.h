/*
 * snapshot_path.h - where a snapshot may be written: under snapshot.roots, outside the store, to a path that is not
 * taken.
 */
#ifndef MN_ACTORS_SNAPSHOT_PATH_H
#define MN_ACTORS_SNAPSHOT_PATH_H

#include "engine/store.h"

/* Checks what a client asks for and writes the path with every link and ".." of its parent resolved to `resolved`
 * (MN_PATH_MAX bytes). roots: the value of snapshot.roots; empty: the folder that holds the data folder. MN_BAD_REQUEST
 * not absolute, no such parent, no plain last name · MN_UNAUTHORIZED outside the roots or inside the store · MN_EXISTS
 * taken. What exists outside the roots is not told. */
enum mn_status mn_snapshot_path_check(const struct mn_store *store, const char *roots, struct mn_str path,
                                      char *resolved) MN_MUST_USE;

#endif
