/* SPDX-License-Identifier: Apache-2.0
 *
 * bytes.h: the two ways bytes are named.
 *
 * A slice is borrowed: pointer and length by value, valid during the call unless a comment names
 * what keeps it alive. A blob is kept: reference-counted, immutable once it is published to a second
 * owner; references may be taken and dropped on any thread.
 */
#pragma once

#include "../conf/base.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>
#include <strings.h>

struct slice {
    const char *p;
    size_t n;
};

#define SLICE(literal) ((struct slice){(literal), sizeof(literal) - 1})

static inline struct slice slice_of(const char *p, size_t n)
{
    return (struct slice){p, n};
}

static inline struct slice slice_str(const char *s)
{
    return (struct slice){s, strlen(s)};
}

static inline bool slice_eq(struct slice a, struct slice b)
{
    return a.n == b.n && memcmp(a.p, b.p, a.n) == 0;
}

static inline bool slice_starts(struct slice s, struct slice start)
{
    return s.n >= start.n && memcmp(s.p, start.p, start.n) == 0;
}

/* Case-insensitive in ASCII, as Redis compares command and option names. */
static inline bool slice_eq_nocase(struct slice a, struct slice b)
{
    return a.n == b.n && strncasecmp(a.p, b.p, a.n) == 0;
}

/* memcpy, without the call for the sizes that most values have. */
static inline void copy_value(char *to, const char *from, size_t n)
{
    char first[16];
    char second[16];
    char third[16];
    char last[16];
    if (n - 33 > 64 - 33) {
        memcpy(to, from, n);
        return;
    }
    memcpy(first, from, 16); /* they overlap */
    memcpy(second, from + 16, 16);
    memcpy(third, from + n - 32, 16);
    memcpy(last, from + n - 16, 16);
    memcpy(to, first, 16);
    memcpy(to + 16, second, 16);
    memcpy(to + n - 32, third, 16);
    memcpy(to + n - 16, last, 16);
}

/* The same for keys. Apart, because for both ranges at once it is too long to be inlined. */
static inline void copy_key(char *to, const char *from, size_t n)
{
    char first[16];
    char last[16];
    if (n - 16 > 32 - 16) {
        memcpy(to, from, n);
        return;
    }
    memcpy(first, from, 16);
    memcpy(last, from + n - 16, 16);
    memcpy(to, first, 16);
    memcpy(to + n - 16, last, 16);
}

/* Redis's string2ll: an optional '-', digits without leading zeros, the whole slice, within
 * int64_t. Returns false and leaves *value alone otherwise. */
MUST_CHECK bool slice_to_int64(struct slice s, int64_t *value);

struct blob {
    _Atomic uint32_t refs; /* relaxed to take, acq_rel to drop */
    size_t n;              /* bytes in p that count; <= what was asked for */
    char p[];
};

/* A blob of n bytes (contents undefined) with one reference, owned by the caller; NULL when memory
 * is out or n is absurd. */
MUST_CHECK struct blob *blob_try(size_t n);
/* A blob with a copy of s; NULL when memory is out. */
MUST_CHECK struct blob *blob_try_copy(struct slice s);
/* One more reference; returns b. */
struct blob *blob_ref(struct blob *b);
/* One reference less; the last one frees. Accepts NULL. */
void blob_unref(struct blob *b);
