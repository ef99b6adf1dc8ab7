/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Metadata contexts: queries and payloads, where one byte decides; and over a connection, selected
 * together, answered, refused, given back.
 */
#include "tests/unit/nbd/rig.h"

#include <stdio.h>

#include "targets/nbd/metacontext_impl.h"

enum {
    BLOCK = 4096,
    DESCRIPTORS_MAX = 2048,
};

/* ---- parsing ---- */

/* One query as both options send it. */
static int
parse_one(const char *query, size_t query_bytes, bool wildcards, struct nbd_queries *ret_queries)
{
    uint8_t data[8 + 5000];

    assert_true(query_bytes <= sizeof(data) - 8);
    put_be32(data, 1);
    put_be32(data + 4, (uint32_t)query_bytes);
    memcpy(data + 8, query, query_bytes);
    return nbd_queries_parse(data, 8 + query_bytes, wildcards, ret_queries);
}

static int
parse(const char *query, bool wildcards, struct nbd_queries *ret_queries)
{
    return parse_one(query, strlen(query), wildcards, ret_queries);
}

static void
assert_nothing(const struct nbd_queries *queries)
{
    assert_false(queries->allocation);
    assert_false(queries->every[NBD_SINCE_QEMU] || queries->every[NBD_SINCE_OWN]);
    assert_int_equal(queries->count, 0);
}

static void
names(void **state)
{
    struct nbd_queries queries;
    char name[NBD_METACONTEXT_NAME_SIZE];
    (void)state;
    for (int list = 0; list < 2; list++) {
        assert_int_equal(parse("base:allocation", list, &queries), 0);
        assert_true(queries.allocation && queries.count == 0);
        assert_int_equal(parse("qemu:dirty-bitmap:daily-1", list, &queries), 0);
        assert_int_equal(queries.count, 1);
        assert_int_equal(queries.named[0].form, NBD_SINCE_QEMU);
        assert_string_equal(queries.named[0].since, "daily-1");
        assert_false(queries.allocation || queries.every[NBD_SINCE_QEMU]);
        assert_int_equal(parse("volmgr:since:gold@1", list, &queries), 0);
        assert_int_equal(queries.count, 1);
        assert_int_equal(queries.named[0].form, NBD_SINCE_OWN);
        assert_string_equal(queries.named[0].since, "gold@1");
        nbd_since_name(NBD_SINCE_OWN, queries.named[0].since, name);
        assert_string_equal(name, "volmgr:since:gold@1");
    }
}

static void
wildcards(void **state)
{
    static const char *const of_qemu[] = { "qemu:", "qemu:dirty-bitmap:" };
    static const char *const of_us[] = { "volmgr:", "volmgr:since:" };
    static const char *const unknown[] = { "bas:", "base:alloc", "base:allocation2", "qemu:d",
                                           "qemu:dirty-bitmap", "qemu:allocation-depth",
                                           "volmgr:since", "qem:dirty-bitmap:a", "x-a:b" };
    struct nbd_queries queries;
    (void)state;
    for (size_t i = 0; i < 2; i++) {
        assert_int_equal(parse(of_qemu[i], true, &queries), 0);
        assert_true(queries.every[NBD_SINCE_QEMU] && !queries.every[NBD_SINCE_OWN]);
        assert_int_equal(parse(of_us[i], true, &queries), 0);
        assert_true(queries.every[NBD_SINCE_OWN] && !queries.every[NBD_SINCE_QEMU]);
        assert_int_equal(parse(of_qemu[i], false, &queries), 0);
        assert_nothing(&queries);
        assert_int_equal(parse(of_us[i], false, &queries), 0);
        assert_nothing(&queries);
    }
    assert_int_equal(parse("base:", true, &queries), 0);
    assert_true(queries.allocation && queries.count == 0);
    assert_int_equal(parse("base:", false, &queries), 0);
    assert_nothing(&queries);
    for (size_t i = 0; i < ARRAY_SIZE(unknown); i++) {
        assert_int_equal(parse(unknown[i], true, &queries), 0);
        assert_nothing(&queries);
    }
    assert_int_equal(parse("base", true, &queries), -22);
    assert_int_equal(parse("", true, &queries), -22);
    assert_int_equal(parse(":", true, &queries), -22);
}

