/* SPDX-License-Identifier: Apache-2.0
 *
 * standin.c: see standin.h.
 *
 *   CLIENT SETNAME x ─► CLIENT SETNAME "? ?" ─► QUEUED: kept, with its place in the transaction
 *   EXEC ─► *3 a, b, c ─► the server's bytes up to b, the answer given here, the server's bytes from c on
 *
 * The server says QUEUED, NOPERM or what is wrong with the command before it looks at its arguments. What
 * was queued is counted by the replies, since not everything that is sent inside MULTI is. A client
 * whose EXEC is so treated waits for its reply (request->holds), so that nothing else is unanswered when
 * the answers are given, in the order of their commands.
 *
 * A message to who publishes to itself (RESP3) stands between the elements and is none.
 */
#include "standin.h"

#include "forward.h"
#include "local.h"
#include "login.h"
#include "pinned.h"
#include "profile.h"
#include "replication.h"
#include "stream.h"
#include "../resp/elements.h"
#include "../resp/write.h"

#include "../conf/mem.h"

/* Of one transaction, in all. */
#define KEPT_MAX ((size_t)64 * 1024)

/* No integer, no name for a client, no option of CLIENT, no address. */
#define NONSENSE "$3\r\n? ?\r\n"

/* A command that was queued. */
struct standin_one {
    uint32_t at; /* its element in the reply to EXEC */
    const struct cmd *cmd;
    struct blob *raw;
    struct standin_one *next;
};

struct standins {
    struct standin_one *first;
    struct standin_one **end;
};

/* ---- Queueing -------------------------------------------------------------------------------- */

/* Confirmed once, so that the reply to EXEC has as many elements as it says? */
static bool is_confirmed_once(const struct client *c, const struct cmd *cmd, int64_t argc)
{
    struct pinned_counts counts = pinned_counts(c);
    int64_t n = *cmd->name == 'p'   ? counts.patterns
                : *cmd->name == 's' ? counts.shards
                                    : counts.channels;
    return argc == 2 || (argc == 1 && n <= 1 && !c->multi_streams);
}

static bool names_auth(const struct request_view *view)
{
    struct arg_walk walk;
    struct slice word;
    arg_walk_init(&walk, view);
    while (arg_walk_next(&walk, &word)) {
        if (slice_eq_nocase(word, SLICE("AUTH"))) {
            return true;
        }
    }
    return false;
}

bool standin_asks(const struct cmd *cmd)
{
    return strcmp(cmd->name, "client|list") == 0 || strcmp(cmd->name, "client|kill") == 0 ||
           strcmp(cmd->name, "client|unblock") == 0;
}

static enum standin for_local(const struct client *c, const struct cmd *cmd,
                              const struct request_view *view)
{
    const struct server *server = c->worker->server;
    if (!cmd_arity_ok(cmd, view->argc) || (cmd->has_sub && cmd->local == LOCAL_CLIENT)) {
        return STANDIN_NONE; /* the server refuses it */
    }
    switch (cmd->local) {
    case LOCAL_AUTH:
        return !login_is_at_redis(server) ? STANDIN_ANSWERS
               : server->is_cluster       ? STANDIN_REFUSED /* one node would know */
                                          : STANDIN_NONE;
    case LOCAL_CLIENT:
        return local_client_concerns_redis(c, view)    ? STANDIN_NONE
               : c->multi_streams && standin_asks(cmd) ? STANDIN_REFUSED
                                                       : STANDIN_ANSWERS;
    case LOCAL_HELLO:
        return !names_auth(view) || (login_is_at_redis(server) && !server->is_cluster)
                   ? STANDIN_FOLLOWS
                   : STANDIN_REFUSED;
    case LOCAL_SELECT:
        return STANDIN_FOLLOWS;
    case LOCAL_READONLY:
    case LOCAL_READWRITE:
        return server->is_cluster ? STANDIN_ANSWERS : STANDIN_NONE;
    default:
        return STANDIN_NONE;
    }
}

