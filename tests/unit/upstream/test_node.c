/* SPDX-License-Identifier: Apache-2.0
 *
 * test_node.c: what node.h promises about addresses, credentials and identity.
 */
#include "../../../upstream/node.h"

#include "../../../upstream/resolver.h"

#include <criterion/criterion.h>

#include <fcntl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/un.h>
#include <unistd.h>

static int changes;
static struct node *make_counted(void);
static void count_change(void *ctx);

static struct node *make(struct node_options options)
{
    options.host = options.host != NULL ? options.host : "127.0.0.1";
    options.port = options.port != NULL ? options.port : "6379";
    return node_create(&options);
}

/* ---- Names and addresses ------------------------------------------------------------------- */

Test(node, name_is_host_and_port)
{
    struct node *node = make((struct node_options){.port = "7001"});
    cr_assert_str_eq(node_name(node), "127.0.0.1:7001");
    node_destroy(node);
    node = make((struct node_options){.host = "::1", .port = "7001"});
    cr_assert_str_eq(node_name(node), "[::1]:7001");
    node_destroy(node);
}

Test(node, destroy_accepts_null)
{
    node_destroy(NULL);
}

Test(node, options_are_copied)
{
    char host[] = "127.0.0.1";
    char user[] = "me";
    struct node *node =
        make((struct node_options){.host = host, .user = user, .dead_after_ms = 77});
    host[0] = 'x';
    user[0] = 'x';
    cr_assert_str_eq(node_options(node)->host, "127.0.0.1");
    cr_assert_str_eq(node_options(node)->user, "me");
    cr_assert_eq(node_options(node)->dead_after_ms, 77);
    node_destroy(node);
}

Test(node, address_is_where_to_connect)
{
    struct node *node = make((struct node_options){.port = "7002"});
    struct sockaddr_storage addr;
    socklen_t len = 0;
    cr_assert(node_address(node, 0, &addr, &len));
    cr_assert_eq(len, sizeof(struct sockaddr_in));
    cr_assert_eq(((struct sockaddr_in *)&addr)->sin_port, htons(7002));
    node_destroy(node);
}

/* Waits until the resolver is through with it; the moments of lookups are the caller's. */
static void await_resolved(struct node *node)
{
    char why[ERR_MAX];
    for (int i = 0; i < 10000 && node_is_resolving(node, why); i++) {
        usleep(1000);
    }
    cr_assert_not(node_is_resolving(node, why));
}

Test(node, attempts_walk_through_all_addresses)
{
    struct resolver *resolver = resolver_create(resolver_system);
    struct node *node = make((struct node_options){.host = "localhost", .resolver = resolver});
    await_resolved(node);
    unsigned n = node_address_count(node);
    cr_assert_gt(n, 0);
    struct sockaddr_storage first;
    struct sockaddr_storage again;
    struct sockaddr_storage other;
    socklen_t len = 0;
    cr_assert(node_address(node, 0, &first, &len));
    cr_assert(node_address(node, n, &again, &len));
    cr_assert_eq(memcmp(&first, &again, sizeof(first)), 0);
    for (unsigned i = 1; i < n; i++) {
        cr_assert(node_address(node, i, &other, &len));
        cr_assert_neq(memcmp(&first, &other, sizeof(first)), 0);
    }
    node_destroy(node);
    resolver_destroy(resolver);
}

Test(node, path_is_a_unix_socket)
{
    struct node *node = make((struct node_options){.host = "/run/redis.sock", .port = ""});
    struct sockaddr_storage addr;
    socklen_t len = 0;
    cr_assert_str_eq(node_name(node), "unix:/run/redis.sock");
    cr_assert_eq(node_address_count(node), 1);
    cr_assert(node_address(node, 3, &addr, &len));
    cr_assert_eq(len, sizeof(struct sockaddr_un));
    cr_assert_eq(addr.ss_family, AF_UNIX);
    cr_assert_str_eq(((struct sockaddr_un *)&addr)->sun_path, "/run/redis.sock");
    node_destroy(node);
}

