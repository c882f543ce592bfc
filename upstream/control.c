/* SPDX-License-Identifier: Apache-2.0
 *
 * control.c: hiredis's asynchronous client on libev, so that nothing a peer says can harm.
 *
 * Way through the file: answers as a tree of our own; the questions; the link, from the end to the
 * beginning.
 *
 * What hiredis's own queue of callbacks does not take well is kept from it: a reply nobody asked for
 * ends the process by an assertion there, and so does an odd message to a subscriber. Hence commands
 * are put into its output buffer directly, our own FIFO knows who asked, and the reply-object table
 * shows hiredis every reply as a push without elements, whatever it was: all it does with those is
 * to call on_reply.
 *
 * hiredis resolves names by blocking: it is given addresses. It has no deadline for what is idle: the
 * timer is ours. It may not be freed from inside on_reply: `feeding` says that we are there, and who
 * wants the link closed (`failing`) or all of it gone (`doomed`) leaves that to the timer.
 *
 * Bounds: an answer of ANSWER_BYTES_MAX with everything it takes here, ANSWER_DEPTH_MAX deep; what
 * has been read and is no whole element yet, the same. Beyond them the link is given up.
 */
#include "control.h"
#include "own_ports.h"

#include "../conf/mem.h"

#include <hiredis/adapters/libev.h>
#include <hiredis/async.h>
#include <hiredis/hiredis.h>

#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/un.h>

#define ANSWER_BYTES_MAX ((size_t)16 << 20)
#define ANSWER_DEPTH_MAX 8
#define BACKOFF_MIN_MS   50
#define BACKOFF_MAX_MS   1000
#define RESOLVING_MS     10 /* between looks whether the host name is resolved */
#define USER_MAX         512
#define PASSWORD_MAX     1024
#define WORDS_MAX        8

enum state { STATE_BACKOFF, STATE_CONNECTING, STATE_LOGIN, STATE_UP };

struct question {
    struct question *next;
    control_answer_fn *answer;
    void *ctx;
    int64_t deadline;
};

/* One piece of memory of an answer. */
struct piece {
    struct piece *next;
    max_align_t bytes[];
};

/* A reply: what hiredis is shown, and what we make of it. */
struct root {
    redisReply shown; /* first: this is what hiredis looks at */
    bool is_push;
    struct answer top;
    struct piece *pieces;
    size_t bytes;
};

struct control {
    struct control_options options;
    enum state state;
    redisAsyncContext *ac; /* NULL in BACKOFF, and in CONNECTING while the name is looked up */
    const redisContextFuncs *original;
    redisContextFuncs funcs; /* the same, but reading is bounded */
    ev_timer timer; /* deadlines; in BACKOFF the next attempt; without a name's address the next
                                look for it; what `feeding` put off */
    bool feeding;
    bool failing;
    bool doomed;
    struct question *head, *tail;
    unsigned attempt; /* which of the node's addresses */
    int64_t began;    /* this attempt */
    int64_t backoff_ms;
    uint64_t random;
    uint16_t port; /* own_ports.h */
    char why[ERR_MAX];
};

/* ---- Answers ------------------------------------------------------------------------------- */

bool answer_is(const struct answer *a, const char *text)
{
    return a != NULL && a->type == ANSWER_TEXT && slice_eq(a->text, slice_str(text));
}

const struct answer *answer_field(const struct answer *map, const char *key)
{
    if (map == NULL || map->type != ANSWER_LIST) {
        return NULL;
    }
    for (size_t i = 0; i + 1 < map->nitems; i += 2) {
        if (answer_is(&map->items[i], key)) {
            return &map->items[i + 1];
        }
    }
    return NULL;
}

bool answer_number(const struct answer *a, int64_t *number)
{
    if (a != NULL && a->type == ANSWER_NUMBER) {
        *number = a->number;
        return true;
    }
    return a != NULL && a->type == ANSWER_TEXT && slice_to_int64(a->text, number);
}

