/* SPDX-License-Identifier: Apache-2.0 */
/* Stable words for the enums of reports, in JSON and metrics alike. */
#ifndef DAEMON_REPORT_NAMES_H
#define DAEMON_REPORT_NAMES_H

#include "backends/backend.h"
#include "base/assert.h"
#include "base/util.h"
#include "metadata/schema.h"
#include "volmgr/manager.h"

static inline const char *
disk_state_name(uint8_t state)
{
    switch (state) {
    case DISK_STATE_ACTIVE:
        return "active";
    case DISK_STATE_MISSING:
        return "missing";
    case DISK_STATE_FAILED:
        return "failed";
    default:
        return "unknown";
    }
}

static inline const char *
disk_operation_name(int kind)
{
    static const char *const names[BACKEND_IO_KIND_COUNT] = {
        [BACKEND_READ] = "read",         [BACKEND_WRITE] = "write",
        [BACKEND_FLUSH] = "flush",       [BACKEND_DISCARD] = "discard",
        [BACKEND_WRITE_ZEROES] = "zero", [BACKEND_ALLOCATE] = "allocate",
    };
    ASSERT_OP(kind, <, (int)BACKEND_IO_KIND_COUNT);
    return names[kind];
}

static inline const char *
volume_operation_name(int kind)
{
    static const char *const names[VOLUME_OPERATION_COUNT] = {
        [VOLUME_READ] = "read",         [VOLUME_WRITE] = "write",   [VOLUME_WRITE_ZEROES] = "zero",
        [VOLUME_DISCARD] = "discard",   [VOLUME_FLUSH] = "flush",   [VOLUME_STATUS] = "status",
        [VOLUME_PREFETCH] = "prefetch",
    };
    ASSERT_OP(kind, <, (int)VOLUME_OPERATION_COUNT);
    return names[kind];
}

static inline const char *
event_severity_name(enum event_severity severity)
{
    static const char *const names[] = { "info", "warning", "critical" };
    ASSERT_OP((size_t)severity, <, ARRAY_SIZE(names));
    return names[severity];
}

#endif
