/* SPDX-License-Identifier: Apache-2.0
 *
 * order.c: a hash table of links, chained, doubling. One link per key of every unanswered request;
 * the link lies in the request, so adding and removing allocate nothing (but when the table doubles,
 * and it goes on with longer chains if memory is out). The bucket is chosen by key and client, so that
 * many clients waiting for one hot key do not share a chain.
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

static void push(struct order_link **bucket, struct order_link *link)
{
    link->prev = NULL;
    link->next = *bucket;
    if (link->next != NULL) {
        link->next->prev = link;
    }
    *bucket = link;
}

static void grow(struct order *order)
{
    size_t old = order->mask + 1;
    struct order_link **from = order->buckets;
    struct order_link **to = mem_try_zero(2 * old * sizeof(*to));
    if (to == NULL) {
        return;
    }
    order->buckets = to;
    order->mask = 2 * old - 1;
    for (size_t i = 0; i < old; i++) {
        struct order_link *link = from[i];
        while (link != NULL) {
            struct order_link *next = link->next;
            push(&to[bucket_of(order, link->request->client, link->hash)], link);
            link = next;
        }
    }
    mem_free(from);
}

void order_add(struct order *order, struct request *request)
{
    order->links += request->nkeys;
    if (order->links > order->mask) {
        grow(order);
    }
    for (uint32_t i = 0; i < request->nkeys; i++) {
        struct order_link *link = &request->keys[i];
        link->request = request;
        push(&order->buckets[bucket_of(order, request->client, link->hash)], link);
    }
}

void order_remove(struct order *order, struct request *request)
{
    order->links -= request->nkeys;
    for (uint32_t i = 0; i < request->nkeys; i++) {
        struct order_link *link = &request->keys[i];
        if (link->next != NULL) {
            link->next->prev = link->prev;
        }
        if (link->prev != NULL) {
            link->prev->next = link->next;
        } else {
            order->buckets[bucket_of(order, request->client, link->hash)] = link->next;
        }
    }
}

void order_find(const struct order *order, const struct client *client, uint64_t hash,
                uint64_t before, unsigned *roads, struct request **last)
{
    const struct order_link *link = order->buckets[bucket_of(order, client, hash)];
    for (; link != NULL; link = link->next) {
        struct request *request = link->request;
        if (link->hash != hash || request->client != client || request->seq >= before) {
            continue;
        }
        *roads |= (unsigned)request->road;
        if (*last == NULL || request->seq > (*last)->seq) {
            *last = request;
        }
    }
}
