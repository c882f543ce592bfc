#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The differential test: what Redis answers, Nearside answers.

Each case, made from a seed, is run directly against a redis-server and then through Nearside before
the same server, with everything emptied between. Reply bytes and the final keyspace must be equal;
shapes.py lists what is compared by shape, docs/compatibility.md what differs on purpose.

    tests/differential/run.py                      one minute, new seeds
    tests/differential/run.py --minutes 300        for hours
    tests/differential/run.py --seed 12345         this case again
    tests/differential/run.py --seed 12345 --shrink    and the fewest steps that still differ
    tests/differential/run.py --replay FILE        a program printed earlier (- is standard input)
"""

import argparse
import os
import random
import re
import sys
import time

import commands_server
from compare import check, shrink
from execute import reset
from framing import CLOSED
from generator import GROUPS, ROWS, Generator, Vocabulary
from program import Program
from servers import ServerGone, Servers

ROOT = os.path.realpath(os.path.join(os.path.dirname(__file__), "..", ".."))
#: With so many cases every command must have come up.
CASES_FOR_COVERAGE = 800


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--minutes", type=float, help="instead of --seconds")
    parser.add_argument("--cases", type=int, help="so many cases, however long they take")
    parser.add_argument("--seed", type=int, help="only the case of this seed")
    parser.add_argument("--seed-from", type=int, help="seeds count up from here (random otherwise)")
    parser.add_argument("--replay", metavar="FILE", help="only the program in this file")
    parser.add_argument("--repeat", type=int, default=1, help="with --seed or --replay so many times; with --shrink so many attempts each")
    parser.add_argument("--shrink", action="store_true", help="drop steps while the difference remains")
    parser.add_argument("--groups", help="only these groups of commands: %s" % ", ".join(GROUPS))
    parser.add_argument("--without", help="not these groups")
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE",
                        help="for Nearside, as on its command line")
    parser.add_argument("--max-failures", type=int, default=5, help="stop after so many")
    parser.add_argument("--mutate-reply", action="store_true",
                        help="flip a byte of a proxied reply in each case: every case must fail")
    parser.add_argument("--show", action="store_true", help="print each program and its replies")
    return parser.parse_args()


def chosen_groups(options):
    groups = set(options.groups.split(",")) if options.groups else set(GROUPS)
    without = set(options.without.split(",")) if options.without else set()
    unknown = (groups | without) - set(GROUPS)
    if unknown:
        sys.exit("no such group: %s" % ", ".join(sorted(unknown)))
    return groups - without


def check_table():
    """Every row of commands.def is in a table or has its reason not to be, and nothing else is."""
    with open(os.path.join(ROOT, "resp", "commands.def"), encoding="utf-8") as rows:
        names = set(re.findall(r'^[A-Z]+\("([^"]+)"', rows.read(), re.MULTILINE))
    elsewhere = set(commands_server.ELSEWHERE) | set(commands_server.EXCLUDED)
    missing = names - set(ROWS) - elsewhere
    surplus = (set(ROWS) | elsewhere) - names
    if not names or missing or surplus or elsewhere & set(ROWS):
        sys.exit("differential: commands.def has these, the tables do not: %s; the other way round: %s"
                 % (sorted(missing) or "none", sorted(surplus) or "none"))
    return len(names)


def read_payloads(control):
    """DUMPs to RESTORE, of this server's version."""
    reset(control)
    control.call_all([("SET", "str", "dumped"), ("RPUSH", "list", "a", "b"), ("SADD", "set", "1", "2"),
                      ("ZADD", "zset", "1.5", "a"), ("HSET", "hash", "f", "v"),
                      ("XADD", "stream", "1-1", "f", "v"), ("FUNCTION", "LOAD",
                       "#!lua name=dumped\nredis.register_function('f_none', function() return 7 end)")])
    payloads = {}
    for name in ("str", "list", "set", "zset", "hash", "stream"):
        payloads[name] = bulk(control.call("DUMP", name))
    payloads["functions"] = bulk(control.call("FUNCTION", "DUMP"))
    return payloads


def bulk(frame):
    return frame[frame.index(b"\r\n") + 2:-2]


class Tally:
    """What has been sent, and with what success."""

    def __init__(self):
        self.sent = {}
        self.replies = self.errors = 0

    def add(self, program, run):
        for step in program.steps:
            for request in step.requests:
                if not isinstance(request, bytes) and request:
                    self._add_request([a for a in request if isinstance(a, bytes)])
        for connection in run.connections:
            for entry in connection.entries:
                self.replies += 1
                self.errors += entry.frame is not CLOSED and entry.frame[:1] == b"-"

    def _add_request(self, words):
        name = words[0].lower().decode("latin-1")
        sub = name + "|" + words[1].lower().decode("latin-1") if len(words) > 1 else name
        name = sub if sub in ROWS else name
        if name in ROWS:
            self.sent[name] = self.sent.get(name, 0) + 1

    def never_sent(self, groups):
        return sorted(n for n, row in ROWS.items() if row.group in groups and n not in self.sent)


