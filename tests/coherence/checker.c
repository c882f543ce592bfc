/* SPDX-License-Identifier: Apache-2.0
 *
 * checker [--mode standalone|cluster|sentinel] [--seconds N] [--workers N] [--writers N] [--foreign N] [--readers N] [--impatient N]
 *         [--ttls N] [--keys N] [--seed N] [--lease-ms N] [--chaos LIST] [--chaos-ms N]
 *         [--flush-ms N] [--set section.key=value]...
 *
 * Judges the promises of coherence under load and trouble, with servers and a proxy of its own
 * (the binary that NEARSIDE_BIN names). --chaos: kinds with commas between them, `all` or `none`.
 * Ends with what it counted, the line "result: checker: N passed, M failed, 0 skipped" and 1 when
 * anything failed: a violation, too little that was judged, or chaos that had no effect.
 *
 * G3's bound is the link lease L and nothing more, however slow the machine is: the proxy serves an
 * entry at `now` only if now < t_ok + L, where t_ok is when a PING was sent whose PONG it has processed.
 * Had the value been overwritten before that PING was executed, its invalidation would have been in
 * front of the PONG. So it was overwritten after t_ok, hence less than L before `now`, and `now` was
 * read after the request had arrived, so not before the request was sent. A reader that joins a fetch
 * is covered by the same argument, with the moment it joined. What remains is that the proxy counts in
 * whole milliseconds; 5 of them are granted.
 */
#include "checker.h"

#include "../support/await.h"
#include "../support/cleanup.h"
#include "../support/cluster.h"
#include "../support/nearside.h"
#include "../support/redis.h"
#include "../support/relay.h"
#include "../support/sentinel.h"

#include <getopt.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ALL_TROUBLE ((1U << TROUBLES) - 1)

static volatile sig_atomic_t interrupted;

static void on_signal(int sig)
{
    (void)sig;
    interrupted = 1;
}

/* ---- Options -------------------------------------------------------------------------------- */

static const struct option long_options[] = {
    {"mode", required_argument, NULL, 'd'},      {"seconds", required_argument, NULL, 's'},
    {"workers", required_argument, NULL, 'w'},   {"writers", required_argument, NULL, 'o'},
    {"foreign", required_argument, NULL, 'f'},   {"readers", required_argument, NULL, 'r'},
    {"impatient", required_argument, NULL, 'i'}, {"ttls", required_argument, NULL, 't'},
    {"keys", required_argument, NULL, 'k'},      {"seed", required_argument, NULL, 'e'},
    {"lease-ms", required_argument, NULL, 'l'},  {"chaos", required_argument, NULL, 'c'},
    {"chaos-ms", required_argument, NULL, 'm'},  {"flush-ms", required_argument, NULL, 'u'},
    {"set", required_argument, NULL, 'x'},       {NULL, 0, NULL, 0},
};

static void usage(const char *what)
{
    fprintf(stderr, "checker: %s\noptions:", what);
    for (const struct option *o = long_options; o->name != NULL; o++) {
        fprintf(stderr, " --%s", o->name);
    }
    fprintf(stderr, "\nchaos: all none");
    for (int i = 0; i < TROUBLES; i++) {
        fprintf(stderr, " %s", trouble_names[i]);
    }
    fputc('\n', stderr);
    exit(2);
}

static const char *const mode_names[MODES] = {
    [MODE_STANDALONE] = "standalone",
    [MODE_CLUSTER] = "cluster",
    [MODE_SENTINEL] = "sentinel",
};

static enum mode parse_mode(const char *word)
{
    int mode = 0;

    while (mode < MODES && strcmp(word, mode_names[mode]) != 0) {
        mode++;
    }
    if (mode == MODES) {
        usage("no such mode");
    }
    return (enum mode)mode;
}

