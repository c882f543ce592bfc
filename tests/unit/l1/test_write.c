/* SPDX-License-Identifier: Apache-2.0
 *
 * test_write.c: what changes do to keys: writes from begin to end (W1, R5), wide writes, invalidations,
 * and reads that went beside the cache (R7).
 */
#include "cache.h"

#include <stdio.h>

/* Fetches and fills at once; whether the value was kept. */
static bool can_install(struct cache *c, const char *key, int64_t now)
{
    struct reader r = {0};
    if (get(c, &r, key, now) != L1_OWNER) {
        return false;
    }
    fill(c, &r, "v", now);
    return holds(c, key, now);
}

Test(write, begin_drops_the_entry)
{
    struct cache c = cache_open();
    put(&c, "k", "v", 10);
    write_begin(&c, "k");
    cr_expect(!holds(&c, "k", 11));
    cr_expect(stats_of(&c).write_drops == 1);
    cr_expect(stats_of(&c).writes == 1);
    write_end(&c, "k");
    cr_expect(!holds(&c, "k", 12));
    cr_expect(stats_of(&c).writes == 0);
    cache_close(&c);
}

Test(write, begin_detaches_a_fetch_in_flight)
{
    struct cache c = cache_open();
    struct reader a = {0};
    struct reader b = {0};
    cr_assert(get(&c, &a, "k", 10) == L1_OWNER);
    write_begin(&c, "k");
    /* A reader that comes while the write is unanswered joins only a fetch that was sent since. */
    cr_assert(get(&c, &b, "k", 11) == L1_OWNER);
    write_end(&c, "k");
    fill(&c, &a, "old", 12);
    cr_expect(!holds(&c, "k", 12));
    fill(&c, &b, "b", 13);
    cache_close(&c);
}

Test(write, fetch_answered_meanwhile_is_told_but_not_installed)
{
    struct cache c = cache_open();
    struct reader a = {0};
    struct reader b = {0};
    write_begin(&c, "k");
    cr_assert(get(&c, &a, "k", 10) == L1_OWNER);
    cr_assert(get(&c, &b, "k", 10) == L1_JOINED);
    fill(&c, &a, "v", 11);
    cr_expect(was_told(&a, "v"));
    cr_expect(was_told(&b, "v"));
    cr_expect(!holds(&c, "k", 11));
    write_end(&c, "k");
    cr_expect(can_install(&c, "k", 12));
    cache_close(&c);
}

Test(write, fetch_begun_meanwhile_is_not_installed_after_the_end)
{
    struct cache c = cache_open();
    struct reader a = {0};
    write_begin(&c, "k");
    cr_assert(get(&c, &a, "k", 10) == L1_OWNER);
    write_end(&c, "k");
    fill(&c, &a, "old", 11);
    cr_expect(!holds(&c, "k", 11));
    cache_close(&c);
}

Test(write, reader_after_the_end_does_not_join_a_fetch_begun_before_it)
{
    struct cache c = cache_open();
    struct reader a = {0};
    struct reader b = {0};
    write_begin(&c, "k");
    cr_assert(get(&c, &a, "k", 10) == L1_OWNER);
    write_end(&c, "k");
    cr_assert(get(&c, &b, "k", 11) == L1_OWNER);
    fill(&c, &a, "old", 12);
    fill(&c, &b, "new", 13);
    cr_expect(was_told(&a, "new"));
    cr_expect(was_told(&b, "new"));
    cache_close(&c);
}

Test(write, key_is_blocked_until_the_last_of_several_ends)
{
    struct cache c = cache_open();
    write_begin(&c, "k");
    write_begin(&c, "k");
    write_end(&c, "k");
    cr_expect(!can_install(&c, "k", 10));
    write_end(&c, "k");
    cr_expect(can_install(&c, "k", 11));
    cache_close(&c);
}

Test(write, hash_may_occur_twice)
{
    struct cache c = cache_open();
    uint64_t twice[2] = {hash_of(&c, "k"), hash_of(&c, "k")};
    l1_write_begin(c.l1, twice, 2);
    cr_expect(stats_of(&c).writes == 2);
    write_begin(&c, "k");
    l1_write_end(c.l1, twice, 2);
    cr_expect(!can_install(&c, "k", 10));
    write_end(&c, "k");
    cr_expect(can_install(&c, "k", 11));
    cache_close(&c);
}

