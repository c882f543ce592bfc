/* SPDX-License-Identifier: Apache-2.0
 *
 * test_topology.c: what topology.h promises: slots, owners, who is told of a change and when.
 */
#include "../../../upstream/topology.h"

#include "../../support/cleanup.h"
#include "../../support/redis.h"

#include <criterion/criterion.h>
#include <stdio.h>

static struct topology *topology;

/* What the callbacks saw. */
static uint16_t owner_before; /* at the first call for a slot */
static uint16_t owner_after;  /* at the second */
static int slot_calls[TOPOLOGY_SLOTS];
static int changes;
static int slot_calls_at_change;
static int wishes;
static unsigned changed_node = UINT32_MAX;

static int all_slot_calls(void)
{
    int n = 0;
    for (size_t i = 0; i < TOPOLOGY_SLOTS; i++) {
        n += slot_calls[i];
    }
    return n;
}

static void on_slot_changed(uint16_t slot, void *ctx)
{
    cr_assert_str_eq(ctx, "ctx");
    if (++slot_calls[slot] % 2 == 1) {
        owner_before = topology_owner(topology, slot);
    } else {
        owner_after = topology_owner(topology, slot);
    }
}

static void on_changed(void *ctx)
{
    (void)ctx;
    changes++;
    slot_calls_at_change = all_slot_calls();
}

static void on_node_changed(unsigned index, void *ctx)
{
    (void)ctx;
    changed_node = index;
}

static void on_wish(void *ctx)
{
    (void)ctx;
    wishes++;
}

static void create(struct topology_options options)
{
    static char ctx[] = "ctx";
    options.slot_changed = on_slot_changed;
    options.changed = on_changed;
    options.node_changed = on_node_changed;
    options.wants_refresh = on_wish;
    options.ctx = ctx;
    topology = topology_create(&options);
}

static void create_standalone(void)
{
    create((struct topology_options){.node = {.host = "127.0.0.1", .port = "7000"}});
}

static void create_cluster(void)
{
    create((struct topology_options){.is_cluster = true});
}

static void destroy(void)
{
    topology_destroy(topology);
}

static uint16_t find(const char *host, unsigned port)
{
    char text[16];
    (void)snprintf(text, sizeof(text), "%u", port);
    return topology_find(topology, slice_str(host), slice_str(text));
}

static uint16_t at(unsigned port)
{
    return find("127.0.0.1", port);
}

/* Two primaries, halves of the slots; the first has two replicas. */
static void apply_halves(void)
{
    const uint16_t replicas[] = {at(7002), at(7003)};
    const struct topology_range ranges[] = {
        {.first = 8192, .last = 16383, .primary = at(7001)},
        {.first = 0, .last = 8191, .primary = at(7000), .replicas = replicas, .nreplicas = 2},
    };
    topology_apply(topology, ranges, ARRAY_LEN(ranges));
}

static uint16_t moved(uint16_t slot, uint16_t from, const char *host, const char *port)
{
    return topology_moved(topology, slot, from, slice_str(host), slice_str(port));
}

/* ---- The slot of a key --------------------------------------------------------------------- */

static uint16_t slot(const char *key)
{
    return topology_slot(slice_str(key));
}

Test(topology, only_what_was_found_is_known)
{
    struct topology *t = topology_create(&(struct topology_options){.is_cluster = true});
    cr_expect_not(topology_knows(t, SLICE("127.0.0.1"), SLICE("7000")));
    (void)topology_find(t, SLICE("127.0.0.1"), SLICE("7000"));
    cr_expect(topology_knows(t, SLICE("127.0.0.1"), SLICE("7000")));
    cr_expect_not(topology_knows(t, SLICE("127.0.0.1"), SLICE("7001")));
    cr_expect_not(topology_knows(t, SLICE(""), SLICE("7000")));
    topology_destroy(t);
}

