/* SPDX-License-Identifier: Apache-2.0
 *
 * main.c: the command line. Loads the configuration, then either shows something and ends or runs the
 * server.
 */
#include "server.h"

#include "../conf/log.h"
#include "../conf/mem.h"
#include "../resp/cmd.h"

#include <ev.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static const char usage[] =
    "usage: nearside [-c FILE] [--set SECTION.KEY=VALUE]... [--check] [--print-config]\n"
    "\n"
    "A near cache for Redis that speaks Redis. Without a file it listens on 127.0.0.1:6380 and\n"
    "talks to 127.0.0.1:6379.\n"
    "\n"
    "  -c, --config FILE          read this configuration (see proxy.ini.sample)\n"
    "  --set SECTION.KEY=VALUE    change one option; may be repeated\n"
    "  --check                    check the configuration and exit\n"
    "  --print-config             print the effective configuration and exit\n"
    "  --print-sample             print a configuration with every option explained and exit\n"
    "  --version                  print the version and exit\n"
    "  --help                     print this and exit\n";

enum action { RUN, CHECK, PRINT_CONFIG };

enum { OPTION_SET = 256, OPTION_CHECK, OPTION_PRINT, OPTION_SAMPLE, OPTION_VERSION, OPTION_HELP };

static const struct option long_options[] = {
    {"config", required_argument, NULL, 'c'},
    {"set", required_argument, NULL, OPTION_SET},
    {"check", no_argument, NULL, OPTION_CHECK},
    {"print-config", no_argument, NULL, OPTION_PRINT},
    {"print-sample", no_argument, NULL, OPTION_SAMPLE},
    {"version", no_argument, NULL, OPTION_VERSION},
    {"help", no_argument, NULL, OPTION_HELP},
    {NULL, 0, NULL, 0},
};

struct arguments {
    const char *path;
    char **sets;
    size_t nsets;
    enum action action;
};

/* -1: go on; otherwise the exit status. */
static int read_arguments(int argc, char **argv, struct arguments *args)
{
    int option;
    while ((option = getopt_long(argc, argv, "c:", long_options, NULL)) != -1) {
        switch (option) {
        case 'c':
            args->path = optarg;
            break;
        case OPTION_SET:
            args->sets[args->nsets++] = optarg;
            break;
        case OPTION_CHECK:
            args->action = CHECK;
            break;
        case OPTION_PRINT:
            args->action = PRINT_CONFIG;
            break;
        case OPTION_SAMPLE:
            conf_print_sample(stdout);
            return 0;
        case OPTION_VERSION:
            printf("nearside %s\n", NEARSIDE_VERSION);
            return 0;
        case OPTION_HELP:
            fputs(usage, stdout);
            return 0;
        default:
            fputs(usage, stderr);
            return 2;
        }
    }
    if (optind < argc) {
        fprintf(stderr, "nearside: unexpected argument: %s\n%s", argv[optind], usage);
        return 2;
    }
    return -1;
}

static int act(const struct arguments *args)
{
    struct conf *conf = conf_load(args->path, args->sets, args->nsets, stderr);
    int status = 0;
    if (conf == NULL) {
        return 1;
    }
    switch (args->action) {
    case CHECK:
        printf("%s: the configuration is good\n", args->path == NULL ? "defaults" : args->path);
        break;
    case PRINT_CONFIG:
        conf_print(conf, stdout);
        break;
    case RUN:
        log_set_level((enum log_level)conf->proxy_log_level);
        mem_install_hiredis();
        ev_set_allocator(mem_for_libev);
        cmd_init();
        status = server_run(conf);
        break;
    }
    conf_destroy(conf);
    return status;
}

/* A standard descriptor that is closed would be the next file's or client's number, and what is
 * printed and logged would go there. */
static void hold_standard_descriptors(void)
{
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++) {
        if (fcntl(fd, F_GETFD) < 0) {
            (void)open("/dev/null", O_RDWR); /* takes the lowest number, which is this one */
        }
    }
}

int main(int argc, char **argv)
{
    hold_standard_descriptors();
    struct arguments args = {.sets = mem_alloc((size_t)argc * sizeof(char *)), .action = RUN};
    int status = read_arguments(argc, argv, &args);
    if (status < 0) {
        status = act(&args);
    }
    mem_free(args.sets);
    return status;
}
