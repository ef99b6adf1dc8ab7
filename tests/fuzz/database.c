/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Checker and dump over a database whose records are damaged. It begins with the example of the
 * unit tests; the input is a sequence of commands: u8, of which bits 0-2 are the action, bit 3
 * makes the CRC right (EXTENT, MAP); then what the action needs.
 *
 * Both must come to an end, the dump with one clean line for each record; what the checker offers
 * as repair must, in a few rounds, leave nothing that can be repaired.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/crc32c.h"
#include "base/endian.h"
#include "base/util.h"
#include "metadata/check.h"
#include "metadata/dump.h"
#include "metadata/schema.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/machine.h"
#include "tests/sim/store_sim.h"
#include "tests/unit/metadata/damage.h"

enum {
    COMMANDS_MAX = 32,
    REPAIR_ROUNDS_MAX = 6,
};

struct bench {
    struct machine machine;
    struct byte_buffer example;
    uint32_t example_items;
    struct store *store;
    struct metadata_check check;
    struct metadata_dump dump;
    struct store_commit commit;
    uint64_t lines;
    uint64_t findings;
    uint64_t repairable;
};

enum action {
    ACTION_PUT,    /* u8 family, u8 key length, key, le16 value length, value */
    ACTION_PATCH,  /* u8 item, le16 offset, u8 length, bytes */
    ACTION_DELETE, /* u8 item */
    ACTION_DAMAGE, /* u8 number of one of the generated damages */
    ACTION_COPY,   /* u8 from, u8 to: the value of one under the key of another */
    ACTION_RENUMBER, /* u8 item, u8 offset in the key, u8 byte */
    ACTION_COUNT,
};

static void
item_at(const struct bench *bench, uint8_t number, struct store_batch_item *ret_item)
{
    size_t position = 0;
    for (uint32_t n = number % bench->example_items + 1; n > 0; n--) {
        ASSERT(store_batch_next(bench->example.data, bench->example.length_bytes, &position,
                                ret_item) == 1);
    }
}

static void
put(struct byte_buffer *batch, enum store_family family, const void *key, size_t key_bytes,
    const void *value, size_t value_bytes, bool make_crc)
{
    struct byte_buffer copy = BYTE_BUFFER_INIT;
    byte_buffer_append(&copy, value, value_bytes);
    bool has_crc = family == STORE_FAMILY_EXTENT || family == STORE_FAMILY_MAP;
    if (make_crc && has_crc && value_bytes >= sizeof(uint32_t)) {
        put_le32(copy.data, crc32c(0, copy.data + sizeof(uint32_t),
                                   value_bytes - sizeof(uint32_t)));
    }
    store_batch_put(batch, family, key, key_bytes, copy.data, copy.length_bytes);
    byte_buffer_free(&copy);
}

static void
act_put(struct input *input, struct byte_buffer *batch, bool make_crc)
{
    enum store_family family = (enum store_family)(input_u8(input) % STORE_FAMILY_COUNT);
    size_t key_bytes = input_u8(input) % (STORE_KEY_BYTES_MAX + 1);
    const uint8_t *key = input_take(input, key_bytes, &key_bytes);
    size_t value_bytes = input_le16(input);
    const uint8_t *value = input_take(input, value_bytes, &value_bytes);
    if (key_bytes > 0) {
        put(batch, family, key, key_bytes, value, value_bytes, make_crc);
    }
}

static void
act_patch(const struct bench *bench, struct input *input, struct byte_buffer *batch,
          bool make_crc)
{
    struct store_batch_item item;
    struct byte_buffer value = BYTE_BUFFER_INIT;
    item_at(bench, input_u8(input), &item);
    byte_buffer_append(&value, item.value, item.value_bytes);
    size_t at = input_le16(input) % (item.value_bytes + 1);
    size_t length;
    const uint8_t *data = input_take(input, input_u8(input), &length);
    length = MIN(length, item.value_bytes - at);
    if (length > 0) {
        memcpy(value.data + at, data, length);
    }
    put(batch, item.family, item.key, item.key_bytes, value.data, value.length_bytes, make_crc);
    byte_buffer_free(&value);
}

static void
act(const struct bench *bench, struct input *input, struct byte_buffer *batch)
{
    struct store_batch_item item;
    struct store_batch_item other;
    uint8_t key[STORE_KEY_BYTES_MAX];
    uint8_t command = input_u8(input);
    bool make_crc = (command & 8) != 0;

    switch ((enum action)((command & 7) % ACTION_COUNT)) {
    case ACTION_PUT:
        act_put(input, batch, make_crc);
        break;
    case ACTION_PATCH:
        act_patch(bench, input, batch, make_crc);
        break;
    case ACTION_DELETE:
        item_at(bench, input_u8(input), &item);
        store_batch_delete(batch, item.family, item.key, item.key_bytes);
        break;
    case ACTION_DAMAGE:
        damages[input_u8(input) % damage_count].apply(batch);
        break;
    case ACTION_COPY:
        item_at(bench, input_u8(input), &item);
        item_at(bench, input_u8(input), &other);
        put(batch, other.family, other.key, other.key_bytes, item.value, item.value_bytes,
            make_crc);
        break;
    case ACTION_RENUMBER:
        item_at(bench, input_u8(input), &item);
        memcpy(key, item.key, item.key_bytes);
        key[input_u8(input) % item.key_bytes] = input_u8(input);
        put(batch, item.family, key, item.key_bytes, item.value, item.value_bytes, make_crc);
        break;
    case ACTION_COUNT:
        break;
    }
}

