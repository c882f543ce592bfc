/* SPDX-License-Identifier: Apache-2.0
 *
 * lease.c: fetches in flight, and who waits for them: what keeps a value out of the cache that was
 * read before a change and arrives behind it.
 *
 *     lease_open ──► open ──────────────────────────────► l1_fill: installed, waiters get it
 *                      │ write begun or ended, push, R7
 *                      ▼
 *                   detached ───────────────────────────► l1_fill: R5b, see settle_detached
 *
 * A lease is an object of its own, never a flag on the key: a late reply of a fetch that was
 * detached holds a pointer to that fetch, whatever has been opened for the key since. Closing is
 * for good. Detaching by hash is done at once; detaching by cover, by l1_drop_all or by a wide
 * write is not: the lease keeps the incarnation and the generation that it was opened under, and
 * lease_is_current compares. Such a lease is found out by the next reader or by its own reply.
 *
 * Invariants, under the shard's lock: at most one lease is open for a (key, db), and none while
 * there is a servable entry; a waiter's `lease` is set exactly while it is in that lease's list.
 * Waiters leave the list under the lock and are woken after it; from then on only the waking
 * thread reads their links.
 */
#include "l1_priv.h"

#include "../conf/mem.h"

/* ---- Open leases --------------------------------------------------------------------------- */

static size_t lease_size(size_t key_len)
{
    return sizeof(struct l1_lease) + (key_len > LEASE_KEY ? key_len : LEASE_KEY);
}

/* All but what lease_open sets. */
static void lease_init(struct l1_lease *lease, const struct l1_query *q, size_t charge)
{
    lease->first = lease->last = NULL;
    lease->hash = q->hash;
    lease->charge = charge;
    lease->db = q->db;
    lease->slot_generation = q->slot_generation;
    lease->slot = q->slot;
    lease->cover = q->cover;
    lease->fetcher = q->fetcher;
    lease->open = lease->carried = lease->unanswered = lease->bare = false;
    lease->key_len = (uint32_t)q->key.n;
    copy_key(lease->key, q->key.p, q->key.n);
}

struct l1_lease *lease_try(const struct l1_query *q)
{
    struct l1_lease *lease = mem_try(lease_size(q->key.n));
    if (lease != NULL) {
        lease_init(lease, q, mem_usable(lease));
    }
    return lease;
}

struct l1_lease *lease_reuse(struct shard *s, const struct l1_query *q)
{
    struct l1_lease *lease = s->spare;
    if (lease == NULL || q->key.n > LEASE_KEY) {
        return lease_try(q);
    }
    s->spare = lease->next;
    s->spares--;
    lease_init(lease, q, lease->charge);
    return lease;
}

bool lease_keep_spare(struct shard *s, struct l1_lease *lease)
{
    if (s->spares + 1 > LEASE_SPARES_MAX || lease->key_len > LEASE_KEY) {
        return false;
    }
    lease->next = s->spare;
    s->spare = lease;
    s->spares++;
    return true;
}

struct slice l1_lease_key(const struct l1_lease *lease)
{
    return slice_of(lease->key, lease->key_len);
}

void l1_lease_await(struct l1_lease *lease)
{
    lease->unanswered = true;
}

void l1_lease_answered(const struct l1 *l1, struct l1_lease *lease)
{
    lease->unanswered = MUTANT(R3b);
    struct shard *s = shard_of(l1, lease->hash);
    evict_expect(s, lease->hash);
    __builtin_prefetch(under_way(s, lease->hash), 1);
}

uint32_t l1_lease_db(const struct l1_lease *lease)
{
    return lease->db;
}

uint16_t l1_lease_slot(const struct l1_lease *lease)
{
    return lease->slot;
}

struct l1_lease *lease_search(struct l1_lease *lease, uint64_t hash, struct slice key, uint32_t db)
{
    while (lease != NULL &&
           (lease->hash != hash || lease->db != db || !slice_eq(l1_lease_key(lease), key))) {
        lease = lease->next;
    }
    return lease;
}

bool lease_is_current(const struct l1 *l1, const struct shard *s, const struct l1_lease *lease,
                      int64_t now)
{
    return lease->open && lease->generation == s->generation &&
           slot_generation(l1, lease->slot) == lease->slot_generation &&
           cover_fate(l1, lease->cover, lease->incarnation, now) == FATE_LIVE;
}

