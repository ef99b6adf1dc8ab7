/* SPDX-License-Identifier: Apache-2.0 */
/* Rates of volumes or sessions, from the difference of two looks at their counters. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/size_text.h"
#include "base/util.h"
#include "cli/cli.h"

enum {
    KEY_SIZE = 280,
};

struct sums {
    double operations;
    double bytes;
    double total_ns;
};

struct rate {
    const json_t *item; /* the later look */
    char key[KEY_SIZE];
    struct sums reads;
    struct sums writes;
    double errors;
};

/* What is looked at: where it comes from, and how its counters are read. */
struct view {
    enum api_command_id command;
    const char *list;
    const char *key; /* member that tells one from another */
    /* Add the counters, times `sign`: later look minus earlier look. */
    void (*add)(struct rate *rate, const json_t *item, double sign);
    const char *const *titles; /* NULL-terminated; the numbers follow */
    void (*cells)(struct cli_grid *grid, const struct rate *rate);
};

static double
seconds_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static double
member(const json_t *object, const char *name)
{
    return (double)json_integer_value(json_object_get(object, name));
}

static void
cell_number(struct cli_grid *grid, double value)
{
    char text[32];
    snprintf(text, sizeof(text), "%.0f", value);
    cli_grid_cell(grid, text, true);
}

static void
cell_size(struct cli_grid *grid, double bytes)
{
    char text[SIZE_TEXT_SIZE];
    cli_grid_cell(grid, size_format(bytes > 0 ? (uint64_t)bytes : 0, text), true);
}

static void
cell_text(struct cli_grid *grid, const json_t *item, const char *name)
{
    char text[CLI_VALUE_SIZE];
    cli_grid_cell(grid, cli_value_text(API_TYPE_STRING, json_object_get(item, name), text), false);
}

/* ---- volumes ---- */

static void
volume_add(struct rate *rate, const json_t *volume, double sign)
{
    size_t index;
    json_t *counter;
    json_array_foreach(json_object_get(volume, "counters"), index, counter)
    {
        const char *kind = json_string_value(json_object_get(counter, "kind"));
        struct sums *sums = kind != NULL && strcmp(kind, "read") == 0    ? &rate->reads
                            : kind != NULL && strcmp(kind, "write") == 0 ? &rate->writes
                                                                         : NULL;
        rate->errors += sign * member(counter, "errors");
        if (sums != NULL) {
            sums->operations += sign * member(counter, "operations");
            sums->bytes += sign * member(counter, "bytes");
            sums->total_ns += sign * member(counter, "total_ns");
        }
    }
}

static void
volume_cells(struct cli_grid *grid, const struct rate *rate)
{
    cell_text(grid, rate->item, "volume");
    cell_number(grid, rate->errors);
    cell_number(grid, member(rate->item, "session_count"));
}

/* ---- sessions ---- */

static void
session_add(struct rate *rate, const json_t *session, double sign)
{
    rate->reads.operations += sign * member(session, "reads");
    rate->reads.bytes += sign * member(session, "read_bytes");
    rate->reads.total_ns += sign * member(session, "read_total_ns");
    rate->writes.operations += sign * member(session, "writes");
    rate->writes.bytes += sign * member(session, "written_bytes");
    rate->writes.total_ns += sign * member(session, "write_total_ns");
}

static void
session_cells(struct cli_grid *grid, const struct rate *rate)
{
    cell_number(grid, member(rate->item, "id"));
    cell_text(grid, rate->item, "volume");
    cell_text(grid, rate->item, "peer");
    cell_number(grid, member(rate->item, "in_flight"));
}

static const char *const volume_titles[] = { "VOLUME", "ERRORS", "SESSIONS", NULL };
static const char *const session_titles[] = { "ID", "VOLUME", "PEER", "IN FLIGHT", NULL };
static const char *const rate_titles[] = { "READ/s",    "READ B/s", "READ us", "WRITE/s",
                                           "WRITE B/s", "WRITE us", NULL };

static const struct view volume_view = { API_VOLUME_LIST, "volumes",     "volume",
                                         volume_add,      volume_titles, volume_cells };
static const struct view session_view = { API_SESSION_LIST, "sessions",     "id",
                                          session_add,      session_titles, session_cells };

/* ---- rates ---- */

static const char *
key_of(const struct view *view, const json_t *item, char key[static KEY_SIZE])
{
    const json_t *value = json_object_get(item, view->key);
    if (json_is_integer(value)) {
        snprintf(key, KEY_SIZE, "%" JSON_INTEGER_FORMAT, json_integer_value(value));
    } else {
        snprintf(key, KEY_SIZE, "%s", json_is_string(value) ? json_string_value(value) : "");
    }
    return key;
}

/* Items by key; new. */
static json_t *
index_items(const struct view *view, const json_t *body)
{
    json_t *items = json_object();
    size_t index;
    json_t *item;
    ASSERT(items != NULL);
    json_array_foreach(json_object_get(body, view->list), index, item)
    {
        char key[KEY_SIZE];
        json_object_set(items, key_of(view, item, key), item);
    }
    return items;
}

static int
compare_rates(const void *left, const void *right)
{
    const struct rate *a = left;
    const struct rate *b = right;
    double a_bytes = a->reads.bytes + a->writes.bytes;
    double b_bytes = b->reads.bytes + b->writes.bytes;
    if (a_bytes != b_bytes) {
        return a_bytes < b_bytes ? 1 : -1;
    }
    return strcmp(a->key, b->key);
}

