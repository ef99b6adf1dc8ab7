/* SPDX-License-Identifier: Apache-2.0 */
/* Every key, every kind of error with its line, and that the printed reference is true. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/util.h"
#include "daemon/config.h"
#include "targets/nbd/server.h"

static struct config *
new_config(void)
{
    struct config *config = malloc(sizeof(*config));
    assert_non_null(config);
    config_default(config);
    return config;
}

static int
parse(struct config *config, const char *text, struct error *error)
{
    memset(error, 0, sizeof(*error));
    return config_parse(config, "test.conf", text, strlen(text), error);
}

static void
defaults_are_sane(void **state)
{
    struct config *config = new_config();
    struct error error = { 0 };
    (void)state;
    assert_int_equal(config->daemon.log_level, LOG_LEVEL_NOTICE);
    assert_int_equal(config->daemon.reactors, 0);
    assert_int_equal(config->daemon.pin_reactors, 1);
    assert_int_equal(config->daemon.buffer_bytes, 64 * MIB);
    assert_int_equal(config->pool.map_cache_bytes, 128 * MIB);
    assert_int_equal(config->pool.commit_interval_ns, 2 * NS_PER_S);
    assert_int_equal(config->nbd.unix_mode, 0600);
    assert_int_equal(config->nbd.listen.count, 0); /* no port is opened by default */
    assert_int_equal(config->nbd.idle_timeout_ns, 0);
    assert_int_equal(config_check(config, &error), 0);
    free(config);
}

static void
every_key_is_taken(void **state)
{
    static const char text[] = "# comment\n; another\n\n  [daemon]  \r\n"
                               "log_level=debug\nreactors = 3\npin_reactors = no\nspin_us=0\n"
                               "buffer_memory = 128M\nlock_memory = yes\n"
                               "volatile_directory = /dev/shm/my dir # not a comment\n"
                               "shutdown_timeout = 5s\n"
                               "[pool]\nmap_cache=1G\nmetadata_cache=64M\nballast=0\njournal=16M\n"
                               "commit_interval=500ms\ndisk_timeout=10\nrequest_timeout=2m\n"
                               "[api]\nsocket=/run/a=b\ngroup=disk\nconnections=7\n"
                               "body_limit=8K\nidle_timeout=1h\n"
                               "listen=localhost:1\nlisten=[::]:2\nadministrators=a b\n"
                               "tls_certificate=/ac\ntls_key=/ak\ntls_ca=/aa\ntls_crl=/ar\n"
                               "[nbd]\nlisten=1.2.3.4:5\nlisten=[::]:6\nunix=none\n"
                               "unix_mode=0660\ntls=required\nunix_tls=optional\n"
                               "tls_certificate=/c\ntls_key=/k\ntls_ca=/a\ntls_crl=/r\n"
                               "tls_verify_client=off\ntls_psk=/p\ntls_priority=NORMAL\n"
                               "connections=9\nrequests_per_connection=10\n"
                               "bytes_per_connection=64M\nhandshake_timeout=11s\n"
                               "stuck_timeout=12s\ndrain_timeout=13s\nidle_timeout=14s";
    struct config *config = new_config();
    struct error error;
    (void)state;
    int result = parse(config, text, &error);
    assert_string_equal(error.message, "");
    assert_int_equal(result, 0);
    assert_int_equal(config->daemon.log_level, LOG_LEVEL_DEBUG);
    assert_int_equal(config->daemon.reactors, 3);
    assert_int_equal(config->daemon.pin_reactors, 0);
    assert_int_equal(config->daemon.spin_us, 0);
    assert_int_equal(config->daemon.buffer_bytes, 128 * MIB);
    assert_int_equal(config->daemon.lock_memory, CONFIG_YES);
    assert_string_equal(config->daemon.volatile_directory, "/dev/shm/my dir # not a comment");
    assert_int_equal(config->daemon.shutdown_timeout_ns, 5 * NS_PER_S);
    assert_int_equal(config->pool.map_cache_bytes, GIB);
    assert_int_equal(config->pool.metadata_cache_bytes, 64 * MIB);
    assert_int_equal(config->pool.ballast_bytes, 0);
    assert_int_equal(config->pool.journal_bytes, 16 * MIB);
    assert_int_equal(config->pool.commit_interval_ns, 500 * NS_PER_MS);
    assert_int_equal(config->pool.disk_timeout_ns, 10 * NS_PER_S);
    assert_int_equal(config->pool.request_timeout_ns, 120 * NS_PER_S);
    assert_string_equal(config->api.socket, "/run/a=b");
    assert_string_equal(config->api.group, "disk");
    assert_int_equal(config->api.connections, 7);
    assert_int_equal(config->api.body_bytes, 8192);
    assert_int_equal(config->api.idle_timeout_ns, 3600 * NS_PER_S);
    assert_int_equal(config->nbd.listen.count, 2);
    assert_string_equal(config->nbd.listen.items[1], "[::]:6");
    assert_string_equal(config->nbd.unix_path, "none");
    assert_int_equal(config->nbd.unix_mode, 0660);
    assert_int_equal(config->nbd.tls, NBD_TLS_REQUIRED);
    assert_int_equal(config->nbd.unix_tls, NBD_TLS_OPTIONAL);
    assert_string_equal(config->nbd.tls_certificate, "/c");
    assert_string_equal(config->nbd.tls_key, "/k");
    assert_string_equal(config->nbd.tls_ca, "/a");
    assert_string_equal(config->nbd.tls_crl, "/r");
    assert_string_equal(config->nbd.tls_psk, "/p");
    assert_string_equal(config->nbd.tls_priority, "NORMAL");
    assert_int_equal(config->nbd.tls_verify_client, 0);
    assert_int_equal(config->nbd.connections, 9);
    assert_int_equal(config->nbd.requests_per_connection, 10);
    assert_int_equal(config->nbd.bytes_per_connection, 64 * MIB);
    assert_int_equal(config->nbd.handshake_timeout_ns, 11 * NS_PER_S);
    assert_int_equal(config->nbd.stuck_timeout_ns, 12 * NS_PER_S);
    assert_int_equal(config->nbd.drain_timeout_ns, 13 * NS_PER_S);
    assert_int_equal(config->nbd.idle_timeout_ns, 14 * NS_PER_S);
    assert_int_equal(config_check(config, &error), 0);
    free(config);
}

