/* SPDX-License-Identifier: Apache-2.0
 *
 * test_slots.c: maps of slots as servers give them, and as they should not.
 */
#include "../../../upstream/slots.h"

#include <criterion/criterion.h>
#include <stdio.h>

static struct topology *t;
static struct slots_map map;
static uint16_t asked;

static void begin(void)
{
    t = topology_create(&(struct topology_options){.is_cluster = true});
    asked = topology_find(t, SLICE("10.0.0.9"), SLICE("7000"));
}

static void end(void)
{
    slots_map_fini(&map);
    topology_destroy(t);
}

static bool reads(const char *reply, enum slots_reply kind)
{
    slots_map_fini(&map);
    return slots_read(t, slice_str(reply), kind, asked, &map);
}

static const char *name_of(uint16_t index)
{
    return node_name(topology_node(t, index));
}

Test(slots, slots_of_two_shards, .init = begin, .fini = end)
{
    cr_assert(
        reads("*2\r\n"
              "*4\r\n:0\r\n:8191\r\n"
              "*4\r\n$8\r\n10.0.0.1\r\n:7001\r\n$1\r\na\r\n*2\r\n$8\r\nhostname\r\n$1\r\nh\r\n"
              "*4\r\n$8\r\n10.0.0.2\r\n:7002\r\n$1\r\nb\r\n*0\r\n"
              "*3\r\n:8192\r\n:16383\r\n*3\r\n$8\r\n10.0.0.3\r\n:7003\r\n$1\r\nc\r\n",
              SLOTS_SLOTS));
    cr_assert_eq(map.n, 2);
    cr_expect_eq(map.covered, 16384);
    cr_expect_eq(map.ranges[0].last, 8191);
    cr_expect_str_eq(name_of(map.ranges[0].primary), "10.0.0.1:7001");
    cr_assert_eq(map.ranges[0].nreplicas, 1);
    cr_expect_str_eq(name_of(map.ranges[0].replicas[0]), "10.0.0.2:7002");
    cr_expect_str_eq(name_of(map.ranges[1].primary), "10.0.0.3:7003");
    cr_expect_eq(map.ranges[1].nreplicas, 0);
}