Test(write, other_keys_are_not_touched)
{
    struct cache c = cache_open();
    put(&c, "other", "v", 10);
    write_begin(&c, "k");
    cr_expect(holds(&c, "other", 11));
    cr_expect(can_install(&c, "third", 11));
    write_end(&c, "k");
    cache_close(&c);
}

Test(write, reaches_the_key_in_every_db)
{
    struct cache c = cache_open();
    struct reader a = {0};
    struct l1_query q = query_of(&c, &a, "k");
    q.db = 3;
    cr_assert(l1_get(c.l1, &q, 10) == L1_OWNER);
    a.lease = q.lease;
    write_begin(&c, "k");
    write_end(&c, "k");
    fill(&c, &a, "old", 11);
    cr_expect(stats_of(&c).items == 0);
    cache_close(&c);
}

/* The counts against one per key. Keys may share one: then a key waits for another's write, now and then. */
Test(write, every_key_is_blocked_while_its_writes_are_out)
{
    enum { KEYS = 300, STEPS = 20000 };
    struct cache c = cache_open();
    int count[KEYS] = {0};
    char key[16];
    uint32_t random = 12345;
    int shared = 0;
    for (int step = 0; step < STEPS; step++) {
        random = random * 1103515245U + 12345U;
        uint32_t k = (random >> 16) % KEYS;
        snprintf(key, sizeof(key), "%u", k);
        bool begin = count[k] == 0 || (random >> 8) % 3 == 0;
        if (begin) {
            write_begin(&c, key);
            count[k]++;
        } else {
            write_end(&c, key);
            count[k]--;
        }
        bool installed = can_install(&c, key, step);
        cr_assert(!installed || count[k] == 0, "key %u, step %d", k, step);
        shared += !installed && count[k] == 0;
        invalidate(&c, key);
    }
    cr_expect(shared < STEPS / 10, "%d", shared);
    for (uint32_t k = 0; k < KEYS; k++) {
        snprintf(key, sizeof(key), "%u", k);
        for (; count[k] > 0; count[k]--) {
            write_end(&c, key);
        }
    }
    cr_expect(stats_of(&c).writes == 0);
    for (uint32_t k = 0; k < KEYS; k++) {
        snprintf(key, sizeof(key), "%u", k);
        cr_assert(can_install(&c, key, STEPS));
    }
    cache_close(&c);
}

Test(write, key_that_shares_a_count_waits_for_the_other_write_and_no_longer)
{
    enum { KEYS = 1000000 };
    struct cache c = cache_open();
    char key[16] = "";
    bool waits = false;
    write_begin(&c, "written");
    for (int k = 0; k < KEYS && !waits; k++) {
        snprintf(key, sizeof(key), "%d", k);
        waits = !can_install(&c, key, 10);
        invalidate(&c, key);
    }
    cr_assert(waits);
    write_begin(&c, key);
    write_end(&c, key);
    cr_expect(!can_install(&c, key, 11));
    write_end(&c, "written");
    cr_expect(can_install(&c, key, 12));
    cache_close(&c);
}

Test(write, many_at_once_block_and_unblock)
{
    enum { KEYS = 3000, EACH = L1_WRITE_KEYS };
    struct cache c = cache_open();
    static uint64_t hashes[KEYS];
    char key[16];
    for (uint32_t k = 0; k < KEYS; k++) {
        snprintf(key, sizeof(key), "%u", k);
        hashes[k] = hash_of(&c, key);
    }
    for (size_t at = 0; at < KEYS; at += EACH) {
        l1_write_begin(c.l1, hashes + at, at + EACH < KEYS ? EACH : KEYS - at);
    }
    cr_expect(stats_of(&c).writes == KEYS);
    for (size_t k = 0; k < KEYS; k++) {
        l1_write_begin(c.l1, &hashes[k], 1);
        l1_write_end(c.l1, &hashes[k], 1);
        snprintf(key, sizeof(key), "%zu", k);
        cr_assert(!can_install(&c, key, 11));
        l1_write_end(c.l1, &hashes[k], 1);
    }
    cr_expect(stats_of(&c).writes == 0);
    cr_expect(can_install(&c, "0", 12));
    cr_expect(can_install(&c, "2999", 12));
    cache_close(&c);
}

