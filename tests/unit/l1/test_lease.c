/* SPDX-License-Identifier: Apache-2.0
 *
 * test_lease.c: what a fetch may install and whom it may tell: rules R2, R3, R5, R5b and the ABA of
 * two fetches of one key, each as the shortest schedule that goes wrong without the rule.
 */
#include "cache.h"

#include <stdio.h>

/* ---- R2, R3, ABA --------------------------------------------------------------------------- */

Test(lease, fill_of_an_open_lease_is_installed)
{
    struct cache c = cache_open();
    struct reader a = {0};
    cr_assert(get(&c, &a, "k", 10) == L1_OWNER);
    fill(&c, &a, "v1", 20);
    cr_expect(was_told(&a, "v1"));
    cr_expect(holds_text(&c, "k", "v1", 30));
    cr_expect(stats_of(&c).fills == 1);
    cache_close(&c);
}

Test(lease, its_key_can_be_read_from_it)
{
    struct cache c = cache_open();
    struct reader a = {0};
    cr_assert(get(&c, &a, "some key", 10) == L1_OWNER);
    cr_expect(slice_eq(l1_lease_key(a.lease), SLICE("some key")));
    l1_abandon(c.l1, &a.lease);
    cache_close(&c);
}

Test(lease, fill_after_an_invalidation_is_told_but_not_installed)
{
    struct cache c = cache_open();
    struct reader a = {0};
    cr_assert(get(&c, &a, "k", 10) == L1_OWNER);
    invalidate(&c, "k");
    fill(&c, &a, "old", 20);
    cr_expect(was_told(&a, "old"));
    cr_expect(!holds(&c, "k", 20));
    cr_expect(stats_of(&c).refusals == 1);
    cr_expect(stats_of(&c).detached == 1);
    cr_expect(stats_of(&c).invalidations == 1);
    cache_close(&c);
}

Test(lease, reader_after_an_invalidation_does_not_join_the_old_fetch)
{
    struct cache c = cache_open();
    struct reader a = {0};
    struct reader b = {0};
    cr_assert(get(&c, &a, "k", 10) == L1_OWNER);
    invalidate(&c, "k");
    cr_assert(get(&c, &b, "k", 11) == L1_OWNER);
    fill(&c, &b, "new", 20);
    fill(&c, &a, "old", 21);
    cache_close(&c);
}

Test(lease, late_reply_of_a_detached_fetch_is_not_taken_for_the_open_one)
{
    struct cache c = cache_open();
    struct reader a = {0};
    struct reader b = {0};
    struct reader d = {0};
    cr_assert(get(&c, &a, "k", 10) == L1_OWNER);
    invalidate(&c, "k");
    cr_assert(get(&c, &b, "k", 11) == L1_OWNER);
    cr_assert(l1_forget(c.l1, &a.waiter));
    fill(&c, &a, "old", 20);
    cr_expect(!holds(&c, "k", 20));
    cr_assert(get(&c, &d, "k", 21) == L1_JOINED);
    fill(&c, &b, "new", 22);
    cr_expect(was_told(&b, "new"));
    cr_expect(was_told(&d, "new"));
    cr_expect(holds_text(&c, "k", "new", 23));
    cache_close(&c);
}

Test(lease, is_gone_from_the_table_when_it_ended)
{
    struct cache c = cache_open();
    struct reader a = {0};
    cr_assert(get(&c, &a, "k", 10) == L1_OWNER);
    l1_abandon(c.l1, &a.lease);
    cr_expect(a.lease == NULL);
    cr_expect(a.wakes == 1 && a.how == L1_WAKE_RETRY);
    struct reader b = {0};
    cr_assert(get(&c, &b, "k", 11) == L1_OWNER);
    fill(&c, &b, "v", 12);
    cr_expect(holds(&c, "k", 13));
    cache_close(&c);
}

Test(lease, abandoning_tells_every_waiter_to_look_again)
{
    struct cache c = cache_open();
    struct reader a = {0};
    struct reader b = {0};
    cr_assert(get(&c, &a, "k", 10) == L1_OWNER);
    cr_assert(get(&c, &b, "k", 11) == L1_JOINED);
    l1_abandon(c.l1, &a.lease);
    cr_expect(a.wakes == 1 && a.how == L1_WAKE_RETRY);
    cr_expect(b.wakes == 1 && b.how == L1_WAKE_RETRY);
    cr_expect(!holds(&c, "k", 12));
    cache_close(&c);
}

