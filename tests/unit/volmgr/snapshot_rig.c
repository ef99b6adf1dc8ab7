/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/volmgr/snapshot_rig.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "tests/sim/sim_impl.h"
#include "volmgr/pipeline_impl.h"

enum {
    SECTOR = 512,
    BLOCK = 4 * KIB,
    IO_BYTES_MAX = RIG_GRAINS * GRAIN_BYTES,
};

static const char *const ONE[] = { "/d/0", NULL };

/* ---- calls on the volume's reactor ---- */

struct rig_call {
    struct message message;
    struct rig *rig;
    void (*function)(struct rig *rig);
    bool done;
};

static void
call_deliver(struct message *message)
{
    struct rig_call *call = container_of(message, struct rig_call, message);

    call->function(call->rig);
    call->done = true;
}

void
rig_call(struct rig *rig, void (*function)(struct rig *rig))
{
    struct rig_call call = { .rig = rig, .function = function };

    sim_process_enter(rig->bench->sim);
    reactor_send(volume_reactor(rig->volume), &call.message, call_deliver);
    sim_process_leave(rig->bench->sim);
    assert_int_equal(bench_wait(rig->bench, &call.done), 0);
}

void
rig_run(struct rig *rig, uint64_t time_ns)
{
    assert_int_equal(sim_run_for(rig->bench->sim, time_ns), 0);
}

/* ---- life ---- */

static void
look_up(struct rig *rig)
{
    struct export_lookup lookup;

    assert_int_equal(bench_lookup(rig->bench, 0, "p/v", &lookup), 0);
    rig->volume = lookup.ret_volume;
}

void
rig_create(struct rig *rig, uint64_t seed, uint32_t sector_bytes)
{
    struct sim_disk_properties properties = {
        .size_bytes = 128 * MIB,
        .kind = FILE_KIND_BLOCK_DEVICE,
        .logical_sector_bytes = sector_bytes,
        .dirty = true,
    };

    memset(rig, 0, sizeof(*rig));
    random_seed(&rig->random, seed);
    rig->bench = bench_create(seed, 1);
    rig->bench->made_up = true; /* the kept generations have no records */
    rig->disk = sim_disk_create(rig->bench->sim, ONE[0], &properties);
    assert_int_equal(bench_boot(rig->bench), 0);
    assert_int_equal(bench_make_pool(rig->bench, "p", ONE, false), 0);
    assert_int_equal(bench_make_volume(rig->bench, "p/v", 64 * MIB), 0);
    assert_int_equal(bench_make_export(rig->bench, "p/v"), 0);
    look_up(rig);
    for (uint32_t i = 0; i < RIG_OPS; i++) {
        rig->ops[i].rig = rig;
        rig->ops[i].data = aligned_alloc(BLOCK, IO_BYTES_MAX + BLOCK);
        assert_non_null(rig->ops[i].data);
        volume_request_init(&rig->ops[i].request);
    }
    rig->taking.is_done = true;
}

void
rig_free(struct rig *rig)
{
    bench_release(rig->bench, rig->volume);
    assert_int_equal(bench_shutdown(rig->bench), 0);
    bench_free(rig->bench);
    for (uint32_t i = 0; i < RIG_OPS; i++) {
        free(rig->ops[i].data);
    }
}

void
rig_restart(struct rig *rig)
{
    bench_release(rig->bench, rig->volume);
    assert_int_equal(bench_shutdown(rig->bench), 0);
    assert_int_equal(bench_boot(rig->bench), 0);
    look_up(rig);
}

/* ---- requests ---- */

static bool
changes_sector(const struct rig_change *change, uint32_t sector)
{
    uint64_t start = RIG_START + (uint64_t)sector * SECTOR;
    uint64_t end = change->offset_bytes + change->length_bytes;

    if (change->operation == VOLUME_DISCARD) {
        return align_down(start, BLOCK) >= change->offset_bytes &&
               align_down(start, BLOCK) + BLOCK <= end;
    }
    return change->operation != VOLUME_FLUSH && change->operation != VOLUME_READ &&
           start >= change->offset_bytes && start < end;
}

