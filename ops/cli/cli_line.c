/*
 * cli_line.c - JSON Lines of memories, both ways (see cli_line.h).
 */
#include "ops/cli/cli_line.h"

#include "ops/cli/cli_base64.h"
#include "ops/cli/cli_id.h"
#include "ops/cli/cli_json.h"
#include "ops/cli/cli_time.h"
#include "ops/cli/cli_vector.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- the embedding of a line, without the JSON library ----
 *
 * The library makes an allocation for each number, and nearly all of a line is numbers. So the array is found by
 * walking over the top level, read here, and the library gets the line with `null` in its place. Whatever looks odd is
 * left to the library, which knows how to say what is wrong.
 */

static size_t skip_blank(const char *line, size_t size, size_t at)
{
    while (at < size && (line[at] == ' ' || line[at] == '\t' || line[at] == '\r'))
        at++;
    return at;
}

/* Behind the string that begins at `at`; `size` when it does not end. */
static size_t skip_string(const char *line, size_t size, size_t at)
{
    for (at++; at < size && line[at] != '"'; at++)
        at += line[at] == '\\';
    return at < size ? at + 1 : size;
}

/* Behind the value that begins at `at`: at the comma or brace that follows it. */
static size_t skip_value(const char *line, size_t size, size_t at)
{
    size_t depth = 0;
    while (at < size) {
        char c = line[at];
        if (depth == 0 && (c == ',' || c == '}'))
            return at;
        if (c == '"') {
            at = skip_string(line, size, at);
            continue;
        }
        depth += c == '{' || c == '[';
        depth -= c == '}' || c == ']';
        at++;
    }
    return size;
}

/* Where the array under "embedding" stands: from its bracket to behind the closing one. */
static bool find_embedding(const char *line, size_t size, size_t *from, size_t *to)
{
    static const char key[] = "\"embedding\"";
    size_t at = skip_blank(line, size, 0);
    if (at == size || line[at++] != '{')
        return false;
    while ((at = skip_blank(line, size, at)) < size && line[at] == '"') {
        bool here = size - at > sizeof key && memcmp(line + at, key, sizeof key - 1) == 0;
        at = skip_blank(line, size, skip_string(line, size, at));
        if (at == size || line[at++] != ':')
            return false;
        at = skip_blank(line, size, at);
        if (here && at < size && line[at] == '[') {
            const char *end = memchr(line + at, ']', size - at);
            *from = at;
            *to = end ? (size_t)(end - line) + 1 : 0;
            return end != NULL;
        }
        at = skip_value(line, size, at);
        if (at == size || line[at++] != ',')
            return false;
    }
    return false;
}

/* `[n, n, ...]` of exactly `dim` plain numbers. `text` ends in a bracket, which is where strtod stops at the latest. */
static bool read_numbers(const char *text, const char *end, uint32_t dim, float *out)
{
    for (uint32_t i = 0; i < dim; i++) {
        size_t left = (size_t)(end - ++text), blank = skip_blank(text, left, 0);
        char *behind;
        text += blank;
        size_t digits = strspn(text, "0123456789+-.eE");
        if (digits == 0 || text[0] == '+' || text[0] == '.')
            return false;
        out[i] = (float)strtod(text, &behind);
        if (behind != text + digits || !isfinite(out[i]))
            return false;
        text = behind + skip_blank(behind, (size_t)(end - behind), 0);
        if (*text != (i + 1 < dim ? ',' : ']'))
            return false;
    }
    return text + 1 == end;
}

/* The line's JSON with null for its embedding, which comes in *vector (owned: free it). NULL when that did not work
 * out. */
static json_t *load_without_embedding(const char *line, size_t size, uint32_t dim, float **vector)
{
    size_t from, to;
    if (!find_embedding(line, size, &from, &to) || dim == 0)
        return NULL;
    float *numbers = malloc(dim * sizeof *numbers);
    char *rest = malloc(size - (to - from) + 4);
    json_t *object = NULL;
    if (numbers && rest && read_numbers(line + from, line + to, dim, numbers)) {
        memcpy(rest, line, from);
        memcpy(rest + from, "null", 4); // NOLINT(bugprone-not-null-terminated-result): JSON with a length
        memcpy(rest + from + 4, line + to, size - to);
        object = json_loadb(rest, size - (to - from) + 4, JSON_ALLOW_NUL | JSON_REJECT_DUPLICATES, NULL);
    }
    free(rest);
    if (object)
        *vector = numbers;
    else
        free(numbers);
    return object;
}

