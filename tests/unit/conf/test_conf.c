/* SPDX-License-Identifier: Apache-2.0
 *
 * The configuration as a whole: defaults, file, overrides, contradictions, and what is printed. Files
 * are texts in memory here, called "f.ini", except where it is the path that matters.
 */
#include "../../../conf/conf_priv.h"

#include "../../../conf/log.h"

#include <criterion/criterion.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char errors[65536]; /* of the last load */

struct sets {
    size_t n;
    char *items[8];
};

#define NONE      ((struct sets){0})
#define SETS(...) ((struct sets){sizeof((char *[]){__VA_ARGS__}) / sizeof(char *), {__VA_ARGS__}})

static struct conf *load(const char *text, struct sets sets)
{
    FILE *file = text == NULL ? NULL : fmemopen((void *)(uintptr_t)text, strlen(text), "r");
    FILE *out = fmemopen(errors, sizeof(errors), "w");
    struct conf *conf = conf_load_stream(file, "f.ini", sets.items, sets.n, out);
    fputc('\0', out);
    fclose(out);
    if (file != NULL) {
        fclose(file);
    }
    return conf;
}

static struct conf *load_path(const char *path)
{
    FILE *out = fmemopen(errors, sizeof(errors), "w");
    struct conf *conf = conf_load(path, NULL, 0, out);
    fputc('\0', out);
    fclose(out);
    return conf;
}

static struct conf *must_load(const char *text, struct sets sets)
{
    struct conf *conf = load(text, sets);
    cr_assert_not_null(conf, "%s", errors);
    cr_assert_str_eq(errors, "");
    return conf;
}

static void expect_errors(const char *text, struct sets sets, const char *wanted)
{
    struct conf *conf = load(text, sets);
    cr_expect_null(conf, "%s", text);
    cr_expect_str_eq(errors, wanted);
    conf_destroy(conf);
}

/* What conf_print writes; valid until the next call with the same slot. */
static const char *printed(const struct conf *conf, int slot)
{
    static char texts[2][16384];
    FILE *out = fmemopen(texts[slot], sizeof(texts[slot]), "w");
    conf_print(conf, out);
    fputc('\0', out);
    fclose(out);
    return texts[slot];
}

/* ---- Values ----------------------------------------------------------------------------------- */

Test(conf, without_a_file_every_option_has_its_default)
{
    struct conf *c = must_load(NULL, NONE);
    cr_expect_eq(c->proxy_listen.n, 1);
    cr_expect_str_eq(c->proxy_listen.items[0], "127.0.0.1:6380");
    cr_expect_eq(c->proxy_workers, 0);
    cr_expect_eq(c->proxy_max_clients, 10000);
    cr_expect_eq(c->proxy_window, 1024);
    cr_expect_eq(c->proxy_max_query, 1073741824);
    cr_expect_eq(c->proxy_max_output, 268435456);
    cr_expect_eq(c->proxy_stalled_output, 10000);
    cr_expect_eq(c->proxy_max_client_memory, 2147483648);
    cr_expect_eq(c->proxy_timeout, 0);
    cr_expect_eq(c->proxy_tcp_keepalive, 300000);
    cr_expect_eq(c->proxy_drain_timeout, 5000);
    cr_expect_eq(c->proxy_log_level, (int)LOG_INFO);
    cr_expect_eq(c->upstream_servers.n, 1);
    cr_expect_str_eq(c->upstream_servers.items[0], "127.0.0.1:6379");
    cr_expect_str_eq(c->upstream_user, "");
    cr_expect_str_eq(c->upstream_password, "");
    cr_expect_str_eq(c->upstream_password_file, "");
    cr_expect_eq(c->upstream_mode, (int)CONF_MODE_STANDALONE);
    cr_expect_eq(c->upstream_read_from, (int)CONF_READ_PRIMARY);
    cr_expect_eq(c->upstream_topology_refresh, 5000);
    cr_expect_str_eq(c->sentinel_master, "");
    cr_expect(!c->proxy_cluster_facade);
    cr_expect_eq(c->upstream_db, 0);
    cr_expect_eq(c->upstream_connect_timeout, 1000);
    cr_expect_eq(c->upstream_dead_after, 10000);
    cr_expect_eq(c->l1_max_memory, 67108864);
    cr_expect_eq(c->l1_max_item_size, 1048576);
    cr_expect_eq(c->l1_ttl, 60000);
    cr_expect_eq(c->l1_negative_ttl, 10000);
    cr_expect_eq(c->invalidation_mode, (int)CONF_INVALIDATION_AUTO);
    cr_expect_eq(c->invalidation_link_lease, 1000);
    conf_destroy(c);
}

