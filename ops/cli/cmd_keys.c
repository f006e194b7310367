/*
 * cmd_keys.c - `mneme keys`: the server's key, and keys for clients that come over TCP.
 *
 * No server is needed. A client's secret half is printed and kept nowhere: the store knows public keys only.
 */
#include "actors/tcp.h"
#include "config/clients.h"
#include "ops/cli/cli.h"
#include "ops/cli/cli_json.h"
#include "ops/cli/cli_out.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const struct mn_cli_option options[] = {
    {"rights", 'r', "LIST", "what it may do: read, write, admin, with commas between them (default: read,write)"},
    {"spaces", 's', "LIST", "the spaces it may use, with commas between them, or * for all (default: *)"},
    {"add", 0, NULL, "put it on the store's list of clients"},
    {0},
};

/* ---- the server ---- */

static enum mn_status show_server(const struct mn_cli *cli)
{
    struct mn_tcp_keys keys;
    bool made;
    MN_TRY(mn_cli_need_dir(cli));
    if (mkdir(cli->dir, 0700) != 0 && errno != EEXIST)
        return MN_FAIL_ERRNO("cannot make the data folder %s", cli->dir);
    MN_TRY(mn_tcp_keys_ensure(&keys, cli->dir, &made));
    if (cli->json)
        return mn_cli_json_print(json_pack("{s:b, s:s, s:b}", "ok", 1, "public", keys.public, "made", made),
                                 cli->out_is_terminal);
    printf("%s\n", keys.public);
    return MN_OK;
}

/* ---- a client ---- */

/* The list that the running store uses, or the one it will use. */
static enum mn_status find_list(const struct mn_cli *cli, char *path)
{
    struct mn_settings settings;
    MN_TRY(mn_cli_need_dir(cli));
    if (mkdir(cli->dir, 0700) != 0 && errno != EEXIST)
        return MN_FAIL_ERRNO("cannot make the data folder %s", cli->dir);
    mn_settings_default(&settings);
    snprintf(path, MN_PATH_MAX, "%s/run/settings", cli->dir);
    if (access(path, R_OK) == 0)
        MN_TRY(mn_settings_read_file(&settings, path));
    mn_tcp_clients_path(&settings, cli->dir, path);
    return MN_OK;
}

/* One write, at the end of the file, which begins a line of its own. */
static enum mn_status append(const char *path, const char *line)
{
    char text[MN_SETTINGS_LINE_MAX + 2], last = '\n';
    int fd = open(path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (fd < 0)
        return MN_FAIL_ERRNO("cannot write the list of clients %s", path);
    off_t end = lseek(fd, 0, SEEK_END);
    if (end > 0 && pread(fd, &last, 1, end - 1) != 1)
        last = '\0';
    int bytes = snprintf(text, sizeof text, "%s%s\n", last == '\n' ? "" : "\n", line);
    enum mn_status status = MN_OK;
    if (write(fd, text, (size_t)bytes) != bytes || fsync(fd) != 0)
        status = MN_FAIL_ERRNO("cannot write the list of clients %s", path);
    close(fd);
    return status;
}

/* A list that is wrong already gets no further line. */
static enum mn_status add(const struct mn_cli *cli, const char *line)
{
    char path[MN_PATH_MAX];
    struct mn_clients clients;
    MN_TRY(find_list(cli, path));
    if (access(path, F_OK) == 0) {
        MN_TRY(mn_clients_read(&clients, path));
        mn_clients_free(&clients);
    }
    return append(path, line);
}

static enum mn_status make_line(const struct mn_cli_args *args, const char *key, char *line, size_t size)
{
    struct mn_clients clients;
    const char *rights = mn_cli_args_text(args, "rights"), *spaces = mn_cli_args_text(args, "spaces");
    int bytes =
        snprintf(line, size, "%s %s %s %s", key, args->words[0], rights ? rights : "read,write", spaces ? spaces : "*");
    if (bytes < 0 || (size_t)bytes >= size)
        return MN_FAIL(MN_USAGE, "so many spaces do not fit a line");
    MN_TRY(mn_clients_parse(&clients, line, (size_t)bytes, "keys"));
    bool one = clients.count == 1;
    mn_clients_free(&clients);
    return one ? MN_OK : MN_FAIL(MN_USAGE, "that makes no line of a list of clients");
}

static enum mn_status make_client(const struct mn_cli *cli, const struct mn_cli_args *args)
{
    struct mn_tcp_keys keys;
    char line[MN_SETTINGS_LINE_MAX];
    MN_TRY(mn_tcp_keys_make(&keys));
    MN_TRY(make_line(args, keys.public, line, sizeof line));
    if (mn_cli_args_has(args, "add"))
        MN_TRY(add(cli, line));
    if (cli->json)
        return mn_cli_json_print(
            json_pack("{s:b, s:s, s:s, s:s}", "ok", 1, "public", keys.public, "secret", keys.secret, "line", line),
            cli->out_is_terminal);
    mn_cli_out_field(cli, "public", "%s", keys.public);
    mn_cli_out_field(cli, "secret", "%s", keys.secret);
    mn_cli_out_field(cli, "line", "%s", line);
    return MN_OK;
}

static enum mn_status run(struct mn_cli *cli, const struct mn_cli_args *args)
{
    MN_TRY(mn_cli_args_words(args, 0, 1, "the client's NAME, or nothing"));
    return args->word_count ? make_client(cli, args) : show_server(cli);
}

const struct mn_cli_command mn_cmd_keys = {
    .usage = "[NAME] [--rights LIST] [--spaces LIST] [--add]",
    .options = options,
    .details = "Without a name: prints the public key of the store in --dir, which its clients over TCP need, and "
               "makes the pair first\n"
               "where there is none. The secret half stays in the data folder, in server.key, for its owner alone.\n\n"
               "With a name: makes a pair for a client and prints both halves, and the line that lets it in. The list "
               "of clients is\n"
               "the file `clients` in the data folder, or security.clients; `mneme reload` makes a running store read "
               "it again.\n",
    .examples = "  mneme --dir /var/lib/agents keys\n"
                "  mneme --dir /var/lib/agents keys ada --rights read,write --spaces notes,diary --add\n"
                "  mneme keys backup --rights read,admin\n",
    .run = run,
};
