/* SPDX-License-Identifier: Apache-2.0 */
/* volmgrd: options, signals, readiness. Everything else is a node (node.h). */
#include <errno.h>
#include <getopt.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/log.h"
#include "base/util.h"
#include "daemon/api_server.h"
#include "daemon/config.h"
#include "daemon/manual.h"
#include "daemon/node.h"
#include "daemon/offline.h"
#include "daemon/runtime.h"
#include "targets/nbd/server.h"

enum {
    EXIT_OK = 0,
    EXIT_FAILED = 1,
    EXIT_USAGE = 2,
    WATCHDOG_IDLE_MS = 60 * 1000, /* how long to sleep when nobody watches */
};

enum option_id {
    OPTION_STATE = 256,
    OPTION_CONFIG,
    OPTION_NBD,
    OPTION_NBD_UNIX,
    OPTION_REACTORS,
    OPTION_POLL_US,
    OPTION_LOG_LEVEL,
    OPTION_ACCEPT_LOSS,
    OPTION_FOREGROUND,
    OPTION_PRINT_CONFIG,
    OPTION_GENERATE_MAN,
    OPTION_CHECK,
    OPTION_DUMP,
    OPTION_POOL,
    OPTION_VERSION,
    OPTION_HELP,
};

static const struct option options[] = {
    { "state", required_argument, NULL, OPTION_STATE },
    { "config", required_argument, NULL, OPTION_CONFIG },
    { "nbd", required_argument, NULL, OPTION_NBD },
    { "nbd-unix", required_argument, NULL, OPTION_NBD_UNIX },
    { "reactors", required_argument, NULL, OPTION_REACTORS },
    { "poll-us", required_argument, NULL, OPTION_POLL_US },
    { "log-level", required_argument, NULL, OPTION_LOG_LEVEL },
    { "accept-loss", no_argument, NULL, OPTION_ACCEPT_LOSS },
    { "foreground", no_argument, NULL, OPTION_FOREGROUND },
    { "print-config", no_argument, NULL, OPTION_PRINT_CONFIG },
    { "check", no_argument, NULL, OPTION_CHECK },
    { "dump", no_argument, NULL, OPTION_DUMP },
    { "pool", required_argument, NULL, OPTION_POOL },
    { "generate-man", no_argument, NULL, OPTION_GENERATE_MAN },
    { "version", no_argument, NULL, OPTION_VERSION },
    { "help", no_argument, NULL, OPTION_HELP },
    { NULL, 0, NULL, 0 },
};

/* Says what is wrong with the command line; returns the exit status. */
static int
usage_error(const char *message)
{
    fprintf(stderr, "volmgrd: %s\nTry 'volmgrd --help'.\n", message);
    return EXIT_USAGE;
}

/* An option that is a configuration key: the same words, limits and messages. */
static int
take_key(struct config *config, const char *section, const char *key, const char *value)
{
    char text[2 * CONFIG_TEXT_SIZE];
    struct error error = { 0 };
    int length = snprintf(text, sizeof(text), "[%s]\n%s = %s", section, key, value);
    if (length < 0 || (size_t)length >= sizeof(text) || strchr(value, '\n') != NULL) {
        return usage_error("the value of an option is too long or has a line break");
    }
    if (config_parse(config, "command line", text, (size_t)length, &error) < 0) {
        return usage_error(error.message);
    }
    return EXIT_OK;
}

/* What to do with a state directory instead of serving it. */
struct offline_task {
    bool check;
    bool dump;
    const char *pool; /* NULL: all */
};