static void
op_replied(struct volume_request *request)
{
    struct rig_op *op = container_of(request, struct rig_op, request);
    struct rig *rig = op->rig;

    if (request->status < 0 && !rig->may_fail) {
        fail_msg("operation %d failed: %d", request->operation, request->status);
    }
    rig->failed += request->status < 0;
    for (uint32_t i = 0; i < RIG_SECTORS; i++) {
        if (changes_sector(&op->change, i) && op->order > rig->orders[i]) {
            rig->orders[i] = op->order;
            rig->stamps[i] = request->status == 0 ? op->change.stamp : RIG_UNSURE;
        }
    }
}

static void
op_released(struct volume_request *request)
{
    container_of(request, struct rig_op, request)->is_used = false;
}

static void
submit_all(struct rig *rig)
{
    for (uint32_t i = 0; i < RIG_OPS; i++) {
        struct rig_op *op = &rig->ops[i];
        if (op->is_used && op->request.volume == NULL) {
            volume_submit(rig->volume, &op->request);
        }
    }
}

static uint64_t
sector_word(uint32_t stamp, uint32_t sector)
{
    return stamp == 0 ? 0 : (uint64_t)stamp << 32 | sector;
}

static void
fill(struct rig_op *op, uint8_t *data)
{
    uint32_t first = (uint32_t)((op->change.offset_bytes - RIG_START) / SECTOR);

    for (uint64_t at = 0; at < op->change.length_bytes; at += sizeof(uint64_t)) {
        uint64_t word = sector_word(op->change.stamp, first + (uint32_t)(at / SECTOR));
        memcpy(data + at, &word, sizeof(word));
    }
}

uint32_t
rig_submit(struct rig *rig, enum volume_operation operation, uint64_t offset_bytes,
           uint64_t length_bytes, uint32_t flags)
{
    uint32_t index = 0;

    while (index < RIG_OPS && rig->ops[index].is_used) {
        index++;
    }
    if (index == RIG_OPS) {
        return index;
    }
    struct rig_op *op = &rig->ops[index];
    op->is_used = true;
    op->order = ++rig->last_order;
    op->change = (struct rig_change){ operation, offset_bytes, length_bytes, 0 };
    struct volume_request *request = &op->request;
    request->volume = NULL;
    request->operation = operation;
    request->flags = flags;
    request->offset_bytes = offset_bytes;
    request->length_bytes = length_bytes;
    request->iov = op->iov;
    request->iov_count = 0;
    request->reply = op_replied;
    request->release = op_released;
    if (operation == VOLUME_WRITE || operation == VOLUME_READ) {
        uint8_t *data = op->data + (random_chance(&rig->random, 1, 6) ? 8 : 0);
        if (operation == VOLUME_WRITE) {
            op->change.stamp = ++rig->last_stamp;
            fill(op, data);
        }
        uint64_t cut = random_chance(&rig->random, 1, 4) ? length_bytes / 2 / SECTOR * SECTOR : 0;
        if (cut > 0) {
            op->iov[request->iov_count++] = (struct iovec){ data, cut };
        }
        op->iov[request->iov_count++] = (struct iovec){ data + cut, length_bytes - cut };
    }
    rig_call(rig, submit_all);
    return index;
}

void
rig_submit_random(struct rig *rig)
{
    struct random *random = &rig->random;
    uint64_t bytes = (uint64_t)RIG_GRAINS * GRAIN_BYTES;
    uint64_t unit = random_chance(random, 1, 3) ? SECTOR : BLOCK;
    uint64_t length = (1 + random_below(random, 8)) * unit;
    enum volume_operation operation = VOLUME_WRITE;
    uint32_t flags = random_chance(random, 1, 10) ? VOLUME_FUA : 0;

    if (random_chance(random, 1, 12)) {
        length = (1 + random_below(random, 80)) * BLOCK;
    }
    uint64_t offset = random_below(random, (bytes - length) / unit + 1) * unit;
    if (random_chance(random, 1, 3)) {
        offset %= 3 * GRAIN_BYTES; /* some are written more often */
    }
    switch (random_below(random, 16)) {
    case 0:
        operation = VOLUME_DISCARD;
        break;
    case 1:
    case 2:
        operation = VOLUME_WRITE_ZEROES;
        flags |= random_chance(random, 1, 3) ? VOLUME_NO_HOLE : 0;
        break;
    case 3:
        operation = VOLUME_READ;
        flags = 0;
        break;
    case 4:
        operation = VOLUME_FLUSH;
        offset = 0;
        length = 0;
        flags = 0;
        break;
    default:
        break;
    }
    rig_submit(rig, operation, operation == VOLUME_FLUSH ? 0 : RIG_START + offset, length, flags);
}