Test(conf, a_file_changes_what_it_names_and_nothing_else)
{
    struct conf *c = must_load("[proxy]\nworkers = 3\nmax_output = 1mb\n"
                               "[l1]\nttl = 5m\n[upstream]\nuser = \"a b\"\npassword = p;w\n",
                               NONE);
    cr_expect_eq(c->proxy_workers, 3);
    cr_expect_eq(c->proxy_max_output, 1048576);
    cr_expect_eq(c->l1_ttl, 300000);
    cr_expect_str_eq(c->upstream_user, "a b");
    cr_expect_str_eq(c->upstream_password, "p;w");
    cr_expect_eq(c->proxy_window, 1024);
    conf_destroy(c);
}

Test(conf, choices_are_the_enums_they_stand_for)
{
    static char *const levels[] = {"proxy.log_level=debug", "proxy.log_level=info",
                                   "proxy.log_level=warn", "proxy.log_level=error"};
    for (int i = 0; i < 4; i++) {
        struct conf *c = must_load(NULL, SETS(levels[i]));
        cr_expect_eq(c->proxy_log_level, (int)LOG_DEBUG + i);
        conf_destroy(c);
    }
    static char *const modes[] = {"invalidation.mode=auto",     "invalidation.mode=tracking",
                                  "invalidation.mode=redirect", "invalidation.mode=broadcast",
                                  "invalidation.mode=keyspace", "invalidation.mode=channel",
                                  "invalidation.mode=off"};
    for (int i = 0; i < (int)ARRAY_LEN(modes); i++) {
        struct conf *c = must_load(NULL, SETS(modes[i]));
        cr_expect_eq(c->invalidation_mode, (int)CONF_INVALIDATION_AUTO + i);
        conf_destroy(c);
    }
    cr_expect_eq((int)LOG_ERROR, (int)LOG_DEBUG + 3);
    cr_expect_eq((int)CONF_INVALIDATION_OFF, 6);
}

Test(conf, a_repeatable_option_takes_several_lines_in_place_of_its_default)
{
    struct conf *c = must_load("[proxy]\nlisten = *:1\nlisten = [::1]:2\nlisten = h:3\n", NONE);
    cr_assert_eq(c->proxy_listen.n, 3);
    cr_expect_str_eq(c->proxy_listen.items[0], "*:1");
    cr_expect_str_eq(c->proxy_listen.items[1], "[::1]:2");
    cr_expect_str_eq(c->proxy_listen.items[2], "h:3");
    conf_destroy(c);
}

Test(conf, overrides_are_applied_after_the_file)
{
    struct conf *c = must_load("[proxy]\nworkers = 3\nwindow = 7\n", SETS("proxy.workers=5"));
    cr_expect_eq(c->proxy_workers, 5);
    cr_expect_eq(c->proxy_window, 7);
    conf_destroy(c);
}

Test(conf, the_last_override_of_an_option_counts)
{
    struct conf *c = must_load(NULL, SETS("l1.ttl=1m", "l1.ttl=2m", " l1.ttl = 3m "));
    cr_expect_eq(c->l1_ttl, 180000);
    conf_destroy(c);
}

Test(conf, overrides_of_a_repeatable_option_replace_the_files_and_add_up)
{
    struct conf *c = must_load("[proxy]\nlisten = a:1\nlisten = b:2\n",
                               SETS("proxy.listen=c:3", "proxy.workers=1", "proxy.listen=a:1"));
    cr_assert_eq(c->proxy_listen.n, 2);
    cr_expect_str_eq(c->proxy_listen.items[0], "c:3");
    cr_expect_str_eq(c->proxy_listen.items[1], "a:1");
    conf_destroy(c);
    c = must_load(NULL, SETS("upstream.servers=a:1"));
    cr_assert_eq(c->upstream_servers.n, 1);
    cr_expect_str_eq(c->upstream_servers.items[0], "a:1");
    conf_destroy(c);
}

Test(conf, an_override_may_hold_an_equals_sign)
{
    struct conf *c = must_load(NULL, SETS("upstream.password=a=b="));
    cr_expect_str_eq(c->upstream_password, "a=b=");
    conf_destroy(c);
}

