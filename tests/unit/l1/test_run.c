/* SPDX-License-Identifier: Apache-2.0
 *
 * test_run.c: leases taken in a run, for keys that are fetched one after the other; and values whose form is known.
 */
#include "cache.h"

#include <stdio.h>

#define MANY 200

static void name_keys(const struct cache *c, struct l1_key *keys, char (*names)[8], size_t n)
{
    for (size_t i = 0; i < n; i++) {
        snprintf(names[i], sizeof(names[i]), "k%zu", i);
        keys[i] = (struct l1_key){.key = slice_str(names[i]), .hash = hash_of(c, names[i])};
    }
}

static void fill_leases(struct cache *c, struct l1_lease **leases, size_t n, const char *text,
                        int64_t now)
{
    struct l1_value v = {.encoded = slice_str(text), .ttl_ms = TTL};
    for (size_t i = 0; i < n; i++) {
        l1_fill(c->l1, &leases[i], &v, now);
        cr_assert(leases[i] == NULL);
    }
}

Test(run, leases_end_at_the_first_key_that_is_here_or_is_fetched)
{
    struct cache c = cache_open();
    struct l1_key keys[6];
    char names[6][8];
    struct l1_lease *leases[6];
    const struct l1_query q = {0};
    struct reader r = {0};
    name_keys(&c, keys, names, 6);
    put(&c, "k2", "v", 10);
    cr_assert(get(&c, &r, "k5", 10) == L1_OWNER);
    cr_expect_eq(l1_lease_run(c.l1, &q, keys, 6, leases, 10), 2);
    cr_expect_eq(l1_lease_run(c.l1, &q, keys, 6, leases + 2, 10), 0, "k0 has one now");
    cr_expect_eq(l1_lease_run(c.l1, &q, keys + 3, 3, leases + 2, 10), 2);
    cr_expect_eq(stats_of(&c).leases, 5);
    cr_expect(slice_eq(l1_lease_key(leases[1]), SLICE("k1")));
    cr_expect(slice_eq(l1_lease_key(leases[3]), SLICE("k4")));
    fill_leases(&c, leases, 4, "v", 11);
    fill(&c, &r, "v", 11);
    for (size_t i = 0; i < 6; i++) {
        cr_expect(holds(&c, names[i], 12), "%zu", i);
    }
    cr_expect_eq(stats_of(&c).leases, 0);
    cache_close(&c);
}

/* As of any other lease: who asks meanwhile waits for it, and a change keeps its value out. */
Test(run, leases_are_like_others)
{
    struct cache c = cache_of((size_t)128 << 20, 1024); /* several shards */
    static struct l1_key keys[MANY];
    static char names[MANY][8];
    static struct l1_lease *leases[MANY];
    const struct l1_query q = {0};
    struct reader joined = {0};
    name_keys(&c, keys, names, MANY);
    cr_assert_eq(l1_lease_run(c.l1, &q, keys, MANY, leases, 10), MANY);
    for (size_t i = 0; i < MANY; i++) {
        l1_lease_await(leases[i]);
    }
    cr_assert(get(&c, &joined, "k7", 10) == L1_JOINED);
    invalidate(&c, "k3");
    l1_invalidate_by(c.l1, hash_of(&c, "k4"),
                     0); /* it is unanswered, and its cover says so (R3b) */
    l1_lease_answered(c.l1, leases[5]);
    l1_invalidate_by(c.l1, hash_of(&c, "k5"), 0);
    write_begin(&c, "k6");
    write_end(&c, "k6");
    fill_leases(&c, leases, MANY, "v", 11);
    cr_expect(was_told(&joined, "v"));
    for (size_t i = 0; i < MANY; i++) {
        cr_expect_eq(holds(&c, names[i], 12), i != 3 && i != 5 && i != 6, "%zu", i);
    }
    cache_close(&c);
}

Test(run, without_a_cover_there_are_no_leases)
{
    struct cache c = cache_open();
    struct l1_key keys[2];
    char names[2][8];
    struct l1_lease *leases[2];
    struct l1_query q = {.cover = L1_NO_COVER};
    name_keys(&c, keys, names, 2);
    cr_expect_eq(l1_lease_run(c.l1, &q, keys, 2, leases, 10), 0);
    q.cover = 0;
    cr_expect_eq(l1_lease_run(c.l1, &q, keys, 2, leases, UNTIL), 0, "it is late");
    l1_cover_down(c.l1, 0);
    cr_expect_eq(l1_lease_run(c.l1, &q, keys, 2, leases, 10), 0);
    cr_expect_eq(stats_of(&c).leases, 0);
    cache_close(&c);
}

