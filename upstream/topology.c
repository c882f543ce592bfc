/* SPDX-License-Identifier: Apache-2.0
 *
 * topology.c: the nodes of the process, and the owner of each slot.
 *
 *   topology_owner ───► owners[slot] (an atomic) ───► topology_node ───► nodes[index] (written once)
 *                           ▲
 *   topology_moved ─────────┤ under the lock: slot_changed, owner, slot_changed, roles, version;
 *   topology_apply ─────────┘ after it: changed
 *
 * Invariants: nodes only grow in number, and one that can be seen never changes its place. Roles, the
 * lists of primaries and replicas and the counts follow from owners and are rebuilt with each change;
 * who reads them in between sees the old or the new one of each, which is as good as having asked a
 * moment earlier or later.
 *
 * Threads: any. The lock is held while something changes, never by who asks. Not here: where maps come
 * from (cluster.c, sentinel.c), and what follows from a change (proxy/).
 */
#include "topology.h"

#include "../conf/mem.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>

#define REPLICAS_MAX 16 /* of one primary; further ones are not read from */
#define HOST_MAX     256
#define PORT_MAX     6

/* What `changed` of a node is told with. */
struct place {
    struct topology *topology;
    uint16_t index;
};

struct topology {
    struct topology_options options;
    pthread_mutex_t lock; /* for changes */
    struct place *places;
    struct node **nodes; /* TOPOLOGY_NODES_MAX of them; the first `count` may be read */
    _Atomic uint16_t count;
    _Atomic uint64_t version;
    _Atomic uint16_t nprimaries;
    _Atomic uint16_t primaries[TOPOLOGY_NODES_MAX];
    _Atomic uint8_t roles[TOPOLOGY_NODES_MAX];
    _Atomic uint32_t slots_of[TOPOLOGY_NODES_MAX];
    _Atomic uint16_t replicas[TOPOLOGY_NODES_MAX][REPLICAS_MAX]; /* up to the first NONE */
    _Atomic uint16_t owners[TOPOLOGY_SLOTS];
};

/* ---- Slots of keys ------------------------------------------------------------------------- */

