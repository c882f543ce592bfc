/* SPDX-License-Identifier: Apache-2.0
 *
 * replicas.c: ["master", offset, [[host, port, offset] ...]] to a range of the topology.
 */
#include "replicas.h"

#include "../conf/log.h"

#include <stdio.h>

#define AT_REPLICAS 2 /* in the answer */

static uint16_t find(struct topology *t, const struct answer *replica)
{
    bool is_address = replica->type == ANSWER_LIST && replica->nitems >= 2 &&
                      replica->items[0].type == ANSWER_TEXT &&
                      replica->items[1].type == ANSWER_TEXT;
    return is_address ? topology_find(t, replica->items[0].text, replica->items[1].text)
                      : TOPOLOGY_NONE;
}

/* NULL: it names none. */
static const struct answer *list_of(const struct answer *role)
{
    bool has_list = role != NULL && role->type == ANSWER_LIST && role->nitems > AT_REPLICAS &&
                    answer_is(&role->items[0], "master") &&
                    role->items[AT_REPLICAS].type == ANSWER_LIST;
    return has_list ? &role->items[AT_REPLICAS] : NULL;
}

static void say(const struct topology *t, const uint16_t *replicas, size_t n)
{
    char names[512] = "";
    size_t at = 0;
    for (size_t i = 0; i < n && at < sizeof(names); i++) {
        at += (size_t)snprintf(names + at, sizeof(names) - at, " %s",
                               node_name(topology_node(t, replicas[i])));
    }
    log_event(LOG_INFO, "the master has %zu replicas to read from%s%s", n, n > 0 ? ":" : "", names);
}

void replicas_take(struct topology *t, const struct answer *role)
{
    const struct answer *list = list_of(role);
    uint16_t replicas[TOPOLOGY_REPLICAS_MAX];
    size_t n = 0;
    for (size_t i = 0; list != NULL && i < list->nitems && n < ARRAY_LEN(replicas); i++) {
        uint16_t index = find(t, &list->items[i]);
        if (index != TOPOLOGY_NONE) {
            replicas[n++] = index;
        }
    }
    struct topology_range range = {
        .last = TOPOLOGY_SLOTS - 1, .primary = 0, .replicas = replicas, .nreplicas = n};
    uint64_t version = topology_version(t);
    topology_apply(t, &range, 1);
    if (topology_version(t) != version) {
        say(t, replicas, n);
    }
}
