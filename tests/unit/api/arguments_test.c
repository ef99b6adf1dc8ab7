/* SPDX-License-Identifier: Apache-2.0 */
/* Decoding: command lines, URLs and hostile bodies against the table. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "api/arguments.h"
#include "api/duration.h"
#include "base/util.h"

/* Take a body for a command; returns the outcome, and the message in `error`. */
static int
decode(struct api_arguments *arguments, enum api_command_id id, const char *body,
       struct error *error)
{
    memset(error, 0, sizeof(*error));
    api_arguments_init(arguments, api_command(id));
    int result = api_arguments_set_body(arguments, body, strlen(body), error);
    return result == 0 ? api_arguments_check(arguments, error) : result;
}

static void
refused(enum api_command_id id, const char *body, int code, const char *part)
{
    struct api_arguments arguments;
    struct error error;
    int result = decode(&arguments, id, body, &error);
    if (result != code || strstr(error.message, part) == NULL) {
        fail_msg("%s: %d \"%s\", expected %d and \"%s\"", body, result, error.message, code, part);
    }
    api_arguments_free(&arguments);
}

static void
body_is_taken(void **state)
{
    struct api_arguments arguments;
    struct error error;
    (void)state;
    assert_int_equal(decode(&arguments, API_VOLUME_CREATE,
                            "{\"volume\":\"fast/vm-1.a_B\",\"size_bytes\":9223372036854775807,"
                            "\"sector_bytes\":4096,\"tier\":\"7\",\"reserve_bytes\":null}",
                            &error),
                     0);
    assert_string_equal(api_text(&arguments, "volume"), "fast/vm-1.a_B");
    assert_int_equal(api_number(&arguments, "size_bytes", 0), INT64_MAX);
    assert_int_equal(api_number(&arguments, "sector_bytes", 0), 4096);
    assert_int_equal(api_number(&arguments, "reserve_bytes", 17), 17); /* null: left out */
    assert_string_equal(api_text(&arguments, "tier"), "7");
    api_arguments_free(&arguments);

    assert_int_equal(decode(&arguments, API_POOL_CREATE,
                            "{\"pool\":\"p\",\"force\":true,\"disks\":[{\"disk\":\"/dev/sdb\"},"
                            "{\"tier\":254,\"disk\":\"mem:1G\"}]}",
                            &error),
                     0);
    size_t count = 0;
    const struct api_disk *disks = api_disks(&arguments, "disks", &count);
    assert_int_equal(count, 2);
    assert_string_equal(disks[0].disk, "/dev/sdb");
    assert_int_equal(disks[0].tier, 0);
    assert_int_equal(disks[1].tier, 254);
    assert_true(api_flag(&arguments, "force"));
    api_arguments_free(&arguments);
}

static void
lists_of_text_are_taken(void **state)
{
    struct api_arguments arguments;
    struct error error;
    size_t count = 0;
    (void)state;
    assert_int_equal(decode(&arguments, API_EXPORT_CREATE,
                            "{\"volume\":\"a/b\",\"protocol\":\"nbd\",\"hosts\":[\"x\",\"y z\"]}",
                            &error),
                     0);
    const char *const *hosts = api_strings(&arguments, "hosts", &count);
    assert_int_equal(count, 2);
    assert_string_equal(hosts[0], "x");
    assert_string_equal(hosts[1], "y z");
    json_t *body = api_arguments_encode_body(&arguments);
    assert_int_equal(json_array_size(json_object_get(body, "hosts")), 2);
    json_decref(body);
    api_arguments_free(&arguments);

    assert_int_equal(decode(&arguments, API_EXPORT_CREATE,
                            "{\"volume\":\"a/b\",\"protocol\":\"nbd\",\"hosts\":[]}", &error),
                     0);
    api_strings(&arguments, "hosts", &count);
    assert_int_equal(count, 0);
    api_arguments_free(&arguments);
    refused(API_EXPORT_CREATE, "{\"hosts\":\"x\"}", -EINVAL, "must be a list of text");
    refused(API_EXPORT_CREATE, "{\"hosts\":[\"x\",1]}", -EINVAL, "must be a list of text");
    refused(API_EXPORT_CREATE, "{\"hosts\":[\"\"]}", -EINVAL, "1 to 135 bytes");
    refused(API_EXPORT_CREATE, "{\"hosts\":[\"\\u0007\"]}", -EINVAL, "control characters");
}

