/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files on a disk, on tmpfs, and a loop device (skipped where that is not allowed): the same checks
 * on each, and what is particular to one of them.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/random.h"
#include "io/buffer_pool.h"
#include "io/platform_uring_impl.h"
#include "tests/unit/io/io_test.h"

enum {
    FILE_BYTES = 8 << 20,
    BLOCK = 4096,
    MANY = 1500, /* more than the ring takes at once */
};

static struct {
    struct test_world world;
    char path[64];      /* of the file, or of the one below the loop device */
    char open_path[64]; /* what is opened */
    struct platform_file *file;
    struct random random;
} test;

/* ---- opening ---- */

static void
open_file(const char *path, uint32_t flags, uint64_t create_bytes)
{
    struct error error = { 0 };
    if (world_ops(&test.world)
            ->file_open(test.world.platform, path, flags, create_bytes, &test.file, &error) < 0) {
        fail_msg("%s", error.message);
    }
}

static int
setup_file(const char *pattern)
{
    memset(&test, 0, sizeof(test));
    random_seed(&test.random, 3);
    world_open(&test.world, 64 * MIB);
    snprintf(test.path, sizeof(test.path), "%s", pattern);
    int fd = mkstemp(test.path);
    assert_true(fd >= 0);
    close(fd);
    unlink(test.path);
    memcpy(test.open_path, test.path, sizeof(test.path));
    open_file(test.path,
              FILE_OPEN_CREATE | FILE_OPEN_EXCLUSIVE_CREATE | FILE_OPEN_DIRECT | FILE_OPEN_LOCK,
              FILE_BYTES);
    return 0;
}

static int
setup_disk(void **state)
{
    (void)state;
    return setup_file("/var/tmp/volmgr-test-XXXXXX");
}

static int
setup_memory(void **state)
{
    (void)state;
    return setup_file("/dev/shm/volmgr-test-XXXXXX");
}

static int
teardown(void **state)
{
    (void)state;
    if (test.file != NULL) {
        world_ops(&test.world)->file_close(test.file);
    }
    world_close(&test.world);
    if (strncmp(test.open_path, "/dev/loop", 9) == 0) {
        char command[128];
        snprintf(command, sizeof(command), "losetup -d %s", test.open_path);
        assert_int_equal(system(command), 0);
    }
    unlink(test.path);
    return 0;
}

static int
setup_loop(void **state)
{
    setup_file("/var/tmp/volmgr-test-XXXXXX");
    world_ops(&test.world)->file_close(test.file);
    test.file = NULL;
    char command[160];
    snprintf(command, sizeof(command), "losetup --direct-io=on --find --show %s 2>/dev/null",
             test.path);
    FILE *output = popen(command, "r");
    bool attached = fgets(test.open_path, sizeof(test.open_path), output) != NULL;
    pclose(output);
    if (!attached) {
        memcpy(test.open_path, test.path, sizeof(test.path)); /* teardown */
        teardown(state);
        memset(&test, 0, sizeof(test));
        return 0;
    }
    test.open_path[strcspn(test.open_path, "\n")] = '\0';
    open_file(test.open_path, FILE_OPEN_DIRECT | FILE_OPEN_LOCK, 0);
    return 0;
}

static int
teardown_loop(void **state)
{
    return test.file != NULL ? teardown(state) : 0;
}

/* ---- one operation ---- */

struct operation {
    struct file_io io;
    struct iovec iov[4];
    struct buffer buffer;
    bool done;
    int32_t result;
};

static void
operation_done(struct io_op *op)
{
    struct operation *operation = container_of(op, struct operation, io.op);
    assert_false(operation->done);
    operation->result = op->result;
    operation->done = true;
}

static void
operation_submit(void *argument)
{
    struct operation *operation = argument;
    operation->io.op.done = operation_done;
    world_ops(&test.world)->file_submit(world_engine(&test.world), &operation->io);
    assert_false(operation->done); /* never from inside */
}

static int32_t
run_operation(struct operation *operation)
{
    operation->done = false;
    operation->io.file = test.file;
    run_on(test.world.reactor, operation_submit, operation);
    wait_until(test.world.reactor, &operation->done);
    return operation->result;
}

