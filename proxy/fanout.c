/* SPDX-License-Identifier: Apache-2.0
 *
 * fanout.c: the life of a command for several nodes.
 *
 *   fanout_takes ─► request in the client's queue (REQUEST_FANOUT, ROAD_SPLIT) and its parts
 *   parts ─► fanout_part_done or _closed, each once ─► the last one posts ─► finish: join, answer
 *
 * Order: it begins when nothing of its client that it could conflict with is unanswered, and what comes
 * later and could conflict with it waits for its answer: nothing can go where all of it goes. Without
 * keys it conflicts with everything.
 *
 * The client may leave meanwhile: the request stays behind as a ghost, for its parts may be writes.
 * A part that closes over a limit, or because half a reply was lost, fails the whole. Nothing is
 * atomic: parts are executed one by one, and an error of one does not undo the others.
 */
#include "fanout.h"

#include "../resp/spread.h"
#include "../resp/write.h"

#include "../conf/mem.h"

struct fanout_part {
    struct client *client; /* NULL: done, or closed */
    size_t replies;        /* it owes */
    struct chain output;
};

struct fanout {
    struct post post;
    struct request *request;
    enum cmd_spread how;
    uint16_t node; /* SCAN: whose reply it is, */
    uint16_t name; /* and what its cursors call it */
    bool failed;
    size_t left; /* parts that have a client */
    size_t nparts;
    struct fanout_part parts[];
};

/* ---- The end ------------------------------------------------------------------------------- */

static void destroy(struct fanout *fanout)
{
    for (size_t i = 0; i < fanout->nparts; i++) {
        chain_fini(&fanout->parts[i].output);
    }
    mem_free(fanout);
}

/* The next primary behind that one, or NONE. */
static uint16_t primary_from(const struct topology *topology, uint32_t from)
{
    uint16_t count = topology_count(topology);
    for (uint32_t i = from; i < count; i++) {
        if (topology_role(topology, (uint16_t)i) == TOPOLOGY_PRIMARY) {
            return (uint16_t)i;
        }
    }
    return TOPOLOGY_NONE;
}

/* What a cursor calls the node: its index may stand for another one later, and an older cursor would go on there. */
#define SCAN_ERAS ((SPREAD_SCAN_NODES - 1) / TOPOLOGY_NODES_MAX)

static uint16_t scan_name(const struct topology *topology, uint16_t index)
{
    uint64_t era = node_era(topology_node(topology, index)) % SCAN_ERAS;
    return (uint16_t)(era * TOPOLOGY_NODES_MAX + index);
}

/* TOPOLOGY_NONE: it is gone. */
static uint16_t scan_node(const struct topology *topology, uint16_t name)
{
    uint16_t index = name % TOPOLOGY_NODES_MAX;
    bool is_it = index < topology_count(topology) && scan_name(topology, index) == name &&
                 topology_role(topology, index) == TOPOLOGY_PRIMARY;
    return is_it ? index : TOPOLOGY_NONE;
}

static bool answer_scan(const struct fanout *fanout, struct slice reply, struct chain *out)
{
    const struct topology *topology = fanout->request->worker->server->topology;
    struct spread_scan next = {.node = fanout->name};
    if (!spread_scan_next(reply, &next.cursor)) {
        return chain_append(out, reply); /* an error */
    }
    if (next.cursor == 0) {
        uint16_t node = primary_from(topology, fanout->node + 1U);
        if (node == TOPOLOGY_NONE) {
            return spread_scan_reply(reply, NULL, out);
        }
        next.node = scan_name(topology, node);
    }
    return spread_scan_reply(reply, &next, out);
}

/* All replies, one behind the other in one piece; NULL: memory is out. */
static char *gather(struct fanout *fanout, size_t *size, size_t *replies)
{
    struct chain all;
    chain_init(&all);
    *replies = 0;
    for (size_t i = 0; i < fanout->nparts; i++) {
        chain_splice(&all, &fanout->parts[i].output);
        *replies += fanout->parts[i].replies;
    }
    *size = all.bytes;
    char *bytes = mem_try(all.bytes + 1);
    if (bytes != NULL) {
        chain_take(&all, bytes);
    }
    chain_fini(&all);
    return bytes;
}

static bool join(struct fanout *fanout, struct chain *out)
{
    struct worker *worker = fanout->request->worker;
    size_t size;
    size_t n;
    char *bytes = gather(fanout, &size, &n);
    struct slice *replies = mem_try(n * sizeof(*replies));
    bool ok = bytes != NULL && replies != NULL;
    if (ok && !spread_replies(slice_of(bytes, size), replies, n)) {
        ok = resp_error(out, "UPSTREAM a node's reply to a part of the command makes no sense");
    } else if (ok && fanout->how == SPREAD_SCAN) {
        ok = answer_scan(fanout, replies[0], out);
    } else if (ok) {
        ok = spread_join(fanout->how, replies, n, (uint32_t)worker->now, fanout->request->resp3,
                         out);
    }
    mem_free(replies);
    mem_free(bytes);
    return ok;
}

