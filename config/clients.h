/*
 * clients.h - the list of those who may connect over TCP: one line each, a public key and what its owner may do.
 *
 *     # key (Z85, 40 characters)               name   rights            spaces
 *     rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7 ada    read,write        notes,diary
 *     Yne@$w-vo<fVvi]a<NY6T1ed:M$fCG*[IaLV{hID backup read,admin        *
 *
 * Rights are `read`, `write`, `admin`, with commas between them; spaces are names with commas between them, or `*` for
 * all. In a space's name `%` and two hexadecimal digits stand for a byte: %2C a comma, %20 a blank, %2A a lone star.
 * Empty lines, and lines whose first word is `#`, are passed over. A list is immutable once read: any thread may look.
 */
#ifndef MN_CONFIG_CLIENTS_H
#define MN_CONFIG_CLIENTS_H

#include "shm/status.h"

/* What an operation may need; `ANY` is granted to whoever is on the list. */
#define MN_RIGHT_TABLE(X)                                                                                              \
    X(MN_RIGHT_READ, 1u, "read")                                                                                       \
    X(MN_RIGHT_WRITE, 2u, "write")                                                                                     \
    X(MN_RIGHT_ADMIN, 4u, "admin")

enum mn_right {
    MN_RIGHT_ANY = 0,
#define X(name, bit, word) name = bit,
    MN_RIGHT_TABLE(X)
#undef X
};

#define MN_CLIENTS_KEY       40u /* characters of a key in Z85 */
#define MN_CLIENTS_NAME_MAX  64u
#define MN_CLIENTS_SPACE_MAX 128u
#define MN_CLIENTS_FILE_MAX  (1u << 20)

struct mn_client_space {
    const char *name; /* not NUL-terminated */
    size_t bytes;
};

struct mn_client {
    const char *key, *name;
    unsigned rights; /* enum mn_right, ORed */
    bool all_spaces;
    struct mn_client_space *spaces;
    size_t space_count;
    unsigned line;
};

struct mn_clients {
    char *text; /* owned; names and keys point into it */
    struct mn_client *clients;
    size_t count;
};

/* Takes `bytes` of `text` as a list. MN_USAGE with a sentence that begins "what:line: "; `clients` is then empty. The
 * text may be let go afterwards. */
MN_MUST_USE enum mn_status mn_clients_parse(struct mn_clients *clients, const char *text, size_t bytes,
                                            const char *what);
/* The same from a file, which only its owner and root may write. */
MN_MUST_USE enum mn_status mn_clients_read(struct mn_clients *clients, const char *path);
void mn_clients_free(struct mn_clients *clients);

/* Who has this key (40 characters); NULL: nobody. */
const struct mn_client *mn_clients_find(const struct mn_clients *clients, const char *key);
bool mn_client_may_use(const struct mn_client *client, const char *space, size_t bytes);

/* "read", "write", "admin" with ", " between them; MN_RIGHT_ANY: "any". Into text, which it returns. */
char *mn_rights_text(unsigned rights, char *text, size_t size);
/* The rights in a word like "read,write". MN_USAGE names what is none. */
MN_MUST_USE enum mn_status mn_rights_parse(const char *word, unsigned *rights);

#endif
