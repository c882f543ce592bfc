/* SPDX-License-Identifier: Apache-2.0
 *
 * test_get.c: lookups: hit, miss, join, pass; runs of keys and MGETs; R6b; what happens when memory
 * is out; and the options of l1_create.
 */
#include "cache.h"

#include <stdio.h>

/* ---- Life ---------------------------------------------------------------------------------- */

Test(get, options_that_contradict_each_other_are_refused)
{
    static const struct l1_options bad[] = {
        {.max_memory = 1 << 20, .max_item_size = (1 << 18) + 1, .covers = 1},
        {.max_memory = 1 << 20, .max_item_size = 0, .covers = 1},
        {.max_memory = SIZE_MAX, .max_item_size = SIZE_MAX / 8, .covers = 1},
        {.max_memory = 1 << 12, .max_item_size = 64, .covers = 1},
        {.max_memory = 0, .max_item_size = 1, .covers = 1},
        {.max_memory = 1 << 20, .max_item_size = 64, .covers = L1_NO_COVER},
        {.max_memory = 1 << 20, .max_item_size = 64, .covers = L1_NO_COVER - 1},
    };
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        char err[ERR_MAX] = "";
        cr_expect(l1_create(&bad[i], err) == NULL, "row %zu", i);
        cr_expect(err[0] != '\0', "row %zu", i);
    }
}

Test(get, a_quarter_of_the_memory_is_not_too_large_an_item)
{
    char err[ERR_MAX];
    for (size_t mb = 1; mb <= 512; mb *= 2) {
        struct l1_options o = {.max_memory = mb << 20, .max_item_size = mb << 18, .covers = 4};
        struct l1 *l1 = l1_create(&o, err);
        cr_expect(l1 != NULL, "%zu MiB: %s", mb, err);
        l1_destroy(l1);
    }
}

Test(get, memory_that_is_out_while_creating_is_an_error)
{
    struct l1_options o = {.max_memory = 1 << 20, .max_item_size = 64, .covers = 1};
    char err[ERR_MAX];
    long n = 0;
    struct l1 *l1 = NULL;
    for (; l1 == NULL && n < 100; n++) {
        err[0] = '\0';
        mem_fail_after(n);
        l1 = l1_create(&o, err);
        mem_fail_after(-1);
        cr_expect((l1 == NULL) == (err[0] != '\0'));
    }
    cr_expect(l1 != NULL && n > 1);
    l1_destroy(l1);
}

Test(get, destroying_nothing_is_fine)
{
    l1_destroy(NULL);
}

Test(get, hash_is_keyed_by_the_cache)
{
    struct cache a = cache_open();
    struct cache b = cache_open();
    cr_expect(hash_of(&a, "key") == hash_of(&a, "key"));
    cr_expect(hash_of(&a, "key") != hash_of(&a, "kez"));
    cr_expect(hash_of(&a, "key") != hash_of(&b, "key"));
    cache_close(&a);
    cache_close(&b);
}

/* ---- Hit, miss, join ----------------------------------------------------------------------- */

Test(get, first_reader_of_a_key_owns_the_fetch_and_the_rest_join)
{
    struct cache c = cache_open();
    struct reader r[4] = {0};
    int turn = 0;
    cr_assert(get(&c, &r[0], "k", 10) == L1_OWNER);
    cr_expect(r[0].lease != NULL);
    for (int i = 1; i < 4; i++) {
        cr_assert(get_under(&c, &r[i], "k", 1, 11) == L1_JOINED);
    }
    cr_expect(stats_of(&c).leases == 1);
    cr_expect(stats_of(&c).waiters == 4);
    cr_expect(c.out.bytes == 0);
    for (int i = 0; i < 4; i++) {
        cr_expect(r[i].wakes == 0, "woken from inside l1_get");
        r[i].turn = &turn;
    }
    fill(&c, &r[0], "v", 20);
    for (int i = 0; i < 4; i++) {
        cr_expect(was_told(&r[i], "v"));
        cr_expect(r[i].woken_at == i + 1);
    }
    cache_close(&c);
}

Test(get, hit_appends_the_value_behind_what_is_there)
{
    struct cache c = cache_open();
    struct reader r = {0};
    put(&c, "k", "$3\r\nfoo\r\n", 10);
    cr_assert(chain_append(&c.out, SLICE("before ")));
    cr_assert(get(&c, &r, "k", 11) == L1_HIT);
    cr_expect_str_eq(taken(&c), "before $3\r\nfoo\r\n");
    cr_expect(r.wakes == 0);
    cache_close(&c);
}

