/* SPDX-License-Identifier: Apache-2.0
 *
 * topology.c: who owns what, read by all workers for each command and changed by few.
 *
 * Way through the file: the slot of a key, life, reading, finding a node, changing owners.
 *
 * Threads: readers take no lock. What they read are single atomics: the owner of a slot, the role of
 * a node, an entry of a list. Whoever reads two of them may see one change between; each for itself
 * names a node that exists. A node is in place before its index can be read anywhere: `count` and
 * `owners` are stored with release and loaded with acquire. `lock` makes one thread at a time add or move
 * nodes or change owners, and is held while slot_changed, node_changed (of a move) and `changed` run, so that
 * these see changes in the order in which they happened.
 *
 * Not here: asking servers for the map, and when to (the refresher), connections, what a redirect
 * does to the commands under way.
 */
#include "topology.h"

#include "../conf/mem.h"

#include <pthread.h>
#include <stdlib.h>

#define HOST_MAX  255
#define PORT_MAX  5
#define MAPS_GONE 2 /* that do not name a node, before its index may be another's */

/* What `node_options.changed` is called with: it must find the index back. */
struct member {
    struct topology *topology;
    struct node *node; /* written once, before `count` covers it */
    uint16_t index;
    _Atomic uint16_t nreplicas;
    _Atomic uint16_t replicas[TOPOLOGY_REPLICAS_MAX];
    _Atomic uint32_t slots;
    _Atomic uint8_t role; /* enum topology_role */
    bool keeps;           /* its index, to the end; this and the next with the lock */
    uint64_t named;       /* how many maps had come when it was last named */
};

struct topology {
    struct topology_options options; /* the texts in `node` are copies */

    /* Acquire and release: the generation of a slot in L1 is asked for before its owner. */
    _Atomic uint16_t owners[TOPOLOGY_SLOTS];
    _Atomic uint16_t count;
    _Atomic uint16_t nprimaries;
    _Atomic uint16_t primaries[TOPOLOGY_NODES_MAX]; /* those with role PRIMARY */
    _Atomic uint64_t version;
    struct member members[TOPOLOGY_NODES_MAX];

    pthread_mutex_t lock; /* whoever changes anything above */
    uint64_t maps;        /* so far; with the lock */
};

/* ---- The slot of a key --------------------------------------------------------------------- */

/* CRC16 of one byte: polynomial 0x1021, most significant bit first, starting from 0. */
static const uint16_t crc16_of_byte[256] = {
    /* clang-format off */
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
    /* clang-format on */
};

static uint16_t crc16(struct slice s)
{
    uint16_t crc = 0;
    for (size_t i = 0; i < s.n; i++) {
        crc = (uint16_t)((crc << 8) ^ crc16_of_byte[(crc >> 8) ^ (uint8_t)s.p[i]]);
    }
    return crc;
}

uint16_t topology_slot(struct slice key)
{
    const char *open = key.n == 0 ? NULL : memchr(key.p, '{', key.n);
    if (open != NULL) {
        const char *tag = open + 1;
        const char *end = key.p + key.n;
        const char *close = tag == end ? NULL : memchr(tag, '}', (size_t)(end - tag));
        if (close != NULL && close != tag) {
            key = slice_of(tag, (size_t)(close - tag));
        }
    }
    return crc16(key) % TOPOLOGY_SLOTS;
}

/* ---- Life ---------------------------------------------------------------------------------- */

static char *copy_or_null(const char *s)
{
    return s == NULL ? NULL : mem_strdup(s);
}

static void free_text(const char *s)
{
    mem_free((void *)(uintptr_t)s);
}

static void on_node_changed(void *ctx)
{
    const struct member *member = ctx;
    const struct topology_options *o = &member->topology->options;
    if (o->node_changed != NULL) {
        o->node_changed(member->index, o->ctx);
    }
}

/* Others may have taken its place already. */
static void on_node_troubled(void *ctx)
{
    const struct member *member = ctx;
    topology_suspect(member->topology);
}

/* The lock is held, or nobody else knows the topology yet. */
static uint16_t add_node(struct topology *t, const char *host, const char *port)
{
    uint16_t index = atomic_load_explicit(&t->count, memory_order_relaxed);
    struct member *member = &t->members[index];
    struct node_options options = t->options.node;
    options.host = host;
    options.port = port;
    options.changed = on_node_changed;
    options.troubled = on_node_troubled;
    options.ctx = member;
    member->topology = t;
    member->index = index;
    member->node = node_create(&options);
    atomic_store_explicit(&t->count, (uint16_t)(index + 1), memory_order_release);
    return index;
}

