/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Signatures that others leave on disks: so that nobody's data is overwritten without --force.
 *
 * Most are constant bytes at a constant place, and are rows of a table; the others have a function.
 * The first match names the content, so what is specific comes before what is general (a FAT file
 * system ends its first sector as a partition table does). Places and magics are those that
 * libblkid of util-linux looks for. A signature may be a leftover of something that is gone; to
 * refuse then is right, too.
 */
#include <stdio.h>
#include <string.h>

#include "base/endian.h"
#include "base/util.h"
#include "metadata/label_impl.h"

/* The bytes at an absolute place of the disk, or NULL when they are not in the window. */
static const uint8_t *
window_at(const struct disk_window *window, uint64_t offset_bytes, uint64_t length_bytes)
{
    if (offset_bytes < window->start_bytes || length_bytes > window->length_bytes
        || offset_bytes - window->start_bytes > window->length_bytes - length_bytes) {
        return NULL;
    }
    return window->data + (offset_bytes - window->start_bytes);
}

static bool
window_has(const struct disk_window *window, uint64_t offset_bytes, const void *magic,
           uint64_t length_bytes)
{
    const uint8_t *at = window_at(window, offset_bytes, length_bytes);
    return at != NULL && memcmp(at, magic, length_bytes) == 0;
}

/* ---- constant bytes at a constant place ---- */

struct signature {
    uint64_t offset_bytes;
    uint8_t length_bytes;
    bool from_end; /* the offset counts from the end of the disk, to the magic's first byte */
    const char *magic;
    const char *what;
};

#define AT(offset, magic_, what_)                                                                  \
    {                                                                                              \
        .offset_bytes = (offset), .length_bytes = sizeof(magic_) - 1, .magic = (magic_),           \
        .what = (what_)                                                                            \
    }
#define AT_END(offset, magic_, what_)                                                              \
    {                                                                                              \
        .offset_bytes = (offset), .length_bytes = sizeof(magic_) - 1, .from_end = true,            \
        .magic = (magic_), .what = (what_)                                                         \
    }

static const struct signature signatures[] = {
    AT(0, "XFSB", "an XFS file system"),
    AT(65600, "_BHRfS_M", "a btrfs file system"),
    AT(0, "LUKS\xba\xbe\0\1", "a LUKS1 encrypted volume"),
    AT(0, "LUKS\xba\xbe\0\2", "a LUKS2 encrypted volume"),
    AT(16384, "SKUL\xba\xbe", "a LUKS2 encrypted volume (its second header)"),
    AT(32768, "SKUL\xba\xbe", "a LUKS2 encrypted volume (its second header)"),
    AT(4096 - 10, "SWAPSPACE2", "a swap area"),
    AT(4096 - 10, "SWAP-SPACE", "a swap area"),
    AT(8192 - 10, "SWAPSPACE2", "a swap area"),
    AT(16384 - 10, "SWAPSPACE2", "a swap area"),
    AT(65536 - 10, "SWAPSPACE2", "a swap area"),
    AT(3, "NTFS    ", "an NTFS file system"),
    AT(3, "EXFAT   ", "an exFAT file system"),
    AT(3, "-FVE-FS-", "a BitLocker volume"),
    AT(82, "FAT32   ", "a FAT file system"),
    AT(54, "FAT16   ", "a FAT file system"),
    AT(54, "FAT12   ", "a FAT file system"),
    AT(54, "FAT     ", "a FAT file system"),
    AT(32769, "CD001", "an ISO 9660 file system"),
    AT(32769, "BEA01", "a UDF file system"),
    AT(4096 + 24, "\xc6\x85\x73\xf6\x4e\x1a\x45\xca\x82\x65\xf5\x7f\x48\xba\x6d\x81",
       "a bcache device"),
    AT(4096 + 24, "\xc6\x85\x73\xf6\x66\xce\x90\xa9\xd9\x6a\x60\xcf\x80\x3d\xf7\xef",
       "a bcachefs file system"),
    AT_END(4096 - 60, "\x83\x74\x02\x6b", "a DRBD device"),
    AT_END(4096 - 60, "\x83\x74\x02\x6c", "a DRBD device"),
    AT_END(4096 - 60, "\x83\x74\x02\x6d", "a DRBD device"),
    AT(0, "QFI\xfb", "a qcow2 image"),
    AT(0, "KDMV", "a VMDK image"),
    AT(0, "vhdxfile", "a VHDX image"),
    AT(0, "conectix", "a VHD image"),
    AT(64, "\x7f\x10\xda\xbe", "a VDI image"),
    AT(1 << 20, "\x0d\xd0\x01\xc0", "a member of a VMFS volume"),
    AT(2 << 20, "\x5e\xf1\xab\x2f", "a VMFS file system"),
    AT(0, "bluestore block device", "a Ceph OSD"),
    AT(0, "dmvdo001", "a VDO volume"),
    AT(512 + 4, "!Stra0tis\x86\xff\x02^\x41rh", "a Stratis device"),
    AT(4608 + 4, "!Stra0tis\x86\xff\x02^\x41rh", "a Stratis device"),
    AT(32, "ORCLDISK", "an Oracle ASM disk"),
    AT(1024, "\x10\x20\xf5\xf2", "an F2FS file system"),
    AT(0, "hsqs", "a SquashFS file system"),
    AT(32768, "JFS1", "a JFS file system"),
    AT(65536 + 52, "ReIsErFs", "a ReiserFS file system"),
    AT(65536 + 52, "ReIsEr2Fs", "a ReiserFS file system"),
    AT(65536 + 52, "ReIsEr3Fs", "a ReiserFS file system"),
    AT(65536, "\x01\x16\x19\x70", "a GFS2 file system"),
    AT(8192, "OCFSV2", "an OCFS2 file system"),
    AT(1024, "H+", "an HFS+ file system"),
    AT(32, "NXSB", "an APFS container"),
};

