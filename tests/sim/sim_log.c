/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The log keeps the state at its start, the notes of what happened since, and a place: a copy of
 * every model as it was after some event. Moving the place forward feeds the notes in between to
 * the models, by the very functions that the running simulation uses.
 */
#include "tests/sim/sim_log.h"

#include <errno.h>
#include <string.h>

#include "base/assert.h"
#include "base/util.h"
#include "tests/sim/sim_impl.h"

enum {
    NOTE_CAPACITY_MIN = 256
};

enum note_kind {
    NOTE_SUBMIT,   /* counted, as are the other three so marked */
    NOTE_COMPLETE, /* counted */
    NOTE_ABANDON,
    NOTE_DROP_CACHE,
    NOTE_DISK,          /* a disk was created */
    NOTE_STORE,         /* a store was created */
    NOTE_COMMIT,        /* counted */
    NOTE_COMMIT_DONE,   /* counted; durable up to there */
    NOTE_COMMIT_PASSED, /* counted; done, not durable */
    NOTE_TRUNCATE,
};

struct note {
    enum note_kind kind;
    uint32_t index;                  /* of the disk or store */
    uint64_t number;                 /* of the commit; the seed of DROP_CACHE */
    struct sim_operation *operation; /* SUBMIT, COMPLETE, ABANDON: a reference */
    struct sim_tree *root;           /* COMMIT: a reference */
};

struct logged_disk {
    char *path;
    struct sim_disk_properties properties;
    struct sim_model start;
    struct sim_model place;
};

struct logged_store {
    char *name;
    struct sim_store_model start;
    struct sim_store_model place;
};

struct sim_log {
    struct sim *sim; /* NULL once it has ended */
    struct note *notes;
    size_t note_count;
    size_t note_capacity;
    uint64_t length; /* counted notes */
    struct logged_disk disks[SIM_DISK_COUNT_MAX];
    uint32_t disk_count;
    uint32_t start_disk_count;
    struct logged_store stores[SIM_STORE_COUNT_MAX];
    uint32_t store_count;
    uint32_t start_store_count;

    size_t place_note;     /* notes that the place has digested */
    uint64_t place_number; /* counted ones among them */
    uint32_t place_disk_count;
    uint32_t place_store_count;
};

/* ---- writing ---- */

static struct note *
note_add(struct sim_log *log, enum note_kind kind, uint32_t index)
{
    if (log->note_count == log->note_capacity) {
        log->note_capacity = MAX(log->note_capacity * 2, (size_t)NOTE_CAPACITY_MIN);
        log->notes = sim_resize(log->notes, log->note_capacity * sizeof(*log->notes));
    }
    struct note *note = &log->notes[log->note_count++];
    *note = (struct note){ .kind = kind, .index = index };
    return note;
}

static void
note_operation(struct sim *sim, enum note_kind kind, struct sim_operation *operation)
{
    if (sim->log != NULL) {
        struct note *note = note_add(sim->log, kind, operation->disk_index);
        note->operation = sim_operation_get(operation);
        sim->log->length += kind != NOTE_ABANDON;
    }
}

void
sim_log_note_submit(struct sim *sim, struct sim_operation *operation)
{
    note_operation(sim, NOTE_SUBMIT, operation);
}

void
sim_log_note_complete(struct sim *sim, struct sim_operation *operation)
{
    note_operation(sim, NOTE_COMPLETE, operation);
}

void
sim_log_note_abandon(struct sim *sim, struct sim_operation *operation)
{
    note_operation(sim, NOTE_ABANDON, operation);
}

void
sim_log_note_drop_cache(struct sim *sim, const struct sim_disk *disk, uint64_t seed)
{
    if (sim->log != NULL) {
        note_add(sim->log, NOTE_DROP_CACHE, disk->index)->number = seed;
    }
}

static void
add_disk(struct sim_log *log, const struct sim_disk *disk)
{
    ASSERT_OP(log->disk_count, ==, disk->index);
    struct logged_disk *logged = &log->disks[log->disk_count++];
    logged->path = sim_copy_text(disk->path);
    logged->properties = disk->properties;
    sim_model_clone(&logged->start, &disk->model);
}

static void
add_store(struct sim_log *log, const struct sim_store *store)
{
    struct logged_store *logged = &log->stores[log->store_count++];
    logged->name = sim_copy_text(sim_store_name(store));
    sim_store_model_clone(&logged->start, sim_store_model(store));
}