/* The one node of standalone and sentinel owns everything from the start. */
static void give_all(struct topology *t, uint16_t index)
{
    struct member *member = &t->members[index];
    for (size_t slot = 0; slot < TOPOLOGY_SLOTS; slot++) {
        atomic_init(&t->owners[slot], index);
    }
    atomic_init(&member->slots, TOPOLOGY_SLOTS);
    atomic_init(&member->role, TOPOLOGY_PRIMARY);
    atomic_init(&t->primaries[0], index);
    atomic_init(&t->nprimaries, 1);
}

struct topology *topology_create(const struct topology_options *options)
{
    struct topology *t = mem_zalloc(sizeof(*t));
    t->options = *options;
    t->options.node.host = NULL;
    t->options.node.port = NULL;
    t->options.node.user = copy_or_null(options->node.user);
    t->options.node.password = copy_or_null(options->node.password);
    t->options.node.password_file = copy_or_null(options->node.password_file);
    pthread_mutex_init(&t->lock, NULL);
    atomic_init(&t->version, 0);
    for (size_t slot = 0; slot < TOPOLOGY_SLOTS; slot++) {
        atomic_init(&t->owners[slot], TOPOLOGY_NONE);
    }
    if (!options->is_cluster) {
        give_all(t, add_node(t, options->node.host, options->node.port));
    }
    t->options.node.label = NULL; /* all further ones come with an address */
    return t;
}

void topology_destroy(struct topology *t)
{
    if (t == NULL) {
        return;
    }
    uint16_t n = topology_count(t);
    for (uint16_t i = 0; i < n; i++) {
        node_destroy(t->members[i].node);
    }
    const char *password = t->options.node.password;
    if (password != NULL) {
        explicit_bzero((void *)(uintptr_t)password, strlen(password));
    }
    free_text(t->options.node.user);
    free_text(password);
    free_text(t->options.node.password_file);
    pthread_mutex_destroy(&t->lock);
    mem_free(t);
}

/* ---- Reading ------------------------------------------------------------------------------- */

bool topology_is_cluster(const struct topology *t)
{
    return t->options.is_cluster;
}

uint16_t topology_room(const struct topology *t)
{
    return t->options.is_cluster || t->options.has_replicas ? TOPOLOGY_NODES_MAX : 1;
}

uint16_t topology_owner(const struct topology *t, uint16_t slot)
{
    return atomic_load_explicit(&t->owners[slot], memory_order_acquire);
}

struct node *topology_node(const struct topology *t, uint16_t index)
{
    bug_on(index >= topology_count(t));
    return t->members[index].node;
}

uint16_t topology_count(const struct topology *t)
{
    return atomic_load_explicit(&t->count, memory_order_acquire);
}

uint16_t topology_any(const struct topology *t, uint32_t hint)
{
    uint16_t n = atomic_load_explicit(&t->nprimaries, memory_order_acquire);
    return n == 0 ? TOPOLOGY_NONE
                  : atomic_load_explicit(&t->primaries[hint % n], memory_order_acquire);
}

uint16_t topology_replica(const struct topology *t, uint16_t slot, uint32_t hint)
{
    uint16_t owner = topology_owner(t, slot);
    if (owner == TOPOLOGY_NONE) {
        return TOPOLOGY_NONE;
    }
    const struct member *member = &t->members[owner];
    uint16_t n = atomic_load_explicit(&member->nreplicas, memory_order_acquire);
    return n == 0 ? TOPOLOGY_NONE
                  : atomic_load_explicit(&member->replicas[hint % n], memory_order_acquire);
}

enum topology_role topology_role(const struct topology *t, uint16_t index)
{
    return (enum topology_role)atomic_load_explicit(&t->members[index].role, memory_order_acquire);
}

uint32_t topology_slots_of(const struct topology *t, uint16_t index)
{
    return atomic_load_explicit(&t->members[index].slots, memory_order_relaxed);
}

uint64_t topology_version(const struct topology *t)
{
    return atomic_load_explicit(&t->version, memory_order_acquire);
}

/* ---- Finding a node ------------------------------------------------------------------------ */

/* A server said it: what no address consists of goes no further. */
static bool is_host(struct slice host)
{
    if (host.n == 0 || host.n > HOST_MAX) {
        return false;
    }
    for (size_t i = 0; i < host.n; i++) {
        unsigned char c = (unsigned char)host.p[i];
        bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
        if (!letter && (c == '\0' || strchr(".-_:%", c) == NULL)) {
            return false;
        }
    }
    return true;
}

static bool is_port(struct slice port)
{
    int64_t number = 0;
    return port.n <= PORT_MAX && slice_to_int64(port, &number) && number >= 1 &&
           number <= UINT16_MAX;
}

static bool is_at(const struct node *node, struct slice host, struct slice port)
{
    const struct node_options *o = node_options(node);
    return slice_eq_nocase(slice_str(o->host), host) && slice_eq(slice_str(o->port), port);
}

