/* SPDX-License-Identifier: Apache-2.0
 *
 * test_trouble.c: what befalls clusters and sentinels, with a load running through it that checks every
 * value (../support/load.h): nothing older than what was acknowledged, nothing that was acknowledged
 * gone, except what Redis itself loses when a primary dies before its replica has it.
 */
#include "cluster_scene.h"

#include "../support/load.h"
#include "../support/sentinel.h"

#include <string.h>

#define LEASE_MS 300
#define LEASE    "invalidation.link_lease=300ms"
/* Above the lease for writes past the proxy: what scheduling may add. */
#define SLACK_MS 700
/* Within which everything goes on after trouble. */
#define SOON_MS 20000

struct trouble {
    struct scene scene;
    struct load *load;
};

static struct load *load_on(const struct nearside *n, const int *ports, bool waits)
{
    struct load_options options = {
        .port = n->port,
        .ports = ports,
        .grace_ms = (LEASE_MS + SLACK_MS) * slowdown(),
        .waits = waits,
    };
    struct load *load = load_start(&options);
    load_await(load, 300, SOON_MS);
    return load;
}

static struct trouble start(int replicas)
{
    struct trouble t = {.scene = scene_start_with(replicas, LEASE)};
    int ports[4] = {0};
    for (int i = 0; i < 3; i++) {
        ports[i] = t.scene.cluster->node[i]->port;
    }
    t.load = load_on(t.scene.proxy, ports, false);
    return t;
}

static void end(struct trouble *t)
{
    load_await(t->load, 300, SOON_MS);
    load_stop(t->load);
    nearside_await_info(t->scene.proxy, "l1_writes_in_flight", 0, 0, 5000);
    nearside_check_alive(t->scene.proxy);
}

/* ---- In front of a cluster ------------------------------------------------------------------ */

SCENARIO(trouble, replicas_take_over_on_demand)
{
    struct trouble t = start(3);

    for (int i = 3; i < 6; i++) {
        cluster_failover(t.scene.cluster, i);
        load_await(t.load, 200, SOON_MS);
    }
    end(&t);
}

SCENARIO(trouble, slots_move_under_load)
{
    struct trouble t = start(0);
    struct cluster *c = t.scene.cluster;

    for (int i = 0; i < 12; i++) {
        /* a key of the load, by its first name */
        int slot = cluster_slot(c, cleanup_printf("load%d.%d", i, i));
        int from = cluster_owner(c, slot);
        int to = (from + 1) % 3;
        cluster_move_begin(c, slot, from, to);
        load_await(t.load, 20, SOON_MS);
        cluster_move_keys(c, slot, from, to);
        load_await(t.load, 20, SOON_MS);
        cluster_move_end(c, slot, from, to);
    }
    end(&t);
    cr_assert(nearside_info(t.scene.proxy, "redirects_moved") > 0);
}

SCENARIO(trouble, a_node_comes_and_goes)
{
    struct trouble t = start(0);
    struct cluster *c = t.scene.cluster;
    int slot[4];
    int owner[4];

    int added = cluster_add(c);
    for (int i = 0; i < 4; i++) {
        slot[i] = cluster_slot(c, cleanup_printf("load%d.%d", 3 * i, 3 * i));
        owner[i] = cluster_owner(c, slot[i]);
        cluster_move_slot(c, slot[i], added);
    }
    load_await(t.load, 200, SOON_MS);
    for (int i = 0; i < 4; i++) {
        cluster_move_slot(c, slot[i], owner[i]);
    }
    cluster_remove(c, added);
    end(&t);
}

/* As containers do it: each node is replaced by one at another address, the seed too. */
SCENARIO(trouble, all_nodes_are_replaced_by_others)
{
    struct trouble t = {.scene = scene_start_with(0, LEASE)};
    struct cluster *c = t.scene.cluster;
    int at[3] = {0, 1, 2};
    t.load = load_on(t.scene.proxy, NULL, false);

    for (int i = 0; i < 3; i++) {
        int old = at[i % 3];
        const char *key = cluster_key(c, old, cleanup_printf("own%d", i));
        expect(c->node[old]->direct, "+OK", "SET %s old", key);
        warm(&t.scene, key, "$old");
        int new = at[i % 3] = cluster_add_replica(c, old);
        cluster_failover(c, new);
        cluster_await_ok(c, 15000);
        expect(c->node[new]->direct, "+OK", "SET %s new", key);
        await_reply(t.scene.c, "$new", 5000, "GET %s", key);
        cluster_remove(c, old);
        nearside_await_info(t.scene.proxy, "topology_refreshes",
                            nearside_info(t.scene.proxy, "topology_refreshes") + 3, 1 << 30, 20000);
        warm(&t.scene, key, "$new");
        expect(c->node[new]->direct, "+OK", "SET %s newer", key);
        await_reply(t.scene.c, "$newer", (LEASE_MS + SLACK_MS) * slowdown(), "GET %s", key);
        load_await(t.load, 100, SOON_MS);
    }
    /* six addresses have been met */
    cr_assert_null(strstr(nearside_info_text(t.scene.proxy), "upstream5:"), "%s",
                   nearside_info_text(t.scene.proxy));
    end(&t);
}