/* ---- calls ---- */

static void
start_commit(void *argument)
{
    struct bench *bench = argument;
    store_commit(bench->store, &bench->commit);
}

static void
commit(struct bench *bench, const struct byte_buffer *batch)
{
    bench->commit = (struct store_commit){ .batch = batch };
    ASSERT(machine_await(&bench->machine, &bench->commit.op, start_commit, bench) == 0);
}

static void
take_line(struct metadata_dump *dump, const char *line, size_t length_bytes)
{
    struct bench *bench = container_of(dump, struct bench, dump);
    bench->lines++;
    ASSERT(length_bytes >= 2 && line[0] == '{' && line[length_bytes - 1] == '}');
    ASSERT(line[length_bytes] == '\0' && strlen(line) == length_bytes);
    for (size_t n = 0; n < length_bytes; n++) {
        ASSERT((unsigned char)line[n] >= 0x20);
    }
}

static void
take_finding(struct metadata_check *check, const struct check_finding *finding)
{
    struct bench *bench = container_of(check, struct bench, check);
    bench->findings++;
    bench->repairable += finding->repairable;
    ASSERT(finding->text[0] != '\0' && check_code_name(finding->code) != NULL);
    ASSERT_OP(finding->key_bytes, <=, (uint32_t)STORE_KEY_BYTES_MAX);
}

static void
start_dump(void *argument)
{
    metadata_dump(argument);
}

static void
start_check(void *argument)
{
    metadata_check(argument);
}

static void
run_check(struct bench *bench, struct byte_buffer *repair)
{
    bench->findings = 0;
    bench->repairable = 0;
    bench->check = (struct metadata_check){
        .store = bench->store, .finding = take_finding, .repair = repair,
    };
    ASSERT(machine_await(&bench->machine, &bench->check.op, start_check, &bench->check) == 0);
    ASSERT_OP(bench->check.ret_findings[CHECK_WARNING] + bench->check.ret_findings[CHECK_ERROR],
              ==, bench->findings);
}

static void
check_and_repair(struct bench *bench)
{
    for (uint32_t round = 0; round < REPAIR_ROUNDS_MAX; round++) {
        struct byte_buffer repair = BYTE_BUFFER_INIT;
        run_check(bench, &repair);
        ASSERT((bench->repairable == 0) == (repair.length_bytes == 0));
        if (bench->repairable == 0) {
            byte_buffer_free(&repair);
            return;
        }
        commit(bench, &repair);
        byte_buffer_free(&repair);
    }
    ASSERT(false); /* the repair never comes to an end */
}

static void
dump(struct bench *bench)
{
    bench->lines = 0;
    bench->dump = (struct metadata_dump){ .store = bench->store, .line = take_line };
    int result = machine_await(&bench->machine, &bench->dump.op, start_dump, &bench->dump);
    ASSERT(result == 0 || result == -EUCLEAN); /* a page whose deltas cannot be folded */
    ASSERT_OP(bench->dump.ret_lines, ==, bench->lines);
}

static void
start(struct bench *bench)
{
    struct store_batch_item item;
    size_t position = 0;

    machine_start(&bench->machine, 1 << 20);
    example_build(&bench->example);
    while (store_batch_next(bench->example.data, bench->example.length_bytes, &position, &item)
           == 1) {
        bench->example_items++;
    }
    ASSERT(bench->example_items > 10 && bench->example_items < 256);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct bench bench;
    struct input input = { data, size };
    struct byte_buffer batch = BYTE_BUFFER_INIT;
    struct error error = { 0 };

    if (bench.machine.sim == NULL) {
        start(&bench);
    }
    sim_process_enter(bench.machine.sim);
    ASSERT(store_sim_open(bench.machine.sim, "db", true, schema_merge, &bench.store, &error) == 0);
    sim_process_leave(bench.machine.sim);
    commit(&bench, &bench.example);
    for (uint32_t n = 0; n < COMMANDS_MAX && input.left > 0; n++) {
        act(&bench, &input, &batch);
    }
    if (batch.length_bytes > 0) {
        commit(&bench, &batch);
    }
    byte_buffer_free(&batch);
    dump(&bench);
    check_and_repair(&bench);
    dump(&bench);
    sim_process_enter(bench.machine.sim);
    bench.store->ops->close(bench.store);
    sim_process_leave(bench.machine.sim);
    sim_store_lose(bench.machine.sim, "db");
    machine_expect_no_leak(&bench.machine);
    return 0;
}