/* The table refuses by returning NULL: hiredis then ends the connection. */
static void *refuse(struct control *c, const char *why)
{
    (void)snprintf(c->why, sizeof(c->why), "%s", why);
    return NULL;
}

static void free_root(void *object)
{
    struct root *root = object;
    while (root->pieces != NULL) {
        struct piece *next = root->pieces->next;
        mem_free(root->pieces);
        root->pieces = next;
    }
    mem_free(root);
}

/* n bytes that live as long as the answer; NULL: too much, or out of memory. */
static void *take(struct root *root, size_t n)
{
    if (n > ANSWER_BYTES_MAX - root->bytes) {
        return NULL;
    }
    struct piece *piece = mem_try(sizeof(*piece) + n);
    if (piece == NULL) {
        return NULL;
    }
    root->bytes += n;
    piece->next = root->pieces;
    root->pieces = piece;
    return piece->bytes;
}

static struct root *root_of(const redisReadTask *task)
{
    unsigned depth = 0;
    const redisReadTask *top = task;
    for (; top->parent != NULL && depth <= ANSWER_DEPTH_MAX; top = top->parent) {
        depth++;
    }
    return depth > ANSWER_DEPTH_MAX ? NULL : top->obj;
}

/* Where this element of the answer goes; *root is the answer's. NULL: refused. What is returned to
 * hiredis is the root for the root, so that it sees that one, and the answer for what is nested. */
static struct answer *place(const redisReadTask *task, struct root **root)
{
    struct control *c = task->privdata;
    if (task->parent == NULL) {
        *root = mem_try_zero(sizeof(**root));
        if (*root == NULL) {
            return refuse(c, "out of memory");
        }
        (*root)->shown.type = REDIS_REPLY_PUSH;
        (*root)->is_push = task->type == REDIS_REPLY_PUSH;
        return &(*root)->top;
    }
    *root = root_of(task);
    if (*root == NULL) {
        return refuse(c, "the server's answer is nested too deeply");
    }
    const struct answer *list = task->parent->parent == NULL ? &(*root)->top : task->parent->obj;
    bug_on(task->idx < 0 || (size_t)task->idx >= list->nitems);
    return (struct answer *)(uintptr_t)&list->items[task->idx];
}

static void *placed(const redisReadTask *task, struct root *root, struct answer *at)
{
    return task->parent == NULL ? (void *)root : (void *)at;
}

/* The memory for it is not to be had. */
static void *no_room(const redisReadTask *task, struct root *root)
{
    if (task->parent == NULL) {
        free_root(root); /* hiredis does not know it yet */
    }
    return refuse(task->privdata, "the server's answer is too large");
}

static void *on_string(const redisReadTask *task, char *text, size_t n)
{
    struct root *root;
    struct answer *at = place(task, &root);
    if (at == NULL) {
        return NULL;
    }
    char *copy = take(root, n + 1);
    if (copy == NULL) {
        return no_room(task, root);
    }
    memcpy(copy, text, n);
    copy[n] = '\0';
    at->type = task->type == REDIS_REPLY_ERROR ? ANSWER_ERROR : ANSWER_TEXT;
    at->text = slice_of(copy, n);
    return placed(task, root, at);
}

static void *on_array(const redisReadTask *task, size_t n)
{
    struct root *root;
    struct answer *at = place(task, &root);
    if (at == NULL) {
        return NULL;
    }
    struct answer *items =
        n > ANSWER_BYTES_MAX / sizeof(*items) ? NULL : take(root, n * sizeof(*items));
    if (items == NULL) {
        return no_room(task, root);
    }
    memset(items, 0, n * sizeof(*items));
    at->type = ANSWER_LIST;
    at->items = items;
    at->nitems = n;
    return placed(task, root, at);
}