static void
polling_is_configured(void **state)
{
    struct config *config = new_config();
    struct error error;
    (void)state;
    assert_int_equal(config->daemon.poll_us, 200);
    assert_int_equal(config->daemon.poll_percent, 80);
    assert_int_equal(parse(config, "[daemon]\npoll_us = 0\npoll_percent=8", &error), 0);
    assert_int_equal(config->daemon.poll_us, 0);
    assert_int_equal(config->daemon.poll_percent, 8);
    assert_true(parse(config, "[daemon]\npoll_us = 1001", &error) < 0);
    assert_true(parse(config, "[daemon]\npoll_percent = 101", &error) < 0);
    free(config);
}

static void
the_api_by_tcp_needs_tls(void **state)
{
    static const struct {
        const char *text;
        const char *message; /* NULL: it is good */
    } cases[] = {
        { "listen=[::]:1", "needs tls_certificate and tls_key" },
        { "listen=[::]:1\ntls_certificate=/c", "needs tls_certificate and tls_key" },
        { "listen=[::]:1\ntls_certificate=/c\ntls_key=/k", "needs tls_ca" },
        { "listen=[::]:1\ntls_certificate=/c\ntls_key=/k\ntls_ca=/a", NULL },
        { "listen=[::]:1\ntls_certificate=/c\ntls_key=/k\ntls_verify_client=no", NULL },
        { "tls_certificate=/c", NULL },
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct config *config = new_config();
        struct error error;
        char text[256];
        snprintf(text, sizeof(text), "[api]\n%s\nadministrators=x\n", cases[i].text);
        assert_int_equal(parse(config, text, &error), 0);
        assert_string_equal(config->api.administrators.items[0], "x");
        int result = config_check(config, &error);
        assert_int_equal(result, cases[i].message != NULL ? -EINVAL : 0);
        assert_non_null(strstr(error.message, cases[i].message != NULL ? cases[i].message : ""));
        free(config);
    }
}

