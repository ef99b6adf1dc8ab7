/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/sim/sim_memory.h"

#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/assert.h"
#include "base/util.h"

enum {
    TABLE_CAPACITY_MIN = 1024,
    MAPPING_COUNT_MAX = 1024,
};

struct sim_arena {
    size_t blocks;
};

struct tracked_block {
    void *memory; /* NULL: free slot */
    struct sim_arena *arena;
};

struct tracked_mapping {
    uintptr_t begin;
    uintptr_t end;
    struct sim_arena *arena;
};

/*
 * The wrappers below have no argument that could carry state, so this is the one mutable variable
 * of the simulator. It holds no state of a run: only which blocks belong to which arena.
 */
static struct {
    struct sim_arena *entered;
    struct tracked_block *table; /* open addressing, linear probing */
    size_t capacity;             /* a power of two */
    size_t count;
    struct tracked_mapping mappings[MAPPING_COUNT_MAX];
    size_t mapping_count;
} tracker;

/* What the linker's --wrap makes of the names. */
void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__real_realloc(void *memory, size_t size);
void __real_free(void *memory);
void *__real_aligned_alloc(size_t alignment, size_t size);
int __real_posix_memalign(void **ret_memory, size_t alignment, size_t size);
void *__real_mmap64(void *address, size_t length, int protection, int flags, int fd, off_t offset);
int __real_munmap(void *address, size_t length);

void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_realloc(void *memory, size_t size);
void *__wrap_reallocarray(void *memory, size_t count, size_t size);
void __wrap_free(void *memory);
void *__wrap_aligned_alloc(size_t alignment, size_t size);
int __wrap_posix_memalign(void **ret_memory, size_t alignment, size_t size);
char *__wrap_strdup(const char *text);
char *__wrap_strndup(const char *text, size_t length_max);
int __wrap_vasprintf(char **ret_text, const char *format, va_list arguments)
    __attribute__((format(printf, 2, 0)));
