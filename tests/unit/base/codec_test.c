/* SPDX-License-Identifier: Apache-2.0 */
/* Checksums, byte order, sizes as text. */
#include <errno.h>
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/crc32c.h"
#include "base/endian.h"
#include "base/size_text.h"
#include "base/util.h"

/* The examples of RFC 3720 B.4 (RFC 7143 A.4), whose digests are given as bytes on the wire. */
static void
test_crc32c_rfc_vectors(void **state)
{
    (void)state;
    static const uint8_t read_command[48] = {
        0x01, 0xc0, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
        0x00, 0x00, 0x00, 0x00, 0x14, 0x00, 0x00, 0x00, 0x00, 0x00, 0x04, 0x00,
        0x00, 0x00, 0x00, 0x14, 0x00, 0x00, 0x00, 0x18, 0x28, 0x00, 0x00, 0x00,
        0x00, 0x00, 0x00, 0x00, 0x02, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
    };
    uint8_t bytes[32];

    memset(bytes, 0x00, sizeof(bytes));
    assert_int_equal(crc32c(0, bytes, sizeof(bytes)), get_le32("\xaa\x36\x91\x8a"));
    memset(bytes, 0xff, sizeof(bytes));
    assert_int_equal(crc32c(0, bytes, sizeof(bytes)), get_le32("\x43\xab\xa8\x62"));
    for (uint8_t i = 0; i < 32; i++) {
        bytes[i] = i;
    }
    assert_int_equal(crc32c(0, bytes, sizeof(bytes)), get_le32("\x4e\x79\xdd\x46"));
    for (uint8_t i = 0; i < 32; i++) {
        bytes[i] = (uint8_t)(31 - i);
    }
    assert_int_equal(crc32c(0, bytes, sizeof(bytes)), get_le32("\x5c\xdb\x3f\x11"));
    assert_int_equal(crc32c(0, read_command, sizeof(read_command)), get_le32("\x56\x3a\x96\xd9"));
    /* The check value that catalogues of CRCs give. */
    assert_int_equal(crc32c(0, "123456789", 9), 0xe3069283);
}

static uint32_t
crc32c_by_bits(const uint8_t *bytes, size_t length)
{
    uint32_t crc = UINT32_MAX;
    for (size_t i = 0; i < length; i++) {
        crc ^= bytes[i];
        for (int bit = 0; bit < 8; bit++) {
            crc = (crc >> 1) ^ ((crc & 1) != 0 ? UINT32_C(0x82f63b78) : 0);
        }
    }
    return ~crc;
}

static void
test_crc32c_any_length_and_cut(void **state)
{
    (void)state;
    uint8_t bytes[600];
    for (size_t i = 0; i < sizeof(bytes); i++) {
        bytes[i] = (uint8_t)(i * 131 + 7);
    }
    assert_int_equal(crc32c(0, bytes, 0), 0);
    for (size_t length = 0; length <= sizeof(bytes); length += 7) {
        uint32_t whole = crc32c(0, bytes, length);
        assert_int_equal(whole, crc32c_by_bits(bytes, length));
        size_t cut = length / 3;
        assert_int_equal(crc32c(crc32c(0, bytes, cut), bytes + cut, length - cut), whole);
    }
}

static void
test_endian(void **state)
{
    (void)state;
    uint8_t bytes[9];

    memset(bytes, 0xee, sizeof(bytes));
    put_be16(bytes + 1, 0x0102);
    assert_memory_equal(bytes, "\xee\x01\x02\xee", 4);
    assert_int_equal(get_be16(bytes + 1), 0x0102);
    put_le16(bytes + 1, 0x0102);
    assert_memory_equal(bytes, "\xee\x02\x01\xee", 4);
    assert_int_equal(get_le16(bytes + 1), 0x0102);
    put_be32(bytes + 1, 0x01020304);
    assert_memory_equal(bytes + 1, "\x01\x02\x03\x04", 4);
    assert_int_equal(get_be32(bytes + 1), 0x01020304);
    put_le32(bytes + 1, 0x01020304);
    assert_memory_equal(bytes + 1, "\x04\x03\x02\x01", 4);
    assert_int_equal(get_le32(bytes + 1), 0x01020304);
    put_be64(bytes + 1, UINT64_C(0x0102030405060708));
    assert_memory_equal(bytes + 1, "\x01\x02\x03\x04\x05\x06\x07\x08", 8);
    assert_true(get_be64(bytes + 1) == UINT64_C(0x0102030405060708));
    put_le64(bytes + 1, UINT64_C(0x0102030405060708));
    assert_memory_equal(bytes + 1, "\x08\x07\x06\x05\x04\x03\x02\x01", 8);
    assert_true(get_le64(bytes + 1) == UINT64_C(0x0102030405060708));
    assert_int_equal(bytes[0], 0xee);
}

