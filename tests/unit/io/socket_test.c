/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sockets and the readiness of foreign descriptors. The other end is a plain descriptor of the
 * test, used without blocking, so that the test's thread can turn the reactor in between.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/random.h"
#include "tests/unit/io/io_test.h"

static struct {
    struct test_world world;
    char path[64];
    char address[80];
    struct platform_socket *listener;
    char bound[SOCKET_ADDRESS_SIZE];
    struct socket_accept accept;
    bool accepted;
    int32_t accept_result;
    struct platform_socket *connection;
    int client;
} test;

/* ---- setting up ---- */

static const struct platform_ops *
ops(void)
{
    return world_ops(&test.world);
}

static int
setup(void **state)
{
    (void)state;
    memset(&test, 0, sizeof(test));
    test.client = -1;
    world_open(&test.world, 0);
    snprintf(test.path, sizeof(test.path), "/tmp/volmgr-test-%d.sock", (int)getpid());
    snprintf(test.address, sizeof(test.address), "unix:%s", test.path);
    unlink(test.path);
    return 0;
}

static int
teardown(void **state)
{
    (void)state;
    if (test.client >= 0) {
        close(test.client);
    }
    if (test.connection != NULL) {
        ops()->socket_close(test.connection);
    }
    if (test.listener != NULL) {
        ops()->socket_close(test.listener);
    }
    world_close(&test.world);
    unlink(test.path);
    return 0;
}

static void
listen_on(const char *address, uint32_t mode)
{
    struct error error = { 0 };
    if (ops()->socket_listen(test.world.platform, address, mode, &test.listener, test.bound,
                             &error) < 0) {
        fail_msg("%s", error.message);
    }
}

static int
try_listen(const char *address, struct error *error)
{
    struct platform_socket *listener = NULL;
    char bound[SOCKET_ADDRESS_SIZE];
    *error = (struct error){ 0 };
    int result = ops()->socket_listen(test.world.platform, address, 0600, &listener, bound, error);
    if (result == 0) {
        ops()->socket_close(listener);
    } else {
        assert_null(listener);
        assert_int_not_equal(error->message[0], '\0');
    }
    return result;
}

static void
accept_done(struct io_op *op)
{
    test.accepted = true;
    test.accept_result = op->result;
    if (op->result == 0) {
        test.connection = test.accept.ret_socket;
    }
}

static void
accept_submit(void *argument)
{
    (void)argument;
    test.accepted = false;
    test.accept =
        (struct socket_accept){ .op = { .done = accept_done }, .listener = test.listener };
    ops()->socket_accept(world_engine(&test.world), &test.accept);
    assert_false(test.accepted);
}

static int
connect_unix(const char *path)
{
    struct sockaddr_un name = { .sun_family = AF_UNIX };
    snprintf(name.sun_path, sizeof(name.sun_path), "%s", path);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&name, sizeof(name)), 0);
    fcntl(fd, F_SETFL, O_NONBLOCK);
    return fd;
}