enum standin standin_for(const struct client *c, const struct cmd *cmd, enum cmd_class class,
                         const struct request_view *view)
{
    enum standin kind = STANDIN_NONE;
    if (class == CMD_LOCAL) {
        kind = for_local(c, cmd, view);
    } else if (stream_is_subscription(cmd)) {
        bool fits = is_confirmed_once(c, cmd, view->argc) && !c->multi_asks;
        kind = fits ? STANDIN_FOLLOWS : STANDIN_REFUSED;
    } else if (strcmp(cmd->name, "monitor") == 0) {
        kind = STANDIN_FOLLOWS;
    } else if (replication_is_silent(cmd, view) ||
               (c->multi_streams && !c->resp3 && strcmp(cmd->name, "publish") == 0)) {
        /* EXEC would have an element less than it says; or a message, which RESP2 does not tell from one */
        kind = STANDIN_REFUSED;
    }
    bool has_room = view->raw.n < KEPT_MAX - c->standin_bytes;
    return kind == STANDIN_NONE || has_room ? kind : STANDIN_REFUSED;
}

/* The same subcommand, with nonsense for arguments: as few as it takes, and one if it takes any. */
static bool put_client(struct chain *out, const struct cmd *cmd, const struct request_view *view)
{
    int64_t extra = cmd->arity > 0 ? cmd->arity - 2 : cmd->arity < -3 ? -cmd->arity - 2 : 1;
    bool ok = resp_array(out, 2 + extra) && resp_bulk(out, view->argv[0]) &&
              resp_bulk(out, view->argv[1]);
    for (int64_t i = 0; ok && i < extra; i++) {
        ok = chain_append(out, SLICE(NONSENSE));
    }
    return ok;
}

struct blob *standin_command(const struct cmd *cmd, const struct request_view *view)
{
    struct chain out;
    chain_init(&out);
    bool ok = cmd->local == LOCAL_CLIENT ? put_client(&out, cmd, view)
              : cmd->local == LOCAL_INFO
                  ? chain_append(&out, SLICE("*2\r\n$4\r\nINFO\r\n" NONSENSE))
                  : chain_append(&out, SLICE("*1\r\n$4\r\nPING\r\n"));
    struct blob *blob = ok ? chain_take_blob(&out) : NULL;
    chain_fini(&out);
    return blob;
}

static bool keep(struct client *c, const struct request *request)
{
    struct standin_one *one = mem_try_zero(sizeof(*one));
    if (c->standins == NULL) {
        c->standins = mem_try_zero(sizeof(*c->standins));
        if (c->standins != NULL) {
            c->standins->end = &c->standins->first;
        }
    }
    if (one == NULL || c->standins == NULL || (one->raw = blob_try_copy(request->raw)) == NULL) {
        mem_free(one);
        return false;
    }
    one->at = c->nconfirmed - 1;
    one->cmd = request->cmd;
    *c->standins->end = one;
    c->standins->end = &one->next;
    return true;
}

/* There was no MULTI, and it was executed: what was sent in its place, or what nobody has followed. */
static void end_session(struct client *c, struct request *request)
{
    if (stream_is_subscription(request->cmd)) {
        /* in RESP3 its confirmations are no replies: what follows is out of step */
        client_close(c);
        return;
    }
    request->refused = true;
    client_end(c);
}

void standin_queued(struct client *c, struct request *request, const struct reply_piece *piece)
{
    bool queued = slice_eq(piece->bytes, SLICE("+QUEUED\r\n"));
    bool stands_in = request->stands_in;
    c->nconfirmed += queued;
    if (queued && stands_in && !keep(c, request)) {
        client_close(c);
    } else if (!queued && stands_in && piece->type != '-' && request->cmd->local != LOCAL_SELECT) {
        end_session(c, request);
    }
}

/* They are their caller's now. NULL: there are none. */
static struct standins *take_all(struct client *c)
{
    struct standins *standins = c->standins;
    c->nconfirmed = c->standin_bytes = 0;
    c->standins = NULL;
    return standins;
}

static void destroy(struct standins *standins)
{
    struct standin_one *next;
    for (struct standin_one *one = standins == NULL ? NULL : standins->first; one != NULL;
         one = next) {
        next = one->next;
        blob_unref(one->raw);
        mem_free(one);
    }
    mem_free(standins);
}

void standin_forget(struct client *c)
{
    destroy(take_all(c));
}

/* ---- Executed -------------------------------------------------------------------------------- */

/* What the reply consists of, as it is walked. */
struct execution {
    struct client *c;
    struct request *request; /* until its own part of the reply has left; then NULL */
    const char *from;        /* the server's bytes from here on have not left yet */
};