static void
test_size_parse_accepts(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        uint64_t bytes;
    } cases[] = {
        { "0", 0 },
        { "4096", 4096 },
        { "512B", 512 },
        { "512K", 512 * KIB },
        { "512k", 512 * KIB },
        { "10M", 10 * MIB },
        { "10MiB", 10 * MIB },
        { "10mib", 10 * MIB },
        { "10MB", 10 * MIB },
        { "3G", 3 * GIB },
        { "1.5T", TIB + TIB / 2 },
        { "0.5K", 512 },
        { "2P", 2 * PIB },
        { "7E", 7 * 1024 * PIB },
        { "9223372036854775807", INT64_MAX },
    };
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        uint64_t bytes = 1;
        assert_int_equal(size_parse(cases[i].text, &bytes), 0);
        assert_true(bytes == cases[i].bytes);
    }
}

static void
test_size_parse_refuses(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int result;
    } cases[] = {
        { "", -EINVAL },
        { " 1", -EINVAL },
        { "1 ", -EINVAL },
        { "-1", -EINVAL },
        { "+1", -EINVAL },
        { "x", -EINVAL },
        { "K", -EINVAL },
        { ".5K", -EINVAL },
        { "1.", -EINVAL },
        { "1.K", -EINVAL },
        { "1.5", -EINVAL },
        { "1.3K", -EINVAL },
        { "1Q", -EINVAL },
        { "1Ki", -EINVAL },
        { "1KiBx", -EINVAL },
        { "1KK", -EINVAL },
        { "1iB", -EINVAL },
        { "1.00000000000000000000000K", -EINVAL },
        { "8E", -ERANGE },
        { "9223372036854775808", -ERANGE },
        { "99999999999999999999999999999999", -ERANGE },
        { "9999999999999T", -ERANGE },
    };
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        uint64_t bytes = 4711;
        assert_int_equal(size_parse(cases[i].text, &bytes), cases[i].result);
        assert_int_equal(bytes, 4711);
    }
}

static void
test_size_format(void **state)
{
    (void)state;
    static const struct {
        uint64_t bytes;
        const char *text;
    } cases[] = {
        { 0, "0 B" },
        { 1023, "1023 B" },
        { 1024, "1 KiB" },
        { 10 * GIB, "10 GiB" },
        { 1536, "1.50 KiB" },
        { 15 * KIB + 512, "15.5 KiB" },
        { 150 * KIB + 512, "150 KiB" },
        { TIB + 470 * GIB, "1.46 TiB" },
        { UINT64_MAX, "16.0 EiB" },
    };
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        char text[SIZE_TEXT_SIZE];
        assert_string_equal(size_format(cases[i].bytes, text), cases[i].text);
    }
}

static void
test_util_arithmetic(void **state)
{
    (void)state;
    assert_true(is_power_of_two(1) && is_power_of_two(4096) && is_power_of_two(UINT64_C(1) << 63));
    assert_false(is_power_of_two(0) || is_power_of_two(3) || is_power_of_two(4097));
    assert_int_equal(align_down(4097, 4096), 4096);
    assert_int_equal(align_up(4097, 4096), 8192);
    assert_int_equal(align_up(4096, 4096), 4096);
    assert_true(is_aligned(8192, 4096) && !is_aligned(8191, 4096));
    assert_int_equal(div_round_up(0, 3), 0);
    assert_int_equal(div_round_up(7, 3), 3);
    assert_true(div_round_up(UINT64_MAX, 2) == (UINT64_C(1) << 63));
    assert_int_equal(log2_u64(1), 0);
    assert_int_equal(log2_u64(4095), 11);
    assert_int_equal(log2_u64(UINT64_MAX), 63);
    assert_int_equal(MIN(3, 4), 3);
    assert_int_equal(MAX(3, 4), 4);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_crc32c_rfc_vectors),
        cmocka_unit_test(test_crc32c_any_length_and_cut),
        cmocka_unit_test(test_endian),
        cmocka_unit_test(test_size_parse_accepts),
        cmocka_unit_test(test_size_parse_refuses),
        cmocka_unit_test(test_size_format),
        cmocka_unit_test(test_util_arithmetic),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
