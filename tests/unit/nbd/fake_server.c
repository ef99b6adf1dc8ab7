/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The NBD target as a program of its own, over fake volumes in memory: for real clients and for
 * measuring. Exports pool/disk (writable), pool/ro (read-only, the same memory size), pool/4k.
 * Prints one line "ready ADDRESS..." and serves until SIGTERM or SIGINT.
 */
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "base/log.h"
#include "base/size_text.h"
#include "base/util.h"
#include "io/platform.h"
#include "io/reactor.h"
#include "targets/nbd/server.h"
#include "tests/unit/nbd/fake_volume.h"

enum {
    LISTENS_MAX = 8,
    REACTORS_MAX = 8,
};

struct settings {
    struct nbd_listen listens[LISTENS_MAX];
    uint32_t listen_count;
    uint32_t reactor_count;
    uint32_t spin_us;
    uint64_t size_bytes;
    uint64_t pool_bytes;
    const char *file;
    const char *snapshot;
    bool fill;
    bool lock;
    enum nbd_tls_mode tls;
    struct nbd_server_options server;
};

static _Noreturn void
usage(void)
{
    fprintf(stderr,
            "usage: nbd_fake_server [options] --listen unix:PATH|tcp:HOST:PORT ...\n"
            "  --size SIZE --file PATH --fill --reactors N --spin US --pool SIZE --mlock --debug\n"
            "  --tls off|optional|required --ca F --crl F --cert F --key F --verify --psk F\n"
            "  --connections N --slots N --handshake-timeout S\n"
            "  --snapshot NAME (of pool/disk, as it is at the start)\n");
    exit(2);
}

static uint64_t
parse_bytes(const char *text)
{
    uint64_t bytes;
    if (size_parse(text, &bytes) < 0) {
        usage();
    }
    return bytes;
}

static void
parse(int argc, char **argv, struct settings *settings)
{
    enum { LISTEN = 1, SIZE, FILE_, FILL, REACTORS, SPIN, POOL, MLOCK, DEBUG, TLS, CA, CRL, CERT,
           KEY, VERIFY, PSK, CONNECTIONS, SLOTS, HANDSHAKE, SNAPSHOT };
    static const struct option options[] = {
        { "listen", 1, NULL, LISTEN },     { "size", 1, NULL, SIZE },
        { "file", 1, NULL, FILE_ },        { "fill", 0, NULL, FILL },
        { "reactors", 1, NULL, REACTORS }, { "spin", 1, NULL, SPIN },
        { "pool", 1, NULL, POOL },         { "mlock", 0, NULL, MLOCK },
        { "debug", 0, NULL, DEBUG },       { "tls", 1, NULL, TLS },
        { "ca", 1, NULL, CA },             { "crl", 1, NULL, CRL },
        { "cert", 1, NULL, CERT },         { "key", 1, NULL, KEY },
        { "verify", 0, NULL, VERIFY },     { "psk", 1, NULL, PSK },
        { "connections", 1, NULL, CONNECTIONS }, { "slots", 1, NULL, SLOTS },
        { "handshake-timeout", 1, NULL, HANDSHAKE },
        { "snapshot", 1, NULL, SNAPSHOT }, { 0 },
    };
    struct nbd_tls_options *tls = &settings->server.tls;
    struct nbd_server_limits *limits = &settings->server.limits;
    int option;

    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        switch (option) {
        case LISTEN:
            if (settings->listen_count == LISTENS_MAX) {
                usage();
            }
            settings->listens[settings->listen_count++].address = optarg;
            break;
        case SIZE: settings->size_bytes = parse_bytes(optarg); break;
        case FILE_: settings->file = optarg; break;
        case FILL: settings->fill = true; break;
        case REACTORS: settings->reactor_count = (uint32_t)strtoul(optarg, NULL, 0); break;
        case SPIN: settings->spin_us = (uint32_t)strtoul(optarg, NULL, 0); break;
        case POOL: settings->pool_bytes = parse_bytes(optarg); break;
        case MLOCK: settings->lock = true; break;
        case DEBUG: log_set_level(LOG_LEVEL_DEBUG); break;
        case TLS:
            settings->tls = strcmp(optarg, "required") == 0   ? NBD_TLS_REQUIRED
                            : strcmp(optarg, "optional") == 0 ? NBD_TLS_OPTIONAL
                                                              : NBD_TLS_OFF;
            break;
        case CA: tls->ca_file = optarg; break;
        case CRL: tls->crl_file = optarg; break;
        case CERT: tls->certificate_file = optarg; break;
        case KEY: tls->key_file = optarg; break;
        case VERIFY: tls->verify_client = true; break;
        case PSK: tls->psk_file = optarg; break;
        case CONNECTIONS: limits->connections_max = (uint32_t)strtoul(optarg, NULL, 0); break;
        case SLOTS: limits->slots_max = (uint32_t)strtoul(optarg, NULL, 0); break;
        case HANDSHAKE:
            limits->handshake_timeout_ns = strtoul(optarg, NULL, 0) * NS_PER_S;
            break;
        case SNAPSHOT: settings->snapshot = optarg; break;
        default: usage();
        }
    }
    if (settings->listen_count == 0 || settings->reactor_count == 0 ||
        settings->reactor_count > REACTORS_MAX) {
        usage();
    }
    for (uint32_t i = 0; i < settings->listen_count; i++) {
        settings->listens[i].tls = settings->tls;
    }
}

struct stopping {
    struct message message;
    struct nbd_server_stop stop;
    struct nbd_server *server;
    struct reactor *control;
    int result;
    int done; /* by __atomic */
};

