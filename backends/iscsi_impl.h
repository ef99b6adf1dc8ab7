/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Remote LUNs: what the files iscsi*.c share. The theory of operation is in iscsi_session.c.
 * Our names begin with lun_, because iscsi_ and scsi_ belong to libiscsi.
 */
#ifndef BACKENDS_ISCSI_IMPL_H
#define BACKENDS_ISCSI_IMPL_H

#include <pthread.h>
#include <semaphore.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "backends/backend.h"
#include "base/error.h"
#include "base/list.h"
#include "io/platform.h"
#include "io/reactor.h"

struct iscsi_context;
struct scsi_task;
struct scsi_iovec;

enum {
    LUN_NAME_SIZE = 224, /* iSCSI names have at most 223 bytes (RFC 7143 4.2.7.1) */
    LUN_TEXT_SIZE = 256,
    LUN_PORTAL_SIZE = 320,
    LUN_WINDOW = 64,      /* commands in flight */
    LUN_DATA_SIZE = 4096, /* answers of the set-up commands */
    LUN_PARAMETER_SIZE = 64,
};

/* ---- iscsi_url.c: the text of the disk ---- */

struct lun_location {
    char host[LUN_TEXT_SIZE]; /* without the brackets of an IPv6 address */
    char port[8];
    char target[LUN_NAME_SIZE];
    uint16_t lun;
    char user[LUN_TEXT_SIZE]; /* CHAP; empty: none */
    char password[LUN_TEXT_SIZE];
    char target_user[LUN_TEXT_SIZE]; /* mutual CHAP; empty: none */
    char target_password[LUN_TEXT_SIZE];
    char initiator[LUN_NAME_SIZE];
    bool header_digest;      /* insist on CRC32C */
    uint32_t nop_interval_s; /* a session that misses three of them is given up */
    uint32_t reconnect_s;    /* after so long an outage new operations fail at once */
};

/*
 * Parse iscsi://[USER%PW@]HOST[:PORT]/IQN/LUN[?OPTION=VALUE[&...]] with the options initiator,
 * header_digest (none, crc32c), target_user, target_password, nop_interval, reconnect (seconds).
 * 0, or -EINVAL with an error that holds no secret.
 */
int lun_location_parse(const char *url, struct lun_location *ret_location, struct error *error);
/* The initiator name of this machine where the text of the disk has none. */
void lun_default_initiator(char name[static LUN_NAME_SIZE]);

/* ---- iscsi_sense.c: what an answer means ---- */

struct lun_answer {
    int status;    /* enum scsi_status of libiscsi */
    bool deferred; /* the sense data are about an earlier command */
    uint8_t sense_key;
    uint16_t asc_ascq;
};

enum lun_verdict {
    LUN_DONE,        /* the command was executed */
    LUN_FAILED,      /* it was not, and will not be */
    LUN_RETRY,       /* it was not; send it again */
    LUN_RETRY_LATER, /* it was not; send it again after a while */
    LUN_RECOVER,     /* the session, or the state of the unit, is in doubt: reconnect and reset */
};

/* Pure. `*ret_error` is set for LUN_FAILED. */
enum lun_verdict lun_judge(const struct lun_answer *answer, int32_t *ret_error);

/* What a unit attention says about the unit's volatile memory. In order of weight. */
enum lun_evidence {
    LUN_KEPT,      /* nothing of a reset, or one that keeps the write cache */
    LUN_AMBIGUOUS, /* 29/00, 29/02: power on, or a mere reset or new session */
    LUN_RESET,     /* 29/01, 29/04: power on, internal reset */
};
enum lun_evidence lun_evidence_of(const struct lun_answer *answer);
/*
 * L5 to L7 of iscsi_session.c: whether unflushed writes count as lost. `witness_armed`: an earlier
 * session left one that a power cut removes; `witness_found`: it, or an older one, is there now.
 */
bool lun_was_reset(enum lun_evidence evidence, bool witness_armed, bool witness_found);

/* ---- the disk ---- */

