/* SPDX-License-Identifier: Apache-2.0
 *
 * own_ports.h: the local ports of this process's connections to Redis, to tell in what MONITOR says who it was.
 * Another process may have one of them towards another host: a line of that could be taken for ours. Any thread.
 */
#pragma once

#include <stdint.h>

enum port_use {
    PORT_OTHER,  /* not ours */
    PORT_CLIENT, /* what clients say is said on it: lanes, pinned ones */
    PORT_FILL,   /* F */
    PORT_UPKEEP, /* nothing of a client's */
};

/* A socket that is connected; returns its port. 0, and nothing done: it has none, and MONITOR shows no port. */
uint16_t own_ports_add(int fd, enum port_use use);
/* It is about to be closed. 0 does nothing. */
void own_ports_remove(uint16_t port);
enum port_use own_ports_use(uint16_t port);
