/*
 * fuzz_meta.c - arbitrary bytes as compact meta: every reader returns, stays within the bytes, and keeps its laws.
 *
 * The input is a key length, a key, and the rest twice: as one document, and cut in two to be compared.
 */
#include "engine/meta.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool law)
{
    if (!law)
        abort();
}

static void walk(struct mn_str in)
{
    struct mn_meta_value value;
    struct mn_str key;
    while (in.length > 0) {
        const char *before = in.data;
        if (!mn_meta_next(&in, &value))
            break;
        require(in.data > before);
        if (value.type == MN_META_MAP && value.count > 0 && !mn_meta_next_key(&in, &key))
            break;
    }
}

/* Order is antisymmetric, and agrees with equality. (Equality of maps that name a key twice may depend on the side.) */
static void compare(struct mn_str a, struct mn_str b)
{
    int ab = mn_meta_compare(a, b), ba = mn_meta_compare(b, a);
    require(ab >= -1 && ab <= MN_META_UNORDERED);
    require(ab == MN_META_UNORDERED ? ba == MN_META_UNORDERED : ab == -ba);
    bool equal = mn_meta_equal(a, b), reverse = mn_meta_equal(b, a);
    require(ab == MN_META_UNORDERED || ((ab == 0) == equal && equal == reverse));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1 || size > MN_META_BYTES_MAX)
        return 0;
    uint32_t key_length = data[0] % 16;
    if (size < 1 + key_length)
        return 0;
    struct mn_str key = {(const char *)data + 1, key_length};
    struct mn_str map = {key.data + key_length, (uint32_t)size - 1 - key_length}, found;
    walk(map);
    if (mn_meta_find(map, key, &found)) {
        require(found.data >= map.data && found.data + found.length <= map.data + map.length && found.length > 0);
        compare(found, map);
    }
    struct mn_str a = {map.data, map.length / 2}, b = {map.data + map.length / 2, map.length - map.length / 2};
    compare(a, b);
    compare(map, map);
    return 0;
}
