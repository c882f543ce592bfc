# SPDX-License-Identifier: Apache-2.0
"""What the comparison says, as Markdown: ratios to Redis direct in the same visit, median and spread
over the rounds, and how far that is from what Nearside is to reach."""

import os
import platform
import statistics
import subprocess
import time

from compare import CEILINGS, PIPELINES, SIZES, TRANSPORTS

# Of a member's row and of Redis's in the same visit. CPU: how much less it takes than Redis. The
# others: it / Redis.
METRICS = {
    "cpu": lambda row, redis: redis["cpu_us"][0] / row["cpu_us"][0],
    "backend": lambda row, redis: row["cpu_us"][1] / redis["cpu_us"][0],
    "rate": lambda row, redis: row["per_second"] / redis["per_second"],
    "p50": lambda row, redis: row["p50_us"] / redis["p50_us"],
    "p99": lambda row, redis: row["p99_us"] / redis["p99_us"],
    "p999": lambda row, redis: row["p999_us"] / redis["p999_us"],
}

# What is to be reached: group, member, transport, size, P, metric, "least" or "most", bound.
TARGETS = [
    *[("GET", "hit", "tcp", 64, p, "cpu", "least", b)
      for p, b in zip(PIPELINES, (1.2, 2.8, 5.5, 8.5))],
    *[("GET", "hit", "tcp", 1024, p, "cpu", "least", b)
      for p, b in zip(PIPELINES, (1.12, 2.6, 4.2, 5.2))],
    *[("GET", "forwarded GET", "tcp", 64, p, "cpu", "least", b)
      for p, b in zip(PIPELINES, (1.0, 2.0, 4.0))],
    *[("SET", "forwarded SET", "tcp", 64, p, "cpu", "least", b)
      for p, b in zip(PIPELINES, (1.0, 1.85, 3.0))],
    *[("GET", "fill", "tcp", 64, p, "cpu", "least", b)
      for p, b in zip(PIPELINES, (0.9, 1.5, 2.3))],
    ("GET", "forwarded GET", "tcp", 64, 1, "backend", "most", 0.36),
    ("GET", "fill", "tcp", 64, 1, "backend", "most", 0.50),
    ("one GET", "hit", "tcp", 64, 1, "p50", "most", 1.05),
    ("one GET", "fill", "tcp", 64, 1, "p50", "most", 2.1),
    ("one GET", "forwarded GET", "tcp", 64, 1, "p50", "most", 2.1),
    ("one SET", "forwarded SET", "tcp", 64, 1, "p50", "most", 2.1),
    ("one EVAL", "EVAL", "tcp", 64, 1, "p50", "most", 3.0),
    ("one mix", "90 % GET, 10 % SET", "tcp", 64, 64, "rate", "least", 1.0),
]
UNIX_TARGET = 2.2  # CPU of a hit over Unix sockets, P=1, against Redis over TCP

METRIC_NAMES = {"cpu": "CPU, Redis / it", "backend": "CPU of the Redis behind it / Redis",
                "rate": "requests per second, it / Redis", "p50": "p50, it / Redis"}


def figure(value):
    return "%.0f" % value if value >= 100 else "%.1f" % value if value >= 10 else "%.2f" % value


def spread(values):
    """1.23 [1.10-1.31]: the median, and the lowest and the highest."""
    if not values:
        return ""
    return "%s [%s-%s]" % tuple(map(figure, (statistics.median(values), min(values), max(values))))


def table(head, rows):
    lines = ["| %s |" % " | ".join(head), "|%s" % ("---|" * len(head))]
    return "\n".join(lines + ["| %s |" % " | ".join(row) for row in rows])


