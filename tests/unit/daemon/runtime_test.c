/* SPDX-License-Identifier: Apache-2.0 */
/* The state directory's lock, the place of the volatile journals, and the pools' directories. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "daemon/node.h"
#include "daemon/runtime.h"
#include "daemon/stores.h"
#include "metadata/store.h"

static char scratch[] = "/dev/shm/volmgr-runtime-test-XXXXXX";

static char *
path_of(const char *name, char path[static CONFIG_TEXT_SIZE])
{
    snprintf(path, CONFIG_TEXT_SIZE, "%s/%s", scratch, name);
    return path;
}

static void
state_is_locked(void **state)
{
    char directory[CONFIG_TEXT_SIZE];
    char dotted[CONFIG_TEXT_SIZE + 16];
    char path[CONFIG_TEXT_SIZE] = "untouched";
    int lock = -1;
    int second = -1;
    struct error error = { 0 };
    (void)state;
    path_of("state", directory);
    snprintf(dotted, sizeof(dotted), "%s/../state", directory);
    assert_int_equal(runtime_open_state(directory, path, &lock, &error), 0);
    assert_string_equal(path, directory);
    assert_int_equal(runtime_open_state(dotted, path, &second, &error), -EBUSY);
    assert_non_null(strstr(error.message, "in use by another volmgrd, process "));
    close(lock);
    error = (struct error){ 0 };
    assert_int_equal(runtime_open_state(dotted, path, &second, &error), 0);
    assert_string_equal(path, directory); /* one name for one directory */
    close(second);
}

static void
bad_states_are_refused(void **state)
{
    char directory[CONFIG_TEXT_SIZE];
    char path[CONFIG_TEXT_SIZE] = "untouched";
    int lock = -1;
    struct error error = { 0 };
    (void)state;
    path_of("no/such", directory);
    assert_int_equal(runtime_open_state(directory, path, &lock, &error), -ENOENT);
    assert_non_null(strstr(error.message, directory));
    assert_string_equal(path, "untouched");
    assert_int_equal(lock, -1);
    FILE *file = fopen(path_of("file", directory), "we");
    assert_non_null(file);
    fclose(file);
    error = (struct error){ 0 };
    assert_true(runtime_open_state(directory, path, &lock, &error) < 0);
    /* A lock file that is a link elsewhere is not followed. */
    path_of("trap", directory);
    assert_int_equal(mkdir(directory, 0700), 0);
    char link_path[CONFIG_TEXT_SIZE];
    assert_int_equal(symlink("/etc/passwd", path_of("trap/lock", link_path)), 0);
    error = (struct error){ 0 };
    assert_int_equal(runtime_open_state(directory, path, &lock, &error), -ELOOP);
}

static void
volatile_directory_is_chosen(void **state)
{
    struct config *config = malloc(sizeof(*config));
    char first[CONFIG_TEXT_SIZE];
    char second[CONFIG_TEXT_SIZE];
    struct error error = { 0 };
    (void)state;
    assert_non_null(config);
    config_default(config);
    snprintf(config->daemon.volatile_directory, sizeof(config->daemon.volatile_directory), "%s",
             scratch);
    assert_int_equal(runtime_volatile_directory(config, "/state/a", first, &error), 0);
    assert_int_equal(runtime_volatile_directory(config, "/state/b", second, &error), 0);
    assert_string_not_equal(first, second);
    assert_int_equal(runtime_volatile_directory(config, "/state/a", second, &error), 0);
    assert_string_equal(first, second); /* found again after a restart */
    struct stat status;
    assert_int_equal(stat(first, &status), 0);
    assert_int_equal(status.st_mode & 0777, 0700);
    /* One that others could write to is not trusted. */
    assert_int_equal(chmod(first, 0777), 0);
    assert_int_equal(runtime_volatile_directory(config, "/state/a", second, &error), -EPERM);
    /* On a disk a power cut would not take it away. */
    error = (struct error){ 0 };
    snprintf(config->daemon.volatile_directory, sizeof(config->daemon.volatile_directory),
             "/proc");
    assert_int_equal(runtime_volatile_directory(config, "/state/a", second, &error), -EINVAL);
    assert_non_null(strstr(error.message, "not on tmpfs"));
    /* The service manager's directory comes first; XDG_RUNTIME_DIR never. */
    config->daemon.volatile_directory[0] = '\0';
    char given[CONFIG_TEXT_SIZE + 16];
    snprintf(given, sizeof(given), "%s:/other", scratch);
    setenv("RUNTIME_DIRECTORY", given, 1);
    assert_int_equal(runtime_volatile_directory(config, "/state/c", first, &error), 0);
    assert_int_equal(strncmp(first, scratch, strlen(scratch)), 0);
    unsetenv("RUNTIME_DIRECTORY");
    free(config);
}

