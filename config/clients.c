/*
 * clients.c - reads the list of clients. See clients.h.
 *
 * The file is copied once and cut up in place: words end with NUL where a blank was, and an escaped space name is
 * written over itself, since it only gets shorter.
 */
#include "config/clients.h"

#include <ctype.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char z85[] = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#";

/* ---- one line ---- */

/* Cuts the next word off; NULL at the end of the line. */
static char *next_word(char **at)
{
    char *word = *at + strspn(*at, " \t\r");
    if (!*word)
        return NULL;
    char *end = word + strcspn(word, " \t\r");
    *at = *end ? end + 1 : end;
    *end = '\0';
    return word;
}

enum mn_status mn_rights_parse(const char *word, unsigned *rights)
{
    static const struct {
        const char *word;
        unsigned bit;
    } table[] = {
#define X(name, bit, text) {text, bit},
        MN_RIGHT_TABLE(X)
#undef X
    };
    *rights = 0;
    for (const char *at = word;; at++) {
        size_t bytes = strcspn(at, ","), i = 0;
        while (i < MN_ARRAY_LEN(table) && !(strlen(table[i].word) == bytes && memcmp(table[i].word, at, bytes) == 0))
            i++;
        if (i == MN_ARRAY_LEN(table))
            return MN_FAIL(MN_USAGE, "rights are read, write, admin, with commas between them; \"%.20s\" is none", at);
        *rights |= table[i].bit;
        at += bytes;
        if (!*at)
            return MN_OK;
    }
}