static void finish(struct worker *worker, struct post *post)
{
    (void)worker;
    struct fanout *fanout = container_of(post, struct fanout, post);
    struct request *request = fanout->request;
    struct client *c = request->client;
    if (c == NULL) {
        request_destroy(request);
        destroy(fanout);
        return;
    }
    request->kind = REQUEST_HELD;
    bool ok = fanout->failed ? resp_error(&request->reply,
                                          "UPSTREAM a part of the command was given up; whether "
                                          "all of it was executed is unknown")
                             : join(fanout, &request->reply);
    destroy(fanout);
    if (ok) {
        client_finish(c, request);
    } else {
        client_close(c);
    }
}

/* ---- Parts --------------------------------------------------------------------------------- */

static void end_part(struct client *client, bool done)
{
    struct fanout *fanout = client_fanout(client);
    for (size_t i = 0; i < fanout->nparts; i++) {
        struct fanout_part *part = &fanout->parts[i];
        if (part->client != client) {
            continue;
        }
        part->client = NULL;
        fanout->failed = fanout->failed || !done;
        chain_splice(&part->output, &client->out);
        if (--fanout->left == 0) {
            fanout->post.run = finish;
            worker_post(client->worker, &fanout->post); /* not from the middle of something */
        }
        return;
    }
}

void fanout_part_done(struct client *part)
{
    end_part(part, true);
    client_close(part);
}

void fanout_part_closed(struct client *part)
{
    end_part(part, false);
}

/* The node that keeps a part waiting. */
static bool find_late(const struct client *part, uint16_t *node)
{
    for (const struct request *request = part->head; request != NULL; request = request->next) {
        if (!request->answered) {
            *node = request->node;
            return true;
        }
    }
    return false;
}

/* Who asks for a key later is not to wait for the fetch this part waited for. */
static void give_up_fetches(struct client *part)
{
    for (struct request *request = part->head; request != NULL; request = request->next) {
        if (request->kind == REQUEST_GET && !request->answered &&
            l1_give_up(part->worker->server->l1, &request->waiter)) {
            request->kind = REQUEST_HELD; /* it is not woken any more, and goes with its client */
        }
    }
}

void fanout_give_up(struct request *request)
{
    struct fanout *fanout = request->fanout;
    bool found = false;
    for (size_t i = 0; i < fanout->nparts; i++) {
        struct client *part = fanout->parts[i].client;
        if (part != NULL) {
            found = found || find_late(part, &request->node);
            give_up_fetches(part);
            client_close(part);
        }
    }
}

void fanout_close_parts(struct worker *worker)
{
    while (worker->parts.head != NULL) {
        client_close(worker->parts.head);
    }
}

/* ---- The beginning ------------------------------------------------------------------------- */

static struct fanout *create(struct request *request, enum cmd_spread how, size_t nparts)
{
    struct fanout *fanout = mem_try_zero(sizeof(*fanout) + nparts * sizeof(fanout->parts[0]));
    if (fanout == NULL) {
        return NULL;
    }
    fanout->request = request;
    request->fanout = fanout;
    fanout->how = how;
    for (size_t i = 0; i < nparts; i++) {
        chain_init(&fanout->parts[i].output);
    }
    return fanout;
}

static bool add_part(struct fanout *fanout, struct client *c, uint16_t node, size_t replies,
                     struct blob *in)
{
    struct client *client = client_create_part(c, fanout, node, in);
    if (client == NULL) {
        return false;
    }
    struct fanout_part *part = &fanout->parts[fanout->nparts++];
    part->client = client;
    part->replies = replies;
    fanout->left++;
    return true;
}

/* One part: its commands find their nodes by their keys. */
static bool begin_by_slot(struct fanout *fanout, struct client *c, const struct request_view *view)
{
    struct chain commands;
    size_t n = 0;
    chain_init(&commands);
    struct blob *in = spread_split(fanout->how, view, topology_slot, &commands, &n)
                          ? chain_take_blob(&commands)
                          : NULL;
    bool ok = in != NULL && add_part(fanout, c, TOPOLOGY_NONE, n, in);
    blob_unref(in);
    chain_fini(&commands);
    return ok;
}

