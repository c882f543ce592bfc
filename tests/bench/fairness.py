# SPDX-License-Identifier: Apache-2.0
"""Does a client that asks for little stay fast beside clients that ask for much?

The light client reads cached keys, one after the other. It is alone, then beside a client that pipelines values of 1 MB and another that runs scripts of
100 ms, in turns. The heavy clients and Redis are nice, so that where CPUs are short it is Nearside that
delays the light client, and not the scheduler that keeps it from asking.
"""

import subprocess
import time

from compare import counters
from report import figure, spread, table
from scale import Rig
from servers import Failure, Servers

ROUNDS = 7
SECONDS = 2.0
LARGE = 1000000
LIMIT = 2.0
SCRIPT_MS = 100


def script_of(connection):
    """Words of a script that keeps Redis busy for 100 ms, found by trying."""
    loops = 1000000
    for _ in range(6):
        began = time.monotonic()
        connection.call("EVAL", "for i=1,%d do end" % loops, 0)
        loops = int(loops * SCRIPT_MS / 1000 / max(time.monotonic() - began, 0.001))
    return "for i=1,%d do end" % loops


def be_nice(pid):
    """Also as a session of its own, which a kernel with autogroups gives the same share as any other."""
    subprocess.run(["renice", "-n", "19", "-p", str(pid)], check=False, stdout=subprocess.DEVNULL)
    try:
        with open("/proc/%d/autogroup" % pid, "w", encoding="ascii") as nice:
            nice.write("19")
    except OSError:
        pass  # there are none, or they are not to be told


class Heavy:
    """The clients that ask for much, while the context lasts."""

    def __init__(self, rig, proxy, script):
        self.commands = [
            [rig.load_binary, "-c", "1", "-P", "16", "-k", "20", "--first-key", "1000", "-d",
             str(LARGE), "-t", "3600", proxy.tcp],
            ["redis-cli", "-h", proxy.tcp.split(":")[0], "-p", proxy.tcp.split(":")[1], "-r",
             "1000000", "EVAL", script, "0"]]
        self.proxy = proxy
        self.cpu = rig.other_cpu
        self.running = []

    def __enter__(self):
        before = counters(self.proxy)
        for command in self.commands:
            self.running.append(subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", "nice", "-n", "19", "taskset", "-c",
                 str(self.cpu), *command], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE))
        self.await_both(before)
        return self

    def await_both(self, before):
        """A script was sent, and values have been asked for."""
        deadline = time.monotonic() + 10
        def rose(*names):
            return any(now[name] > before[name] for name in names)
        while time.monotonic() < deadline:
            now = counters(self.proxy)
            if rose("forwarded_unknown") and rose("l1_hits", "l1_misses"):
                return
            time.sleep(0.01)
        raise Failure("the heavy clients have not begun within 10 s")

    def __exit__(self, *_):
        for process in self.running:
            ended = process.poll() is not None
            process.terminate()
            _, said = process.communicate()
            if ended:
                raise Failure("a heavy client ended: %s" % said.decode("utf-8", "replace"))


def run(nearside, load):
    """Prints a table; returns 1 if the light client suffers more than it may."""
    with Servers() as servers:
        rig = Rig(servers, nearside, load)
        be_nice(rig.redis.pid)
        subprocess.run(["taskset", "-pc", str(rig.other_cpu), str(rig.redis.pid)], check=False,
                       stdout=subprocess.DEVNULL)
        proxy = rig.nearside("nearside", "l1.ttl=24h")
        rig.fill(1000)
        rig.generator.run(rig.redis.tcp, "--fill", "-k", 20, "--first-key", 1000, "-d", LARGE, "-c", 1)
        rig.warm(proxy, 1000)
        connection = rig.redis.connect()
        script = script_of(connection)
        connection.close()
        light = ["-c", 1, "-k", 1000, "-t", SECONDS, "-w", 0.2]
        alone, beside = [], []
        for _ in range(ROUNDS):
            alone.append(rig.generator.run(proxy.tcp, *light))
            with Heavy(rig, proxy, script):
                beside.append(rig.generator.run(proxy.tcp, *light))
    lines = []
    for field in ("p50_us", "p99_us", "p999_us"):
        ratios = [b[field] / a[field] for a, b in zip(alone, beside)]
        lines.append([field[:-3], spread([row[field] for row in alone]) + " us",
                      spread([row[field] for row in beside]) + " us", spread(ratios)])
    print("Hits of one client, alone and beside heavy ones, %d rounds of %.0f s:\n" % (ROUNDS, SECONDS))
    print(table(["", "alone", "beside", "beside / alone"], lines))
    p99 = sorted(b["p99_us"] / a["p99_us"] for a, b in zip(alone, beside))[ROUNDS // 2]
    print("\np99 beside is %s times that alone; at most %s is wanted." % (figure(p99), LIMIT))
    return 0 if p99 <= LIMIT else 1
