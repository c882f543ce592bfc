/* SPDX-License-Identifier: Apache-2.0
 *
 * race_l1.c: threads hammer one L1 and judge every value that comes out of it. Runs as many seconds
 * as its argument says: with a cache so small that it evicts all the time, and with several
 * shards. No Criterion, which aborts under ThreadSanitizer.
 *
 * The server is an array: truth[k] is the version of key k, and a value is its version in digits. A
 * fetch takes a lease, some steps later reads truth[k] (the GET executes), and some steps later
 * fills, so all the orders of a real network happen. The judge keeps floor[k]: no read that starts
 * now may return less. It is raised
 *     - by every change once the call that tells L1 of it has returned: write-end, invalidation,
 *       and for changes whose invalidation was lost: cover down, drop all, drop of the key's slot,
 *       the moment of the covers passing (C6);
 *     - by every read once it is answered (nobody may read an older value after that).
 * Of a lapse only what the protocol promises is tried: the invalidation comes before the renewal.
 *
 * Keys PLAIN and above come in pairs that are only written together, and l1_get_all must see both
 * alike. To see one torn, a reader must lose the processor in the midst of its keys while a write
 * and two fetches pass; a last part of the run does nothing but make that happen.
 */
#include "../../l1/l1.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define PLAIN       56 /* keys written one by one */
#define KEYS        64
#define LARGE_EVERY 8 /* so many keys have one whose value is large */
#define LARGE_LEN   ((size_t)20000)
#define SMALL_LEN   ((size_t)40)
#define DIGITS      10
#define COVERS      3
#define SLOTS       5
#define THREADS     4
#define FETCHES     6  /* in flight, of one thread */
#define READERS     24 /* of one thread */
#define LEASE_MS    1000
#define TTL_MS      100000000
#define RUN_OF_PAIR 32 /* keys of one l1_get_all: the pair again and again */

enum count { HITS, JOINS, OWNERS, PASSES, WAKES, RETRIES, WRITES, PUSHES, LOSSES, ALLS, COUNTS };
static const char *const count_names[COUNTS] = {
    "hits", "joins", "fetches", "passes", "wakes", "retries", "writes", "pushes", "losses", "mgets",
};

struct world {
    struct l1 *l1;
    size_t max_memory;
    bool only_pairs;
    uint64_t hash[KEYS];
    _Atomic uint32_t truth[KEYS];
    _Atomic uint32_t floor[KEYS];
    pthread_mutex_t pair_lock[KEYS / 2];
    pthread_mutex_t chaos_lock;
    _Atomic int64_t clock;
    _Atomic bool stop;
    _Atomic uint64_t checks;
    _Atomic uint64_t failures;
};

struct reader {
    struct l1_waiter waiter;
    struct world *world;
    uint32_t key;
    uint32_t floor; /* when it began */
    _Atomic uint64_t *counts;
    _Atomic bool busy;
};

struct fetch {
    struct l1_lease *lease;
    uint32_t key;
    uint32_t version;
    bool executed;
    bool bare;
};

struct thread {
    pthread_t id;
    struct world *world;
    unsigned int number;
    struct l1_reader *reader; /* of all threads but the last, which looks under the lock */
    uint64_t random;
    struct chain out;
    struct fetch fetches[FETCHES];
    struct reader readers[READERS];
    char value[LARGE_LEN];
    _Atomic uint64_t counts[COUNTS];
};

/* ---- The judge ----------------------------------------------------------------------------- */

static void check(struct world *w, bool ok, const char *what, uint32_t key, uint32_t got,
                  uint32_t want)
{
    atomic_fetch_add_explicit(&w->checks, 1, memory_order_relaxed);
    if (!ok && atomic_fetch_add_explicit(&w->failures, 1, memory_order_relaxed) < 20) {
        fprintf(stderr, "FAIL %s: key %u, got %u, floor %u\n", what, key, got, want);
    }
}

static void raise_floor(struct world *w, uint32_t key, uint32_t version)
{
    uint32_t old = atomic_load(&w->floor[key]);
    while (old < version && !atomic_compare_exchange_weak(&w->floor[key], &old, version)) {
    }
}

static size_t value_len(uint32_t key)
{
    return key < PLAIN && key % LARGE_EVERY == 0 ? LARGE_LEN : SMALL_LEN;
}

