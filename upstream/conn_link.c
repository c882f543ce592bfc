/* SPDX-License-Identifier: Apache-2.0
 *
 * conn_link.c: how the link of a connection begins and ends. The picture of its states is in
 * conn.h.
 *
 * Way through the file: the end of a link and what follows from it; connecting, from the first
 * address to the last reply of the handshake.
 *
 * Invariants: there is one way down, lose(). It takes the calls off and resets everything before it
 * tells anyone, so that whoever is told may submit again; the owner is told before the calls (C10).
 * It never runs while the framer is being fed, which may not be reset from its own callbacks:
 * conn_give_up() then only raises `given_up`, which ends the feeding, and the reader finishes it.
 *
 * Log: one line when a link is lost, one for the first failure after that and then one every 10 s,
 * one when it is back; not one per retry. A flapping link is silent in between.
 */
#include "upstream_priv.h"

#include "../conf/mutant.h"

#include <errno.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <unistd.h>

#define BACKOFF_MAX_MS    1000
#define EARLY_MS          100  /* between attempts that calls ask for; longest one of them */
#define STABLE_MS         1000 /* a link that was up for less did not prove much: back off */
#define LOG_EVERY_MS      10000
#define LOST_LOG_EVERY_MS 1000
#define RESOLVING_MS      10 /* between first looks whether the host name is resolved */

static void try_addresses(struct conn *conn, const char *why);

static bool has_link(enum conn_state state)
{
    return state != CONN_IDLE && state != CONN_BACKOFF;
}

void conn_set_state(struct conn *conn, enum conn_state state)
{
    static const char *const names[] = {
        [CONN_IDLE] = "idle", [CONN_CONNECTING] = "connecting", [CONN_HANDSHAKE] = "handshake",
        [CONN_UP] = "up",     [CONN_BACKOFF] = "back-off",
    };
    if (conn->state != state && log_enabled(LOG_DEBUG)) {
        log_event(LOG_DEBUG, "%s (%s): %s -> %s", node_name(conn->options.node), conn->options.role,
                  names[conn->state], names[state]);
    }
    int change = has_link(state) - has_link(conn->state);
    conn->state = state;
    if (change != 0) {
        node_count_link(conn->options.node, change);
    }
}

static uint64_t next_random(struct conn *conn)
{
    /* xorshift64: spreads retries, protects nothing. */
    conn->random ^= conn->random << 13;
    conn->random ^= conn->random >> 7;
    conn->random ^= conn->random << 17;
    return conn->random;
}

const char *conn_why_not_current(const struct conn *conn)
{
    return conn_is_there(conn)
               ? "another server process answers at this address, or in another role"
               : "the server is at another address now";
}

static void keep_text(char out[ERR_MAX], const char *text)
{
    if (text != out) {
        (void)snprintf(out, ERR_MAX, "%s", text);
    }
}

/* ---- The end of a link --------------------------------------------------------------------- */

static struct lost_calls take_calls(struct conn *conn)
{
    struct lost_calls lost = {conn->head, conn->pending, conn->answered, conn_bytes_sent(conn)};
    conn->head = NULL;
    conn->tail = NULL;
    conn->pending = 0;
    conn->queued = 0;
    conn->answered = 0;
    chain_fini(&conn->out);
    return lost;
}

void lost_calls_tell(struct lost_calls lost)
{
    uint64_t start = lost.start;
    for (struct call *call = lost.head; call != NULL;) {
        struct call *next = call->next;
        enum call_loss loss = start < lost.sent ? LOSS_SENT : LOSS_UNSENT;
        start = call->end_offset;
        call->next = NULL;
        call->ops->lost(call, loss);
        call = next;
    }
}

/* The socket and all that goes with it, not the calls. */
static void close_socket(struct conn *conn)
{
    ev_io_stop(conn->options.loop, &conn->readable);
    ev_io_stop(conn->options.loop, &conn->writable);
    ev_timer_stop(conn->options.loop, &conn->retry);
    if (conn->fd >= 0) {
        own_ports_remove(conn->port);
        conn->port = 0;
        close(conn->fd);
        conn->fd = -1;
    }
    framer_reset(conn->framer);
    handshake_destroy(conn->handshake);
    conn->handshake = NULL;
    conn->given_up = false;
    conn->mute = false;
    conn->held = false;
    conn->deadline = 0;
}

