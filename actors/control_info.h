/*
 * control_info.h - the reply to `info`: what a client needs to find its way, and what a person wants to know.
 */
#ifndef MN_ACTORS_CONTROL_INFO_H
#define MN_ACTORS_CONTROL_INFO_H

#include "actors/supervisor.h"
#include "actors/wire_reply.h"

/* Fills `reply`. remote: it is for another machine, which is told the endpoints over TCP. Supervisor's thread. */
void mn_control_info(struct mn_supervisor *s, struct mn_str rid, bool remote, struct mn_reply *reply);

#endif
