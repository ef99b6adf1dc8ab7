/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Numbers of the NBD protocol, by the names of its text (NetworkBlockDevice/nbd doc/proto.md, and
 * its branch extension-ext-header for what is marked "extended headers"). All fields are big-endian
 * and unaligned: base/endian.h reads and writes them, there are no packed structs.
 */
#ifndef TARGETS_NBD_PROTOCOL_H
#define TARGETS_NBD_PROTOCOL_H

#include <stdint.h>

/* ---- handshake: "Newstyle negotiation" ---- */

#define NBD_MAGIC              UINT64_C(0x4e42444d41474943) /* "NBDMAGIC" */
#define NBD_OPTION_MAGIC       UINT64_C(0x49484156454f5054) /* "IHAVEOPT" */
#define NBD_OPTION_REPLY_MAGIC UINT64_C(0x0003e889045565a9)

enum nbd_handshake_sizes {
    NBD_GREETING_BYTES = 18,            /* magic, option magic, be16 flags */
    NBD_CLIENT_FLAGS_BYTES = 4,
    NBD_OPTION_HEADER_BYTES = 16,       /* option magic, be32 option, be32 length */
    NBD_OPTION_REPLY_HEADER_BYTES = 20, /* reply magic, be32 option, be32 type, be32 length */
    NBD_EXPORT_NAME_ZEROES = 124,       /* tail of the answer to EXPORT_NAME */
    NBD_STRING_BYTES_MAX = 4096,        /* "Conventions": strings MUST be no longer */
};

enum nbd_handshake_flags {
    NBD_FLAG_FIXED_NEWSTYLE = 1 << 0,
    NBD_FLAG_NO_ZEROES = 1 << 1,
};

enum nbd_client_flags {
    NBD_FLAG_C_FIXED_NEWSTYLE = 1 << 0,
    NBD_FLAG_C_NO_ZEROES = 1 << 1,
};

enum nbd_option {
    NBD_OPT_EXPORT_NAME = 1,
    NBD_OPT_ABORT = 2,
    NBD_OPT_LIST = 3,
    NBD_OPT_STARTTLS = 5,
    NBD_OPT_INFO = 6,
    NBD_OPT_GO = 7,
    NBD_OPT_STRUCTURED_REPLY = 8,
    NBD_OPT_LIST_META_CONTEXT = 9,
    NBD_OPT_SET_META_CONTEXT = 10,
    NBD_OPT_EXTENDED_HEADERS = 11, /* extended headers */
};

enum nbd_option_reply {
    NBD_REP_ACK = 1,
    NBD_REP_SERVER = 2,
    NBD_REP_INFO = 3,
    NBD_REP_META_CONTEXT = 4,
};

#define NBD_REP_ERR_UNSUP           UINT32_C(0x80000001)
#define NBD_REP_ERR_POLICY          UINT32_C(0x80000002)
#define NBD_REP_ERR_INVALID         UINT32_C(0x80000003)
#define NBD_REP_ERR_PLATFORM        UINT32_C(0x80000004)
#define NBD_REP_ERR_TLS_REQD        UINT32_C(0x80000005)
#define NBD_REP_ERR_UNKNOWN         UINT32_C(0x80000006)
#define NBD_REP_ERR_SHUTDOWN        UINT32_C(0x80000007)
#define NBD_REP_ERR_BLOCK_SIZE_REQD UINT32_C(0x80000008)
#define NBD_REP_ERR_TOO_BIG         UINT32_C(0x80000009)
#define NBD_REP_ERR_EXT_HEADER_REQD UINT32_C(0x8000000a) /* extended headers */

enum nbd_info {
    NBD_INFO_EXPORT = 0,
    NBD_INFO_NAME = 1,
    NBD_INFO_DESCRIPTION = 2,
    NBD_INFO_BLOCK_SIZE = 3,
};

/* "Transmission flags" */
enum nbd_transmission_flags {
    NBD_FLAG_HAS_FLAGS = 1 << 0,
    NBD_FLAG_READ_ONLY = 1 << 1,
    NBD_FLAG_SEND_FLUSH = 1 << 2,
    NBD_FLAG_SEND_FUA = 1 << 3,
    NBD_FLAG_ROTATIONAL = 1 << 4,
    NBD_FLAG_SEND_TRIM = 1 << 5,
    NBD_FLAG_SEND_WRITE_ZEROES = 1 << 6,
    NBD_FLAG_SEND_DF = 1 << 7,
    NBD_FLAG_CAN_MULTI_CONN = 1 << 8,
    NBD_FLAG_SEND_CACHE = 1 << 10,
    NBD_FLAG_SEND_FAST_ZERO = 1 << 11,
    NBD_FLAG_BLOCK_STATUS_PAYLOAD = 1 << 12, /* extended headers */
};

