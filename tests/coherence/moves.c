/* SPDX-License-Identifier: Apache-2.0
 *
 * moves.c: others become responsible for keys: slots move, nodes come and go, replicas take over.
 *
 * What Redis loses when a primary dies is no fault of the proxy's. So nobody writes from the moment at which
 * the replica has all there is to the moment at which it is in charge; reads go on. A replica that takes over
 * in a cluster on demand loses nothing, and everybody writes meanwhile.
 */
#include "checker.h"

#include "../support/await.h"
#include "../support/cluster.h"
#include "../support/nearside.h"
#include "../support/sentinel.h"

#include <criterion/criterion.h>
#include <string.h>

#define AWAIT_MS 30000

/* ---- Roles ---------------------------------------------------------------------------------- */

struct pair {
    struct redis *primary, *replica;
    long long offset;
};

static bool is_following(void *ctx)
{
    struct pair *pair = ctx;

    return redis_info(pair->replica, "master_port") == pair->primary->port &&
           strstr(ask(pair->replica->direct, "INFO replication"), "master_link_status:up") != NULL;
}

static bool has_all(void *ctx)
{
    struct pair *pair = ctx;

    return redis_info(pair->replica, "slave_repl_offset") >= pair->offset;
}

static void await_following(struct pair *pair)
{
    cr_assert(await(is_following, pair, AWAIT_MS), "the replica does not follow its primary");
}

/* Nobody writes any more when this returns, and the replica has everything. */
static void stop_writes(struct pair *pair)
{
    pthread_rwlock_wrlock(&ledger_flush_lock);
    pair->offset = redis_info(pair->primary, "master_repl_offset");
    cr_assert(await(has_all, pair, AWAIT_MS), "the replica does not catch up");
}

static void resume_writes(void)
{
    pthread_rwlock_unlock(&ledger_flush_lock);
}

/* ---- Clusters ------------------------------------------------------------------------------- */

static bool is_primary(const struct cluster *c, int node)
{
    return !c->gone[node] && redis_info(c->node[node], "connected_slaves") > 0;
}

int chaos_primary(struct chaos *chaos)
{
    const struct cluster *c = chaos->cluster;
    int node = chaos_dice(chaos, c->n);

    while (!is_primary(c, node)) {
        node = (node + 1) % c->n;
    }
    return node;
}

static int replica_of(const struct cluster *c, int primary)
{
    for (int i = 0; i < c->n; i++) {
        if (!c->gone[i] && redis_info(c->node[i], "master_port") == c->node[primary]->port) {
            return i;
        }
    }
    cr_assert_fail("node %d has no replica", primary);
    return -1;
}

/* The slot of some key. */
static int some_slot(struct chaos *chaos)
{
    return cluster_slot(chaos->cluster, ledger_key(chaos_dice(chaos, ledger_places()))->name);
}

/* Slowly, so that keys of it are in both places for a while. A FLUSHALL may miss what is on its way: there is
 * none meanwhile. */
static void move_slowly(struct chaos *chaos, int slot, int to)
{
    struct cluster *c = chaos->cluster;
    int from = cluster_owner(c, slot);

    pthread_rwlock_rdlock(&ledger_flush_lock);
    if (from != to) {
        cluster_move_begin(c, slot, from, to);
        pass_time(chaos_dice(chaos, 60));
        cluster_move_keys(c, slot, from, to);
        pass_time(chaos_dice(chaos, 60));
        cluster_move_end(c, slot, from, to);
    }
    cluster_await_owner(c, slot, to);
    pthread_rwlock_unlock(&ledger_flush_lock);
}

bool move_slots(struct chaos *chaos)
{
    for (int i = 0; i < 5; i++) {
        move_slowly(chaos, some_slot(chaos), chaos_primary(chaos));
    }
    return true;
}

bool add_and_remove(struct chaos *chaos)
{
    struct cluster *c = chaos->cluster;
    int slot[4];

    if (c->n == CLUSTER_NODES_MAX) {
        return false;
    }
    int added = cluster_add(c);
    for (int i = 0; i < 4; i++) {
        slot[i] = some_slot(chaos);
        move_slowly(chaos, slot[i], added);
    }
    pass_time(chaos_dice(chaos, 500));
    for (int i = 0; i < 4; i++) {
        move_slowly(chaos, slot[i], chaos_primary(chaos));
    }
    cluster_remove(c, added);
    return true;
}

static void switch_cluster(struct chaos *chaos, bool dies)
{
    struct cluster *c = chaos->cluster;
    int old = chaos_primary(chaos);
    int new = replica_of(c, old);
    struct pair pair = {c->node[old], c->node[new], 0};

    if (dies) {
        stop_writes(&pair);
        cluster_kill(c, old);
        cluster_await_ok(c, AWAIT_MS);
        resume_writes();
        pass_time(500);
        cluster_restart(c, old);
    } else {
        cluster_failover(c, new);
    }
    await_following(&(struct pair){c->node[new], c->node[old], 0});
    cluster_await_ok(c, AWAIT_MS);
}

/* ---- Sentinels ------------------------------------------------------------------------------ */

static void switch_sentinels(struct chaos *chaos, bool dies)
{
    struct sentinels *s = chaos->sentinels;
    int new = chaos->redis == s->server[0] ? 1 : 0;
    struct redis *old = chaos->redis;
    struct pair pair = {old, s->server[new], 0};

    stop_writes(&pair);
    if (dies) {
        redis_stop(old);
    } else {
        sentinels_failover(s);
    }
    sentinels_await_switch(s, chaos->proxy, new);
    traffic_lead(chaos->traffic, s->server[new]->port);
    chaos->redis = s->server[new];
    resume_writes();
    pass_time(500);
    if (dies) {
        redis_restart(old);
    }
    /* sooner than sentinels do it, eight seconds later */
    client_close(old->direct);
    old->direct = client_connect(old->port);
    (void)ask(old->direct, "REPLICAOF 127.0.0.1 %d", s->server[new]->port);
    await_following(&(struct pair){s->server[new], old, 0});
}

/* ---- Both ----------------------------------------------------------------------------------- */

static void change_primary(struct chaos *chaos, bool dies)
{
    if (chaos->cluster != NULL) {
        switch_cluster(chaos, dies);
    } else {
        switch_sentinels(chaos, dies);
    }
}

bool switch_over(struct chaos *chaos)
{
    change_primary(chaos, false);
    return true;
}

bool kill_primary(struct chaos *chaos)
{
    change_primary(chaos, true);
    return true;
}
