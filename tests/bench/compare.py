# SPDX-License-Identifier: Apache-2.0
"""Nearside beside Redis itself and twemproxy.

A *group* is one shape of load: GETs or SETs, so many clients, so many requests in flight, values of a
size, over TCP or Unix sockets. All members of a group are measured one right after the other, Redis
among them, and what is reported are ratios within such a visit. A round visits all groups; the rounds
tell the spread.
"""

import os
import time

from generator import Generator, RedisBenchmark
from servers import HOST, Failure, free_port, need

CLIENTS = 50
PIPELINES = (1, 16, 64, 256)
SIZES = (64, 1024)
TRANSPORTS = ("tcp", "unix")
KEYS = 100000
# Ranges of keys, (the first, how many), so that what one workload writes is not what another reads. What
# fills reads is several times what its L1 holds.
READ = {64: (0, KEYS), 1024: (1000000, KEYS)}
FILLED = {64: (2000000, 10 * KEYS), 1024: READ[1024]}
WRITTEN = {64: (4000000, KEYS), 1024: (5000000, KEYS)}
MIXED = (6000000, 1000)
EVAL = "EVAL return(redis.call('get',KEYS[1])) 1 {key}"

# What a Nearside is for: its settings; a counter that rises by one with each of its GETs, and one that
# does not. The long lease keeps a machine with other work to do from turning hits into misses.
NEARSIDES = {
    "hit": (["l1.max_memory=512mb", "l1.ttl=24h", "invalidation.link_lease=10s"], "l1_hits",
            "l1_misses"),
    "forwarded": (["invalidation.mode=off"], "forwarded_reads", "l1_hits"),
    "fill": (["l1.max_memory=32mb"], "l1_fills", "l1_hits"),
}

# Who is measured in a group, and what it is measured on.
GETS = {"Redis": "redis", "hit": "hit", "fill": "fill", "forwarded GET": "forwarded",
        "twemproxy GET": "nutcracker"}
SETS = {"Redis": "redis", "forwarded SET": "hit", "twemproxy SET": "nutcracker"}
# The least that an epoll program does (ceiling.c), over TCP, and whose ceiling it is.
BARE_GETS = {"bare hit": "ceiling-hit", "bare GET": "ceiling-forward"}
BARE_SETS = {"bare SET": "ceiling-forward"}
CEILINGS = {"hit": "bare hit", "forwarded GET": "bare GET", "forwarded SET": "bare SET"}


class Group:
    """A shape of load, and its members."""

    def __init__(self, name, transport, size, pipeline, members, options, clients=CLIENTS):
        self.name = name
        self.transport = transport
        self.size = size
        self.pipeline = pipeline
        self.members = members
        self.options = ["-c", clients, "-P", pipeline, "-d", size, *options]

    def key(self, member):
        return (self.name, member, self.transport, self.size, self.pipeline)

    def keys(self, kind):
        """The range of keys, and whether each is met in turn."""
        if self.name == "one mix":
            return MIXED, False
        if not self.name.endswith("GET"):
            return WRITTEN[self.size], True
        return (FILLED if kind == "fill" else READ)[self.size], True


def all_groups():
    """What matters most comes first: a short run on a slow machine may not come to the end."""
    for size in SIZES:
        for transport in TRANSPORTS:
            gets = {**GETS, **BARE_GETS} if transport == "tcp" else GETS
            sets = {**SETS, **BARE_SETS} if transport == "tcp" else SETS
            for pipeline in PIPELINES:
                yield Group("GET", transport, size, pipeline, gets, [])
                yield Group("SET", transport, size, pipeline, sets, ["-g", 0])
            if (size, transport) == (64, "tcp"):
                yield from single_groups()


def single_groups():
    """One client, as most connections are."""
    yield Group("one GET", "tcp", 64, 1, GETS, [], 1)
    yield Group("one SET", "tcp", 64, 1, SETS, ["-g", 0], 1)
    yield Group("one EVAL", "tcp", 64, 1, {"Redis": "redis", "EVAL": "hit"}, ["--command", EVAL], 1)
    yield Group("one mix", "tcp", 64, 64, {"Redis": "redis", "90 % GET, 10 % SET": "hit"},
                ["--order", "zipf", "-g", 90, "--sliding"], 1)


