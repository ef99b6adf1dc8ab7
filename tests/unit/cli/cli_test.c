/* SPDX-License-Identifier: Apache-2.0 */
/* Command lines to commands, and replies to text; tests/unit/daemon/api_test.py runs the rest. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "api/shapes.h"
#include "base/util.h"
#include "cli/cli.h"

enum {
    WORDS_MAX = 16
};

struct line {
    struct cli cli;
    struct api_arguments arguments;
    const char *word;
    const char *rest;
    char text[256]; /* the arguments live in here */
    char *errors;
    size_t errors_length;
    enum cli_exit result;
};

/* Parse a line of words that are separated by one blank. */
static struct line *
parse(const char *text)
{
    struct line *line = calloc(1, sizeof(*line));
    char *argv[WORDS_MAX + 1];
    int argc = 0;
    assert_non_null(line);
    snprintf(line->text, sizeof(line->text), "%s", text);
    for (char *at = line->text; at != NULL && argc < WORDS_MAX; argc++) {
        argv[argc] = strsep(&at, " ");
    }
    argv[argc] = NULL;
    line->cli.out = stdout;
    line->cli.err = open_memstream(&line->errors, &line->errors_length);
    line->result =
        cli_parse(&line->cli, argc, argv, &line->arguments, &line->word, &line->rest);
    fclose(line->cli.err);
    return line;
}

static void
done(struct line *line)
{
    api_arguments_free(&line->arguments);
    free(line->errors);
    free(line);
}

static void
refused(const char *text, const char *message)
{
    struct line *line = parse(text);
    if (line->result != CLI_USAGE || strstr(line->errors, message) == NULL) {
        fail_msg("%s: %d \"%s\"", text, (int)line->result, line->errors);
    }
    done(line);
}

static void
options_stand_anywhere(void **state)
{
    static const char *const lines[] = {
        "volctl -s /s --json create fast/v --size 10G --tier 3",
        "volctl create --json fast/v --size=10G --tier=3 --socket /s",
        "volctl --socket=/s create --tier 3 --size 10G --json -- fast/v",
        "volctl create -s/s --size 10G fast/v --tier 3 --json",
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(lines); i++) {
        struct line *line = parse(lines[i]);
        assert_string_equal(line->errors, "");
        assert_int_equal(line->result, CLI_OK);
        assert_int_equal(line->arguments.command->id, API_VOLUME_CREATE);
        assert_string_equal(api_text(&line->arguments, "volume"), "fast/v");
        assert_string_equal(api_text(&line->arguments, "tier"), "3");
        assert_int_equal(api_number(&line->arguments, "size_bytes", 0), 10 * GIB);
        assert_string_equal(line->cli.socket, "/s");
        assert_true(line->cli.json);
        assert_false(line->cli.wait);
        done(line);
    }
}

static void
options_may_be_repeated_where_they_are_lists(void **state)
{
    size_t count = 0;
    (void)state;
    struct line *line = parse("volctl export p/v nbd --host 10.0.0.0/8 --cert /c --host=tls:a "
                              "--key /k --cacert=/a --tls required");
    assert_string_equal(line->errors, "");
    assert_int_equal(line->result, CLI_OK);
    const char *const *hosts = api_strings(&line->arguments, "hosts", &count);
    assert_int_equal(count, 2);
    assert_string_equal(hosts[0], "10.0.0.0/8");
    assert_string_equal(hosts[1], "tls:a");
    assert_string_equal(line->cli.certificate, "/c");
    assert_string_equal(line->cli.key, "/k");
    assert_string_equal(line->cli.authorities, "/a");
    done(line);
    refused("volctl export p/v nbd --hosts 10.0.0.0/8", "did you mean --host?");
    refused("volctl export p/v nbd --host", "--host needs a value");
    refused("volctl list --cert", "--cert needs a value");
    refused("volctl export p/v nbd --tls maybe", "one of: required, allowed, off");
    refused("volctl export p/v nbd --tls off --tls off", "given twice");
}

