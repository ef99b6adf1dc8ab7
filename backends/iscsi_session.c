/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The session with a remote LUN: connecting, losing, recovering.
 *
 * THEORY OF OPERATION
 *
 * libiscsi does the protocol, without its own reconnection: a context lives for one session, from
 * connect to loss, and the disk outlives it. The state machine here (LUN_PHASES) is driven by
 * lun_session_run(), by two drivers in turn: the thread of open(), with poll(2), until the
 * session is ready; and from the first submission on the owner reactor, with the platform's
 * fd_poll, a timer and an end-of-pass hook. Nothing blocks on the reactor: the portal is numeric
 * by then.
 *
 * Operations wait on `pending` and take one of LUN_WINDOW slots to be sent. When a session is lost,
 * those in slots go back to pending, marked as sent, and the next session sends them again. While
 * there is no session nothing completes, until location.reconnect_s have passed; then what was
 * never sent, reads and flushes fail with -EHOSTDOWN, and so do new operations, but a write that
 * the target may have received stays in flight until the proof below (B2).
 *
 * The rule of re-issue
 *  L1  Every session of a disk logs in with the same initiator name and the same ISID, which are
 *      functions of the machine and the LUN. The target must end the old session, with all its
 *      tasks, before it answers the login (RFC 7143 6.3.5, session reinstatement).
 *  L2  Before any I/O of a new session a LOGICAL UNIT RESET is answered with "function complete":
 *      all tasks of the unit, from whatever session or path, have ended (SAM). A target that does
 *      not do it is refused.
 *  L3  After L1 and L2 no command of an earlier session, of this process or a dead one of this
 *      machine, can take effect. So sending an operation again is safe: its range and buffer have
 *      been held all the time (B2), nothing has overlapped it, and writing the same bytes twice is
 *      writing them once.
 *  L4  The unit must be the one it was: same designators (VPD 83h), block size, and no smaller.
 *      Otherwise the attempt fails and is repeated; nothing is done to a stranger's disk.
 *
 * The rule of loss. Writes that were acknowledged since the last good flush may be in the target's
 * volatile cache. When a session ends, or a unit attention of class 29h interrupts one, they count
 * as lost (loss_generation is raised before anything completes, B5) if there are any and
 *  L5  a unit attention says POWER ON (29/01) or DEVICE INTERNAL RESET (29/04); or
 *  L6  one says POWER ON, RESET, OR ... (29/00) or BUS RESET (29/02), which targets also report to
 *      each new session and after our own reset, and the witness of L7 does not disprove it.
 *      29/03, 29/07 and no attention at all mean that the cache is intact; or
 *  L7  the witness is gone: a registration (PERSISTENT RESERVE OUT, REGISTER AND IGNORE EXISTING
 *      KEY, APTPL 0; no reservation), which survives sessions and logical unit resets and goes
 *      with the power. It is trusted only if an earlier session of this disk had it, and the target
 *      says that registrations are not kept through a power loss (REPORT CAPABILITIES, PTPL_A 0).
 *      It also tells open() whether unflushed writes of a dead process are still there
 *      (kept_unflushed).
 *  L8  A deferred error is about an acknowledged write: it counts as a loss.
 *
 * Invariants
 *  L9  libiscsi's context is destroyed only outside its own callbacks: they set `lost` at most.
 *  L10 A command is in exactly one place: pending, a slot, or completed.
 */
#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include <iscsi/iscsi.h>
#include <iscsi/scsi-lowlevel.h>

#include "backends/guard.h"
#include "backends/iscsi_impl.h"
#include "base/assert.h"
#include "base/log.h"
#include "base/util.h"

enum {
    NOPS_UNANSWERED_MAX = 3,
    REDIRECTS_MAX = 4,
    CONTROL_POLL_MS = 50,
};

static const uint64_t connect_timeout_ns = 5 * NS_PER_S;
static const uint64_t phase_timeout_ns = 10 * NS_PER_S;
static const uint64_t phase_pause_ns = 250 * NS_PER_MS;
static const uint64_t backoff_first_ns = 100 * NS_PER_MS;
static const uint64_t flap_pause_ns = 20 * NS_PER_MS; /* after a session that lived for a moment */
static const uint64_t moment_ns = 1 * NS_PER_S;
static const uint64_t backoff_last_ns = 5 * NS_PER_S;
static const uint64_t logout_timeout_ns = 2 * NS_PER_S;

