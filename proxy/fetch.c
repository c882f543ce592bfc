/* SPDX-License-Identifier: Apache-2.0
 *
 * fetch.c: what travels on F: GET k, PTTL k for one lease (struct flight), and MGET with a PTTL for
 * each key it could lease (struct mget, part of a request).
 *
 *   fetch_get ─► GET PTTL ··· value ··· ttl ─► l1_fill ─► the waiters wake
 *                         └─ too large or F lost ─► l1_abandon ─► the waiters look again (R4)
 *   fetch_mget ► MGET PTTL.. ··· whole reply ··· ttls ─► l1_fill each leased key, R7 for the others
 *                                                      ─► the client's reply
 *
 * F speaks RESP3: a value is the same bulk as in RESP2, a null is "_" and is encoded for each client.
 * A value above l1.max_item_size is not collected: its key is remembered as large and its readers
 * take a lane (D8). Leases are taken before anything is sent (R1), and end exactly once.
 */
#include "fetch.h"

#include "dispatch.h"
#include "forward.h"
#include "redirect.h"
#include "../resp/write.h"

#include "../conf/mem.h"
#include "../conf/mutant.h"

#include <stdio.h>

static void on_get_reply(struct call *call, const struct reply_piece *piece);
static void on_get_lost(struct call *call, enum call_loss loss);
static void on_mget_reply(struct call *call, const struct reply_piece *piece);
static void on_mget_lost(struct call *call, enum call_loss loss);

static const struct call_ops get_ops = {.reply = on_get_reply, .lost = on_get_lost};
static const struct call_ops mget_ops = {.reply = on_mget_reply, .lost = on_mget_lost};

/* ---- What both need ------------------------------------------------------------------------- */

static void remember_large(struct worker *worker, uint64_t hash)
{
    large_keys_add(&worker->server->large, hash);
}

/* Most bytes that put_get and put_pttl write besides the key. */
#define COMMAND_FRAME ((size_t)48)

/* The key as an argument, at the end of a command. */
static char *put_key(char *dst, struct slice key)
{
    dst += resp_header(dst, '$', (int64_t)key.n);
    memcpy(dst, key.p, key.n);
    dst += key.n;
    memcpy(dst, "\r\n", 2);
    return dst + 2;
}

static char *put_pttl(char *dst, struct slice key)
{
    static const char head[] = "*2\r\n$4\r\nPTTL\r\n";
    memcpy(dst, head, sizeof(head) - 1);
    return put_key(dst + sizeof(head) - 1, key);
}

static char *put_get_pttl(char *dst, struct slice key)
{
    static const char head[] = "*2\r\n$3\r\nGET\r\n";
    static const char pttl[] = "*2\r\n$4\r\nPTTL\r\n";
    memcpy(dst, head, sizeof(head) - 1);
    char *arg = dst + sizeof(head) - 1;
    char *end = put_key(arg, key);
    memcpy(end, pttl, sizeof(pttl) - 1);
    memcpy(end + sizeof(pttl) - 1, arg, (size_t)(end - arg)); /* the same argument again */
    return end + sizeof(pttl) - 1 + (end - arg);
}

