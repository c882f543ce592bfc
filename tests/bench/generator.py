# SPDX-License-Identifier: Apache-2.0
"""Runs the load generator (load.c) and reads its row."""

import subprocess

from servers import Failure

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
