/* SPDX-License-Identifier: Apache-2.0
 *
 * test_evict.c: the budget and who leaves when it is spent; the table as it grows; the sweep; and
 * memory running out at every single allocation.
 */
#include "cache.h"

#include <stdio.h>

#define SMALL_CACHE ((size_t)256 << 10)

static void put_number(struct cache *c, const char *prefix, unsigned int i, int64_t now)
{
    char key[32];
    snprintf(key, sizeof(key), "%s%u", prefix, i);
    put(c, key, key, now);
}

static bool holds_number(struct cache *c, const char *prefix, unsigned int i, int64_t now)
{
    char key[32];
    snprintf(key, sizeof(key), "%s%u", prefix, i);
    return holds_text(c, key, key, now);
}

/* More new keys than fit. */
static void scan(struct cache *c, const char *prefix, int64_t now)
{
    for (unsigned int i = 0; i < 10000; i++) {
        put_number(c, prefix, i, now);
    }
}

/* ---- The budget ---------------------------------------------------------------------------- */

Test(evict, memory_never_exceeds_its_bound)
{
    struct cache c = cache_of(SMALL_CACHE, SMALL_CACHE / 8);
    static char text[SMALL_CACHE / 8];
    char key[16];
    uint32_t random = 99;
    uint64_t most = 0;
    for (int i = 0; i < 5000; i++) {
        random = random * 1103515245U + 12345U;
        size_t n = (random >> 8) % (i % 16 == 0 ? sizeof(text) - 16 : 300);
        memset(text, 'v', n);
        text[n] = '\0';
        snprintf(key, sizeof(key), "%d", i);
        put(&c, key, text, i);
        struct l1_stats s = stats_of(&c);
        cr_assert(s.bytes <= SMALL_CACHE);
        most = s.bytes > most ? s.bytes : most;
    }
    cr_expect(most > SMALL_CACHE / 2, "most of it gets used");
    cr_expect(stats_of(&c).evictions > 1000);
    cr_expect(stats_of(&c).fills == 5000);
    cache_close(&c);
}

Test(evict, everything_is_given_back)
{
    struct cache c = cache_of(SMALL_CACHE, 4096);
    uint64_t empty = 0;
    for (int round = 0; round < 3; round++) {
        for (unsigned int i = 0; i < 500; i++) {
            put_number(&c, "k", i, round);
        }
        for (unsigned int i = 0; i < 500; i++) {
            char key[16];
            snprintf(key, sizeof(key), "k%u", i);
            invalidate(&c, key);
        }
        cr_expect(stats_of(&c).items == 0);
        cr_expect(round == 0 || stats_of(&c).bytes == empty);
        empty = stats_of(&c).bytes;
    }
    cache_close(&c);
}

Test(evict, open_leases_are_charged)
{
    struct cache c = cache_of(SMALL_CACHE, 4096);
    struct reader r = {0};
    uint64_t before = stats_of(&c).bytes;
    cr_assert(get(&c, &r, "k", 10) == L1_OWNER);
    cr_expect(stats_of(&c).bytes > before);
    invalidate(&c, "k");
    cr_expect(stats_of(&c).bytes > before, "a detached one still takes memory");
    l1_abandon(c.l1, &r.lease);
    cr_expect(stats_of(&c).bytes == before);
    cache_close(&c);
}

Test(evict, largest_item_fits_a_full_cache)
{
    struct cache c = cache_of(SMALL_CACHE, SMALL_CACHE / 4);
    static char text[SMALL_CACHE / 4];
    memset(text, 'v', sizeof(text) - 1);
    scan(&c, "k", 10);
    put(&c, "", text, 11);
    cr_expect(holds(&c, "", 12));
    cr_expect(stats_of(&c).bytes <= SMALL_CACHE);
    cache_close(&c);
}

Test(evict, several_shards_share_the_budget)
{
    struct cache c = cache_of((size_t)64 << 20, 4096);
    for (unsigned int i = 0; i < 20000; i++) {
        put_number(&c, "k", i, 10);
    }
    for (unsigned int i = 0; i < 20000; i++) {
        cr_assert(holds_number(&c, "k", i, 11));
    }
    cr_expect(stats_of(&c).items == 20000);
    cr_expect(stats_of(&c).evictions == 0);
    cr_expect(stats_of(&c).bytes <= (size_t)64 << 20);
    cache_close(&c);
}

/* ---- S3-FIFO ------------------------------------------------------------------------------- */

Test(evict, scan_does_not_push_out_what_was_read_again)
{
    struct cache c = cache_of(SMALL_CACHE, 4096);
    for (unsigned int i = 0; i < 100; i++) {
        put_number(&c, "hot", i, 10);
        cr_assert(holds_number(&c, "hot", i, 11));
    }
    for (unsigned int i = 0; i < 100; i++) {
        put_number(&c, "cold", i, 10);
    }
    scan(&c, "scan", 12);
    for (unsigned int i = 0; i < 100; i++) {
        cr_assert(holds_number(&c, "hot", i, 13));
        cr_assert(!holds_number(&c, "cold", i, 13));
    }
    cache_close(&c);
}

