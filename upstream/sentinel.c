/* SPDX-License-Identifier: Apache-2.0
 *
 * sentinel.c: who the master is. See sentinel.h for the way of an answer.
 *
 * Way through the file: candidates and what becomes of them; a round of questions; what sentinels
 * announce; the sentinels themselves; life.
 *
 * Invariants: one round at a time, and in it one sentinel after the other, until one names a server
 * that says it is the master. The node has an address only while a server that said so was the last
 * that was named, and has not taken it back.
 */
#include "sentinel.h"

#include "control.h"
#include "replicas.h"
#include "role.h"

#include "../conf/log.h"
#include "../conf/mem.h"

#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>

#define PEERS_MAX    32
#define HOST_MAX     256
#define PORT_MAX     6
#define DOUBT_MS     100 /* between two rounds, when there is reason to ask */
#define RETRY_MS     300 /* after a round that found no master */
#define LOG_EVERY_MS 10000

struct peer {
    struct sentinel *sentinel;
    struct node *node;
    struct control *control;
    bool up;
    char why[ERR_MAX];
};

/* A server that was named. */
struct named {
    struct sentinel *sentinel;
    struct node *node;
    struct role *role;
    char host[HOST_MAX];
    char port[PORT_MAX];
    char by[HOST_MAX];
    int64_t epoch; /* of the answer that named it */
    bool silent;   /* the last question for its role went unanswered */
};

struct sentinel {
    struct sentinel_options options; /* texts are copies */
    struct peer *peers[PEERS_MAX];
    unsigned npeers;
    struct named *master;    /* is followed */
    struct named *candidate; /* is being asked what it is */
    int64_t epoch;           /* the newest that was followed */
    bool followed;           /* there has been a master */

    unsigned first, tried; /* of the round */
    bool in_round;
    bool disbelieved; /* in this round, for its epoch */
    bool doubtful;    /* another round is wanted as soon as may be */
    int64_t began;
    struct named found; /* what the sentinel that is being asked says; only texts and epoch */

    ev_timer timer;
    ev_async suspected;
    char why[ERR_MAX];  /* why there is no master */
    char told[ERR_MAX]; /* the same, as the node was told */
    struct log_limit complaint;

    _Atomic unsigned known, up; /* all relaxed: figures */
    _Atomic uint64_t switches;
    _Atomic int64_t switched_at;
};

static void try_next(struct sentinel *s);
static void want_round(struct sentinel *s);

/* ---- Candidates ----------------------------------------------------------------------------- */

static void drop(struct named **named)
{
    if (*named != NULL) {
        role_destroy((*named)->role);
        node_destroy((*named)->node);
        mem_free(*named);
        *named = NULL;
    }
}

static void complain(struct sentinel *s, const char *why)
{
    uint64_t more = 0;
    if (why != s->why) {
        (void)snprintf(s->why, sizeof(s->why), "%s", why);
    }
    if (log_allow(&s->complaint, s->options.now(), LOG_EVERY_MS, &more)) {
        log_event(LOG_WARN, "sentinel %s: %s; asking on", s->options.master, s->why);
    }
}

/* The node has no master: clients hear why, at once. */
static void tell_lost(struct sentinel *s)
{
    if (s->master == NULL && strcmp(s->told, s->why) != 0) {
        (void)snprintf(s->told, sizeof(s->told), "%s", s->why);
        node_lose_address(s->options.node, s->why);
    }
}

static bool is_same(const struct named *named, const char *host, const char *port)
{
    return named != NULL && strcmp(named->host, host) == 0 && strcmp(named->port, port) == 0;
}

/* What the master that is followed says of its replicas; NULL: nobody is followed. */
static void follow_replicas(struct sentinel *s, const struct answer *answer)
{
    if (s->options.topology != NULL) {
        replicas_take(s->options.topology, answer);
    }
}

