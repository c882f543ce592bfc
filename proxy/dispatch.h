/* SPDX-License-Identifier: Apache-2.0
 *
 * dispatch.h: what becomes of one parsed request: answered from L1, answered here, put on a lease or
 * a lane, refused, or made to wait (D14). Worker's thread only.
 */
#pragma once

#include "client.h"

enum dispatch {
    DISPATCH_DONE,  /* taken: answered or on its way */
    DISPATCH_STALL, /* not taken: offer it again when an earlier request was answered */
};

/* `owner` is what keeps the request's bytes alive, if it may be referenced, or NULL. */
MUST_CHECK enum dispatch dispatch_request(struct client *c, const struct request_view *view,
                                          struct blob *owner);

/* A parked GET that was woken with L1_WAKE_RETRY looks again, once (R4); after that it takes a lane. */
void dispatch_again(struct request *request);
/* The same for an MGET whose fill connection was lost. */
void dispatch_mget_again(struct request *request);
