/* SPDX-License-Identifier: Apache-2.0
 *
 * facade.c: the cluster of one node.
 *
 * The node's id is made of the address it is known by, so that it stays the same over restarts, and
 * several Nearsides behind one address are one node. What would change a cluster is refused: it is to
 * be said to the cluster itself.
 */
#include "facade.h"

#include "local.h"
#include "login.h"
#include "profile.h"
#include "../resp/write.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#define ID_SIZE 40

struct self {
    char host[CONF_HOST_MAX];
    char port[CONF_PORT_MAX];
    char id[ID_SIZE + 1];
};

bool facade_is_on(const struct client *c)
{
    return c->worker->server->is_cluster && c->worker->server->conf->proxy_cluster_facade;
}

/* ---- Who we are ---------------------------------------------------------------------------- */

/* Who came over a Unix socket is told where others would go. */
static void first_listener(const struct conf *conf, struct self *self)
{
    for (size_t i = 0; i < conf->proxy_listen.n; i++) {
        if (conf_address(conf->proxy_listen.items[i], self->host, self->port) &&
            self->port[0] != '\0') {
            if (strcmp(self->host, "*") == 0) {
                snprintf(self->host, sizeof(self->host), "127.0.0.1");
            }
            return;
        }
    }
    self->host[0] = '\0';
    snprintf(self->port, sizeof(self->port), "0");
}

