/* SPDX-License-Identifier: Apache-2.0 */
/* The tables keep their own rules; errors and suggestions. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "api/error_body.h"
#include "api/shapes.h"
#include "api/suggest.h"
#include "base/util.h"

/* Every {name} of a template is a text field of the command. */
static void
check_template(const struct api_command *command, const char *text)
{
    while (text != NULL && (text = strchr(text, '{')) != NULL) {
        char name[32];
        size_t length = strcspn(++text, "}");
        assert_true(length < sizeof(name));
        memcpy(name, text, length);
        name[length] = '\0';
        int index = api_field_index(command, name);
        if (index < 0) {
            fail_msg("%s: {%s} is no field", command->words, name);
        }
        assert_true(command->fields[index].type < API_TYPE_SIZE ||
                    command->fields[index].type == API_TYPE_VIEWS);
    }
}

static void
check_field(const struct api_command *command, const struct api_field *field)
{
    assert_non_null(field->help);
    assert_true(strlen(field->name) > 0);
    assert_true(field->type <= API_TYPE_DISKS || field->type >= API_TYPE_STRINGS);
    assert_true(field->maximum == 0 || field->minimum <= field->maximum);
    if (field->type == API_TYPE_CHOICE) {
        assert_non_null(field->choices);
    }
    if (field->type != API_TYPE_BOOL) {
        assert_non_null(field->label);
    }
    /* A2: the name says that a size is in bytes, and volctl takes that off again. */
    if (field->type == API_TYPE_SIZE) {
        assert_non_null(strstr(field->name, "_bytes"));
    }
    if (field->type == API_TYPE_DURATION) {
        assert_non_null(strstr(field->name, "_seconds"));
    }
    if (api_field_in_path(command, field)) {
        assert_true((field->flags & API_REQUIRED) != 0);
        assert_true(field->type == API_TYPE_NAME || field->type == API_TYPE_VOLUME ||
                    field->type == API_TYPE_SNAPSHOT || field->type == API_TYPE_VIEW);
    }
    if (field->type == API_TYPE_STRINGS) {
        assert_int_equal(field->name[strlen(field->name) - 1], 's'); /* the option has none */
    }
    if (field->type == API_TYPE_DISKS || field->type == API_TYPE_STRINGS ||
        field->type == API_TYPE_RULES) {
        assert_int_equal(command->method, API_METHOD_POST);
    }
}

static void
commands_are_consistent(void **state)
{
    (void)state;
    for (int id = 0; id < API_COMMAND_COUNT; id++) {
        const struct api_command *command = api_command((enum api_command_id)id);
        assert_int_equal(command->id, id);
        assert_true(command->field_count <= API_FIELDS_MAX);
        assert_true(islower((unsigned char)command->summary[0]));
        check_template(command, command->action);
        check_template(command, command->done);
        bool options = false;
        bool optional = false;
        for (size_t i = 0; i < command->field_count; i++) {
            const struct api_field *field = &command->fields[i];
            check_field(command, field);
            assert_int_equal(api_field_index(command, field->name), i);
            if ((field->flags & API_POSITIONAL) == 0) {
                options = true;
                continue;
            }
            assert_false(options); /* positional ones come first ... */
            assert_false(optional && (field->flags & API_REQUIRED) != 0); /* required ones before */
            optional |= (field->flags & API_REQUIRED) == 0;
            /* ... and what takes all the rest stands last among them. */
            bool rest = field->type == API_TYPE_DISKS || field->type == API_TYPE_VIEWS;
            assert_true(!rest || i + 1 == command->field_count ||
                        (command->fields[i + 1].flags & API_POSITIONAL) == 0);
        }
        if (command->method == API_METHOD_LOCAL) {
            assert_true(id >= API_COMMANDS_REMOTE);
            continue;
        }
        assert_true(id < API_COMMANDS_REMOTE);
        assert_int_equal(strncmp(command->path, API_PREFIX "/", strlen(API_PREFIX "/")), 0);
        check_template(command, command->path);
    }
}

static void
commands_differ(void **state)
{
    (void)state;
    for (int i = 0; i < API_COMMAND_COUNT; i++) {
        const struct api_command *left = api_command((enum api_command_id)i);
        for (int j = 0; j < i; j++) {
            const struct api_command *right = api_command((enum api_command_id)j);
            assert_string_not_equal(left->words, right->words);
            if (left->path != NULL && right->path != NULL && left->method == right->method) {
                assert_string_not_equal(left->path, right->path);
            }
        }
    }
}

