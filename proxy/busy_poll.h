/* SPDX-License-Identifier: Apache-2.0
 *
 * busy_poll.h: looking for events for a while before sleeping for them (proxy.busy_poll). To fall asleep and be
 * woken takes the kernel longer than a hit takes us.
 */
#pragma once

#include "../conf/base.h"

#include <stdbool.h>

struct ev_loop;

/* Runs the loop like ev_run(loop, 0) until somebody has set *done and called ev_break. After each turn that
 * had events it polls without sleeping until there are more, at most for limit_us; but where that was in
 * vain several times running, it is tried after few turns only, so that a proxy without much to do sleeps.
 * 0: never. */
void busy_poll_run(struct ev_loop *loop, int64_t limit_us, const bool *done);
