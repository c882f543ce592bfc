/* SPDX-License-Identifier: Apache-2.0
 *
 * get.c: lookups. A hit takes no lock if the thread has a reader. Everything else looks again with
 * the lock (l1_get once more if it turns out that it must open a lease, which is allocated without it).
 *
 * Why nothing stale is served: a change takes the shard's lock and removes the entry, so a lookup
 * that began behind it finds nothing, and one that overlaps with it may return what was current when
 * it began. What a fetch brings later is kept out by its lease (lease.c). Covers are not under any
 * lock. A lookup loads the moment and the incarnation when it has found the entry, and behind them
 * whether the entry is still live. If it sees a moment that l1_cover_renew stored, it also sees the
 * drops that the owner applied before (C11), hence that a dropped entry is not live any more. With
 * the lock the same follows from the order of critical sections.
 *
 * Why l1_get_all never sees half a multi-key write: such a write moves `torn` after its last drop
 * and before anything can be installed again. To return the old value of one key and the new one
 * of another, l1_get_all must have read the first before its drop and the second after its install,
 * hence `torn` moved between its two loads.
 */
#include "l1_priv.h"
#include "look.h"

#include "../conf/mem.h"

/* ---- Reads --------------------------------------------------------------------------------- */

/* Hits beyond FREQ_MAX store nothing, so that a hot entry's line stays in every processor's cache.
 * Readers who count at once lose a hit. */
static inline void touch(struct entry *e)
{
    unsigned int freq = atomic_load_explicit(&e->freq, memory_order_relaxed);
    if (unlikely(freq < FREQ_MAX)) {
        atomic_store_explicit(&e->freq, (uint8_t)(freq + 1), memory_order_relaxed);
    }
}

/* Whether the entry is servable. One that is not is deleted: it might come back to life with the next
 * PONG, after a newer value was read elsewhere (C7). */
static bool may_serve(struct l1 *l1, struct shard *s, struct entry *e, int64_t now)
{
    enum fate fate = entry_fate(l1, e, now);
    if (unlikely(fate != FATE_LIVE)) {
        if (!(MUTANT(C7) && fate == FATE_LAPSED)) {
            entry_bury(s, e, fate);
        }
        return false;
    }
    touch(e);
    return true;
}

/* The servable entry of a key. Mostly there is none: inlined, so that this costs no call. */
static inline __attribute__((always_inline)) struct entry *
find_live(struct l1 *l1, struct shard *s, const struct l1_query *q, int64_t now)
{
    struct entry *e = table_find(l1, s, q->hash, q->key, q->db);
    return e != NULL && may_serve(l1, s, e, now) ? e : NULL;
}

static bool append_blob(const struct entry *e, struct chain *out)
{
    struct blob *b = entry_blob(e);
    return b->n >= CHAIN_REF_MIN ? chain_append_blob(out, b, 0, b->n)
                                 : chain_append(out, slice_of(b->p, b->n));
}

/* L1_PASS when memory is out: the reply can still be relayed piece by piece. */
static inline enum l1_result serve(const struct entry *e, unsigned int flags, struct chain *out)
{
    if (unlikely(flags & FLAG_NULL)) {
        return L1_HIT_NULL;
    }
    if (likely(flags & FLAG_FRAMED)) {
        return likely(chain_append_bulk(out, entry_value(e, flags))) ? L1_HIT : L1_PASS;
    }
    bool ok = flags & FLAG_BLOB ? append_blob(e, out) : chain_append(out, entry_value(e, flags));
    return likely(ok) ? L1_HIT : L1_PASS;
}

/* ---- Without the lock ---------------------------------------------------------------------- */

enum peek { PEEK_HIT, PEEK_NULL, PEEK_NOTHING, PEEK_LOOK_AGAIN };

/* PEEK_NOTHING: seems not to be there. PEEK_LOOK_AGAIN: there is something that takes the lock. Inlined
 * into both callers: a call would cost an eighth of a lookup. */
static inline __attribute__((always_inline)) enum peek peek(const struct l1 *l1, struct entry *e,
                                                            struct chain *out, int64_t now)
{
    if (unlikely(e == NULL)) {
        return PEEK_NOTHING;
    }
    enum fate fate = entry_fate(l1, e, now);
    /* Behind the cover's moment, see the head of the file. */
    unsigned int flags = flags_of(e);
    if (unlikely(fate != FATE_LIVE || !(flags & FLAG_LIVE))) {
        return PEEK_LOOK_AGAIN;
    }
    touch(e);
    enum l1_result result = serve(e, flags, out);
    return result == L1_HIT ? PEEK_HIT : result == L1_HIT_NULL ? PEEK_NULL : PEEK_LOOK_AGAIN;
}