static void
words_find_the_longest(void **state)
{
    char pool[] = "pool", create[] = "create", list_word[] = "list", joined[] = "poolcreate";
    char *const words[] = { pool, create, joined };
    char *const list[] = { list_word, pool };
    char *const none[] = { joined };
    size_t count = 99;
    (void)state;
    assert_int_equal(api_command_by_words(words, 3, &count)->id, API_POOL_CREATE);
    assert_int_equal(count, 2);
    assert_int_equal(api_command_by_words(list, 2, &count)->id, API_VOLUME_LIST);
    assert_int_equal(count, 1);
    assert_null(api_command_by_words(words, 1, &count)); /* "pool" alone */
    assert_null(api_command_by_words(none, 1, &count));
    assert_null(api_command_by_words(words, 0, &count));
    assert_int_equal(count, 1);
}

static void
shapes_are_consistent(void **state)
{
    (void)state;
    size_t count = 0;
    for (; api_shape(count) != NULL; count++) {
        const struct api_shape *shape = api_shape(count);
        for (size_t i = 0; i < shape->field_count; i++) {
            const struct api_reply_field *field = &shape->fields[i];
            bool nested = field->type == API_TYPE_OBJECT || field->type == API_TYPE_LIST;
            assert_int_equal(field->shape != NULL, nested);
            assert_non_null(field->title);
            assert_non_null(field->help);
            assert_false(nested && (field->flags & API_COLUMN) != 0);
            for (size_t j = 0; j < i; j++) {
                assert_string_not_equal(field->name, shape->fields[j].name);
            }
        }
    }
    assert_true(count > 10);
    for (int id = 0; id < API_COMMANDS_REMOTE; id++) {
        const struct api_command *command = api_command((enum api_command_id)id);
        bool found = command->reply == NULL;
        for (size_t i = 0; i < count; i++) {
            found |= api_shape(i) == command->reply;
        }
        assert_true(found); /* so that docs/api.md describes every reply */
    }
}

static void
errors_travel(void **state)
{
    struct api_error decoded;
    (void)state;
    json_t *body = api_error_encode("cannot x", "because \xff", NULL, -ENOSPC);
    assert_true(api_error_decode(body, &decoded));
    assert_string_equal(decoded.what, "cannot x");
    assert_string_equal(decoded.why, "because ?"); /* bytes that are no UTF-8 */
    assert_non_null(strstr(decoded.what_to_do, "pool add"));
    assert_string_equal(decoded.code, "ENOSPC");
    json_decref(body);
    body = api_error_encode("a", "b", "c", -4095);
    assert_true(api_error_decode(body, &decoded));
    assert_string_equal(decoded.code, "EIO");
    assert_string_equal(decoded.what_to_do, "c");
    json_decref(body);
    body = json_pack("{s:i}", "error", 7);
    assert_false(api_error_decode(body, &decoded));
    json_decref(body);
    assert_false(api_error_decode(NULL, &decoded));
    assert_int_equal(api_error_status(-EINVAL), 400);
    assert_int_equal(api_error_status(-ENOENT), 404);
    assert_int_equal(api_error_status(-EBUSY), 409);
    assert_int_equal(api_error_status(-4095), 500);
}

static void
times_are_written(void **state)
{
    (void)state;
    json_t *time = api_json_time(UINT64_C(1700000000123456789));
    assert_string_equal(json_string_value(time), "2023-11-14T22:13:20.123Z");
    json_decref(time);
    time = api_json_time(0);
    assert_string_equal(json_string_value(time), "");
    json_decref(time);
    time = api_json_time(UINT64_MAX);
    assert_non_null(json_string_value(time));
    json_decref(time);
}

static void
slips_are_near(void **state)
{
    const char *best = NULL;
    (void)state;
    assert_int_equal(suggest_distance("", ""), 0);
    assert_int_equal(suggest_distance("abc", ""), 3);
    assert_int_equal(suggest_distance("lsit", "list"), 1); /* two keys exchanged */
    assert_int_equal(suggest_distance("craete", "create"), 1);
    assert_int_equal(suggest_distance("kitten", "sitting"), 3);
    char longer[200];
    memset(longer, 'a', sizeof(longer));
    longer[sizeof(longer) - 1] = '\0';
    assert_true(suggest_distance(longer, longer) >= 64);
    suggest_consider("expotr", "exports", &best);
    suggest_consider("expotr", "export", &best);
    assert_string_equal(best, "export");
    best = NULL;
    suggest_consider("xyz", "list", &best);
    assert_null(best);
    suggest_consider("sess", "session list", &best); /* a beginning counts */
    assert_string_equal(best, "session list");
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(commands_are_consistent), cmocka_unit_test(commands_differ),
        cmocka_unit_test(words_find_the_longest),  cmocka_unit_test(shapes_are_consistent),
        cmocka_unit_test(errors_travel),           cmocka_unit_test(times_are_written),
        cmocka_unit_test(slips_are_near),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
