/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/sim/oracle.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/endian.h"
#include "base/util.h"

/*
 * Versions are numbers of one counter per volume, so "submitted after" is "greater". Per sector:
 * the versions that it may show are kept as a short array, oldest first; each says whether it is
 * zeroes, and when (at which value of the counter of events) it was acknowledged.
 */
enum {
    COMPLAINTS_MAX = 8
};

struct version {
    uint64_t number;
    uint64_t acknowledged; /* 0: not yet, or with an error */
    bool zero;
    bool durable; /* covered by an acknowledged FLUSH or FUA */
};

struct sector {
    struct version *versions; /* [0] is the floor for a power cut */
    uint32_t count;
    uint32_t capacity;
};

struct oracle_write {
    uint64_t first_sector;
    uint64_t sector_count;
    uint64_t number;
    struct oracle_write *next;
};

struct oracle {
    uint32_t volume;
    uint64_t sector_count;
    struct sector *sectors;
    uint64_t numbers; /* last version number given */
    uint64_t events;  /* a clock: raised by each submission and answer */
    bool power_was_cut; /* the last death */
    uint32_t complaints;
    struct oracle_write *in_flight;
    uint64_t *touched; /* sectors with more than one version; may name one twice */
    uint64_t touched_count;
    uint64_t touched_capacity;
};

struct oracle *
oracle_create(uint32_t volume, uint64_t size_bytes)
{
    struct oracle *oracle = calloc(1, sizeof(*oracle));

    ASSERT(oracle != NULL);
    oracle->volume = volume;
    oracle->sector_count = size_bytes / ORACLE_SECTOR_BYTES;
    oracle->sectors = calloc(oracle->sector_count, sizeof(*oracle->sectors));
    ASSERT(oracle->sectors != NULL);
    return oracle;
}

static void
forget_in_flight(struct oracle *oracle)
{
    while (oracle->in_flight != NULL) {
        struct oracle_write *write = oracle->in_flight;
        oracle->in_flight = write->next;
        free(write);
    }
}

void
oracle_free(struct oracle *oracle)
{
    for (uint64_t i = 0; i < oracle->sector_count; i++) {
        free(oracle->sectors[i].versions);
    }
    forget_in_flight(oracle);
    free(oracle->sectors);
    free(oracle->touched);
    free(oracle);
}

struct oracle *
oracle_copy(const struct oracle *oracle)
{
    struct oracle *copy = malloc(sizeof(*copy));

    ASSERT(copy != NULL);
    *copy = *oracle;
    copy->in_flight = NULL;
    copy->sectors = malloc(copy->sector_count * sizeof(*copy->sectors));
    copy->touched = malloc((copy->touched_capacity + 1) * sizeof(*copy->touched));
    ASSERT(copy->sectors != NULL && copy->touched != NULL);
    if (oracle->touched_count > 0) {
        memcpy(copy->touched, oracle->touched, oracle->touched_count * sizeof(*copy->touched));
    }
    for (uint64_t i = 0; i < copy->sector_count; i++) {
        const struct sector *from = &oracle->sectors[i];
        struct sector *to = &copy->sectors[i];
        *to = (struct sector){ .count = from->count, .capacity = from->count };
        if (from->count > 0) {
            to->versions = malloc(from->count * sizeof(*to->versions));
            ASSERT(to->versions != NULL);
            memcpy(to->versions, from->versions, from->count * sizeof(*to->versions));
        }
    }
    return copy;
}

/* ---- content ---- */

static void
content(const struct oracle *oracle, uint64_t sector, uint64_t number, uint8_t *data)
{
    uint64_t mixed = hash_u64(number ^ hash_u64(sector + 1) ^ ((uint64_t)oracle->volume << 48));

    put_le64(data, UINT64_C(0x564f4c4d47525445));
    put_le32(data + 8, oracle->volume);
    put_le32(data + 12, 0);
    put_le64(data + 16, sector);
    put_le64(data + 24, number);
    for (uint32_t at = 32; at < ORACLE_SECTOR_BYTES; at += 8) {
        mixed = mixed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        put_le64(data + at, mixed);
    }
}

static bool
shows(const struct oracle *oracle, uint64_t sector, const struct version *version,
      const uint8_t *data)
{
    static const uint8_t zeroes[ORACLE_SECTOR_BYTES];
    uint8_t expected[ORACLE_SECTOR_BYTES];

    if (version->zero) {
        return memcmp(data, zeroes, sizeof(zeroes)) == 0;
    }
    content(oracle, sector, version->number, expected);
    return memcmp(data, expected, sizeof(expected)) == 0;
}