class Runner:
    def __init__(self, options, servers, groups):
        self.options = options
        self.servers = servers
        self.groups = groups
        self.vocabulary = Vocabulary(groups)
        self.payloads = read_payloads(servers.control)
        self.tally = Tally()
        self.passed = self.failed = self.races = 0

    def programs(self):
        options = self.options
        if options.replay:
            with sys.stdin if options.replay == "-" else open(options.replay, encoding="utf-8") as text:
                program = Program.load(text.read())
            yield from [program] * options.repeat
            return
        if options.seed is not None:
            yield from [self.make(options.seed)] * options.repeat
            return
        seed = options.seed_from
        if seed is None:
            seed = random.SystemRandom().randrange(1, 1 << 40)
        print("seeds from %d" % seed, flush=True)
        end = time.monotonic() + (options.minutes * 60 if options.minutes else options.seconds)
        count = 0
        while count < options.cases if options.cases else time.monotonic() < end:
            yield self.make(seed + count)
            count += 1

    def make(self, seed):
        return Generator(seed, self.vocabulary, self.payloads).program()

    def run(self):
        self.self_check()
        for program in self.programs():
            try:
                outcome = check(program, self.servers, flip=self.options.mutate_reply)
            except ServerGone:
                print("\n[FAIL] seed %s: a server is gone; the program, for --replay:\n%s" % (
                    program.seed, program.dump()), flush=True)
                raise
            if self.options.show:
                show(program, outcome)
            self.tally.add(program, outcome.direct)
            if outcome.direct.is_race:
                self.races += 1
                continue
            if not outcome.differences:
                self.passed += 1
                continue
            self.failed += 1
            self.report(program, outcome)
            if self.failed >= self.options.max_failures:
                print("stopped after %d failures" % self.failed)
                break

    def self_check(self):
        """A byte flipped in a proxied reply must be noticed, or nothing that follows means a thing."""
        program = Program(1, [step for step in self.make(1).steps if step.connection == 0][-1:])
        for step in program.steps:
            step.connection = 0
        if not check(program, self.servers, flip=True).differences:
            sys.exit("differential: a flipped byte went unnoticed")

    def report(self, program, outcome):
        print("\n[FAIL] seed %s: %d differences" % (program.seed, len(outcome.differences)))
        differences = outcome.differences
        for difference in differences[:3]:
            print("    %s" % difference)
        if self.options.shrink:
            program = shrink(program, self.servers, self.options.repeat)
            print("  shrunk to %d steps:" % len(program.steps))
            for _ in range(self.options.repeat):
                differences = check(program, self.servers).differences
                if differences:
                    break
            for difference in differences[:3]:
                print("    %s" % difference)
        print("  the program, for --replay:")
        print(program.dump())
        print("seed %s, in short: %s" % (program.seed, (differences or outcome.differences)[0]), flush=True)

    def verdict(self):
        """The lines at the end; is all well?"""
        hits = self.servers.l1_hits()
        single = self.options.seed is not None or self.options.replay or self.options.groups
        print("commands: %d of %d sent; %d replies, %d%% of them errors; L1 hits: %d; races, not compared: %d" % (
            len(self.tally.sent), len(ROWS), self.tally.replies,
            100 * self.tally.errors // max(1, self.tally.replies), hits, self.races))
        well = self.failed == 0 and self.passed > 0
        if not single and hits == 0 and "cache" in self.groups:
            print("nothing was answered from L1: this tested the road, not the cache")
            well = False
        never = self.tally.never_sent(self.groups)
        if never and self.passed + self.failed >= CASES_FOR_COVERAGE:
            print("never sent: %s" % ", ".join(never))
            well = False
        return well


def show(program, outcome):
    print(program.dump())
    for number, connection in enumerate(outcome.direct.connections):
        for entry in connection.entries:
            print("  step %d, connection %d: %r" % (entry.step, number, entry.frame[:200]))


def main():
    options = parse_arguments()
    groups = chosen_groups(options)
    count = check_table()
    print("differential: %d commands of the table, %d left out" % (
        count, len(commands_server.EXCLUDED)), flush=True)
    binary = os.environ.get("NEARSIDE_BIN", os.path.join(ROOT, "build/release/nearside"))
    well, status, runner = False, None, None
    servers = Servers(os.environ.get("REDIS_BIN", "redis-server"), binary, options.set)
    try:
        runner = Runner(options, servers, groups)
        runner.run()
        well = runner.verdict()
    except ServerGone as error:
        print("[CRASH] %s" % error)
        for server in (servers.redis, servers.nearside):
            if not server.is_running():
                print("%s has ended with status %s; its log:\n%s" % (
                    server.name, server.process.returncode, server.log_tail()))
        well = False
    finally:
        status = servers.stop()
    if status != 0:
        print("Nearside ended with status %s" % status)
        well = False
    passed = runner.passed if runner else 0
    failed = runner.failed if runner else 0
    if not well and failed == 0:
        failed = 1
    print("result: differential: %d passed, %d failed, 0 skipped" % (passed, failed))
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())