Test(slots, endpoints_that_are_none, .init = begin, .fini = end)
{
    static const struct {
        const char *endpoint;
        const char *more;
        const char *name; /* NULL: the range is left out */
    } cases[] = {
        {"$-1\r\n", "*0\r\n", "10.0.0.9:7001"},
        {"$0\r\n\r\n", "*0\r\n", "10.0.0.9:7001"},
        {"_\r\n", "*0\r\n", "10.0.0.9:7001"},
        {"$1\r\n?\r\n", "*2\r\n$2\r\nip\r\n$8\r\n10.0.0.7\r\n", "10.0.0.7:7001"},
        {"$1\r\n?\r\n", "*0\r\n", NULL},
        {"$2\r\n::\r\n", "*0\r\n", "[::]:7001"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char text[256];
        (void)snprintf(text, sizeof(text), "*1\r\n*3\r\n:1\r\n:2\r\n*4\r\n%s:7001\r\n$1\r\na\r\n%s",
                       cases[i].endpoint, cases[i].more);
        cr_assert(reads(text, SLOTS_SLOTS), "%zu", i);
        cr_assert_eq(map.n, cases[i].name == NULL ? 0 : 1, "%zu", i);
        if (cases[i].name != NULL) {
            cr_expect_str_eq(name_of(map.ranges[0].primary), cases[i].name);
        }
    }
}

#define SHARD_NODE(ip, role, health)                                                               \
    "*14\r\n$2\r\nid\r\n$1\r\nx\r\n$4\r\nport\r\n:7001\r\n$2\r\nip\r\n$8\r\n" ip                   \
    "\r\n$8\r\nendpoint\r\n$8\r\n" ip "\r\n$4\r\nrole\r\n" role                                    \
    "$18\r\nreplication-offset\r\n:0\r\n$6\r\nhealth\r\n" health
#define MASTER  "$6\r\nmaster\r\n"
#define REPLICA "$7\r\nreplica\r\n"
#define ONLINE  "$6\r\nonline\r\n"
#define FAILED  "$4\r\nfail\r\n"

Test(slots, shards_with_two_ranges_and_a_replica_that_is_not_there, .init = begin, .fini = end)
{
    cr_assert(
        reads("*1\r\n*4\r\n$5\r\nslots\r\n*4\r\n:0\r\n:10\r\n:20\r\n:30\r\n$5\r\nnodes\r\n*3\r\n" //
              SHARD_NODE("10.0.0.2", REPLICA, ONLINE)                                             //
              SHARD_NODE("10.0.0.1", MASTER, ONLINE)                                              //
              SHARD_NODE("10.0.0.3", REPLICA, FAILED),
              SLOTS_SHARDS));
    cr_assert_eq(map.n, 2);
    cr_expect_eq(map.covered, 22);
    for (size_t i = 0; i < 2; i++) {
        cr_expect_str_eq(name_of(map.ranges[i].primary), "10.0.0.1:7001");
        cr_assert_eq(map.ranges[i].nreplicas, 1);
        cr_expect_str_eq(name_of(map.ranges[i].replicas[0]), "10.0.0.2:7001");
    }
}

Test(slots, of_two_masters_the_one_that_is_online_counts, .init = begin, .fini = end)
{
    cr_assert(reads("*1\r\n*4\r\n$5\r\nslots\r\n*2\r\n:0\r\n:10\r\n$5\r\nnodes\r\n*2\r\n" //
                    SHARD_NODE("10.0.0.1", MASTER, FAILED)                                //
                    SHARD_NODE("10.0.0.2", MASTER, ONLINE),
                    SLOTS_SHARDS));
    cr_assert_eq(map.n, 1);
    cr_expect_str_eq(name_of(map.ranges[0].primary), "10.0.0.2:7001");
}

Test(slots, shards_of_resp3_are_maps, .init = begin, .fini = end)
{
    cr_assert(reads("*1\r\n%2\r\n$5\r\nslots\r\n*2\r\n:0\r\n:10\r\n$5\r\nnodes\r\n*1\r\n%3\r\n"
                    "$4\r\nport\r\n:7001\r\n$2\r\nip\r\n$8\r\n10.0.0.1\r\n$4\r\nrole\r\n" MASTER,
                    SLOTS_SHARDS));
    cr_assert_eq(map.n, 1);
    cr_expect_str_eq(name_of(map.ranges[0].primary), "10.0.0.9:7001", "no endpoint: who was asked");
}

Test(slots, what_is_no_map_is_refused, .init = begin, .fini = end)
{
    static const char *const bad[] = {
        "", "+OK\r\n", "*1\r\n", "*1\r\n*3\r\n:0\r\n", ":1\r\n", "*2\r\n:1\r\n:2\r\nrest", "x",
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        cr_expect_not(reads(bad[i], SLOTS_SLOTS), "%s", bad[i]);
        cr_expect_not(reads(bad[i], SLOTS_SHARDS), "%s", bad[i]);
    }
}

Test(slots, what_makes_no_sense_in_a_map_is_left_out, .init = begin, .fini = end)
{
    static const char *const odd[] = {
        "*1\r\n:5\r\n",
        "*1\r\n*3\r\n:5\r\n:4\r\n*2\r\n$1\r\nh\r\n:1\r\n",
        "*1\r\n*3\r\n:-5\r\n:4\r\n*2\r\n$1\r\nh\r\n:1\r\n",
        "*1\r\n*3\r\n:5\r\n:16384\r\n*2\r\n$1\r\nh\r\n:1\r\n",
        "*1\r\n*3\r\n:5\r\n:6\r\n*2\r\n$1\r\nh\r\n:70000\r\n",
        "*1\r\n*3\r\n:5\r\n:6\r\n*2\r\n$1\r\nh\r\n$1\r\n7\r\n",
        "*1\r\n*3\r\n:5\r\n:6\r\n$1\r\nh\r\n",
        "*1\r\n*2\r\n$5\r\nslots\r\n*2\r\n:0\r\n:1\r\n",
        "*1\r\n*4\r\n$5\r\nslots\r\n*2\r\n:0\r\n:1\r\n$5\r\nnodes\r\n:1\r\n",
        "*1\r\n*4\r\n$5\r\nslots\r\n*1\r\n:0\r\n$5\r\nnodes\r\n*0\r\n",
    };
    for (size_t i = 0; i < sizeof(odd) / sizeof(odd[0]); i++) {
        cr_expect(reads(odd[i], SLOTS_SLOTS), "%zu", i);
        cr_expect_eq(map.n, 0, "%zu", i);
        cr_expect(reads(odd[i], SLOTS_SHARDS), "%zu", i);
        cr_expect_eq(map.n, 0, "%zu", i);
    }
}
