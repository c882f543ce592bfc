/* SPDX-License-Identifier: Apache-2.0
 *
 * mem.h: the only door to the allocator (mimalloc; libc in sanitizer builds, because mimalloc's
 * blocks hide overflows from AddressSanitizer).
 *
 * Two kinds of request: small objects of our own (`mem_alloc`: dies with a message when memory is
 * out, because nothing sensible can go on) and anything whose size a peer chose (`mem_try`: returns
 * NULL and the caller degrades: refuse, close that peer, do not cache).
 * All functions may be called on any thread; a block may be freed on another thread.
 */
#pragma once

#include "base.h"

/* n bytes, owned by the caller. Never NULL: dies when memory is out. */
void *mem_alloc(size_t n);
void *mem_zalloc(size_t n);
/* Copy of a NUL-terminated string. Dies when memory is out. */
char *mem_strdup(const char *s);

/* n bytes, or NULL. A test build can make these fail, see mem_fail_after. */
MUST_CHECK void *mem_try(size_t n);
MUST_CHECK void *mem_try_zero(size_t n);
/* Like realloc: on NULL the old block is untouched and still owned by the caller. */
MUST_CHECK void *mem_try_resize(void *p, size_t n);

/* Accepts NULL. */
void mem_free(void *p);

/* Bytes the allocator really set aside for p (0 for NULL): what budgets are charged with. */
size_t mem_usable(const void *p);

/* Gives back to the system what this thread has freed: a burst leaves pages behind that are mostly empty.
 * Takes some microseconds per megabyte that is in use. Nothing under sanitizers, whose allocators do so
 * by themselves. */
void mem_trim(void);

/* Failure injection for tests, per thread: after n more successful calls every mem_try* on this
 * thread returns NULL until it is called again with a negative n. */
void mem_fail_after(long n);

/* For ev_set_allocator: n bytes instead of p, which may be NULL; with n 0 frees it. NULL when memory is out.
 * Arrays of libev grow in a burst of events and are kept for good, so those of some KiB get pages of their
 * own (mem.c): what else the burst took can be given back beside them. */
void *mem_for_libev(void *p, long n);

/* Makes hiredis allocate here, growing large blocks by half (mimalloc copies on realloc, and
 * hiredis grows replies 1 MiB at a time: 256 MiB took 16 s without this). Call once, before the
 * first connection. */
void mem_install_hiredis(void);
