/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/offline.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "backends/backend.h"
#include "base/assert.h"
#include "base/byte_buffer.h"
#include "base/log.h"
#include "base/util.h"
#include "daemon/node.h"
#include "daemon/runtime.h"
#include "daemon/stores.h"
#include "io/platform.h"
#include "io/reactor.h"
#include "metadata/check.h"
#include "metadata/dump.h"

enum {
    PASS_WAIT_NS = 100 * 1000 * 1000,
};

/*
 * A reactor that this thread drives itself, and what runs on it. One step at a time: run() sends a
 * message, whose function submits, and passes go on until the completion.
 */
struct offline {
    struct node node; /* only what stores.c wants of it */
    struct reactor *reactor;
    struct store *store;
    FILE *to;
    struct message message;
    void (*submit)(struct offline *offline);
    bool done;
    int32_t result;

    struct store_scan scan;
    struct label_read read;
    struct label *labels;
    uint32_t label_count;
    uint64_t label_errors; /* disks whose label is gone or damaged */
    struct metadata_check check;
    struct metadata_dump dump;
};

static void
deliver(struct message *message)
{
    struct offline *offline = container_of(message, struct offline, message);
    ASSERT_ON_REACTOR(offline->reactor);
    offline->submit(offline);
}

static int
run(struct offline *offline, void (*submit)(struct offline *offline))
{
    ASSERT(reactor_self() == NULL);
    offline->submit = submit;
    offline->done = false;
    reactor_send(offline->reactor, &offline->message, deliver);
    while (!offline->done) {
        reactor_pass(offline->reactor, true, PASS_WAIT_NS);
    }
    return offline->result;
}

static void
finish(struct offline *offline, int32_t result)
{
    offline->result = result;
    offline->done = true;
}

static int
offline_open(struct offline *offline, const struct config *config, FILE *to, struct error *error)
{
    struct reactor_options options = { .cpu = -1 };
    struct node *node = &offline->node;
    node->config = *config;
    node->state_lock_fd = -1;
    offline->to = to;
    if (access(config->state_directory, F_OK) < 0) {
        return error_set(error, -errno, "there is no state directory %s", config->state_directory);
    }
    int result = runtime_open_state(config->state_directory, node->state_directory,
                                    &node->state_lock_fd, error);
    if (result == 0) {
        result = runtime_volatile_directory(config, node->state_directory,
                                            node->volatile_directory, error);
    }
    if (result == 0) {
        result = platform_uring_create(node->volatile_directory, &node->platform, error);
    }
    return result == 0 ? reactor_create(node->platform, &options, &offline->reactor, error)
                       : result;
}

static void
offline_close(struct offline *offline)
{
    if (offline->reactor != NULL) {
        reactor_destroy(offline->reactor);
    }
    if (offline->node.platform != NULL) {
        platform_uring_destroy(offline->node.platform);
    }
    if (offline->node.state_lock_fd >= 0) {
        close(offline->node.state_lock_fd);
    }
    free(offline);
}

static struct offline *
offline_new(void)
{
    struct offline *offline = calloc(1, sizeof(*offline));
    ASSERT(offline != NULL);
    offline->node.state_lock_fd = -1;
    return offline;
}

/* ---- labels ---- */

static void
scan_done(struct io_op *op)
{
    finish(container_of(op, struct offline, scan.op), op->result);
}

static void
scan_submit(struct offline *offline)
{
    uint8_t key[STORE_KEY_BYTES_MAX];
    uint32_t key_bytes = schema_key_disk(key, 0);
    ASSERT_OP(key_bytes, >, 2u);
    offline->scan = (struct store_scan){ .family = STORE_FAMILY_SYSTEM,
                                         .prefix_bytes = key_bytes - 2, /* without the index */
                                         .bytes_max = 16 * MIB };
    memcpy(offline->scan.prefix, key, offline->scan.prefix_bytes);
    offline->scan.op.done = scan_done;
    store_scan(offline->store, &offline->scan);
}