/* Phases of a session, in order; iscsi_setup.c has what each does. */
#define LUN_PHASES(X)                                                                              \
    X(DOWN, "down")                 /* no session; the next attempt is waited for */               \
    X(CONNECT, "connect")           /* TCP */                                                      \
    X(LOGIN, "login")               /* the same ISID: the target ends our old session first */     \
    X(ATTENTION, "attention")       /* TEST UNIT READY until unit attentions are drained */        \
    X(INQUIRY, "inquiry")           /* a disk? */                                                  \
    X(IDENTITY, "identity")         /* VPD 83h: the same disk as before? */                        \
    X(RESET, "reset")               /* LOGICAL UNIT RESET: nothing old takes effect any more */    \
    X(SETTLE, "settle")             /* drain what the reset caused */                              \
    X(CAPACITY, "capacity")         /* READ CAPACITY (16) */                                       \
    X(LIMITS, "limits")             /* VPD B0h */                                                  \
    X(MEDIUM, "medium")             /* VPD B1h */                                                  \
    X(PROVISIONING, "provisioning") /* VPD B2h */                                                  \
    X(MODE, "mode")                 /* MODE SENSE (6): write protection, FUA */                    \
    X(CACHE, "cache")               /* does SYNCHRONIZE CACHE work? */                             \
    X(KEYS, "keys")                 /* PERSISTENT RESERVE IN: is our witness still there? */       \
    X(REGISTER, "register")         /* register the witness */                                     \
    X(PERSISTENCE, "persistence")   /* would the witness survive a power cut? */                   \
    X(READY, "ready")

enum lun_phase {
#define LUN_PHASE_ENUM(name, text) LUN_PHASE_##name,
    LUN_PHASES(LUN_PHASE_ENUM)
#undef LUN_PHASE_ENUM
    LUN_PHASE_COUNT
};
const char *lun_phase_name(enum lun_phase phase);

struct lun_disk;

/* One command in flight. */
struct lun_slot {
    struct list link; /* free or busy */
    struct lun_disk *disk;
    struct backend_io *io;  /* NULL for set-up commands */
    struct scsi_task *task; /* ours to free; NULL once answered */
    uint64_t flush_mark;
    uint8_t parameter[LUN_PARAMETER_SIZE];
    struct scsi_iovec *iov; /* BACKEND_IOV_COUNT_MAX of them: libiscsi changes them in passing */
};

/* What the implementation keeps in a backend_io. */
struct lun_driver {
    struct list link; /* on the pending list */
    uint32_t retries;
    uint32_t retries_later;
    bool was_sent; /* the target may execute it, or have executed it */
};
_Static_assert(sizeof(struct lun_driver) <= sizeof(((struct backend_io *)0)->driver),
               "the state of a command must fit into the room that a backend_io has for it");

/* A wait for readiness. On the heap: it may outlive the session, until the platform lets it go. */
struct lun_poll {
    struct fd_poll poll;
    struct list link;      /* of the disk's armed polls */
    struct lun_disk *disk; /* NULL: the disk is gone */
    bool armed;
    bool forgotten; /* belongs to an earlier session: freed by its completion */
};

/* What the set-up phases found. */
struct lun_facts {
    uint64_t capacity_blocks;
    uint32_t block_bytes;
    uint32_t physical_block_bytes;
    uint64_t transfer_bytes_max;
    uint64_t unmap_blocks_max;
    uint64_t write_same_blocks_max;
    uint64_t unmap_granularity_blocks;
    uint64_t identity; /* hash of the designators of the unit; 0: it has none */
    bool thin;
    bool reads_zero_after_unmap;
    bool unmap;
    bool write_same_unmap;
    bool rotational;
    bool write_protected;
    bool fua;
};

struct lun_disk {
    struct backend *backend; /* NULL for the short sessions of refresh() */
    struct platform *platform;
    struct lun_location location;
    char portal[LUN_PORTAL_SIZE];   /* numeric, resolved at open */
    char redirect[LUN_PORTAL_SIZE]; /* where a login was sent to; empty: nowhere */
    uint32_t redirects;
    bool is_probe; /* own ISID, no reset, no registration */
    uint32_t isid_random;
    uint16_t isid_qualifier;
    uint64_t witness_key;
    int lock_fd;

    /* The session. The thread of open() has it until the first submission, then the owner. */
    struct iscsi_context *context;
    enum lun_phase phase;
    bool lost;       /* drop the session as soon as libiscsi has returned */
    bool destroying; /* callbacks come from our own iscsi_destroy_context() */
    bool connected;
    bool logged_in;
    bool answered;    /* the command of the phase has its answer */
    bool redirecting; /* the next attempt goes elsewhere, at once */
    struct lun_answer answer;
    uint8_t *data; /* LUN_DATA_SIZE: what the command of the phase returned */
    size_t data_bytes;
    uint32_t repeats; /* of the command of the phase */
    uint64_t phase_deadline_ns;
    uint64_t phase_retry_ns; /* the command of the phase is sent again then; 0: no */
    uint64_t next_attempt_ns;
    uint64_t backoff_ns;
    uint64_t outage_since_ns; /* 0: none */
    uint64_t ready_ns;        /* when this session became ready */
    uint64_t nop_due_ns;
    uint64_t answers; /* of commands, so far */
    uint64_t answers_at_nop;
    uint64_t resume_ns; /* no commands before: the target is busy */
    bool is_down;       /* the outage has lasted longer than location.reconnect_s */
    bool ever_ready;
    uint32_t sessions;    /* that became ready */
    struct error failure; /* why the last attempt failed; for open() and the log */

