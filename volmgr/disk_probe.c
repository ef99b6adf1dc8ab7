/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Opening disks and reading their labels, on the way into a pool.
 *
 * A disk that does not answer must not hold up the others (P9): each step is an attempt with its
 * own memory and a deadline. When that passes, the probe is told -ETIMEDOUT and the attempt is left
 * to itself; whenever it ends, it closes what it has opened and is gone.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "volmgr/control_impl.h"

/* ---- arguments ---- */

int
disk_arguments_check(const struct disk_argument *disks, uint32_t count, struct error *error)
{
    if (count == 0 || count > POOL_DISKS_MAX) {
        return error_set(error, -EINVAL, "name 1 to %d disks", POOL_DISKS_MAX);
    }
    for (uint32_t i = 0; i < count; i++) {
        if (disks[i].spec[0] == '\0') {
            return error_set(error, -EINVAL, "a disk has no name");
        }
        for (uint32_t j = 0; j < i; j++) {
            if (strcmp(disks[i].spec, disks[j].spec) == 0 &&
                strncmp(disks[i].spec, "mem:", 4) != 0) {
                return error_set(error, -EINVAL, "a disk is named twice");
            }
        }
    }
    return 0;
}

void
disk_spec_without_secrets(const char *spec, char *to, size_t to_bytes)
{
    char *clean = backend_spec_without_secrets(spec);

    /* Nor with the options behind the question mark: the disk is known by what stands before. */
    snprintf(to, to_bytes, "%.*s", (int)strcspn(clean, "?"), clean);
    free(clean);
}

struct disk_probe *
disk_probes_from_arguments(const struct disk_argument *disks, uint32_t count, uint16_t first_index)
{
    struct disk_probe *probes = calloc(count, sizeof(*probes));

    ASSERT(probes != NULL);
    for (uint32_t i = 0; i < count; i++) {
        snprintf(probes[i].spec, sizeof(probes[i].spec), "%s", disks[i].spec);
        probes[i].tier = disks[i].tier;
        probes[i].index = (uint16_t)(first_index + i);
    }
    return probes;
}

/* ---- attempts ---- */

struct disk_attempt {
    struct manager *manager;
    struct disk_probe *probe; /* NULL: given up */
    struct timer deadline;
    struct offload_job job;
    struct label_read read;
    struct backend *backend;
    char spec[DISK_SPEC_BYTES_MAX + 1];
    uint32_t flags;
    struct reactor *owner;
    struct error error;
};

static int32_t
attempt_close_work(struct offload_job *job)
{
    backend_close(container_of(job, struct disk_attempt, job)->backend);
    return 0;
}

static void
attempt_closed(struct io_op *op)
{
    struct offload_job *job = container_of(op, struct offload_job, op);
    free(container_of(job, struct disk_attempt, job));
}

/* It has ended long after it was given up. */
static void
attempt_clean_up(struct disk_attempt *attempt)
{
    if (attempt->backend == NULL) {
        free(attempt);
        return;
    }
    attempt->job.op.done = attempt_closed;
    offload_submit(attempt->manager->offload, &attempt->job, attempt_close_work);
}

static void
attempt_expired(struct timer *timer)
{
    struct disk_attempt *attempt = container_of(timer, struct disk_attempt, deadline);
    struct disk_probe *probe = attempt->probe;

    attempt->probe = NULL;
    probe->backend = NULL; /* the attempt's from now on */
    probe->status = -ETIMEDOUT;
    error_set(&probe->error, -ETIMEDOUT, "the disk does not answer");
    machine_completed(probe->machine, 0);
}

static struct disk_attempt *
attempt_new(struct machine *machine, struct disk_probe *probe)
{
    struct manager *manager = machine->manager;
    struct disk_attempt *attempt = calloc(1, sizeof(*attempt));

    ASSERT(attempt != NULL);
    attempt->manager = manager;
    attempt->probe = probe;
    probe->machine = machine;
    probe->error = (struct error){ 0 };
    timer_arm(manager->control, &attempt->deadline,
              reactor_now_ns(manager->control) + manager->options.disk_timeout_ns,
              attempt_expired);
    return attempt;
}

/* The probe that waits for it; NULL when it was given up, and has been taken care of. */
static struct disk_probe *
attempt_ended(struct disk_attempt *attempt)
{
    struct disk_probe *probe = attempt->probe;

    if (probe == NULL) {
        attempt_clean_up(attempt);
        return NULL;
    }
    timer_disarm(attempt->manager->control, &attempt->deadline);
    return probe;
}