/* A kilobyte each, so that few are evicted and the ghost has places to spare: only their age makes
 * them forgotten. The cache holds about 150. */
static void put_kilobytes(struct cache *c, const char *prefix, unsigned int n, int64_t now)
{
    char key[32];
    char text[1000];
    memset(text, 'v', sizeof(text) - 1);
    text[sizeof(text) - 1] = '\0';
    for (unsigned int i = 0; i < n; i++) {
        snprintf(key, sizeof(key), "%s%u", prefix, i);
        put(c, key, text, now);
    }
}

static unsigned int count_held(struct cache *c, const char *prefix, unsigned int n, int64_t now)
{
    char key[32];
    unsigned int count = 0;
    for (unsigned int i = 0; i < n; i++) {
        snprintf(key, sizeof(key), "%s%u", prefix, i);
        count += holds(c, key, now);
    }
    return count;
}

Test(evict, key_that_comes_back_soon_is_kept_longer)
{
    struct cache c = cache_of(SMALL_CACHE, 4096);
    put_kilobytes(&c, "k", 40, 10);
    put_kilobytes(&c, "between", 200, 10);
    cr_assert(count_held(&c, "k", 40, 11) == 0);
    put_kilobytes(&c, "k", 40, 12);
    put_kilobytes(&c, "after", 250, 12);
    unsigned int kept = count_held(&c, "k", 40, 13);
    cr_expect(kept > 30, "%u", kept); /* fingerprints may collide */
    cache_close(&c);
}

Test(evict, key_that_comes_back_late_is_not_remembered)
{
    struct cache c = cache_of(SMALL_CACHE, 4096);
    put_kilobytes(&c, "k", 40, 10);
    put_kilobytes(&c, "between", 600, 10);
    cr_assert(count_held(&c, "k", 40, 11) == 0);
    put_kilobytes(&c, "k", 40, 12);
    put_kilobytes(&c, "after", 300, 12);
    unsigned int kept = count_held(&c, "k", 40, 13);
    cr_expect(kept < 5, "%u", kept); /* fingerprints may collide */
    cache_close(&c);
}

Test(evict, the_dead_get_no_second_chance_and_are_not_counted_as_evicted)
{
    struct cache c = cache_of(SMALL_CACHE, 4096);
    for (unsigned int i = 0; i < 200; i++) {
        put_number(&c, "dead", i, 10);
        for (int times = 0; times < 5; times++) {
            cr_assert(holds_number(&c, "dead", i, 11));
        }
    }
    l1_cover_down(c.l1, 0);
    l1_cover_up(c.l1, 0, UNTIL);
    scan(&c, "k", 12);
    struct l1_stats s = stats_of(&c);
    cr_expect(s.voids == 200);
    cr_expect(s.fills == s.items + s.evictions + s.voids);
    cache_close(&c);
}

Test(evict, cache_full_of_hot_entries_takes_new_ones)
{
    struct cache c = cache_of(SMALL_CACHE, 4096);
    for (unsigned int i = 0; i < 8000; i++) {
        put_number(&c, "k", i, 10);
        for (int times = 0; times < 5; times++) {
            cr_assert(holds_number(&c, "k", i, 11));
        }
        cr_assert(stats_of(&c).bytes <= SMALL_CACHE);
    }
    cr_expect(stats_of(&c).evictions > 0);
    cache_close(&c);
}

Test(evict, late_entries_are_not_dead)
{
    struct cache c = cache_of(SMALL_CACHE, 4096);
    l1_cover_renew(c.l1, 1, 500);
    put_under(&c, "k", "v", 1, 10);
    cr_assert(holds(&c, "k", 11));
    scan(&c, "scan", 500);
    l1_cover_renew(c.l1, 1, 900);
    cr_expect(holds(&c, "k", 501));
    cache_close(&c);
}

/* ---- The table ----------------------------------------------------------------------------- */

Test(evict, every_key_is_found_while_the_table_grows)
{
    struct cache c = cache_of((size_t)8 << 20, 4096);
    for (unsigned int i = 0; i < 12000; i++) {
        put_number(&c, "k", i, 10);
        cr_assert(holds_number(&c, "k", i / 2, 10));
    }
    for (unsigned int i = 0; i < 12000; i++) {
        cr_assert(holds_number(&c, "k", i, 11));
    }
    for (unsigned int i = 0; i < 12000; i += 3) {
        char key[16];
        snprintf(key, sizeof(key), "k%u", i);
        invalidate(&c, key);
    }
    unsigned int held = 0;
    for (unsigned int i = 0; i < 12000; i++) {
        bool holds = holds_number(&c, "k", i, 12);
        cr_assert(!holds || i % 3 != 0);
        held += holds;
    }
    cr_expect(held > 7990, "%u", held); /* who shares a hash with one that changed goes, too */
    cr_expect(stats_of(&c).items == held);
    cache_close(&c);
}

