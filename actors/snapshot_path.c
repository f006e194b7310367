/*
 * snapshot_path.c - a client names a path; the supervisor's user would write there. See snapshot_path.h.
 */
#include "actors/snapshot_path.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "config/settings.h"

/* True when `path` is `folder` or lies below it. Both are resolved. */
static bool lies_in(const char *path, const char *folder)
{
    size_t n = strlen(folder);
    if (n == 1)
        return true; /* "/" */
    return strncmp(path, folder, n) == 0 && (path[n] == 0 || path[n] == '/');
}

static bool allowed_by_roots(const struct mn_store *store, const char *roots, const char *parent)
{
    char root[MN_SETTINGS_LIST_MAX], resolved[MN_PATH_MAX];
    bool any = false;
    while (mn_settings_list_next(&roots, root, sizeof root)) {
        any = true;
        if (realpath(root, resolved) && lies_in(parent, resolved))
            return true;
    }
    if (any || !realpath(store->dir, resolved))
        return false;
    char *slash = strrchr(resolved, '/');
    slash[slash == resolved] = 0;
    return lies_in(parent, resolved);
}

/* Splits into parent and last name; both copies. Slashes at the end do not count. */
static enum mn_status split(struct mn_str path, char *parent, char *name)
{
    if (path.length == 0 || path.length >= MN_PATH_MAX || path.data[0] != '/' ||
        memchr(path.data, 0, path.length) != NULL)
        return MN_FAIL(MN_BAD_REQUEST, "path must be an absolute path of at most %d bytes", MN_PATH_MAX - 1);
    memcpy(parent, path.data, path.length);
    parent[path.length] = 0;
    size_t n = path.length;
    while (n > 1 && parent[n - 1] == '/')
        parent[--n] = 0;
    char *slash = strrchr(parent, '/');
    strcpy(name, slash + 1);
    slash[slash == parent] = 0;
    if (name[0] == 0 || strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
        return MN_FAIL(MN_BAD_REQUEST, "path must end in the name of the folder to be made");
    return MN_OK;
}

enum mn_status mn_snapshot_path_check(const struct mn_store *store, const char *roots, struct mn_str path,
                                      char *resolved)
{
    char parent[MN_PATH_MAX], name[MN_PATH_MAX], real_parent[MN_PATH_MAX], real_store[MN_PATH_MAX];
    struct stat st;
    MN_TRY(split(path, parent, name));
    bool there = realpath(parent, real_parent) != NULL;
    if (!there && errno != ENOENT && errno != ENOTDIR)
        return MN_FAIL(MN_UNAUTHORIZED, "the folder that path lies in cannot be looked into");
    if (there && !allowed_by_roots(store, roots, real_parent))
        return MN_FAIL(MN_UNAUTHORIZED,
                       "path lies outside snapshot.roots (by default the folder that holds the data folder)");
    if (!there)
        return MN_FAIL(MN_BAD_REQUEST, "the folder that path lies in does not exist");
    int n = snprintf(resolved, MN_PATH_MAX, "%s/%s", real_parent[1] ? real_parent : "", name);
    if (n < 0 || n >= MN_PATH_MAX)
        return MN_FAIL(MN_BAD_REQUEST, "path must be an absolute path of at most %d bytes", MN_PATH_MAX - 1);
    if (realpath(store->dir, real_store) && lies_in(resolved, real_store) && strcmp(resolved, real_store) != 0)
        return MN_FAIL(MN_UNAUTHORIZED, "path lies inside the store");
    return lstat(resolved, &st) == 0 ? MN_FAIL(MN_EXISTS, "%s exists already: give a path that does not", resolved)
                                     : MN_OK;
}
