/* SPDX-License-Identifier: Apache-2.0
 *
 * cluster.c: nodes are started, given their slots, introduced to each other and made replicas by hand
 * (redis-cli --cluster create takes three times as long); everything is awaited as the nodes tell it.
 */
#include "cluster.h"

#include "await.h"
#include "cleanup.h"

#include <criterion/criterion.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define AWAIT_MS     20000
#define EXTRA_MAX    24
#define MIGRATE_KEYS 100

static struct client *talk_to(struct cluster *c, int node)
{
    cr_assert(node >= 0 && node < c->n && !c->gone[node], "node %d is gone", node);
    return c->node[node]->direct;
}

static int first_node(const struct cluster *c)
{
    for (int i = 0; i < c->n; i++) {
        if (!c->gone[i]) {
            return i;
        }
    }
    cr_assert_fail("the cluster has no node left");
    return -1;
}

/* A text that a node answers with. */
static const char *text_of(struct cluster *c, int node, const char *command)
{
    struct client *to = talk_to(c, node);
    client_command(to, "%s", command);
    const struct reply *reply = client_reply(to);
    cr_assert(reply->type == '$' && !reply->null, "%s: no text", command);
    return cleanup_printf("%s", reply->text);
}

/* ---- Starting ------------------------------------------------------------------------------ */

static void start_node(struct cluster *c, const char *const *extra)
{
    int bus = free_port();
    const char *const own[] = {"--cluster-enabled",
                               "yes",
                               "--cluster-config-file",
                               "nodes.conf",
                               "--cluster-node-timeout",
                               "2000",
                               "--cluster-port",
                               cleanup_printf("%d", bus),
                               "--cluster-allow-replica-migration",
                               "no", /* who has given its last slot away stays a primary */
                               "--cluster-replica-validity-factor",
                               "0",
                               "--repl-diskless-sync-delay",
                               "0"};
    const char **all = cleanup_alloc((EXTRA_MAX + 1) * sizeof(*all));
    size_t n = 0;

    for (; n < sizeof(own) / sizeof(own[0]); n++) {
        all[n] = own[n];
    }
    for (size_t i = 0; extra != NULL && extra[i] != NULL; i++) {
        cr_assert(n < EXTRA_MAX);
        all[n++] = extra[i];
    }
    all[n] = NULL;
    cr_assert(c->n < CLUSTER_NODES_MAX);
    c->node[c->n] = redis_start(all);
    c->bus[c->n] = bus;
    c->n++;
    snprintf(c->id[c->n - 1], sizeof(c->id[0]), "%s", text_of(c, c->n - 1, "CLUSTER MYID"));
}

static void meet(struct cluster *c, int node)
{
    expect(talk_to(c, first_node(c)), "+OK", "CLUSTER MEET 127.0.0.1 %d %d", c->node[node]->port,
           c->bus[node]);
}

struct waiting {
    struct cluster *c;
    int node;
    const char *text;
};

/* Do all know all, and is nobody in the middle of being introduced? */
static bool all_have_met(void *ctx)
{
    struct cluster *c = ctx;
    for (int i = 0; i < c->n; i++) {
        if (c->gone[i]) {
            continue;
        }
        const char *nodes = text_of(c, i, "CLUSTER NODES");
        for (int k = 0; k < c->n; k++) {
            if (!c->gone[k] && strstr(nodes, c->id[k]) == NULL) {
                return false;
            }
        }
        if (strstr(nodes, "handshake") != NULL) {
            return false;
        }
    }
    return true;
}

static bool has_become_replica(void *ctx)
{
    struct waiting *w = ctx;
    return strcmp(ask(talk_to(w->c, w->node), "CLUSTER REPLICATE %s", w->text), "+OK") == 0;
}

static bool is_connected(void *ctx)
{
    struct waiting *w = ctx;
    return strstr(text_of(w->c, w->node, "INFO replication"), "master_link_status:up") != NULL;
}

struct cluster *cluster_start(int primaries, int replicas, const char *const *extra)
{
    struct cluster *c = cleanup_alloc(sizeof(*c));

    *c = (struct cluster){.primaries = primaries};
    for (int i = 0; i < primaries + replicas; i++) {
        start_node(c, extra);
        expect(talk_to(c, i), "+OK", "CLUSTER SET-CONFIG-EPOCH %d", i + 1);
    }
    for (int i = 1; i < c->n; i++) {
        meet(c, i);
    }
    for (int i = 0; i < primaries; i++) {
        expect(talk_to(c, i), "+OK", "CLUSTER ADDSLOTSRANGE %d %d", i * CLUSTER_SLOTS / primaries,
               (i + 1) * CLUSTER_SLOTS / primaries - 1);
    }
    cr_assert(await(all_have_met, c, AWAIT_MS), "the nodes do not get to know each other");
    for (int i = 0; i < replicas; i++) {
        struct waiting w = {c, primaries + i, c->id[i % primaries]};
        cr_assert(await(has_become_replica, &w, AWAIT_MS), "node %d does not replicate", w.node);
    }
    cluster_await_ok(c, AWAIT_MS);
    for (int i = primaries; i < c->n; i++) {
        struct waiting w = {c, i, NULL};
        cr_assert(await(is_connected, &w, AWAIT_MS), "replica %d is not connected", i);
    }
    return c;
}