static void
stop_done(struct io_op *op)
{
    struct nbd_server_stop *stop = container_of(op, struct nbd_server_stop, op);
    struct stopping *stopping = container_of(stop, struct stopping, stop);
    stopping->result = op->result;
    __atomic_store_n(&stopping->done, 1, __ATOMIC_RELEASE);
}

static void
begin_stop(struct message *message)
{
    struct stopping *stopping = container_of(message, struct stopping, message);
    stopping->stop.op.done = stop_done;
    stopping->stop.grace_ns = 5 * NS_PER_S;
    nbd_server_stop(stopping->server, &stopping->stop);
}

static void
check(int rc, const struct error *error)
{
    if (rc < 0) {
        fprintf(stderr, "%s\n", error->message);
        exit(1);
    }
}

static struct volume *
add_volume(struct manager *manager, const struct settings *settings,
           struct fake_volume_options options)
{
    options.pool_name = "pool";
    options.size_bytes = settings->size_bytes;
    struct volume *volume = fake_manager_add(manager, &options);
    if (settings->fill) {
        uint64_t *words = (uint64_t *)fake_volume_memory(volume);
        for (uint64_t i = 0; i < settings->size_bytes / 8; i++) {
            words[i] = hash_u64(i + 1);
        }
        fake_volume_set_allocated(volume, 0, settings->size_bytes);
    }
    return volume;
}

static void
print_statistics(const struct nbd_server *server)
{
    struct nbd_server_statistics s;
    nbd_server_statistics(server, &s);
    fprintf(stderr,
            "connections %llu, requests %llu, errors %llu, receives %llu, sends %llu, "
            "gathers %llu, stalls %llu/%llu/%llu\n",
            (unsigned long long)s.connections_accepted, (unsigned long long)s.requests,
            (unsigned long long)s.request_errors, (unsigned long long)s.receives,
            (unsigned long long)s.sends, (unsigned long long)s.gathers,
            (unsigned long long)s.stalls_slots,
            (unsigned long long)s.stalls_bytes, (unsigned long long)s.stalls_memory);
}

static void
serve(struct settings *settings, struct reactor **reactors, const sigset_t *signals)
{
    struct error error = { 0 };
    struct nbd_server *server = NULL;
    struct manager *manager = fake_manager_create(reactors[0]);
    struct reactor *owner = reactors[settings->reactor_count - 1];
    int number;

    struct volume *disk =
        add_volume(manager, settings,
                   (struct fake_volume_options){ .name = "disk", .file = settings->file,
                                                 .reactor = owner });
    if (settings->snapshot != NULL) {
        fake_volume_add_snapshot(disk, settings->snapshot);
    }
    add_volume(manager, settings,
               (struct fake_volume_options){ .name = "ro", .read_only = true,
                                             .reactor = reactors[0] });
    add_volume(manager, settings,
               (struct fake_volume_options){ .name = "4k", .sector_bytes = 4096,
                                             .reactor = reactors[0] });
    settings->server.reactors = reactors;
    settings->server.reactor_count = settings->reactor_count;
    settings->server.manager = manager;
    settings->server.listens = settings->listens;
    settings->server.listen_count = settings->listen_count;
    check(nbd_server_create(&settings->server, &server, &error), &error);
    nbd_server_start(server);
    for (uint32_t i = 0; i < settings->reactor_count; i++) {
        check(reactor_start(reactors[i], &error), &error);
    }
    printf("ready");
    for (uint32_t i = 0; i < settings->listen_count; i++) {
        printf(" %s", nbd_server_bound_address(server, i));
    }
    printf("\n");
    fflush(stdout);
    sigwait(signals, &number);
    struct stopping stopping = { .server = server };
    reactor_send(reactors[0], &stopping.message, begin_stop);
    while (__atomic_load_n(&stopping.done, __ATOMIC_ACQUIRE) == 0) {
        struct timespec pause = { .tv_nsec = 1000000 };
        nanosleep(&pause, NULL);
    }
    for (uint32_t i = 0; i < settings->reactor_count; i++) {
        reactor_stop(reactors[i]);
        reactor_join(reactors[i]);
    }
    print_statistics(server);
    check(stopping.result, &error);
    nbd_server_destroy(server);
    fake_manager_destroy(manager);
}

int
main(int argc, char **argv)
{
    struct settings settings = {
        .reactor_count = 1,
        .size_bytes = 256 << 20,
        .pool_bytes = 128 << 20,
    };
    struct reactor *reactors[REACTORS_MAX];
    struct platform *platform = NULL;
    struct error error = { 0 };
    sigset_t signals;

    nbd_server_options_default(&settings.server);
    parse(argc, argv, &settings);
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    sigprocmask(SIG_BLOCK, &signals, NULL);
    if (settings.lock && mlockall(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT) < 0) {
        perror("mlockall");
    }
    check(platform_uring_create("/dev/shm", &platform, &error), &error);
    for (uint32_t i = 0; i < settings.reactor_count; i++) {
        struct reactor_options options = {
            .id = i,
            .cpu = -1,
            .buffer_pool_bytes = settings.pool_bytes,
            .spin_us_max = settings.spin_us,
        };
        check(reactor_create(platform, &options, &reactors[i], &error), &error);
    }
    serve(&settings, reactors, &signals);
    for (uint32_t i = 0; i < settings.reactor_count; i++) {
        reactor_destroy(reactors[i]);
    }
    platform_uring_destroy(platform);
    return 0;
}