static void
snapshots_are_named(void **state)
{
    static const struct {
        const char *text;
        bool volume, snapshot, view, scope;
    } cases[] = {
        { "a/b", true, false, true, true },   { "a/b@c", false, true, true, false },
        { "a", false, false, false, true },   { "a/b@", false, false, false, false },
        { "a/@c", false, false, false, false }, { "a@c", false, false, false, false },
        { "a/b@c@d", false, false, false, false }, { "a/b@.c", false, false, false, false },
        { "a/b@c/d", false, false, false, false }, { "@", false, false, false, false },
        { "a/b@c d", false, false, false, false }, { "", false, false, false, false },
        { "a/b,a/c", false, false, false, false }, { "a/", false, false, false, false },
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        static const struct {
            enum api_command_id id;
            const char *field;
        } fields[] = { { API_VOLUME_SHOW, "volume" },
                       { API_VOLUME_ROLLBACK, "snapshot" },
                       { API_EXPORT_CREATE, "volume" },
                       { API_SNAPSHOT_LIST, "scope" } };
        const bool good[] = { cases[i].volume, cases[i].snapshot, cases[i].view, cases[i].scope };
        for (size_t kind = 0; kind < ARRAY_SIZE(fields); kind++) {
            struct api_arguments arguments;
            struct error error = { 0 };
            api_arguments_init(&arguments, api_command(fields[kind].id));
            int field = api_field_index(arguments.command, fields[kind].field);
            int result = api_arguments_set_text(&arguments, (size_t)field, cases[i].text,
                                                API_TEXT_WIRE, &error);
            if ((result == 0) != good[kind]) {
                fail_msg("\"%s\" as %s: %d", cases[i].text, fields[kind].field, result);
            }
            api_arguments_free(&arguments);
        }
    }
}

/* Everything that is longest fits the daemon's buffers. */
static void
longest_names_fit(void **state)
{
    char text[API_VIEW_BYTES_MAX + 2];
    struct api_arguments arguments;
    struct error error = { 0 };
    (void)state;
    memset(text, 'n', sizeof(text));
    text[API_NAME_BYTES_MAX] = '/';
    text[2 * API_NAME_BYTES_MAX + 1] = '@';
    text[API_VIEW_BYTES_MAX] = '\0';
    api_arguments_init(&arguments, api_command(API_VOLUME_ROLLBACK));
    assert_int_equal(api_arguments_set_text(&arguments, 0, text, API_TEXT_WIRE, &error), 0);
    api_arguments_free(&arguments);
    text[API_VIEW_BYTES_MAX] = 'n';
    text[API_VIEW_BYTES_MAX + 1] = '\0';
    api_arguments_init(&arguments, api_command(API_VOLUME_ROLLBACK));
    assert_int_equal(api_arguments_set_text(&arguments, 0, text, API_TEXT_WIRE, &error), -EINVAL);
    api_arguments_free(&arguments);
    /* Cut to one byte too many, it stays invalid inside a list, too. */
    api_arguments_init(&arguments, api_command(API_VOLUME_DELETE));
    assert_int_equal(api_arguments_set_text(&arguments, 1, text, API_TEXT_WIRE, &error), -EINVAL);
    api_arguments_free(&arguments);
}

static void
lists_of_views_travel_in_a_query(void **state)
{
    struct api_arguments arguments;
    struct error error = { 0 };
    struct byte_buffer url = BYTE_BUFFER_INIT;
    size_t count = 0;
    (void)state;
    api_arguments_init(&arguments, api_command(API_VOLUME_DELETE));
    assert_int_equal(api_arguments_set_text(&arguments, 0, "p/v@a", API_TEXT_PERSON, &error), 0);
    assert_int_equal(api_arguments_set_text(&arguments, 1, "p/v@b", API_TEXT_PERSON, &error), 0);
    assert_int_equal(api_arguments_set_text(&arguments, 1, "p/w@c", API_TEXT_PERSON, &error), 0);
    assert_true(api_arguments_set_text(&arguments, 1, "p/v@b,p/w@c", API_TEXT_PERSON, &error) < 0);
    api_arguments_encode_url(&arguments, &url);
    assert_string_equal((char *)url.data, "/v1/volumes/p/v@a?more=p%2Fv%40b,p%2Fw%40c");
    char text[256];
    api_expand(&arguments, "x {volume} and {more}", text, sizeof(text));
    assert_string_equal(text, "x p/v@a and p/v@b, p/w@c");
    api_expand(&arguments, "{more}", text, 9);
    assert_string_equal(text, "p/v@b, p");
    api_arguments_free(&arguments);
    byte_buffer_free(&url);

    api_arguments_init(&arguments, api_command(API_VOLUME_DELETE));
    assert_int_equal(api_arguments_set_text(&arguments, 1, "p/v@b,p/w@c", API_TEXT_WIRE, &error),
                     0);
    const char *const *views = api_strings(&arguments, "more", &count);
    assert_int_equal(count, 2);
    assert_string_equal(views[1], "p/w@c");
    assert_int_equal(api_arguments_set_text(&arguments, 1, "p/v@d", API_TEXT_WIRE, &error),
                     -EINVAL); /* given twice */
    api_arguments_free(&arguments);
    static const char *const bad[] = { "", ",", "p/v@b,", ",p/v@b", "p/v@b,,p/v@c" };
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        api_arguments_init(&arguments, api_command(API_VOLUME_DELETE));
        assert_int_equal(api_arguments_set_text(&arguments, 1, bad[i], API_TEXT_WIRE, &error),
                         -EINVAL);
        api_arguments_free(&arguments);
    }
    api_arguments_init(&arguments, api_command(API_SNAPSHOT_CREATE));
    for (int i = 0; i <= API_VIEWS_MAX; i++) {
        assert_int_equal(api_arguments_set_text(&arguments, 0, "p/v", API_TEXT_PERSON, &error),
                         i < API_VIEWS_MAX ? 0 : -E2BIG);
    }
    api_arguments_free(&arguments);
}