static void *on_integer(const redisReadTask *task, long long number)
{
    struct root *root;
    struct answer *at = place(task, &root);
    if (at == NULL) {
        return NULL;
    }
    at->type = ANSWER_NUMBER;
    at->number = number;
    return placed(task, root, at);
}

static void *on_double(const redisReadTask *task, double number, char *text, size_t n)
{
    (void)number;
    return on_string(task, text, n);
}

static void *on_nil(const redisReadTask *task)
{
    struct root *root;
    struct answer *at = place(task, &root);
    return at == NULL ? NULL : placed(task, root, at);
}

static void *on_bool(const redisReadTask *task, int value)
{
    return on_integer(task, value);
}

static redisReplyObjectFunctions table = {
    .createString = on_string,
    .createArray = on_array,
    .createInteger = on_integer,
    .createDouble = on_double,
    .createNil = on_nil,
    .createBool = on_bool,
    .freeObject = free_root,
};

/* hiredis collects a bulk until it is whole, however large it is said to be. */
static ssize_t bounded_read(redisContext *context, char *buffer, size_t n)
{
    redisAsyncContext *ac = container_of(context, redisAsyncContext, c);
    struct control *c = ac->data;
    if (context->reader->len > ANSWER_BYTES_MAX) {
        context->err = REDIS_ERR_OTHER;
        (void)snprintf(context->errstr, sizeof(context->errstr),
                       "the server's answer is too large");
        return -1;
    }
    return c->original->read(context, buffer, n);
}

/* ---- The timer ----------------------------------------------------------------------------- */

static void arm(struct control *c, int64_t ms)
{
    ev_timer_stop(c->options.loop, &c->timer);
    ev_timer_set(&c->timer, ms <= 0 ? 0. : (double)ms / 1000., 0.);
    ev_timer_start(c->options.loop, &c->timer);
}

/* For the oldest question, which is the next to be late. */
static void arm_for_questions(struct control *c)
{
    if (c->head == NULL) {
        ev_timer_stop(c->options.loop, &c->timer);
    } else {
        arm(c, c->head->deadline - c->options.now());
    }
}

/* ---- The end of a link --------------------------------------------------------------------- */

static void close_link(struct control *c)
{
    redisAsyncContext *ac = c->ac;
    c->ac = NULL;
    c->failing = false;
    own_ports_remove(c->port);
    c->port = 0;
    if (ac != NULL) {
        ac->data = NULL; /* what follows is nobody's */
        ac->c.funcs = c->original;
        redisAsyncFree(ac);
    }
}

static void back_off(struct control *c)
{
    /* xorshift64, +-50 %: many processes lose their sentinel in the same moment. */
    c->random ^= c->random << 13;
    c->random ^= c->random >> 7;
    c->random ^= c->random << 17;
    int64_t jitter = (int64_t)(c->random % (uint64_t)c->backoff_ms);
    c->state = STATE_BACKOFF;
    arm(c, c->backoff_ms / 2 + jitter);
    c->backoff_ms = c->backoff_ms * 2 > BACKOFF_MAX_MS ? BACKOFF_MAX_MS : c->backoff_ms * 2;
}

static struct question *take_question(struct control *c)
{
    struct question *q = c->head;
    c->head = q->next;
    if (c->head == NULL) {
        c->tail = NULL;
    }
    return q;
}

static void free_doomed(struct control *c)
{
    while (c->head != NULL) {
        mem_free(take_question(c));
    }
    ev_timer_stop(c->options.loop, &c->timer);
    mem_free(c);
}

/* Everybody is told; any of them may destroy it. The link is closed already. It may be that the server has been
 * set up again elsewhere, under the same name. */