static void
memory_is_locked_only_when_safe(void **state)
{
    bool locked = true;
    struct error error = { 0 };
    (void)state;
    assert_int_equal(runtime_lock_memory(CONFIG_NO, &locked, &error), 0);
    assert_false(locked);
}

static void
cpus_are_found(void **state)
{
    int cpus[4] = { -1, -1, -1, -1 };
    (void)state;
    assert_int_equal(runtime_cpus(cpus, 1), 1);
    assert_true(cpus[0] >= 0);
    assert_int_equal(cpus[1], -1);
}

static void
pools_are_listed_and_removed(void **state)
{
    struct node *node = calloc(1, sizeof(*node));
    struct byte_buffer names = BYTE_BUFFER_INIT;
    struct error error = { 0 };
    char path[CONFIG_TEXT_SIZE];
    (void)state;
    assert_non_null(node);
    path_of("stores", node->state_directory);
    assert_int_equal(mkdir(node->state_directory, 0700), 0);
    assert_int_equal(stores_list(node, &names, &error), 0); /* no folder of pools yet */
    assert_int_equal(names.length_bytes, 0);
    struct store *store = NULL;
    assert_int_equal(stores_open_read_only(node, "fast", &store, &error), -ENOENT);
    assert_non_null(strstr(error.message, "there is no pool \"fast\""));
    error = (struct error){ 0 };
    assert_int_equal(stores_open(node, "fast", true, &store, &error), 0);
    store->ops->close(store);
    assert_int_equal(stores_open(node, "fast", true, &store, &error), -EEXIST);
    error = (struct error){ 0 };
    assert_int_equal(stores_open_read_only(node, "fast", &store, &error), 0);
    store->ops->close(store);
    /* Without a database it is no pool. */
    assert_int_equal(mkdir(path_of("stores/pools/half", path), 0700), 0);
    assert_int_equal(stores_list(node, &names, &error), 0);
    assert_int_equal(names.length_bytes, 5);
    assert_string_equal((char *)names.data, "fast");
    error = (struct error){ 0 };
    assert_int_equal(stores_remove(node, "fast", &error), 0);
    assert_int_not_equal(access(path_of("stores/pools/fast", path), F_OK), 0);
    assert_int_equal(stores_remove(node, "fast", &error), 0); /* again: it is gone */
    byte_buffer_free(&names);
    free(node);
}

static void
host_keeps_its_identity(void **state)
{
    uint8_t first[GUID_BYTES];
    uint8_t second[GUID_BYTES];
    struct error error = { 0 };
    (void)state;
    assert_int_equal(stores_host_guid(scratch, first, &error), 0);
    assert_int_equal(stores_host_guid(scratch, second, &error), 0);
    assert_memory_equal(first, second, GUID_BYTES);
}

static int
make_scratch(void **state)
{
    (void)state;
    log_set_level(LOG_LEVEL_ERROR);
    return mkdtemp(scratch) != NULL ? 0 : -1;
}

static int
remove_scratch(void **state)
{
    char command[128];
    (void)state;
    snprintf(command, sizeof(command), "rm -rf '%s'", scratch);
    return system(command);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(state_is_locked),
        cmocka_unit_test(bad_states_are_refused),
        cmocka_unit_test(volatile_directory_is_chosen),
        cmocka_unit_test(memory_is_locked_only_when_safe),
        cmocka_unit_test(cpus_are_found),
        cmocka_unit_test(pools_are_listed_and_removed),
        cmocka_unit_test(host_keeps_its_identity),
    };
    return cmocka_run_group_tests(tests, make_scratch, remove_scratch);
}
