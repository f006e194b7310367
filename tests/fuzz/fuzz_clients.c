/*
 * fuzz_clients.c - any bytes as a list of clients: each that is taken is found again, and may use the spaces that it
 * names.
 */
#include "config/clients.h"

#include <stdint.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct mn_clients clients;
    char rights[64];
    if (mn_clients_parse(&clients, (const char *)data, size, "list") != MN_OK) {
        MN_ASSERT(clients.count == 0 && mn_error_text()[0]);
        return 0;
    }
    for (size_t i = 0; i < clients.count; i++) {
        const struct mn_client *client = &clients.clients[i];
        MN_ASSERT(strlen(client->key) == MN_CLIENTS_KEY && mn_clients_find(&clients, client->key) == client);
        MN_ASSERT(client->rights != MN_RIGHT_ANY && *mn_rights_text(client->rights, rights, sizeof rights));
        MN_ASSERT(client->all_spaces || client->space_count > 0);
        for (size_t k = 0; k < client->space_count; k++)
            MN_ASSERT(mn_client_may_use(client, client->spaces[k].name, client->spaces[k].bytes));
    }
    mn_clients_free(&clients);
    return 0;
}