static void tell_lost(struct control *c)
{
    struct question *lost = c->head;
    node_resolve(c->options.node, c->options.now());
    c->head = NULL;
    c->tail = NULL;
    back_off(c);
    c->feeding = true;
    while (lost != NULL) {
        struct question *q = lost;
        lost = q->next;
        if (!c->doomed) {
            q->answer(c, NULL, q->ctx);
        }
        mem_free(q);
    }
    if (!c->doomed) {
        c->options.down(c, c->why, c->options.ctx);
    }
    c->feeding = false;
    if (c->doomed) {
        free_doomed(c);
    }
}

/* Not from inside on_reply. */
static void lose(struct control *c, const char *why)
{
    if (why != c->why) {
        (void)snprintf(c->why, sizeof(c->why), "%s", why);
    }
    c->attempt += c->state != STATE_UP; /* another address may be better */
    close_link(c);
    tell_lost(c);
}

/* From inside on_reply: as soon as it is over. */
static void fail_soon(struct control *c, const char *why)
{
    if (!c->failing) {
        c->failing = true;
        (void)snprintf(c->why, sizeof(c->why), "%s", why);
    }
    arm(c, 0);
}

/* hiredis frees its context when this returns. */
static void forget_link(struct control *c, const redisAsyncContext *ac)
{
    if (c->why[0] == '\0' || ac->c.err != REDIS_ERR_OOM) { /* OOM: the table has said why */
        const char *why = ac->c.errstr[0] != '\0' ? ac->c.errstr : "the connection was closed";
        (void)snprintf(c->why, sizeof(c->why), "%s", why);
    }
    own_ports_remove(c->port);
    c->port = 0;
    c->ac->c.funcs = c->original; /* ours die with us, maybe before it */
    c->ac->data = NULL;
    c->ac = NULL;
    c->failing = false;
    c->attempt += c->state != STATE_UP;
    tell_lost(c);
}

static void on_disconnect(const redisAsyncContext *ac, int status)
{
    (void)status;
    struct control *c = ac->data;
    if (c != NULL) {
        forget_link(c, ac);
    }
}

/* ---- Questions ------------------------------------------------------------------------------ */

void control_ask(struct control *c, const char *const *words, control_answer_fn *answer, void *ctx)
{
    const char *argv[WORDS_MAX];
    int argc = 0;
    bug_on(c->ac == NULL || c->state == STATE_CONNECTING);
    for (; words[argc] != NULL; argc++) {
        bug_on(argc == WORDS_MAX);
        argv[argc] = words[argc];
    }
    struct question *q = mem_zalloc(sizeof(*q));
    q->answer = answer;
    q->ctx = ctx;
    q->deadline = c->options.now() + c->options.deadline_ms;
    if (c->tail == NULL) {
        c->head = q;
    } else {
        c->tail->next = q;
    }
    c->tail = q;
    if (redisAppendCommandArgv(&c->ac->c, argc, argv, NULL) != REDIS_OK) {
        fail_soon(c, "out of memory");
        return;
    }
    c->ac->ev.addWrite(c->ac->ev.data);
    if (c->head == q && !c->failing) {
        arm_for_questions(c);
    }
}

static void take_push(struct control *c, const struct answer *push)
{
    if (push->type == ANSWER_LIST && push->nitems == 3 && answer_is(&push->items[0], "message") &&
        push->items[1].type == ANSWER_TEXT && push->items[2].type == ANSWER_TEXT &&
        c->options.message != NULL) {
        c->options.message(c, push->items[1].text, push->items[2].text, c->options.ctx);
        return;
    }
    /* A SUBSCRIBE is confirmed by a push, one for each channel; it was asked one by one. */
    if (push->type == ANSWER_LIST && push->nitems == 3 && answer_is(&push->items[0], "subscribe") &&
        c->head != NULL) {
        struct question *q = take_question(c);
        q->answer(c, push, q->ctx);
        mem_free(q);
    }
}

