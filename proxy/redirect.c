/* SPDX-License-Identifier: Apache-2.0
 *
 * redirect.c: from a refusal to the node that will have the command.
 *
 *   on_reply (forward.c) ─► redirect_takes ─► worker->redirected ─► end of turn: redirect_flush ─► lane
 *      MOVED: the owner changes for all      │                        of the other node, or the client's
 *      ASK: this once, behind ASKING         │                        own connection, moved there
 *      TRYAGAIN: the owner, a little later   └─ or not, and the error is the reply
 *      LOADING, MASTERDOWN, BUSY of a replica: the owner, if either will do (read_from)
 *
 * Order: requests of one client that were refused one after the other are sent again one after the
 * other. One that names a key of an earlier request which is still out on another road waits in the
 * list until that is answered; newer ones of its client wait at the barrier (redirect_waits).
 *
 * A script can make any error it likes, and may have written before. What may have been said by one is followed to
 * nodes that are known, other than the one that said it, for this request only, and never makes us connect, and log in,
 * to others.
 *
 * Whose client is gone, or does not wait any longer, is not sent again: it was refused, so it is known not to have been
 * executed, and what that client did since may not be overtaken.
 */
#include "redirect.h"

#include "forward.h"
#include "session.h"

#define REDIRECTS_MAX 7
#define RETRY_MS      50   /* between two attempts */
#define TRYAGAIN_MS   1000 /* all of them */

#define TRYAGAIN_OF_REDIS SLICE("-TRYAGAIN Multiple keys request during rehashing of slot\r\n")

/* ---- What was said -------------------------------------------------------------------------- */

enum refusal { REFUSAL_NONE, REFUSAL_MOVED, REFUSAL_ASK, REFUSAL_TRYAGAIN };

struct said {
    enum refusal refusal;
    uint16_t slot;
    struct slice host, port; /* host may be empty: that of who said it */
};

/* " 3999 127.0.0.1:6381\r\n" */
static bool parse_target(struct slice rest, struct said *said)
{
    int64_t slot = 0;
    const char *end = memchr(rest.p, ' ', rest.n);
    if (end == NULL || !slice_to_int64(slice_of(rest.p, (size_t)(end - rest.p)), &slot) ||
        slot < 0 || slot >= TOPOLOGY_SLOTS) {
        return false;
    }
    struct slice address = slice_of(end + 1, rest.n - (size_t)(end + 1 - rest.p));
    while (address.n > 0 &&
           (address.p[address.n - 1] == '\r' || address.p[address.n - 1] == '\n')) {
        address.n--;
    }
    const char *colon = memrchr(address.p, ':', address.n);
    if (colon == NULL) {
        return false;
    }
    said->slot = (uint16_t)slot;
    said->host = slice_of(address.p, (size_t)(colon - address.p));
    said->port = slice_of(colon + 1, address.n - said->host.n - 1);
    if (slice_eq(said->host, SLICE("?"))) {
        said->host.n = 0;
    }
    return true;
}

static struct said listen_to(struct slice text)
{
    struct said said = {.refusal = REFUSAL_NONE};
    if (slice_starts(text, SLICE("-MOVED ")) &&
        parse_target(slice_of(text.p + 7, text.n - 7), &said)) {
        said.refusal = REFUSAL_MOVED;
    } else if (slice_starts(text, SLICE("-ASK ")) &&
               parse_target(slice_of(text.p + 5, text.n - 5), &said)) {
        said.refusal = REFUSAL_ASK;
    } else if (slice_starts(text, SLICE("-TRYAGAIN "))) {
        said.refusal = REFUSAL_TRYAGAIN;
    }
    return said;
}

/* Other words that make the map doubtful. */
static bool is_doubtful(struct slice text)
{
    return slice_starts(text, SLICE("-CLUSTERDOWN")) || slice_starts(text, SLICE("-READONLY")) ||
           slice_starts(text, SLICE("-MASTERDOWN"));
}