bool lease_fits(struct l1 *l1, struct shard *s, const struct l1_lease *lease, struct work *work)
{
    return s->leases < LEASES_MAX && lease->charge <= s->lease_bytes_max - s->lease_bytes &&
           (likely(lease->charge <= s->budget - s->used) ||
            room_for_bytes(l1, s, lease->charge, work) == ROOM_IS_THERE);
}

void lease_open(struct shard *s, struct l1_lease *lease, uint32_t incarnation, int64_t now)
{
    struct under_way *at = under_way(s, lease->hash);
    lease->t_send = now;
    lease->incarnation = incarnation;
    lease->generation = s->generation;
    lease->open = true;
    lease->next = at->open;
    lease->link = &at->open;
    if (lease->next != NULL) {
        lease->next->link = &lease->next;
    }
    at->open = lease;
    s->leases++;
    s->lease_bytes += lease->charge;
    s->used += lease->charge;
}

static void lease_close(struct l1_lease *lease)
{
    *lease->link = lease->next;
    if (lease->next != NULL) {
        lease->next->link = lease->link;
    }
    lease->open = false;
}

void lease_detach(struct shard *s, struct l1_lease *lease)
{
    lease_close(lease);
    s->counted.detached++;
}

/* But for those of a cover that are unanswered. */
bool lease_detach_some(struct shard *s, uint64_t hash, const uint32_t *db, uint16_t but)
{
    bool found = false;
    struct l1_lease *lease = under_way(s, hash)->open;
    while (lease != NULL) {
        struct l1_lease *next = lease->next;
        bool spared = lease->cover == but && but != L1_NO_COVER && lease->unanswered;
        if (lease->hash == hash && (db == NULL || lease->db == *db) && !spared) {
            lease_detach(s, lease);
            found = true;
        }
        lease = next;
    }
    return found;
}

/* ---- Waiters ------------------------------------------------------------------------------- */

static void append_waiter(struct l1_lease *lease, struct l1_waiter *w)
{
    w->lease = lease;
    w->next = NULL;
    w->prev = lease->last;
    if (lease->last == NULL) {
        lease->first = w;
    } else {
        lease->last->next = w;
    }
    lease->last = w;
}

void lease_join(struct shard *s, struct l1_lease *lease, struct l1_waiter *w)
{
    w->hash = lease->hash;
    append_waiter(lease, w);
    s->counted.waiters++;
}

static void remove_waiter(struct l1_lease *lease, struct l1_waiter *w)
{
    if (w->prev == NULL) {
        lease->first = w->next;
    } else {
        w->prev->next = w->next;
    }
    if (w->next == NULL) {
        lease->last = w->prev;
    } else {
        w->next->prev = w->prev;
    }
    w->lease = NULL;
}

bool l1_forget(struct l1 *l1, struct l1_waiter *w)
{
    struct shard *s = shard_of(l1, w->hash);
    lock_take(&s->lock);
    bool parked = w->lease != NULL;
    if (parked) {
        remove_waiter(w->lease, w);
        s->counted.waiters--;
    }
    lock_give(&s->lock);
    return parked;
}

bool l1_give_up(struct l1 *l1, struct l1_waiter *w)
{
    struct shard *s = shard_of(l1, w->hash);
    lock_take(&s->lock);
    struct l1_lease *lease = w->lease;
    if (lease != NULL) {
        if (lease->open) {
            lease_detach(s, lease);
        }
        remove_waiter(lease, w);
        s->counted.waiters--;
    }
    lock_give(&s->lock);
    return lease != NULL;
}

bool l1_outwait(struct l1 *l1, struct l1_waiter *w, uint16_t fetcher)
{
    struct shard *s = shard_of(l1, w->hash);
    lock_take(&s->lock);
    struct l1_lease *lease = w->lease;
    bool waits = lease != NULL && lease->fetcher == fetcher;
    if (waits) {
        if (lease->open) {
            lease_detach(s, lease);
        }
        remove_waiter(lease, w);
        s->counted.waiters--;
    }
    lock_give(&s->lock);
    if (waits) {
        w->wake(w, L1_WAKE_RETRY, NULL);
    }
    return waits;
}

static void move_waiters(struct l1_lease *from, struct l1_lease *to)
{
    struct l1_waiter *w = from->first;
    from->first = NULL;
    from->last = NULL;
    while (w != NULL) {
        struct l1_waiter *next = w->next;
        append_waiter(to, w);
        w = next;
    }
}