/* The longest name is taken, one more byte or a NUL in it is no name of ours. */
static void
long_names(void **state)
{
    char query[4 * CHANGES_SINCE_SIZE] = "volmgr:since:";
    size_t prefix = strlen(query);
    struct nbd_queries queries;
    (void)state;
    memset(query + prefix, 'a', CHANGES_SINCE_SIZE);
    assert_int_equal(parse_one(query, prefix + CHANGES_SINCE_SIZE - 1, false, &queries), 0);
    assert_int_equal(queries.count, 1);
    assert_int_equal(strlen(queries.named[0].since), CHANGES_SINCE_SIZE - 1);
    assert_int_equal(parse_one(query, prefix + CHANGES_SINCE_SIZE, false, &queries), 0);
    assert_nothing(&queries);
    query[prefix + 3] = '\0';
    assert_int_equal(parse_one(query, prefix + 8, false, &queries), 0);
    assert_nothing(&queries);
}

static void
too_many(void **state)
{
    uint8_t data[4 + 16 * 32];
    struct nbd_queries queries;
    (void)state;
    for (uint32_t count = 0; count <= NBD_SINCE_MAX + 1; count++) {
        size_t at = 4;
        put_be32(data, 2 * count);
        for (uint32_t i = 0; i < 2 * count; i++) { /* each twice */
            char query[32];
            int length = snprintf(query, sizeof(query), "volmgr:since:s%u", i / 2);
            put_be32(data + at, (uint32_t)length);
            memcpy(data + at + 4, query, (size_t)length);
            at += 4 + (size_t)length;
        }
        int rc = nbd_queries_parse(data, at, false, &queries);
        assert_int_equal(rc, count <= NBD_SINCE_MAX ? 0 : -7);
        assert_int_equal(queries.count, MIN(count, (uint32_t)NBD_SINCE_MAX));
    }
}

static void
flags_of_contexts(void **state)
{
    const struct volume_status_extent hole = { .length_bytes = 1, .hole = true, .zero = true };
    const struct volume_status_extent zero = { .length_bytes = 1, .zero = true };
    const struct volume_status_extent data = { .length_bytes = 1 };
    const struct volume_status_extent changed = { .length_bytes = 1, .changed = true };
    (void)state;
    assert_int_equal(nbd_metacontext_flags(0, &hole), NBD_STATE_HOLE | NBD_STATE_ZERO);
    assert_int_equal(nbd_metacontext_flags(0, &zero), NBD_STATE_ZERO);
    assert_int_equal(nbd_metacontext_flags(0, &data), 0);
    assert_int_equal(nbd_metacontext_flags(1, &data), 0);
    assert_int_equal(nbd_metacontext_flags(7, &changed), NBD_STATE_DIRTY);
}

/* Every shorter or longer list is refused, and nothing behind it is read. */
static void
lists_of_queries(void **state)
{
    static const char good[] = "\0\0\0\3\0\0\0\17base:allocation\0\0\0\3a:b\0\0\0\16volmgr:since:s";
    struct nbd_queries queries;
    (void)state;
    for (size_t length = 0; length < sizeof(good) + 3; length++) {
        uint8_t *copy = test_malloc(length + 1);
        memset(copy, 0, length);
        memcpy(copy, good, MIN(length, sizeof(good) - 1));
        int rc = nbd_queries_parse(copy, length, false, &queries);
        assert_int_equal(rc, length == sizeof(good) - 1 ? 0 : -22);
        test_free(copy);
    }
    assert_int_equal(nbd_queries_parse((const uint8_t *)good, sizeof(good) - 1, false, &queries),
                     0);
    assert_true(queries.allocation);
    assert_int_equal(queries.count, 1);
    const uint8_t none[4] = { 0 };
    assert_int_equal(nbd_queries_parse(none, 4, false, &queries), 0);
    assert_nothing(&queries);
    assert_int_equal(nbd_queries_parse(none, 4, true, &queries), 0);
    assert_true(queries.allocation && queries.every[NBD_SINCE_QEMU] &&
                queries.every[NBD_SINCE_OWN]);
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
    put_be32(payload + 8, NBD_METACONTEXT_MAX);
    assert_int_equal(
        nbd_metacontext_parse_payload(payload, 12, 1u << (NBD_METACONTEXT_MAX - 1), &length,
                                      &asked), 0);
    put_be32(payload + 8, NBD_METACONTEXT_MAX + 1);
    assert_int_equal(nbd_metacontext_parse_payload(payload, 12, UINT32_MAX, &length, &asked), -22);
}

