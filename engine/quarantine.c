/*
 * quarantine.c - copies of damaged pieces, and their notes.
 */
#include "engine/quarantine.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "engine/crc.h"
#include "engine/fault.h"

#define NOTE_BYTES_MAX  (256u << 10)
#define PIECE_BYTES_MAX ((size_t)4 << 30)
#define NOTE_KEY        ", \"crc32c\": \"" /* of what stands before it; the last member of a note */
#define PIECE_KEY       ", \"piece_crc32c\": \""

/* What a person does with a note. */
#define NEXT                                                                                                           \
    "\"what is lost can be written again, or restored from a snapshot; when that is done, move this note and its "     \
    ".bin "                                                                                                            \
    "out of quarantine/, and the store is not degraded any more after its next start\""
#define HEALED "healed-"

static enum mn_status exists(const struct mn_store *store, const char *path, bool *there)
{
    int fd;
    enum mn_status status = store->io->open(path, MN_IO_READ, &fd);
    *there = status == MN_OK;
    if (*there)
        store->io->close(fd);
    return status == MN_NOT_FOUND ? MN_OK : status;
}

/* A JSON string; control bytes and quotes escaped. */
static void put_json(FILE *out, const char *text)
{
    fputc('"', out);
    for (; *text; text++) {
        if (*text == '"' || *text == '\\')
            fprintf(out, "\\%c", *text);
        else if ((unsigned char)*text < 0x20)
            fprintf(out, "\\u%04x", *text);
        else
            fputc(*text, out);
    }
    fputc('"', out);
}

static void put_id(FILE *out, uint64_t space_hash, const struct mn_id *id, const char **separator)
{
    char text[MN_ID_TEXT_MAX];
    mn_id_text(id, text);
    fprintf(out, "%s\"%016" PRIx64 "/%s\"", *separator, space_hash, text);
    *separator = ", ";
}

/* The ids of the records in the stretch: a whole footer tells them all; else those whose headers are whole. */
static void put_ids(FILE *out, const struct mn_wal_segment *segment, const struct mn_quarantine_note *note)
{
    const char *separator = "";
    fputs("\"ids\": [", out);
    for (uint32_t i = 0; note->footer && i < note->footer->touched && ftell(out) < (long)NOTE_BYTES_MAX; i++) {
        const struct mn_batch_touch *touch = &mn_footer_touches(note->footer)[i];
        struct mn_id id = mn_touch_id(touch);
        if (touch->op == MN_RECORD_PUT)
            put_id(out, touch->space_hash, &id, &separator);
    }
    uint64_t end = segment && !note->footer ? note->offset + note->bytes : 0;
    for (uint64_t at = note->offset; at + sizeof(struct mn_record) <= end && ftell(out) < (long)NOTE_BYTES_MAX;
         at += MN_RECORD_ALIGN) {
        // NOLINTNEXTLINE(clang-analyzer-core.NullDereference): without a segment `end` is 0
        const struct mn_record *r = (const struct mn_record *)(const void *)(segment->base + at);
        if (mn_record_header_valid(r, segment->header.salt, at, end) && r->op == MN_RECORD_PUT)
            put_id(out, r->space_hash, &r->id, &separator);
    }
    fputs("]", out);
}

/* `path` with another ending. */
static char *with_ending(const char *path, const char *ending, char other[MN_PATH_MAX + 16])
{
    snprintf(other, MN_PATH_MAX + 16, "%.*s%s", (int)(strrchr(path, '.') - path), path, ending);
    return other;
}

/* The checksum of a piece; *there: there is one. */
static enum mn_status piece_checksum(const struct mn_store *store, const char *path, uint32_t *crc, bool *there)
{
    void *data;
    size_t bytes;
    enum mn_status status = mn_io_slurp(store->io, path, PIECE_BYTES_MAX, &data, &bytes);
    *there = status == MN_OK;
    if (status != MN_OK)
        return status == MN_NOT_FOUND ? MN_OK : status;
    *crc = mn_crc32c(0, data, bytes);
    free(data);
    return MN_OK;
}

/* Writes a note, which ends with "}\n": with the checksum of the piece that lies beside it, and its own. */
static enum mn_status put_note(const struct mn_store *store, const char *path, const char *text, size_t bytes)
{
    char piece[MN_PATH_MAX + 16], *sealed = malloc(bytes + 128);
    uint32_t crc;
    bool there;
    if (!sealed)
        return MN_FAIL(MN_INTERNAL, "no memory for a quarantine note");
    size_t length = bytes - 2;
    memcpy(sealed, text, length);
    enum mn_status status = piece_checksum(store, with_ending(path, ".bin", piece), &crc, &there);
    MN_TRY_OUT(status);
    if (there)
        length += (size_t)sprintf(sealed + length, PIECE_KEY "%08x\"", crc);
    length += (size_t)sprintf(sealed + length, NOTE_KEY "%08x\"}\n", mn_crc32c(0, sealed, length));
    MN_TRY_OUT(mn_io_replace(store->io, path, sealed, length));
out:
    free(sealed);
    return status;
}