Test(write, each_of_many_detaches_at_its_end)
{
    enum { KEYS = 1000 };
    struct cache c = cache_open();
    static uint64_t hashes[KEYS];
    char key[16];
    for (uint32_t k = 0; k < KEYS; k++) {
        snprintf(key, sizeof(key), "%u", k);
        hashes[k] = hash_of(&c, key);
    }
    l1_write_begin(c.l1, hashes, KEYS);
    struct reader a = {0};
    cr_assert(get(&c, &a, "999", 10) == L1_OWNER);
    l1_write_end(c.l1, hashes, KEYS);
    fill(&c, &a, "old", 11);
    cr_expect(!holds(&c, "999", 11));
    cache_close(&c);
}

/* A run is as many writes: each with what is said of its own key. */
Test(write, run_of_writes_tells_of_each_what_it_would_tell_alone)
{
    enum { KEYS = L1_WRITE_RUN };
    struct cache c = cache_open();
    uint64_t hashes[KEYS];
    uint64_t versions[KEYS];
    char key[16];
    for (uint32_t k = 0; k < KEYS; k++) {
        snprintf(key, sizeof(key), "%u", k);
        hashes[k] = hash_of(&c, key);
        put(&c, key, "v", 10);
        cr_assert(k % 3 != 0 || holds(&c, key, 11)); /* a hit */
        for (uint32_t i = 0; i < k; i++) {
            l1_observe_value(c.l1, hashes[k], 1, SLICE("another db's"));
        }
    }
    uint64_t hits = l1_write_begin_run(c.l1, c.reader, hashes, KEYS, versions);
    cr_expect(stats_of(&c).writes == KEYS);
    cr_expect(stats_of(&c).write_drops == KEYS);
    for (uint32_t k = 0; k < KEYS; k++) {
        snprintf(key, sizeof(key), "%u", k);
        cr_expect_eq(hits >> k & 1, k % 3 == 0, "%u", k);
        cr_expect_eq(versions[k], l1_version(c.l1, hashes[k]), "%u", k);
        cr_expect(!holds(&c, key, 12));
    }
    l1_write_end(c.l1, hashes, KEYS);
    cr_expect(stats_of(&c).writes == 0);
    for (uint32_t k = 0; k < KEYS; k++) {
        cr_expect_neq(versions[k], l1_version(c.l1, hashes[k]), "%u", k);
    }
    cache_close(&c);
}

/* ---- Wide ---------------------------------------------------------------------------------- */

Test(write, wide_one_keeps_everything_from_being_installed)
{
    struct cache c = cache_of((size_t)64 << 20, 1024);
    char key[16];
    l1_write_begin_wide(c.l1);
    cr_expect(stats_of(&c).writes == 1);
    for (int i = 0; i < 100; i++) {
        snprintf(key, sizeof(key), "%d", i);
        cr_assert(!can_install(&c, key, 10));
    }
    l1_write_end_wide(c.l1);
    cr_expect(stats_of(&c).writes == 0);
    for (int i = 0; i < 100; i++) {
        snprintf(key, sizeof(key), "%d", i);
        cr_assert(can_install(&c, key, 11));
    }
    cache_close(&c);
}

Test(write, wide_ones_may_overlap)
{
    struct cache c = cache_open();
    l1_write_begin_wide(c.l1);
    l1_write_begin_wide(c.l1);
    l1_write_end_wide(c.l1);
    cr_expect(!can_install(&c, "k", 10));
    l1_write_end_wide(c.l1);
    cr_expect(can_install(&c, "k", 11));
    cache_close(&c);
}

Test(write, wide_one_leaves_entries_to_the_caller)
{
    struct cache c = cache_open();
    put(&c, "kept", "v", 10);
    put(&c, "written", "v", 10);
    l1_write_begin_wide(c.l1);
    invalidate(&c, "written");
    cr_expect(holds(&c, "kept", 11));
    cr_expect(!holds(&c, "written", 11));
    l1_write_end_wide(c.l1);
    cr_expect(holds(&c, "kept", 12));
    cache_close(&c);
}

