/* SPDX-License-Identifier: Apache-2.0 */
#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/duration.h"
#include "base/assert.h"
#include "base/size_text.h"
#include "base/util.h"
#include "cli/cli.h"

/* ---- grids ---- */

struct cli_cell {
    char *text;
    bool right;
};

struct cli_grid {
    size_t columns;
    size_t count;
    size_t capacity;
    struct cli_cell *cells;
};

struct cli_grid *
cli_grid_new(size_t columns)
{
    struct cli_grid *grid = calloc(1, sizeof(*grid));
    ASSERT(grid != NULL && columns > 0);
    grid->columns = columns;
    return grid;
}

void
cli_grid_cell(struct cli_grid *grid, const char *text, bool right)
{
    if (grid->count == grid->capacity) {
        grid->capacity = grid->capacity == 0 ? 64 : 2 * grid->capacity;
        grid->cells = reallocarray(grid->cells, grid->capacity, sizeof(*grid->cells));
        ASSERT(grid->cells != NULL);
    }
    struct cli_cell *cell = &grid->cells[grid->count++];
    cell->text = strdup(text);
    cell->right = right;
    ASSERT(cell->text != NULL);
}

/* Columns on a terminal: bytes that do not continue a UTF-8 character. */
static int
text_width(const char *text)
{
    int width = 0;
    for (; *text != '\0'; text++) {
        width += ((unsigned char)*text & 0xc0) != 0x80;
    }
    return width;
}

void
cli_grid_print(FILE *to, const struct cli_grid *grid)
{
    int *widths = calloc(grid->columns, sizeof(*widths));
    ASSERT(widths != NULL);
    ASSERT_OP(grid->count % grid->columns, ==, 0u);
    for (size_t i = 0; i < grid->count; i++) {
        int width = text_width(grid->cells[i].text);
        if (width > widths[i % grid->columns]) {
            widths[i % grid->columns] = width;
        }
    }
    for (size_t i = 0; i < grid->count; i++) {
        const struct cli_cell *cell = &grid->cells[i];
        size_t column = i % grid->columns;
        bool last = column + 1 == grid->columns;
        int padding = widths[column] - text_width(cell->text);
        fprintf(to, "%*s%s%*s%s", cell->right ? padding : 0, "", cell->text,
                cell->right || last ? 0 : padding, "", last ? "\n" : "  ");
    }
    free(widths);
}

void
cli_grid_free(struct cli_grid *grid)
{
    for (size_t i = 0; i < grid->count; i++) {
        free(grid->cells[i].text);
    }
    free(grid->cells);
    free(grid);
}

/* ---- values ---- */

/* Foreign text on a terminal: control characters would be obeyed. */
static void
copy_printable(char *to, size_t size, const char *from)
{
    snprintf(to, size, "%s", from);
    for (char *at = to; *at != '\0'; at++) {
        unsigned char byte = (unsigned char)*at;
        bool is_c1 = byte == 0xc2 && (unsigned char)at[1] >= 0x80 && (unsigned char)at[1] < 0xa0;
        if (byte < 0x20 || byte == 0x7f || is_c1) {
            *at = '?';
        }
        if (is_c1) {
            *++at = '?';
        }
    }
}

/* A list of text in one cell. */
static void
join_strings(const json_t *list, char text[static CLI_VALUE_SIZE])
{
    char joined[CLI_VALUE_SIZE] = "";
    size_t used = 0;
    size_t index;
    json_t *item;
    json_array_foreach(list, index, item)
    {
        const char *string = json_string_value(item);
        int length = snprintf(joined + used, sizeof(joined) - used, "%s%s", index > 0 ? "," : "",
                              string != NULL ? string : "");
        used = MIN(used + (size_t)length, sizeof(joined) - 1);
    }
    copy_printable(text, CLI_VALUE_SIZE, joined);
}

const char *
cli_value_text(enum api_type type, const json_t *value, char text[static CLI_VALUE_SIZE])
{
    text[0] = '\0';
    if (json_is_string(value)) {
        copy_printable(text, CLI_VALUE_SIZE, json_string_value(value));
    } else if (json_is_integer(value)) {
        json_int_t number = json_integer_value(value);
        if (type == API_TYPE_SIZE && number >= 0) {
            size_format((uint64_t)number, text);
        } else if (type == API_TYPE_DURATION && number > 0) {
            duration_format((uint64_t)number, text);
        } else if (type == API_TYPE_DURATION && number == 0) {
            text[0] = '\0';
        } else {
            snprintf(text, CLI_VALUE_SIZE, "%" JSON_INTEGER_FORMAT, number);
        }
    } else if (json_is_boolean(value)) {
        snprintf(text, CLI_VALUE_SIZE, "%s", json_is_true(value) ? "yes" : "no");
    } else if (type == API_TYPE_STRINGS) {
        join_strings(value, text);
    }
    if (text[0] == '\0') {
        memcpy(text, "-", 2);
    }
    return text;
}