/* ---- What is told and what is kept --------------------------------------------------------- */

Test(lease, error_is_told_but_not_installed)
{
    struct cache c = cache_open();
    struct reader a = {0};
    cr_assert(get(&c, &a, "k", 10) == L1_OWNER);
    struct l1_value v = {.encoded = SLICE("-WRONGTYPE no\r\n"), .ttl_ms = 0};
    l1_fill(c.l1, &a.lease, &v, 20);
    cr_expect(was_told(&a, "-WRONGTYPE no\r\n"));
    cr_expect(!holds(&c, "k", 20));
    cr_expect(stats_of(&c).refusals == 1);
    cache_close(&c);
}

Test(lease, null_wakes_as_null_whether_it_is_kept_or_not)
{
    struct cache c = cache_open();
    struct reader a = {0};
    struct reader b = {0};
    cr_assert(get(&c, &a, "kept", 10) == L1_OWNER);
    fill_null(&c, &a, TTL, 20);
    cr_expect(a.wakes == 1 && a.how == L1_WAKE_NULL);
    cr_expect(holds_text(&c, "kept", "$-1\r\n", 20));
    cr_assert(get(&c, &b, "told", 10) == L1_OWNER);
    fill_null(&c, &b, 0, 20);
    cr_expect(b.wakes == 1 && b.how == L1_WAKE_NULL);
    cr_expect(!holds(&c, "told", 20));
    cache_close(&c);
}

Test(lease, ttl_counts_from_when_the_lease_was_taken)
{
    struct cache c = cache_open();
    struct reader a = {0};
    cr_assert(get(&c, &a, "k", 100) == L1_OWNER);
    struct l1_value v = {.encoded = SLICE("v"), .ttl_ms = 50};
    l1_fill(c.l1, &a.lease, &v, 140);
    cr_expect(holds(&c, "k", 149));
    cr_expect(!holds(&c, "k", 150));
    cache_close(&c);
}

Test(lease, value_whose_ttl_passed_on_the_way_is_not_installed)
{
    struct cache c = cache_open();
    struct reader a = {0};
    cr_assert(get(&c, &a, "k", 100) == L1_OWNER);
    struct l1_value v = {.encoded = SLICE("v"), .ttl_ms = 50};
    l1_fill(c.l1, &a.lease, &v, 150);
    cr_expect(was_told(&a, "v"));
    cr_expect(stats_of(&c).items == 0);
    cache_close(&c);
}

Test(lease, endless_ttl_does_not_overflow)
{
    struct cache c = cache_open();
    struct reader a = {0};
    cr_assert(get(&c, &a, "k", 100) == L1_OWNER);
    struct l1_value v = {.encoded = SLICE("v"), .ttl_ms = INT64_MAX};
    l1_fill(c.l1, &a.lease, &v, 150);
    cr_expect(holds(&c, "k", UNTIL - 1));
    cache_close(&c);
}

Test(lease, value_too_large_is_told_but_not_installed)
{
    struct cache c = cache_of((size_t)1 << 20, 100);
    char text[102];
    memset(text, 'x', sizeof(text));
    text[101] = '\0';
    struct reader a = {0};
    cr_assert(get(&c, &a, "k", 10) == L1_OWNER);
    fill(&c, &a, text + 1, 20); /* 1 + 100 bytes */
    cr_expect(a.wakes == 1 && a.how == L1_WAKE_REPLY);
    cr_expect(!holds(&c, "k", 20));
    cr_assert(get(&c, &a, "k", 10) == L1_OWNER);
    fill(&c, &a, text + 2, 20); /* 1 + 99 */
    cr_expect(holds(&c, "k", 20));
    cache_close(&c);
}

Test(lease, null_is_kept_whatever_the_server_sent_for_it)
{
    struct cache c = cache_open();
    struct reader a = {0};
    cr_assert(get(&c, &a, "k", 10) == L1_OWNER);
    struct l1_value v = {.encoded = SLICE("_\r\n"), .is_null = true, .ttl_ms = TTL};
    l1_fill(c.l1, &a.lease, &v, 20);
    struct reader b = {0};
    cr_assert(get(&c, &b, "k", 30) == L1_HIT_NULL);
    cr_expect(c.out.bytes == 0);
    cache_close(&c);
}

