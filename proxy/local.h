/* SPDX-License-Identifier: Apache-2.0
 *
 * local.h: commands answered here, in Redis's words: AUTH, CLIENT, ECHO, HELLO, PING, QUIT,
 * READONLY, READWRITE, RESET, SELECT, and INFO's Nearside section.
 */
#pragma once

#include "client.h"

/* Answers a CMD_LOCAL request (arity checked already), except INFO. */
void local_answer(struct client *c, const struct cmd *cmd, const struct request_view *view);

/* INFO: does it ask for the Nearside section alone, or for a text it belongs into? */
bool local_info_is_ours(const struct request_view *view);
bool local_info_wants_section(const struct request_view *view);