Test(conf, a_string_is_emptied_by_quotes)
{
    struct conf *c = must_load("[upstream]\nuser = x\npassword = y\n",
                               SETS("upstream.user=\"\"", "upstream.password=\"\""));
    cr_expect_str_eq(c->upstream_user, "");
    cr_expect_str_eq(c->upstream_password, "");
    conf_destroy(c);
}

Test(conf, destroy_accepts_null)
{
    conf_destroy(NULL);
}

/* ---- Errors ----------------------------------------------------------------------------------- */

Test(conf, an_error_names_file_line_section_and_key)
{
    expect_errors("[proxy]\n\nworkers = 65\n", NONE,
                  "f.ini:3: [proxy] workers: 65 is too large; expected a whole number from 1 to "
                  "64, or auto\n");
}

Test(conf, an_error_names_the_override)
{
    expect_errors(NULL, SETS("proxy.workers=65"),
                  "--set proxy.workers=65: 65 is too large; expected a whole number from 1 to 64, "
                  "or auto\n");
}

Test(conf, unknown_names_get_the_nearest)
{
    expect_errors("[proxi]\nworkers = 1\nnonsense\n[proxy]\nworker = 1\nmaxclients = 1\nTTL = 1s\n"
                  "memory = 1mb\nl1.ttl = 1s\n[l1]\nmemory = 1mb\n",
                  NONE,
                  "f.ini:1: [proxi]: unknown section; did you mean [proxy]?\n"
                  "f.ini:3: [proxi]: this is neither [section] nor key = value nor a comment\n"
                  "f.ini:5: [proxy] worker: unknown key; did you mean workers?\n"
                  "f.ini:6: [proxy] maxclients: unknown key; did you mean max_clients?\n"
                  "f.ini:7: [proxy] TTL: unknown key; did you mean ttl in [l1]?\n"
                  "f.ini:8: [proxy] memory: unknown key; did you mean max_client_memory?\n"
                  "f.ini:9: [proxy] l1.ttl: unknown key; did you mean ttl in [l1]?\n"
                  "f.ini:11: [l1] memory: unknown key; did you mean max_memory?\n");
}

Test(conf, swapped_letters_are_one_mistake_and_case_is_none)
{
    expect_errors("[l1]\ntlt = 1s\nTLT = 1s\n", NONE,
                  "f.ini:2: [l1] tlt: unknown key; did you mean ttl?\n"
                  "f.ini:3: [l1] TLT: unknown key; did you mean ttl?\n");
}

Test(conf, unknown_names_without_a_near_one_get_a_list)
{
    expect_errors("[server]\n[invalidation]\nfoo = 1\n", NONE,
                  "f.ini:1: [server]: unknown section; there is [proxy], [upstream], "
                  "[sentinel], [l1], "
                  "[invalidation]\n"
                  "f.ini:3: [invalidation] foo: unknown key; there is mode, prefixes, set_notify, "
                  "weak_ttl, channel, channel_ttl, unknown_writes, link_lease\n");
}

Test(conf, unknown_overrides_get_the_nearest)
{
    expect_errors(NULL,
                  SETS("proxy.wrokers=1", "workers=1", "porxy.workers=1", "proxy.ttl=1s",
                       "foo.bar=1", "proxy.workers", "=1", ""),
                  "--set proxy.wrokers: unknown option; did you mean proxy.workers?\n"
                  "--set workers: unknown option; did you mean proxy.workers?\n"
                  "--set porxy.workers: unknown option; did you mean proxy.workers?\n"
                  "--set proxy.ttl: unknown option; did you mean l1.ttl?\n"
                  "--set foo.bar: unknown option; --print-config shows what there is\n"
                  "--set proxy.workers: has no '='; expected section.key=value\n"
                  "--set : unknown option; --print-config shows what there is\n"
                  "--set : has no '='; expected section.key=value\n");
}

Test(conf, a_name_of_any_length_is_survived)
{
    char file[400];
    char set[2000];
    snprintf(file, sizeof(file), "[%049d]\n[l1]\n%0150d = 1\n", 1, 2);
    memset(set, 'x', sizeof(set));
    set[1000] = '=';
    set[sizeof(set) - 1] = '\0';
    cr_expect_null(load(file, SETS(set)));
    cr_expect_not_null(strstr(errors, "f.ini:1: [0000"));
    cr_expect_not_null(strstr(errors, "f.ini:3: [l1] 0000"));
    cr_expect_not_null(strstr(errors, "--set xxxx"));
}

