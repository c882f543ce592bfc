/* SPDX-License-Identifier: Apache-2.0
 *
 * test_slot.c: slots and their generations. A drop voids what was fetched in an older generation,
 * entries and leases, and nothing of other slots; a lease taken with an older generation is of no
 * use to anybody but its own waiters.
 */
#include "cache.h"

#include <stdio.h>

#define SLOTS 4

static struct cache slots_open(void)
{
    char err[ERR_MAX];
    struct l1_options o = {.max_memory = (size_t)1 << 20,
                           .max_item_size = (size_t)64 << 10,
                           .covers = 1,
                           .slots = SLOTS,
                           .readers = 1};
    struct cache c = {.l1 = l1_create(&o, err)};
    cr_assert(c.l1 != NULL, "%s", err);
    c.reader = l1_reader(c.l1, 0);
    chain_init(&c.out);
    l1_cover_up(c.l1, 0, UNTIL);
    return c;
}

static struct l1_query slot_query(struct cache *c, struct reader *r, const char *key, uint16_t slot)
{
    struct l1_query q = query_of(c, r, key);
    q.slot = slot;
    q.slot_generation = l1_slot_generation(c->l1, slot);
    return q;
}

static enum l1_result ask(struct cache *c, struct reader *r, struct l1_query *q)
{
    enum l1_result result = l1_get(c->l1, q, 10);
    if (result == L1_OWNER) {
        r->lease = q->lease;
    }
    return result;
}

static enum l1_result get_in(struct cache *c, struct reader *r, const char *key, uint16_t slot)
{
    struct l1_query q = slot_query(c, r, key, slot);
    return ask(c, r, &q);
}

static void put_in(struct cache *c, const char *key, const char *text, uint16_t slot)
{
    struct reader r = {0};
    cr_assert(get_in(c, &r, key, slot) == L1_OWNER);
    fill(c, &r, text, 10);
    cr_assert(was_told(&r, text));
}

Test(slot, drop_moves_the_generation_of_that_slot_only)
{
    struct cache c = slots_open();
    uint32_t before = l1_slot_generation(c.l1, 1);
    uint32_t other = l1_slot_generation(c.l1, 2);
    l1_drop_slot(c.l1, 1);
    cr_expect(l1_slot_generation(c.l1, 1) != before);
    cr_expect(l1_slot_generation(c.l1, 2) == other);
    cache_close(&c);
}

Test(slot, drop_voids_its_entries_and_no_others)
{
    struct cache c = slots_open();
    put_in(&c, "a", "va", 1);
    put_in(&c, "a2", "va2", 1);
    put_in(&c, "b", "vb", 2);
    put_in(&c, "z", "vz", 0);
    l1_drop_slot(c.l1, 1);
    cr_expect(!holds(&c, "a", 11));
    cr_expect(!holds(&c, "a2", 11));
    cr_expect(holds_text(&c, "b", "vb", 11));
    cr_expect(holds_text(&c, "z", "vz", 11));
    cr_expect(stats_of(&c).voids == 2);
    cr_expect(stats_of(&c).items == 2);
    cache_close(&c);
}

Test(slot, drop_voids_known_nulls)
{
    struct cache c = slots_open();
    struct reader r = {0};
    cr_assert(get_in(&c, &r, "k", 1) == L1_OWNER);
    fill_null(&c, &r, TTL, 10);
    cr_assert(holds(&c, "k", 11));
    l1_drop_slot(c.l1, 1);
    cr_expect(!holds(&c, "k", 11));
    cache_close(&c);
}

Test(slot, key_can_be_fetched_and_kept_again_after_a_drop)
{
    struct cache c = slots_open();
    put_in(&c, "k", "old", 1);
    l1_drop_slot(c.l1, 1);
    put_in(&c, "k", "new", 1);
    cr_expect(holds_text(&c, "k", "new", 11));
    cr_expect(stats_of(&c).items == 1);
    l1_drop_slot(c.l1, 1);
    cr_expect(!holds(&c, "k", 11));
    cache_close(&c);
}

Test(slot, open_lease_is_detached_by_a_drop)
{
    struct cache c = slots_open();
    struct reader r = {0};
    cr_assert(get_in(&c, &r, "k", 1) == L1_OWNER);
    l1_drop_slot(c.l1, 1);
    fill(&c, &r, "old", 11);
    cr_expect(was_told(&r, "old"), "its reader began before the drop");
    cr_expect(!holds(&c, "k", 12));
    cr_expect(stats_of(&c).refusals == 1);
    cache_close(&c);
}

Test(slot, open_lease_of_another_slot_stays_good)
{
    struct cache c = slots_open();
    struct reader r = {0};
    struct reader joiner = {0};
    cr_assert(get_in(&c, &r, "k", 2) == L1_OWNER);
    l1_drop_slot(c.l1, 1);
    cr_expect(get_in(&c, &joiner, "k", 2) == L1_JOINED);
    fill(&c, &r, "v", 11);
    cr_expect(was_told(&joiner, "v"));
    cr_expect(holds_text(&c, "k", "v", 12));
    cache_close(&c);
}

