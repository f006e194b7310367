/*
 * cli_time.h - times and durations as people write them. Pure: the only clock is mn_cli_time_now.
 */
#ifndef MNEME_OPS_CLI_CLI_TIME_H
#define MNEME_OPS_CLI_CLI_TIME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { MN_CLI_TIME_SIZE = 40 };

/* Nanoseconds since the Unix epoch; and of a clock that never steps. */
int64_t mn_cli_time_now(void);
uint64_t mn_cli_time_monotonic(void);

/* A time: RFC 3339 (`2026-03-01T12:30:00.25+01:00`; the zone is UTC when left out, the time of day midnight), `now`,
 * relative to now
 * (`-1h`, `+7d`, `-1h30min`), or a bare integer of nanoseconds. False leaves *ns alone. */
bool mn_cli_time_parse(const char *text, int64_t now_ns, int64_t *ns);

/* A duration of one or more numbers with units: ns us ms s m min h d w (`90s`, `1.5h`, `1h30min`). Not negative. */
bool mn_cli_time_duration(const char *text, int64_t *ns);

/* RFC 3339 in UTC, with as many digits of the second as are not zero. Answers `out`, of MN_CLI_TIME_SIZE bytes. */
const char *mn_cli_time_print(int64_t ns, char *out);

/* The same to the millisecond, for tables. */
const char *mn_cli_time_print_short(int64_t ns, char *out);

/* A length of time in the unit that suits it: `850 ns`, `12.3 us`, `4.56 ms`, `7.89 s`, `3 d 04 h`. */
const char *mn_cli_time_print_length(uint64_t ns, char *out);

#endif