Test(conf, a_repeated_section_is_an_error)
{
    expect_errors(
        "[l1]\n[proxy]\n[l1]\nttl = 10\n", NONE,
        "f.ini:3: [l1]: this section was opened before, on line 1; expected it once\n"
        "f.ini:4: [l1] ttl: '10' is not valid; expected a duration (ms, s, m, h) from 1ms "
        "to 24h\n");
}

Test(conf, a_repeated_key_names_both_lines)
{
    expect_errors("[l1]\nttl = 10s\nttl = 20s\n\nttl = 30s\n", NONE,
                  "f.ini:3: [l1] ttl: was given before, on line 2; expected it once\n"
                  "f.ini:5: [l1] ttl: was given before, on line 2; expected it once\n");
}

Test(conf, an_empty_value_is_an_error)
{
    expect_errors(
        "[l1]\nttl =\nmax_memory = ; none\n[upstream]\nuser =\n", SETS("proxy.log_level="),
        "f.ini:2: [l1] ttl: has no value; expected a duration (ms, s, m, h) from 1ms to "
        "24h\n"
        "f.ini:3: [l1] max_memory: has no value; expected a size (b, kb, mb, gb) from 1mb "
        "to 1tb\n"
        "f.ini:5: [upstream] user: has no value; expected text, or \"\" for none\n"
        "--set proxy.log_level=: has no value; expected one of debug, info, warn, "
        "error\n");
}

Test(conf, an_item_given_twice_is_an_error)
{
    expect_errors("[proxy]\nlisten = a:1\nlisten = b:1\nlisten = a:1\n", NONE,
                  "f.ini:4: [proxy] listen: a:1 is given twice\n");
}

Test(conf, a_list_has_a_bound)
{
    char file[2000] = "[proxy]\n";
    size_t n = strlen(file);
    for (int i = 1; i <= 65; i++) {
        n += (size_t)snprintf(file + n, sizeof(file) - n, "listen = h:%d\n", i);
    }
    expect_errors(file, NONE, "f.ini:66: [proxy] listen: is one too many; expected at most 64\n");
}

Test(conf, the_error_of_a_line_inih_would_cut_has_its_number)
{
    char file[500];
    snprintf(file, sizeof(file), "[l1]\nttl = %0300d\nttl = 1x\n", 1);
    expect_errors(
        file, NONE,
        "f.ini:2: [l1]: this line is longer than 198 bytes\n"
        "f.ini:3: [l1] ttl: '1x' is not valid; expected a duration (ms, s, m, h) from 1ms "
        "to 24h\n");
}

Test(conf, secrets_never_show_in_errors)
{
    static const char *const files[] = {
        "[upstream]\npassword hunter2\n",
        "[upstream]\npassword: hunter2\n",
        "[upstream]\npassword = hunter2 ;x\n",
        "[upstream]\npassword = \"hunter2\n",
        "[upstream]\npasword = hunter2\n",
        "[upstream]\npassword = hunter2\npassword = hunter2\n",
        "[upstream]\npassword = hunter2\x01\n",
        "[l1]\npassword = hunter2\n",
        "password = hunter2\n",
        "[upstream]\nservers = redis://x:hunter2@h:1\n",
        "[upstream]\nservers = x:hunter2@h:1\n",
        "[upstream]\npassword = hunter2\npassword_file = /nonexistent\n",
    };
    static char *const sets[] = {
        "upstream.password=hunter2\n",
        "upstream.password=hunter2 ;x",
        "upstream.pasword=hunter2",
        "upstream.password hunter2",
        "password=hunter2",
        "upstream.password =hunter2\x02",
        " upstream.password = \"hunter2",
        "upstream.servers=x:hunter2@h:1",
    };
    for (size_t i = 0; i < ARRAY_LEN(files); i++) {
        cr_expect_null(load(files[i], NONE), "%s", files[i]);
        cr_expect_null(strstr(errors, "hunter"), "%s", errors);
    }
    for (size_t i = 0; i < ARRAY_LEN(sets); i++) {
        cr_expect_null(load(NULL, SETS(sets[i])), "%s", sets[i]);
        cr_expect_null(strstr(errors, "hunter"), "%s", errors);
    }
}

Test(conf, half_a_password_is_refused)
{
    expect_errors("[upstream]\npassword = half ;rest\n", NONE,
                  "f.ini:2: [upstream] password: a comment stands behind it, or it contains a "
                  "blank followed by ';'; expected the secret alone on its line\n");
}

/* ---- Contradictions --------------------------------------------------------------------------- */

