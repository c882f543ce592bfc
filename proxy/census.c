/* SPDX-License-Identifier: Apache-2.0
 *
 * census.c: the round.
 *
 *   client ─► request (REQUEST_CENSUS) ─► worker 0 ─► worker 1 ─► ... ─► home: answer
 *
 * The census is a post that is with one worker at a time, so nothing in it is atomic. The client may
 * leave meanwhile: its request stays behind as a ghost and is freed when the census comes home. A
 * census that is under way when the process ends is brought home by worker_run_posts.
 */
#include "census.h"

#include "forward.h"
#include "login.h"
#include "pinned.h"
#include "profile.h"
#include "../resp/write.h"

#include "../conf/mem.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

/* One client's line in CLIENT LIST. */
struct census_line {
    uint64_t id;
    struct blob *text;
};

struct census {
    struct post post;
    enum census_kind kind;
    struct census_filter filter;
    bool with_error;
    struct worker *home;
    struct request *request; /* home's */
    uint64_t asker;
    const char *asker_cmd;
    size_t asker_size;
    unsigned at; /* the worker it is with */
    bool no_memory;
    struct census_line *lines;
    size_t nlines, cap;
    int64_t killed;
    bool kills_asker;
    int64_t peer_id; /* of the client to be unblocked, at the server; 0: it is not blocked */
};

struct census *census_create(enum census_kind kind)
{
    struct census *census = mem_try_zero(sizeof(*census));
    if (census != NULL) {
        census->kind = kind;
    }
    return census;
}

void census_destroy(struct census *census)
{
    if (census == NULL) {
        return;
    }
    for (size_t i = 0; i < census->nlines; i++) {
        blob_unref(census->lines[i].text);
    }
    mem_free(census->lines);
    mem_free(census->filter.ids);
    blob_unref(census->filter.user);
    mem_free(census);
}

struct census_filter *census_filter(struct census *census)
{
    return &census->filter;
}

void census_unblock_with_error(struct census *census)
{
    census->with_error = true;
}

/* ---- At each worker ------------------------------------------------------------------------- */

static bool has_id(const struct census_filter *filter, uint64_t id)
{
    for (size_t i = 0; i < filter->nids; i++) {
        if (filter->ids[i] == id) {
            return true;
        }
    }
    return filter->ids == NULL;
}

static bool has_type(const struct client *c, enum census_type type)
{
    struct pinned_counts counts = pinned_counts(c);
    bool subscribed = counts.channels + counts.patterns + counts.shards > 0;
    switch (type) {
    case CENSUS_ANY:
        return true;
    case CENSUS_NORMAL:
        return !subscribed; /* one in MONITOR too */
    case CENSUS_PUBSUB:
        return subscribed;
    }
    return false;
}

static bool has_user(const struct census_filter *filter, const struct client *c)
{
    if (filter->user == NULL) {
        return true;
    }
    struct slice asked = slice_of(filter->user->p, filter->user->n);
    struct slice user = profile_user(c);
    return user.n == 0 ? login_is_ours(c->worker->server, asked) : slice_eq(user, asked);
}

static bool is_meant(const struct census *census, const struct client *c)
{
    const struct census_filter *filter = &census->filter;
    char text[PROFILE_ADDRESS_MAX];
    if (!has_id(filter, c->id) || !has_type(c, filter->type) || !has_user(filter, c) ||
        (filter->skips_self && c->id == census->asker) ||
        c->worker->now / 1000 - c->since < filter->max_age) {
        return false;
    }
    if (filter->addr[0] != '\0') {
        profile_address(c, false, text);
        if (strcmp(text, filter->addr) != 0) {
            return false;
        }
    }
    if (filter->laddr[0] != '\0') {
        profile_address(c, true, text);
        return strcmp(text, filter->laddr) == 0;
    }
    return true;
}

static struct blob *line_of(const struct census *census, const struct client *c)
{
    struct chain line;
    struct blob *text = NULL;
    const char *cmd = c->id == census->asker ? census->asker_cmd
                      : c->last_cmd == NULL  ? "NULL"
                                             : c->last_cmd->name;
    chain_init(&line);
    if (profile_line(c, cmd, c->id == census->asker ? census->asker_size : 0, &line)) {
        text = chain_take_blob(&line);
    }
    chain_fini(&line);
    return text;
}

static void add_line(struct census *census, const struct client *c)
{
    if (census->nlines == census->cap) {
        size_t cap = census->cap == 0 ? 64 : 2 * census->cap;
        struct census_line *grown = mem_try_resize(census->lines, cap * sizeof(*grown));
        if (grown == NULL) {
            census->no_memory = true;
            return;
        }
        census->lines = grown;
        census->cap = cap;
    }
    struct blob *text = line_of(census, c);
    if (text == NULL) {
        census->no_memory = true;
        return;
    }
    census->lines[census->nlines++] = (struct census_line){c->id, text};
}