bool
rig_is_under_way(const struct rig *rig)
{
    for (uint32_t i = 0; i < RIG_OPS; i++) {
        if (rig->ops[i].is_used) {
            return true;
        }
    }
    return false;
}

void
rig_drain(struct rig *rig)
{
    while (rig_is_under_way(rig)) {
        rig_run(rig, 100 * NS_PER_US);
    }
}

void
rig_write(struct rig *rig, uint64_t offset_bytes, uint64_t length_bytes)
{
    uint32_t index = rig_submit(rig, VOLUME_WRITE, offset_bytes, length_bytes, 0);

    assert_int_not_equal(index, RIG_OPS);
    while (rig->ops[index].is_used) {
        rig_run(rig, 100 * NS_PER_US);
    }
}

int
rig_io(struct rig *rig, enum volume_operation operation, uint64_t offset_bytes, void *data,
       uint64_t length_bytes)
{
    return bench_io(rig->bench, rig->volume, operation, offset_bytes, data, length_bytes);
}

/* ---- keeping generations ---- */

static void
note_view(struct rig *rig, uint32_t generation)
{
    assert_int_not_equal(rig->view_count, RIG_VIEWS);
    struct rig_view *view = &rig->views[rig->view_count++];
    view->generation = generation;
    view->late_count = 0;
    memcpy(view->stamps, rig->stamps, sizeof(view->stamps));
    for (uint32_t i = 0; i < RIG_OPS; i++) {
        if (rig->ops[i].is_used && !rig->ops[i].request.replied) {
            view->late[view->late_count++] = rig->ops[i].change;
        }
    }
}

static void
taken(struct rig *rig, int status)
{
    rig->taking.status = status;
    rig->taking.is_done = true;
}

static void
seal_done(struct io_op *op)
{
    struct volume_seal_wait *seal = container_of(op, struct volume_seal_wait, op);
    struct rig_taking *taking = container_of(seal, struct rig_taking, seal);

    taken(container_of(taking, struct rig, taking), op->result);
}

static void
settle_done(struct io_op *op)
{
    struct volume_settle *settle = container_of(op, struct volume_settle, op);
    struct rig_taking *taking = container_of(settle, struct rig_taking, settle);
    struct rig *rig = container_of(taking, struct rig, taking);

    assert_int_equal(op->result, 0);
    volume_seal_now(rig->volume, &taking->seal);
}

static void
gate_done(struct io_op *op)
{
    struct volume_gate *gate = container_of(op, struct volume_gate, op);
    struct rig_taking *taking = container_of(gate, struct rig_taking, gate);
    struct rig *rig = container_of(taking, struct rig, taking);

    if (op->result < 0 || taking->only_close) {
        taken(rig, op->result);
        return;
    }
    uint32_t kept = volume_bump(rig->volume);
    assert_int_not_equal(kept, 0);
    taking->has_bumped = true;
    note_view(rig, kept);
    volume_gate_open(rig->volume, gate);
    volume_settle(rig->volume, &taking->settle);
}

static void
close_gate(struct rig *rig)
{
    struct rig_taking *taking = &rig->taking;
    uint32_t reactor = reactor_id(volume_reactor(rig->volume));

    taking->gate.op = (struct io_op){ .done = gate_done, .reactor_id = reactor };
    taking->settle.op = (struct io_op){ .done = settle_done, .reactor_id = reactor };
    taking->seal.op = (struct io_op){ .done = seal_done, .reactor_id = reactor };
    taking->settle.timeout_ns = 5 * NS_PER_S;
    taking->seal.timeout_ns = 5 * NS_PER_S;
    volume_gate_close(rig->volume, &taking->gate);
}