static struct slice value_of(struct thread *t, uint32_t key, uint32_t version)
{
    char digits[DIGITS + 1];
    size_t n = value_len(key);
    snprintf(digits, sizeof(digits), "%010u", version);
    memset(t->value, '.', n);
    memcpy(t->value, digits, DIGITS);
    memcpy(t->value + n - DIGITS, digits, DIGITS);
    return slice_of(t->value, n);
}

/* The version in a value; UINT32_MAX when head and tail are not of one. */
static uint32_t version_in(const char *p, size_t n)
{
    uint32_t version = 0;
    if (n < SMALL_LEN || memcmp(p, p + n - DIGITS, DIGITS) != 0) {
        return UINT32_MAX;
    }
    for (int i = 0; i < DIGITS; i++) {
        version = version * 10 + (uint32_t)(p[i] - '0');
    }
    return version;
}

static void judge(struct world *w, const char *what, uint32_t key, uint32_t version, uint32_t floor)
{
    check(w, version != UINT32_MAX && version >= floor, what, key, version, floor);
    check(w, version <= atomic_load(&w->truth[key]), "from the future", key, version, floor);
    if (version != UINT32_MAX) {
        raise_floor(w, key, version);
    }
}

/* ---- Reading ------------------------------------------------------------------------------- */

static uint32_t pick(struct thread *t, uint32_t below)
{
    t->random ^= t->random << 13;
    t->random ^= t->random >> 7;
    t->random ^= t->random << 17;
    return (uint32_t)(t->random >> 33) % below;
}

static void count(struct thread *t, enum count what)
{
    atomic_fetch_add_explicit(&t->counts[what], 1, memory_order_relaxed);
}

static void woken(struct l1_waiter *waiter, enum l1_wake how, struct l1_reply *reply)
{
    struct reader *r = container_of(waiter, struct reader, waiter);
    atomic_fetch_add_explicit(&r->counts[how == L1_WAKE_REPLY ? WAKES : RETRIES], 1,
                              memory_order_relaxed);
    if (how == L1_WAKE_REPLY) {
        struct blob *b = l1_reply_blob(reply);
        judge(r->world, "woken", r->key, version_in(b->p, b->n), r->floor);
        blob_unref(b);
    } else {
        check(r->world, how == L1_WAKE_RETRY, "woken as null", r->key, 0, 0);
    }
    atomic_store_explicit(&r->busy, false, memory_order_release);
}

static uint16_t slot_of(uint32_t key)
{
    return (uint16_t)(key % SLOTS);
}

static struct l1_query query(struct thread *t, uint32_t *key)
{
    return (struct l1_query){
        .key = slice_of((const char *)key, sizeof(*key)),
        .hash = t->world->hash[*key],
        .slot = slot_of(*key),
        .slot_generation = l1_slot_generation(t->world->l1, slot_of(*key)),
        .cover = (uint16_t)(t->number % COVERS),
        .reader = t->reader,
        .out = &t->out,
    };
}

static struct l1_key key_of(const struct thread *t, const uint32_t *key)
{
    return (struct l1_key){.key = slice_of((const char *)key, sizeof(*key)),
                           .hash = t->world->hash[*key]};
}

static struct l1_run run_of(struct thread *t, const struct l1_key *keys, size_t n)
{
    return (struct l1_run){.keys = keys,
                           .n = n,
                           .reader = t->reader,
                           .out = &t->out,
                           .null = SLICE("null"),
                           .enough = SIZE_MAX};
}

/* Versions of the n values in t->out, which is emptied. */
static void take_out(struct thread *t, const uint32_t *keys, size_t n, uint32_t *versions)
{
    static _Thread_local char all[4 * LARGE_LEN];
    struct iovec iov[16];
    size_t len = 0;
    int pieces = chain_iov(&t->out, iov, 16);
    for (int i = 0; i < pieces && len + iov[i].iov_len <= sizeof(all); i++) {
        memcpy(all + len, iov[i].iov_base, iov[i].iov_len);
        len += iov[i].iov_len;
    }
    size_t at = 0;
    for (size_t i = 0; i < n; i++) {
        size_t one = value_len(keys[i]);
        versions[i] = at + one <= len ? version_in(all + at, one) : UINT32_MAX;
        at += one;
    }
    chain_consume(&t->out, t->out.bytes);
}

/* Beside L1, as a lane would (R7). */
static void read_through(struct thread *t, uint32_t key)
{
    struct world *w = t->world;
    uint32_t version = atomic_load(&w->truth[key]);
    l1_observe_value(w->l1, w->hash[key], 0, value_of(t, key, version));
    raise_floor(w, key, version);
    count(t, PASSES);
}