def other_groups():
    """What redis-benchmark measures too, with keys of its own choice."""
    for pipeline in PIPELINES:
        for name, members in (("GET", GETS), ("SET", SETS)):
            yield Group(name + " redis-benchmark", "tcp", 64, pipeline, {
                member: kind for member, kind in members.items()
                if member not in ("fill", "forwarded GET")}, [])


def counters(server):
    connection = server.connect()
    info = connection.info("nearside")
    connection.close()
    return {name: int(value) for name, value in info.items() if value.isdigit()}


class Field:
    """The servers. What is measured has one CPU; what stands behind a proxy, and the generator,
    another."""

    def __init__(self, servers, nearside, load, ceiling):
        cpus = sorted(os.sched_getaffinity(0))
        self.servers = servers
        self.server_cpu, self.other_cpu = cpus[0], cpus[-1]
        self.generator = Generator(load, self.other_cpu)
        self.redis_benchmark = RedisBenchmark(self.other_cpu)
        self.redis = servers.redis("redis", self.server_cpu)
        self.backend = servers.redis("backend", self.other_cpu)
        self.nutcracker = self.start_nutcracker()
        self.ceilings = {"ceiling-" + kind: servers.ceiling(kind, ceiling, self.backend.tcp,
                                                            self.server_cpu)
                         for kind in ("hit", "forward")}
        self.nearsides = {}
        self.positions = {}  # (server, first key) -> where in the cycle of keys it is
        for kind, (settings, _, _) in NEARSIDES.items():
            for transport in TRANSPORTS:
                upstream = getattr(self.backend, transport)
                self.nearsides[kind, transport] = servers.nearside(
                    "nearside-%s-%s" % (kind, transport), nearside, upstream, self.server_cpu,
                    settings)
        self.prime()

    def start_nutcracker(self):
        """twemproxy, once over TCP and once over Unix sockets all the way."""
        binary = need("nutcracker", "bench")
        tcp, unix = "%s:%d" % (HOST, free_port()), self.servers.path("nutcracker.sock")
        pool = ("%s:\n  listen: %s\n  redis: true\n  hash: fnv1a_64\n  distribution: ketama\n"
                "  preconnect: true\n  auto_eject_hosts: false\n  servers:\n   - %s\n")
        conf = self.servers.path("nutcracker.yml")
        with open(conf, "w", encoding="ascii") as file:
            file.write(pool % ("tcp", tcp, self.backend.tcp + ":1"))
            file.write(pool % ("unix", unix + " 0600", self.backend.unix[5:] + ":1 backend"))
        command = [binary, "-c", conf, "-a", HOST, "-s", str(free_port())]
        return self.servers.start("nutcracker", command, tcp, "unix:" + unix, self.server_cpu)

    def prime(self):
        """Every key exists, and what should hit is in L1."""
        for redis in (self.redis, self.backend):
            for ranges in (READ, FILLED, WRITTEN, {64: MIXED}):
                for size, (first, keys) in ranges.items():
                    self.generator.run(redis.tcp, "--fill", "-P", 64, "-d", size, "-k", keys,
                                       "--first-key", first)
        for transport in TRANSPORTS:
            for size in SIZES:
                self.warm("hit", transport, size)
            self.warm("fill", transport, SIZES[0])
        for size in SIZES:
            self.warm("ceiling-hit", "tcp", size)

    def warm(self, kind, transport, size):
        first, keys = READ[size]
        self.generator.run(self.server(kind, transport).tcp, "-k", keys, "--first-key", first,
                           "--order", "cycle", "-d", size, "-P", 64, "-n", keys)

    def server(self, kind, transport):
        if kind in NEARSIDES:
            return self.nearsides[kind, transport]
        if kind in self.ceilings:
            return self.ceilings[kind]
        return self.redis if kind == "redis" else self.nutcracker

    def pids(self, kind, server):
        return [server.pid] if kind == "redis" else [server.pid, self.backend.pid]

    def load(self, group, kind, seconds, seed):
        """A row."""
        server = self.server(kind, group.transport)
        (first, keys), in_turn = group.keys(kind)
        options = [*group.options, "-k", keys, "--first-key", first, "--seed", seed]
        if in_turn:
            options += ["--order", "cycle", "--from", self.positions.get((server, first), 0)]
        row = self.generator.run(getattr(server, group.transport), *options, "-t", seconds, "-w",
                                 seconds / 4, pids=self.pids(kind, server))
        if in_turn:
            self.positions[server, first] = int(row["position"])
        return row

    def measure(self, group, member, seconds, seed):
        """A row. A Nearside that was not doing what it is for is measured again."""
        kind = group.members[member]
        if kind not in NEARSIDES or not group.name.endswith("GET"):
            return self.load(group, kind, seconds, seed)
        server = self.server(kind, group.transport)
        for _ in range(3):
            before = counters(server)
            row = self.load(group, kind, seconds, seed)
            after = counters(server)
            done, other = (after[name] - before[name] for name in NEARSIDES[kind][1:])
            # 12,800 fills at once are more than so small an L1 has room for: some are plain reads
            enough = 0.5 if kind == "fill" else 0.98
            if done >= enough * row["requests"] and other <= 0.02 * row["requests"]:
                return row
            self.warm(kind, group.transport, group.size)
        raise Failure("%s: %d requests, but %s rose by %d and %s by %d" % (
            member, row["requests"], NEARSIDES[kind][1], done, NEARSIDES[kind][2], other))

    def measure_otherwise(self, group, member):
        """The same with redis-benchmark."""
        kind = group.members[member]
        server = self.server(kind, group.transport)
        sets = group.name.startswith("SET")
        words = ["SET", "bench:__rand_int__", "x" * group.size] if sets else ()
        return self.redis_benchmark.run(server.tcp, group.pipeline, KEYS, words,
                                        self.pids(kind, server))