/* ---- R5b ----------------------------------------------------------------------------------- */

Test(lease, detached_fetch_tells_its_waiters_the_entry_of_a_newer_one)
{
    struct cache c = cache_open();
    struct reader a = {0};
    cr_assert(get(&c, &a, "k", 10) == L1_OWNER);
    invalidate(&c, "k");
    put(&c, "k", "new", 11);
    fill(&c, &a, "old", 20);
    cr_expect(was_told(&a, "new"));
    cr_expect(holds_text(&c, "k", "new", 21));
    cache_close(&c);
}

Test(lease, detached_fetch_tells_its_waiters_the_null_of_a_newer_one)
{
    struct cache c = cache_open();
    struct reader a = {0};
    struct reader b = {0};
    cr_assert(get(&c, &a, "k", 10) == L1_OWNER);
    invalidate(&c, "k");
    cr_assert(get(&c, &b, "k", 11) == L1_OWNER);
    fill_null(&c, &b, TTL, 12);
    fill(&c, &a, "old", 20);
    cr_expect(a.wakes == 1 && a.how == L1_WAKE_NULL);
    cache_close(&c);
}

Test(lease, detached_fetch_shares_a_large_entry_by_reference)
{
    struct cache c = cache_open();
    static char text[CHAIN_REF_MIN + 2];
    memset(text, 'n', sizeof(text) - 1);
    struct reader a = {0};
    struct reader b = {0};
    cr_assert(get(&c, &a, "k", 10) == L1_OWNER);
    cr_assert(get(&c, &b, "k", 10) == L1_JOINED);
    invalidate(&c, "k");
    put(&c, "k", text, 11);
    fill(&c, &a, "old", 20);
    cr_expect(a.wakes == 1 && a.how == L1_WAKE_REPLY && a.text[0] == 'n');
    cr_expect(b.wakes == 1 && b.how == L1_WAKE_REPLY && b.text[0] == 'n');
    cache_close(&c);
}

Test(lease, detached_fetch_says_retry_when_memory_for_the_newer_value_is_out)
{
    struct cache c = cache_open();
    struct reader a = {0};
    cr_assert(get(&c, &a, "k", 10) == L1_OWNER);
    invalidate(&c, "k");
    put(&c, "k", "new", 11);
    struct l1_value v = {.encoded = SLICE("old"), .ttl_ms = 0};
    mem_fail_after(0);
    l1_fill(c.l1, &a.lease, &v, 20);
    mem_fail_after(-1);
    cr_expect(a.wakes == 1 && a.how == L1_WAKE_RETRY);
    cache_close(&c);
}

Test(lease, detached_fetch_leaves_its_waiters_to_a_newer_one_in_flight)
{
    struct cache c = cache_open();
    struct reader a = {0};
    struct reader b = {0};
    cr_assert(get(&c, &a, "k", 10) == L1_OWNER);
    invalidate(&c, "k");
    cr_assert(get(&c, &b, "k", 11) == L1_OWNER);
    fill(&c, &a, "old", 20);
    cr_expect(a.wakes == 0);
    fill(&c, &b, "new", 21);
    cr_expect(was_told(&a, "new"));
    cr_expect(was_told(&b, "new"));
    cr_expect(holds_text(&c, "k", "new", 22));
    cache_close(&c);
}

Test(lease, waiter_is_moved_once_and_then_told_after_r7)
{
    struct cache c = cache_open();
    struct reader a = {0};
    struct reader b = {0};
    struct reader d = {0};
    struct reader e = {0};
    cr_assert(get(&c, &a, "k", 10) == L1_OWNER);
    invalidate(&c, "k");
    cr_assert(get(&c, &b, "k", 11) == L1_OWNER);
    fill(&c, &a, "1", 12);
    invalidate(&c, "k");
    cr_assert(get(&c, &d, "k", 13) == L1_OWNER);
    fill(&c, &b, "2", 14);
    cr_expect(was_told(&a, "2"));
    cr_expect(was_told(&b, "2"));
    /* The third fetch may have run before the second: it must not be joined or installed now. */
    cr_assert(get(&c, &e, "k", 15) == L1_OWNER);
    fill(&c, &d, "3", 16);
    cr_expect(!holds(&c, "k", 16));
    fill(&c, &e, "4", 17);
    cr_expect(was_told(&d, "4"));
    cache_close(&c);
}