/* ending: of the file under the same name that the note speaks of. */
static enum mn_status write_note(const struct mn_store *store, const char *base, const char *ending,
                                 const struct mn_wal_segment *segment, const struct mn_quarantine_note *note)
{
    char path[MN_PATH_MAX + 16];
    char *text = NULL;
    size_t bytes = 0;
    FILE *out = open_memstream(&text, &bytes);
    if (!out)
        return MN_FAIL(MN_INTERNAL, "no memory for a quarantine note");
    fprintf(out, "{\"file\": \"%s%s\", \"reason\": ", ending[0] ? strrchr(base, '/') + 1 : "", ending);
    put_json(out, note->reason);
    fprintf(out,
            ", \"wal\": %" PRIu64 ", \"offset\": %" PRIu64 ", \"bytes\": %" PRIu64 ", \"first_seq\": %" PRIu64
            ", \"last_seq\": %" PRIu64 ", ",
            note->wal_number, note->offset, note->bytes, note->first_seq, note->last_seq);
    put_ids(out, segment, note);
    fputs(", \"next\": " NEXT "}\n", out);
    fclose(out);
    snprintf(path, sizeof path, "%s.json", base);
    enum mn_status status = put_note(store, path, text, bytes);
    free(text);
    return status;
}

enum mn_status mn_quarantine_wal(const struct mn_store *store, const struct mn_wal_segment *segment,
                                 const struct mn_quarantine_note *note)
{
    char name[96], base[MN_PATH_MAX], path[MN_PATH_MAX + 16];
    bool there;
    snprintf(name, sizeof name, "quarantine/wal-%08" PRIu64 "-%" PRIu64, note->wal_number, note->offset);
    mn_store_path(store, base, name);
    snprintf(path, sizeof path, "%s.json", base);
    MN_TRY(exists(store, path, &there));
    if (there) /* the try that wrote it may have failed to sync its name */
        return mn_io_sync_name(store->io, path);
    mn_wal_make_room(store, note->bytes + NOTE_BYTES_MAX);
    if (segment) {
        snprintf(path, sizeof path, "%s.bin", base);
        MN_TRY(mn_io_replace(store->io, path, segment->base + note->offset, note->bytes));
    }
    MN_FAULT_POINT(recovery_quarantine_copied);
    return write_note(store, base, segment ? ".bin" : "", segment, note);
}

enum mn_status mn_quarantine_unread(const struct mn_store *store, const struct mn_quarantine_note *note)
{
    char name[96], from[MN_PATH_MAX], base[MN_PATH_MAX], path[MN_PATH_MAX + 16];
    enum mn_status status = MN_EXISTS;
    bool there;
    if (!store->io->link)
        return MN_FAIL(MN_SYSTEM, "a log segment with blocks that cannot be read has no other name to be kept under");
    mn_store_wal_path(store, from, note->wal_number);
    for (uint32_t time = 1; status == MN_EXISTS && time < 100; time++) {
        int n = snprintf(name, sizeof name, "quarantine/wal-%08" PRIu64 "-unread", note->wal_number);
        if (time > 1)
            snprintf(name + n, sizeof name - (size_t)n, "-%u", time);
        snprintf(path, sizeof path, "%s.wal", mn_store_path(store, base, name));
        status = store->io->link(from, path);
    }
    MN_TRY(status);
    snprintf(path, sizeof path, "%s.json", base);
    MN_TRY(exists(store, path, &there));
    return there ? mn_io_sync_name(store->io, path) : write_note(store, base, ".wal", NULL, note);
}

/* A note on something that is no stretch of the log: `name` is its file under quarantine/, `file` what it speaks of. */
static enum mn_status write_plain_note(const struct mn_store *store, const char *name, const char *file,
                                       const char *reason)
{
    char path[MN_PATH_MAX];
    char *text = NULL;
    size_t bytes = 0;
    FILE *out = open_memstream(&text, &bytes);
    if (!out)
        return MN_FAIL(MN_INTERNAL, "no memory for a quarantine note");
    fprintf(out, "{\"file\": \"%s\", \"reason\": ", file);
    put_json(out, reason);
    fputs(", \"ids\": [], \"next\": " NEXT "}\n", out);
    fclose(out);
    enum mn_status status = put_note(store, mn_store_path(store, path, name), text, bytes);
    free(text);
    return status;
}

enum mn_status mn_quarantine_note_columns(const struct mn_store *store, uint64_t segment, const char *reason)
{
    char name[96], file[64];
    snprintf(name, sizeof name, "quarantine/columns-%" PRIu64 ".json", segment);
    snprintf(file, sizeof file, "columns/%" PRIu64, segment);
    return write_plain_note(store, name, file, reason);
}

