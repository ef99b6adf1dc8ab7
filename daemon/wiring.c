/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/log.h"
#include "base/util.h"
#include "daemon/api_server.h"
#include "daemon/node.h"
#include "daemon/runtime.h"
#include "daemon/stores.h"
#include "io/platform.h"
#include "targets/nbd/server.h"

enum {
    REACTORS_AUTO_MAX = 16,
    NBD_GRACE_SHARE = 2, /* part of the shutdown time that hosts get: one half */
};

/* ---- the main thread waits for the control reactor ---- */

struct node_wait {
    struct message message;
    struct node *node;
    void (*run)(struct node_wait *wait); /* on the control reactor */
    int event_fd;
    int32_t result;
    union {
        struct manager_start start;
        struct manager_shutdown shutdown;
        struct nbd_server_stop nbd_stop;
    } operation;
};

static void
wait_deliver(struct message *message)
{
    struct node_wait *wait = container_of(message, struct node_wait, message);
    ASSERT_ON_REACTOR(wait->node->reactors[0]);
    wait->run(wait);
}

static void
wait_finish(struct node_wait *wait, int32_t result)
{
    uint64_t one = 1;
    wait->result = result;
    ssize_t written = write(wait->event_fd, &one, sizeof(one));
    ASSERT_OP(written, ==, (ssize_t)sizeof(one));
}

/*
 * Run `run` on the control reactor and wait for wait_finish(). Returns its result; -EINTR or
 * -ETIMEDOUT: given up, and `wait` stays in use until the process ends (N2), so it is never on a
 * stack.
 */
static int
wait_for(struct node *node, struct node_wait *wait, void (*run)(struct node_wait *wait),
         int interrupt_fd, uint64_t timeout_ns)
{
    ASSERT(reactor_self() == NULL);
    wait->node = node;
    wait->run = run;
    reactor_send(node->reactors[0], &wait->message, wait_deliver);

    uint64_t deadline_ns = node->platform->ops->monotonic_ns(node->platform) + timeout_ns;
    for (;;) {
        struct pollfd fds[2] = { { .fd = wait->event_fd, .events = POLLIN },
                                 { .fd = interrupt_fd, .events = POLLIN } };
        uint64_t now_ns = node->platform->ops->monotonic_ns(node->platform);
        uint64_t left_ms = now_ns < deadline_ns ? (deadline_ns - now_ns) / NS_PER_MS + 1 : 0;
        int ready = poll(fds, 2, (int)MIN(left_ms, UINT64_C(1000)));
        if (ready > 0 && (fds[0].revents & POLLIN) != 0) {
            uint64_t count;
            ssize_t got = read(wait->event_fd, &count, sizeof(count));
            ASSERT_OP(got, ==, (ssize_t)sizeof(count));
            return wait->result;
        }
        if (ready > 0 && fds[1].revents != 0) {
            return -EINTR;
        }
        if (left_ms == 0) {
            return -ETIMEDOUT;
        }
    }
}

static struct node_wait *
wait_new(void)
{
    struct node_wait *wait = calloc(1, sizeof(*wait));
    ASSERT(wait != NULL);
    wait->event_fd = eventfd(0, EFD_CLOEXEC);
    ASSERT_OP(wait->event_fd, >=, 0);
    return wait;
}

static void
wait_free(struct node_wait *wait)
{
    close(wait->event_fd);
    free(wait);
}

/* ---- the parts ---- */

static int
create_reactors(struct node *node, struct error *error)
{
    int cpus[REACTOR_COUNT_MAX];
    size_t cpu_count = runtime_cpus(cpus, REACTOR_COUNT_MAX);
    uint64_t wanted = node->config.daemon.reactors;
    if (wanted == 0) {
        wanted = MIN(cpu_count, (size_t)REACTORS_AUTO_MAX);
    }
    ASSERT_OP(wanted, <=, (uint64_t)REACTOR_COUNT_MAX);
    bool pin = node->config.daemon.pin_reactors && wanted <= cpu_count && cpu_count > 1;
    for (uint32_t i = 0; i < wanted; i++) {
        struct reactor_options options = {
            .id = i,
            .buffer_pool_bytes = node->config.daemon.buffer_bytes,
            .spin_us_max = (uint32_t)node->config.daemon.spin_us,
            .poll_us_max = (uint32_t)node->config.daemon.poll_us,
            .poll_percent_max = (uint32_t)node->config.daemon.poll_percent,
            .cpu = pin ? cpus[i] : -1,
        };
        int result = reactor_create(node->platform, &options, &node->reactors[i], error);
        if (result < 0) {
            return result;
        }
        node->reactor_count = i + 1;
    }
    return 0;
}

