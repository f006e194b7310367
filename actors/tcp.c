/*
 * tcp.c - ports, addresses and the server's key. See tcp.h.
 */
#include "actors/tcp.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <zmq.h>

#include "config/clients.h"

#define KEY_CHARACTERS (MN_TCP_KEY_TEXT - 1)

/* ---- endpoints ---- */

/* In the order of the ports; the recall workers come behind. */
static const char *const names[] = {"control", "write", "stats", "stats.pub"};

static uint32_t port_of(const struct mn_settings *settings, const char *name)
{
    uint32_t port = (uint32_t)settings->tcp_port, worker = 0;
    for (uint32_t i = 0; i < MN_ARRAY_LEN(names); i++)
        if (strcmp(names[i], name) == 0)
            return port + i;
    int read = sscanf(name, "recall.%u", &worker);
    MN_ASSERT(read == 1); /* the only ones that are left */
    return port + (uint32_t)MN_ARRAY_LEN(names) + worker;
}

bool mn_tcp_on(const struct mn_settings *settings)
{
    return settings->tcp_bind[0] != '\0';
}

static char *endpoint_at(const struct mn_settings *settings, const char *host, const char *name, char *endpoint)
{
    bool bare_v6 = strchr(host, ':') && host[0] != '[';
    snprintf(endpoint, MN_TCP_ENDPOINT_MAX, "tcp://%s%s%s:%u", bare_v6 ? "[" : "", host, bare_v6 ? "]" : "",
             port_of(settings, name));
    return endpoint;
}

char *mn_tcp_bind_endpoint(const struct mn_settings *settings, const char *name, char *endpoint)
{
    endpoint[0] = '\0';
    return mn_tcp_on(settings) ? endpoint_at(settings, settings->tcp_bind, name, endpoint) : endpoint;
}

static bool is_all_addresses(const char *host)
{
    return strcmp(host, "*") == 0 || strcmp(host, "0.0.0.0") == 0 || strcmp(host, "::") == 0 ||
           strcmp(host, "[::]") == 0;
}

char *mn_tcp_public_endpoint(const struct mn_settings *settings, const char *name, char *endpoint)
{
    char own[MN_SETTINGS_STRING_MAX] = "localhost";
    const char *host = settings->tcp_host[0] ? settings->tcp_host : settings->tcp_bind;
    if (is_all_addresses(host)) {
        if (gethostname(own, sizeof own - 1) != 0)
            snprintf(own, sizeof own, "localhost");
        host = own;
    }
    return endpoint_at(settings, host, name, endpoint);
}

/* ---- the key ---- */

enum mn_status mn_tcp_keys_make(struct mn_tcp_keys *keys)
{
    if (!zmq_has("curve") || zmq_curve_keypair(keys->public, keys->secret) != 0)
        return MN_FAIL(MN_SYSTEM, "this libzmq was built without CURVE: it can make no keys (Debian's libzmq5 can)");
    return MN_OK;
}

static enum mn_status check_file(int fd, const char *path)
{
    struct stat st;
    if (fstat(fd, &st) != 0)
        return MN_FAIL_ERRNO("cannot read %s", path);
    if (!S_ISREG(st.st_mode) || (st.st_mode & 077) || (st.st_uid != geteuid() && geteuid() != 0))
        return MN_FAIL(MN_UNAUTHORIZED,
                       "others may read the server's key %s: it must be this user's alone (chmod 0600; "
                       "if they have read it, remove it and make a new one)",
                       path);
    return MN_OK;
}

static enum mn_status read_secret(struct mn_tcp_keys *keys, const char *path, int fd)
{
    char text[KEY_CHARACTERS + 2];
    MN_TRY(check_file(fd, path));
    ssize_t got = read(fd, text, sizeof text);
    if (got < 0)
        return MN_FAIL_ERRNO("cannot read %s", path);
    bool whole = got == KEY_CHARACTERS || (got == KEY_CHARACTERS + 1 && text[KEY_CHARACTERS] == '\n');
    if (whole)
        memcpy(keys->secret, text, KEY_CHARACTERS);
    keys->secret[KEY_CHARACTERS] = '\0';
    if (!whole || zmq_curve_public(keys->public, keys->secret) != 0)
        return MN_FAIL(MN_CORRUPT, "%s holds no key: %d characters of Z85 and nothing else", path, KEY_CHARACTERS);
    return MN_OK;
}