/* ---- a line to a memory ---- */

struct packing {
    msgpack_packer packer;
    uint32_t dim;
    uint32_t entries;
    bool embedded; /* the embedding was put */
};

static void put_key(struct packing *p, const char *key)
{
    p->entries++;
    mn_cli_json_pack_text(&p->packer, key);
}

static void put_vector(struct packing *p, const float *vector)
{
    put_key(p, "embedding");
    msgpack_pack_bin(&p->packer, p->dim * sizeof *vector);
    msgpack_pack_bin_body(&p->packer, vector, p->dim * sizeof *vector);
    p->embedded = true;
}

static enum mn_status decode_f32(const json_t *text, uint32_t dim, float *out)
{
    size_t n = json_string_length(text), size = 0, wanted = dim * sizeof *out;
    char *bytes = json_is_string(text) ? malloc(n / 4 * 3 + 1) : NULL;
    if (!bytes)
        return MN_FAIL(MN_BAD_REQUEST, "$f32 takes a string of base64");
    bool good = mn_cli_base64_decode(json_string_value(text), n, bytes, &size);
    if (good && size == wanted)
        memcpy(out, bytes, size);
    free(bytes);
    if (!good)
        return MN_FAIL(MN_BAD_REQUEST, "$f32 does not hold base64");
    return size == wanted
               ? MN_OK
               : MN_FAIL(MN_BAD_DIM, "the embedding has %zu numbers, the store takes %u", size / sizeof *out, dim);
}

static enum mn_status put_embedding(struct packing *p, const json_t *value)
{
    if (p->embedded)
        return MN_FAIL(MN_BAD_REQUEST, "the line has an `embedding`, and the file of vectors has one for it too");
    float *vector = malloc((p->dim ? p->dim : 1) * sizeof *vector);
    if (!vector)
        return MN_FAIL(MN_INTERNAL, "out of memory");
    const json_t *coded = json_object_get(value, "$f32");
    enum mn_status status = coded ? decode_f32(coded, p->dim, vector) : mn_cli_vector_from_json(value, p->dim, vector);
    if (status == MN_OK)
        put_vector(p, vector);
    free(vector);
    return status;
}

static enum mn_status read_id(const json_t *value, struct mneme_id *id)
{
    memset(id, 0, sizeof *id);
    if (json_is_string(value) && mn_cli_id_parse(json_string_value(value), id) == MN_OK && id->uuid[0])
        return MN_OK;
    if (!json_is_integer(value) || json_integer_value(value) < 0)
        return MN_FAIL(MN_BAD_REQUEST, "an id is an integer below 2^63 or a UUID");
    id->number = (uint64_t)json_integer_value(value);
    return MN_OK;
}

static void put_id(struct packing *p, const struct mneme_id *id)
{
    if (!id->uuid[0]) {
        msgpack_pack_uint64(&p->packer, id->number);
        return;
    }
    mn_cli_json_pack_text(&p->packer, id->uuid);
}

static enum mn_status put_time(struct packing *p, const char *key, const json_t *value)
{
    int64_t ns = json_integer_value(value);
    if (json_is_string(value) ? !mn_cli_time_parse(json_string_value(value), mn_cli_time_now(), &ns)
                              : !json_is_integer(value))
        return MN_FAIL(MN_BAD_REQUEST, "`%s` is nanoseconds since 1970 or a time such as 2026-03-01T12:00:00Z", key);
    put_key(p, key);
    msgpack_pack_int64(&p->packer, ns);
    return MN_OK;
}

static enum mn_status put_supersedes(struct packing *p, const json_t *value)
{
    if (!json_is_array(value))
        return MN_FAIL(MN_BAD_REQUEST, "`supersedes` is an array of ids");
    put_key(p, "supersedes");
    msgpack_pack_array(&p->packer, json_array_size(value));
    for (size_t i = 0; i < json_array_size(value); i++) {
        struct mneme_id id;
        MN_TRY(read_id(json_array_get(value, i), &id));
        put_id(p, &id);
    }
    return MN_OK;
}