/* Memory of leases is used again, for keys of other lengths as well. */
Test(run, leases_come_and_go)
{
    struct cache c = cache_open();
    static struct l1_key keys[MANY];
    static char names[MANY][8];
    static struct l1_lease *leases[MANY];
    static char name[128];
    const struct l1_query q = {0};
    name_keys(&c, keys, names, MANY);
    uint64_t bytes = 0;
    for (int round = 0; round < 20; round++) {
        struct reader r[3] = {0};
        cr_assert_eq(l1_lease_run(c.l1, &q, keys, MANY, leases, round), MANY);
        for (size_t i = 0; i < ARRAY_LEN(r); i++) {
            snprintf(name, sizeof(name), "%0*d", (int)(39 + i),
                     round); /* around what is kept for reuse */
            cr_assert(get(&c, &r[i], name, round) == L1_OWNER);
        }
        for (size_t i = 0; i < MANY; i++) {
            cr_assert(slice_eq(l1_lease_key(leases[i]), keys[i].key));
            l1_abandon(c.l1, &leases[i]);
        }
        for (size_t i = 0; i < ARRAY_LEN(r); i++) {
            l1_abandon(c.l1, &r[i].lease);
        }
        bytes = round == 0 ? stats_of(&c).bytes : bytes;
        cr_expect_eq(stats_of(&c).bytes, bytes);
    }
    cr_expect_eq(stats_of(&c).leases, 0);
    cache_close(&c);
}

/* What comes out is what was put in, byte for byte, whether its form is known or looked at. */
static void check_bulk(struct cache *c, const char *text, size_t n, bool known)
{
    struct reader r = {0};
    struct l1_query q = query_of(c, &r, "k");
    struct l1_value v = {.encoded = slice_of(text, n), .is_bulk = known, .ttl_ms = TTL};
    cr_assert(l1_get(c->l1, &q, 10) == L1_OWNER);
    l1_fill(c->l1, &q.lease, &v, 10);
    cr_assert(get(c, &r, "k", 11) == L1_HIT);
    const char *got = taken(c);
    cr_expect(memcmp(got, text, n) == 0 && strlen(got) == n, "%zu", n);
    l1_observe_value(c->l1, hash_of(c, "k"), 0, slice_of(text, n));
    cr_expect(holds(c, "k", 12), "the same value");
    invalidate(c, "k");
}

Test(run, bulks_of_any_length_come_out_as_they_went_in)
{
    static const size_t near[] = {0, 9, 10, 11, 99, 100, 101, 999, 1000, 1001, 9999, 10000, 15000};
    static char text[17000];
    static char value[16000];
    struct cache c = cache_of((size_t)8 << 20, 65536);
    for (size_t i = 0; i < ARRAY_LEN(near); i++) {
        memset(value, 'v', near[i]);
        value[near[i]] = '\0';
        int n = snprintf(text, sizeof(text), "$%zu\r\n%s\r\n", near[i], value);
        check_bulk(&c, text, (size_t)n, false);
        check_bulk(&c, text, (size_t)n, true);
    }
    cache_close(&c);
}

Test(run, what_is_no_plain_bulk_is_kept_as_it_is)
{
    static const char *const odd[] = {
        "$05\r\nhello\r\n",
        "$5\n\nhello\r\n",
        "$5\r\nhello\n\n",
        "$6\r\nhello\r\n",
        "$4\r\nhello\r\n",
        "+OK\r\n",
        "$5:\r\nhello\r\n",
        "$:\r\n0123456789\r\n",
        "$",
        "$0\r\n\r",
        "$00\r\n0123456789\r\n",
        "$1",
        "text",
    };
    struct cache c = cache_open();
    for (size_t i = 0; i < ARRAY_LEN(odd); i++) {
        check_bulk(&c, odd[i], strlen(odd[i]), false);
    }
    cache_close(&c);
}
