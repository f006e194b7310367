/*
 * cmd_verify.c - `mneme verify`: every checksum, by the running store; or here, when nothing serves the folder.
 */
#include "engine/store.h"
#include "engine/verify.h"
#include "ops/cli/cli.h"
#include "ops/cli/cli_damage.h"
#include "ops/cli/cli_json.h"
#include "ops/cli/cli_out.h"
#include "ops/cli/cli_progress.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const struct mn_cli_option options[] = {
    {"offline", 0, NULL, "check the files here, without a server; refused while one runs"},
    {0},
};

/* What was found, the same whoever looked. */
struct findings {
    struct mn_cli_progress progress;
    json_t *damaged, *quarantined;
    char quarantine[MN_PATH_MAX];
    uint64_t files, bytes;
    bool offline;
};

static void note_damage(void *context, const char *path, const char *what)
{
    struct findings *f = context;
    const struct mn_cli_damage *piece = mn_cli_damage_of(path);
    json_array_append_new(f->damaged, json_pack("{s:s, s:s, s:s, s:s}", "file", path, "reason", what, "means",
                                                piece->means, "next", piece->next));
}

static void note_progress(void *context, uint64_t done, uint64_t total)
{
    struct findings *f = context;
    f->progress.total = total;
    mn_cli_progress_show(&f->progress, done, done >> 20);
}

/* The lock that mnemed holds while it runs keeps one from starting under the check. */
static enum mn_status verify_here(struct mn_cli *cli, struct findings *f)
{
    struct mn_store store;
    struct mn_verify_result result;
    char path[MN_PATH_MAX];
    int lock;
    MN_TRY(mn_store_open(&store, &mn_io_posix, cli->dir));
    if (mn_store_lock(mn_store_path(&store, path, "LOCK"), &lock) != MN_OK)
        return MN_FAIL(MN_BUSY, "a mnemed has the lock of %s: verify without --offline asks it", cli->dir);
    mn_cli_progress_begin(&f->progress, cli, "verify", "MiB", 0);
    enum mn_status status = mn_verify(&store, UINT64_MAX, note_damage, note_progress, f, &result);
    mn_cli_progress_end(&f->progress);
    close(lock);
    f->files = result.files;
    f->bytes = result.bytes;
    return status;
}

static enum mn_status verify_there(struct mn_cli *cli, struct findings *f)
{
    struct mneme_reply *reply;
    MN_CLI_TRY(cli->client, mneme_verify(cli->client, &reply));
    struct mneme_value damaged = mneme_reply_get(reply, "damaged");
    f->files = mneme_value_u64(mneme_reply_get(reply, "files"), 0);
    f->bytes = mneme_value_u64(mneme_reply_get(reply, "bytes"), 0);
    for (size_t i = 0; i < mneme_value_length(damaged); i++) {
        json_t *piece = mn_cli_json_from_value(mneme_value_at(damaged, i));
        const char *file = json_string_value(json_object_get(piece, "file"));
        const char *reason = json_string_value(json_object_get(piece, "reason"));
        note_damage(f, file ? file : "", reason ? reason : "");
        json_decref(piece);
    }
    mneme_reply_free(reply);
    return MN_OK;
}

/* ---- what was put aside earlier ---- */

static enum mn_status note_quarantined(void *context, const char *name)
{
    struct findings *f = context;
    char path[MN_PATH_MAX + 256];
    json_error_t error;
    size_t length = strlen(name);
    if (length < 5 || strcmp(name + length - 5, ".json") != 0)
        return MN_OK;
    snprintf(path, sizeof path, "%s/%s", f->quarantine, name);
    json_t *note = json_load_file(path, 0, &error);
    const char *reason = json_string_value(json_object_get(note, "reason"));
    json_array_append_new(f->quarantined,
                          json_pack("{s:s, s:s}", "note", path, "reason", reason ? reason : "the note cannot be read"));
    json_decref(note);
    return MN_OK;
}

