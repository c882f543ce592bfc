/* SPDX-License-Identifier: Apache-2.0
 *
 * resend.h: reads that wait on a lane which is slow or silent are sent again on another one, once, if nothing
 * of their client keeps them in their place. Worker's thread only.
 */
#pragma once

#include "client.h"

/* The lane was retired: those that wait on it behind something else. */
void resend_retired(struct conn *lane);

/* The lane is one to a replica that says nothing: all that it owes, if the owner of their keys can be reached. */
void resend_elsewhere(struct conn *lane);
