/* SPDX-License-Identifier: Apache-2.0
 *
 * echo.c: see echo.h.
 *
 *   SET k v ─► lane ··· +OK ─► settled in L1 ─► the value to each GET ─► +OK to the client
 *   GET k ───► waits    ├─ error ─► the GETs on the SET's lane, behind it
 *                       └─ lost ──► the same
 *
 * The value is not copied: the SET's bytes are kept, and the end of "*3 $3 SET $1 k $1 v" is the very bulk
 * that GET replies with, since parse_plain takes no other form of it.
 *
 * Between that reply and the fetch that follows it, the value is in `recents`: a copy, in a table in which a key
 * has one place, which it may lose to another.
 */
#include "echo.h"

#include "batch.h"
#include "fetch.h"
#include "forward.h"

#include "../conf/mem.h"
#include "../conf/mutant.h"

#include <string.h>
#include <strings.h>

/* Keys whose fetch may be under way without the GETs that come meanwhile waiting for it. */
#define RECENTS 64

struct recent {
    uint64_t hash;
    uint64_t version;
    int64_t began;
    uint32_t db;
    uint32_t n; /* of set; 0: none */
    char set[ECHO_BYTES];
};

/* Which of the batch's commands names the key last; false: none that is unanswered. */
static bool find_in_batch(const struct request *set, uint64_t hash, uint32_t *at)
{
    const struct batch *batch = set->batch;
    for (uint32_t i = batch->n; i > set->done + batch->inside; i--) {
        if (batch->hashes[i - 1] == hash) {
            *at = i - 1;
            return true;
        }
    }
    return false;
}

static struct slice command_at(const struct request *set, uint32_t i)
{
    if (set->batch == NULL) {
        return set->raw;
    }
    uint32_t from = i == 0 ? 0 : set->batch->ends[i - 1];
    return slice_of(set->raw.p + from, set->batch->ends[i] - from);
}

/* If the command is SET key value and nothing more: the value, with its header. */
static bool value_of(struct slice command, struct slice key, struct slice *value)
{
    struct plain plain = {.head = 0};
    if (parse_plain(command, &plain) != command.n || plain.args != 2 || plain.name.n != 3 ||
        strncasecmp(plain.name.p, "SET", 3) != 0 || !slice_eq(plain.key, key)) {
        return false;
    }
    const char *behind = plain.key.p + plain.key.n + 2;
    *value = slice_of(behind, (size_t)(command.p + command.n - behind));
    return true;
}

static bool has_unknown(const struct client *c)
{
    uint32_t n = 0;
    for (int i = 0; i < ROADS; i++) {
        n += c->unknown_on[i];
    }
    return n > 0;
}

static bool is_near(const struct client *c, const struct request *set)
{
    return !c->worker->server->is_cluster && set->kind == REQUEST_FORWARD &&
           !c->worker->no_echoes && set->class == CMD_WRITE && set->raw.n > 0 && set->db == c->db &&
           (set->road == ROAD_LANE || set->road == ROAD_BULK) && !has_unknown(c) &&
           !client_is_silent(c) && c->worker->server->conf->proxy_order != CONF_ORDER_STRICT;
}

static uint64_t *version_of(struct request *set, uint32_t i)
{
    return set->batch == NULL ? &set->version : &set->batch->versions[i];
}

static bool is_fresh(const struct worker *worker, uint64_t hash, uint64_t version, int64_t began)
{
    const struct server *server = worker->server;
    return (version == l1_version(server->l1, hash) || MUTANT(R9)) &&
           (worker->now - began < server->conf->invalidation_link_lease || MUTANT(R9t));
}

static void append(struct request *set, struct request *echo)
{
    echo->echoed = set;
    if (set->echoes == NULL) {
        set->echoes = echo;
    } else {
        set->last_echo->next_echo = echo;
    }
    set->last_echo = echo;
}

bool echo_try(struct client *c, struct request *request, struct request *last, uint64_t hash,
              const struct request_view *view, struct blob *owner)
{
    struct request *set = last->kind == REQUEST_ECHO ? last->echoed : last;
    uint32_t at = 0;
    c->reads_back = c->reads_back || set->class == CMD_WRITE;
    if (!is_near(c, set) || (set->batch != NULL && !find_in_batch(set, hash, &at)) ||
        !is_fresh(c->worker, hash, *version_of(set, at), set->began) ||
        !value_of(command_at(set, at), view->argv[1], &request->value) ||
        !request_keep_raw(request, view->raw, owner)) {
        return false;
    }
    request_take_spare(c->worker, request);
    request->kind = REQUEST_ECHO;
    request->class = CMD_READ;
    request->is_get = true;
    request->readonly = true;
    request->plain = true;
    request->road = set->road;
    request->echoed_at = at;
    request_add_key(request, hash);
    client_enqueue(c, request);
    append(set, request);
    return true;
}

/* That the key is read here. */
static void pass_hit_on(struct request *write, uint32_t i, struct request *set, uint32_t at)
{
    bool hit = write->batch == NULL ? write->was_hit : (write->batch->was_hit >> i & 1) != 0;
    if (set->batch == NULL) {
        set->was_hit |= hit;
    } else {
        set->batch->was_hit |= (uint64_t)hit << at;
    }
}

/* What moved the version is no reason to forget the SET, if it was kept at all. */
static void keep_fresh(struct request *set, uint32_t i, uint64_t before)
{
    if (set->raw.n > 0 && *version_of(set, i) == before) {
        *version_of(set, i) = before + 1;
    }
}