Test(get, large_value_is_appended_by_reference)
{
    struct cache c = cache_open();
    static char text[CHAIN_REF_MIN + 1];
    memset(text, 'x', CHAIN_REF_MIN);
    put(&c, "k", text, 10);
    struct reader r = {0};
    struct iovec first[4];
    struct iovec second[4];
    cr_assert(get(&c, &r, "k", 11) == L1_HIT);
    cr_assert(chain_iov(&c.out, first, 4) == 1);
    cr_expect(first[0].iov_len == CHAIN_REF_MIN);
    cr_assert(get(&c, &r, "k", 12) == L1_HIT);
    cr_assert(chain_iov(&c.out, second, 4) == 2);
    cr_expect(second[1].iov_base == first[0].iov_base);
    /* What was queued stays valid when the entry is gone. */
    invalidate(&c, "k");
    cr_expect(memcmp(second[1].iov_base, text, CHAIN_REF_MIN) == 0);
    cache_close(&c);
}

Test(get, null_is_a_hit_that_appends_nothing)
{
    struct cache c = cache_open();
    struct reader r = {0};
    cr_assert(get(&c, &r, "k", 10) == L1_OWNER);
    fill_null(&c, &r, TTL, 11);
    cr_assert(get(&c, &r, "k", 12) == L1_HIT_NULL);
    cr_expect(c.out.bytes == 0);
    cache_close(&c);
}

Test(get, entry_belongs_to_its_db)
{
    struct cache c = cache_open();
    struct reader r = {0};
    put(&c, "k", "v", 10);
    struct l1_query q = query_of(&c, &r, "k");
    q.db = 1;
    cr_expect(l1_get(c.l1, &q, 11) == L1_OWNER);
    l1_abandon(c.l1, &q.lease);
    cr_expect(holds(&c, "k", 12));
    cache_close(&c);
}

Test(get, expired_entry_is_deleted_on_sight)
{
    struct cache c = cache_open();
    struct reader r = {0};
    put(&c, "k", "v", 10);
    cr_assert(get(&c, &r, "k", 10 + TTL - 1) == L1_HIT);
    cr_expect(stats_of(&c).items == 1);
    cr_assert(get(&c, &r, "k", 10 + TTL) == L1_OWNER);
    cr_expect(stats_of(&c).items == 0);
    cr_expect(stats_of(&c).expirations == 1);
    l1_abandon(c.l1, &r.lease);
    /* A clock that is behind on another worker does not bring it back. */
    cr_expect(!holds(&c, "k", 11));
    cache_close(&c);
}

Test(get, keys_of_every_length_and_difference_are_told_apart)
{
    struct cache c = cache_of((size_t)8 << 20, 1024);
    char key[301];
    char text[16];
    memset(key, 'k', 300);
    for (size_t n = 0; n <= 300; n++) {
        key[n] = '\0';
        snprintf(text, sizeof(text), "%zu", n);
        put(&c, key, text, 10);
        key[n] = 'k';
    }
    for (size_t n = 0; n <= 300; n++) {
        key[n] = '\0';
        snprintf(text, sizeof(text), "%zu", n);
        cr_assert(holds_text(&c, key, text, 11));
        key[n] = 'k';
    }
    /* Same length and same hash, as a collision would have it, but not the same key. */
    for (size_t n = 1; n <= 40; n++) {
        memset(key, 'k', n);
        struct l1_key looked = {.key = slice_of(key, n), .hash = l1_hash(c.l1, slice_of(key, n))};
        struct l1_run run = {.keys = &looked, .n = 1, .out = &c.out};
        for (size_t i = 0; i < n; i++) {
            key[i] = 'x';
            cr_assert(l1_get_run(c.l1, &run, 11) == 0, "byte %zu of %zu", i, n);
            key[i] = 'k';
        }
    }
    cache_close(&c);
}

Test(get, key_that_no_item_may_have_passes)
{
    struct cache c = cache_of((size_t)1 << 20, 100);
    char key[102];
    memset(key, 'k', sizeof(key));
    struct reader r = {0};
    key[100] = '\0';
    cr_assert(get(&c, &r, key, 10) == L1_PASS);
    key[99] = '\0';
    cr_assert(get(&c, &r, key, 10) == L1_OWNER);
    l1_abandon(c.l1, &r.lease);
    cache_close(&c);
}

/* ---- R6b ----------------------------------------------------------------------------------- */

static enum l1_result get_with(struct cache *c, struct reader *r, const char *key,
                               const struct reader *with, int64_t now)
{
    struct l1_query q = query_of(c, r, key);
    q.behind = true;
    q.with = &with->waiter;
    return l1_get(c->l1, &q, now);
}

static enum l1_result get_woken_with(struct cache *c, struct reader *r, const char *key,
                                     const struct reader *with, int64_t now)
{
    struct l1_query q = query_of(c, r, key);
    q.behind = true;
    q.with = &with->waiter;
    q.woken = true;
    return l1_get(c->l1, &q, now);
}