    /* The facts, and the proof that nothing was lost. */
    struct lun_facts facts;
    uint64_t identity; /* of the first session */
    enum lun_evidence evidence;
    bool witness_found;  /* by this session */
    bool witness_armed;  /* an earlier session left it there, and a power cut would remove it */
    bool witness_useful; /* by this session: registered, and not persistent */
    uint64_t written;    /* writes completed without FUA */
    uint64_t flushed;    /* of these, covered by a good flush */

    /* The window. */
    struct lun_slot *slots; /* LUN_WINDOW, then one for set-up commands */
    struct lun_slot *setup_slot;
    struct list free_slots;
    struct list busy_slots;
    struct list pending; /* struct lun_driver: not sent, or to be sent again */

    /* On the owner reactor. */
    bool attached;
    pthread_t owner_thread;
    struct lun_poll *poll_input;
    struct lun_poll *poll_output;
    struct list armed_polls;
    struct timer timer;
    struct pass_hook hook;
    struct message message; /* of close(): detach */
    sem_t *detached;        /* posted when the loop has let go of everything */
};

static inline uint64_t
lun_now_ns(const struct lun_disk *disk)
{
    return disk->platform->ops->monotonic_ns(disk->platform);
}

/* ---- iscsi_setup.c: the phases ---- */

enum lun_step {
    LUN_STEP_NEXT,   /* start: nothing to do here; finish: go on */
    LUN_STEP_WAIT,   /* start: a command was sent */
    LUN_STEP_REPEAT, /* finish: start this phase again */
    LUN_STEP_LATER,  /* finish: start this phase again, after a pause */
    LUN_STEP_FAIL,   /* the attempt has failed; disk->failure is set */
};
/* Start the work of disk->phase; look at its answer. Phases between LOGIN and READY. */
enum lun_step lun_setup_start(struct lun_disk *disk);
enum lun_step lun_setup_finish(struct lun_disk *disk);

/* ---- iscsi_session.c: life of a session ---- */

/*
 * control. Turn "HOST" and "PORT" into a numeric portal for libiscsi, so that a connection never
 * waits for a name server. With `numeric_only` names are refused. 0 or -errno.
 */
int lun_resolve(const char *host, const char *port, bool numeric_only,
                char ret_portal[static LUN_PORTAL_SIZE], struct error *error);
/*
 * control. Log in and set up, blocking, until ready or `timeout_ns` has passed. 0 or -errno with
 * `error` set; without a session then.
 */
int lun_session_open(struct lun_disk *disk, uint64_t timeout_ns, struct error *error);
/* control. The end of a session that nobody else uses: unregister, log out, disconnect. */
void lun_session_close(struct lun_disk *disk);
/* Close the connection and take every command back to the pending list. */
void lun_session_drop(struct lun_disk *disk);
/* Whatever is due: answers of phases, attempts, deadlines, NOPs. Arms polls and timer. */
void lun_session_run(struct lun_disk *disk);
/* owner. Begin to drive the session from the loop; the first submission does it. */
void lun_session_attach(struct lun_disk *disk);
/*
 * control. The opposite: the owner lets go of the session, which belongs to the caller then.
 * Nothing is in flight. Blocks for a pass or two of the owner, unless called on the owner itself.
 */
void lun_session_detach(struct lun_disk *disk);
/* owner. There is something to send: it is done at the end of the pass. */
void lun_session_kick(struct lun_disk *disk);

/* ---- iscsi.c: commands ---- */

/*
 * Send a command from `slot`. `iov_count` entries of slot->iov are its payload. False: libiscsi
 * refused; the session counts as lost.
 */
bool lun_send(struct lun_slot *slot, const uint8_t *cdb, size_t cdb_bytes, int direction,
              uint64_t payload_bytes, uint32_t iov_count);
/* Send what is pending, as far as the window allows. */
void lun_issue(struct lun_disk *disk);
/* Free the slot after an answer, or before a new session; its operation, if any, stays. */
void lun_slot_release(struct lun_slot *slot);
/* The outage has lasted too long: end what can be ended. */
void lun_fail_pending(struct lun_disk *disk, int32_t error);

#endif