Test(node, unknown_name_has_no_address_and_says_why)
{
    struct resolver *resolver = resolver_create(resolver_system);
    struct node *node = make((struct node_options){.host = "no such host", .resolver = resolver});
    struct sockaddr_storage addr;
    socklen_t len = 0;
    char why[ERR_MAX];
    await_resolved(node);
    cr_assert_not(node_address(node, 0, &addr, &len));
    cr_assert_eq(node_address_count(node), 0);
    cr_assert_not(node_is_resolving(node, why));
    cr_assert_str_eq(why, "the host name is not resolved: Name or service not known");
    node_destroy(node);
    resolver_destroy(resolver);
}

Test(node, address_needs_no_resolver_and_no_lookup)
{
    struct node *node = make((struct node_options){.host = "::1"});
    char why[ERR_MAX];
    cr_assert_eq(node_address_count(node), 1);
    node_resolve(node, 100000);
    cr_assert_not(node_is_resolving(node, why));
    cr_assert_eq(node_address_count(node), 1);
    node_destroy(node);
}

/* A name service of our own: answers with the port `lookup_port`, or, if that is 0, with nothing, and
 * takes as long as `lookup_holds` says. */
static atomic_int lookup_port;
static atomic_int lookups;
static atomic_bool lookup_holds;

static void look_up(const char *host, const char *port, struct addresses *found)
{
    (void)port;
    cr_assert_str_eq(host, "redis.example");
    atomic_fetch_add(&lookups, 1);
    while (atomic_load(&lookup_holds)) {
        usleep(1000);
    }
    if (atomic_load(&lookup_port) == 0) {
        snprintf(found->error, sizeof(found->error), "gone");
        return;
    }
    char text[16];
    snprintf(text, sizeof(text), "%d", atomic_load(&lookup_port));
    cr_assert(resolver_is_address("127.0.0.1", text, found));
}

static int port_of(struct node *node)
{
    struct sockaddr_storage addr;
    socklen_t len;
    return node_address(node, 0, &addr, &len) ? ntohs(((struct sockaddr_in *)&addr)->sin_port) : 0;
}

Test(node, name_that_changes_is_followed_and_one_that_vanishes_is_not)
{
    atomic_store(&lookup_port, 7001);
    struct resolver *resolver = resolver_create(look_up);
    struct node *node = make((struct node_options){.host = "redis.example", .resolver = resolver});
    await_resolved(node);
    cr_assert_eq(port_of(node), 7001);

    atomic_store(&lookup_port, 7002);
    node_resolve(node, 5000);
    await_resolved(node);
    cr_assert_eq(port_of(node), 7002);

    atomic_store(&lookup_port, 0);
    node_resolve(node, 6000);
    await_resolved(node);
    cr_assert_eq(port_of(node), 7002);
    cr_assert_eq(atomic_load(&lookups), 3);
    node_destroy(node);
    resolver_destroy(resolver);
}

Test(node, lookups_are_once_a_second_at_most)
{
    atomic_store(&lookup_port, 7001);
    struct resolver *resolver = resolver_create(look_up);
    struct node *node = make((struct node_options){.host = "redis.example", .resolver = resolver});
    await_resolved(node);
    node_resolve(node, 5000);
    await_resolved(node);
    node_resolve(node, 5999);
    await_resolved(node);
    cr_assert_eq(atomic_load(&lookups), 2);
    node_resolve(node, 6000);
    await_resolved(node);
    cr_assert_eq(atomic_load(&lookups), 3);
    node_destroy(node);
    resolver_destroy(resolver);
}

Test(node, nobody_waits_for_a_name_service_that_does_not_answer)
{
    atomic_store(&lookup_holds, true);
    struct resolver *resolver = resolver_create(look_up);
    struct node *node = make((struct node_options){.host = "redis.example", .resolver = resolver});
    struct node *other = make((struct node_options){.host = "redis.example", .resolver = resolver});
    char why[ERR_MAX];
    for (int i = 0; i < 10000 && atomic_load(&lookups) == 0; i++) {
        usleep(1000);
    }
    cr_assert_eq(port_of(node), 0);
    cr_assert(node_is_resolving(node, why));
    cr_assert_str_eq(why, "the host name is not resolved");
    node_destroy(other); /* its question waits in the queue */
    node_destroy(node);  /* its lookup is under way */
    resolver_destroy(resolver);
    atomic_store(&lookup_holds, false);
    cr_assert_eq(atomic_load(&lookups), 1);
}

