/* SPDX-License-Identifier: Apache-2.0 */
/* A reactor on the test's own thread, and blocking forms of the store's requests. Tests only. */
#ifndef TESTS_UNIT_METADATA_HARNESS_H
#define TESTS_UNIT_METADATA_HARNESS_H

#include "backends/backend.h"
#include "io/platform.h"
#include "io/reactor.h"
#include "metadata/store.h"

struct harness {
    struct platform *platform;
    struct reactor *reactor;
    char directory[64]; /* a fresh one, removed with all that is in it by harness_stop() */
};

/* cmocka set-up and tear-down: *state is a struct harness. */
int harness_start(void **state);
int harness_stop(void **state);

/* Call start(argument) on the reactor and turn its loop until `op` is done. Returns its result. */
typedef void harness_start_fn(void *argument);
int harness_await(struct harness *harness, struct io_op *op, harness_start_fn *start,
                  void *argument);
/* Only submit; harness_collect() waits. */
void harness_submit(struct harness *harness, struct io_op *op, harness_start_fn *start,
                    void *argument);
int harness_collect(struct harness *harness, struct io_op *op);
/* Turn the loop for so long. */
void harness_idle(struct harness *harness, uint64_t duration_ns);

/* Path of `name` in the harness's directory; a static buffer for each of four calls. */
const char *harness_path(struct harness *harness, const char *name);

/* ---- disks ---- */

/* Open a disk by its text; fails the test when that fails. */
struct backend *harness_backend(struct harness *harness, const char *spec);
/* Blocking transfer of aligned memory. */
int harness_transfer(struct harness *harness, struct backend *backend, enum backend_io_kind kind,
                     uint64_t offset_bytes, void *data, uint64_t length_bytes);
/* Change bytes anywhere (read, patch, write). */
void harness_patch(struct harness *harness, struct backend *backend, uint64_t offset_bytes,
                   const void *bytes, size_t length_bytes);

/* ---- the store ---- */

int harness_store_open(struct harness *harness, const char *name, bool create, bool read_only,
                       struct store **ret_store);
int harness_get(struct harness *harness, struct store *store, enum store_family family,
                const void *key, size_t key_bytes, struct byte_buffer *ret_value);
/* Takes and frees the content of `batch`. */
int harness_commit(struct harness *harness, struct store *store, struct byte_buffer *batch,
                   bool sync);
/* All items of a family behind each other, by scans of `bytes_max`. */
int harness_scan(struct harness *harness, struct store *store, enum store_family family,
                 const struct store_snapshot *snapshot, size_t bytes_max,
                 struct byte_buffer *ret_items);

#endif