SCENARIO(trouble, a_frozen_node_thaws)
{
    struct trouble t = start(0);

    redis_freeze(t.scene.cluster->node[1]);
    for (int64_t until = now_ms() + 1200; now_ms() < until;) {
        (void)ask(t.scene.c, "GET %s", key_of(&t.scene, 0, "other"));
    }
    redis_thaw(t.scene.cluster->node[1]);
    end(&t);
}

SCENARIO(trouble, a_primary_dies_and_its_replica_takes_over)
{
    struct trouble t = start(3);

    load_doubt(t.load); /* the replica may not have all of it */
    cluster_kill(t.scene.cluster, 1);
    cluster_await_ok(t.scene.cluster, 15000);
    load_forget(t.load);
    end(&t);
}

SCENARIO(trouble, all_nodes_are_restarted)
{
    static const char *const aof[] = {"--appendonly", "yes", "--appendfsync", "always", NULL};
    struct scene s = {.cluster = cluster_start(3, 0, aof)};
    s.proxy = nearside_start(s.cluster->node[0]->port, "upstream.mode=cluster",
                             "upstream.topology_refresh=1s", LEASE, NULL);
    s.c = nearside_connect(s.proxy);
    await_reply(s.c, "nil", 5000, "GET k");
    struct trouble t = {.scene = s};
    int ports[4] = {s.cluster->node[0]->port, s.cluster->node[1]->port, s.cluster->node[2]->port,
                    0};
    t.load = load_on(s.proxy, ports, false);

    for (int i = 0; i < 3; i++) {
        redis_stop(s.cluster->node[i]);
    }
    for (int i = 0; i < 3; i++) {
        redis_restart(s.cluster->node[i]);
    }
    cluster_await_ok(s.cluster, 15000);
    end(&t);
}

SCENARIO(trouble, seeds_that_are_down_are_passed_over)
{
    struct cluster *c = cluster_start(3, 0, NULL);
    int dead = free_port();
    const char *seeds[2];
    for (int i = 0; i < 2; i++) {
        seeds[i] = cleanup_printf("upstream.servers=127.0.0.1:%d", c->node[i]->port);
    }
    struct nearside *n =
        nearside_start(dead, "upstream.mode=cluster", "upstream.topology_refresh=1s", LEASE,
                       seeds[0], seeds[1], NULL);
    struct client *client = nearside_connect(n);
    await_reply(client, "nil", 10000, "GET k");
    int ports[4] = {c->node[0]->port, c->node[1]->port, c->node[2]->port, 0};
    struct trouble t = {.scene = {.cluster = c, .proxy = n, .c = client}};
    t.load = load_on(n, ports, false);

    const char *key = cluster_key(c, 1, "k");
    redis_freeze(c->node[0]); /* and one that answers no more */
    await_reply(client, "nil", 5000, "GET %s", key);
    redis_thaw(c->node[0]);
    end(&t);
}

SCENARIO(trouble, a_password_that_is_wrong_for_a_while)
{
    struct trouble t = start(0);
    struct redis *r = t.scene.cluster->node[1];

    expect(r->direct, "+OK", "CONFIG SET requirepass secret");
    (void)ask(r->direct, "CLIENT KILL TYPE normal SKIPME yes");
    await_reply(t.scene.c, "-NOAUTH ...", 5000, "STRLEN %s", key_of(&t.scene, 1, "k"));
    expect(t.scene.c, ":0", "STRLEN %s", key_of(&t.scene, 0, "k"));
    expect(r->direct, "+OK", "CONFIG SET requirepass ''");
    await_reply(t.scene.c, ":0", 10000, "STRLEN %s", key_of(&t.scene, 1, "k"));
    end(&t);
}

/* ---- Behind sentinels ------------------------------------------------------------------------ */

static struct load *load_behind(struct sentinels *s, struct nearside **n)
{
    static const char *const sets[] = {LEASE, NULL};
    *n = sentinels_nearside(s, sets);
    struct client *c = nearside_connect(*n);
    await_reply(c, "+OK", 5000, "SET first v");
    return load_on(*n, NULL, true);
}

static void end_behind(struct load *load, struct nearside *n)
{
    load_await(load, 300, SOON_MS);
    load_stop(load);
    nearside_check_alive(n);
}

SCENARIO(trouble, sentinels_fail_over_on_demand)
{
    struct sentinels *s = sentinels_start(NULL);
    struct nearside *n;
    struct load *load = load_behind(s, &n);

    sentinels_failover(s);
    sentinels_await_switch(s, n, 1);
    load_wait_no_more(load); /* the other one becomes a replica in its own time */
    end_behind(load, n);
}

SCENARIO(trouble, sentinels_replace_a_master_that_dies)
{
    struct sentinels *s = sentinels_start(NULL);
    struct nearside *n;
    struct load *load = load_behind(s, &n);

    redis_stop(s->server[0]);
    sentinels_await_switch(s, n, 1);
    struct client *c = nearside_connect(n);
    await_reply(c, "$v", 5000, "GET first");
    load_wait_no_more(load);
    end_behind(load, n);
}
