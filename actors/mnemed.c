/*
 * mnemed.c - the daemon's command line. One program plays every role: as the supervisor it executes itself again with
 * --role and friends, which are no part of its public interface.
 *
 * Exit status: 0 a clean stop; 1 it could not start, with one line on stderr that says why; 2 bad usage.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "actors/actor.h"
#include "actors/supervisor.h"
#include "config/version.h"

#define EXIT_USAGE 2

static const char help_text[] =
    "mnemed - serve a Mneme store: a memory that is durable and recallable the moment it is acknowledged\n"
    "\n"
    "Usage:\n"
    "  mnemed --dir DIR [--dim N] [--metric cosine|ip|l2] [--config FILE] [--set key=value ...]\n"
    "\n"
    "  --dir DIR          the data folder; made on first use. Keep its path short (below 80 bytes): sockets live in "
    "it\n"
    "  --dim N            floats in an embedding, 1 to 65536; fixed when the store is made (default 768)\n"
    "  --metric METRIC    what near means: cosine (default), ip (inner product) or l2; fixed when the store is made\n"
    "  --config FILE      settings, as INI; `mneme config` prints them all with what they do\n"
    "  --set key=value    one setting, over what FILE says; may be given often\n"
    "  --help, --version\n"
    "\n"
    "It stays in the foreground and logs to stderr. SIGTERM (or Ctrl-C) finishes what was admitted and stops; a second "
    "one\n"
    "stops at once, and still nothing acknowledged is lost. SIGHUP reads FILE again.\n"
    "\n"
    "A first try, in two terminals:\n"
    "  mnemed --dir /tmp/memories --dim 3\n"
    "  mneme  --dir /tmp/memories remember --embedding 1,0,0 --content 'the sea was calm'\n"
    "  mneme  --dir /tmp/memories recall   --embedding 0.9,0.1,0\n"
    "\n"
    "Programs connect to ipc://DIR/run/control and ask for `info`, which names every other endpoint.\n"
    "\n"
    "Exit status: 0 clean stop; 1 could not start (one line says why); 2 bad usage.\n";

enum {
    OPT_DIR = 256,
    OPT_DIM,
    OPT_METRIC,
    OPT_CONFIG,
    OPT_SET,
    OPT_HELP,
    OPT_VERSION,
    OPT_ROLE,
    OPT_INSTANCE,
    OPT_SLOT,
    OPT_INDEX,
    OPT_NODE,
    OPT_FD
};

static const struct option long_options[] = {
    {"dir", required_argument, NULL, OPT_DIR},
    {"dim", required_argument, NULL, OPT_DIM},
    {"metric", required_argument, NULL, OPT_METRIC},
    {"config", required_argument, NULL, OPT_CONFIG},
    {"set", required_argument, NULL, OPT_SET},
    {"help", no_argument, NULL, OPT_HELP},
    {"version", no_argument, NULL, OPT_VERSION},
    /* Between the supervisor and its children. */
    {"role", required_argument, NULL, OPT_ROLE},
    {"instance", required_argument, NULL, OPT_INSTANCE},
    {"slot", required_argument, NULL, OPT_SLOT},
    {"index", required_argument, NULL, OPT_INDEX},
    {"node", required_argument, NULL, OPT_NODE},
    {"fd", required_argument, NULL, OPT_FD},
    {NULL, 0, NULL, 0},
};

struct command_line {
    struct mn_supervisor_options supervisor;
    struct mn_actor_arguments actor;
    const char *role;
    const char **sets;
};

static _Noreturn void refuse(const char *fmt, ...) MN_PRINTF(1, 2);
static _Noreturn void refuse(const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    fputs("mnemed: ", stderr);
    vfprintf(stderr, fmt, args);
    fputs(" (mnemed --help explains)\n", stderr);
    va_end(args);
    exit(EXIT_USAGE);
}