/* ---- With it ------------------------------------------------------------------------------- */

/* Whether a lease may be taken under the cover now, and its incarnation. */
static bool cover_grants(const struct l1 *l1, uint16_t cover, int64_t now, uint32_t *incarnation)
{
    if (cover >= l1->cover_count) {
        return false;
    }
    *incarnation = atomic_load_explicit(&l1->covers[cover].incarnation, memory_order_acquire);
    return is_up(*incarnation) && cover_fate(l1, cover, *incarnation, now) == FATE_LIVE;
}

/* Opens *fresh for the key, which has neither entry nor lease; without one at hand L1_OWNER only
 * says that it could. */
static enum l1_result take_lease(struct l1 *l1, struct shard *s, struct l1_query *q, int64_t now,
                                 struct l1_lease **fresh, struct work *work)
{
    uint32_t incarnation;
    if (q->key.n > l1->key_max || (l1->has_slots && q->db != 0) ||
        !cover_grants(l1, q->cover, now, &incarnation)) {
        return L1_PASS;
    }
    if (fresh == NULL) {
        return L1_OWNER;
    }
    if (!lease_fits(l1, s, *fresh, work)) {
        return L1_PASS;
    }
    lease_open(s, *fresh, incarnation, now);
    q->lease = *fresh;
    *fresh = NULL;
    return L1_OWNER;
}

/* Whether the lease may be joined. One that nobody may join any more makes way for a new one. */
static bool may_join(struct l1 *l1, struct shard *s, struct l1_lease *lease, int64_t now)
{
    bool current = lease_is_current(l1, s, lease, now) && !MUTANT(R5j);
    if (!current) {
        lease_detach(s, lease);
    }
    return current;
}

/* The lease of a key that may be joined. */
static inline struct l1_lease *find_current(struct l1 *l1, struct shard *s,
                                            const struct l1_query *q, int64_t now)
{
    struct l1_lease *lease = lease_find(s, q->hash, q->key, q->db);
    return lease != NULL && may_join(l1, s, lease, now) ? lease : NULL;
}

static enum l1_result look(struct l1 *l1, struct shard *s, struct l1_query *q, int64_t now,
                           struct l1_lease **fresh, struct work *work)
{
    const struct entry *e = find_live(l1, s, q, now);
    if (likely(e != NULL)) {
        return serve(e, flags_of(e), q->out);
    }
    struct l1_lease *lease = find_current(l1, s, q, now);
    if (lease != NULL) {
        lease_join(s, lease, q->waiter);
        return L1_JOINED;
    }
    enum l1_result result = take_lease(l1, s, q, now, fresh, work);
    if (result == L1_OWNER && fresh != NULL) {
        lease_join(s, q->lease, q->waiter);
    }
    return result;
}

/* R6b. `with` is looked at only in its own shard, whose lock covers its lease. Who is woken to look
 * again was asked before that lease was sent; its value is new enough for him, detached or not. */
static enum l1_result join_behind(struct l1 *l1, struct shard *s, struct l1_query *q, int64_t now)
{
    struct l1_lease *lease = q->with_lease;
    if (q->with != NULL) {
        lease = q->with->hash == q->hash ? q->with->lease : NULL;
    }
    if (lease == NULL || lease->hash != q->hash || lease->db != q->db ||
        !slice_eq(l1_lease_key(lease), q->key) ||
        (!q->woken && find_current(l1, s, q, now) != lease)) {
        return L1_PASS;
    }
    lease_join(s, lease, q->waiter);
    return L1_JOINED;
}

/* The look of a miss with a lease that was allocated without the lock. Anything may have happened
 * since the one before. */
static enum l1_result look_again(struct l1 *l1, struct shard *s, struct l1_query *q, int64_t now,
                                 struct work *work)
{
    struct l1_lease *fresh = lease_try(q);
    if (fresh == NULL) {
        return L1_PASS;
    }
    lock_take(&s->lock);
    enum l1_result result = look(l1, s, q, now, &fresh, work);
    lock_give(&s->lock);
    mem_free(fresh);
    return result;
}