Test(conf, an_item_may_not_be_larger_than_a_quarter_of_the_cache)
{
    expect_errors("[l1]\nmax_memory = 64mb\nmax_item_size = 32mb\n", NONE,
                  "f.ini:3: [l1] max_item_size: 32mb is more than a quarter of l1.max_memory, 64mb "
                  "(line 2); expected at most 16mb\n");
    expect_errors("[l1]\nmax_item_size = 32mb\n", NONE,
                  "f.ini:2: [l1] max_item_size: 32mb is more than a quarter of l1.max_memory, 64mb "
                  "(default); expected at most 16mb\n");
    expect_errors("[l1]\nmax_item_size = 32mb\n", SETS("l1.max_memory=8mb"),
                  "f.ini:2: [l1] max_item_size: 32mb is more than a quarter of l1.max_memory, 8mb "
                  "(--set); expected at most 2mb\n");
    conf_destroy(must_load("[l1]\nmax_memory = 64mb\nmax_item_size = 16mb\n", NONE));
}

Test(conf, nulls_may_not_be_kept_longer_than_values)
{
    expect_errors("[l1]\nttl = 5s\nnegative_ttl = 6s\n", NONE,
                  "f.ini:3: [l1] negative_ttl: 6s is more than l1.ttl, 5s (line 2); expected at "
                  "most 5s\n");
    expect_errors(NULL, SETS("l1.negative_ttl=2m"),
                  "--set l1.negative_ttl=2m: 2m is more than l1.ttl, 1m (default); expected at "
                  "most 1m\n");
    conf_destroy(must_load("[l1]\nttl = 5s\nnegative_ttl = 5s\n", NONE));
}

Test(conf, a_default_gives_way_to_what_was_written)
{
    struct conf *c = must_load("[l1]\nmax_memory = 2mb\nttl = 5s\n", NONE);
    cr_expect_eq(c->l1_max_item_size, 512 * 1024);
    cr_expect_eq(c->l1_negative_ttl, 5000);
    conf_destroy(c);
}

Test(conf, a_refused_value_is_not_also_a_contradiction)
{
    expect_errors("[l1]\nmax_memory = 0\nmax_item_size = 32mb\n", NONE,
                  "f.ini:2: [l1] max_memory: 0 is too small; expected a size (b, kb, mb, gb) from "
                  "1mb to 1tb\n");
    expect_errors(
        "[l1]\nmax_memory = 2mb\nmax_item_size = big\n", NONE,
        "f.ini:3: [l1] max_item_size: 'big' is not valid; expected a size (b, kb, mb, gb) "
        "from 64b to 64mb\n");
    expect_errors("[upstream]\nuser = u\npassword =\n", NONE,
                  "f.ini:3: [upstream] password: has no value; expected text, or \"\" for none\n");
}