Test(get, who_was_woken_joins_the_fetch_of_the_other_though_it_is_detached)
{
    struct cache c = cache_open();
    struct reader a = {0};
    struct reader b = {0};
    struct reader d = {0};
    cr_assert(get(&c, &a, "k", 10) == L1_OWNER);
    l1_invalidate(c.l1, l1_hash(c.l1, SLICE("k")));
    cr_expect(get_with(&c, &b, "k", &a, 11) == L1_PASS);
    cr_expect(get_woken_with(&c, &b, "other", &a, 11) == L1_PASS);
    cr_assert(get_woken_with(&c, &b, "k", &a, 11) == L1_JOINED);
    fill(&c, &a, "v", 12);
    cr_expect(was_told(&a, "v") && was_told(&b, "v"));
    cr_expect(get_woken_with(&c, &d, "k", &a, 13) == L1_PASS, "it waits for nothing any more");
    cache_close(&c);
}

Test(get, with_joins_the_fetch_that_the_other_waits_for)
{
    struct cache c = cache_open();
    struct reader a = {0};
    struct reader b = {0};
    cr_assert(get(&c, &a, "k", 10) == L1_OWNER);
    cr_assert(get_with(&c, &b, "k", &a, 11) == L1_JOINED);
    fill(&c, &a, "v", 12);
    cr_expect(was_told(&b, "v"));
    cache_close(&c);
}

Test(get, with_neither_hits_nor_opens_nor_joins_another_fetch)
{
    struct cache c = cache_open();
    struct reader a = {0};
    struct reader b = {0};
    struct reader d = {0};
    cr_assert(get(&c, &a, "k", 10) == L1_OWNER);
    invalidate(&c, "k");
    cr_assert(get_with(&c, &d, "k", &a, 11) == L1_PASS, "a waits on a detached fetch");
    cr_expect(stats_of(&c).leases == 1);
    cr_assert(get(&c, &b, "k", 12) == L1_OWNER);
    cr_assert(get_with(&c, &d, "k", &a, 13) == L1_PASS, "a waits on the old fetch, not on b's");
    fill(&c, &b, "new", 14);
    cr_assert(get_with(&c, &d, "k", &a, 15) == L1_PASS, "there is an entry");
    cr_expect(c.out.bytes == 0);
    cr_assert(get_with(&c, &d, "another", &a, 15) == L1_PASS);
    fill(&c, &a, "old", 16);
    cr_assert(get_with(&c, &d, "k", &a, 17) == L1_PASS, "a was woken");
    cr_expect(d.wakes == 0);
    cache_close(&c);
}

Test(get, with_does_not_join_a_fetch_whose_cover_was_lost)
{
    struct cache c = cache_open();
    struct reader a = {0};
    struct reader b = {0};
    cr_assert(get(&c, &a, "k", 10) == L1_OWNER);
    l1_cover_down(c.l1, 0);
    cr_assert(get_with(&c, &b, "k", &a, 11) == L1_PASS);
    fill(&c, &a, "v", 12);
    cache_close(&c);
}

/* ---- Runs and MGETs ------------------------------------------------------------------------ */

static void put_null(struct cache *c, const char *key, int64_t now)
{
    struct reader r = {0};
    cr_assert(get(c, &r, key, now) == L1_OWNER);
    fill_null(c, &r, TTL, now);
}

Test(get, run_answers_in_order_and_stops_at_the_first_it_does_not_know)
{
    static const char *const names[] = {"a", "null", "b", "missing", "a"};
    struct cache c = cache_open();
    struct l1_key keys[5];
    struct l1_run run = run_of(&c, keys, names, 5);
    put(&c, "a", "A", 10);
    put(&c, "b", "B", 10);
    put_null(&c, "null", 10);
    cr_expect(l1_get_run(c.l1, &run, 11) == 3);
    cr_expect(run.nulls == 1);
    cr_expect_str_eq(taken(&c), "A$-1\r\nB");
    run.n = 2;
    run.null = SLICE("_\r\n");
    cr_expect(l1_get_run(c.l1, &run, 11) == 2);
    cr_expect_str_eq(taken(&c), "A_\r\n");
    run.n = 0;
    cr_expect(l1_get_run(c.l1, &run, 11) == 0);
    cr_expect(stats_of(&c).leases == 0);
    cache_close(&c);
}