/* ---- versions ---- */

static struct version *
version_add(struct sector *sector)
{
    if (sector->count == sector->capacity) {
        uint32_t capacity = sector->capacity == 0 ? 2 : sector->capacity * 2;
        sector->versions = realloc(sector->versions, capacity * sizeof(*sector->versions));
        ASSERT(sector->versions != NULL);
        sector->capacity = capacity;
    }
    return &sector->versions[sector->count++];
}

static void
sector_begin(struct sector *sector)
{
    if (sector->count == 0) {
        *version_add(sector) = (struct version){ .zero = true, .acknowledged = 1, .durable = true };
    }
}

static void
touch(struct oracle *oracle, uint64_t sector)
{
    if (oracle->touched_count == oracle->touched_capacity) {
        oracle->touched_capacity = oracle->touched_capacity == 0 ? 64
                                                                 : oracle->touched_capacity * 2;
        oracle->touched = realloc(oracle->touched,
                                  oracle->touched_capacity * sizeof(*oracle->touched));
        ASSERT(oracle->touched != NULL);
    }
    oracle->touched[oracle->touched_count++] = sector;
}

struct oracle_write *
oracle_submit(struct oracle *oracle, uint64_t offset_bytes, uint64_t length_bytes, uint8_t *data)
{
    struct oracle_write *write = calloc(1, sizeof(*write));

    ASSERT(write != NULL);
    ASSERT(is_aligned(offset_bytes | length_bytes, ORACLE_SECTOR_BYTES));
    write->first_sector = offset_bytes / ORACLE_SECTOR_BYTES;
    write->sector_count = length_bytes / ORACLE_SECTOR_BYTES;
    write->number = ++oracle->numbers;
    oracle->events++;
    ASSERT_OP(write->first_sector + write->sector_count, <=, oracle->sector_count);
    for (uint64_t i = 0; i < write->sector_count; i++) {
        uint64_t sector = write->first_sector + i;
        sector_begin(&oracle->sectors[sector]);
        touch(oracle, sector);
        *version_add(&oracle->sectors[sector]) =
            (struct version){ .number = write->number, .zero = data == NULL };
        if (data != NULL) {
            content(oracle, sector, write->number, data + i * ORACLE_SECTOR_BYTES);
        }
    }
    write->next = oracle->in_flight;
    oracle->in_flight = write;
    return write;
}

/* Drop what lies before the newest durable version. */
static void
sector_prune(struct sector *sector)
{
    uint32_t keep = 0;

    for (uint32_t i = 0; i < sector->count; i++) {
        keep = sector->versions[i].durable ? i : keep;
    }
    if (keep > 0) {
        memmove(sector->versions, sector->versions + keep,
                (sector->count - keep) * sizeof(*sector->versions));
        sector->count -= keep;
    }
}

void
oracle_answered(struct oracle *oracle, struct oracle_write *write, bool success, bool fua)
{
    struct oracle_write **link = &oracle->in_flight;

    oracle->events++;
    while (*link != write) {
        ASSERT(*link != NULL);
        link = &(*link)->next;
    }
    *link = write->next;
    for (uint64_t i = 0; success && i < write->sector_count; i++) {
        struct sector *sector = &oracle->sectors[write->first_sector + i];
        for (uint32_t v = 0; v < sector->count; v++) {
            if (sector->versions[v].number == write->number) {
                sector->versions[v].acknowledged = oracle->events;
                sector->versions[v].durable = fua;
            }
        }
        if (fua) {
            sector_prune(sector);
        }
    }
    free(write);
}

uint64_t
oracle_flush_sent(struct oracle *oracle)
{
    return ++oracle->events;
}

void
oracle_flush_answered(struct oracle *oracle, uint64_t token)
{
    uint64_t kept = 0;

    for (uint64_t t = 0; t < oracle->touched_count; t++) {
        struct sector *sector = &oracle->sectors[oracle->touched[t]];
        for (uint32_t v = 0; v < sector->count; v++) {
            if (sector->versions[v].acknowledged != 0 && sector->versions[v].acknowledged < token) {
                sector->versions[v].durable = true;
            }
        }
        sector_prune(sector);
        if (sector->count > 1) {
            oracle->touched[kept++] = oracle->touched[t];
        }
    }
    oracle->touched_count = kept;
}

uint64_t
oracle_now(const struct oracle *oracle)
{
    return oracle->events;
}

/* ---- checks ---- */

