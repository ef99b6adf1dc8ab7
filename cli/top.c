/* SPDX-License-Identifier: Apache-2.0 */
/* Rates of all volumes, from the difference of two looks at their counters. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/size_text.h"
#include "cli/cli.h"

struct sums {
    double operations;
    double bytes;
    double total_ns;
};

struct rate {
    const char *volume;
    struct sums reads;
    struct sums writes;
    double errors;
    double sessions;
};

static double
seconds_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static const json_t *
find_volume(const json_t *body, const char *name)
{
    size_t index;
    json_t *volume;
    json_array_foreach(json_object_get(body, "volumes"), index, volume)
    {
        const char *text = json_string_value(json_object_get(volume, "volume"));
        if (text != NULL && strcmp(text, name) == 0) {
            return volume;
        }
    }
    return NULL;
}

static double
member(const json_t *object, const char *name)
{
    return (double)json_integer_value(json_object_get(object, name));
}

/* Add the counters of a volume, times `sign`: later look minus earlier look. */
static void
add_counters(struct rate *rate, const json_t *volume, double sign)
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
    return strcmp(a->volume, b->volume);
}

/* Names point into `after`. Volumes that were not there before are left out. */
static struct rate *
make_rates(const json_t *before, const json_t *after, size_t *ret_count)
{
    const json_t *volumes = json_object_get(after, "volumes");
    struct rate *rates = calloc(json_array_size(volumes) + 1, sizeof(*rates));
    ASSERT(rates != NULL);
    size_t count = 0;
    size_t index;
    json_t *volume;
    json_array_foreach(volumes, index, volume)
    {
        const char *name = json_string_value(json_object_get(volume, "volume"));
        const json_t *earlier = name != NULL ? find_volume(before, name) : NULL;
        if (earlier != NULL) {
            struct rate *rate = &rates[count++];
            rate->volume = name;
            rate->sessions = member(volume, "session_count");
            add_counters(rate, volume, 1);
            add_counters(rate, earlier, -1);
        }
    }
    qsort(rates, count, sizeof(*rates), compare_rates);
    *ret_count = count;
    return rates;
}

static double
latency_us(const struct sums *sums)
{
    return sums->operations > 0 ? sums->total_ns / sums->operations / 1000 : 0;
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
print_rates(FILE *to, const struct rate *rates, size_t count, double seconds)
{
    static const char *const titles[] = { "VOLUME",   "READ/s",   "READ B/s", "READ us", "WRITE/s",
                                          "WRITE B/s", "WRITE us", "ERRORS",   "SESSIONS" };
    size_t columns = sizeof(titles) / sizeof(titles[0]);
    struct cli_grid *grid = cli_grid_new(columns);
    for (size_t i = 0; i < columns; i++) {
        cli_grid_cell(grid, titles[i], i > 0);
    }
    for (size_t i = 0; i < count; i++) {
        const struct rate *rate = &rates[i];
        cli_grid_cell(grid, rate->volume, false);
        cell_number(grid, rate->reads.operations / seconds);
        cell_size(grid, rate->reads.bytes / seconds);
        cell_number(grid, latency_us(&rate->reads));
        cell_number(grid, rate->writes.operations / seconds);
        cell_size(grid, rate->writes.bytes / seconds);
        cell_number(grid, latency_us(&rate->writes));
        cell_number(grid, rate->errors);
        cell_number(grid, rate->sessions);
    }
    cli_grid_print(to, grid);
    cli_grid_free(grid);
}

static void
print_rates_json(FILE *to, const struct rate *rates, size_t count, double seconds)
{
    json_t *list = json_array();
    for (size_t i = 0; i < count; i++) {
        const struct rate *rate = &rates[i];
        json_array_append_new(
            list, json_pack("{s:s, s:f, s:f, s:f, s:f, s:f, s:f, s:f}", "volume", rate->volume,
                            "reads_per_second", rate->reads.operations / seconds,
                            "read_bytes_per_second", rate->reads.bytes / seconds,
                            "read_latency_us", latency_us(&rate->reads), "writes_per_second",
                            rate->writes.operations / seconds, "written_bytes_per_second",
                            rate->writes.bytes / seconds, "write_latency_us",
                            latency_us(&rate->writes), "errors", rate->errors));
    }
    json_t *body = json_pack("{s:f, s:o}", "seconds", seconds, "volumes", list);
    json_dumpf(body, to, JSON_COMPACT | JSON_REAL_PRECISION(9));
    fputc('\n', to);
    json_decref(body);
}

static void
show(struct cli *cli, const json_t *before, const json_t *after, double seconds, bool live)
{
    size_t count = 0;
    struct rate *rates = make_rates(before, after, &count);
    if (cli->json) {
        print_rates_json(cli->out, rates, count, seconds);
    } else {
        if (live) {
            fputs("\033[H\033[J", cli->out); /* home, clear to the end */
        }
        print_rates(cli->out, rates, count, seconds);
    }
    free(rates);
}

enum cli_exit
cli_top(struct cli *cli, const struct api_arguments *arguments)
{
    bool once = api_flag(arguments, "once");
    bool live = !once && isatty(fileno(cli->out));
    unsigned interval = (unsigned)api_number(arguments, "interval", 1);
    struct cli_reply before = { 0 };
    enum cli_exit result = cli_get(cli, API_VOLUME_LIST, &before);
    double before_seconds = seconds_now();
    while (result == CLI_OK) {
        struct cli_reply after = { 0 };
        sleep(interval);
        result = cli_get(cli, API_VOLUME_LIST, &after);
        if (result != CLI_OK) {
            break;
        }
        double now_seconds = seconds_now();
        show(cli, before.json, after.json, now_seconds - before_seconds, live);
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