/* hiredis frees the reply when this returns. */
static void on_reply(redisAsyncContext *ac, void *reply)
{
    struct control *c = ac->data;
    const struct root *root = reply;
    if (c == NULL || c->doomed || c->failing) {
        return;
    }
    c->feeding = true;
    if (root->is_push) {
        take_push(c, &root->top);
    } else if (c->head != NULL) {
        struct question *q = take_question(c);
        q->answer(c, &root->top, q->ctx);
        mem_free(q);
    } else if (root->top.type == ANSWER_ERROR) { /* "max number of clients reached" */
        fail_soon(c, root->top.text.p);
    } else {
        fail_soon(c, "the server said something nobody had asked for");
    }
    c->feeding = false;
    if (c->doomed || c->failing) {
        arm(c, 0);
    } else {
        arm_for_questions(c);
    }
}

/* ---- The beginning of a link ---------------------------------------------------------------- */

/* What a server repeats of our arguments may be the password, and it stands in quotes. */
static void refuse_login(struct control *c, struct slice text)
{
    char clean[ERR_MAX];
    (void)snprintf(clean, sizeof(clean), "login refused: %.*s", text.n > 100 ? 100 : (int)text.n,
                   text.p);
    clean[strcspn(clean, "`'\"")] = '\0';
    fail_soon(c, clean);
}

static void come_up(struct control *c)
{
    c->state = STATE_UP;
    c->backoff_ms = BACKOFF_MIN_MS;
    c->options.up(c, c->options.ctx);
}

static void on_login(struct control *c, const struct answer *answer, void *ctx)
{
    (void)ctx;
    if (answer == NULL) {
        return; /* `down` follows */
    }
    if (answer->type == ANSWER_ERROR) {
        refuse_login(c, answer->text);
    } else {
        come_up(c);
    }
}

/* Without anything to say to log in, a PING stands for it. */
static void log_in(struct control *c)
{
    char user[USER_MAX];
    char password[PASSWORD_MAX];
    char err[ERR_MAX];
    const char *words[WORDS_MAX] = {NULL};
    size_t n = 0;
    if (!node_credentials(c->options.node, user, sizeof(user), password, sizeof(password), err)) {
        fail_soon(c, err);
        return;
    }
    bool known = user[0] != '\0' || password[0] != '\0';
    if (c->options.resp3) {
        words[n++] = "HELLO";
        words[n++] = "3";
    }
    if (known) {
        words[n++] = "AUTH";
        if (c->options.resp3 || user[0] != '\0') {
            words[n++] = user[0] != '\0' ? user : "default";
        }
        words[n++] = password;
    }
    if (n == 0) {
        words[n++] = "PING";
    }
    c->state = STATE_LOGIN;
    control_ask(c, words, on_login, NULL);
    explicit_bzero(user, sizeof(user));
    explicit_bzero(password, sizeof(password));
}

static void on_connect(const redisAsyncContext *ac, int status)
{
    struct control *c = ac->data;
    if (c == NULL) {
        return;
    }
    if (status != REDIS_OK) {
        c->why[0] = '\0';
        forget_link(c, ac);
        return;
    }
    c->port = own_ports_add(ac->c.fd, PORT_UPKEEP);
    log_in(c);
}

/* hiredis wants texts; these are addresses, so that it has no name to look up. */
static redisAsyncContext *connect_to(const struct sockaddr_storage *addr, socklen_t len)
{
    char host[NI_MAXHOST];
    char port[NI_MAXSERV];
    redisOptions options;
    memset(&options, 0, sizeof(options));
    options.options = REDIS_OPT_PREFER_IP_UNSPEC;
    if (addr->ss_family == AF_UNIX) {
        REDIS_OPTIONS_SET_UNIX(&options,
                               ((const struct sockaddr_un *)(const void *)addr)->sun_path);
    } else if (getnameinfo((const struct sockaddr *)addr, len, host, sizeof(host), port,
                           sizeof(port), NI_NUMERICHOST | NI_NUMERICSERV) == 0) {
        REDIS_OPTIONS_SET_TCP(&options, host, (int)strtol(port, NULL, 10));
    } else {
        return NULL;
    }
    return redisAsyncConnectWithOptions(&options);
}

