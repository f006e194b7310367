/*
 * main.c - the program `mneme`: one invocation, one command of a store.
 *
 * Finds the command in commands.def, parses the line against that command's options, runs it, and says what went wrong:
 * one sentence and the protocol's code on stderr (with --json as a document on stdout), exit status 1; 2 for a bad
 * line.
 */
#include "config/version.h"
#include "ops/cli/cli.h"
#include "ops/cli/cli_json.h"
#include "ops/cli/cli_out.h"

#include <locale.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const struct mn_cli_option global_options[] = {
    {"dir", 'd', "DIR", "the store's folder (default: $MNEME_DIR)"},
    {"json", 'j', NULL, "print one JSON document, for programs"},
    {"timeout", 0, "DURATION",
     "how long to wait for an answer (default: 10s; an hour for what copies or reads the whole store)"},
    {"help", 'h', NULL, "show this help, or with a command the help of that command"},
    {"version", 0, NULL, "show the version"},
    {0},
};

static const struct {
    const char *group;
    const char *name;
    const char *brief;
    const struct mn_cli_command *command;
} commands[] = {
#define X(group, name, symbol, brief) {group, name, brief, &mn_cmd_##symbol},
#include "ops/cli/commands.def"
#undef X
};

/* ---- help ---- */

static void print_overview(const struct mn_cli *cli)
{
    const char *group = "";
    const char *bold = mn_cli_out_bold(cli), *plain = mn_cli_out_plain(cli);
    printf("%smneme%s - a store of memories: embeddings with content, meta, tags, confidence and time.\n\n", bold,
           plain);
    printf("%sUsage%s\n  mneme [--dir DIR] [--json] COMMAND ...\n  mneme COMMAND --help\n", bold, plain);
    for (size_t i = 0; i < MN_ARRAY_LEN(commands); i++) {
        if (strcmp(group, commands[i].group) != 0)
            printf("\n%s%s%s\n", bold, commands[i].group, plain);
        group = commands[i].group;
        printf("  %-14s%s\n", commands[i].name, commands[i].brief);
    }
    printf("\n%sOptions%s\n", bold, plain);
    mn_cli_args_help(stdout, global_options);
    printf("\n%sFirst steps%s (a store with embeddings of 3 numbers)\n"
           "  mnemed --dir ./store --dim 3 &\n"
           "  export MNEME_DIR=./store\n"
           "  mneme remember --embedding '[1, 0, 0.2]' --content 'prefers tea' --tag taste\n"
           "  mneme recall --embedding '[1, 0, 0]'\n"
           "  mneme info\n\n"
           "Exit status: 0 done, 1 the operation failed, 2 the command line is wrong.\n",
           bold, plain);
}

static void print_command_help(const struct mn_cli *cli, const char *name, const char *brief,
                               const struct mn_cli_command *command)
{
    const char *bold = mn_cli_out_bold(cli), *plain = mn_cli_out_plain(cli);
    printf("%smneme %s%s - %s\n\n", bold, name, plain, brief);
    printf("%sUsage%s\n  mneme [--dir DIR] %s%s%s\n", bold, plain, name, command->usage[0] ? " " : "", command->usage);
    if (command->details[0])
        printf("\n%s", command->details);
    printf("\n%sOptions%s\n", bold, plain);
    mn_cli_args_help(stdout, command->options);
    mn_cli_args_help(stdout, global_options);
    if (command->examples[0])
        printf("\n%sExamples%s\n%s", bold, plain, command->examples);
}

/* ---- one invocation ---- */

static bool may_colour(void)
{
    const char *no = getenv("NO_COLOR"), *term = getenv("TERM");
    return isatty(STDOUT_FILENO) && !(no && *no) && term && strcmp(term, "dumb") != 0;
}

static enum mn_status take_globals(struct mn_cli *cli, const struct mn_cli_args *args)
{
    int64_t timeout_ns = 0;
    cli->json = cli->json || mn_cli_args_has(args, "json");
    if (mn_cli_args_has(args, "dir")) {
        cli->dir = mn_cli_args_text(args, "dir");
        cli->dir_given = true;
    }
    MN_TRY(mn_cli_args_duration(args, "timeout", &timeout_ns));
    if (mn_cli_args_has(args, "timeout") && (timeout_ns < 1000000 || timeout_ns > 86400ll * 1000000000))
        return MN_FAIL(MN_USAGE, "--timeout takes a duration from 1ms to 1d");
    if (timeout_ns)
        cli->timeout_ms = (int)(timeout_ns / 1000000);
    if (cli->dir && !*cli->dir)
        return MN_FAIL(MN_USAGE, "--dir is empty");
    return MN_OK;
}

