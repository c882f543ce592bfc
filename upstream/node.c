/* SPDX-License-Identifier: Apache-2.0
 *
 * node.c: what all workers have to agree on about one Redis server: where it is, who we are to it,
 * and which server process answers there.
 *
 * Way through the file: life, addresses, credentials, identity, health.
 *
 * Threads: everything but node_create and node_destroy may be called on any thread. `lock` covers
 * the addresses and the texts and is held for copying only. `identify_lock` makes one thread at a
 * time decide whether the server changed, and is held while `changed` runs, so that whoever saw the
 * same new server waits until the consequences are drawn. Order: identify_lock before lock. The
 * generation and the moment of the last sign of life are atomics, because every command and every
 * read looks at them.
 *
 * Not here: connecting (conn.c), looking names up (resolver.c), choosing among nodes.
 */
#include "node.h"

#include "../conf/log.h"
#include "../conf/mem.h"
#include "../conf/mutant.h"
#include "../conf/secret.h"

#include "resolver.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/un.h>

#define RUN_ID_MAX         64 /* Redis's has 40 characters */
#define VERSION_MAX        64
#define UNRESOLVED_MAX     128
#define RESOLVE_EVERY_MS   1000
#define STATE_LOG_EVERY_MS 1000
#define OCCUPIED_MS        500

/* Names and addresses are given out as plain strings: they are kept, even when they are old. */
struct text {
    struct text *next;
    char p[];
};

struct node {
    struct node_options options; /* its strings are copies */
    struct text *texts;
    _Atomic(const char *) name; /* release and acquire */
    _Atomic uint64_t era;       /* stored behind the addresses it stands for; release and acquire */

    pthread_mutex_t lock; /* everything down to to_strangers, and options.host and options.port */
    struct address addresses[ADDRESSES_MAX];
    unsigned naddresses;
    bool is_name;   /* to be looked up again */
    bool resolving; /* the resolver has been asked for the name of this era */
    uint64_t left;  /* the generation in which the name was found to lead elsewhere, or 0 */
    int64_t resolved_at;
    char unresolved[UNRESOLVED_MAX]; /* why there is no address, or "" */
    char run_id[RUN_ID_MAX];
    char version[VERSION_MAX];
    char to_strangers[ERR_MAX];

    struct health health;
    struct log_limit state_log[NODE_DOWN + 1]; /* by the state that was entered */

    pthread_mutex_t identify_lock; /* taken before lock; held while `changed` runs */

    /* Raised (release) before `changed` runs. Who sees what `changed` did also sees it raised
     * (acquire in node_generation). Kept away from last_heard, which is written all the time. */
    _Atomic uint64_t generation;
    /* major and minor in 16 bits each, 0: not known; of Redis, and of Valkey if it is one. Relaxed: only asked for
     * what to say and not to say. */
    _Atomic uint32_t release, valkey;
    _Atomic int state; /* health.state, relaxed: read for each read from a socket */
    _Atomic bool mute;
    char apart[128];
    _Atomic int64_t last_heard; /* relaxed: a hint for deadlines of seconds */
    _Atomic int64_t occupied;   /* ms: when that was last noted; 0: never */
    _Atomic bool asks_login;    /* relaxed: a hint, the server has the last word */
    _Atomic int links;          /* release and acquire */
};

static void find_address(struct node *node);

static char *copy_or_null(const char *s)
{
    return s == NULL ? NULL : mem_strdup(s);
}

static bool is_unix(const struct node_options *options)
{
    return options->host[0] == '/';
}

/* n bytes that live as long as the node. */
static char *keep(struct node *node, size_t n)
{
    struct text *text = mem_alloc(sizeof(*text) + n);
    text->next = node->texts;
    node->texts = text;
    return text->p;
}

static const char *keep_copy(struct node *node, const char *s)
{
    size_t n = strlen(s) + 1;
    return memcpy(keep(node, n), s, n);
}

