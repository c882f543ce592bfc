/* SPDX-License-Identifier: Apache-2.0
 *
 * test_order.c: the table of keys of unanswered requests, against a plain list of them.
 */
#include "../../../conf/mem.h"
#include "../../../proxy/client.h"

#include <criterion/criterion.h>
#include <stdlib.h>

static struct order order;
static struct client one = {.id = 1};
static struct client two = {.id = 2};

static void setup(void)
{
    order_init(&order);
}

static void teardown(void)
{
    order_fini(&order);
}

TestSuite(order, .init = setup, .fini = teardown);

/* As client_enqueue does. */
static void enqueue(struct request *request)
{
    struct client *c = request->client;
    c->ordered = c->head != NULL && c->ordered;
    if (c->head == NULL) {
        c->head = request;
    } else {
        c->tail->next = request;
    }
    c->tail = request;
    order_add(&order, request);
}

/* A request with n keys; what is not about order stays zero. */
static struct request *request_of(struct client *c, uint64_t seq, enum cmd_class class, uint32_t n,
                                  const uint64_t *hashes)
{
    struct request *request = mem_zalloc(sizeof(*request));
    request->client = c;
    request->seq = seq;
    request->class = class;
    request->hashes = &request->one_hash;
    request->keys = &request->one_key;
    cr_assert(request_reserve_keys(request, n));
    for (uint32_t i = 0; i < n; i++) {
        request_add_key(request, hashes[i]);
    }
    enqueue(request);
    return request;
}

static struct request *request_for(struct client *c, uint64_t seq, uint64_t hash)
{
    return request_of(c, seq, CMD_READ, 1, &hash);
}

static void answer(struct request *request)
{
    struct client *c = request->client;
    struct request **at = &c->head;
    struct request *before = NULL;
    order_remove(&order, request);
    while (*at != request) {
        before = *at;
        at = &before->next;
    }
    *at = request->next;
    c->tail = c->tail == request ? before : c->tail;
    if (request->hashes != &request->one_hash) {
        mem_free(request->hashes);
    }
    mem_free(request);
}

Test(order, a_table_that_has_grown_shrinks_when_it_is_empty)
{
    enum { MANY = 5000 };
    static struct request *requests[MANY];
    size_t small = order.mask;
    for (uint64_t i = 0; i < MANY; i++) {
        requests[i] = request_for(&one, i, i);
    }
    cr_expect_eq(order_find(&order, &one, 7, UINT64_MAX), requests[7]);
    size_t large = order.mask;
    cr_assert(large > small);
    order_shrink(&order);
    cr_expect(order.mask == large, "not while it is in use");
    for (size_t i = 0; i < MANY; i++) {
        answer(requests[i]);
    }
    order_shrink(&order);
    cr_expect(order.mask == small);
    struct request *request = request_for(&one, 1, 7);
    cr_expect(order_find(&order, &one, 7, 2) == request);
    answer(request);
}

Test(order, an_empty_table_finds_nothing)
{
    cr_expect_null(order_find(&order, &one, 7, UINT64_MAX));
}

Test(order, a_request_is_found_by_its_key_until_it_is_removed)
{
    struct request *a = request_for(&one, 1, 7);
    cr_expect_eq(order_find(&order, &one, 7, UINT64_MAX), a);
    cr_expect_null(order_find(&order, &one, 8, UINT64_MAX));
    answer(a);
    cr_expect_null(order_find(&order, &one, 7, UINT64_MAX));
}

Test(order, requests_come_into_the_table_when_somebody_asks_and_then_at_once)
{
    struct request *a = request_for(&one, 1, 7);
    struct request *b = request_for(&one, 2, 8);
    struct request *c = request_for(&one, 3, 9);
    struct request *d = request_for(&two, 4, 7);
    cr_expect_eq(order.links, 0);
    order_remove(&order, a);
    a->answered = true; /* and still in the queue */
    cr_expect_null(order_find(&order, &one, 7, UINT64_MAX));
    cr_expect_eq(order_find(&order, &one, 8, UINT64_MAX), b);
    cr_expect_eq(order.links, 2);
    struct request *e = request_for(&one, 5, 8);
    cr_expect_eq(order.links, 3);
    cr_expect(order_has_later(&order, b));
    answer(b);
    answer(c);
    answer(e);
    answer(a);
    struct request *f = request_for(&one, 6, 7); /* nothing was unanswered */
    cr_expect_eq(order.links, 0);
    answer(f);
    answer(d);
    cr_expect_eq(order.links, 0);
}