Test(topology, slot_is_the_crc_of_the_key)
{
    cr_assert_eq(slot("123456789"), 0x31c3); /* the specification's vector */
    cr_assert_eq(slot(""), 0);
    cr_assert_eq(topology_slot(slice_of(NULL, 0)), 0);
    cr_assert_eq(slot("foo"), 12182);
    cr_assert_eq(slot("bar"), 5061);
    cr_assert_eq(slot("hello"), 866);
    cr_assert_eq(slot("user1000"), 3443);
}

Test(topology, slot_is_that_of_the_hash_tag)
{
    cr_assert_eq(slot("{user1000}.following"), slot("user1000"));
    cr_assert_eq(slot("foo{bar}{zap}"), slot("bar"));
    cr_assert_eq(slot("foo{{bar}}zap"), slot("{bar"));
    cr_assert_eq(slot("a}b{c}d"), slot("c"));
    /* An empty tag, or one that does not end, is none. */
    cr_assert_neq(slot("foo{}{bar}"), slot("bar"));
    cr_assert_neq(slot("foo{bar"), slot("bar"));
    cr_assert_neq(slot("foo{"), slot("foo"));
}

/* Bytes of every value, braces more often than chance has them. */
static void make_key(char *key, size_t n, uint64_t *seed)
{
    for (size_t i = 0; i < n; i++) {
        *seed = *seed * 6364136223846793005U + 1442695040888963407U;
        uint64_t random = *seed >> 33;
        key[i] = random % 4 == 0 ? "{}{x"[random / 4 % 4] : (char)(random >> 8);
    }
}

Test(topology, slot_is_what_the_server_says, .fini = cleanup_run)
{
    const char *const extra[] = {"--cluster-enabled", "yes", "--cluster-port",
                                 cleanup_printf("%d", free_port()), NULL};
    struct redis *redis = redis_start(extra);
    uint64_t seed = 7;
    for (size_t i = 0; i < 2000; i++) {
        char key[24];
        size_t n = i % sizeof(key);
        make_key(key, n, &seed);
        cr_assert(client_command_big(redis->direct, "CLUSTER KEYSLOT", key, n));
        const struct reply *reply = client_reply(redis->direct);
        cr_assert_eq(reply->type, ':');
        cr_assert_eq(topology_slot(slice_of(key, n)), reply->integer);
    }
    cleanup_run();
}

/* ---- Standalone ------------------------------------------------------------------------------ */

Test(topology, standalone_has_one_node_that_owns_everything)
{
    create_standalone();
    cr_assert_not(topology_is_cluster(topology));
    cr_assert_eq(topology_count(topology), 1);
    cr_assert_eq(topology_owner(topology, 0), 0);
    cr_assert_eq(topology_owner(topology, 16383), 0);
    cr_assert_eq(topology_any(topology, 77), 0);
    cr_assert_eq(topology_replica(topology, 1, 0), TOPOLOGY_NONE);
    cr_assert_eq(topology_role(topology, 0), TOPOLOGY_PRIMARY);
    cr_assert_eq(topology_slots_of(topology, 0), TOPOLOGY_SLOTS);
    cr_assert_str_eq(node_name(topology_node(topology, 0)), "127.0.0.1:7000");
    destroy();
}

Test(topology, standalone_is_not_moved)
{
    create_standalone();
    cr_assert_eq(moved(1, 0, "127.0.0.1", "7001"), TOPOLOGY_NONE);
    cr_assert_eq(topology_count(topology), 1);
    cr_assert_eq(topology_owner(topology, 1), 0);
    cr_assert_eq(changes, 0);
    destroy();
}

Test(topology, replicas_of_the_one_node_may_be_applied)
{
    create((struct topology_options){.has_replicas = true,
                                     .node = {.host = "127.0.0.1", .port = "7000"}});
    const uint16_t replicas[] = {at(7001)};
    const struct topology_range all = {
        .last = 16383, .primary = 0, .replicas = replicas, .nreplicas = 1};
    topology_apply(topology, &all, 1);
    cr_assert_eq(topology_replica(topology, 5, 9), replicas[0]);
    cr_assert_eq(topology_role(topology, replicas[0]), TOPOLOGY_REPLICA);
    cr_assert_eq(all_slot_calls(), 0);
    cr_assert_eq(changes, 1);
    cr_assert_neq(at(7000), 0, "the one node is the master, wherever that is");
    destroy();
}