/* ---- over a connection ---- */

/* LIST or SET with these queries (NULL ends them). */
static void
send_queries(struct sim_client *client, uint32_t option, const char *export,
             const char *const *queries)
{
    uint8_t data[4096];
    size_t at = 4 + strlen(export);
    uint32_t count = 0;

    put_be32(data, (uint32_t)strlen(export));
    memcpy(data + 4, export, strlen(export));
    size_t count_at = at;
    at += 4;
    for (; queries[count] != NULL; count++) {
        size_t length = strlen(queries[count]);
        put_be32(data + at, (uint32_t)length);
        memcpy(data + at + 4, queries[count], length);
        at += 4 + length;
    }
    put_be32(data + count_at, count);
    rig_option(client, option, data, at);
}

/* These contexts, in this order, then ACK; ids[] unless LIST. */
static void
expect_contexts(struct rig *rig, struct sim_client *client, uint32_t option,
                const char *const *expected, uint32_t *ret_ids)
{
    uint8_t data[512];

    for (uint32_t i = 0; expected[i] != NULL; i++) {
        uint32_t length = rig_option_reply(rig, client, option, NBD_REP_META_CONTEXT, data,
                                           sizeof(data) - 1);
        data[length] = '\0';
        assert_string_equal((const char *)data + 4, expected[i]);
        if (ret_ids != NULL) {
            ret_ids[i] = get_be32(data);
        } else {
            assert_int_equal(get_be32(data), 0);
        }
    }
    rig_expect_ack(rig, client, option);
}

static struct sim_client *
negotiate(struct rig *rig, enum rig_style style)
{
    struct sim_client *client = rig_greet(rig, RIG_ADDRESS);
    uint32_t option =
        style == RIG_EXTENDED ? NBD_OPT_EXTENDED_HEADERS : NBD_OPT_STRUCTURED_REPLY;

    rig_option(client, option, NULL, 0);
    rig_expect_ack(rig, client, option);
    return client;
}

static void
go(struct rig *rig, struct sim_client *client, const char *name)
{
    uint8_t data[64];

    rig_info_or_go(client, NBD_OPT_GO, name, NULL, 0);
    rig_option_reply(rig, client, NBD_OPT_GO, NBD_REP_INFO, data, sizeof(data));
    rig_option_reply(rig, client, NBD_OPT_GO, NBD_REP_INFO, data, sizeof(data));
    rig_expect_ack(rig, client, NBD_OPT_GO);
}

struct descriptors {
    uint32_t id;
    uint32_t count;
    uint64_t length[DESCRIPTORS_MAX];
    uint64_t flags[DESCRIPTORS_MAX];
};

/* One chunk of BLOCK_STATUS; whether it was the last. */
static bool
receive_status(struct rig *rig, struct sim_client *client, enum rig_style style,
               struct descriptors *ret)
{
    static uint8_t payload[8 + 16 * DESCRIPTORS_MAX];
    bool extended = style == RIG_EXTENDED;
    struct rig_chunk chunk = rig_chunk(rig, client, style, payload, sizeof(payload));
    uint32_t entry = extended ? 16 : 8;
    uint32_t head = extended ? 8 : 4;

    assert_int_equal(chunk.type, extended ? NBD_REPLY_TYPE_BLOCK_STATUS_EXT
                                          : NBD_REPLY_TYPE_BLOCK_STATUS);
    ret->id = get_be32(payload);
    ret->count = (uint32_t)(chunk.length_bytes - head) / entry;
    assert_true(ret->count > 0 && chunk.length_bytes == head + (uint64_t)ret->count * entry);
    if (extended) {
        assert_int_equal(get_be32(payload + 4), ret->count);
    }
    for (uint32_t i = 0; i < ret->count; i++) {
        const uint8_t *at = payload + head + (size_t)i * entry;
        ret->length[i] = extended ? get_be64(at) : get_be32(at);
        ret->flags[i] = extended ? get_be64(at + 8) : get_be32(at + 4);
        assert_true(ret->length[i] > 0);
        assert_true(i == 0 || ret->flags[i] != ret->flags[i - 1]);
    }
    return (chunk.flags & NBD_REPLY_FLAG_DONE) != 0;
}

