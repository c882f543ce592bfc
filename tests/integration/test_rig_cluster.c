/* SPDX-License-Identifier: Apache-2.0
 *
 * test_rig_cluster.c: the test cluster itself, without the proxy: what other tests take for granted.
 */
#include "../support/await.h"
#include "../support/cluster.h"
#include "../support/scenario.h"

#include <criterion/criterion.h>

SCENARIO(cluster_rig, slots_move_nodes_come_and_go_and_replicas_take_over)
{
    struct cluster *c = cluster_start(3, 3, NULL);
    const char *key = cluster_key(c, 1, "key");
    int slot = cluster_slot(c, key);

    cr_assert_eq(cluster_owner(c, slot), 1);
    expect(c->node[1]->direct, "+OK", "SET %s v", key);
    cluster_move_begin(c, slot, 1, 2);
    cluster_move_keys(c, slot, 1, 2);
    expect(c->node[1]->direct, "-ASK ...", "GET %s", key);
    cluster_move_end(c, slot, 1, 2);
    expect(c->node[1]->direct, "-MOVED ...", "GET %s", key);
    expect(c->node[2]->direct, "$v", "GET %s", key);
    cluster_await_ok(c, 10000);

    int added = cluster_add(c);
    cluster_move_slot(c, slot, added);
    expect(c->node[added]->direct, "$v", "GET %s", key);
    cluster_move_slot(c, slot, 1);
    cluster_remove(c, added);
    cluster_await_ok(c, 10000);

    cluster_failover(c, 3);
    cluster_kill(c, 1);
    cluster_await_ok(c, 15000);
    cr_assert_eq(cluster_owner(c, slot), 4);
}