static void
errors_name_line_and_remedy(void **state)
{
    static const struct {
        const char *text;
        const char *message;
    } cases[] = {
        { "reactors = 1", "test.conf:1: reactors: a [SECTION] must come first" },
        { "[daemon\n", "test.conf:1: a section must be written as [NAME]" },
        { "\n\n[deamon]", "test.conf:3: unknown section [deamon]; did you mean [daemon]?" },
        { "[]", "test.conf:1: unknown section []" },
        { "[daemon]\nreactor = 1",
          "test.conf:2: unknown key \"reactor\" in [daemon]; did you mean \"reactors\"?" },
        { "[daemon]\nlisten = x:1", "test.conf:2: unknown key \"listen\" in [daemon]" },
        { "[daemon]\nreactors", "test.conf:2: expected KEY = VALUE, [SECTION] or # comment" },
        { "[daemon]\nreactors =", "test.conf:2: reactors: \"\" is not a number" },
        { "[daemon]\nreactors = 0",
          "test.conf:2: reactors: \"0\" is not within 1 to 64" },
        { "[daemon]\nreactors = -1", "test.conf:2: reactors: \"-1\" is not a number" },
        { "[daemon]\nreactors = 99999999999999999999",
          "test.conf:2: reactors: \"99999999999999999999\" is not a number" },
        { "[daemon]\nreactors = 1\nreactors = 2", "test.conf:3: reactors is given twice" },
        { "[daemon]\npin_reactors = maybe",
          "test.conf:2: pin_reactors: \"maybe\" is not yes or no" },
        { "[daemon]\nlog_level = loud",
          "test.conf:2: log_level: \"loud\" is not one of: error, warning, notice, info, debug" },
        { "[pool]\njournal = 10X",
          "test.conf:2: journal: \"10X\" is not a size such as 512M or 10G" },
        { "[pool]\ndisk_timeout = 5 days",
          "test.conf:2: disk_timeout: \"5 days\" is not a time such as 500ms, 30s or 2m" },
        { "[pool]\ndisk_timeout = 1ms", "test.conf:2: disk_timeout: \"1ms\" is not within" },
        { "[nbd]\nunix_mode = 0999",
          "test.conf:2: unix_mode: \"0999\" is not permission bits in octal, such as 0660" },
        { "[nbd]\nlisten =", "test.conf:2: listen: the value is empty" },
        { "[api]\nsocket = a\x01" "b", "test.conf:2: control characters" },
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct config *config = new_config();
        struct error error;
        int result = parse(config, cases[i].text, &error);
        if (result != -EINVAL ||
            strncmp(error.message, cases[i].message, strlen(cases[i].message)) != 0) {
            fail_msg("%s: %d \"%s\"", cases[i].text, result, error.message);
        }
        free(config);
    }
}

static void
long_and_odd_lines_are_refused(void **state)
{
    struct config *config = new_config();
    struct error error;
    char text[4096] = "[api]\nsocket = ";
    (void)state;
    size_t start = strlen(text);
    memset(text + start, 'a', CONFIG_TEXT_SIZE - 1);
    text[start + CONFIG_TEXT_SIZE - 1] = '\0';
    assert_int_equal(parse(config, text, &error), 0);
    assert_int_equal(strlen(config->api.socket), CONFIG_TEXT_SIZE - 1);
    text[start + CONFIG_TEXT_SIZE - 1] = 'a';
    text[start + CONFIG_TEXT_SIZE] = '\0';
    assert_int_equal(parse(config, text, &error), -EINVAL);
    assert_non_null(strstr(error.message, "longer than 1023 bytes"));
    memset(text, 'a', sizeof(text) - 1);
    assert_int_equal(parse(config, text, &error), -EINVAL);
    assert_non_null(strstr(error.message, "test.conf:1: the line is longer"));
    memset(&error, 0, sizeof(error));
    assert_int_equal(config_parse(config, "n", "a\0b\n", 4, &error), -EINVAL);
    assert_string_equal(error.message, "n:1: a NUL byte");
    char many[CONFIG_LIST_MAX * 16 + 32] = "[nbd]\n";
    for (int i = 0; i <= CONFIG_LIST_MAX; i++) {
        size_t used = strlen(many);
        snprintf(many + used, sizeof(many) - used, "listen = a:1\n");
    }
    assert_int_equal(parse(config, many, &error), -EINVAL);
    assert_non_null(strstr(error.message, "listen is given more than 16 times"));
    free(config);
}

