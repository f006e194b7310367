/*
 * cmd_config.c - `mneme config`: what can be set, what it is set to, and what it means.
 *
 * The values are the defaults, under the file given with --config, or under the effective settings that the supervisor
 * of --dir has written for its children.
 */
#include "config/settings.h"
#include "ops/cli/cli.h"
#include "ops/cli/cli_json.h"
#include "ops/cli/cli_out.h"

#include <fnmatch.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const struct mn_cli_option options[] = {
    {"config", 0, "FILE", "the values in this settings file"},
    {"changed", 0, NULL, "only what differs from its default"},
    {"help-text", 'v', NULL, "with ranges, and what each setting does"},
    {"ini", 0, NULL, "as a settings file, which `mnemed --config` reads"},
    {0},
};

static enum mn_status load(const struct mn_cli *cli, const struct mn_cli_args *args, struct mn_settings *settings)
{
    const char *file = mn_cli_args_text(args, "config");
    char *running = NULL;
    mn_settings_default(settings);
    if (file)
        return mn_settings_read_file(settings, file);
    if (!cli->dir)
        return MN_OK;
    if (asprintf(&running, "%s/run/settings", cli->dir) < 0)
        return MN_FAIL(MN_INTERNAL, "out of memory");
    enum mn_status status = MN_OK;
    if (access(running, R_OK) != 0)
        status = MN_FAIL_ERRNO(
            "the settings of the running store are not there: %s (without --dir the defaults are shown)", running);
    else
        status = mn_settings_read_file(settings, running);
    free(running);
    return status;
}

/* One setting's texts. */
struct shown {
    char value[MN_SETTINGS_VALUE_MAX], initial[MN_SETTINGS_VALUE_MAX], range[128];
};

static bool wanted(const struct mn_cli_args *args, const struct mn_settings_row *row,
                   const struct mn_settings *settings, struct shown *s)
{
    mn_settings_value(settings, row, s->value, sizeof s->value);
    mn_settings_default_value(row, s->initial, sizeof s->initial);
    mn_settings_range(row, s->range, sizeof s->range);
    bool named = args->word_count == 0;
    for (size_t i = 0; i < args->word_count; i++)
        named = named || fnmatch(args->words[i], row->key, 0) == 0;
    return named && !(mn_cli_args_has(args, "changed") && strcmp(s->value, s->initial) == 0);
}

static enum mn_status check_patterns(const struct mn_cli_args *args)
{
    for (size_t i = 0; i < args->word_count; i++) {
        const struct mn_settings_row *row;
        bool found = false;
        for (size_t j = 0; !found && (row = mn_settings_row(j)); j++)
            found = fnmatch(args->words[i], row->key, 0) == 0;
        if (!found)
            return MN_FAIL(MN_NOT_FOUND, "no setting matches `%s`; `mneme config` lists them all", args->words[i]);
    }
    return MN_OK;
}

static enum mn_status print_table(const struct mn_cli *cli, const struct mn_cli_args *args,
                                  const struct mn_settings *settings)
{
    struct mn_cli_out_table t;
    static struct shown s; /* 8 KiB: kept off the stack */
    const struct mn_settings_row *row;
    bool help = mn_cli_args_has(args, "help-text");
    mn_cli_out_begin(&t, cli,
                     help ? "setting|value|default|change by|range|meaning" : "setting|value|default|change by");
    for (size_t i = 0; (row = mn_settings_row(i)); i++) {
        if (!wanted(args, row, settings, &s))
            continue;
        mn_cli_out_cell(&t, "%s", row->key);
        mn_cli_out_cell(&t, "%s", s.value);
        mn_cli_out_cell(&t, "%s", s.initial);
        mn_cli_out_cell(&t, "%s", row->reloadable ? "reload" : "restart");
        if (help) {
            mn_cli_out_cell(&t, "%s", s.range);
            mn_cli_out_cell(&t, "%s", row->help);
        }
    }
    mn_cli_out_end(&t);
    return MN_OK;
}

static enum mn_status print_json(const struct mn_cli *cli, const struct mn_cli_args *args,
                                 const struct mn_settings *settings)
{
    static struct shown s;
    const struct mn_settings_row *row;
    json_t *all = json_object();
    for (size_t i = 0; (row = mn_settings_row(i)); i++) {
        if (!wanted(args, row, settings, &s))
            continue;
        json_t *one =
            json_pack("{s:s, s:s, s:s, s:s, s:b, s:s}", "value", s.value, "default", s.initial, "type",
                      mn_settings_type_word(row), "range", s.range, "reloadable", row->reloadable, "help", row->help);
        if (json_object_set_new(all, row->key, one) != 0) {
            json_decref(all);
            return MN_FAIL(MN_INTERNAL, "out of memory");
        }
    }
    return mn_cli_json_print(all, cli->out_is_terminal);
}

static enum mn_status run(struct mn_cli *cli, const struct mn_cli_args *args)
{
    static struct mn_settings settings;
    MN_TRY(load(cli, args, &settings));
    MN_TRY(check_patterns(args));
    if (mn_cli_args_has(args, "ini")) {
        mn_settings_print(&settings, stdout, mn_cli_args_has(args, "changed"));
        return MN_OK;
    }
    return cli->json ? print_json(cli, args, &settings) : print_table(cli, args, &settings);
}

const struct mn_cli_command mn_cmd_config = {
    .usage = "[PATTERN]... [--config FILE]",
    .options = options,
    .details = "Prints settings: with --dir (or MNEME_DIR) as the running store uses them, with --config as a file "
               "would set them, else\n"
               "the defaults. `change by` says whether `mneme reload` takes a new value up, or a restart.\n",
    .examples = "  mneme config\n"
                "  mneme config 'compact.*' --help-text\n"
                "  mneme config --dir /var/lib/mneme --changed\n"
                "  mneme config --ini >mneme.conf && mnemed --dir ./store --config mneme.conf\n",
    .run = run,
};
