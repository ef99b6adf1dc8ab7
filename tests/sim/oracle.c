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
    COMPLAINTS_MAX = 8,
    GROUP_SECTORS = 128, /* 64 KiB */
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

/* Histories of sectors, by groups that were ever written; copies of an oracle share them. */
struct group {
    uint32_t references;
    struct sector sectors[GROUP_SECTORS];
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
    struct group **groups; /* NULL: never written */
    uint64_t group_count;
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
    oracle->group_count = div_round_up(oracle->sector_count, GROUP_SECTORS);
    oracle->groups = calloc(oracle->group_count + 1, sizeof(struct group *));
    ASSERT(oracle->groups != NULL);
    return oracle;
}

/* ---- groups ---- */

static void
group_put(struct group *group)
{
    if (group == NULL || --group->references > 0) {
        return;
    }
    for (uint32_t i = 0; i < GROUP_SECTORS; i++) {
        free(group->sectors[i].versions);
    }
    free(group);
}

static struct group *
group_copy(const struct group *from)
{
    struct group *group = malloc(sizeof(*group));

    ASSERT(group != NULL);
    group->references = 1;
    for (uint32_t i = 0; i < GROUP_SECTORS; i++) {
        const struct sector *sector = &from->sectors[i];
        group->sectors[i] = (struct sector){ .count = sector->count, .capacity = sector->count };
        if (sector->count > 0) {
            group->sectors[i].versions = malloc(sector->count * sizeof(*sector->versions));
            ASSERT(group->sectors[i].versions != NULL);
            memcpy(group->sectors[i].versions, sector->versions,
                   sector->count * sizeof(*sector->versions));
        }
    }
    return group;
}

/* To look at. */
static const struct sector *
sector_at(const struct oracle *oracle, uint64_t index)
{
    static const struct sector never = { .count = 0 };
    const struct group *group = oracle->groups[index / GROUP_SECTORS];

    ASSERT_OP(index, <, oracle->sector_count);
    return group == NULL ? &never : &group->sectors[index % GROUP_SECTORS];
}

/* To change. */
static struct sector *
sector_own(struct oracle *oracle, uint64_t index)
{
    struct group **group = &oracle->groups[index / GROUP_SECTORS];

    ASSERT_OP(index, <, oracle->sector_count);
    if (*group == NULL) {
        *group = calloc(1, sizeof(**group));
        ASSERT(*group != NULL);
        (*group)->references = 1;
    } else if ((*group)->references > 1) {
        struct group *copy = group_copy(*group);
        group_put(*group);
        *group = copy;
    }
    return &(*group)->sectors[index % GROUP_SECTORS];
}

bool
oracle_was_written(const struct oracle *oracle, uint64_t offset_bytes, uint64_t length_bytes)
{
    uint64_t first = offset_bytes / ORACLE_SECTOR_BYTES / GROUP_SECTORS;
    uint64_t last = (offset_bytes + length_bytes - 1) / ORACLE_SECTOR_BYTES / GROUP_SECTORS;

    for (uint64_t i = first; i <= last; i++) {
        if (oracle->groups[i] != NULL) {
            return true;
        }
    }
    return false;
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
    for (uint64_t i = 0; i < oracle->group_count; i++) {
        group_put(oracle->groups[i]);
    }
    forget_in_flight(oracle);
    free(oracle->groups);
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
    copy->groups = malloc((copy->group_count + 1) * sizeof(struct group *));
    copy->touched = malloc((copy->touched_capacity + 1) * sizeof(*copy->touched));
    ASSERT(copy->groups != NULL && copy->touched != NULL);
    if (oracle->touched_count > 0) {
        memcpy(copy->touched, oracle->touched, oracle->touched_count * sizeof(*copy->touched));
    }
    for (uint64_t i = 0; i < copy->group_count; i++) {
        copy->groups[i] = oracle->groups[i];
        if (copy->groups[i] != NULL) {
            copy->groups[i]->references++;
        }
    }
    return copy;
}

/* ---- content ---- */

static uint64_t
content_mix(const struct oracle *oracle, uint64_t sector, uint64_t number)
{
    return hash_u64(number ^ hash_u64(sector + 1) ^ ((uint64_t)oracle->volume << 48));
}