/* ---- opening ---- */

static int32_t
attempt_open_work(struct offload_job *job)
{
    struct disk_attempt *attempt = container_of(job, struct disk_attempt, job);

    return backend_open(attempt->manager->options.platform, attempt->owner, attempt->spec,
                        attempt->flags, &attempt->backend, &attempt->error);
}

static void
attempt_opened(struct io_op *op)
{
    struct offload_job *job = container_of(op, struct offload_job, op);
    struct disk_attempt *attempt = container_of(job, struct disk_attempt, job);
    struct disk_probe *probe = attempt_ended(attempt);

    if (probe == NULL) {
        return;
    }
    probe->status = op->result;
    probe->backend = attempt->backend;
    probe->error = attempt->error;
    if (op->result < 0) {
        ASSERT(attempt->backend == NULL);
        error_set(&probe->error, op->result, "%s", error_name(op->result));
    } else {
        probe->backend->default_timeout_ns = attempt->manager->options.disk_timeout_ns;
    }
    free(attempt);
    machine_completed(probe->machine, 0);
}

void
disk_probes_open(struct machine *machine, struct disk_probe *probes, uint32_t count)
{
    ASSERT_ON_REACTOR(machine->manager->control);
    const struct manager_options *options = &machine->manager->options;

    for (uint32_t i = 0; i < count; i++) {
        struct disk_probe *probe = &probes[i];
        if (probe->backend != NULL) {
            continue;
        }
        struct disk_attempt *attempt = attempt_new(machine, probe);
        memcpy(attempt->spec, probe->spec, sizeof(attempt->spec));
        attempt->flags = probe->flags;
        /* Backends that live on one reactor are spread over all. */
        attempt->owner = options->reactors[probe->index % options->reactor_count];
        machine->pending++;
        attempt->job.op.done = attempt_opened;
        offload_submit(machine->manager->offload, &attempt->job, attempt_open_work);
    }
}

/* ---- reading the label ---- */

static void
attempt_read(struct io_op *op)
{
    struct label_read *read = container_of(op, struct label_read, op);
    struct disk_attempt *attempt = container_of(read, struct disk_attempt, read);
    struct disk_probe *probe = attempt_ended(attempt);

    if (probe == NULL) {
        return;
    }
    probe->status = op->result;
    probe->label = read->ret_label;
    probe->foreign = read->ret_foreign;
    free(attempt);
    machine_completed(probe->machine, 0);
}

void
disk_probes_read(struct machine *machine, struct disk_probe *probes, uint32_t count)
{
    ASSERT_ON_REACTOR(machine->manager->control);
    for (uint32_t i = 0; i < count; i++) {
        struct disk_probe *probe = &probes[i];
        if (probe->backend == NULL) {
            continue;
        }
        struct disk_attempt *attempt = attempt_new(machine, probe);
        attempt->backend = probe->backend;
        attempt->read.backend = probe->backend;
        machine_arm(machine, &attempt->read.op, attempt_read);
        label_read(&attempt->read);
    }
}

/* ---- closing ---- */

static int32_t
close_work(struct offload_job *job)
{
    struct machine_job *own = container_of(job, struct machine_job, job);
    struct backends_close *close = container_of(own, struct backends_close, job);

    for (uint32_t i = 0; i < close->count; i++) {
        backend_close(close->backends[i]);
    }
    return 0;
}

void
backends_close_begin(struct backends_close *close, uint32_t count_max)
{
    free(close->backends);
    close->count = 0;
    close->backends = calloc(MAX(count_max, 1u), sizeof(*close->backends));
    ASSERT(close->backends != NULL);
}

void
backends_close_run(struct machine *machine, struct backends_close *close)
{
    ASSERT_ON_REACTOR(machine->manager->control);
    if (close->count > 0) {
        machine_offload(machine, &close->job, close_work);
    }
}

void
backends_close_free(struct backends_close *close)
{
    free(close->backends);
    close->backends = NULL;
}

void
disk_probes_close(struct machine *machine, struct backends_close *close,
                  struct disk_probe *probes, uint32_t count)
{
    ASSERT_ON_REACTOR(machine->manager->control);
    backends_close_begin(close, count);
    for (uint32_t i = 0; i < count; i++) {
        if (probes[i].backend != NULL) {
            close->backends[close->count++] = probes[i].backend;
            probes[i].backend = NULL;
        }
    }
    backends_close_run(machine, close);
}
