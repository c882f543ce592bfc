/* SPDX-License-Identifier: Apache-2.0
 *
 * node.c: what all workers have to agree on about one Redis server: where it is, who we are to it,
 * and which server process answers there.
 *
 * Way through the file: life, addresses, credentials, identity.
 *
 * Threads: everything but node_create and node_destroy may be called on any thread. `lock` covers
 * the addresses and the texts and is held for copying only. `identify_lock` makes one thread at a
 * time decide whether the server changed, and is held while `changed` runs, so that whoever saw the
 * same new server waits until the consequences are drawn. Order: identify_lock before lock. The
 * generation and the moment of the last sign of life are atomics, because every command and every
 * read looks at them.
 *
 * Not here: connecting (conn.c), choosing among nodes.
 */
#include "node.h"

#include "../conf/mem.h"
#include "../conf/mutant.h"
#include "../conf/secret.h"

#include <netdb.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/un.h>

#define ADDRESSES_MAX 16
#define RUN_ID_MAX    64 /* Redis's has 40 characters */
#define VERSION_MAX   64

struct address {
    struct sockaddr_storage addr;
    socklen_t len;
};

struct node {
    struct node_options options; /* its strings are copies */
    char *name;

    pthread_mutex_t lock; /* everything down to version */
    struct address addresses[ADDRESSES_MAX];
    unsigned naddresses;
    char run_id[RUN_ID_MAX];
    char version[VERSION_MAX];

    pthread_mutex_t identify_lock; /* taken before lock; held while `changed` runs */

    /* Raised (release) before `changed` runs. Who sees what `changed` did also sees it raised
     * (acquire in node_generation). Kept away from last_heard, which is written all the time. */
    _Atomic uint64_t generation;
    char apart[128];
    _Atomic int64_t last_heard; /* relaxed: a hint for deadlines of seconds */
};

static char *copy_or_null(const char *s)
{
    return s == NULL ? NULL : mem_strdup(s);
}

static bool is_unix(const struct node_options *options)
{
    return options->host[0] == '/';
}

static char *make_name(const struct node_options *options)
{
    const char *host = options->host;
    size_t size = strlen(host) + strlen(options->port) + sizeof("unix:[]:");
    char *name = mem_alloc(size);
    if (is_unix(options)) {
        (void)snprintf(name, size, "unix:%s", host);
    } else {
        /* An IPv6 address needs its brackets, or nobody can tell where the port begins. */
        bool brackets = strchr(host, ':') != NULL;
        (void)snprintf(name, size, brackets ? "[%s]:%s" : "%s:%s", host, options->port);
    }
    return name;
}

struct node *node_create(const struct node_options *options)
{
    struct node *node = mem_zalloc(sizeof(*node));
    node->options = *options;
    node->options.host = mem_strdup(options->host);
    node->options.port = mem_strdup(options->port);
    node->options.user = copy_or_null(options->user);
    node->options.password = copy_or_null(options->password);
    node->options.password_file = copy_or_null(options->password_file);
    node->name = make_name(&node->options);
    pthread_mutex_init(&node->lock, NULL);
    pthread_mutex_init(&node->identify_lock, NULL);
    atomic_init(&node->generation, 1);
    atomic_init(&node->last_heard, 0);
    (void)node_resolve(node);
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
    if (node->options.password != NULL) {
        explicit_bzero((void *)(uintptr_t)node->options.password, strlen(node->options.password));
    }
    free_string(node->options.host);
    free_string(node->options.port);
    free_string(node->options.user);
    free_string(node->options.password);
    free_string(node->options.password_file);
    mem_free(node->name);
    pthread_mutex_destroy(&node->lock);
    pthread_mutex_destroy(&node->identify_lock);
    mem_free(node);
}

const char *node_name(const struct node *node)
{
    return node->name;
}

const struct node_options *node_options(const struct node *node)
{
    return &node->options;
}

/* ---- Addresses ----------------------------------------------------------------------------- */

static void set_addresses(struct node *node, const struct address *list, unsigned n)
{
    pthread_mutex_lock(&node->lock);
    memcpy(node->addresses, list, n * sizeof(list[0]));
    node->naddresses = n;
    pthread_mutex_unlock(&node->lock);
}

/* Of a Unix socket: its path, which is there or not when it is connected to. */
static bool set_path(struct node *node)
{
    struct address address = {.len = sizeof(struct sockaddr_un)};
    struct sockaddr_un *un = (struct sockaddr_un *)(void *)&address.addr;
    if (strlen(node->options.host) >= sizeof(un->sun_path)) {
        return false;
    }
    un->sun_family = AF_UNIX;
    memcpy(un->sun_path, node->options.host, strlen(node->options.host));
    set_addresses(node, &address, 1);
    return true;
}

bool node_resolve(struct node *node)
{
    if (is_unix(&node->options)) {
        return set_path(node);
    }
    struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
    struct addrinfo *found = NULL;
    if (getaddrinfo(node->options.host, node->options.port, &hints, &found) != 0) {
        return false;
    }
    struct address list[ADDRESSES_MAX];
    unsigned n = 0;
    for (const struct addrinfo *at = found; at != NULL && n < ADDRESSES_MAX; at = at->ai_next) {
        if (at->ai_addrlen <= sizeof(list[n].addr)) {
            memset(&list[n], 0, sizeof(list[n]));
            memcpy(&list[n].addr, at->ai_addr, at->ai_addrlen);
            list[n].len = at->ai_addrlen;
            n++;
        }
    }
    freeaddrinfo(found);
    if (n == 0) {
        return false;
    }
    set_addresses(node, list, n);
    return true;
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

/* Takes note of what the server said; true when it is not the one that was known. */
static bool note_identity(struct node *node, struct slice run_id, struct slice version)
{
    char seen[RUN_ID_MAX] = "";
    bool changed = false;
    pthread_mutex_lock(&node->lock);
    if (version.n > 0) {
        keep_text(node->version, sizeof(node->version), version);
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
        /* Raised first: from here on nothing new is sent to the old server, so that whatever L1
         * takes in after `changed` emptied it comes from the new one. */
        atomic_fetch_add_explicit(&node->generation, 1, memory_order_release);
        if (node->options.changed != NULL) {
            node->options.changed(node->options.ctx);
        }
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

bool node_is_at_least(struct node *node, unsigned major, unsigned minor)
{
    char text[VERSION_MAX];
    char *end;
    node_version(node, text, sizeof(text));
    unsigned long have = strtoul(text, &end, 10);
    unsigned long then = *end == '.' ? strtoul(end + 1, NULL, 10) : 0;
    return have > major || (have == major && then >= minor);
}

void node_heard(struct node *node, int64_t now)
{
    int64_t known = atomic_load_explicit(&node->last_heard, memory_order_relaxed);
    while (known < now &&
           !atomic_compare_exchange_weak_explicit(&node->last_heard, &known, now,
                                                  memory_order_relaxed, memory_order_relaxed)) {
    }
}

int64_t node_last_heard(const struct node *node)
{
    return atomic_load_explicit(&node->last_heard, memory_order_relaxed);
}
