/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The oracle: what a volume may contain, by the promises alone (P1, P2, P3).
 *
 * THEORY OF OPERATION
 *
 * Each sector (512 bytes) of a tracked volume has a history of versions in the order of submission;
 * version 0 is zeroes, and each version has content that names volume, sector and version. At any
 * time a sector has a floor, the oldest version that it may still show:
 *   - in a running system, the last acknowledged one (P1);
 *   - after the death of the process, the same (P3);
 *   - after a power cut, the last one acknowledged before the last FLUSH that was acknowledged was
 *     sent, or acknowledged with FUA (P2).
 * It may show any version from the floor to the newest that was submitted, and nothing else: not an
 * older one, not another sector's, not garbage. What a read has shown after a restart is then the
 * floor: bytes must not change by themselves.
 *
 * A sector is the unit because an overwrite is not atomic beyond it.
 */
#ifndef TESTS_SIM_ORACLE_H
#define TESTS_SIM_ORACLE_H

#include <stdbool.h>
#include <stdint.h>

enum {
    ORACLE_SECTOR_BYTES = 512
};

struct oracle;
struct oracle_write;

/* `size_bytes`: the largest size that the volume will ever have. */
struct oracle *oracle_create(uint32_t volume, uint64_t size_bytes);
void oracle_free(struct oracle *oracle);
/* Independent of the original, and cheap: one world forks in many after a cut. */
struct oracle *oracle_copy(const struct oracle *oracle);

/*
 * A write (or, with `data` NULL, a zeroing or discard) of whole sectors is submitted. Fills `data`
 * with the content of the new version. Returns what the other calls name it by.
 */
struct oracle_write *oracle_submit(struct oracle *oracle, uint64_t offset_bytes,
                                   uint64_t length_bytes, uint8_t *data);
/* The same for a submission of the past, whose content is not wanted. */
struct oracle_write *oracle_note_submit(struct oracle *oracle, uint64_t offset_bytes,
                                        uint64_t length_bytes, bool zero);
/* It was answered: with success (fua: durable too), or with an error (any outcome is allowed). */
void oracle_answered(struct oracle *oracle, struct oracle_write *write, bool success, bool fua);
/* A FLUSH is sent now; what it must cover is remembered in the returned token. */
uint64_t oracle_flush_sent(struct oracle *oracle);
void oracle_flush_answered(struct oracle *oracle, uint64_t token);

/*
 * Every sector of a read of a running volume. `started` is oracle_now() when the read was
 * submitted: versions acknowledged by then, or later ones, are allowed. 0, or -EBADMSG with what is
 * wrong on standard error.
 */
uint64_t oracle_now(const struct oracle *oracle);
int oracle_check_read(struct oracle *oracle, uint64_t offset_bytes, uint64_t length_bytes,
                      const uint8_t *data, uint64_t started);

/*
 * The process died, or the power was cut: floors fall accordingly; writes in flight are forgotten.
 */
void oracle_died(struct oracle *oracle, bool power_cut);
/* After the restart: content must be allowed, and becomes the floor. 0 or -EBADMSG. */
int oracle_check_recovered(struct oracle *oracle, uint64_t offset_bytes, uint64_t length_bytes,
                           const uint8_t *data);
/* The volume has been made smaller: what lies behind the new end is gone, for ever. */
void oracle_cut_off(struct oracle *oracle, uint64_t size_bytes);
/* False: nothing in the range has ever been written (a true may be too cautious). */
bool oracle_was_written(const struct oracle *oracle, uint64_t offset_bytes, uint64_t length_bytes);
/*
 * Sectors whose durable floor is not version 0: a test that never flushed anything proves little.
 */
uint64_t oracle_durable_sectors(const struct oracle *oracle);

#endif
