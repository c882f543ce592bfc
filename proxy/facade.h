/* SPDX-License-Identifier: Apache-2.0
 *
 * facade.h: CLUSTER in front of a cluster. With proxy.cluster_facade it is answered so that clients
 * for clusters see one node that owns all slots, at proxy.announce or the address they connected to;
 * without, as by a server that is no cluster. Worker's thread only.
 */
#pragma once

#include "dispatch.h"

/* Is it a CLUSTER command? Then *result says what became of it. What asks for the keys of a slot goes to
 * the slot's owner. */
MUST_CHECK bool facade_takes(struct client *c, const struct cmd *cmd,
                             const struct request_view *view, struct blob *owner,
                             enum dispatch *result);

/* READONLY and READWRITE: does it make sense here? */
bool facade_is_on(const struct client *c);