/* CRC-16/XMODEM: polynomial 0x1021, most significant bit first, starting with 0. */
static const uint16_t CRC16[256] = {
    0x0000, 0x1021, 0x2042, 0x3063, 0x4084, 0x50a5, 0x60c6, 0x70e7, 0x8108, 0x9129, 0xa14a, 0xb16b,
    0xc18c, 0xd1ad, 0xe1ce, 0xf1ef, 0x1231, 0x0210, 0x3273, 0x2252, 0x52b5, 0x4294, 0x72f7, 0x62d6,
    0x9339, 0x8318, 0xb37b, 0xa35a, 0xd3bd, 0xc39c, 0xf3ff, 0xe3de, 0x2462, 0x3443, 0x0420, 0x1401,
    0x64e6, 0x74c7, 0x44a4, 0x5485, 0xa56a, 0xb54b, 0x8528, 0x9509, 0xe5ee, 0xf5cf, 0xc5ac, 0xd58d,
    0x3653, 0x2672, 0x1611, 0x0630, 0x76d7, 0x66f6, 0x5695, 0x46b4, 0xb75b, 0xa77a, 0x9719, 0x8738,
    0xf7df, 0xe7fe, 0xd79d, 0xc7bc, 0x48c4, 0x58e5, 0x6886, 0x78a7, 0x0840, 0x1861, 0x2802, 0x3823,
    0xc9cc, 0xd9ed, 0xe98e, 0xf9af, 0x8948, 0x9969, 0xa90a, 0xb92b, 0x5af5, 0x4ad4, 0x7ab7, 0x6a96,
    0x1a71, 0x0a50, 0x3a33, 0x2a12, 0xdbfd, 0xcbdc, 0xfbbf, 0xeb9e, 0x9b79, 0x8b58, 0xbb3b, 0xab1a,
    0x6ca6, 0x7c87, 0x4ce4, 0x5cc5, 0x2c22, 0x3c03, 0x0c60, 0x1c41, 0xedae, 0xfd8f, 0xcdec, 0xddcd,
    0xad2a, 0xbd0b, 0x8d68, 0x9d49, 0x7e97, 0x6eb6, 0x5ed5, 0x4ef4, 0x3e13, 0x2e32, 0x1e51, 0x0e70,
    0xff9f, 0xefbe, 0xdfdd, 0xcffc, 0xbf1b, 0xaf3a, 0x9f59, 0x8f78, 0x9188, 0x81a9, 0xb1ca, 0xa1eb,
    0xd10c, 0xc12d, 0xf14e, 0xe16f, 0x1080, 0x00a1, 0x30c2, 0x20e3, 0x5004, 0x4025, 0x7046, 0x6067,
    0x83b9, 0x9398, 0xa3fb, 0xb3da, 0xc33d, 0xd31c, 0xe37f, 0xf35e, 0x02b1, 0x1290, 0x22f3, 0x32d2,
    0x4235, 0x5214, 0x6277, 0x7256, 0xb5ea, 0xa5cb, 0x95a8, 0x8589, 0xf56e, 0xe54f, 0xd52c, 0xc50d,
    0x34e2, 0x24c3, 0x14a0, 0x0481, 0x7466, 0x6447, 0x5424, 0x4405, 0xa7db, 0xb7fa, 0x8799, 0x97b8,
    0xe75f, 0xf77e, 0xc71d, 0xd73c, 0x26d3, 0x36f2, 0x0691, 0x16b0, 0x6657, 0x7676, 0x4615, 0x5634,
    0xd94c, 0xc96d, 0xf90e, 0xe92f, 0x99c8, 0x89e9, 0xb98a, 0xa9ab, 0x5844, 0x4865, 0x7806, 0x6827,
    0x18c0, 0x08e1, 0x3882, 0x28a3, 0xcb7d, 0xdb5c, 0xeb3f, 0xfb1e, 0x8bf9, 0x9bd8, 0xabbb, 0xbb9a,
    0x4a75, 0x5a54, 0x6a37, 0x7a16, 0x0af1, 0x1ad0, 0x2ab3, 0x3a92, 0xfd2e, 0xed0f, 0xdd6c, 0xcd4d,
    0xbdaa, 0xad8b, 0x9de8, 0x8dc9, 0x7c26, 0x6c07, 0x5c64, 0x4c45, 0x3ca2, 0x2c83, 0x1ce0, 0x0cc1,
    0xef1f, 0xff3e, 0xcf5d, 0xdf7c, 0xaf9b, 0xbfba, 0x8fd9, 0x9ff8, 0x6e17, 0x7e36, 0x4e55, 0x5e74,
    0x2e93, 0x3eb2, 0x0ed1, 0x1ef0,
};

static uint16_t crc16(struct slice s)
{
    uint16_t crc = 0;
    for (size_t i = 0; i < s.n; i++) {
        crc = (uint16_t)(crc << 8 ^ CRC16[(crc >> 8 ^ (unsigned char)s.p[i]) & 0xff]);
    }
    return crc;
}

uint16_t topology_slot(struct slice key)
{
    const char *open = key.n == 0 ? NULL : memchr(key.p, '{', key.n);
    if (open != NULL) {
        const char *tag = open + 1;
        const char *close = memchr(tag, '}', (size_t)(key.p + key.n - tag));
        if (close != NULL && close > tag) {
            key = slice_of(tag, (size_t)(close - tag));
        }
    }
    return crc16(key) % TOPOLOGY_SLOTS;
}

/* ---- Nodes --------------------------------------------------------------------------------- */

static void on_node_changed(void *ctx)
{
    const struct place *place = ctx;
    const struct topology_options *o = &place->topology->options;
    if (o->node_changed != NULL) {
        o->node_changed(place->index, o->ctx);
    }
}

/* With the lock, or before anybody else knows of the topology. */
static uint16_t add_node(struct topology *t, const char *host, const char *port)
{
    uint16_t index = atomic_load_explicit(&t->count, memory_order_relaxed);
    if (index == TOPOLOGY_NODES_MAX) {
        return TOPOLOGY_NONE;
    }
    struct node_options options = t->options.node;
    t->places[index] = (struct place){t, index};
    options.host = host;
    options.port = port;
    options.changed = on_node_changed;
    options.ctx = &t->places[index];
    t->nodes[index] = node_create(&options);
    /* release: who sees the count sees the node */
    atomic_store_explicit(&t->count, (uint16_t)(index + 1), memory_order_release);
    return index;
}