/* Not inlined, so that a hit saves few registers. `absent`: it seems that a lease will be wanted. */
static __attribute__((noinline)) enum l1_result
get_locked(struct l1 *l1, struct shard *s, struct l1_query *q, int64_t now, bool absent)
{
    struct work work;
    work_begin(&work, now);
    enum l1_result result = L1_OWNER;
    if (!absent) {
        lock_take(&s->lock);
        result = q->behind ? join_behind(l1, s, q, now) : look(l1, s, q, now, NULL, &work);
        lock_give(&s->lock);
    }
    if (result == L1_OWNER) {
        result = look_again(l1, s, q, now, &work);
    }
    work_end(&work);
    return result;
}

enum l1_result l1_get(struct l1 *l1, struct l1_query *q, int64_t now)
{
    struct shard *s = shard_of(l1, q->hash);
    bool absent = false;
    if (likely(q->reader != NULL && !q->behind)) {
        reader_begin(l1, q->reader);
        const struct l1_key key = {.key = q->key, .hash = q->hash};
        struct entry *e = table_peek(l1, s, table_head(s, q->hash), &key, q->db);
        enum peek seen = peek(l1, e, q->out, now);
        if (likely(seen <= PEEK_NULL)) {
            return seen == PEEK_HIT ? L1_HIT : L1_HIT_NULL;
        }
        absent = seen == PEEK_NOTHING;
    }
    return get_locked(l1, s, q, now, absent);
}

/* Opens a lease for the query's key, if that has neither entry nor lease; the cover grants it. What is left over of a
 * vain attempt goes to *left. */
static struct l1_lease *open_absent(struct l1 *l1, struct shard *s, const struct l1_query *q,
                                    uint32_t incarnation, struct l1_lease **left, struct work *work)
{
    if (find_live(l1, s, q, work->now) != NULL || find_current(l1, s, q, work->now) != NULL) {
        return NULL;
    }
    struct l1_lease *lease = lease_reuse(s, q);
    if (lease == NULL) {
        return NULL;
    }
    if (!lease_fits(l1, s, lease, work)) {
        *left = lease_keep_spare(s, lease) ? NULL : lease;
        return NULL;
    }
    lease_open(s, lease, incarnation, work->now);
    return lease;
}

#define ABSENT_AHEAD 4

/* What is looked through for a lease of that hash a little later is on its way by then, if it is in the shard whose lock
 * is held: the first lease of its place, and the third entry of its bucket (l1_look_ahead asks for two). */
static inline void expect_absent(const struct l1 *l1, struct shard *s, uint64_t hash)
{
    if (shard_of(l1, hash) == s) {
        const struct entry *first = seat_of(s, link_of(table_head(s, hash)));
        const struct entry *second = seat_of(s, link_of(&first->chain));
        __builtin_prefetch(seat_of(s, link_of(&second->chain)));
        __builtin_prefetch(under_way(s, hash)->open);
    }
}

/* l1_lease_run; or, not `bare`, l1_lease_again for each. */
static size_t lease_unasked(struct l1 *l1, const struct l1_query *asked, const struct l1_key *keys,
                            size_t n, bool bare, struct l1_lease **leases, int64_t now)
{
    struct l1_query q = *asked;
    struct shard *s = NULL;
    struct l1_lease *left = NULL;
    uint32_t incarnation;
    struct work work;
    size_t i;
    if ((l1->has_slots && q.db != 0) || !cover_grants(l1, q.cover, now, &incarnation)) {
        return 0;
    }
    work_begin(&work, now);
    for (i = 0; i < n; i++) {
        __builtin_prefetch(under_way(shard_of(l1, keys[i].hash), keys[i].hash), 1);
    }
    for (i = 0; i < n && keys[i].key.n <= l1->key_max; i++) {
        q.key = keys[i].key;
        q.hash = keys[i].hash;
        s = hold_next(shard_of(l1, q.hash), s);
        if (i + ABSENT_AHEAD < n) {
            expect_absent(l1, s, keys[i + ABSENT_AHEAD].hash);
        }
        size_t room = s->budget - s->used;
        bool waits = !bare && writes_block(s, q.hash);
        leases[i] = waits ? NULL : open_absent(l1, s, &q, incarnation, &left, &work);
        if (leases[i] == NULL) {
            break;
        }
        leases[i]->bare = bare;
        if (unlikely(room <
                     leases[i]->charge)) { /* it took work to make some: others get their turn */
            lock_give(&s->lock);
            s = NULL;
        }
    }
    if (s != NULL) {
        lock_give(&s->lock);
    }
    mem_free(left);
    work_end(&work);
    return i;
}