static void ask_again(struct node *node, int port, int64_t now)
{
    atomic_store(&lookup_port, port);
    node_resolve(node, now);
    await_resolved(node);
}

Test(node,
     name_that_leads_elsewhere_counts_in_a_new_era_and_when_it_is_followed_in_a_new_generation)
{
    atomic_store(&lookup_port, 7001);
    changes = 0;
    struct resolver *resolver = resolver_create(look_up);
    struct node *node = make((struct node_options){
        .host = "redis.example", .resolver = resolver, .changed = count_change, .ctx = "ctx"});
    await_resolved(node);
    (void)node_identify(node, SLICE("a"), SLICE(""));
    uint64_t era = node_era(node);
    uint64_t generation = node_generation(node);
    cr_assert_not(node_follow_name(node), "what it had before was nothing");
    ask_again(node, 7001, 5000);
    cr_assert_not(node_follow_name(node));
    cr_assert_eq(node_era(node), era);

    ask_again(node, 7002, 6000);
    cr_assert_eq(node_era(node), era + 1);
    cr_assert_eq(node_generation(node), generation);
    cr_assert(node_follow_name(node));
    cr_assert_eq(node_generation(node), generation + 1);
    cr_assert_eq(changes, 1);
    cr_assert_not(node_follow_name(node), "once");
    (void)node_identify(node, SLICE("b"), SLICE(""));
    cr_assert_eq(changes, 1, "the new server is the first to answer there");
    ask_again(node, 7001, 7000);
    (void)node_identify(node, SLICE("a"), SLICE(""));
    cr_assert(node_follow_name(node));
    cr_assert_eq(changes, 2, "who saw the new server has drawn the consequences");
    node_destroy(node);
    resolver_destroy(resolver);
}

/* Two of three addresses each time, so that two answers have one in common at least. */
static void look_up_some(const char *host, const char *port, struct addresses *found)
{
    static const char *const all[] = {"127.0.0.1", "127.0.0.2", "127.0.0.3"};
    int n = atomic_fetch_add(&lookups, 1);
    (void)host;
    for (int i = 0; i < 2; i++) {
        struct addresses one = {0};
        cr_assert(resolver_is_address(all[(n + i) % 3], port, &one));
        found->list[found->n++] = one.list[0];
    }
}

Test(node, name_that_keeps_an_address_moves_nobody)
{
    struct resolver *resolver = resolver_create(look_up_some);
    struct node *node = make((struct node_options){.host = "redis.example", .resolver = resolver});
    await_resolved(node);
    uint64_t era = node_era(node);
    for (int i = 1; i < 7; i++) {
        node_resolve(node, 1000 * (i + 1));
        await_resolved(node);
        cr_assert_eq(atomic_load(&lookups), i + 1);
        cr_assert_not(node_follow_name(node));
    }
    cr_assert_eq(node_era(node), era);
    node_destroy(node);
    resolver_destroy(resolver);
}

static atomic_bool old_name_holds;
static atomic_bool new_name_holds;

static void look_up_two(const char *host, const char *port, struct addresses *found)
{
    bool is_old = strcmp(host, "old.example") == 0;
    (void)port;
    atomic_fetch_add(&lookups, 1);
    while (atomic_load(is_old ? &old_name_holds : &new_name_holds)) {
        usleep(1000);
    }
    cr_assert(resolver_is_address("127.0.0.1", is_old ? "7001" : "7002", found));
}

static void await_lookups(int n)
{
    for (int i = 0; i < 10000 && atomic_load(&lookups) < n; i++) {
        usleep(1000);
    }
    cr_assert_eq(atomic_load(&lookups), n);
}

Test(node, answer_about_its_old_name_is_not_taken_for_one_about_the_new_name)
{
    char why[ERR_MAX];
    struct resolver *resolver = resolver_create(look_up_two);
    struct node *node = make((struct node_options){.host = "old.example", .resolver = resolver});
    await_resolved(node);
    cr_assert_eq(port_of(node), 7001);

    atomic_store(&old_name_holds, true);
    atomic_store(&new_name_holds, true);
    node_resolve(node, 5000);
    await_lookups(2);
    node_set_address(node, "new.example", "6379");
    atomic_store(&old_name_holds, false);
    await_lookups(3); /* hence the old one has been told */
    cr_assert_eq(port_of(node), 0);
    cr_assert(node_is_resolving(node, why));

    atomic_store(&new_name_holds, false);
    await_resolved(node);
    cr_assert_eq(port_of(node), 7002);
    node_destroy(node);
    resolver_destroy(resolver);
}