static void
content(const struct oracle *oracle, uint64_t sector, uint64_t number, uint8_t *data)
{
    uint64_t mixed = content_mix(oracle, sector, number);

    put_le64(data, UINT64_C(0x564f4c4d47525445));
    put_le32(data + 8, oracle->volume);
    put_le32(data + 12, 0);
    put_le64(data + 16, sector);
    put_le64(data + 24, number);
    for (uint32_t at = 32; at < ORACLE_SECTOR_BYTES; at += 8) {
        put_le64(data + at, mixed ^ (at * UINT64_C(0x0101010101010101)));
    }
}

/* What content() would make, compared in place: this is where the crash tests spend their time. */
static bool
is_content(const struct oracle *oracle, uint64_t sector, uint64_t number, const uint8_t *data)
{
    uint64_t mixed = content_mix(oracle, sector, number);
    uint64_t wrong = get_le64(data) ^ UINT64_C(0x564f4c4d47525445);

    wrong |= get_le64(data + 8) ^ oracle->volume;
    wrong |= get_le64(data + 16) ^ sector;
    for (uint32_t at = 32; at < ORACLE_SECTOR_BYTES; at += 8) {
        wrong |= get_le64(data + at) ^ mixed ^ (at * UINT64_C(0x0101010101010101));
    }
    return wrong == 0;
}

static bool
shows(const struct oracle *oracle, uint64_t sector, const struct version *version,
      const uint8_t *data)
{
    static const uint8_t zeroes[ORACLE_SECTOR_BYTES];

    if (version->zero) {
        return memcmp(data, zeroes, sizeof(zeroes)) == 0;
    }
    return get_le64(data + 24) == version->number &&
           is_content(oracle, sector, version->number, data);
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
oracle_note_submit(struct oracle *oracle, uint64_t offset_bytes, uint64_t length_bytes, bool zero)
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
        struct sector *history = sector_own(oracle, sector);
        sector_begin(history);
        touch(oracle, sector);
        *version_add(history) = (struct version){ .number = write->number, .zero = zero };
    }
    write->next = oracle->in_flight;
    oracle->in_flight = write;
    return write;
}

struct oracle_write *
oracle_submit(struct oracle *oracle, uint64_t offset_bytes, uint64_t length_bytes, uint8_t *data)
{
    struct oracle_write *write =
        oracle_note_submit(oracle, offset_bytes, length_bytes, data == NULL);

    for (uint64_t i = 0; data != NULL && i < write->sector_count; i++) {
        content(oracle, write->first_sector + i, write->number, data + i * ORACLE_SECTOR_BYTES);
    }
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
        struct sector *sector = sector_own(oracle, write->first_sector + i);
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
        struct sector *sector = sector_own(oracle, oracle->touched[t]);
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
    const struct sector *history = sector_at(oracle, sector);

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
    const struct sector *sector = sector_at(oracle, index);

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
        uint32_t floor = floor_at(sector_at(oracle, first + i), started);
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
settle_on(struct oracle *oracle, uint64_t index, uint32_t shown)
{
    const struct sector *seen = sector_at(oracle, index);

    if (seen->count == 0 || (seen->count == 1 && seen->versions[0].acknowledged != 0 &&
                             (seen->versions[0].durable || !oracle->power_was_cut))) {
        return;
    }
    struct sector *sector = sector_own(oracle, index);
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
        uint32_t floor =
            oracle->power_was_cut ? 0 : floor_at(sector_at(oracle, first + i), oracle->events);
        int shown =
            check_sector(oracle, first + i, floor, data + i * ORACLE_SECTOR_BYTES, "recovered");
        if (shown < 0) {
            result = shown;
        } else {
            settle_on(oracle, first + i, (uint32_t)shown);
        }
    }
    return result;
}

void
oracle_cut_off(struct oracle *oracle, uint64_t size_bytes)
{
    uint64_t first = div_round_up(size_bytes, ORACLE_SECTOR_BYTES);

    oracle->events++;
    for (uint64_t i = first; i < oracle->sector_count; i++) {
        if (oracle->groups[i / GROUP_SECTORS] == NULL) {
            i |= GROUP_SECTORS - 1;
        } else if (sector_at(oracle, i)->count > 0) {
            sector_own(oracle, i)->count = 0;
        }
    }
}

uint64_t
oracle_durable_sectors(const struct oracle *oracle)
{
    uint64_t count = 0;

    for (uint64_t i = 0; i < oracle->group_count; i++) {
        for (uint32_t j = 0; oracle->groups[i] != NULL && j < GROUP_SECTORS; j++) {
            const struct sector *sector = &oracle->groups[i]->sectors[j];
            count += sector->count > 0 && sector->versions[0].number != 0;
        }
    }
    return count;
}