/* With `lock` held, or before anybody knows the node. host NULL: not known. */
static void set_host(struct node *node, const char *host, const char *port)
{
    struct node_options *o = &node->options;
    const char *name = o->label;
    o->host = host == NULL ? NULL : keep_copy(node, host);
    o->port = port == NULL ? NULL : keep_copy(node, port);
    if (host != NULL && port != NULL) {
        size_t size = strlen(host) + strlen(port) + sizeof("unix:[]:");
        char *made = keep(node, size);
        if (is_unix(o)) {
            (void)snprintf(made, size, "unix:%s", host);
        } else {
            /* An IPv6 address needs its brackets, or nobody can tell where the port begins. */
            bool brackets = strchr(host, ':') != NULL;
            (void)snprintf(made, size, brackets ? "[%s]:%s" : "%s:%s", host, port);
        }
        name = made;
    }
    atomic_store_explicit(&node->name, name, memory_order_release);
}

struct node *node_create(const struct node_options *options)
{
    struct node *node = mem_zalloc(sizeof(*node));
    bug_on(options->host == NULL && options->label == NULL);
    node->options = *options;
    node->options.label = options->label == NULL ? NULL : keep_copy(node, options->label);
    node->options.user = copy_or_null(options->user);
    node->options.password = copy_or_null(options->password);
    node->options.password_file = copy_or_null(options->password_file);
    pthread_mutex_init(&node->lock, NULL);
    pthread_mutex_init(&node->identify_lock, NULL);
    atomic_init(&node->era, 1);
    atomic_init(&node->generation, 1);
    atomic_init(&node->last_heard, 0);
    atomic_init(&node->state, NODE_CONNECTING);
    atomic_init(&node->mute, false);
    node->options.limits.failures += options->limits.failures == 0;
    node->options.limits.recoveries += options->limits.recoveries == 0;
    set_host(node, options->host, options->port);
    find_address(node);
    node_resolve(node, 0);
    return node;
}

/* The options hold the strings as const for everybody else; here they are ours to free. */
static void free_string(const char *s)
{
    mem_free((void *)(uintptr_t)s);
}

void node_destroy(struct node *node)
{
    if (node == NULL) {
        return;
    }
    if (node->options.resolver != NULL) {
        resolver_forget(node->options.resolver, node);
    }
    if (node->options.password != NULL) {
        explicit_bzero((void *)(uintptr_t)node->options.password, strlen(node->options.password));
    }
    while (node->texts != NULL) {
        struct text *next = node->texts->next;
        mem_free(node->texts);
        node->texts = next;
    }
    free_string(node->options.user);
    free_string(node->options.password);
    free_string(node->options.password_file);
    pthread_mutex_destroy(&node->lock);
    pthread_mutex_destroy(&node->identify_lock);
    mem_free(node);
}

const char *node_name(const struct node *node)
{
    return atomic_load_explicit(&node->name, memory_order_acquire);
}

const struct node_options *node_options(const struct node *node)
{
    return &node->options;
}

void node_count_link(struct node *node, int change)
{
    (void)atomic_fetch_add_explicit(&node->links, change, memory_order_acq_rel);
}

int node_links(const struct node *node)
{
    return atomic_load_explicit(&node->links, memory_order_acquire);
}

/* ---- Addresses ----------------------------------------------------------------------------- */

/* With `lock` held. */
static void keep_addresses(struct node *node, const struct addresses *found)
{
    memcpy(node->addresses, found->list, found->n * sizeof(found->list[0]));
    node->naddresses = found->n;
}

/* With `lock` held. Names with several addresses give them in any order, and not always all. */
static bool has_left(const struct node *node, const struct addresses *found)
{
    for (unsigned i = 0; i < node->naddresses; i++) {
        const struct address *old = &node->addresses[i];
        for (unsigned k = 0; k < found->n; k++) {
            if (found->list[k].len == old->len &&
                memcmp(&found->list[k].addr, &old->addr, old->len) == 0) {
                return false;
            }
        }
    }
    return node->naddresses > 0 && found->n > 0;
}

