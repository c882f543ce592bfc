/* SPDX-License-Identifier: Apache-2.0
 *
 * test_replicas.c: what replicas.h promises: a master's answer to ROLE is the list of its replicas, whatever
 * else it may be.
 */
#include "../../../upstream/replicas.h"

#include <criterion/criterion.h>
#include <stdio.h>

#define TEXT(s)                                                                                    \
    {                                                                                              \
        .type = ANSWER_TEXT, .text = {(s), sizeof(s) - 1 }                                         \
    }
#define LIST(array)                                                                                \
    {                                                                                              \
        .type = ANSWER_LIST, .items = (array), .nitems = ARRAY_LEN(array)                          \
    }

static struct topology *topology;

static void begin(void)
{
    topology = topology_create(&(struct topology_options){
        .has_replicas = true, .node = {.host = "10.0.0.1", .port = "6379"}});
}

static void end(void)
{
    topology_destroy(topology);
}

/* A master's answer with that list of replicas. */
static void take(const struct answer *list)
{
    const struct answer role[] = {TEXT("master"), {.type = ANSWER_NUMBER, .number = 7}, *list};
    replicas_take(topology, &(struct answer)LIST(role));
}

static const struct answer one[] = {TEXT("10.0.0.2"), TEXT("6380"), TEXT("7")};
static const struct answer other[] = {TEXT("10.0.0.3"), TEXT("6380"), TEXT("7")};
static const struct answer odd[] = {TEXT("10.0.0.4\r\n"), TEXT("6380"), TEXT("7")};
static const struct answer shorter[] = {TEXT("10.0.0.5")};
static const struct answer nobody = {.type = ANSWER_LIST};

static const char *name_of(uint32_t hint)
{
    uint16_t index = topology_replica(topology, 5, hint);
    return index == TOPOLOGY_NONE ? "" : node_name(topology_node(topology, index));
}

Test(replicas, those_that_the_master_names_are_its_replicas, .init = begin, .fini = end)
{
    const struct answer both[] = {LIST(one), LIST(other)};
    cr_assert_str_eq(name_of(0), "");
    take(&(struct answer)LIST(both));
    cr_assert_str_eq(name_of(0), "10.0.0.2:6380");
    cr_assert_str_eq(name_of(1), "10.0.0.3:6380");
    cr_assert_eq(topology_role(topology, 1), TOPOLOGY_REPLICA);
    cr_assert_eq(topology_owner(topology, 5), 0);
    cr_assert_eq(topology_role(topology, 0), TOPOLOGY_PRIMARY);
}

Test(replicas, one_that_is_not_named_any_more_is_gone, .init = begin, .fini = end)
{
    const struct answer both[] = {LIST(one), LIST(other)};
    const struct answer left[] = {LIST(other)};
    take(&(struct answer)LIST(both));
    take(&(struct answer)LIST(left));
    cr_assert_str_eq(name_of(0), "10.0.0.3:6380");
    cr_assert_str_eq(name_of(1), "10.0.0.3:6380");
    cr_assert_eq(topology_role(topology, 1), TOPOLOGY_GONE);
    take(&nobody);
    cr_assert_str_eq(name_of(0), "");
}

Test(replicas, a_server_that_is_no_master_has_none, .init = begin, .fini = end)
{
    const struct answer list[] = {LIST(one)};
    const struct answer slave[] = {TEXT("slave"), TEXT("10.0.0.1"), LIST(list)};
    take(&(struct answer)LIST(list));
    replicas_take(topology, &(struct answer)LIST(slave));
    cr_assert_str_eq(name_of(0), "");
    take(&(struct answer)LIST(list));
    replicas_take(topology, NULL);
    cr_assert_str_eq(name_of(0), "");
}

Test(replicas, what_makes_no_sense_is_passed_over, .init = begin, .fini = end)
{
    const struct answer some[] = {LIST(odd), LIST(shorter), TEXT("10.0.0.6"), {.type = ANSWER_NIL},
                                  nobody,    LIST(one)};
    take(&(struct answer)LIST(some));
    cr_assert_str_eq(name_of(0), "10.0.0.2:6380");
    cr_assert_str_eq(name_of(1), "10.0.0.2:6380");
    cr_assert_eq(topology_count(topology), 2);
    take(&(struct answer)TEXT("none"));
    cr_assert_str_eq(name_of(0), "");
    const struct answer early[] = {TEXT("master")};
    replicas_take(topology, &(struct answer)LIST(early));
    cr_assert_str_eq(name_of(0), "");
}

Test(replicas, more_than_there_is_room_for_are_left_out, .init = begin, .fini = end)
{
    static char ports[TOPOLOGY_REPLICAS_MAX + 9][8];
    static struct answer pairs[TOPOLOGY_REPLICAS_MAX + 9][2];
    static struct answer list[TOPOLOGY_REPLICAS_MAX + 9];
    for (size_t i = 0; i < ARRAY_LEN(list); i++) {
        (void)snprintf(ports[i], sizeof(ports[i]), "%zu", 7000 + i);
        pairs[i][0] = (struct answer)TEXT("10.0.0.2");
        pairs[i][1] = (struct answer){.type = ANSWER_TEXT, .text = slice_str(ports[i])};
        list[i] = (struct answer)LIST(pairs[i]);
    }
    take(&(struct answer)LIST(list));
    cr_assert_eq(topology_count(topology), 1 + TOPOLOGY_REPLICAS_MAX);
}

/* The master may be at an address at which there was a replica once, and the other way round. */
Test(replicas, the_master_itself_is_nobodys_replica, .init = begin, .fini = end)
{
    const struct answer old[] = {TEXT("10.0.0.1"), TEXT("6379"), TEXT("7")};
    const struct answer list[] = {LIST(old)};
    take(&(struct answer)LIST(list));
    cr_assert_eq(topology_replica(topology, 5, 0), 1);
    cr_assert_eq(topology_owner(topology, 5), 0);
}
