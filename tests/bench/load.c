/* SPDX-License-Identifier: Apache-2.0
 *
 * load.c: the load generator of scripts/bench; load --help says what it does. One thread, one epoll.
 *
 * A client sends its next requests when the last ones are answered; with --sliding as many as were
 * answered; with --rate when they are due and a client is free, and then latency counts from when they
 * were due, so that a server that stalls is charged for all that should have been sent meanwhile. When
 * the time is up nothing more is sent, and the end is when everything has been answered, of the warm-up
 * too: all work for the requests that count lies between the two moments at which CPU time is read, and
 * no other.
 */
#include "load_conn.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#define EVENTS   256
#define DRAIN_NS UINT64_C(10000000000)

/* A moment of the run, and the CPU time used up to it. */
struct moment {
    uint64_t ns, own_cpu_ns, cpu_ns[LOAD_PIDS];
};

struct run {
    struct load load;
    const struct load_options *options;
    struct conn **conns;
    struct moment begin, end;
    uint64_t requests_left; /* to be sent; a run by time does not count them */
    uint64_t in_flight;
    /* clients with nothing in flight, longest first; a ring */
    struct conn **idle;
    unsigned idle_first, idle_count;
    int timer;
    double due_ns, interval_ns;
};

static uint64_t cpu_ns(clockid_t clock)
{
    struct timespec t;
    if (clock_gettime(clock, &t) != 0) {
        load_fail("a process whose CPU time should be measured has ended");
    }
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static struct moment this_moment(const struct load_options *o)
{
    struct moment m = {.ns = load_now_ns(), .own_cpu_ns = cpu_ns(CLOCK_PROCESS_CPUTIME_ID)};
    for (unsigned i = 0; i < o->pid_count; i++) {
        clockid_t clock;
        if (clock_getcpuclockid(o->pids[i], &clock) != 0) {
            load_fail("there is no process %d", (int)o->pids[i]);
        }
        m.cpu_ns[i] = cpu_ns(clock);
    }
    return m;
}

/* ---- Sending -------------------------------------------------------------------------------- */

static void send_requests(struct run *run, struct conn *c, unsigned n, uint64_t since_ns)
{
    n = n < run->requests_left ? n : (unsigned)run->requests_left;
    run->requests_left -= n;
    run->in_flight += n;
    conn_send(c, n, since_ns);
}

static void arm_timer(struct run *run)
{
    uint64_t due = (uint64_t)run->due_ns;
    struct itimerspec at = {
        .it_value = {.tv_sec = (time_t)(due / 1000000000), .tv_nsec = (long)(due % 1000000000)}};
    timerfd_settime(run->timer, TFD_TIMER_ABSTIME, &at, NULL);
}

/* Sends what is due as far as clients are free; the timer tells when the next is. */
static void send_due(struct run *run)
{
    double now = (double)load_now_ns();
    while (run->idle_count > 0 && run->requests_left > 0) {
        if (run->due_ns > now) {
            arm_timer(run);
            return;
        }
        struct conn *c = run->idle[run->idle_first];
        run->idle_first = (run->idle_first + 1) % run->options->clients;
        run->idle_count--;
        send_requests(run, c, run->options->pipeline, (uint64_t)run->due_ns);
        run->due_ns += run->interval_ns;
    }
}

/* A client has nothing in flight. */
static void on_free(struct run *run, struct conn *c)
{
    if (run->options->rate == 0 && run->requests_left > 0) {
        send_requests(run, c, run->options->pipeline, load_now_ns());
        return;
    }
    unsigned last = run->idle_first + run->idle_count++;
    run->idle[last % run->options->clients] = c;
    if (run->options->rate > 0) {
        send_due(run);
    }
}

/* All clients are free: the first requests. */
static void start_free(struct run *run)
{
    if (run->options->rate > 0) {
        send_due(run);
        return;
    }
    for (unsigned left = run->idle_count; left > 0 && run->requests_left > 0; left--) {
        struct conn *c = run->idle[run->idle_first];
        run->idle_first = (run->idle_first + 1) % run->options->clients;
        run->idle_count--;
        send_requests(run, c, run->options->pipeline, load_now_ns());
    }
}

/* ---- The loop ------------------------------------------------------------------------------- */

static void wait_and_serve(struct run *run, int timeout_ms)
{
    struct epoll_event events[EVENTS];
    int n = epoll_wait(run->load.epoll, events, EVENTS, timeout_ms);
    for (int i = 0; i < n; i++) {
        struct conn *c = events[i].data.ptr;
        if (c == NULL) {
            uint64_t times;
            if (read(run->timer, &times, sizeof(times)) > 0) {
                send_due(run);
            }
            continue;
        }
        unsigned answered = conn_on_event(c, events[i].events);
        run->in_flight -= answered;
        if (answered > 0 && run->options->sliding && run->requests_left > 0) {
            send_requests(run, c, answered, load_now_ns());
        } else if (answered > 0 && conn_in_flight(c) == 0) {
            on_free(run, c);
        }
    }
}

/* Returns at the moment. */
static void serve_until(struct run *run, uint64_t end_ns)
{
    for (uint64_t now = load_now_ns(); now < end_ns; now = load_now_ns()) {
        wait_and_serve(run, (int)((end_ns - now) / 1000000) + 1);
    }
}

static void forget_warm_up(struct tally *t)
{
    *t = (struct tally){.errors = t->errors, .wrong = t->wrong};
}

/* What is in flight is awaited, so that neither a request nor the work for it is counted by halves. */
static void drain(struct run *run)
{
    uint64_t end = load_now_ns() + DRAIN_NS;
    run->requests_left = 0;
    while (run->in_flight > 0) {
        wait_and_serve(run, 100);
        if (load_now_ns() > end) {
            load_fail("%" PRIu64 " replies have not come after %u s", run->in_flight,
                      (unsigned)(DRAIN_NS / 1000000000));
        }
    }
}

/* Sends so many requests, but nothing after `seconds` (0: no end); returns when all is answered. */
static void run_phase(struct run *run, uint64_t requests, double seconds)
{
    run->requests_left = requests;
    run->due_ns = (double)load_now_ns();
    start_free(run);
    if (seconds > 0) {
        serve_until(run, load_now_ns() + (uint64_t)(seconds * 1e9));
        drain(run);
        return;
    }
    while (run->requests_left > 0 || run->in_flight > 0) {
        wait_and_serve(run, -1);
    }
}

/* ---- Around it ------------------------------------------------------------------------------ */

static void start_timer(struct run *run)
{
    struct epoll_event e = {.events = EPOLLIN, .data.ptr = NULL};
    run->interval_ns = 1e9 * run->options->pipeline / run->options->rate;
    run->timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    if (run->timer < 0 || epoll_ctl(run->load.epoll, EPOLL_CTL_ADD, run->timer, &e) != 0) {
        load_fail("timerfd: %s", strerror(errno));
    }
}

static void connect_all(struct run *run)
{
    const struct load_options *o = run->options;
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
    }
    run->conns = calloc(o->clients, sizeof(struct conn *));
    run->idle = calloc(o->clients, sizeof(struct conn *));
    if (run->conns == NULL || run->idle == NULL) {
        load_fail("out of memory");
    }
    for (unsigned i = 0; i < o->clients; i++) {
        run->conns[i] = conn_open(&run->load);
        run->idle[i] = run->conns[i];
    }
    run->idle_count = o->clients;
    if (o->rate > 0) {
        start_timer(run);
    }
}

