/* SPDX-License-Identifier: Apache-2.0
 *
 * fuzz_slots.c: arbitrary bytes as a map of slots, in memory that ends where they end. Whatever is read
 * can be applied: ranges lie within the slots, and their nodes exist.
 */
#include "../../upstream/slots.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);

#define must(cond)                                                                                 \
    do {                                                                                           \
        if (!(cond)) {                                                                             \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #cond);                             \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

static void check_node(const struct topology *t, uint16_t index)
{
    must(index < topology_count(t));
    must(topology_node(t, index) != NULL);
}

static void check(struct topology *t, struct slice reply, enum slots_reply kind)
{
    struct slots_map map;
    uint32_t covered = 0;
    if (!slots_read(t, reply, kind, 0, &map)) {
        must(map.ranges == NULL && map.replicas == NULL && map.n == 0);
        return;
    }
    for (size_t i = 0; i < map.n; i++) {
        must(map.ranges[i].first <= map.ranges[i].last && map.ranges[i].last < TOPOLOGY_SLOTS);
        covered += map.ranges[i].last - map.ranges[i].first + 1U;
        check_node(t, map.ranges[i].primary);
        for (size_t k = 0; k < map.ranges[i].nreplicas; k++) {
            check_node(t, map.ranges[i].replicas[k]);
        }
    }
    must(covered == map.covered);
    topology_apply(t, map.ranges, map.n);
    slots_map_fini(&map);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    struct topology *t = topology_create(&(struct topology_options){.is_cluster = true});
    char *copy = malloc(n + 1);
    must(copy != NULL);
    must(topology_find(t, SLICE("h"), SLICE("1")) == 0);
    memcpy(copy, bytes, n);
    check(t, slice_of(copy, n), SLOTS_SLOTS);
    check(t, slice_of(copy, n), SLOTS_SHARDS);
    free(copy);
    topology_destroy(t);
    return 0;
}
