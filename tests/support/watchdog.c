/* SPDX-License-Identifier: Apache-2.0
 *
 * watchdog.c: SIGALRM, and a backtrace in its handler. That may allocate, which a handler should not; whoever
 * hangs for it was to be ended anyway.
 */
#include "watchdog.h"

#include <execinfo.h>
#include <signal.h>
#include <unistd.h>

#define FRAMES 32

static void tell(int sig)
{
    static const char text[] = "test support: out of time, here:\n";
    void *frames[FRAMES];

    (void)sig;
    if (write(STDERR_FILENO, text, sizeof(text) - 1) > 0) {
        backtrace_symbols_fd(frames, backtrace(frames, FRAMES), STDERR_FILENO);
    }
}

void watchdog_start(unsigned seconds)
{
    struct sigaction action = {.sa_handler = tell, .sa_flags = SA_RESTART};

    sigemptyset(&action.sa_mask);
    sigaction(SIGALRM, &action, NULL);
    alarm(seconds);
}