void
rig_take_begin(struct rig *rig, bool all)
{
    if (!rig->taking.is_done || rig->view_count == RIG_VIEWS) {
        return;
    }
    rig->taking.is_done = false;
    rig->taking.has_bumped = false;
    rig->taking.gate.all = all;
    rig_call(rig, close_gate);
}

void
rig_take_end(struct rig *rig)
{
    while (!rig->taking.is_done) {
        rig_run(rig, 100 * NS_PER_US);
    }
}

void
rig_take(struct rig *rig, bool all)
{
    do {
        rig_take_end(rig);
        rig_take_begin(rig, all);
        rig_take_end(rig);
        assert_true(rig->taking.status == 0 || rig->taking.status == -EAGAIN);
    } while (rig->taking.status < 0);
}

static void
try_bump(struct rig *rig)
{
    rig->taking.status = (int)volume_bump(rig->volume);
}

uint32_t
rig_bump(struct rig *rig)
{
    rig_call(rig, try_bump);
    return (uint32_t)rig->taking.status;
}

static void
ignore(struct io_op *op)
{
    assert_true(op->result == 0 || op->result == -ECANCELED || op->result == -EAGAIN);
}

static void
bump_now(struct rig *rig)
{
    struct volume_gate *gate = &rig->gate;

    gate->op = (struct io_op){
        .done = ignore, .reactor_id = reactor_id(volume_reactor(rig->volume)),
    };
    gate->all = true;
    volume_gate_close(rig->volume, gate);
    uint32_t kept = volume_bump(rig->volume);
    if (kept != 0) {
        note_view(rig, kept);
    }
    volume_gate_open(rig->volume, gate);
}

void
rig_bump_now(struct rig *rig)
{
    if (rig->taking.is_done && rig->view_count < RIG_VIEWS) {
        rig_call(rig, bump_now);
    }
}

static void
kick(struct rig *rig)
{
    seal_kick(rig->volume);
}

void
rig_seal_kick(struct rig *rig)
{
    rig_call(rig, kick);
}

static void
unbump(struct rig *rig)
{
    uint32_t count = rig->view_count;
    volume_unbump(rig->volume, count > 0 ? rig->views[count - 1].generation : 0);
}

void
rig_abandon(struct rig *rig)
{
    assert_true(rig->taking.is_done);
    rig->view_count -= rig->taking.has_bumped;
    rig->taking.has_bumped = false;
    rig_call(rig, unbump);
}

void
rig_drop_newest(struct rig *rig)
{
    if (rig->taking.is_done && rig->view_count > 0) {
        rig->view_count--;
        rig_call(rig, unbump);
    }
}

/* ---- damage ---- */

const struct map_page *
rig_page(struct rig *rig, uint64_t offset_bytes)
{
    list_for_each(&rig->volume->shard->cache.lru, link) {
        const struct map_page *page = list_entry(link, struct map_page, lru_link);
        if (page->volume == rig->volume && page->number == offset_bytes >> MAP_PAGE_SHIFT) {
            return page;
        }
    }
    fail_msg("the page is not in the cache");
    return NULL;
}

static void
set_damage(struct rig *rig)
{
    const struct rig_change *change = &rig->ops[0].change;
    struct map_page *page = (struct map_page *)(uintptr_t)rig_page(rig, change->offset_bytes);
    uint32_t index = entry_index(change->offset_bytes);

    map_entry_lost(&page->entries[index],
                   block_mask(align_down(change->offset_bytes, GRAIN_BYTES), change->offset_bytes,
                              change->offset_bytes + change->length_bytes));
    seal_entry_changed(rig->volume, page, index);
}

static void
make_unsure(struct rig *rig, uint64_t offset_bytes, uint64_t length_bytes)
{
    uint32_t first = (uint32_t)((offset_bytes - RIG_START) / SECTOR);

    for (uint32_t i = 0; i < length_bytes / SECTOR; i++) {
        rig->stamps[first + i] = RIG_UNSURE;
    }
}

void
rig_damage(struct rig *rig, uint64_t offset_bytes, uint64_t length_bytes)
{
    assert_false(rig->ops[0].is_used);
    rig->ops[0].change =
        (struct rig_change){ .offset_bytes = offset_bytes, .length_bytes = length_bytes };
    rig_call(rig, set_damage);
    make_unsure(rig, offset_bytes, length_bytes);
}

