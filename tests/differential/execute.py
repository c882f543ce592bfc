# SPDX-License-Identifier: Apache-2.0
"""Runs a program: first directly against Redis, then through Nearside.

How many replies a step brings is learnt from the direct run, not from a model of Redis. There, two
round trips on a control connection tell that Redis has done what was sent before them (loopback, one
thread), and whatever has arrived by then is the answer. Through Nearside the same numbers of frames
are awaited, so nothing here waits for time to pass; what would come in excess shows at the
connection's next frames, and each program ends with replies on every connection.
"""

import re
import select
import socket
import time

from framing import CLOSED, Framer, FramingError, decode, encode, is_push
from servers import HOST, ServerGone

REPLY_TIMEOUT = 10.0
#: Redis reads so much of a connection before it turns to the next.
READ_SIZE = 16 << 10
#: A line of MONITOR: which connections it tells of differs, so it is left out.
MONITOR_LINE = re.compile(rb"\+\d+\.\d+ \[\d+ ")


class NoReply(Exception):
    """Replies that the direct run got did not come."""

    def __init__(self, step, text):
        super().__init__(text)
        self.step = step


class Entry:
    """A frame, the step it came in, and the request it answers as far as that is known."""

    def __init__(self, step, frame):
        self.step = step
        self.frame = frame
        self.args = None
        self.queued = None


class Connection:
    def __init__(self, port):
        self.port = port
        self.entries = []
        self.socket = None
        self.id = self.address = b""
        self.open()

    def open(self):
        try:
            self.socket = socket.create_connection((HOST, self.port), timeout=REPLY_TIMEOUT)
        except OSError as error:
            raise ServerGone("nobody answers at port %d: %s" % (self.port, error)) from None
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.framer = Framer()
        self.pending = []  # requests that have no reply yet
        self.queue = None  # requests queued since MULTI
        self.address = b"%s:%d" % (HOST.encode(), self.socket.getsockname()[1])
        self.socket.sendall(encode([b"CLIENT", b"ID"]))
        frame = None
        while frame is None:
            chunk = self.socket.recv(4096)
            if not chunk:
                raise ServerGone("a new connection was closed")
            self.framer.feed(chunk)
            frame = self.framer.next_frame()
        self.id = frame[1:-2]
        self.socket.setblocking(False)

    def close(self):
        if self.socket is not None:
            self.socket.close()
            self.socket = None

    def send(self, chunk):
        view = memoryview(chunk)
        while view:
            try:
                view = view[self.socket.send(view):]
            except BlockingIOError:
                select.select([], [self.socket], [], REPLY_TIMEOUT)
            except OSError:
                return  # it was closed meanwhile; reading finds out

    def drain(self, step):
        """Takes what has arrived. Was there anything that counts?"""
        had = len(self.entries)
        total = 0
        closed = False
        while self.socket is not None and not closed:
            try:
                chunk = self.socket.recv(1 << 20)
            except BlockingIOError:
                break
            except OSError:
                chunk = b""
            closed = not chunk
            total += len(chunk)
            self.framer.feed(chunk)
        frame = self.framer.next_frame() if total > 0 else None
        while frame is not None:
            if not MONITOR_LINE.match(frame):
                self.entries.append(Entry(step, frame))
            frame = self.framer.next_frame()
        if closed:
            self.entries.append(Entry(step, CLOSED))
            self.close()
        return len(self.entries) > had

    def is_midway(self):
        return self.socket is not None and self.framer.is_midway()


class Run:
    """What one execution left: per connection its entries, and after each step how many there were
    and how many clients Redis had blocked (None: not asked); and did what came of it depend on who
    was faster?"""

    def __init__(self, connections):
        self.connections = connections
        self.counts = []
        self.blocked = []
        self.is_race = False

    def close(self):
        for connection in self.connections:
            connection.close()


def argument(run, value):
    if isinstance(value, bytes):
        return value
    what, index = value
    connection = run.connections[index % len(run.connections)]
    return connection.id if what == "id" else connection.address