Test(conf, what_belongs_to_another_mode_is_a_contradiction)
{
    static const struct {
        const char *text;
        const char *wanted;
    } cases[] = {
        {"[upstream]\nservers = a:1\nservers = b:1\n",
         "f.ini:2: [upstream] servers: there are 2, but upstream.mode is standalone; expected one, "
         "or "
         "mode = sentinel or cluster\n"},
        {"[upstream]\nmode = sentinel\n",
         "f.ini:2: [upstream] mode: sentinel needs the name of the "
         "master; expected sentinel.master\n"},
        {"[sentinel]\nmaster = m\n",
         "f.ini:2: [sentinel] master: contradicts upstream.mode, "
         "standalone (default); expected it only with mode = sentinel\n"},
        {"[upstream]\nmode = cluster\nservers = unix:/s\n",
         "f.ini:3: [upstream] servers: unix:/s is a Unix socket, and only a standalone "
         "server is reached by one; expected host:port\n"},
        {"[upstream]\nmode = cluster\ndb = 1\n",
         "f.ini:3: [upstream] db: contradicts upstream.mode, cluster (line 2); expected it only "
         "with "
         "the other modes, since clusters have db 0 only\n"},
        {"[upstream]\nread_from = replica\n", "f.ini:2: [upstream] read_from: contradicts "
                                              "upstream.mode, standalone (default); expected it "
                                              "only with mode = sentinel or cluster, which "
                                              "tell who the replicas are\n"},
        {"[proxy]\ncluster_facade = yes\n", "f.ini:2: [proxy] cluster_facade: contradicts "
                                            "upstream.mode, standalone (default); expected "
                                            "it only with mode = cluster\n"},
        {"[proxy]\nannounce = h:1\n",
         "f.ini:2: [proxy] announce: means nothing here; expected it only "
         "with proxy.cluster_facade = yes\n"},
        {"[proxy]\ncluster_facade = yes\nannounce = h\n[upstream]\nmode = cluster\n",
         "f.ini:3: [proxy] announce: 'h' is not valid; expected host:port\n"},
        {"[invalidation]\nmode = tracking\nprefixes = user:\n",
         "f.ini:3: [invalidation] prefixes: contradicts invalidation.mode, tracking (line 2); "
         "expected it only with mode = broadcast or auto\n"},
        {"[sentinel]\nuser = u\n", "f.ini:2: [sentinel] user: a user needs a password; expected "
                                   "sentinel.password or sentinel.password_file\n"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        expect_errors(cases[i].text, NONE, cases[i].wanted);
    }
}

/* A proxy before itself. */
Test(conf, a_server_is_not_where_nearside_listens)
{
    static const struct {
        const char *listen, *server;
        bool same;
    } cases[] = {
        {"127.0.0.1:7000", "127.0.0.1:7000", true},  {"*:7000", "127.0.0.1:7000", true},
        {"0.0.0.0:7000", "localhost:7000", true},    {"127.0.0.1:7000", "localhost:7000", true},
        {"[::]:7000", "[::1]:7000", true},           {"unix:/tmp/s", "unix:/tmp/s", true},
        {"127.0.0.1:7000", "127.0.0.1:7001", false}, {"*:7000", "10.0.0.1:7000", false},
        {"10.0.0.2:7000", "localhost:7000", false},  {"unix:/tmp/s", "unix:/tmp/t", false},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        char text[256];
        char wanted[256];
        snprintf(text, sizeof(text), "[proxy]\nlisten = %s\n[upstream]\nservers = %s\n",
                 cases[i].listen, cases[i].server);
        snprintf(wanted, sizeof(wanted),
                 "f.ini:4: [upstream] servers: %s is where Nearside itself listens, proxy.listen "
                 "(line 2); expected the address of Redis\n",
                 cases[i].server);
        if (cases[i].same) {
            expect_errors(text, NONE, wanted);
        } else {
            conf_destroy(must_load(text, NONE));
        }
    }
}

Test(conf, each_mode_loads_with_what_belongs_to_it)
{
    struct conf *c =
        must_load("[upstream]\nmode = sentinel\nservers = a:1\nservers = b:1\n"
                  "read_from = replica\n[sentinel]\nmaster = m\nuser = u\npassword = p\n",
                  NONE);
    cr_expect_eq(c->upstream_mode, (int)CONF_MODE_SENTINEL);
    cr_expect_eq(c->upstream_read_from, (int)CONF_READ_REPLICA);
    cr_expect_eq(c->upstream_servers.n, 2);
    cr_expect_null(strstr(printed(c, 0), "= p\n"));
    conf_destroy(c);
    c = must_load("[proxy]\ncluster_facade = yes\nannounce = h:1\n"
                  "[upstream]\nmode = cluster\nread_from = prefer-replica\ntopology_refresh = 1s\n",
                  NONE);
    cr_expect_eq(c->upstream_mode, (int)CONF_MODE_CLUSTER);
    cr_expect_eq(c->upstream_read_from, (int)CONF_READ_PREFER_REPLICA);
    conf_destroy(c);
}

Test(conf, a_user_needs_a_password)
{
    expect_errors("[upstream]\nuser = u\n", NONE,
                  "f.ini:2: [upstream] user: a user needs a password; expected upstream.password "
                  "or upstream.password_file\n");
    conf_destroy(must_load("[upstream]\nuser = u\npassword = p\n", NONE));
    conf_destroy(must_load("[upstream]\npassword = p\n", NONE));
}

/* A file of that content in a directory of its own, which drop_file removes. */
static char dir[64];
static char path[128];

static void make_file(const char *content)
{
    strcpy(dir, "/tmp/nearside-conf-XXXXXX");
    cr_assert_not_null(mkdtemp(dir));
    snprintf(path, sizeof(path), "%s/file", dir);
    FILE *file = fopen(path, "w");
    cr_assert_not_null(file);
    fputs(content, file);
    fclose(file);
}

static void drop_file(void)
{
    unlink(path);
    rmdir(dir);
}

/* f.ini that names the file at path. */
static const char *with_password_file(const char *more)
{
    static char text[512];
    snprintf(text, sizeof(text), "[upstream]\npassword_file = %s\n%s", path, more);
    return text;
}

Test(conf, a_password_file_must_be_readable)
{
    char wanted[512];
    make_file("secret\n");
    struct conf *c = must_load(with_password_file("user = u\n"), NONE);
    cr_expect_str_eq(c->upstream_password_file, path);
    conf_destroy(c);
    drop_file();
    snprintf(wanted, sizeof(wanted),
             "f.ini:2: [upstream] password_file: %s cannot be opened: No such file or directory\n",
             path);
    expect_errors(with_password_file(""), NONE, wanted);
}

Test(conf, a_password_file_must_hold_a_password)
{
    static const char *const empty[] = {"", "\n", "\r\nx\n"};
    for (size_t i = 0; i < ARRAY_LEN(empty); i++) {
        char wanted[512];
        make_file(empty[i]);
        snprintf(wanted, sizeof(wanted),
                 "f.ini:2: [upstream] password_file: %s has nothing in its first line; expected "
                 "the password\n",
                 path);
        expect_errors(with_password_file(""), NONE, wanted);
        drop_file();
    }
}

Test(conf, a_password_file_is_a_regular_file, .timeout = 5)
{
    char wanted[512];
    make_file("");
    unlink(path);
    cr_assert_eq(mkfifo(path, 0600), 0); /* which nobody will ever write to */
    snprintf(wanted, sizeof(wanted),
             "f.ini:2: [upstream] password_file: %s is not a regular file\n", path);
    expect_errors(with_password_file(""), NONE, wanted);
    drop_file();
    expect_errors("[upstream]\npassword_file = /tmp\n", NONE,
                  "f.ini:2: [upstream] password_file: /tmp is not a regular file\n");
}

Test(conf, password_and_password_file_exclude_each_other)
{
    make_file("secret\n");
    expect_errors(with_password_file("password = p\n"), NONE,
                  "f.ini:2: [upstream] password_file: contradicts upstream.password (line 3); "
                  "expected only one of the two\n");
    conf_destroy(
        must_load(with_password_file("password = p\n"), SETS("upstream.password_file=\"\"")));
    drop_file();
}

/* ---- Files ------------------------------------------------------------------------------------ */

Test(conf, without_a_path_there_are_the_defaults_and_the_overrides)
{
    char *const sets[] = {"proxy.workers=2"};
    struct conf *c = conf_load(NULL, sets, 1, stderr);
    cr_assert_not_null(c);
    cr_expect_eq(c->proxy_workers, 2);
    cr_expect_eq(c->proxy_window, 1024);
    conf_destroy(c);
}

Test(conf, a_file_is_loaded_by_its_path)
{
    make_file("[proxy]\nworkers = 9\n");
    struct conf *c = load_path(path);
    cr_assert_not_null(c, "%s", errors);
    cr_expect_eq(c->proxy_workers, 9);
    conf_destroy(c);
    drop_file();
}

Test(conf, errors_begin_with_the_path)
{
    char wanted[512];
    make_file("[proxy]\nworkers = no\n");
    cr_expect_null(load_path(path));
    snprintf(wanted, sizeof(wanted), "%s:2: [proxy] workers: 'no' is not valid;", path);
    cr_expect_eq(strncmp(errors, wanted, strlen(wanted)), 0, "%s", errors);
    drop_file();
}

Test(conf, a_file_that_is_not_there_is_an_error)
{
    cr_expect_null(load_path("/nonexistent/proxy.ini"));
    cr_expect_str_eq(errors,
                     "/nonexistent/proxy.ini: cannot be opened: No such file or directory\n");
}

Test(conf, a_directory_is_an_error)
{
    cr_expect_null(load_path("/tmp"));
    cr_expect_str_eq(errors, "/tmp: is a directory; expected a file\n");
}

Test(conf, a_binary_is_an_error_of_few_lines)
{
    cr_expect_null(load_path("/proc/self/exe"));
    cr_expect_not_null(strstr(errors, "/proc/self/exe:1: "));
    cr_expect_lt(strlen(errors), 300);
}

/* ---- Printing --------------------------------------------------------------------------------- */

/* What is printed loads, and prints the same again. */
static void expect_round_trip(const struct conf *conf)
{
    const char *first = printed(conf, 0);
    struct conf *again = must_load(first, NONE);
    cr_expect_str_eq(printed(again, 1), first);
    conf_destroy(again);
}

Test(conf, what_is_printed_loads_and_is_the_same)
{
    struct conf *c = must_load(NULL, NONE);
    expect_round_trip(c);
    conf_destroy(c);
    c = must_load(
        "[proxy]\nlisten = *:1\nlisten = [fe80::1%eth0]:2\nworkers = 64\nmax_query = 1048577\n"
        "stalled_output = 0\ntimeout = 8760h\ntcp_keepalive = 1500ms\nlog_level = error\n"
        "[upstream]\nservers = redis:1\ndb = 65535\n"
        "[l1]\nmax_memory = 1048577b\nttl = 1ms\n[invalidation]\nmode = off\n",
        SETS("l1.max_memory=1048579"));
    cr_expect_eq(c->l1_max_item_size, 262144);
    expect_round_trip(c);
    conf_destroy(c);
}

Test(conf, strings_are_printed_so_that_they_load)
{
    static char *const texts[] = {"upstream.user=\"\"x\"", "upstream.user=\" x \"",
                                  "upstream.user=\";x\"", "upstream.user=#x;=[]"};
    make_file("secret\n");
    char set[256];
    snprintf(set, sizeof(set), "upstream.password_file=%s", path);
    for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
        struct conf *c = must_load(NULL, SETS(texts[i], set));
        struct conf *again = must_load(printed(c, 0), NONE);
        cr_expect_str_eq(again->upstream_user, c->upstream_user);
        cr_expect_str_eq(again->upstream_password_file, path);
        conf_destroy(again);
        conf_destroy(c);
    }
    drop_file();
}