static void
read_done(struct io_op *op)
{
    finish(container_of(op, struct offline, read.op), op->result);
}

static void
read_submit(struct offline *offline)
{
    offline->read.op.done = read_done;
    label_read(&offline->read);
}

/*
 * One disk's label into `labels`. A disk that cannot be opened or read now is told and left out;
 * one that answers and has no good label is an error.
 */
static void
take_label(struct offline *offline, const char *pool_name, const struct disk_record *disk)
{
    struct error error = { 0 };
    struct backend *backend = NULL;
    int result = backend_open(offline->node.platform, offline->reactor, disk->spec,
                              BACKEND_OPEN_READ_ONLY | BACKEND_OPEN_PROBE, &backend, &error);
    if (result == 0) {
        offline->read = (struct label_read){ .backend = backend };
        result = run(offline, read_submit);
        backend_close(backend);
        if (result < 0) {
            error_set(&error, result, "its label cannot be read: %s", error_name(result));
        }
    }
    if (result == -EBADMSG || (result == -ENOENT && backend != NULL)) {
        fprintf(offline->to, "error: label-%s: disk %u has %s\n",
                result == -ENOENT ? "missing" : "damaged", (unsigned)disk->index,
                result == -ENOENT ? "no label of a pool" : "only damaged labels");
        offline->label_errors++;
        return;
    }
    if (result < 0) {
        fprintf(offline->to, "%s: note: disk %u was not looked at: %s\n", pool_name,
                (unsigned)disk->index, error.message);
        return;
    }
    struct label *labels =
        reallocarray(offline->labels, offline->label_count + 1, sizeof(*offline->labels));
    ASSERT(labels != NULL);
    offline->labels = labels;
    offline->labels[offline->label_count++] = offline->read.ret_label;
}

/* The database may be damaged: a record that does not decode is the checker's to report. */
static int
take_labels(struct offline *offline, const char *pool_name)
{
    size_t position = 0;
    struct store_batch_item item;
    int result = run(offline, scan_submit);
    const struct byte_buffer *items = &offline->scan.items;
    while (result == 0 &&
           store_batch_next(items->data, items->length_bytes, &position, &item) == 1) {
        struct disk_record *disk = malloc(sizeof(*disk));
        ASSERT(disk != NULL);
        if (schema_get_disk(item.value, item.value_bytes, disk) == 0) {
            take_label(offline, pool_name, disk);
        }
        free(disk);
    }
    byte_buffer_free(&offline->scan.items);
    return result;
}

/* ---- check ---- */

static void
print_finding(struct metadata_check *check, const struct check_finding *finding)
{
    static const char *const severities[CHECK_SEVERITY_COUNT] = { "warning", "error" };
    struct offline *offline = container_of(check, struct offline, check);
    ASSERT_OP((int)finding->severity, <, (int)CHECK_SEVERITY_COUNT);
    fprintf(offline->to, "%s: %s: %s%s\n", severities[finding->severity],
            check_code_name(finding->code), finding->text,
            finding->repairable ? " (repairable)" : "");
}

static void
check_done(struct io_op *op)
{
    finish(container_of(op, struct offline, check.op), op->result);
}

static void
check_submit(struct offline *offline)
{
    offline->check = (struct metadata_check){
        .store = offline->store,
        .labels = offline->labels,
        .label_count = offline->label_count,
        .finding = print_finding,
    };
    offline->check.op.done = check_done;
    metadata_check(&offline->check);
}