static bool is_at(const struct node *node, struct slice host, struct slice port)
{
    const struct node_options *o = node_options(node);
    return slice_eq(slice_str(o->host), host) && slice_eq(slice_str(o->port), port);
}

static bool is_port(struct slice text)
{
    int64_t port;
    return slice_to_int64(text, &port) && port > 0 && port <= UINT16_MAX;
}

/* With the lock. */
static uint16_t find_or_add(struct topology *t, struct slice host, struct slice port)
{
    char host_text[HOST_MAX];
    char port_text[PORT_MAX];
    uint16_t n = atomic_load_explicit(&t->count, memory_order_relaxed);
    for (uint16_t i = 0; i < n; i++) {
        if (is_at(t->nodes[i], host, port)) {
            return i;
        }
    }
    if (host.n == 0 || host.n >= HOST_MAX || memchr(host.p, 0, host.n) != NULL || !is_port(port) ||
        port.n >= PORT_MAX) {
        return TOPOLOGY_NONE;
    }
    (void)snprintf(host_text, sizeof(host_text), "%.*s", (int)host.n, host.p);
    (void)snprintf(port_text, sizeof(port_text), "%.*s", (int)port.n, port.p);
    return add_node(t, host_text, port_text);
}

uint16_t topology_find(struct topology *t, struct slice host, struct slice port)
{
    pthread_mutex_lock(&t->lock);
    uint16_t index = find_or_add(t, host, port);
    pthread_mutex_unlock(&t->lock);
    return index;
}

uint16_t topology_count(const struct topology *t)
{
    return atomic_load_explicit(&t->count, memory_order_acquire);
}

struct node *topology_node(const struct topology *t, uint16_t index)
{
    bug_on(index >= topology_count(t));
    return t->nodes[index];
}

/* ---- Life ---------------------------------------------------------------------------------- */

struct topology *topology_create(const struct topology_options *options)
{
    struct topology *t = mem_zalloc(sizeof(*t));
    t->options = *options;
    pthread_mutex_init(&t->lock, NULL);
    t->places = mem_zalloc(TOPOLOGY_NODES_MAX * sizeof(*t->places));
    t->nodes = mem_zalloc(TOPOLOGY_NODES_MAX * sizeof(struct node *));
    for (size_t i = 0; i < TOPOLOGY_SLOTS; i++) {
        atomic_store_explicit(&t->owners[i], TOPOLOGY_NONE, memory_order_relaxed);
    }
    for (size_t i = 0; i < TOPOLOGY_NODES_MAX; i++) {
        atomic_store_explicit(&t->replicas[i][0], TOPOLOGY_NONE, memory_order_relaxed);
    }
    if (!options->is_cluster) {
        uint16_t first = add_node(t, options->node.host, options->node.port);
        atomic_store_explicit(&t->roles[first], TOPOLOGY_PRIMARY, memory_order_relaxed);
        atomic_store_explicit(&t->slots_of[first], TOPOLOGY_SLOTS, memory_order_relaxed);
    }
    return t;
}

void topology_destroy(struct topology *t)
{
    if (t == NULL) {
        return;
    }
    for (uint16_t i = 0; i < topology_count(t); i++) {
        node_destroy(t->nodes[i]);
    }
    pthread_mutex_destroy(&t->lock);
    mem_free(t->nodes);
    mem_free(t->places);
    mem_free(t);
}

bool topology_is_cluster(const struct topology *t)
{
    return t->options.is_cluster;
}

/* ---- Asking -------------------------------------------------------------------------------- */

uint16_t topology_owner(const struct topology *t, uint16_t slot)
{
    if (!t->options.is_cluster) {
        return 0;
    }
    return atomic_load_explicit(&t->owners[slot], memory_order_acquire);
}

