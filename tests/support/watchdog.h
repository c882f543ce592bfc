/* SPDX-License-Identifier: Apache-2.0
 *
 * watchdog.h: where a test is that runs out of time. Criterion ends such a test from outside and says
 * no more than that it was late.
 */
#pragma once

/* After so many seconds, unless the test is over by then, writes the stack of the thread that the alarm meets
 * (the main one, as a rule) to standard error; the test goes on. addr2line tells lines of what it says. */
void watchdog_start(unsigned seconds);