static int
complain(struct oracle *oracle, uint64_t sector, uint32_t floor, const uint8_t *data,
         const char *when)
{
    const struct sector *history = &oracle->sectors[sector];

    if (oracle->complaints++ >= COMPLAINTS_MAX) {
        return -EBADMSG; /* one lost write may be thousands of sectors */
    }
    fprintf(stderr, "volume %u sector %" PRIu64 " %s: shows magic %016" PRIx64 " volume %u sector %"
            PRIu64 " version %" PRIu64 "; allowed:", oracle->volume, sector, when, get_le64(data),
            get_le32(data + 8), get_le64(data + 16), get_le64(data + 24));
    for (uint32_t v = floor; v < history->count; v++) {
        fprintf(stderr, " %" PRIu64 "%s%s", history->versions[v].number,
                history->versions[v].zero ? "(zero)" : "",
                history->versions[v].acknowledged != 0 ? "+" : "");
    }
    if (history->count == 0) {
        fprintf(stderr, " zeroes");
    }
    fputc('\n', stderr);
    return -EBADMSG;
}

/* The newest version that was acknowledged at or before `event`. */
static uint32_t
floor_at(const struct sector *sector, uint64_t event)
{
    uint32_t floor = 0;

    for (uint32_t v = 0; v < sector->count; v++) {
        if (sector->versions[v].acknowledged != 0 && sector->versions[v].acknowledged <= event) {
            floor = v;
        }
    }
    return floor;
}

static int
check_sector(struct oracle *oracle, uint64_t index, uint32_t floor, const uint8_t *data,
             const char *when)
{
    static const struct version never = { .zero = true };
    const struct sector *sector = &oracle->sectors[index];

    if (sector->count == 0) {
        return shows(oracle, index, &never, data) ? 0 : complain(oracle, index, 0, data, when);
    }
    for (uint32_t v = floor; v < sector->count; v++) {
        if (shows(oracle, index, &sector->versions[v], data)) {
            return (int)v;
        }
    }
    return complain(oracle, index, floor, data, when);
}

int
oracle_check_read(struct oracle *oracle, uint64_t offset_bytes, uint64_t length_bytes,
                  const uint8_t *data, uint64_t started)
{
    uint64_t first = offset_bytes / ORACLE_SECTOR_BYTES;
    int result = 0;

    for (uint64_t i = 0; i < length_bytes / ORACLE_SECTOR_BYTES; i++) {
        const struct sector *sector = &oracle->sectors[first + i];
        uint32_t floor = floor_at(sector, started);
        int shown = check_sector(oracle, first + i, floor, data + i * ORACLE_SECTOR_BYTES, "read");
        result = shown < 0 ? shown : result;
    }
    return result;
}

void
oracle_died(struct oracle *oracle, bool power_cut)
{
    forget_in_flight(oracle);
    oracle->power_was_cut = power_cut;
}

/* What a sector showed after the restart is what it shows from now on. */
static void
settle_on(struct oracle *oracle, struct sector *sector, uint32_t shown)
{
    if (sector->count == 0) {
        return;
    }
    sector->count = shown + 1;
    if (sector->versions[shown].acknowledged == 0) {
        sector->versions[shown].acknowledged = oracle->events;
    }
    if (oracle->power_was_cut) {
        /* It came from the medium. After a mere death of the process it may be in a cache only. */
        sector->versions[shown].durable = true;
        sector_prune(sector);
    }
}

int
oracle_check_recovered(struct oracle *oracle, uint64_t offset_bytes, uint64_t length_bytes,
                       const uint8_t *data)
{
    uint64_t first = offset_bytes / ORACLE_SECTOR_BYTES;
    int result = 0;

    for (uint64_t i = 0; i < length_bytes / ORACLE_SECTOR_BYTES; i++) {
        struct sector *sector = &oracle->sectors[first + i];
        uint32_t floor = oracle->power_was_cut ? 0 : floor_at(sector, oracle->events);
        int shown =
            check_sector(oracle, first + i, floor, data + i * ORACLE_SECTOR_BYTES, "recovered");
        if (shown < 0) {
            result = shown;
        } else {
            settle_on(oracle, sector, (uint32_t)shown);
        }
    }
    return result;
}

uint64_t
oracle_durable_sectors(const struct oracle *oracle)
{
    uint64_t count = 0;

    for (uint64_t i = 0; i < oracle->sector_count; i++) {
        const struct sector *sector = &oracle->sectors[i];
        count += sector->count > 0 && sector->versions[0].number != 0;
    }
    return count;
}