Test(topology, another_server_process_is_told_with_its_index)
{
    create_cluster();
    (void)at(7000);
    struct node *node = topology_node(topology, at(7001));
    (void)node_identify(node, SLICE("a"), SLICE("7.0.0"));
    cr_assert_eq(changed_node, UINT32_MAX);
    (void)node_identify(node, SLICE("b"), SLICE("7.0.0"));
    cr_assert_eq(changed_node, 1);
    destroy();
}

/* ---- Nodes ----------------------------------------------------------------------------------- */

Test(topology, cluster_begins_with_nothing)
{
    create_cluster();
    cr_assert(topology_is_cluster(topology));
    cr_assert_eq(topology_count(topology), 0);
    cr_assert_eq(topology_owner(topology, 0), TOPOLOGY_NONE);
    cr_assert_eq(topology_replica(topology, 0, 0), TOPOLOGY_NONE);
    cr_assert_eq(topology_any(topology, 0), TOPOLOGY_NONE);
    destroy();
    topology_destroy(NULL);
}

Test(topology, node_is_found_again_by_its_address)
{
    create_cluster();
    uint16_t first = at(7000);
    cr_assert_eq(first, 0);
    cr_assert_eq(at(7001), 1);
    cr_assert_eq(find("::1", 7000), 2);
    cr_assert_eq(at(7000), first);
    cr_assert_eq(topology_count(topology), 3);
    cr_assert_str_eq(node_name(topology_node(topology, 2)), "[::1]:7000");
    cr_assert_eq(topology_role(topology, 0), TOPOLOGY_GONE);
    destroy();
}

Test(topology, node_has_the_credentials_of_all)
{
    char password[] = "secret";
    create((struct topology_options){.is_cluster = true,
                                     .node = {.user = "me", .password = password}});
    password[0] = 'x';
    const struct node_options *o = node_options(topology_node(topology, at(7000)));
    cr_assert_str_eq(o->user, "me");
    cr_assert_str_eq(o->password, "secret");
    destroy();
}

Test(topology, what_is_no_address_is_no_node)
{
    static const struct {
        struct slice host;
        struct slice port;
    } wrong[] = {
        {SLICE(""), SLICE("7000")},       {SLICE("a b"), SLICE("7000")},
        {SLICE("a\0b"), SLICE("7000")},   {SLICE("a/b"), SLICE("7000")},
        {SLICE("h"), SLICE("")},          {SLICE("h"), SLICE("0")},
        {SLICE("h"), SLICE("65536")},     {SLICE("h"), SLICE("-1")},
        {SLICE("h"), SLICE("7000x")},     {SLICE("h"), SLICE("07000")},
        {SLICE("h"), SLICE("100000000")},
    };
    char longer[256];
    memset(longer, 'h', sizeof(longer));
    create_cluster();
    for (size_t i = 0; i < ARRAY_LEN(wrong); i++) {
        cr_assert_eq(topology_find(topology, wrong[i].host, wrong[i].port), TOPOLOGY_NONE);
    }
    cr_assert_eq(topology_find(topology, slice_of(longer, 256), SLICE("1")), TOPOLOGY_NONE);
    cr_assert_eq(topology_count(topology), 0);
    destroy();
}

Test(topology, nodes_are_limited)
{
    create_cluster();
    for (unsigned i = 0; i < TOPOLOGY_NODES_MAX; i++) {
        cr_assert_eq(at(7000 + i), i);
    }
    cr_assert_eq(at(6999), TOPOLOGY_NONE);
    cr_assert_eq(at(7000), 0);
    cr_assert_eq(topology_count(topology), TOPOLOGY_NODES_MAX);
    /* Somebody has to look again, though what was said cannot be followed. */
    cr_assert_eq(moved(1, 0, "127.0.0.1", "6999"), TOPOLOGY_NONE);
    cr_assert_eq(wishes, 1);
    destroy();
}