static int32_t
transfer(enum file_io_kind kind, uint64_t offset_bytes, void *data, size_t length_bytes)
{
    struct operation operation = { .io = { .kind = kind,
                                           .offset_bytes = offset_bytes,
                                           .length_bytes = length_bytes,
                                           .iov_count = 1 } };
    operation.iov[0] = (struct iovec){ .iov_base = data, .iov_len = length_bytes };
    operation.io.iov = operation.iov;
    return run_operation(&operation);
}

static int32_t
range(enum file_io_kind kind, uint64_t offset_bytes, uint64_t length_bytes)
{
    struct operation operation = {
        .io = { .kind = kind, .offset_bytes = offset_bytes, .length_bytes = length_bytes }
    };
    return run_operation(&operation);
}

static uint8_t *
aligned(size_t length_bytes, uint64_t seed)
{
    uint8_t *memory = aligned_alloc(BLOCK, align_up(length_bytes, BLOCK));
    struct random random;
    assert_non_null(memory);
    random_seed(&random, seed);
    for (size_t i = 0; i < length_bytes; i++) {
        memory[i] = seed == 0 ? 0 : (uint8_t)random_u64(&random);
    }
    return memory;
}

static void
expect_content(uint64_t offset_bytes, const uint8_t *expected, size_t length_bytes)
{
    uint8_t *memory = aligned(length_bytes, 99);
    assert_int_equal(transfer(FILE_IO_READ, offset_bytes, memory, length_bytes), length_bytes);
    assert_memory_equal(memory, expected, length_bytes);
    free(memory);
}

/* ---- the same on everything ---- */

static void
test_everything(void **state)
{
    (void)state;
    if (test.file == NULL) {
        skip(); /* no loop device here */
    }
    uint8_t *zeroes = aligned(1 << 20, 0);
    uint8_t *data = aligned(1 << 20, 1);
    uint8_t *more = aligned(BLOCK, 2);
    const struct file_properties *properties = world_ops(&test.world)->file_properties(test.file);
    assert_int_equal(properties->size_bytes, FILE_BYTES);

    expect_content(0, zeroes, 1 << 20); /* never written */
    assert_int_equal(transfer(FILE_IO_WRITE, BLOCK, data, 1 << 20), 1 << 20);
    expect_content(BLOCK, data, 1 << 20);
    expect_content(0, zeroes, BLOCK);
    assert_int_equal(transfer(FILE_IO_WRITE, FILE_BYTES - BLOCK, more, BLOCK), BLOCK);
    expect_content(FILE_BYTES - BLOCK, more, BLOCK);
    assert_int_equal(range(FILE_IO_FLUSH, 0, 0), 0);

    struct operation forced = { .io = { .kind = FILE_IO_WRITE,
                                        .fua = true,
                                        .length_bytes = BLOCK,
                                        .iov = forced.iov,
                                        .iov_count = 1 },
                                .iov = { { more, BLOCK } } };
    assert_int_equal(run_operation(&forced), BLOCK);
    expect_content(0, more, BLOCK);

    assert_int_equal(range(FILE_IO_WRITE_ZEROES, 2 * BLOCK, 16 * BLOCK), 0);
    expect_content(2 * BLOCK, zeroes, 16 * BLOCK);
    expect_content(BLOCK, data, BLOCK);
    expect_content(18 * BLOCK, data + 17 * BLOCK, BLOCK);
    assert_int_equal(range(FILE_IO_WRITE_ZEROES, 0, FILE_BYTES / 2), 0); /* long */
    expect_content(BLOCK, zeroes, 1 << 20);

    assert_int_equal(transfer(FILE_IO_WRITE, 0, data, 1 << 20), 1 << 20);
    if (properties->discard_granularity_bytes > 0) {
        assert_int_equal(range(FILE_IO_DISCARD, BLOCK, 8 * BLOCK), 0);
        expect_content(0, data, BLOCK);
        expect_content(9 * BLOCK, data + 9 * BLOCK, BLOCK);
        assert_int_equal(range(FILE_IO_DISCARD, 0, FILE_BYTES), 0);
    } else {
        assert_int_equal(range(FILE_IO_DISCARD, BLOCK, 8 * BLOCK), -EOPNOTSUPP);
    }
    assert_int_equal(range(FILE_IO_ALLOCATE, 0, FILE_BYTES), 0);
    assert_int_equal(world_ops(&test.world)->file_refresh(test.file), 0);
    assert_int_equal(properties->size_bytes, FILE_BYTES);
    free(zeroes);
    free(data);
    free(more);
}

