/*
 * fault_points.c - prints the kill points of engine/fault.h, one name a line.
 */
#include <stdio.h>

#include "engine/fault.h"

int main(void)
{
    for (int fault = 0; fault < MN_FAULT_COUNT; fault++)
        puts(mn_fault_name(fault));
    return 0;
}