static int
create_manager(struct node *node, struct error *error)
{
    struct manager_options options;
    manager_options_default(&options);
    options.platform = node->platform;
    options.reactors = node->reactors;
    options.reactor_count = node->reactor_count;
    options.state_directory = node->state_directory;
    options.store_open = stores_open;
    options.store_remove = stores_remove;
    options.pool_list = stores_list;
    options.state_free = stores_free_bytes;
    options.ballast_bytes = node->config.pool.ballast_bytes;
    options.disk_search = manager_disk_search;
    options.store_context = node;
    options.map_cache_bytes = node->config.pool.map_cache_bytes;
    options.journal_bytes = node->config.pool.journal_bytes;
    options.commit_interval_ns = node->config.pool.commit_interval_ns;
    options.disk_timeout_ns = node->config.pool.disk_timeout_ns;
    options.request_timeout_ns = node->config.pool.request_timeout_ns;
    options.accept_loss = node->config.accept_loss;
    int result = stores_host_guid(node->state_directory, options.host_guid, error);
    return result < 0 ? result : manager_create(&options, &node->manager, error);
}

static const char *
or_null(const char *text)
{
    return text[0] != '\0' ? text : NULL;
}

static int
create_nbd(struct node *node, struct error *error)
{
    const struct config *config = &node->config;
    char addresses[NODE_NBD_LISTEN_MAX][CONFIG_TEXT_SIZE + 32];
    struct nbd_listen listens[NODE_NBD_LISTEN_MAX];
    uint32_t count = 0;
    if (strcmp(config->nbd.unix_path, "none") != 0) {
        bool given = config->nbd.unix_path[0] != '\0';
        snprintf(addresses[count], sizeof(addresses[count]), "unix:%s%s",
                 given ? config->nbd.unix_path : node->state_directory,
                 given ? "" : "/nbd.sock");
        listens[count] = (struct nbd_listen){ .address = addresses[count],
                                              .mode = (uint32_t)config->nbd.unix_mode,
                                              .tls = (enum nbd_tls_mode)config->nbd.unix_tls };
        count++;
    }
    for (uint64_t i = 0; i < config->nbd.listen.count; i++) {
        snprintf(addresses[count], sizeof(addresses[count]), "tcp:%s", config->nbd.listen.items[i]);
        listens[count] = (struct nbd_listen){ .address = addresses[count],
                                              .tls = (enum nbd_tls_mode)config->nbd.tls };
        count++;
    }
    if (count == 0) {
        return 0; /* volumes can be managed, but not reached */
    }
    struct nbd_server_options options;
    nbd_server_options_default(&options);
    options.reactors = node->reactors;
    options.reactor_count = node->reactor_count;
    options.manager = node->manager;
    options.listens = listens;
    options.listen_count = count;
    options.tls = (struct nbd_tls_options){
        .ca_file = or_null(config->nbd.tls_ca),
        .crl_file = or_null(config->nbd.tls_crl),
        .certificate_file = or_null(config->nbd.tls_certificate),
        .key_file = or_null(config->nbd.tls_key),
        .verify_client = config->nbd.tls_ca[0] != '\0' && config->nbd.tls_verify_client,
        .psk_file = or_null(config->nbd.tls_psk),
        .priority = or_null(config->nbd.tls_priority),
    };
    options.limits = (struct nbd_server_limits){
        .connections_max = (uint32_t)config->nbd.connections,
        .slots_max = (uint32_t)config->nbd.requests_per_connection,
        .bytes_in_flight_max = (uint32_t)config->nbd.bytes_per_connection,
        .handshake_timeout_ns = config->nbd.handshake_timeout_ns,
        .stuck_timeout_ns = config->nbd.stuck_timeout_ns,
        .drain_timeout_ns = config->nbd.drain_timeout_ns,
        .idle_timeout_ns = config->nbd.idle_timeout_ns,
    };
    int result = nbd_server_create(&options, &node->nbd, error);
    if (result == 0) {
        node->nbd_listen_count = count;
        for (uint32_t i = 0; i < count; i++) {
            node->nbd_tls[i] = (uint8_t)listens[i].tls;
        }
    }
    return result;
}

