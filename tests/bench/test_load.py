#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""
test_load LOAD CEILING

Tests of the load generator against a redis-server: that --verify passes values that are whole and
notices each kind of value that is not, and that the row says what happened. And of the ceiling programs,
that they answer what Redis does.
"""
import subprocess
import sys

from generator import parse_row
from servers import Failure, Servers, cpu_ns

KEYS = 50
VICTIM = "key:000000000007"


class Bench:
    """A redis-server, and load against it."""

    def __init__(self, load, ceiling, servers):
        self.load = load
        self.ceiling = ceiling
        self.servers = servers
        self.redis = servers.redis("redis", None, "--enable-debug-command", "local")
        self.connection = self.redis.connect()

    def run(self, *options, server=None):
        """Exit status, row, and what it complained of."""
        done = subprocess.run([self.load, "-c", "4", "-k", str(KEYS), *map(str, options),
                               server or self.redis.tcp], stdin=subprocess.DEVNULL,
                              capture_output=True, text=True, timeout=60, check=False)
        return done.returncode, parse_row(done.stdout), done.stderr

    def fill(self, size):
        self.connection.call("FLUSHALL")
        status, row, said = self.run("--fill", "-d", size)
        assert status == 0, said
        assert row["sets"] == KEYS and row["errors"] == 0, row

    def read_all(self, size, *options):
        return self.run("--verify", "--order", "cycle", "-d", size, "-n", KEYS, *options)

    def expect_wrong(self, size):
        """Exactly the victim is noticed."""
        status, row, said = self.read_all(size)
        assert status == 1, "a wrong value passed: %s" % row
        assert row["wrong"] == 1, row
        assert VICTIM in said, said


def test_values_of_every_size_verify(bench):
    for size in (0, 1, 33, 34, 35, 64, 1024, 300000):
        bench.fill(size)
        for pipeline in (1, 16):
            status, row, said = bench.read_all(size, "-P", pipeline)
            assert status == 0 and row["gets"] >= KEYS and row["nulls"] == 0, (size, row, said)


def test_one_altered_byte_is_noticed_wherever_it_is(bench):
    for size in (20, 64, 300000):
        bench.fill(size)
        value = bench.connection.call("GET", VICTIM)
        for at in (0, 5, 15, 16, 20, 33, 34, 63, size // 2, size - 1):
            if at < size:
                bad = value[:at] + bytes([value[at] ^ 1]) + value[at + 1:]
                bench.connection.call("SET", VICTIM, bad)
                bench.expect_wrong(size)


def test_another_keys_value_is_noticed(bench):
    for size in (20, 64):
        bench.fill(size)
        bench.connection.call("SET", VICTIM, bench.connection.call("GET", "key:000000000008"))
        bench.expect_wrong(size)


def test_a_value_with_another_versions_rest_is_noticed(bench):
    bench.fill(1024)
    one = bench.connection.call("GET", VICTIM)
    status, _, said = bench.run("-g", 0, "-n", 10 * KEYS, "--order", "cycle", "-d", 1024)
    assert status == 0, said
    two = bench.connection.call("GET", VICTIM)
    assert one[:34] != two[:34]
    bench.connection.call("SET", VICTIM, one[:500] + two[500:])
    bench.expect_wrong(1024)


def test_a_value_of_another_length_is_noticed(bench):
    for size in (20, 64, 1024):
        bench.fill(size)
        value = bench.connection.call("GET", VICTIM)
        for bad in (b"", value[:-1], value + b"x", value + value):
            bench.connection.call("SET", VICTIM, bad)
            bench.expect_wrong(size)


def test_a_missing_value_is_noticed(bench):
    bench.fill(64)
    bench.connection.call("DEL", VICTIM)
    bench.expect_wrong(64)
    status, row, _ = bench.run("-n", KEYS, "--order", "cycle")
    assert status == 0 and row["nulls"] == 1, "without --verify a null is no fault"


def test_error_replies_are_counted(bench):
    bench.fill(64)
    bench.connection.call("DEL", VICTIM)
    bench.connection.call("LPUSH", VICTIM, "x")
    status, row, said = bench.run("-n", KEYS, "--order", "cycle")
    assert status == 1 and row["errors"] == 1 and "WRONGTYPE" in said, (row, said)


def test_a_mix_verifies_over_tcp_and_unix_sockets(bench):
    bench.fill(64)
    for server in (bench.redis.tcp, bench.redis.unix):
        for order in ("uniform", "zipf", "zipf:1.2", "cycle"):
            for more in ([], ["--sliding"]):
                status, row, said = bench.run("-g", 70, "-P", 8, "-n", 4000, "--order", order,
                                              "--verify", *more, server=server)
                assert status == 0, said
                assert row["requests"] == 4000 == row["gets"] + row["sets"]
                assert 0.6 < row["gets"] / 4000 < 0.8, row


def test_keys_stay_within_their_range(bench):
    bench.connection.call("FLUSHALL")
    for order in ("uniform", "zipf", "cycle"):
        bench.run("-g", 0, "-n", 2000, "--order", order, "--first-key", 1000)
    names = bench.connection.call("KEYS", "*")
    assert {int(name[4:]) for name in names} <= set(range(1000, 1000 + KEYS))


def test_a_cycle_goes_on_where_another_ended(bench):
    bench.connection.call("FLUSHALL")
    _, row, _ = bench.run("-g", 0, "-n", 20, "--order", "cycle")
    assert bench.connection.call("DBSIZE") == 20
    status, row, said = bench.run("-g", 0, "-n", KEYS - 20, "--order", "cycle", "--from",
                                  int(row["position"]))
    assert status == 0, said
    assert bench.connection.call("DBSIZE") == KEYS, "some key was met twice"


def test_zipf_prefers_few_keys(bench):
    bench.connection.call("FLUSHALL")
    bench.run("--command", "INCR {key}", "-n", 10000, "--order", "zipf")
    counts = sorted(int(bench.connection.call("GET", name))
                    for name in bench.connection.call("KEYS", "*"))
    # Of 50 keys with weights 1/r^0.99 the first has 22 %, the last 0.5 %.
    assert 1800 < counts[-1] < 2700 and counts[0] < 120, counts


def test_large_values_both_ways_verify(bench):
    bench.fill(300000)
    for options in ([], ["--sliding"]):
        status, row, said = bench.run("-g", 50, "-P", 16, "-d", 300000, "-n", 640, "--verify",
                                      *options)
        assert status == 0 and row["requests"] == 640, said


def test_any_command_can_be_sent(bench):
    bench.fill(64)
    for command in ("MGET {key} {key} nokey", "SET {key} {value}", "HGETALL nokey", "TIME",
                    "COMMAND INFO get nosuch", "LRANGE nokey 0 -1"):
        status, row, said = bench.run("--command", command, "-n", 100, "-P", 5)
        assert status == 0 and row["requests"] == 100, (command, said)


def test_latency_and_cpu_time_are_those_of_the_server(bench):
    pid = bench.redis.pid
    before = cpu_ns(pid)
    status, row, said = bench.run("--command", "DEBUG SLEEP 0.05", "-n", 4, "-c", 1, "--pid", pid)
    assert status == 0, said
    assert 50000 <= row["p50_us"] <= row["p99_us"] <= row["max_us"], row
    spent = round(row["cpu_us"][0] * row["requests"] * 1000) # printed in tenths of a ns for each
    assert 0 < spent <= cpu_ns(pid) - before, row


def test_a_rate_is_kept_and_lateness_is_charged(bench):
    _, row, said = bench.run("--rate", 400, "-n", 200)
    assert 0.4 < row["seconds"], (row, said)
    # One client, every request takes 50 ms, one is due every 25 ms: the tenth is late.
    _, row, said = bench.run("--command", "DEBUG SLEEP 0.05", "-c", 1, "--rate", 40, "-n", 10)
    assert row["max_us"] > 200000, (row, said)


def test_ceilings_answer_what_redis_does(bench):
    for size in (1, 64, 30000):
        bench.fill(size)
        for kind in ("hit", "forward"):
            server = bench.servers.ceiling(kind, bench.ceiling, bench.redis.tcp)
            for gets in (100, 50, 0) if kind == "forward" else (100, 100):
                for pipeline in (1, 64):
                    status, row, said = bench.run("-P", pipeline, "-g", gets, "-n", 2000, "-d", size,
                                                  "--verify", server=server.tcp)
                    assert status == 0 and row["requests"] >= 2000, (kind, gets, said)
            bench.servers.stop(server)


def main():
    if len(sys.argv) != 3:
        sys.exit("usage: test_load LOAD CEILING")
    failed = 0
    tests = [test for name, test in sorted(globals().items()) if name.startswith("test_")]
    with Servers() as servers:
        bench = Bench(sys.argv[1], sys.argv[2], servers)
        for test in tests:
            try:
                test(bench)
            except (AssertionError, Failure, subprocess.TimeoutExpired) as error:
                failed += 1
                print("[FAIL] %s: %s %s" % (test.__name__, type(error).__name__, error))
    print("result: load: %d passed, %d failed, 0 skipped" % (len(tests) - failed, failed))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