void
sim_log_note_disk(struct sim *sim, const struct sim_disk *disk)
{
    if (sim->log != NULL) {
        add_disk(sim->log, disk);
        (void)note_add(sim->log, NOTE_DISK, disk->index);
    }
}

void
sim_log_note_store(struct sim *sim, const struct sim_store *store)
{
    if (sim->log != NULL) {
        add_store(sim->log, store);
        (void)note_add(sim->log, NOTE_STORE, sim->log->store_count - 1);
    }
}

void
sim_log_note_commit(struct sim *sim, uint32_t store_index, uint64_t number, struct sim_tree *root)
{
    if (sim->log != NULL) {
        struct note *note = note_add(sim->log, NOTE_COMMIT, store_index);
        note->number = number;
        note->root = sim_tree_get(root);
        sim->log->length++;
    }
}

void
sim_log_note_commit_done(struct sim *sim, uint32_t store_index, uint64_t number, bool durable)
{
    if (sim->log != NULL) {
        enum note_kind kind = durable ? NOTE_COMMIT_DONE : NOTE_COMMIT_PASSED;
        note_add(sim->log, kind, store_index)->number = number;
        sim->log->length++;
    }
}

void
sim_log_note_truncate(struct sim *sim, uint32_t store_index, uint64_t number)
{
    if (sim->log != NULL) {
        note_add(sim->log, NOTE_TRUNCATE, store_index)->number = number;
    }
}

/* ---- reading ---- */

static void
drop_place(struct sim_log *log)
{
    for (uint32_t i = 0; i < log->place_disk_count; i++) {
        sim_model_free(&log->disks[i].place);
    }
    for (uint32_t i = 0; i < log->place_store_count; i++) {
        sim_store_model_free(&log->stores[i].place);
    }
    log->place_disk_count = 0;
    log->place_store_count = 0;
}

static void
place_add_disk(struct sim_log *log)
{
    struct logged_disk *disk = &log->disks[log->place_disk_count++];
    sim_model_clone(&disk->place, &disk->start);
}

static void
place_add_store(struct sim_log *log)
{
    struct logged_store *store = &log->stores[log->place_store_count++];
    sim_store_model_clone(&store->place, &store->start);
}

static void
rewind_place(struct sim_log *log)
{
    drop_place(log);
    log->place_note = 0;
    log->place_number = 0;
    while (log->place_disk_count < log->start_disk_count) {
        place_add_disk(log);
    }
    while (log->place_store_count < log->start_store_count) {
        place_add_store(log);
    }
}

static void
digest(struct sim_log *log, const struct note *note)
{
    struct sim_model *disk = &log->disks[note->index].place;
    struct sim_store_model *store = &log->stores[note->index].place;

    switch (note->kind) {
    case NOTE_SUBMIT:
        sim_model_submit(disk, note->operation);
        break;
    case NOTE_COMPLETE:
        sim_model_complete(disk, note->operation);
        break;
    case NOTE_ABANDON:
        sim_model_abandon(disk, note->operation);
        return;
    case NOTE_DROP_CACHE:
        sim_model_drop_cache(disk, note->number);
        return;
    case NOTE_DISK:
        place_add_disk(log);
        return;
    case NOTE_STORE:
        place_add_store(log);
        return;
    case NOTE_COMMIT:
        sim_store_model_submit(store, note->number, sim_tree_get(note->root));
        break;
    case NOTE_COMMIT_DONE:
        sim_store_model_durable(store, note->number);
        break;
    case NOTE_COMMIT_PASSED:
        break;
    case NOTE_TRUNCATE:
        sim_store_model_truncate(store, note->number);
        return;
    }
    log->place_number++;
}

static void
go_to(struct sim_log *log, uint64_t n)
{
    ASSERT_OP(n, <=, log->length);
    if (n < log->place_number) {
        rewind_place(log);
    }
    while (log->place_number < n) {
        ASSERT_OP(log->place_note, <, log->note_count);
        digest(log, &log->notes[log->place_note++]);
    }
}

uint64_t
sim_log_length(const struct sim_log *log)
{
    return log->length;
}

