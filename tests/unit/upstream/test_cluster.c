/* SPDX-License-Identifier: Apache-2.0
 *
 * test_cluster.c: what cluster.h promises about when it asks. Time is what the test says it is.
 */
#include "../live.h"

#include "../../../upstream/cluster.h"

#define OK_INFO "$16\r\ncluster_state:ok\r\n"

static struct fake fake;
static struct topology *topology;
static struct cluster *cluster;
static int64_t clock_ms;

static int64_t now(void)
{
    return clock_ms;
}

static void on_wish(void *ctx)
{
    (void)ctx;
    cluster_wake(cluster);
}

static void tick(void)
{
    cluster_tick(cluster);
}

static uint64_t refreshes(void)
{
    struct cluster_stats stats;
    cluster_stats(cluster, &stats);
    return stats.refreshes;
}

/* Answers the question that is there, or comes: the fake owns all slots. */
static void give_map(void)
{
    uint64_t before = refreshes();
    fake_expect(&fake, "$5\r\nSLOTS\r\n");
    char map[160];
    (void)snprintf(map, sizeof(map),
                   OK_INFO
                   "*1\r\n*3\r\n:0\r\n:16383\r\n*3\r\n$9\r\n127.0.0.1\r\n:%d\r\n$2\r\nid\r\n",
                   fake.port);
    fake_say(&fake, map);
    WAIT_FOR(refreshes() == before + 1);
}

/* With its first map; it asks by itself no more. */
static void begin(void)
{
    char port[8];
    live_start();
    clock_ms = 1000000;
    fake_open(&fake);
    (void)snprintf(port, sizeof(port), "%d", fake.port);
    char *seeds[] = {(char[]){"127.0.0.1"}, port};
    topology = topology_create(&(struct topology_options){
        .is_cluster = true,
        .node = {.connect_timeout_ms = 5000, .dead_after_ms = 5000},
        .wants_refresh = on_wish,
    });
    cluster = cluster_create(&(struct cluster_options){
        .loop = live_loop,
        .topology = topology,
        .seeds = seeds,
        .nseeds = 1,
        .refresh_ms = 3600000,
        .now = now,
    });
    live_turn = tick;
    fake_greet(&fake);
    fake_expect(&fake, "$6\r\nSHARDS\r\n");
    fake_say(&fake, OK_INFO "-ERR unknown subcommand\r\n");
    give_map();
}

static void end(void)
{
    cluster_destroy(cluster);
    topology_destroy(topology);
    fake_close(&fake);
    live_stop();
}

/* So many questions, in vain, that the next one has to wait for the longest. */
static void tire(void)
{
    for (int i = 0; i < 6; i++) {
        clock_ms += 1000;
        topology_suspect(topology);
        give_map();
    }
    clock_ms += 200;
    topology_suspect(topology);
    live_run_for(20);
    cr_assert(!fake_has(&fake, "SLOTS"), "asked again after 200 ms");
}

Test(cluster, questions_in_vain_become_rare, .init = begin, .fini = end)
{
    tire();
    clock_ms += 800;
    give_map();
}

Test(cluster, a_moved_is_news_however_rare_they_have_become, .init = begin, .fini = end)
{
    tire();
    cr_assert_neq(topology_moved(topology, 7, 0, SLICE("127.0.0.1"), SLICE("1")), TOPOLOGY_NONE);
    give_map();
    cr_assert_eq(topology_owner(topology, 7), topology_owner(topology, 8));
}

Test(cluster, a_moved_during_a_question_leads_to_another_one, .init = begin, .fini = end)
{
    clock_ms += 1000;
    topology_suspect(topology);
    WAIT_FOR(fake_has(&fake, "SLOTS"));
    (void)topology_moved(topology, 7, 0, SLICE("127.0.0.1"), SLICE("1"));
    give_map();
    clock_ms += 100;
    give_map();
}
