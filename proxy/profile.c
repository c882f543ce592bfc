/* SPDX-License-Identifier: Apache-2.0
 *
 * profile.c: the profile is allocated when a client first says something about itself; most never do.
 */
#include "profile.h"

#include "nodes.h"
#include "pinned.h"

#include "../conf/mem.h"

#include <arpa/inet.h>
#include <inttypes.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>

bool profile_is_plain(struct slice word)
{
    for (size_t i = 0; i < word.n; i++) {
        if (word.p[i] < '!' || word.p[i] > '~') {
            return false;
        }
    }
    return true;
}

static bool set_word(struct blob **place, struct slice word)
{
    struct blob *copy = NULL;
    if (word.n > 0 && (copy = blob_try_copy(word)) == NULL) {
        return false;
    }
    blob_unref(*place);
    *place = copy;
    return true;
}

static struct client_profile *profile_of(struct client *c)
{
    if (c->profile == NULL) {
        c->profile = mem_try_zero(sizeof(*c->profile));
    }
    return c->profile;
}

bool profile_set_name(struct client *c, struct slice name)
{
    if (name.n == 0 && c->profile == NULL) {
        return true;
    }
    return profile_of(c) != NULL && set_word(&c->profile->name, name);
}

bool profile_set_library(struct client *c, bool version, struct slice word)
{
    return profile_of(c) != NULL &&
           set_word(version ? &c->profile->lib_ver : &c->profile->lib_name, word);
}

bool profile_set_redirects(struct client *c)
{
    if (profile_of(c) == NULL) {
        return false;
    }
    c->profile->redirects = true;
    return true;
}

bool profile_set_user(struct client *c, struct slice user)
{
    if (user.n == 0 && c->profile == NULL) {
        return true;
    }
    return profile_of(c) != NULL && set_word(&c->profile->user, user);
}

static void wipe(struct blob *secret)
{
    if (secret != NULL) {
        explicit_bzero(secret->p, secret->n);
    }
}

bool profile_set_password(struct client *c, struct slice password)
{
    if (c->profile == NULL && password.n == 0) {
        return true;
    }
    if (profile_of(c) == NULL) {
        return false;
    }
    wipe(c->profile->password);
    return set_word(&c->profile->password, password);
}

bool profile_lend(const struct client *c, struct client *part)
{
    return profile_of(part) != NULL && profile_set_user(part, profile_user(c)) &&
           profile_set_password(part, profile_password(c));
}

static struct slice word_of(const struct blob *blob)
{
    return blob == NULL ? SLICE("") : slice_of(blob->p, blob->n);
}

struct slice profile_name(const struct client *c)
{
    return word_of(c->profile == NULL ? NULL : c->profile->name);
}

struct slice profile_user(const struct client *c)
{
    return word_of(c->profile == NULL ? NULL : c->profile->user);
}

static size_t blob_memory(const struct blob *blob)
{
    return blob == NULL ? 0 : blob->n;
}

struct slice profile_password(const struct client *c)
{
    return word_of(c->profile == NULL ? NULL : c->profile->password);
}

size_t profile_memory(const struct client *c)
{
    return blob_memory(c->profile->name) + blob_memory(c->profile->lib_name) +
           blob_memory(c->profile->lib_ver) + blob_memory(c->profile->user) +
           blob_memory(c->profile->password);
}

void profile_destroy(struct client *c)
{
    if (c->profile == NULL) {
        return;
    }
    blob_unref(c->profile->name);
    blob_unref(c->profile->lib_name);
    blob_unref(c->profile->lib_ver);
    blob_unref(c->profile->user);
    wipe(c->profile->password);
    blob_unref(c->profile->password);
    mem_free(c->profile);
    c->profile = NULL;
}

/* ---- The line ------------------------------------------------------------------------------- */

static void tcp_address(const struct client *c, bool local, char out[PROFILE_ADDRESS_MAX])
{
    struct sockaddr_storage addr;
    struct sockaddr *any = (struct sockaddr *)&addr;
    socklen_t n = sizeof(addr);
    char host[INET6_ADDRSTRLEN] = "?";
    memset(&addr, 0, sizeof(addr));
    if ((local ? getsockname(c->io.fd, any, &n) : getpeername(c->io.fd, any, &n)) != 0) {
        snprintf(out, PROFILE_ADDRESS_MAX, "?:0");
    } else if (addr.ss_family == AF_INET6) {
        const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)(const void *)&addr;
        inet_ntop(AF_INET6, &in6->sin6_addr, host, sizeof(host));
        snprintf(out, PROFILE_ADDRESS_MAX, "[%s]:%u", host, ntohs(in6->sin6_port));
    } else {
        const struct sockaddr_in *in = (const struct sockaddr_in *)(const void *)&addr;
        inet_ntop(AF_INET, &in->sin_addr, host, sizeof(host));
        snprintf(out, PROFILE_ADDRESS_MAX, "%s:%u", host, ntohs(in->sin_port));
    }
}

/* A client of a Unix socket has no address of its own: it is shown with its listener's. */
static bool is_unix(const struct client *c, struct sockaddr_un *addr)
{
    socklen_t n = sizeof(*addr);
    memset(addr, 0, sizeof(*addr));
    return getsockname(c->io.fd, (struct sockaddr *)addr, &n) == 0 && addr->sun_family == AF_UNIX;
}

