/*
 * cli_damage.c - the table of what a damaged piece means, by where it lies.
 */
#include "ops/cli/cli_damage.h"

#include <string.h>

#define ANEW "nothing: the running store makes it anew"

/* The first row that fits. */
static const struct mn_cli_damage table[] = {
    {"/quarantine/", "a note about earlier damage, or the piece that it speaks of: nothing of the store itself",
     "nothing: take both away when they have been read", "nothing of the store; the note or the piece stays damaged"},
    {"/ivf.", "an index: recall is slower until it is there again", ANEW, ANEW},
    {"/codebooks/", "an index: recall is slower until it is there again", ANEW, ANEW},
    {"/parity.col", "no memory is touched: it is what damaged columns are mended with", ANEW, ANEW},
    {"/idhash.col", "an index of the columns: finding ids is slower until it is there again", ANEW, ANEW},
    {"/postings.col", "an index of the columns: filters are slower until it is there again", ANEW, ANEW},
    {"/metaindex.col", "an index of the columns: filters are slower until it is there again", ANEW, ANEW},
    {"/columns/", "memories of one column segment; what parity.col can make again is not lost",
     "start the store and look again in a minute: what is still told then cannot be mended; restore a snapshot",
     "nothing, where parity.col can make it again: the running store does; otherwise the memories whose bytes these "
     "are"},
    {"/wal/MARK", "what says up to where writes were acknowledged", "nothing: the next start writes it anew",
     "nothing: the first start writes it anew"},
    {"/wal/", "memories that were written lately; those whose records are whole are kept",
     "start the store: info tells what is lost, notes in quarantine/ name it; restore a snapshot if it matters",
     "the writes whose records are damaged: the first start names them in notes in quarantine/"},
    {"/MANIFEST", "one copy of what says which files are the store",
     "nothing while the other copy is whole: the next change writes it anew; else restore a snapshot",
     "nothing: it is written anew from the other copy"},
    {"/STORE", "one copy of what says which store this is",
     "nothing while the other copy is whole: the next start writes it anew; else restore a snapshot",
     "nothing: it is written anew from the other copy"},
    {"/ledger.", "which repeated writes have been answered, and the next free ids",
     "nothing: the next start makes it anew; a write that is repeated by its idem key may then be carried out twice",
     "no memory; a write that is repeated by its idem key may be carried out twice"},
    {"", "a file of the store", "restore a snapshot if the store cannot be started", "what this file held"},
};

const struct mn_cli_damage *mn_cli_damage_of(const char *path)
{
    const struct mn_cli_damage *row = table;
    while (!strstr(path, row->in))
        row++;
    return row;
}
