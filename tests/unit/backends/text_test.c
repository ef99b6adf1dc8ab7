/* SPDX-License-Identifier: Apache-2.0 */
/* Texts and answers: pure functions. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <iscsi/iscsi.h>

#include "backends/fault_impl.h"
#include "backends/iscsi_impl.h"
#include "backends/registry.h"
#include "base/util.h"

static void
test_secrets_are_left_out(void **state)
{
    static const struct {
        const char *spec;
        const char *clean;
    } cases[] = {
        { "/dev/sdb", "/dev/sdb" },
        { "file:/x%y@z?size=1G", "file:/x%y@z?size=1G" },
        { "iscsi://10.0.0.1/iqn.a:b/1", "iscsi://10.0.0.1/iqn.a:b/1" },
        { "iscsi://bob%pw@10.0.0.1:3261/iqn.a:b/1", "iscsi://bob@10.0.0.1:3261/iqn.a:b/1" },
        { "iscsi://bob%p@w@h/iqn.a:b/1", "iscsi://bob@h/iqn.a:b/1" },
        { "iscsi://bob:pw@h/iqn.a:b/1", "iscsi://bob@h/iqn.a:b/1" },
        { "iscsi://bob%p/w@h/iqn.a:b/1", "iscsi://bob@h/iqn.a:b/1" },
        { "iscsi://u%p@h/t/1?target_user=x&target_password=s", "iscsi://u@h/t/1?target_user=x&" },
        { "iscsi://u%p@h/t/1?target_user=a@b&target_password=s",
          "iscsi://u@h/t/1?target_user=a@b&" },
        { "iscsi://bob%p?w@h/iqn.a:b/1", "iscsi://bob@h/iqn.a:b/1" },
        { "iscsi://bob%p@h/t/1?w@h/iqn.a:b/1", "iscsi://bob@h/iqn.a:b/1" },
        { "iscsi://bob%p?w@x/1?y@h/iqn.a:b/1", "iscsi://bob@h/iqn.a:b/1" },
        { "iscsi://bob%p/w@x/1", "iscsi://bob@x/1" },
        { "iscsi://bob%p/w/1@h/t/1", "iscsi://bob@h/t/1" },
        { "iscsi://bob%pw/iqn.a:b/1", "iscsi://bob" },
        { "iscsi://bob%pw", "iscsi://bob" },
        { "iscsi://[fe80::1%2]/t/1?target_password=s", "iscsi://[fe80::1%2]/t/1?" },
        { "iscsi://u%p@h/t/1?target_password=s&nop_interval=3", "iscsi://u@h/t/1?nop_interval=3" },
        { "fault:iscsi://u%p@h/t/1?target_password=s!read,errno=EIO",
          "fault:iscsi://u@h/t/1?!read,errno=EIO" },
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        char *clean = backend_spec_without_secrets(cases[i].spec);
        assert_string_equal(clean, cases[i].clean);
        free(clean);
    }
}

static void
test_url_good(void **state)
{
    struct lun_location at;
    struct error error = { 0 };
    (void)state;

    assert_int_equal(lun_location_parse("iscsi://10.1.2.3/iqn.2003-01.org:a/7", &at, &error), 0);
    assert_string_equal(at.host, "10.1.2.3");
    assert_string_equal(at.port, "3260");
    assert_string_equal(at.target, "iqn.2003-01.org:a");
    assert_int_equal(at.lun, 7);
    assert_string_equal(at.user, "");
    assert_int_equal(strncmp(at.initiator, "iqn.2026-11.io.volmgr:", 22), 0);
    assert_int_equal(strlen(at.initiator), 22 + 16);

    assert_int_equal(lun_location_parse("iscsi://u%p%q@[fe80::1]:3261/eui.02004567A425678D/16383"
                                        "?initiator=iqn.x:y&header_digest=crc32c&target_user=tu"
                                        "&target_password=tp&nop_interval=2&reconnect=9",
                                        &at, &error),
                     0);
    assert_string_equal(at.user, "u");
    assert_string_equal(at.password, "p%q");
    assert_string_equal(at.host, "fe80::1");
    assert_string_equal(at.port, "3261");
    assert_int_equal(at.lun, 16383);
    assert_string_equal(at.initiator, "iqn.x:y");
    assert_true(at.header_digest);
    assert_string_equal(at.target_user, "tu");
    assert_string_equal(at.target_password, "tp");
    assert_int_equal(at.nop_interval_s, 2);
    assert_int_equal(at.reconnect_s, 9);
}

static void
test_url_bad(void **state)
{
    static const char *const bad[] = {
        "iscsi://",
        "iscsi:///iqn.a/1",
        "iscsi://h",
        "iscsi://h/",
        "iscsi://h/iqn.a",
        "iscsi://h/iqn.a/",
        "iscsi://h/iqn.a/x",
        "iscsi://h/iqn.a/-1",
        "iscsi://h/iqn.a/16384",
        "iscsi://h/iqn.a/99999999999999999999999",
        "iscsi://h/iqn.a/1/2",
        "iscsi://h:/iqn.a/1",
        "iscsi://h:0/iqn.a/1",
        "iscsi://h:65536/iqn.a/1",
        "iscsi://h:1x/iqn.a/1",
        "iscsi://SECRETu@h/iqn.a/1",
        "iscsi://SECRETu%@h/iqn.a/1",
        "iscsi://%SECRET@h/iqn.a/1",
        "iscsi://[::1/iqn.a/1",
        "iscsi://[::1]x/iqn.a/1",
        "iscsi://h//1",
        "iscsi://h/iqn.a/1?",
        "iscsi://h/iqn.a/1?nonsense=1",
        "iscsi://h/iqn.a/1?reconnect=0",
        "iscsi://h/iqn.a/1?reconnect=",
        "iscsi://h/iqn.a/1?header_digest=md5",
        "iscsi://h/iqn.a/1?target_user=x",
        "iscsi://h/iqn.a/1?target_password=SECRET",
        "iscsi://h/iqn.a/1?target_user=x&target_password=SECRET",
        "iscsi://h/iqn a/1",
        "iscsi://h/iqn.a?/1",
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        struct lun_location at;
        struct error error = { 0 };
        memset(&at, 0x5a, sizeof(at));
        int result = lun_location_parse(bad[i], &at, &error);
        if (i == 21) {
            assert_int_equal(result, 0); /* an empty list of options is one */
            continue;
        }
        if (result == 0) {
            fail_msg("accepted: %s", bad[i]);
        }
        assert_true(error.code < 0 && error.message[0] != '\0');
        assert_null(strstr(error.message, "SECRET"));
        assert_int_equal(((unsigned char *)&at)[0], 0x5a); /* untouched on failure */
    }
    /* Overlong parts. */
    char text[2048] = "iscsi://";
    memset(text + 8, 'a', 1500);
    struct lun_location at;
    assert_int_equal(lun_location_parse(text, &at, NULL), -EINVAL);
    memcpy(text + 8, "h/", 2);
    memcpy(text + 1000, "/1", 3);
    assert_int_equal(lun_location_parse(text, &at, NULL), -EINVAL);
}