static void kill_client(struct census *census, struct client *c)
{
    census->killed++;
    if (c->id == census->asker) {
        census->kills_asker = true;
    } else {
        client_close(c);
    }
}

static void look_at(struct census *census, struct client *c)
{
    if (!is_meant(census, c)) {
        return;
    }
    switch (census->kind) {
    case CENSUS_LIST:
        add_line(census, c);
        break;
    case CENSUS_KILL:
        kill_client(census, c);
        break;
    case CENSUS_KILL_ADDRESS:
        if (census->killed == 0) {
            kill_client(census, c);
        }
        break;
    case CENSUS_UNBLOCK:
        census->peer_id = c->nblocked > 0 ? pinned_peer_id(c) : 0;
        break;
    }
}

static void on_home(struct worker *worker, struct post *post);

static void on_visit(struct worker *worker, struct post *post)
{
    struct census *census = container_of(post, struct census, post);
    struct client *next;
    for (struct client *c = worker->clients.head; c != NULL; c = next) {
        next = c->next;
        look_at(census, c);
    }
    census->at++;
    if (census->at < worker->server->nworkers) {
        worker_post(worker->server->workers[census->at], &census->post);
    } else {
        census->post.run = on_home;
        worker_post(census->home, &census->post);
    }
}

/* ---- At home -------------------------------------------------------------------------------- */

static int by_id(const void *a, const void *b)
{
    const struct census_line *x = a;
    const struct census_line *y = b;
    return (x->id > y->id) - (x->id < y->id);
}

static bool answer_list(struct census *census, struct chain *out, bool resp3)
{
    size_t bytes = 0;
    if (census->nlines > 0) {
        qsort(census->lines, census->nlines, sizeof(*census->lines), by_id);
    }
    for (size_t i = 0; i < census->nlines; i++) {
        bytes += census->lines[i].text->n;
    }
    bool ok = !census->no_memory && resp_verbatim_begin(out, bytes, resp3);
    for (size_t i = 0; ok && i < census->nlines; i++) {
        ok = chain_append(out, slice_of(census->lines[i].text->p, census->lines[i].text->n));
    }
    return ok && chain_append(out, SLICE("\r\n"));
}

/* In the server's numbering. Should the client have become another one's connection in between, that
 * one is unblocked: it is the price of asking twice. */
static void unblock(struct request *request, const struct census *census)
{
    char raw[128];
    char id[32];
    int nid = snprintf(id, sizeof(id), "%" PRId64, census->peer_id);
    int n = snprintf(raw, sizeof(raw), "*4\r\n$6\r\nCLIENT\r\n$7\r\nUNBLOCK\r\n$%d\r\n%s\r\n%s\r\n",
                     nid, id, census->with_error ? "$5\r\nERROR" : "$7\r\nTIMEOUT");
    request->kind = REQUEST_FORWARD;
    forward_request(request, slice_of(raw, (size_t)n), NULL);
}

static void on_home(struct worker *worker, struct post *post)
{
    struct census *census = container_of(post, struct census, post);
    struct request *request = census->request;
    struct client *c = request->client;
    bool ok = true;
    (void)worker;
    if (c == NULL) {
        request_destroy(request);
        census_destroy(census);
        return;
    }
    if (census->kind == CENSUS_UNBLOCK && census->peer_id != 0) {
        unblock(request, census);
        census_destroy(census);
        return;
    }
    request->kind = REQUEST_HELD;
    switch (census->kind) {
    case CENSUS_LIST:
        ok = answer_list(census, &request->reply, request->resp3);
        break;
    case CENSUS_KILL:
        ok = resp_integer(&request->reply, census->killed);
        break;
    case CENSUS_KILL_ADDRESS:
        ok = census->killed > 0 ? resp_status(&request->reply, "OK")
                                : resp_error(&request->reply, "ERR No such client");
        break;
    case CENSUS_UNBLOCK:
        ok = resp_integer(&request->reply, 0);
        break;
    }
    if (census->kills_asker) {
        client_end(c); /* when it has been told, as Redis does; nothing behind it is executed */
    }
    census_destroy(census);
    if (ok) {
        client_finish(c, request);
    } else {
        client_close(c);
    }
}

void census_start(struct client *c, const struct cmd *cmd, size_t size, struct census *census)
{
    struct request *request = request_create(c->worker);
    if (request == NULL) {
        census_destroy(census);
        client_close(c);
        return;
    }
    request->kind = REQUEST_CENSUS;
    request->class = CMD_NONE;
    request->road = ROAD_LANE;
    request->cmd = cmd;
    request->holds =
        true; /* one at a time: its answer may be large, and a KILL is to end what follows */
    census->home = c->worker;
    census->request = request;
    census->asker = c->id;
    census->asker_cmd = cmd->name;
    census->asker_size = size;
    census->post.run = on_visit;
    client_enqueue(c, request);
    worker_post(c->worker->server->workers[0], &census->post);
}