/* ---- Who owns what ------------------------------------------------------------------------- */

/* The owner of each slot as one node sees it, by number; -1: nobody, or somebody unknown. */
static bool read_map(struct cluster *c, int node, int map[CLUSTER_SLOTS])
{
    struct client *to = talk_to(c, node);
    for (int s = 0; s < CLUSTER_SLOTS; s++) {
        map[s] = -1;
    }
    client_command(to, "CLUSTER SLOTS");
    const struct reply *reply = client_reply(to);
    if (reply->type != '*') {
        return false;
    }
    for (size_t i = 0; i < reply->items; i++) {
        struct reply **range = reply->item[i]->item;
        for (int k = 0; k < c->n; k++) {
            if (strcmp(range[2]->item[2]->text, c->id[k]) == 0) {
                for (long long s = range[0]->integer; s <= range[1]->integer; s++) {
                    map[s] = k;
                }
            }
        }
    }
    return true;
}

static bool all_agree(void *ctx)
{
    struct cluster *c = ctx;
    static int first[CLUSTER_SLOTS], other[CLUSTER_SLOTS];
    bool has_first = false;

    for (int i = 0; i < c->n; i++) {
        if (c->gone[i]) {
            continue;
        }
        if (strstr(text_of(c, i, "CLUSTER INFO"), "cluster_state:ok") == NULL ||
            !read_map(c, i, has_first ? other : first)) {
            return false;
        }
        if (has_first && memcmp(first, other, sizeof(first)) != 0) {
            return false;
        }
        has_first = true;
    }
    for (int s = 0; s < CLUSTER_SLOTS; s++) {
        if (first[s] < 0 || c->gone[first[s]]) {
            return false;
        }
    }
    return true;
}

void cluster_await_ok(struct cluster *c, int64_t ms)
{
    cr_assert(await(all_agree, c, ms), "the cluster is not up, or its nodes do not agree:\n%s",
              text_of(c, first_node(c), "CLUSTER NODES"));
}

int cluster_slot(struct cluster *c, const char *key)
{
    struct client *to = talk_to(c, first_node(c));
    client_command(to, "CLUSTER KEYSLOT %s", key);
    return (int)client_reply(to)->integer;
}

int cluster_owner(struct cluster *c, int slot)
{
    static int map[CLUSTER_SLOTS];
    return read_map(c, first_node(c), map) ? map[slot] : -1;
}

const char *cluster_key(struct cluster *c, int node, const char *stem)
{
    for (int i = 0; i < 10000; i++) {
        const char *key = cleanup_printf("%s{%d}", stem, i);
        if (cluster_owner(c, cluster_slot(c, key)) == node) {
            return key;
        }
    }
    cr_assert_fail("node %d owns nothing", node);
    return NULL;
}

/* ---- Changing it --------------------------------------------------------------------------- */

static bool epochs_agree(void *ctx)
{
    struct cluster *c = ctx;
    long long least = LLONG_MAX, most = LLONG_MIN;

    for (int i = 0; i < c->n; i++) {
        if (!c->gone[i]) {
            const char *info = text_of(c, i, "CLUSTER INFO");
            long long epoch = field_number(info, "cluster_current_epoch", -1);
            cr_assert(epoch >= 0, "no epoch in:\n%s", info);
            least = epoch < least ? epoch : least;
            most = epoch > most ? epoch : most;
        }
    }
    return least == most;
}

/* Redis gives the target a new epoch at the end. One that has not heard of the source's would take the
 * same; the source then takes a higher one, and may claim the slot with it for good. */
void cluster_move_begin(struct cluster *c, int slot, int from, int to)
{
    cr_assert(await(epochs_agree, c, AWAIT_MS), "the nodes do not agree about the epoch");
    expect(talk_to(c, to), "+OK", "CLUSTER SETSLOT %d IMPORTING %s", slot, c->id[from]);
    expect(talk_to(c, from), "+OK", "CLUSTER SETSLOT %d MIGRATING %s", slot, c->id[to]);
}