static void
rules_of_schedules_are_taken(void **state)
{
    struct api_arguments arguments;
    struct error error = { 0 };
    size_t count = 0;
    (void)state;
    api_arguments_init(&arguments, api_command(API_POLICY_SET));
    assert_int_equal(api_arguments_set_rule(&arguments, 1, "keep", "3", &error), -EINVAL);
    assert_int_equal(api_arguments_set_text(&arguments, 0, "p/v", API_TEXT_PERSON, &error), 0);
    assert_int_equal(api_arguments_set_text(&arguments, 1, "15m", API_TEXT_PERSON, &error), 0);
    assert_int_equal(api_arguments_check(&arguments, &error), -ERANGE); /* no keep */
    assert_int_equal(api_arguments_set_rule(&arguments, 1, "keep", "0", &error), -ERANGE);
    assert_int_equal(api_arguments_set_rule(&arguments, 1, "keep", "10001", &error), -ERANGE);
    assert_int_equal(api_arguments_set_rule(&arguments, 1, "keep", "8", &error), 0);
    assert_int_equal(api_arguments_set_rule(&arguments, 1, "keep", "8", &error), -EINVAL);
    assert_int_equal(api_arguments_set_text(&arguments, 1, "1d", API_TEXT_PERSON, &error), 0);
    assert_int_equal(api_arguments_set_rule(&arguments, 1, "immutable", "x", &error), -EINVAL);
    assert_int_equal(api_arguments_set_rule(&arguments, 1, "immutable", "2w", &error), 0);
    assert_int_equal(api_arguments_set_rule(&arguments, 1, "immutable", "2w", &error), -EINVAL);
    assert_int_equal(api_arguments_set_rule(&arguments, 1, "keep", "14", &error), 0);
    assert_int_equal(api_arguments_check(&arguments, &error), 0);
    json_t *body = api_arguments_encode_body(&arguments);
    api_arguments_free(&arguments);

    api_arguments_init(&arguments, api_command(API_POLICY_SET));
    assert_int_equal(api_arguments_set_text(&arguments, 0, "p/v", API_TEXT_WIRE, &error), 0);
    assert_int_equal(api_arguments_set_json(&arguments, body, &error), 0);
    json_decref(body);
    const struct api_rule *rules = api_rules(&arguments, "rules", &count);
    assert_int_equal(count, 2);
    assert_int_equal(rules[0].every_seconds, 900);
    assert_int_equal(rules[0].keep, 8);
    assert_int_equal(rules[0].immutable_seconds, 0);
    assert_int_equal(rules[1].every_seconds, 86400);
    assert_int_equal(rules[1].keep, 14);
    assert_int_equal(rules[1].immutable_seconds, 14 * 86400);
    for (int i = 2; i <= API_RULES_MAX; i++) {
        assert_int_equal(api_arguments_set_text(&arguments, 1, "1m", API_TEXT_PERSON, &error),
                         i < API_RULES_MAX ? 0 : -E2BIG);
    }
    api_arguments_free(&arguments);
    refused(API_POLICY_SET, "{\"rules\":7}", -EINVAL, "must be a list");
    refused(API_POLICY_SET, "{\"rules\":{}}", -EINVAL, "must be a list");
    refused(API_POLICY_SET, "{\"rules\":[7]}", -EINVAL, "item 1 must be");
    refused(API_POLICY_SET, "{\"rules\":[{\"every_seconds\":1,\"keep\":1,\"x\":1}]}", -EINVAL,
            "item 1 must be");
    refused(API_POLICY_SET, "{\"rules\":[{\"every_seconds\":-1,\"keep\":1}]}", -EINVAL,
            "item 1 must be");
    refused(API_POLICY_SET, "{\"rules\":[{\"every_seconds\":0,\"keep\":1}]}", -ERANGE, "every");
    refused(API_POLICY_SET, "{\"rules\":[{\"every_seconds\":1,\"keep\":4294967297}]}", -ERANGE,
            "keep");
    refused(API_POLICY_SET, "{\"rules\":[{\"every_seconds\":1}]}", -ERANGE, "keep");
    refused(API_POLICY_SET,
            "{\"rules\":[{\"every_seconds\":1,\"keep\":1,\"immutable_seconds\":9999999999}]}",
            -ERANGE, "immutable");
}