Test(node, address_that_is_set_counts_in_a_new_era_and_generation)
{
    changes = 0;
    struct node *node = make_counted();
    uint64_t era = node_era(node);
    uint64_t generation = node_generation(node);
    const char *old = node_name(node);
    (void)node_identify(node, SLICE("aaa"), SLICE("7.0.15"));
    node_set_address(node, "127.0.0.2", "7002");
    cr_assert_str_eq(node_name(node), "127.0.0.2:7002");
    cr_assert_str_eq(old, "127.0.0.1:6379", "whoever has the old name may still read it");
    cr_assert_eq(port_of(node), 7002);
    cr_assert_eq(node_era(node), era + 1);
    cr_assert_eq(node_generation(node), generation + 1);
    cr_assert_eq(changes, 1);
    (void)node_identify(node, SLICE("bbb"), SLICE("7.0.15"));
    cr_assert_eq(changes, 1, "the new server is the first to answer at the new address");
    node_destroy(node);
}

Test(node, without_an_address_it_has_its_label_and_says_why)
{
    char why[ERR_MAX];
    struct sockaddr_storage addr;
    socklen_t len;
    struct node *node = node_create(&(struct node_options){.label = "sentinel m"});
    cr_assert_str_eq(node_name(node), "sentinel m");
    cr_assert_not(node_address(node, 0, &addr, &len));
    cr_assert_not(node_is_resolving(node, why));
    cr_assert_str_eq(why, "its address is not known yet");
    node_set_address(node, "127.0.0.1", "7003");
    cr_assert(node_address(node, 0, &addr, &len));
    node_lose_address(node, "nobody knows");
    cr_assert_not(node_address(node, 0, &addr, &len));
    cr_assert_not(node_is_resolving(node, why));
    cr_assert_str_eq(why, "nobody knows");
    cr_assert_str_eq(node_name(node), "sentinel m");
    node_destroy(node);
}

Test(node, renouncing_is_another_generation_at_the_same_address)
{
    changes = 0;
    struct node *node = make_counted();
    uint64_t generation = node_generation(node);
    uint64_t era = node_era(node);
    node_renounce(node);
    cr_assert_eq(node_generation(node), generation + 1);
    cr_assert_eq(node_era(node), era);
    cr_assert_eq(changes, 1);
    node_destroy(node);
}

/* ---- Credentials --------------------------------------------------------------------------- */

static char path[] = "/tmp/nearside-test-XXXXXX";

static void write_file(const char *text, size_t n)
{
    int fd = open(path, O_WRONLY | O_TRUNC);
    cr_assert_geq(fd, 0);
    cr_assert_eq(write(fd, text, n), (ssize_t)n);
    close(fd);
}

static void make_file(void)
{
    close(mkstemp(path));
}

static void remove_file(void)
{
    unlink(path);
}

static bool credentials(struct node *node, char user[16], char password[16])
{
    char err[ERR_MAX] = "";
    bool ok = node_credentials(node, user, 16, password, 16, err);
    cr_assert_eq(ok, err[0] == '\0', "an error has a text: %s", err);
    return ok;
}

Test(node, no_credentials_are_empty_ones)
{
    char user[16];
    char password[16];
    struct node *node = make((struct node_options){0});
    cr_assert(credentials(node, user, password));
    cr_assert_str_empty(user);
    cr_assert_str_empty(password);
    node_destroy(node);
}

Test(node, credentials_come_from_the_options)
{
    char user[16];
    char password[16];
    struct node *node = make((struct node_options){.user = "me", .password = "it"});
    cr_assert(credentials(node, user, password));
    cr_assert_str_eq(user, "me");
    cr_assert_str_eq(password, "it");
    node_destroy(node);
}