void
rig_mend_losses(struct rig *rig)
{
    uint8_t *data = aligned_alloc(BLOCK, BLOCK);

    for (uint64_t at = 0; at < RIG_GRAINS * (uint64_t)GRAIN_BYTES; at += BLOCK) {
        if (rig_io(rig, VOLUME_READ, RIG_START + at, data, BLOCK) < 0) {
            rig_write(rig, RIG_START + at, BLOCK);
        }
    }
    rig_io(rig, VOLUME_FLUSH, 0, NULL, 0); /* tells of the loss */
    free(data);
}

/* ---- comparing content ---- */

static bool
sector_may_be(const struct rig_view *view, uint32_t sector, uint32_t stamp)
{
    if (view->stamps[sector] == stamp || view->stamps[sector] == RIG_UNSURE) {
        return true;
    }
    for (uint32_t i = 0; i < view->late_count; i++) {
        if (view->late[i].stamp == stamp && changes_sector(&view->late[i], sector)) {
            return true;
        }
    }
    return false;
}

/* What lies there: one stamp in all of it, for this sector. */
static void
check_sector(const struct rig_view *view, uint32_t sector, const uint8_t *data)
{
    uint64_t word = 0;

    memcpy(&word, data, sizeof(word));
    if (view->stamps[sector] == RIG_UNSURE) {
        return;
    }
    uint32_t stamp = (uint32_t)(word >> 32);
    for (uint32_t at = 0; at < SECTOR; at += sizeof(word)) {
        uint64_t wanted = sector_word(stamp, sector);
        assert_memory_equal(data + at, &wanted, sizeof(wanted));
    }
    if (!sector_may_be(view, sector, stamp)) {
        fail_msg("generation %u, sector %u: %u, and should be %u", view->generation, sector,
                 stamp, view->stamps[sector]);
    }
}

static void
compare_head(struct rig *rig, const struct rig_view *head)
{
    uint8_t *data = aligned_alloc(BLOCK, BLOCK);

    for (uint64_t at = 0; at < RIG_GRAINS * (uint64_t)GRAIN_BYTES; at += BLOCK) {
        uint32_t first = (uint32_t)(at / SECTOR);
        int status = rig_io(rig, VOLUME_READ, RIG_START + at, data, BLOCK);
        for (uint32_t i = 0; i < BLOCK / SECTOR; i++) {
            if (head->stamps[first + i] != RIG_UNSURE) {
                assert_int_equal(status, 0);
                check_sector(head, first + i, data + (uint64_t)i * SECTOR);
            }
        }
    }
    free(data);
}

void
rig_compare_head(struct rig *rig)
{
    struct rig_view *head = calloc(1, sizeof(*head));

    head->generation = LINEAGE_FOREVER;
    memcpy(head->stamps, rig->stamps, sizeof(head->stamps));
    compare_head(rig, head);
    free(head);
}

void
rig_kill(struct rig *rig)
{
    note_view(rig, LINEAGE_FOREVER);
    bench_kill(rig->bench);
    assert_int_equal(bench_boot(rig->bench), 0);
    look_up(rig);
    compare_head(rig, &rig->views[--rig->view_count]);
}

/* ---- what is stored ---- */

struct stored_page {
    uint64_t number;
    uint32_t version;
    struct map_entry entries[MAP_PAGE_ENTRIES];
};

struct stored {
    struct stored_page *pages; /* by number, then version */
    uint32_t count;
};

struct scan_call {
    struct rig *rig;
    struct store_scan scan;
    struct message message;
    bool done;
};

static void
scan_done(struct io_op *op)
{
    struct store_scan *scan = container_of(op, struct store_scan, op);
    container_of(scan, struct scan_call, scan)->done = true;
}

static void
scan_deliver(struct message *message)
{
    struct scan_call *call = container_of(message, struct scan_call, message);

    call->scan.op.done = scan_done;
    call->scan.op.reactor_id = reactor_id(reactor_self());
    store_scan(call->rig->bench->store, &call->scan);
}

