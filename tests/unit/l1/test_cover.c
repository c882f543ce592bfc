/* SPDX-License-Identifier: Apache-2.0
 *
 * test_cover.c: what a fill connection vouches for: incarnations (C1, C4), the link lease (C6),
 * that what was found dead stays dead (C7), and dropping everything at once.
 */
#include "cache.h"

Test(cover, is_down_at_first_and_up_when_told)
{
    struct cache c = cache_open();
    cr_expect(!l1_cover_is_up(c.l1, 2));
    l1_cover_up(c.l1, 2, 100);
    cr_expect(l1_cover_is_up(c.l1, 2));
    l1_cover_down(c.l1, 2);
    cr_expect(!l1_cover_is_up(c.l1, 2));
    l1_cover_down(c.l1, 2);
    cr_expect(!l1_cover_is_up(c.l1, 2));
    l1_cover_up(c.l1, 2, 100);
    cr_expect(l1_cover_is_up(c.l1, 2));
    cache_close(&c);
}

Test(cover, loss_voids_what_it_fetched_and_nothing_else)
{
    struct cache c = cache_open();
    put_under(&c, "a", "v", 0, 10);
    put_under(&c, "b", "v", 1, 10);
    l1_cover_down(c.l1, 0);
    cr_expect(!holds(&c, "a", 11));
    cr_expect(holds(&c, "b", 11));
    cr_expect(stats_of(&c).voids == 1);
    cache_close(&c);
}

Test(cover, new_incarnation_does_not_revive_entries)
{
    struct cache c = cache_open();
    put(&c, "k", "v", 10);
    l1_cover_down(c.l1, 0);
    l1_cover_up(c.l1, 0, UNTIL);
    cr_expect(!holds(&c, "k", 11));
    cache_close(&c);
}

Test(cover, coming_up_twice_is_a_new_incarnation)
{
    struct cache c = cache_open();
    put(&c, "k", "v", 10);
    l1_cover_up(c.l1, 0, UNTIL);
    cr_expect(l1_cover_is_up(c.l1, 0));
    cr_expect(!holds(&c, "k", 11));
    cache_close(&c);
}

Test(cover, no_lease_is_given_while_it_is_down_or_late)
{
    struct cache c = cache_open();
    struct reader r = {0};
    cr_assert(get_under(&c, &r, "k", 2, 10) == L1_PASS);
    l1_cover_up(c.l1, 2, 100);
    cr_assert(get_under(&c, &r, "k", 2, 100) == L1_PASS);
    cr_assert(get_under(&c, &r, "k", 2, 99) == L1_OWNER);
    l1_abandon(c.l1, &r.lease);
    cache_close(&c);
}

Test(cover, number_that_does_not_exist_gives_no_lease)
{
    struct cache c = cache_open();
    struct reader r = {0};
    cr_assert(get_under(&c, &r, "k", 3, 10) == L1_PASS);
    cr_assert(get_under(&c, &r, "k", L1_NO_COVER, 10) == L1_PASS);
    cache_close(&c);
}

Test(cover, entry_is_served_only_before_its_moment)
{
    struct cache c = cache_open();
    l1_cover_renew(c.l1, 0, 500);
    put(&c, "k", "v", 10);
    cr_expect(holds(&c, "k", 499));
    cr_expect(!holds(&c, "k", 500));
    cr_expect(stats_of(&c).lapses == 1);
    cache_close(&c);
}

Test(cover, entry_seen_lapsed_does_not_come_back_with_the_next_pong)
{
    struct cache c = cache_open();
    l1_cover_renew(c.l1, 0, 500);
    put(&c, "k", "v", 10);
    struct reader r = {0};
    cr_assert(get(&c, &r, "k", 500) == L1_PASS);
    l1_cover_renew(c.l1, 0, 900);
    cr_expect(!holds(&c, "k", 501));
    cache_close(&c);
}

Test(cover, entry_nobody_saw_lapsed_is_served_after_the_next_pong)
{
    struct cache c = cache_open();
    l1_cover_renew(c.l1, 0, 500);
    put(&c, "k", "v", 10);
    l1_cover_renew(c.l1, 0, 900);
    cr_expect(holds(&c, "k", 600));
    cache_close(&c);
}

Test(cover, pong_while_down_is_ignored)
{
    struct cache c = cache_open();
    put(&c, "k", "v", 10);
    l1_cover_down(c.l1, 0);
    l1_cover_renew(c.l1, 0, UNTIL);
    cr_expect(!l1_cover_is_up(c.l1, 0));
    struct reader r = {0};
    cr_assert(get(&c, &r, "k", 11) == L1_PASS);
    cache_close(&c);
}

Test(cover, fetch_of_an_earlier_incarnation_is_not_installed)
{
    struct cache c = cache_open();
    struct reader a = {0};
    cr_assert(get(&c, &a, "k", 10) == L1_OWNER);
    l1_cover_down(c.l1, 0);
    l1_cover_up(c.l1, 0, UNTIL);
    fill(&c, &a, "old", 11);
    cr_expect(was_told(&a, "old"));
    cr_expect(stats_of(&c).items == 0);
    cache_close(&c);
}