Test(lease, one_that_no_one_waits_for_does_not_spend_the_move)
{
    struct cache c = cache_open();
    struct reader a = {0};
    struct reader b = {0};
    struct reader d = {0};
    cr_assert(get(&c, &a, "k", 10) == L1_OWNER);
    invalidate(&c, "k");
    cr_assert(get(&c, &b, "k", 11) == L1_OWNER);
    cr_assert(l1_forget(c.l1, &a.waiter));
    fill(&c, &a, "1", 12); /* nobody moves: b's fetch carries nothing */
    invalidate(&c, "k");
    cr_assert(get(&c, &d, "k", 13) == L1_OWNER);
    fill(&c, &b, "2", 14);
    cr_expect(b.wakes == 0);
    fill(&c, &d, "3", 15);
    cr_expect(was_told(&b, "3"));
    cr_expect(holds_text(&c, "k", "3", 16));
    cache_close(&c);
}

Test(lease, detached_fetch_for_another_db_is_left_alone)
{
    struct cache c = cache_open();
    struct reader a = {0};
    struct reader b = {0};
    cr_assert(get(&c, &a, "k", 10) == L1_OWNER);
    invalidate(&c, "k");
    struct l1_query q = query_of(&c, &b, "k");
    q.db = 7;
    cr_assert(l1_get(c.l1, &q, 11) == L1_OWNER);
    b.lease = q.lease;
    fill(&c, &a, "db 0", 20);
    cr_expect(was_told(&a, "db 0"));
    fill(&c, &b, "db 7", 21);
    cr_expect(was_told(&b, "db 7"));
    cr_expect(stats_of(&c).items == 1);
    cache_close(&c);
}

/* ---- Waiters ------------------------------------------------------------------------------- */

Test(lease, forgotten_waiter_is_not_woken_and_the_others_are)
{
    struct cache c = cache_open();
    struct reader r[4] = {0};
    cr_assert(get(&c, &r[0], "k", 10) == L1_OWNER);
    for (int i = 1; i < 4; i++) {
        cr_assert(get(&c, &r[i], "k", 11) == L1_JOINED);
    }
    cr_expect(stats_of(&c).waiters == 4);
    cr_expect(l1_forget(c.l1, &r[2].waiter));
    cr_expect(l1_forget(c.l1, &r[0].waiter));
    cr_expect(l1_forget(c.l1, &r[3].waiter));
    cr_expect(stats_of(&c).waiters == 1);
    fill(&c, &r[0], "v", 12);
    cr_expect(r[0].wakes == 0 && r[2].wakes == 0 && r[3].wakes == 0);
    cr_expect(was_told(&r[1], "v"));
    cr_expect(!l1_forget(c.l1, &r[1].waiter));
    cache_close(&c);
}

Test(lease, moved_waiter_can_be_forgotten)
{
    struct cache c = cache_open();
    struct reader a = {0};
    struct reader b = {0};
    cr_assert(get(&c, &a, "k", 10) == L1_OWNER);
    invalidate(&c, "k");
    cr_assert(get(&c, &b, "k", 11) == L1_OWNER);
    fill(&c, &a, "old", 20);
    cr_expect(l1_forget(c.l1, &a.waiter));
    fill(&c, &b, "new", 21);
    cr_expect(a.wakes == 0);
    cache_close(&c);
}

/* ---- The join limit (R5) -------------------------------------------------------------------- */

Test(lease, who_outwaits_a_fetch_looks_again_and_fetches_by_himself)
{
    struct cache c = cache_open();
    struct reader a = {0};
    struct reader b = {0};
    struct reader d = {0};
    struct reader late = {0};
    cr_assert(get(&c, &a, "k", 10) == L1_OWNER);
    cr_assert(get(&c, &b, "k", 11) == L1_JOINED);
    cr_assert(get(&c, &d, "k", 11) == L1_JOINED);
    cr_expect(l1_outwait(c.l1, &b.waiter, 0));
    cr_expect(b.wakes == 1 && b.how == L1_WAKE_RETRY);
    cr_expect(a.wakes == 0 && d.wakes == 0);
    cr_assert(get(&c, &late, "k", 300) == L1_OWNER);
    fill(&c, &a, "old", 310);
    cr_expect(!holds(&c, "k", 311));
    cr_expect(d.wakes == 0); /* waits on with the newer fetch (R5b) */
    fill(&c, &late, "new", 320);
    cr_expect(was_told(&late, "new") && was_told(&a, "new") && was_told(&d, "new"));
    cr_expect(holds_text(&c, "k", "new", 321));
    cr_expect(b.wakes == 1);
    cache_close(&c);
}

