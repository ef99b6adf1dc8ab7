/* SPDX-License-Identifier: Apache-2.0 */
/* Shared by the checkpoint*.c files only: the bytes of part headers and frames (docs/FORMAT.md). */
#ifndef METADATA_CHECKPOINT_IMPL_H
#define METADATA_CHECKPOINT_IMPL_H

#include "metadata/checkpoint.h"

enum {
    CHECKPOINT_BLOCK_BYTES = 4096,
    CHECKPOINT_FRAME_HEADER_BYTES = 64,
};

struct checkpoint_places {
    uint32_t count;
    struct extent_place places[EXTENT_COPIES_MAX];
};

struct checkpoint_header {
    uint8_t pool_guid[GUID_BYTES];
    uint8_t checkpoint_guid[GUID_BYTES]; /* random: frames of another checkpoint never match */
    uint64_t commit;
    uint32_t part;
    bool is_last;
    uint64_t first_frame;
    uint64_t frame_count;
    uint64_t used_bytes; /* of the part, this header included */
    struct checkpoint_places own;
    struct checkpoint_places next; /* none in the last part */
    /* Of all parts up to and with this one. */
    uint64_t item_count;
    uint32_t stream_crc; /* of the frames' CRCs */
};

void checkpoint_header_encode(const struct checkpoint_header *header,
                              uint8_t block[static CHECKPOINT_BLOCK_BYTES]);
/* 0, -ENOENT or -EBADMSG. */
int checkpoint_header_decode(const uint8_t block[static CHECKPOINT_BLOCK_BYTES],
                             struct checkpoint_header *ret_header);

struct checkpoint_frame {
    uint8_t checkpoint_guid[GUID_BYTES];
    uint64_t number;
    uint32_t item_count;
    uint32_t batch_bytes;
    uint32_t crc; /* of the rest of the header and of the batch */
};

/* Bytes that a frame takes: whole blocks. */
uint64_t checkpoint_frame_bytes(uint64_t batch_bytes);
/* `to` holds the batch behind the frame header already; fills in the header and its CRC. */
void checkpoint_frame_encode(struct checkpoint_frame *frame, uint8_t *to);
/*
 * Look at a frame in a window: 0; -EBADMSG: damaged; -EAGAIN: may be good, but the window ends
 * before it does.
 */
int checkpoint_frame_decode(const uint8_t *from, uint64_t window_bytes,
                            struct checkpoint_frame *ret_frame);

#endif