/* Its replicas first: it is none from here on. */
static void follow_candidate(struct sentinel *s, const struct answer *answer)
{
    struct named *old = s->master;
    follow_replicas(s, answer);
    s->master = s->candidate;
    s->candidate = NULL;
    if (s->followed && s->master->epoch <= s->epoch) {
        /* Named before its configuration has been given its epoch, which will be a newer one: who names
         * the old master meanwhile is behind. */
        s->master->epoch = s->epoch + 1;
    }
    s->epoch = s->master->epoch;
    s->told[0] = '\0';
    log_event(LOG_INFO, "master of %s is %s%s%s, as sentinel %s says and the server confirms",
              s->options.master, node_name(s->master->node), old != NULL ? ", it was " : "",
              old != NULL ? node_name(old->node) : "", s->master->by);
    node_set_address(s->options.node, s->master->host, s->master->port);
    if (s->followed) {
        atomic_fetch_add_explicit(&s->switches, 1, memory_order_relaxed);
        atomic_store_explicit(&s->switched_at, s->options.now(), memory_order_relaxed);
    }
    s->followed = true;
    drop(&old);
    s->in_round = false;
    want_round(s); /* whoever was cut off may know more by now; and to learn the epoch */
}

static void refuse_candidate(struct sentinel *s, const char *why)
{
    char text[ERR_MAX];
    (void)snprintf(text, sizeof(text), "%s, which sentinel %s names, is not used: %.200s",
                   node_name(s->candidate->node), s->candidate->by, why);
    complain(s, text);
    drop(&s->candidate);
    if (s->in_round) {
        try_next(s);
    } else {
        want_round(s);
    }
}

static void lose_master(struct sentinel *s)
{
    char text[ERR_MAX];
    (void)snprintf(text, sizeof(text), "%s is a replica now; no other master is known yet",
                   node_name(s->master->node));
    complain(s, text);
    drop(&s->master);
    follow_replicas(s, NULL); /* they may follow somebody else already */
    tell_lost(s);
    want_round(s);
}

static void on_said(bool is_master, const struct answer *answer, void *ctx)
{
    struct named *named = ctx;
    struct sentinel *s = named->sentinel;
    named->silent = false;
    if (named == s->master) {
        if (is_master) {
            follow_replicas(s, answer);
        } else {
            lose_master(s);
        }
    } else if (is_master) {
        follow_candidate(s, answer);
    } else {
        refuse_candidate(s, "it says that it is a replica");
    }
}

/* A master that cannot be asked may be dead: the sentinels will know. Its connections find out by
 * themselves whether it is. */
static void on_silent(const char *why, void *ctx)
{
    struct named *named = ctx;
    named->silent = true;
    if (named == named->sentinel->master) {
        want_round(named->sentinel);
    } else {
        refuse_candidate(named->sentinel, why);
    }
}

static void consider(struct sentinel *s, const struct named *found)
{
    const struct node_options *server = node_options(s->options.node);
    struct node_options options = *server;
    drop(&s->candidate);
    struct named *named = mem_zalloc(sizeof(*named));
    *named = *found;
    named->sentinel = s;
    options.host = named->host;
    options.port = named->port;
    options.label = NULL;
    options.changed = NULL;
    options.troubled = NULL;
    named->node = node_create(&options);
    s->candidate = named;
    named->role = role_create(&(struct role_options){
        .loop = s->options.loop,
        .node = named->node,
        .every_ms = s->options.role_ms,
        .deadline_ms = server->connect_timeout_ms,
        .now = s->options.now,
        .said = on_said,
        .silent = on_silent,
        .ctx = named,
    });
}

/* Texts of a peer: an address, or nothing. */
static bool take_address(struct named *found, const struct answer *host, const struct answer *port)
{
    int64_t number = 0;
    if (host == NULL || host->type != ANSWER_TEXT || host->text.n == 0 ||
        host->text.n >= HOST_MAX || memchr(host->text.p, '\0', host->text.n) != NULL ||
        host->text.p[0] == '/' || !answer_number(port, &number) || number < 1 ||
        number > UINT16_MAX) {
        return false;
    }
    (void)snprintf(found->host, sizeof(found->host), "%.*s", (int)host->text.n, host->text.p);
    (void)snprintf(found->port, sizeof(found->port), "%" PRIu16, (uint16_t)number);
    return true;
}

