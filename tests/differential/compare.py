# SPDX-License-Identifier: Apache-2.0
"""One case from beginning to end: both runs, and what differs; and the fewest steps that do."""

from execute import NoReply, await_quiet, keyspace, reset, run_directly, run_through
from framing import CLOSED, shortened
from generator import VOLATILE_KEYS
from shapes import agree, in_order_of_patterns, shape_of


class Difference:
    def __init__(self, step, connection, text, entry=None, direct=None, proxied=None):
        self.step = step
        self.connection = connection
        self.text = text
        self.args = entry.args if entry is not None else None
        self.direct = direct
        self.proxied = proxied

    def __str__(self):
        where = "" if self.step is None else "step %d" % self.step
        if self.connection is not None:
            where += ", connection %d" % self.connection
        lines = ["%s: %s" % (where or "at the end", self.text)]
        if self.args:
            words = [shortened(a, 100) if isinstance(a, bytes) else str(a) for a in self.args[:8]]
            lines.append("      asked:    %s%s" % (" ".join(words), " ..." if len(self.args) > 8 else ""))
        if self.direct is not None:
            lines.append("      Redis:    %s" % shortened(self.direct))
        if self.proxied is not None:
            lines.append("      Nearside: %s" % shortened(self.proxied))
        return "\n".join(lines)


class Outcome:
    def __init__(self, direct, differences):
        self.direct = direct
        self.differences = differences


def uses_volatile(program):
    return any(arg in VOLATILE_KEYS for step in program.steps for request in step.requests
               if not isinstance(request, bytes) for arg in request)


def check(program, servers, flip=False):
    """Runs the program both ways and compares; only directly if that was a race.
    `flip`: with a wrong byte in a proxied reply."""
    volatile = VOLATILE_KEYS if uses_volatile(program) else []
    control = servers.control
    reset(control)
    direct = run_directly(program, servers.redis.port, control)
    direct.close()
    await_quiet(control, servers.subscribers)
    if direct.is_race:
        return Outcome(direct, [])
    direct_keys = keyspace(control, volatile)
    reset(control)
    servers.through.call("FLUSHALL")
    differences = []
    try:
        proxied = run_through(program, servers.nearside.port, control, direct)
    except NoReply as error:
        proxied = error.run
        differences.append(Difference(error.step, None, str(error)))
    for connection in direct.connections + proxied.connections:
        in_order_of_patterns(connection.entries)
    if flip:
        flip_byte(direct, proxied)
    proxied.close()
    differences = compare_runs(direct, proxied) + differences
    if not await_quiet(control, servers.subscribers):
        differences.append(Difference(None, None, "a connection to Redis was left behind: %s" %
                                      control.text("CLIENT", "LIST")))
        servers.restart_nearside()
    proxied_keys = keyspace(control, volatile)
    if proxied_keys != direct_keys:
        differences.append(Difference(None, None, "what is left differs: %s" % ", ".join(
            left_different(direct_keys, proxied_keys)), None, direct_keys[0], proxied_keys[0]))
    return Outcome(direct, differences)


def left_different(direct, proxied):
    """Names what differs of two results of execute.keyspace."""
    ours, theirs = proxied[2], direct[2]
    names = ["%r in db %d" % (key, db) for db, key in sorted(set(ours) | set(theirs))
             if ours.get((db, key)) != theirs.get((db, key))]
    return names + (["functions"] if direct[1] != proxied[1] else []) or ["the digest"]


def compare_runs(direct, proxied):
    """All differences, in the order of steps; of one connection only up to its first loss of step."""
    found = []
    for number, (ours, theirs) in enumerate(zip(proxied.connections, direct.connections)):
        for at in range(max(len(ours.entries), len(theirs.entries))):
            if at >= len(theirs.entries):
                entry = ours.entries[at]
                found.append(Difference(entry.step, number, "a reply too many", None, None,
                                        entry.frame))
                break
            entry = theirs.entries[at]
            if at >= len(ours.entries):
                found.append(Difference(entry.step, number, "a reply is missing", entry,
                                        entry.frame))
                break
            frame = ours.entries[at].frame
            if not agree(entry.args, entry.queued, entry.frame, frame):
                found.append(Difference(entry.step, number, "replies differ", entry, entry.frame,
                                        frame))
                if CLOSED in (entry.frame, frame):
                    break
    found.sort(key=lambda difference: difference.step)
    return found


def flip_byte(direct, proxied):
    """Makes the last reply that is compared byte by byte a wrong one."""
    for ours, theirs in zip(proxied.connections, direct.connections):
        for entry, their in reversed(list(zip(ours.entries, theirs.entries))):
            exact = their.queued is None and (not their.args or shape_of(their.args) is None)
            if exact and entry.frame is not CLOSED:
                middle = len(entry.frame) // 2
                entry.frame = (entry.frame[:middle] + bytes([entry.frame[middle] ^ 1])
                               + entry.frame[middle + 1:])
                return


def shrink(program, servers, attempts, rounds=2000):
    """Leaves out steps, then requests, as long as something differs in one of so many attempts."""
    def differs(steps):
        nonlocal rounds
        for _ in range(attempts):
            rounds -= 1
            if rounds > 0 and check(program.with_steps(steps), servers).differences:
                return True
        return False

    steps = drop(program.steps, differs)
    for at, step in enumerate(steps):
        if len(step.requests) > 1:
            def with_requests(requests, at=at, step=step):
                return steps[:at] + [step.with_requests(requests)] + steps[at + 1:]
            left = drop(step.requests, lambda requests: differs(with_requests(requests)))
            steps = with_requests(left)
    return program.with_steps(steps)


def drop(items, still):
    """The items without as many as can go, in ever smaller runs."""
    size = max(1, len(items) // 2)
    while True:
        at = 0
        while at < len(items):
            fewer = items[:at] + items[at + size:]
            if fewer and still(fewer):
                items = fewer
            else:
                at += size
        if size == 1:
            return items
        size //= 2