Test(write, fetch_begun_during_a_wide_one_is_not_installed_or_joined_after_it)
{
    struct cache c = cache_open();
    struct reader a = {0};
    struct reader b = {0};
    l1_write_begin_wide(c.l1);
    cr_assert(get(&c, &a, "k", 10) == L1_OWNER);
    l1_write_end_wide(c.l1);
    cr_assert(get(&c, &b, "k", 11) == L1_OWNER);
    fill(&c, &a, "old", 12);
    cr_expect(!holds(&c, "k", 12));
    fill(&c, &b, "new", 13);
    cr_expect(was_told(&a, "new"));
    struct reader d = {0};
    l1_write_begin_wide(c.l1);
    cr_assert(get(&c, &d, "other", 20) == L1_OWNER);
    l1_write_end_wide(c.l1);
    fill(&c, &d, "old", 21);
    cr_expect(!holds(&c, "other", 21));
    cache_close(&c);
}

/* ---- Invalidations ------------------------------------------------------------------------- */

static void put_in_db(struct cache *c, const char *key, uint32_t db, const char *text, int64_t now)
{
    struct reader r = {0};
    struct l1_query q = query_of(c, &r, key);
    q.db = db;
    cr_assert(l1_get(c->l1, &q, now) == L1_OWNER);
    r.lease = q.lease;
    fill(c, &r, text, now);
}

Test(write, invalidation_drops_the_key_in_every_db)
{
    struct cache c = cache_open();
    put_in_db(&c, "k", 0, "v", 10);
    put_in_db(&c, "k", 1, "v", 10);
    put_in_db(&c, "k", 70000, "v", 10);
    put_in_db(&c, "other", 0, "v", 10);
    cr_assert(stats_of(&c).items == 4);
    invalidate(&c, "k");
    cr_expect(stats_of(&c).items == 1);
    cr_expect(holds(&c, "other", 11));
    cache_close(&c);
}

Test(write, invalidations_that_find_nothing_are_not_counted)
{
    struct cache c = cache_open();
    invalidate(&c, "k");
    cr_expect(stats_of(&c).invalidations == 0);
    put(&c, "k", "v", 10);
    invalidate(&c, "k");
    invalidate(&c, "k");
    cr_expect(stats_of(&c).invalidations == 1);
    cache_close(&c);
}

/* ---- R7 ------------------------------------------------------------------------------------ */

static void observe(struct cache *c, const char *key, uint32_t db, struct slice encoded)
{
    l1_observe_value(c->l1, hash_of(c, key), db, encoded);
}

Test(write, value_read_elsewhere_drops_an_entry_that_differs)
{
    struct cache c = cache_open();
    put(&c, "k", "one", 10);
    observe(&c, "k", 0, SLICE("one"));
    cr_expect(holds(&c, "k", 11));
    observe(&c, "k", 0, SLICE("two"));
    cr_expect(!holds(&c, "k", 11));
    cr_expect(stats_of(&c).read_drops == 1);
    cache_close(&c);
}

Test(write, null_read_elsewhere_differs_from_a_value_and_equals_a_null)
{
    struct cache c = cache_open();
    struct reader r = {0};
    put(&c, "value", "", 10);
    cr_assert(get(&c, &r, "null", 10) == L1_OWNER);
    fill_null(&c, &r, TTL, 10);
    struct slice null = {0};
    observe(&c, "null", 0, null);
    cr_expect(holds(&c, "null", 11));
    observe(&c, "value", 0, null);
    cr_expect(!holds(&c, "value", 11));
    observe(&c, "null", 0, SLICE(""));
    cr_expect(!holds(&c, "null", 11));
    cache_close(&c);
}

Test(write, value_read_elsewhere_says_nothing_about_another_db)
{
    struct cache c = cache_open();
    put_in_db(&c, "k", 1, "one", 10);
    observe(&c, "k", 0, SLICE("two"));
    cr_expect(stats_of(&c).items == 1);
    observe(&c, "k", 1, SLICE("two"));
    cr_expect(stats_of(&c).items == 0);
    cache_close(&c);
}

Test(write, value_read_elsewhere_detaches_a_fetch)
{
    struct cache c = cache_open();
    struct reader a = {0};
    cr_assert(get(&c, &a, "k", 10) == L1_OWNER);
    observe(&c, "k", 1, SLICE("new"));
    cr_expect(stats_of(&c).detached == 0);
    observe(&c, "k", 0, SLICE("new"));
    fill(&c, &a, "old", 11);
    cr_expect(!holds(&c, "k", 11));
    cache_close(&c);
}