static enum mn_status check_tags(const json_t *value)
{
    bool good = json_is_array(value);
    for (size_t i = 0; good && i < json_array_size(value); i++)
        good = json_is_string(json_array_get(value, i));
    return good ? MN_OK : MN_FAIL(MN_BAD_REQUEST, "`tags` is an array of strings");
}

static enum mn_status check_content(const json_t *value)
{
    char *bytes;
    size_t size;
    bool binary;
    MN_TRY(mn_cli_json_to_bytes(value, &bytes, &size, &binary));
    free(bytes);
    return MN_OK;
}

static enum mn_status check_space(const json_t *value, struct mn_cli_line *facts)
{
    size_t size = json_string_length(value);
    if (!json_is_string(value) || size == 0 || size > MN_CLI_LINE_SPACE_MAX)
        return MN_FAIL(MN_BAD_REQUEST, "`space` is a string of 1 to %d bytes", MN_CLI_LINE_SPACE_MAX);
    memcpy(facts->space, json_string_value(value), size + 1);
    return MN_OK;
}

/* One key of the line: checked for its type here, where the line's number is known; the store checks the rest. */
static enum mn_status put_entry(struct packing *p, const char *key, const json_t *value, struct mn_cli_line *facts)
{
    if (strcmp(key, "embedding") == 0)
        return json_is_null(value) ? MN_OK : put_embedding(p, value);
    if (strcmp(key, "space") == 0)
        return check_space(value, facts);
    if (strcmp(key, "id") == 0) {
        facts->has_id = true;
        return read_id(value, &facts->id);
    }
    if (strcmp(key, "at") == 0 || strcmp(key, "expires") == 0)
        return json_is_null(value) ? MN_OK : put_time(p, key, value);
    if (strcmp(key, "supersedes") == 0)
        return put_supersedes(p, value);
    if (strcmp(key, "version") == 0 || strcmp(key, "score") == 0 || strcmp(key, "similarity") == 0 ||
        json_is_null(value))
        return MN_OK;
    if (strcmp(key, "content") == 0)
        MN_TRY(check_content(value));
    else if (strcmp(key, "tags") == 0)
        MN_TRY(check_tags(value));
    else if (strcmp(key, "meta") == 0         ? !json_is_object(value)
             : strcmp(key, "confidence") == 0 ? !json_is_number(value)
                                              : strcmp(key, "if_absent") == 0 && !json_is_boolean(value))
        return MN_FAIL(MN_BAD_REQUEST, "`%s` has the wrong type", key);
    else if (strcmp(key, "meta") != 0 && strcmp(key, "confidence") != 0 && strcmp(key, "if_absent") != 0)
        return MN_FAIL(MN_BAD_REQUEST, "a memory has no `%.40s`", key);
    put_key(p, key);
    return mn_cli_json_pack(&p->packer, value);
}

static enum mn_status pack_object(struct packing *p, const json_t *object, struct mn_cli_line *facts)
{
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)object, key, value) MN_TRY(put_entry(p, key, value, facts));
    if (!p->embedded)
        return MN_FAIL(MN_BAD_REQUEST, "the line has no `embedding`");
    if (facts->has_id) {
        put_key(p, "id");
        put_id(p, &facts->id);
    }
    return MN_OK;
}

/* The map's header has a fixed width, so that the count can be written when it is known. */
static void write_count(msgpack_sbuffer *out, size_t header, uint32_t count)
{
    out->data[header] = (char)0xdf;
    for (unsigned i = 0; i < 4; i++)
        out->data[header + 1 + i] = (char)(count >> (24 - 8 * i));
}

static uint32_t read_count(const msgpack_sbuffer *out, size_t header)
{
    uint32_t count = 0;
    for (unsigned i = 0; i < 4; i++)
        count = count << 8 | (unsigned char)out->data[header + 1 + i];
    return count;
}

