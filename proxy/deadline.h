/* SPDX-License-Identifier: Apache-2.0
 *
 * deadline.h: upstream.command_timeout (D11). Worker's thread only.
 */
#pragma once

struct worker;

/* Answers the requests of this worker's clients that have waited longer than that for the first byte of
 * their reply. Every tick. */
void deadline_tick(struct worker *worker);
