# SPDX-License-Identifier: Apache-2.0
"""How the cost grows: with clients, keys, the size of values, workers, sidecars. Each part starts
servers of its own and returns Markdown. Ratios are to Redis direct, both measured in turns."""

import os
import resource
import subprocess
import time

from compare import counters
from generator import Generator, parse_row
from report import figure, size_name, spread, table
from servers import Failure, Servers, cpu_ns, memory_kb

ROUNDS = 3
SECONDS = 0.4
VALUE = 64
# So that a machine with other work to do does not turn hits into misses.
LEASE = "invalidation.link_lease=10s"


class Rig:
    """Redis, and Nearsides before it, each on its CPU."""

    def __init__(self, servers, nearside, load, *redis_options):
        cpus = sorted(os.sched_getaffinity(0))
        self.servers, self.binary, self.load_binary = servers, nearside, load
        self.server_cpu, self.other_cpu = cpus[0], cpus[-1]
        self.generator = Generator(load, self.other_cpu)
        # One Redis is enough: it is idle while L1 answers.
        self.redis = servers.redis("redis", self.server_cpu, *redis_options)

    def nearside(self, name, *settings, cpu=True):
        """On the servers' CPU; cpu=None: on any."""
        return self.servers.nearside(name, self.binary, self.redis.tcp,
                                     self.server_cpu if cpu is True else cpu, (LEASE, *settings))

    def fill(self, keys, size=VALUE):
        self.generator.run(self.redis.tcp, "--fill", "-P", 64 if size < 65536 else 1, "-c",
                           16 if size < 65536 else 2, "-k", keys, "-d", size)

    def warm(self, server, keys, size=VALUE):
        """Until a pass over the keys is all hits: what one pass found lost is in L1 after the next.
        Nothing is kept before the link for invalidations is up."""
        deadline = time.monotonic() + 10
        while not counters(server)["invalidation_link_up"] and time.monotonic() < deadline:
            time.sleep(0.01)
        for _ in range(5):
            before = counters(server)
            self.generator.run(server.tcp, "--order", "cycle", "-k", keys, "-n", keys, "-d", size,
                               "-P", 32 if size < 65536 else 1, "-c", 16 if size < 65536 else 2)
            after = counters(server)
            if after["l1_hits"] - before["l1_hits"] >= 0.99 * keys:
                return
        raise Failure("%d keys of %d B do not stay in L1: %s" % (keys, size, after))

    def turns(self, members, *options):
        """member -> one row per round. `members`: name -> server."""
        rows = {name: [] for name in members}
        for turn in range(ROUNDS):
            for name, server in members.items():
                rows[name].append(self.generator.run(
                    server.tcp, *options, "-t", SECONDS, "-w", SECONDS / 4, "--seed", turn + 1,
                    pids=[server.pid]))
        return rows


def cpu(rows):
    return [row["cpu_us"][0] for row in rows]


def ratio(upper, lower):
    return spread([a / b for a, b in zip(upper, lower)])


def of_clients(nearside, load):
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    lines = []
    with Servers() as servers:
        rig = Rig(servers, nearside, load)
        proxy = rig.nearside("nearside", "l1.ttl=24h", "proxy.max_clients=20000")
        rig.fill(10000)
        rig.warm(proxy, 10000)
        for clients in (1, 10, 100, 1000, 10000):
            if clients + 100 > limit:
                lines.append([str(clients), "not measured: at most %d descriptors" % limit] + [""] * 3)
                continue
            rows = rig.turns({"Redis": rig.redis, "hit": proxy}, "-c", clients, "-k", 10000)
            lines.append(["%d" % clients, spread(cpu(rows["Redis"])) + " us",
                          ratio(cpu(rows["Redis"]), cpu(rows["hit"])),
                          ratio([r["p50_us"] for r in rows["hit"]],
                                [r["p50_us"] for r in rows["Redis"]]),
                          ratio([r["p99_us"] for r in rows["hit"]],
                                [r["p99_us"] for r in rows["Redis"]])])
    return "Hits, 64 B, P=1, one worker.\n\n" + table(
        ["clients", "Redis: CPU per request", "CPU: Redis / it", "p50: it / Redis", "p99"], lines)


def memory_available():
    with open("/proc/meminfo", encoding="ascii") as info:
        for line in info:
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return 0


