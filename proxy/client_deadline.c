/* SPDX-License-Identifier: Apache-2.0
 *
 * client_deadline.c: clients that have stopped moving: idle, or not reading what they asked for. (Requests that
 * wait for Redis are deadline.c's.)
 */
#include "client.h"

#include "pinned.h"

#include <poll.h>
#include <sys/ioctl.h>
#include <linux/sockios.h>

/* A slow reader moves although its socket stays full for long: its kernel takes bytes from ours. */
static void look_for_progress(struct client *c, int64_t now)
{
    int unacked = 0;
    if (c->out.bytes > 0 && ioctl(c->io.fd, SIOCOUTQ, &unacked) == 0 && unacked != c->unacked) {
        c->unacked = unacked;
        c->drained = now;
    }
}

/* A client that is not read any more: its end would go unnoticed for as long as the command blocks, and
 * what it then took would be lost. */
static bool has_hung_up(const struct client *c)
{
    struct pollfd fd = {.fd = c->io.fd, .events = POLLRDHUP};
    return poll(&fd, 1, 0) == 1 && (fd.revents & (POLLRDHUP | POLLHUP | POLLERR)) != 0;
}

void client_check_deadlines(struct client *c, int64_t now)
{
    const struct conf *conf = c->worker->server->conf;
    look_for_progress(c, now);
    int64_t moved = c->heard > c->drained ? c->heard : c->drained;
    if (conf->proxy_stalled_output > 0 && c->out.bytes > 0 &&
        now - moved > conf->proxy_stalled_output) {
        client_expel(c, &c->worker->counters.clients_closed_output,
                     "closed: it has %zu bytes of replies to read and has not moved for %lld ms "
                     "(proxy.stalled_output)",
                     c->out.bytes, (long long)(now - moved));
    } else if (conf->proxy_timeout > 0 && c->head == NULL && c->out.bytes == 0 &&
               !pinned_is_streaming(c) && now - moved > conf->proxy_timeout) {
        COUNT(c->worker, clients_closed_idle, 1);
        client_log(c, LOG_DEBUG, "closed: idle for %lld ms (proxy.timeout)",
                   (long long)(now - moved));
        client_close(c);
    }
    if (c->nblocked > 0 && c->state == CLIENT_ENDING && has_hung_up(c)) {
        client_close(c);
        return;
    }
    if (c->stalled && c->state == CLIENT_OPEN) {
        client_mark_runnable(c); /* it may have waited for room on a lane */
    }
}

void client_excuse(struct client *c, int64_t gap_ms)
{
    c->heard += gap_ms;
    c->drained += gap_ms;
}