static bool begin(struct control *c, redisAsyncContext *ac)
{
    ac->data = c;
    c->ac = ac;
    c->original = ac->c.funcs;
    c->funcs = *c->original;
    c->funcs.read = bounded_read;
    ac->c.funcs = &c->funcs;
    ac->c.reader->fn = &table;
    ac->c.reader->privdata = c;
    (void)redisAsyncSetPushCallback(ac, on_reply);
    return redisLibevAttach(c->options.loop, ac) == REDIS_OK &&
           redisAsyncSetDisconnectCallback(ac, on_disconnect) == REDIS_OK &&
           redisAsyncSetConnectCallback(ac, on_connect) == REDIS_OK;
}

/* Whoever asks about a server that was just named (sentinel.c) takes a lost attempt for its answer, and forgets
 * the name and its lookup: the first lookup is part of the attempt. */
static void connect_resolved(struct control *c)
{
    struct sockaddr_storage addr;
    socklen_t len = 0;
    char why[ERR_MAX];
    bool resolving = node_is_resolving(c->options.node, why); /* first: it may end in between */
    if (!node_address(c->options.node, c->attempt, &addr, &len)) {
        if (resolving && c->options.now() - c->began < c->options.deadline_ms) {
            arm(c, RESOLVING_MS);
        } else {
            lose(c, resolving ? "the host name is not resolved yet" : why);
        }
        return;
    }
    redisAsyncContext *ac = connect_to(&addr, len);
    if (ac == NULL) {
        lose(c, "out of memory");
        return;
    }
    if (ac->err != 0) {
        (void)snprintf(c->why, sizeof(c->why), "%s", ac->c.errstr);
        redisAsyncFree(ac);
        lose(c, c->why);
        return;
    }
    if (!begin(c, ac)) {
        lose(c, "out of memory");
        return;
    }
    arm(c, c->options.deadline_ms);
}

static void start(struct control *c)
{
    c->state = STATE_CONNECTING;
    c->why[0] = '\0';
    c->began = c->options.now();
    if (node_address_count(c->options.node) == 0) {
        node_resolve(c->options.node, c->began);
    }
    connect_resolved(c);
}

static void on_timer(struct ev_loop *loop, ev_timer *timer, int events)
{
    (void)loop;
    (void)events;
    struct control *c = container_of(timer, struct control, timer);
    if (c->doomed) {
        close_link(c);
        free_doomed(c);
    } else if (c->state == STATE_BACKOFF) {
        start(c);
    } else if (c->ac == NULL) {
        connect_resolved(c);
    } else if (c->failing) {
        lose(c, c->why);
    } else {
        lose(c, c->state == STATE_CONNECTING ? "connecting took too long"
                                             : "it did not answer in time");
    }
}

/* ---- Life ---------------------------------------------------------------------------------- */

struct control *control_create(const struct control_options *options)
{
    struct control *c = mem_zalloc(sizeof(*c));
    c->options = *options;
    c->random = ((uint64_t)(uintptr_t)c ^ (uint64_t)options->now()) | 1;
    c->backoff_ms = BACKOFF_MIN_MS;
    ev_timer_init(&c->timer, on_timer, 0., 0.);
    arm(c, 0);
    return c;
}

void control_destroy(struct control *c)
{
    if (c == NULL) {
        return;
    }
    c->doomed = true;
    if (!c->feeding) {
        close_link(c);
        free_doomed(c);
    }
}

bool control_is_up(const struct control *c)
{
    return c->state == STATE_UP && !c->failing && !c->doomed;
}

void control_hurry(struct control *c)
{
    if (c->state == STATE_BACKOFF && !c->feeding) {
        c->backoff_ms = BACKOFF_MIN_MS;
        arm(c, 0);
    }
}