static void
durations_are_read(void **state)
{
    static const struct {
        const char *text;
        int result;
        uint64_t seconds;
        const char *again;
    } cases[] = {
        { "90s", 0, 90, "1m30s" },
        { "15m", 0, 900, "15m" },
        { "1h", 0, 3600, "1h" },
        { "7d", 0, 7 * 86400, "1w" },
        { "2w", 0, 14 * 86400, "2w" },
        { "1d12h", 0, 129600, "1d12h" },
        { "1w1s", 0, 604801, "1w1s" },
        { "0s", 0, 0, "0s" },
        { "15", -EINVAL, 0, NULL },
        { "", -EINVAL, 0, NULL },
        { "m", -EINVAL, 0, NULL },
        { "1M", -EINVAL, 0, NULL },
        { "1.5h", -EINVAL, 0, NULL },
        { "-1h", -EINVAL, 0, NULL },
        { "1m1h", -EINVAL, 0, NULL },
        { "1h1h", -EINVAL, 0, NULL },
        { "1h ", -EINVAL, 0, NULL },
        { "99999999999999999999s", -ERANGE, 0, NULL },
        { "9223372036854775807s", 0, INT64_MAX, NULL },
        { "9223372036854775808s", -ERANGE, 0, NULL },
        { "99999999999999999w", -ERANGE, 0, NULL },
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        uint64_t seconds = 7;
        char text[DURATION_TEXT_SIZE];
        if (duration_parse(cases[i].text, &seconds) != cases[i].result) {
            fail_msg("\"%s\"", cases[i].text);
        }
        assert_int_equal(seconds, cases[i].result == 0 ? cases[i].seconds : 7);
        if (cases[i].again != NULL) {
            assert_string_equal(duration_format(seconds, text), cases[i].again);
        }
        /* What is printed is read again. */
        if (cases[i].result == 0) {
            assert_int_equal(duration_parse(duration_format(seconds, text), &seconds), 0);
            assert_int_equal(seconds, cases[i].seconds);
        }
    }
    struct api_arguments arguments;
    struct error error = { 0 };
    api_arguments_init(&arguments, api_command(API_SNAPSHOT_PROTECT));
    assert_int_equal(api_arguments_set_text(&arguments, 1, "1h", API_TEXT_WIRE, &error), -EINVAL);
    assert_int_equal(api_arguments_set_text(&arguments, 1, "0s", API_TEXT_PERSON, &error), -ERANGE);
    error = (struct error){ 0 };
    assert_int_equal(api_arguments_set_text(&arguments, 1, "60", API_TEXT_PERSON, &error), -EINVAL);
    assert_non_null(strstr(error.message, "not a duration such as"));
    assert_int_equal(api_arguments_set_text(&arguments, 1, "60", API_TEXT_WIRE, &error), 0);
    api_arguments_free(&arguments);
    refused(API_SNAPSHOT_CREATE, "{\"immutable_seconds\":\"1h\"}", -EINVAL, "of seconds");
}

