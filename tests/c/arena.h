/* Tensors in one piece of memory, apart from each other, so that any write besides the outputs
 * of a call that succeeds is seen. */
#ifndef ARENA_H
#define ARENA_H

#include "check.h"

#include <stdlib.h>

enum { ARENA = 1 << 14, GAP = 768, RANK = 8 };

typedef struct slot {
    const char *name; /* of the argument, as errors give it */
    int output, optional;
    int32_t ndim;
    int64_t shape[RANK];
    size_t at, len; /* in the arena, in elements */
} slot;

static float arena[ARENA], arena_before[ARENA];
static size_t arena_used;

static void arena_fill(void)
{
    uint32_t seed = 7;
    for (size_t i = 0; i < ARENA; i++) {
        seed = seed * 1664525u + 1013904223u;
        arena[i] = (float)(seed >> 8) / 8388608.0f - 1.0f;
    }
    memcpy(arena_before, arena, sizeof arena);
}

/* Gives every slot its place. */
static void arena_place(slot *slots, int count)
{
    size_t at = GAP;
    for (int i = 0; i < count; i++) {
        slots[i].len = 1;
        for (int d = 0; d < slots[i].ndim; d++)
            slots[i].len *= (size_t)slots[i].shape[d];
        slots[i].at = at;
        at += slots[i].len + GAP;
    }
    arena_used = at;
    if (at > ARENA) {
        fprintf(stderr, "the arena is too small\n");
        exit(1);
    }
}

/* Nothing changed but, where the call succeeded, the elements of outputs. Restores the arena. */
static int arena_intact(const slot *slots, int count, int32_t status)
{
    for (int i = 0; status == DGM_OK && i < count; i++)
        if (slots[i].output)
            memcpy(arena + slots[i].at, arena_before + slots[i].at, slots[i].len * sizeof *arena);
    int same = memcmp(arena, arena_before, arena_used * sizeof *arena) == 0;
    if (!same)
        memcpy(arena, arena_before, sizeof arena);
    return same;
}

#endif