static bool
is_right(enum api_type type)
{
    return type == API_TYPE_SIZE || type == API_TYPE_NUMBER || type == API_TYPE_DURATION;
}

void
cli_print_table(FILE *to, const struct api_shape *shape, const json_t *list)
{
    size_t columns = 0;
    for (size_t i = 0; i < shape->field_count; i++) {
        columns += (shape->fields[i].flags & API_COLUMN) != 0;
    }
    ASSERT_OP(columns, >, 0u);
    struct cli_grid *grid = cli_grid_new(columns);
    for (size_t i = 0; i < shape->field_count; i++) {
        if ((shape->fields[i].flags & API_COLUMN) != 0) {
            cli_grid_cell(grid, shape->fields[i].title, is_right(shape->fields[i].type));
        }
    }
    size_t index;
    json_t *item;
    json_array_foreach(list, index, item)
    {
        for (size_t i = 0; i < shape->field_count; i++) {
            const struct api_reply_field *field = &shape->fields[i];
            char text[CLI_VALUE_SIZE];
            if ((field->flags & API_COLUMN) != 0) {
                cli_grid_cell(grid,
                              cli_value_text(field->type, json_object_get(item, field->name), text),
                              is_right(field->type));
            }
        }
    }
    cli_grid_print(to, grid);
    cli_grid_free(grid);
}

/* "READ ONLY" to "Read only:". */
static void
title_text(const char *title, char *text, size_t size)
{
    snprintf(text, size, "%s:", title);
    for (size_t i = 1; text[i] != '\0'; i++) {
        text[i] = (char)tolower((unsigned char)text[i]);
    }
}

static bool
is_nested(enum api_type type)
{
    return type == API_TYPE_LIST || type == API_TYPE_OBJECT;
}

/* A list of text: one line each, the title on the first. */
static void
print_strings(struct cli_grid *grid, const char *title, const json_t *list)
{
    size_t index;
    json_t *item;
    json_array_foreach(list, index, item)
    {
        char text[CLI_VALUE_SIZE];
        cli_grid_cell(grid, index == 0 ? title : "", false);
        cli_grid_cell(grid, cli_value_text(API_TYPE_STRING, item, text), false);
    }
}

void
cli_print_object(FILE *to, const struct api_shape *shape, const json_t *object)
{
    struct cli_grid *grid = cli_grid_new(2);
    for (size_t i = 0; i < shape->field_count; i++) {
        const struct api_reply_field *field = &shape->fields[i];
        const json_t *value = json_object_get(object, field->name);
        char title[64];
        char text[CLI_VALUE_SIZE];
        if (value == NULL || is_nested(field->type)) {
            continue;
        }
        title_text(field->title, title, sizeof(title));
        if (field->type == API_TYPE_STRINGS && json_array_size(value) > 0) {
            print_strings(grid, title, value);
            continue;
        }
        cli_grid_cell(grid, title, false);
        cli_grid_cell(grid, cli_value_text(field->type, value, text), false);
    }
    cli_grid_print(to, grid);
    cli_grid_free(grid);
    for (size_t i = 0; i < shape->field_count; i++) {
        const struct api_reply_field *field = &shape->fields[i];
        const json_t *value = json_object_get(object, field->name);
        if (field->type == API_TYPE_LIST && json_array_size(value) > 0) {
            fputc('\n', to);
            cli_print_table(to, field->shape, value);
        } else if (field->type == API_TYPE_OBJECT && json_is_object(value)) {
            fputc('\n', to);
            cli_print_object(to, field->shape, value);
        }
    }
}

void
cli_print_reply(FILE *to, const struct api_command *command, const json_t *body)
{
    ASSERT(command->reply != NULL);
    if (command->reply_list == NULL) {
        cli_print_object(to, command->reply, body);
        return;
    }
    const json_t *list = json_object_get(body, command->reply_list);
    if (json_array_size(list) == 0) {
        fprintf(to, "no %s\n", command->reply_list);
        return;
    }
    cli_print_table(to, command->reply, list);
}