static unsigned parse_chaos(char *list)
{
    unsigned chaos = 0;
    char *save = NULL;

    for (char *word = strtok_r(list, ",", &save); word; word = strtok_r(NULL, ",", &save)) {
        unsigned bits = strcmp(word, "all") == 0 ? ALL_TROUBLE : 0;
        for (int i = 0; i < TROUBLES; i++) {
            bits |= strcmp(word, trouble_names[i]) == 0 ? 1U << i : 0;
        }
        if (bits == 0 && strcmp(word, "none") != 0) {
            usage("no such chaos");
        }
        chaos |= bits;
    }
    return chaos;
}

/* A number of the option, from low on. */
static int number(int low)
{
    char *end = NULL;
    long n = strtol(optarg, &end, 10);

    if (*optarg == '\0' || *end != '\0' || n < low || n > 10000000) {
        usage("a number is out of range");
    }
    return (int)n;
}

static void parse_options(int argc, char **argv, struct options *o)
{
    *o = (struct options){.seconds = 20,
                          .workers = 4,
                          .writers = 4,
                          .foreign = 3,
                          .readers = 5,
                          .impatient = 3,
                          .ttls = 2,
                          .keys = 12,
                          .seed = 1,
                          .lease_ms = 300,
                          .chaos = ALL_TROUBLE,
                          .chaos_ms = 150,
                          .flush_ms = 2000};
    int option = 0;
    while ((option = getopt_long(argc, argv, "", long_options, NULL)) != -1) {
        switch (option) {
        case 'd':
            o->mode = parse_mode(optarg);
            break;
        case 's':
            o->seconds = number(1);
            break;
        case 'w':
            o->workers = number(1);
            break;
        case 'o':
            o->writers = number(1);
            break;
        case 'f':
            o->foreign = number(1);
            break;
        case 'r':
            o->readers = number(1);
            break;
        case 'i':
            o->impatient = number(0);
            break;
        case 't':
            o->ttls = number(0);
            break;
        case 'k':
            o->keys = number(4);
            break;
        case 'e':
            o->seed = (unsigned)number(0);
            break;
        case 'l':
            o->lease_ms = number(100);
            break;
        case 'c':
            o->chaos = parse_chaos(optarg);
            break;
        case 'm':
            o->chaos_ms = number(1);
            break;
        case 'x':
            if (o->nsets == SETS_MAX) {
                usage("too many settings");
            }
            o->sets[o->nsets++] = optarg;
            o->from_replicas |= strncmp(optarg, "upstream.read_from=", 19) == 0 &&
                                strcmp(optarg + 19, "primary") != 0;
            break;
        case 'u':
            o->flush_ms = number(0);
            break;
        default:
            usage("no such option");
        }
    }
    if (optind < argc || o->writers + o->foreign + o->readers + o->impatient + o->ttls > 200) {
        usage("too much");
    }
    o->chaos &= chaos_of_mode(o->mode);
}

/* ---- The verdict ---------------------------------------------------------------------------- */

static int passed, failed;

static void verdict(bool good, const char *fmt, ...) FORMAT(2, 3);
static void verdict(bool good, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    printf("  %-6s ", good ? "ok" : "FAILED");
    vprintf(fmt, ap);
    printf("\n");
    va_end(ap);
    passed += good ? 1 : 0;
    failed += good ? 0 : 1;
}

/* The age in ms below which that share of the stale reads lies. */
static double percentile(const struct tally *sum, double share)
{
    long long left = (long long)((double)sum->stale * share);
    double age = 1;

    for (int i = 0; i < BUCKETS; i++, age *= 1.0717734625) {
        left -= sum->ages[i];
        if (left < 0) {
            break;
        }
    }
    return (sum->stale > 0 && age < (double)sum->oldest ? age : (double)sum->oldest) / 1000;
}