static void polls_forget(struct lun_disk *disk);

/* ---- addresses ---- */

int
lun_resolve(const char *host, const char *port, bool numeric_only,
            char ret_portal[static LUN_PORTAL_SIZE], struct error *error)
{
    struct addrinfo hints = {
        .ai_socktype = SOCK_STREAM,
        .ai_flags = AI_NUMERICSERV | (numeric_only ? AI_NUMERICHOST : 0),
    };
    struct addrinfo *found = NULL;
    char address[NI_MAXHOST];

    int result = getaddrinfo(host, port, &hints, &found);
    if (result != 0) {
        return error_set(error, -EHOSTUNREACH, "cannot resolve \"%s\": %s", host,
                         gai_strerror(result));
    }
    result = getnameinfo(found->ai_addr, found->ai_addrlen, address, sizeof(address), NULL, 0,
                         NI_NUMERICHOST);
    bool is_ipv6 = found->ai_family == AF_INET6;
    freeaddrinfo(found);
    if (result != 0 || strlen(address) + strlen(port) + 4 > LUN_PORTAL_SIZE) {
        return error_set(error, -EHOSTUNREACH, "\"%s\" has no usable address", host);
    }
    snprintf(ret_portal, LUN_PORTAL_SIZE, is_ipv6 ? "[%s]:%s" : "%s:%s", address, port);
    return 0;
}

/* The portal that a login was redirected to: "HOST:PORT,TAG" with brackets around IPv6. */
static int
take_redirect(struct lun_disk *disk, const char *address)
{
    char text[LUN_PORTAL_SIZE];
    const char *port = "3260";
    char *host = text;

    if (address == NULL || strlen(address) >= sizeof(text) || address[0] == '\0') {
        return error_set(&disk->failure, -EPROTO, "the target redirects to nowhere");
    }
    snprintf(text, sizeof(text), "%s", address);
    text[strcspn(text, ",")] = '\0';
    char *colon = strrchr(text, ':');
    char *bracket = strchr(text, ']');
    if (colon != NULL && (bracket == NULL || colon > bracket)) {
        *colon = '\0';
        port = colon + 1;
    }
    if (text[0] == '[' && bracket != NULL) {
        *bracket = '\0';
        host = text + 1;
    }
    return lun_resolve(host, port, disk->attached, disk->redirect, &disk->failure);
}

/* ---- connect and login ---- */

static void
phase_enter(struct lun_disk *disk, enum lun_phase phase)
{
    uint64_t timeout_ns = phase == LUN_PHASE_CONNECT ? connect_timeout_ns : phase_timeout_ns;
    ASSERT_OP((uint32_t)phase, <, (uint32_t)LUN_PHASE_COUNT);
    disk->phase = phase;
    disk->repeats = 0;
    disk->answered = false;
    disk->phase_retry_ns = 0;
    disk->phase_deadline_ns = lun_now_ns(disk) + timeout_ns;
}

static void
connect_done(struct iscsi_context *iscsi, int status, void *command_data, void *private_data)
{
    struct lun_disk *disk = private_data;
    (void)command_data;
    if (disk->destroying) {
        return;
    }
    if (status != SCSI_STATUS_GOOD || disk->phase != LUN_PHASE_CONNECT) {
        error_set(&disk->failure, -EHOSTUNREACH, "no connection to %s: %s",
                  disk->redirect[0] != '\0' ? disk->redirect : disk->portal,
                  iscsi_get_error(iscsi));
        disk->lost = true;
        return;
    }
    disk->connected = true;
    disk->answered = true;
}

static void
login_done(struct iscsi_context *iscsi, int status, void *command_data, void *private_data)
{
    struct lun_disk *disk = private_data;
    (void)iscsi;
    (void)command_data;
    if (disk->destroying) {
        return;
    }
    disk->answer = (struct lun_answer){ .status = status };
    disk->answered = true;
}

static enum lun_step
login_start(struct lun_disk *disk)
{
    if (iscsi_login_async(disk->context, login_done, disk) != 0) {
        error_set(&disk->failure, -EIO, "cannot log in: %s", iscsi_get_error(disk->context));
        return LUN_STEP_FAIL;
    }
    return LUN_STEP_WAIT;
}