static const char *suggestion(const char *typed)
{
    const char *found = NULL;
    size_t best = SIZE_MAX;
    for (size_t i = 0; i < MN_ARRAY_LEN(commands); i++)
        if (mn_cli_args_resembles(typed, strlen(typed), commands[i].name, &best))
            found = commands[i].name;
    return found;
}

static enum mn_status find_command(const char *name, size_t *index)
{
    for (*index = 0; *index < MN_ARRAY_LEN(commands); ++*index)
        if (strcmp(commands[*index].name, name) == 0)
            return MN_OK;
    const char *other = suggestion(name);
    if (other)
        return MN_FAIL(MN_USAGE, "there is no command `%s`; did you mean `%s`?", name, other);
    return MN_FAIL(MN_USAGE, "there is no command `%s`: `mneme --help` lists them", name);
}

static enum mn_status run_command(struct mn_cli *cli, const char *name, int argc, char *const *argv)
{
    struct mn_cli_args args;
    size_t index;
    MN_TRY(find_command(name, &index));
    const struct mn_cli_command *command = commands[index].command;
    enum mn_status status = mn_cli_args_parse(&args, argc, argv, command->options, global_options, false);
    if (status == MN_OK && mn_cli_args_has(&args, "help")) {
        print_command_help(cli, name, commands[index].brief, command);
    } else {
        if (status == MN_OK)
            status = take_globals(cli, &args);
        if (status == MN_OK)
            status = command->run(cli, &args);
    }
    mn_cli_args_free(&args);
    return status;
}

/* The options before the command, then the command with the rest of the line. */
static enum mn_status run_line(struct mn_cli *cli, int argc, char *const *argv, const char **name)
{
    struct mn_cli_args args;
    enum mn_status status = mn_cli_args_parse(&args, argc, argv, global_options, NULL, true);
    if (status == MN_OK)
        status = take_globals(cli, &args);
    if (status != MN_OK)
        goto out;
    bool help = mn_cli_args_has(&args, "help");
    bool asks =
        args.word_count > 0 && strcmp(args.words[0], "help") == 0; /* `mneme help NAME` is `mneme NAME --help` */
    size_t words = args.word_count - asks;
    help = help || asks;
    if (mn_cli_args_has(&args, "version")) {
        printf("mneme %s\n", mn_version_build());
    } else if (words == 0 && help) {
        print_overview(cli);
    } else if (words == 0) {
        status = MN_FAIL(MN_USAGE, "which command? `mneme --help` lists them");
    } else {
        char *const only_help[] = {(char *)"--help"};
        int rest = (int)words - 1;
        *name = args.words[asks];
        status = help ? run_command(cli, *name, 1, only_help) : run_command(cli, *name, rest, argv + argc - rest);
    }
out:
    mn_cli_args_free(&args);
    return status;
}

static void report(const struct mn_cli *cli, const char *name, enum mn_status status)
{
    size_t index;
    fflush(stdout); /* what was found comes before what is wrong with it */
    if (cli->json) {
        json_t *failure = json_pack("{s:b, s:s, s:s, s:b}", "ok", 0, "code", mn_status_word(status), "error",
                                    mn_error_text(), "retry", mn_status_retry(status));
        if (mn_cli_json_print(failure, cli->out_is_terminal) == MN_OK)
            return;
    }
    if (status == MN_USAGE)
        fprintf(stderr, "mneme%s%s: %s\n", *name ? " " : "", name, mn_error_text());
    else
        fprintf(stderr, "mneme%s%s: %s (%s)\n", *name ? " " : "", name, mn_error_text(), mn_status_word(status));
    if (status == MN_USAGE && find_command(name, &index) == MN_OK)
        fprintf(stderr, "`mneme %s --help` shows how it is used\n", name);
}

int main(int argc, char **argv)
{
    struct mn_cli cli = {.program = argv[0], .dir = getenv("MNEME_DIR")};
    const char *name = "";
    setlocale(LC_CTYPE, "C.UTF-8");
    if (cli.dir && !*cli.dir)
        cli.dir = NULL;
    cli.out_is_terminal = isatty(STDOUT_FILENO);
    cli.err_is_terminal = isatty(STDERR_FILENO);
    cli.colour = may_colour();
    enum mn_status status = run_line(&cli, argc - 1, argv + 1, &name);
    mneme_close(cli.client);
    if (status == MN_OK && (fflush(stdout) != 0 || ferror(stdout)))
        status = MN_FAIL_ERRNO("could not write to stdout");
    if (status == MN_OK)
        return 0;
    if (!cli.reported)
        report(&cli, name, status);
    return status == MN_USAGE ? 2 : 1;
}