Test(conf, secrets_are_printed_as_a_comment)
{
    struct conf *c = must_load("[upstream]\npassword = hunter2\nuser = app\n", NONE);
    const char *text = printed(c, 0);
    cr_expect_null(strstr(text, "hunter2"));
    cr_expect_not_null(strstr(text, "\n; password = (set)\n"));
    cr_expect_not_null(strstr(text, "\n; user = \"app\"\n"));
    struct conf *again = must_load(text, NONE);
    cr_expect_str_eq(again->upstream_password, "");
    conf_destroy(again);
    conf_destroy(c);
}

/* ---- The sample ------------------------------------------------------------------------------- */

static char sample[32768];

static void print_sample(void)
{
    FILE *out = fmemopen(sample, sizeof(sample), "w");
    conf_print_sample(out);
    fputc('\0', out);
    cr_assert_eq(ferror(out), 0);
    fclose(out);
}

Test(conf, the_checked_in_sample_is_what_the_table_says, .init = print_sample)
{
    static char checked_in[32768];
    char name[4096];
    const char *root = getenv("NEARSIDE_ROOT");
    snprintf(name, sizeof(name), "%s/proxy.ini.sample", root == NULL ? "." : root);
    FILE *file = fopen(name, "r");
    cr_assert_not_null(file, "%s", name);
    checked_in[fread(checked_in, 1, sizeof(checked_in) - 1, file)] = '\0';
    fclose(file);
    cr_assert(strcmp(checked_in, sample) == 0, "proxy.ini.sample is old: make sample");
}