Test(node, credentials_longer_than_their_buffer_are_refused_and_wiped)
{
    char user[16] = "old";
    char password[16] = "old";
    struct node *node = make((struct node_options){.user = "me", .password = "0123456789abcdef"});
    cr_assert_not(credentials(node, user, password));
    cr_assert_str_empty(user);
    cr_assert_str_empty(password);
    node_destroy(node);
}

struct first_line {
    const char *text;
    const char *password; /* NULL: refused */
};

Test(node, password_is_the_first_line_of_its_file_at_every_bring_up, .init = make_file,
     .fini = remove_file)
{
    static const struct first_line cases[] = {
        {"secret", "secret"},
        {"secret\n", "secret"},
        {"secret\r\n", "secret"},
        {"a b \nsecond\n", "a b "},
        {"0123456789abcde", "0123456789abcde"},
        {"0123456789abcde\n", "0123456789abcde"},
        {"0123456789abcdef", NULL},
        {"0123456789abcdef\n", NULL},
        {"", NULL},
        {"\n", NULL},
        {"\r\nsecond", NULL},
    };
    struct node *node = make((struct node_options){.password = "not this", .password_file = path});
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        char user[16];
        char password[16];
        write_file(cases[i].text, strlen(cases[i].text));
        bool ok = credentials(node, user, password);
        cr_assert_eq(ok, cases[i].password != NULL, "case %zu", i);
        if (ok) {
            cr_assert_str_eq(password, cases[i].password, "case %zu", i);
        }
    }
    node_destroy(node);
}

Test(node, missing_password_file_is_named)
{
    char user[16];
    char password[16];
    char err[ERR_MAX] = "";
    struct node *node = make((struct node_options){.password_file = "/nonexistent/pw"});
    cr_assert_not(node_credentials(node, user, 16, password, 16, err));
    cr_assert_not_null(strstr(err, "/nonexistent/pw"), "%s", err);
    node_destroy(node);
}

/* ---- Identity ------------------------------------------------------------------------------ */

static void count_change(void *ctx)
{
    cr_assert_str_eq(ctx, "ctx");
    changes++;
}

static struct node *make_counted(void)
{
    return make((struct node_options){.changed = count_change, .ctx = "ctx"});
}

Test(node, first_run_id_is_no_change)
{
    struct node *node = make_counted();
    uint64_t generation = node_generation(node);
    cr_assert_eq(node_identify(node, SLICE("a"), SLICE("7.0.15")), generation);
    cr_assert_eq(changes, 0);
    node_destroy(node);
}

Test(node, known_and_empty_run_ids_are_no_change)
{
    struct node *node = make_counted();
    uint64_t generation = node_identify(node, SLICE("a"), SLICE(""));
    cr_assert_eq(node_identify(node, SLICE("a"), SLICE("")), generation);
    cr_assert_eq(node_identify(node, SLICE(""), SLICE("")), generation);
    cr_assert_eq(node_identify(node, SLICE("a"), SLICE("")), generation);
    cr_assert_eq(changes, 0);
    node_destroy(node);
}

static struct node *observed;
static uint64_t generation_in_change;

static void look_at_generation(void *ctx)
{
    (void)ctx;
    generation_in_change = node_generation(observed);
}

Test(node, another_run_id_raises_the_generation_and_then_calls_changed_once)
{
    struct node *node = make_counted();
    uint64_t generation = node_identify(node, SLICE("a"), SLICE(""));
    cr_assert_eq(node_identify(node, SLICE("b"), SLICE("")), generation + 1);
    cr_assert_eq(node_generation(node), generation + 1);
    cr_assert_eq(node_identify(node, SLICE("b"), SLICE("")), generation + 1);
    cr_assert_eq(changes, 1);
    node_destroy(node);

    observed = make((struct node_options){.changed = look_at_generation});
    (void)node_identify(observed, SLICE("a"), SLICE(""));
    uint64_t after = node_identify(observed, SLICE("b"), SLICE(""));
    cr_assert_eq(generation_in_change, after);
    node_destroy(observed);
}

static pthread_barrier_t barrier;
static _Atomic int slow_changes;
static _Atomic bool change_ended;

static void slow_change(void *ctx)
{
    (void)ctx;
    slow_changes++;
    for (int i = 0; i < 20000; i++) {
        sched_yield();
    }
    change_ended = true;
}