static void log_lost(struct conn *conn, size_t ncalls, int64_t now)
{
    uint64_t more = 0;
    if (!log_allow(&conn->lost_log, now, LOST_LOG_EVERY_MS, &more)) {
        return;
    }
    conn->down_logged = true;
    log_event(LOG_WARN,
              "lost connection to %s (%s, db %" PRIu32 "): %s; commands without reply: %zu%s; "
              "connecting again",
              node_name(conn->options.node), conn->options.role, conn->options.db, conn->error,
              ncalls, conn->options.vouches ? "; what it vouches for in L1 is void" : "");
}

static void log_failed(struct conn *conn, size_t ncalls, int64_t now)
{
    uint64_t more = 0;
    if ((conn->refused != NULL && conn->events->refused != NULL) ||
        !log_allow(&conn->failed_log, now, LOG_EVERY_MS, &more)) {
        return;
    }
    conn->down_logged = true;
    log_event(LOG_WARN,
              "cannot connect to %s (%s, db %" PRIu32 "): %s%s%s; commands that waited: %zu; "
              "failed attempts not logged: %" PRIu64 "; trying again",
              node_name(conn->options.node), conn->options.role, conn->options.db,
              conn->refused != NULL ? conn->refused : "", conn->refused != NULL ? " refused: " : "",
              conn->error, ncalls, more);
}

static void arm_retry(struct conn *conn)
{
    int64_t longest = conn->slow_ms > 0 ? conn->slow_ms : BACKOFF_MAX_MS;
    if (conn->backoff_ms > longest) {
        conn->backoff_ms = longest;
    }
    /* +-50 %, or all workers of all sidecars come back in the same instant. */
    double jitter = 0.5 + (double)(next_random(conn) % 1024) / 1024.0;
    ev_timer_set(&conn->retry, (double)conn->backoff_ms * jitter / 1000.0, 0.);
    ev_timer_start(conn->options.loop, &conn->retry);
    conn->backoff_ms *= 2;
}

/* One that fails at once ("Connection refused") costs nobody a wait, so a call may ask for it. */
bool conn_may_try_early(const struct conn *conn)
{
    return conn->refused == NULL && !conn->was_refused && conn->attempt_failed > 0 &&
           conn->attempt_failed - conn->attempt_began < EARLY_MS &&
           conn->options.now() - conn->attempt_failed >= EARLY_MS;
}

void conn_try_early(struct conn *conn)
{
    conn->hopeful = true;
    conn->attempt_failed = 0; /* once */
    ev_timer_stop(conn->options.loop, &conn->retry);
    ev_timer_set(&conn->retry, 0., 0.);
    ev_timer_start(conn->options.loop, &conn->retry);
}

/* The lookup of a name that has no address yet is part of the attempt, within its deadline. */
static void try_resolved(struct conn *conn)
{
    struct node *node = conn->options.node;
    char why[ERR_MAX];
    bool resolving = node_is_resolving(node, why); /* first: it may end in between */
    conn->addresses_left = node_address_count(node);
    if (conn->addresses_left == 0 && resolving) {
        int64_t so_far = conn->options.now() - conn->attempt_began;
        int64_t wait = so_far / 4 > RESOLVING_MS ? so_far / 4 : RESOLVING_MS;
        ev_timer_set(&conn->retry, (double)wait / 1000.0, 0.);
        ev_timer_start(conn->options.loop, &conn->retry);
        return;
    }
    try_addresses(conn, why);
}

void conn_start_attempt(struct conn *conn)
{
    struct node *node = conn->options.node;
    conn->attempt_began = conn->options.now();
    conn->era = node_era(node);
    conn->refused = NULL;
    if (node_address_count(node) == 0) {
        node_resolve(node, conn->attempt_began);
        conn->deadline = conn->attempt_began + node_options(node)->connect_timeout_ms;
    }
    conn_set_state(conn, CONN_CONNECTING);
    try_resolved(conn);
}

struct lost_calls conn_take_down(struct conn *conn)
{
    struct lost_calls lost = take_calls(conn);
    close_socket(conn);
    return lost;
}

/* An attempt failed: its calls are lost, and none is accepted until the next success. */
static void lose_attempt(struct conn *conn, const char *why, int64_t now)
{
    const char *refused = conn->refused;
    if (conn->hopeful && !conn_is_there(conn) && node_address_count(conn->options.node) > 0) {
        /* It led to where the node is no longer: what waits for its end waits for the next one. */
        close_socket(conn);
        conn_start_attempt(conn);
        return;
    }
    conn->was_refused = refused != NULL;
    keep_text(conn->error, why); /* first: why may be part of what is taken down */
    struct lost_calls lost = conn_take_down(conn);
    conn->hopeful = false;
    conn->slow_ms = 0;
    conn->attempt_failed = now;
    if (refused == NULL && conn_is_there(conn)) {
        node_resolve(conn->options.node, now);
        node_trouble(conn->options.node, conn->error, now - conn->attempt_began >= EARLY_MS, now);
    }
    conn_set_state(conn, CONN_BACKOFF);
    log_failed(conn, lost.n, now);
    if (refused != NULL && conn->events->refused != NULL) {
        conn->down_logged = true;
        conn->events->refused(conn, refused, conn->error, conn->options.ctx);
    }
    lost_calls_tell(lost);
    arm_retry(conn);
}