static void
write_block(struct rig *rig, struct sim_client *client, enum rig_style style, uint64_t block)
{
    static const uint8_t data[BLOCK] = { 1 };

    rig_request(client, style, NBD_CMD_WRITE, style == RIG_EXTENDED ? NBD_CMD_FLAG_PAYLOAD_LEN : 0,
                7, block * BLOCK, BLOCK);
    rig_send(client, data, sizeof(data));
    rig_expect_ok(rig, client, style, 7, block * BLOCK);
}

static void
leave(struct rig *rig, struct sim_client *client)
{
    sim_client_close(client, false);
    rig_settle(rig);
    assert_int_equal(fake_volume_counters(rig->disk)->changes_held, 0);
}

static void
list_of_contexts(void **state)
{
    static const char *const all[] = { "base:allocation", "qemu:dirty-bitmap:b",
                                       "qemu:dirty-bitmap:a", "volmgr:since:b", "volmgr:since:a",
                                       NULL };
    static const char *const of_qemu[] = { "qemu:dirty-bitmap:b", "qemu:dirty-bitmap:a", NULL };
    static const char *const of_us[] = { "volmgr:since:b", "volmgr:since:a", NULL };
    static const char *const more[] = { "volmgr:since:b", "volmgr:since:a", "volmgr:since:",
                                        "volmgr:since:a", NULL };
    static const char *const exact[] = { "qemu:dirty-bitmap:a", "volmgr:since:v@x", NULL };
    static const char *const none[] = { NULL };
    const uint32_t list = NBD_OPT_LIST_META_CONTEXT;
    struct rig rig;
    (void)state;
    rig_start_default(&rig);
    fake_volume_add_snapshot(rig.disk, "a");
    fake_volume_add_snapshot(rig.disk, "b");
    fake_volume_add_snapshot(rig.disk, "v@x");
    struct sim_client *client = negotiate(&rig, RIG_STRUCTURED);
    send_queries(client, list, "pool/disk", none);
    expect_contexts(&rig, client, list, all, NULL);
    send_queries(client, list, "pool/disk", (const char *const[]){ "qemu:", NULL });
    expect_contexts(&rig, client, list, of_qemu, NULL);
    send_queries(client, list, "pool/disk", (const char *const[]){ "qemu:dirty-bitmap:", NULL });
    expect_contexts(&rig, client, list, of_qemu, NULL);
    /* What is listed anyway comes once. */
    send_queries(client, list, "pool/disk",
                 (const char *const[]){ "volmgr:", "volmgr:since:a", NULL });
    expect_contexts(&rig, client, list, of_us, NULL);
    send_queries(client, list, "pool/disk",
                 (const char *const[]){ "qemu:dirty-bitmap:a", "qemu:dirty-bitmap:no",
                                        "volmgr:since:v@x", NULL });
    expect_contexts(&rig, client, list, exact, NULL);
    send_queries(client, list, "pool/ro", (const char *const[]){ "qemu:", NULL });
    expect_contexts(&rig, client, list, none, NULL);
    fake_volume_set_more_snapshots(rig.disk, true);
    send_queries(client, list, "pool/disk",
                 (const char *const[]){ "volmgr:", "volmgr:since:a", NULL });
    expect_contexts(&rig, client, list, more, NULL);
    rig_settle(&rig);
    assert_int_equal(fake_volume_counters(rig.disk)->changes_held, 0);
    leave(&rig, client);
    rig_finish(&rig);
}

/* Runs of one context that must have been answered. */
static void
assert_runs(const struct descriptors *found, const uint64_t *blocks, uint32_t count,
            uint64_t first_flags)
{
    assert_int_equal(found->count, count);
    for (uint32_t i = 0; i < count; i++) {
        assert_int_equal(found->length[i], blocks[i] * BLOCK);
        assert_int_equal(found->flags[i], i % 2 == 0 ? first_flags : first_flags ^ NBD_STATE_DIRTY);
    }
}