static enum lun_step
login_finish(struct lun_disk *disk)
{
    const char *why = iscsi_get_error(disk->context);

    disk->answered = false;
    if (disk->answer.status == SCSI_STATUS_GOOD) {
        disk->logged_in = true;
        return LUN_STEP_NEXT;
    }
    if (disk->answer.status == SCSI_STATUS_REDIRECT && disk->redirects < REDIRECTS_MAX) {
        disk->redirects++;
        disk->redirecting = take_redirect(disk, iscsi_get_target_address(disk->context)) == 0;
        return LUN_STEP_FAIL;
    }
    /* The library says only in words why: tell a refused password from everything else. */
    bool refused = strstr(why, "uthent") != NULL || strstr(why, "uthoriz") != NULL;
    error_set(&disk->failure, refused ? -EACCES : -ECONNREFUSED,
              "the target %s refuses the login: %s%s", disk->location.target, why,
              refused ? "; check USER%PW in the text of the disk" : "");
    return LUN_STEP_FAIL;
}

static struct iscsi_context *
context_create(struct lun_disk *disk)
{
    const struct lun_location *location = &disk->location;
    struct iscsi_context *context = iscsi_create_context(location->initiator);
    if (context == NULL) {
        return NULL;
    }
    iscsi_set_noautoreconnect(context, 1);
    iscsi_set_timeout(context, 0); /* deadlines are the guard's; sessions are watched by NOPs */
    iscsi_set_targetname(context, location->target);
    iscsi_set_session_type(context, ISCSI_SESSION_NORMAL);
    iscsi_set_header_digest(context, location->header_digest ? ISCSI_HEADER_DIGEST_CRC32C
                                                             : ISCSI_HEADER_DIGEST_NONE_CRC32C);
    iscsi_set_isid_random(context, disk->isid_random, disk->isid_qualifier);
    if (location->user[0] != '\0') {
        iscsi_set_initiator_username_pwd(context, location->user, location->password);
    }
    if (location->target_user[0] != '\0') {
        iscsi_set_target_username_pwd(context, location->target_user, location->target_password);
    }
    return context;
}

static void
session_connect(struct lun_disk *disk)
{
    const char *portal = disk->redirecting ? disk->redirect : disk->portal;
    ASSERT(disk->context == NULL && disk->phase == LUN_PHASE_DOWN);

    if (!disk->redirecting) {
        disk->redirect[0] = '\0';
        disk->redirects = 0;
    }
    disk->redirecting = false;
    disk->failure.code = 0;
    disk->facts.capacity_blocks = 0;
    phase_enter(disk, LUN_PHASE_CONNECT);
    disk->context = context_create(disk);
    if (disk->context == NULL) {
        error_set(&disk->failure, -ENOMEM, "no memory for a session");
        disk->lost = true;
    } else if (iscsi_connect_async(disk->context, portal, connect_done, disk) != 0) {
        error_set(&disk->failure, -EHOSTUNREACH, "no connection to %s: %s", portal,
                  iscsi_get_error(disk->context));
        disk->lost = true;
    }
}

/* ---- loss ---- */

void
lun_session_drop(struct lun_disk *disk)
{
    uint64_t now_ns = lun_now_ns(disk);
    bool was_ready = disk->phase == LUN_PHASE_READY;

    polls_forget(disk);
    if (disk->context != NULL) {
        disk->destroying = true;
        iscsi_destroy_context(disk->context); /* L9 */
        disk->destroying = false;
        disk->context = NULL;
    }
    while (!list_empty(&disk->busy_slots)) { /* from the back: order is kept */
        struct lun_slot *slot = list_entry(disk->busy_slots.prev, struct lun_slot, link);
        struct lun_driver *driver = (struct lun_driver *)slot->io->driver;
        list_push_front(&disk->pending, &driver->link);
        lun_slot_release(slot);
    }
    lun_slot_release(disk->setup_slot);
    disk->lost = false;
    disk->connected = false;
    disk->logged_in = false;
    disk->answered = false;
    disk->resume_ns = 0;
    disk->phase = LUN_PHASE_DOWN;
    if (was_ready) {
        disk->backoff_ns = backoff_first_ns;
        log_warning("iscsi", "%s: session lost: %s; reconnecting", disk->location.target,
                    disk->failure.code != 0 ? disk->failure.message : "the connection has ended");
    }
    if (disk->outage_since_ns == 0 && disk->ever_ready) {
        disk->outage_since_ns = now_ns;
    }
    if (disk->redirecting) {
        disk->next_attempt_ns = now_ns;
    } else if (was_ready) {
        disk->next_attempt_ns =
            now_ns - disk->ready_ns < moment_ns ? now_ns + flap_pause_ns : now_ns;
    } else {
        disk->next_attempt_ns = now_ns + disk->backoff_ns;
        disk->backoff_ns = MIN(2 * disk->backoff_ns, backoff_last_ns);
    }
}