static void
hostile_bodies_are_refused(void **state)
{
    (void)state;
    refused(API_VOLUME_CREATE, "", -EINVAL, "volume is missing");
    refused(API_VOLUME_CREATE, "[]", -EINVAL, "must be a JSON object");
    refused(API_VOLUME_CREATE, "\"x\"", -EINVAL, "not JSON");
    refused(API_VOLUME_CREATE, "{\"volume\":", -EINVAL, "not JSON: line 1");
    refused(API_VOLUME_CREATE, "{\"volume\":\"a/b\"}", -EINVAL, "size_bytes is missing");
    refused(API_VOLUME_CREATE, "{\"volume\":\"a/b\",\"volume\":\"a/c\"}", -EINVAL, "duplicate");
    refused(API_VOLUME_CREATE, "{\"voluem\":\"a/b\"}", -EINVAL, "no field \"voluem\"");
    refused(API_VOLUME_CREATE, "{\"\\u001b[31m\":1}", -EINVAL, "no field \"?[31m\"");
    refused(API_VOLUME_CREATE, "{\"volume\":7}", -EINVAL, "volume must be text");
    refused(API_VOLUME_CREATE, "{\"volume\":null}", -EINVAL, "volume must be text");
    refused(API_VOLUME_CREATE, "{\"volume\":\"a/b\\u0000c\"}", -EINVAL, "not JSON");
    static const char *const names[] = { "",      "a",   "/",     "a/",   "/b",  "a/b/c", "a/.b",
                                         "-a/b",  "a b/c", "a/\\u00e4", "../x", "a/\\nb" };
    for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
        char body[128];
        snprintf(body, sizeof(body), "{\"volume\":\"%s\",\"size_bytes\":1024}", names[i]);
        refused(API_VOLUME_CREATE, body, -EINVAL, "volume must be POOL/VOLUME");
    }
    refused(API_VOLUME_CREATE, "{\"size_bytes\":\"10G\"}", -EINVAL, "an integer of bytes");
    refused(API_VOLUME_CREATE, "{\"size_bytes\":-1}", -EINVAL, "an integer of bytes");
    refused(API_VOLUME_CREATE, "{\"size_bytes\":1e3}", -EINVAL, "an integer of bytes");
    refused(API_VOLUME_CREATE, "{\"size_bytes\":true}", -EINVAL, "an integer of bytes");
    refused(API_VOLUME_CREATE, "{\"size_bytes\":511}", -ERANGE, "from 512 to");
    refused(API_VOLUME_CREATE, "{\"size_bytes\":9223372036854775808}", -EINVAL, "not JSON");
    refused(API_VOLUME_CREATE, "{\"sector_bytes\":520}", -EINVAL, "one of: 512, 4096");
    refused(API_VOLUME_CREATE, "{\"tier\":\"255\"}", -EINVAL, "auto or a number");
    refused(API_VOLUME_CREATE, "{\"tier\":\"1x\"}", -EINVAL, "auto or a number");
    refused(API_VOLUME_CREATE, "{\"tier\":\"\"}", -EINVAL, "auto or a number");
    refused(API_EXPORT_CREATE, "{\"protocol\":\"smb\"}", -EINVAL, "one of: nbd");
    refused(API_EXPORT_CREATE, "{\"read_only\":1}", -EINVAL, "true or false");
    refused(API_EXPORT_CREATE, "{\"name\":\"a\\tb\"}", -EINVAL, "control characters");
    refused(API_EXPORT_CREATE, "{\"name\":\"a\\u009bb\"}", -EINVAL, "control characters");
    refused(API_EXPORT_CREATE, "{\"name\":\"\"}", -EINVAL, "1 to 255 bytes");
    refused(API_POOL_CREATE, "{\"disks\":[]}", -EINVAL, "must be a list");
    refused(API_POOL_CREATE, "{\"disks\":{}}", -EINVAL, "must be a list");
    refused(API_POOL_CREATE, "{\"disks\":[7]}", -EINVAL, "item 1 must be");
    refused(API_POOL_CREATE, "{\"disks\":[{\"disk\":\"a\"},{\"tier\":1}]}", -EINVAL, "item 2");
    refused(API_POOL_CREATE, "{\"disks\":[{\"disk\":\"a\",\"x\":1}]}", -EINVAL, "item 1");
    refused(API_POOL_CREATE, "{\"disks\":[{\"disk\":\"\"}]}", -EINVAL, "1 to 1023 bytes");
    refused(API_POOL_CREATE, "{\"disks\":[{\"disk\":\"a\",\"tier\":255}]}", -EINVAL, "0 to 254");
    refused(API_POOL_CREATE, "{\"disks\":[{\"disk\":\"a\",\"tier\":-1}]}", -EINVAL, "0 to 254");
    /* What belongs to volctl alone is not known on the wire. */
    refused(API_EVENT_LIST, "{\"follow\":true}", -EINVAL, "no field \"follow\"");
}

static void
deep_and_long_bodies_are_refused(void **state)
{
    enum { DEEP = 100000 };
    struct api_arguments arguments;
    struct error error = { 0 };
    char *body = malloc(API_BODY_BYTES_MAX + 1);
    (void)state;
    assert_non_null(body);
    memset(body, '[', DEEP);
    api_arguments_init(&arguments, api_command(API_POOL_CREATE));
    assert_int_equal(api_arguments_set_body(&arguments, body, DEEP, &error), -EINVAL);
    error = (struct error){ 0 };
    memset(body, ' ', API_BODY_BYTES_MAX + 1);
    assert_int_equal(api_arguments_set_body(&arguments, body, API_BODY_BYTES_MAX + 1, &error),
                     -E2BIG);
    api_arguments_free(&arguments);
    free(body);
}