static int64_t lesser(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* T1, T2: how long a value may be kept, from what PTTL said; 0: not at all. */
static int64_t ttl_of(const struct worker *worker, uint16_t node, bool is_null, int64_t pttl)
{
    const struct conf *conf = worker->server->conf;
    int64_t limit = feed_ttl_limit(worker_feed(worker, node));
    if (is_null) {
        return pttl == -2 || MUTANT(T2) ? lesser(worker->server->negative_ttl, limit) : 0;
    }
    if (pttl == -1 || MUTANT(T1p) || (MUTANT(T2v) && pttl == -2)) {
        return lesser(conf->l1_ttl, limit);
    }
    return pttl <= 0 ? 0 : lesser(pttl, lesser(conf->l1_ttl, limit));
}

/* ":n\r\n"; anything else (an error) counts as "do not keep". For what is kept for ever, the usual, no number is
 * read. */
static int64_t pttl_of(struct slice reply)
{
    int64_t n = 0;
    if (reply.n == 5 && memcmp(reply.p, ":-1\r\n", 5) == 0) {
        return -1;
    }
    if (reply.p[0] != ':' || reply.n < 4 ||
        !slice_to_int64(slice_of(reply.p + 1, reply.n - 3), &n)) {
        return 0;
    }
    return n;
}

int64_t fetch_ttl(const struct worker *worker, uint16_t node, bool is_null, struct slice reply)
{
    return ttl_of(worker, node, is_null, pttl_of(reply));
}

/* ---- Other databases ------------------------------------------------------------------------- */

/* F is in upstream.db. A fetch for another one takes it there and back again in one piece: SELECT n,
 * the reads, SELECT home. So no other fetch depends on where F is. */
struct excursion {
    bool away;    /* there is one */
    bool began;   /* the first SELECT has been answered */
    bool refused; /* with an error: what follows was read from the wrong db */
    bool ends;    /* the reads are complete, the second SELECT is next */
};

#define EXCURSION_FRAME ((size_t)48) /* most bytes of one SELECT */

static char *put_select(char *dst, uint32_t db)
{
    char digits[16];
    int n = snprintf(digits, sizeof(digits), "%u", db);
    return dst + sprintf(dst, "*2\r\n$6\r\nSELECT\r\n$%d\r\n%s\r\n", n, digits);
}

/* Takes the replies of the two SELECTs. True: it was one. */
static bool excursion_takes(struct excursion *trip, struct feed *feed,
                            const struct reply_piece *piece)
{
    if (!trip->away || (trip->began && !trip->ends)) {
        return false;
    }
    if (trip->ends && !trip->refused && piece->type == '-') {
        feed_fail(feed, "SELECT was refused on the fill connection");
    }
    trip->refused = trip->refused || piece->type == '-';
    trip->began = trip->began || piece->last;
    return true;
}

/* ---- GET ------------------------------------------------------------------------------------- */

/* A value up to here is kept in its flight until PTTL's reply has come, too. */
#define SMALL_VALUE ((size_t)256)
/* Flights a worker keeps for use again; none where sanitizers look for use after free. */
#ifdef NEARSIDE_LIBC_MALLOC
#define FLIGHTS_MAX 0
#else
#define FLIGHTS_MAX 256
#endif

struct flight {
    struct call call;
    struct worker *worker;
    struct flight *next; /* worker->flights */
    uint16_t node;       /* whose F it is on */
    struct l1_lease *lease;
    char *value; /* the encoded reply, as far as it has arrived: in `small` or a block of its own */
    size_t size; /* of the whole reply */
    size_t filled;
    bool is_null, is_error;
    struct excursion trip;
    bool has_value; /* GET's reply is complete, PTTL's is next */
    char small[SMALL_VALUE];
};

static struct flight *flight_create(struct worker *worker)
{
    struct flight *flight = worker->flights;
    if (flight != NULL) {
        worker->flights = flight->next;
        worker->nflights--;
    } else if ((flight = mem_try(sizeof(*flight))) == NULL) {
        return NULL;
    }
    memset(flight, 0, offsetof(struct flight, small));
    flight->worker = worker;
    return flight;
}

static void flight_destroy(struct flight *flight)
{
    struct worker *worker = flight->worker;
    if (flight->value != flight->small) {
        mem_free(flight->value);
    }
    if (worker->nflights == FLIGHTS_MAX) {
        mem_free(flight);
        return;
    }
    flight->next = worker->flights;
    worker->flights = flight;
    worker->nflights++;
}

void fetch_free_flights(struct worker *worker)
{
    while (worker->flights != NULL) {
        struct flight *flight = worker->flights;
        worker->flights = flight->next;
        mem_free(flight);
    }
    worker->nflights = 0;
}

/* The value's first piece: reserves room for the whole, or gives the lease up. */
static void begin_value(struct flight *flight, const struct reply_piece *piece)
{
    struct worker *worker = flight->worker;
    struct l1 *l1 = worker->server->l1;
    l1_lease_answered(l1, flight->lease);
    flight->is_null = piece->is_null;
    flight->is_error = piece->type == '-';
    bool is_value = piece->type == '$' || piece->type == '_' || piece->type == '-';
    bool fits = piece->size >= 0 && (size_t)piece->size <= worker->server->conf->l1_max_item_size;
    bool elsewhere = flight->is_error && redirect_notes(worker, flight->node, piece->bytes);
    if (flight->trip.refused || elsewhere) {
        fits = is_value = false; /* its waiters look again */
    }
    if (is_value && fits) {
        flight->size = (size_t)piece->size;
        flight->value = flight->size <= SMALL_VALUE ? flight->small : mem_try(flight->size);
    } else if (is_value && !flight->is_error) {
        remember_large(worker, l1_hash(l1, l1_lease_key(flight->lease)));
    }
    if (flight->value == NULL) {
        l1_abandon(l1, &flight->lease);
    }
}

static void on_get_reply(struct call *call, const struct reply_piece *piece)
{
    struct flight *flight = container_of(call, struct flight, call);
    struct worker *worker = flight->worker;
    if (excursion_takes(&flight->trip, worker_feed(worker, flight->node), piece)) {
        if (flight->trip.ends && piece->last) {
            flight_destroy(flight);
        }
        return;
    }
    if (!flight->has_value) {
        if (piece->first) {
            begin_value(flight, piece);
        }
        if (flight->value != NULL) {
            bug_on(piece->bytes.n > flight->size - flight->filled);
            memcpy(flight->value + flight->filled, piece->bytes.p, piece->bytes.n);
            flight->filled += piece->bytes.n;
        }
        flight->has_value = piece->last;
        return;
    }
    if (!piece->last) {
        return;
    }
    if (flight->lease != NULL) {
        struct l1_value value = {
            .encoded = slice_of(flight->value, flight->filled),
            .is_null = flight->is_null,
            .ttl_ms = flight->is_error && !MUTANT(R2e)
                          ? 0
                          : ttl_of(worker, flight->node, flight->is_null, pttl_of(piece->bytes)),
        };
        COUNT(worker, fetches_failed, flight->is_error);
        l1_fill(worker->server->l1, &flight->lease, &value, worker->now);
    }
    flight->trip.ends = true;
    if (!flight->trip.away) {
        flight_destroy(flight);
    }
}

static void on_get_lost(struct call *call, enum call_loss loss)
{
    (void)loss;
    struct flight *flight = container_of(call, struct flight, call);
    COUNT(flight->worker, fetches_failed, 1);
    if (flight->lease != NULL) {
        l1_abandon(flight->worker->server->l1, &flight->lease);
    }
    flight_destroy(flight);
}

static bool submit_get(struct flight *flight)
{
    struct slice key = l1_lease_key(flight->lease);
    uint32_t db = l1_lease_db(flight->lease);
    uint32_t home = flight->worker->server->conf->upstream_db;
    char small[512];
    size_t room = 2 * (key.n + COMMAND_FRAME + EXCURSION_FRAME);
    char *bytes = room <= sizeof(small) ? small : mem_try(room);
    if (bytes == NULL) {
        return false;
    }
    flight->trip.away = db != home;
    char *end = flight->trip.away ? put_select(bytes, db) : bytes;
    end = put_get_pttl(end, key);
    end = flight->trip.away ? put_select(end, home) : end;
    flight->call.ops = &get_ops;
    flight->call.replies = flight->trip.away ? 4 : 2;
    bool ok = feed_submit(worker_feed(flight->worker, flight->node), &flight->call,
                          slice_of(bytes, (size_t)(end - bytes))) == CONN_OK;
    if (bytes != small) {
        mem_free(bytes);
    }
    return ok;
}

void fetch_get(struct worker *worker, uint16_t node, struct l1_lease *lease)
{
    struct flight *flight = flight_create(worker);
    if (flight == NULL) {
        l1_abandon(worker->server->l1, &lease);
        return;
    }
    flight->node = node;
    flight->lease = lease;
    l1_lease_await(lease);
    if (!submit_get(flight)) {
        COUNT(worker, fetches_failed, 1);
        l1_abandon(worker->server->l1, &flight->lease);
        flight_destroy(flight);
        return;
    }
    COUNT(worker, fetches, 1);
}

/* For a lease that no reader asks for. */
static struct l1_query query_of(struct worker *worker, uint16_t node, uint32_t db, struct slice key,
                                uint64_t hash)
{
    return (struct l1_query){
        .key = key,
        .hash = hash,
        .db = db,
        .cover = feed_cover(worker_feed(worker, node), key),
        .fetcher = (uint16_t)worker->index,
    };
}

bool fetch_again(const struct request *write, struct slice key, uint64_t hash)
{
    struct worker *worker = write->worker;
    const struct feed *feed = worker_feed(worker, write->node);
    if (feed == NULL || !feed_is_up(feed) ||
        forward_is_full(worker, write->node, write->db, write->resp3, ROAD_FILL)) {
        return false;
    }
    struct l1_query query = query_of(worker, write->node, write->db, key, hash);
    struct l1_lease *lease = l1_lease_again(worker->server->l1, &query, worker->now);
    if (lease != NULL) {
        COUNT(worker, fetches_again, 1);
        fetch_get(worker, write->node, lease);
    }
    return lease != NULL;
}

/* ---- MGET ------------------------------------------------------------------------------------ */

struct mget {
    uint32_t n;       /* keys, in the order of the command */
    uint32_t leased;  /* PTTLs asked for */
    uint32_t pttl_at; /* the key whose PTTL comes next */
    struct excursion trip;
    bool has_values; /* MGET's own reply is complete */
    bool is_array;   /* and it is what MGET should answer */
    bool broken;     /* too large or out of memory: not kept, and its client is closed */
    bool given_up;   /* nobody waits for it; it has no leases any more */
    char *reply;     /* MGET's reply as far as it has arrived */
    size_t reply_n, reply_cap;
    struct l1_lease **leases; /* per key; NULL: somebody else's, or the same key before */
    struct slice *values;     /* per key, into reply; n == 0: null */
};

void fetch_mget_destroy(struct mget *mget)
{
    if (mget == NULL) {
        return;
    }
    mem_free(mget->reply);
    mem_free(mget->leases);
    mem_free(mget->values);
    mem_free(mget);
}

static struct mget *mget_create(uint32_t n)
{
    struct mget *mget = mem_try_zero(sizeof(*mget));
    if (mget == NULL) {
        return NULL;
    }
    mget->n = n;
    mget->leases = mem_try_zero(n * sizeof(struct l1_lease *));
    mget->values = mem_try_zero(n * sizeof(struct slice));
    if (mget->leases == NULL || mget->values == NULL) {
        fetch_mget_destroy(mget);
        return NULL;
    }
    return mget;
}

/* The request goes on without what was collected for it. */
static void forget_collected(struct request *request)
{
    fetch_mget_destroy(request->mget);
    request->mget = NULL;
    request->extra = 0;
    client_charge_request(request->client, request);
}

static void abandon_leases(struct request *request)
{
    for (uint32_t i = 0; i < request->mget->n; i++) {
        if (request->mget->leases[i] != NULL) {
            l1_abandon(request->worker->server->l1, &request->mget->leases[i]);
        }
    }
}

static bool collect(struct request *request, struct slice bytes)
{
    struct mget *mget = request->mget;
    size_t limit = request->worker->server->conf->proxy_max_output + (size_t)FRAME_BULK_MAX;
    if (bytes.n > limit - mget->reply_n) {
        return false;
    }
    if (bytes.n > mget->reply_cap - mget->reply_n) {
        size_t cap = 2 * mget->reply_cap + bytes.n;
        char *grown = mem_try_resize(mget->reply, cap);
        if (grown == NULL) {
            return false;
        }
        mget->reply = grown;
        mget->reply_cap = cap;
        if (request->client != NULL) {
            request->extra = cap;
            client_charge_request(request->client, request);
        }
    }
    memcpy(mget->reply + mget->reply_n, bytes.p, bytes.n);
    mget->reply_n += bytes.n;
    return true;
}

static void give_up_collecting(struct mget *mget)
{
    mget->broken = true;
    mem_free(mget->reply);
    mget->reply = NULL;
    mget->reply_n = mget->reply_cap = 0;
}

void fetch_give_up(struct request *request)
{
    abandon_leases(request);
    give_up_collecting(request->mget);
    request->mget->given_up = true;
}

/* Finds the n elements of a complete "*n" reply whose elements are bulks and nulls. */
static bool split_values(struct mget *mget)
{
    const char *p = mget->reply;
    const char *end = p + mget->reply_n;
    int64_t n = 0;
    for (uint32_t i = 0; i <= mget->n; i++) {
        const char *cr = memchr(p, '\r', (size_t)(end - p));
        if (cr == NULL || end - cr < 2) {
            return false;
        }
        if (i > 0 && *p == '_') {
            p = cr + 2;
            continue;
        }
        if (*p != (i == 0 ? '*' : '$') ||
            !slice_to_int64(slice_of(p + 1, (size_t)(cr - p - 1)), &n)) {
            return false;
        }
        if (i == 0) {
            if (n != mget->n) {
                return false;
            }
            p = cr + 2;
            continue;
        }
        size_t left = (size_t)(end - (cr + 2));
        if (n < -1 || (n >= 0 && (uint64_t)n + 2 > left)) {
            return false;
        }
        size_t whole = (size_t)(cr + 2 - p) + (n < 0 ? 0 : (size_t)n + 2);
        mget->values[i - 1] = slice_of(p, n < 0 ? 0 : whole);
        p += whole;
    }
    return p == end;
}

/* Hands the reply to the client in its own encoding. False: it is closed. */
static bool answer_mget(struct request *request)
{
    struct mget *mget = request->mget;
    bool ok = true;
    if (mget->broken) {
        ok = false;
    } else if (!mget->is_array) {
        ok = chain_append(&request->reply, slice_of(mget->reply, mget->reply_n));
    } else {
        ok = resp_array(&request->reply, mget->n);
        for (uint32_t i = 0; ok && i < mget->n; i++) {
            ok = mget->values[i].n == 0 ? resp_null(&request->reply, request->resp3)
                                        : chain_append(&request->reply, mget->values[i]);
        }
    }
    fetch_mget_destroy(request->mget);
    request->mget = NULL;
    request->extra = 0;
    if (!ok) {
        client_close(request->client);
    }
    return ok;
}

/* R7: what L1 holds of key i must not be older than this reply. */
static void observe(struct request *request, uint32_t i)
{
    struct slice value = request->mget->values[i];
    struct server *server = request->worker->server;
    if (MUTANT(R7m)) {
        return;
    }
    l1_observe_value(server->l1, request->hashes[i], request->db,
                     value.n == 0 ? slice_of(NULL, 0) : value);
}

/* One leased key's PTTL has arrived: its lease ends. */
static void fill_next(struct request *request, int64_t pttl)
{
    struct mget *mget = request->mget;
    struct worker *worker = request->worker;
    while (mget->pttl_at < mget->n && mget->leases[mget->pttl_at] == NULL) {
        mget->pttl_at++;
    }
    bug_on(mget->pttl_at >= mget->n);
    struct slice encoded = mget->values[mget->pttl_at];
    struct l1_lease **lease = &mget->leases[mget->pttl_at++];
    bool is_null = encoded.n == 0;
    if (!mget->is_array || (is_null && pttl != -2 && !MUTANT(T2))) {
        /* nil is also what MGET has for a key of another type: who waits for a GET looks again */
        l1_abandon(worker->server->l1, lease);
        return;
    }
    if (encoded.n > worker->server->conf->l1_max_item_size) {
        remember_large(worker, request->hashes[mget->pttl_at - 1]);
        l1_abandon(worker->server->l1, lease);
        return;
    }
    struct l1_value value = {
        .encoded = is_null ? SLICE("_\r\n") : encoded,
        .is_null = is_null,
        .ttl_ms = ttl_of(worker, request->node, is_null, pttl),
    };
    l1_fill(worker->server->l1, lease, &value, worker->now);
}

/* The same for the keys it had no lease of (l1_fill sees to the others). */
static void observe_unleased(struct request *request)
{
    struct mget *mget = request->mget;
    for (uint32_t i = 0; i < mget->n; i++) {
        bool leased = mget->leases[i] != NULL;
        /* a key named twice has its lease at the first place; for very long lists it is not looked
         * for, and the observation then costs that lease */
        for (uint32_t j = 0; !leased && j < i && mget->n <= 64; j++) {
            leased = mget->leases[j] != NULL && request->hashes[j] == request->hashes[i];
        }
        if (!leased && mget->is_array) {
            observe(request, i);
        }
    }
}

/* Was the whole of it refused, because the slot or its keys are another node's? */
static bool is_elsewhere(const struct request *request)
{
    const struct mget *mget = request->mget;
    return !mget->is_array && mget->reply_n > 0 && mget->reply[0] == '-' &&
           redirect_notes(request->worker, request->node, slice_of(mget->reply, mget->reply_n));
}

static void finish_mget(struct request *request)
{
    struct client *c = request->client;
    if (c == NULL) {
        request_destroy(request);
        return;
    }
    if (request->mget->trip.refused || is_elsewhere(request)) {
        forget_collected(request);
        dispatch_mget_again(request, false);
        return;
    }
    if (!answer_mget(request)) {
        request_destroy(request); /* its client is closed, and it is on nothing any more */
        return;
    }
    request->kind = REQUEST_HELD;
    client_finish(c, request);
}

static void on_mget_reply(struct call *call, const struct reply_piece *piece)
{
    struct request *request = container_of(call, struct request, call);
    struct mget *mget = request->mget;
    if (excursion_takes(&mget->trip, worker_feed(request->worker, request->node), piece)) {
        if (mget->trip.refused) {
            give_up_collecting(mget); /* what comes is another db's */
        }
        if (mget->trip.ends && piece->last) {
            finish_mget(request);
        }
        return;
    }
    if (!mget->has_values) {
        if (!mget->broken && !collect(request, piece->bytes)) {
            give_up_collecting(mget);
        }
        mget->has_values = piece->last;
        if (piece->last) {
            mget->is_array = mget->reply_n > 0 && split_values(mget);
            observe_unleased(request);
        }
    } else if (piece->last) {
        if (!mget->given_up) {
            fill_next(request, pttl_of(piece->bytes));
        }
        mget->leased--;
    }
    if (mget->has_values && mget->leased == 0) {
        mget->trip.ends = true;
        if (!mget->trip.away) {
            finish_mget(request);
        }
    }
}

static void on_mget_lost(struct call *call, enum call_loss loss)
{
    (void)loss;
    struct request *request = container_of(call, struct request, call);
    struct client *c = request->client;
    COUNT(request->worker, fetches_failed, 1);
    abandon_leases(request);
    if (c == NULL) {
        request_destroy(request);
        return;
    }
    forget_collected(request);
    dispatch_mget_again(request, true);
}

/* Takes leases and writes the PTTLs behind the MGET; returns the end. */
static char *lease_keys(struct request *request, const struct request_view *view, char *end)
{
    struct worker *worker = request->worker;
    struct arg_walk walk;
    struct slice key;
    arg_walk_init(&walk, view);
    bool more = arg_walk_next(&walk, &key);
    for (uint32_t i = 0; more && i < request->nkeys; i++) {
        more = arg_walk_next(&walk, &key);
        bug_on(!more);
        struct l1_query query =
            query_of(worker, request->node, request->db, key, request->hashes[i]);
        query.slot = request->slot;
        query.slot_generation = request->client->place.generation;
        request->mget->leases[i] = l1_lease_try(worker->server->l1, &query, worker->now);
        if (request->mget->leases[i] != NULL) {
            request->mget->leased++;
            end = put_pttl(end, key);
        }
    }
    return end;
}

bool fetch_mget(struct request *request, const struct request_view *view)
{
    struct worker *worker = request->worker;
    uint32_t home = worker->server->conf->upstream_db;
    /* every key is in raw, so twice raw and a frame for each is room enough */
    char *bytes = mem_try(2 * view->raw.n + request->nkeys * COMMAND_FRAME + 2 * EXCURSION_FRAME);
    request->mget = bytes == NULL ? NULL : mget_create(request->nkeys);
    if (request->mget == NULL) {
        mem_free(bytes);
        return false;
    }
    bool away = request->db != home;
    request->mget->trip.away = away;
    char *end = away ? put_select(bytes, request->db) : bytes;
    memcpy(end, view->raw.p, view->raw.n);
    end = lease_keys(request, view, end + view->raw.n);
    end = away ? put_select(end, home) : end;
    request->call.ops = &mget_ops;
    request->call.replies = 1 + request->mget->leased + (away ? 2 : 0);
    bool ok = feed_submit(worker_feed(worker, request->node), &request->call,
                          slice_of(bytes, (size_t)(end - bytes))) == CONN_OK;
    mem_free(bytes);
    if (!ok) {
        abandon_leases(request);
        fetch_mget_destroy(request->mget);
        request->mget = NULL;
        return false;
    }
    COUNT(worker, fetches, 1);
    return true;
}