def of_keys(nearside, load):
    lines = []
    for keys in (1000, 10000, 100000, 1000000, 10000000):
        if keys * 500 > memory_available():
            lines.append(["%d" % keys, "not measured: %d MB of memory are wanted"
                          % (keys * 500 >> 20)] + [""] * 2)
            continue
        with Servers() as servers:
            # Tracking has to remember all of them: Redis's default limit is a million keys.
            rig = Rig(servers, nearside, load, "--tracking-table-max-keys", "0")
            room = max(64, keys * 200 >> 20)
            proxy = rig.nearside("nearside", "l1.ttl=24h", "l1.max_memory=%dmb" % room)
            rig.generator.run(proxy.tcp, "-n", 3200, "-P", 32, "-k", 1)  # buffers are there now
            before = memory_kb(proxy.pid)
            rig.fill(keys)
            rig.warm(proxy, keys)
            each = (memory_kb(proxy.pid) - before) * 1024 / keys
            rows = rig.turns({"Redis": rig.redis, "hit": proxy}, "-P", 16, "-k", keys)
            lines.append(["%d" % keys, spread(cpu(rows["Redis"])) + " us",
                          ratio(cpu(rows["Redis"]), cpu(rows["hit"])), "%.0f B" % each])
    return "Hits, 64 B, P=16, 50 clients, every key as likely. Resident memory per item of 16 + 64 B.\n\n" \
        + table(["keys", "Redis: CPU per request", "CPU: Redis / it", "memory per item"], lines)