static int
check_pool(struct offline *offline, const char *pool_name, struct error *error)
{
    int result = stores_open_read_only(&offline->node, pool_name, &offline->store, error);
    if (result < 0) {
        return error_prefix(error, "pool %s cannot be checked", pool_name);
    }
    result = take_labels(offline, pool_name);
    if (result == 0) {
        result = run(offline, check_submit);
    }
    offline->store->ops->close(offline->store);
    free(offline->labels);
    offline->labels = NULL;
    offline->label_count = 0;
    uint64_t errors = offline->check.ret_findings[CHECK_ERROR] + offline->label_errors;
    offline->label_errors = 0;
    if (result < 0) {
        return error_set(error, result, "pool %s cannot be checked: %s", pool_name,
                         error_name(result));
    }
    const struct metadata_check *check = &offline->check;
    fprintf(offline->to,
            "%s: %" PRIu64 " errors, %" PRIu64 " warnings; commit %" PRIu64 ", %" PRIu64
            " records, %" PRIu64 " extents, %" PRIu64 " map pages, %" PRIu64 " grains in use\n",
            pool_name, errors, check->ret_findings[CHECK_WARNING],
            check->ret_commit, check->ret_records, check->ret_extents, check->ret_pages,
            check->ret_grains);
    return errors > 0 ? -EUCLEAN : 0;
}

static int
check_pools(struct offline *offline, struct error *error)
{
    struct byte_buffer names = BYTE_BUFFER_INIT;
    int result = stores_list(&offline->node, &names, error);
    size_t position = 0;
    while (position < names.length_bytes) {
        const char *name = (const char *)names.data + position;
        position += strlen(name) + 1;
        struct error pool_error = { 0 };
        int pool_result = check_pool(offline, name, &pool_error);
        if (pool_error.code != 0) {
            fprintf(offline->to, "error: %s\n", pool_error.message);
        }
        /* The others are checked nevertheless. */
        result = pool_result < 0 ? -EUCLEAN : result;
    }
    if (names.length_bytes == 0) {
        fprintf(offline->to, "no pools\n");
    }
    byte_buffer_free(&names);
    return result;
}

/* Any name may come from a command line. */
static int
check_name(const char *pool_name, struct error *error)
{
    return schema_name_is_valid(pool_name)
               ? 0
               : error_set(error, -EINVAL, "\"%s\" is no name of a pool", pool_name);
}

int
offline_check(const struct config *config, const char *pool_name, FILE *to, struct error *error)
{
    struct offline *offline = offline_new();
    int result = pool_name != NULL ? check_name(pool_name, error) : 0;
    if (result == 0) {
        result = offline_open(offline, config, to, error);
    }
    if (result == 0) {
        result = pool_name != NULL ? check_pool(offline, pool_name, error)
                                   : check_pools(offline, error);
    }
    offline_close(offline);
    return result;
}

/* ---- dump ---- */

static void
print_line(struct metadata_dump *dump, const char *line, size_t length_bytes)
{
    struct offline *offline = container_of(dump, struct offline, dump);
    fwrite(line, 1, length_bytes, offline->to);
    fputc('\n', offline->to);
}

static void
dump_done(struct io_op *op)
{
    finish(container_of(op, struct offline, dump.op), op->result);
}

static void
dump_submit(struct offline *offline)
{
    offline->dump = (struct metadata_dump){ .store = offline->store, .line = print_line };
    offline->dump.op.done = dump_done;
    metadata_dump(&offline->dump);
}

int
offline_dump(const struct config *config, const char *pool_name, FILE *to, struct error *error)
{
    struct offline *offline = offline_new();
    int result = check_name(pool_name, error);
    if (result == 0) {
        result = offline_open(offline, config, to, error);
    }
    if (result == 0) {
        result = stores_open_read_only(&offline->node, pool_name, &offline->store, error);
    }
    if (result == 0) {
        result = run(offline, dump_submit);
        offline->store->ops->close(offline->store);
        if (result < 0) {
            error_set(error, result, "the dump is not complete: %s", error_name(result));
        } else if (offline->dump.ret_damaged > 0) {
            result = error_set(error, -EUCLEAN, "%" PRIu64 " of %" PRIu64 " records are damaged",
                               offline->dump.ret_damaged, offline->dump.ret_lines);
        }
    }
    offline_close(offline);
    return result;
}