/* The server's bytes up to `to` are next. */
static void pass(struct execution *x, const char *to)
{
    struct client *c = x->c;
    struct slice bytes = slice_of(x->from, (size_t)(to - x->from));
    x->from = to;
    if (x->request != NULL) {
        struct request *request = x->request;
        x->request = NULL;
        if (!chain_append(&request->reply, bytes)) {
            client_close(c);
            return;
        }
        client_charge_request(c, request);
        client_answered(c, request);
        return;
    }
    struct chain *out = bytes.n == 0 ? NULL : client_reply_begin(c);
    if (out != NULL) {
        client_reply_finish(c, chain_append(out, bytes));
    }
}

/* HELLO was taken: its id is that of the client here, and SETNAME concerns it. */
static void greet(struct execution *x, const struct request_view *view, struct slice reply)
{
    struct client *c = x->c;
    struct local_greeting greeting;
    if (!local_hello(c, view, &greeting)) {
        return; /* answered with an error */
    }
    if (greeting.logs_in && greeting.has_name && !profile_set_name(c, greeting.name)) {
        client_close(c);
        return;
    }
    c->resp3 = greeting.resp3;
    struct chain *out = client_reply_begin(c);
    if (out != NULL) {
        client_reply_finish(c, forward_put_hello(out, reply, c->id));
    }
}

/* The element of a command that is kept. */
static void exchange(struct execution *x, const struct cmd *cmd, const struct request_view *view,
                     struct cursor element)
{
    struct client *c = x->c;
    struct slice bytes = slice_of(element.p, (size_t)(element.end - element.p));
    bool is_hello = cmd->local == LOCAL_HELLO;
    if (cmd->class == CMD_PINNED || cmd->local == LOCAL_SELECT ||
        slice_starts(bytes, SLICE("-NOPERM ")) || (is_hello && *bytes.p == '-')) {
        return; /* in the server's words; what follows from them has been seen to */
    }
    pass(x, element.p);
    x->from = element.end;
    if (c->state == CLIENT_CLOSED) {
        return;
    }
    if (is_hello) {
        greet(x, view, bytes);
    } else if (cmd->local != LOCAL_CLIENT) {
        local_answer(c, cmd, view);
    } else if (local_client(c, cmd, view) == DISPATCH_STALL) {
        client_close(c); /* does not happen: it does not concern Redis */
    }
}

/* The reply's next element; messages before it are no elements. False: there is none. */
static bool next_element(struct cursor *at, struct cursor *whole)
{
    while (element_whole(at, whole)) {
        if (!stream_is_message(slice_of(whole->p, (size_t)(whole->end - whole->p)))) {
            return true;
        }
    }
    return false;
}

/* Visits the elements of these commands; `exchanges`: and gives their answers. */
static void walk(struct execution *x, const struct standin_one *one, struct cursor at, int64_t n,
                 bool exchanges)
{
    struct client *c = x->c;
    struct cursor element;
    for (int64_t i = 0; i < n && one != NULL && next_element(&at, &element); i++) {
        struct parser parser;
        struct request_view view;
        if (one->at != (uint64_t)i) {
            continue;
        }
        parser_init(&parser);
        bug_on(parse_request(&parser, slice_of(one->raw->p, one->raw->n), &view) != PARSE_OK);
        if (exchanges) {
            exchange(x, one->cmd, &view, element);
            if (c->state == CLIENT_CLOSED) {
                return;
            }
        } else {
            pinned_executed(c, one->cmd, &view,
                            slice_of(element.p, (size_t)(element.end - element.p)));
        }
        one = one->next;
    }
}

void standin_executed(struct client *c, struct request *request)
{
    size_t n = request->reply.bytes;
    struct blob *all = chain_take_blob(&request->reply);
    if (all == NULL) {
        client_close(c);
        request_destroy(request);
        return;
    }
    struct standins *standins = take_all(c); /* as the connection may go with the first bytes */
    struct execution x = {c, request, all->p};
    struct cursor at = cursor_of(slice_of(all->p, n));
    struct element head;
    bool executed =
        standins != NULL && element_next(&at, &head) && head.type == '*' && !head.is_null;
    request->kind = REQUEST_HELD;
    c->skips_this = request->silent && !c->replies_off;
    if (executed) {
        walk(&x, standins->first, at, head.number, false);
        walk(&x, standins->first, at, head.number, true);
    }
    if (c->state != CLIENT_CLOSED) {
        pass(&x, all->p + n);
    }
    c->skips_this = false;
    destroy(standins);
    blob_unref(all);
}