static void
too_many_disks_are_refused(void **state)
{
    struct api_arguments arguments;
    struct error error = { 0 };
    (void)state;
    api_arguments_init(&arguments, api_command(API_POOL_CREATE));
    for (int i = 0; i < API_DISKS_MAX; i++) {
        assert_int_equal(
            api_arguments_set_text(&arguments, 1, "mem:1G", API_TEXT_PERSON, &error), 0);
    }
    assert_int_equal(api_arguments_set_text(&arguments, 1, "mem:1G", API_TEXT_PERSON, &error),
                     -E2BIG);
    api_arguments_free(&arguments);
}

static int
set(struct api_arguments *arguments, const char *name, const char *text, enum api_text_form form,
    struct error *error)
{
    memset(error, 0, sizeof(*error));
    int index = api_field_index(arguments->command, name);
    assert_true(index >= 0);
    return api_arguments_set_text(arguments, (size_t)index, text, form, error);
}

static void
people_and_wire_write_differently(void **state)
{
    struct api_arguments arguments;
    struct error error;
    (void)state;
    api_arguments_init(&arguments, api_command(API_VOLUME_CREATE));
    assert_int_equal(set(&arguments, "size_bytes", "10G", API_TEXT_WIRE, &error), -EINVAL);
    assert_int_equal(set(&arguments, "size_bytes", "99999999999999999999", API_TEXT_WIRE, &error),
                     -ERANGE);
    assert_int_equal(set(&arguments, "size_bytes", "", API_TEXT_WIRE, &error), -EINVAL);
    assert_int_equal(set(&arguments, "size_bytes", "9E9", API_TEXT_PERSON, &error), -EINVAL);
    assert_int_equal(set(&arguments, "size_bytes", "10G", API_TEXT_PERSON, &error), 0);
    assert_int_equal(api_number(&arguments, "size_bytes", 0), 10 * GIB);
    assert_int_equal(set(&arguments, "size_bytes", "10G", API_TEXT_PERSON, &error), -EINVAL);
    assert_non_null(strstr(error.message, "given twice"));
    api_arguments_free(&arguments);

    api_arguments_init(&arguments, api_command(API_EXPORT_CREATE));
    assert_int_equal(set(&arguments, "read_only", NULL, API_TEXT_PERSON, &error), 0);
    assert_true(api_flag(&arguments, "read_only"));
    assert_int_equal(set(&arguments, "exclusive", "yes", API_TEXT_WIRE, &error), -EINVAL);
    assert_int_equal(set(&arguments, "exclusive", "no", API_TEXT_PERSON, &error), 0);
    assert_true(api_present(&arguments, "exclusive"));
    assert_false(api_flag(&arguments, "exclusive"));
    api_arguments_free(&arguments);
}

/* JSON is UTF-8 by itself; an URL or a command line brings any bytes. */
static void
text_is_utf8(void **state)
{
    static const char *const good[] = { "a", "\xc3\xa4", "\xe2\x82\xac", "\xf0\x9f\x98\x80",
                                        "\xc2\xa0", "\xef\xbf\xbf", "\xf4\x8f\xbf\xbf" };
    static const char *const bad[] = { "\x80",         "\xc3",         "\xc0\xaf",
                                       "\xe2\x82",     "\xe0\x80\xaf", "\xed\xa0\x80",
                                       "\xf4\x90\x80\x80", "\xff",       "\xc2\x9b",
                                       "a\x7f",        "\xf0\x80\x80\xaf", "\xc3(" };
    struct api_arguments arguments;
    struct error error;
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(good) + ARRAY_SIZE(bad); i++) {
        bool is_good = i < ARRAY_SIZE(good);
        const char *text = is_good ? good[i] : bad[i - ARRAY_SIZE(good)];
        api_arguments_init(&arguments, api_command(API_EXPORT_CREATE));
        int result = set(&arguments, "name", text, API_TEXT_WIRE, &error);
        if (result != (is_good ? 0 : -EINVAL)) {
            fail_msg("%zu: %d", i, result);
        }
        /* The library agrees. */
        json_t *json = json_string(text);
        assert_true(!is_good || json != NULL);
        json_decref(json);
        api_arguments_free(&arguments);
    }
    api_arguments_init(&arguments, api_command(API_POOL_CREATE));
    assert_int_equal(set(&arguments, "disks", "/a\xff", API_TEXT_PERSON, &error), -EINVAL);
    api_arguments_free(&arguments);
}