/* ---- An index of a node that is gone ----------------------------------------------------------- */

/* A map in which this node owns everything. */
static void apply_all_to(uint16_t index)
{
    const struct topology_range all = {.last = TOPOLOGY_SLOTS - 1, .primary = index};
    topology_apply(topology, &all, 1);
}

Test(topology, any_number_of_addresses_may_come_and_go)
{
    create_cluster();
    uint16_t seed = topology_keep(topology, SLICE("127.0.0.1"), SLICE("6999"));
    for (unsigned i = 0; i < 20 * TOPOLOGY_NODES_MAX; i++) {
        char name[32];
        uint16_t index = at(7000 + i);
        (void)snprintf(name, sizeof(name), "127.0.0.1:%u", 7000 + i);
        cr_assert_str_eq(node_name(topology_node(topology, index)), name);
        cr_assert_eq(at(7000 + i), index);
        apply_all_to(index);
        cr_assert_eq(topology_owner(topology, i % TOPOLOGY_SLOTS), index);
        cr_assert_eq(at(6999), seed);
        cr_assert_leq(topology_count(topology), 5);
    }
    cr_assert_str_eq(node_name(topology_node(topology, seed)), "127.0.0.1:6999");
    destroy();
}

Test(topology, index_that_is_used_again_is_another_server)
{
    create_cluster();
    uint16_t old = at(7000);
    struct node *node = topology_node(topology, old);
    uint64_t era = node_era(node);
    uint64_t generation = node_generation(node);
    apply_all_to(old);
    for (int i = 0; i < 3; i++) {
        apply_all_to(at(7001));
    }
    cr_assert_eq(changed_node, UINT32_MAX);
    cr_assert_eq(at(7002), old);
    cr_assert_eq(changed_node, old);
    cr_assert_eq(topology_node(topology, old), node);
    cr_assert_gt(node_era(node), era);
    cr_assert_gt(node_generation(node), generation);
    cr_assert_eq(topology_role(topology, old), TOPOLOGY_GONE);
    cr_assert_neq(at(7000), old, "it comes back as another one");
    destroy();
    changed_node = UINT32_MAX;
}

Test(topology, index_stays_until_two_maps_have_not_named_it)
{
    create_cluster();
    uint16_t old = at(7000);
    apply_all_to(old);
    uint16_t other = at(7001);
    apply_all_to(other);
    cr_assert_neq(at(7002), old);
    cr_assert_eq(at(7000), old); /* named by somebody: it counts from here again */
    apply_all_to(other);
    cr_assert_neq(at(7003), old);
    apply_all_to(other);
    cr_assert_eq(at(7004), old);
    destroy();
}

Test(topology, index_stays_while_somebody_is_connected)
{
    create_cluster();
    uint16_t old = at(7000);
    node_count_link(topology_node(topology, old), 1);
    for (int i = 0; i < 5; i++) {
        apply_all_to(at(7001));
    }
    uint16_t other = at(7002);
    cr_assert_neq(other, old);
    apply_all_to(at(7001));
    node_count_link(topology_node(topology, old), -1);
    cr_assert_eq(at(7003), old);
    destroy();
}

Test(topology, replicas_of_the_one_node_come_and_go_too)
{
    create((struct topology_options){.has_replicas = true,
                                     .node = {.host = "127.0.0.1", .port = "7000"}});
    for (unsigned i = 0; i < 2 * TOPOLOGY_NODES_MAX; i++) {
        const uint16_t replicas[] = {at(8000 + i)};
        const struct topology_range all = {
            .last = TOPOLOGY_SLOTS - 1, .primary = 0, .replicas = replicas, .nreplicas = 1};
        topology_apply(topology, &all, 1);
        cr_assert_neq(replicas[0], 0);
        cr_assert_eq(topology_replica(topology, 0, 0), replicas[0]);
        cr_assert_leq(topology_count(topology), 5);
    }
    cr_assert_str_eq(node_name(topology_node(topology, 0)), "127.0.0.1:7000");
    destroy();
}

