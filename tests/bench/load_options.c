/* SPDX-License-Identifier: Apache-2.0
 *
 * load_options.c: the command line of the load generator.
 */
#include "load_options.h"

#include <errno.h>
#include <getopt.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define KEYS_MAX    1000000000000ULL /* twelve digits */
#define CLIENTS_MAX 1000000
#define VALUE_MAX   UINT64_C(536870912) /* Redis's own */

static const char *const usage =
    "usage: load [OPTION]... SERVER\n"
    "\n"
    "Loads a server that speaks RESP (HOST:PORT or unix:/PATH) from one thread, and prints one "
    "row\n"
    "of NAME=VALUE words: rate, latency, CPU time per request.\n"
    "Every client sends P requests in one piece, awaits all of their replies, and goes on.\n"
    "\n"
    "  -c, --clients N       connections (50)\n"
    "  -P, --pipeline N      requests in flight on each (1)\n"
    "      --sliding         keep so many in flight: each reply lets the next request go\n"
    "  -t, --seconds S       how long to measure (3)\n"
    "  -n, --requests N      measure so many requests instead, rounded up to whole pipelines\n"
    "  -w, --warm-up S       how long to run before (0.2; 0 with -n)\n"
    "      --rate N          requests per second of all clients together, evenly spaced; latency\n"
    "                        counts from when a request was due, not from when it could be sent\n"
    "\n"
    "  -k, --keys N          keys (100000): key:000000000000 and on\n"
    "      --first-key N     and on from this one (0)\n"
    "      --order uniform   keys are drawn independently (the default)\n"
    "      --order zipf[:E]  the same, with weights 1/rank^E (0.99)\n"
    "      --order cycle     every key once, shuffled, then all again\n"
    "      --from POSITION   begin there in the cycle: where the row of another run says it ended\n"
    "      --seed N          another sequence of keys (1)\n"
    "\n"
    "  -d, --value-size N    bytes (64)\n"
    "  -g, --gets PERCENT    GETs among the requests, the others are SETs (100)\n"
    "      --fill            SET every key once, and end\n"
    "      --command 'WORDS' send this instead; {key} and {value} in it are replaced\n"
    "      --verify          every value read must be whole, and of the key that was asked for\n"
    "\n"
    "      --pid PID[,PID]   also measure the CPU time of these processes (at most 8)\n"
    "      --hold            afterwards keep the connections open, idle, until stdin ends\n"
    "      --help            this text\n"
    "\n"
    "Ends with 1 when a reply was an error, a value was wrong or missing (--verify), or a "
    "connection\n"
    "was closed, and with 2 when the command line is.\n"
    "\n"
    "The row: requests, gets, sets, nulls, errors, wrong; position (--from); seconds; per_second; "
    "mean_us, p50_us,\n"
    "p90_us, p99_us, p999_us, max_us; own_cpu_us and cpu_us (one per PID, comma separated): CPU "
    "time\n"
    "per request, user and system together.\n";

static void refuse(const char *what, const char *value)
{
    fprintf(stderr, "load: %s: '%s' (load --help has the list)\n", what, value);
    exit(2);
}

static double number(const char *name, const char *text, double min, double max)
{
    char *end;
    errno = 0;
    double n = strtod(text, &end);
    if (end == text || *end != '\0' || errno != 0 || !(n >= min && n <= max)) {
        fprintf(stderr, "load: --%s takes a number from %g to %g, not '%s'\n", name, min, max,
                text);
        exit(2);
    }
    return n;
}

static uint64_t whole(const char *name, const char *text, uint64_t min, uint64_t max)
{
    double n = number(name, text, (double)min, (double)max);
    if (n != floor(n)) {
        fprintf(stderr, "load: --%s takes a whole number, not '%s'\n", name, text);
        exit(2);
    }
    return (uint64_t)n;
}

static void read_order(struct load_options *o, const char *text)
{
    if (strcmp(text, "uniform") == 0) {
        o->order = ORDER_UNIFORM;
    } else if (strcmp(text, "cycle") == 0) {
        o->order = ORDER_CYCLE;
    } else if (strncmp(text, "zipf", 4) == 0 && (text[4] == '\0' || text[4] == ':')) {
        o->order = ORDER_ZIPF;
        o->exponent = text[4] == ':' ? number("order zipf:", text + 5, 0.01, 5) : 0.99;
    } else {
        refuse("--order takes uniform, zipf, zipf:EXPONENT or cycle", text);
    }
}

static void read_pids(struct load_options *o, const char *text)
{
    char *end = NULL;
    for (const char *at = text; o->pid_count < LOAD_PIDS; at = end + 1) {
        long pid = strtol(at, &end, 10);
        if (end == at || pid < 1 || (*end != ',' && *end != '\0')) {
            break;
        }
        o->pids[o->pid_count++] = (pid_t)pid;
        if (*end == '\0') {
            return;
        }
    }
    refuse("--pid takes up to 8 process ids with commas between them", text);
}

