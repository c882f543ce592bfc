/* SPDX-License-Identifier: Apache-2.0
 *
 * race_topology.c: maps are applied, slots move and nodes give way to others while other threads ask who owns
 * what. A plain program, because ThreadSanitizer cannot run Criterion. Ends with 0 when every reader was only
 * ever led to nodes that exist, and nobody who saw a slot's new owner found its old generation.
 */
#include "../../upstream/topology.h"

#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>

#define READERS   2
#define WRITERS   2
#define ROUNDS    40
#define NODES     40      /* at one time */
#define COMING    2000    /* ports of those that come and go */
#define TURNS_MAX 1000000 /* of waiting for another thread */
#define STEP      37      /* between the slots that readers look at */

static struct topology *topology;
static _Atomic unsigned writing = WRITERS;
static _Atomic uint64_t generations[TOPOLOGY_SLOTS]; /* as L1 keeps them */
static _Atomic uint64_t found;

static void require(bool promise, const char *what)
{
    if (!promise) {
        fprintf(stderr, "race_topology: %s\n", what);
        abort();
    }
}

/* Readers get their turn in the middle of a change: of some of their slots, or it takes minutes. */
static void let_read(uint16_t slot)
{
    if (slot % (40 * STEP) == 0) {
        (void)sched_yield();
    }
}

static void on_slot_changed(uint16_t slot, void *ctx)
{
    (void)ctx;
    let_read(slot);
    (void)atomic_fetch_add_explicit(&generations[slot], 1, memory_order_release);
    let_read(slot);
}

static uint16_t node_at(unsigned i)
{
    char port[8];
    (void)snprintf(port, sizeof(port), "%u", 7000 + i % COMING);
    uint16_t index = topology_find(topology, SLICE("127.0.0.1"), slice_str(port));
    require(index != TOPOLOGY_NONE, "no node");
    return index;
}

static void apply(unsigned round)
{
    round *= NODES; /* others than before */
    const uint16_t replicas[] = {node_at(round + 3), node_at(round + 4)};
    const struct topology_range ranges[] = {
        {.first = 0, .last = 8000, .primary = node_at(round)},
        {.first = 8001,
         .last = 16383,
         .primary = node_at(round + 1),
         .replicas = replicas,
         .nreplicas = 1 + round % 2},
    };
    topology_apply(topology, ranges, ARRAY_LEN(ranges));
}

static void *write_maps(void *arg)
{
    unsigned self = *(unsigned *)arg;
    for (unsigned i = 0; i < ROUNDS; i++) {
        char port[8];
        apply(i + self);
        for (uint16_t slot = 0; slot < 200; slot++) {
            (void)snprintf(port, sizeof(port), "%u", 7000 + (NODES * i + slot % NODES) % COMING);
            (void)topology_moved(topology, slot, 0, SLICE(""), slice_str(port));
        }
        topology_suspect(topology);
    }
    (void)atomic_fetch_sub_explicit(&writing, 1, memory_order_release);
    return NULL;
}

static void look(uint16_t index)
{
    if (index != TOPOLOGY_NONE) {
        require(index < topology_count(topology), "an index beyond the nodes");
        require(node_name(topology_node(topology, index))[0] == '1', "no node behind an index");
        (void)topology_role(topology, index);
        (void)topology_slots_of(topology, index);
        (void)atomic_fetch_add_explicit(&found, 1, memory_order_relaxed);
    }
}

/* Who changes an owner raises the generation before and behind it, so that an odd one is that of a change
 * under way: what was begun in it towards either owner ends with it. */
static void await_end_of(uint16_t slot, uint64_t generation)
{
    for (int i = 0; atomic_load_explicit(&generations[slot], memory_order_acquire) == generation;
         i++) {
        require(i < TURNS_MAX, "a change without an end");
        (void)sched_yield();
    }
}

/* As a worker does it: the generation first, then the owner. */
static void look_at_slot(uint16_t slot)
{
    uint64_t before = atomic_load_explicit(&generations[slot], memory_order_acquire);
    uint16_t owner = topology_owner(topology, slot);
    uint16_t again = topology_owner(topology, slot);
    uint64_t after = atomic_load_explicit(&generations[slot], memory_order_acquire);
    if (owner != again && before % 2 == 1) {
        await_end_of(slot, before);
    } else {
        require(owner == again || after > before, "another owner in the same generation");
    }
    look(owner);
    look(topology_replica(topology, slot, slot));
}

static void *read_maps(void *arg)
{
    (void)arg;
    uint64_t version = 0;
    while (atomic_load_explicit(&writing, memory_order_acquire) > 0) {
        for (uint16_t slot = 0; slot < TOPOLOGY_SLOTS; slot += STEP) {
            look_at_slot(slot);
        }
        look(topology_any(topology, (uint32_t)version));
        uint64_t now = topology_version(topology);
        require(now >= version, "the version fell");
        version = now;
    }
    return NULL;
}

int main(void)
{
    pthread_t threads[READERS + WRITERS];
    unsigned self[WRITERS];
    topology = topology_create(
        &(struct topology_options){.is_cluster = true, .slot_changed = on_slot_changed});
    (void)node_at(0);
    for (unsigned i = 0; i < READERS + WRITERS; i++) {
        bool writer = i < WRITERS;
        if (writer) {
            self[i] = i;
        }
        require(pthread_create(&threads[i], NULL, writer ? write_maps : read_maps,
                               writer ? &self[i] : NULL) == 0,
                "no thread");
    }
    for (unsigned i = 0; i < READERS + WRITERS; i++) {
        pthread_join(threads[i], NULL);
    }
    uint64_t seen = atomic_load_explicit(&found, memory_order_relaxed);
    require(seen > 0, "no reader ever found a node");
    require(topology_count(topology) < TOPOLOGY_NODES_MAX, "no index was used again");
    topology_destroy(topology);
    printf("race_topology: %llu look-ups found a node\n", (unsigned long long)seen);
    return 0;
}
