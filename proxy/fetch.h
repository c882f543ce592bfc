/* SPDX-License-Identifier: Apache-2.0
 *
 * fetch.h: reads for L1 on the worker's fill connection F: GET with PTTL for one lease (a flight),
 * and whole MGETs. Worker's thread only.
 */
#pragma once

#include "client.h"

/* Sends GET and PTTL for the lease (taken) on F to that node. The lease ends with l1_fill, or with l1_abandon
 * when F is lost or the value is too large. Works without any client. */
void fetch_get(struct worker *worker, uint16_t node, struct l1_lease *lease);

/* The key has just been written by a request that has settled: fetches it, unless somebody does, another write of
 * it is unanswered, or F has no room. Not in a cluster. False: not by this. */
bool fetch_again(const struct request *write, struct slice key, uint64_t hash);

/* T1, T2: how long (ms) a value, or that there is none, may be kept, from the reply to PTTL; 0: not at all. */
int64_t fetch_ttl(const struct worker *worker, uint16_t node, bool is_null, struct slice reply);

/* Sends the MGET (view) for `request`, which is in its client's queue with its keys and node set, and
 * PTTLs for the keys it can take a lease of. False: F takes nothing; the request is untouched. */
MUST_CHECK bool fetch_mget(struct request *request, const struct request_view *view);
/* Its client waits no longer, and what comes is not kept: nobody else is to wait for it. The request
 * is still owed its replies. */
void fetch_give_up(struct request *request);
/* Frees request->mget; its leases must have ended. Accepts NULL. */
void fetch_mget_destroy(struct mget *mget);

/* Frees what is kept of answered fetches for the next ones. */
void fetch_free_flights(struct worker *worker);