/* ---- A round of questions ------------------------------------------------------------------- */

static void arm(struct sentinel *s, int64_t ms)
{
    ev_timer_stop(s->options.loop, &s->timer);
    ev_timer_set(&s->timer, ms <= 0 ? 0. : (double)ms / 1000., 0.);
    ev_timer_start(s->options.loop, &s->timer);
}

static void want_round(struct sentinel *s)
{
    s->doubtful = true;
    if (!s->in_round && s->candidate == NULL) {
        arm(s, s->began + DOUBT_MS - s->options.now());
    }
}

static void end_round(struct sentinel *s)
{
    s->in_round = false;
    arm(s, s->master == NULL ? RETRY_MS : s->doubtful ? DOUBT_MS : s->options.refresh_ms);
}

/* No sentinel has helped. */
static void end_in_vain(struct sentinel *s)
{
    if (atomic_load_explicit(&s->up, memory_order_relaxed) == 0) {
        const struct peer *peer = s->peers[s->first % s->npeers];
        char text[ERR_MAX];
        (void)snprintf(text, sizeof(text), "no sentinel answers (%s: %.200s)",
                       node_name(peer->node),
                       peer->why[0] == '\0' ? "not connected yet" : peer->why);
        complain(s, text);
    }
    if (s->disbelieved && (s->master == NULL || s->master->silent)) {
        s->epoch = 0; /* all of them count anew: they have been set up again */
    }
    tell_lost(s);
    end_round(s);
}

/* What the sentinel of this round said is complete. */
static void judge(struct sentinel *s)
{
    char text[ERR_MAX];
    if (is_same(s->master, s->found.host, s->found.port)) {
        s->epoch = s->found.epoch > s->epoch ? s->found.epoch : s->epoch;
        s->doubtful = false;
        end_round(s);
    } else if (s->found.epoch < s->epoch) {
        (void)snprintf(text, sizeof(text),
                       "sentinel %.200s is not believed: it names %.200s as of epoch %" PRId64
                       ", and %" PRId64 " is known",
                       s->found.by, s->found.host, s->found.epoch, s->epoch);
        complain(s, text);
        s->disbelieved = true;
        try_next(s);
    } else {
        consider(s, &s->found);
    }
}

static void on_epoch(struct control *c, const struct answer *answer, void *ctx)
{
    struct peer *peer = ctx;
    struct sentinel *s = peer->sentinel;
    (void)c;
    if (!s->in_round || s->candidate != NULL || s->found.host[0] == '\0') {
        return;
    }
    if (!answer_number(answer_field(answer, "config-epoch"), &s->found.epoch)) {
        s->found.epoch = s->epoch;
    }
    judge(s);
}

static void on_address(struct control *c, const struct answer *answer, void *ctx)
{
    struct peer *peer = ctx;
    struct sentinel *s = peer->sentinel;
    char text[ERR_MAX];
    (void)c;
    if (!s->in_round || s->candidate != NULL) {
        return;
    }
    s->found = (struct named){0};
    (void)snprintf(s->found.by, sizeof(s->found.by), "%s", node_name(peer->node));
    if (answer == NULL) {
        try_next(s);
        return;
    }
    if (answer->type == ANSWER_LIST && answer->nitems == 2 &&
        take_address(&s->found, &answer->items[0], &answer->items[1])) {
        return; /* on_epoch follows */
    }
    if (answer->type == ANSWER_ERROR) {
        (void)snprintf(text, sizeof(text), "sentinel %s: %.*s", s->found.by,
                       answer->text.n > 200 ? 200 : (int)answer->text.n, answer->text.p);
    } else {
        (void)snprintf(text, sizeof(text), "sentinel %s knows no master of that name", s->found.by);
    }
    s->found.host[0] = '\0';
    complain(s, text);
    try_next(s);
}