static struct slice host_said(const struct worker *worker, uint16_t from, const struct said *said)
{
    const struct topology *topology = worker->server->topology;
    return said->host.n > 0 ? said->host
                            : slice_str(node_options(topology_node(topology, from))->host);
}

/* Where ASK leads. */
static uint16_t target_of_ask(struct worker *worker, uint16_t from, struct said said)
{
    struct server *server = worker->server;
    l1_drop_slot(server->l1, said.slot); /* what is created there is announced there */
    return topology_find(server->topology, host_said(worker, from, &said), said.port);
}

bool redirect_notes(struct worker *worker, uint16_t node, struct slice text)
{
    struct topology *topology = worker->server->topology;
    struct said said = {.refusal = REFUSAL_NONE};
    if (worker->server->is_cluster) {
        said = listen_to(text);
    }
    switch (said.refusal) {
    case REFUSAL_MOVED:
        COUNT(worker, redirects_moved, 1);
        (void)topology_moved(topology, said.slot, node, said.host, said.port);
        return true;
    case REFUSAL_ASK:
        COUNT(worker, redirects_ask, 1);
        l1_drop_slot(worker->server->l1, said.slot);
        return true;
    case REFUSAL_TRYAGAIN:
        return true;
    case REFUSAL_NONE:
        break;
    }
    if (is_doubtful(text)) {
        topology_suspect(topology);
    }
    return false;
}

/* ---- The list ------------------------------------------------------------------------------- */

static void append(struct worker *worker, struct request *request)
{
    request->next_redirected = NULL;
    *worker->redirected_tail = request;
    worker->redirected_tail = &request->next_redirected;
}

static void leave_replica(struct request *request)
{
    if (request->road == ROAD_REPLICA && request->client != NULL) {
        client_move_road(request->client, request, ROAD_LANE);
    } else if (request->road == ROAD_REPLICA) {
        request->road = ROAD_LANE;
    }
}

static void raise_barrier(struct client *c)
{
    c->has_barrier = true;
    c->barrier = (uint32_t)c->next_seq;
}

static void take(struct request *request, uint16_t node, int64_t delay_ms)
{
    struct client *c = request->client;
    leave_replica(request);
    request->redirecting = true;
    request->node = node;
    request->due = request->worker->now + delay_ms;
    if (c != NULL) {
        raise_barrier(c);
        c->scattered = true;
    }
    append(request->worker, request);
}

/* Where it goes by the map; its old node if that has nobody. */
static uint16_t owner_of(const struct request *request)
{
    uint16_t owner = request->slot == SLOT_NONE
                         ? TOPOLOGY_NONE
                         : topology_owner(request->worker->server->topology, request->slot);
    return owner == TOPOLOGY_NONE ? request->node : owner;
}

void redirect_to_owner(struct request *request)
{
    leave_replica(request);
    request->node = owner_of(request);
    if (request->client != NULL) {
        request->client->scattered = true;
    }
}

/* The same node, or who owns the slot by then, in a moment; for so long at most. False: it has been
 * tried for long enough, or a later request of its client has overtaken it already. */
static bool try_later(struct request *request)
{
    struct worker *worker = request->worker;
    if (request->client != NULL && order_has_later(&worker->order, request)) {
        return false;
    }
    request->try_until = request->try_until == 0 ? worker->now + TRYAGAIN_MS : request->try_until;
    if (worker->now >= request->try_until) {
        return false;
    }
    request->asking = false;
    take(request, owner_of(request), RETRY_MS);
    return true;
}

/* While a slot changes hands its old and its new owner may both name the other one for a moment, and for longer
 * where they are busy. */
static int64_t pause_before(const struct request *request)
{
    static const int64_t pauses[REDIRECTS_MAX + 1] = {0, 0, 0, 50, 150, 500, 1000, 2000};
    return pauses[request->redirects];
}