static void *identify_b(void *arg)
{
    pthread_barrier_wait(&barrier);
    (void)node_identify(arg, SLICE("b"), SLICE(""));
    return change_ended ? arg : NULL;
}

Test(node, all_who_see_a_change_wait_for_the_end_of_changed)
{
    struct node *node = make((struct node_options){.changed = slow_change});
    (void)node_identify(node, SLICE("a"), SLICE(""));
    pthread_t threads[4];
    pthread_barrier_init(&barrier, NULL, ARRAY_LEN(threads));
    for (size_t i = 0; i < ARRAY_LEN(threads); i++) {
        cr_assert_eq(pthread_create(&threads[i], NULL, identify_b, node), 0);
    }
    for (size_t i = 0; i < ARRAY_LEN(threads); i++) {
        void *waited = NULL;
        pthread_join(threads[i], &waited);
        cr_assert_not_null(waited);
    }
    cr_assert_eq(slow_changes, 1);
    node_destroy(node);
}

Test(node, version_is_the_newest_and_cut_to_fit)
{
    char out[16];
    struct node *node = make((struct node_options){0});
    node_version(node, out, sizeof(out));
    cr_assert_str_empty(out);
    (void)node_identify(node, SLICE("a"), SLICE("7.0.15"));
    (void)node_identify(node, SLICE("a"), SLICE(""));
    node_version(node, out, sizeof(out));
    cr_assert_str_eq(out, "7.0.15");
    node_version(node, out, 4);
    cr_assert_str_eq(out, "7.0");
    node_destroy(node);
}

Test(node, is_at_least_compares_the_known_version)
{
    static const struct {
        const char *version;
        unsigned major, minor;
        bool is;
    } cases[] = {
        {"", 0, 1, false},         {"", 7, 2, false},           {"7.0.15", 7, 0, true},
        {"7.0.15", 7, 2, false},   {"7.2.0", 7, 2, true},       {"7.2", 7, 2, true},
        {"7.10.1", 7, 2, true},    {"8.0.0", 7, 2, true},       {"6.9.9", 7, 2, false},
        {"10.0.0", 7, 2, true},    {"7", 7, 0, true},           {"7", 7, 2, false},
        {"nonsense", 7, 2, false}, {"255.255.255", 7, 2, true}, {"7.x", 7, 2, false},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct node *node = make((struct node_options){0});
        (void)node_identify(node, SLICE("a"), slice_str(cases[i].version));
        cr_expect_eq(node_is_at_least(node, cases[i].major, cases[i].minor), cases[i].is,
                     "case %zu", i);
        node_destroy(node);
    }
}

Test(node, valkey_has_a_version_of_its_own)
{
    struct node *node = make((struct node_options){0});
    (void)node_identify(node, SLICE("a"), SLICE("7.2.4"));
    cr_assert(!node_is_valkey(node, 7, 0));
    node_note_valkey(node, SLICE("8.1.1"));
    cr_assert(node_is_valkey(node, 8, 1));
    cr_assert(!node_is_valkey(node, 8, 2));
    cr_assert(!node_is_at_least(node, 8, 0), "it is not Redis 8");
    node_note_valkey(node, SLICE(""));
    cr_assert(!node_is_valkey(node, 7, 0), "there is another server now");
    node_destroy(node);
}

Test(node, overlong_texts_of_the_server_are_cut)
{
    char text[1000];
    char out[2000];
    memset(text, 'x', sizeof(text));
    struct node *node = make_counted();
    (void)node_identify(node, slice_of(text, sizeof(text)), slice_of(text, sizeof(text)));
    (void)node_identify(node, slice_of(text, sizeof(text)), slice_of(text, sizeof(text)));
    cr_assert_eq(changes, 0);
    node_version(node, out, sizeof(out));
    cr_assert_gt(strlen(out), 0);
    cr_assert_lt(strlen(out), sizeof(text));
    node_destroy(node);
}

Test(node, last_heard_is_the_newest_moment)
{
    struct node *node = make((struct node_options){0});
    cr_assert_eq(node_last_heard(node), 0);
    node_heard(node, 100);
    node_heard(node, 90);
    cr_assert_eq(node_last_heard(node), 100);
    node_destroy(node);
}