def send_step(run, step):
    connection = run.connections[step.connection]
    if connection.socket is None:
        connection.open()
    chunk = b"".join(request if isinstance(request, bytes)
                     else encode([argument(run, value) for value in request])
                     for request in step.requests)
    piece = max(1, len(chunk) // step.pieces)
    for at in range(0, len(chunk), piece):
        connection.send(chunk[at:at + piece])
    return len(chunk)


def blocked_clients(control):
    return int(re.search(r"blocked_clients:(\d+)", control.text("INFO", "clients")).group(1))


SUBSCRIBES = re.compile(rb"[ps]?(?:un)?subscribe$")


def replies_to(request):
    """How many replies it may have: what (un)subscribes is confirmed for each channel."""
    args = request.split() if isinstance(request, bytes) else request
    confirms = bool(args) and SUBSCRIBES.match(args[0].lower()) is not None
    return max(1, len(args) - 1) if confirms else 1


# ---- Directly ------------------------------------------------------------------------------------

def run_directly(program, port, control):
    run = Run([Connection(port) for _ in range(program.connections)])
    blocked = size = asked = 0
    before = [0] * program.connections
    for number, step in enumerate(program.steps):
        races = len(step.requests) > 1 and any(len(c.pending) > 1 for c in run.connections)
        size += send_step(run, step)
        asked += sum(map(replies_to, step.requests))
        run.connections[step.connection].pending += [
            r.split() if isinstance(r, bytes) else r for r in step.requests]
        if step.together and number + 1 < len(program.steps):
            run.counts.append(None)
            run.blocked.append(None)
            continue
        collect_directly(run, number, control, size // READ_SIZE)
        had, counts = blocked, [len(c.entries) for c in run.connections]
        ask_blocked = had > 0 or sum(counts) - sum(before) < asked
        if ask_blocked:
            blocked = blocked_clients(control)
        if step.settle:
            deadline = time.monotonic() + REPLY_TIMEOUT
            while blocked > had and time.monotonic() < deadline:
                blocked = blocked_clients(control)
            collect_directly(run, number, control, 0)
        # What is behind the command that a pipeline wakes runs beside the rest of that pipeline.
        run.is_race = run.is_race or (races and blocked < had)
        run.blocked.append(blocked if ask_blocked else None)
        run.counts.append([len(c.entries) for c in run.connections])
        for connection, count in zip(run.connections, before):
            attribute(connection, connection.entries[count:], blocked > 0)
        before, size, asked = run.counts[-1], 0, 0
    return run


def collect_directly(run, number, control, more_rounds):
    for _ in range(1 + more_rounds):
        control.call("PING")
    deadline = time.monotonic() + REPLY_TIMEOUT
    while True:
        control.call("PING")
        if any([c.drain(number) for c in run.connections]):
            continue
        midway = [c for c in run.connections if c.is_midway()]
        if not midway:
            return
        if time.monotonic() > deadline:
            raise ServerGone("Redis sent half a reply in step %d" % number)
        select.select([c.socket for c in midway], [], [], 0.1)


#: Confirmations of (un)subscribing, one for each channel; and messages.
CONFIRMATION = re.compile(rb"[>*]3\r\n\$\d+\r\n([ps]?(?:un)?subscribe)\r\n")
MESSAGE = re.compile(rb"\*[34]\r\n\$\d+\r\n[ps]?message\r\n")


def attribute(connection, entries, some_blocked):
    """Tells new entries what they answer. Pushes and messages answer nothing. Where the numbers do
    not fit, nothing is told, and those are compared byte by byte."""
    pending = without_reply_off(connection.pending)
    is_closed = connection.socket is None
    told = []
    confirmed = 0  # of the channels of pending[0]
    fits = True
    for entry in entries:
        found = CONFIRMATION.match(entry.frame)
        if found:
            if confirmed > 0 and pending and pending[0][0].lower() != found.group(1):
                pending.pop(0)  # one without channels: nobody knows how many it confirms
                confirmed = 0
            fits = fits and bool(pending) and pending[0][0].lower() == found.group(1)
            confirmed += 1
            if fits and confirmed == len(pending[0]) - 1:
                pending.pop(0)
                confirmed = 0
        elif entry.frame is not CLOSED and not is_push(entry.frame) and not MESSAGE.match(entry.frame):
            if confirmed > 0 and pending:
                pending.pop(0)
                confirmed = 0
            fits = fits and bool(pending)
            if fits:
                told.append((entry, pending.pop(0)))
    if confirmed > 0 and pending:
        pending.pop(0)
    if fits and (not pending or some_blocked or is_closed):
        for entry, args in told:
            follow_transaction(connection, entry, args)
    else:
        pending, connection.queue = [], None
    connection.pending = pending
    if is_closed:
        connection.pending, connection.queue = [], None


def without_reply_off(requests):
    """The requests that get a reply, as far as CLIENT REPLY decides."""
    heard, silent, skip = [], False, False
    for args in requests:
        words = [a.lower() for a in args[:3] if isinstance(a, bytes)]
        if words[:2] == [b"client", b"reply"] and len(args) == 3:
            silent = words[2] == b"off" or (silent and words[2] != b"on")
            if words[2] == b"skip":
                skip = True
                continue
        if not silent and not skip:
            heard.append(args)
        skip = False
    return heard


def follow_transaction(connection, entry, args):
    entry.args = args
    name = args[0].lower() if args else b""
    if entry.frame == b"+QUEUED\r\n" and connection.queue is not None:
        connection.queue.append(args)
    elif name == b"multi" and entry.frame == b"+OK\r\n":
        connection.queue = []
    elif name == b"exec":
        entry.queued = connection.queue
        connection.queue = None
    elif name in (b"discard", b"reset"):
        connection.queue = None


# ---- Through Nearside ----------------------------------------------------------------------------

def run_through(program, port, control, direct):
    """As run_directly, led by what that one saw. NoReply has the run so far as its attribute."""
    run = Run([Connection(port) for _ in range(program.connections)])
    try:
        for number, step in enumerate(program.steps):
            send_step(run, step)
            if direct.counts[number] is None:
                continue
            await_counts(run, number, direct.counts[number])
            if direct.blocked[number] is not None:
                await_blocked(number, control, direct.blocked[number])
    except FramingError as error:
        found = NoReply(number, "what came is no RESP: %s" % error)
        found.run = run
        raise found from None
    except NoReply as error:
        error.run = run
        raise
    except BaseException:
        run.close()
        raise
    return run


def await_counts(run, number, counts):
    poll_for = [c for c, count in zip(run.connections, counts) if len(c.entries) < count]
    deadline = time.monotonic() + REPLY_TIMEOUT
    for connection in run.connections:
        if connection not in poll_for:
            connection.drain(number)
    while poll_for:
        for connection in poll_for:
            connection.drain(number)
        poll_for = [c for c, count in zip(run.connections, counts)
                    if len(c.entries) < count and c.socket is not None]
        if not poll_for:
            break
        left = deadline - time.monotonic()
        if left <= 0:
            raise NoReply(number, "connection %d: a reply is missing after %.0f s" % (
                run.connections.index(poll_for[0]), REPLY_TIMEOUT))
        select.select([c.socket for c in poll_for], [], [], left)


def await_blocked(number, control, count):
    deadline = time.monotonic() + REPLY_TIMEOUT / 2
    while True:
        found = blocked_clients(control)
        if found == count:
            return
        if time.monotonic() > deadline:
            raise NoReply(number, "Redis has %d blocked clients, %d in the direct run" % (
                found, count))


# ---- Between runs --------------------------------------------------------------------------------

BUSY_FLAGS = set("bPOx")

DEFAULTS = {"hash-max-listpack-entries": "128", "set-max-intset-entries": "512",
            "zset-max-listpack-entries": "128", "maxmemory-samples": "5"}


def await_quiet(control, subscribers=0):
    """Until no client of Redis is blocked, subscribed, monitoring or in a transaction, but for so many
    subscribers. False when some stay: a connection was left behind."""
    deadline = time.monotonic() + REPLY_TIMEOUT / 2
    while True:
        control.call("PING")
        flags = re.findall(r" flags=(\S+) ", control.text("CLIENT", "LIST"))
        busy = [BUSY_FLAGS & set(f) for f in flags if BUSY_FLAGS & set(f)]
        if busy == [{"P"}] * len(busy) and len(busy) <= subscribers:
            return True
        if time.monotonic() > deadline:
            return False


def reset(control):
    """Everything a program can change, as it was."""
    defaults = [part for pair in DEFAULTS.items() for part in pair]
    control.call_all([("FLUSHALL",), ("SCRIPT", "FLUSH"), ("FUNCTION", "FLUSH"),
                      ("ACL", "DELUSER", "alice", "bob"), ("ACL", "LOG", "RESET"),
                      ("ACL", "SETUSER", "carol", "reset", "on", ">secret", "~str:*", "%R~num:*",
                       "&news", "+@all", "-@dangerous", "-ping", "-client|setname", "-@scripting"),
                      ("CONFIG", "SET", *defaults), ("SLOWLOG", "RESET"), ("LATENCY", "RESET"),
                      # keys that are born expired (SET ... EXAT 1) go when they are read, not
                      # when the server has time
                      ("DEBUG", "SET-ACTIVE-EXPIRE", "0")])


def keyspace(control, volatile):
    """What a program left: the digest of all keys but the volatile ones, the libraries of functions,
    and each key's own digest, type and whether it expires, to say which one differs. SCAN deletes
    what has expired."""
    keys = {}
    for db in range(16):
        found = control.call_all([("SELECT", str(db)), ("DEL", *(volatile or ["none"])), ("SCAN", "0", "COUNT", "100000")])
        for _, key in decode(found[2])[1][1][1]:
            frames = control.call_all([("DEBUG", "DIGEST-VALUE", key), ("TYPE", key), ("TTL", key)])
            keys[db, key] = (frames[0], frames[1], frames[2] == b":-1\r\n")
    control.call("SELECT", "0")
    digest, functions = control.call_all([("DEBUG", "DIGEST"), ("FUNCTION", "DUMP")])
    return digest, functions, keys
