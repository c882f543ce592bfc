#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What changes is seen: behind every command that Redis executes, Nearside answers what Redis does.

All keys are read through Nearside, so that L1 has them; a command of the tables is executed; all keys
are read again. Commands come in three ways: to Redis directly, where the change must be seen soon; and
through another client of Nearside, alone or in a transaction, where it must be seen behind the reply.
What Redis announces to nobody is left out of the first (docs/promise.md).

    tests/differential/follow.py                   half a minute, new seeds
    tests/differential/follow.py --cluster         the same with a cluster
    tests/differential/follow.py --seed 12345      this case again
"""

import argparse
import os
import random
import sys
import time

from execute import reset
from generator import BLOCKING, Generator, Vocabulary
from run import ROOT, read_payloads
from servers import Control, ServerGone, Servers
from values import ALL_KEYS

GROUPS = ["bitmaps", "geo", "hashes", "hyperloglog", "keys", "lists", "scripts", "server", "sets", "streams",
          "strings", "zsets"]
#: What changes or ends a connection, changes who may do what, or takes long.
LEFT_OUT = BLOCKING | {b"SELECT", b"WAIT", b"DEBUG", b"CONFIG", b"ACL", b"AUTH", b"HELLO", b"RESET", b"QUIT",
                       b"CLIENT", b"CLUSTER", b"MONITOR", b"SHUTDOWN", b"SYNC", b"PSYNC", b"MIGRATE", b"REPLICAOF",
                       b"SLAVEOF", b"FAILOVER", b"MODULE", b"MULTI", b"EXEC", b"DISCARD"}
UNTOLD = {b"SWAPDB", b"PFDEBUG"}
ALONE, IN_A_TRANSACTION, ELSEWHERE = "through Nearside", "in a transaction", "at Redis"
WAYS = [ALONE, IN_A_TRANSACTION, ELSEWHERE]
#: Bytes of a request.
LARGEST = 100 << 10
COMMANDS = 40
#: Seconds until a change elsewhere must have been seen. It takes a thousandth of that.
PATIENCE = 10.0
ALL_GETS = [(b"GET", key) for key in ALL_KEYS]


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--seed", type=int, help="only the case of this seed")
    parser.add_argument("--cluster", action="store_true", help="Redis is a cluster of one node")
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE",
                        help="for Nearside, as on its command line")
    return parser.parse_args()


def is_left_out(request):
    return (not request or isinstance(request, bytes) or not all(isinstance(a, bytes) for a in request)
            or request[0].upper() in LEFT_OUT or sum(map(len, request)) > LARGEST)


def is_untold(request):
    """Redis may announce nothing of what it changes."""
    name = request[0].upper()
    return name in UNTOLD or (name == b"BITFIELD" and b"fail" in map(bytes.lower, request))


class Difference(Exception):
    pass


class Follower:
    """Two clients of Nearside, one of Redis."""

    def __init__(self, servers):
        self.redis = servers.control
        self.reader = servers.through
        self.writer = Control(servers.nearside.port)
        self.payloads = read_payloads(self.redis)
        self.vocabulary = Vocabulary(GROUPS)
        self.commands = self.changes = 0

    def case(self, seed):
        generator = Generator(seed, self.vocabulary, self.payloads)
        reset(self.redis)
        self.writer.call("FLUSHALL")
        generator.prelude()
        for step in generator.steps:
            self.writer.call_all(step.requests)
        for number in range(COMMANDS):
            request = generator.some(self.vocabulary.all)
            way = generator.rng.choice(WAYS)
            if not is_left_out(request) and not (way == ELSEWHERE and is_untold(request)):
                self.follow(request, way, "seed %d, command %d" % (seed, number))

    def follow(self, request, way, where):
        before = self.reader.call_all(ALL_GETS)
        if way == ELSEWHERE:
            reply = self.redis.call(*request)
        elif way == ALONE:
            reply = self.writer.call(*request)
        else:
            reply = self.writer.call_all([(b"MULTI",), request, (b"EXEC",)])[-1]
        end = time.monotonic() + (PATIENCE if way == ELSEWHERE else 0)
        differing = self.differing()
        while differing and time.monotonic() < end:
            differing = self.differing()
        if differing:
            key, redis, nearside = differing[0]
            raise Difference("%s: behind %r %s, answered with %r, %r is %r in Redis and %r here" % (
                where, [a[:80] for a in request], way, reply[:80], key, redis[:80], nearside[:80]))
        self.commands += 1
        self.changes += before != self.reader.call_all(ALL_GETS)

    def differing(self):
        """Keys with what Redis answers and what Nearside does. One that expires meanwhile is none of them."""
        earlier = self.redis.call_all(ALL_GETS)
        nearside = self.reader.call_all(ALL_GETS)
        later = self.redis.call_all(ALL_GETS)
        return [(key, b, a) for key, b, a, c in zip(ALL_KEYS, earlier, nearside, later) if a not in (b, c)]


def main():
    options = parse_arguments()
    passed, failed = 0, 0
    servers = Servers(os.environ.get("REDIS_BIN", "redis-server"),
                      os.environ.get("NEARSIDE_BIN", os.path.join(ROOT, "build/release/nearside")), options.set,
                      options.cluster)
    try:
        follower = Follower(servers)
        seed = options.seed or random.SystemRandom().randrange(1, 1 << 40)
        print("follow: seeds from %d" % seed, flush=True)
        end = time.monotonic() + options.seconds
        while failed == 0 and (passed == 0 or (time.monotonic() < end and not options.seed)):
            try:
                follower.case(seed + passed)
                passed += 1
            except Difference as difference:
                print("[FAIL] %s" % difference)
                failed += 1
        print("%d commands, %d of which changed a string; L1 hits: %d" % (
            follower.commands, follower.changes, servers.l1_hits()))
        if follower.changes == 0 or servers.l1_hits() == 0:
            print("nothing changed, or nothing came from L1: this tested nothing")
            failed += 1
    except ServerGone as error:
        print("[CRASH] seed %d: %s" % (seed + passed, error))
        failed += 1
    finally:
        if servers.stop() != 0:
            print("Nearside did not end well")
            failed += 1
    print("result: follow: %d passed, %d failed, 0 skipped" % (passed, failed))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