int __wrap_asprintf(char **ret_text, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* What the two become with _FORTIFY_SOURCE. */
int __wrap___vasprintf_chk(char **ret_text, int flag, const char *format, va_list arguments)
    __attribute__((format(printf, 3, 0)));
int __wrap___asprintf_chk(char **ret_text, int flag, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
void *__wrap_mmap64(void *address, size_t length, int protection, int flags, int fd, off_t offset);
void *__wrap_mmap(void *address, size_t length, int protection, int flags, int fd, off_t offset);
int __wrap_munmap(void *address, size_t length);

/* ---- the simulator's own memory ---- */

void *
sim_allocate(size_t size_bytes)
{
    void *memory = __real_calloc(1, MAX(size_bytes, (size_t)1));
    ASSERT(memory != NULL);
    return memory;
}

void *
sim_allocate_raw(size_t size_bytes)
{
    void *memory = __real_malloc(MAX(size_bytes, (size_t)1));
    ASSERT(memory != NULL);
    return memory;
}

void *
sim_allocate_pages(size_t size_bytes)
{
    size_t rounded = align_up(MAX(size_bytes, (size_t)1), 4096);
    void *memory = __real_aligned_alloc(4096, rounded);
    ASSERT(memory != NULL);
    memset(memory, 0, rounded);
    return memory;
}

void *
sim_resize(void *memory, size_t size_bytes)
{
    void *resized = __real_realloc(memory, MAX(size_bytes, (size_t)1));
    ASSERT(resized != NULL);
    return resized;
}

char *
sim_copy_text(const char *text)
{
    size_t size = strlen(text) + 1;
    char *copy = sim_allocate_raw(size);
    memcpy(copy, text, size);
    return copy;
}

void
sim_release(void *memory)
{
    __real_free(memory);
}

/* ---- the table of noted blocks ---- */

static size_t
table_home(const void *memory)
{
    return hash_u64((uint64_t)(uintptr_t)memory) & (tracker.capacity - 1);
}

static void
table_place(void *memory, struct sim_arena *arena)
{
    size_t slot = table_home(memory);
    while (tracker.table[slot].memory != NULL) {
        ASSERT(tracker.table[slot].memory != memory);
        slot = (slot + 1) & (tracker.capacity - 1);
    }
    tracker.table[slot] = (struct tracked_block){ .memory = memory, .arena = arena };
}

static void
table_grow(void)
{
    struct tracked_block *old_table = tracker.table;
    size_t old_capacity = tracker.capacity;

    tracker.capacity = MAX(old_capacity * 2, (size_t)TABLE_CAPACITY_MIN);
    tracker.table = sim_allocate(tracker.capacity * sizeof(*tracker.table));
    for (size_t i = 0; i < old_capacity; i++) {
        if (old_table[i].memory != NULL) {
            table_place(old_table[i].memory, old_table[i].arena);
        }
    }
    sim_release(old_table);
}

static void
table_add(void *memory, struct sim_arena *arena)
{
    if (memory == NULL || arena == NULL) {
        return;
    }
    if (tracker.count * 2 >= tracker.capacity) {
        table_grow();
    }
    table_place(memory, arena);
    tracker.count++;
    arena->blocks++;
}

/* Close the gap at `slot` so that no probe sequence is interrupted. */
static void
table_close_gap(size_t slot)
{
    size_t mask = tracker.capacity - 1;
    size_t next = slot;
    for (;;) {
        next = (next + 1) & mask;
        if (tracker.table[next].memory == NULL) {
            break;
        }
        size_t home = table_home(tracker.table[next].memory);
        if (((next - home) & mask) >= ((next - slot) & mask)) {
            tracker.table[slot] = tracker.table[next];
            slot = next;
        }
    }
    tracker.table[slot].memory = NULL;
}

/* Forget a block; returns the arena in which it was noted, or NULL. */
static struct sim_arena *
table_remove(void *memory)
{
    if (memory == NULL || tracker.count == 0) {
        return NULL;
    }
    size_t slot = table_home(memory);
    while (tracker.table[slot].memory != memory) {
        if (tracker.table[slot].memory == NULL) {
            return NULL;
        }
        slot = (slot + 1) & (tracker.capacity - 1);
    }
    struct sim_arena *arena = tracker.table[slot].arena;
    table_close_gap(slot);
    ASSERT_OP(arena->blocks, >, 0u);
    arena->blocks--;
    tracker.count--;
    if (tracker.count == 0) {
        sim_release(tracker.table);
        tracker.table = NULL;
        tracker.capacity = 0;
    }
    return arena;
}

static void
mapping_add(uintptr_t begin, uintptr_t end, struct sim_arena *arena)
{
    ASSERT_OP(tracker.mapping_count, <, (size_t)MAPPING_COUNT_MAX);
    tracker.mappings[tracker.mapping_count++] =
        (struct tracked_mapping){ .begin = begin, .end = end, .arena = arena };
    arena->blocks++;
}

/* Take a range out of what is noted; a part of a mapping may go and leave one or two others. */
static void
mapping_remove(uintptr_t begin, uintptr_t end)
{
    for (size_t i = 0; i < tracker.mapping_count;) {
        struct tracked_mapping old = tracker.mappings[i];
        if (old.end <= begin || end <= old.begin) {
            i++;
            continue;
        }
        tracker.mappings[i] = tracker.mappings[--tracker.mapping_count];
        old.arena->blocks--;
        if (old.begin < begin) {
            mapping_add(old.begin, begin, old.arena);
        }
        if (end < old.end) {
            mapping_add(end, old.end, old.arena);
        }
    }
}

/* ---- arenas ---- */

struct sim_arena *
sim_arena_create(void)
{
    return sim_allocate(sizeof(struct sim_arena));
}

/* A block of `arena`, forgotten; NULL when it has none. */
static void *
arena_take_any(struct sim_arena *arena, size_t *position)
{
    while (*position < tracker.capacity) {
        struct tracked_block *block = &tracker.table[*position];
        if (block->memory != NULL && block->arena == arena) {
            void *memory = block->memory;
            (void)table_remove(memory);
            return memory;
        }
        (*position)++;
    }
    return NULL;
}

static void
arena_empty(struct sim_arena *arena, bool give_back)
{
    /* Closing a gap may move a block of the table's end to its start: hence until none is left. */
    while (arena->blocks > 0 && tracker.count > 0) {
        size_t position = 0;
        void *memory;
        size_t before = arena->blocks;
        while ((memory = arena_take_any(arena, &position)) != NULL) {
            if (give_back) {
                __real_free(memory);
            }
        }
        if (arena->blocks == before) {
            break;
        }
    }
    for (size_t i = 0; i < tracker.mapping_count;) {
        struct tracked_mapping mapping = tracker.mappings[i];
        if (mapping.arena != arena) {
            i++;
            continue;
        }
        tracker.mappings[i] = tracker.mappings[--tracker.mapping_count];
        arena->blocks--;
        if (give_back) {
            (void)__real_munmap((void *)mapping.begin, mapping.end - mapping.begin);
        }
    }
    ASSERT_OP(arena->blocks, ==, 0u);
}

void
sim_arena_destroy(struct sim_arena *arena)
{
    ASSERT(tracker.entered != arena);
    arena_empty(arena, false);
    sim_release(arena);
}

struct sim_arena *
sim_arena_swap(struct sim_arena *arena)
{
    struct sim_arena *before = tracker.entered;
    tracker.entered = arena;
    return before;
}

void
sim_arena_kill(struct sim_arena *arena)
{
    arena_empty(arena, true);
}

size_t
sim_arena_blocks(const struct sim_arena *arena)
{
    return arena->blocks;
}

/* ---- the wrappers ---- */

void *
__wrap_malloc(size_t size)
{
    void *memory = __real_malloc(size);
    table_add(memory, tracker.entered);
    return memory;
}

void *
__wrap_calloc(size_t count, size_t size)
{
    void *memory = __real_calloc(count, size);
    table_add(memory, tracker.entered);
    return memory;
}

void *
__wrap_realloc(void *memory, size_t size)
{
    struct sim_arena *arena = memory == NULL ? tracker.entered : table_remove(memory);
    void *resized = __real_realloc(memory, size);
    if (resized != NULL) {
        table_add(resized, arena);
    } else if (size != 0) {
        table_add(memory, arena);
    }
    return resized;
}

void *
__wrap_reallocarray(void *memory, size_t count, size_t size)
{
    size_t total;
    if (__builtin_mul_overflow(count, size, &total)) {
        errno = ENOMEM;
        return NULL;
    }
    return __wrap_realloc(memory, total);
}

void
__wrap_free(void *memory)
{
    (void)table_remove(memory);
    __real_free(memory);
}

void *
__wrap_aligned_alloc(size_t alignment, size_t size)
{
    void *memory = __real_aligned_alloc(alignment, size);
    table_add(memory, tracker.entered);
    return memory;
}

int
__wrap_posix_memalign(void **ret_memory, size_t alignment, size_t size)
{
    int result = __real_posix_memalign(ret_memory, alignment, size);
    if (result == 0) {
        table_add(*ret_memory, tracker.entered);
    }
    return result;
}

char *
__wrap_strndup(const char *text, size_t length_max)
{
    size_t length = strnlen(text, length_max);
    char *copy = __wrap_malloc(length + 1);
    if (copy != NULL) {
        memcpy(copy, text, length);
        copy[length] = '\0';
    }
    return copy;
}

char *
__wrap_strdup(const char *text)
{
    return __wrap_strndup(text, strlen(text));
}

int
__wrap_vasprintf(char **ret_text, const char *format, va_list arguments)
{
    va_list again;
    va_copy(again, arguments);
    int length = vsnprintf(NULL, 0, format, again);
    va_end(again);
    char *text = length < 0 ? NULL : __wrap_malloc((size_t)length + 1);
    if (text == NULL) {
        return -1;
    }
    (void)vsnprintf(text, (size_t)length + 1, format, arguments);
    *ret_text = text;
    return length;
}

int
__wrap_asprintf(char **ret_text, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    int length = __wrap_vasprintf(ret_text, format, arguments);
    va_end(arguments);
    return length;
}

int
__wrap___vasprintf_chk(char **ret_text, int flag, const char *format, va_list arguments)
{
    (void)flag;
    return __wrap_vasprintf(ret_text, format, arguments);
}

int
__wrap___asprintf_chk(char **ret_text, int flag, const char *format, ...)
{
    (void)flag;
    va_list arguments;
    va_start(arguments, format);
    int length = __wrap_vasprintf(ret_text, format, arguments);
    va_end(arguments);
    return length;
}

void *
__wrap_mmap64(void *address, size_t length, int protection, int flags, int fd, off_t offset)
{
    void *memory = __real_mmap64(address, length, protection, flags, fd, offset);
    if (memory != MAP_FAILED && tracker.entered != NULL) {
        uintptr_t begin = (uintptr_t)memory;
        uintptr_t end = begin + align_up(length, 4096);
        mapping_remove(begin, end); /* MAP_FIXED replaces what was there */
        mapping_add(begin, end, tracker.entered);
    }
    return memory;
}

void *
__wrap_mmap(void *address, size_t length, int protection, int flags, int fd, off_t offset)
{
    return __wrap_mmap64(address, length, protection, flags, fd, offset);
}

int
__wrap_munmap(void *address, size_t length)
{
    int result = __real_munmap(address, length);
    if (result == 0) {
        uintptr_t begin = (uintptr_t)address;
        mapping_remove(begin, begin + align_up(length, 4096));
    }
    return result;
}
