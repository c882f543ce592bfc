/* SPDX-License-Identifier: Apache-2.0
 *
 * switch.h: requests that change the road of their client: another db, another protocol, or the start
 * again. Each waits until what came before is answered. Worker's thread only.
 */
#pragma once

#include "dispatch.h"

enum dispatch switch_db(struct client *c, const struct cmd *cmd, const struct request_view *view);
enum dispatch switch_protocol(struct client *c, const struct cmd *cmd,
                              const struct request_view *view);
enum dispatch switch_reset(struct client *c, const struct cmd *cmd,
                           const struct request_view *view);
/* The server has answered a RESET: the client's answer follows. The request is gone. */
void switch_after_reset(struct request *request);