static void
test_sense(void **state)
{
    enum {
        GOOD = SCSI_STATUS_GOOD,
        CHECK = SCSI_STATUS_CHECK_CONDITION
    };
    static const struct {
        struct lun_answer answer;
        enum lun_verdict verdict;
        int32_t error;
        enum lun_evidence evidence;
    } cases[] = {
        { { .status = GOOD }, LUN_DONE, 0, LUN_KEPT },
        { { .status = SCSI_STATUS_BUSY }, LUN_RETRY_LATER, 0, LUN_KEPT },
        { { .status = SCSI_STATUS_TASK_SET_FULL }, LUN_RETRY_LATER, 0, LUN_KEPT },
        { { .status = SCSI_STATUS_TASK_ABORTED }, LUN_RECOVER, 0, LUN_KEPT },
        { { .status = SCSI_STATUS_CANCELLED }, LUN_RECOVER, 0, LUN_KEPT },
        { { .status = SCSI_STATUS_ERROR }, LUN_RECOVER, 0, LUN_KEPT },
        { { .status = SCSI_STATUS_RESERVATION_CONFLICT }, LUN_FAILED, -EBUSY, LUN_KEPT },
        { { CHECK, false, 0x1, 0x1701 }, LUN_DONE, 0, LUN_KEPT },
        { { CHECK, true, 0x4, 0x0c00 }, LUN_RETRY, 0, LUN_KEPT },
        { { CHECK, false, 0x2, 0x0401 }, LUN_RETRY_LATER, 0, LUN_KEPT },
        { { CHECK, false, 0x2, 0x040a }, LUN_RETRY_LATER, 0, LUN_KEPT },
        { { CHECK, false, 0x2, 0x3a00 }, LUN_FAILED, -EIO, LUN_KEPT },
        { { CHECK, false, 0x2, 0x0403 }, LUN_FAILED, -EIO, LUN_KEPT },
        { { CHECK, false, 0x3, 0x1100 }, LUN_FAILED, -EIO, LUN_KEPT },
        { { CHECK, false, 0x4, 0x4400 }, LUN_FAILED, -EIO, LUN_KEPT },
        { { CHECK, false, 0x5, 0x2000 }, LUN_FAILED, -EOPNOTSUPP, LUN_KEPT },
        { { CHECK, false, 0x5, 0x2400 }, LUN_FAILED, -EOPNOTSUPP, LUN_KEPT },
        { { CHECK, false, 0x5, 0x2100 }, LUN_FAILED, -EIO, LUN_KEPT },
        { { CHECK, false, 0x5, 0x2500 }, LUN_RECOVER, 0, LUN_KEPT },
        { { CHECK, false, 0x6, 0x2900 }, LUN_RECOVER, 0, LUN_AMBIGUOUS },
        { { CHECK, false, 0x6, 0x2901 }, LUN_RECOVER, 0, LUN_RESET },
        { { CHECK, false, 0x6, 0x2902 }, LUN_RECOVER, 0, LUN_AMBIGUOUS },
        { { CHECK, false, 0x6, 0x2903 }, LUN_RECOVER, 0, LUN_KEPT },
        { { CHECK, false, 0x6, 0x2904 }, LUN_RECOVER, 0, LUN_RESET },
        { { CHECK, false, 0x6, 0x2907 }, LUN_RECOVER, 0, LUN_KEPT },
        { { CHECK, false, 0x6, 0x2a09 }, LUN_RETRY, 0, LUN_KEPT },
        { { CHECK, false, 0x6, 0x3807 }, LUN_RETRY, 0, LUN_KEPT },
        { { CHECK, false, 0x6, 0x3f0e }, LUN_RECOVER, 0, LUN_KEPT },
        { { CHECK, false, 0x7, 0x2707 }, LUN_FAILED, -ENOSPC, LUN_KEPT },
        { { CHECK, false, 0x7, 0x2700 }, LUN_FAILED, -EROFS, LUN_KEPT },
        { { CHECK, false, 0xb, 0x0000 }, LUN_RETRY_LATER, 0, LUN_KEPT },
        { { CHECK, false, 0xe, 0x1d00 }, LUN_FAILED, -EIO, LUN_KEPT },
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        int32_t error = 0;
        assert_int_equal(lun_judge(&cases[i].answer, &error), cases[i].verdict);
        assert_int_equal(error, cases[i].error);
        assert_int_equal(lun_evidence_of(&cases[i].answer), cases[i].evidence);
    }
    /* Whatever a target sends, there is an answer. */
    for (uint32_t key = 0; key < 256; key++) {
        for (uint32_t code = 0; code < 65536; code += 7) {
            struct lun_answer answer = { CHECK, false, (uint8_t)key, (uint16_t)code };
            int32_t error = 0;
            enum lun_verdict verdict = lun_judge(&answer, &error);
            assert_true(verdict <= LUN_RECOVER);
            assert_true((verdict == LUN_FAILED) == (error < 0));
        }
    }
}

