/* SPDX-License-Identifier: Apache-2.0
 *
 * listen.h: the listening sockets and what accepting can run into: too many clients, no descriptors
 * left. Main thread only.
 */
#pragma once

#include "server.h"

#include <ev.h>

struct listeners;

/* Binds every address of proxy.listen. NULL when one cannot be had; the log says which and why. */
struct listeners *listeners_open(struct server *server, struct ev_loop *loop);
/* Starts accepting. */
void listeners_start(struct listeners *ls);
/* Closes the sockets; connections accepted already are untouched. Accepts NULL. */
void listeners_close(struct listeners *ls);
