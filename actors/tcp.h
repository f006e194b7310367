/*
 * tcp.h - the store over TCP: which port is whose, and the server's key.
 *
 * The ports follow tcp.port: control, write, stats, stats.pub, then recall.0, recall.1, ... The key lies in the data
 * folder, in `server.key`: the secret half in Z85, readable by its owner alone.
 */
#ifndef MN_ACTORS_TCP_H
#define MN_ACTORS_TCP_H

#include "config/settings.h"
#include "engine/store.h"

#define MN_TCP_ENDPOINT_MAX 320
#define MN_TCP_KEY_TEXT     41 /* Z85 and NUL */
#define MN_TCP_KEY_FILE     "server.key"

struct mn_tcp_keys {
    char secret[MN_TCP_KEY_TEXT], public[MN_TCP_KEY_TEXT];
};

/* Whether tcp.bind is set. */
bool mn_tcp_on(const struct mn_settings *settings);
/* The endpoint of a socket ("control", "recall.2") to bind; empty without TCP. Into `endpoint` (MN_TCP_ENDPOINT_MAX),
 * which it returns. */
char *mn_tcp_bind_endpoint(const struct mn_settings *settings, const char *name, char *endpoint);
/* The same as another machine connects to it. */
char *mn_tcp_public_endpoint(const struct mn_settings *settings, const char *name, char *endpoint);

/* Makes a pair. MN_SYSTEM where this libzmq was built without CURVE. */
enum mn_status mn_tcp_keys_make(struct mn_tcp_keys *keys) MN_MUST_USE;
/* The server's pair. MN_NOT_FOUND when there is no file; MN_UNAUTHORIZED when others may read it. `dir`: the data
 * folder. */
enum mn_status mn_tcp_keys_read(struct mn_tcp_keys *keys, const char *dir) MN_MUST_USE;
/* The same, made and kept first where there is none. */
enum mn_status mn_tcp_keys_ensure(struct mn_tcp_keys *keys, const char *dir, bool *made) MN_MUST_USE;

/* Where the list of clients is: security.clients, or in the data folder. Into `path` (MN_PATH_MAX), which it returns.
 */
char *mn_tcp_clients_path(const struct mn_settings *settings, const char *dir, char *path);

/* Before anything is bound: the settings of TCP fit together, the key is there (made if not), the list of clients can
 * be read. One sentence says what is wrong. Nothing without TCP. */
enum mn_status mn_tcp_check(const struct mn_settings *settings, const char *dir) MN_MUST_USE;

#endif
