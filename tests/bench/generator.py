# SPDX-License-Identifier: Apache-2.0
"""Runs the load generators: the project's own (load.c), and redis-benchmark."""

import csv
import subprocess

from servers import Failure, cpu_ns, need

SECONDS = 300


class Generator:
    """load, pinned to a CPU."""

    def __init__(self, binary, cpu=None):
        self.command = ["taskset", "-c", str(cpu), binary] if cpu is not None else [binary]

    def run(self, server, *options, pids=()):
        """The row as a dictionary: numbers, and cpu_us a list, one for each of `pids`."""
        command = self.command + [str(o) for o in options]
        if pids:
            command += ["--pid", ",".join(map(str, pids))]
        done = subprocess.run(command + [server], stdin=subprocess.DEVNULL, capture_output=True,
                              text=True, timeout=SECONDS, check=False)
        if done.returncode != 0:
            raise Failure("%s\nended with %d: %s" % (" ".join(command + [server]), done.returncode,
                                                     done.stderr.strip()))
        return parse_row(done.stdout)


def parse_row(line):
    row = dict(word.split("=") for word in line.split())
    values = {name: float(text) for name, text in row.items() if name != "cpu_us"}
    values["cpu_us"] = [float(text) for text in row.get("cpu_us", "").split(",") if text]
    return values


class RedisBenchmark:
    """redis-benchmark, pinned to a CPU; its rows have the names of load's."""

    REQUESTS = {1: 15000, 16: 120000, 64: 250000, 256: 400000}

    def __init__(self, cpu):
        self.command = ["taskset", "-c", str(cpu), need("redis-benchmark", "servers")]

    def run(self, server, pipeline, keys, words=(), pids=()):
        """GETs of the keys that load uses, or the command in `words`."""
        requests = self.REQUESTS[pipeline]
        host, port = server.rsplit(":", 1)
        command = self.command + ["-h", host, "-p", port, "-c", "50", "-P", str(pipeline), "-n",
                                  str(requests), "-r", str(keys), "--csv"]
        before = [cpu_ns(pid) for pid in pids]
        done = subprocess.run(command + (list(words) or ["-t", "get"]), stdin=subprocess.DEVNULL,
                              capture_output=True, text=True, timeout=SECONDS, check=False)
        spent = [cpu_ns(pid) - start for pid, start in zip(pids, before)]
        if done.returncode != 0:
            raise Failure("%s\nended with %d: %s" % (" ".join(command), done.returncode,
                                                     done.stderr.strip()))
        row = next(csv.DictReader(line for line in done.stdout.splitlines() if line[:1] == '"'))
        return {"requests": requests, "per_second": float(row["rps"]),
                "p50_us": float(row["p50_latency_ms"]) * 1000,
                "p99_us": float(row["p99_latency_ms"]) * 1000,
                "cpu_us": [ns / 1000 / requests for ns in spent]}