Test(conf, the_sample_loads_and_changes_nothing, .init = print_sample)
{
    struct conf *defaults = must_load(NULL, NONE);
    struct conf *c = must_load(sample, NONE);
    cr_expect_str_eq(printed(c, 0), printed(defaults, 1));
    conf_destroy(c);
    conf_destroy(defaults);
}

Test(conf, the_sample_with_every_option_taken_loads_and_changes_nothing, .init = print_sample)
{
    size_t taken = 0;
    for (char *line = sample; *line != '\0'; line = strchr(line, '\n') + 1) {
        if (*line == ';') {
            *line = ' ';
            taken++;
        }
    }
    cr_expect_eq(taken, OPTION_COUNT);
    struct conf *defaults = must_load(NULL, NONE);
    struct conf *c = must_load(sample, NONE);
    cr_expect_str_eq(printed(c, 0), printed(defaults, 1));
    conf_destroy(c);
    conf_destroy(defaults);
}

Test(conf, the_sample_says_type_bounds_and_default, .init = print_sample)
{
    cr_expect_not_null(strstr(sample, "\n[l1]\n"));
    cr_expect_not_null(strstr(
        sample, "\n# Takes a size (b, kb, mb, gb) from 64b to 64mb.\n;max_item_size = 1mb\n"));
    cr_expect_not_null(
        strstr(sample, "\n# Takes one of debug, info, warn, error.\n;log_level = info\n"));
    cr_expect_not_null(strstr(sample, " May be given up to 64 times.\n;listen = 127.0.0.1:6380\n"));
    for (const char *line = sample; *line != '\0'; line = strchr(line, '\n') + 1) {
        cr_expect_leq(strcspn(line, "\n"), 100);
    }
}
