/* SPDX-License-Identifier: Apache-2.0
 *
 * test_sentinel.c: what sentinels say by a host name. The sentinel, the master and the name service are
 * played; what real ones do is in tests/integration/test_sentinel.c.
 */
#include "../../../upstream/sentinel.h"

#include "../live.h"

#include "../../../upstream/resolver.h"

#include <stdatomic.h>

static struct fake fake; /* the sentinel */
static struct fake master;
static struct node *node;
static struct sentinel *sentinel;
static atomic_int lookups;
static atomic_bool silent;

static void look_up(const char *host, const char *port, struct addresses *found)
{
    cr_assert_str_eq(host, "redis.example");
    atomic_fetch_add(&lookups, 1);
    while (atomic_load(&silent)) {
        (void)poll(NULL, 0, 1);
    }
    cr_assert(resolver_is_address("127.0.0.1", port, found));
}

/* A sentinel that logs us in, and knows no others. */
static void play_sentinel(void)
{
    fake_accept(&fake);
    fake_expect(&fake, "HELLO\r\n");
    fake_say(&fake, "%1\r\n+proto\r\n:3\r\n");
    fake_expect(&fake, "SENTINELS\r\n");
    for (int i = 0; i < 5; i++) {
        fake_say(&fake, ">3\r\n+subscribe\r\n+c\r\n:1\r\n");
    }
    fake_say(&fake, "*0\r\n");
}

static void name_master(void)
{
    char text[128];
    fake_expect(&fake, "GET-MASTER-ADDR-BY-NAME\r\n");
    (void)snprintf(text, sizeof(text),
                   "*2\r\n+redis.example\r\n+%d\r\n%%1\r\n+config-epoch\r\n:1\r\n", master.port);
    fake_say(&fake, text);
}

static void play_master(void)
{
    fake_accept(&master);
    fake_expect(&master, "PING\r\n");
    fake_say(&master, "+PONG\r\n");
    fake_expect(&master, "ROLE\r\n");
    fake_say(&master, "*3\r\n+master\r\n:0\r\n*0\r\n");
}

Test(sentinel, master_that_is_announced_by_a_name_is_followed)
{
    char port[8];
    struct resolver *names = resolver_create(look_up);
    live_start();
    fake_open(&fake);
    fake_open(&master);
    atomic_store(&silent, true);
    node = node_create(&(struct node_options){
        .label = "sentinel m", .resolver = names, .connect_timeout_ms = 5000});
    sentinel = sentinel_create(&(struct sentinel_options){.loop = live_loop,
                                                          .node = node,
                                                          .master = "m",
                                                          .peer = {.connect_timeout_ms = 5000},
                                                          .refresh_ms = 10000,
                                                          .role_ms = 10000,
                                                          .now = live_now});
    (void)snprintf(port, sizeof(port), "%d", fake.port);
    sentinel_add(sentinel, "127.0.0.1", port);
    play_sentinel();
    name_master();
    WAIT_FOR(atomic_load(&lookups) == 1);
    live_run_for(30); /* the name service takes its time */
    atomic_store(&silent, false);
    play_master();
    WAIT_FOR(node_address_count(node) > 0);
    sentinel_destroy(sentinel);
    node_destroy(node);
    resolver_destroy(names);
    fake_close(&fake);
    fake_close(&master);
    live_stop();
}
