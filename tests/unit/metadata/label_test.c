/* SPDX-License-Identifier: Apache-2.0 */
/* Labels: bytes, geometry, reading and writing with faults; and what others leave on disks. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "backends/fault.h"
#include "base/crc32c.h"
#include "base/endian.h"
#include "base/random.h"
#include "base/util.h"
#include "tests/unit/metadata/harness.h"
#include "metadata/label.h"

static struct label
example_label(uint64_t size_bytes)
{
    struct label label;
    memset(&label, 0, sizeof(label));
    assert_int_equal(label_layout(size_bytes, 4 * MIB, true, &label), 0);
    memset(label.pool_guid, 0x11, GUID_BYTES);
    memset(label.disk_guid, 0x22, GUID_BYTES);
    snprintf(label.pool_name, sizeof(label.pool_name), "%s", "tank");
    label.disk_index = 1;
    label.tier = 2;
    label.incarnation = 9;
    label.checkpoints[0] = (struct label_checkpoint){ 100, 5000, { 1, 7 } };
    label.checkpoints[1] = (struct label_checkpoint){ 200, 6000, { 0, 8 } };
    memset(label.host_guid, 0x33, GUID_BYTES);
    label.heartbeat = 12345;
    label.open = true;
    label.disk_count = 2;
    label.disks[0].index = 0;
    memset(label.disks[0].guid, 0x44, GUID_BYTES);
    label.disks[1].index = 1;
    memset(label.disks[1].guid, 0x22, GUID_BYTES);
    return label;
}

/* Structs have padding: compare what they encode to. */
static bool
label_equal(const struct label *a, const struct label *b)
{
    uint8_t bytes_a[LABEL_BYTES];
    uint8_t bytes_b[LABEL_BYTES];
    label_encode(a, bytes_a);
    label_encode(b, bytes_b);
    return memcmp(bytes_a, bytes_b, LABEL_BYTES) == 0;
}

static void
geometry(void **state)
{
    (void)state;
    struct label label;
    memset(&label, 0, sizeof(label));
    static const uint64_t sizes[] = { 8 * MIB, 63 * MIB, GIB, 20 * GIB + 512, 17 * TIB };
    for (size_t n = 0; n < ARRAY_SIZE(sizes); n++) {
        for (uint32_t with_ledger = 0; with_ledger < 2; with_ledger++) {
            assert_int_equal(label_layout(sizes[n], MIB, with_ledger != 0, &label), 0);
            uint64_t end = label.data_start_bytes + (uint64_t)label.slot_count * label.extent_bytes;
            assert_true(label.slot_count > 0);
            assert_true(end + LABEL_PLACE_BYTES <= sizes[n]);
            assert_true(end + LABEL_PLACE_BYTES + MIB + 4096 > sizes[n]); /* and wastes nothing */
            assert_true(label.data_start_bytes
                        >= label.ledger_start_bytes + label.ledger_length_bytes);
            assert_int_equal(label.ledger_length_bytes != 0, with_ledger);
            assert_int_equal(label.ledger_current, with_ledger);
        }
    }
    assert_true(label.ledger_length_bytes <= 256 * MIB);
    assert_int_equal(label_layout(3 * MIB, MIB, true, &label), -ENOSPC);
    assert_int_equal(label_layout(64 * MIB, 64 * MIB, false, &label), -ENOSPC);
    assert_int_equal(label_layout(0, MIB, false, &label), -ENOSPC);
}