static bool follow_moved(struct request *request, struct said said)
{
    struct worker *worker = request->worker;
    struct topology *topology = worker->server->topology;
    COUNT(worker, redirects_moved, 1);
    uint16_t node = topology_moved(topology, said.slot, request->node, said.host, said.port);
    if (node == TOPOLOGY_NONE) {
        return false;
    }
    request->asking = false;
    take(request, node, pause_before(request));
    return true;
}

/* It is not known who said it: the map is doubtful, and stays as it is until it is asked for. */
static bool follow_doubtful(struct request *request, struct said said)
{
    struct worker *worker = request->worker;
    struct topology *topology = worker->server->topology;
    struct slice host = host_said(worker, request->node, &said);
    COUNT(worker, redirects_moved, 1);
    topology_suspect(topology);
    l1_drop_slot(worker->server->l1, said.slot);
    request->asking = false;
    take(request, topology_find(topology, host, said.port), pause_before(request));
    return true;
}

static bool follow_ask(struct request *request, struct said said)
{
    struct worker *worker = request->worker;
    COUNT(worker, redirects_ask, 1);
    if (request->road == ROAD_PINNED && !request->blocks && !request->alone) {
        return try_later(request); /* ASKING cannot be said inside MULTI */
    }
    uint16_t node = target_of_ask(worker, request->node, said);
    if (node == TOPOLOGY_NONE) {
        return false;
    }
    request->asking = true;
    take(request, node, pause_before(request));
    return true;
}

/* Can it be sent again at all? On a connection of its client's own only what began the session. */
static bool may_follow(const struct request *request)
{
    return request->raw.n > 0 && request->redirects < REDIRECTS_MAX &&
           (request->road != ROAD_PINNED || request->anchors);
}

/* A replica that loads its data, waits for its master or runs a script may be passed over, if that is all the
 * same to who asked. */
static bool is_passed_over(const struct request *request, const struct reply_piece *piece)
{
    return request->road == ROAD_REPLICA && piece->last && request->raw.n > 0 &&
           request->worker->server->conf->upstream_read_from == CONF_READ_PREFER_REPLICA &&
           node_text_is_occupied(slice_of(piece->bytes.p + 1, piece->bytes.n - 1));
}

/* May the error be the words of a script, which may be whoever's? */
static bool may_be_a_scripts(const struct request *request)
{
    if (request->cmd == NULL) {
        return false; /* a GET or an MGET that began on F */
    }
    struct slice name = slice_str(request->cmd->name);
    return slice_starts(name, SLICE("eval")) || slice_starts(name, SLICE("fcall")) ||
           !cmd_is_built_in(name);
}

/* A refusal that may be a script's. */
static bool take_doubtful(struct request *request, struct said said)
{
    struct worker *worker = request->worker;
    struct topology *topology = worker->server->topology;
    struct slice host = host_said(worker, request->node, &said);
    if (request->slot == SLOT_NONE) {
        return false;
    }
    if (!topology_knows(topology, host, said.port)) {
        request->redirects++;
        topology_suspect(topology);
        return try_later(request);
    }
    if (topology_find(topology, host, said.port) == request->node) {
        return false;
    }
    request->redirects++;
    return said.refusal == REFUSAL_MOVED ? follow_doubtful(request, said)
                                         : follow_ask(request, said);
}

