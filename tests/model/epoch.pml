/*
 * epoch.pml - the epoch pin (shm/epoch.c, engine/writer_tend.c): no file is unlinked while a reader that has pinned a
 * view of it may open it.
 *
 * The writer publishes views 1, 2, ...; file f belongs to view f alone, and goes to limbo when view f + 1 is published.
 * A file leaves limbo when the oldest pinned view is above f. A reader pins (store, load again, repeat until equal), opens
 * the file of its view, reads, unpins; it may be killed anywhere, and the supervisor then clears its slot. Spin's memory is
 * sequentially consistent, as the two seq_cst accesses of the pin are.
 *
 *   -DNO_REREAD     the pin without its second load: must be found wrong
 *   -DSCAN_FIRST    the writer looks at the slots before it publishes: must be found wrong
 */
#ifndef READERS
#define READERS 2
#endif
#define VIEWS 4

byte view = 1;          /* control.view_gen */
byte slot[READERS];     /* the pinned view; 0 = none */
bool gone[VIEWS + 2];   /* unlinked files */
bool killed[READERS];

/* Slot by slot, each loaded once, while readers go on. */
inline oldest_pin(oldest, i, pinned)
{
    oldest = VIEWS + 1;
    i = 0;
    do
    :: i < READERS ->
        pinned = slot[i];
        if
        :: pinned != 0 && pinned < oldest -> oldest = pinned
        :: else
        fi;
        i++
    :: else -> break
    od
}

active proctype writer()
{
    byte oldest, i, pinned, limbo = 1; /* files limbo .. view - 1 wait */
    do
    :: view < VIEWS ->
#ifdef SCAN_FIRST
        oldest_pin(oldest, i, pinned);
        view++;
#else
        view++;
        oldest_pin(oldest, i, pinned);
#endif
        do
        :: limbo < view && limbo < oldest -> gone[limbo] = true; limbo++
        :: else -> break
        od
    :: else -> break
    od
}

active [READERS] proctype reader()
{
    byte gen, now;
    do
    :: true ->
        gen = view;
        do
        :: true ->
            slot[_pid - 1] = gen;
#ifdef NO_REREAD
            break;
#else
            now = view;
            if
            :: now == gen -> break
            :: else -> gen = now
            fi
#endif
        od;
        assert(!gone[gen]); /* opens it */
        assert(!gone[gen]); /* and reads it, some steps later */
        slot[_pid - 1] = 0
    :: killed[_pid - 1] = true -> break /* between two pins or, below, in one */
    :: true ->
        gen = view;
        slot[_pid - 1] = gen;
        killed[_pid - 1] = true;
        break
    od
}

active proctype supervisor()
{
    byte i = 0;
    do
    :: i < READERS && killed[i] -> slot[i] = 0; i++
    :: i == READERS -> break
    od
}