enum long_only {
    OPT_FIRST_KEY = 256,
    OPT_RATE,
    OPT_SLIDING,
    OPT_ORDER,
    OPT_FROM,
    OPT_SEED,
    OPT_FILL,
    OPT_COMMAND,
    OPT_VERIFY,
    OPT_PID,
    OPT_HOLD,
    OPT_HELP
};

static const struct option long_options[] = {
    {"clients", 1, NULL, 'c'},
    {"pipeline", 1, NULL, 'P'},
    {"seconds", 1, NULL, 't'},
    {"requests", 1, NULL, 'n'},
    {"warm-up", 1, NULL, 'w'},
    {"rate", 1, NULL, OPT_RATE},
    {"sliding", 0, NULL, OPT_SLIDING},
    {"keys", 1, NULL, 'k'},
    {"first-key", 1, NULL, OPT_FIRST_KEY},
    {"order", 1, NULL, OPT_ORDER},
    {"from", 1, NULL, OPT_FROM},
    {"seed", 1, NULL, OPT_SEED},
    {"value-size", 1, NULL, 'd'},
    {"gets", 1, NULL, 'g'},
    {"fill", 0, NULL, OPT_FILL},
    {"command", 1, NULL, OPT_COMMAND},
    {"verify", 0, NULL, OPT_VERIFY},
    {"pid", 1, NULL, OPT_PID},
    {"hold", 0, NULL, OPT_HOLD},
    {"help", 0, NULL, OPT_HELP},
    {NULL, 0, NULL, 0},
};

/* A flat switch. */
static void apply(struct load_options *o, int option, const char *arg)
{
    switch (option) {
    case 'c':
        o->clients = (unsigned)whole("clients", arg, 1, CLIENTS_MAX);
        break;
    case 'P':
        o->pipeline = (unsigned)whole("pipeline", arg, 1, 1000000);
        break;
    case 't':
        o->seconds = number("seconds", arg, 0.01, 1e6);
        break;
    case 'n':
        o->requests = whole("requests", arg, 1, UINT64_C(1) << 50);
        break;
    case 'w':
        o->warm_up = number("warm-up", arg, 0, 1e6);
        break;
    case OPT_RATE:
        o->rate = number("rate", arg, 0.1, 1e8);
        break;
    case OPT_SLIDING:
        o->sliding = true;
        break;
    case 'k':
        o->keys = whole("keys", arg, 1, KEYS_MAX);
        break;
    case OPT_FIRST_KEY:
        o->first_key = whole("first-key", arg, 0, KEYS_MAX - 1);
        break;
    case OPT_ORDER:
        read_order(o, arg);
        break;
    case OPT_FROM:
        o->position = whole("from", arg, 0, KEYS_MAX - 1);
        break;
    case OPT_SEED:
        o->seed = whole("seed", arg, 1, UINT32_MAX);
        break;
    case 'd':
        o->value_size = (size_t)whole("value-size", arg, 0, VALUE_MAX);
        break;
    case 'g':
        o->gets = (unsigned)whole("gets", arg, 0, 100);
        break;
    case OPT_FILL:
        o->fill = true;
        break;
    case OPT_COMMAND:
        o->command = arg;
        break;
    case OPT_VERIFY:
        o->verify = true;
        break;
    case OPT_PID:
        read_pids(o, arg);
        break;
    case OPT_HOLD:
        o->hold = true;
        break;
    case OPT_HELP:
        fputs(usage, stdout);
        exit(0);
    default:
        fputs("load: load --help has the list of options\n", stderr);
        exit(2);
    }
}

static void settle(struct load_options *o)
{
    if (o->first_key + o->keys > KEYS_MAX) {
        refuse("--first-key and --keys go beyond twelve digits", "");
    }
    if (o->fill && (o->command != NULL || o->rate > 0)) {
        refuse("--fill goes with neither --command nor --rate", "");
    }
    if (o->sliding && o->rate > 0) {
        refuse("--sliding goes without --rate", "");
    }
    if (o->verify && o->command != NULL) {
        refuse("--verify knows the values of GET only, not those of --command", o->command);
    }
    o->position %= o->keys;
    if (o->fill) {
        o->requests = o->keys;
        o->order = ORDER_CYCLE;
        o->gets = 0;
    }
    if (o->requests > 0) {
        o->seconds = 0;
    }
    if (o->warm_up < 0) {
        o->warm_up = o->requests > 0 ? 0 : 0.2;
    }
    if (o->warm_up > 0 && o->requests > 0) {
        refuse("--warm-up goes with --seconds only", "");
    }
}

struct load_options load_options_read(int argc, char **argv)
{
    struct load_options o = {
        .clients = 50,
        .pipeline = 1,
        .keys = 100000,
        .value_size = 64,
        .gets = 100,
        .seconds = 3,
        .warm_up = -1,
        .seed = 1,
    };
    int option;
    while ((option = getopt_long(argc, argv, "c:P:t:n:w:k:d:g:", long_options, NULL)) != -1) {
        apply(&o, option, optarg);
    }
    if (optind != argc - 1) {
        fputs("load: one SERVER is wanted, HOST:PORT or unix:/PATH (load --help)\n", stderr);
        exit(2);
    }
    o.server = argv[optind];
    settle(&o);
    return o;
}