static struct fetch *idle_fetch(struct thread *t)
{
    for (int i = 0; i < FETCHES; i++) {
        if (t->fetches[i].lease == NULL) {
            return &t->fetches[i];
        }
    }
    return NULL;
}

static struct reader *idle_reader(struct thread *t)
{
    struct reader *r = &t->readers[pick(t, READERS)];
    return atomic_load_explicit(&r->busy, memory_order_acquire) ? NULL : r;
}

static void read_one(struct thread *t)
{
    struct world *w = t->world;
    uint32_t key = pick(t, KEYS);
    struct reader *r = idle_reader(t);
    struct fetch *f = idle_fetch(t);
    if (r == NULL) {
        return;
    }
    r->key = key;
    r->floor = atomic_load(&w->floor[key]);
    int64_t now = atomic_load(&w->clock);
    struct l1_query q = query(t, &key);
    q.cover = f == NULL ? L1_NO_COVER : q.cover;
    q.waiter = &r->waiter;
    /* Before the call: the wake may come before it returns. */
    atomic_store_explicit(&r->busy, true, memory_order_relaxed);
    enum l1_result result = l1_get(w->l1, &q, now);
    if (result == L1_OWNER && f != NULL) {
        *f = (struct fetch){.lease = q.lease, .key = key};
        count(t, OWNERS);
        return;
    }
    if (result == L1_JOINED) {
        count(t, JOINS);
        return;
    }
    uint32_t floor = r->floor;
    atomic_store_explicit(&r->busy, false, memory_order_release);
    if (result == L1_HIT) {
        uint32_t version;
        take_out(t, &key, 1, &version);
        judge(w, "hit", key, version, floor);
        count(t, HITS);
    } else {
        check(w, result == L1_PASS, "result", key, (uint32_t)result, L1_PASS);
        read_through(t, key);
    }
}

static void read_run(struct thread *t)
{
    struct world *w = t->world;
    uint32_t keys[3];
    uint32_t floors[3] = {0};
    uint32_t versions[3] = {0};
    struct l1_key q[3];
    for (size_t i = 0; i < ARRAY_LEN(keys); i++) {
        keys[i] = pick(t, KEYS);
        floors[i] = atomic_load(&w->floor[keys[i]]);
        q[i] = key_of(t, &keys[i]);
    }
    if (t->reader != NULL && pick(t, 2) == 0) {
        l1_look_ahead(w->l1, t->reader, q, ARRAY_LEN(q));
    }
    struct l1_run run = run_of(t, q, ARRAY_LEN(q));
    size_t n = l1_get_run(w->l1, &run, atomic_load(&w->clock));
    take_out(t, keys, n, versions);
    for (size_t i = 0; i < n; i++) {
        judge(w, "batch", keys[i], versions[i], floors[i]);
        count(t, HITS);
    }
}

static void read_pair(struct thread *t)
{
    struct world *w = t->world;
    uint32_t first = PLAIN + pick(t, (KEYS - PLAIN) / 2) * 2;
    uint32_t floors[2] = {atomic_load(&w->floor[first]), atomic_load(&w->floor[first + 1])};
    uint32_t keys[RUN_OF_PAIR];
    uint32_t versions[RUN_OF_PAIR];
    struct l1_key q[RUN_OF_PAIR];
    for (uint32_t i = 0; i < RUN_OF_PAIR; i++) {
        keys[i] = first + i % 2;
        q[i] = key_of(t, &keys[i]);
    }
    struct l1_run run = run_of(t, q, RUN_OF_PAIR);
    if (!l1_get_all(w->l1, &run, atomic_load(&w->clock))) {
        check(w, t->out.bytes == 0, "rest of a miss", first, (uint32_t)t->out.bytes, 0);
        return;
    }
    take_out(t, keys, RUN_OF_PAIR, versions);
    for (size_t i = 1; i < RUN_OF_PAIR; i++) {
        check(w, versions[i] == versions[0], "torn pair", first, versions[i], versions[0]);
    }
    judge(w, "all", keys[0], versions[0], floors[0]);
    judge(w, "all", keys[1], versions[1], floors[1]);
    count(t, ALLS);
}

static void forget_one(struct thread *t)
{
    struct reader *r = &t->readers[pick(t, READERS)];
    if (atomic_load_explicit(&r->busy, memory_order_acquire) &&
        l1_forget(t->world->l1, &r->waiter)) {
        atomic_store_explicit(&r->busy, false, memory_order_release);
    }
}