static void
schedules_are_written_in_rules(void **state)
{
    size_t count = 0;
    (void)state;
    struct line *line = parse("volctl snapshot-policy p/v --every 15m --keep 8 --every=1d "
                              "--immutable=2d --keep=14");
    assert_string_equal(line->errors, "");
    const struct api_rule *rules = api_rules(&line->arguments, "rules", &count);
    assert_int_equal(count, 2);
    assert_int_equal(rules[0].every_seconds, 900);
    assert_int_equal(rules[0].keep, 8);
    assert_int_equal(rules[0].immutable_seconds, 0);
    assert_int_equal(rules[1].immutable_seconds, 2 * 86400);
    assert_int_equal(rules[1].keep, 14);
    done(line);
    line = parse("volctl snapshot-policy p/v --show");
    assert_int_equal(line->result, CLI_OK);
    done(line);
    refused("volctl snapshot-policy p/v --keep 3", "--keep belongs behind an every");
    refused("volctl snapshot-policy p/v --every 5m", "keep must be from 1 to 10000");
    refused("volctl snapshot-policy p/v --every 5m --keep", "--keep needs a value");
    refused("volctl snapshot-policy p/v --every 5m --keep 1 --keep 2", "given twice");
    refused("volctl snapshot-policy p/v --every 5", "not a duration");
    refused("volctl snapshot-policy p/v --every", "--every needs a value");
    refused("volctl list --keep 3", "there is no option --keep");
}

static void
snapshots_are_words(void **state)
{
    size_t count = 0;
    (void)state;
    struct line *line = parse("volctl snapshot p/a p/b@c --name x p/d --immutable 1h");
    assert_string_equal(line->errors, "");
    const char *const *views = api_strings(&line->arguments, "volumes", &count);
    assert_int_equal(count, 3);
    assert_string_equal(views[1], "p/b@c");
    assert_string_equal(views[2], "p/d");
    assert_int_equal(api_number(&line->arguments, "immutable_seconds", 0), 3600);
    done(line);
    line = parse("volctl delete p/a@1 p/a@2 --dry-run p/a@3");
    api_strings(&line->arguments, "more", &count);
    assert_int_equal(count, 2);
    assert_true(api_flag(&line->arguments, "dry_run"));
    done(line);
    refused("volctl snapshot", "POOL/VOLUME[@SNAPSHOT] is missing");
    refused("volctl snapshot p", "must be POOL/VOLUME or POOL/VOLUME@SNAPSHOT");
    refused("volctl rollback p/v", "must be POOL/VOLUME@SNAPSHOT");
    refused("volctl show p/v@a", "must be POOL/VOLUME,");
    refused("volctl clone p/v@a p/w@b", "must be POOL/VOLUME,");
    refused("volctl snapshots p/v@a", "must be POOL or POOL/VOLUME,");
    refused("volctl snapshot p/v --immutable 0s", "from 1 to");
    refused("volctl snapshot p/v --immutable=1", "not a duration");
}

static void
own_words_are_told_apart(void **state)
{
    struct line *line = parse("volctl completion --json bash");
    (void)state;
    assert_int_equal(line->result, CLI_OK);
    assert_null(line->arguments.command);
    assert_string_equal(line->word, "completion");
    assert_string_equal(line->rest, "bash");
    done(line);
    line = parse("volctl --version");
    assert_int_equal(line->result, CLI_OK);
    assert_true(line->cli.version);
    assert_null(line->word);
    done(line);
    line = parse("volctl create --help"); /* help needs no arguments */
    assert_int_equal(line->result, CLI_OK);
    assert_true(line->cli.help);
    assert_int_equal(line->arguments.command->id, API_VOLUME_CREATE);
    done(line);
}

static void
wrong_lines_are_refused(void **state)
{
    (void)state;
    refused("volctl lst", "did you mean \"list\"?");
    refused("volctl volume", "there is no command");
    refused("volctl disk", "volctl disk list");
    refused("volctl disk -h", "needs one more word");
    refused("volctl session lsit", "did you mean \"session list\"?");
    refused("volctl --jsn list", "did you mean --json?");
    refused("volctl list -q", "there is no option -q");
    refused("volctl list a b", "one argument too many");
    refused("volctl delete", "POOL/VOLUME[@SNAPSHOT] is missing");
    refused("volctl delete a/b --json=1", "takes no value");
    refused("volctl export a/b nbd --read-only=perhaps", "neither true nor false");
    refused("volctl export a/b nbd --read-only --read-only", "given twice");
    refused("volctl create a/b --size 1G --size 2G", "given twice");
    refused("volctl create a/b --size", "--size needs a value");
    refused("volctl list --timeout", "--timeout needs a value");
    refused("volctl list --timeout -5", "not a number of seconds");
    refused("volctl list --timeout 9999999", "not a number of seconds");
    refused("volctl list --socket=", "--socket needs a value");
    refused("volctl list -s", "-s needs the path");
    refused("volctl create a/b --size 1G -- --json", "one argument too many");
}

