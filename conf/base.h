/* SPDX-License-Identifier: Apache-2.0
 *
 * base.h: the ground every file stands on. Attributes and a few macros, no functions and no types
 * of our own. Anything with behaviour belongs elsewhere.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#define MUST_CHECK             __attribute__((warn_unused_result))
#define PRINTF_LIKE(fmt, args) __attribute__((format(printf, fmt, args)))
#define NORETURN               __attribute__((noreturn))
#define likely(x)              __builtin_expect(!!(x), 1)
#define unlikely(x)            __builtin_expect(!!(x), 0)

#define ARRAY_LEN(a) (sizeof(a) / sizeof((a)[0]))

/* The object whose member `member` is at `ptr`. Watchers and list links are embedded and found
 * back this way; no `void *data` is used for our own objects. */
#define container_of(ptr, type, member) ((type *)(void *)((char *)(ptr)-offsetof(type, member)))

/* Proven impossible: checked in every build, ends the process with file and line. Never for input
 * from a peer, never with side effects. debug_assert is for checks too dear for a release. */
#define bug_on(cond) (unlikely(cond) ? bug_found(#cond, __FILE__, __LINE__) : (void)0)
#ifdef NEARSIDE_DEBUG
#define debug_assert(cond) bug_on(!(cond))
#else
#define debug_assert(cond) ((void)sizeof(cond))
#endif

/* Defined in mem.c: writes one line to stderr and aborts. */
NORETURN void bug_found(const char *what, const char *file, int line);

/* Destination clean enough for a cache line of its own (two lines: the adjacent-line prefetcher). */
#define CACHE_ALIGNED _Alignas(128)

/* Size of a caller-supplied buffer for an error text of the set-up paths. */
#define ERR_MAX 512
