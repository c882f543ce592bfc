# SPDX-License-Identifier: Apache-2.0
"""Which replies are compared by shape, and which differences are meant to be.

Everything that is not named here is compared byte by byte. A shape is a function of the two replies
as trees (framing.decode) that says whether they agree; an error is always compared byte by byte.
"""

import re
from itertools import groupby

from framing import decode, elements_of, is_error

# ---- Shapes --------------------------------------------------------------------------------------

def near(tolerance):
    """The same but for integers, which may differ by so much. -1 and -2 say something else than a
    time, so signs must agree."""
    def compare(a, b):
        if a[0] != b[0]:
            return False
        if isinstance(a[1], list):
            return len(a[1]) == len(b[1]) and all(compare(x, y) for x, y in zip(a[1], b[1]))
        if isinstance(a[1], int):
            return a[1] == b[1] or (a[1] >= 0 and b[1] >= 0 and abs(a[1] - b[1]) <= tolerance)
        return a[1] == b[1]
    return compare


def same_kind(a, b):
    """The same types; any content, any length."""
    return a[0] == b[0]


def same_lengths(a, b):
    """The same types and numbers of elements; any content."""
    if a[0] != b[0]:
        return False
    if isinstance(a[1], list):
        return len(a[1]) == len(b[1]) and all(same_lengths(x, y) for x, y in zip(a[1], b[1]))
    return True


def random_members(a, b):
    """Random elements, whose own types may differ too (a missing one is null)."""
    return a[0] == b[0] and (not isinstance(a[1], list) or len(a[1]) == len(b[1]))


def any_order(a, b):
    """The same elements; of a map the same pairs."""
    if a[0] != b[0] or not isinstance(a[1], list):
        return a == b
    return sorted(map(repr, _units(a))) == sorted(map(repr, _units(b)))


def any_order_within(a, b):
    """The same elements, those of elements in any order too."""
    def sorted_all(tree):
        kind, content = tree[0], tree[1]
        if not isinstance(content, list):
            return repr(tree)
        return repr((kind, sorted(map(sorted_all, content))))
    return sorted_all(a) == sorted_all(b)


def _units(tree):
    kind, elements = tree
    return list(zip(elements[0::2], elements[1::2])) if kind == b"%" else elements


def scan_page(a, b):
    """A cursor and a page, whatever is on it: they depend on when a table grew."""
    return (same_lengths((a[0], []), (b[0], [])) and len(a[1]) == len(b[1]) == 2
            and a[1][1][0] == b[1][1][0])


def hello(a, b):
    """The same but for the connection's id."""
    return _without_id(a) == _without_id(b)


def _without_id(tree):
    if not isinstance(tree[1], list):
        return tree
    pairs = list(zip(tree[1][0::2], tree[1][1::2]))
    return tree[0], [pair for pair in pairs if pair[0][1] != b"id"]


def dump(a, b):
    """A stream's payload has the times of its consumers (RDB types 15, 19, 21)."""
    return a == b or (a[1] is not None and b[1] is not None and a[1][0] == b[1][0]
                      and a[1][0] in (15, 19, 21))


def debug_shape(args):
    return same_kind if len(args) > 1 and args[1].lower() == b"object" else None


DAY = 86400

SHAPES = {
    # time
    "ttl": near(DAY), "pttl": near(DAY * 1000), "expiretime": near(DAY),
    "pexpiretime": near(DAY * 1000), "time": same_lengths, "lastsave": same_kind,
    "object|idletime": near(DAY), "xpending": near(DAY * 1000), "xinfo|consumers": near(DAY * 1000),
    "xinfo|stream": near(DAY * 1000 * 366 * 100), "slowlog|get": same_kind, "slowlog|len": same_kind,
    "latency|histogram": same_kind, "latency|latest": same_kind, "latency|doctor": same_kind,
    "latency|history": same_kind, "acl|log": same_kind, "role": near(1 << 62),
    # chance
    "randomkey": same_kind, "srandmember": random_members, "hrandfield": random_members,
    "zrandmember": random_members, "acl|genpass": same_kind, "lolwut": same_kind,
    # hash order
    "keys": any_order, "scan": scan_page, "pubsub|channels": any_order,
    "pubsub|shardchannels": any_order, "function|list": any_order,
    "command": any_order_within, "command|info": any_order_within, "command|docs": any_order_within,
    # the connection, the process
    "hello": hello, "client|id": same_kind, "client|info": same_kind, "client|list": same_kind,
    "info": same_kind, "debug": debug_shape,
    "memory|doctor": same_kind, "memory|stats": same_kind, "memory|malloc-stats": same_kind,
    "memory|usage": same_kind, "command|list": any_order,
    "dump": dump,
}