static void
test_several_segments(void **state)
{
    (void)state;
    if (test.file == NULL) {
        skip();
    }
    uint8_t *data = aligned(4 * BLOCK, 5);
    struct operation operation = {
        .io = { .kind = FILE_IO_WRITE,
                .offset_bytes = 7 * BLOCK,
                .length_bytes = 4 * BLOCK,
                .iov = operation.iov,
                .iov_count = 3 },
        .iov = { { data + 3 * BLOCK, BLOCK }, { data, 2 * BLOCK }, { data + 2 * BLOCK, BLOCK } }
    };
    assert_int_equal(run_operation(&operation), 4 * BLOCK);
    expect_content(7 * BLOCK, data + 3 * BLOCK, BLOCK);
    expect_content(8 * BLOCK, data, 3 * BLOCK);
    uint8_t *copy = aligned(4 * BLOCK, 6);
    operation.io.kind = FILE_IO_READ;
    operation.iov[0].iov_base = copy + 3 * BLOCK;
    operation.iov[1].iov_base = copy;
    operation.iov[2].iov_base = copy + 2 * BLOCK;
    assert_int_equal(run_operation(&operation), 4 * BLOCK);
    assert_memory_equal(copy, data, 4 * BLOCK);
    free(copy);
    free(data);
}

/* ---- many at once, with memory of the pool ---- */

static struct operation *many;
static uint32_t many_count;
static uint32_t many_done;
static bool many_all_done;
static enum file_io_kind many_kind;

static void
many_operation_done(struct io_op *op)
{
    struct operation *operation = container_of(op, struct operation, io.op);
    assert_int_equal(op->result, BLOCK);
    operation->done = true;
    many_all_done = ++many_done == many_count;
}

static void
many_submit(void *argument)
{
    (void)argument;
    struct buffer_pool *pool = reactor_buffer_pool(test.world.reactor);
    for (uint32_t i = 0; i < many_count; i++) {
        struct operation *operation = &many[i];
        if (many_kind == FILE_IO_WRITE) {
            assert_true(buffer_pool_get(pool, BLOCK, &operation->buffer));
        }
        memset(operation->buffer.segments[0].iov_base, many_kind == FILE_IO_WRITE ? (int)i : 0xee,
               BLOCK);
        operation->io = (struct file_io){
            .op = { .done = many_operation_done },
            .file = test.file,
            .kind = many_kind,
            .offset_bytes = (uint64_t)i * BLOCK,
            .length_bytes = BLOCK,
            .iov = operation->buffer.segments,
            .iov_count = 1,
        };
        world_ops(&test.world)->file_submit(world_engine(&test.world), &operation->io);
    }
}

static void
many_check(void *argument)
{
    (void)argument;
    for (uint32_t i = 0; i < many_count; i++) {
        const uint8_t *data = many[i].buffer.segments[0].iov_base;
        assert_int_equal(data[0], (uint8_t)i);
        assert_int_equal(data[BLOCK - 1], (uint8_t)i);
        buffer_pool_put(reactor_buffer_pool(test.world.reactor), &many[i].buffer);
    }
}

static void
test_many_at_once(void **state)
{
    (void)state;
    many = calloc(MANY, sizeof(*many));
    const enum file_io_kind kinds[] = { FILE_IO_WRITE, FILE_IO_READ };
    for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
        many_kind = kinds[i];
        many_count = MANY;
        many_done = 0;
        many_all_done = false;
        run_on(test.world.reactor, many_submit, NULL);
        wait_until(test.world.reactor, &many_all_done);
    }
    run_on(test.world.reactor, many_check, NULL);
    free(many);
}

static struct fd_poll doorbell;
static bool rung;
static uint32_t many_done_when_rung;

static void
doorbell_done(struct io_op *op)
{
    assert_int_equal(op->result & POLLIN, POLLIN);
    many_done_when_rung = many_done;
    rung = true;
}

static void
doorbell_submit(void *argument)
{
    (void)argument;
    doorbell.op = (struct io_op){ .done = doorbell_done };
    doorbell.events = POLLIN;
    world_ops(&test.world)->fd_poll(world_engine(&test.world), &doorbell);
    many_submit(NULL);
}