/* On the resolver's thread. What was found replaces the old addresses in one step; a name that is not
 * found now leaves them. The question's own era: that of an old name may be answered while the new name's waits. */
static void on_found(void *ctx, uint64_t asked_era, const struct addresses *found)
{
    struct node *node = ctx;
    pthread_mutex_lock(&node->lock);
    if (asked_era != node_era(node)) { /* the server has moved meanwhile */
        pthread_mutex_unlock(&node->lock);
        return;
    }
    node->resolving = false;
    (void)snprintf(node->unresolved, sizeof(node->unresolved), "%.*s", UNRESOLVED_MAX - 1,
                   found->error);
    bool left = has_left(node, found);
    if (found->n > 0) {
        keep_addresses(node, found);
    }
    if (left) {
        /* `changed` is not for this thread: it holds the resolver's lock, which others take behind theirs. */
        node->left = node_generation(node);
        atomic_fetch_add_explicit(&node->era, 1, memory_order_release);
    }
    pthread_mutex_unlock(&node->lock);
}

/* Of a Unix socket: its path, which is there or not when it is connected to. */
static void find_path(const char *path, struct addresses *found)
{
    struct sockaddr_un *un = (struct sockaddr_un *)(void *)&found->list[0].addr;
    if (strlen(path) >= sizeof(un->sun_path)) {
        (void)snprintf(found->error, sizeof(found->error), "the path is too long");
        return;
    }
    un->sun_family = AF_UNIX;
    memcpy(un->sun_path, path, strlen(path));
    found->list[0].len = sizeof(*un);
    found->n = 1;
}

/* With `lock` held: what is no name is known at once. */
static void find_address(struct node *node)
{
    const struct node_options *o = &node->options;
    struct addresses found = {0};
    node->is_name = false;
    node->naddresses = 0;
    node->resolving = false;
    if (o->host == NULL) {
        return;
    }
    if (is_unix(o)) {
        find_path(o->host, &found);
    } else if (!resolver_is_address(o->host, o->port, &found)) {
        node->is_name = o->resolver != NULL;
        found.error[0] = node->is_name ? '\0' : found.error[0];
    }
    (void)snprintf(node->unresolved, sizeof(node->unresolved), "%.*s", UNRESOLVED_MAX - 1,
                   found.error);
    keep_addresses(node, &found);
}

void node_resolve(struct node *node, int64_t now)
{
    const char *host = NULL;
    const char *port = NULL;
    pthread_mutex_lock(&node->lock);
    uint64_t era = node_era(node);
    bool first = node->resolved_at == 0;
    if (node->is_name && !node->resolving &&
        (first || now - node->resolved_at >= RESOLVE_EVERY_MS)) {
        node->resolving = true;
        node->resolved_at = now;
        host = node->options.host;
        port = node->options.port;
    }
    pthread_mutex_unlock(&node->lock);
    if (host != NULL) {
        resolver_ask(node->options.resolver, host, port, on_found, node, era);
    }
}

/* With identify_lock held. Raised first: from here on nothing new is sent to the old server, so that
 * whatever L1 takes in after `changed` emptied it comes from the new one. */
static void raise_generation(struct node *node)
{
    atomic_fetch_add_explicit(&node->generation, 1, memory_order_release);
    if (node->options.changed != NULL) {
        node->options.changed(node->options.ctx);
    }
}

static void move(struct node *node, const char *host, const char *port, const char *why)
{
    pthread_mutex_lock(&node->identify_lock);
    pthread_mutex_lock(&node->lock);
    set_host(node, host, port);
    find_address(node);
    if (host == NULL) {
        (void)snprintf(node->unresolved, sizeof(node->unresolved), "%s", why);
    }
    node->resolved_at = 0;
    node->run_id[0] = '\0';
    node->left = 0;
    node->health = (struct health){0};
    atomic_store_explicit(&node->state, NODE_CONNECTING, memory_order_relaxed);
    atomic_store_explicit(&node->mute, false, memory_order_relaxed);
    atomic_fetch_add_explicit(&node->era, 1, memory_order_release);
    pthread_mutex_unlock(&node->lock);
    raise_generation(node);
    pthread_mutex_unlock(&node->identify_lock);
    node_resolve(node, 0);
}