/* ---- A whole map ------------------------------------------------------------------------------ */

Test(topology, map_names_owners_and_roles)
{
    create_cluster();
    apply_halves();
    cr_assert_eq(topology_owner(topology, 0), at(7000));
    cr_assert_eq(topology_owner(topology, 8191), at(7000));
    cr_assert_eq(topology_owner(topology, 8192), at(7001));
    cr_assert_eq(topology_owner(topology, 16383), at(7001));
    cr_assert_eq(topology_slots_of(topology, at(7000)), 8192);
    cr_assert_eq(topology_role(topology, at(7001)), TOPOLOGY_PRIMARY);
    cr_assert_eq(topology_role(topology, at(7003)), TOPOLOGY_REPLICA);
    cr_assert_eq(topology_replica(topology, 0, 0), at(7002));
    cr_assert_eq(topology_replica(topology, 0, 1), at(7003));
    cr_assert_eq(topology_replica(topology, 9000, 0), TOPOLOGY_NONE);
    destroy();
}

Test(topology, any_is_spread_over_the_primaries)
{
    create_cluster();
    apply_halves();
    cr_assert_neq(topology_any(topology, 0), topology_any(topology, 1));
    for (uint32_t hint = 0; hint < 9; hint++) {
        uint16_t any = topology_any(topology, hint);
        cr_assert_eq(topology_role(topology, any), TOPOLOGY_PRIMARY);
    }
    destroy();
}

Test(topology, changed_slots_are_told_twice_and_the_map_once)
{
    create_cluster();
    uint64_t version = topology_version(topology);
    apply_halves();
    for (size_t i = 0; i < TOPOLOGY_SLOTS; i++) {
        cr_assert_eq(slot_calls[i], 2);
    }
    cr_assert_eq(owner_before, TOPOLOGY_NONE);
    cr_assert_eq(owner_after, at(7001));
    cr_assert_eq(changes, 1);
    cr_assert_eq(slot_calls_at_change, 2 * TOPOLOGY_SLOTS);
    cr_assert_gt(topology_version(topology), version);
    /* The same again is no change. */
    version = topology_version(topology);
    apply_halves();
    cr_assert_eq(changes, 1);
    cr_assert_eq(all_slot_calls(), 2 * TOPOLOGY_SLOTS);
    cr_assert_eq(topology_version(topology), version);
    destroy();
}

Test(topology, map_forgets_what_it_does_not_name)
{
    create_cluster();
    apply_halves();
    const struct topology_range rest = {.first = 1, .last = 16383, .primary = at(7001)};
    topology_apply(topology, &rest, 1);
    cr_assert_eq(topology_owner(topology, 0), TOPOLOGY_NONE);
    cr_assert_eq(topology_owner(topology, 1), at(7001));
    cr_assert_eq(topology_role(topology, at(7000)), TOPOLOGY_GONE);
    cr_assert_eq(topology_role(topology, at(7002)), TOPOLOGY_GONE);
    cr_assert_eq(topology_slots_of(topology, at(7000)), 0);
    cr_assert_eq(topology_slots_of(topology, at(7001)), 16383);
    cr_assert_eq(topology_any(topology, 0), at(7001));
    cr_assert_eq(topology_any(topology, 1), at(7001));
    cr_assert_eq(slot_calls[9000], 2);
    cr_assert_eq(slot_calls[0], 4);
    topology_apply(topology, NULL, 0);
    cr_assert_eq(topology_any(topology, 0), TOPOLOGY_NONE);
    destroy();
}

Test(topology, roles_alone_are_a_change)
{
    create_cluster();
    apply_halves();
    const struct topology_range ranges[] = {
        {.first = 0, .last = 8191, .primary = at(7000)},
        {.first = 8192, .last = 16383, .primary = at(7001)},
    };
    topology_apply(topology, ranges, ARRAY_LEN(ranges));
    cr_assert_eq(changes, 2);
    cr_assert_eq(all_slot_calls(), 2 * TOPOLOGY_SLOTS);
    cr_assert_eq(topology_replica(topology, 0, 0), TOPOLOGY_NONE);
    destroy();
}