enum mn_status mn_quarantine_ledger(const struct mn_store *store, uint64_t seq, const char *reason)
{
    char name[96], from[MN_PATH_MAX], to[MN_PATH_MAX], told[512];
    uint64_t bytes;
    snprintf(told, sizeof told, "%s", reason); /* it may be the error that the calls below overwrite */
    snprintf(name, sizeof name, "ledger.%" PRIu64, seq);
    mn_store_path(store, from, name);
    snprintf(name, sizeof name, "quarantine/ledger.%" PRIu64 ".bin", seq);
    enum mn_status status = store->io->unlink(mn_store_path(store, to, name)); /* of a try that was cut short */
    if (status == MN_OK || status == MN_NOT_FOUND)
        status = store->io->copy(from, to, &bytes);
    if (status != MN_OK && status != MN_NOT_FOUND)
        return status;
    snprintf(name, sizeof name, "quarantine/ledger.%" PRIu64 ".json", seq);
    return write_plain_note(store, name, status == MN_OK ? strrchr(to, '/') + 1 : "", told);
}

enum mn_status mn_quarantine_healed(const struct mn_store *store, const char *kind, uint64_t number, uint64_t offset,
                                    const void *before, uint64_t bytes, const char *reason)
{
    char name[96], base[MN_PATH_MAX], path[MN_PATH_MAX + 16];
    struct mn_quarantine_note note = {.wal_number = number, .offset = offset, .bytes = bytes, .reason = reason};
    snprintf(name, sizeof name, "quarantine/" HEALED "%s-%08" PRIu64 "-%" PRIu64, kind, number, offset);
    snprintf(path, sizeof path, "%s.bin", mn_store_path(store, base, name));
    mn_wal_make_room(store, bytes + NOTE_BYTES_MAX);
    if (bytes > 0)
        MN_TRY(mn_io_replace(store->io, path, before, bytes));
    return write_note(store, base, bytes > 0 ? ".bin" : "", NULL, &note);
}

/* ---- verify ---- */

struct check {
    const struct mn_store *store;
    uint64_t *files;
    mn_damage_fn damaged;
    void *context;
};

/* The last place where a key stands in a note, or NULL. */
static const char *last_key(const char *text, const char *key)
{
    const char *found = NULL;
    for (const char *at = strstr(text, key); at; at = strstr(at + 1, key))
        found = at;
    return found;
}

/* Why a note is not what was written, or NULL. */
static const char *trouble_of(const struct check *check, const char *path, const char *text, size_t bytes)
{
    char expected[64], piece[MN_PATH_MAX + 16];
    const char *end = last_key(text, NOTE_KEY), *told = last_key(text, PIECE_KEY);
    uint32_t crc = 0;
    bool there;
    if (end)
        snprintf(expected, sizeof expected, NOTE_KEY "%08x\"}\n", mn_crc32c(0, text, (size_t)(end - text)));
    if (!end || strlen(text) != bytes || strcmp(end, expected) != 0)
        return "the note does not match its checksum";
    if (piece_checksum(check->store, with_ending(path, ".bin", piece), &crc, &there) != MN_OK)
        return "the piece that it speaks of cannot be read";
    if (!told)
        return NULL;
    snprintf(expected, sizeof expected, PIECE_KEY "%08x\"", crc);
    return !there                                           ? "the piece that it speaks of is missing"
           : strncmp(told, expected, strlen(expected)) != 0 ? "the piece that it speaks of does not match its checksum"
                                                            : NULL;
}

static enum mn_status check_entry(void *context, const char *name)
{
    const struct check *check = context;
    char folder[MN_PATH_MAX], path[MN_PATH_MAX + 16];
    const char *ending = strrchr(name, '.');
    bool note = ending && strcmp(ending, ".json") == 0, piece = ending && strcmp(ending, ".bin") == 0;
    void *text;
    size_t bytes;
    if ((!note && !piece) || strlen(name) > 255)
        return MN_OK; /* being written, or not ours */
    (*check->files)++;
    snprintf(path, sizeof path, "%.*s/%s", MN_PATH_MAX - 260, mn_store_path(check->store, folder, "quarantine"), name);
    if (piece)
        return MN_OK; /* its note speaks for it; one without a note was being put aside when the power went */
    enum mn_status status = mn_io_slurp(check->store->io, path, PIECE_BYTES_MAX, &text, &bytes);
    if (status == MN_NOT_FOUND)
        return MN_OK; /* a purge has just removed it */
    MN_TRY(status);
    const char *trouble = trouble_of(check, path, text, bytes);
    if (trouble)
        check->damaged(check->context, path, trouble);
    free(text);
    return MN_OK;
}

enum mn_status mn_quarantine_verify(const struct mn_store *store, uint64_t *files, mn_damage_fn damaged, void *context)
{
    struct check check = {store, files, damaged, context};
    char path[MN_PATH_MAX];
    enum mn_status status = store->io->list(mn_store_path(store, path, "quarantine"), check_entry, &check);
    return status == MN_NOT_FOUND ? MN_OK : status;
}

static enum mn_status note_any(void *context, const char *name)
{
    size_t length = strlen(name);
    bool healed = strncmp(name, HEALED, sizeof HEALED - 1) == 0;
    *(bool *)context |= !healed && length > 0; /* a piece whose note is gone counts as well */
    return MN_OK;
}

bool mn_quarantine_holds(const struct mn_store *store)
{
    char path[MN_PATH_MAX];
    bool any = false;
    return store->io->list(mn_store_path(store, path, "quarantine"), note_any, &any) == MN_OK && any;
}
