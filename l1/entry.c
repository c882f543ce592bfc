/* SPDX-License-Identifier: Apache-2.0
 *
 * entry.c: what an entry is made of, and what comes out of it again.
 *
 * A value arrives as the RESP bulk that clients get. "$n\r\n" and "\r\n" follow from its length, so
 * they are not kept: that is 7 bytes of 126. Anything that is not exactly such a bulk is kept as it
 * is. Values of CHAIN_REF_MIN and above, or too large for a slot, are blobs, framed, that clients'
 * output shares.
 *
 * No locks are taken and none is wanted, but that the entry does not go meanwhile.
 */
#include "l1_priv.h"

#include "../conf/mem.h"

/* How many digits the length of a bulk of n bytes has, if that is in its shortest form: a head has 3 bytes more than
 * digits, and 2 follow. */
static inline size_t digits_of(size_t n)
{
    size_t digits = 1;
    for (size_t most = 9; n > most + digits + 5 && digits < CHAIN_HEADER_MAX - 3; digits++) {
        most = 10 * most + 9;
    }
    return digits;
}

static inline struct slice inside(struct slice bulk)
{
    size_t digits = digits_of(bulk.n);
    return slice_of(bulk.p + digits + 3, bulk.n - digits - 5);
}

/* Whether s is a bulk as chain_append_bulk writes it. */
static bool is_framed(struct slice s)
{
    size_t digits = digits_of(s.n);
    size_t said = 0;
    if (s.n < digits + 5 || s.p[0] != '$') {
        return false;
    }
    for (size_t i = 1; i <= digits; i++) {
        size_t digit = (size_t)(unsigned char)s.p[i] - '0';
        if (digit > 9) {
            return false;
        }
        said = 10 * said + digit;
    }
    return said == s.n - digits - 5 && (s.p[1] != '0' || digits == 1) &&
           memcmp(s.p + 1 + digits, "\r\n", 2) == 0 && memcmp(s.p + s.n - 2, "\r\n", 2) == 0;
}

bool entry_is_value(const struct entry *e, struct slice encoded)
{
    struct slice value = encoded;
    if (flags_of(e) & FLAG_BLOB) {
        const struct blob *b = entry_blob(e);
        return slice_eq(slice_of(b->p, b->n), encoded);
    }
    bool framed = encoded.n < CHAIN_REF_MIN && is_framed(encoded);
    if (framed) {
        value = inside(encoded);
    }
    bool same_form = framed == ((flags_of(e) & FLAG_FRAMED) != 0);
    return same_form && slice_eq(entry_value(e, flags_of(e)), value);
}

struct blob *entry_copy(const struct entry *e)
{
    if (flags_of(e) & FLAG_BLOB) {
        return blob_ref(entry_blob(e));
    }
    struct slice value = entry_value(e, flags_of(e));
    if (!(flags_of(e) & FLAG_FRAMED)) {
        return blob_try_copy(value);
    }
    struct blob *b = blob_try(CHAIN_HEADER_MAX + value.n + 2);
    if (b != NULL) {
        size_t head = chain_header(b->p, '$', value.n);
        memcpy(b->p + head, value.p, value.n);
        memcpy(b->p + head + value.n, "\r\n", 2);
        b->n = head + value.n + 2;
    }
    return b;
}

/* ---- Making one ---------------------------------------------------------------------------- */

static size_t largest_slot(const struct l1 *l1)
{
    return l1->classes.size[l1->classes.count - 1];
}

size_t entry_key_max(const struct l1 *l1)
{
    size_t fixed = sizeof(struct entry) + sizeof(uint32_t) + sizeof(struct blob *);
    size_t most = largest_slot(l1) - fixed;
    most = most < UINT16_MAX ? most : UINT16_MAX;
    return most < l1->max_item_size ? most : l1->max_item_size - 1;
}

bool entry_plan_init(struct entry_plan *plan, const struct l1 *l1, const struct l1_lease *lease,
                     const struct l1_value *value)
{
    struct slice encoded = value->is_null ? slice_of(NULL, 0) : value->encoded;
    size_t n = encoded.n;
    if (value->ttl_ms <= 0 || n > l1->max_item_size - lease->key_len) {
        return false;
    }
    plan->key = slice_of(lease->key, lease->key_len);
    plan->place = l1->has_slots ? lease->slot : lease->db;
    plan->flags = value->is_null ? FLAG_NULL : 0;
    plan->value = encoded;
    plan->blob = NULL;
    size_t size = sizeof(struct entry) + lease->key_len;
    if (plan->place != 0) {
        plan->flags |= FLAG_PLACE;
        size += sizeof(plan->place);
    }
    if (n < CHAIN_REF_MIN && !value->is_null && (value->is_bulk || is_framed(encoded))) {
        plan->value = inside(encoded);
        plan->flags |= FLAG_FRAMED;
    }
    if (unlikely(plan->value.n >= CHAIN_REF_MIN || size + plan->value.n > largest_slot(l1))) {
        plan->blob = blob_try_copy(encoded);
        if (plan->blob == NULL) {
            return false;
        }
        plan->flags = (plan->flags & ~FLAG_FRAMED) | FLAG_BLOB;
        size += sizeof(plan->blob);
    } else {
        size += plan->value.n;
    }
    plan->class = class_of(&l1->classes, size);
    return true;
}

void entry_plan_fini(struct entry_plan *plan)
{
    blob_unref(plan->blob);
    plan->blob = NULL;
}

void entry_write(struct entry *e, struct entry_plan *plan, const struct l1_lease *lease,
                 uint32_t deadline)
{
    bool has_blob = plan->blob != NULL;
    char *at = e->bytes;
    e->hash = (uint32_t)lease->hash;
    e->deadline = deadline;
    e->stamp = lease->incarnation + lease->slot_generation;
    e->cover = lease->cover;
    e->key_len = (uint16_t)plan->key.n;
    e->value_len = has_blob ? 0 : (uint16_t)plan->value.n;
    atomic_store_explicit(&e->freq, 0, memory_order_relaxed);
    flags_set(e, plan->flags);
    if (plan->flags & FLAG_PLACE) {
        memcpy(at, &plan->place, sizeof(plan->place));
        at += sizeof(plan->place);
    }
    copy_key(at, plan->key.p, plan->key.n);
    at += plan->key.n;
    if (has_blob) {
        memcpy(at, &plan->blob, sizeof(plan->blob));
        plan->blob = NULL;
    } else if (plan->value.n > 0) {
        copy_value(at, plan->value.p, plan->value.n);
    }
}