void cluster_move_keys(struct cluster *c, int slot, int from, int to)
{
    struct client *source = talk_to(c, from);
    for (;;) {
        client_command(source, "CLUSTER GETKEYSINSLOT %d %d", slot, MIGRATE_KEYS);
        const struct reply *reply = client_reply(source);
        if (reply->items == 0) {
            return;
        }
        char *keys = cleanup_printf("%s", "");
        for (size_t i = 0; i < reply->items; i++) {
            keys = cleanup_printf("%s '%s'", keys, reply->item[i]->text);
        }
        /* REPLACE: the target may have been asked for one of them meanwhile; NOKEY: it expired */
        const char *got =
            ask(source, "MIGRATE 127.0.0.1 %d '' 0 5000 REPLACE KEYS%s", c->node[to]->port, keys);
        cr_assert(strcmp(got, "+OK") == 0 || strcmp(got, "+NOKEY") == 0, "MIGRATE: %s", got);
    }
}

/* The target first: a slot that nobody owned in between would be answered with CLUSTERDOWN. */
void cluster_move_end(struct cluster *c, int slot, int from, int to)
{
    expect(talk_to(c, to), "+OK", "CLUSTER SETSLOT %d NODE %s", slot, c->id[to]);
    expect(talk_to(c, from), "+OK", "CLUSTER SETSLOT %d NODE %s", slot, c->id[to]);
}

struct move {
    struct cluster *c;
    int slot, to;
};

static bool all_have_heard(void *ctx)
{
    struct move *move = ctx;
    static int map[CLUSTER_SLOTS];

    for (int i = 0; i < move->c->n; i++) {
        if (!move->c->gone[i] && (!read_map(move->c, i, map) || map[move->slot] != move->to)) {
            return false;
        }
    }
    return true;
}

void cluster_await_owner(struct cluster *c, int slot, int owner)
{
    struct move move = {c, slot, owner};

    cr_assert(await(all_have_heard, &move, AWAIT_MS), "slot %d does not reach node %d", slot,
              owner);
}

void cluster_move_slot(struct cluster *c, int slot, int to)
{
    int from = cluster_owner(c, slot);

    if (from != to) {
        cluster_move_begin(c, slot, from, to);
        cluster_move_keys(c, slot, from, to);
        cluster_move_end(c, slot, from, to);
    }
    cluster_await_owner(c, slot, to);
}

int cluster_add(struct cluster *c)
{
    start_node(c, NULL);
    meet(c, c->n - 1);
    cr_assert(await(all_have_met, c, AWAIT_MS), "the new node is not known to all");
    cluster_await_ok(c, AWAIT_MS);
    return c->n - 1;
}

int cluster_add_replica(struct cluster *c, int primary)
{
    struct waiting w = {c, cluster_add(c), c->id[primary]};

    cr_assert(await(has_become_replica, &w, AWAIT_MS), "node %d does not replicate", w.node);
    cr_assert(await(is_connected, &w, AWAIT_MS), "replica %d is not connected", w.node);
    return w.node;
}

static bool is_forgotten(void *ctx)
{
    struct waiting *w = ctx;
    for (int i = 0; i < w->c->n; i++) {
        if (!w->c->gone[i] && strstr(text_of(w->c, i, "CLUSTER NODES"), w->text) != NULL) {
            (void)ask(talk_to(w->c, i), "CLUSTER FORGET %s", w->text); /* gossip brought it back */
            return false;
        }
    }
    return true;
}

void cluster_remove(struct cluster *c, int node)
{
    static int map[CLUSTER_SLOTS];
    cr_assert(read_map(c, node, map));
    for (int s = 0; s < CLUSTER_SLOTS; s++) {
        cr_assert(map[s] != node, "node %d still owns slot %d", node, s);
    }
    cluster_kill(c, node);
    struct waiting w = {c, node, c->id[node]};
    cr_assert(await(is_forgotten, &w, AWAIT_MS), "node %d is not forgotten", node);
}

void cluster_kill(struct cluster *c, int node)
{
    c->gone[node] = true;
    redis_stop(c->node[node]);
}

void cluster_restart(struct cluster *c, int node)
{
    redis_restart(c->node[node]);
    c->gone[node] = false;
}

static bool is_primary(void *ctx)
{
    struct waiting *w = ctx;
    return strstr(text_of(w->c, w->node, "INFO replication"), "role:master") != NULL;
}

void cluster_failover(struct cluster *c, int replica)
{
    struct waiting w = {c, replica, NULL};
    bool took_over = false;
    /* Redis tries once, for 5 s; it fails when the others voted in that epoch already. */
    for (int64_t end = now_ms() + AWAIT_MS; !took_over && now_ms() < end;) {
        expect(talk_to(c, replica), "+OK", "CLUSTER FAILOVER");
        took_over = await(is_primary, &w, 6000);
    }
    cr_assert(took_over, "node %d does not take over", replica);
}