/* A link that was up is gone: its owner first (C10), then its calls, then try again, at once if it
 * had been up for long enough. */
static void lose_link(struct conn *conn, const char *why, int64_t now)
{
    bool stable = now - conn->up_since >= STABLE_MS;
    keep_text(conn->error, why);
    struct lost_calls lost = conn_take_down(conn);
    conn->hopeful = !node_is_mute(conn->options.node);
    conn->slow_ms = 0;
    conn_set_state(conn, stable ? CONN_CONNECTING : CONN_BACKOFF);
    if (MUTANT(C10)) {
        lost_calls_tell(lost);
        lost.head = NULL;
    }
    if (conn->events->lost != NULL) {
        conn->events->lost(conn, conn->options.ctx);
    }
    if (conn_is_current(conn) && !conn->options.quiet) { /* one of many may be closed any time */
        node_resolve(conn->options.node,
                     now); /* the old address may answer as something else now */
        /* a loss says nothing of how long it takes to connect */
        node_trouble(conn->options.node, conn->error, node_is_mute(conn->options.node), now);
    }
    log_lost(conn, lost.n, now);
    lost_calls_tell(lost);
    if (stable) {
        conn->backoff_ms = CONN_BACKOFF_MIN_MS;
        conn_start_attempt(conn);
    } else {
        arm_retry(conn);
    }
}

static void lose(struct conn *conn, const char *why)
{
    int64_t now = conn->options.now();
    if (conn->state == CONN_UP) {
        lose_link(conn, why, now);
        return;
    }
    if (conn->state == CONN_HANDSHAKE) {
        conn->address++; /* somebody listens there, but not for us: another may be better */
    }
    lose_attempt(conn, why, now);
}

/* lose(), now or as soon as the framer has let go. */
void conn_give_up(struct conn *conn, const char *why)
{
    if (!conn->feeding) {
        lose(conn, why);
    } else if (!conn->given_up) {
        conn->given_up = true;
        keep_text(conn->reason, why);
    }
}

/* ---- Connecting ---------------------------------------------------------------------------- */

/* A peer whose machine or network is gone without a word: the kernel finds out in dead_after, be it that
 * bytes of ours are not acknowledged or that nothing is under way. A slow command is no silence to it. */
static void set_deadlines(int fd, int64_t dead_after_ms)
{
    unsigned timeout = (unsigned)dead_after_ms;
    int idle = (int)(dead_after_ms / 2000) > 0 ? (int)(dead_after_ms / 2000) : 1;
    int interval = idle / 3 > 0 ? idle / 3 : 1;
    (void)setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &(int){1}, sizeof(int));
    (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof(idle));
    (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval, sizeof(interval));
    (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &(int){3}, sizeof(int));
    (void)setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &timeout, sizeof(timeout));
}

/* Starts a connect to the current address; returns 0 or an errno. */
static int begin_connect(struct conn *conn)
{
    struct sockaddr_storage addr;
    socklen_t len = 0;
    if (!node_address(conn->options.node, conn->address, &addr, &len)) {
        return EADDRNOTAVAIL;
    }
    int fd = socket(addr.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        return errno;
    }
    /* Both are improvements: without them a link is slow, or dies unnoticed, but it works. */
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
    if (addr.ss_family != AF_UNIX) {
        set_deadlines(fd, node_options(conn->options.node)->dead_after_ms);
    }
    if (connect(fd, (struct sockaddr *)&addr, len) < 0 && errno != EINPROGRESS) {
        int error = errno;
        close(fd);
        return error;
    }
    conn->fd = fd;
    conn->deadline = conn->options.now() + node_options(conn->options.node)->connect_timeout_ms;
    ev_io_set(&conn->readable, fd, EV_READ);
    ev_io_set(&conn->writable, fd, EV_WRITE);
    ev_io_start(conn->options.loop, &conn->writable);
    return 0;
}

/* Tries the addresses that this attempt has left; `why` is told when there is none. */
static void try_addresses(struct conn *conn, const char *why)
{
    while (conn->addresses_left > 0) {
        conn->addresses_left--;
        int error = begin_connect(conn);
        if (error == 0) {
            return;
        }
        why = strerror(error);
        conn->address++;
    }
    lose(conn, why);
}