static void
values_must_fit_together(void **state)
{
    static const struct {
        const char *text;
        const char *message;
    } cases[] = {
        { "[pool]\ndisk_timeout=60s\nrequest_timeout=59s", "request_timeout is below" },
        { "[nbd]\ntls_key=/k", "must be given together" },
        { "[nbd]\ntls_certificate=/k", "must be given together" },
        { "[nbd]\nunix_tls=required", "neither tls_certificate nor tls_psk" },
        { "[nbd]\ntls=optional\nlisten=a:1", "neither tls_certificate nor tls_psk" },
    };
    static const char *const good[] = { "[nbd]\ntls=required", /* there is no address for it */
                                        "[nbd]\nunix_tls=required\nunix=none",
                                        "[nbd]\ntls=required\nlisten=a:1\ntls_psk=/p" };
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(cases) + ARRAY_SIZE(good); i++) {
        struct config *config = new_config();
        struct error error;
        bool bad = i < ARRAY_SIZE(cases);
        assert_int_equal(parse(config, bad ? cases[i].text : good[i - ARRAY_SIZE(cases)], &error),
                         0);
        assert_int_equal(config_check(config, &error), bad ? -EINVAL : 0);
        assert_true(!bad || strstr(error.message, cases[i].message) != NULL);
        free(config);
    }
}

static void
durations(void **state)
{
    uint64_t ns = 7;
    (void)state;
    assert_int_equal(config_parse_duration("0", &ns), 0);
    assert_int_equal(ns, 0);
    assert_int_equal(config_parse_duration("1500ms", &ns), 0);
    assert_int_equal(ns, 1500 * NS_PER_MS);
    assert_int_equal(config_parse_duration("2h", &ns), 0);
    assert_int_equal(ns, 7200 * NS_PER_S);
    static const char *const bad[] = { "", "s", "1 s", "1d", "-1s", "1.5s", "+1" };
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        assert_int_equal(config_parse_duration(bad[i], &ns), -EINVAL);
    }
    assert_int_equal(config_parse_duration("99999999999s", &ns), -ERANGE);
    assert_int_equal(config_parse_duration("1000000000h", &ns), -ERANGE);
    assert_int_equal(ns, 7200 * NS_PER_S); /* untouched by failures */
}

/* Taken with its comment signs off, the printed file gives the built-in values again. */
static void
printed_reference_is_true(void **state)
{
    char *text = NULL;
    size_t length = 0;
    FILE *memory = open_memstream(&text, &length);
    struct config *config = new_config();
    struct config *again = new_config();
    struct error error;
    (void)state;
    config_print(memory);
    fclose(memory);
    assert_int_equal(parse(config, text, &error), 0); /* as it is: comments only */
    assert_memory_equal(config, again, sizeof(*config));
    unsigned keys = 0;
    for (char *at = text; at != NULL; at = strchr(at, '\n'), at += at != NULL) {
        bool is_list = strncmp(at, "#listen", 7) == 0 || strncmp(at, "#administrators", 15) == 0;
        if (at[0] == '#' && at[1] != ' ' && !is_list) {
            at[0] = ' ';
            keys++;
        }
        if (at[0] == '\0') {
            break;
        }
    }
    assert_true(keys > 30);
    int result = parse(config, text, &error);
    assert_string_equal(error.message, "");
    assert_int_equal(result, 0);
    assert_memory_equal(config, again, sizeof(*config));
    free(text);
    free(config);
    free(again);
}

static void
files_are_read(void **state)
{
    char path[] = "/tmp/volmgr-config-test-XXXXXX";
    struct config *config = new_config();
    struct error error = { 0 };
    (void)state;
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, "[api]\nconnections = 5\n", 22), 22);
    assert_int_equal(config_load(config, path, &error), 0);
    assert_int_equal(config->api.connections, 5);
    assert_int_equal(ftruncate(fd, CONFIG_FILE_BYTES_MAX + 1), 0);
    assert_int_equal(config_load(config, path, &error), -EFBIG);
    close(fd);
    unlink(path);
    error = (struct error){ 0 };
    assert_int_equal(config_load(config, path, &error), -ENOENT);
    assert_non_null(strstr(error.message, path));
    error = (struct error){ 0 };
    assert_int_equal(config_load(config, "/tmp", &error), -EISDIR);
    free(config);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(defaults_are_sane),
        cmocka_unit_test(every_key_is_taken),
        cmocka_unit_test(polling_is_configured),
        cmocka_unit_test(the_api_by_tcp_needs_tls),
        cmocka_unit_test(errors_name_line_and_remedy),
        cmocka_unit_test(long_and_odd_lines_are_refused),
        cmocka_unit_test(values_must_fit_together),
        cmocka_unit_test(durations),
        cmocka_unit_test(printed_reference_is_true),
        cmocka_unit_test(files_are_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