/* First pass: options that end the program or come before the file. -1: go on. */
static int
parse_first(int argc, char **argv, struct config *config, struct offline_task *task)
{
    int id;
    const char *file = NULL;
    while ((id = getopt_long(argc, argv, "", options, NULL)) != -1) {
        switch (id) {
        case OPTION_HELP:
            fputs(manual_usage, stdout);
            return EXIT_OK;
        case OPTION_VERSION:
            puts("volmgrd " VOLMGR_VERSION);
            return EXIT_OK;
        case OPTION_PRINT_CONFIG:
            config_print(stdout);
            return EXIT_OK;
        case OPTION_CHECK:
            task->check = true;
            break;
        case OPTION_DUMP:
            task->dump = true;
            break;
        case OPTION_POOL:
            task->pool = optarg;
            break;
        case OPTION_GENERATE_MAN:
            manual_print(stdout);
            return EXIT_OK;
        case OPTION_CONFIG:
            file = optarg;
            break;
        case OPTION_STATE:
            if (strlen(optarg) >= sizeof(config->state_directory) || *optarg == '\0') {
                return usage_error("--state needs the name of a directory");
            }
            snprintf(config->state_directory, sizeof(config->state_directory), "%s", optarg);
            break;
        case '?':
            fputs("Try 'volmgrd --help'.\n", stderr);
            return EXIT_USAGE;
        default:
            break;
        }
    }
    if (optind < argc) {
        return usage_error("it takes options only");
    }
    if (config->state_directory[0] == '\0') {
        return usage_error("--state DIR is missing");
    }
    struct error error = { 0 };
    if (file != NULL && config_load(config, file, &error) < 0) {
        fprintf(stderr, "volmgrd: %s\n", error.message);
        return EXIT_USAGE;
    }
    return -1;
}

/* Second pass: options that override the file. -1: go on. */
static int
parse_second(int argc, char **argv, struct config *config)
{
    int id;
    bool first_listen = true;
    int result = EXIT_OK;
    optind = 1;
    while (result == EXIT_OK && (id = getopt_long(argc, argv, "", options, NULL)) != -1) {
        switch (id) {
        case OPTION_NBD:
            if (first_listen) {
                config->nbd.listen.count = 0;
                first_listen = false;
            }
            result = take_key(config, "nbd", "listen", optarg);
            break;
        case OPTION_NBD_UNIX:
            result = take_key(config, "nbd", "unix", optarg);
            break;
        case OPTION_REACTORS:
            result = take_key(config, "daemon", "reactors", optarg);
            break;
        case OPTION_POLL_US:
            result = take_key(config, "daemon", "poll_us", optarg);
            break;
        case OPTION_LOG_LEVEL:
            result = take_key(config, "daemon", "log_level", optarg);
            break;
        case OPTION_ACCEPT_LOSS:
            config->accept_loss = true;
            break;
        default:
            break;
        }
    }
    struct error error = { 0 };
    if (result == EXIT_OK && config_check(config, &error) < 0) {
        return usage_error(error.message);
    }
    return result == EXIT_OK ? -1 : result;
}

/* ---- signals ---- */

static int
open_signals(void)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGHUP);
    /* Before any thread: all of them inherit it, so that signals come by the descriptor only. */
    int result = sigprocmask(SIG_BLOCK, &set, NULL);
    ASSERT_OP(result, ==, 0);
    signal(SIGPIPE, SIG_IGN);
    return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

/* The next signal, or 0. */
static int
take_signal(int fd)
{
    struct signalfd_siginfo info;
    ssize_t got = read(fd, &info, sizeof(info));
    return got == (ssize_t)sizeof(info) ? (int)info.ssi_signo : 0;
}

/* Whether standard error is the journal's stream that the environment names. */
static bool
is_journal(void)
{
    const char *stream = getenv("JOURNAL_STREAM");
    struct stat status;
    char own[64];
    if (stream == NULL || fstat(STDERR_FILENO, &status) < 0) {
        return false;
    }
    snprintf(own, sizeof(own), "%llu:%llu", (unsigned long long)status.st_dev,
             (unsigned long long)status.st_ino);
    return strcmp(own, stream) == 0;
}

/* ---- reload ---- */

struct reload {
    struct message message;
    struct node *node;
};

static void
reload_deliver(struct message *message)
{
    struct reload *reload = container_of(message, struct reload, message);
    struct error error = { 0 };
    if (nbd_server_reload_tls(reload->node->nbd, &error) < 0) {
        log_error("daemon", "the TLS files were not read again: %s", error.message);
    } else {
        log_notice("daemon", "the TLS files were read again");
    }
    free(reload);
}

static void
reload_api(struct node *node)
{
    struct error error = { 0 };
    if (node->config.api.listen.count == 0) {
        return;
    }
    if (api_server_reload_tls(node->api, &error) < 0) {
        log_error("daemon", "the API's TLS files were not read again: %s", error.message);
    } else {
        log_notice("daemon", "the API's TLS files were read again");
    }
}

