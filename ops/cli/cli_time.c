/*
 * cli_time.c - parsing and printing times. The calendar is the proleptic Gregorian one, in days since 1970-01-01.
 */
#include "ops/cli/cli_time.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define NS_PER_S 1000000000ll

static int64_t read_clock(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (int64_t)t.tv_sec * NS_PER_S + t.tv_nsec;
}

int64_t mn_cli_time_now(void)
{
    return read_clock(CLOCK_REALTIME);
}

uint64_t mn_cli_time_monotonic(void)
{
    return (uint64_t)read_clock(CLOCK_MONOTONIC);
}

/* ---- the calendar ---- */

static bool is_leap(int64_t y)
{
    return (y % 4 == 0 && y % 100 != 0) || y % 400 == 0;
}

static int days_in(int64_t year, int month)
{
    static const int days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    return days[month - 1] + (month == 2 && is_leap(year));
}

/* Days before 1 January of a year, counted from 1970. */
static int64_t days_to_year(int64_t year)
{
    int64_t y = year - 1;
    return 365 * (year - 1970) + (y / 4 - 1969 / 4) - (y / 100 - 1969 / 100) + (y / 400 - 1969 / 400);
}

static int64_t days_to(int64_t year, int month, int day)
{
    int64_t days = days_to_year(year) + day - 1;
    for (int m = 1; m < month; m++)
        days += days_in(year, m);
    return days;
}

/* ---- durations ---- */

static const struct {
    const char *word;
    int64_t ns;
} units[] = {{"ns", 1},
             {"us", 1000},
             {"ms", 1000000},
             {"s", NS_PER_S},
             {"m", 60 * NS_PER_S},
             {"min", 60 * NS_PER_S},
             {"h", 3600 * NS_PER_S},
             {"d", 86400 * NS_PER_S},
             {"w", 7 * 86400 * NS_PER_S}};

static int64_t unit_of(const char *word, size_t size)
{
    for (size_t i = 0; i < sizeof units / sizeof units[0]; i++)
        if (strlen(units[i].word) == size && memcmp(units[i].word, word, size) == 0)
            return units[i].ns;
    return 0;
}

/* One number and unit; whole numbers are exact, fractions are rounded to the nanosecond. */
static bool take_part(const char **text, int64_t *ns)
{
    const char *at = *text;
    size_t digits = strspn(at, "0123456789.");
    if (digits == 0 || digits > 20 || at[0] == '.')
        return false;
    char *end;
    double number = strtod(at, &end);
    if (end != at + digits)
        return false;
    size_t letters = strspn(end, "abcdefghijklmnopqrstuvwxyz");
    int64_t unit = unit_of(end, letters);
    if (unit == 0 || number * (double)unit > 9.2e18)
        return false;
    bool whole = !memchr(at, '.', digits);
    *ns = whole ? (int64_t)strtoull(at, NULL, 10) * unit : (int64_t)(number * (double)unit + 0.5);
    *text = end + letters;
    return true;
}

bool mn_cli_time_duration(const char *text, int64_t *ns)
{
    int64_t sum = 0, part;
    if (!*text)
        return false;
    while (*text) {
        if (!take_part(&text, &part) || __builtin_add_overflow(sum, part, &sum))
            return false;
    }
    *ns = sum;
    return true;
}

/* ---- times ---- */

/* Exactly `width` digits. */
static bool take_digits(const char **text, int width, int *out)
{
    int value = 0;
    for (int i = 0; i < width; i++) {
        char c = (*text)[i];
        if (c < '0' || c > '9')
            return false;
        value = value * 10 + (c - '0');
    }
    *text += width;
    *out = value;
    return true;
}

static bool take_char(const char **text, char c)
{
    if (**text != c)
        return false;
    (*text)++;
    return true;
}

static bool take_date(const char **text, int64_t *days)
{
    int year, month, day;
    if (!take_digits(text, 4, &year) || !take_char(text, '-') || !take_digits(text, 2, &month) ||
        !take_char(text, '-') || !take_digits(text, 2, &day))
        return false;
    if (year < 1678 || year > 2261 || month < 1 || month > 12 || day < 1 || day > days_in(year, month))
        return false; /* the years that 64 bits of nanoseconds hold in full */
    *days = days_to(year, month, day);
    return true;
}

static bool take_fraction(const char **text, int64_t *ns)
{
    int64_t scale = NS_PER_S / 10;
    *ns = 0;
    if (!take_char(text, '.'))
        return true;
    if (**text < '0' || **text > '9')
        return false;
    for (; **text >= '0' && **text <= '9'; (*text)++) {
        *ns += (**text - '0') * scale;
        scale /= 10;
    }
    return true;
}