/* ---- Endings ------------------------------------------------------------------------------- */

/* What is left to do for a lease when the lock has been given back. */
struct ending {
    struct l1_lease *lease; /* to be freed; or NULL */
    struct l1_waiter *waiters;
    enum l1_wake how;
    struct l1_reply reply;
    struct work *work;
};

struct blob *l1_reply_blob(struct l1_reply *reply)
{
    if (reply->blob == NULL) {
        reply->blob = blob_try_copy(reply->encoded);
    }
    return reply->blob == NULL ? NULL : blob_ref(reply->blob);
}

/* Takes the lease out of everything; its waiters go to the ending. */
static void end_lease(struct shard *s, struct l1_lease *lease, struct ending *end)
{
    version_move(s, lease->hash);
    if (lease->open) {
        lease_close(lease);
    }
    for (struct l1_waiter *w = lease->first; w != NULL; w = w->next) {
        w->lease = NULL;
        s->counted.waiters--;
    }
    end->waiters = lease->first;
    s->leases--;
    s->lease_bytes -= lease->charge;
    s->used -= lease->charge;
    end->lease = lease_keep_spare(s, lease) ? NULL : lease;
}

/* A waiter may be gone, or parked anew, as soon as its wake was called. */
static void wake_all(struct ending *end)
{
    struct l1_waiter *w = end->waiters;
    while (w != NULL) {
        struct l1_waiter *next = w->next;
        w->wake(w, end->how, &end->reply);
        w = next;
    }
}

/* Without a lock. */
static inline void finish(struct ending *end)
{
    if (end->waiters != NULL) {
        wake_all(end);
    }
    if (end->reply.blob != NULL) {
        blob_unref(end->reply.blob);
    }
    if (end->lease != NULL) {
        mem_free(end->lease);
    }
}

/* R5b (a). */
static void share_entry(const struct entry *e, struct ending *end)
{
    end->reply = (struct l1_reply){0};
    if (flags_of(e) & FLAG_NULL) {
        end->how = L1_WAKE_NULL;
        return;
    }
    /* The entry may be gone before the last waiter is awake. */
    struct blob *b = entry_copy(e);
    if (b == NULL) {
        end->how = L1_WAKE_RETRY;
        return;
    }
    end->how = L1_WAKE_REPLY;
    end->reply = (struct l1_reply){.encoded = slice_of(b->p, b->n), .blob = b};
}

/* R5b: the value of a detached fetch may be older or newer than what a fetch after it brought.
 * (a) its waiters get the entry of that later fetch, if there is one; (b) or wait on with the later
 * fetch, if that is in flight: once, or a key written without end would starve them; (c) or get the
 * value, after it has passed R7 like any read that went beside L1.
 * The owner of a bare lease has the value for himself already: for that only (c) is left. */
static void settle_detached(struct l1 *l1, struct shard *s, struct l1_lease *lease,
                            const struct l1_value *value, struct ending *end)
{
    int64_t now = end->work->now;
    struct slice key = l1_lease_key(lease);
    if (MUTANT(R5b)) {
        return;
    }
    if (!lease->bare && !MUTANT(R5bc)) {
        if (lease->first == NULL) {
            return;
        }
        struct entry *e = table_find(l1, s, lease->hash, key, lease->db);
        enum fate fate = e == NULL ? FATE_VOID : entry_fate(l1, e, now);
        if (fate == FATE_LIVE) {
            share_entry(e, end);
            return;
        }
        if (e != NULL) {
            entry_bury(s, e, fate);
        }
        struct l1_lease *newer = lease_find(s, lease->hash, key, lease->db);
        if (newer != NULL && !lease->carried && lease_is_current(l1, s, newer, now)) {
            move_waiters(lease, newer);
            newer->carried = true;
            return;
        }
    }
    struct slice seen = {0};
    if (!value->is_null) {
        seen = value->encoded;
    }
    shard_observe(l1, s, lease->hash, lease->db, seen);
}

/* ---- Filling ------------------------------------------------------------------------------- */

/* How often a fill asks for more room; the lock is free in between. */
#define ROOM_ROUNDS 100000

static int64_t deadline_of(const struct l1_lease *lease, const struct l1_value *value)
{
    return lease->t_send + (value->ttl_ms < DEADLINE_MAX ? value->ttl_ms : DEADLINE_MAX);
}