def of_values(nearside, load):
    lines = []
    with Servers() as servers:
        rig = Rig(servers, nearside, load)
        hit = rig.nearside("hit", "l1.ttl=24h", "l1.max_memory=1gb", "l1.max_item_size=64mb")
        forwarded = rig.nearside("forwarded", "invalidation.mode=off")
        connection = rig.redis.connect()
        for size in (1, 64, 1024, 16384, 131072, 1 << 20, 10 << 20):
            connection.call("FLUSHALL")
            keys = max(10, min(100000, (128 << 20) // size))
            clients = 50 if size < 131072 else 4
            rig.fill(keys, size)
            rig.warm(hit, keys, size)
            options = ["-c", clients, "-k", keys, "-d", size]
            rows = rig.turns({"Redis": rig.redis, "hit": hit, "forwarded": forwarded}, *options)
            sets = rig.turns({"Redis": rig.redis, "forwarded": forwarded}, *options, "-g", 0)
            lines.append([size_name(size) if size < 1 << 20 else "%d MiB" % (size >> 20),
                          str(clients), spread(cpu(rows["Redis"])) + " us",
                          ratio(cpu(rows["Redis"]), cpu(rows["hit"])),
                          ratio(cpu(rows["Redis"]), cpu(rows["forwarded"])),
                          ratio(cpu(sets["Redis"]), cpu(sets["forwarded"]))])
        connection.close()
    return "P=1. The Redis behind it shares the CPU of what is measured here.\n\n" + table(
        ["value", "clients", "Redis GET: CPU", "hit: Redis / it", "forwarded GET", "forwarded SET"],
        lines)


def of_workers(nearside, load):
    with Servers() as servers:
        rig = Rig(servers, nearside, load)
        rig.fill(100000)
        members = {}
        for workers in (1, 2, 4):
            proxy = rig.nearside("%d" % workers, "l1.ttl=24h", "proxy.workers=%d" % workers, cpu=None)
            rig.warm(proxy, 100000)
            members[workers] = proxy
        rows = {p: rig.turns(members, "-P", p, "-k", 100000) for p in (1, 16, 64)}
    lines = [["%d" % workers] + [ratio(cpu(rows[p][workers]), cpu(rows[p][1])) for p in (1, 16, 64)]
             for workers in (2, 4)]
    return "CPU per hit against one worker's in the same round, 64 B, 50 clients; the workers run " \
        "wherever the kernel puts them, on %d CPUs.\n\n" % len(os.sched_getaffinity(0)) \
        + table(["workers", "P=1", "P=16", "P=64"], lines)


FLEET = (0, 1, 2, 5, 10, 20)
FLEET_KEYS = 5000


def of_fleet(nearside, load):
    """Sidecars that all hold the same keys: what Redis pays for telling them."""
    lines = []
    for mode in ("tracking", "redirect", "broadcast", "keyspace"):
        with Servers() as servers:
            rig = Rig(servers, nearside, load, "--notify-keyspace-events",
                      "KEA" if mode == "keyspace" else "")
            rig.fill(FLEET_KEYS)
            control = rig.redis.connect()
            fleet, cells = [], []
            for size in FLEET:
                while len(fleet) < size:
                    fleet.append(rig.nearside("nearside%d" % len(fleet), "invalidation.mode=" + mode,
                                              cpu=rig.other_cpu))
                cells.append(fleet_cell(rig, control, fleet))
            control.close()
        lines.append([mode, figure(cells[0][0]) + " us"] + [
            "+%s us, %.0f B" % (figure(max(us - cells[0][0], 0)), max(held - cells[0][1], 0))
            for us, held in cells[1:]])
    return ("Redis's CPU per SET (one client, P=1) of a key that all sidecars hold: without sidecars, and what"
            " they add; and the memory that holding a key adds in Redis. One worker each.\n\n") \
        + table(["mode", "no sidecar"] + ["%d" % n for n in FLEET[1:]], lines)


def fleet_cell(rig, control, fleet):
    """CPU of a SET in us, and bytes of the tracking table per key."""
    used = int(control.info("memory")["used_memory"])
    for sidecar in fleet:
        rig.warm(sidecar, FLEET_KEYS)
    held = (int(control.info("memory")["used_memory"]) - used) / FLEET_KEYS
    begin = cpu_ns(rig.redis.pid)
    rig.generator.run(rig.redis.tcp, "-c", 1, "-g", 0, "-k", FLEET_KEYS, "--order", "cycle", "-n",
                      FLEET_KEYS)
    return (cpu_ns(rig.redis.pid) - begin) / FLEET_KEYS / 1000, held


def settled_kb(pid):
    """Resident memory once it has not shrunk for two seconds."""
    least, since = memory_kb(pid), time.monotonic()
    while time.monotonic() - since < 2:
        time.sleep(0.1)
        now = memory_kb(pid)
        if now < least:
            least, since = now, time.monotonic()
    return least


def of_connections(nearside, load, clients=10000):
    """10,000 clients that have been served and are idle now."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    clients = min(clients, limit - 200)
    lines = []
    with Servers() as servers:
        rig = Rig(servers, nearside, load)
        rig.fill(1000)
        for name, settings, options in (
                ("GETs that hit, P=1", (), ["-P", 1]),
                ("GETs that hit, P=16", (), ["-P", 16]),
                ("SETs, P=16", (), ["-P", 16, "-g", 0]),
                ("forwarded GETs, P=16", ("invalidation.mode=off",), ["-P", 16])):
            proxy = rig.nearside("nearside", "proxy.max_clients=%d" % (clients + 100), *settings)
            if "hit" in name:
                rig.warm(proxy, 1000)
            rig.generator.run(proxy.tcp, "-n", 20000, "-P", 16, "-k", 1000)
            before = settled_kb(proxy.pid)
            idle = subprocess.Popen(
                [load, "--hold", "-c", str(clients), "-n", str(clients * 32), "-k", "1000",
                 *map(str, options), proxy.tcp], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                stderr=subprocess.PIPE, text=True)
            line = idle.stdout.readline()
            if not line:
                raise Failure("load ended: %s" % idle.communicate()[1])
            row = parse_row(line)
            connected = counters(proxy)["clients_connected"]
            each = (settled_kb(proxy.pid) - before) * 1024 / clients
            idle.communicate()
            lines.append([name, "%d" % (connected - 1), "%d" % row["requests"], "%.0f B" % each])
            servers.stop(proxy)
    return "Resident memory per connection that is idle after 32 requests.\n\n" + table(
        ["after", "connections", "requests", "memory per connection"], lines)


PARTS = {
    "clients": ("Clients", of_clients),
    "connections": ("Idle connections", of_connections),
    "keys": ("Keys, and memory per item", of_keys),
    "values": ("Size of values", of_values),
    "workers": ("Workers", of_workers),
    "fleet": ("Sidecars in a fleet", of_fleet),
}


def run(nearside, load, names, say):
    """Markdown of the parts, all of them if none is named, and whether all could be measured."""
    texts, whole = [], True
    for name in names or PARTS:
        title, part = PARTS[name]
        say("measuring: " + title)
        try:
            text = part(nearside, load)
        except Failure as failure:
            say("%s: %s" % (name, failure))
            text, whole = "Not measured: %s" % str(failure).split("\n", maxsplit=1)[0], False
        texts += ["## " + title, text]
    return "\n\n".join(texts) + "\n", whole
