/* SPDX-License-Identifier: Apache-2.0 */
/* Queries and payloads that name metadata contexts, where one byte decides. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/endian.h"
#include "base/util.h"
#include "targets/nbd/metacontext_impl.h"
#include "targets/nbd/protocol.h"

static int
match(const char *query, bool wildcards, uint32_t *ret_contexts)
{
    return nbd_metacontext_match((const uint8_t *)query, strlen(query), wildcards, ret_contexts);
}

static void
names(void **state)
{
    uint32_t found;
    (void)state;
    assert_int_equal(nbd_metacontext_all(), (1u << nbd_metacontext_count()) - 1);
    for (uint32_t i = 0; i < nbd_metacontext_count(); i++) {
        const char *name = nbd_metacontext(i)->name;
        assert_int_equal(match(name, false, &found), 0);
        assert_int_equal(found, 1u << i);
        assert_int_equal(match(name, true, &found), 0);
        assert_int_equal(found, 1u << i);
    }
}

static void
wildcards(void **state)
{
    uint32_t found;
    (void)state;
    assert_int_equal(match("base:", true, &found), 0);
    assert_int_equal(found, 1);
    assert_int_equal(match("base:", false, &found), 0);
    assert_int_equal(found, 0);
    assert_int_equal(match("bas:", true, &found), 0);
    assert_int_equal(found, 0);
    assert_int_equal(match("base:alloc", true, &found), 0);
    assert_int_equal(found, 0);
    assert_int_equal(match("base", true, &found), -22);
    assert_int_equal(match("", true, &found), -22);
    assert_int_equal(match(":", true, &found), -22);
}

static void
flags_of_base_allocation(void **state)
{
    const struct volume_status_extent hole = { 1, true, true, false };
    const struct volume_status_extent zero = { 1, false, true, false };
    const struct volume_status_extent data = { 1, false, false, false };
    (void)state;
    assert_int_equal(nbd_metacontext(0)->flags(&hole), NBD_STATE_HOLE | NBD_STATE_ZERO);
    assert_int_equal(nbd_metacontext(0)->flags(&zero), NBD_STATE_ZERO);
    assert_int_equal(nbd_metacontext(0)->flags(&data), 0);
}

/* Every shorter or longer list is refused, and nothing behind it is read. */
static void
lists_of_queries(void **state)
{
    static const char good[] = "\0\0\0\2\0\0\0\17base:allocation\0\0\0\3a:b";
    uint32_t found;
    (void)state;
    for (size_t length = 0; length < sizeof(good) + 3; length++) {
        uint8_t *copy = test_malloc(length + 1);
        memset(copy, 0, length);
        memcpy(copy, good, MIN(length, sizeof(good) - 1));
        int rc = nbd_metacontext_parse_queries(copy, length, false, &found);
        assert_int_equal(rc, length == sizeof(good) - 1 ? 0 : -22);
        test_free(copy);
    }
    const uint8_t none[4] = { 0 };
    assert_int_equal(nbd_metacontext_parse_queries(none, 4, false, &found), 0);
    assert_int_equal(found, 0);
    assert_int_equal(nbd_metacontext_parse_queries(none, 4, true, &found), 0);
    assert_int_equal(found, nbd_metacontext_all());
}

static void
payloads(void **state)
{
    uint8_t payload[8 + 4 * 3];
    uint64_t length;
    uint32_t asked;
    (void)state;
    put_be64(payload, UINT64_C(0x123456789abc));
    put_be32(payload + 8, 1);
    put_be32(payload + 12, 1);
    put_be32(payload + 16, 2);
    assert_int_equal(nbd_metacontext_parse_payload(payload, 12, 1, &length, &asked), 0);
    assert_int_equal(length, UINT64_C(0x123456789abc));
    assert_int_equal(asked, 1);
    assert_int_equal(nbd_metacontext_parse_payload(payload, 12, 0, &length, &asked), -22);
    assert_int_equal(nbd_metacontext_parse_payload(payload, 16, 1, &length, &asked), -22);
    for (size_t size = 0; size < 12; size++) {
        assert_int_equal(nbd_metacontext_parse_payload(payload, size, 1, &length, &asked), -22);
    }
    assert_int_equal(nbd_metacontext_parse_payload(payload, 13, 1, &length, &asked), -22);
    put_be32(payload + 8, UINT32_MAX);
    assert_int_equal(nbd_metacontext_parse_payload(payload, 12, 1, &length, &asked), -22);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names),
        cmocka_unit_test(wildcards),
        cmocka_unit_test(flags_of_base_allocation),
        cmocka_unit_test(lists_of_queries),
        cmocka_unit_test(payloads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
