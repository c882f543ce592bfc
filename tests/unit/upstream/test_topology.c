/* SPDX-License-Identifier: Apache-2.0
 *
 * test_topology.c: slots of keys, owners and roles, and in which order changes are told.
 */
#include "../../../upstream/topology.h"

#include <criterion/criterion.h>
#include <stdio.h>

static struct topology *t;
static unsigned slot_calls, changes, refreshes;
static uint16_t last_slot;
static uint16_t owner_at_call[2];

static void on_slot(uint16_t slot, void *ctx)
{
    (void)ctx;
    last_slot = slot;
    owner_at_call[slot_calls++ % 2] = topology_owner(t, slot);
}

static void on_changed(void *ctx)
{
    (void)ctx;
    changes++;
}

static void on_refresh(void *ctx)
{
    (void)ctx;
    refreshes++;
}

static void open_cluster(void)
{
    t = topology_create(&(struct topology_options){.is_cluster = true,
                                                   .slot_changed = on_slot,
                                                   .changed = on_changed,
                                                   .wants_refresh = on_refresh});
}

static uint16_t find(const char *port)
{
    return topology_find(t, SLICE("127.0.0.1"), slice_str(port));
}

/* a: the first half, with replica c; b: the second. */
static void apply_halves(uint16_t a, uint16_t b, uint16_t c)
{
    struct topology_range ranges[] = {
        {.first = 8192, .last = 16383, .primary = b},
        {.first = 0, .last = 8191, .primary = a, .replicas = &c, .nreplicas = 1},
    };
    topology_apply(t, ranges, 2);
}

Test(topology, slots_are_those_of_the_specification)
{
    static const struct {
        const char *key;
        uint16_t slot;
    } known[] = {
        {"123456789", 12739},           {"foo", 12182},     {"bar", 5061},           {"hello", 866},
        {"{user1000}.followers", 3443}, {"user1000", 3443}, {"foo{bar}{zap}", 5061}, {"", 0},
    };
    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
        cr_expect_eq(topology_slot(slice_str(known[i].key)), known[i].slot, "%s", known[i].key);
    }
    /* what stands between the first { and the next }, and only if there is something */
    cr_expect_eq(topology_slot(SLICE("foo{{bar}}zap")), topology_slot(SLICE("{bar")));
    cr_expect_neq(topology_slot(SLICE("foo{}{bar}")), topology_slot(SLICE("bar")));
    cr_expect_neq(topology_slot(SLICE("foo{bar")), topology_slot(SLICE("bar")));
}

Test(topology, standalone_is_one_node_that_owns_everything)
{
    t = topology_create(&(struct topology_options){.node = {.host = "127.0.0.1", .port = "1"}});
    cr_assert_not(topology_is_cluster(t));
    cr_assert_eq(topology_count(t), 1);
    cr_assert_eq(topology_owner(t, 0), 0);
    cr_assert_eq(topology_owner(t, 16383), 0);
    cr_assert_eq(topology_any(t, 7), 0);
    cr_assert_eq(topology_role(t, 0), TOPOLOGY_PRIMARY);
    cr_assert_eq(topology_replica(t, 0, 0), TOPOLOGY_NONE);
    cr_assert_str_eq(node_name(topology_node(t, 0)), "127.0.0.1:1");
    topology_destroy(t);
}

Test(topology, a_cluster_without_a_map_has_no_owners)
{
    open_cluster();
    cr_assert_eq(topology_count(t), 0);
    cr_assert_eq(topology_owner(t, 5), TOPOLOGY_NONE);
    cr_assert_eq(topology_any(t, 5), TOPOLOGY_NONE);
    topology_destroy(t);
}

Test(topology, an_address_keeps_its_index)
{
    open_cluster();
    uint16_t a = find("7000");
    cr_assert_eq(find("7001"), 1);
    cr_assert_eq(find("7000"), a);
    cr_assert_eq(topology_find(t, SLICE("127.0.0.2"), SLICE("7000")), 2);
    cr_assert_eq(topology_find(t, SLICE(""), SLICE("7000")), TOPOLOGY_NONE);
    cr_assert_eq(topology_find(t, SLICE("h"), SLICE("0")), TOPOLOGY_NONE);
    cr_assert_eq(topology_find(t, SLICE("h"), SLICE("65536")), TOPOLOGY_NONE);
    cr_assert_eq(topology_find(t, SLICE("h"), SLICE("x")), TOPOLOGY_NONE);
    cr_assert_eq(topology_count(t), 3);
    topology_destroy(t);
}