/* Whoever knocks is not behind all the transfers that have ended. */
static void
test_a_host_does_not_wait_for_transfers(void **state)
{
    (void)state;
    const uint64_t one = 1;
    many = calloc(MANY, sizeof(*many));
    doorbell.fd = eventfd(0, EFD_CLOEXEC);
    assert_true(doorbell.fd >= 0);
    rung = false;
    many_kind = FILE_IO_WRITE;
    many_count = 200;
    many_done = 0;
    many_all_done = false;
    run_on(test.world.reactor, doorbell_submit, NULL);
    usleep(200000); /* the disk has ended most of them, and nobody has looked */
    assert_in_range(many_done, 0, many_count / 4);
    assert_int_equal(write(doorbell.fd, &one, sizeof(one)), sizeof(one));
    wait_until(test.world.reactor, &rung);
    assert_in_range(many_done_when_rung, 0, many_count / 2);
    wait_until(test.world.reactor, &many_all_done);
    run_on(test.world.reactor, many_check, NULL);
    close(doorbell.fd);
    free(many);
}

/* ---- errors and ends ---- */

static void
test_short_at_the_end(void **state)
{
    (void)state;
    uint8_t *data = aligned(4 * BLOCK, 8);
    assert_int_equal(transfer(FILE_IO_READ, FILE_BYTES - BLOCK, data, 4 * BLOCK), BLOCK);
    assert_int_equal(transfer(FILE_IO_READ, FILE_BYTES, data, BLOCK), 0);
    free(data);
}

static void
test_read_only(void **state)
{
    (void)state;
    uint8_t *data = aligned(BLOCK, 8);
    world_ops(&test.world)->file_close(test.file);
    open_file(test.path, FILE_OPEN_READ_ONLY, 0);
    assert_int_equal(transfer(FILE_IO_READ, 0, data, BLOCK), BLOCK);
    assert_int_equal(transfer(FILE_IO_WRITE, 0, data, BLOCK), -EBADF);
    assert_int_equal(world_ops(&test.world)->file_properties(test.file)->discard_granularity_bytes,
                     0);
    free(data);
}

static void
test_refresh_sees_growth(void **state)
{
    (void)state;
    assert_int_equal(truncate(test.path, 2 * FILE_BYTES), 0);
    const struct file_properties *properties = world_ops(&test.world)->file_properties(test.file);
    assert_int_equal(properties->size_bytes, FILE_BYTES);
    assert_int_equal(world_ops(&test.world)->file_refresh(test.file), 0);
    assert_int_equal(properties->size_bytes, 2 * FILE_BYTES);
}

static void
test_disk_properties(void **state)
{
    (void)state;
    const struct file_properties *properties = world_ops(&test.world)->file_properties(test.file);
    assert_int_equal(properties->kind, FILE_KIND_REGULAR);
    assert_false(properties->memory_backed);
    assert_true(properties->write_cache);
    if (properties->direct) {
        assert_true(is_power_of_two(properties->logical_sector_bytes));
        assert_in_range(properties->logical_sector_bytes, 512, 4096);
        assert_true(properties->memory_alignment_bytes > 1);
    } else {
        assert_int_equal(properties->logical_sector_bytes, 1);
    }
    assert_true(properties->physical_sector_bytes >= properties->logical_sector_bytes);
}

static void
test_memory_properties(void **state)
{
    (void)state;
    const struct file_properties *properties = world_ops(&test.world)->file_properties(test.file);
    assert_true(properties->memory_backed);
    assert_false(properties->direct);
    assert_int_equal(properties->logical_sector_bytes, 1);
    assert_int_equal(properties->memory_alignment_bytes, 1);
    uint8_t odd[3] = { 1, 2, 3 };
    assert_int_equal(transfer(FILE_IO_WRITE, 4095, odd, 3), 3); /* any alignment */
    expect_content(4095, odd, 3);
}

static void
test_loop_properties(void **state)
{
    (void)state;
    if (test.file == NULL) {
        skip();
    }
    const struct file_properties *properties = world_ops(&test.world)->file_properties(test.file);
    assert_int_equal(properties->kind, FILE_KIND_BLOCK_DEVICE);
    assert_false(properties->memory_backed);
    assert_true(properties->direct);
    assert_in_range(properties->logical_sector_bytes, 512, 4096);
    assert_true(properties->physical_sector_bytes >= properties->logical_sector_bytes);
    assert_true(properties->discard_granularity_bytes >= properties->logical_sector_bytes);
    uint8_t *data = aligned(BLOCK, 1);
    assert_int_equal(transfer(FILE_IO_WRITE, FILE_BYTES, data, BLOCK), -ENOSPC);
    free(data);

    struct platform_file *second = NULL;
    struct error error = { 0 };
    assert_int_equal(
        world_ops(&test.world)
            ->file_open(test.world.platform, test.open_path, FILE_OPEN_LOCK, 0, &second, &error),
        -EBUSY);
    assert_null(second);
    assert_non_null(strstr(error.message, "this daemon has it open already"));
}