Test(lease, who_gives_a_fetch_up_leaves_it_to_nobody_who_comes_later)
{
    struct cache c = cache_open();
    struct reader a = {0};
    struct reader b = {0};
    struct reader late = {0};
    cr_assert(get(&c, &a, "k", 10) == L1_OWNER);
    cr_assert(get(&c, &b, "k", 11) == L1_JOINED);
    cr_expect(l1_give_up(c.l1, &b.waiter));
    cr_expect(!l1_give_up(c.l1, &b.waiter), "it waits no longer");
    cr_assert(get(&c, &late, "k", 300) == L1_OWNER);
    fill(&c, &a, "old", 310);
    cr_expect(!holds(&c, "k", 311));
    fill(&c, &late, "new", 320);
    cr_expect(was_told(&late, "new") && was_told(&a, "new"));
    cr_expect(b.wakes == 0);
    cache_close(&c);
}

Test(lease, fetch_of_somebody_else_is_not_outwaited)
{
    struct cache c = cache_open();
    struct reader a = {0};
    struct reader b = {0};
    cr_assert(get(&c, &a, "k", 10) == L1_OWNER);
    cr_assert(get(&c, &b, "k", 11) == L1_JOINED);
    cr_expect(!l1_outwait(c.l1, &b.waiter, 1));
    fill(&c, &a, "v", 20);
    cr_expect(was_told(&b, "v") && b.wakes == 1);
    cr_expect(!l1_outwait(c.l1, &b.waiter, 0), "it was woken already");
    cr_expect(holds_text(&c, "k", "v", 30));
    cache_close(&c);
}

struct pair {
    struct reader first;
    struct reader second;
    struct cache *cache;
    bool forgotten;
};

static void forget_second(struct l1_waiter *w, enum l1_wake how, struct l1_reply *reply)
{
    reader_woken(w, how, reply);
    struct pair *p = container_of(w, struct pair, first.waiter);
    p->forgotten = l1_forget(p->cache->l1, &p->second.waiter);
}

Test(lease, waiter_about_to_be_woken_cannot_be_forgotten)
{
    struct cache c = cache_open();
    struct pair p = {.cache = &c, .forgotten = true};
    cr_assert(get(&c, &p.first, "k", 10) == L1_OWNER);
    cr_assert(get(&c, &p.second, "k", 10) == L1_JOINED);
    p.first.waiter.wake = forget_second;
    fill(&c, &p.first, "v", 20);
    cr_expect(!p.forgotten);
    cr_expect(was_told(&p.second, "v"));
    cache_close(&c);
}

static void read_again(struct l1_waiter *w, enum l1_wake how, struct l1_reply *reply)
{
    reader_woken(w, how, reply);
    struct pair *p = container_of(w, struct pair, first.waiter);
    cr_assert(get(p->cache, &p->first, "k", 30) == L1_OWNER);
}

Test(lease, waiter_may_be_parked_anew_from_its_own_wake)
{
    struct cache c = cache_open();
    struct pair p = {.cache = &c};
    cr_assert(get(&c, &p.first, "k", 10) == L1_OWNER);
    cr_assert(get(&c, &p.second, "k", 10) == L1_JOINED);
    p.first.waiter.wake = read_again;
    struct l1_lease *lease = p.first.lease;
    l1_abandon(c.l1, &lease);
    cr_expect(p.first.wakes == 1 && p.second.wakes == 1);
    fill(&c, &p.first, "v", 31);
    cr_expect(p.first.wakes == 2 && p.first.how == L1_WAKE_REPLY);
    cache_close(&c);
}

static void keep_blob(struct l1_waiter *w, enum l1_wake how, struct l1_reply *reply)
{
    reader_woken(w, how, reply);
    container_of(w, struct reader, waiter)->blob = l1_reply_blob(reply);
}