bool node_follow_name(struct node *node)
{
    pthread_mutex_lock(&node->identify_lock);
    pthread_mutex_lock(&node->lock);
    uint64_t left = node->left;
    bool is_seen = left != node_generation(node); /* who was let in since is from there */
    node->left = 0;
    if (left != 0 && !is_seen) {
        node->run_id[0] = '\0';
    }
    pthread_mutex_unlock(&node->lock);
    if (left != 0 && !is_seen) {
        raise_generation(node);
    }
    pthread_mutex_unlock(&node->identify_lock);
    return left != 0;
}

void node_set_address(struct node *node, const char *host, const char *port)
{
    move(node, host, port, "");
}

void node_lose_address(struct node *node, const char *why)
{
    move(node, NULL, NULL, why);
}

void node_renounce(struct node *node)
{
    pthread_mutex_lock(&node->identify_lock);
    raise_generation(node);
    pthread_mutex_unlock(&node->identify_lock);
}

uint64_t node_era(const struct node *node)
{
    return atomic_load_explicit(&node->era, memory_order_acquire);
}

bool node_is_resolving(struct node *node, char why[ERR_MAX])
{
    pthread_mutex_lock(&node->lock);
    bool resolving = node->resolving;
    if (node->options.host == NULL) {
        (void)snprintf(why, ERR_MAX, "%s",
                       node->unresolved[0] == '\0' ? "its address is not known yet"
                                                   : node->unresolved);
    } else {
        (void)snprintf(why, ERR_MAX, "the host name is not resolved%s%s",
                       node->unresolved[0] == '\0' ? "" : ": ", node->unresolved);
    }
    pthread_mutex_unlock(&node->lock);
    return resolving;
}

bool node_address(struct node *node, unsigned attempt, struct sockaddr_storage *addr,
                  socklen_t *len)
{
    pthread_mutex_lock(&node->lock);
    unsigned n = node->naddresses;
    if (n > 0) {
        *addr = node->addresses[attempt % n].addr;
        *len = node->addresses[attempt % n].len;
    }
    pthread_mutex_unlock(&node->lock);
    return n > 0;
}

unsigned node_address_count(struct node *node)
{
    pthread_mutex_lock(&node->lock);
    unsigned n = node->naddresses;
    pthread_mutex_unlock(&node->lock);
    return n;
}

/* ---- Credentials --------------------------------------------------------------------------- */

static bool copy_text(const char *from, char *out, size_t max, const char *what, char err[ERR_MAX])
{
    const char *text = from == NULL ? "" : from;
    size_t n = strlen(text);
    if (n >= max) {
        (void)snprintf(err, ERR_MAX, "the %s is longer than %zu bytes", what, max - 1);
        return false;
    }
    memcpy(out, text, n + 1);
    return true;
}

bool node_credentials(struct node *node, char *user, size_t user_max, char *password,
                      size_t password_max, char err[ERR_MAX])
{
    const struct node_options *o = &node->options;
    bool ok = copy_text(o->user, user, user_max, "user name", err);
    if (ok && o->password_file != NULL) {
        ok = secret_from_file(o->password_file, password, password_max, err);
    } else if (ok) {
        ok = copy_text(o->password, password, password_max, "password", err);
    }
    if (!ok) {
        explicit_bzero(user, user_max);
        explicit_bzero(password, password_max);
    }
    return ok;
}

/* ---- Identity ------------------------------------------------------------------------------ */

static void keep_text(char *out, size_t max, struct slice text)
{
    size_t n = text.n < max - 1 ? text.n : max - 1;
    memcpy(out, text.p, n);
    out[n] = '\0';
}