/* ---- ready ---- */

/* L5 to L7: whether what was not flushed is still there. */
static void
judge_loss(struct lun_disk *disk)
{
    bool reset = lun_was_reset(disk->evidence, disk->witness_armed, disk->witness_found);

    if (disk->ever_ready && reset && disk->written != disk->flushed) {
        log_error("iscsi", "%s: the LUN was reset; writes since the last flush may be lost",
                  disk->location.target);
        disk->flushed = disk->written;
        if (disk->backend != NULL) {
            guard_raise_loss(disk->backend);
        }
    }
    if (!disk->ever_ready && disk->backend != NULL) {
        disk->backend->properties.kept_unflushed =
            disk->evidence != LUN_RESET && disk->witness_found && disk->witness_useful;
    }
    disk->evidence = LUN_KEPT;
    disk->witness_armed = disk->witness_useful;
}

static void
session_ready(struct lun_disk *disk)
{
    ASSERT(disk->phase == LUN_PHASE_READY && disk->logged_in);
    judge_loss(disk);
    if (disk->ever_ready) {
        log_notice("iscsi", "%s: session restored", disk->location.target);
        if (disk->backend != NULL && !disk->facts.fua) {
            guard_emulate(disk->backend, GUARD_EMULATE_FUA);
        }
    } else {
        disk->identity = disk->facts.identity;
    }
    disk->ever_ready = true;
    disk->sessions++;
    disk->is_down = false;
    disk->outage_since_ns = 0;
    disk->backoff_ns = backoff_first_ns;
    disk->failure.code = 0;
    disk->ready_ns = lun_now_ns(disk);
    disk->nop_due_ns = disk->ready_ns + disk->location.nop_interval_s * NS_PER_S;
}

/* ---- running ---- */

static enum lun_step
phase_start(struct lun_disk *disk)
{
    return disk->phase == LUN_PHASE_LOGIN ? login_start(disk) : lun_setup_start(disk);
}

static enum lun_step
phase_finish(struct lun_disk *disk)
{
    switch (disk->phase) {
    case LUN_PHASE_CONNECT:
        disk->answered = false;
        return LUN_STEP_NEXT;
    case LUN_PHASE_LOGIN:
        return login_finish(disk);
    default:
        return lun_setup_finish(disk);
    }
}

/* Carry out what a phase decided. */
static void
phase_step(struct lun_disk *disk, enum lun_step step)
{
    if (step == LUN_STEP_REPEAT) {
        disk->repeats++;
        step = phase_start(disk);
    }
    while (step == LUN_STEP_NEXT) {
        phase_enter(disk, disk->phase + 1);
        if (disk->phase == LUN_PHASE_READY) {
            session_ready(disk);
            return;
        }
        step = phase_start(disk);
    }
    if (step == LUN_STEP_LATER) {
        disk->phase_retry_ns = lun_now_ns(disk) + phase_pause_ns;
    } else if (step == LUN_STEP_FAIL) {
        disk->lost = true;
    }
}

static void
run_setup(struct lun_disk *disk, uint64_t now_ns)
{
    if (disk->phase_retry_ns != 0 && now_ns >= disk->phase_retry_ns) {
        disk->phase_retry_ns = 0;
        phase_step(disk, LUN_STEP_REPEAT);
    }
    while (disk->answered && !disk->lost && disk->phase != LUN_PHASE_READY) {
        phase_step(disk, phase_finish(disk));
    }
    if (!disk->lost && disk->phase != LUN_PHASE_READY && now_ns >= disk->phase_deadline_ns) {
        error_set(&disk->failure, -ETIMEDOUT, "%s does not answer in the %s phase",
                  disk->redirect[0] != '\0' ? disk->redirect : disk->portal,
                  lun_phase_name(disk->phase));
        disk->lost = true;
    }
}