static void print_figures(const struct options *o, const struct tally *sum,
                          const struct chaos *chaos, double seconds)
{
    long long judged = sum->judged[0] + sum->judged[1];
    long long violations = 0;

    for (int i = 0; i < RULES; i++) {
        violations += ledger_violations((enum rule)i);
    }
    printf("%s, seed %u, %.0f s, %d workers, link lease %d ms; %d writers, %d foreign writers, %d "
           "readers, %d impatient ones, %d for deadlines\n",
           mode_names[o->mode], o->seed, seconds, o->workers, o->lease_ms, o->writers, o->foreign,
           o->readers, o->impatient, o->ttls);
    printf("writes: %lld through the proxy, %lld past it; unknown outcomes and errors: %lld; keys "
           "retired: %lld\n",
           sum->writes[ORIGIN_OWN], sum->writes[ORIGIN_DIRECT], sum->errors, ledger_retired());
    printf("chaos:");
    for (int i = 0; i < TROUBLES; i++) {
        if (chaos->done[i] > 0) {
            printf(" %s %lld", trouble_names[i], chaos->done[i]);
        }
    }
    printf("\nreads judged: %lld (%lld of own writes, %lld of foreign ones), %.0f/s; %lld by "
           "pipelines, %lld pairs, %lld deadlines\n",
           judged, sum->judged[ORIGIN_OWN], sum->judged[ORIGIN_DIRECT], (double)judged / seconds,
           sum->pipelined, sum->pairs, sum->expired);
    printf(
        "staleness of foreign writes: %.3f %% of reads were stale; of these p50 %.2f ms, p99 %.2f "
        "ms, max %.2f ms\n",
        100.0 * (double)sum->stale / (double)(sum->judged[1] > 0 ? sum->judged[1] : 1),
        percentile(sum, 0.50), percentile(sum, 0.99), (double)sum->oldest / 1000);
    printf("violations: %lld\n", violations);
}

/* Was there anything to judge, and did the trouble trouble? `info` is INFO nearside at the end. */
static void judge_effort(const struct options *o, const struct tally *sum, const char *info,
                         const struct chaos *chaos)
{
    long long judged = sum->judged[0] + sum->judged[1];
    long long least = (long long)o->seconds * 400 / slowdown();
    long long hits = field_number(info, "l1_hits", 0);
    long long losses = field_number(info, "link_losses", 0);
    long long lapses = field_number(info, "link_lease_lapses", 0);
    long long done = 0;

    for (int i = 0; i < TROUBLES; i++) {
        done += chaos->done[i];
    }
    verdict(judged >= least && sum->judged[ORIGIN_DIRECT] >= least / 4 &&
                sum->pipelined > o->seconds && sum->expired >= o->seconds * (o->ttls > 0) / 2 &&
                sum->pairs > o->seconds,
            "enough reads judged (%lld, at least %lld)", judged, least);
    verdict(hits * 10 >= judged, "enough of them from the cache (%lld hits)", hits);
    if (o->chaos == 0) {
        verdict(sum->errors == 0 && losses == 0, "no errors without chaos (%lld)", sum->errors);
        return;
    }
    for (int i = TROUBLE_MOVE; i < TROUBLES && o->seconds >= 30; i++) {
        if ((o->chaos & 1U << i) != 0) {
            verdict(chaos->done[i] > 0, "trouble of the kind %s (%lld)", trouble_names[i],
                    chaos->done[i]);
        }
    }
    bool breaks = (o->chaos & (1U << TROUBLE_KILL | 1U << TROUBLE_CUT)) != 0;
    bool holds = (o->chaos & (1U << TROUBLE_FREEZE | 1U << TROUBLE_STOP)) != 0;
    verdict(done > 0 && (!breaks || losses > 0) && (!holds || lapses > 0 || o->seconds < 10),
            "chaos had an effect (%lld troubles, %lld links lost, %lld leases lapsed)", done,
            losses, lapses);
}

/* ---- Run ------------------------------------------------------------------------------------ */

static void set(struct options *o, const char *setting)
{
    o->sets[o->nsets++] = setting;
}

static int64_t next_trouble(const struct options *o, struct chaos *chaos)
{
    return now_ms() + o->chaos_ms / 2 + rand_r(&chaos->seed) % o->chaos_ms;
}

