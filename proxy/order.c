/* SPDX-License-Identifier: Apache-2.0
 *
 * order.c: a hash table of links, chained, doubling. One link per key of every unanswered request;
 * the link lies in the request, so adding and removing allocate nothing (but when the table doubles,
 * and it goes on with longer chains if memory is out). The bucket is chosen by key and client, so that
 * many clients waiting for one hot key do not share a chain.
 *
 * A chain has the newest first, so that looking for the latest request ends at the first match. A key
 * that one request names twice has one link; the other has no request and is in no chain.
 */
#include "order.h"

#include "client.h"

#include "../conf/mem.h"

#define FIRST_BUCKETS 256

static size_t bucket_of(const struct order *order, const struct client *client, uint64_t hash)
{
    uint64_t mixed = (hash ^ client->id) * UINT64_C(0x9e3779b97f4a7c15);
    return (size_t)(mixed >> 32) & order->mask;
}

void order_init(struct order *order)
{
    order->mask = FIRST_BUCKETS - 1;
    order->links = 0;
    order->buckets = mem_zalloc(FIRST_BUCKETS * sizeof(*order->buckets));
}

void order_fini(struct order *order)
{
    bug_on(order->links != 0);
    mem_free(order->buckets);
    order->buckets = NULL;
}

void order_shrink(struct order *order)
{
    struct order_link **buckets;
    if (order->links == 0 && order->mask >= FIRST_BUCKETS &&
        (buckets = mem_try_zero(FIRST_BUCKETS * sizeof(*buckets))) != NULL) {
        mem_free(order->buckets);
        order->buckets = buckets;
        order->mask = FIRST_BUCKETS - 1;
    }
}

static inline void push(struct order_link **at, struct order_link *link)
{
    struct order_link *next = *at;
    link->next = next;
    link->at = at;
    if (next != NULL) {
        next->at = &link->next;
    }
    *at = link;
}

/* Keeps the order of each chain: it appends to the new ones. */
static void grow(struct order *order)
{
    size_t old = order->mask + 1;
    struct order_link **from = order->buckets;
    struct order_link **to = mem_try_zero(2 * old * sizeof(*to));
    if (to == NULL) {
        return;
    }
    order->mask = 2 * old - 1;
    for (size_t i = 0; i < old; i++) {
        struct order_link **end[2] = {&to[i], &to[i + old]}; /* of the two that this one becomes */
        struct order_link *next;
        for (struct order_link *link = from[i]; link != NULL; link = next) {
            size_t bucket = bucket_of(order, link->request->client, link->hash);
            next = link->next;
            push(end[bucket >= old], link);
            end[bucket >= old] = &link->next;
        }
    }
    order->buckets = to;
    mem_free(from);
}

/* Is the key linked for this request already? Its links are at the head of their chains. */
static bool is_linked(const struct order_link *link, const struct request *request, uint64_t hash)
{
    for (; link != NULL && link->request == request; link = link->next) {
        if (link->hash == hash) {
            return true;
        }
    }
    return false;
}

static __attribute__((noinline)) void add_many(struct order *order, struct request *request)
{
    struct order_link *link = request->keys;
    for (struct order_link *end = link + request->nkeys; link < end; link++) {
        struct order_link **bucket = &order->buckets[bucket_of(order, request->client, link->hash)];
        bool again = *bucket != NULL && is_linked(*bucket, request, link->hash);
        link->request = again ? NULL : request;
        if (likely(!again)) {
            push(bucket, link);
            order->links++;
        }
    }
}

static void link_request(struct order *order, struct request *request)
{
    request->linked = true;
    if (unlikely(order->links + request->nkeys > order->mask)) {
        grow(order);
    }
    if (unlikely(request->nkeys != 1)) {
        add_many(order, request);
        return;
    }
    struct order_link *link = request->keys;
    link->request = request;
    push(&order->buckets[bucket_of(order, request->client, link->hash)], link);
    order->links++;
}

void order_add(struct order *order, struct request *request)
{
    request->linked = false;
    if (request->client->ordered) {
        link_request(order, request);
    }
}

static __attribute__((noinline)) void link_all(struct order *order, struct client *client)
{
    client->ordered = true;
    for (struct request *r = client->head; r != NULL; r = r->next) {
        if (!r->answered) {
            link_request(order, r);
        }
    }
}

/* Somebody asks about the client's requests. */
static inline void need_links(struct order *order, struct client *client)
{
    if (unlikely(!client->ordered)) {
        link_all(order, client);
    }
}

static inline void remove_link(struct order *order, struct order_link *link)
{
    if (unlikely(link->request == NULL)) {
        return;
    }
    order->links--;
    if (link->next != NULL) {
        link->next->at = link->at;
    }
    *link->at = link->next;
}

void order_remove(struct order *order, struct request *request)
{
    struct order_link *link = request->keys;
    for (uint32_t n = request->linked ? request->nkeys : 0; n > 0; n--) {
        remove_link(order, link++);
    }
}

struct request *order_find(struct order *order, struct client *client, uint64_t hash,
                           uint64_t before)
{
    need_links(order, client);
    const struct order_link *link = order->buckets[bucket_of(order, client, hash)];
    for (; link != NULL; link = link->next) {
        struct request *request = link->request;
        if (link->hash == hash && request->client == client && request->seq < before) {
            return request;
        }
    }
    return NULL;
}

static bool has_later(struct order *order, const struct request *request, bool writes)
{
    need_links(order, request->client);
    for (uint32_t i = 0; i < request->nkeys; i++) {
        uint64_t hash = request->keys[i].hash;
        const struct order_link *link = order->buckets[bucket_of(order, request->client, hash)];
        for (; link != NULL; link = link->next) {
            const struct request *other = link->request;
            if (link->hash == hash && other->client == request->client &&
                other->seq > request->seq && (!writes || request_writes(other))) {
                return true;
            }
        }
    }
    return false;
}

bool order_has_later(struct order *order, const struct request *request)
{
    return has_later(order, request, false);
}

bool order_has_later_write(struct order *order, const struct request *request)
{
    return has_later(order, request, true);
}
