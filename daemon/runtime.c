/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/runtime.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <linux/magic.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/log.h"
#include "base/util.h"

#ifndef PR_SET_IO_FLUSHER
#define PR_SET_IO_FLUSHER 57
#define PR_GET_IO_FLUSHER 58
#endif

/* ---- the state directory ---- */

static int
resolve(const char *directory, char *ret_path, struct error *error)
{
    char *path = realpath(directory, NULL);
    if (path == NULL) {
        return error_set(error, -errno, "cannot use the state directory %s: %s", directory,
                         error_name(errno));
    }
    size_t length = strlen(path);
    int result = 0;
    if (length >= CONFIG_TEXT_SIZE) {
        result = error_set(error, -ENAMETOOLONG, "the state directory's name is too long: %s",
                           directory);
    } else {
        memcpy(ret_path, path, length + 1);
    }
    free(path);
    return result;
}

static void
read_holder(int fd, char text[static 32])
{
    ssize_t got = pread(fd, text, 31, 0);
    text[got > 0 ? got : 0] = '\0';
    text[strspn(text, "0123456789")] = '\0';
}

static int
lock_state(const char *path, int *ret_fd, struct error *error)
{
    char name[CONFIG_TEXT_SIZE + 16];
    snprintf(name, sizeof(name), "%s/lock", path);
    int fd = open(name, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0640);
    if (fd < 0) {
        return error_set(error, -errno, "cannot open %s: %s", name, error_name(errno));
    }
    struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
    if (fcntl(fd, F_OFD_SETLK, &lock) < 0) {
        int code = -errno;
        char holder[32];
        read_holder(fd, holder);
        close(fd);
        if (code != -EAGAIN && code != -EACCES) {
            return error_set(error, code, "cannot lock %s: %s", name, error_name(code));
        }
        return error_set(error, -EBUSY,
                         "%s is in use by another volmgrd%s%s; one state directory serves one "
                         "daemon",
                         path, holder[0] != '\0' ? ", process " : "", holder);
    }
    /* Only for the message above; a failure to write it harms nothing. */
    char text[32];
    int length = snprintf(text, sizeof(text), "%d\n", (int)getpid());
    if (ftruncate(fd, 0) == 0 && pwrite(fd, text, (size_t)length, 0) != length) {
        log_debug("daemon", "cannot note the process id in %s", name);
    }
    *ret_fd = fd;
    return 0;
}

int
runtime_open_state(const char *directory, char *ret_path, int *ret_lock_fd, struct error *error)
{
    char path[CONFIG_TEXT_SIZE];
    ASSERT(directory[0] != '\0');
    if (mkdir(directory, 0750) < 0 && errno != EEXIST) {
        return error_set(error, -errno, "cannot make the state directory %s: %s", directory,
                         error_name(errno));
    }
    int result = resolve(directory, path, error);
    if (result == 0) {
        result = lock_state(path, ret_lock_fd, error);
    }
    if (result == 0) {
        memcpy(ret_path, path, sizeof(path));
    }
    return result;
}

/* ---- the volatile directory ---- */

static bool
is_memory(const char *path)
{
    struct statfs fs;
    return statfs(path, &fs) == 0 && (fs.f_type == TMPFS_MAGIC || fs.f_type == RAMFS_MAGIC);
}

/* A directory of ours that nobody else can change; made when absent. */
static int
make_private(const char *path, struct error *error)
{
    struct stat status;
    if (mkdir(path, 0700) < 0 && errno != EEXIST) {
        return error_set(error, -errno, "cannot make %s: %s", path, error_name(errno));
    }
    if (lstat(path, &status) < 0) {
        return error_set(error, -errno, "cannot look at %s: %s", path, error_name(errno));
    }
    if (!S_ISDIR(status.st_mode) || status.st_uid != geteuid() || (status.st_mode & 022) != 0) {
        return error_set(error, -EPERM,
                         "%s is not a directory that belongs to this user alone", path);
    }
    return 0;
}

/* One directory for each state directory, so that several daemons can share the parent. */
static uint64_t
hash_text(const char *text)
{
    uint64_t hash = UINT64_C(0xcbf29ce484222325);
    for (; *text != '\0'; text++) {
        hash = hash_u64(hash ^ (unsigned char)*text);
    }
    return hash;
}

static int
use_parent(const char *parent, bool make, const char *state_directory, char *ret_path,
           struct error *error)
{
    char path[CONFIG_TEXT_SIZE];
    int result = make ? make_private(parent, error) : 0;
    if (result < 0) {
        return result;
    }
    if (!is_memory(parent)) {
        return error_set(error, -EINVAL, "%s is not on tmpfs", parent);
    }
    int length = snprintf(path, sizeof(path), "%s/%016" PRIx64, parent,
                          hash_text(state_directory));
    if ((size_t)length >= sizeof(path)) {
        return error_set(error, -ENAMETOOLONG, "%s: the name is too long", parent);
    }
    result = make_private(path, error);
    if (result == 0) {
        memcpy(ret_path, path, sizeof(path));
    }
    return result;
}