enum mn_status mn_cli_line_pack(const char *line, size_t size, uint32_t dim, const float *vector,
                                struct mn_cli_line *facts, msgpack_sbuffer *out)
{
    struct packing p = {.dim = dim};
    size_t header = out->size;
    json_error_t error = {0};
    float *own = NULL;
    memset(facts, 0, sizeof *facts);
    json_t *object = vector || !line ? NULL : load_without_embedding(line, size, dim, &own);
    if (!object)
        object = line ? json_loadb(line, size, JSON_ALLOW_NUL | JSON_REJECT_DUPLICATES, &error) : json_object();
    if (!object)
        return MN_FAIL(MN_BAD_REQUEST, "this is not JSON: %s (column %d)", error.text, error.column);
    msgpack_packer_init(&p.packer, out, msgpack_sbuffer_write);
    enum mn_status status = MN_OK;
    if (!json_is_object(object))
        status = MN_FAIL(MN_BAD_REQUEST, "a memory is a JSON object");
    else if (msgpack_sbuffer_write(out, "\xdf\0\0\0", 5) != 0)
        status = MN_FAIL(MN_INTERNAL, "out of memory");
    if (status == MN_OK && (vector || own))
        put_vector(&p, vector ? vector : own);
    if (status == MN_OK)
        status = pack_object(&p, object, facts);
    json_decref(object);
    free(own);
    if (status == MN_OK)
        write_count(out, header, p.entries);
    else
        out->size = header;
    return status;
}

void mn_cli_line_add_id(msgpack_sbuffer *out, size_t header, const struct mneme_id *id)
{
    struct packing p = {0};
    msgpack_packer_init(&p.packer, out, msgpack_sbuffer_write);
    put_key(&p, "id");
    put_id(&p, id);
    write_count(out, header, read_count(out, header) + 1);
}

/* ---- a memory to a line ---- */

static bool set(json_t *object, const char *key, json_t *value)
{
    return json_object_set_new(object, key, value) == 0;
}

static json_t *head_of(const struct mneme_found *m, const char *space)
{
    json_t *o = json_object();
    bool good = set(o, "id", m->id.uuid[0] ? json_string(m->id.uuid) : json_integer((json_int_t)m->id.number));
    if (strcmp(space, "default") != 0)
        good = good && set(o, "space", json_string(space));
    if (m->at != INT64_MIN)
        good = good && set(o, "at", json_integer(m->at));
    if (m->expires != INT64_MIN)
        good = good && set(o, "expires", json_integer(m->expires));
    if (!isnan(m->confidence))
        good = good && set(o, "confidence", json_real(m->confidence));
    if (mneme_value_length(m->tags))
        good = good && set(o, "tags", mn_cli_json_from_value(m->tags));
    if (mneme_value_type(m->meta) == MNEME_TYPE_MAP) /* also one that is empty */
        good = good && set(o, "meta", mn_cli_json_from_value(m->meta));
    if (m->content)
        good = good && set(o, "content", mn_cli_json_from_bytes(m->content, m->content_size, m->content_is_binary));
    if (!good) {
        json_decref(o);
        return NULL;
    }
    return o;
}

/* Nine significant digits give the same 32-bit float back. */
static void write_array(FILE *out, const void *bytes, size_t size)
{
    const char *at = bytes;
    fputs(",\"embedding\":[", out);
    for (size_t i = 0; i + 4 <= size; i += 4) {
        float f;
        memcpy(&f, at + i, sizeof f);
        fprintf(out, "%s%.9g", i ? "," : "", (double)f);
    }
    fputs("]", out);
}

static bool write_base64(FILE *out, const void *bytes, size_t size)
{
    char *text = malloc(mn_cli_base64_size(size) + 1);
    if (!text)
        return false;
    mn_cli_base64_encode(bytes, size, text);
    fprintf(out, ",\"embedding\":{\"$f32\":\"%s\"}", text);
    free(text);
    return true;
}

enum mn_status mn_cli_line_write(FILE *out, const struct mneme_found *memory, const char *space,
                                 enum mn_cli_line_embedding embedding)
{
    json_t *head = head_of(memory, space);
    char *text = head ? json_dumps(head, JSON_COMPACT) : NULL;
    bool good = text != NULL;
    json_decref(head);
    if (good) {
        fwrite(text, 1, strlen(text) - 1, out); /* without the closing brace */
        if (embedding == MN_CLI_LINE_ARRAY)
            write_array(out, memory->embedding, memory->embedding_size);
        else if (embedding == MN_CLI_LINE_BASE64)
            good = write_base64(out, memory->embedding, memory->embedding_size);
        fputs("}\n", out);
    }
    free(text);
    if (!good)
        return MN_FAIL(MN_INTERNAL, "out of memory for a line");
    return ferror(out) ? MN_FAIL_ERRNO("could not write a line") : MN_OK;
}