static void
test_lock(void **state)
{
    (void)state;
    const struct platform_ops *ops = world_ops(&test.world);
    struct platform_file *second = NULL;
    struct error error = { 0 };
    /* Against ourselves too: the lock belongs to the open file, not to the process. */
    assert_int_equal(
        ops->file_open(test.world.platform, test.path, FILE_OPEN_LOCK, 0, &second, &error), -EBUSY);
    assert_null(second);
    assert_non_null(strstr(error.message, test.path));
    assert_non_null(strstr(error.message, "this daemon has it open already"));
    error = (struct error){ 0 };
    assert_int_equal(ops->file_open(test.world.platform, test.path,
                                    FILE_OPEN_LOCK | FILE_OPEN_READ_ONLY, 0, &second, &error),
                     -EBUSY);
    /* Without asking for the lock (a probe) it can be opened. */
    error = (struct error){ 0 };
    assert_int_equal(
        ops->file_open(test.world.platform, test.path, FILE_OPEN_READ_ONLY, 0, &second, &error), 0);
    ops->file_close(second);

    /* From another process the message names the holder. */
    char expected[64];
    snprintf(expected, sizeof(expected), "process %d", (int)getpid());
    pid_t child = fork();
    if (child == 0) {
        error = (struct error){ 0 };
        int result =
            ops->file_open(test.world.platform, test.path, FILE_OPEN_LOCK, 0, &second, &error);
        _exit(result == -EBUSY && strstr(error.message, expected) != NULL ? 0 : 1);
    }
    int status = 0;
    waitpid(child, &status, 0);
    assert_int_equal(status, 0);

    ops->file_close(test.file); /* releases it */
    test.file = NULL;
    error = (struct error){ 0 };
    assert_int_equal(
        ops->file_open(test.world.platform, test.path, FILE_OPEN_LOCK, 0, &test.file, &error), 0);
}

static void
test_open_errors(void **state)
{
    (void)state;
    const struct platform_ops *ops = world_ops(&test.world);
    struct platform_file *file = NULL;
    struct error error = { 0 };
    assert_int_equal(
        ops->file_open(test.world.platform, "/dev/shm/volmgr-none", 0, 0, &file, &error), -ENOENT);
    assert_non_null(strstr(error.message, "/dev/shm/volmgr-none"));
    error = (struct error){ 0 };
    assert_int_equal(ops->file_open(test.world.platform, "/dev/shm", 0, 0, &file, &error), -EISDIR);
    error = (struct error){ 0 };
    assert_int_equal(ops->file_open(test.world.platform, test.path,
                                    FILE_OPEN_CREATE | FILE_OPEN_EXCLUSIVE_CREATE, FILE_BYTES,
                                    &file, &error),
                     -EEXIST);
    assert_null(file);

    /* CREATE alone opens what is there, and leaves its size. */
    error = (struct error){ 0 };
    assert_int_equal(
        ops->file_open(test.world.platform, test.path, FILE_OPEN_CREATE, 4711, &file, &error), 0);
    assert_int_equal(ops->file_properties(file)->size_bytes, FILE_BYTES);
    ops->file_close(file);

    /* What cannot be made whole is not left behind. */
    char path[80];
    snprintf(path, sizeof(path), "%s-big", test.path);
    error = (struct error){ 0 };
    assert_true(ops->file_open(test.world.platform, path, FILE_OPEN_CREATE, UINT64_MAX / 2, &file,
                               &error) < 0);
    assert_int_equal(access(path, F_OK), -1);

    error = (struct error){ 0 };
    assert_int_equal(ops->file_open(test.world.platform, "/dev/null", 0, 0, &file, &error), 0);
    assert_int_equal(ops->file_properties(file)->kind, FILE_KIND_OTHER);
    ops->file_close(file);
}