/* Four contexts at once, on a volume of another reactor than the handshake's, in both framings. */
static void
several_at_once(void **state)
{
    static const char *const queries[] = { "volmgr:since:a", "base:allocation", "x-y:z",
                                           "qemu:dirty-bitmap:b", "qemu:dirty-bitmap:no",
                                           "qemu:dirty-bitmap:a", NULL };
    static const char *const selected[] = { "base:allocation", "volmgr:since:a",
                                            "qemu:dirty-bitmap:b", "qemu:dirty-bitmap:a", NULL };
    static const uint64_t since_a[] = { 1, 1, 1, 1, 252 };
    static const uint64_t since_b[] = { 3, 1, 252 };
    static struct descriptors found[4];
    (void)state;
    for (enum rig_style style = RIG_STRUCTURED; style <= RIG_EXTENDED; style++) {
        uint32_t ids[4];
        struct rig rig;
        rig_start_default(&rig);
        fake_volume_add_snapshot(rig.disk, "a");
        struct sim_client *writer = rig_go(&rig, style, "pool/disk", NULL);
        write_block(&rig, writer, style, 3);
        fake_volume_add_snapshot(rig.disk, "b");
        write_block(&rig, writer, style, 5);
        leave(&rig, writer);
        struct sim_client *client = negotiate(&rig, style);
        send_queries(client, NBD_OPT_SET_META_CONTEXT, "pool/disk", queries);
        expect_contexts(&rig, client, NBD_OPT_SET_META_CONTEXT, selected, ids);
        assert_int_equal(fake_volume_counters(rig.disk)->changes_held, 3);
        go(&rig, client, "pool/disk");
        rig_request(client, style, NBD_CMD_BLOCK_STATUS, 0, 9, 2 * BLOCK, 256 * BLOCK);
        for (uint32_t i = 0; i < 4; i++) {
            assert_int_equal(receive_status(&rig, client, style, &found[i]), i == 3);
            assert_int_equal(found[i].id, ids[i]);
        }
        assert_int_equal(found[0].count, 2);
        assert_int_equal(found[0].length[0], 14 * BLOCK); /* the first grain is allocated */
        assert_int_equal(found[0].flags[1], NBD_STATE_HOLE | NBD_STATE_ZERO);
        assert_runs(&found[1], since_a, 5, 0);
        assert_runs(&found[2], since_b, 3, 0);
        assert_runs(&found[3], since_a, 5, 0);
        /* One extent of each, which may be shorter than what was asked for. */
        rig_request(client, style, NBD_CMD_BLOCK_STATUS, NBD_CMD_FLAG_REQ_ONE, 10, 3 * BLOCK + 512,
                    100 * BLOCK);
        for (uint32_t i = 0; i < 4; i++) {
            assert_int_equal(receive_status(&rig, client, style, &found[i]), i == 3);
            assert_int_equal(found[i].count, 1);
        }
        assert_int_equal(found[1].length[0], BLOCK - 512);
        assert_int_equal(found[1].flags[0], NBD_STATE_DIRTY);
        assert_int_equal(found[2].length[0], 2 * BLOCK - 512);
        assert_int_equal(found[2].flags[0], 0);
        leave(&rig, client);
        rig_finish(&rig);
    }
}

/* Extended headers: a request names the contexts that it wants to know of. */
static void
some_of_the_selected(void **state)
{
    static const char *const queries[] = { "base:allocation", "volmgr:since:a", "volmgr:since:b",
                                           NULL };
    static struct descriptors found;
    uint8_t payload[8 + 4];
    uint32_t ids[3];
    struct rig rig;
    (void)state;
    rig_start_default(&rig);
    fake_volume_add_snapshot(rig.disk, "a");
    fake_volume_add_snapshot(rig.disk, "b");
    struct sim_client *client = negotiate(&rig, RIG_EXTENDED);
    send_queries(client, NBD_OPT_SET_META_CONTEXT, "pool/disk", queries);
    expect_contexts(&rig, client, NBD_OPT_SET_META_CONTEXT, queries, ids);
    go(&rig, client, "pool/disk");
    put_be64(payload, RIG_DISK_BYTES);
    for (uint32_t i = 0; i < 3; i++) {
        rig_request(client, RIG_EXTENDED, NBD_CMD_BLOCK_STATUS, NBD_CMD_FLAG_PAYLOAD_LEN, i, 0,
                    sizeof(payload));
        put_be32(payload + 8, ids[i]);
        rig_send(client, payload, sizeof(payload));
        assert_true(receive_status(&rig, client, RIG_EXTENDED, &found));
        assert_int_equal(found.id, ids[i]);
        assert_int_equal(found.count, 1);
        assert_int_equal(found.length[0], RIG_DISK_BYTES);
    }
    assert_int_equal(fake_volume_counters(rig.disk)->changes_queries, 2);
    leave(&rig, client);
    rig_finish(&rig);
}