/* ---- Fetching ------------------------------------------------------------------------------ */

static void lease_for_mget(struct thread *t)
{
    struct fetch *f = idle_fetch(t);
    if (f == NULL) {
        return;
    }
    uint32_t key = pick(t, KEYS);
    struct l1_query q = query(t, &key);
    struct l1_lease *lease = l1_lease_try(t->world->l1, &q, atomic_load(&t->world->clock));
    *f = (struct fetch){.lease = lease, .key = key, .bare = true};
}

static void end_fetch(struct thread *t, struct fetch *f)
{
    struct world *w = t->world;
    if (!f->executed || pick(t, 50) == 0) {
        l1_abandon(w->l1, &f->lease);
        return;
    }
    struct l1_value v = {.encoded = value_of(t, f->key, f->version), .ttl_ms = TTL_MS};
    l1_fill(w->l1, &f->lease, &v, atomic_load(&w->clock));
    if (f->bare) {
        raise_floor(w, f->key, f->version); /* its MGET is answered with it */
    }
}

static void advance_fetch(struct thread *t)
{
    struct fetch *f = &t->fetches[pick(t, FETCHES)];
    if (f->lease == NULL) {
        return;
    }
    if (!f->executed) {
        f->version = atomic_load(&t->world->truth[f->key]);
        f->executed = true;
    } else {
        end_fetch(t, f);
    }
}

/* ---- Changing ------------------------------------------------------------------------------ */

static void write_local(struct thread *t)
{
    struct world *w = t->world;
    uint32_t key = pick(t, PLAIN);
    l1_write_begin(w->l1, &w->hash[key], 1);
    uint32_t version = atomic_fetch_add(&w->truth[key], 1) + 1;
    l1_write_end(w->l1, &w->hash[key], 1);
    raise_floor(w, key, version);
    count(t, WRITES);
}

/* A run of SETs. A key may occur twice. */
static void write_run(struct thread *t)
{
    struct world *w = t->world;
    uint32_t keys[5];
    uint64_t hashes[5];
    for (size_t i = 0; i < ARRAY_LEN(keys); i++) {
        keys[i] = pick(t, PLAIN);
        hashes[i] = w->hash[keys[i]];
    }
    (void)l1_write_begin_run(w->l1, t->reader, hashes, ARRAY_LEN(hashes), NULL);
    for (size_t i = 0; i < ARRAY_LEN(keys); i++) {
        uint32_t version = atomic_fetch_add(&w->truth[keys[i]], 1) + 1;
        l1_write_end(w->l1, &hashes[i], 1);
        raise_floor(w, keys[i], version);
        count(t, WRITES);
    }
}

static void write_pair(struct thread *t)
{
    struct world *w = t->world;
    uint32_t first = PLAIN + pick(t, (KEYS - PLAIN) / 2) * 2;
    bool wide = pick(t, 8) == 0;
    pthread_mutex_lock(&w->pair_lock[first / 2]);
    if (wide) {
        l1_write_begin_wide(w->l1);
        l1_invalidate(w->l1, w->hash[first + 1]);
        l1_invalidate(w->l1, w->hash[first]);
    } else {
        l1_write_begin(w->l1, &w->hash[first], 2);
    }
    uint32_t version = atomic_fetch_add(&w->truth[first], 1) + 1;
    atomic_fetch_add(&w->truth[first + 1], 1);
    if (wide) {
        l1_write_end_wide(w->l1);
    } else {
        l1_write_end(w->l1, &w->hash[first], 2);
    }
    raise_floor(w, first, version);
    raise_floor(w, first + 1, version);
    pthread_mutex_unlock(&w->pair_lock[first / 2]);
    count(t, WRITES);
}

static void write_foreign(struct thread *t)
{
    struct world *w = t->world;
    uint32_t key = pick(t, PLAIN);
    uint32_t version = atomic_fetch_add(&w->truth[key], 1) + 1;
    if (pick(t, 4) == 0) {
        sched_yield();
    }
    l1_invalidate(w->l1, w->hash[key]);
    raise_floor(w, key, version);
    count(t, PUSHES);
}

static void lapse(struct world *w, const uint32_t *keys, const uint32_t *versions, size_t n)
{
    int64_t now = atomic_fetch_add(&w->clock, LEASE_MS) + LEASE_MS;
    for (size_t i = 0; i < n; i++) {
        raise_floor(w, keys[i], versions[i]);
    }
    for (size_t i = 0; i < n; i++) {
        l1_invalidate(w->l1, w->hash[keys[i]]);
    }
    for (uint16_t c = 0; c < COVERS; c++) {
        l1_cover_renew(w->l1, c, now + LEASE_MS);
    }
}