uint32_t
sim_log_undecided(struct sim_log *log, uint64_t n)
{
    uint32_t count = 0;
    go_to(log, n);
    for (uint32_t i = 0; i < log->place_disk_count; i++) {
        count += sim_model_undecided(&log->disks[i].place);
    }
    return count;
}

uint32_t
sim_log_undecided_commits(struct sim_log *log, uint64_t n)
{
    uint32_t count = 0;
    go_to(log, n);
    for (uint32_t i = 0; i < log->place_store_count; i++) {
        count += log->stores[i].place.pending_count;
    }
    return count;
}

/* The state `older` commits before number `last`, at most back to the start of the recording. */
static struct sim_tree *
past_root(const struct sim_log *log, uint32_t index, uint64_t last, uint64_t older)
{
    struct sim_tree *root = log->stores[index].start.durable;

    for (size_t i = log->place_note; i > 0; i--) {
        const struct note *note = &log->notes[i - 1];
        if (note->kind == NOTE_COMMIT && note->index == index && note->number <= last) {
            if (older == 0) {
                root = note->root;
                break;
            }
            older--;
        }
    }
    return sim_tree_get(root);
}

static struct sim_tree *
crashed_root(const struct sim_log *log, uint32_t index, const struct sim_cut_plan *plan,
             const struct sim_cut *cut)
{
    const struct sim_store_model *model = &log->stores[index].place;
    uint32_t kept = sim_store_model_choose(model, index, plan, cut);

    if (cut->store_older == 0) {
        return sim_store_model_root(model, kept);
    }
    uint64_t last = kept == 0 ? model->durable_number : model->pending[kept - 1].number;
    return past_root(log, index, last, cut->store_older);
}

int
sim_log_materialise(struct sim_log *log, uint64_t n, const struct sim_cut *cut, struct sim *target)
{
    struct sim_model *models[SIM_DISK_COUNT_MAX];
    struct sim_cut_plan plan;

    if (n > log->length) {
        return -ERANGE;
    }
    go_to(log, n);
    for (uint32_t i = 0; i < log->place_disk_count; i++) {
        models[i] = &log->disks[i].place;
    }
    sim_cut_plan_make(&plan, cut, models, log->place_disk_count);
    for (uint32_t i = 0; i < log->place_disk_count; i++) {
        const struct logged_disk *logged = &log->disks[i];
        struct sim_image image;
        sim_model_crash(&logged->place, &plan, &image);
        struct sim_disk *disk = sim_disk_find(target, logged->path);
        if (disk == NULL) {
            disk = sim_disk_create(target, logged->path, &logged->properties);
        }
        sim_disk_set_content(disk, &image);
    }
    for (uint32_t i = 0; i < log->place_store_count; i++) {
        sim_store_set_content(target, log->stores[i].name, crashed_root(log, i, &plan, cut));
    }
    return 0;
}

/* ---- life ---- */

struct sim_log *
sim_log_start(struct sim *sim)
{
    ASSERT(sim->log == NULL && !sim->stopped);
    struct sim_log *log = sim_allocate(sizeof(*log));
    log->sim = sim;
    for (uint32_t i = 0; i < sim->disk_count; i++) {
        add_disk(log, sim->disks[i]);
    }
    for (uint32_t i = 0; i < sim->store_count; i++) {
        add_store(log, sim->stores[i]);
    }
    log->start_disk_count = log->disk_count;
    log->start_store_count = log->store_count;
    rewind_place(log);
    sim->log = log;
    return log;
}

void
sim_log_stop(struct sim *sim)
{
    if (sim->log != NULL) {
        sim->log->sim = NULL;
        sim->log = NULL;
    }
}

void
sim_log_free(struct sim_log *log)
{
    ASSERT(log->sim == NULL);
    drop_place(log);
    for (size_t i = 0; i < log->note_count; i++) {
        if (log->notes[i].operation != NULL) {
            sim_operation_put(log->notes[i].operation);
        }
        sim_tree_put(log->notes[i].root);
    }
    for (uint32_t i = 0; i < log->disk_count; i++) {
        sim_release(log->disks[i].path);
        sim_model_free(&log->disks[i].start);
    }
    for (uint32_t i = 0; i < log->store_count; i++) {
        sim_release(log->stores[i].name);
        sim_store_model_free(&log->stores[i].start);
    }
    sim_release(log->notes);
    sim_release(log);
}