static uint32_t parse_number(const char *option, const char *text, uint32_t min, uint32_t max)
{
    char *end;
    errno = 0;
    unsigned long long n = text[0] >= '0' && text[0] <= '9' ? strtoull(text, &end, 10) : (end = (char *)text, 0);
    if (errno || end == text || *end || n < min || n > max)
        refuse("--%s %s: it must be a number from %u to %u", option, text, min, max);
    return (uint32_t)n;
}

static int parse_metric(const char *text)
{
    for (unsigned m = 0; m < MN_METRIC_COUNT; m++)
        if (strcmp(text, mn_metric_word(m)) == 0)
            return (int)m;
    refuse("--metric %s: it must be cosine, ip or l2", text);
}

static const struct mn_role_ops *find_role(const char *word)
{
    static const struct mn_role_ops *const roles[] = {&mn_recovery_role, &mn_wal_writer_role, &mn_recall_role,
                                                      &mn_compactor_role};
    for (size_t i = 0; i < MN_ARRAY_LEN(roles); i++)
        if (strcmp(word, mn_role_word(roles[i]->role)) == 0)
            return roles[i];
    refuse("--role %s: there is no such role", word);
}

static void take_option(struct command_line *line, int option)
{
    switch (option) {
    case OPT_DIR:
        line->supervisor.dir = line->actor.dir = optarg;
        break;
    case OPT_DIM:
        line->supervisor.dim = parse_number("dim", optarg, 1, MN_DIM_MAX);
        break;
    case OPT_METRIC:
        line->supervisor.metric = parse_metric(optarg);
        break;
    case OPT_CONFIG:
        line->supervisor.config = optarg;
        break;
    case OPT_SET:
        line->sets[line->supervisor.set_count++] = optarg;
        break;
    case OPT_HELP:
        fputs(help_text, stdout);
        exit(EXIT_SUCCESS);
    case OPT_VERSION:
        printf("mnemed %s\n", mn_version_build());
        exit(EXIT_SUCCESS);
    case OPT_ROLE:
        line->role = optarg;
        break;
    case OPT_INSTANCE:
        line->actor.instance_path = optarg;
        break;
    case OPT_SLOT:
        line->actor.slot = parse_number("slot", optarg, 1, MN_ROLE_SLOTS - 1);
        break;
    case OPT_INDEX:
        line->actor.index = parse_number("index", optarg, 0, MN_ROLE_SLOTS);
        break;
    case OPT_NODE:
        line->actor.node = parse_number("node", optarg, 0, UINT16_MAX);
        break;
    case OPT_FD:
        line->actor.pipe_fd = (int)parse_number("fd", optarg, 3, UINT16_MAX);
        break;
    default:
        exit(EXIT_USAGE); /* getopt has said why */
    }
}

static void parse(struct command_line *line, int argc, char **argv)
{
    *line = (struct command_line){.supervisor.metric = -1, .actor.pipe_fd = -1};
    line->sets = calloc((size_t)argc, sizeof *line->sets);
    if (!line->sets)
        refuse("no memory");
    for (int option; (option = getopt_long(argc, argv, "", long_options, NULL)) != -1;)
        take_option(line, option);
    if (optind < argc)
        refuse("%s: there are no arguments besides options", argv[optind]);
    if (!line->supervisor.dir || !line->supervisor.dir[0])
        refuse("--dir DIR is missing");
    line->supervisor.sets = line->sets;
}

int main(int argc, char **argv)
{
    struct command_line line;
    parse(&line, argc, argv);
    if (!line.role)
        return mn_supervisor_run(&line.supervisor);
    if (!line.actor.instance_path || line.actor.slot == 0 || line.actor.pipe_fd < 0)
        refuse("--role is for mnemed itself: start it without");
    /* Inherited for us alone: what we start, if anything, must not hold it. */
    fcntl(line.actor.pipe_fd, F_SETFD, FD_CLOEXEC);
    return mn_actor_run(find_role(line.role), &line.actor);
}
