/* SPDX-License-Identifier: Apache-2.0 */
/* A private tgtd as a foreign array: its own control port, its own TCP port, its own files. */
#ifndef TESTS_UNIT_BACKENDS_TGTD_H
#define TESTS_UNIT_BACKENDS_TGTD_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

enum {
    TGTD_LUNS_MAX = 4
};

struct tgtd {
    pid_t pid; /* 0: not running */
    int control;
    int port;
    char target[128];
    char directory[256];
    uint32_t lun_count;   /* LUNs 1..lun_count */
    uint32_t block_bytes; /* 0: 512 */
    bool chap;            /* user "carol", password "secret-of-carol" */
};

/* Whether tgtd and tgtadm are installed. */
bool tgtd_available(void);
/* Start and configure; files of `lun_bytes` are created when absent. False: it did not come up. */
bool tgtd_start(struct tgtd *tgtd, uint64_t lun_bytes);
/* SIGKILL, and wait. The port and files stay for the next start. */
void tgtd_kill(struct tgtd *tgtd);
void tgtd_url(const struct tgtd *tgtd, char *text, size_t size, const char *user, uint32_t lun,
              const char *options);

#endif