Test(order, another_client_with_the_same_key_is_not_found)
{
    struct request *a = request_for(&one, 1, 7);
    cr_expect_null(order_find(&order, &two, 7, UINT64_MAX));
    answer(a);
}

Test(order, the_latest_request_before_a_position_is_found)
{
    struct request *a = request_for(&one, 1, 7);
    struct request *b = request_for(&one, 2, 7);
    struct request *c = request_for(&one, 3, 7);
    cr_expect_eq(order_find(&order, &one, 7, UINT64_MAX), c);
    cr_expect_eq(order_find(&order, &one, 7, 3), b);
    cr_expect_eq(order_find(&order, &one, 7, 2), a);
    cr_expect_null(order_find(&order, &one, 7, 1));
    answer(b);
    cr_expect_eq(order_find(&order, &one, 7, 3), a);
    answer(c);
    answer(a);
}

Test(order, a_key_named_twice_by_one_request_has_one_link)
{
    uint64_t hashes[] = {7, 9, 7, 7};
    struct request *a = request_of(&one, 1, CMD_WRITE, 4, hashes);
    cr_expect_eq(order_find(&order, &one, 7, UINT64_MAX), a);
    cr_expect_eq(order.links, 2);
    cr_expect_eq(order_find(&order, &one, 9, UINT64_MAX), a);
    answer(a);
    cr_expect_eq(order.links, 0);
}

Test(order, a_later_write_of_a_key_is_seen_and_a_later_read_is_not)
{
    uint64_t hashes[] = {5, 7};
    struct request *read = request_for(&one, 1, 7);
    struct request *other_read = request_for(&one, 2, 7);
    cr_expect_not(order_has_later_write(&order, read));
    struct request *foreign = request_of(&two, 3, CMD_WRITE, 2, hashes);
    cr_expect_not(order_has_later_write(&order, read));
    struct request *write = request_of(&one, 4, CMD_WRITE, 2, hashes);
    cr_expect(order_has_later_write(&order, read));
    cr_expect_not(order_has_later_write(&order, write));
    answer(write);
    answer(foreign);
    answer(other_read);
    answer(read);
}

/* Growing moves every link, and must keep the latest in front. */
Test(order, the_latest_is_still_found_when_the_table_has_grown)
{
    enum { N = 5000, KEYS = 700 };
    static struct request *all[N];
    for (uint64_t i = 0; i < N; i++) {
        all[i] = request_for(i % 2 == 0 ? &one : &two, i, i % KEYS);
    }
    cr_expect_null(order_find(&order, &one, KEYS, UINT64_MAX));
    cr_expect_null(order_find(&order, &two, KEYS, UINT64_MAX));
    cr_assert_gt(order.mask + 1, 256);
    for (uint64_t i = N - KEYS; i < N; i++) {
        struct client *c = i % 2 == 0 ? &one : &two;
        cr_expect_eq(order_find(&order, c, i % KEYS, UINT64_MAX), all[i]);
        cr_expect_eq(order_find(&order, c, i % KEYS, i), all[i - KEYS]);
    }
    for (uint64_t i = 0; i < N; i++) {
        answer(all[i]);
    }
}

Test(order, it_goes_on_with_longer_chains_when_memory_is_out)
{
    enum { N = 600 };
    static struct request *all[N];
    for (uint64_t i = 0; i < N; i++) {
        all[i] = mem_zalloc(sizeof(*all[i]));
        all[i]->client = &one;
        all[i]->seq = i;
        all[i]->hashes = &all[i]->one_hash;
        all[i]->keys = &all[i]->one_key;
        request_add_key(all[i], i);
        mem_fail_after(0);
        enqueue(all[i]);
        cr_expect_eq(order_find(&order, &one, i, UINT64_MAX), all[i]);
        mem_fail_after(-1);
    }
    cr_expect_eq(order.mask + 1, 256);
    for (uint64_t i = 0; i < N; i++) {
        cr_expect_eq(order_find(&order, &one, i, UINT64_MAX), all[i]);
    }
    for (uint64_t i = 0; i < N; i++) {
        answer(all[i]);
    }
}