static void copy_text(char *out, struct slice s)
{
    memcpy(out, s.p, s.n);
    out[s.n] = '\0';
}

/* Outside a cluster the first node is whoever is the master, wherever that is. */
static uint16_t find(const struct topology *t, struct slice host, struct slice port)
{
    uint16_t n = topology_count(t);
    for (uint16_t i = t->options.is_cluster ? 0 : 1; i < n; i++) {
        if (is_at(t->members[i].node, host, port)) {
            return i;
        }
    }
    return TOPOLOGY_NONE;
}

bool topology_knows(struct topology *t, struct slice host, struct slice port)
{
    pthread_mutex_lock(&t->lock);
    bool known = find(t, host, port) != TOPOLOGY_NONE;
    pthread_mutex_unlock(&t->lock);
    return known;
}

/* Nobody is connected to it, and nobody will be sent there: no slot is its, and no newer map names it. */
static bool is_free(const struct topology *t, uint16_t index)
{
    const struct member *member = &t->members[index];
    return topology_role(t, index) == TOPOLOGY_GONE && topology_slots_of(t, index) == 0 &&
           !member->keeps && t->maps >= member->named + MAPS_GONE && node_links(member->node) == 0;
}

/* The one that has been gone the longest. The lock is held. */
static uint16_t find_free(const struct topology *t)
{
    uint16_t n = topology_count(t);
    uint16_t oldest = TOPOLOGY_NONE;
    for (uint16_t i = 0; i < n; i++) {
        if (is_free(t, i) &&
            (oldest == TOPOLOGY_NONE || t->members[i].named < t->members[oldest].named)) {
            oldest = i;
        }
    }
    return oldest;
}

/* The lock is held. NONE: all indices are in use. */
static uint16_t place(struct topology *t, struct slice host, struct slice port)
{
    char host_text[HOST_MAX + 1];
    char port_text[PORT_MAX + 1];
    uint16_t index = find_free(t);
    copy_text(host_text, host);
    copy_text(port_text, port);
    if (index != TOPOLOGY_NONE) {
        node_set_address(t->members[index].node, host_text, port_text);
    } else if (topology_count(t) < topology_room(t)) {
        index = add_node(t, host_text, port_text);
    }
    return index;
}

/* The lock is held. */
static uint16_t find_or_place(struct topology *t, struct slice host, struct slice port)
{
    if (!is_host(host) || !is_port(port)) {
        return TOPOLOGY_NONE;
    }
    uint16_t index = find(t, host, port);
    if (index == TOPOLOGY_NONE) {
        index = place(t, host, port);
    }
    if (index != TOPOLOGY_NONE) {
        t->members[index].named = t->maps;
    }
    return index;
}

uint16_t topology_find(struct topology *t, struct slice host, struct slice port)
{
    pthread_mutex_lock(&t->lock);
    uint16_t index = find_or_place(t, host, port);
    pthread_mutex_unlock(&t->lock);
    return index;
}

uint16_t topology_keep(struct topology *t, struct slice host, struct slice port)
{
    pthread_mutex_lock(&t->lock);
    uint16_t index = find_or_place(t, host, port);
    if (index != TOPOLOGY_NONE) {
        t->members[index].keeps = true;
    }
    pthread_mutex_unlock(&t->lock);
    return index;
}

void topology_suspect(struct topology *t)
{
    if (t->options.wants_refresh != NULL) {
        t->options.wants_refresh(t->options.ctx);
    }
}

/* ---- Changing owners; the lock is held everywhere -------------------------------------------- */

static void count_slot(struct topology *t, uint16_t index, uint32_t more)
{
    if (index != TOPOLOGY_NONE) {
        (void)atomic_fetch_add_explicit(&t->members[index].slots, more, memory_order_relaxed);
    }
}

/* True when the owner is another one now. */
static bool set_owner(struct topology *t, uint16_t slot, uint16_t owner)
{
    const struct topology_options *o = &t->options;
    uint16_t old = atomic_load_explicit(&t->owners[slot], memory_order_relaxed);
    if (old == owner) {
        return false;
    }
    if (o->slot_changed != NULL) {
        o->slot_changed(slot, o->ctx);
    }
    atomic_store_explicit(&t->owners[slot], owner, memory_order_release);
    if (o->slot_changed != NULL) {
        o->slot_changed(slot, o->ctx);
    }
    count_slot(t, old, UINT32_MAX);
    count_slot(t, owner, 1);
    return true;
}

static bool set_role(struct topology *t, uint16_t index, enum topology_role role)
{
    uint8_t old =
        atomic_exchange_explicit(&t->members[index].role, (uint8_t)role, memory_order_release);
    return old != role;
}