static void
disk_texts_keep_their_commas(void **state)
{
    static const struct {
        const char *text;
        const char *disk;
        int tier; /* -1: refused */
    } cases[] = {
        { "/dev/sdb", "/dev/sdb", 0 },       { "/dev/sdb,tier=3", "/dev/sdb", 3 },
        { "/a,b", "/a,b", 0 },               { "/a,tier=1,b", "/a,tier=1,b", 0 },
        { "/a,tier=1,tier=2", "/a,tier=1", 2 }, { "/a,tier=", NULL, -1 },
        { "/a,tier=x", NULL, -1 },           { "/a,tier=255", NULL, -1 },
        { "/a,tier=99999999999999999999", NULL, -1 }, { ",tier=1", NULL, -1 },
        { "", NULL, -1 },
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct api_arguments arguments;
        struct error error = { 0 };
        size_t count = 0;
        api_arguments_init(&arguments, api_command(API_POOL_CREATE));
        int result = set(&arguments, "disks", cases[i].text, API_TEXT_PERSON, &error);
        const struct api_disk *disks = api_disks(&arguments, "disks", &count);
        if (cases[i].tier < 0) {
            assert_true(result < 0);
            assert_int_equal(count, 0);
        } else {
            assert_int_equal(result, 0);
            assert_string_equal(disks[0].disk, cases[i].disk);
            assert_int_equal(disks[0].tier, cases[i].tier);
        }
        api_arguments_free(&arguments);
    }
}

/* ---- URLs ---- */

static void
urls_come_back(void **state)
{
    struct api_arguments arguments;
    struct api_arguments routed;
    struct error error = { 0 };
    struct byte_buffer url = BYTE_BUFFER_INIT;
    (void)state;
    api_arguments_init(&arguments, api_command(API_EXPORT_DELETE));
    assert_int_equal(set(&arguments, "volume", "fast/vm1", API_TEXT_PERSON, &error), 0);
    assert_int_equal(set(&arguments, "protocol", "nbd", API_TEXT_PERSON, &error), 0);
    assert_int_equal(set(&arguments, "force", NULL, API_TEXT_PERSON, &error), 0);
    api_arguments_encode_url(&arguments, &url);
    assert_string_equal((char *)url.data, "/v1/exports/fast/vm1?protocol=nbd&force=true");
    assert_null(api_arguments_encode_body(&arguments));
    *strchr((char *)url.data, '?') = '\0';
    assert_int_equal(api_route("DELETE", (char *)url.data, &routed, &error), 0);
    assert_int_equal(routed.command->id, API_EXPORT_DELETE);
    assert_string_equal(api_text(&routed, "volume"), "fast/vm1");
    api_arguments_free(&routed);
    api_arguments_free(&arguments);

    byte_buffer_clear(&url);
    api_arguments_init(&arguments, api_command(API_DISK_SHOW));
    assert_int_equal(set(&arguments, "pool", "p", API_TEXT_PERSON, &error), 0);
    assert_int_equal(set(&arguments, "disk", "/a b?&\xc3\xa4", API_TEXT_PERSON, &error), 0);
    api_arguments_encode_url(&arguments, &url);
    assert_string_equal((char *)url.data, "/v1/disk?pool=p&disk=%2Fa%20b%3F%26%C3%A4");
    api_arguments_free(&arguments);
    byte_buffer_free(&url);
}

static void
bodies_come_back(void **state)
{
    struct api_arguments arguments;
    struct api_arguments again;
    struct error error = { 0 };
    (void)state;
    api_arguments_init(&arguments, api_command(API_POOL_CREATE));
    assert_int_equal(set(&arguments, "pool", "p", API_TEXT_PERSON, &error), 0);
    assert_int_equal(set(&arguments, "disks", "/a,tier=2", API_TEXT_PERSON, &error), 0);
    assert_int_equal(set(&arguments, "extent_bytes", "8M", API_TEXT_PERSON, &error), 0);
    assert_int_equal(set(&arguments, "force", NULL, API_TEXT_PERSON, &error), 0);
    json_t *body = api_arguments_encode_body(&arguments);
    char *text = json_dumps(body, JSON_COMPACT | JSON_SORT_KEYS);
    assert_string_equal(text, "{\"disks\":[{\"disk\":\"/a\",\"tier\":2}],\"extent_bytes\":8388608,"
                              "\"force\":true,\"pool\":\"p\"}");
    api_arguments_init(&again, api_command(API_POOL_CREATE));
    assert_int_equal(api_arguments_set_json(&again, body, &error), 0);
    assert_int_equal(api_number(&again, "extent_bytes", 0), 8 * MIB);
    api_arguments_free(&again);
    api_arguments_free(&arguments);
    free(text);
    json_decref(body);
}

