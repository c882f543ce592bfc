# SPDX-License-Identifier: Apache-2.0
"""The instruction gate: what a request costs in user-space instructions, whatever the machine does
besides.

Nearside runs under callgrind, which counts every instruction it executes, and answers a fixed number
of requests; then again with a larger number. The difference belongs to the requests alone. 16
clients with 16 requests in flight each, keys of 16 bytes, values of 64, one worker. glibc is told to
leave out what it has for particular CPUs, so that copying costs the same everywhere.
"""

import re
import subprocess

from generator import Generator
from servers import Failure, Servers, need

CLIENTS = 16
PIPELINE = 16
KEYS = 10240  # a multiple of what is in flight
FEW, MANY = 2560, 28160
ATTEMPTS = 3  # what else depends on time can only add to a count
TUNABLES = "glibc.cpu.hwcaps=-AVX_Fast_Unaligned_Load,-AVX2,-AVX512F,-AVX512VL,-ERMS,-FSRM"

# name, budget, limit, GETs in percent, keys, how many of them are met to warm up, settings. A count over its limit fails. A limit above the
# budget says what is reached so far, and goes down with it. A fill takes another entry's place: L1 has
# been full since the warm-up, and no key is met twice.
COSTS = [
    ("hit", 400, 400, 100, KEYS, KEYS, ["l1.max_memory=4mb"]),
    ("forwarded GET", 450, 450, 100, KEYS, KEYS, ["l1.max_memory=4mb", "invalidation.mode=off"]),
    ("forwarded SET", 450, 450, 0, KEYS, KEYS, ["l1.max_memory=4mb"]),
    ("fill", 1000, 1800, 100, 10 * KEYS, 4 * KEYS, ["l1.max_memory=4mb"]),
]


# What is done ten times a second whether anybody asks or not. Under callgrind, and more so beside other
# work, a request takes so long that this would be counted with it.
TIMER = re.compile(r"^\s*([\d,]+) \(.*proxy/worker\.c:on_tick", re.MULTILINE)


def total(path):
    """All instructions of a run but those of the timer."""
    with open(path, encoding="ascii", errors="replace") as profile:
        found = re.search(r"^(?:totals|summary): (\d+)", profile.read(), re.MULTILINE)
    listing = subprocess.run(["callgrind_annotate", "--inclusive=yes", "--threshold=100", path],
                             stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    timer = TIMER.search(listing.stdout)
    if found is None or timer is None:
        raise Failure("callgrind wrote no total, or no timer, to %s: %s" % (path, listing.stderr))
    return int(found.group(1)) - int(timer.group(1).replace(",", ""))


class Gate:
    """The servers of a run, and the programs to run."""

    def __init__(self, servers, binary, load):
        self.servers = servers
        self.binary = binary
        self.generator = Generator(load)
        self.redis = servers.redis("redis")
        self.generator.run(self.redis.tcp, "--fill", "-P", 32, "-k", 10 * KEYS)

    def run_once(self, cost, requests):
        """All instructions of a run with so many requests behind the warm-up."""
        name, _, _, gets, keys, warm, settings = cost
        profile = self.servers.path("callgrind")
        # Under callgrind everything is slow: a short lease would lapse.
        proxy = self.servers.nearside(
            "nearside", self.binary, self.redis.tcp,
            settings=["invalidation.link_lease=10s", *settings],
            prefix=["valgrind", "-q", "--tool=callgrind", "--callgrind-out-file=" + profile],
            environment={"GLIBC_TUNABLES": TUNABLES})
        shape = ["-c", CLIENTS, "-P", PIPELINE, "-k", keys, "-g", gets, "--order", "cycle"]
        row = self.generator.run(proxy.tcp, *shape, "-n", warm)
        connection = proxy.connect()
        before = connection.info("nearside")
        self.generator.run(proxy.tcp, *shape, "-n", requests, "--seed", 2, "--from",
                           int(row["position"]))
        judge_workload(name, requests, before, connection.info("nearside"))
        connection.close()
        if self.servers.stop(proxy) != 0:
            raise Failure("nearside under callgrind did not end by itself:\n" + proxy.says())
        return total(profile)

    def per_request(self, cost):
        best = None
        for _ in range(ATTEMPTS):
            few, many = (self.run_once(cost, n) for n in (FEW, MANY))
            each = (many - few) / (MANY - FEW)
            best = each if best is None else min(best, each)
            if best <= cost[2]:
                break
        return best


def judge_workload(name, requests, before, after):
    """Did the requests take the way that was to be counted?"""
    field = {"hit": "l1_hits", "fill": "l1_fills", "forwarded GET": "forwarded_reads",
             "forwarded SET": "forwarded_writes"}[name]
    rose = int(after[field]) - int(before[field])
    if rose != requests:
        raise Failure("%s: %d requests, but %s rose by %d" % (name, requests, field, rose))


def run(binary, load):
    """Prints a line for each cost and the result; returns the exit status."""
    need("valgrind", "test")
    need("callgrind_annotate", "test")
    failed = 0
    print("user-space instructions per request (callgrind), %d clients, %d in flight each, 64 B"
          % (CLIENTS, PIPELINE))
    with Servers() as servers:
        gate = Gate(servers, binary, load)
        for cost in COSTS:
            name, budget, limit = cost[:3]
            each = gate.per_request(cost)
            verdict = "OVER THE LIMIT" if each > limit else "over budget" if each > budget else "ok"
            failed += each > limit
            print("  %-14s %7.1f   budget %5d   limit %5d   %s"
                  % (name, each, budget, limit, verdict), flush=True)
    print("result: bench-gate: %d passed, %d failed, 0 skipped" % (len(COSTS) - failed, failed))
    return 1 if failed else 0