/* More changes than fit one answer: the client asks on from where it ended. */
static void
many_changes(void **state)
{
    static const char *const queries[] = { "qemu:dirty-bitmap:a", NULL };
    static struct descriptors found;
    struct rig rig;
    (void)state;
    for (enum rig_style style = RIG_STRUCTURED; style <= RIG_EXTENDED; style++) {
        uint32_t id;
        uint64_t at = 0;
        uint64_t end = 4000 * BLOCK;
        uint32_t answers = 0;
        rig_start_default(&rig);
        fake_volume_add_snapshot(rig.disk, "a");
        struct sim_client *client = negotiate(&rig, style);
        send_queries(client, NBD_OPT_SET_META_CONTEXT, "pool/disk", queries);
        expect_contexts(&rig, client, NBD_OPT_SET_META_CONTEXT, queries, &id);
        go(&rig, client, "pool/disk");
        for (uint64_t block = 1; block < 1200; block += 2) {
            write_block(&rig, client, style, block);
        }
        while (at < end) {
            rig_request(client, style, NBD_CMD_BLOCK_STATUS, 0, 1, at, end - at);
            assert_true(receive_status(&rig, client, style, &found));
            for (uint32_t i = 0; i < found.count; i++) {
                uint64_t block = at / BLOCK;
                assert_int_equal(found.flags[i], block < 1200 && block % 2 == 1);
                at += found.length[i];
            }
            answers++;
        }
        assert_int_equal(at, end);
        assert_true(answers > 2 && answers < 8);
        leave(&rig, client);
        rig_finish(&rig);
    }
}

/* Selecting again, or going elsewhere, gives snapshots back. */
static void
given_back(void **state)
{
    static const char *const since_a[] = { "volmgr:since:a", NULL };
    static const char *const none[] = { NULL };
    const char *many[10] = { NULL };
    const uint32_t set = NBD_OPT_SET_META_CONTEXT;
    char text[9][32];
    uint32_t id;
    struct rig rig;
    (void)state;
    rig_start_default(&rig);
    fake_volume_add_snapshot(rig.disk, "a");
    const struct fake_volume_counters *counters = fake_volume_counters(rig.disk);
    struct sim_client *client = negotiate(&rig, RIG_STRUCTURED);
    send_queries(client, set, "pool/disk", since_a);
    expect_contexts(&rig, client, set, since_a, &id);
    send_queries(client, NBD_OPT_LIST_META_CONTEXT, "pool/disk", since_a);
    expect_contexts(&rig, client, NBD_OPT_LIST_META_CONTEXT, since_a, NULL);
    assert_int_equal(counters->changes_held, 1); /* listing does not end it */
    send_queries(client, set, "pool/disk", none);
    expect_contexts(&rig, client, set, none, &id);
    rig_settle(&rig);
    assert_int_equal(counters->changes_held, 0);
    send_queries(client, set, "pool/disk", since_a);
    expect_contexts(&rig, client, set, since_a, &id);
    for (uint32_t i = 0; i < 9; i++) {
        snprintf(text[i], sizeof(text[i]), "volmgr:since:%u", i);
        many[i] = text[i];
    }
    send_queries(client, set, "pool/disk", many);
    rig_expect_option_error(&rig, client, set, NBD_REP_ERR_TOO_BIG);
    rig_settle(&rig);
    assert_int_equal(counters->changes_held, 0); /* although it failed */
    send_queries(client, set, "pool/disk", since_a);
    expect_contexts(&rig, client, set, since_a, &id);
    go(&rig, client, "pool/4k"); /* selected for another export */
    rig_settle(&rig);
    assert_int_equal(counters->changes_held, 0);
    rig_request(client, RIG_STRUCTURED, NBD_CMD_BLOCK_STATUS, 0, 1, 0, BLOCK);
    rig_expect_error(&rig, client, RIG_STRUCTURED, 1, 0, NBD_EINVAL);
    leave(&rig, client);
    rig_finish(&rig);
}