void profile_address(const struct client *c, bool local, char out[PROFILE_ADDRESS_MAX])
{
    struct sockaddr_un un;
    if (is_unix(c, &un)) {
        snprintf(out, PROFILE_ADDRESS_MAX, "%.*s:0", (int)sizeof(un.sun_path), un.sun_path);
    } else {
        tcp_address(c, local, out);
    }
}

static void flags_text(const struct client *c, const struct pinned_counts *counts, char out[10])
{
    struct sockaddr_un un;
    size_t n = 0;
    if (c->replicates) {
        out[n++] = 'S';
    }
    if (counts->monitoring) {
        out[n++] = 'O';
    }
    if (counts->channels + counts->patterns + counts->shards > 0) {
        out[n++] = 'P';
    }
    if (c->expects_multi) {
        out[n++] = 'x';
    }
    if (c->nblocked > 0 && !c->replicates) {
        out[n++] = 'b';
    }
    if (c->state == CLIENT_ENDING) {
        out[n++] = 'c';
    }
    if (is_unix(c, &un)) {
        out[n++] = 'U';
    }
    if (c->no_evict) {
        out[n++] = 'e';
    }
    if (c->no_touch) {
        out[n++] = 'T';
    }
    if (n == 0) {
        out[n++] = 'N';
    }
    out[n] = '\0';
}

/* A word of the profile as a field; Redis has no limit, and a chain needs none. */
static bool add_field(struct chain *out, struct slice label, struct slice word)
{
    return chain_append(out, label) && chain_append(out, word);
}

/* What it holds and has said; what of that concerns Redis's connections, and what nobody counts, is 0. */
static int state_text(const struct client *c, const struct pinned_counts *counts, size_t asking,
                      const char *cmd, char *text, size_t max)
{
    const struct server *server = c->worker->server;
    size_t buffer = c->in == NULL ? 0 : c->in->n - c->in_at - c->in_n;
    char watch[32] = "";
    if (nodes_are_at_least(server, 7, 4) || nodes_are_valkey(server, 8, 0)) {
        snprintf(watch, sizeof(watch), " watch=%" PRIu32, counts->watched);
    }
    /* Valkey begins to count when it first has something to count */
    int multi = c->expects_multi                                 ? (int)c->nqueued
                : c->had_multi && nodes_are_valkey(server, 8, 1) ? 0
                                                                 : -1;
    return snprintf(
        text, max,
        " db=%u sub=%" PRId64 " psub=%" PRId64 " ssub=%" PRId64 " multi=%d%s qbuf=%zu qbuf-free=%zu"
        " argv-mem=0 multi-mem=0 rbs=0 rbp=0 obl=0 oll=0 omem=%zu tot-mem=%zu events=%s cmd=%s "
        "user=",
        c->db, counts->channels, counts->patterns, counts->shards, multi, watch, c->in_n + asking,
        buffer, c->out.memory, sizeof(*c) + client_memory(c), c->wants_write ? "rw" : "r", cmd);
}

/* What versions have added at the end. */
static bool add_news(const struct client *c, struct chain *out)
{
    const struct server *server = c->worker->server;
    struct client_profile none = {0};
    const struct client_profile *profile = c->profile == NULL ? &none : c->profile;
    if (!nodes_are_at_least(server, 7, 2)) {
        return true;
    }
    struct slice rest = nodes_are_valkey(server, 8, 0)
                            ? SLICE(" tot-net-in=0 tot-net-out=0 tot-cmds=0")
                        : nodes_are_at_least(server, 8, 0) ? SLICE(" io-thread=0")
                                                           : SLICE("");
    return add_field(out, SLICE(" lib-name="), word_of(profile->lib_name)) &&
           add_field(out, SLICE(" lib-ver="), word_of(profile->lib_ver)) && chain_append(out, rest);
}

bool profile_line(const struct client *c, const char *cmd, size_t asking, struct chain *out)
{
    char addr[PROFILE_ADDRESS_MAX];
    char laddr[PROFILE_ADDRESS_MAX];
    char flags[10];
    char text[512];
    struct pinned_counts counts = pinned_counts(c);
    profile_address(c, false, addr);
    profile_address(c, true, laddr);
    flags_text(c, &counts, flags);
    int n = snprintf(text, sizeof(text), "id=%" PRIu64 " addr=%s laddr=%s fd=%d", c->id, addr,
                     laddr, c->io.fd);
    if (!chain_append(out, slice_of(text, (size_t)n)) ||
        !add_field(out, SLICE(" name="), profile_name(c))) {
        return false;
    }
    n = snprintf(text, sizeof(text), " age=%" PRId64 " idle=%" PRId64 " flags=%s%s",
                 c->worker->now / 1000 - c->since, (c->worker->now - c->heard) / 1000, flags,
                 !nodes_are_valkey(c->worker->server, 8, 1)    ? ""
                 : c->profile != NULL && c->profile->redirects ? " capa=r"
                                                               : " capa=");
    if (!chain_append(out, slice_of(text, (size_t)n))) {
        return false;
    }
    n = state_text(c, &counts, asking, cmd, text, sizeof(text));
    struct slice user = profile_user(c);
    return add_field(out, slice_of(text, (size_t)n), user.n == 0 ? SLICE("default") : user) &&
           add_field(out, SLICE(" redir=-1 resp="), c->resp3 ? SLICE("3") : SLICE("2")) &&
           add_news(c, out) && chain_append(out, SLICE("\n"));
}