static void
test_allocate_makes_room(void **state)
{
    (void)state;
    struct stat status;
    assert_int_equal(stat(test.path, &status), 0);
    assert_true((uint64_t)status.st_blocks * 512 < FILE_BYTES / 2);
    assert_int_equal(range(FILE_IO_ALLOCATE, 0, FILE_BYTES / 2), 0); /* long: not in submit */
    assert_int_equal(stat(test.path, &status), 0);
    assert_in_range((uint64_t)status.st_blocks * 512, FILE_BYTES / 2, FILE_BYTES - 1);
    assert_int_equal(status.st_size, FILE_BYTES);
    assert_int_equal(range(FILE_IO_DISCARD, 0, FILE_BYTES), 0);
    assert_int_equal(stat(test.path, &status), 0);
    assert_true((uint64_t)status.st_blocks * 512 < FILE_BYTES / 2);
}

/* ---- files in memory are mapped: what the mapping cannot do ---- */

static void
test_cut_file_is_an_error(void **state)
{
    (void)state;
    uint8_t *data = aligned(1 << 20, 7);
    memory_catch_bus_errors(); /* cmocka has set handlers of its own */
    assert_int_equal(transfer(FILE_IO_WRITE, 0, data, 1 << 20), 1 << 20);
    for (int round = 0; round < 3; round++) { /* the way back works more than once */
        assert_int_equal(truncate(test.path, 8 * BLOCK), 0);
        uint8_t *memory = aligned(16 * BLOCK, 8);
        assert_int_equal(transfer(FILE_IO_READ, 0, memory, 16 * BLOCK), 8 * BLOCK);
        assert_memory_equal(memory, data, 8 * BLOCK);
        assert_int_equal(transfer(FILE_IO_READ, 32 * BLOCK, memory, BLOCK), 0);
        free(memory);
        /* A write makes the file longer again, as ever. */
        assert_int_equal(transfer(FILE_IO_WRITE, 4 * BLOCK, data, 16 * BLOCK), 16 * BLOCK);
        expect_content(4 * BLOCK, data, 16 * BLOCK);
        assert_int_equal(transfer(FILE_IO_WRITE, 0, data, 8 * BLOCK), 8 * BLOCK);
    }
    free(data);
}

static _Atomic int32_t thread_result;

static void
thread_done(struct io_op *op)
{
    thread_result = op->result;
}

static void
thread_submit(struct message *message)
{
    static uint8_t memory[4 * BLOCK];
    static struct iovec iov = { memory, sizeof(memory) };
    static struct file_io io;
    (void)message;
    io = (struct file_io){ .op = { .done = thread_done },
                           .file = test.file,
                           .kind = FILE_IO_READ,
                           .length_bytes = sizeof(memory),
                           .iov = &iov,
                           .iov_count = 1 };
    world_ops(&test.world)->file_submit(world_engine(&test.world), &io);
}

/* Threads of reactors block signals, but not this one. */
static void
test_cut_file_on_a_thread(void **state)
{
    (void)state;
    struct error error = { 0 };
    struct message message = { 0 };
    memory_catch_bus_errors();
    assert_int_equal(reactor_start(test.world.reactor, &error), 0);
    for (int round = 0; round < 3; round++) {
        assert_int_equal(truncate(test.path, BLOCK), 0);
        thread_result = -1;
        reactor_send(test.world.reactor, &message, thread_submit);
        for (int i = 0; i < 10000 && thread_result == -1; i++) {
            usleep(1000);
        }
        assert_int_equal(thread_result, BLOCK);
    }
    reactor_stop(test.world.reactor);
    reactor_join(test.world.reactor);
}

static void
test_grown_file_beyond_the_mapping(void **state)
{
    (void)state;
    uint8_t *data = aligned(64 * BLOCK, 9);
    assert_int_equal(truncate(test.path, 2 * FILE_BYTES), 0);
    assert_int_equal(world_ops(&test.world)->file_refresh(test.file), 0);
    uint64_t across = FILE_BYTES - 32 * BLOCK;
    assert_int_equal(transfer(FILE_IO_WRITE, across, data, 64 * BLOCK), 64 * BLOCK);
    expect_content(across, data, 64 * BLOCK);
    assert_int_equal(transfer(FILE_IO_WRITE, FILE_BYTES + 64 * BLOCK, data, BLOCK), BLOCK);
    expect_content(FILE_BYTES + 64 * BLOCK, data, BLOCK);
    free(data);
}