static const char *
find_signature(const struct disk_window *window)
{
    for (size_t n = 0; n < ARRAY_SIZE(signatures); n++) {
        const struct signature *signature = &signatures[n];
        uint64_t offset_bytes = signature->offset_bytes;
        if (signature->from_end) {
            if (window->disk_bytes < offset_bytes) {
                continue;
            }
            offset_bytes = window->disk_bytes - offset_bytes;
        }
        if (window_has(window, offset_bytes, signature->magic, signature->length_bytes)) {
            return signature->what;
        }
    }
    return NULL;
}

/* ---- what takes more than a comparison ---- */

static const char *
find_ext(const struct disk_window *window)
{
    const uint8_t *super = window_at(window, 1024, 1024);
    if (super == NULL || get_le16(super + 0x38) != 0xef53) {
        return NULL;
    }
    const uint32_t compat_journal = 0x4;
    const uint32_t incompat_journal_device = 0x8;
    const uint32_t incompat_up_to_ext3 = 0x2 | 0x4 | 0x10; /* file type, recover, meta_bg */
    const uint32_t ro_compat_up_to_ext3 = 0x1 | 0x2 | 0x4; /* sparse, large file, btree */
    uint32_t incompat = get_le32(super + 0x60);
    if ((incompat & incompat_journal_device) != 0) {
        return "an ext journal";
    }
    if ((incompat & ~incompat_up_to_ext3) != 0
        || (get_le32(super + 0x64) & ~ro_compat_up_to_ext3) != 0) {
        return "an ext4 file system";
    }
    return (get_le32(super + 0x5c) & compat_journal) != 0 ? "an ext3 file system"
                                                          : "an ext2 file system";
}

static const char *
find_lvm(const struct disk_window *window)
{
    for (uint64_t sector = 0; sector < 4; sector++) {
        if (window_has(window, sector * 512, "LABELONE", 8)
            && window_has(window, sector * 512 + 24, "LVM2 001", 8)) {
            return "an LVM2 physical volume";
        }
    }
    return NULL;
}

static const char *
find_md(const struct disk_window *window)
{
    static const char little[] = "\xfc\x4e\x2b\xa9";
    static const char big[] = "\xa9\x2b\x4e\xfc";
    uint64_t size = window->disk_bytes;
    if (size > 2 * 65536) {
        uint64_t old = align_down(size, 65536) - 65536; /* version 0.90 */
        uint64_t at_end = align_down(size, 4096) - 8192; /* version 1.0 */
        if (window_has(window, old, little, 4) || window_has(window, old, big, 4)
            || window_has(window, at_end, little, 4)) {
            return "a member of an MD array";
        }
    }
    if (window_has(window, 0, little, 4) || window_has(window, 4096, little, 4)) { /* 1.1, 1.2 */
        return "a member of an MD array";
    }
    return NULL;
}

static const char *
find_zfs(const struct disk_window *window)
{
    /* The ring of uberblocks of the first label; its slots are 1 KiB or larger powers of two. */
    for (uint64_t offset = 128 << 10; offset < 256 << 10; offset += 1024) {
        const uint8_t *at = window_at(window, offset, 8);
        if (at != NULL && (get_le64(at) == 0x00bab10c || get_be64(at) == 0x00bab10c)) {
            return "a member of a ZFS pool";
        }
    }
    return NULL;
}

static const char *
find_gpt(const struct disk_window *window)
{
    static const uint64_t sector_sizes[] = { 512, 4096 };
    for (size_t n = 0; n < ARRAY_SIZE(sector_sizes); n++) {
        uint64_t sector_bytes = sector_sizes[n];
        if (window_has(window, sector_bytes, "EFI PART", 8)) {
            return "a GPT partition table";
        }
        uint64_t last = align_down(window->disk_bytes, sector_bytes) - sector_bytes;
        if (window->disk_bytes > sector_bytes && window_has(window, last, "EFI PART", 8)) {
            return "a GPT partition table (its backup)";
        }
    }
    return NULL;
}

static const char *
find_mbr(const struct disk_window *window)
{
    const uint8_t *sector = window_at(window, 0, 512);
    if (sector == NULL || get_le16(sector + 510) != 0xaa55) {
        return NULL;
    }
    bool has_partition = false;
    for (uint32_t n = 0; n < 4; n++) {
        const uint8_t *entry = sector + 446 + (size_t)n * 16;
        if ((entry[0] & 0x7f) != 0) {
            return "a boot sector";
        }
        has_partition |= entry[4] != 0 && get_le32(entry + 12) != 0;
    }
    return has_partition ? "an MBR partition table" : "a boot sector";
}

typedef const char *find_fn(const struct disk_window *window);

static find_fn *const finders[] = {
    find_ext, find_lvm, find_md, find_signature, find_zfs, find_gpt, find_mbr,
};

void
foreign_content_find(const struct disk_window *window, struct foreign_content *ret_content)
{
    for (size_t n = 0; n < ARRAY_SIZE(finders); n++) {
        const char *what = finders[n](window);
        if (what != NULL) {
            ret_content->found = true;
            snprintf(ret_content->what, sizeof(ret_content->what), "%s", what);
            return;
        }
    }
}