Test(topology, there_is_an_end_to_nodes)
{
    open_cluster();
    for (int i = 0; i < TOPOLOGY_NODES_MAX; i++) {
        char port[8];
        (void)snprintf(port, sizeof(port), "%d", 1000 + i);
        cr_assert_eq(find(port), i);
    }
    cr_assert_eq(find("999"), TOPOLOGY_NONE);
    cr_assert_eq(find("1000"), 0);
    topology_destroy(t);
}

Test(topology, a_map_gives_owners_roles_and_replicas)
{
    open_cluster();
    uint16_t a = find("7000"), b = find("7001"), c = find("7002"), d = find("7003");
    apply_halves(a, b, c);
    cr_expect_eq(topology_owner(t, 0), a);
    cr_expect_eq(topology_owner(t, 8191), a);
    cr_expect_eq(topology_owner(t, 8192), b);
    cr_expect_eq(topology_slots_of(t, b), 8192);
    cr_expect_eq(topology_role(t, a), TOPOLOGY_PRIMARY);
    cr_expect_eq(topology_role(t, c), TOPOLOGY_REPLICA);
    cr_expect_eq(topology_role(t, d), TOPOLOGY_GONE);
    cr_expect_eq(topology_replica(t, 1, 9), c);
    cr_expect_eq(topology_replica(t, 9000, 9), TOPOLOGY_NONE);
    cr_expect_neq(topology_any(t, 0), topology_any(t, 1));
    cr_expect_eq(changes, 1);
    uint64_t version = topology_version(t);
    apply_halves(a, b, c);
    cr_expect_eq(changes, 1, "nothing changed");
    cr_expect_eq(topology_version(t), version);
    apply_halves(c, b, a); /* a failover */
    cr_expect_eq(topology_role(t, a), TOPOLOGY_REPLICA);
    cr_expect_eq(topology_role(t, c), TOPOLOGY_PRIMARY);
    cr_expect_eq(changes, 2);
    cr_expect_gt(topology_version(t), version);
    topology_apply(t, NULL, 0);
    cr_expect_eq(topology_owner(t, 0), TOPOLOGY_NONE);
    cr_expect_eq(topology_role(t, a), TOPOLOGY_GONE);
    topology_destroy(t);
}

Test(topology, a_slot_is_told_before_and_behind_its_new_owner)
{
    open_cluster();
    uint16_t a = find("7000"), b = find("7001");
    apply_halves(a, b, b);
    slot_calls = changes = 0;
    cr_assert_eq(topology_moved(t, 5, a, SLICE("127.0.0.1"), SLICE("7001")), b);
    cr_expect_eq(slot_calls, 2);
    cr_expect_eq(last_slot, 5);
    cr_expect_eq(owner_at_call[0], a);
    cr_expect_eq(owner_at_call[1], b);
    cr_expect_eq(changes, 1);
    cr_expect_eq(refreshes, 1);
    cr_expect_eq(topology_slots_of(t, b), 8193);
    cr_assert_eq(topology_moved(t, 5, a, SLICE("127.0.0.1"), SLICE("7001")), b);
    cr_expect_eq(slot_calls, 2, "it is there already");
    cr_expect_eq(refreshes, 1);
    topology_destroy(t);
}

Test(topology, a_host_that_is_left_out_is_that_of_the_speaker)
{
    open_cluster();
    uint16_t a = topology_find(t, SLICE("127.0.0.9"), SLICE("7000"));
    uint16_t b = topology_moved(t, 7, a, SLICE(""), SLICE("7005"));
    cr_assert_str_eq(node_name(topology_node(t, b)), "127.0.0.9:7005");
    cr_assert_eq(topology_moved(t, 7, a, SLICE("h"), SLICE("no port")), TOPOLOGY_NONE);
    cr_assert_eq(topology_owner(t, 7), b);
    topology_destroy(t);
}