static struct byte_buffer
scan(struct rig *rig, enum store_family family)
{
    struct scan_call call = { .rig = rig, .scan = { .family = family, .bytes_max = 64 << 20 } };
    struct byte_buffer items = BYTE_BUFFER_INIT;

    sim_process_enter(rig->bench->sim);
    reactor_send(rig->bench->reactors[0], &call.message, scan_deliver);
    sim_process_leave(rig->bench->sim);
    assert_int_equal(bench_wait(rig->bench, &call.done), 0);
    assert_int_equal(call.scan.op.result, 0);
    assert_false(call.scan.ret_more);
    byte_buffer_append(&items, call.scan.items.data, call.scan.items.length_bytes);
    sim_process_enter(rig->bench->sim);
    byte_buffer_free(&call.scan.items);
    sim_process_leave(rig->bench->sim);
    return items;
}

static struct stored
load(struct rig *rig)
{
    struct byte_buffer items = scan(rig, STORE_FAMILY_MAP);
    struct stored stored = { .pages = calloc(4096, sizeof(*stored.pages)) };
    struct store_batch_item item;
    size_t position = 0;

    assert_non_null(stored.pages);
    while (store_batch_next(items.data, items.length_bytes, &position, &item) == 1) {
        struct stored_page *page = &stored.pages[stored.count++];
        uint64_t branch = 0;
        uint64_t version = 0;
        uint32_t used = 0;
        assert_int_not_equal(stored.count, 4096);
        assert_int_equal(map_key_decode(item.key, item.key_bytes, &branch, &page->number,
                                        &version),
                         0);
        page->version = (uint32_t)version;
        assert_int_equal(branch, rig->volume->branch.id);
        if (item.value_bytes > 0) {
            assert_int_equal(map_page_decode(item.value, item.value_bytes, page->entries, &used),
                             0);
        }
        for (uint32_t i = 0; i < MAP_PAGE_ENTRIES; i++) {
            const struct map_entry *entry = &page->entries[i];
            assert_true(map_entry_is_sound(entry));
            assert_true(entry->home_generation <= version); /* W4 */
        }
    }
    byte_buffer_free(&items);
    return stored;
}

/* The version that a view sees; NULL: none. */
static const struct stored_page *
find_version(const struct stored *stored, uint64_t number, uint32_t generation)
{
    const struct stored_page *found = NULL;

    for (uint32_t i = 0; i < stored->count; i++) {
        if (stored->pages[i].number == number && stored->pages[i].version <= generation) {
            found = &stored->pages[i];
        }
    }
    return found;
}

static void
read_block(struct rig *rig, const struct map_entry *entry, uint32_t block, uint8_t *data)
{
    const struct pool *pool = rig->volume->pool;
    uint16_t bit = (uint16_t)(1u << block);
    struct map_entry_sources sources = map_entry_resolve(entry, bit);
    grain_address grain = sources.home != 0 ? entry->home : entry->base;

    if (sources.zero != 0) {
        memset(data, 0, BLOCK);
        return;
    }
    const struct extent *extent =
        extent_table_find(&pool->extents, grain_extent(&pool->extents, grain));
    assert_non_null(extent);
    const struct disk *disk = pool_disk(pool, extent->places[0].disk);
    sim_disk_peek(rig->disk,
                  disk->record.data_start_bytes +
                      (uint64_t)extent->places[0].slot * pool->record.extent_bytes +
                      (uint64_t)grain_index(&pool->extents, grain) * GRAIN_BYTES +
                      (uint64_t)block * BLOCK,
                  data, BLOCK);
}

static const struct map_entry EMPTY;

static const struct map_entry *
view_entry(const struct stored *stored, uint64_t offset_bytes, uint32_t generation)
{
    const struct stored_page *page =
        find_version(stored, offset_bytes >> MAP_PAGE_SHIFT, generation);
    return page != NULL ? &page->entries[entry_index(offset_bytes)] : &EMPTY;
}

