# SPDX-License-Identifier: Apache-2.0
"""A case as a program: connections and steps. Made from a seed, or read back from text.

A step sends a pipeline on one connection. Its replies are awaited before the next step, so that the
outcome does not depend on who is faster; only steps that change nothing may be sent together. Arguments are bytes, or what only a run knows:
("id", connection) is its CLIENT ID, ("addr", connection) its address.
"""

import json


class Step:
    """requests   lists of arguments; or bytes, sent as they are
    pieces     the bytes leave in so many pieces
    settle     wait until this connection is not blocked any more (a timeout is to end)
    together   the next step is sent at once
    """

    def __init__(self, connection, requests, pieces=1, settle=False, together=False):
        self.connection = connection
        self.requests = requests
        self.pieces = pieces
        self.settle = settle
        self.together = together

    def with_requests(self, requests):
        return Step(self.connection, requests, 1, self.settle, self.together)


class Program:
    def __init__(self, connections, steps, seed=None):
        self.connections = connections
        self.steps = steps
        self.seed = seed

    def with_steps(self, steps):
        return Program(self.connections, steps, self.seed)

    # ---- As text: one line for the whole, one for each step

    def dump(self):
        lines = [json.dumps({"connections": self.connections, "seed": self.seed})]
        for step in self.steps:
            line = {"on": step.connection, "send": [_written(r) for r in step.requests]}
            if step.pieces > 1:
                line["pieces"] = step.pieces
            if step.settle:
                line["settle"] = True
            if step.together:
                line["together"] = True
            lines.append(json.dumps(line))
        return "\n".join(lines)

    @staticmethod
    def load(text):
        lines = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
        steps = [Step(line["on"], [_read(r) for r in line["send"]], line.get("pieces", 1),
                      line.get("settle", False), line.get("together", False)) for line in lines[1:]]
        return Program(lines[0]["connections"], steps, lines[0]["seed"])


def _written(request):
    if isinstance(request, bytes):
        return {"raw": _written_bytes(request)}
    return [_written_bytes(a) if isinstance(a, bytes) else {a[0]: a[1]} for a in request]


def _written_bytes(value):
    """Text with latin-1's meaning of its characters; repetitions are not spelt out."""
    if len(value) > 200:
        for period in range(1, 16):
            if (value[:period] * (len(value) // period + 1))[:len(value)] == value:
                return {"repeat": value[:period].decode("latin-1"), "bytes": len(value)}
    return value.decode("latin-1")


def _read(request):
    if isinstance(request, dict):
        return _read_argument(request["raw"])
    return [_read_argument(argument) for argument in request]


def _read_argument(argument):
    if isinstance(argument, str):
        return argument.encode("latin-1")
    if "repeat" in argument:
        unit, size = argument["repeat"].encode("latin-1"), argument["bytes"]
        return (unit * (size // len(unit) + 1))[:size]
    return next(iter(argument.items()))
