/* SPDX-License-Identifier: Apache-2.0
 *
 * replication.c: see replication.h.
 *
 * The request that began it stays unanswered, and is what keeps the connection, and the client, as they are.
 */
#include "replication.h"

#include "dispatch.h"
#include "pinned.h"

/* With so much unsent, the client's input waits. */
#define UNSENT_MAX ((size_t)64 * 1024)

bool replication_begins(const struct cmd *cmd)
{
    return strcmp(cmd->name, "sync") == 0 || strcmp(cmd->name, "psync") == 0;
}

bool replication_is_silent(const struct cmd *cmd, const struct request_view *view)
{
    if (strcmp(cmd->name, "replconf") != 0 || view->argc % 2 == 0) {
        return false; /* options come in pairs */
    }
    struct arg_walk walk;
    struct slice word;
    arg_walk_init(&walk, view);
    for (int64_t i = 0; arg_walk_next(&walk, &word); i++) {
        if (i % 2 == 1 &&
            (slice_eq_nocase(word, SLICE("ACK")) || slice_eq_nocase(word, SLICE("GETACK")))) {
            return true;
        }
    }
    return false;
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

bool replication_takes(struct request *request, const struct reply_piece *piece)
{
    struct client *c = request->client;
    if (!request->call.endless || (piece->first && piece->type == '-')) {
        request->call.endless = false;
        return false;
    }
    if (c != NULL) {
        c->replicates = true;
        client_push(c, piece->bytes);
    }
    return true;
}

enum dispatch replication_request(struct client *c, const struct cmd *cmd,
                                  const struct request_view *view)
{
    struct conn *conn = pinned_conn(c);
    if (strcmp(cmd->name, "quit") == 0) {
        client_close(c);
    } else if (strcmp(cmd->name, "replconf") == 0) {
        if (conn_queued_bytes(conn) > UNSENT_MAX) {
            return DISPATCH_STALL;
        }
        if (!conn_send(conn, view->raw)) {
            client_close(c);
            return DISPATCH_DONE;
        }
        pinned_mark_dirty(c->head);
    }
    return DISPATCH_DONE; /* a reply to anything else would be taken for a part of the stream */
}
