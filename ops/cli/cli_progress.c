/*
 * cli_progress.c - drawing the progress line.
 */
#include "ops/cli/cli_progress.h"

#include "ops/cli/cli_out.h"
#include "ops/cli/cli_time.h"

enum { BAR = 24 };
#define DRAW_EVERY_NS 100000000ull

void mn_cli_progress_begin(struct mn_cli_progress *p, const struct mn_cli *cli, const char *what, const char *unit,
                           uint64_t total)
{
    *p = (struct mn_cli_progress){.on = cli->err_is_terminal && !cli->json, .what = what, .unit = unit, .total = total};
    p->began_ns = mn_cli_time_monotonic();
}

static void draw_bar(double share)
{
    int full = (int)(share * BAR);
    fputc('[', stderr);
    for (int i = 0; i < BAR; i++)
        fputc(i < full ? '#' : ' ', stderr);
    fprintf(stderr, "] %3.0f%%  ", share * 100);
}

void mn_cli_progress_show(struct mn_cli_progress *p, uint64_t position, uint64_t done)
{
    char number[32], rate_text[32], left[MN_CLI_TIME_SIZE];
    uint64_t now = mn_cli_time_monotonic();
    if (!p->on || now - p->shown_ns < DRAW_EVERY_NS)
        return;
    p->shown_ns = now;
    double seconds = (double)(now - p->began_ns) / 1e9;
    double share = p->total ? (double)position / (double)p->total : 0;
    double rate = seconds > 0 ? (double)done / seconds : 0;
    share = share > 1 ? 1 : share;
    fprintf(stderr, "\r%s  ", p->what);
    if (p->total)
        draw_bar(share);
    fprintf(stderr, "%s %s  %s/s", mn_cli_out_count(done, number), p->unit,
            mn_cli_out_count((uint64_t)rate, rate_text));
    if (share > 0.001)
        fprintf(stderr, "  %s to go", mn_cli_time_print_length((uint64_t)(seconds * (1 - share) / share * 1e9), left));
    fputs("\033[K", stderr);
    fflush(stderr);
}

void mn_cli_progress_end(struct mn_cli_progress *p)
{
    if (p->on)
        fputs("\r\033[K", stderr);
    p->on = false;
}