static void
disks_become_absolute(void **state)
{
    static const struct {
        const char *word;
        bool relative;
        const char *expected; /* behind the working directory when relative */
    } cases[] = {
        { "/dev/sdb", false, "/dev/sdb" },
        { "disk.img", true, "/disk.img" },
        { "./disk.img", true, "/./disk.img" },
        { "mem:1G", false, "mem:1G" },
        { "iscsi://h/i/0", false, "iscsi://h/i/0" },
        { "file:/a?size=1G", false, "file:/a?size=1G" },
    };
    char directory[1024];
    (void)state;
    assert_non_null(getcwd(directory, sizeof(directory)));
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        char text[128];
        char expected[1200];
        size_t count = 0;
        snprintf(text, sizeof(text), "volctl pool create p %s", cases[i].word);
        struct line *line = parse(text);
        snprintf(expected, sizeof(expected), "%s%s", cases[i].relative ? directory : "",
                 cases[i].expected);
        assert_int_equal(line->result, CLI_OK);
        assert_string_equal(api_disks(&line->arguments, "disks", &count)->disk, expected);
        done(line);
    }
    struct line *line = parse("volctl pool create p file:a?size=1G /b,tier=2 --force");
    char expected[1200];
    size_t count = 0;
    const struct api_disk *disks = api_disks(&line->arguments, "disks", &count);
    snprintf(expected, sizeof(expected), "file:%s/a?size=1G", directory);
    assert_int_equal(count, 2);
    assert_string_equal(disks[0].disk, expected);
    assert_int_equal(disks[1].tier, 2);
    done(line);
}

static void
option_names_lose_their_unit(void **state)
{
    char text[CLI_OPTION_SIZE];
    static const struct api_field size = { .name = "size_bytes" };
    static const struct api_field wait = { .name = "wait_seconds" };
    static const struct api_field bytes = { .name = "_bytes" };
    static const struct api_field duration = { .name = "a_seconds", .type = API_TYPE_DURATION };
    static const struct api_field strings = { .name = "hosts", .type = API_TYPE_STRINGS };
    (void)state;
    assert_string_equal(cli_option_name(&size, text), "size");
    assert_string_equal(cli_option_name(&wait, text), "wait-seconds");
    assert_string_equal(cli_option_name(&bytes, text), "-bytes");
    assert_string_equal(cli_option_name(&duration, text), "a");
    assert_string_equal(cli_option_name(&strings, text), "host");
}

/* ---- replies ---- */

static char *
printed(enum api_command_id id, const char *json)
{
    char *text = NULL;
    size_t length = 0;
    FILE *memory = open_memstream(&text, &length);
    json_t *body = json_loads(json, 0, NULL);
    assert_non_null(memory);
    assert_non_null(body);
    cli_print_reply(memory, api_command(id), body);
    fclose(memory);
    json_decref(body);
    return text;
}

static void
check_printed(enum api_command_id id, const char *json, const char *expected)
{
    char *text = printed(id, json);
    assert_string_equal(text, expected);
    free(text);
}

static void
tables_are_aligned(void **state)
{
    (void)state;
    check_printed(API_EXPORT_LIST,
                  "{\"exports\":[{\"volume\":\"p/a\",\"protocol\":\"nbd\",\"name\":\"\\u00e4\","
                  "\"read_only\":true,\"exclusive\":false,\"size_bytes\":1024,"
                  "\"hosts\":[\"10.0.0.0/8\",\"local\"],"
                  "\"session_count\":12},{\"volume\":\"p/long\",\"hosts\":[]}]}",
                  "VOLUME  PROTOCOL  NAME  READ ONLY  EXCLUSIVE  TLS  H"
                  "OSTS              SIZE  SESSIONS\n"
                  "p/a     nbd       \xc3\xa4     yes        no        "
                  " -    10.0.0.0/8,local  1 KiB        12\n"
                  "p/long  -         -     -          -          -    -"
                  "                     -         -\n");
    check_printed(API_EXPORT_LIST, "{\"exports\":[]}", "no exports\n");
    check_printed(API_EXPORT_LIST, "{}", "no exports\n");
    check_printed(API_EXPORT_LIST, "{\"exports\":{\"a\":1}}", "no exports\n");
}