static uint32_t release_of(struct slice version)
{
    char text[VERSION_MAX];
    char *end;
    keep_text(text, sizeof(text), version);
    unsigned long major = strtoul(text, &end, 10);
    unsigned long minor = *end == '.' ? strtoul(end + 1, NULL, 10) : 0;
    return (uint32_t)((major < 0x8000 ? major : 0x7fff) << 16 | (minor < 0xffff ? minor : 0xffff));
}

static bool is_at_least(const _Atomic uint32_t *release, unsigned major, unsigned minor)
{
    return atomic_load_explicit(release, memory_order_relaxed) >= (major << 16 | minor);
}

/* Takes note of what the server said; true when it is not the one that was known. */
static bool note_identity(struct node *node, struct slice run_id, struct slice version)
{
    char seen[RUN_ID_MAX] = "";
    bool changed = false;
    pthread_mutex_lock(&node->lock);
    if (version.n > 0) {
        keep_text(node->version, sizeof(node->version), version);
        atomic_store_explicit(&node->release, release_of(version), memory_order_relaxed);
    }
    if (run_id.n > 0) {
        keep_text(seen, sizeof(seen), run_id);
        changed = node->run_id[0] != '\0' && strcmp(node->run_id, seen) != 0;
        memcpy(node->run_id, seen, sizeof(seen));
    }
    pthread_mutex_unlock(&node->lock);
    return changed;
}

uint64_t node_identify(struct node *node, struct slice run_id, struct slice version)
{
    pthread_mutex_lock(&node->identify_lock);
    if (note_identity(node, run_id, version) && !MUTANT(C3)) {
        raise_generation(node);
    }
    uint64_t generation = atomic_load_explicit(&node->generation, memory_order_relaxed);
    pthread_mutex_unlock(&node->identify_lock);
    return generation;
}

uint64_t node_generation(const struct node *node)
{
    return atomic_load_explicit(&node->generation, memory_order_acquire);
}

void node_version(struct node *node, char *out, size_t max)
{
    if (max == 0) {
        return;
    }
    pthread_mutex_lock(&node->lock);
    keep_text(out, max, slice_str(node->version));
    pthread_mutex_unlock(&node->lock);
}

bool node_is_at_least(const struct node *node, unsigned major, unsigned minor)
{
    return is_at_least(&node->release, major, minor);
}

void node_note_valkey(struct node *node, struct slice version)
{
    atomic_store_explicit(&node->valkey, release_of(version), memory_order_relaxed);
}

bool node_is_valkey(const struct node *node, unsigned major, unsigned minor)
{
    return is_at_least(&node->valkey, major, minor);
}

void node_heard(struct node *node, int64_t now)
{
    int64_t known = atomic_load_explicit(&node->last_heard, memory_order_relaxed);
    while (known < now &&
           !atomic_compare_exchange_weak_explicit(&node->last_heard, &known, now,
                                                  memory_order_relaxed, memory_order_relaxed)) {
    }
}

bool node_text_is_occupied(struct slice text)
{
    return slice_starts(text, SLICE("BUSY ")) || slice_starts(text, SLICE("LOADING ")) ||
           slice_starts(text, SLICE("MASTERDOWN "));
}

void node_note_occupied(struct node *node, int64_t now)
{
    atomic_store_explicit(&node->occupied, now, memory_order_relaxed);
}

bool node_is_occupied(const struct node *node, int64_t now)
{
    int64_t noted = atomic_load_explicit(&node->occupied, memory_order_relaxed);
    return noted != 0 && now - noted < OCCUPIED_MS;
}

void node_note_login(struct node *node, bool asked)
{
    if (atomic_load_explicit(&node->asks_login, memory_order_relaxed) != asked) {
        atomic_store_explicit(&node->asks_login, asked, memory_order_relaxed);
    }
}