static void
test_what_others_write_is_seen(void **state)
{
    (void)state;
    uint8_t *data = aligned(16 * BLOCK, 10);
    uint8_t *copy = aligned(16 * BLOCK, 11);
    int fd = open(test.path, O_RDWR);
    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, data, 16 * BLOCK, BLOCK), 16 * BLOCK);
    expect_content(BLOCK, data, 16 * BLOCK);
    /* Long enough for the way round the caches, with memory that is and is not aligned. */
    assert_int_equal(transfer(FILE_IO_WRITE, 512, data + 1, 15 * BLOCK), 15 * BLOCK);
    assert_int_equal(pread(fd, copy, 15 * BLOCK, 512), 15 * BLOCK);
    assert_memory_equal(copy, data + 1, 15 * BLOCK);
    close(fd);
    free(copy);
    free(data);
}

static void
test_read_only_file_in_memory(void **state)
{
    (void)state;
    uint8_t *data = aligned(BLOCK, 12);
    assert_int_equal(transfer(FILE_IO_WRITE, 0, data, BLOCK), BLOCK);
    world_ops(&test.world)->file_close(test.file);
    open_file(test.path, FILE_OPEN_READ_ONLY, 0);
    expect_content(0, data, BLOCK);
    assert_int_equal(transfer(FILE_IO_WRITE, 0, data, BLOCK), -EBADF);
    free(data);
}

/* A disk that may be somebody else's is looked at before it is taken, or refused. */
static void
test_looking_fills_no_holes(void **state)
{
    (void)state;
    struct stat before;
    struct stat after;
    uint8_t *zeroes = aligned(BLOCK, 0);
    assert_int_equal(stat(test.path, &before), 0);
    for (uint64_t at = 0; at + BLOCK <= FILE_BYTES; at += 8 * BLOCK) {
        expect_content(at, zeroes, BLOCK);
    }
    assert_int_equal(stat(test.path, &after), 0);
    assert_int_equal(after.st_blocks, before.st_blocks);
    free(zeroes);
}

/* A bus error that is not of a transfer is not swallowed. */
static void
test_other_bus_errors_are_deadly(void **state)
{
    (void)state;
    int status = 0;
    memory_catch_bus_errors();
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        int fd = open(test.path, O_RDWR);
        volatile uint8_t *memory = mmap(NULL, BLOCK, PROT_READ, MAP_SHARED, fd, FILE_BYTES);
        _exit(memory[0] == 0 ? 0 : 1);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status));
    assert_int_equal(WTERMSIG(status), SIGBUS);
}

#define ON_DISK(body)   cmocka_unit_test_setup_teardown(body, setup_disk, teardown)
#define IN_MEMORY(body) cmocka_unit_test_setup_teardown(body, setup_memory, teardown)
#define ON_LOOP(body)   cmocka_unit_test_setup_teardown(body, setup_loop, teardown_loop)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        ON_DISK(test_everything),
        IN_MEMORY(test_everything),
        ON_LOOP(test_everything),
        ON_DISK(test_several_segments),
        IN_MEMORY(test_several_segments),
        ON_LOOP(test_several_segments),
        ON_DISK(test_many_at_once),
        ON_DISK(test_a_host_does_not_wait_for_transfers),
        IN_MEMORY(test_many_at_once),
        ON_DISK(test_short_at_the_end),
        IN_MEMORY(test_short_at_the_end),
        ON_DISK(test_read_only),
        ON_DISK(test_refresh_sees_growth),
        ON_DISK(test_disk_properties),
        IN_MEMORY(test_memory_properties),
        ON_LOOP(test_loop_properties),
        ON_DISK(test_lock),
        IN_MEMORY(test_lock),
        ON_DISK(test_open_errors),
        ON_DISK(test_allocate_makes_room),
        IN_MEMORY(test_allocate_makes_room),
        IN_MEMORY(test_cut_file_is_an_error),
        IN_MEMORY(test_cut_file_on_a_thread),
        IN_MEMORY(test_grown_file_beyond_the_mapping),
        IN_MEMORY(test_what_others_write_is_seen),
        IN_MEMORY(test_read_only_file_in_memory),
        IN_MEMORY(test_looking_fills_no_holes),
        IN_MEMORY(test_other_bus_errors_are_deadly),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
