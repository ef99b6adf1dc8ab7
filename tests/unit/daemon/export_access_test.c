/* SPDX-License-Identifier: Apache-2.0 */
/* Who may use an export: the rules as text, and what they say of a client. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "metadata/export_access.h"

/* What is made of a HOST; NULL: it must be refused. */
static void
host_is(const char *text, const char *expected)
{
    struct export_host host;
    struct error error = { 0 };
    char written[EXPORT_HOST_TEXT_SIZE];
    int result = export_host_parse(text, &host, &error);
    if (expected == NULL) {
        if (result != -EINVAL || error.message[0] == '\0') {
            fail_msg("%s was taken", text);
        }
        return;
    }
    if (result < 0 || strcmp(export_host_format(&host, written), expected) != 0) {
        fail_msg("%s became %s, not %s", text, result < 0 ? error.message : written, expected);
    }
}

static void
hosts_are_read(void **state)
{
    (void)state;
    host_is("10.0.0.0/8", "10.0.0.0/8");
    host_is("192.0.2.7", "192.0.2.7");
    host_is("192.0.2.7/32", "192.0.2.7");
    host_is("0.0.0.0/0", "0.0.0.0/0");
    host_is("2001:DB8::/32", "2001:db8::/32");
    host_is("::1", "::1");
    host_is("::/0", "::/0");
    host_is("::ffff:192.0.2.7", "192.0.2.7");
    host_is("local", "local");
    host_is("web1", "tls:web1");
    host_is("web1.example.com", "tls:web1.example.com");
    host_is("tls:10.0.0.1", "tls:10.0.0.1");
    host_is("tls:local", "tls:local");
    host_is("tls:*", "tls:*");
    host_is("", NULL);
    host_is("10.0.0.1/8", NULL);
    host_is("10.0.0.0/33", NULL);
    host_is("10.0.0.0/", NULL);
    host_is("10.0.0.0/8x", NULL);
    host_is("10.0.0.0/-1", NULL);
    host_is("10.0.0", NULL);
    host_is("300.0.0.1", NULL);
    host_is("2001:db8::/129", NULL);
    host_is("2001:db8::1/32", NULL);
    host_is("web1/24", NULL);
    host_is("unix:/run/x", NULL);
    char longest[3 * EXPORT_IDENTITY_SIZE];
    memset(longest, 'a', sizeof(longest));
    longest[EXPORT_IDENTITY_SIZE] = '\0';
    host_is(longest, NULL);
}

static int
judge(const char *options, const char *peer, const char *identity, bool tls)
{
    struct export_access access;
    struct export_client client = { .tls = tls };
    snprintf(client.peer, sizeof(client.peer), "%s", peer);
    snprintf(client.identity, sizeof(client.identity), "%s", identity);
    export_access_parse(options, &access);
    return export_access_judge(&access, &client);
}

static void
networks_are_told_apart(void **state)
{
    (void)state;
    assert_int_equal(judge("", "tcp:10.1.2.3:4", "", false), 0);
    assert_int_equal(judge("", "unix (pid 1, uid 0)", "", false), 0);
    const char *ten = "host=10.0.0.0/9";
    assert_int_equal(judge(ten, "tcp:10.127.255.255:4", "", false), 0);
    assert_int_equal(judge(ten, "tcp:10.128.0.0:4", "", false), -EACCES);
    assert_int_equal(judge(ten, "tcp:[::ffff:10.1.2.3]:4", "", false), 0);
    assert_int_equal(judge(ten, "tcp:[a7f::1]:4", "", false), -EACCES);
    /* The same bytes, in the other family. */
    assert_int_equal(judge("host=a01:203::", "tcp:[a01:203::]:4", "", false), 0);
    assert_int_equal(judge("host=a01:203::", "tcp:10.1.2.3:4", "", false), -EACCES);
    assert_int_equal(judge(ten, "unix (pid 1, uid 0)", "", false), -EACCES);
    assert_int_equal(judge(ten, "tcp:nonsense", "", false), -EACCES);
    assert_int_equal(judge(ten, "", "", false), -EACCES);
    assert_int_equal(judge("host=10.0.0.0/9 host=local", "unix (pid 1, uid 0)", "", false), 0);
    assert_int_equal(judge("host=0.0.0.0/0", "tcp:198.51.100.1:4", "", false), 0);
    assert_int_equal(judge("host=0.0.0.0/0", "tcp:[2001:db8::1]:4", "", false), -EACCES);
    assert_int_equal(judge("host=::/0", "tcp:[2001:db8::1]:4", "", false), 0);
    assert_int_equal(judge("host=::/0", "tcp:[::ffff:10.1.2.3]:4", "", false), -EACCES);
    assert_int_equal(judge("host=fe80::/10", "tcp:[fe80::1%eth0]:4", "", false), 0);
    assert_int_equal(judge("host=2001:db8::/33", "tcp:[2001:db8:7fff::1]:4", "", false), 0);
    assert_int_equal(judge("host=2001:db8::/33", "tcp:[2001:db8:8000::1]:4", "", false), -EACCES);
}