Test(slot, lease_from_before_a_drop_is_not_joined)
{
    struct cache c = slots_open();
    struct reader early = {0};
    struct reader late = {0};
    cr_assert(get_in(&c, &early, "k", 1) == L1_OWNER);
    l1_drop_slot(c.l1, 1);
    cr_assert(get_in(&c, &late, "k", 1) == L1_OWNER, "a fetch of its own");
    fill(&c, &late, "new", 11);
    fill(&c, &early, "old", 12);
    cr_expect(was_told(&late, "new"));
    cr_expect(was_told(&early, "new"), "R5b: the entry of the later fetch");
    cr_expect(holds_text(&c, "k", "new", 13));
    cache_close(&c);
}

/* Whoever asked for the generation, then for the slot's owner, and was overtaken by the drop, has
 * sent the fetch to the old owner. */
Test(slot, lease_taken_with_an_older_generation_is_never_installed_nor_joined)
{
    struct cache c = slots_open();
    struct reader owner = {0};
    struct reader late = {0};
    struct l1_query q = slot_query(&c, &owner, "k", 1);
    l1_drop_slot(c.l1, 1);
    enum l1_result result = ask(&c, &owner, &q);
    cr_assert(result == L1_OWNER || result == L1_PASS);
    cr_assert(get_in(&c, &late, "k", 1) == L1_OWNER);
    if (result == L1_OWNER) {
        fill(&c, &owner, "old", 11);
        cr_expect(!holds(&c, "k", 11));
    }
    fill(&c, &late, "new", 12);
    cr_expect(was_told(&late, "new"));
    cr_expect(holds_text(&c, "k", "new", 13));
    cache_close(&c);
}

Test(slot, bare_lease_from_before_a_drop_is_not_installed)
{
    struct cache c = slots_open();
    struct reader r = {0};
    struct l1_query q = slot_query(&c, &r, "k", 1);
    r.lease = l1_lease_try(c.l1, &q, 10);
    cr_assert(r.lease != NULL);
    cr_expect(l1_lease_slot(r.lease) == 1);
    l1_drop_slot(c.l1, 1);
    fill(&c, &r, "old", 11);
    cr_expect(!holds(&c, "k", 12));
    cache_close(&c);
}

Test(slot, mget_is_all_or_nothing_across_a_drop)
{
    struct cache c = slots_open();
    put_in(&c, "a", "va", 1);
    put_in(&c, "b", "vb", 2);
    static const char *const names[] = {"a", "b"};
    struct l1_key keys[2];
    struct l1_run run = run_of(&c, keys, names, 2);
    cr_assert(l1_get_all(c.l1, &run, 11));
    cr_expect(strcmp(taken(&c), "vavb") == 0);
    l1_drop_slot(c.l1, 2);
    cr_expect(!l1_get_all(c.l1, &run, 11));
    cr_expect(c.out.bytes == 0);
    put_in(&c, "b", "vb2", 2);
    cr_expect(l1_get_all(c.l1, &run, 11));
    cr_expect(strcmp(taken(&c), "vavb2") == 0);
    cache_close(&c);
}

Test(slot, the_sweep_frees_what_a_drop_voided)
{
    struct cache c = slots_open();
    for (unsigned int i = 0; i < 300; i++) {
        char key[16];
        snprintf(key, sizeof(key), "k%u", i);
        put_in(&c, key, key, (uint16_t)(i % SLOTS));
    }
    l1_drop_slot(c.l1, 3);
    l1_sweep(c.l1, 100000, 11);
    cr_expect(stats_of(&c).items == 225);
    cr_expect(stats_of(&c).voids == 75);
    cache_close(&c);
}

Test(slot, drop_of_everything_reaches_every_slot)
{
    struct cache c = slots_open();
    put_in(&c, "a", "va", 1);
    put_in(&c, "b", "vb", 2);
    l1_drop_all(c.l1);
    cr_expect(!holds(&c, "a", 11));
    cr_expect(!holds(&c, "b", 11));
    cache_close(&c);
}

Test(slot, more_slots_than_a_cluster_has_are_refused)
{
    char err[ERR_MAX];
    struct l1_options o = {.max_memory = (size_t)1 << 20,
                           .max_item_size = (size_t)64 << 10,
                           .covers = 1,
                           .slots = 16385};
    cr_expect(l1_create(&o, err) == NULL);
    cr_expect(strstr(err, "16385 slots") != NULL, "%s", err);
    o.slots = 16384;
    struct l1 *l1 = l1_create(&o, err);
    cr_assert(l1 != NULL, "%s", err);
    l1_drop_slot(l1, 16383);
    l1_destroy(l1);
}
