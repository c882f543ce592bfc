/* SPDX-License-Identifier: Apache-2.0
 *
 * bytes.c: numbers in slices, and the life of a blob.
 *
 * A blob is one block: counter, length, bytes. It is written by its only owner, published, and from
 * then on only read, so readers need no lock; the counter alone is shared. Taking a reference is
 * relaxed because whoever takes one already holds one (or the lock that keeps the blob alive).
 * Dropping is acq_rel: every owner's last read happens before the free that the last one does.
 *
 * Any thread may do any of this. Nothing here grows, shrinks or searches bytes.
 */
#include "bytes.h"

#include "../conf/mem.h"

/* "-9223372036854775808": longer than this is no int64_t, whatever it holds. */
#define INT64_DIGITS_MAX 20

bool slice_to_int64(struct slice s, int64_t *value)
{
    if (s.n == 0 || s.n > INT64_DIGITS_MAX) {
        return false;
    }
    if (s.n == 1 && s.p[0] == '0') {
        *value = 0;
        return true;
    }
    bool negative = s.p[0] == '-';
    size_t i = negative ? 1 : 0;
    /* No leading zero: "0" went above, and "-0" is no number to Redis either. */
    if (i == s.n || s.p[i] == '0') {
        return false;
    }
    uint64_t magnitude = 0;
    for (; i < s.n; i++) {
        unsigned int digit = (unsigned int)(unsigned char)s.p[i] - '0';
        if (digit > 9 || __builtin_mul_overflow(magnitude, 10, &magnitude) ||
            __builtin_add_overflow(magnitude, digit, &magnitude)) {
            return false;
        }
    }
    if (magnitude > (uint64_t)INT64_MAX + (negative ? 1 : 0)) {
        return false;
    }
    /* Negated as unsigned: INT64_MIN has no positive twin. */
    *value = (int64_t)(negative ? 0 - magnitude : magnitude);
    return true;
}

struct blob *blob_try(size_t n)
{
    /* No object may be larger than a pointer difference can say. */
    if (n > (size_t)PTRDIFF_MAX - sizeof(struct blob)) {
        return NULL;
    }
    struct blob *b = mem_try(sizeof(*b) + n);
    if (b == NULL) {
        return NULL;
    }
    atomic_init(&b->refs, 1);
    b->n = n;
    return b;
}

struct blob *blob_try_copy(struct slice s)
{
    struct blob *b = blob_try(s.n);
    if (b != NULL && s.n > 0) {
        memcpy(b->p, s.p, s.n);
    }
    return b;
}

struct blob *blob_ref(struct blob *b)
{
    uint32_t before = atomic_fetch_add_explicit(&b->refs, 1, memory_order_relaxed);
    /* Zero: taken after the last owner left. UINT32_MAX: wrapped, and the next unref would free
     * under everybody's feet. */
    bug_on(before == 0 || before == UINT32_MAX);
    return b;
}

void blob_unref(struct blob *b)
{
    if (b == NULL) {
        return;
    }
    uint32_t before = atomic_fetch_sub_explicit(&b->refs, 1, memory_order_acq_rel);
    bug_on(before == 0);
    if (before == 1) {
        mem_free(b);
    }
}