/*
 * Another initiator's reset ends our commands without a word. The next command would be told, but
 * there may be none: when nothing has been answered for a while, ask.
 */
static void
run_suspicion(struct lun_disk *disk)
{
    const uint8_t test_unit_ready[6] = { SCSI_OPCODE_TESTUNITREADY };
    bool stuck = !list_empty(&disk->busy_slots) && disk->answers == disk->answers_at_nop;

    disk->answers_at_nop = disk->answers;
    if (stuck && disk->setup_slot->task == NULL &&
        !lun_send(disk->setup_slot, test_unit_ready, sizeof(test_unit_ready), SCSI_XFER_NONE, 0,
                  0)) {
        disk->lost = true;
    }
}

static void
run_ready(struct lun_disk *disk, uint64_t now_ns)
{
    if (disk->resume_ns != 0 && now_ns >= disk->resume_ns) {
        disk->resume_ns = 0;
    }
    if (now_ns < disk->nop_due_ns) {
        return;
    }
    disk->nop_due_ns = now_ns + disk->location.nop_interval_s * NS_PER_S;
    if (iscsi_get_nops_in_flight(disk->context) >= NOPS_UNANSWERED_MAX) {
        error_set(&disk->failure, -ETIMEDOUT, "the target answers no NOP");
        disk->lost = true;
    } else if (iscsi_nop_out_async(disk->context, NULL, NULL, 0, NULL) != 0) {
        error_set(&disk->failure, -EIO, "cannot send a NOP: %s", iscsi_get_error(disk->context));
        disk->lost = true;
    } else {
        run_suspicion(disk);
    }
}

static void run_arm(struct lun_disk *disk);

void
lun_session_run(struct lun_disk *disk)
{
    uint64_t now_ns = lun_now_ns(disk);

    if (disk->lost) {
        lun_session_drop(disk);
    }
    if (disk->phase == LUN_PHASE_DOWN && now_ns >= disk->next_attempt_ns) {
        session_connect(disk);
    }
    if (disk->phase == LUN_PHASE_READY) {
        run_ready(disk, now_ns);
    } else if (disk->phase != LUN_PHASE_DOWN) {
        run_setup(disk, now_ns);
    }
    if (disk->lost) {
        lun_session_drop(disk);
    }
    if (disk->outage_since_ns != 0 && !disk->is_down &&
        now_ns >= disk->outage_since_ns + disk->location.reconnect_s * NS_PER_S) {
        log_error("iscsi", "%s: unreachable for %u s: %s", disk->location.target,
                  disk->location.reconnect_s, disk->failure.message);
        disk->is_down = true;
        lun_fail_pending(disk, -EHOSTDOWN);
    }
    if (disk->phase == LUN_PHASE_READY) {
        lun_issue(disk);
    }
    run_arm(disk);
}

/* Let libiscsi read and write. It may call back; it never destroys. */
static void
session_service(struct lun_disk *disk, int events)
{
    if (disk->context != NULL && iscsi_service(disk->context, events) < 0) {
        error_set(&disk->failure, -EIO, "%s", iscsi_get_error(disk->context));
        disk->lost = true;
    }
}

/* ---- on the thread of open() ---- */

static void
control_wait(struct lun_disk *disk)
{
    struct pollfd ready = { .fd = -1 };
    if (disk->context != NULL) {
        ready.fd = iscsi_get_fd(disk->context);
        ready.events = (short)iscsi_which_events(disk->context);
    }
    if (poll(&ready, 1, CONTROL_POLL_MS) > 0) {
        session_service(disk, ready.revents);
    }
}

int
lun_session_open(struct lun_disk *disk, uint64_t timeout_ns, struct error *error)
{
    uint64_t deadline_ns = lun_now_ns(disk) + timeout_ns;
    ASSERT(!disk->attached && disk->context == NULL);

    disk->phase = LUN_PHASE_DOWN;
    disk->next_attempt_ns = 0;
    disk->backoff_ns = backoff_last_ns; /* one attempt, redirections aside */
    for (;;) {
        lun_session_run(disk);
        if (disk->phase == LUN_PHASE_READY) {
            return 0;
        }
        if (disk->phase == LUN_PHASE_DOWN && !disk->redirecting) {
            break;
        }
        if (lun_now_ns(disk) >= deadline_ns) {
            error_set(&disk->failure, -ETIMEDOUT, "%s is not ready (%s phase)", disk->portal,
                      lun_phase_name(disk->phase));
            break;
        }
        control_wait(disk);
    }
    struct error failure = disk->failure;
    lun_session_drop(disk);
    ASSERT(failure.code < 0);
    return error_set(error, failure.code, "%s", failure.message);
}