static void
reload_tls(struct node *node)
{
    reload_api(node);
    if (node->nbd == NULL) {
        return;
    }
    struct reload *reload = calloc(1, sizeof(*reload));
    ASSERT(reload != NULL);
    reload->node = node;
    reactor_send(node->reactors[0], &reload->message, reload_deliver);
}

/* ---- serving ---- */

/* Until a signal says to end. */
static void
serve(struct node *node, int signal_fd)
{
    uint64_t watchdog_us = 0;
    bool watched = sd_watchdog_enabled(0, &watchdog_us) > 0;
    /* Half a period between two pulses: one that is late is noticed, and there is still time. */
    int wait_ms = watched ? (int)MAX(watchdog_us / 2000, UINT64_C(1)) : WATCHDOG_IDLE_MS;
    for (;;) {
        struct pollfd poll_fd = { .fd = signal_fd, .events = POLLIN };
        int ready = poll(&poll_fd, 1, wait_ms);
        if (ready > 0) {
            int number = take_signal(signal_fd);
            if (number == SIGHUP) {
                reload_tls(node);
            } else if (number != 0) {
                log_notice("daemon", "ending: %s", sigdescr_np(number));
                return;
            }
        } else if (ready == 0 && watched) {
            if (node_is_alive(node)) {
                sd_notify(0, "WATCHDOG=1");
            } else {
                log_error("daemon", "a reactor does not answer");
            }
        }
    }
}

static int
end(struct node *node, int signal_fd, int status)
{
    struct error error = { 0 };
    sd_notify(0, "STOPPING=1");
    if (node_stop(node, signal_fd, &error) < 0) {
        if (status == EXIT_OK) {
            log_error("daemon", "did not end in order: %s", error.message);
        }
        /* Threads may still use what the node owns: leave as if killed (N2, P3). */
        _exit(EXIT_FAILED);
    }
    node_destroy(node);
    return status;
}

/* Look at a state directory instead of serving it. */
static int
look(const struct config *config, const struct offline_task *task)
{
    struct error error = { 0 };
    int result;
    if (task->dump && task->pool == NULL) {
        return usage_error("--dump needs --pool POOL");
    }
    runtime_raise_limits();
    if (task->dump) {
        result = offline_dump(config, task->pool, stdout, &error);
    } else {
        result = offline_check(config, task->pool, stdout, &error);
    }
    if (error.code != 0) {
        fprintf(stderr, "volmgrd: %s\n", error.message);
    }
    return result == 0 && fflush(stdout) == 0 ? EXIT_OK : EXIT_FAILED;
}

static int
run(const struct config *config)
{
    struct error error = { 0 };
    struct node *node = NULL;
    bool locked = false;
    int signal_fd = open_signals();
    ASSERT_OP(signal_fd, >=, 0);
    runtime_raise_limits();
    if (runtime_lock_memory((enum config_switch)config->daemon.lock_memory, &locked, &error) < 0 ||
        node_create(config, locked, &node, &error) < 0) {
        log_error("daemon", "cannot start: %s", error.message);
        return EXIT_FAILED;
    }
    if (node_start(node, signal_fd, &error) < 0) {
        log_error("daemon", "cannot start: %s", error.message);
        return end(node, -1, EXIT_FAILED);
    }
    sd_notify(0, "READY=1");
    puts("ready");
    fflush(stdout);
    serve(node, signal_fd);
    return end(node, signal_fd, EXIT_OK);
}

int
main(int argc, char **argv)
{
    struct config *config = calloc(1, sizeof(*config));
    ASSERT(config != NULL);
    config_default(config);
    struct offline_task task = { 0 };
    int status = parse_first(argc, argv, config, &task);
    if (status < 0) {
        status = parse_second(argc, argv, config);
    }
    if (status < 0) {
        log_set_level((enum log_level)config->daemon.log_level);
        log_set_journal_format(is_journal());
        if (task.check || task.dump) {
            status = look(config, &task);
        } else {
            runtime_become_io_flusher();
            status = run(config);
        }
    }
    free(config);
    return status;
}