uint16_t topology_any(const struct topology *t, uint32_t hint)
{
    if (!t->options.is_cluster) {
        return 0;
    }
    uint16_t n = atomic_load_explicit(&t->nprimaries, memory_order_acquire);
    return n == 0 ? TOPOLOGY_NONE
                  : atomic_load_explicit(&t->primaries[hint % n], memory_order_relaxed);
}

uint16_t topology_replica(const struct topology *t, uint16_t slot, uint32_t hint)
{
    uint16_t owner = topology_owner(t, slot);
    uint32_t n = 0;
    if (owner == TOPOLOGY_NONE) {
        return TOPOLOGY_NONE;
    }
    const _Atomic uint16_t *of = t->replicas[owner];
    while (n < REPLICAS_MAX &&
           atomic_load_explicit(&of[n], memory_order_relaxed) != TOPOLOGY_NONE) {
        n++;
    }
    /* may be NONE all the same, if the list has just become shorter */
    return n == 0 ? TOPOLOGY_NONE : atomic_load_explicit(&of[hint % n], memory_order_relaxed);
}

enum topology_role topology_role(const struct topology *t, uint16_t index)
{
    bug_on(index >= TOPOLOGY_NODES_MAX);
    return (enum topology_role)atomic_load_explicit(&t->roles[index], memory_order_relaxed);
}

uint32_t topology_slots_of(const struct topology *t, uint16_t index)
{
    bug_on(index >= TOPOLOGY_NODES_MAX);
    return atomic_load_explicit(&t->slots_of[index], memory_order_relaxed);
}

uint64_t topology_version(const struct topology *t)
{
    return atomic_load_explicit(&t->version, memory_order_acquire);
}

/* ---- Changing ------------------------------------------------------------------------------ */

static void set_role(struct topology *t, uint16_t index, enum topology_role role)
{
    atomic_store_explicit(&t->roles[index], (uint8_t)role, memory_order_relaxed);
}

/* With the lock: what follows from the owners. Replicas stay, unless they own something now. */
static void rebuild(struct topology *t)
{
    uint32_t counts[TOPOLOGY_NODES_MAX] = {0};
    uint16_t n = atomic_load_explicit(&t->count, memory_order_relaxed);
    uint16_t primaries = 0;
    for (size_t i = 0; i < TOPOLOGY_SLOTS; i++) {
        uint16_t owner = atomic_load_explicit(&t->owners[i], memory_order_relaxed);
        if (owner != TOPOLOGY_NONE) {
            counts[owner]++;
        }
    }
    for (uint16_t i = 0; i < n; i++) {
        atomic_store_explicit(&t->slots_of[i], counts[i], memory_order_relaxed);
        if (counts[i] > 0) {
            set_role(t, i, TOPOLOGY_PRIMARY);
            atomic_store_explicit(&t->primaries[primaries++], i, memory_order_relaxed);
        } else if (topology_role(t, i) == TOPOLOGY_PRIMARY) {
            set_role(t, i, TOPOLOGY_GONE);
        }
    }
    atomic_store_explicit(&t->nprimaries, primaries, memory_order_release);
    atomic_fetch_add_explicit(&t->version, 1, memory_order_release);
}

static void tell_slot(const struct topology *t, uint16_t slot)
{
    if (t->options.slot_changed != NULL) {
        t->options.slot_changed(slot, t->options.ctx);
    }
}

static void tell_changed(const struct topology *t)
{
    if (t->options.changed != NULL) {
        t->options.changed(t->options.ctx);
    }
}

void topology_suspect(struct topology *t)
{
    if (t->options.wants_refresh != NULL) {
        t->options.wants_refresh(t->options.ctx);
    }
}

uint16_t topology_moved(struct topology *t, uint16_t slot, uint16_t from, struct slice host,
                        struct slice port)
{
    bool changes = false;
    bug_on(slot >= TOPOLOGY_SLOTS || !t->options.is_cluster);
    pthread_mutex_lock(&t->lock);
    if (host.n == 0 && from < topology_count(t)) {
        host = slice_str(node_options(t->nodes[from])->host);
    }
    uint16_t owner = find_or_add(t, host, port);
    if (owner != TOPOLOGY_NONE &&
        owner != atomic_load_explicit(&t->owners[slot], memory_order_relaxed)) {
        changes = true;
        tell_slot(t, slot);
        atomic_store_explicit(&t->owners[slot], owner, memory_order_release);
        tell_slot(t, slot);
        rebuild(t);
    }
    pthread_mutex_unlock(&t->lock);
    if (changes) {
        tell_changed(t);
        topology_suspect(t);
    }
    return owner;
}