/* 160 bits of the address: FNV-1a, then a mixer. */
static void make_id(struct self *self)
{
    uint64_t hash = UINT64_C(0xcbf29ce484222325);
    char text[CONF_HOST_MAX + CONF_PORT_MAX];
    snprintf(text, sizeof(text), "%s %s", self->host, self->port);
    for (const char *p = text; *p != '\0'; p++) {
        hash = (hash ^ (unsigned char)*p) * UINT64_C(0x100000001b3);
    }
    for (size_t i = 0; i < ID_SIZE; i += 8) {
        hash += UINT64_C(0x9e3779b97f4a7c15);
        uint64_t mixed = (hash ^ hash >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
        mixed = (mixed ^ mixed >> 27) * UINT64_C(0x94d049bb133111eb);
        snprintf(self->id + i, sizeof(self->id) - i, "%08" PRIx32, (uint32_t)(mixed >> 32));
    }
}

static struct self self_of(const struct client *c)
{
    const struct conf *conf = c->worker->server->conf;
    struct self self = {.host = "", .port = "0"};
    char address[PROFILE_ADDRESS_MAX];
    profile_address(c, true, address);
    if (!(conf->proxy_announce[0] != '\0' &&
          conf_address(conf->proxy_announce, self.host, self.port)) &&
        (!conf_address(address, self.host, self.port) || self.port[0] == '\0')) {
        first_listener(conf, &self);
    }
    make_id(&self);
    return self;
}

/* ---- Answers ------------------------------------------------------------------------------- */

static bool bulk(struct chain *out, const char *text)
{
    return resp_bulk(out, slice_str(text));
}

static int64_t port_of(const struct self *self)
{
    return strtol(self->port, NULL, 10);
}

static bool answer_slots(const struct self *self, struct chain *out)
{
    return resp_array(out, 1) && resp_array(out, 3) && resp_integer(out, 0) &&
           resp_integer(out, TOPOLOGY_SLOTS - 1) && resp_array(out, 4) && bulk(out, self->host) &&
           resp_integer(out, port_of(self)) && bulk(out, self->id) && resp_array(out, 0);
}

static bool answer_shards(const struct client *c, const struct self *self, struct chain *out)
{
    bool resp3 = c->resp3;
    return resp_array(out, 1) && resp_map(out, 2, resp3) && bulk(out, "slots") &&
           resp_array(out, 2) && resp_integer(out, 0) && resp_integer(out, TOPOLOGY_SLOTS - 1) &&
           bulk(out, "nodes") && resp_array(out, 1) && resp_map(out, 7, resp3) && bulk(out, "id") &&
           bulk(out, self->id) && bulk(out, "port") && resp_integer(out, port_of(self)) &&
           bulk(out, "ip") && bulk(out, self->host) && bulk(out, "endpoint") &&
           bulk(out, self->host) && bulk(out, "role") && bulk(out, "master") &&
           bulk(out, "replication-offset") && resp_integer(out, 0) && bulk(out, "health") &&
           bulk(out, "online");
}

static bool answer_nodes(const struct client *c, const struct self *self, struct chain *out)
{
    char text[ID_SIZE + CONF_HOST_MAX + 128];
    int n = snprintf(text, sizeof(text), "%s %s:%s@%s myself,master - 0 0 1 connected 0-%d\n",
                     self->id, self->host, self->port, self->port, TOPOLOGY_SLOTS - 1);
    return resp_verbatim(out, slice_of(text, (size_t)n), c->resp3);
}

static bool answer_info(const struct client *c, struct chain *out)
{
    uint32_t assigned = 0;
    const struct topology *topology = c->worker->server->topology;
    for (uint16_t i = 0; i < topology_count(topology); i++) {
        assigned += topology_slots_of(topology, i);
    }
    char text[512];
    int n = snprintf(text, sizeof(text),
                     "cluster_enabled:1\r\ncluster_state:%s\r\ncluster_slots_assigned:%u\r\n"
                     "cluster_slots_ok:%u\r\ncluster_slots_pfail:0\r\ncluster_slots_fail:0\r\n"
                     "cluster_known_nodes:1\r\ncluster_size:1\r\ncluster_current_epoch:1\r\n"
                     "cluster_my_epoch:1\r\n",
                     assigned == TOPOLOGY_SLOTS ? "ok" : "fail", assigned, assigned);
    return resp_verbatim(out, slice_of(text, (size_t)n), c->resp3);
}

static bool answer_replicas(const struct self *self, const struct request_view *view,
                            struct chain *out)
{
    return slice_eq(view->argv[2], slice_str(self->id))
               ? resp_array(out, 0)
               : resp_errorf(out, "ERR Unknown node %.*s", local_shown(view->argv[2]),
                             view->argv[2].p);
}

/* ---- CLUSTER ------------------------------------------------------------------------------- */

static bool is(const struct cmd *cmd, const char *sub)
{
    return strcmp(cmd->name + sizeof("cluster"), sub) == 0;
}

static bool answer(struct client *c, const struct cmd *cmd, const struct request_view *view,
                   struct chain *out)
{
    struct self self = self_of(c);
    if (is(cmd, "slots")) {
        return answer_slots(&self, out);
    }
    if (is(cmd, "shards")) {
        return answer_shards(c, &self, out);
    }
    if (is(cmd, "nodes")) {
        return answer_nodes(c, &self, out);
    }
    if (is(cmd, "info")) {
        return answer_info(c, out);
    }
    if (is(cmd, "myid") || is(cmd, "myshardid")) {
        return bulk(out, self.id);
    }
    if (is(cmd, "keyslot")) {
        return resp_integer(out, topology_slot(view->argv[2]));
    }
    if (is(cmd, "links")) {
        return resp_array(out, 0);
    }
    if (is(cmd, "replicas") || is(cmd, "slaves")) {
        return answer_replicas(&self, view, out);
    }
    return resp_error(out, "ERR Nearside is the one node of the cluster it shows; what changes a "
                           "cluster is to be said to the cluster itself");
}

/* The keys of a slot are its owner's to say. False: nobody's. */
static bool find_owner(struct client *c, const struct request_view *view)
{
    int64_t slot;
    if (!slice_to_int64(view->argv[2], &slot) || slot < 0 || slot >= TOPOLOGY_SLOTS) {
        client_reply_error(c, "ERR Invalid slot");
        return false;
    }
    c->place.slot = (uint16_t)slot;
    c->place.node = topology_owner(c->worker->server->topology, (uint16_t)slot);
    if (c->place.node == TOPOLOGY_NONE) {
        client_reply_error(c, "CLUSTERDOWN Hash slot not served");
        return false;
    }
    return true;
}

bool facade_takes(struct client *c, const struct cmd *cmd, const struct request_view *view,
                  struct blob *owner, enum dispatch *result)
{
    static const char prefix[] = "cluster|";
    if (strncmp(cmd->name, prefix, sizeof(prefix) - 1) != 0) {
        return false; /* CLUSTER alone: a node says what is wrong with it */
    }
    *result = DISPATCH_DONE;
    if (!facade_is_on(c)) {
        client_reply_error(c, "ERR This instance has cluster support disabled");
        return true;
    }
    if (!cmd_arity_ok(cmd, view->argc)) {
        client_reply_error(c, "ERR wrong number of arguments for '%s' command", cmd->name);
        return true;
    }
    if (is(cmd, "help")) {
        return false;
    }
    if (is(cmd, "countkeysinslot") || is(cmd, "getkeysinslot")) {
        if (find_owner(c, view)) {
            if (login_is_own(c)) {
                return false; /* on its own connection */
            }
            *result = dispatch_forward(c, cmd, CMD_NONE, view, owner);
        }
        return true;
    }
    struct chain *out = client_reply_begin(c);
    if (out != NULL) {
        client_reply_finish(c, answer(c, cmd, view, out));
    }
    return true;
}
