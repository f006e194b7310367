/*
 * fault_points.c - prints the kill points of engine/fault.h, one name a line; with --bugs its bugs: name, tab, promise,
 * and nothing in a build that has none.
 */
#include <stdio.h>
#include <string.h>

#include "engine/fault.h"

int main(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "--bugs") == 0) {
#ifdef MN_FAULTS
        for (int bug = 0; bug < MN_BUG_COUNT; bug++)
            printf("%s\t%s\n", mn_bug_name(bug), mn_bug_promise(bug));
#endif
        return 0;
    }
    for (int fault = 0; fault < MN_FAULT_COUNT; fault++)
        puts(mn_fault_name(fault));
    return 0;
}
