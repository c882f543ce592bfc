# SPDX-License-Identifier: Apache-2.0
"""The small language of the command tables, and what makes good arguments bad.

A row gives the arguments of one command as alternatives:

    "str val | str val [ EX ttl ] | 2 ( str )*"

A lower-case word is a kind of argument (a method of values.Values); anything else stands for itself,
also when quoted ('abc'). [ ... ] may be left out, ( ... )* comes one to three times.
"""

import values as values_module


class Row:
    """One command: how to make its arguments.

    group   what --groups and --without name
    fixed   only what the row says: arguments made up at random could end the server, the test's own
            connections, or its determinism
    alone   never beside others in a pipeline: its reply depends on how they were cut into packets, or on them
    weight  how often it comes compared with others
    """

    def __init__(self, patterns, fixed=False, weight=1.0, group=None, alone=False):
        self.make = patterns if callable(patterns) else None
        self.alternatives = [] if callable(patterns) else parse(patterns)
        self.fixed = fixed
        self.alone = alone
        self.weight = weight
        self.group = group

    def arguments(self, values):
        if self.make is not None:
            return self.make(values)
        out = []
        expand(values.pick(self.alternatives), values, out)
        return out


def fixed(patterns, weight=1.0):
    return Row(patterns, fixed=True, weight=weight)


def rare(patterns, weight=0.2):
    return Row(patterns, weight=weight)


def often(patterns, weight=4.0):
    return Row(patterns, weight=weight)


def table(group, rows):
    """Rows from (names and) plain patterns."""
    out = {}
    for name, row in rows.items():
        out[name] = row if isinstance(row, Row) else Row(row)
        out[name].group = group
    return out


# ---- The language ------------------------------------------------------------------------------

def parse(text):
    """Alternatives, each a list of words and of ("some" | "maybe", list)."""
    alternatives = [[]]
    for word in text.split():
        if word == "|":
            alternatives.append([])
        else:
            alternatives[-1].append(word)
    return [_parse_items(words, None)[0] for words in alternatives]


def _parse_items(words, closing):
    items = []
    while words:
        word, words = words[0], words[1:]
        if word == closing:
            return items, words
        if word == "(":
            inner, words = _parse_items(words, ")*")
            items.append(("some", inner))
        elif word == "[":
            inner, words = _parse_items(words, "]")
            items.append(("maybe", inner))
        elif word[0].islower():
            if not hasattr(values_module.Values, "kind_" + word):
                raise ValueError("no kind of argument: %r" % word)
            items.append(("kind", word))
        else:
            items.append(("word", word.strip("'").encode()))
    if closing is not None:
        raise ValueError("%r is missing" % closing)
    return items, words


def expand(items, values, out):
    for what, inner in items:
        if what == "kind":
            out.append(values.argument(inner))
        elif what == "word":
            out.append(inner.lower() if values.chance(0.15) else inner)
        elif what == "some":
            for _ in range(values.pick([1, 1, 2, 3])):
                expand(inner, values, out)
        elif values.chance(0.5):
            expand(inner, values, out)


# ---- Requests ----------------------------------------------------------------------------------

#: Swapping arguments of these could make a small value a time to live.
TIMED = {"psetex", "pexpire", "set", "getex", "restore", "setex", "expire", "hpexpire", "restore-asking"}


def spelled(name, values):
    """A command's words ("config|get"), in some case."""
    words = name.split("|")
    chance = values.rng.random()
    if chance < 0.5:
        words = [word.upper() for word in words]
    elif chance < 0.6:
        words = [word.capitalize() for word in words]
    return [word.encode() for word in words]


def request(name, row, values, mutation_share=0.2):
    """One request for the command: good, or spoilt in one way."""
    args = spelled(name, values)
    first = len(args)
    args += row.arguments(values)
    if not row.fixed and values.chance(mutation_share):
        spoil(name, args, first, values)
    return args


def spoil(name, args, first, values):
    """Changes args in place. What is before `first` is the command itself."""
    way = values.pick(["drop", "add", "junk", "junk", "key", "swap", "huge", "empty", "cut"])
    at = values.rng.randrange(first, len(args)) if len(args) > first else first
    if len(args) == first or way == "add":
        args.append(values.argument("junk"))
    elif way == "drop":
        del args[-1]
    elif way == "cut":
        del args[at]
    elif way == "junk":
        args[at] = values.argument("junk")
    elif way == "key":
        args[first] = values.argument("key")
    elif way == "empty":
        args[at] = b""
    elif way == "huge":
        args[at] = values.argument("huge")
    elif name not in TIMED:
        other = values.rng.randrange(first, len(args))
        args[at], args[other] = args[other], args[at]