static void
logout_done(struct iscsi_context *iscsi, int status, void *command_data, void *private_data)
{
    struct lun_disk *disk = private_data;
    (void)iscsi;
    (void)status;
    (void)command_data;
    disk->answered = true;
}

/* Wait for disk->answered. */
static void
control_wait_answer(struct lun_disk *disk, uint64_t deadline_ns)
{
    while (!disk->answered && !disk->lost && lun_now_ns(disk) < deadline_ns) {
        control_wait(disk);
    }
}

void
lun_session_close(struct lun_disk *disk)
{
    uint64_t deadline_ns = lun_now_ns(disk) + logout_timeout_ns;
    ASSERT(!disk->attached && list_empty(&disk->busy_slots));

    if (disk->phase == LUN_PHASE_READY && !disk->lost && reactor_self() == NULL) {
        if (!disk->is_probe && (disk->witness_found || disk->witness_useful) &&
            disk->setup_slot->task == NULL) {
            uint8_t cdb[10] = {
                SCSI_OPCODE_PERSISTENT_RESERVE_OUT,
                SCSI_PERSISTENT_RESERVE_REGISTER_AND_IGNORE_EXISTING_KEY,
                [8] = 24,
            };
            struct lun_slot *slot = disk->setup_slot;
            memset(slot->parameter, 0, sizeof(slot->parameter)); /* key 0: unregister */
            slot->iov[0] = (struct scsi_iovec){ .iov_base = slot->parameter, .iov_len = 24 };
            disk->answered = false;
            if (lun_send(slot, cdb, sizeof(cdb), SCSI_XFER_WRITE, 24, 1)) {
                control_wait_answer(disk, deadline_ns);
            }
        }
        disk->answered = false;
        if (!disk->lost && iscsi_logout_async(disk->context, logout_done, disk) == 0) {
            control_wait_answer(disk, deadline_ns);
        }
    }
    disk->phase = LUN_PHASE_DOWN; /* so that its end is not reported as a loss */
    lun_session_drop(disk);
}

/* ---- on the owner reactor ---- */

static void
poll_done(struct io_op *op)
{
    struct lun_poll *wait = container_of(op, struct lun_poll, poll.op);
    struct lun_disk *disk = wait->disk;
    int32_t result = op->result;

    list_remove(&wait->link);
    wait->armed = false;
    if (wait->forgotten) {
        free(wait);
        if (disk != NULL && disk->detached != NULL && list_empty(&disk->armed_polls)) {
            sem_post(disk->detached);
        }
        return;
    }
    ASSERT_ON_REACTOR(disk->backend->owner);
    if (result < 0) {
        error_set(&disk->failure, result, "cannot wait for the connection: %s", error_name(result));
        disk->lost = true;
    } else {
        session_service(disk, result);
    }
    lun_session_run(disk);
}

/* The session ends: its polls must not reach the next one. */
static void
polls_forget(struct lun_disk *disk)
{
    struct lun_poll *waits[] = { disk->poll_input, disk->poll_output };

    disk->poll_input = NULL;
    disk->poll_output = NULL;
    for (size_t i = 0; i < ARRAY_SIZE(waits); i++) {
        if (waits[i] == NULL) {
            continue;
        }
        if (waits[i]->armed) {
            waits[i]->forgotten = true;
            disk->platform->ops->fd_poll_cancel(reactor_engine(disk->backend->owner),
                                                &waits[i]->poll);
        } else {
            free(waits[i]);
        }
    }
}

static void
poll_arm(struct lun_disk *disk, struct lun_poll **wait, uint32_t events)
{
    if (*wait == NULL) {
        *wait = calloc(1, sizeof(**wait));
        ASSERT(*wait != NULL);
        (*wait)->disk = disk;
    }
    if ((*wait)->armed) {
        return;
    }
    (*wait)->armed = true;
    list_push_back(&disk->armed_polls, &(*wait)->link);
    (*wait)->poll = (struct fd_poll){
        .op = { .done = poll_done, .reactor_id = reactor_id(disk->backend->owner) },
        .fd = iscsi_get_fd(disk->context),
        .events = events,
    };
    disk->platform->ops->fd_poll(reactor_engine(disk->backend->owner), &(*wait)->poll);
}