/* Between SET and GO the export's name has come to another volume, of another reactor. */
static void
another_one_by_that_name(void **state)
{
    static const char *const since_a[] = { "volmgr:since:a", NULL };
    uint32_t id;
    struct rig rig;
    (void)state;
    rig_start_default(&rig);
    fake_volume_add_snapshot(rig.disk, "a");
    struct sim_client *client = negotiate(&rig, RIG_STRUCTURED);
    send_queries(client, NBD_OPT_SET_META_CONTEXT, "pool/disk", since_a);
    expect_contexts(&rig, client, NBD_OPT_SET_META_CONTEXT, since_a, &id);
    fake_volume_rename(rig.disk, "pool/old");
    fake_volume_rename(rig.coarse, "pool/disk");
    go(&rig, client, "pool/disk");
    rig_settle(&rig);
    assert_int_equal(fake_volume_counters(rig.disk)->changes_held, 0);
    rig_request(client, RIG_STRUCTURED, NBD_CMD_BLOCK_STATUS, 0, 1, 0, BLOCK);
    rig_expect_error(&rig, client, RIG_STRUCTURED, 1, 0, NBD_EINVAL);
    leave(&rig, client);
    rig_finish(&rig);
}

static void
failures(void **state)
{
    static const char *const queries[] = { "base:allocation", "volmgr:since:a", NULL };
    static struct descriptors found;
    uint32_t ids[2];
    struct rig rig;
    (void)state;
    rig_start_default(&rig);
    fake_volume_add_snapshot(rig.disk, "a");
    const struct fake_volume_counters *counters = fake_volume_counters(rig.disk);
    struct sim_client *client = negotiate(&rig, RIG_STRUCTURED);
    send_queries(client, NBD_OPT_SET_META_CONTEXT, "pool/disk", queries);
    expect_contexts(&rig, client, NBD_OPT_SET_META_CONTEXT, queries, ids);
    go(&rig, client, "pool/disk");
    fake_volume_fail_changes(rig.disk, -5);
    rig_request(client, RIG_STRUCTURED, NBD_CMD_BLOCK_STATUS, 0, 1, 0, BLOCK);
    rig_expect_error(&rig, client, RIG_STRUCTURED, 1, 0, NBD_EIO);
    fake_volume_fail_changes(rig.disk, 0);
    fake_volume_fail(rig.disk, VOLUME_STATUS, -5);
    rig_request(client, RIG_STRUCTURED, NBD_CMD_BLOCK_STATUS, 0, 2, 0, BLOCK);
    rig_expect_error(&rig, client, RIG_STRUCTURED, 2, 0, NBD_EIO);
    fake_volume_fail(rig.disk, VOLUME_STATUS, 0);
    rig_request(client, RIG_STRUCTURED, NBD_CMD_BLOCK_STATUS, 0, 3, 0, BLOCK);
    assert_false(receive_status(&rig, client, RIG_STRUCTURED, &found));
    assert_true(receive_status(&rig, client, RIG_STRUCTURED, &found));
    /* The client goes while it is being worked on: the snapshot is held until that has ended. */
    fake_volume_hold(rig.disk, true);
    for (uint32_t i = 0; i < 3; i++) {
        rig_request(client, RIG_STRUCTURED, NBD_CMD_BLOCK_STATUS, 0, i, 0, BLOCK);
    }
    rig_settle(&rig);
    sim_client_close(client, true);
    rig_settle(&rig);
    assert_int_equal(counters->changes_held, 1);
    fake_volume_hold(rig.disk, false);
    rig_settle(&rig);
    assert_int_equal(counters->changes_held, 0);
    /* It goes while the manager is being asked. */
    for (uint32_t runs = 0; runs < 40; runs++) {
        client = negotiate(&rig, RIG_STRUCTURED);
        send_queries(client, NBD_OPT_SET_META_CONTEXT, "pool/disk", queries);
        rig_run_for(&rig, runs * 5 * NS_PER_US);
        sim_client_close(client, runs % 2 == 0);
        rig_settle(&rig);
        assert_int_equal(counters->changes_held, 0);
        assert_int_equal(counters->lookups_held, 0);
    }
    rig_finish(&rig);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names),
        cmocka_unit_test(wildcards),
        cmocka_unit_test(long_names),
        cmocka_unit_test(too_many),
        cmocka_unit_test(flags_of_contexts),
        cmocka_unit_test(lists_of_queries),
        cmocka_unit_test(payloads),
        cmocka_unit_test(list_of_contexts),
        cmocka_unit_test(several_at_once),
        cmocka_unit_test(some_of_the_selected),
        cmocka_unit_test(many_changes),
        cmocka_unit_test(given_back),
        cmocka_unit_test(another_one_by_that_name),
        cmocka_unit_test(failures),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
