/* SPDX-License-Identifier: Apache-2.0
 *
 * replication.c: see replication.h.
 *
 * The request that began it stays unanswered, and is what keeps the connection, and the client, as they are.
 */
#include "replication.h"

#include "pinned.h"

/* A replica says little: what has so much unsent is none. */
#define UNSENT_MAX ((size_t)1024 * 1024)

bool replication_begins(const struct cmd *cmd)
{
    return strcmp(cmd->name, "sync") == 0 || strcmp(cmd->name, "psync") == 0;
}

/* Redis stops at the first option that it does not know. */
static bool is_answered(struct slice option)
{
    static const char *const options[] = {"listening-port", "ip-address", "capa", "rdb-only",
                                          "rdb-filter-only"};
    bool found = false;
    for (size_t i = 0; i < ARRAY_LEN(options); i++) {
        found = found || slice_eq_nocase(option, slice_str(options[i]));
    }
    return found;
}

bool replication_is_silent(const struct cmd *cmd, const struct request_view *view)
{
    if (strcmp(cmd->name, "replconf") != 0 || view->argc % 2 == 0) {
        return false; /* options come in pairs */
    }
    struct arg_walk walk;
    struct slice word;
    arg_walk_init(&walk, view);
    bool more = arg_walk_next(&walk, &word);
    for (int64_t i = 1; more && (i % 2 == 1 || is_answered(word)); i++) {
        more = arg_walk_next(&walk, &word); /* an option, then its value */
    }
    return more && (slice_eq_nocase(word, SLICE("ACK")) || slice_eq_nocase(word, SLICE("GETACK")));
}

bool replication_answers(struct client *c, const struct cmd *cmd, const struct request_view *view)
{
    if ((strcmp(cmd->name, "replconf") != 0 && !replication_begins(cmd)) ||
        !cmd_arity_ok(cmd, view->argc)) {
        return false;
    }
    if (c->worker->server->is_cluster) {
        client_reply_error(
            c, "ERR '%s' is not available in front of a cluster: it is for one server", cmd->name);
        return true;
    }
    return replication_is_silent(cmd, view);
}

bool replication_declines(struct client *c, const struct cmd *cmd)
{
    if (!replication_begins(cmd) || c->expects_multi || !pinned_is_streaming(c) ||
        pinned_is_subscriber(c)) {
        return false;
    }
    if (!pinned_counts(c).monitoring) {
        client_reply_error(c, "ERR '%s' is not available to a subscriber through Nearside",
                           cmd->name);
    }
    return true;
}

bool replication_takes(struct request *request, const struct reply_piece *piece)
{
    struct client *c = request->client;
    if (!request->call.endless || (piece->first && piece->type == '-')) {
        request->call.endless = false;
        return false;
    }
    if (c != NULL) {
        if (!c->replicates) {
            c->replicates = true;
            client_mark_runnable(c); /* what it has said meanwhile */
        }
        client_push(c, piece->bytes);
    }
    return true;
}

void replication_send(struct client *c, struct slice bytes)
{
    struct conn *conn = pinned_conn(c);
    if (conn_queued_bytes(conn) > UNSENT_MAX || !conn_send(conn, bytes)) {
        client_close(c);
        return;
    }
    pinned_mark_dirty(c->head);
}