/* With the lock. True: some node is a replica, or one of somebody, that was not. */
static bool set_replicas(struct topology *t, const struct topology_range *ranges, size_t n)
{
    uint16_t(*next)[REPLICAS_MAX] = mem_alloc(TOPOLOGY_NODES_MAX * sizeof(*next));
    bool changes = false;
    memset(next, 0xff, TOPOLOGY_NODES_MAX * sizeof(*next)); /* NONE everywhere */
    for (size_t i = 0; i < n; i++) {
        uint16_t *of = next[ranges[i].primary];
        for (size_t k = 0; k < ranges[i].nreplicas; k++) {
            size_t at = 0;
            while (at < REPLICAS_MAX && of[at] != TOPOLOGY_NONE &&
                   of[at] != ranges[i].replicas[k]) {
                at++;
            }
            if (at < REPLICAS_MAX) {
                of[at] = ranges[i].replicas[k];
            }
        }
    }
    for (uint16_t i = 0; i < topology_count(t); i++) {
        if (topology_role(t, i) == TOPOLOGY_REPLICA) {
            set_role(t, i, TOPOLOGY_GONE);
        }
    }
    for (size_t i = 0; i < TOPOLOGY_NODES_MAX; i++) {
        for (size_t k = 0; k < REPLICAS_MAX; k++) {
            uint16_t old = atomic_load_explicit(&t->replicas[i][k], memory_order_relaxed);
            bool counts = k == 0 || atomic_load_explicit(&t->replicas[i][k - 1],
                                                         memory_order_relaxed) != TOPOLOGY_NONE;
            changes = changes || (counts && old != next[i][k]);
            atomic_store_explicit(&t->replicas[i][k], next[i][k], memory_order_relaxed);
            if (next[i][k] != TOPOLOGY_NONE && topology_slots_of(t, next[i][k]) == 0) {
                set_role(t, next[i][k], TOPOLOGY_REPLICA);
            }
        }
    }
    mem_free(next);
    return changes;
}

/* With the lock. The first drops come before any new owner can be seen, the second behind the last. */
static bool set_owners(struct topology *t, const uint16_t *next)
{
    bool changes = false;
    bool *changed = mem_zalloc(TOPOLOGY_SLOTS * sizeof(*changed));
    for (uint16_t i = 0; i < TOPOLOGY_SLOTS; i++) {
        changed[i] = atomic_load_explicit(&t->owners[i], memory_order_relaxed) != next[i];
        if (changed[i]) {
            tell_slot(t, i);
        }
    }
    for (uint16_t i = 0; i < TOPOLOGY_SLOTS; i++) {
        if (changed[i]) {
            atomic_store_explicit(&t->owners[i], next[i], memory_order_release);
            tell_slot(t, i);
            changes = true;
        }
    }
    mem_free(changed);
    return changes;
}

void topology_apply(struct topology *t, const struct topology_range *ranges, size_t n)
{
    bug_on(!t->options.is_cluster);
    uint16_t *next = mem_alloc(TOPOLOGY_SLOTS * sizeof(*next));
    memset(next, 0xff, TOPOLOGY_SLOTS * sizeof(*next)); /* NONE */
    for (size_t i = 0; i < n; i++) {
        bug_on(ranges[i].primary >= topology_count(t));
        for (uint32_t s = ranges[i].first; s <= ranges[i].last && s < TOPOLOGY_SLOTS; s++) {
            next[s] = ranges[i].primary;
        }
    }
    pthread_mutex_lock(&t->lock);
    bool owners = set_owners(t, next);
    if (owners) {
        rebuild(t);
    }
    bool replicas = set_replicas(t, ranges, n);
    if (replicas && !owners) {
        atomic_fetch_add_explicit(&t->version, 1, memory_order_release);
    }
    pthread_mutex_unlock(&t->lock);
    mem_free(next);
    if (owners || replicas) {
        tell_changed(t);
    }
}
