/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/stores.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <systemd/sd-id128.h>
#include <unistd.h>

#include "base/assert.h"
#include "daemon/node.h"
#include "metadata/store.h"

enum {
    PATH_SIZE = CONFIG_TEXT_SIZE + NAME_BYTES_MAX + 48,
    REMOVE_DESCRIPTORS = 16,
};

static void
pools_path(const struct node *node, char path[static PATH_SIZE])
{
    snprintf(path, PATH_SIZE, "%s/pools", node->state_directory);
}

static void
pool_path(const struct node *node, const char *pool_name, const char *below,
          char path[static PATH_SIZE])
{
    ASSERT(schema_name_is_valid(pool_name));
    snprintf(path, PATH_SIZE, "%s/pools/%s%s", node->state_directory, pool_name, below);
}

/* A new name in a directory is durable when the directory is. */
static int
sync_directory(const char *path, struct error *error)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) {
        return error_set(error, -errno, "cannot open %s: %s", path, error_name(errno));
    }
    int result = fsync(fd) < 0 ? error_set(error, -errno, "cannot make %s durable: %s", path,
                                           error_name(errno))
                               : 0;
    close(fd);
    return result;
}

static int
make_directories(const struct node *node, const char *pool_name, struct error *error)
{
    char pools[PATH_SIZE];
    char pool[PATH_SIZE];
    pools_path(node, pools);
    pool_path(node, pool_name, "", pool);
    if (mkdir(pools, 0750) < 0 && errno != EEXIST) {
        return error_set(error, -errno, "cannot make %s: %s", pools, error_name(errno));
    }
    if (mkdir(pool, 0750) < 0 && errno != EEXIST) {
        return error_set(error, -errno, "cannot make %s: %s", pool, error_name(errno));
    }
    int result = sync_directory(node->state_directory, error);
    return result == 0 ? sync_directory(pools, error) : result;
}

int
stores_open(void *context, const char *pool_name, bool create, struct store **ret_store,
            struct error *error)
{
    const struct node *node = context;
    char directory[PATH_SIZE];
    pool_path(node, pool_name, "/db", directory);
    int result = create ? make_directories(node, pool_name, error) : 0;
    if (result < 0) {
        return result;
    }
    struct store_rocksdb_options options = {
        .directory = directory,
        .create = create,
        .cache_bytes = node->config.pool.metadata_cache_bytes,
        .ballast_bytes = node->config.pool.ballast_bytes,
        .merge = schema_merge,
    };
    return store_rocksdb_open(&options, ret_store, error);
}

int
stores_open_read_only(const void *context, const char *pool_name, struct store **ret_store,
                      struct error *error)
{
    const struct node *node = context;
    char directory[PATH_SIZE];
    pool_path(node, pool_name, "/db", directory);
    if (access(directory, F_OK) < 0) {
        return error_set(error, -ENOENT, "there is no pool \"%s\" in %s", pool_name,
                         node->state_directory);
    }
    struct store_rocksdb_options options = {
        .directory = directory,
        .read_only = true,
        .cache_bytes = node->config.pool.metadata_cache_bytes,
        .merge = schema_merge,
    };
    return store_rocksdb_open(&options, ret_store, error);
}

static int
remove_entry(const char *path, const struct stat *status, int type, struct FTW *walk)
{
    (void)status, (void)type, (void)walk;
    return remove(path) < 0 && errno != ENOENT ? -errno : 0;
}

int
stores_remove(void *context, const char *pool_name, struct error *error)
{
    char directory[PATH_SIZE];
    pool_path(context, pool_name, "", directory);
    int result = nftw(directory, remove_entry, REMOVE_DESCRIPTORS, FTW_DEPTH | FTW_PHYS);
    if (result == -1) {
        result = -errno; /* of the walk itself; remove_entry() has only ever others */
    }
    if (result == -ENOENT || result == 0) {
        return 0;
    }
    return error_set(error, result, "cannot remove %s: %s", directory, error_name(result));
}

int
stores_list(void *context, struct byte_buffer *ret_names, struct error *error)
{
    char path[PATH_SIZE];
    pools_path(context, path);
    DIR *directory = opendir(path);
    if (directory == NULL) {
        return errno == ENOENT ? 0
                               : error_set(error, -errno, "cannot read %s: %s", path,
                                           error_name(errno));
    }
    const struct dirent *entry;
    while ((entry = readdir(directory)) != NULL) {
        char database[PATH_SIZE];
        struct stat status;
        if (!schema_name_is_valid(entry->d_name)) {
            continue;
        }
        /* A directory without a database was never made to the end: it is no pool. */
        pool_path(context, entry->d_name, "/db", database);
        if (stat(database, &status) == 0 && S_ISDIR(status.st_mode)) {
            byte_buffer_append(ret_names, entry->d_name, strlen(entry->d_name) + 1);
        }
    }
    closedir(directory);
    return 0;
}

int
stores_free_bytes(void *context, uint64_t *ret_free_bytes)
{
    const struct node *node = context;
    struct statvfs status;

    if (statvfs(node->state_directory, &status) < 0) {
        return -errno;
    }
    *ret_free_bytes = (uint64_t)status.f_bavail * status.f_frsize;
    return 0;
}

/* ---- identity ---- */

static int
read_guid(const char *path, uint8_t guid[static GUID_BYTES])
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return -errno;
    }
    ssize_t got = read(fd, guid, GUID_BYTES);
    close(fd);
    return got == GUID_BYTES ? 0 : -EUCLEAN;
}

static int
write_guid(const char *path, const uint8_t guid[static GUID_BYTES])
{
    char temporary[PATH_SIZE];
    snprintf(temporary, sizeof(temporary), "%s.new", path);
    int fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0640);
    if (fd < 0) {
        return -errno;
    }
    ssize_t written = write(fd, guid, GUID_BYTES);
    int result = written < 0 ? -errno : written == GUID_BYTES ? 0 : -ENOSPC;
    if (result == 0 && fsync(fd) < 0) {
        result = -errno;
    }
    close(fd);
    if (result == 0 && rename(temporary, path) < 0) {
        result = -errno;
    }
    return result;
}

int
stores_host_guid(const char *state_directory, uint8_t ret_guid[static GUID_BYTES],
                 struct error *error)
{
    static const sd_id128_t application =
        SD_ID128_MAKE(6f, 31, 0c, d2, 8a, 4e, 4b, 77, 93, 15, e8, 5d, 02, c6, b1, 4a);
    sd_id128_t machine;
    _Static_assert(sizeof(machine.bytes) == GUID_BYTES, "both are 128 bits");
    if (sd_id128_get_machine_app_specific(application, &machine) >= 0) {
        memcpy(ret_guid, machine.bytes, GUID_BYTES);
        return 0;
    }
    char path[PATH_SIZE - 8];
    uint8_t guid[GUID_BYTES];
    snprintf(path, sizeof(path), "%s/host-id", state_directory);
    int result = read_guid(path, guid);
    if (result == -ENOENT || result == -EUCLEAN) {
        ssize_t got = getrandom(guid, sizeof(guid), 0);
        ASSERT_OP(got, ==, (ssize_t)sizeof(guid));
        result = write_guid(path, guid);
    }
    if (result < 0) {
        return error_set(error, result, "cannot keep this host's identity in %s: %s", path,
                         error_name(result));
    }
    memcpy(ret_guid, guid, GUID_BYTES);
    return 0;
}