#: Compared by their lengths, whatever the command: generator.py.
VOLATILE = b"volatile:"

def shape_of(args):
    """The shape for the reply to a request (its arguments), or None: byte by byte."""
    if not args:
        return None
    name = args[0].lower().decode("latin-1")
    if any(isinstance(arg, bytes) and arg.startswith(VOLATILE) for arg in args[1:]):
        return same_lengths
    shape = SHAPES.get(name)
    if shape is None and len(args) > 1 and isinstance(args[1], bytes):
        shape = SHAPES.get(name + "|" + args[1].lower().decode("latin-1"))
    if shape is debug_shape:
        shape = shape(args)
    return shape


# ---- Differences that must be (docs/compatibility.md) -----------------------------------------

#: (what the request looks like, what Redis answers, what Nearside answers): a line in
#: docs/compatibility.md each.
KNOWN = [
    (rb"(hello|client|[ps]?(un)?subscribe)\b", rb"\+QUEUED\r\n|-(ERR|NOPERM) ",
     rb"-ERR '[a-z|-]+' is not available inside MULTI through Nearside\r\n$"),
    (rb"client tracking on\b", rb"\+OK\r\n|-ERR ",
     rb"-ERR CLIENT TRACKING is not available through Nearside, which keeps a coherent cache itself\r\n$"),
    (rb"client (setinfo|no-touch)\b", rb"-ERR unknown subcommand ", rb"\+OK\r\n$|-ERR "),
    (rb"script debug\b", rb"\+OK\r\n|-ERR ",
     rb"-ERR 'script\|debug' is not available through Nearside: "),
]


def is_known(args, direct, proxied):
    if not args or not all(isinstance(arg, bytes) for arg in args):
        return False
    request = b" ".join(args[:3]).lower()
    return any(re.match(what, request) and re.match(redis, direct) and re.match(ours, proxied)
               for what, redis, ours in KNOWN)


# ---- Comparison ----------------------------------------------------------------------------------

def agree(args, queued, direct, proxied):
    """Do two replies to a request agree? `queued`: the requests an EXEC executed, or None."""
    if direct == proxied:
        return True
    if is_known(args, direct, proxied):
        return True
    if queued is not None:
        return _exec_agrees(queued, direct, proxied)
    if is_error(direct) or is_error(proxied):
        return False
    shape = shape_of(args)
    return shape is not None and shape(decode(direct), decode(proxied))


PATTERN_MESSAGE = re.compile(rb"[>*]4\r\n\$8\r\npmessage\r\n")


def in_order_of_patterns(entries):
    """Sorts the frames that one message made for several patterns of a connection: Redis sends them
    in the order of a hash table, which depends on what was subscribed to before."""
    def message(entry):
        if not PATTERN_MESSAGE.match(entry.frame):
            return None
        _, (_, _, channel, content) = decode(entry.frame)
        return entry.step, channel, content

    for of_patterns, run in groupby(entries, message):
        if of_patterns is not None:
            run = list(run)
            for entry, frame in zip(run, sorted(entry.frame for entry in run)):
                entry.frame = frame


def _exec_agrees(queued, direct, proxied):
    ours, theirs = elements_of(proxied), elements_of(direct)
    if ours is None or theirs is None or ours[1] != theirs[1]:
        return False
    if not len(ours[0]) == len(theirs[0]) == len(queued):
        return False
    return all(agree(args, None, a, b) for args, a, b in zip(queued, theirs[0], ours[0]))
