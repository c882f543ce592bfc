/* SPDX-License-Identifier: Apache-2.0
 *
 * local.h: commands answered here, in Redis's words: AUTH, CLIENT, ECHO, HELLO, PING, QUIT,
 * READONLY, READWRITE, RESET, SELECT, and INFO's Nearside section.
 */
#pragma once

#include "client.h"

/* Answers a CMD_LOCAL request (arity checked already), except INFO. */
void local_answer(struct client *c, const struct cmd *cmd, const struct request_view *view);

/* SELECT: false when it has been answered already (an error, or the client is in that db); otherwise
 * *db is the one it has to go to. */
MUST_CHECK bool local_select(struct client *c, const struct request_view *view, int64_t *db);

/* INFO: does it ask for the Nearside section alone, or for a text it belongs into? */
bool local_info_is_ours(const struct request_view *view);
bool local_info_wants_section(const struct request_view *view);