char *mn_rights_text(unsigned rights, char *text, size_t size)
{
    size_t used = 0;
    snprintf(text, size, "any");
#define X(name, bit, word)                                                                                             \
    if ((rights & (bit)) && used < size)                                                                               \
        used += (size_t)snprintf(text + used, size - used, "%s%s", used ? ", " : "", word);
    MN_RIGHT_TABLE(X)
#undef X
    return text;
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c = (char)tolower((unsigned char)c);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Writes the name over itself without its escapes; its bytes, or 0 when an escape is none or hides a NUL. */
static size_t unescape(char *name)
{
    char *to = name;
    for (const char *from = name; *from; from++) {
        if (*from != '%') {
            *to++ = *from;
            continue;
        }
        int high = hex_digit(from[1]), low = high < 0 ? -1 : hex_digit(from[2]);
        if (low < 0 || high * 16 + low == 0)
            return 0;
        *to++ = (char)(high * 16 + low);
        from += 2;
    }
    return (size_t)(to - name);
}

static enum mn_status take_space(struct mn_client *client, char *name)
{
    char shown[32];
    snprintf(shown, sizeof shown, "%s", name);
    size_t bytes = unescape(name);
    if (bytes == 0 || bytes > MN_CLIENTS_SPACE_MAX)
        return MN_FAIL(MN_USAGE,
                       "\"%s\" is no name of a space: 1 to %u bytes, %%2C for a comma, %%25 for a percent sign", shown,
                       MN_CLIENTS_SPACE_MAX);
    client->spaces[client->space_count++] = (struct mn_client_space){name, bytes};
    return MN_OK;
}

static enum mn_status take_spaces(struct mn_client *client, char *word)
{
    size_t most = 1;
    if (strcmp(word, "*") == 0) {
        client->all_spaces = true;
        return MN_OK;
    }
    for (const char *at = word; *at; at++)
        most += *at == ',';
    client->spaces = calloc(most, sizeof *client->spaces);
    if (!client->spaces)
        return MN_FAIL(MN_INTERNAL, "no memory for a list of spaces");
    for (char *name = word, *end; name; name = end) {
        end = strchr(name, ',');
        if (end)
            *end++ = '\0';
        MN_TRY(take_space(client, name));
    }
    return MN_OK;
}

static enum mn_status check_name(const char *name)
{
    if (strlen(name) > MN_CLIENTS_NAME_MAX)
        return MN_FAIL(MN_USAGE, "a name has at most %u bytes", MN_CLIENTS_NAME_MAX);
    for (const char *at = name; *at; at++)
        if (!isprint((unsigned char)*at))
            return MN_FAIL(MN_USAGE, "a name is printable ASCII without blanks");
    return MN_OK;
}

static enum mn_status take_line(struct mn_client *client, const char *key, char *rest)
{
    if (strlen(key) != MN_CLIENTS_KEY || strspn(key, z85) != MN_CLIENTS_KEY)
        return MN_FAIL(MN_USAGE, "a line begins with a public key, %u characters of Z85: `mneme keys NAME` makes one",
                       MN_CLIENTS_KEY);
    char *name = next_word(&rest), *rights = next_word(&rest), *spaces = next_word(&rest);
    if (!spaces || next_word(&rest))
        return MN_FAIL(MN_USAGE, "a line has four words: key, name, rights, spaces");
    client->key = key;
    client->name = name;
    MN_TRY(check_name(name));
    MN_TRY(mn_rights_parse(rights, &client->rights));
    return take_spaces(client, spaces);
}

/* ---- the list ---- */

static enum mn_status at_line(enum mn_status status, const char *what, unsigned line)
{
    char sentence[400];
    snprintf(sentence, sizeof sentence, "%s", mn_error_text());
    return MN_FAIL(status, "%s:%u: %s", what, line, sentence);
}

/* In the order of their keys, to be found by halving. */
static int by_key(const void *a, const void *b)
{
    const struct mn_client *x = a, *y = b;
    return strcmp(x->key, y->key);
}

static enum mn_status sort(struct mn_clients *clients, const char *what)
{
    if (clients->count == 0)
        return MN_OK;
    qsort(clients->clients, clients->count, sizeof *clients->clients, by_key);
    for (size_t i = 1; i < clients->count; i++) {
        unsigned one = clients->clients[i - 1].line, other = clients->clients[i].line;
        if (by_key(&clients->clients[i - 1], &clients->clients[i]) == 0)
            return MN_FAIL(MN_USAGE, "%s:%u: this key is on line %u already", what, one > other ? one : other,
                           one > other ? other : one);
    }
    return MN_OK;
}

static enum mn_status take_all(struct mn_clients *clients, const char *what)
{
    unsigned line = 0;
    for (char *at = clients->text, *end; at; at = end) {
        end = strchr(at, '\n');
        if (end)
            *end++ = '\0';
        line++;
        const char *key = next_word(&at);
        if (!key || strcmp(key, "#") == 0)
            continue;
        struct mn_client *client = &clients->clients[clients->count++];
        client->line = line;
        enum mn_status status = take_line(client, key, at);
        if (status != MN_OK)
            return at_line(status, what, line);
    }
    return sort(clients, what);
}

enum mn_status mn_clients_parse(struct mn_clients *clients, const char *text, size_t bytes, const char *what)
{
    size_t lines = 1;
    *clients = (struct mn_clients){0};
    if (memchr(text, '\0', bytes))
        return MN_FAIL(MN_USAGE, "%s holds a NUL: it is no text", what);
    for (size_t i = 0; i < bytes; i++)
        lines += text[i] == '\n';
    clients->text = malloc(bytes + 1);
    clients->clients = calloc(lines, sizeof *clients->clients);
    enum mn_status status = MN_OK;
    if (!clients->text || !clients->clients)
        MN_TRY_OUT(MN_FAIL(MN_INTERNAL, "no memory for the list of clients"));
    memcpy(clients->text, text, bytes);
    clients->text[bytes] = '\0';
    MN_TRY_OUT(take_all(clients, what));
    return MN_OK;
out:
    mn_clients_free(clients);
    return status;
}

/* The whole file, if nobody but its owner can have written it. */
static enum mn_status slurp(const char *path, int fd, char **text, size_t *bytes)
{
    struct stat st;
    if (fstat(fd, &st) != 0)
        return MN_FAIL_ERRNO("cannot read the list of clients %s", path);
    if (!S_ISREG(st.st_mode) || (st.st_mode & 022) || (st.st_uid != geteuid() && st.st_uid != 0))
        return MN_FAIL(MN_USAGE,
                       "others can write the list of clients %s: it must be a file of this user or root, "
                       "mode 0644 or less",
                       path);
    if (st.st_size > MN_CLIENTS_FILE_MAX)
        return MN_FAIL(MN_USAGE, "the list of clients %s has more than %u bytes", path, MN_CLIENTS_FILE_MAX);
    *text = malloc(MN_CLIENTS_FILE_MAX);
    if (!*text)
        return MN_FAIL(MN_INTERNAL, "no memory for the list of clients");
    ssize_t got;
    while (*bytes < MN_CLIENTS_FILE_MAX && (got = read(fd, *text + *bytes, MN_CLIENTS_FILE_MAX - *bytes)) != 0) {
        if (got < 0)
            return MN_FAIL_ERRNO("cannot read the list of clients %s", path);
        *bytes += (size_t)got;
    }
    return MN_OK;
}

enum mn_status mn_clients_read(struct mn_clients *clients, const char *path)
{
    char *text = NULL;
    size_t bytes = 0;
    *clients = (struct mn_clients){0};
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return MN_FAIL_ERRNO("cannot read the list of clients %s", path);
    enum mn_status status = slurp(path, fd, &text, &bytes);
    close(fd);
    if (status == MN_OK)
        status = mn_clients_parse(clients, text, bytes, path);
    free(text);
    return status;
}

void mn_clients_free(struct mn_clients *clients)
{
    for (size_t i = 0; i < clients->count; i++)
        free(clients->clients[i].spaces); // NOLINT(clang-analyzer-core.NullDereference): without them the count is 0
    free(clients->clients);
    free(clients->text);
    *clients = (struct mn_clients){0};
}

const struct mn_client *mn_clients_find(const struct mn_clients *clients, const char *key)
{
    struct mn_client wanted = {.key = key};
    return clients->count ? bsearch(&wanted, clients->clients, clients->count, sizeof wanted, by_key) : NULL;
}

bool mn_client_may_use(const struct mn_client *client, const char *space, size_t bytes)
{
    for (size_t i = 0; i < client->space_count; i++)
        if (client->spaces[i].bytes == bytes && memcmp(client->spaces[i].name, space, bytes) == 0)
            return true;
    return client->all_spaces;
}
