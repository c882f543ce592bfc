/* SPDX-License-Identifier: Apache-2.0
 *
 * push.h: the kinds of what a server says of Pub/Sub, by the first element of a push (RESP3) or of an array
 * (RESP2). Any thread.
 */
#pragma once

#include "bytes.h"

/* "message" and its kin: a message. The kind as static text; NULL: it is none. */
const struct slice *push_message(struct slice kind);
/* "subscribe", "unsubscribe" and their kin: a confirmation, named as the command that it confirms. */
const struct slice *push_confirmation(struct slice kind);