bool node_asks_login(const struct node *node)
{
    return atomic_load_explicit(&node->asks_login, memory_order_relaxed);
}

void node_note_stranger(struct node *node, struct slice words)
{
    pthread_mutex_lock(&node->lock);
    keep_text(node->to_strangers, sizeof(node->to_strangers), words);
    node->to_strangers[strcspn(node->to_strangers, "\r\n")] = '\0';
    pthread_mutex_unlock(&node->lock);
}

void node_words_to_strangers(struct node *node, char *out, size_t max)
{
    pthread_mutex_lock(&node->lock);
    keep_text(out, max, slice_str(node->to_strangers));
    pthread_mutex_unlock(&node->lock);
}

int64_t node_last_heard(const struct node *node)
{
    return atomic_load_explicit(&node->last_heard, memory_order_relaxed);
}

/* ---- Health -------------------------------------------------------------------------------- */

static void log_state(struct node *node, const struct health *before, int64_t now)
{
    const struct health *h = &node->health;
    uint64_t more = 0;
    if (before->state == NODE_CONNECTING && h->state == NODE_UP) {
        return; /* its connections have said so */
    }
    if (!log_allow(&node->state_log[h->state], now, STATE_LOG_EVERY_MS, &more)) {
        return;
    }
    switch (h->state) {
    case NODE_SUSPECT:
        if (before->state == NODE_UP) {
            log_event(LOG_WARN, "%s is suspect: %s; commands go on", node_name(node), h->why);
        } else {
            log_event(LOG_INFO, "%s answers again, after %" PRId64 " ms down", node_name(node),
                      now - before->since);
        }
        break;
    case NODE_DOWN:
        log_event(LOG_WARN, "%s is down: %s; commands fail at once until it answers",
                  node_name(node), h->why);
        break;
    case NODE_UP:
        log_event(LOG_INFO, "%s is up again", node_name(node));
        break;
    case NODE_CONNECTING:
        break;
    }
}

/* With `lock` held, which it gives back: the state may have changed. */
static void publish(struct node *node, const struct health *before, int64_t now)
{
    const struct health *h = &node->health;
    bool left_up = before->state == NODE_UP && h->state != NODE_UP;
    atomic_store_explicit(&node->state, (int)h->state, memory_order_relaxed);
    atomic_store_explicit(&node->mute, h->state == NODE_DOWN && h->silent, memory_order_relaxed);
    if (before->state != h->state) {
        log_state(node, before, now);
    }
    pthread_mutex_unlock(&node->lock);
    if (left_up && node->options.troubled != NULL) {
        node->options.troubled(node->options.ctx);
    }
}

void node_trouble(struct node *node, const char *why, bool waited, int64_t now)
{
    pthread_mutex_lock(&node->lock);
    struct health before = node->health;
    health_trouble(&node->health, &node->options.limits, why, waited, now);
    publish(node, &before, now);
}

void node_silence(struct node *node, bool dead, int64_t now)
{
    enum node_state known = node_state(node);
    if (known == NODE_DOWN || (known == NODE_SUSPECT && !dead)) {
        return;
    }
    pthread_mutex_lock(&node->lock);
    struct health before = node->health;
    health_silence(&node->health, dead, now);
    publish(node, &before, now);
}

void node_answered(struct node *node, int64_t now)
{
    if (likely(node_state(node) == NODE_UP)) {
        return;
    }
    pthread_mutex_lock(&node->lock);
    struct health before = node->health;
    health_answer(&node->health, &node->options.limits, now);
    publish(node, &before, now);
}

enum node_state node_state(const struct node *node)
{
    return (enum node_state)atomic_load_explicit(&node->state, memory_order_relaxed);
}

bool node_is_mute(const struct node *node)
{
    return atomic_load_explicit(&node->mute, memory_order_relaxed);
}

void node_health(struct node *node, struct health *out)
{
    pthread_mutex_lock(&node->lock);
    *out = node->health;
    pthread_mutex_unlock(&node->lock);
}