/* Whether the value may be kept (R2, for a lease that is current) and there is room for it. */
static enum room may_install(struct l1 *l1, struct shard *s, const struct l1_lease *lease,
                             const struct entry_plan *plan, int64_t deadline, struct work *work)
{
    if ((writes_block(s, lease->hash) && !MUTANT(R2)) || work->now >= deadline) {
        return ROOM_NEVER;
    }
    if (likely(plan->blob == NULL)) {
        return room_for_slot(l1, s, plan->class, work);
    }
    /* And a page, should there be no slot. */
    size_t outside = mem_usable(plan->blob);
    enum room room = room_for_bytes(l1, s, outside + l1->classes.page_size, work);
    debug_assert(room != ROOM_IS_THERE || slab_has_room(s, plan->class));
    return room;
}

/* There is room. Takes the plan's blob. */
static void install(struct l1 *l1, struct shard *s, const struct l1_lease *lease,
                    struct entry_plan *plan, int64_t deadline, struct ending *end)
{
    struct entry *e = slab_alloc(s, plan->class);
    bug_on(e == NULL);
    debug_assert(table_find(l1, s, lease->hash, plan->key, lease->db) == NULL);
    size_t outside = 0;
    if (unlikely(plan->blob != NULL)) {
        outside = mem_usable(plan->blob);
        s->used += outside;
        end->reply.blob = blob_ref(plan->blob);
    }
    entry_write(e, plan, lease, (uint32_t)deadline);
    evict_admit(s, e, l1->classes.size[plan->class] + outside);
    table_insert(s, e);
    s->counted.fills++;
    table_grow(l1, s, end->work);
    room_ahead(l1, s, end->work);
}

/* False: there is not enough room yet, but it gets more. That is asked for bit by bit, because many
 * entries may have to go for a large value, and nobody is to wait so long for the lock. Meanwhile
 * anything may happen to the lease. */
static bool try_fill(struct l1 *l1, struct shard *s, struct l1_lease *lease,
                     const struct l1_value *value, struct entry_plan *plan, struct ending *end)
{
    int64_t now = end->work->now;
    if (lease_is_current(l1, s, lease, now) || (MUTANT(R2c) && lease->open)) {
        int64_t deadline = deadline_of(lease, value) + (MUTANT(T1) ? now - lease->t_send : 0);
        enum room room =
            plan == NULL ? ROOM_NEVER : may_install(l1, s, lease, plan, deadline, end->work);
        if (room == ROOM_MORE_STEPS) {
            return false;
        }
        if (room == ROOM_IS_THERE) {
            install(l1, s, lease, plan, deadline, end);
        } else {
            s->counted.refusals++;
        }
    } else {
        if (lease->open) {
            lease_detach(s, lease);
        }
        settle_detached(l1, s, lease, value, end);
        s->counted.refusals++;
    }
    end_lease(s, lease, end);
    return true;
}

void l1_fill(struct l1 *l1, struct l1_lease **lease, const struct l1_value *value, int64_t now)
{
    struct l1_lease *ended = *lease;
    *lease = NULL;
    struct shard *s = shard_of(l1, ended->hash);
    struct work work;
    work_begin(&work, now);
    struct ending end = {
        .how = value->is_null ? L1_WAKE_NULL : L1_WAKE_REPLY,
        .reply = {.encoded = value->encoded},
        .work = &work,
    };
    /* A large value is copied before the lock is taken, for the rare price of doing it in vain. */
    struct entry_plan plan;
    bool keeps = entry_plan_init(&plan, l1, ended, value);
    bool done = false;
    for (int round = 0; !done; round++) {
        lock_take(&s->lock);
        done = try_fill(l1, s, ended, value, keeps && round < ROOM_ROUNDS ? &plan : NULL, &end);
        lock_give(&s->lock);
        work_end(&work);
    }
    if (keeps && plan.blob != NULL) {
        entry_plan_fini(&plan);
    }
    finish(&end);
}

void l1_abandon(struct l1 *l1, struct l1_lease **lease)
{
    struct l1_lease *ended = *lease;
    *lease = NULL;
    struct shard *s = shard_of(l1, ended->hash);
    struct ending end = {.how = L1_WAKE_RETRY};
    lock_take(&s->lock);
    end_lease(s, ended, &end);
    lock_give(&s->lock);
    finish(&end);
}