int
node_create(const struct config *config, bool memory_locked, struct node **ret_node,
            struct error *error)
{
    struct node *node = calloc(1, sizeof(*node));
    ASSERT(node != NULL);
    node->config = *config;
    node->memory_locked = memory_locked;
    node->state_lock_fd = -1;
    int result = runtime_open_state(config->state_directory, node->state_directory,
                                    &node->state_lock_fd, error);
    if (result == 0) {
        result = runtime_volatile_directory(config, node->state_directory,
                                            node->volatile_directory, error);
    }
    if (result == 0) {
        result = platform_uring_create(node->volatile_directory, &node->platform, error);
    }
    if (result == 0) {
        node->started_realtime_ns = node->platform->ops->realtime_ns(node->platform);
        node->started_monotonic_ns = node->platform->ops->monotonic_ns(node->platform);
        result = create_reactors(node, error);
    }
    if (result == 0) {
        result = create_manager(node, error);
    }
    if (result == 0) {
        result = create_nbd(node, error);
    }
    if (result == 0) {
        result = api_server_create(node, &node->api, error);
    }
    if (result < 0) {
        node_destroy(node);
        return result;
    }
    *ret_node = node;
    return 0;
}

void
node_destroy(struct node *node)
{
    ASSERT_OP(node->reactors_started, ==, 0u);
    if (node->api != NULL) {
        api_server_destroy(node->api);
    }
    if (node->nbd != NULL) {
        nbd_server_destroy(node->nbd);
    }
    if (node->manager != NULL) {
        manager_destroy(node->manager);
    }
    for (uint32_t i = 0; i < node->reactor_count; i++) {
        reactor_destroy(node->reactors[i]);
    }
    if (node->platform != NULL) {
        platform_uring_destroy(node->platform);
    }
    if (node->state_lock_fd >= 0) {
        close(node->state_lock_fd);
    }
    free(node);
}

/* ---- start ---- */

static void
start_done(struct io_op *op)
{
    struct node_wait *wait = container_of(op, struct node_wait, operation.start.control.op);
    wait_finish(wait, op->result);
}

static void
start_run(struct node_wait *wait)
{
    wait->operation.start.control.op.done = start_done;
    manager_start(wait->node->manager, &wait->operation.start);
}

int
node_start(struct node *node, int interrupt_fd, struct error *error)
{
    ASSERT_OP(atomic_load(&node->state), ==, NODE_STARTING);
    for (uint32_t i = 0; i < node->reactor_count; i++) {
        int result = reactor_start(node->reactors[i], error);
        if (result < 0) {
            return result;
        }
        node->reactors_started = i + 1;
    }
    int result = api_server_start(node->api, error);
    if (result < 0) {
        return result;
    }
    struct node_wait *wait = wait_new();
    result = wait_for(node, wait, start_run, interrupt_fd, UINT64_MAX / 2);
    if (result == -EINTR) {
        return error_set(error, result, "interrupted while the pools were opening");
    }
    if (result < 0) {
        error_set(error, result, "%s", wait->operation.start.control.error.code != 0
                                           ? wait->operation.start.control.error.message
                                           : error_name(result));
        wait_free(wait);
        return result;
    }
    wait_free(wait);
    node->manager_started = true;
    if (node->nbd != NULL) {
        nbd_server_start(node->nbd);
        node->nbd_started = true;
    }
    atomic_store(&node->state, NODE_SERVING);
    return 0;
}

/* ---- stop ---- */

static void
nbd_stop_done(struct io_op *op)
{
    wait_finish(container_of(op, struct node_wait, operation.nbd_stop.op), op->result);
}