static char *key_path(const char *dir, char *path)
{
    snprintf(path, MN_PATH_MAX, "%s/" MN_TCP_KEY_FILE, dir);
    return path;
}

enum mn_status mn_tcp_keys_read(struct mn_tcp_keys *keys, const char *dir)
{
    char path[MN_PATH_MAX];
    int fd = open(key_path(dir, path), O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0 && errno == ENOENT)
        return MN_FAIL(MN_NOT_FOUND, "there is no server key: %s", path);
    if (fd < 0)
        return MN_FAIL_ERRNO("cannot read %s", path);
    enum mn_status status = read_secret(keys, path, fd);
    close(fd);
    return status;
}

/* Whole or not at all, and never over a key that is there: linked into place. */
static enum mn_status keep(const struct mn_tcp_keys *keys, const char *dir)
{
    char path[MN_PATH_MAX], fresh[MN_PATH_MAX + 16], text[MN_TCP_KEY_TEXT + 1];
    snprintf(fresh, sizeof fresh, "%s.%d", key_path(dir, path), (int)getpid());
    int bytes = snprintf(text, sizeof text, "%s\n", keys->secret);
    int fd = open(fresh, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0)
        return MN_FAIL_ERRNO("cannot make the server's key %s", fresh);
    enum mn_status status = MN_OK;
    if (write(fd, text, (size_t)bytes) != bytes || fsync(fd) != 0)
        status = MN_FAIL_ERRNO("cannot write the server's key %s", fresh);
    close(fd);
    if (status == MN_OK && link(fresh, path) != 0 && errno != EEXIST)
        status = MN_FAIL_ERRNO("cannot make the server's key %s", path);
    unlink(fresh);
    return status;
}

enum mn_status mn_tcp_keys_ensure(struct mn_tcp_keys *keys, const char *dir, bool *made)
{
    enum mn_status status = mn_tcp_keys_read(keys, dir);
    *made = status == MN_NOT_FOUND;
    if (!*made)
        return status;
    MN_TRY(mn_tcp_keys_make(keys));
    MN_TRY(keep(keys, dir));
    return mn_tcp_keys_read(keys, dir);
}

/* ---- before anything is bound ---- */

char *mn_tcp_clients_path(const struct mn_settings *settings, const char *dir, char *path)
{
    if (settings->security_clients[0] == '/')
        snprintf(path, MN_PATH_MAX, "%s", settings->security_clients);
    else
        snprintf(path, MN_PATH_MAX, "%s/%s", dir,
                 settings->security_clients[0] ? settings->security_clients : "clients");
    return path;
}

static enum mn_status check_secrets(const struct mn_settings *settings, const char *dir)
{
    char path[MN_PATH_MAX];
    struct mn_tcp_keys keys;
    struct mn_clients clients;
    bool made;
    if (!zmq_has("curve"))
        return MN_FAIL(MN_SYSTEM, "tcp.bind needs a libzmq with CURVE, and this one was built without it: use Debian's "
                                  "libzmq5, or leave tcp.bind empty");
    MN_TRY(mn_tcp_keys_ensure(&keys, dir, &made));
    mn_tcp_clients_path(settings, dir, path);
    if (access(path, F_OK) != 0)
        return MN_FAIL(MN_USAGE,
                       "tcp.bind is set, and there is no list of those who may connect: make %s with "
                       "`mneme --dir %s keys NAME --add`, or set security.clients",
                       path, dir);
    MN_TRY(mn_clients_read(&clients, path));
    mn_clients_free(&clients);
    return MN_OK;
}

/* The highest port fits: tcp.port ends where the workers that there can be still have room. */
enum mn_status mn_tcp_check(const struct mn_settings *settings, const char *dir)
{
    return mn_tcp_on(settings) && !settings->security_allow_plain_tcp ? check_secrets(settings, dir) : MN_OK;
}