void echo_write_end(struct request *write, uint32_t i)
{
    struct l1 *l1 = write->worker->server->l1;
    uint64_t hash = write->batch == NULL ? write->hashes[0] : write->batch->hashes[i];
    uint64_t before = l1_version(l1, hash);
    l1_write_end(l1, &hash, 1);
    bool alone = l1_version(l1, hash) == before + 1; /* nothing else has moved it */
    if (alone) {
        keep_fresh(write, i, before);
    }
    struct request *set = order_find(&write->worker->order, write->client, hash, UINT64_MAX);
    set = set != NULL && set->kind == REQUEST_ECHO ? set->echoed : set;
    uint32_t at = 0;
    if (set == NULL || set == write || set->class != CMD_WRITE ||
        (set->batch != NULL && !find_in_batch(set, hash, &at))) {
        return;
    }
    pass_hit_on(write, i, set, at);
    if (alone) {
        keep_fresh(set, at, before);
    }
}

static struct request *take_first(struct request *set)
{
    struct request *echo = set->echoes;
    set->echoes = echo->next_echo;
    echo->echoed = NULL;
    return echo;
}

/* Is a request of its client for its key behind it on the lane already? Whoever waits like this is not. */
static bool is_passed(const struct request *echo)
{
    const struct request *last =
        order_find(&echo->worker->order, echo->client, echo->hashes[0], UINT64_MAX);
    return last != NULL && last->kind != REQUEST_ECHO && last->seq > echo->seq;
}

static void read_upstream(struct request *echo, bool in_order)
{
    struct worker *worker = echo->worker;
    echo->kind = REQUEST_FORWARD;
    COUNT(worker, l1_misses, 1);
    COUNT(worker, l1_passes, 1);
    if ((!in_order && is_passed(echo)) || forward_is_overtaken(echo)) {
        forward_fail(echo, "the SET before it failed, and what came behind is under way");
    } else {
        forward_request(echo, echo->raw, echo->raw_blob);
    }
}

/* Those behind a command that was not stored are read upstream. */
static void answer(struct request *set, uint64_t failed, bool in_order)
{
    while (set->echoes != NULL) {
        struct request *echo = take_first(set);
        if ((failed >> echo->echoed_at & 1) != 0) {
            read_upstream(echo, in_order);
            continue;
        }
        COUNT(echo->worker, l1_hits, 1);
        COUNT(echo->worker, l1_echoes, 1);
        echo->kind = REQUEST_HELD;
        (void)!client_pass(echo->client, echo, echo->value); /* false: it went with its client */
    }
}

/* Its fetch is under way. */
static void remember(struct request *set, uint32_t i, uint64_t hash)
{
    struct worker *worker = set->worker;
    struct slice command = command_at(set, i);
    if (command.n > ECHO_BYTES || !is_fresh(worker, hash, *version_of(set, i), set->began)) {
        return;
    }
    if (worker->recents == NULL) {
        worker->recents = mem_try_zero(RECENTS * sizeof(*worker->recents));
    }
    if (worker->recents != NULL) {
        struct recent *recent = &worker->recents[hash % RECENTS];
        recent->hash = hash;
        recent->version = *version_of(set, i);
        recent->began = set->began;
        recent->db = set->db;
        recent->n = (uint32_t)command.n;
        memcpy(recent->set, command.p, command.n);
    }
}

bool echo_recall(const struct client *c, uint64_t hash, const struct request_view *view,
                 struct slice *value)
{
    const struct recent *recent = &c->worker->recents[hash % RECENTS];
    return recent->n > 0 && recent->hash == hash && recent->db == c->db &&
           is_fresh(c->worker, hash, recent->version, recent->began) &&
           value_of(slice_of(recent->set, recent->n), view->argv[1], value);
}

void echo_fini(struct worker *worker)
{
    mem_free(worker->recents);
}

/* The last command of a batch, of those that were stored, for the key of the i-th, which is one of them. */
static uint32_t last_stored(const struct request *write, uint32_t i, uint64_t refused)
{
    const struct batch *batch = write->batch;
    for (uint32_t k = batch == NULL ? 0 : batch->n; k > i; k--) {
        if (batch->hashes[k - 1] == batch->hashes[i] && (refused >> (k - 1) & 1) == 0) {
            return k - 1;
        }
    }
    return i;
}

static void fetch_anew(struct request *write, uint64_t stored, uint64_t refused)
{
    for (; stored != 0; stored &= stored - 1) {
        uint32_t i = last_stored(write, (uint32_t)__builtin_ctzll(stored), refused);
        struct slice command = command_at(write, i);
        struct plain plain = {.head = 0};
        if (parse_plain(command, &plain) == command.n &&
            fetch_again(write, plain.key, write->hashes[i])) {
            remember(write, i, write->hashes[i]);
        }
    }
}

void echo_settle(struct request *write, uint64_t was_hit, uint64_t refused)
{
    if (write->worker->server->is_cluster) {
        return;
    }
    write->worker->no_echoes = refused != 0;
    for (const struct request *echo = write->echoes; echo != NULL; echo = echo->next_echo) {
        was_hit |= UINT64_C(1) << echo->echoed_at;
    }
    fetch_anew(write, was_hit & ~refused, refused);
    answer(write, refused, false);
}

void echo_give_up(struct request *set, bool in_order)
{
    if (set->echoes != NULL) {
        bool some = set->batch != NULL && set->done > 0; /* the others of a batch are answered */
        answer(set, some ? set->batch->refused | UINT64_MAX << set->done : UINT64_MAX, in_order);
    }
}

void echo_forget(struct request *set)
{
    while (set->echoes != NULL) {
        (void)take_first(set);
    }
}
