/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory of the simulated process, so that it can die.
 *
 * THEORY OF OPERATION
 *
 * A test program that links volmgr_sim has malloc() and its relatives wrapped by the linker. While
 * an arena is entered (the simulator does so around every reactor pass, a test does so around its
 * calls of product code), each allocation is noted in it. Killing the process is then exact: every
 * block it owned is freed at once, so the leak check stays usable, and whatever still points into
 * the dead process is a use-after-free that the sanitizer reports. The simulator itself allocates
 * by sim_allocate(), which is never noted: disks, caches and volatile memory outlive the process.
 *
 * Invariants
 *  A1  A block is noted in at most one arena, from its allocation until it is freed, by whomever.
 *  A2  Blocks allocated by the C library or another shared library on its own are not noted.
 *  A3  One thread only, as everything in the simulation.
 */
#ifndef TESTS_SIM_SIM_MEMORY_H
#define TESTS_SIM_SIM_MEMORY_H

#include <stddef.h>

struct sim_arena;

/* Zeroed memory that belongs to the simulator. Aborts when there is none. */
void *sim_allocate(size_t size_bytes);
/* As sim_allocate(), not zeroed. */
void *sim_allocate_raw(size_t size_bytes);
/* As sim_allocate(), aligned to a page. Release with sim_release(). */
void *sim_allocate_pages(size_t size_bytes);
/* realloc(); the part that is new is not zeroed. */
void *sim_resize(void *memory, size_t size_bytes);
/* A copy of `text` that belongs to the simulator. */
char *sim_copy_text(const char *text);
/* NULL is allowed. */
void sim_release(void *memory);

/* An arena without blocks. */
struct sim_arena *sim_arena_create(void);
/*
 * Forget the arena and what it noted without freeing the blocks: what a process leaves behind after
 * a clean end is a leak, and the sanitizer shall see it.
 */
void sim_arena_destroy(struct sim_arena *arena);
/* Note allocations in `arena` from now on (NULL: do not). Returns what was entered before. */
struct sim_arena *sim_arena_swap(struct sim_arena *arena);
/* The process dies: free every block, unmap every mapping. */
void sim_arena_kill(struct sim_arena *arena);
/* Blocks and mappings that are noted now. */
size_t sim_arena_blocks(const struct sim_arena *arena);

#endif