/* ---- The sweep ----------------------------------------------------------------------------- */

Test(evict, sweep_frees_the_expired_and_void_and_nothing_else)
{
    struct cache c = cache_of((size_t)8 << 20, 4096);
    for (unsigned int i = 0; i < 3000; i++) {
        char key[16];
        snprintf(key, sizeof(key), "k%u", i);
        put_under(&c, key, key, i % 3 == 0, i % 3 == 1 ? 10 : 5000);
    }
    l1_cover_down(c.l1, 1);
    l1_sweep(c.l1, 100000, 10 + TTL);
    struct l1_stats s = stats_of(&c);
    cr_expect(s.items == 1000);
    cr_expect(s.voids == 1000);
    cr_expect(s.expirations == 1000);
    for (unsigned int i = 0; i < 3000; i++) {
        cr_assert(holds_number(&c, "k", i, 11 + TTL) == (i % 3 == 2));
    }
    cache_close(&c);
}

Test(evict, sweep_looks_at_no_more_than_its_budget_and_gets_everywhere)
{
    struct cache c = cache_of((size_t)64 << 20, 4096);
    for (unsigned int i = 0; i < 5000; i++) {
        put_number(&c, "k", i, 10);
    }
    for (unsigned int i = 0; i < 5000; i++) {
        put_number(&c, "live", i, 5000);
    }
    uint64_t before = 10000;
    for (int calls = 0; calls < 20000 && before > 5000; calls++) {
        l1_sweep(c.l1, 7, 10 + TTL);
        uint64_t after = stats_of(&c).items;
        cr_assert(before - after <= 7);
        before = after;
    }
    cr_expect(before == 5000);
    cache_close(&c);
}

Test(evict, sweep_of_one_entry_at_a_time_gets_to_the_end_of_a_chain)
{
    struct cache c = cache_of(SMALL_CACHE, 4096);
    for (unsigned int i = 0; i < 300; i++) {
        put_number(&c, "k", i, i % 2 == 0 ? 10 : 5000);
    }
    for (int calls = 0; calls < 5000; calls++) {
        l1_sweep(c.l1, 1, 10 + TTL);
    }
    cr_expect(stats_of(&c).items == 150);
    cache_close(&c);
}

Test(evict, sweep_leaves_what_is_only_late)
{
    struct cache c = cache_open();
    l1_cover_renew(c.l1, 0, 500);
    put(&c, "k", "v", 10);
    l1_sweep(c.l1, 100000, 600);
    l1_cover_renew(c.l1, 0, 900);
    cr_expect(holds(&c, "k", 700));
    cache_close(&c);
}

/* ---- Memory is out ------------------------------------------------------------------------- */

/* One read, fetch and second read of a fresh key, failing from the nth allocation on. */
static void use_with_failure(struct cache *c, unsigned int i, long after, const char *text)
{
    char key[16];
    snprintf(key, sizeof(key), "m%u", i);
    struct reader a = {0};
    struct reader b = {0};
    struct l1_query q = query_of(c, &a, key);
    struct l1_value v = {.encoded = slice_str(text), .ttl_ms = TTL};
    mem_fail_after(after);
    enum l1_result first = l1_get(c->l1, &q, 10);
    struct l1_lease *lease = first == L1_OWNER ? q.lease : NULL;
    q.waiter = &b.waiter;
    b.waiter.wake = reader_woken;
    enum l1_result second = l1_get(c->l1, &q, 10);
    if (lease != NULL) {
        l1_fill(c->l1, &lease, &v, 11);
    }
    mem_fail_after(-1);
    cr_assert(first == L1_OWNER || first == L1_PASS);
    cr_assert(a.wakes == (first == L1_OWNER));
    cr_assert(b.wakes == (second == L1_JOINED));
    if (second == L1_OWNER) {
        l1_abandon(c->l1, &q.lease);
    }
}

Test(evict, failing_allocation_costs_an_entry_and_nothing_else)
{
    struct cache c = cache_of((size_t)1 << 20, (size_t)64 << 10);
    static char text[CHAIN_REF_MIN * 2];
    memset(text, 'v', sizeof(text) - 1);
    unsigned int i = 0;
    for (long after = 0; after < 8; after++) {
        for (int many = 0; many < 700; many++) {
            use_with_failure(&c, i++, after, many % 50 == 0 ? text : "small");
            cr_assert(stats_of(&c).bytes <= (size_t)1 << 20);
        }
    }
    cr_expect(stats_of(&c).fills > 1000);
    cache_close(&c);
}
