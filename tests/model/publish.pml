/*
 * publish.pml - publication of a column segment (engine/columns_write.c, engine/manifest.c, engine/writer_tend.c): after a
 * power cut at any moment, everything that the manifest on disk names is on disk, whole, and nothing acknowledged is
 * missing from both the log and the columns.
 *
 * Each thing has what the running system sees and what would be there after a cut. A sync makes the one the other; without
 * it, the disk may or may not have taken what was written (`land`). The log segment holds what was acknowledged; the new
 * column segment holds the same; the manifest names which of the two is the store.
 *
 *   -DNO_FILE_SYNC     the files are renamed unsynced                      ) each must be found wrong
 *   -DNO_FOLDER_SYNC   the manifest is written before the folder is synced )
 *   -DNO_EDIT_SYNC     the log is unlinked before the manifest is durable  )
 */
mtype = { ABSENT, PART, WHOLE };

mtype file = ABSENT;     /* the column segment's bytes, as on the disk */
bool written = false;    /* the system has written them all */
bool renamed = false;    /* the system sees the final name */
bool name = false;       /* the final name, as on the disk */
bool edited = false;     /* the system has appended the manifest edit */
bool edit = false;       /* as on the disk */
bool log_unlinked = false;
bool log_there = true;   /* as on the disk */
bool cut = false;

/* The disk takes what it was given in whatever order it likes, but for what a sync forces. */
active proctype disk()
{
    do
    :: cut -> break
    :: atomic { written && file == ABSENT -> file = PART }
    :: atomic { written && file != WHOLE -> file = WHOLE }
    :: atomic { renamed && !name -> name = true }
    :: atomic { edited && !edit -> edit = true }
    :: atomic { log_unlinked && log_there -> log_there = false }
    :: true -> cut = true
    od
}

#define STEP(what) atomic { if :: cut -> goto stopped :: else -> what fi }

active proctype publisher()
{
    STEP(written = true);
#ifndef NO_FILE_SYNC
    STEP(file = WHOLE);
#endif
    STEP(renamed = true);
#ifndef NO_FOLDER_SYNC
    STEP(name = true);
#endif
    STEP(edited = true);
#ifndef NO_EDIT_SYNC
    STEP(edit = true);
#endif
    /* readers pin the new view now; those of the old one have gone */
    STEP(log_unlinked = true);
stopped:
    skip
}

/* What recovery finds. */
active proctype recovery()
{
    cut;
    if
    :: edit -> assert(name && file == WHOLE)
    :: else -> assert(log_there)
    fi
}