static void
compare_view(struct rig *rig, const struct stored *stored, const struct rig_view *view)
{
    uint8_t *data = aligned_alloc(BLOCK, BLOCK);

    for (uint64_t at = 0; at < RIG_GRAINS * (uint64_t)GRAIN_BYTES; at += BLOCK) {
        const struct map_entry *entry = view_entry(stored, RIG_START + at, view->generation);
        uint32_t block = (uint32_t)(at / BLOCK) % BLOCKS_PER_GRAIN;
        if ((entry->damaged >> block & 1) != 0) {
            assert_true(rig->may_fail);
            continue;
        }
        read_block(rig, entry, block, data);
        for (uint32_t i = 0; i < BLOCK / SECTOR; i++) {
            check_sector(view, (uint32_t)(at / SECTOR) + i, data + (uint64_t)i * SECTOR);
        }
    }
    free(data);
}

/* I7: a block that was copied is what the generation before its grain's has, if that was kept. */
static void
compare_copied(struct rig *rig, const struct stored *stored, const struct rig_view *view)
{
    uint8_t *data = aligned_alloc(BLOCK, BLOCK);
    uint8_t *before = aligned_alloc(BLOCK, BLOCK);

    for (uint64_t at = 0; at < RIG_GRAINS * (uint64_t)GRAIN_BYTES; at += BLOCK) {
        const struct map_entry *entry = view_entry(stored, RIG_START + at, view->generation);
        uint32_t block = (uint32_t)(at / BLOCK) % BLOCKS_PER_GRAIN;
        uint32_t older = 0;
        for (uint32_t i = 0; i < rig->view_count; i++) {
            if (rig->views[i].generation + 1 == entry->home_generation) {
                older = rig->views[i].generation;
            }
        }
        if ((entry->copied & entry->valid & (1u << block)) == 0 || older == 0 ||
            (entry->damaged >> block & 1) != 0) {
            continue;
        }
        read_block(rig, entry, block, data);
        read_block(rig, view_entry(stored, RIG_START + at, older), block, before);
        assert_memory_equal(data, before, BLOCK);
    }
    free(data);
    free(before);
}

/* ---- use bits, links, counters ---- */

struct life {
    grain_address grain;
    uint32_t birth;
    uint32_t death; /* number of the version that no longer names it; HISTORY_FOREVER */
};

static struct life *
lives_of(const struct stored *stored, uint32_t *ret_count)
{
    struct life *lives = calloc(65536, sizeof(*lives));
    uint32_t count = 0;

    assert_non_null(lives);
    for (uint32_t i = 0; i < stored->count; i++) {
        const struct stored_page *page = &stored->pages[i];
        bool is_first = i == 0 || page[-1].number != page->number;
        bool is_last = i + 1 == stored->count || page[1].number != page->number;
        for (uint32_t n = 0; n < MAP_PAGE_ENTRIES; n++) {
            const struct map_entry *entry = &page->entries[n];
            const grain_address grains[] = { entry->home, entry->base };
            const uint32_t births[] = { entry->home_generation, entry->base_generation };
            for (uint32_t k = 0; k < 2; k++) {
                if (grains[k] == GRAIN_NONE ||
                    (!is_last && map_entry_names(&page[1].entries[n], grains[k]))) {
                    continue; /* counted with the last version that names it */
                }
                (void)is_first;
                assert_int_not_equal(count, 65536);
                lives[count++] = (struct life){
                    grains[k], births[k], is_last ? HISTORY_FOREVER : page[1].version,
                };
            }
        }
    }
    *ret_count = count;
    return lives;
}

/* A grain is in use exactly if some version names it; only one entry ever does. */
static void
compare_use(struct rig *rig, const struct life *lives, uint32_t count)
{
    const uint32_t grains_per_extent = MIB / GRAIN_BYTES;
    struct byte_buffer items = scan(rig, STORE_FAMILY_EXTENT);
    struct store_batch_item item;
    size_t position = 0;

    while (store_batch_next(items.data, items.length_bytes, &position, &item) == 1) {
        struct extent_record record;
        uint64_t id = 0;
        uint64_t named = 0;
        assert_int_equal(extent_key_decode(item.key, item.key_bytes, &id), 0);
        assert_int_equal(extent_record_decode(item.value, item.value_bytes, grains_per_extent,
                                              &record),
                         0);
        if (record.state != EXTENT_STATE_DATA) {
            continue;
        }
        for (uint32_t i = 0; i < count; i++) {
            uint64_t bit = UINT64_C(1) << (lives[i].grain % grains_per_extent);
            if (lives[i].grain / grains_per_extent == id) {
                assert_int_equal(named & bit, 0);
                named |= bit;
            }
        }
        assert_int_equal(record.used[0], named);
        assert_int_equal(extent_table_find(&rig->volume->pool->extents, id)->used[0], named);
    }
    byte_buffer_free(&items);
}