Test(lease, blob_of_a_reply_is_copied_once_and_outlives_the_call)
{
    struct cache c = cache_open();
    struct reader a = {0};
    struct reader b = {0};
    cr_assert(get(&c, &a, "k", 10) == L1_OWNER);
    cr_assert(get(&c, &b, "k", 10) == L1_JOINED);
    a.waiter.wake = keep_blob;
    b.waiter.wake = keep_blob;
    fill(&c, &a, "value", 20);
    cr_assert(a.blob != NULL);
    cr_expect(a.blob == b.blob);
    invalidate(&c, "k");
    cr_expect(slice_eq(slice_of(a.blob->p, a.blob->n), SLICE("value")));
    blob_unref(a.blob);
    blob_unref(b.blob);
    cache_close(&c);
}

Test(lease, blob_of_a_large_reply_is_the_one_in_the_cache)
{
    struct cache c = cache_open();
    static char text[CHAIN_REF_MIN + 2];
    memset(text, 'n', sizeof(text) - 1);
    struct reader a = {0};
    struct iovec iov;
    cr_assert(get(&c, &a, "k", 10) == L1_OWNER);
    a.waiter.wake = keep_blob;
    fill(&c, &a, text, 20);
    cr_assert(get(&c, &a, "k", 21) == L1_HIT);
    cr_assert(chain_iov(&c.out, &iov, 1) == 1);
    cr_expect(iov.iov_base == a.blob->p);
    blob_unref(a.blob);
    cache_close(&c);
}

Test(lease, blob_of_a_reply_is_null_when_memory_is_out)
{
    struct cache c = cache_open();
    struct reader a = {0};
    cr_assert(get(&c, &a, "k", 10) == L1_OWNER);
    a.waiter.wake = keep_blob;
    struct l1_value v = {.encoded = SLICE("value"), .ttl_ms = TTL};
    mem_fail_after(0);
    l1_fill(c.l1, &a.lease, &v, 20);
    mem_fail_after(-1);
    cr_expect(was_told(&a, "value"));
    cr_expect(a.blob == NULL);
    cr_expect(holds_text(&c, "k", "value", 20), "entries have memory of their own");
    cache_close(&c);
}

/* ---- l1_lease_try -------------------------------------------------------------------------- */

static struct l1_lease *lease_of(struct cache *c, const char *key, uint16_t cover, int64_t now)
{
    struct l1_query q = {.key = slice_str(key), .hash = hash_of(c, key), .cover = cover};
    return l1_lease_try(c->l1, &q, now);
}

Test(lease, try_gives_one_only_for_a_key_with_neither_entry_nor_lease)
{
    struct cache c = cache_open();
    put(&c, "entry", "v", 10);
    cr_expect(lease_of(&c, "entry", 0, 11) == NULL);
    struct l1_lease *first = lease_of(&c, "k", 0, 11);
    cr_assert(first != NULL);
    cr_expect(lease_of(&c, "k", 0, 12) == NULL);
    cr_expect(lease_of(&c, "other", 2, 12) == NULL);
    cr_expect(lease_of(&c, "other", L1_NO_COVER, 12) == NULL);
    l1_abandon(c.l1, &first);
    cache_close(&c);
}

Test(lease, one_without_a_waiter_can_be_joined_and_filled)
{
    struct cache c = cache_open();
    struct reader b = {0};
    struct reader a = {.lease = lease_of(&c, "k", 0, 11)};
    cr_assert(a.lease != NULL);
    cr_assert(get(&c, &b, "k", 12) == L1_JOINED);
    fill(&c, &a, "v", 13);
    cr_expect(was_told(&b, "v"));
    cr_expect(holds_text(&c, "k", "v", 14));
    cache_close(&c);
}

Test(lease, detached_one_without_a_waiter_drops_an_entry_that_differs)
{
    struct cache c = cache_open();
    struct reader a = {.lease = lease_of(&c, "k", 0, 11)};
    cr_assert(a.lease != NULL);
    invalidate(&c, "k");
    put(&c, "k", "other", 12);
    fill(&c, &a, "mine", 13); /* its owner answers with it */
    cr_expect(!holds(&c, "k", 14));
    cr_expect(stats_of(&c).read_drops == 1);
    cache_close(&c);
}