def size_name(size):
    return "%d KiB" % (size // 1024) if size >= 1024 else "%d B" % size


def absolute(samples, key, value):
    rows = samples.rows.get(key, ())
    return spread([value(row) for row in rows])


def redis_row(samples, key, name):
    return [name, str(key[4]), absolute(samples, key, lambda r: r["cpu_us"][0]) + " us", "",
            absolute(samples, key, lambda r: r["per_second"] / 1000) + " k/s",
            *[absolute(samples, key, lambda r, m=m: r[m + "_us"]) + " us"
              for m in ("p50", "p99", "p999")]]


def detail(samples, transport, size):
    """All that was measured over a transport with a size."""
    rows = []
    for group in ("GET", "SET"):
        for pipeline in PIPELINES:
            key = (group, "Redis", transport, size, pipeline)
            rows.append(redis_row(samples, key, "**Redis %s**" % group))
            for member in samples.members(group)[1:]:
                key = (group, member, transport, size, pipeline)
                rows.append([member, str(pipeline)] + [
                    spread(samples.ratios(key, METRICS[m])) for m in METRICS])
    return table(["", "P", "CPU: Redis / it", "CPU of the Redis behind: it / Redis",
                  "requests/s: it / Redis", "p50: it / Redis", "p99", "p99.9"], rows)


def summary(samples, transport, size):
    """CPU alone."""
    rows = []
    for group in ("GET", "SET"):
        rows.append(["Redis %s, us" % group] + [
            absolute(samples, (group, "Redis", transport, size, p), lambda r: r["cpu_us"][0])
            for p in PIPELINES])
        for member in samples.members(group)[1:]:
            rows.append([member] + [
                spread(samples.ratios((group, member, transport, size, p), METRICS["cpu"]))
                for p in PIPELINES])
    return table([""] + ["P=%d" % p for p in PIPELINES], rows)


def ceilings(samples, size):
    """How near it is to the least that an epoll program does."""
    rows = []
    for member, bare in CEILINGS.items():
        group = member[-3:] if member[-3:] == "SET" else "GET"
        rows.append([member] + [
            spread(samples.ratios((group, member, "tcp", size, p), METRICS["cpu"],
                                  (group, bare, "tcp", size, p))) for p in PIPELINES])
    return table([""] + ["P=%d" % p for p in PIPELINES], rows)


def across(samples):
    """Hits over Unix sockets against Redis over TCP."""
    rows = []
    for size in SIZES:
        rows.append(["hit over Unix sockets, %s" % size_name(size)] + [
            spread(samples.ratios(("GET", "hit", "unix", size, p), METRICS["cpu"],
                                  ("GET", "Redis", "tcp", size, p))) for p in PIPELINES])
    return table([""] + ["P=%d" % p for p in PIPELINES], rows)


def single(samples):
    rows = []
    for group in ("one GET", "one SET", "one EVAL", "one mix"):
        pipeline = 64 if group == "one mix" else 1
        key = (group, "Redis", "tcp", 64, pipeline)
        rows.append(redis_row(samples, key, "**Redis, %s**" % group))
        for member in samples.members(group)[1:]:
            key = (group, member, "tcp", 64, pipeline)
            rows.append([member, str(pipeline)] + [spread(samples.ratios(key, METRICS[m]))
                                                   for m in METRICS])
    return table(["", "P", "CPU: Redis / it", "CPU of the Redis behind: it / Redis",
                  "requests/s: it / Redis", "p50: it / Redis", "p99", "p99.9"], rows)


def otherwise(samples):
    rows = []
    for group in ("GET redis-benchmark", "SET redis-benchmark"):
        for pipeline in PIPELINES:
            for member in samples.members(group)[1:]:
                key = (group, member, "tcp", 64, pipeline)
                rows.append([member, str(pipeline)] + [spread(samples.ratios(key, METRICS[m]))
                                                       for m in ("cpu", "rate", "p50", "p99")])
    return table(["", "P", "CPU: Redis / it", "requests/s: it / Redis", "p50: it / Redis", "p99"],
                 rows)


def verdict(values, sense, bound):
    if not values:
        return "not measured"
    median = statistics.median(values)
    good = median >= bound if sense == "least" else median <= bound
    best = max(values) if sense == "least" else min(values)
    if good:
        return "reached"
    close = best >= bound if sense == "least" else best <= bound
    return "missed by %.0f %%%s" % (abs(median / bound - 1) * 100,
                                    ", reached in some rounds" if close else "")


def targets(samples):
    rows = []
    for group, member, transport, size, pipeline, metric, sense, bound in TARGETS:
        values = samples.ratios((group, member, transport, size, pipeline), METRICS[metric])
        clients = "one client" if group.startswith("one ") else "50 clients"
        rows.append(["%s, %s, %s, P=%d" % (member, size_name(size), clients, pipeline),
                     METRIC_NAMES[metric], "%s %s" % ("at least" if sense == "least" else "at most",
                                                      bound), spread(values),
                     verdict(values, sense, bound)])
    values = samples.ratios(("GET", "hit", "unix", 64, 1), METRICS["cpu"],
                            ("GET", "Redis", "tcp", 64, 1))
    rows.append(["hit over Unix sockets, 64 B, 50 clients, P=1", "CPU, Redis over TCP / it",
                 "at least %s" % UNIX_TARGET, spread(values), verdict(values, "least", UNIX_TARGET)])
    return table(["what", "measure", "target", "median [spread]", ""], rows)


def first_line(*command):
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return (done.stdout + done.stderr).strip().split("\n")[0]


def machine():
    """Where and what was measured."""
    model = "unknown CPU"
    with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as info:
        for line in info:
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
                break
    return ["%s, %d of %d CPUs usable, Linux %s" % (
                model, len(os.sched_getaffinity(0)), os.cpu_count(), platform.release()),
            first_line("redis-server", "--version")]


METHOD = """\
Servers and proxies run on CPU {server}, one at a time under load; the load generator and the Redis behind
a proxy on CPU {other}. {clients} connections, {keys} keys of 16 bytes, each asked for as often, closed
loop: a client sends P requests in one piece and awaits all replies. Each measurement takes {seconds} s
behind a warm-up of a quarter of that. All that is compared was measured one right after the other, and
again in each of {rounds} rounds; a ratio is taken within such a visit, and what stands here is the median
of these ratios, with the lowest and the highest in brackets.

CPU is user and system time of the whole server process per request, read from its CPU clock; the
kernel's work on sockets is in it. It hardly depends on what else the machine does, which rates and
latencies do. **hit**: answered from L1. **fill**: a GET that misses (1,000,000 keys in a
cycle, of which L1 holds a few), so GET and PTTL on a tracked connection, kept, something else evicted, answered. **forwarded
GET**: `invalidation.mode = off`. **forwarded SET**: default settings. One worker. **bare**: the least that an epoll
program does to answer GETs from a table or to send requests on over one connection, and nothing else
(`tests/bench/ceiling.c`); over TCP. That the counters
of Nearside say the same is checked for every measurement of a GET."""


def write(samples, field, seconds, version):
    """The whole report."""
    parts = ["# Nearside %s beside Redis" % version,
             "%s. %s" % (time.strftime("%Y-%m-%d"), "; ".join(
                 machine() + [first_line("nutcracker", "--version").removeprefix("This is ")])) + ".",
             METHOD.format(server=field.server_cpu, other=field.other_cpu, clients=50, keys=100000,
                           seconds=seconds, rounds=samples.rounds),
             "## Targets", targets(samples)]
    parts += ["## CPU per request over TCP: Redis / it (above 1: cheaper than Redis)"]
    for size in SIZES:
        parts += ["Values of %s:" % size_name(size), summary(samples, "tcp", size),
                  "CPU of the bare program / it:", ceilings(samples, size)]
    parts += ["## Hits over Unix sockets against Redis over TCP: CPU, Redis / it", across(samples),
              "## One client", single(samples)]
    for transport in TRANSPORTS:
        for size in SIZES:
            parts += ["## All figures over %s, values of %s" % (
                "TCP" if transport == "tcp" else "Unix sockets", size_name(size)),
                detail(samples, transport, size)]
    parts += ["## The same with redis-benchmark (TCP, 64 B)",
              "Its own CPU clock readings hold the connecting too.", otherwise(samples)]
    return "\n\n".join(parts) + "\n"
