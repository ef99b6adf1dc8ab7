/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The configuration of a daemon: built-in defaults, then the configuration file, then the command
 * line.
 *
 * The file has sections and keys:
 *
 *     # a comment: a line that begins with # or ;
 *     [nbd]
 *     listen = 192.0.2.1:10809
 *
 * One table (config.c) describes every key with its type, limits and help; `volmgrd
 * --print-config` prints it as a commented file. An unknown section or key, a value out of its
 * limits and a key that is given twice are errors with the number of the line; nothing is ignored.
 * Secrets never stand in the file: keys name files that hold them.
 */
#ifndef DAEMON_CONFIG_H
#define DAEMON_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "base/error.h"

enum {
    CONFIG_TEXT_SIZE = 1024, /* of a text value, with its NUL */
    CONFIG_LIST_MAX = 16,    /* values of a key that may be repeated */
    CONFIG_FILE_BYTES_MAX = 1 << 20,
};

enum config_switch {
    CONFIG_AUTO,
    CONFIG_YES,
    CONFIG_NO,
};

struct config_list {
    char items[CONFIG_LIST_MAX][CONFIG_TEXT_SIZE];
    uint64_t count;
};

struct config {
    /* command line only */
    char state_directory[CONFIG_TEXT_SIZE];
    bool accept_loss;

    struct {
        uint64_t log_level; /* enum log_level */
        uint64_t reactors;  /* 0: one per CPU that we may use */
        uint64_t pin_reactors;
        uint64_t spin_us;
        uint64_t poll_us;
        uint64_t poll_percent;
        uint64_t buffer_bytes; /* per reactor */
        uint64_t lock_memory; /* enum config_switch */
        char volatile_directory[CONFIG_TEXT_SIZE]; /* empty: chosen by runtime.c */
        uint64_t shutdown_timeout_ns;
    } daemon;

    struct {
        uint64_t map_cache_bytes;
        uint64_t metadata_cache_bytes; /* per pool */
        uint64_t ballast_bytes; /* per pool, kept free on the device of the state directory */
        uint64_t journal_bytes;
        uint64_t commit_interval_ns;
        uint64_t disk_timeout_ns;
        uint64_t request_timeout_ns;
    } pool;

    struct {
        char socket[CONFIG_TEXT_SIZE]; /* empty: volmgrd.sock in the state directory */
        char group[CONFIG_TEXT_SIZE];  /* empty: not changed */
        struct config_list listen;     /* HOST:PORT, with TLS */
        struct config_list administrators; /* names of certificates; none: all */
        char tls_certificate[CONFIG_TEXT_SIZE]; /* these name files; empty: none */
        char tls_key[CONFIG_TEXT_SIZE];
        char tls_ca[CONFIG_TEXT_SIZE];
        char tls_crl[CONFIG_TEXT_SIZE];
        uint64_t tls_verify_client;
        uint64_t connections;
        uint64_t body_bytes;
        uint64_t idle_timeout_ns;
    } api;

    struct {
        struct config_list listen;        /* HOST:PORT */
        char unix_path[CONFIG_TEXT_SIZE]; /* empty: nbd.sock in the state directory; "none" */
        uint64_t unix_mode;               /* permission bits */
        uint64_t tls;                     /* enum nbd_tls_mode, for `listen` */
        uint64_t unix_tls;                /* enum nbd_tls_mode, for the unix socket */
        char tls_ca[CONFIG_TEXT_SIZE];    /* these name files; empty: none */
        char tls_crl[CONFIG_TEXT_SIZE];
        char tls_certificate[CONFIG_TEXT_SIZE];
        char tls_key[CONFIG_TEXT_SIZE];
        char tls_psk[CONFIG_TEXT_SIZE];
        char tls_priority[CONFIG_TEXT_SIZE];
        uint64_t tls_verify_client;
        uint64_t connections;
        uint64_t requests_per_connection;
        uint64_t bytes_per_connection;
        uint64_t handshake_timeout_ns;
        uint64_t stuck_timeout_ns;
        uint64_t drain_timeout_ns;
        uint64_t idle_timeout_ns; /* 0: never */
    } nbd;
};

/* The built-in values. */
void config_default(struct config *config);

/*
 * Take the text of a configuration file. `name` is for messages. 0, or -EINVAL with "NAME:LINE:
 * ..." in `error`; `config` then holds what came before the error. Foreign bytes (P12).
 */
int config_parse(struct config *config, const char *name, const char *text, size_t length,
                 struct error *error);

/* Read a file and take it. 0, -errno of reading it, or as config_parse(). */
int config_load(struct config *config, const char *path, struct error *error);

/* What the values must satisfy together. 0 or -EINVAL. */
int config_check(const struct config *config, struct error *error);

/* All keys with their help and their built-in values, as a configuration file of comments. */
void config_print(FILE *to);

/* "500ms", "30s", "2m", "1h"; a bare number is seconds. 0, -EINVAL or -ERANGE. */
int config_parse_duration(const char *text, uint64_t *ret_ns);

#endif
