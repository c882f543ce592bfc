/* SPDX-License-Identifier: Apache-2.0
 *
 * outwait.h: R5's join limit. Who waits for a fetch of another worker does not wait for one that has
 * stalled: it looks again, and then fetches by itself. Worker's thread only.
 */
#pragma once

struct worker;

/* Wakes this worker's requests that wait for fill connections of others which have stalled, unless our
 * own has as well. Every tick. */
void outwait_tick(struct worker *worker);