static void
nbd_stop_run(struct node_wait *wait)
{
    wait->operation.nbd_stop.op.done = nbd_stop_done;
    nbd_server_stop(wait->node->nbd, &wait->operation.nbd_stop);
}

static void
shutdown_done(struct io_op *op)
{
    wait_finish(container_of(op, struct node_wait, operation.shutdown.control.op), op->result);
}

static void
shutdown_run(struct node_wait *wait)
{
    wait->operation.shutdown.control.op.done = shutdown_done;
    manager_shutdown(wait->node->manager, &wait->operation.shutdown);
}

static uint64_t
time_left_ns(const struct node *node, uint64_t deadline_ns)
{
    uint64_t now_ns = node->platform->ops->monotonic_ns(node->platform);
    return now_ns < deadline_ns ? deadline_ns - now_ns : 0;
}

static void
stop_reactors(struct node *node)
{
    for (uint32_t i = 0; i < node->reactors_started; i++) {
        reactor_stop(node->reactors[i]);
    }
    for (uint32_t i = 0; i < node->reactors_started; i++) {
        reactor_join(node->reactors[i]);
    }
    node->reactors_started = 0;
}

static int
stop_hosts(struct node *node, int interrupt_fd, uint64_t deadline_ns, struct error *error)
{
    if (!node->nbd_started) {
        return 0;
    }
    struct node_wait *wait = wait_new();
    wait->operation.nbd_stop.grace_ns = time_left_ns(node, deadline_ns) / NBD_GRACE_SHARE;
    int result = wait_for(node, wait, nbd_stop_run, interrupt_fd, time_left_ns(node, deadline_ns));
    if (result < 0) {
        return error_set(error, result, "hosts' requests did not end: %s", error_name(result));
    }
    wait_free(wait);
    return 0;
}

static int
stop_manager(struct node *node, int interrupt_fd, uint64_t deadline_ns, struct error *error)
{
    if (!node->manager_started) {
        return 0;
    }
    struct node_wait *wait = wait_new();
    int result = wait_for(node, wait, shutdown_run, interrupt_fd, time_left_ns(node, deadline_ns));
    if (result == -EINTR || result == -ETIMEDOUT) {
        return error_set(error, result, "the pools did not close: %s", error_name(result));
    }
    if (result < 0) {
        /* Not closed cleanly, but closed: the next start replays. */
        log_error("daemon", "the pools did not close cleanly: %s",
                  wait->operation.shutdown.control.error.message);
    }
    wait_free(wait);
    return 0;
}

int
node_stop(struct node *node, int interrupt_fd, struct error *error)
{
    uint64_t deadline_ns = node->platform->ops->monotonic_ns(node->platform) +
                           node->config.daemon.shutdown_timeout_ns;
    bool was_starting = atomic_exchange(&node->state, NODE_STOPPING) == NODE_STARTING;
    if (was_starting && node->reactors_started == node->reactor_count && !node->manager_started) {
        /* manager_start() has failed or is still running; only the end of the process is safe. */
        return error_set(error, -EINTR, "ended while starting");
    }
    int result = stop_hosts(node, interrupt_fd, deadline_ns, error);
    if (result == 0 && !api_server_stop(node->api, time_left_ns(node, deadline_ns))) {
        result = error_set(error, -ETIMEDOUT, "commands did not end");
    }
    if (result == 0) {
        result = stop_manager(node, interrupt_fd, deadline_ns, error);
    }
    if (result < 0) {
        return result;
    }
    stop_reactors(node);
    return 0;
}

/* ---- proof of life ---- */

static void
pulse_deliver(struct message *message)
{
    struct node_pulse *pulse = container_of(message, struct node_pulse, message);
    atomic_store(&pulse->in_flight, false);
}

bool
node_is_alive(struct node *node)
{
    bool alive = true;
    ASSERT(reactor_self() == NULL);
    for (uint32_t i = 0; i < node->reactors_started; i++) {
        struct node_pulse *pulse = &node->pulses[i];
        if (atomic_exchange(&pulse->in_flight, true)) {
            alive = false; /* it has not come to its mailbox since the last time */
            continue;
        }
        reactor_send(node->reactors[i], &pulse->message, pulse_deliver);
    }
    return alive;
}
