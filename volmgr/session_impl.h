/* SPDX-License-Identifier: Apache-2.0 */
/* What session.c and session_drop.c share: a reactor's table of sessions. */
#ifndef VOLMGR_SESSION_IMPL_H
#define VOLMGR_SESSION_IMPL_H

#include "volmgr/control_impl.h"
#include "volmgr/state_file_impl.h"

struct blocked_peer {
    struct list link;
    char match[BLOCK_TEXT_SIZE];
};

/* Of each reactor; touched on it only. */
struct session_table {
    struct list sessions; /* struct volume_session by reactor_link */
    struct list blocked;  /* struct blocked_peer */
    struct list drops;    /* struct drop_stop that wait for sessions to detach */
};

/* Is this session the host's that `match` names, by address or identity? */
bool session_matches(const struct volume_session *session, const char *match);
/* The host part of a network peer. False: it has none. */
bool session_address(const struct volume_session *session,
                     char ret_host[static BLOCK_TEXT_SIZE]);
/* On the table's reactor. */
void table_block(struct session_table *table, const char *match);
void table_unblock(struct session_table *table, const char *match);
/* A session has detached: those that wait for it. */
void drops_session_gone(struct session_table *table, uint64_t id);

#endif