static struct l1_lease *lease_one(struct l1 *l1, const struct l1_query *q, bool bare, int64_t now)
{
    const struct l1_key key = {.key = q->key, .hash = q->hash};
    struct l1_lease *lease;
    return lease_unasked(l1, q, &key, 1, bare, &lease, now) == 1 ? lease : NULL;
}

size_t l1_lease_run(struct l1 *l1, const struct l1_query *q, const struct l1_key *keys, size_t n,
                    struct l1_lease **leases, int64_t now)
{
    return lease_unasked(l1, q, keys, n, true, leases, now);
}

struct l1_lease *l1_lease_try(struct l1 *l1, const struct l1_query *q, int64_t now)
{
    return lease_one(l1, q, true, now);
}

struct l1_lease *l1_lease_again(struct l1 *l1, const struct l1_query *q, int64_t now)
{
    return lease_one(l1, q, false, now);
}

/* ---- Runs ---------------------------------------------------------------------------------- */

/* So many lookups are under way at a time. */
#define RUN_AHEAD 32

static __attribute__((noinline)) enum l1_result hit_locked(struct l1 *l1, struct shard *s,
                                                           const struct l1_run *run,
                                                           const struct l1_key *key, int64_t now)
{
    struct l1_query q = {.key = key->key, .hash = key->hash, .db = run->db};
    lock_take(&s->lock);
    const struct entry *e = find_live(l1, s, &q, now);
    enum l1_result result = e != NULL ? serve(e, flags_of(e), run->out) : L1_PASS;
    lock_give(&s->lock);
    return result;
}

static inline void look_ahead(struct l1 *l1, struct l1_reader *reader, const struct l1_key *keys,
                              size_t n, struct look *looks)
{
    for (size_t i = 0; i < n; i++) {
        look_for(l1, keys[i].hash, &looks[i]);
    }
    look_behind(l1, reader, looks, n, CACHE_LINE);
}

void l1_look_ahead(struct l1 *l1, struct l1_reader *reader, const struct l1_key *keys, size_t n)
{
    struct look looks[RUN_AHEAD];
    look_ahead(l1, reader, keys, n < RUN_AHEAD ? n : RUN_AHEAD, looks);
}

static inline enum l1_result hit(struct l1 *l1, const struct l1_run *run, const struct l1_key *key,
                                 const struct look *look, int64_t now)
{
    if (likely(run->reader != NULL)) {
        struct entry *e = table_peek(l1, look->shard, look->head, key, run->db);
        enum peek seen = peek(l1, e, run->out, now);
        if (likely(seen == PEEK_HIT)) {
            return L1_HIT;
        }
        if (seen != PEEK_LOOK_AGAIN) {
            return seen == PEEK_NULL ? L1_HIT_NULL : L1_PASS;
        }
    }
    return hit_locked(l1, look->shard, run, key, now);
}

size_t l1_get_run(struct l1 *l1, struct l1_run *run, int64_t now)
{
    struct look looks[RUN_AHEAD];
    run->nulls = 0;
    size_t answered = 0;
    while (answered < run->n) {
        const struct l1_key *keys = run->keys + answered;
        size_t n = run->n - answered < RUN_AHEAD ? run->n - answered : RUN_AHEAD;
        look_ahead(l1, run->reader, keys, n, looks);
        for (size_t i = 0; i < n; i++, answered++) {
            enum l1_result result = hit(l1, run, &keys[i], &looks[i], now);
            if (result == L1_HIT_NULL && chain_append(run->out, run->null)) {
                run->nulls++;
            } else if (result != L1_HIT) {
                return answered;
            }
            if (run->out->bytes >= run->enough) {
                return answered + 1;
            }
        }
    }
    return answered;
}

bool l1_get_all(struct l1 *l1, struct l1_run *run, int64_t now)
{
    struct chain_mark mark = chain_mark(run->out);
    run->enough = SIZE_MAX;
    /* Partners of both loads: the read-modify-writes of `torn`. Lookups load links with acquire, and
     * the shards' locks order those against the drops and installs on either side. */
    uint64_t torn = atomic_load_explicit(&l1->torn, memory_order_acquire);
    bool whole = l1_get_run(l1, run, now) == run->n;
    if (whole && atomic_load_explicit(&l1->torn, memory_order_acquire) == torn) {
        return true;
    }
    chain_rewind(run->out, mark);
    return false;
}