Test(cover, fetch_is_not_installed_while_its_cover_is_late)
{
    struct cache c = cache_open();
    struct reader a = {0};
    l1_cover_renew(c.l1, 0, 500);
    cr_assert(get(&c, &a, "k", 10) == L1_OWNER);
    fill(&c, &a, "v", 500);
    cr_expect(stats_of(&c).items == 0);
    cr_expect(was_told(&a, "v"));
    cache_close(&c);
}

Test(cover, fetch_is_installed_when_the_pong_came_in_time)
{
    struct cache c = cache_open();
    struct reader a = {0};
    l1_cover_renew(c.l1, 0, 500);
    cr_assert(get(&c, &a, "k", 10) == L1_OWNER);
    l1_cover_renew(c.l1, 0, 900);
    fill(&c, &a, "v", 500);
    cr_expect(holds(&c, "k", 501));
    cache_close(&c);
}

Test(cover, fetch_of_a_lost_cover_is_not_joined_but_replaced)
{
    struct cache c = cache_open();
    struct reader a = {0};
    struct reader b = {0};
    cr_assert(get_under(&c, &a, "k", 0, 10) == L1_OWNER);
    l1_cover_down(c.l1, 0);
    cr_assert(get_under(&c, &b, "k", 1, 11) == L1_OWNER);
    cr_expect(stats_of(&c).detached == 1);
    fill(&c, &a, "old", 12);
    cr_expect(a.wakes == 0);
    fill(&c, &b, "new", 13);
    cr_expect(was_told(&a, "new"));
    cr_expect(holds_text(&c, "k", "new", 14));
    cache_close(&c);
}

Test(cover, fetch_of_a_late_cover_is_not_joined_but_replaced)
{
    struct cache c = cache_open();
    struct reader a = {0};
    struct reader b = {0};
    l1_cover_renew(c.l1, 0, 500);
    cr_assert(get_under(&c, &a, "k", 0, 10) == L1_OWNER);
    cr_assert(get_under(&c, &b, "k", 1, 500) == L1_OWNER);
    /* Seen late: the next PONG does not make it joinable or installable again. */
    l1_cover_renew(c.l1, 0, 900);
    fill(&c, &a, "old", 501);
    cr_expect(!holds(&c, "k", 501));
    fill(&c, &b, "new", 502);
    cr_expect(was_told(&a, "new"));
    cache_close(&c);
}

Test(cover, fetch_of_a_late_cover_is_detached_even_if_no_other_can_be_had)
{
    struct cache c = cache_open();
    struct reader a = {0};
    struct reader b = {0};
    l1_cover_renew(c.l1, 0, 500);
    cr_assert(get(&c, &a, "k", 10) == L1_OWNER);
    cr_assert(get(&c, &b, "k", 500) == L1_PASS);
    l1_cover_renew(c.l1, 0, 900);
    cr_assert(get_under(&c, &b, "k", L1_NO_COVER, 501) == L1_PASS);
    fill(&c, &a, "old", 502);
    cr_expect(!holds(&c, "k", 502));
    cache_close(&c);
}

Test(cover, readers_without_one_hit_and_join_all_the_same)
{
    struct cache c = cache_open();
    struct reader a = {0};
    struct reader b = {0};
    cr_assert(get(&c, &a, "k", 10) == L1_OWNER);
    cr_assert(get_under(&c, &b, "k", L1_NO_COVER, 11) == L1_JOINED);
    fill(&c, &a, "v", 12);
    cr_expect(was_told(&b, "v"));
    cr_assert(get_under(&c, &b, "k", 2, 13) == L1_HIT);
    cache_close(&c);
}

Test(cover, dropping_all_voids_every_entry_and_leaves_covers_up)
{
    struct cache c = cache_open();
    put_under(&c, "a", "v", 0, 10);
    put_under(&c, "b", "v", 1, 10);
    l1_drop_all(c.l1);
    cr_expect(!holds(&c, "a", 11));
    cr_expect(!holds(&c, "b", 11));
    cr_expect(l1_cover_is_up(c.l1, 0));
    cr_expect(!l1_cover_is_up(c.l1, 2));
    put_under(&c, "a", "again", 0, 12);
    cr_expect(holds_text(&c, "a", "again", 13));
    cr_expect(stats_of(&c).drop_alls == 1);
    cache_close(&c);
}

Test(cover, dropping_all_keeps_the_moment)
{
    struct cache c = cache_open();
    l1_cover_renew(c.l1, 0, 500);
    l1_drop_all(c.l1);
    put(&c, "k", "v", 10);
    cr_expect(holds(&c, "k", 499));
    cr_expect(!holds(&c, "k", 500));
    cache_close(&c);
}

Test(cover, dropping_all_detaches_every_lease)
{
    struct cache c = cache_open();
    struct reader a = {0};
    struct reader b = {0};
    cr_assert(get_under(&c, &a, "a", 0, 10) == L1_OWNER);
    cr_assert(get_under(&c, &b, "b", 1, 10) == L1_OWNER);
    l1_drop_all(c.l1);
    struct reader d = {0};
    cr_assert(get(&c, &d, "a", 11) == L1_OWNER);
    fill(&c, &b, "v", 12);
    cr_expect(!holds(&c, "b", 12));
    fill(&c, &d, "new", 13);
    fill(&c, &a, "old", 14);
    cr_expect(was_told(&a, "new"));
    cache_close(&c);
}