/* Items point into `after`. What was not there before is left out. */
static struct rate *
make_rates(const struct view *view, const json_t *before, const json_t *after, size_t *ret_count)
{
    const json_t *list = json_object_get(after, view->list);
    json_t *earlier = index_items(view, before);
    struct rate *rates = calloc(json_array_size(list) + 1, sizeof(*rates));
    ASSERT(rates != NULL);
    size_t count = 0;
    size_t index;
    json_t *item;
    json_array_foreach(list, index, item)
    {
        struct rate *rate = &rates[count];
        const json_t *same = json_object_get(earlier, key_of(view, item, rate->key));
        if (same != NULL) {
            rate->item = item;
            view->add(rate, item, 1);
            view->add(rate, same, -1);
            count++;
        }
    }
    json_decref(earlier);
    qsort(rates, count, sizeof(*rates), compare_rates);
    *ret_count = count;
    return rates;
}

static double
latency_us(const struct sums *sums)
{
    return sums->operations > 0 ? sums->total_ns / sums->operations / 1000 : 0;
}

/* ---- showing ---- */

static void
print_rates(FILE *to, const struct view *view, const struct rate *rates, size_t count,
            double seconds)
{
    size_t own = 0;
    size_t columns = ARRAY_SIZE(rate_titles) - 1;
    while (view->titles[own] != NULL) {
        own++;
    }
    struct cli_grid *grid = cli_grid_new(own + columns);
    for (size_t i = 0; i < own; i++) {
        bool text = strcmp(view->titles[i], "VOLUME") == 0 || strcmp(view->titles[i], "PEER") == 0;
        cli_grid_cell(grid, view->titles[i], !text);
    }
    for (size_t i = 0; i < columns; i++) {
        cli_grid_cell(grid, rate_titles[i], true);
    }
    for (size_t i = 0; i < count; i++) {
        const struct rate *rate = &rates[i];
        view->cells(grid, rate);
        cell_number(grid, rate->reads.operations / seconds);
        cell_size(grid, rate->reads.bytes / seconds);
        cell_number(grid, latency_us(&rate->reads));
        cell_number(grid, rate->writes.operations / seconds);
        cell_size(grid, rate->writes.bytes / seconds);
        cell_number(grid, latency_us(&rate->writes));
    }
    cli_grid_print(to, grid);
    cli_grid_free(grid);
}

static void
print_rates_json(FILE *to, const struct view *view, const struct rate *rates, size_t count,
                 double seconds)
{
    json_t *list = json_array();
    for (size_t i = 0; i < count; i++) {
        const struct rate *rate = &rates[i];
        json_t *object = json_pack(
            "{s:O, s:f, s:f, s:f, s:f, s:f, s:f, s:f}", view->key,
            json_object_get(rate->item, view->key), "reads_per_second",
            rate->reads.operations / seconds, "read_bytes_per_second", rate->reads.bytes / seconds,
            "read_latency_us", latency_us(&rate->reads), "writes_per_second",
            rate->writes.operations / seconds, "written_bytes_per_second",
            rate->writes.bytes / seconds, "write_latency_us", latency_us(&rate->writes), "errors",
            rate->errors);
        json_t *volume = json_object_get(rate->item, "volume");
        json_t *peer = json_object_get(rate->item, "peer");
        json_object_set(object, "volume", volume != NULL ? volume : json_null());
        if (peer != NULL) {
            json_object_set(object, "peer", peer);
        }
        json_array_append_new(list, object);
    }
    json_t *body = json_pack("{s:f, s:o}", "seconds", seconds, view->list, list);
    json_dumpf(body, to, JSON_COMPACT | JSON_REAL_PRECISION(9));
    fputc('\n', to);
    json_decref(body);
}

/* Lines of the terminal that are left for rates. */
static size_t
rows_that_fit(FILE *to)
{
    struct winsize size = { 0 };
    bool known = ioctl(fileno(to), TIOCGWINSZ, &size) == 0 && size.ws_row > 3;
    return known ? (size_t)size.ws_row - 2 : SIZE_MAX;
}

static void
show(struct cli *cli, const struct view *view, const json_t *before, const json_t *after,
     double seconds, bool live)
{
    size_t count = 0;
    struct rate *rates = make_rates(view, before, after, &count);
    if (cli->json) {
        print_rates_json(cli->out, view, rates, count, seconds);
    } else {
        if (live) {
            fputs("\033[H\033[J", cli->out); /* home, clear to the end */
            count = MIN(count, rows_that_fit(cli->out));
        }
        print_rates(cli->out, view, rates, count, seconds);
    }
    free(rates);
}

enum cli_exit
cli_top(struct cli *cli, const struct api_arguments *arguments)
{
    const struct view *view = api_flag(arguments, "sessions") ? &session_view : &volume_view;
    bool once = api_flag(arguments, "once");
    bool live = !once && isatty(fileno(cli->out));
    unsigned interval = (unsigned)api_number(arguments, "interval", 1);
    struct cli_reply before = { 0 };
    enum cli_exit result = cli_get(cli, view->command, &before);
    double before_seconds = seconds_now();
    while (result == CLI_OK) {
        struct cli_reply after = { 0 };
        sleep(interval);
        result = cli_get(cli, view->command, &after);
        if (result != CLI_OK) {
            break;
        }
        double now_seconds = seconds_now();
        show(cli, view, before.json, after.json, now_seconds - before_seconds, live);
        cli_reply_free(&before);
        before = after;
        before_seconds = now_seconds;
        if (fflush(cli->out) != 0) {
            result = CLI_FAILED; /* nobody reads any more */
        } else if (once) {
            break;
        }
    }
    cli_reply_free(&before);
    return result;
}