static void run_all(struct run *run)
{
    const struct load_options *o = run->options;
    uint64_t requests = UINT64_MAX;
    if (o->requests > 0) { /* whole pipelines */
        requests = (o->requests + o->pipeline - 1) / o->pipeline * o->pipeline;
    }
    if (o->warm_up > 0) {
        run_phase(run, UINT64_MAX, o->warm_up);
        forget_warm_up(&run->load.tally);
    }
    run->begin = this_moment(o);
    run_phase(run, requests, o->seconds);
    run->end = this_moment(o);
}

static double us_each(uint64_t ns, uint64_t requests)
{
    return requests > 0 ? (double)ns / 1e3 / (double)requests : 0;
}

static void print_row(const struct run *run)
{
    const struct tally *t = &run->load.tally;
    const struct latency *l = &t->latency;
    double seconds = (double)(run->end.ns - run->begin.ns) / 1e9;
    printf("requests=%" PRIu64 " gets=%" PRIu64 " sets=%" PRIu64 " nulls=%" PRIu64
           " errors=%" PRIu64 " wrong=%" PRIu64,
           t->requests, t->gets, t->sets, t->nulls, t->errors, t->wrong);
    printf(" position=%" PRIu64, run->load.data.at);
    printf(" seconds=%.4f per_second=%.1f mean_us=%.2f", seconds, (double)t->requests / seconds,
           us_each(l->sum_ns, l->count));
    printf(" p50_us=%.2f p90_us=%.2f p99_us=%.2f p999_us=%.2f max_us=%.2f",
           (double)latency_at(l, 0.5) / 1e3, (double)latency_at(l, 0.9) / 1e3,
           (double)latency_at(l, 0.99) / 1e3, (double)latency_at(l, 0.999) / 1e3,
           (double)l->max_ns / 1e3);
    printf(" own_cpu_us=%.4f", us_each(run->end.own_cpu_ns - run->begin.own_cpu_ns, t->requests));
    for (unsigned i = 0; i < run->options->pid_count; i++) {
        printf("%s%.4f", i == 0 ? " cpu_us=" : ",",
               us_each(run->end.cpu_ns[i] - run->begin.cpu_ns[i], t->requests));
    }
    putchar('\n');
    fflush(stdout);
}

static void await_end_of_input(void)
{
    char bytes[256];
    ssize_t n;
    do {
        n = read(STDIN_FILENO, bytes, sizeof(bytes));
    } while (n > 0 || (n < 0 && errno == EINTR));
}

int main(int argc, char **argv)
{
    struct load_options options = load_options_read(argc, argv);
    struct run *run = calloc(1, sizeof(*run));
    if (run == NULL) {
        load_fail("out of memory");
    }
    run->options = &options;
    load_init(&run->load, &options);
    connect_all(run);
    run_all(run);
    bool clean = run->load.tally.errors == 0 && run->load.tally.wrong == 0;
    print_row(run);
    if (options.hold) {
        await_end_of_input();
    }
    for (unsigned i = 0; i < options.clients; i++) {
        conn_close(run->conns[i]);
    }
    free(run->conns);
    free(run->idle);
    load_fini(&run->load);
    free(run);
    return clean ? 0 : 1;
}