bool redirect_takes(struct request *request, const struct reply_piece *piece)
{
    struct worker *worker = request->worker;
    struct topology *topology = worker->server->topology;
    struct said said = {.refusal = REFUSAL_NONE};
    if (worker->server->is_cluster && piece->last) {
        said = listen_to(piece->bytes);
    }
    if (said.refusal == REFUSAL_NONE) {
        if (is_doubtful(piece->bytes)) {
            topology_suspect(topology);
        }
        if (is_passed_over(request, piece)) {
            take(request, owner_of(request), 0);
            return true;
        }
        return false;
    }
    if (!may_follow(request)) {
        topology_suspect(topology);
        return false;
    }
    bool doubtful = may_be_a_scripts(request);
    if (said.refusal == REFUSAL_TRYAGAIN) {
        if (doubtful && !slice_eq(piece->bytes, TRYAGAIN_OF_REDIS)) {
            return false;
        }
        COUNT(worker, redirects_tryagain, 1);
        return try_later(request);
    }
    if (request->slot != SLOT_NONE && said.slot != request->slot) {
        return false;
    }
    if (doubtful) {
        return take_doubtful(request, said);
    }
    request->redirects++;
    return said.refusal == REFUSAL_MOVED ? follow_moved(request, said) : follow_ask(request, said);
}

/* ---- Sending again -------------------------------------------------------------------------- */

/* An earlier request for one of its keys is out elsewhere, or waits here as well. */
static bool has_to_wait(const struct request *request)
{
    struct worker *worker = request->worker;
    if (request->due > worker->now) {
        return true;
    }
    for (uint32_t i = 0; i < request->nkeys; i++) {
        const struct request *earlier =
            order_find(&worker->order, request->client, request->hashes[i], request->seq);
        if (earlier != NULL && (earlier->redirecting || earlier->node != request->node ||
                                earlier->road != request->road)) {
            return true;
        }
    }
    return false;
}

static void give_up(struct request *request, const char *why)
{
    forward_drop(request);
    if (request->client == NULL) {
        request_destroy(request);
    } else {
        forward_fail(request, why);
    }
}

static void send_again(struct request *request)
{
    struct client *c = request->client;
    struct slice raw = request->raw;
    request->plain = false; /* there may be ASKING's reply first */
    request->preface = 0;
    if (request->road == ROAD_PINNED) {
        if (c == NULL) {
            give_up(request, "");
        } else {
            session_send_again(c, request);
        }
        return;
    }
    if (!request->asking) {
        forward_request(request, raw, request->raw_blob);
        return;
    }
    struct slice asking = REDIRECT_ASKING;
    struct blob *both = blob_try(asking.n + raw.n);
    if (both == NULL) {
        give_up(request, "out of memory");
        return;
    }
    memcpy(both->p, asking.p, asking.n);
    memcpy(both->p + asking.n, raw.p, raw.n);
    request->preface = 1;
    forward_request(request, slice_of(both->p, asking.n + raw.n), both);
    blob_unref(both);
}

void redirect_flush(struct worker *worker)
{
    struct request *request = worker->redirected;
    worker->redirected = NULL;
    worker->redirected_tail = &worker->redirected;
    while (request != NULL) {
        struct request *next = request->next_redirected;
        if (request->client == NULL) {
            request->redirecting = false;
            give_up(request, "");
        } else if (has_to_wait(request)) {
            append(worker, request);
        } else {
            request->redirecting = false;
            send_again(request);
        }
        request = next;
    }
}

void redirect_init(struct worker *worker)
{
    worker->redirected_tail = &worker->redirected;
}

void redirect_fini(struct worker *worker)
{
    while (worker->redirected != NULL) {
        struct request *request = worker->redirected;
        worker->redirected = request->next_redirected;
        if (worker->redirected == NULL) {
            worker->redirected_tail = &worker->redirected;
        }
        request->redirecting = false;
        give_up(request, "Nearside is stopping");
    }
}

/* ---- The barrier ---------------------------------------------------------------------------- */

bool redirect_waits(struct client *c)
{
    uint32_t version = (uint32_t)topology_version(c->worker->server->topology);
    if (version != c->topology) {
        c->topology = version; /* before the owner of the next request's slot is looked up */
        raise_barrier(c);
    }
    /* Of what is unanswered the numbers differ by less than 2^31: proxy.window. */
    c->has_barrier =
        c->has_barrier && c->head != NULL && (int32_t)((uint32_t)c->head->seq - c->barrier) < 0;
    return c->has_barrier;
}
