/* SPDX-License-Identifier: Apache-2.0
 *
 * own_ports.c: see own_ports.h.
 */
#include "own_ports.h"

#include <arpa/inet.h>
#include <stdatomic.h>
#include <sys/socket.h>

static _Atomic uint8_t uses[UINT16_MAX + 1]; /* relaxed: only what is shown depends on them */

uint16_t own_ports_add(int fd, enum port_use use)
{
    union {
        struct sockaddr any;
        struct sockaddr_in in;
        struct sockaddr_in6 in6;
        struct sockaddr_storage room;
    } here = {.any = {.sa_family = AF_UNSPEC}};
    socklen_t n = sizeof(here);
    uint16_t port = 0;
    if (getsockname(fd, &here.any, &n) == 0) {
        port = here.any.sa_family == AF_INET    ? ntohs(here.in.sin_port)
               : here.any.sa_family == AF_INET6 ? ntohs(here.in6.sin6_port)
                                                : 0;
    }
    if (port != 0) {
        atomic_store_explicit(&uses[port], (uint8_t)use, memory_order_relaxed);
    }
    return port;
}

void own_ports_remove(uint16_t port)
{
    if (port != 0) {
        atomic_store_explicit(&uses[port], PORT_OTHER, memory_order_relaxed);
    }
}

enum port_use own_ports_use(uint16_t port)
{
    return (enum port_use)atomic_load_explicit(&uses[port], memory_order_relaxed);
}