static enum mn_status list_quarantine(const struct mn_cli *cli, struct findings *f)
{
    snprintf(f->quarantine, sizeof f->quarantine, "%.*s/quarantine", MN_PATH_MAX - 16, cli->dir);
    enum mn_status status = mn_io_posix.list(f->quarantine, note_quarantined, f);
    return status == MN_NOT_FOUND ? MN_OK : status;
}

/* ---- the answer ---- */

static void print_damage(const json_t *damaged)
{
    for (size_t i = 0; i < json_array_size(damaged); i++) {
        const char *file, *reason, *means, *next;
        json_t *piece = json_array_get(damaged, i);
        if (json_unpack(piece, "{s:s, s:s, s:s, s:s}", "file", &file, "reason", &reason, "means", &means, "next",
                        &next) == 0)
            printf("\n%s\n  what is wrong  %s\n  what it is     %s\n  what to do     %s\n", file, reason, means, next);
    }
}

static void print_quarantined(const json_t *quarantined)
{
    if (json_array_size(quarantined) > 0)
        printf("\nput aside earlier (%zu):\n", json_array_size(quarantined));
    for (size_t i = 0; i < json_array_size(quarantined); i++) {
        const char *note, *reason;
        if (json_unpack(json_array_get(quarantined, i), "{s:s, s:s}", "note", &note, "reason", &reason) == 0)
            printf("  %s: %s\n", note, reason);
    }
}

static enum mn_status print_findings(struct mn_cli *cli, struct findings *f)
{
    char bytes[32];
    size_t damaged = json_array_size(f->damaged);
    if (cli->json) {
        MN_TRY(mn_cli_json_print(json_pack("{s:b, s:I, s:I, s:O, s:O}", "ok", 1, "files", (json_int_t)f->files, "bytes",
                                           (json_int_t)f->bytes, "damaged", f->damaged, "quarantined", f->quarantined),
                                 cli->out_is_terminal));
        cli->reported = damaged > 0; /* the document says it all */
    } else {
        printf("%" PRIu64 " files, %s checked%s\n", f->files, mn_cli_out_bytes((double)f->bytes, bytes),
               f->offline ? ", without a server" : "");
        print_damage(f->damaged);
        print_quarantined(f->quarantined);
    }
    return damaged ? MN_FAIL(MN_CORRUPT, "damaged pieces: %zu; what is whole stays available", damaged) : MN_OK;
}

static enum mn_status run(struct mn_cli *cli, const struct mn_cli_args *args)
{
    struct findings f = {0};
    bool offline = mn_cli_args_has(args, "offline");
    MN_TRY(mn_cli_args_words(args, 0, 0, ""));
    MN_TRY(mn_cli_need_dir(cli));
    enum mn_status status = offline ? MN_OK : mn_cli_connect(cli);
    if (status == MN_UNAVAILABLE)
        offline = true;
    else if (status != MN_OK)
        return status;
    f.damaged = json_array();
    f.quarantined = json_array();
    f.offline = offline;
    status = f.damaged && f.quarantined ? MN_OK : MN_FAIL(MN_INTERNAL, "out of memory");
    if (status == MN_OK)
        status = offline ? verify_here(cli, &f) : verify_there(cli, &f);
    if (status == MN_OK)
        status = list_quarantine(cli, &f);
    if (status == MN_OK)
        status = print_findings(cli, &f);
    json_decref(f.damaged);
    json_decref(f.quarantined);
    return status;
}

const struct mn_cli_command mn_cmd_verify = {
    .usage = "[--offline]",
    .options = options,
    .details = "Reads every file and compares every checksum: the running store does it beside its work, and where "
               "none runs it is done\n"
               "here. Of each damaged piece it says what it is and what to do about it, and it lists what was put "
               "aside earlier.\n"
               "Exit status 1 when something is damaged.\n",
    .examples = "  mneme verify\n"
                "  mneme --dir /backup/mneme-monday verify       # a snapshot\n"
                "  mneme verify --json | jq .damaged\n",
    .run = run,
};