Test(lease, detached_one_without_a_waiter_keeps_an_entry_that_is_equal)
{
    struct cache c = cache_open();
    struct reader a = {.lease = lease_of(&c, "k", 0, 11)};
    cr_assert(a.lease != NULL);
    invalidate(&c, "k");
    put(&c, "k", "same", 12);
    fill(&c, &a, "same", 13);
    cr_expect(holds(&c, "k", 14));
    cache_close(&c);
}

Test(lease, detached_one_without_a_waiter_detaches_a_newer_one)
{
    struct cache c = cache_open();
    struct reader a = {.lease = lease_of(&c, "k", 0, 11)};
    struct reader b = {0};
    cr_assert(a.lease != NULL);
    invalidate(&c, "k");
    cr_assert(get(&c, &b, "k", 12) == L1_OWNER);
    fill(&c, &a, "mine", 13);
    fill(&c, &b, "b's", 14);
    cr_expect(!holds(&c, "k", 15));
    cr_expect(was_told(&b, "b's"));
    cache_close(&c);
}

/* ---- Bounds -------------------------------------------------------------------------------- */

Test(lease, leases_are_bounded_and_the_rest_passes)
{
    struct cache c = cache_of((size_t)256 << 10, 1024);
    static struct reader r[4000];
    size_t n = 0;
    char key[16];
    enum l1_result result = L1_OWNER;
    for (; n < ARRAY_LEN(r) && result == L1_OWNER; n++) {
        snprintf(key, sizeof(key), "%zu", n);
        result = get(&c, &r[n], key, 10);
    }
    cr_expect(result == L1_PASS);
    cr_expect(n > 100);
    cr_expect(stats_of(&c).bytes <= (size_t)256 << 10);
    /* An end makes room for one more. */
    l1_abandon(c.l1, &r[0].lease);
    cr_assert(get(&c, &r[0], "one more", 11) == L1_OWNER);
    for (size_t i = 0; i < n - 1; i++) {
        l1_abandon(c.l1, &r[i].lease);
    }
    cache_close(&c);
}

Test(lease, many_open_leases_are_told_apart)
{
    struct cache c = cache_of((size_t)8 << 20, 1024);
    static struct reader r[5000];
    char key[16];
    for (size_t i = 0; i < ARRAY_LEN(r); i++) {
        snprintf(key, sizeof(key), "%zu", i);
        cr_assert(get(&c, &r[i], key, 10) == L1_OWNER);
    }
    for (size_t i = 0; i < ARRAY_LEN(r); i += 2) {
        snprintf(key, sizeof(key), "%zu", i);
        invalidate(&c, key);
    }
    for (size_t i = 0; i < ARRAY_LEN(r); i++) {
        snprintf(key, sizeof(key), "%zu", i);
        fill(&c, &r[i], key, 11);
        cr_assert(was_told(&r[i], key));
        cr_assert(holds_text(&c, key, key, 12) == (i % 2 == 1));
    }
    cr_expect(stats_of(&c).detached == ARRAY_LEN(r) / 2);
    cache_close(&c);
}

/* R3b: what comes in front of its reply was said of a change from before it was read. */
Test(lease, an_announcement_by_its_cover_spares_what_was_not_answered)
{
    struct cache c = cache_open();
    struct reader a = {0};
    struct reader b = {0};
    uint64_t k = hash_of(&c, "k");

    cr_assert(get(&c, &a, "k", 10) == L1_OWNER); /* under cover 0 */
    l1_lease_await(a.lease);
    l1_invalidate_by(c.l1, k, 0);
    cr_expect(get(&c, &b, "k", 11) == L1_JOINED);
    l1_lease_answered(c.l1, a.lease);
    fill(&c, &a, "v", 12);
    cr_expect(holds_text(&c, "k", "v", 13));

    /* An entry is dropped, whoever says it; and a lease detached, if another says it, or late. */
    l1_invalidate_by(c.l1, k, 0);
    cr_expect(!holds(&c, "k", 14));
    for (int i = 0; i < 3; i++) {
        struct reader r = {0};
        cr_assert(get(&c, &r, "k", 15) == L1_OWNER);
        if (i < 2) {
            l1_lease_await(r.lease);
        }
        if (i == 0) {
            l1_invalidate(c.l1, k);
        } else {
            l1_invalidate_by(c.l1, k, i == 1 ? 1 : 0);
        }
        fill(&c, &r, "old", 16);
        cr_expect(!holds(&c, "k", 17), "%d", i);
    }
    cache_close(&c);
}