/* ---- transmission ---- */

#define NBD_REQUEST_MAGIC          UINT32_C(0x25609513)
#define NBD_EXTENDED_REQUEST_MAGIC UINT32_C(0x21e41c71)
#define NBD_SIMPLE_REPLY_MAGIC     UINT32_C(0x67446698)
#define NBD_STRUCTURED_REPLY_MAGIC UINT32_C(0x668e33ef)
#define NBD_EXTENDED_REPLY_MAGIC   UINT32_C(0x6e8a278c)

enum nbd_transmission_sizes {
    /* be32 magic, be16 flags, be16 type, be64 cookie, be64 offset, be32 length */
    NBD_REQUEST_BYTES = 28,
    /* the same with be64 length */
    NBD_EXTENDED_REQUEST_BYTES = 32,
    /* be32 magic, be32 error, be64 cookie */
    NBD_SIMPLE_REPLY_BYTES = 16,
    /* be32 magic, be16 flags, be16 type, be64 cookie, be32 length */
    NBD_STRUCTURED_REPLY_BYTES = 20,
    /* be32 magic, be16 flags, be16 type, be64 cookie, be64 offset, be64 length */
    NBD_EXTENDED_REPLY_BYTES = 32,
    /* "Block size constraints": any server takes this; we advertise it as our maximum. */
    NBD_PAYLOAD_BYTES_MAX = 32 << 20,
    /* A compact WRITE up to here is skipped and refused; beyond, the connection is closed. */
    NBD_PAYLOAD_BYTES_SKIP_MAX = 64 << 20,
};

enum nbd_command {
    NBD_CMD_READ = 0,
    NBD_CMD_WRITE = 1,
    NBD_CMD_DISC = 2,
    NBD_CMD_FLUSH = 3,
    NBD_CMD_TRIM = 4,
    NBD_CMD_CACHE = 5,
    NBD_CMD_WRITE_ZEROES = 6,
    NBD_CMD_BLOCK_STATUS = 7,
    NBD_CMD_COUNT
};

enum nbd_command_flags {
    NBD_CMD_FLAG_FUA = 1 << 0,
    NBD_CMD_FLAG_NO_HOLE = 1 << 1,
    NBD_CMD_FLAG_DF = 1 << 2,
    NBD_CMD_FLAG_REQ_ONE = 1 << 3,
    NBD_CMD_FLAG_FAST_ZERO = 1 << 4,
    NBD_CMD_FLAG_PAYLOAD_LEN = 1 << 5, /* extended headers */
};

enum nbd_reply_flags {
    NBD_REPLY_FLAG_DONE = 1 << 0,
};

enum nbd_reply_type {
    NBD_REPLY_TYPE_NONE = 0,
    NBD_REPLY_TYPE_OFFSET_DATA = 1,      /* be64 offset, data */
    NBD_REPLY_TYPE_OFFSET_HOLE = 2,      /* be64 offset, be32 length */
    NBD_REPLY_TYPE_BLOCK_STATUS = 5,     /* be32 id, then {be32 length, be32 flags} each */
    NBD_REPLY_TYPE_BLOCK_STATUS_EXT = 6, /* be32 id, be32 count, {be64 length, be64 flags} each */
    NBD_REPLY_TYPE_ERROR = 0x8001,        /* be32 error, be16 length, message */
    NBD_REPLY_TYPE_ERROR_OFFSET = 0x8002, /* the same, be64 offset */
};

/* "base:allocation metadata context" */
enum nbd_state_flags {
    NBD_STATE_HOLE = 1 << 0,
    NBD_STATE_ZERO = 1 << 1,
};

/* Contexts of QEMU's docs/interop/nbd.txt, "qemu" namespace. */
enum nbd_dirty_bitmap_flags {
    NBD_STATE_DIRTY = 1 << 0,
};

/* "Error values" */
enum nbd_error {
    NBD_SUCCESS = 0,
    NBD_EPERM = 1,
    NBD_EIO = 5,
    NBD_ENOMEM = 12,
    NBD_EINVAL = 22,
    NBD_ENOSPC = 28,
    NBD_EOVERFLOW = 75,
    NBD_ENOTSUP = 95,
    NBD_ESHUTDOWN = 108,
};

#endif