/* The current address does not answer. */
void conn_next_address(struct conn *conn, const char *why)
{
    conn->address++;
    close_socket(conn);
    try_addresses(conn, why);
}

/* A connect to a local port nobody listens on can, once in some ten thousand tries, meet itself:
 * both ends are then ours, and the server could not even come back to its port. */
static bool is_own_echo(int fd)
{
    struct sockaddr_storage here = {0};
    struct sockaddr_storage there = {0};
    socklen_t nhere = sizeof(here);
    socklen_t nthere = sizeof(there);
    return getsockname(fd, (struct sockaddr *)&here, &nhere) == 0 &&
           getpeername(fd, (struct sockaddr *)&there, &nthere) == 0 && nhere == nthere &&
           memcmp(&here, &there, nhere) == 0;
}

void conn_finish_connect(struct conn *conn)
{
    int error = 0;
    socklen_t len = sizeof(error);
    if (getsockopt(conn->fd, SOL_SOCKET, SO_ERROR, &error, &len) < 0) {
        error = errno;
    }
    if (error == 0 && is_own_echo(conn->fd)) {
        error = ECONNREFUSED;
    }
    if (error != 0) {
        conn_next_address(conn, strerror(error));
        return;
    }
    char err[ERR_MAX];
    conn->handshake = handshake_create(&conn->options, err);
    if (conn->handshake == NULL) {
        lose(conn, err);
        return;
    }
    conn->port =
        own_ports_add(conn->fd, conn->options.use == PORT_OTHER ? PORT_UPKEEP : conn->options.use);
    ev_io_stop(conn->options.loop, &conn->writable);
    ev_io_start(conn->options.loop, &conn->readable);
    /* Before the first byte of it is sent: too early is safe for whoever counts from here (C6). */
    conn->handshake_sent = conn->options.now();
    conn->deadline = conn->handshake_sent + node_options(conn->options.node)->connect_timeout_ms;
    conn_set_state(conn, CONN_HANDSHAKE);
    conn_write_out(conn);
}

void conn_on_retry(struct ev_loop *loop, ev_timer *w, int revents)
{
    (void)loop;
    (void)revents;
    struct conn *conn = container_of(w, struct conn, retry);
    bug_on(conn->magic != CONN_MAGIC);
    if (conn->state == CONN_CONNECTING) {
        try_resolved(conn);
        return;
    }
    bug_on(conn->state != CONN_BACKOFF);
    conn_start_attempt(conn);
}

/* The last reply of the handshake was good. */
static void come_up(struct conn *conn)
{
    int64_t now = conn->options.now();
    conn->generation = handshake_generation(conn->handshake);
    if (!conn_is_current(conn) || !conn_is_there(conn)) {
        conn_give_up(conn, conn_why_not_current(conn));
        return;
    }
    conn->peer_id = handshake_peer_id(conn->handshake);
    handshake_destroy(conn->handshake);
    conn->handshake = NULL;
    conn->deadline = 0;
    conn->hopeful = true;
    conn->up_since = now;
    conn->quiet_since = now;
    conn_set_state(conn, CONN_UP);
    if (conn->head != NULL && conn->head->endless) {
        framer_expect_endless(conn->framer);
    }
    node_answered(conn->options.node, now);
    conn->was_refused = false;
    if (conn->down_logged || (conn->error[0] == '\0' && !conn->options.quiet)) {
        char version[64];
        node_version(conn->options.node, version, sizeof(version));
        log_event(LOG_INFO, "connected to %s (%s, db %" PRIu32 "), server version %s",
                  node_name(conn->options.node), conn->options.role, conn->options.db,
                  version[0] != '\0' ? version : "unknown");
        conn->down_logged = false;
        conn->failed_log = (struct log_limit){0};
    }
    if (conn->events->up != NULL) {
        conn->events->up(conn, conn->options.ctx);
    }
}

/* Ends the bring-up with what the server said against it. */
void conn_refuse(struct conn *conn)
{
    conn->refused = handshake_step(conn->handshake);
    conn_give_up(conn, handshake_text(conn->handshake));
}

void conn_handshake_piece(struct conn *conn, const struct reply_piece *piece)
{
    switch (handshake_piece(conn->handshake, piece)) {
    case HANDSHAKE_MORE:
        break;
    case HANDSHAKE_DONE:
        come_up(conn);
        break;
    case HANDSHAKE_REFUSED:
        conn_refuse(conn);
        break;
    }
}
