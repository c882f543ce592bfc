/* SPDX-License-Identifier: Apache-2.0
 *
 * mem.c: the allocator behind mem.h. The five `raw_*` functions are all that differs between
 * mimalloc and libc; everything above them is the same in both builds.
 *
 * Every request passes `raw_size`: nothing is asked for that no allocator can give (sanitizers would
 * abort instead of returning NULL), and no request is for 0 bytes, since realloc(p, 0) frees p and
 * returns NULL, which a caller would take for a failure that left p alone.
 *
 * Blocks know no owner: any thread may free them. The one piece of state, the injected failure,
 * belongs to its thread.
 *
 * Not here: budgets. Who holds memory for a peer counts it itself, by mem_usable.
 */
#include "mem.h"

#include <hiredis/alloc.h>

#ifdef NEARSIDE_LIBC_MALLOC
#include <malloc.h>
#else
#include <mimalloc.h>
#endif

#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Below this hiredis's growing strings double anyway; above it they grow by 1 MiB at a time. */
#define GROW_BY_HALF_ABOVE ((size_t)1 << 20)

/* Calls that still succeed; negative: no failure is injected. */
static _Thread_local long calls_left = -1;

#ifdef NEARSIDE_LIBC_MALLOC
static void *raw_alloc(size_t n)
{
    return malloc(n);
}

static void *raw_zalloc(size_t n)
{
    return calloc(1, n);
}

static void *raw_resize(void *p, size_t n)
{
    return realloc(p, n);
}

static void raw_free(void *p)
{
    free(p);
}

static size_t raw_usable(const void *p)
{
    /* The prototype lacks a const: nothing is written. */
    return malloc_usable_size((void *)(uintptr_t)p);
}

/* Sanitizers put an allocator of their own in the place of libc's and give pages back by themselves.
 * malloc_trim would reach the libc's beneath, and set it up in two threads at once: glibc aborts
 * when the second of them ends. */
static void raw_trim(void)
{
}
#else
static void *raw_alloc(size_t n)
{
    return mi_malloc(n);
}

static void *raw_zalloc(size_t n)
{
    return mi_zalloc(n);
}

static void *raw_resize(void *p, size_t n)
{
    return mi_realloc(p, n);
}

static void raw_free(void *p)
{
    mi_free(p);
}

static size_t raw_usable(const void *p)
{
    return mi_usable_size(p);
}

/* What is free in a segment (32 MiB) of which something is used, mimalloc 2.0 gives back at the next allocation
 * there behind a delay, and each free in the segment makes that delay a millisecond longer: after a burst, many
 * seconds. Without the delay it gives back at once what it joins with a block that is freed. So some are, untouched,
 * of a size that finds the emptiest segments. The delay is off for all threads meanwhile, and stays on
 * otherwise: without it every free of a page is a system call. */
#define PROBES     6
#define PROBE_SIZE ((size_t)12 << 20)
#define DELAY_MS   25 /* mimalloc's own */

static void raw_trim(void)
{
    void *probes[PROBES];
    mi_option_set(mi_option_decommit_delay, 0);
    mi_collect(true);
    for (int i = 0; i < PROBES; i++) {
        probes[i] = mi_malloc(PROBE_SIZE);
    }
    for (int i = 0; i < PROBES; i++) {
        mi_free(probes[i]);
    }
    mi_option_set(mi_option_decommit_delay, DELAY_MS);
    mi_collect(true);
}
#endif

/* The size to ask for, or 0 when it is more than any allocator can give. */
static size_t raw_size(size_t n)
{
    if (unlikely(n > (size_t)PTRDIFF_MAX)) {
        return 0;
    }
    return n == 0 ? 1 : n;
}

/* One write and no allocation: memory may be out. Nor does it wait for a reader of stderr: who sees
 * us hang does not start us anew. Should another writer take the room that poll sees, the alarm ends
 * us. */
static void NORETURN die(const char *line, int len, size_t size)
{
    size_t n = len < 0 ? 0 : (size_t)len;
    if (n >= size) {
        n = size - 1;
    }
    struct pollfd room = {.fd = STDERR_FILENO, .events = POLLOUT};
    if (poll(&room, 1, 0) == 1) {
        alarm(1);
        ssize_t written = write(STDERR_FILENO, line, n);
        (void)written; /* nobody is left to tell */
        alarm(0);
    }
    abort();
}