/* Between which kept generations it lies. */
static uint32_t
class_of(const struct rig *rig, uint32_t generation)
{
    uint32_t views = 0;

    for (uint32_t i = 0; i < rig->view_count; i++) {
        views += rig->views[i].generation < generation;
    }
    return views;
}

static void
compare_history(struct rig *rig, const struct stored *stored, const struct life *lives,
                uint32_t count)
{
    int64_t(*cells)[RIG_VIEWS + 2] = calloc(RIG_VIEWS + 2, sizeof(*cells));
    struct byte_buffer items = scan(rig, STORE_FAMILY_HISTORY);
    struct store_batch_item item;
    size_t position = 0;
    uint32_t links = 0;

    assert_non_null(cells);
    while (store_batch_next(items.data, items.length_bytes, &position, &item) == 1) {
        struct history_link link;
        struct history_counter counter;
        int64_t number = 0;
        if (item.key[0] == HISTORY_LINK) {
            assert_int_equal(history_link_key_decode(item.key, item.key_bytes, &link), 0);
            const struct stored_page *page = find_version(stored, link.page, link.version);
            const struct stored_page *older =
                find_version(stored, link.page, link.version - 1);
            assert_non_null(page);
            assert_int_equal(page->version, link.version);
            assert_int_equal(older != NULL ? older->version : 0, link.previous); /* L1 */
            links++;
            continue;
        }
        assert_int_equal(history_counter_key_decode(item.key, item.key_bytes, &counter), 0);
        assert_int_equal(schema_get_counter(item.value, item.value_bytes, &number), 0);
        uint32_t death = counter.death == HISTORY_FOREVER ? RIG_VIEWS + 1
                                                          : class_of(rig, counter.death);
        cells[class_of(rig, counter.birth)][death] += number;
    }
    byte_buffer_free(&items);
    assert_int_equal(links, stored->count);
    for (uint32_t i = 0; branch_is_counted(&rig->volume->branch) && i < count; i++) {
        cells[class_of(rig, lives[i].birth)][RIG_VIEWS + 1]--;
        if (lives[i].death != HISTORY_FOREVER) {
            cells[class_of(rig, lives[i].birth)][class_of(rig, lives[i].death)]--;
        }
    }
    for (uint32_t b = 0; b < RIG_VIEWS + 2; b++) {
        for (uint32_t d = 0; d < RIG_VIEWS + 2; d++) {
            if (cells[b][d] != 0 && b != d) { /* b == d: nobody has seen them */
                fail_msg("counter of class (%u, %u) is wrong by %d", b, d, (int)cells[b][d]);
            }
        }
    }
    free(cells);
}

void
rig_compare(struct rig *rig)
{
    assert_false(rig_is_under_way(rig));
    rig_compare_head(rig);
    int status = rig_io(rig, VOLUME_FLUSH, 0, NULL, 0);
    assert_true(status == 0 || rig->may_fail);
    struct stored stored = load(rig);
    struct rig_view *head = calloc(1, sizeof(*head));
    uint32_t count = 0;
    uint32_t mapped = 0;

    head->generation = LINEAGE_FOREVER;
    memcpy(head->stamps, rig->stamps, sizeof(head->stamps));
    compare_view(rig, &stored, head);
    compare_copied(rig, &stored, head);
    free(head);
    for (uint32_t i = 0; i < rig->view_count; i++) {
        compare_view(rig, &stored, &rig->views[i]);
        compare_copied(rig, &stored, &rig->views[i]);
    }
    struct life *lives = lives_of(&stored, &count);
    for (uint32_t i = 0; i < count; i++) {
        mapped += lives[i].death == HISTORY_FOREVER;
    }
    assert_int_equal(rig->volume->mapped_grains, mapped);
    compare_use(rig, lives, count);
    compare_history(rig, &stored, lives, count);
    free(lives);
    free(stored.pages);
}