Test(topology, failover_swaps_the_roles)
{
    create_cluster();
    apply_halves();
    const uint16_t replicas[] = {at(7000)};
    const struct topology_range ranges[] = {
        {.first = 0, .last = 8191, .primary = at(7002), .replicas = replicas, .nreplicas = 1},
        {.first = 8192, .last = 16383, .primary = at(7001)},
    };
    topology_apply(topology, ranges, ARRAY_LEN(ranges));
    cr_assert_eq(topology_owner(topology, 0), at(7002));
    cr_assert_eq(topology_role(topology, at(7002)), TOPOLOGY_PRIMARY);
    cr_assert_eq(topology_role(topology, at(7000)), TOPOLOGY_REPLICA);
    cr_assert_eq(topology_replica(topology, 0, 0), at(7000));
    destroy();
}

/* ---- MOVED ------------------------------------------------------------------------------------ */

Test(topology, moved_slot_has_its_new_owner_at_once)
{
    create_cluster();
    apply_halves();
    uint16_t owner = moved(100, at(7000), "127.0.0.1", "7009");
    cr_assert_eq(owner, at(7009));
    cr_assert_eq(topology_owner(topology, 100), owner);
    cr_assert_eq(topology_owner(topology, 101), at(7000));
    cr_assert_eq(topology_role(topology, owner), TOPOLOGY_PRIMARY);
    cr_assert_eq(topology_slots_of(topology, owner), 1);
    cr_assert_eq(topology_slots_of(topology, at(7000)), 8191);
    cr_assert_eq(slot_calls[100], 4);
    cr_assert_eq(owner_before, at(7000));
    cr_assert_eq(owner_after, owner);
    cr_assert_eq(changes, 2);
    cr_assert_eq(wishes, 1);
    destroy();
}

Test(topology, moved_to_where_it_is_changes_nothing)
{
    create_cluster();
    apply_halves();
    cr_assert_eq(moved(100, at(7001), "127.0.0.1", "7000"), at(7000));
    cr_assert_eq(changes, 1);
    cr_assert_eq(wishes, 0);
    destroy();
}

Test(topology, moved_without_a_host_means_the_host_that_said_so)
{
    create_cluster();
    uint16_t from = find("::1", 7000);
    uint16_t owner = moved(5, from, "", "7001");
    cr_assert_eq(owner, find("::1", 7001));
    cr_assert_eq(topology_owner(topology, 5), owner);
    destroy();
}

Test(topology, who_loses_its_last_slot_is_gone)
{
    create_cluster();
    (void)moved(5, at(7000), "127.0.0.1", "7001");
    (void)moved(5, at(7001), "127.0.0.1", "7002");
    cr_assert_eq(topology_role(topology, at(7001)), TOPOLOGY_GONE);
    cr_assert_eq(topology_any(topology, 3), at(7002));
    destroy();
}

Test(topology, moved_that_makes_no_sense_is_not_followed)
{
    create_cluster();
    apply_halves();
    cr_assert_eq(moved(16384, 0, "127.0.0.1", "7001"), TOPOLOGY_NONE);
    cr_assert_eq(moved(5, 0, "127.0.0.1", "0"), TOPOLOGY_NONE);
    cr_assert_eq(moved(5, 0, "no host", "7001"), TOPOLOGY_NONE);
    cr_assert_eq(topology_owner(topology, 5), at(7000));
    cr_assert_eq(changes, 1);
    destroy();
}

Test(topology, suspicion_is_a_wish_for_a_refresh)
{
    create_cluster();
    topology_suspect(topology);
    cr_assert_eq(wishes, 1);
    destroy();
    topology = topology_create(&(struct topology_options){.is_cluster = true});
    topology_suspect(topology); /* no callback is fine */
    apply_halves();
    destroy();
}