class Samples:
    """Rows by key (Group.key), one for each round."""

    def __init__(self):
        self.rows = {}
        self.rounds = 0

    def add(self, key, row):
        self.rows.setdefault(key, []).append(row)

    def members(self, name):
        """Of all groups of the name, in their order."""
        return list(dict.fromkeys(key[1] for key in self.rows if key[0] == name))

    def ratios(self, key, metric, base=None):
        """metric(the member's row, Redis's row) of every round. `base`: Redis's key, if it is not of
        the same group."""
        base = base or (key[0], "Redis", *key[2:])
        return [metric(row, direct) for row, direct in zip(self.rows.get(key, ()),
                                                           self.rows.get(base, ()))]


def visit(samples, group, measure):
    """Measures the members one after the other, each round beginning with another one."""
    members = list(group.members)
    first = samples.rounds % len(members)
    rows = {member: measure(group, member) for member in members[first:] + members[:first]}
    for member in members:
        samples.add(group.key(member), rows[member])


def run(field, end, seconds, say):
    """Rounds until the time (monotonic) is `end`, so many seconds for each measurement; returns the
    samples. Only the first round may remain incomplete."""
    samples = Samples()
    groups, others = list(all_groups()), list(other_groups())

    def measure(group, member):
        return field.measure(group, member, seconds, samples.rounds + 1)

    while True:
        began = time.monotonic()
        for group in groups:
            visit(samples, group, measure)
            if samples.rounds == 0 and time.monotonic() > end:
                say("the time is over before everything was measured once")
                samples.rounds = 1
                return samples
        took = time.monotonic() - began
        for group in others if samples.rounds % 4 == 0 else ():
            if time.monotonic() < end:
                visit(samples, group, field.measure_otherwise)
        samples.rounds += 1
        say("round %d took %.0f s" % (samples.rounds, time.monotonic() - began))
        if time.monotonic() + took > end:
            return samples