static void
routes(void **state)
{
    static const struct {
        const char *method;
        const char *path;
        int result;
        enum api_command_id id;
    } cases[] = {
        { "GET", "/v1/pools", 0, API_POOL_LIST },
        { "POST", "/v1/pools", 0, API_POOL_CREATE },
        { "GET", "/v1/pools/fast", 0, API_POOL_SHOW },
        { "POST", "/v1/pools/fast/disks", 0, API_POOL_ADD },
        { "DELETE", "/v1/pools/fast", 0, API_POOL_DELETE },
        { "GET", "/v1/volumes/a/b", 0, API_VOLUME_SHOW },
        { "DELETE", "/v1/volumes/a/b", 0, API_VOLUME_DELETE },
        { "POST", "/v1/volumes/a/b/resize", 0, API_VOLUME_RESIZE },
        { "DELETE", "/v1/pools", -EPERM, 0 },
        { "PUT", "/v1/volumes/a/b", -EPERM, 0 },
        { "GET", "/v1/pools/", -ENOENT, 0 },
        { "GET", "/v1/pools/a/b", -ENOENT, 0 },
        { "GET", "/v1/volumes/a", -EINVAL, 0 },
        { "GET", "/v1/volumes/a/b/c", -ENOENT, 0 },
        { "GET", "/v1/volumes/../b", -EINVAL, 0 },
        { "GET", "/v1/pools/a%b", -EINVAL, 0 },
        { "GET", "/", -ENOENT, 0 },
        { "GET", "", -ENOENT, 0 },
        { "GET", "/v2/pools", -ENOENT, 0 },
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct api_arguments arguments;
        struct error error = { 0 };
        int result = api_route(cases[i].method, cases[i].path, &arguments, &error);
        if (result != cases[i].result) {
            fail_msg("%s %s: %d", cases[i].method, cases[i].path, result);
        }
        if (result == 0) {
            assert_int_equal(arguments.command->id, cases[i].id);
            api_arguments_free(&arguments);
        } else {
            assert_true(error.message[0] != '\0');
        }
    }
    /* A segment that is longer than any name. */
    char path[2048] = "/v1/pools/";
    memset(path + strlen(path), 'a', sizeof(path) - 1 - strlen(path));
    path[sizeof(path) - 1] = '\0';
    struct api_arguments arguments;
    assert_int_equal(api_route("GET", path, &arguments, NULL), -ENOENT);
}

static void
templates_are_filled(void **state)
{
    struct api_arguments arguments;
    struct error error;
    char text[64];
    (void)state;
    api_arguments_init(&arguments, api_command(API_VOLUME_RENAME));
    api_action_text(&arguments, text, sizeof(text));
    assert_string_equal(text, "rename volume ?");
    assert_int_equal(set(&arguments, "volume", "fast/vm1", API_TEXT_PERSON, &error), 0);
    assert_int_equal(set(&arguments, "new_name", "web", API_TEXT_PERSON, &error), 0);
    api_expand(&arguments, arguments.command->done, text, sizeof(text));
    assert_string_equal(text, "volume fast/vm1 renamed to web");
    char small[12];
    api_action_text(&arguments, small, sizeof(small));
    assert_string_equal(small, "rename volu");
    api_action_text(&arguments, small, 1);
    assert_string_equal(small, "");
    api_arguments_free(&arguments);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(body_is_taken),
        cmocka_unit_test(lists_of_text_are_taken),
        cmocka_unit_test(snapshots_are_named),
        cmocka_unit_test(longest_names_fit),
        cmocka_unit_test(lists_of_views_travel_in_a_query),
        cmocka_unit_test(rules_of_schedules_are_taken),
        cmocka_unit_test(durations_are_read),
        cmocka_unit_test(hostile_bodies_are_refused),
        cmocka_unit_test(deep_and_long_bodies_are_refused),
        cmocka_unit_test(too_many_disks_are_refused),
        cmocka_unit_test(people_and_wire_write_differently),
        cmocka_unit_test(text_is_utf8),
        cmocka_unit_test(disk_texts_keep_their_commas),
        cmocka_unit_test(urls_come_back),
        cmocka_unit_test(bodies_come_back),
        cmocka_unit_test(routes),
        cmocka_unit_test(templates_are_filled),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