static void try_next(struct sentinel *s)
{
    s->found.host[0] = '\0';
    while (s->tried < s->npeers) {
        struct peer *peer = s->peers[(s->first + s->tried++) % s->npeers];
        if (peer->up && control_is_up(peer->control)) {
            control_ask(peer->control,
                        (const char *const[]){"SENTINEL", "GET-MASTER-ADDR-BY-NAME",
                                              s->options.master, NULL},
                        on_address, peer);
            control_ask(peer->control,
                        (const char *const[]){"SENTINEL", "MASTER", s->options.master, NULL},
                        on_epoch, peer);
            return;
        }
    }
    end_in_vain(s);
}

static void on_timer(struct ev_loop *loop, ev_timer *timer, int events)
{
    (void)loop;
    (void)events;
    struct sentinel *s = container_of(timer, struct sentinel, timer);
    if (s->in_round || s->candidate != NULL || s->npeers == 0) {
        return; /* their ends arm it again */
    }
    s->in_round = true;
    s->doubtful = false;
    s->began = s->options.now();
    s->tried = 0;
    s->disbelieved = false;
    try_next(s);
}

/* ---- Announcements -------------------------------------------------------------------------- */

static struct slice next_word(struct slice *text)
{
    const char *blank = memchr(text->p, ' ', text->n);
    struct slice word = slice_of(text->p, blank == NULL ? text->n : (size_t)(blank - text->p));
    size_t used = word.n + (blank != NULL);
    *text = slice_of(text->p + used, text->n - used);
    return word;
}

/* "NAME OLD-HOST OLD-PORT NEW-HOST NEW-PORT". Its configuration is newer than the one followed. */
static void on_switch(struct sentinel *s, const struct peer *peer, struct slice text)
{
    struct named found = {.epoch = s->epoch + 1};
    struct slice name = next_word(&text);
    (void)next_word(&text);
    (void)next_word(&text);
    struct answer host = {.type = ANSWER_TEXT, .text = next_word(&text)};
    struct answer port = {.type = ANSWER_TEXT, .text = next_word(&text)};
    if (!slice_eq(name, slice_str(s->options.master)) || !take_address(&found, &host, &port) ||
        is_same(s->master, found.host, found.port) ||
        is_same(s->candidate, found.host, found.port)) {
        return;
    }
    (void)snprintf(found.by, sizeof(found.by), "%s", node_name(peer->node));
    s->in_round = false;
    consider(s, &found);
}

static void on_message(struct control *c, struct slice channel, struct slice text, void *ctx)
{
    struct peer *peer = ctx;
    (void)c;
    if (slice_eq(channel, SLICE("+switch-master"))) {
        on_switch(peer->sentinel, peer, text);
    } else {
        want_round(peer->sentinel);
    }
}

/* ---- The sentinels -------------------------------------------------------------------------- */

static void on_others(struct control *c, const struct answer *answer, void *ctx)
{
    struct peer *peer = ctx;
    (void)c;
    if (answer == NULL || answer->type != ANSWER_LIST) {
        return;
    }
    for (size_t i = 0; i < answer->nitems; i++) {
        struct named found;
        if (take_address(&found, answer_field(&answer->items[i], "ip"),
                         answer_field(&answer->items[i], "port"))) {
            sentinel_add(peer->sentinel, found.host, found.port);
        }
    }
}

static void on_subscribed(struct control *c, const struct answer *answer, void *ctx)
{
    struct peer *peer = ctx;
    (void)c;
    if (answer != NULL && answer->type == ANSWER_ERROR) {
        log_event(LOG_WARN, "sentinel %s does not let us subscribe: %.*s; asking from time to time",
                  node_name(peer->node), answer->text.n > 200 ? 200 : (int)answer->text.n,
                  answer->text.p);
    }
}