static void
names_must_be_proved(void **state)
{
    (void)state;
    const char *web = "host=tls:web1";
    assert_int_equal(judge(web, "tcp:10.1.2.3:4", "web1", true), 0);
    assert_int_equal(judge(web, "tcp:10.1.2.3:4", "web2", true), -EACCES);
    assert_int_equal(judge(web, "tcp:10.1.2.3:4", "", true), -EACCES);
    assert_int_equal(judge(web, "tcp:10.1.2.3:4", "", false), -ENOKEY); /* it could still turn */
    assert_int_equal(judge("host=tls:*", "tcp:10.1.2.3:4", "anybody", true), 0);
    assert_int_equal(judge("host=tls:*", "tcp:10.1.2.3:4", "", true), -EACCES);
    /* With a network beside it, it is no TLS-only export. */
    assert_int_equal(judge("host=tls:web1 host=10.0.0.0/8", "tcp:192.0.2.1:4", "", false),
                     -EACCES);
    assert_int_equal(judge("host=tls:web1 host=10.0.0.0/8", "tcp:10.0.0.1:4", "", false), 0);
    assert_int_equal(judge("tls=required", "tcp:10.0.0.1:4", "", false), -ENOKEY);
    assert_int_equal(judge("tls=required", "tcp:10.0.0.1:4", "", true), 0);
    assert_int_equal(judge("tls=required host=192.0.2.1", "tcp:10.0.0.1:4", "", true), -EACCES);
    assert_int_equal(judge("tls=off", "tcp:10.0.0.1:4", "", true), -EACCES);
    assert_int_equal(judge("tls=off", "tcp:10.0.0.1:4", "", false), 0);
}

static void
what_is_not_understood_lets_nobody_in(void **state)
{
    static const char *const bad[] = {
        "tls=maybe", "tls=", "tls=required tls=off", "default default", "Default", "host=",
        "host=10.0.0.1/8", "host=tls:", "host=tls:a%", "host=tls:a%0", "host=tls:%00",
        "host=tls:%ag", "host=tls:a%2g", " ", "default ", " default", "default  tls=off",
        "future=1", "{}", "host=tls:\x01",
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        struct export_access access;
        struct export_client client = { .peer = "unix (pid 1, uid 0)" };
        if (export_access_parse(bad[i], &access) != -EUCLEAN) {
            fail_msg("\"%s\" was taken", bad[i]);
        }
        assert_true(access.nobody);
        assert_int_equal(export_access_judge(&access, &client), -EACCES);
    }
    /* One host more than there may be. */
    char many[EXPORT_OPTIONS_SIZE] = "";
    for (int i = 0; i <= EXPORT_HOSTS_MAX; i++) {
        snprintf(many + strlen(many), sizeof(many) - strlen(many), "%shost=10.0.0.%d",
                 i > 0 ? " " : "", i);
    }
    struct export_access access;
    assert_int_equal(export_access_parse(many, &access), -EUCLEAN);
}

static void
what_is_written_is_read_again(void **state)
{
    static const char *const hosts[] = { "10.0.0.0/8", "2001:db8::7", "local", "tls:*",
                                         "tls:Jo = 100 % \xc3\xbc;\"'" };
    struct export_access access = { .tls = EXPORT_TLS_REQUIRED, .is_default = true };
    struct export_access again;
    char options[EXPORT_OPTIONS_SIZE];
    char twice[EXPORT_OPTIONS_SIZE];
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(hosts); i++) {
        assert_int_equal(export_host_parse(hosts[i], &access.hosts[i], NULL), 0);
        access.host_count++;
    }
    assert_int_equal(export_access_format(&access, options, NULL), 0);
    for (const char *at = options; *at != '\0'; at++) {
        assert_true(*at >= ' ' && *at <= '~');
    }
    assert_int_equal(export_access_parse(options, &again), 0);
    assert_int_equal(again.host_count, ARRAY_SIZE(hosts));
    for (size_t i = 0; i < ARRAY_SIZE(hosts); i++) {
        assert_true(export_host_equals(&access.hosts[i], &again.hosts[i]));
        assert_int_equal(i == 0, export_host_equals(&access.hosts[0], &again.hosts[i]));
    }
    assert_int_equal(export_access_format(&again, twice, NULL), 0);
    assert_string_equal(options, twice);

    struct export_access none = { 0 };
    assert_int_equal(export_access_format(&none, options, NULL), 0);
    assert_string_equal(options, "");
}

static void
too_much_is_refused_whole(void **state)
{
    struct export_access access = { 0 };
    struct error error = { 0 };
    char options[EXPORT_OPTIONS_SIZE] = "as before";
    (void)state;
    for (; access.host_count < 5; access.host_count++) {
        struct export_host *host = &access.hosts[access.host_count];
        host->kind = EXPORT_HOST_NAME;
        memset(host->name, 'a' + (int)access.host_count, sizeof(host->name) - 1);
    }
    assert_int_equal(export_access_format(&access, options, &error), -E2BIG);
    assert_true(error.message[0] != '\0');
    assert_string_equal(options, "as before");
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hosts_are_read),
        cmocka_unit_test(networks_are_told_apart),
        cmocka_unit_test(names_must_be_proved),
        cmocka_unit_test(what_is_not_understood_lets_nobody_in),
        cmocka_unit_test(what_is_written_is_read_again),
        cmocka_unit_test(too_much_is_refused_whole),
    };
    return cmocka_run_group_tests_name("export access", tests, NULL, NULL);
}