static void list_primaries(struct topology *t)
{
    uint16_t count = topology_count(t);
    uint16_t n = 0;
    for (uint16_t i = 0; i < count; i++) {
        if (topology_role(t, i) == TOPOLOGY_PRIMARY) {
            atomic_store_explicit(&t->primaries[n++], i, memory_order_release);
        }
    }
    atomic_store_explicit(&t->nprimaries, n, memory_order_release);
}

static void announce(struct topology *t)
{
    list_primaries(t);
    (void)atomic_fetch_add_explicit(&t->version, 1, memory_order_release);
    if (t->options.changed != NULL) {
        t->options.changed(t->options.ctx);
    }
}

uint16_t topology_moved(struct topology *t, uint16_t slot, uint16_t from, struct slice host,
                        struct slice port)
{
    if (!t->options.is_cluster || slot >= TOPOLOGY_SLOTS) {
        return TOPOLOGY_NONE;
    }
    pthread_mutex_lock(&t->lock);
    if (host.n == 0) {
        host = slice_str(node_options(topology_node(t, from))->host);
    }
    uint16_t old = topology_owner(t, slot);
    uint16_t owner = find_or_place(t, host, port);
    bool changed = owner != TOPOLOGY_NONE && set_owner(t, slot, owner);
    if (changed) {
        (void)set_role(t, owner, TOPOLOGY_PRIMARY);
        if (old != TOPOLOGY_NONE && topology_slots_of(t, old) == 0) {
            (void)set_role(t, old, TOPOLOGY_GONE);
        }
        announce(t);
    }
    pthread_mutex_unlock(&t->lock);
    if (changed || owner == TOPOLOGY_NONE) {
        topology_suspect(t);
    }
    return owner;
}

/* What the ranges say, before it is compared with what is known. */
struct draft {
    uint16_t owners[TOPOLOGY_SLOTS];
    uint8_t roles[TOPOLOGY_NODES_MAX];
    const struct topology_range *range_of[TOPOLOGY_NODES_MAX]; /* of a primary: its first one */
};

static struct draft *draft_create(const struct topology_range *ranges, size_t n)
{
    struct draft *draft = mem_zalloc(sizeof(*draft));
    for (size_t slot = 0; slot < TOPOLOGY_SLOTS; slot++) {
        draft->owners[slot] = TOPOLOGY_NONE;
    }
    for (size_t i = 0; i < n; i++) {
        const struct topology_range *range = &ranges[i];
        for (size_t r = 0; r < range->nreplicas; r++) {
            if (draft->roles[range->replicas[r]] == TOPOLOGY_GONE) {
                draft->roles[range->replicas[r]] = TOPOLOGY_REPLICA;
            }
        }
        for (uint32_t slot = range->first; slot <= range->last && slot < TOPOLOGY_SLOTS; slot++) {
            draft->owners[slot] = range->primary;
        }
        draft->roles[range->primary] = TOPOLOGY_PRIMARY;
        if (draft->range_of[range->primary] == NULL) {
            draft->range_of[range->primary] = range;
        }
    }
    return draft;
}

static bool set_replicas(struct member *member, const struct topology_range *range)
{
    size_t n = range == NULL ? 0 : range->nreplicas;
    n = n < TOPOLOGY_REPLICAS_MAX ? n : TOPOLOGY_REPLICAS_MAX;
    bool changed = n != atomic_load_explicit(&member->nreplicas, memory_order_relaxed);
    for (size_t i = 0; i < n; i++) {
        uint16_t replica = range->replicas[i];
        changed |= replica != atomic_load_explicit(&member->replicas[i], memory_order_relaxed);
        atomic_store_explicit(&member->replicas[i], replica, memory_order_release);
    }
    atomic_store_explicit(&member->nreplicas, (uint16_t)n, memory_order_release);
    return changed;
}

static bool take_members(struct topology *t, const struct draft *draft)
{
    bool changed = false;
    uint16_t count = topology_count(t);
    for (uint16_t i = 0; i < count; i++) {
        changed |= set_replicas(&t->members[i], draft->range_of[i]);
        changed |= set_role(t, i, (enum topology_role)draft->roles[i]);
        if (draft->roles[i] != TOPOLOGY_GONE) {
            t->members[i].named = t->maps;
        }
    }
    return changed;
}

void topology_apply(struct topology *t, const struct topology_range *ranges, size_t n)
{
    struct draft *draft = draft_create(ranges, n);
    pthread_mutex_lock(&t->lock);
    t->maps++;
    bool changed = take_members(t, draft);
    for (uint32_t slot = 0; slot < TOPOLOGY_SLOTS; slot++) {
        changed |= set_owner(t, (uint16_t)slot, draft->owners[slot]);
    }
    if (changed) {
        announce(t);
    }
    pthread_mutex_unlock(&t->lock);
    mem_free(draft);
}