static void on_up(struct control *c, void *ctx)
{
    static const char *const channels[] = {"+switch-master", "+promoted-slave", "+sdown", "-sdown",
                                           "+odown"};
    struct peer *peer = ctx;
    struct sentinel *s = peer->sentinel;
    peer->up = true;
    peer->why[0] = '\0';
    atomic_fetch_add_explicit(&s->up, 1, memory_order_relaxed);
    log_event(LOG_INFO, "sentinel %s answers", node_name(peer->node));
    for (size_t i = 0; i < ARRAY_LEN(channels); i++) {
        control_ask(c, (const char *const[]){"SUBSCRIBE", channels[i], NULL}, on_subscribed, peer);
    }
    control_ask(c, (const char *const[]){"SENTINEL", "SENTINELS", s->options.master, NULL},
                on_others, peer);
    want_round(s);
}

static void on_down(struct control *c, const char *why, void *ctx)
{
    struct peer *peer = ctx;
    (void)c;
    if (peer->up) {
        atomic_fetch_sub_explicit(&peer->sentinel->up, 1, memory_order_relaxed);
    }
    if (peer->up || strcmp(peer->why, why) != 0) {
        log_event(LOG_WARN, "sentinel %s does not answer: %s; trying again", node_name(peer->node),
                  why);
    }
    peer->up = false;
    (void)snprintf(peer->why, sizeof(peer->why), "%s", why);
}

void sentinel_add(struct sentinel *s, const char *host, const char *port)
{
    struct node_options options = s->options.peer;
    for (unsigned i = 0; i < s->npeers; i++) {
        const struct node_options *o = node_options(s->peers[i]->node);
        if (strcmp(o->host, host) == 0 && strcmp(o->port, port) == 0) {
            return;
        }
    }
    if (s->npeers == PEERS_MAX) {
        return;
    }
    struct peer *peer = mem_zalloc(sizeof(*peer));
    options.host = host;
    options.port = port;
    peer->sentinel = s;
    peer->node = node_create(&options);
    peer->control = control_create(&(struct control_options){
        .loop = s->options.loop,
        .node = peer->node,
        .resp3 = true,
        .deadline_ms = options.connect_timeout_ms,
        .now = s->options.now,
        .up = on_up,
        .down = on_down,
        .message = on_message,
        .ctx = peer,
    });
    s->peers[s->npeers++] = peer;
    atomic_store_explicit(&s->known, s->npeers, memory_order_relaxed);
}

/* ---- Life ----------------------------------------------------------------------------------- */

static void on_suspected(struct ev_loop *loop, ev_async *async, int events)
{
    (void)loop;
    (void)events;
    struct sentinel *s = container_of(async, struct sentinel, suspected);
    if (s->master != NULL) {
        role_hurry(s->master->role);
    }
    want_round(s);
}

struct sentinel *sentinel_create(const struct sentinel_options *options)
{
    struct sentinel *s = mem_zalloc(sizeof(*s));
    s->options = *options;
    s->options.master = mem_strdup(options->master);
    (void)snprintf(s->why, sizeof(s->why), "no sentinel has answered yet");
    tell_lost(s);
    ev_timer_init(&s->timer, on_timer, 0., 0.);
    ev_async_init(&s->suspected, on_suspected);
    ev_async_start(options->loop, &s->suspected);
    arm(s, RETRY_MS);
    return s;
}

void sentinel_destroy(struct sentinel *s)
{
    if (s == NULL) {
        return;
    }
    ev_timer_stop(s->options.loop, &s->timer);
    ev_async_stop(s->options.loop, &s->suspected);
    drop(&s->candidate);
    drop(&s->master);
    for (unsigned i = 0; i < s->npeers; i++) {
        control_destroy(s->peers[i]->control);
        node_destroy(s->peers[i]->node);
        mem_free(s->peers[i]);
    }
    mem_free((void *)(uintptr_t)s->options.master);
    mem_free(s);
}

void sentinel_suspect(struct sentinel *s)
{
    ev_async_send(s->options.loop, &s->suspected);
}

void sentinel_status(const struct sentinel *s, struct sentinel_status *out)
{
    out->known = atomic_load_explicit(&s->known, memory_order_relaxed);
    out->up = atomic_load_explicit(&s->up, memory_order_relaxed);
    out->switches = atomic_load_explicit(&s->switches, memory_order_relaxed);
    out->switched_at = atomic_load_explicit(&s->switched_at, memory_order_relaxed);
}