static int
connect_tcp(int family, uint16_t port)
{
    struct sockaddr_in v4 = { .sin_family = AF_INET,
                              .sin_port = htons(port),
                              .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    struct sockaddr_in6 v6 = { .sin6_family = AF_INET6,
                               .sin6_port = htons(port),
                               .sin6_addr = IN6ADDR_LOOPBACK_INIT };
    int fd = socket(family, SOCK_STREAM, 0);
    int result = family == AF_INET ? connect(fd, (struct sockaddr *)&v4, sizeof(v4))
                                   : connect(fd, (struct sockaddr *)&v6, sizeof(v6));
    assert_int_equal(result, 0);
    fcntl(fd, F_SETFL, O_NONBLOCK);
    return fd;
}

/* A connected pair: test.connection is ours, test.client the other end. */
static void
establish_unix(void)
{
    listen_on(test.address, 0600);
    run_on(test.world.reactor, accept_submit, NULL);
    test.client = connect_unix(test.path);
    wait_until(test.world.reactor, &test.accepted);
    assert_int_equal(test.accept_result, 0);
}

static void
establish_tcp(int family, const char *address)
{
    listen_on(address, 0);
    run_on(test.world.reactor, accept_submit, NULL);
    test.client = connect_tcp(family, (uint16_t)strtoul(strrchr(test.bound, ':') + 1, NULL, 10));
    wait_until(test.world.reactor, &test.accepted);
    assert_int_equal(test.accept_result, 0);
}

/* ---- one transfer ---- */

struct transfer {
    struct socket_io io;
    bool done;
    int32_t result;
};

static void
transfer_done(struct io_op *op)
{
    struct transfer *transfer = container_of(op, struct transfer, io.op);
    assert_false(transfer->done);
    transfer->done = true;
    transfer->result = op->result;
}

static void
transfer_submit(void *argument)
{
    struct transfer *transfer = argument;
    transfer->done = false;
    transfer->io.op.done = transfer_done;
    transfer->io.socket = test.connection;
    if (transfer->io.is_send) {
        ops()->socket_send(world_engine(&test.world), &transfer->io);
    } else {
        ops()->socket_receive(world_engine(&test.world), &transfer->io);
    }
    assert_false(transfer->done);
}

static void
start(struct transfer *transfer, bool is_send, const struct iovec *iov, uint32_t iov_count)
{
    *transfer =
        (struct transfer){ .io = { .is_send = is_send, .iov = iov, .iov_count = iov_count } };
    run_on(test.world.reactor, transfer_submit, transfer);
}

static int32_t
run_transfer(bool is_send, void *data, size_t length_bytes)
{
    struct transfer transfer;
    struct iovec iov = { .iov_base = data, .iov_len = length_bytes };
    start(&transfer, is_send, &iov, 1);
    wait_until(test.world.reactor, &transfer.done);
    return transfer.result;
}

static void
shut_down(void *argument)
{
    ops()->socket_shutdown(world_engine(&test.world), argument);
}

/* ---- addresses ---- */

static void
test_unix_mode_and_peer(void **state)
{
    (void)state;
    struct stat status;
    umask(0077); /* must not narrow what was asked for */
    listen_on(test.address, 0660);
    umask(0022);
    assert_string_equal(test.bound, test.address);
    assert_int_equal(stat(test.path, &status), 0);
    assert_true(S_ISSOCK(status.st_mode));
    assert_int_equal(status.st_mode & 07777, 0660);
    ops()->socket_close(test.listener);
    test.listener = NULL;
    assert_int_equal(access(test.path, F_OK), -1); /* the file goes with the listener */

    establish_unix();
    char expected[SOCKET_ADDRESS_SIZE];
    snprintf(expected, sizeof(expected), "unix (pid %d, uid %u)", (int)getpid(),
             (unsigned)getuid());
    assert_string_equal(test.accept.ret_peer, expected);
}

static void
test_stale_socket_is_replaced(void **state)
{
    (void)state;
    struct error error;
    struct stat status;
    pid_t child = fork();
    if (child == 0) {
        struct platform_socket *listener = NULL;
        char bound[SOCKET_ADDRESS_SIZE];
        _exit(ops()->socket_listen(test.world.platform, test.address, 0600, &listener, bound,
                                   &error) == 0
                  ? 0
                  : 1); /* dies without closing it */
    }
    int ended = 0;
    waitpid(child, &ended, 0);
    assert_int_equal(ended, 0);
    assert_int_equal(stat(test.path, &status), 0);
    listen_on(test.address, 0600);

    /* One that is alive is not. */
    assert_int_equal(try_listen(test.address, &error), -EADDRINUSE);
    assert_non_null(strstr(error.message, test.path));
    run_on(test.world.reactor, accept_submit, NULL);
    int fd = connect_unix(test.path); /* it still works */
    wait_until(test.world.reactor, &test.accepted);
    close(fd);
}

static void
test_close_leaves_the_file_of_a_successor(void **state)
{
    (void)state;
    listen_on(test.address, 0600);
    struct platform_socket *first = test.listener;
    assert_int_equal(unlink(test.path), 0);
    listen_on(test.address, 0600);
    ops()->socket_close(first);
    assert_int_equal(access(test.path, F_OK), 0);
}

static void
test_foreign_socket_file_is_left_alone(void **state)
{
    (void)state;
    struct error error;
    struct sockaddr_un name = { .sun_family = AF_UNIX };
    snprintf(name.sun_path, sizeof(name.sun_path), "%s", test.path);
    int fd = socket(AF_UNIX, SOCK_DGRAM, 0); /* somebody's, and not a stream */
    assert_int_equal(bind(fd, (struct sockaddr *)&name, sizeof(name)), 0);
    assert_int_equal(try_listen(test.address, &error), -EPROTOTYPE);
    assert_int_equal(access(test.path, F_OK), 0);
    close(fd);
}

static void
test_bad_addresses(void **state)
{
    (void)state;
    struct error error;
    char long_path[200];
    memset(long_path, 'x', sizeof(long_path));
    memcpy(long_path, "unix:/", 6);
    long_path[sizeof(long_path) - 1] = '\0';
    assert_int_equal(try_listen(long_path, &error), -EINVAL);
    assert_int_equal(try_listen("unix:", &error), -EINVAL);
    assert_int_equal(try_listen("unix:/not/there/at/all", &error), -ENOENT);
    assert_int_equal(try_listen("", &error), -EINVAL);
    assert_int_equal(try_listen("udp:127.0.0.1:1", &error), -EINVAL);
    assert_int_equal(try_listen("tcp:127.0.0.1", &error), -EINVAL);
    assert_int_equal(try_listen("tcp:127.0.0.1:x", &error), -EINVAL);
    assert_int_equal(try_listen("tcp:192.0.2.1:0", &error), -EADDRNOTAVAIL);
    assert_int_equal(try_listen("unix:/dev/null", &error), -EEXIST);
    assert_int_equal(access("/dev/null", F_OK), 0);
}

static void
test_tcp(void **state)
{
    (void)state;
    establish_tcp(AF_INET, "tcp:127.0.0.1:0");
    assert_memory_equal(test.bound, "tcp:127.0.0.1:", 14);
    assert_memory_equal(test.accept.ret_peer, "tcp:127.0.0.1:", 14);
    char text[8] = { 0 };
    assert_int_equal(send(test.client, "hello", 5, 0), 5);
    assert_int_equal(run_transfer(false, text, sizeof(text)), 5);
    assert_string_equal(text, "hello");

    struct error error;
    assert_int_equal(try_listen(test.bound, &error), -EADDRINUSE);
    assert_non_null(strstr(error.message, test.bound));
}

static void
test_tcp_any_address(void **state)
{
    (void)state;
    establish_tcp(AF_INET, "tcp:*:0");
    assert_memory_equal(test.accept.ret_peer, "tcp:127.0.0.1:", 14); /* not ::ffff:127.0.0.1 */
}

static void
test_tcp_v6(void **state)
{
    (void)state;
    struct error error;
    if (try_listen("tcp:[::1]:0", &error) < 0) {
        skip(); /* no IPv6 here */
    }
    establish_tcp(AF_INET6, "tcp:[::1]:0");
    assert_memory_equal(test.bound, "tcp:[::1]:", 10);
    assert_memory_equal(test.accept.ret_peer, "tcp:[::1]:", 10);
}

/* ---- transfers ---- */

static void
test_receive_waits_and_scatters(void **state)
{
    (void)state;
    establish_unix();
    char first[3];
    char second[4];
    struct iovec iov[2] = { { first, sizeof(first) }, { second, sizeof(second) } };
    struct transfer transfer;
    start(&transfer, false, iov, 2);
    turn_for(test.world.reactor, 5 * NS_PER_MS);
    assert_false(transfer.done);
    assert_int_equal(send(test.client, "abcdef", 6, 0), 6);
    wait_until(test.world.reactor, &transfer.done);
    assert_int_equal(transfer.result, 6);
    assert_memory_equal(first, "abc", 3);
    assert_memory_equal(second, "def", 3);

    /* What does not fit stays for the next. */
    assert_int_equal(send(test.client, "0123456789", 10, 0), 10);
    assert_int_equal(run_transfer(false, first, 3), 3);
    assert_memory_equal(first, "012", 3);
    assert_int_equal(run_transfer(false, second, 4), 4);
    assert_memory_equal(second, "3456", 4);
}

static uint8_t
pattern(uint64_t offset)
{
    return (uint8_t)(hash_u64(offset / 8) >> (8 * (offset % 8)));
}

/* Read from the other end in small pieces until the transfer has ended and all has come. */
static void
slow_reader(struct transfer *transfer, uint64_t total_bytes)
{
    uint64_t read_bytes = 0;
    uint8_t piece[7001];
    for (uint32_t idle = 0; read_bytes < total_bytes && idle < 100000; idle++) {
        ssize_t got = recv(test.client, piece, sizeof(piece), 0);
        for (ssize_t i = 0; i < got; i++) {
            if (piece[i] != pattern(read_bytes + (uint64_t)i)) {
                fail_msg("wrong byte at %llu", (unsigned long long)read_bytes + (unsigned)i);
            }
        }
        read_bytes += got > 0 ? (uint64_t)got : 0;
        idle = got > 0 ? 0 : idle;
        reactor_pass(test.world.reactor, false, 0);
    }
    wait_until(test.world.reactor, &transfer->done);
    assert_int_equal(read_bytes, total_bytes);
    assert_int_equal(transfer->result, total_bytes);
}

/* Segments of odd sizes; more than the kernel takes in one call. */
static void
send_big(uint32_t segment_count, size_t segment_bytes)
{
    struct iovec *iov = calloc(segment_count, sizeof(*iov));
    uint64_t total_bytes = 0;
    for (uint32_t i = 0; i < segment_count; i++) {
        iov[i].iov_len = i % 10 == 9 ? 0 : segment_bytes + i % 13;
        iov[i].iov_base = malloc(iov[i].iov_len + 1);
        for (size_t at = 0; at < iov[i].iov_len; at++) {
            ((uint8_t *)iov[i].iov_base)[at] = pattern(total_bytes + at);
        }
        total_bytes += iov[i].iov_len;
    }
    struct transfer transfer;
    start(&transfer, true, iov, segment_count);
    turn_for(test.world.reactor, 5 * NS_PER_MS);
    assert_false(transfer.done); /* the other end has not read yet */
    slow_reader(&transfer, total_bytes);
    for (uint32_t i = 0; i < segment_count; i++) {
        free(iov[i].iov_base);
    }
    free(iov);
}

static void
test_big_send_to_a_slow_reader(void **state)
{
    (void)state;
    establish_unix();
    send_big(40, 250000);
    send_big(3000, 5000);
}

static void
test_big_send_over_tcp(void **state)
{
    (void)state;
    establish_tcp(AF_INET, "tcp:127.0.0.1:0");
    send_big(60, 250000);
}

static void
test_more_follows_is_only_a_hint(void **state)
{
    (void)state;
    establish_tcp(AF_INET, "tcp:127.0.0.1:0");
    struct iovec iov = { (char[]){ "ab" }, 2 };
    struct transfer transfer = {
        .io = { .is_send = true, .iov = &iov, .iov_count = 1, .more_follows = true }
    };
    run_on(test.world.reactor, transfer_submit, &transfer);
    wait_until(test.world.reactor, &transfer.done);
    assert_int_equal(run_transfer(true, (char[]){ "cd" }, 2), 2);
    char text[5] = { 0 };
    size_t have = 0;
    while (have < 4) {
        ssize_t got = recv(test.client, text + have, 4 - have, 0);
        have += got > 0 ? (size_t)got : 0;
    }
    assert_string_equal(text, "abcd");
}

/* ---- ends ---- */

static void
test_half_close(void **state)
{
    (void)state;
    establish_unix();
    char text[8] = { 0 };
    assert_int_equal(send(test.client, "last", 4, 0), 4);
    shutdown(test.client, SHUT_WR);
    assert_int_equal(run_transfer(false, text, sizeof(text)), 4);
    assert_int_equal(run_transfer(false, text, sizeof(text)), 0); /* the end */
    assert_int_equal(run_transfer(false, text, sizeof(text)), 0);
    assert_int_equal(run_transfer(true, (char[]){ "reply" }, 5), 5); /* the other half lives */
    assert_int_equal(recv(test.client, text, sizeof(text), 0), 5);
    assert_memory_equal(text, "reply", 5);
}

static void
test_peer_vanishes(void **state)
{
    (void)state;
    establish_unix();
    char text[8];
    struct iovec iov = { text, sizeof(text) };
    struct transfer receive;
    start(&receive, false, &iov, 1);
    close(test.client);
    test.client = -1;
    wait_until(test.world.reactor, &receive.done);
    assert_int_equal(receive.result, 0);
    assert_int_equal(run_transfer(true, text, 5), -EPIPE); /* and no signal */
}

static void
test_peer_vanishes_during_a_send(void **state)
{
    (void)state;
    establish_unix();
    size_t size = 8 << 20;
    struct iovec iov = { calloc(1, size), size };
    struct transfer transfer;
    start(&transfer, true, &iov, 1);
    turn_for(test.world.reactor, 2 * NS_PER_MS);
    assert_false(transfer.done);
    close(test.client);
    test.client = -1;
    wait_until(test.world.reactor, &transfer.done);
    assert_true(transfer.result == -EPIPE || transfer.result == -ECONNRESET);
    free(iov.iov_base);
}

static void
test_shutdown_with_everything_in_flight(void **state)
{
    (void)state;
    establish_unix();
    char text[8];
    struct iovec receive_iov = { text, sizeof(text) };
    size_t size = 8 << 20;
    struct iovec send_iov = { calloc(1, size), size };
    struct transfer receive;
    struct transfer send;
    start(&receive, false, &receive_iov, 1);
    start(&send, true, &send_iov, 1);
    run_on(test.world.reactor, accept_submit, NULL);
    turn_for(test.world.reactor, 2 * NS_PER_MS);
    assert_false(receive.done || send.done || test.accepted);

    run_on(test.world.reactor, shut_down, test.connection);
    wait_until(test.world.reactor, &receive.done);
    wait_until(test.world.reactor, &send.done);
    assert_int_equal(receive.result, 0);
    assert_int_equal(send.result, -EPIPE);
    assert_false(test.accepted); /* the listener is another matter */
    ops()->socket_close(test.connection);
    test.connection = NULL;

    run_on(test.world.reactor, shut_down, test.listener);
    wait_until(test.world.reactor, &test.accepted);
    assert_int_equal(test.accept_result, -ECANCELED);
    free(send_iov.iov_base);
}

static void
submit_and_shut_down(void *argument)
{
    transfer_submit(argument);
    shut_down(test.connection); /* before the entry has been handed over */
}

static void
test_shutdown_in_the_pass_of_the_submission(void **state)
{
    (void)state;
    establish_unix();
    char text[8];
    struct iovec iov = { text, sizeof(text) };
    struct transfer receive = { .io = { .iov = &iov, .iov_count = 1 } };
    run_on(test.world.reactor, submit_and_shut_down, &receive);
    wait_until(test.world.reactor, &receive.done);
    assert_int_equal(receive.result, 0);
}

/* ---- both directions at random ---- */

static struct {
    struct random random;
    struct transfer receive;
    struct transfer send;
    struct iovec receive_iov[3];
    struct iovec send_iov[3];
    uint8_t receive_bytes[3][40000];
    uint8_t send_bytes[3][40000];
    uint64_t received;
    uint64_t sent;
} duplex;

static void
duplex_receive(void)
{
    uint32_t count = (uint32_t)(1 + random_below(&duplex.random, 3));
    for (uint32_t i = 0; i < count; i++) {
        duplex.receive_iov[i] =
            (struct iovec){ duplex.receive_bytes[i], 1 + random_below(&duplex.random, 40000) };
    }
    start(&duplex.receive, false, duplex.receive_iov, count);
}

static void
duplex_send(void)
{
    uint32_t count = (uint32_t)(1 + random_below(&duplex.random, 3));
    uint64_t at = duplex.sent;
    for (uint32_t i = 0; i < count; i++) {
        size_t length = 1 + random_below(&duplex.random, 40000);
        for (size_t b = 0; b < length; b++) {
            duplex.send_bytes[i][b] = pattern(at++);
        }
        duplex.send_iov[i] = (struct iovec){ duplex.send_bytes[i], length };
    }
    start(&duplex.send, true, duplex.send_iov, count);
}

static void
duplex_check_received(void)
{
    assert_true(duplex.receive.result > 0);
    uint64_t left = (uint64_t)duplex.receive.result;
    for (uint32_t i = 0; i < duplex.receive.io.iov_count && left > 0; i++) {
        for (size_t b = 0; b < duplex.receive_iov[i].iov_len && left > 0; b++, left--) {
            if (duplex.receive_bytes[i][b] != pattern(duplex.received++)) {
                fail_msg("wrong byte at %llu", (unsigned long long)duplex.received - 1);
            }
        }
    }
    assert_int_equal(left, 0);
}

static void
duplex_peer(uint64_t *peer_sent, uint64_t *peer_received)
{
    uint8_t bytes[30000];
    size_t length = 1 + random_below(&duplex.random, sizeof(bytes));
    for (size_t i = 0; i < length; i++) {
        bytes[i] = pattern(*peer_sent + i);
    }
    ssize_t done = send(test.client, bytes, length, 0);
    *peer_sent += done > 0 ? (uint64_t)done : 0;
    done = recv(test.client, bytes, 1 + random_below(&duplex.random, sizeof(bytes)), 0);
    for (ssize_t i = 0; i < done; i++) {
        if (bytes[i] != pattern((*peer_received)++)) {
            fail_msg("wrong byte at %llu", (unsigned long long)*peer_received - 1);
        }
    }
}

static void
test_random_traffic(void **state)
{
    (void)state;
    const uint64_t total_bytes = 20 << 20;
    uint64_t peer_sent = 0;
    uint64_t peer_received = 0;
    establish_unix();
    memset(&duplex, 0, sizeof(duplex));
    random_seed(&duplex.random, 11);
    duplex_receive();
    duplex_send();
    while (duplex.received < total_bytes || duplex.sent < total_bytes) {
        duplex_peer(&peer_sent, &peer_received);
        reactor_pass(test.world.reactor, false, 0);
        if (duplex.receive.done) {
            duplex_check_received();
            duplex_receive();
        }
        if (duplex.send.done) {
            uint64_t expected = 0;
            for (uint32_t i = 0; i < duplex.send.io.iov_count; i++) {
                expected += duplex.send_iov[i].iov_len;
            }
            assert_int_equal(duplex.send.result, expected);
            duplex.sent += expected;
            duplex_send();
        }
    }
    run_on(test.world.reactor, shut_down, test.connection);
    wait_until(test.world.reactor, &duplex.receive.done);
    wait_until(test.world.reactor, &duplex.send.done);
}

/* ---- foreign descriptors ---- */

struct poll_case {
    struct fd_poll poll;
    bool done;
    int32_t result;
};

static void
poll_done(struct io_op *op)
{
    struct poll_case *poll_case = container_of(op, struct poll_case, poll.op);
    poll_case->done = true;
    poll_case->result = op->result;
}

static void
poll_submit(void *argument)
{
    struct poll_case *poll_case = argument;
    poll_case->done = false;
    poll_case->poll.op.done = poll_done;
    ops()->fd_poll(world_engine(&test.world), &poll_case->poll);
}

static void
poll_cancel(void *argument)
{
    struct poll_case *poll_case = argument;
    ops()->fd_poll_cancel(world_engine(&test.world), &poll_case->poll);
}

static void
poll_cancel_and_submit(void *argument)
{
    poll_cancel(argument);
    ((struct poll_case *)argument)->poll.events = POLLOUT;
}

static void
test_fd_poll(void **state)
{
    (void)state;
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    struct poll_case readable = { .poll = { .fd = ends[0], .events = POLLIN } };
    struct poll_case writable = { .poll = { .fd = ends[1], .events = POLLOUT } };
    run_on(test.world.reactor, poll_submit, &readable);
    run_on(test.world.reactor, poll_submit, &writable);
    wait_until(test.world.reactor, &writable.done);
    assert_int_equal(writable.result, POLLOUT);
    assert_false(readable.done);
    assert_int_equal(write(ends[1], "x", 1), 1);
    wait_until(test.world.reactor, &readable.done);
    assert_int_equal(readable.result, POLLIN);

    char byte;
    assert_int_equal(read(ends[0], &byte, 1), 1);
    run_on(test.world.reactor, poll_submit, &readable);
    turn_for(test.world.reactor, 2 * NS_PER_MS);
    assert_false(readable.done);
    run_on(test.world.reactor, poll_cancel_and_submit, &readable);
    wait_until(test.world.reactor, &readable.done);
    assert_int_equal(readable.result, -ECANCELED);
    run_on(test.world.reactor, poll_cancel, &readable); /* idle: no effect */
    turn_for(test.world.reactor, 2 * NS_PER_MS);

    /* Again with other events: the late cancellation does not hit the new one. */
    close(ends[0]);
    readable.poll.fd = ends[1];
    run_on(test.world.reactor, poll_submit, &readable);
    wait_until(test.world.reactor, &readable.done);
    assert_true((readable.result & POLLERR) != 0); /* a pipe that nobody reads */
    close(ends[1]);
}

#define TEST(body) cmocka_unit_test_setup_teardown(body, setup, teardown)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_unix_mode_and_peer),
        TEST(test_stale_socket_is_replaced),
        TEST(test_close_leaves_the_file_of_a_successor),
        TEST(test_foreign_socket_file_is_left_alone),
        TEST(test_bad_addresses),
        TEST(test_tcp),
        TEST(test_tcp_any_address),
        TEST(test_tcp_v6),
        TEST(test_receive_waits_and_scatters),
        TEST(test_big_send_to_a_slow_reader),
        TEST(test_big_send_over_tcp),
        TEST(test_more_follows_is_only_a_hint),
        TEST(test_half_close),
        TEST(test_peer_vanishes),
        TEST(test_peer_vanishes_during_a_send),
        TEST(test_shutdown_with_everything_in_flight),
        TEST(test_shutdown_in_the_pass_of_the_submission),
        TEST(test_random_traffic),
        TEST(test_fd_poll),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