static bool take_clock(const char **text, int64_t *ns)
{
    int hour, minute, second = 0;
    int64_t fraction = 0;
    if (!take_digits(text, 2, &hour) || !take_char(text, ':') || !take_digits(text, 2, &minute))
        return false;
    if (take_char(text, ':') && (!take_digits(text, 2, &second) || !take_fraction(text, &fraction)))
        return false;
    if (hour > 23 || minute > 59 || second > 60)
        return false;
    *ns = (hour * 3600ll + minute * 60 + second) * NS_PER_S + fraction;
    return true;
}

/* Z, or an offset east of Greenwich; nothing is UTC. */
static bool take_zone(const char **text, int64_t *ns)
{
    int hour, minute;
    char sign = **text;
    *ns = 0;
    if (sign == 0 || take_char(text, 'Z') || take_char(text, 'z'))
        return true;
    if (sign != '+' && sign != '-')
        return false;
    (*text)++;
    if (!take_digits(text, 2, &hour) || !take_char(text, ':') || !take_digits(text, 2, &minute) || hour > 23 ||
        minute > 59)
        return false;
    *ns = (hour * 3600ll + minute * 60) * NS_PER_S * (sign == '-' ? -1 : 1);
    return true;
}

static bool parse_calendar(const char *text, int64_t *ns)
{
    int64_t days, clock = 0, zone = 0;
    if (!take_date(&text, &days))
        return false;
    if (*text && (*text == 'T' || *text == 't' || *text == ' ')) {
        text++;
        if (!take_clock(&text, &clock))
            return false;
    }
    if (!take_zone(&text, &zone) || *text)
        return false;
    *ns = days * 86400 * NS_PER_S + clock - zone;
    return true;
}

static bool parse_relative(const char *text, int64_t now_ns, int64_t *ns)
{
    int64_t length;
    if ((text[0] != '-' && text[0] != '+') || !mn_cli_time_duration(text + 1, &length))
        return false;
    return text[0] == '-' ? !__builtin_sub_overflow(now_ns, length, ns) : !__builtin_add_overflow(now_ns, length, ns);
}

static bool parse_bare(const char *text, int64_t *ns)
{
    const char *digits = text + (text[0] == '-');
    size_t n = strlen(digits);
    if (n == 0 || n > 19 || strspn(digits, "0123456789") != n)
        return false;
    unsigned long long value = strtoull(digits, NULL, 10);
    if (value > INT64_MAX)
        return false;
    *ns = text[0] == '-' ? -(int64_t)value : (int64_t)value;
    return true;
}

bool mn_cli_time_parse(const char *text, int64_t now_ns, int64_t *ns)
{
    int64_t value = now_ns;
    if (strcmp(text, "now") != 0 && !parse_calendar(text, &value) && !parse_relative(text, now_ns, &value) &&
        !parse_bare(text, &value))
        return false;
    *ns = value;
    return true;
}

/* ---- printing ---- */

const char *mn_cli_time_print(int64_t ns, char *out)
{
    int64_t seconds = ns / NS_PER_S, fraction = ns % NS_PER_S;
    if (fraction < 0) {
        fraction += NS_PER_S;
        seconds--;
    }
    time_t t = (time_t)seconds;
    struct tm tm;
    char text[24], digits[12] = "";
    gmtime_r(&t, &tm);
    strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", &tm);
    if (fraction) {
        snprintf(digits, sizeof digits, ".%09d", (int)fraction);
        for (size_t n = 10; digits[n - 1] == '0'; n--)
            digits[n - 1] = 0;
    }
    snprintf(out, MN_CLI_TIME_SIZE, "%s%sZ", text, digits);
    return out;
}

const char *mn_cli_time_print_short(int64_t ns, char *out)
{
    int64_t below = ns % 1000000;
    return mn_cli_time_print(ns - (below < 0 ? below + 1000000 : below), out);
}

const char *mn_cli_time_print_length(uint64_t ns, char *out)
{
    double v = (double)ns;
    if (ns < 1000)
        snprintf(out, MN_CLI_TIME_SIZE, "%llu ns", (unsigned long long)ns);
    else if (v < 1e6)
        snprintf(out, MN_CLI_TIME_SIZE, "%.3g us", v / 1e3);
    else if (v < 1e9)
        snprintf(out, MN_CLI_TIME_SIZE, "%.3g ms", v / 1e6);
    else if (v < 120e9)
        snprintf(out, MN_CLI_TIME_SIZE, "%.3g s", v / 1e9);
    else if (v < 7200e9)
        snprintf(out, MN_CLI_TIME_SIZE, "%.3g min", v / 60e9);
    else if (v < 172800e9)
        snprintf(out, MN_CLI_TIME_SIZE, "%d h %02d min", (int)(v / 3600e9), (int)(v / 60e9) % 60);
    else
        snprintf(out, MN_CLI_TIME_SIZE, "%d d %02d h", (int)(v / 86400e9), (int)(v / 3600e9) % 24);
    return out;
}
