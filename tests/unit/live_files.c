/*
 * live_files.c - see live_files.h.
 */
#include "tests/unit/live_files.h"

#include <dirent.h>

uint32_t live_entries(const char *path, const char *prefix)
{
    uint32_t count = 0;
    DIR *dir = opendir(path);
    assert_non_null(dir);
    for (struct dirent *entry; (entry = readdir(dir)) != NULL;)
        count += strncmp(entry->d_name, prefix, strlen(prefix)) == 0 && entry->d_name[0] != '.';
    closedir(dir);
    return count;
}

uint32_t live_folders(const struct live_store *s)
{
    char path[MN_PATH_MAX];
    return live_entries(mn_store_path(&s->store, path, "columns"), "");
}