Test(write, other_read_elsewhere_drops_and_detaches_whatever_the_value)
{
    struct cache c = cache_open();
    struct reader a = {0};
    put(&c, "k", "v", 10);
    cr_assert(get(&c, &a, "fetched", 10) == L1_OWNER);
    l1_observe(c.l1, hash_of(&c, "k"));
    l1_observe(c.l1, hash_of(&c, "fetched"));
    fill(&c, &a, "old", 11);
    cr_expect(!holds(&c, "k", 11));
    cr_expect(!holds(&c, "fetched", 11));
    cr_expect(stats_of(&c).read_drops == 1);
    cache_close(&c);
}

/* R9: who has been told of a key since. */
Test(write, the_version_moves_with_all_that_may_be_known_of_a_key)
{
    struct cache c = cache_open();
    struct reader r = {0};
    uint64_t k = hash_of(&c, "k");
    uint64_t before = l1_version(c.l1, k);
#define MOVED()                                                                                    \
    cr_expect(l1_version(c.l1, k) != before, "line %d", __LINE__);                                 \
    before = l1_version(c.l1, k)

    write_begin(&c, "k");
    cr_expect_eq(l1_version(c.l1, k), before, "nobody knows more by that");
    write_end(&c, "k");
    MOVED();
    l1_invalidate(c.l1, k);
    MOVED();
    l1_invalidate_by(c.l1, k, 1);
    cr_expect_eq(l1_version(c.l1, k), before, "nobody is answered by that");
    l1_observe(c.l1, k);
    MOVED();
    l1_observe_value(c.l1, k, 0, SLICE("v"));
    MOVED();
    cr_assert(get(&c, &r, "k", 10) == L1_OWNER);
    cr_expect_eq(l1_version(c.l1, k), before);
    fill(&c, &r, "v", 11);
    MOVED();
    cr_expect(holds(&c, "k", 12));
    cr_expect_eq(l1_version(c.l1, k), before, "a hit says nothing new");
    l1_drop_all(c.l1);
    MOVED();
    l1_unknown_end(c.l1);
    MOVED();
    l1_write_begin_wide(c.l1);
    l1_write_end_wide(c.l1);
    MOVED();
#undef MOVED
    cache_close(&c);
}

Test(write, a_key_that_was_hit_may_be_fetched_again_at_once)
{
    struct cache c = cache_open();
    uint64_t k = hash_of(&c, "k");
    struct l1_query q = {.key = SLICE("k"), .hash = k};
    struct reader r = {0};

    put(&c, "k", "v", 10);
    cr_expect(!l1_write_begin(c.l1, &k, 1).was_hit, "nobody has read it");
    cr_expect_null(l1_lease_again(c.l1, &q, 11), "a write is unanswered");
    write_end(&c, "k");
    put(&c, "k", "v", 12);
    cr_expect_null(l1_lease_again(c.l1, &q, 12), "it is there");
    cr_expect(holds(&c, "k", 12));
    cr_expect(l1_write_begin(c.l1, &k, 1).was_hit);
    write_end(&c, "k");
    struct l1_lease *lease = l1_lease_again(c.l1, &q, 13);
    cr_assert_not_null(lease);
    cr_expect_null(l1_lease_again(c.l1, &q, 13), "it is under way");
    cr_expect(get(&c, &r, "k", 14) == L1_JOINED);
    struct l1_value value = {.encoded = SLICE("w"), .ttl_ms = TTL};
    l1_fill(c.l1, &lease, &value, 15);
    cr_expect(was_told(&r, "w"));
    cr_expect(holds(&c, "k", 16));

    /* Detached and without waiters, it says nothing, and costs the fetch that came after it nothing. */
    write_begin(&c, "k");
    write_end(&c, "k");
    lease = l1_lease_again(c.l1, &q, 17);
    write_begin(&c, "k");
    write_end(&c, "k");
    struct reader later = {0};
    cr_expect(get(&c, &later, "k", 18) == L1_OWNER);
    l1_fill(c.l1, &lease, &value, 19);
    fill(&c, &later, "x", 20);
    cr_expect(holds(&c, "k", 21));
    cache_close(&c);
}