static void run(const struct options *o, struct tally *sum, struct chaos *chaos)
{
    int ports[CLUSTER_NODES_MAX + 1] = {chaos->redis->port};
    for (int i = 0; chaos->cluster != NULL && i < chaos->cluster->n; i++) {
        ports[i] = chaos->cluster->node[i]->port;
    }
    struct traffic *traffic = traffic_start(o, chaos->proxy->port, ports);
    chaos->traffic = traffic;
    int64_t end = now_ms() + (int64_t)o->seconds * 1000;
    int64_t trouble = o->chaos != 0 ? next_trouble(o, chaos) : end;

    while (now_ms() < end && !interrupted && !process_ended(chaos->proxy->process)) {
        int64_t left = (trouble < end ? trouble : end) - now_ms();
        pass_time(left < 0 ? 0 : left < 200 ? left : 200);
        if (now_ms() >= trouble && trouble < end) {
            chaos_make(chaos);
            trouble = next_trouble(o, chaos);
        }
    }
    traffic_stop(traffic, sum);
}

static void start_standalone(struct options *o, struct chaos *chaos)
{
    chaos->redis = redis_start(NULL);
    chaos->relay = relay_start(chaos->redis->port, "TRACKING");
    chaos->proxy = nearside_start_with(&(struct nearside_options){
        .upstream_port = o->chaos != 0 ? relay_port(chaos->relay) : chaos->redis->port,
        .sets = o->sets});
    nearside_await_fills(chaos->proxy);
}

static void start_cluster(struct options *o, struct chaos *chaos)
{
    chaos->cluster = cluster_start(3, 3, NULL);
    chaos->redis = chaos->cluster->node[0];
    set(o, "upstream.mode=cluster");
    set(o, "upstream.topology_refresh=1s");
    set(o, cleanup_printf("upstream.servers=127.0.0.1:%d", chaos->cluster->node[1]->port));
    chaos->proxy = nearside_start_with(
        &(struct nearside_options){.upstream_port = chaos->redis->port, .sets = o->sets});
    nearside_await_info(chaos->proxy, "topology_slots_served", CLUSTER_SLOTS, CLUSTER_SLOTS, 5000);
}

static void start_sentinels(struct options *o, struct chaos *chaos)
{
    chaos->sentinels = sentinels_start(NULL);
    /* what is lost when they change masters on their own would be held against the proxy */
    sentinels_have_patience(chaos->sentinels, 4000);
    chaos->redis = chaos->sentinels->server[0];
    chaos->proxy = sentinels_nearside(chaos->sentinels, o->sets);
    nearside_await_fills(chaos->proxy);
}

static void (*const start[MODES])(struct options *o, struct chaos *chaos) = {
    [MODE_STANDALONE] = start_standalone,
    [MODE_CLUSTER] = start_cluster,
    [MODE_SENTINEL] = start_sentinels,
};

int main(int argc, char **argv)
{
    struct options o;
    struct tally sum;

    parse_options(argc, argv, &o);
    setvbuf(stdout, NULL, _IOLBF, 0);
    signal(SIGINT, on_signal);
    signal(SIGTERM, on_signal);
    ledger_init(&o);
    set(&o, cleanup_printf("proxy.workers=%d", o.workers));
    set(&o, cleanup_printf("invalidation.link_lease=%dms", o.lease_ms));
    struct chaos chaos = {.options = &o, .seed = o.seed};
    start[o.mode](&o, &chaos);
    struct nearside *proxy = chaos.proxy;
    int64_t began = now_ms();
    run(&o, &sum, &chaos);
    double seconds = (double)(now_ms() - began) / 1000;
    const char *info = nearside_info_text(proxy);
    print_figures(&o, &sum, &chaos, seconds);
    for (int i = 0; i < RULES; i++) {
        long long n = ledger_violations((enum rule)i);
        verdict(n == 0, "%s (%lld violations)", rule_name((enum rule)i), n);
    }
    judge_effort(&o, &sum, info, &chaos);
    nearside_stop(proxy, 10000LL * slowdown());
    cleanup_run(); /* does not come back if the proxy's log holds a sanitizer's report */
    verdict(true, "the proxy ended cleanly");
    printf("result: checker: %d passed, %d failed, 0 skipped\n", passed, failed);
    return failed > 0;
}