static void
a_label_survives_and_damage_does_not_pass(void **state)
{
    (void)state;
    struct label label = example_label(GIB);
    label.generation = 77;
    uint8_t block[LABEL_BYTES];
    label_encode(&label, block);
    struct label decoded;
    assert_int_equal(label_decode(block, &decoded), 0);
    assert_true(label_equal(&decoded, &label));
    assert_int_equal(decoded.generation, 77);
    assert_int_equal(decoded.disk_count, 2);
    assert_memory_equal(decoded.disks[1].guid, label.disk_guid, GUID_BYTES);
    memset(&decoded, 0x5a, sizeof(decoded));
    for (uint32_t bit = 0; bit < LABEL_BYTES * 8; bit += 3) {
        block[bit / 8] ^= (uint8_t)(1u << bit % 8);
        assert_int_equal(label_decode(block, &decoded), bit < 64 ? -ENOENT : -EBADMSG);
        block[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    assert_int_equal(decoded.disk_index, 0x5a5a); /* untouched */
    memset(block, 0, sizeof(block));
    assert_int_equal(label_decode(block, &decoded), -ENOENT);
}

static void
seal(uint8_t *block)
{
    put_le32(block + 8, 0);
    put_le32(block + 8, crc32c(0, block, LABEL_BYTES));
}

/* Random changes with a correct CRC: what is accepted must be legal. */
static void
forged_labels_never_pass_as_illegal_ones(void **state)
{
    (void)state;
    struct random random;
    random_seed(&random, 11);
    struct label label = example_label(GIB);
    label.generation = 1;
    uint8_t block[LABEL_BYTES];
    uint32_t accepted = 0;
    uint32_t refused = 0;
    for (uint32_t round = 0; round < 20000; round++) {
        label_encode(&label, block);
        for (uint32_t n = 0; n <= round % 4; n++) {
            block[12 + random_below(&random, 320)] = (uint8_t)random_u64(&random);
        }
        seal(block);
        struct label decoded;
        int result = label_decode(block, &decoded);
        if (result == 0) {
            uint64_t data_bytes = (uint64_t)decoded.slot_count * decoded.extent_bytes;
            assert_true(decoded.extent_bytes >= MIB && decoded.extent_bytes <= 64 * MIB);
            assert_true(decoded.data_start_bytes >= 64 * KIB);
            assert_true(decoded.data_start_bytes + data_bytes + 64 * KIB <= decoded.size_bytes);
            assert_true(decoded.ledger_length_bytes == 0
                        || decoded.ledger_start_bytes + decoded.ledger_length_bytes
                            <= decoded.data_start_bytes);
            assert_true(decoded.disk_count <= LABEL_DISKS_MAX && decoded.disk_index < 1024);
            assert_true(schema_name_is_valid(decoded.pool_name));
            accepted++;
        } else {
            assert_true(result == -EBADMSG || result == -EPROTO);
            refused++;
        }
    }
    assert_true(accepted > 100 && refused > 100);
    label_encode(&label, block);
    put_le32(block + 12, LABEL_VERSION + 1);
    seal(block);
    struct label decoded;
    assert_int_equal(label_decode(block, &decoded), -EPROTO);
}

static void
generations_have_room_for_more(void **state)
{
    (void)state;
    static const uint64_t illegal[] = { 0, UINT64_MAX };
    struct label label = example_label(GIB);
    struct label decoded;
    uint8_t block[LABEL_BYTES];
    for (size_t n = 0; n < ARRAY_SIZE(illegal); n++) {
        label.generation = illegal[n];
        label_encode(&label, block);
        assert_int_equal(label_decode(block, &decoded), -EBADMSG);
    }
    label.generation = UINT64_MAX - 1;
    label_encode(&label, block);
    assert_int_equal(label_decode(block, &decoded), 0);
}

/* ---- on disks ---- */

static void
start_read(void *argument)
{
    label_read(argument);
}

static void
start_write(void *argument)
{
    label_write(argument);
}

static int
read_label(struct harness *harness, struct backend *backend, struct label_read *read)
{
    memset(read, 0, sizeof(*read));
    read->backend = backend;
    return harness_await(harness, &read->op, start_read, read);
}

static int
write_label(struct harness *harness, struct backend *backend, struct label *label, bool wipe)
{
    struct label_write write;
    memset(&write, 0, sizeof(write));
    write.backend = backend;
    write.label = label;
    write.wipe = wipe;
    return harness_await(harness, &write.op, start_write, &write);
}

static void
labels_are_written_and_read(void **state)
{
    struct harness *harness = *state;
    struct backend *backend = harness_backend(harness, "mem:64M");
    struct label_read read;
    assert_int_equal(read_label(harness, backend, &read), -ENOENT);
    assert_false(read.ret_foreign.found);
    struct label label = example_label(backend->properties.size_bytes);
    for (uint64_t generation = 1; generation < 12; generation++) {
        label.incarnation = generation * 10;
        assert_int_equal(write_label(harness, backend, &label, false), 0);
        assert_int_equal(label.generation, generation);
        assert_int_equal(read_label(harness, backend, &read), 0);
        assert_true(label_equal(&read.ret_label, &label));
        assert_int_equal(read.ret_damaged_slots, 0);
    }
    assert_true(read.ret_foreign.found);
    assert_string_equal(read.ret_foreign.what, "a label of pool `tank`");
    assert_int_equal(write_label(harness, backend, NULL, true), 0);
    assert_int_equal(read_label(harness, backend, &read), -ENOENT);
    assert_false(read.ret_foreign.found);
    backend_close(backend);
}

static void
either_place_is_enough(void **state)
{
    struct harness *harness = *state;
    struct backend *backend = harness_backend(harness, "mem:64M");
    struct label label = example_label(backend->properties.size_bytes);
    struct label_read read;
    for (uint32_t n = 0; n < 6; n++) {
        assert_int_equal(write_label(harness, backend, &label, false), 0);
    }
    static uint8_t zeroes[LABEL_PLACE_BYTES];
    uint64_t second = backend->properties.size_bytes - LABEL_PLACE_BYTES;
    harness_patch(harness, backend, 0, zeroes, sizeof(zeroes));
    assert_int_equal(read_label(harness, backend, &read), 0);
    assert_int_equal(read.ret_label.generation, 6);
    harness_patch(harness, backend, second + 6 % 4 * LABEL_BYTES + 100, "x", 1);
    assert_int_equal(read_label(harness, backend, &read), 0);
    assert_int_equal(read.ret_label.generation, 5); /* the one before */
    assert_int_equal(read.ret_damaged_slots, 1);
    for (uint32_t slot = 0; slot < LABEL_SLOTS; slot++) {
        harness_patch(harness, backend, second + slot * LABEL_BYTES + 200, "x", 1);
    }
    assert_int_equal(read_label(harness, backend, &read), -EBADMSG);
    assert_int_equal(read.ret_damaged_slots, 4);
    backend_close(backend);
}

/* What our version says beside a label of a newer one is out of date, whatever its generation. */
static void
a_newer_version_rules(void **state)
{
    struct harness *harness = *state;
    struct backend *backend = harness_backend(harness, "mem:64M");
    struct label label = example_label(backend->properties.size_bytes);
    struct label_read read;
    uint8_t block[LABEL_BYTES];
    for (uint32_t n = 0; n < 6; n++) {
        assert_int_equal(write_label(harness, backend, &label, false), 0);
    }
    uint64_t second = backend->properties.size_bytes - LABEL_PLACE_BYTES;
    label_encode(&label, block);
    put_le32(block + 12, LABEL_VERSION + 1);
    seal(block);
    harness_patch(harness, backend, second + 3 * LABEL_BYTES, block, sizeof(block));
    assert_int_equal(read_label(harness, backend, &read), -EPROTO);
    assert_int_equal(read.ret_label.generation, 0);
    assert_true(read.ret_foreign.found);
    assert_string_equal(read.ret_foreign.what, "a label of a newer version of volmgr");
    harness_patch(harness, backend, second + 3 * LABEL_BYTES + 100, "x", 1); /* only damaged */
    assert_int_equal(read_label(harness, backend, &read), 0);
    assert_int_equal(read.ret_label.generation, 6);
    backend_close(backend);
}

static void
a_failed_write_leaves_an_older_label(void **state)
{
    struct harness *harness = *state;
    static const char *const rules[] = {
        "write,nth=1,errno=EIO", "flush,nth=1,errno=EIO", "write,nth=2,errno=EIO",
        "flush,nth=2,errno=EIO", "write,nth=1,short=2048,errno=EIO",
    };
    for (size_t n = 0; n < ARRAY_SIZE(rules); n++) {
        struct backend *backend = harness_backend(harness, "fault:mem:64M!");
        struct label label = example_label(backend->properties.size_bytes);
        assert_int_equal(write_label(harness, backend, &label, false), 0);
        struct error error = { 0 };
        assert_int_equal(fault_add_rules(backend, rules[n], &error), 0);
        assert_int_equal(write_label(harness, backend, &label, false), -EIO);
        assert_true(fault_hits(backend) > 0);
        fault_clear_rules(backend);
        struct label_read read;
        assert_int_equal(read_label(harness, backend, &read), 0);
        assert_true(read.ret_label.generation == 1 || read.ret_label.generation == 2);
        backend_close(backend);
    }
}

static void
an_end_that_cannot_be_read(void **state)
{
    struct harness *harness = *state;
    struct backend *backend = harness_backend(harness, "fault:mem:64M!");
    struct label label = example_label(backend->properties.size_bytes);
    struct label_read read;
    struct error error = { 0 };
    assert_int_equal(fault_add_rules(backend, "read,nth=1,errno=EIO", &error), 0);
    assert_int_equal(read_label(harness, backend, &read), -EIO); /* it might hold a label */
    assert_int_equal(write_label(harness, backend, &label, false), 0);
    for (uint32_t n = 1; n <= 2; n++) {
        char rule[64];
        snprintf(rule, sizeof(rule), "read,nth=%u,errno=EIO", n);
        fault_clear_rules(backend);
        assert_int_equal(fault_add_rules(backend, rule, &error), 0);
        assert_int_equal(read_label(harness, backend, &read), 0);
        assert_int_equal(read.ret_label.generation, 1);
    }
    backend_close(backend);
    backend = harness_backend(harness, "mem:64K");
    assert_int_equal(read_label(harness, backend, &read), -ENOENT);
    backend_close(backend);
}

/* ---- foreign content ---- */

struct foreign_example {
    uint64_t offset_bytes; /* with the top bit: from the end */
    const char *bytes;
    size_t length_bytes;
    const char *what; /* part of what is said */
};
#define END                   (UINT64_C(1) << 63)
#define EXAMPLE(at, text, what) { (at), (text), sizeof(text) - 1, (what) }

static const struct foreign_example examples[] = {
    EXAMPLE(512, "EFI PART", "GPT"),
    EXAMPLE(4096, "EFI PART", "GPT"),
    EXAMPLE(END | 512, "EFI PART", "GPT"),
    EXAMPLE(65600, "_BHRfS_M", "btrfs"),
    EXAMPLE(512, "LABELONE\1\0\0\0\0\0\0\0crc.\x20\0\0\0LVM2 001", "LVM2"),
    EXAMPLE(END | 65536, "\xfc\x4e\x2b\xa9", "MD"),
    EXAMPLE(END | 8192, "\xfc\x4e\x2b\xa9", "MD"),
    EXAMPLE(0, "\xfc\x4e\x2b\xa9", "MD"),
    EXAMPLE(4096, "\xfc\x4e\x2b\xa9", "MD"),
    EXAMPLE(0, "LUKS\xba\xbe\0\1", "LUKS1"),
    EXAMPLE(0, "LUKS\xba\xbe\0\2", "LUKS2"),
    EXAMPLE(4086, "SWAPSPACE2", "swap"),
    EXAMPLE(128 << 10, "\x0c\xb1\xba\0\0\0\0\0", "ZFS"),
    EXAMPLE(200 << 10, "\0\0\0\0\0\xba\xb1\x0c", "ZFS"),
    EXAMPLE(3, "NTFS    ", "NTFS"),
    EXAMPLE(82, "FAT32   ", "FAT"),
    EXAMPLE(54, "FAT16   ", "FAT"),
    EXAMPLE(32769, "CD001", "ISO 9660"),
    EXAMPLE(4120, "\xc6\x85\x73\xf6\x4e\x1a\x45\xca\x82\x65\xf5\x7f\x48\xba\x6d\x81", "bcache"),
    EXAMPLE(END | (4096 - 60), "\x83\x74\x02\x6d", "DRBD"),
    EXAMPLE(0, "QFI\xfb", "qcow2"),
    EXAMPLE(1 << 20, "\x0d\xd0\x01\xc0", "VMFS"),
    EXAMPLE(2 << 20, "\x5e\xf1\xab\x2f", "VMFS"),
    EXAMPLE(446, "\x80\0\2\0\x83\0\0\0\0\x08\0\0\0\0\x10\0", "MBR"),
    EXAMPLE(1080, "\x53\xef", "ext2"),
    EXAMPLE(0, "XFSB", "XFS"),
    EXAMPLE(0, "bluestore block device", "Ceph"),
};

static void
signatures_of_others_are_seen(void **state)
{
    struct harness *harness = *state;
    for (size_t n = 0; n < ARRAY_SIZE(examples); n++) {
        const struct foreign_example *example = &examples[n];
        struct backend *backend = harness_backend(harness, "mem:64M");
        uint64_t offset = example->offset_bytes;
        if ((offset & END) != 0) {
            offset = backend->properties.size_bytes - (offset & ~END);
        }
        harness_patch(harness, backend, offset, example->bytes, example->length_bytes);
        if (strcmp(example->what, "MBR") == 0) {
            harness_patch(harness, backend, 510, "\x55\xaa", 2);
        }
        struct label_read read;
        assert_int_equal(read_label(harness, backend, &read), -ENOENT);
        if (!read.ret_foreign.found || strstr(read.ret_foreign.what, example->what) == NULL) {
            fail_msg("%s: found %s", example->what,
                     read.ret_foreign.found ? read.ret_foreign.what : "nothing");
        }
        backend_close(backend);
    }
}

/* The real thing, where its tool is installed. */
static void
file_systems_made_by_their_own_tools(void **state)
{
    struct harness *harness = *state;
    static const struct {
        const char *command; /* the image's path is appended */
        const char *what;
    } makers[] = {
        { "mkfs.ext2 -q -F", "an ext2 file system" },
        { "mkfs.ext3 -q -F", "an ext3 file system" },
        { "mkfs.ext4 -q -F", "an ext4 file system" },
        { "mkfs.xfs -q -f", "an XFS file system" },
        { "mkfs.btrfs -q -f", "a btrfs file system" },
        { "mkfs.vfat", "a FAT file system" },
        { "mkfs.ntfs -q -F", "an NTFS file system" },
        { "mkswap -q", "a swap area" },
        { "qemu-img create -q -f qcow2 -o size=1G", "a qcow2 image" },
    };
    uint32_t tried = 0;
    for (size_t n = 0; n < ARRAY_SIZE(makers); n++) {
        char path[256];
        char command[2048];
        snprintf(path, sizeof(path), "%s", harness_path(harness, "image"));
        snprintf(command, sizeof(command),
                 "PATH=$PATH:/usr/sbin:/sbin; tool='%s';"
                 " command -v ${tool%%%% *} >/dev/null || exit 77;"
                 " rm -f %s; truncate -s 512M %s; $tool %s >/dev/null 2>&1 || exit 1;"
                 " truncate -s 512M %s",
                 makers[n].command, path, path, path, path);
        int status = system(command);
        if (WEXITSTATUS(status) == 77) {
            continue;
        }
        assert_int_equal(status, 0);
        tried++;
        struct backend *backend = harness_backend(harness, path);
        struct label_read read;
        assert_int_equal(read_label(harness, backend, &read), -ENOENT);
        assert_true(read.ret_foreign.found);
        assert_string_equal(read.ret_foreign.what, makers[n].what);
        backend_close(backend);
        unlink(path);
    }
    if (tried == 0) {
        skip();
    }
}

static void
random_disks_do_not_disturb(void **state)
{
    struct harness *harness = *state;
    struct random random;
    random_seed(&random, 12);
    struct backend *backend = harness_backend(harness, "mem:4M");
    uint8_t *memory = aligned_alloc(4096, 4 * MIB);
    assert_non_null(memory);
    for (uint32_t round = 0; round < 20; round++) {
        for (size_t n = 0; n < 4 * MIB; n += 8) {
            put_le64(memory + n, random_u64(&random));
        }
        if (round % 2 == 0) { /* our magic, and then noise */
            memcpy(memory + LABEL_BYTES, "VOLMGRLB", 8);
        }
        assert_int_equal(
            harness_transfer(harness, backend, BACKEND_WRITE, 0, memory, 4 * MIB), 0);
        struct label_read read;
        assert_int_equal(read_label(harness, backend, &read), round % 2 == 0 ? -EBADMSG : -ENOENT);
    }
    free(memory);
    backend_close(backend);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(geometry),
        cmocka_unit_test(a_label_survives_and_damage_does_not_pass),
        cmocka_unit_test(forged_labels_never_pass_as_illegal_ones),
        cmocka_unit_test(generations_have_room_for_more),
        cmocka_unit_test(labels_are_written_and_read),
        cmocka_unit_test(either_place_is_enough),
        cmocka_unit_test(a_newer_version_rules),
        cmocka_unit_test(a_failed_write_leaves_an_older_label),
        cmocka_unit_test(an_end_that_cannot_be_read),
        cmocka_unit_test(signatures_of_others_are_seen),
        cmocka_unit_test(file_systems_made_by_their_own_tools),
        cmocka_unit_test(random_disks_do_not_disturb),
    };
    return cmocka_run_group_tests(tests, harness_start, harness_stop);
}