/* Changes of which no invalidation comes in time. */
static void write_unseen(struct thread *t)
{
    struct world *w = t->world;
    uint32_t keys[8];
    uint32_t versions[8];
    pthread_mutex_lock(&w->chaos_lock);
    for (size_t i = 0; i < ARRAY_LEN(keys); i++) {
        keys[i] = pick(t, PLAIN);
        versions[i] = atomic_fetch_add(&w->truth[keys[i]], 1) + 1;
    }
    switch (pick(t, 4)) {
    case 0:
        l1_drop_all(w->l1);
        break;
    case 1:
        for (size_t i = 0; i < ARRAY_LEN(keys); i++) {
            l1_drop_slot(w->l1, slot_of(keys[i]));
        }
        break;
    case 2:
        for (uint16_t c = 0; c < COVERS; c++) {
            l1_cover_down(w->l1, c);
        }
        break;
    default:
        lapse(w, keys, versions, ARRAY_LEN(keys));
        break;
    }
    for (size_t i = 0; i < ARRAY_LEN(keys); i++) {
        raise_floor(w, keys[i], versions[i]);
    }
    for (uint16_t c = 0; c < COVERS; c++) {
        if (!l1_cover_is_up(w->l1, c)) {
            l1_cover_up(w->l1, c, atomic_load(&w->clock) + LEASE_MS);
        }
    }
    pthread_mutex_unlock(&w->chaos_lock);
    count(t, LOSSES);
}

static void keep_up(struct thread *t)
{
    struct world *w = t->world;
    struct l1_stats s;
    if (t->number == 0) {
        l1_sweep(w->l1, 20, atomic_load(&w->clock));
    }
    l1_stats(w->l1, &s);
    check(w, s.bytes <= w->max_memory, "memory", 0, (uint32_t)s.bytes, (uint32_t)w->max_memory);
}

/* Both halves of a pair, fetched and filled at once. */
static void fetch_pair(struct thread *t, uint32_t first)
{
    struct world *w = t->world;
    for (uint32_t key = first; key < first + 2; key++) {
        struct l1_query q = query(t, &key);
        struct l1_lease *lease = l1_lease_try(w->l1, &q, atomic_load(&w->clock));
        if (lease != NULL) {
            struct l1_value v = {.encoded = value_of(t, key, atomic_load(&w->truth[key])),
                                 .ttl_ms = TTL_MS};
            l1_fill(w->l1, &lease, &v, atomic_load(&w->clock));
            count(t, OWNERS);
        }
    }
}

/* ---- Running ------------------------------------------------------------------------------- */

static void step(struct thread *t)
{
    if (t->world->only_pairs) {
        if (t->number == 0) {
            write_pair(t);
            for (uint32_t first = PLAIN; first < KEYS; first += 2) {
                fetch_pair(t, first);
            }
        } else {
            read_pair(t);
        }
        return;
    }
    uint32_t dice = pick(t, 1000);
    if (dice < 400) {
        read_one(t);
    } else if (dice < 480) {
        read_run(t);
    } else if (dice < 560) {
        read_pair(t);
    } else if (dice < 580) {
        lease_for_mget(t);
    } else if (dice < 880) {
        advance_fetch(t);
    } else if (dice < 900) {
        write_local(t);
    } else if (dice < 910) {
        write_run(t);
    } else if (dice < 930) {
        write_pair(t);
    } else if (dice < 960) {
        write_foreign(t);
    } else if (dice < 985) {
        forget_one(t);
    } else if (dice < 998) {
        keep_up(t);
    } else {
        write_unseen(t);
    }
}

static void rest(struct thread *t)
{
    if (t->reader != NULL) {
        l1_reader_rest(t->reader);
    }
}

static void *run_thread(void *arg)
{
    struct thread *t = arg;
    while (!atomic_load_explicit(&t->world->stop, memory_order_relaxed)) {
        for (uint32_t i = 1 + pick(t, 100); i > 0; i--) {
            step(t);
        }
        rest(t);
    }
    rest(t);
    for (int i = 0; i < FETCHES; i++) {
        if (t->fetches[i].lease != NULL) {
            end_fetch(t, &t->fetches[i]);
        }
    }
    return NULL;
}