static void
session_timer(struct timer *timer)
{
    struct lun_disk *disk = container_of(timer, struct lun_disk, timer);
    ASSERT_ON_REACTOR(disk->backend->owner);
    lun_session_run(disk);
}

/* Arm polls and timer for what can happen next. */
static void
run_arm(struct lun_disk *disk)
{
    uint64_t due_ns = UINT64_MAX;

    if (!disk->attached) {
        return;
    }
    if (disk->context != NULL) {
        uint32_t events = (uint32_t)iscsi_which_events(disk->context);
        if (events & POLLIN) {
            poll_arm(disk, &disk->poll_input, POLLIN);
        }
        if (events & POLLOUT) {
            poll_arm(disk, &disk->poll_output, POLLOUT);
        }
    }
    if (disk->phase == LUN_PHASE_READY) {
        due_ns = MIN(disk->nop_due_ns, disk->resume_ns != 0 ? disk->resume_ns : UINT64_MAX);
    } else if (disk->phase == LUN_PHASE_DOWN) {
        due_ns = disk->next_attempt_ns;
    } else {
        due_ns = disk->phase_deadline_ns;
        due_ns = MIN(due_ns, disk->phase_retry_ns != 0 ? disk->phase_retry_ns : UINT64_MAX);
    }
    if (disk->outage_since_ns != 0 && !disk->is_down) {
        due_ns = MIN(due_ns, disk->outage_since_ns + disk->location.reconnect_s * NS_PER_S);
    }
    timer_arm(disk->backend->owner, &disk->timer, due_ns, session_timer);
}

static void
session_hook(struct pass_hook *hook)
{
    struct lun_disk *disk = container_of(hook, struct lun_disk, hook);
    ASSERT_ON_REACTOR(disk->backend->owner);
    if (disk->phase == LUN_PHASE_READY && !disk->lost) {
        lun_issue(disk);
        session_service(disk, POLLOUT);
    }
    lun_session_run(disk);
}

void
lun_session_kick(struct lun_disk *disk)
{
    ASSERT(disk->attached);
    reactor_end_of_pass(disk->backend->owner, &disk->hook, session_hook);
}

void
lun_session_attach(struct lun_disk *disk)
{
    ASSERT_ON_REACTOR(disk->backend->owner);
    ASSERT(!disk->attached);
    disk->attached = true;
    disk->owner_thread = pthread_self();
    lun_session_kick(disk);
}

/* On the owner. */
static void
detach_here(struct lun_disk *disk)
{
    ASSERT_ON_REACTOR(disk->backend->owner);
    ASSERT(!disk->hook.queued && list_empty(&disk->pending) && list_empty(&disk->busy_slots));
    timer_disarm(disk->backend->owner, &disk->timer);
    polls_forget(disk);
}

static void
detach_message(struct message *message)
{
    struct lun_disk *disk = container_of(message, struct lun_disk, message);
    detach_here(disk);
    if (list_empty(&disk->armed_polls)) {
        sem_post(disk->detached);
    }
}

void
lun_session_detach(struct lun_disk *disk)
{
    struct reactor *owner = disk->backend->owner;
    sem_t detached;

    if (!disk->attached) {
        return;
    }
    if (reactor_self() == owner) {
        detach_here(disk);
        list_for_each_safe(&disk->armed_polls, link) {
            list_entry(link, struct lun_poll, link)->disk = NULL;
            list_remove(link);
        }
    } else {
        sem_init(&detached, 0, 0);
        disk->detached = &detached;
        reactor_send(owner, &disk->message, detach_message);
        if (pthread_equal(disk->owner_thread, pthread_self())) {
            /* No thread of its own: this one turns its loop. */
            while (sem_trywait(&detached) < 0) {
                reactor_pass(owner, true, NS_PER_MS);
            }
        } else {
            while (sem_wait(&detached) < 0) {
                ASSERT_OP(errno, ==, EINTR);
            }
        }
        disk->detached = NULL;
        sem_destroy(&detached);
    }
    disk->attached = false;
}