/*
 * $XDG_RUNTIME_DIR is not among them: it goes away with the user's last login. (So may files in
 * /dev/shm, where logind is told to RemoveIPC and the daemon was dead by then; the next start
 * notices that and says so.)
 */
int
runtime_volatile_directory(const struct config *config, const char *state_directory,
                           char *ret_path, struct error *error)
{
    if (config->daemon.volatile_directory[0] != '\0') {
        return use_parent(config->daemon.volatile_directory, false, state_directory, ret_path,
                          error);
    }
    char parent[CONFIG_TEXT_SIZE];
    struct error ignored = { 0 };
    const char *given = getenv("RUNTIME_DIRECTORY");
    if (given != NULL && given[0] == '/') {
        snprintf(parent, sizeof(parent), "%.*s", (int)strcspn(given, ":"), given);
        if (use_parent(parent, false, state_directory, ret_path, &ignored) == 0) {
            return 0;
        }
        log_warning("daemon", "RUNTIME_DIRECTORY cannot be used: %s", ignored.message);
    }
    if (is_memory("/run") && (geteuid() == 0 || access("/run/volmgr", W_OK) == 0) &&
        use_parent("/run/volmgr", true, state_directory, ret_path, &ignored) == 0) {
        return 0;
    }
    snprintf(parent, sizeof(parent), "/dev/shm/volmgr-%u", (unsigned)geteuid());
    int result = use_parent(parent, true, state_directory, ret_path, error);
    if (result < 0) {
        error_prefix(error, "no place for the volatile journals; name one on tmpfs as "
                            "[daemon] volatile_directory");
    }
    return result;
}

/* ---- memory and limits ---- */

void
runtime_raise_limits(void)
{
    static const int which[] = { RLIMIT_NOFILE, RLIMIT_MEMLOCK };
    for (size_t i = 0; i < ARRAY_SIZE(which); i++) {
        struct rlimit limit;
        if (getrlimit((__rlimit_resource_t)which[i], &limit) == 0 &&
            limit.rlim_cur < limit.rlim_max) {
            limit.rlim_cur = limit.rlim_max;
            if (setrlimit((__rlimit_resource_t)which[i], &limit) < 0) {
                log_debug("daemon", "cannot raise resource limit %d: %s", which[i],
                          error_name(errno));
            }
        }
    }
}

/*
 * With a finite limit mlockall() would succeed now and let some later allocation fail. CAP_IPC_LOCK
 * shows in that an unprivileged limit of zero still lets us lock: the kernel's own test.
 */
static bool
may_lock_everything(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_MEMLOCK, &limit) < 0) {
        return false;
    }
    if (limit.rlim_cur == RLIM_INFINITY) {
        return true;
    }
    struct rlimit none = { .rlim_cur = 0, .rlim_max = limit.rlim_max };
    if (setrlimit(RLIMIT_MEMLOCK, &none) < 0) {
        return false;
    }
    char byte = 0;
    bool may = mlock(&byte, sizeof(byte)) == 0;
    if (may) {
        munlock(&byte, sizeof(byte));
    }
    int result = setrlimit(RLIMIT_MEMLOCK, &limit);
    ASSERT_OP(result, ==, 0);
    return may;
}

int
runtime_lock_memory(enum config_switch wanted, bool *ret_locked, struct error *error)
{
    *ret_locked = false;
    if (wanted == CONFIG_NO) {
        return 0;
    }
    int code = -EPERM;
    if (may_lock_everything()) {
        if (mlockall(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT) == 0) {
            *ret_locked = true;
            return 0;
        }
        code = -errno;
    }
    if (wanted == CONFIG_YES) {
        return error_set(error, code,
                         "cannot lock memory: %s; give the daemon CAP_IPC_LOCK or an unlimited "
                         "RLIMIT_MEMLOCK (LimitMEMLOCK=infinity), or set [daemon] lock_memory = "
                         "auto",
                         error_name(code));
    }
    log_warning("daemon",
                "memory is not locked (%s): a host on this machine that uses its own volumes may "
                "deadlock when memory is short",
                error_name(code));
    return 0;
}

void
runtime_become_io_flusher(void)
{
    if (prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0) < 0) {
        log_warning("daemon",
                    "not an I/O flusher (%s; needs CAP_SYS_RESOURCE): a host on this machine that "
                    "uses its own volumes may deadlock when memory is short",
                    error_name(errno));
    }
}

bool
runtime_is_io_flusher(void)
{
    /* Asking needs the same capability: without it we are none. */
    return prctl(PR_GET_IO_FLUSHER, 0, 0, 0, 0) == 1;
}

size_t
runtime_cpus(int *ret_cpus, size_t max)
{
    cpu_set_t set;
    size_t count = 0;
    ASSERT(max > 0);
    if (sched_getaffinity(0, sizeof(set), &set) == 0) {
        for (int cpu = 0; cpu < CPU_SETSIZE && count < max; cpu++) {
            if (CPU_ISSET(cpu, &set)) {
                ret_cpus[count++] = cpu;
            }
        }
    }
    if (count == 0) {
        ret_cpus[count++] = 0;
    }
    return count;
}