static void
objects_are_lines(void **state)
{
    (void)state;
    check_printed(API_SESSION_DROP, "{\"dropped\":3}", "Dropped:  3\n");
    check_printed(API_SESSION_DROP, "{}", "");
    char *text = printed(API_STATUS, "{\"health\":\"warning\",\"problems\":[\"one\",\"two\",7],"
                                     "\"memory_locked\":false,\"pools\":[]}");
    assert_string_equal(text, "Health:         warning\n"
                              "Problems:       one\n"
                              "                two\n"
                              "                7\n"
                              "Memory locked:  no\n");
    free(text);
    text = printed(API_VOLUME_DELETE, "{\"deleted\":\"p/v\",\"job\":{\"id\":1}}");
    assert_string_equal(text, "Deleted:  p/v\n\nId:  1\n");
    free(text);
}

static void
durations_are_printed_in_units(void **state)
{
    (void)state;
    check_printed(API_POLICY_LIST,
                  "{\"policies\":[{\"volume\":\"p/a\",\"summary\":\"every 15m keep 8\"}]}",
                  "VOLUME  RULES             NEXT  PROBLEM\n"
                  "p/a     every 15m keep 8  -     -\n");
    char text[CLI_VALUE_SIZE];
    json_t *value = json_integer(5400);
    assert_string_equal(cli_value_text(API_TYPE_DURATION, value, text), "1h30m");
    json_decref(value);
    value = json_integer(0);
    assert_string_equal(cli_value_text(API_TYPE_DURATION, value, text), "-");
    json_decref(value);
    value = json_integer(-1);
    assert_string_equal(cli_value_text(API_TYPE_DURATION, value, text), "-1");
    json_decref(value);
}

static void
terminals_are_safe(void **state)
{
    char text[CLI_VALUE_SIZE];
    json_t *value = json_string("\x1b]0;x\x07\xc2\x9b" "31m\n\xc3\xa4");
    (void)state;
    assert_string_equal(cli_value_text(API_TYPE_STRING, value, text), "?]0;x???31m?\xc3\xa4");
    json_decref(value);
    assert_string_equal(cli_value_text(API_TYPE_STRING, NULL, text), "-");
    value = json_integer(-5);
    assert_string_equal(cli_value_text(API_TYPE_SIZE, value, text), "-5");
    json_decref(value);
    value = json_real(1.5);
    assert_string_equal(cli_value_text(API_TYPE_NUMBER, value, text), "-");
    json_decref(value);
}

static void
sockets_are_looked_for(void **state)
{
    char paths[CLI_SOCKETS_MAX][CLI_SOCKET_SIZE];
    (void)state;
    setenv("VOLCTL_SOCKET", "/given", 1);
    assert_int_equal(cli_socket_candidates(paths, CLI_SOCKETS_MAX), 1);
    assert_string_equal(paths[0], "/given");
    setenv("VOLCTL_SOCKET", "", 1);
    setenv("HOME", "/home/a", 1);
    assert_int_equal(cli_socket_candidates(paths, CLI_SOCKETS_MAX), 3);
    assert_string_equal(paths[0], "/run/volmgr/volmgrd.sock");
    assert_string_equal(paths[2], "/home/a/.local/share/volmgr/volmgrd.sock");
    unsetenv("HOME");
    assert_int_equal(cli_socket_candidates(paths, CLI_SOCKETS_MAX), 2);
}

static void
long_names_are_refused(void **state)
{
    char longer[512];
    (void)state;
    memset(longer, 'a', sizeof(longer));
    longer[sizeof(longer) - 1] = '\0';
    struct cli cli = { .socket = longer, .out = stdout, .err = stderr };
    struct api_arguments arguments;
    struct cli_reply reply = { 0 };
    struct error error = { 0 };
    api_arguments_init(&arguments, api_command(API_STATUS));
    assert_true(cli_call(&cli, &arguments, &reply, &error) < 0);
    assert_non_null(strstr(error.message, "too long"));
    api_arguments_free(&arguments);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(options_stand_anywhere),
        cmocka_unit_test(options_may_be_repeated_where_they_are_lists),
        cmocka_unit_test(schedules_are_written_in_rules),
        cmocka_unit_test(snapshots_are_words),
        cmocka_unit_test(own_words_are_told_apart),
        cmocka_unit_test(wrong_lines_are_refused),
        cmocka_unit_test(disks_become_absolute),
        cmocka_unit_test(option_names_lose_their_unit),
        cmocka_unit_test(tables_are_aligned),
        cmocka_unit_test(objects_are_lines),
        cmocka_unit_test(durations_are_printed_in_units),
        cmocka_unit_test(terminals_are_safe),
        cmocka_unit_test(sockets_are_looked_for),
        cmocka_unit_test(long_names_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