Test(get, run_ends_when_the_output_has_enough)
{
    static const char *const names[] = {"a", "b", "c", "d"};
    struct cache c = cache_open();
    struct l1_key keys[4];
    struct l1_run run = run_of(&c, keys, names, 4);
    for (size_t i = 0; i < 4; i++) {
        put(&c, names[i], "four", 10);
    }
    run.enough = 5;
    cr_expect(l1_get_run(c.l1, &run, 11) == 2);
    cr_expect(c.out.bytes == 8);
    cr_expect(l1_get_run(c.l1, &run, 11) == 1, "there is enough already, but one is answered");
    cr_expect(l1_get_all(c.l1, &run, 11), "all or nothing does not look at it");
    empty_out(&c);
    cache_close(&c);
}

Test(get, run_may_be_as_long_as_it_likes)
{
    enum { KEYS = 1000 };
    static char names[KEYS][8];
    static struct l1_key keys[KEYS];
    struct cache c = cache_open();
    for (size_t i = 0; i < KEYS; i++) {
        snprintf(names[i], sizeof(names[i]), "%zu", i);
        keys[i] = (struct l1_key){.key = slice_str(names[i]), .hash = hash_of(&c, names[i])};
        put(&c, names[i], "v", 10);
    }
    struct l1_run run = {.keys = keys, .n = KEYS, .reader = c.reader, .out = &c.out};
    run.enough = SIZE_MAX;
    for (size_t missing = 0; missing < KEYS; missing += 37) {
        invalidate(&c, names[missing]);
        cr_assert(l1_get_run(c.l1, &run, 11) == missing);
        cr_assert(c.out.bytes == missing);
        empty_out(&c);
        l1_reader_rest(c.reader);
        put(&c, names[missing], "v", 11);
    }
    cr_expect(l1_get_run(c.l1, &run, 11) == KEYS);
    empty_out(&c);
    cache_close(&c);
}

Test(get, run_deletes_what_it_finds_expired)
{
    struct cache c = cache_open();
    put(&c, "k", "v", 10);
    cr_expect(!holds(&c, "k", 10 + TTL));
    cr_expect(stats_of(&c).items == 0);
    cache_close(&c);
}

Test(get, all_answers_everything_or_nothing)
{
    static const char *const names[] = {"a", "null", "b", "missing"};
    struct cache c = cache_open();
    struct l1_key keys[4];
    struct l1_run run = run_of(&c, keys, names, 4);
    put(&c, "a", "A", 10);
    put(&c, "b", "B", 10);
    put_null(&c, "null", 10);
    cr_assert(chain_append(&c.out, SLICE("*3\r\n")));
    cr_expect(!l1_get_all(c.l1, &run, 11));
    cr_expect(c.out.bytes == 4);
    run.n = 3;
    cr_expect(l1_get_all(c.l1, &run, 11));
    cr_expect_str_eq(taken(&c), "*3\r\nA$-1\r\nB");
    cache_close(&c);
}

Test(get, all_may_name_a_key_twice)
{
    static const char *const names[] = {"a", "a"};
    struct cache c = cache_open();
    struct l1_key keys[2];
    struct l1_run run = run_of(&c, keys, names, 2);
    put(&c, "a", "A", 10);
    cr_expect(l1_get_all(c.l1, &run, 11));
    cr_expect_str_eq(taken(&c), "AA");
    cache_close(&c);
}

/* ---- Memory is out ------------------------------------------------------------------------- */

Test(get, hit_that_cannot_be_appended_passes)
{
    struct cache c = cache_open();
    struct reader r = {0};
    put(&c, "k", "v", 10);
    struct l1_query q = query_of(&c, &r, "k");
    static const char *const name = "k";
    struct l1_key key;
    struct l1_run run = run_of(&c, &key, &name, 1);
    mem_fail_after(0);
    enum l1_result result = l1_get(c.l1, &q, 11);
    size_t answered = l1_get_run(c.l1, &run, 11);
    bool all = l1_get_all(c.l1, &run, 11);
    mem_fail_after(-1);
    cr_expect(result == L1_PASS);
    cr_expect(answered == 0);
    cr_expect(!all);
    cr_expect(c.out.bytes == 0);
    cr_expect(holds(&c, "k", 12));
    cache_close(&c);
}

Test(get, miss_without_memory_for_a_lease_passes)
{
    struct cache c = cache_open();
    struct reader r = {0};
    struct l1_query q = query_of(&c, &r, "k");
    mem_fail_after(0);
    enum l1_result result = l1_get(c.l1, &q, 10);
    struct l1_lease *lease = l1_lease_try(c.l1, &q, 10);
    mem_fail_after(-1);
    cr_expect(result == L1_PASS);
    cr_expect(lease == NULL);
    cr_expect(stats_of(&c).waiters == 0);
    cache_close(&c);
}

Test(get, waiter_that_never_waited_cannot_be_forgotten)
{
    struct cache c = cache_open();
    struct reader r = {0};
    cr_expect(!l1_forget(c.l1, &r.waiter));
    cache_close(&c);
}