static bool begin_scan(struct fanout *fanout, struct client *c, const struct request_view *view)
{
    const struct topology *topology = c->worker->server->topology;
    struct spread_scan scan = {0};
    struct chain command;
    bug_on(!spread_scan_read(view->argv[1], &scan)); /* looked at before */
    fanout->node = scan.begins ? TOPOLOGY_NONE : scan_node(topology, scan.node);
    if (fanout->node == TOPOLOGY_NONE) {
        /* its node is gone: what it had may be anywhere now, so all of it again */
        scan.cursor = 0;
        fanout->node = primary_from(topology, 0);
    }
    fanout->name = fanout->node == TOPOLOGY_NONE ? 0 : scan_name(topology, fanout->node);
    chain_init(&command);
    struct blob *in =
        spread_scan_request(view, scan.cursor, &command) ? chain_take_blob(&command) : NULL;
    bool ok = in != NULL && add_part(fanout, c, fanout->node, 1, in);
    blob_unref(in);
    chain_fini(&command);
    return ok;
}

static bool begin_everywhere(struct fanout *fanout, struct client *c, size_t max,
                             const struct request_view *view)
{
    const struct topology *topology = c->worker->server->topology;
    struct blob *in = blob_try_copy(view->raw);
    bool ok = in != NULL;
    uint16_t node = primary_from(topology, 0);
    for (; ok && node != TOPOLOGY_NONE && fanout->nparts < max;
         node = primary_from(topology, node + 1U)) {
        ok = add_part(fanout, c, node, 1, in);
    }
    blob_unref(in);
    return ok;
}

static bool is_by_slot(enum cmd_spread how)
{
    return how == SPREAD_GETS || how == SPREAD_SETS || how == SPREAD_COUNT;
}

/* The request in its client's queue. NULL: it has to wait, or (with the client closed) memory is out. */
static struct request *enqueue(struct client *c, const struct cmd *cmd, enum cmd_class class,
                               bool by_slot, const struct request_view *view)
{
    struct request *request = request_create(c->worker);
    if (request == NULL) {
        client_close(c);
        return NULL;
    }
    request->kind = REQUEST_FANOUT;
    request->road = ROAD_SPLIT;
    request->cmd = cmd;
    request->class = CMD_READ; /* what it does to L1 its parts do */
    if (!dispatch_collect_keys(request, cmd, view)) {
        request_destroy(request);
        client_close(c);
        return NULL;
    }
    if (!by_slot) {
        request->class = class == CMD_FLUSH ? CMD_FLUSH : CMD_UNKNOWN; /* for the order */
    }
    if (!dispatch_is_free(c, request)) {
        request_destroy(request);
        return NULL;
    }
    client_enqueue(c, request);
    return request;
}

static enum dispatch start(struct client *c, struct request *request, enum cmd_spread how,
                           const struct request_view *view)
{
    size_t max =
        is_by_slot(how) || how == SPREAD_SCAN ? 1 : topology_count(c->worker->server->topology);
    struct fanout *fanout = create(request, how, max);
    COUNT(c->worker, fanouts, 1);
    bool ok = fanout != NULL && (is_by_slot(how)      ? begin_by_slot(fanout, c, view)
                                 : how == SPREAD_SCAN ? begin_scan(fanout, c, view)
                                                      : begin_everywhere(fanout, c, max, view));
    if (ok) {
        return DISPATCH_DONE;
    }
    if (fanout == NULL || fanout->nparts == 0) {
        if (fanout != NULL) {
            destroy(fanout);
        }
        request->kind = REQUEST_HELD; /* goes with its client */
    }
    client_close(c); /* parts that have begun go on, for a ghost */
    return DISPATCH_DONE;
}

/* Does Redis see anything to do in it? Otherwise one node says what is wrong with it. */
static bool makes_sense(const struct cmd *cmd, enum cmd_spread how, const struct request_view *view)
{
    return cmd_arity_ok(cmd, view->argc) && (how != SPREAD_SETS || view->argc % 2 == 1);
}

bool fanout_takes(struct client *c, const struct cmd *cmd, enum cmd_class class,
                  const struct request_view *view, enum dispatch *result)
{
    const struct server *server = c->worker->server;
    enum cmd_spread how = cmd_spread(cmd);
    struct spread_scan scan;
    if (how == SPREAD_NO || c->is_part) {
        return false;
    }
    *result = DISPATCH_DONE;
    if (!makes_sense(cmd, how, view)) {
        client_reply_error(c, "ERR wrong number of arguments for '%s' command", cmd->name);
        return true;
    }
    if (is_by_slot(how) ? c->place.route != ROUTE_CROSSES
                        : primary_from(server->topology, 0) == TOPOLOGY_NONE) {
        return false;
    }
    if (how == SPREAD_SCAN && !spread_scan_read(view->argv[1], &scan)) {
        client_reply_error(c, "ERR invalid cursor");
        return true;
    }
    struct request *request = enqueue(c, cmd, class, is_by_slot(how), view);
    if (request != NULL) {
        *result = start(c, request, how, view);
    } else if (c->state != CLIENT_CLOSED) {
        *result = DISPATCH_STALL;
    }
    return true;
}
