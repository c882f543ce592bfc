/* SPDX-License-Identifier: Apache-2.0
 *
 * node.h: one Redis server as the whole process sees it: its address, our credentials, and which
 * server process answers there. Shared by all workers; thread-safe.
 *
 * Generation (C3): all connections to a node must lead to the same server process. Every bring-up
 * tells node_identify the run_id it saw; a new one raises the generation, and connections of an
 * older generation may not be used any more (conn.c checks before every submit and closes them).
 *
 * The address itself may change (node_set_address): with sentinels, and in a cluster when a struct node is
 * used again for another node. With sentinels it may not be known (node_lose_address). And a name may come to
 * stand for other addresses (node_resolve).
 * Each time the era rises: a link that was begun in an older era never comes up. The generation rises with it,
 * but for a name: then it does when node_follow_name is called, or when the new server is seen.
 */
#pragma once

#include "../resp/bytes.h"
#include "health.h"

#include <sys/socket.h>

struct node;
struct resolver;

struct node_options {
    const char *host;  /* name or address; what begins with '/' is the path of a Unix socket; NULL:
                         not known yet */
    const char *label; /* what the node is called while its address is not known; NULL otherwise */
    const char *port;  /* "" then */
    struct resolver *resolver; /* for names; NULL: none is known. Must outlive the node */
    const char *user;          /* NULL: none */
    const char *password;      /* NULL: none */
    const char *password_file; /* NULL, or read at every bring-up; its first line is the password */
    int64_t connect_timeout_ms;
    int64_t dead_after_ms; /* a connection that owes replies and a node that says nothing for so
                              long: the node is dead */
    struct health_limits limits;
    /* It has left NODE_UP: called once per time, on the thread that met the trouble. Cheap; may be
     * NULL. */
    void (*troubled)(void *ctx);
    /* Another server process answers: called by the bring-up that saw it, on its thread, before
     * anything is sent to the new one; the generation is already raised. Once per change, and every
     * thread that saw the same change waits for it to end. May be NULL; must not call
     * node_identify. */
    void (*changed)(void *ctx);
    void *ctx;
};

/* Copies the options. Does not block: a name is being looked up when it returns, and node_address
 * fails until that is done. */
struct node *node_create(const struct node_options *options);
/* Accepts NULL. No connection may use it any more. */
void node_destroy(struct node *node);

/* "host:port", "unix:/path" or the label, for logs, INFO and error replies. Lives as long as the
 * node, even when it is called something else by then. */
const char *node_name(const struct node *node);
/* The host and the port change when it moves: they are for who is connected to it, or has made it move. */
const struct node_options *node_options(const struct node *node);

/* The addresses are in doubt: looks a name up again, in the background and once a second at most,
 * and switches to what is found; if that is nothing, the old addresses stay. If none of the old ones is among
 * what is found, the era rises; links that are up stay where they are. */
void node_resolve(struct node *node, int64_t now);
/* Has a name come to stand for other addresses, none of which it had? Then whoever is still connected to the
 * old ones, which may go on answering, is made to come along: the generation is raised as by node_identify, unless
 * it has been since. True once for each time. Any thread but the resolver's. */
bool node_follow_name(struct node *node);
/* Is it being looked up? why: what to say while it has no address. */
bool node_is_resolving(struct node *node, char why[ERR_MAX]);
/* The address to connect to; false when the name has never been resolved. attempt 0, 1, 2 ... walks
 * through all addresses of the name. */
bool node_address(struct node *node, unsigned attempt, struct sockaddr_storage *addr,
                  socklen_t *len);
/* The server is at another address from now on. `changed` is called as by node_identify; with it
 * returned, nothing is sent to the old address any more. Any thread but the resolver's. */
void node_set_address(struct node *node, const char *host, const char *port);
/* Nobody knows where the server is; `why` is what node_is_resolving then says. As above. */
void node_lose_address(struct node *node, const char *why);
/* What answers there is not what it was (its role changed): the same consequences, same address. */
void node_renounce(struct node *node);
/* Asked before node_address: in which era an address is valid. */
uint64_t node_era(const struct node *node);
/* How many addresses there are to walk through; 0 when the name has never been resolved. */
unsigned node_address_count(struct node *node);

/* The user ("" for none) and password ("" for none) to bring a connection up with. False when the
 * password file cannot be read, holds none, or something is longer than its buffer (err says why;
 * both are wiped). */
bool node_credentials(struct node *node, char *user, size_t user_max, char *password,
                      size_t password_max, char err[ERR_MAX]);

/* A bring-up saw this run_id (empty: the server would not say; counts as unchanged) and version.
 * Calls `changed` when it differs from the known one (not for the first ever). Returns the
 * generation the connection belongs to. */
uint64_t node_identify(struct node *node, struct slice run_id, struct slice version);
uint64_t node_generation(const struct node *node);
/* The server's version as text, "" before the first bring-up; copied to out, cut to fit. */
void node_version(struct node *node, char *out, size_t max);

/* Is its version known to be that or newer? Valkey gives the version of Redis it is compatible with, */
bool node_is_at_least(const struct node *node, unsigned major, unsigned minor);
/* and its own beside it, which a bring-up saw; "": it is no Valkey. */
void node_note_valkey(struct node *node, struct slice version);
/* Is it Valkey, and known to be of that version or newer? */
bool node_is_valkey(const struct node *node, unsigned major, unsigned minor);

/* Something was received from the node (any connection, any thread), at `now` ms. The newest moment
 * counts, whatever order threads report in. */
void node_heard(struct node *node, int64_t now);
/* 0 before anything was heard. */
int64_t node_last_heard(const struct node *node);

/* Is the text an error (without its '-') that says what a server is occupied with: BUSY, LOADING,
 * MASTERDOWN? */
bool node_text_is_occupied(struct slice text);
/* It said so, or owes something and says nothing, at `now` ms. */
void node_note_occupied(struct node *node, int64_t now);
/* Was that noted within the last half second? Then only the node itself knows how it is. Any thread. */
bool node_is_occupied(const struct node *node, int64_t now);
/* A bring-up without credentials was answered with NOAUTH, or no more. */
void node_note_login(struct node *node, bool asked);
/* Does it want to know who is there, and we have nothing to say? Any thread. */
bool node_asks_login(const struct node *node);
/* That is how it refuses a HELLO of who has not logged in: versions differ, and which it is it does not say. */
void node_note_stranger(struct node *node, struct slice words);
/* Copied to out, cut to fit; "" before that was heard. Any thread. */
void node_words_to_strangers(struct node *node, char *out, size_t max);

/* A connection to it is being made or is up (1), or is no more (-1). Any thread. */
void node_count_link(struct node *node, int change);
/* How many there are. What their threads did with those that are no more has happened. Any thread. */
int node_links(const struct node *node);

/* ---- Health (health.h): what connections have met, any thread --------------------------------- */

/* A connect failed, after a wait or at once, or a link was lost. */
void node_trouble(struct node *node, const char *why, bool waited, int64_t now);
/* It owes replies and has been silent for long, or (`dead`) for dead_after. */
void node_silence(struct node *node, bool dead, int64_t now);
/* A handshake is complete, or bytes came on a link that is up. Costs one load while it is UP. */
void node_answered(struct node *node, int64_t now);
enum node_state node_state(const struct node *node);
/* DOWN, and who connects waits in vain: nobody is to wait for that. */
bool node_is_mute(const struct node *node);
void node_health(struct node *node, struct health *out);