static void
test_loss_rule(void **state)
{
    (void)state;
    /* No witness: a clear word counts, and so does an unclear one. */
    assert_false(lun_was_reset(LUN_KEPT, false, false));
    assert_true(lun_was_reset(LUN_AMBIGUOUS, false, false));
    assert_true(lun_was_reset(LUN_AMBIGUOUS, false, true)); /* not ours, or not trusted */
    assert_true(lun_was_reset(LUN_RESET, false, false));
    /* A witness that is there disproves the unclear word only. */
    assert_false(lun_was_reset(LUN_KEPT, true, true));
    assert_false(lun_was_reset(LUN_AMBIGUOUS, true, true));
    assert_true(lun_was_reset(LUN_RESET, true, true));
    /* One that is gone is proof enough. */
    assert_true(lun_was_reset(LUN_KEPT, true, false));
    assert_true(lun_was_reset(LUN_AMBIGUOUS, true, false));
    assert_true(lun_was_reset(LUN_RESET, true, false));
}

static void
test_fault_rules(void **state)
{
    static const char *const bad[] = {
        "reed,errno=EIO",   "read,errno=",   "read,errno=0",   "read,errno=EWHAT",
        "read,nth=0",       "read,nth=x",    "read,chance=1",  "read,chance=2/1",
        "read,chance=1/0",  "read,range=4K", "read,range=+4K", "read,range=0+0",
        "read,delay=",      "read,short=0",  "read,what",      "read|,hang|",
        "seed=1,errno=EIO", "seed=",         "read;reed",
    };
    struct list rules;
    struct random random;
    struct error error = { 0 };
    struct fault_outcome outcome;
    (void)state;

    list_init(&rules);
    random_seed(&random, 1);
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        error.code = 0;
        assert_int_equal(fault_rules_parse(bad[i], &rules, &random, &error), -EINVAL);
        assert_true(list_empty(&rules));
    }
    assert_int_equal(fault_rules_parse("seed=9;write,nth=2,range=1M+4K,errno=ENOSPC;"
                                       "read|flush,every=2,count=1,delay=7,hang;*,drop,count=0",
                                       &rules, &random, &error),
                     0);
    /* The second write that touches the range. */
    assert_false(fault_rules_apply(&rules, &random, BACKEND_WRITE, 0, 1 << 20, &outcome));
    assert_false(
        fault_rules_apply(&rules, &random, BACKEND_WRITE, (1 << 20) + 4096, 512, &outcome));
    assert_false(fault_rules_apply(&rules, &random, BACKEND_WRITE, 0, (1 << 20) + 1, &outcome));
    assert_true(fault_rules_apply(&rules, &random, BACKEND_WRITE, (1 << 20) + 4095, 1, &outcome));
    assert_int_equal(outcome.error, -ENOSPC);
    assert_false(fault_rules_apply(&rules, &random, BACKEND_WRITE, 1 << 20, 4096, &outcome));
    assert_false(fault_rules_apply(&rules, &random, BACKEND_READ, 0, 512, &outcome));
    assert_true(fault_rules_apply(&rules, &random, BACKEND_FLUSH, 0, 0, &outcome));
    assert_true(outcome.hang);
    assert_int_equal(outcome.delay_ns, 7 * NS_PER_MS);
    assert_false(fault_rules_apply(&rules, &random, BACKEND_READ, 0, 512, &outcome));
    assert_false(fault_rules_apply(&rules, &random, BACKEND_FLUSH, 0, 0, &outcome)); /* once */
    fault_rules_free(&rules);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_secrets_are_left_out),
        cmocka_unit_test(test_url_good),
        cmocka_unit_test(test_url_bad),
        cmocka_unit_test(test_sense),
        cmocka_unit_test(test_loss_rule),
        cmocka_unit_test(test_fault_rules),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