void bug_found(const char *what, const char *file, int line)
{
    char text[256];
    int len = snprintf(text, sizeof(text), "nearside: bug: %s at %s:%d\n", what, file, line);
    die(text, len, sizeof(text));
}

static void NORETURN out_of_memory(size_t n)
{
    char text[80];
    int len = snprintf(text, sizeof(text), "nearside: out of memory, %zu bytes wanted\n", n);
    die(text, len, sizeof(text));
}

void *mem_alloc(size_t n)
{
    size_t size = raw_size(n);
    void *p = size == 0 ? NULL : raw_alloc(size);
    if (unlikely(p == NULL)) {
        out_of_memory(n);
    }
    return p;
}

void *mem_zalloc(size_t n)
{
    size_t size = raw_size(n);
    void *p = size == 0 ? NULL : raw_zalloc(size);
    if (unlikely(p == NULL)) {
        out_of_memory(n);
    }
    return p;
}

char *mem_strdup(const char *s)
{
    size_t n = strlen(s) + 1;
    return memcpy(mem_alloc(n), s, n);
}

static bool failure_is_due(void)
{
    if (likely(calls_left < 0)) {
        return false;
    }
    if (calls_left == 0) {
        return true;
    }
    calls_left--;
    return false;
}

void *mem_try(size_t n)
{
    size_t size = raw_size(n);
    if (unlikely(size == 0 || failure_is_due())) {
        return NULL;
    }
    return raw_alloc(size);
}

void *mem_try_zero(size_t n)
{
    size_t size = raw_size(n);
    if (unlikely(size == 0 || failure_is_due())) {
        return NULL;
    }
    return raw_zalloc(size);
}

void *mem_try_resize(void *p, size_t n)
{
    size_t size = raw_size(n);
    if (unlikely(size == 0 || failure_is_due())) {
        return NULL;
    }
    return raw_resize(p, size);
}

void mem_free(void *p)
{
    raw_free(p);
}

void mem_trim(void)
{
    raw_trim();
}

size_t mem_usable(const void *p)
{
    return p == NULL ? 0 : raw_usable(p);
}

void mem_fail_after(long n)
{
    calls_left = n;
}

/* ---- libev ------------------------------------------------------------------------------------- */

/* mimalloc has blocks of 8 to 128 KiB in pages of 512 KiB, all of which stays with it for one that is kept.
 * A larger block has pages of its own, and takes no memory where nobody has written. */
#define SHARES_ABOVE (8L << 10)
#define OWN_PAGES    ((128L << 10) + 1)

void *mem_for_libev(void *p, long n)
{
    if (n <= 0) {
        mem_free(p);
        return NULL;
    }
    size_t wanted = (size_t)(n > SHARES_ABOVE && n < OWN_PAGES ? OWN_PAGES : n);
    return p != NULL && mem_usable(p) >= wanted ? p : mem_try_resize(p, wanted);
}

/* ---- hiredis: what it allocates is sized by a peer, so all of it is mem_try ------------------- */

static void *hiredis_calloc(size_t count, size_t size)
{
    size_t n;
    if (__builtin_mul_overflow(count, size, &n)) {
        return NULL;
    }
    return mem_try_zero(n);
}

static void *hiredis_realloc(void *p, size_t n)
{
    size_t have = mem_usable(p);
    /* A block that fits stays where it is, unless most of it would lie idle. */
    if (p != NULL && n <= have && n >= have / 4) {
        return p;
    }
    size_t roomy;
    if (p != NULL && n > GROW_BY_HALF_ABOVE && n > have &&
        !__builtin_add_overflow(n, n / 2, &roomy)) {
        void *grown = mem_try_resize(p, roomy);
        if (grown != NULL) {
            return grown;
        }
    }
    return mem_try_resize(p, n);
}

static char *hiredis_strdup(const char *s)
{
    size_t n = strlen(s) + 1;
    char *copy = mem_try(n);
    return copy == NULL ? NULL : memcpy(copy, s, n);
}

void mem_install_hiredis(void)
{
    hiredisAllocFuncs funcs = {
        .mallocFn = mem_try,
        .callocFn = hiredis_calloc,
        .reallocFn = hiredis_realloc,
        .strdupFn = hiredis_strdup,
        .freeFn = mem_free,
    };
    hiredisSetAllocators(&funcs);
}