static void world_init(struct world *w, size_t max_memory, bool only_pairs)
{
    char err[ERR_MAX];
    struct l1_options o = {.max_memory = max_memory,
                           .max_item_size = LARGE_LEN + 16,
                           .covers = COVERS,
                           .slots = SLOTS,
                           .readers = THREADS};
    memset(w, 0, sizeof(*w));
    w->max_memory = max_memory;
    w->only_pairs = only_pairs;
    w->l1 = l1_create(&o, err);
    if (w->l1 == NULL) {
        fprintf(stderr, "race_l1: %s\n", err);
        exit(1);
    }
    for (uint32_t k = 0; k < KEYS; k++) {
        w->hash[k] = l1_hash(w->l1, slice_of((const char *)&k, sizeof(k)));
    }
    for (uint32_t i = 0; i < KEYS / 2; i++) {
        pthread_mutex_init(&w->pair_lock[i], NULL);
    }
    pthread_mutex_init(&w->chaos_lock, NULL);
    for (uint16_t c = 0; c < COVERS; c++) {
        l1_cover_up(w->l1, c, LEASE_MS);
    }
}

static void thread_init(struct thread *t, struct world *w, unsigned int number)
{
    memset(t, 0, sizeof(*t));
    t->world = w;
    t->number = number;
    t->random = 0x9e3779b97f4a7c15U * (number + 1) ^ (uint64_t)time(NULL);
    t->reader = number == THREADS - 1 ? NULL : l1_reader(w->l1, number);
    chain_init(&t->out);
    for (int i = 0; i < READERS; i++) {
        t->readers[i].waiter.wake = woken;
        t->readers[i].world = w;
        t->readers[i].counts = t->counts;
    }
}

static void report(const struct world *w, struct thread *threads)
{
    struct l1_stats s;
    l1_stats(w->l1, &s);
    printf("race_l1 %zu KiB:", w->max_memory / 1024);
    for (int i = 0; i < COUNTS; i++) {
        uint64_t sum = 0;
        for (int j = 0; j < THREADS; j++) {
            sum += atomic_load(&threads[j].counts[i]);
        }
        printf(" %s %llu", count_names[i], (unsigned long long)sum);
    }
    printf(" | fills %llu refusals %llu evictions %llu voids %llu lapses %llu detached %llu\n",
           (unsigned long long)s.fills, (unsigned long long)s.refusals,
           (unsigned long long)s.evictions, (unsigned long long)s.voids,
           (unsigned long long)s.lapses, (unsigned long long)s.detached);
}

static void run(struct world *w, double seconds)
{
    static struct thread threads[THREADS];
    struct timespec nap = {.tv_sec = (time_t)seconds,
                           .tv_nsec = (long)((seconds - (double)(time_t)seconds) * 1e9)};
    for (unsigned int i = 0; i < THREADS; i++) {
        thread_init(&threads[i], w, i);
        if (pthread_create(&threads[i].id, NULL, run_thread, &threads[i]) != 0) {
            exit(1);
        }
    }
    nanosleep(&nap, NULL);
    atomic_store(&w->stop, true);
    for (int i = 0; i < THREADS; i++) {
        pthread_join(threads[i].id, NULL);
    }
    struct l1_stats s;
    l1_stats(w->l1, &s);
    check(w, s.leases == 0, "leases left", 0, (uint32_t)s.leases, 0);
    check(w, s.waiters == 0, "waiters left", 0, (uint32_t)s.waiters, 0);
    check(w, s.writes == 0, "writes left", 0, (uint32_t)s.writes, 0);
    for (int i = 0; i < THREADS * READERS; i++) {
        const struct reader *r = &threads[i / READERS].readers[i % READERS];
        check(w, !atomic_load(&r->busy), "never woken", r->key, 0, 0);
    }
    report(w, threads);
    for (int i = 0; i < THREADS; i++) {
        chain_fini(&threads[i].out);
    }
}

int main(int argc, char **argv)
{
    static struct world world;
    double seconds = argc > 1 ? strtod(argv[1], NULL) : 4;
    uint64_t checks = 0;
    uint64_t failures = 0;
    static const size_t sizes[] = {(size_t)128 << 10, (size_t)64 << 20, (size_t)64 << 20};
    for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
        world_init(&world, sizes[i], i == 2);
        run(&world, seconds / 3);
        l1_destroy(world.l1);
        checks += atomic_load(&world.checks);
        failures += atomic_load(&world.failures);
    }
    printf("%llu passed, %llu failed\n", (unsigned long long)(checks - failures),
           (unsigned long long)failures);
    return failures == 0 ? 0 : 1;
}
