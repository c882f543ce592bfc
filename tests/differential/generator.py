# SPDX-License-Identifier: Apache-2.0
"""A seed becomes a program.

A program is a run of scenes: a single command, a pipeline, reads that L1 should answer, a
transaction, a wait that another connection ends ... Commands inside scenes come from the tables.
What a scene must not do is leave the outcome to who is faster: what is sent on several connections at
once changes nothing, and a connection without replies says something at its end.
"""

import itertools
import random
import re

import commands_server
import commands_values
from patterns import request
from program import Program, Step
from shapes import VOLATILE, shape_of
from values import ALL_KEYS, BINARY, KEYS, Values

ROWS = {}
for one in commands_values.TABLES + commands_server.TABLES:
    ROWS.update(one)

#: Groups that are scenes or parts of them rather than tables.
FEATURES = ["cache", "blocking", "wait", "resp3", "reply", "monitor", "inline", "protocol", "quit",
            "volatile"]
GROUPS = sorted({row.group for row in ROWS.values()}) + FEATURES
ROWS["wait"].group = ROWS["waitaof"].group = "wait"

#: A request of more bytes may take another connection to Redis than its neighbours in a pipeline, and
#: Nearside promises no order between different keys there (docs/promise.md). Beside such a request
#: only commands that name their keys are sent.
LARGE = 48 << 10
KEYED = {"strings", "bitmaps", "hashes", "lists", "sets", "zsets", "geo", "hyperloglog"}

#: What may close a connection.
ENDS = (b"quit", b"client", b"hello", b"reset", b"")

VOLATILE_KEYS = [VOLATILE + b"stream", VOLATILE + b"set"]


def size_of(request_args):
    return sum(len(a) for a in request_args if isinstance(a, bytes))


#: Inside MULTI these end what others do (a reply of another shape, no replies any more), or are refused,
#: and the transaction with them (docs/compatibility.md): they come in a scene of their own, which
#: executes nothing.
NOT_QUEUED = re.compile(r"(hello|client(\|.*)?|[ps]?(un)?subscribe)$")


BLOCKING = {b"BLPOP", b"BRPOP", b"BLMOVE", b"BRPOPLPUSH", b"BZPOPMIN", b"BZPOPMAX", b"BLMPOP",
            b"BZMPOP", b"XREAD", b"XREADGROUP", b"WAIT", b"WAITAOF"}


class Vocabulary:
    """The rows of the chosen groups, and how to draw from them."""

    def __init__(self, groups):
        self.groups = set(groups)
        self.any = self._of(self.groups, alone=True)
        self.all = self._of(self.groups)
        self.keyed = self._of(self.groups & KEYED)
        self.queued = self._of(self.groups, queued=True)

    @staticmethod
    def _of(groups, alone=False, queued=False):
        def names_of(groups):
            return [name for name, row in ROWS.items() if row.group in groups
                    and (alone or not row.alone) and not (queued and NOT_QUEUED.match(name))]

        names = names_of(groups) or names_of(KEYED)  # a feature has no rows of its own
        return names, list(itertools.accumulate(ROWS[name].weight for name in names))


class Generator:
    def __init__(self, seed, vocabulary, payloads):
        self.rng = random.Random(seed)
        self.seed = seed
        self.vocabulary = vocabulary
        self.groups = vocabulary.groups
        self.connections = self.rng.choice([1, 2, 2, 2, 3, 4])
        self.values = Values(self.rng, self.connections, payloads)
        self.steps = []
        self.scenes = [(scene, weight) for scene, weight, group in [
            (self.single, 8, None),
            (self.pipeline, 8, None),
            (self.cache, 6, "cache"),
            (self.all_at_once, 3, "cache"),
            (self.transaction, 4, "multi"),
            (self.own_connection, 1, "multi"),
            (self.watched, 1.5, "multi"),
            (self.refused, 0.2, "multi"),
            (self.wait_for_push, 1.5, "blocking"),
            (self.wait_in_vain, 0.4, "blocking"),
            (self.wait_for_stream, 0.7, "blocking"),
            (self.wait_for_replicas, 0.3, "wait"),
            (self.listen, 2.5, "pubsub"),
            (self.switch, 1.5, "resp3"),
            (self.silence, 0.8, "reply"),
            (self.monitor, 0.2, "monitor"),
            (self.inline, 1.2, "inline"),
            (self.nonsense, 0.3, "protocol"),
            (self.unknown, 0.7, "protocol"),
            (self.chance_and_time, 0.7, "volatile"),
            (self.library, 0.7, "scripts"),
            (self.leave, 0.3, "quit"),
        ] if group is None or group in self.groups]

    def program(self):
        target = self.rng.randint(5, 60)
        if "resp3" in self.groups:
            for c in range(self.connections):
                if self.rng.random() < 0.4:
                    self.step(c, [[b"HELLO", b"3"]])
        self.prelude()
        scenes, weights = zip(*self.scenes)
        cumulative = list(itertools.accumulate(weights))
        while len(self.steps) < target:
            self.rng.choices(scenes, cum_weights=cumulative)[0]()
        if "multi" in self.groups and self.rng.random() < 0.1:
            self.step(self.connection(), [[b"WATCH", b"str:1"], [b"MULTI"], self.exact()])
        for c in range(self.connections):
            self.step(c, [[b"RESET"], [b"ECHO", b"the end of connection %d" % c]])
        return Program(self.connections, self.steps, self.seed)

    # ---- Parts

    def connection(self, but=()):
        return self.rng.choice([c for c in range(self.connections) if c not in but])

    def step(self, connection, requests, settle=False):
        # What follows QUIT or nonsense in a packet of its own would meet a closed connection, and
        # then the network may drop replies that are under way.
        whole = any(isinstance(r, bytes) or r[0].lower() in ENDS for r in requests)
        pieces = self.rng.choice([2, 3, 7]) if self.rng.random() < 0.05 and not whole else 1
        self.steps.append(Step(connection, requests, pieces, settle))

    def some(self, vocabulary, mutation_share=0.2):
        name = self.rng.choices(vocabulary[0], cum_weights=vocabulary[1])[0]
        return request(name, ROWS[name], self.values, mutation_share)

    def named(self, name, mutation_share=0.0):
        return request(name, ROWS[name], self.values, mutation_share)

    def exact(self):
        """A keyed command whose reply is compared byte by byte."""
        while True:
            made = self.some(self.vocabulary.keyed)
            if shape_of(made) is None:
                return made

    def prelude(self):
        """Keys of every type, so that commands find something."""
        requests = []
        for name, kind, fill in [
                ("str", b"SET", lambda: [self.values.argument("val")]),
                ("num", b"SET", lambda: [self.values.number(-5, 100)]),
                ("list", b"RPUSH", lambda: [b"alpha", b"Beta", b"3", b"delta"]),
                ("set", b"SADD", lambda: self.rng.sample([b"a", b"b", b"c", b"10", b"20"], 3)),
                ("zset", b"ZADD", lambda: [b"1", b"a", b"2.5", b"b", b"7", b"c"]),
                ("hash", b"HSET", lambda: [b"f1", b"v1", b"F1", b"5", b"f\x00\xff", BINARY]),
                ("stream", b"XADD", lambda: [self.values.argument("newid"), b"f1", b"v1"]),
                ("stream", b"XGROUP", None),
                ("geo", b"GEOADD", lambda: [b"13.361389", b"38.115556", b"Palermo"]),
                ("hll", b"PFADD", lambda: [b"a", b"b", b"c"])]:
            for key in KEYS[name]:
                if self.rng.random() < 0.6:
                    requests.append([kind, key] + fill() if fill is not None else
                                    [kind, b"CREATE", key, b"g1", b"0", b"MKSTREAM"])
        self.send(self.connection(), requests or [[b"PING"]])

    def send(self, connection, requests):
        """A pipeline; beside large requests only what names its keys."""
        if len(requests) > 1 and any(size_of(r) > LARGE for r in requests):
            requests = [r for r in requests if size_of(r) > LARGE or self.is_keyed(r)]
            requests = [r for r in requests if self.is_keyed(r)] or requests[:1]
        self.step(connection, requests)

    @staticmethod
    def is_keyed(made):
        row = ROWS.get(made[0].lower().decode("latin-1")) if made and made[0] else None
        return row is not None and row.group in KEYED

    # ---- Commands

    def single(self):
        self.step(self.connection(), [self.some(self.vocabulary.any)])

    def pipeline(self):
        count = self.rng.choice([2, 3, 3, 5, 8, 12, 40 if self.rng.random() < 0.1 else 4])
        self.send(self.connection(), [self.some(self.vocabulary.all) for _ in range(count)])

    def cache(self):
        """Reads of few keys again and again, with writes of all kinds between them."""
        keys = self.rng.sample(ALL_KEYS, 2) + self.rng.sample(KEYS["str"] + KEYS["num"], 2)
        for _ in range(self.rng.randint(2, 6)):
            requests = []
            for _ in range(self.rng.choice([1, 1, 2, 4, 8])):
                chance = self.rng.random()
                if chance < 0.6:
                    requests.append([self.rng.choice([b"GET", b"get"]), self.rng.choice(keys)])
                elif chance < 0.75:
                    requests.append([b"MGET"] + [self.rng.choice(keys) for _ in range(3)])
                elif chance < 0.85:
                    requests.append([b"SET", self.rng.choice(keys), self.values.argument("val")])
                else:
                    requests.append(self.some(self.vocabulary.all))
            self.send(self.connection(), requests)

    def all_at_once(self):
        """A write, and then everybody reads the key at the same time: fetches are shared."""
        keys = self.rng.sample(ALL_KEYS, 2) + [self.values.argument("str")]
        if self.rng.random() < 0.7:
            self.step(self.connection(), [self.rng.choice([
                [b"SET", keys[0], self.values.argument("val")], [b"TOUCH", keys[0]],
                [b"DEL", keys[0]], [b"RENAME", keys[1], keys[0]], [b"PERSIST", keys[0]],
                [b"RPUSH", keys[0], b"x"], [b"FLUSHDB"]])])
        order = [c for c in range(self.connections) for _ in range(self.rng.choice([1, 1, 2]))]
        self.rng.shuffle(order)
        for c in order:
            self.steps.append(Step(c, [self.rng.choice([
                [b"GET", self.rng.choice(keys)], [b"GET", keys[0]],
                [b"MGET"] + self.rng.sample(keys, 2), [b"MGET", keys[0], keys[0]], [b"MGET"] + keys,
                [b"STRLEN", keys[0]], [b"TYPE", keys[0]], [b"LRANGE", keys[0], b"0", b"-1"],
                [b"EXISTS"] + keys]) for _ in range(self.rng.choice([1, 1, 3]))], together=True))
        self.steps[-1].together = False

    def unknown(self):
        self.step(self.connection(), self.rng.choice([
            [[b"NOSUCH", b"a", b"b"]], [[b"nosuch" * 40, BINARY]], [[b"", b"x"]], [[BINARY]],
            [[b"GET" + b"\x00", b"str:1"]], [[b"SET"], [b"GET"], [b"PING", b"a", b"b", b"c"]],
            [[b"CONFIG"], [b"CONFIG", b"NOSUCH", b"x"], [b"OBJECT"], [b"XGROUP", b""]],
        ]))

    def library(self):
        """A function or script that is there, used on several connections."""
        c = self.connection()
        self.step(c, [self.named("function|load"), self.named("script|load")])
        self.send(self.connection(), [self.named("fcall"), self.named("evalsha"), self.exact()])
        self.step(self.connection(), [self.named("fcall")])

    def chance_and_time(self):
        """Commands of random or dated effect, on keys nothing else names."""
        stream, members = VOLATILE_KEYS
        self.step(self.connection(), self.rng.sample([
            [b"XADD", stream, b"*", b"f", b"v"], [b"XADD", stream, b"99999999999999-*", b"f", b"v"],
            [b"XLEN", stream], [b"XRANGE", stream, b"-", b"+"],
            [b"XREAD", b"COUNT", b"2", b"STREAMS", stream, b"0"],
            [b"SADD", members, b"a", b"b", b"c", b"d", b"e"], [b"SPOP", members],
            [b"SPOP", members, b"2"], [b"SRANDMEMBER", members, b"2"], [b"SCARD", members],
        ], self.rng.randint(1, 6)))

    # ---- Transactions

    def transaction(self):
        c = self.connection()
        queued = [self.some(self.vocabulary.queued, 0.1) for _ in range(self.rng.randint(0, 7))]
        if self.rng.random() < 0.1:
            queued.insert(0, [self.rng.choice([b"MULTI", b"WATCH"]), b"str:1"][:self.rng.randint(1, 2)])
        end = [self.rng.choice([b"EXEC", b"EXEC", b"exec", b"DISCARD"])]
        if self.rng.random() < 0.6:
            before = [self.exact()] if self.rng.random() < 0.4 else []
            after = [self.exact()] if self.rng.random() < 0.4 else []
            self.step(c, before + [[b"MULTI"]] + queued + [end] + after)
            return
        self.step(c, [[b"MULTI"]])
        for one in queued:
            self.step(c, [one])
            if self.rng.random() < 0.2 and self.connections > 1:
                self.step(self.connection([c]), [self.some(self.vocabulary.keyed)])
        self.step(c, [end])

    def refused(self):
        self.step(self.connection(), [[b"MULTI"], self.rng.choice([
            [b"SELECT", b"1"], [b"CLIENT", b"ID"], [b"HELLO", b"2"],
            [b"AUTH", b"carol", b"secret"], [b"AUTH", b"default", b"x"],
            [b"READONLY"], [b"CLIENT", b"SETNAME", b"x"], [b"SUBSCRIBE", b"news"]]), [b"DISCARD"]])

    def own_connection(self):
        """Commands about the client's own connection, executed by EXEC."""
        c = self.connection()
        about = [[b"CLIENT", b"GETNAME"], [b"CLIENT", b"SETNAME", b"me"], [b"client", b"setname", b"a b"],
                 [b"HELLO", b"3"], [b"HELLO", b"2", b"SETNAME", b"you"], [b"HELLO", b"4"], [b"READONLY"],
                 [b"CLIENT", b"TRACKINGINFO"], [b"CLIENT", b"NO-EVICT", b"on"], [b"CLIENT", b"NOSUCH"],
                 [b"CLIENT", b"KILL", b"ID", b"999999"], [b"CLIENT", b"UNBLOCK", b"999999"],
                 [b"CLIENT", b"GETREDIR"], [b"CLIENT", b"CACHING", b"yes"], [b"MONITOR"]]
        inside = [self.rng.choice([self.exact(), self.rng.choice(about)])
                  for _ in range(self.rng.randint(1, 6))]
        lines = [[b"MULTI"]] + inside + [[self.rng.choice([b"EXEC", b"EXEC", b"DISCARD"])],
                                        [b"CLIENT", b"GETNAME"], [b"GET", b"missing:1"], [b"RESET"]]
        if self.rng.random() < 0.5:
            self.step(c, lines)
        else:
            for line in lines:
                self.step(c, [line])

    def watched(self):
        c = self.connection()
        key = self.values.argument("str")
        self.step(c, [[b"WATCH", key], [b"GET", key]])
        if self.rng.random() < 0.5:
            self.step(self.connection(), [[b"SET", key, self.values.argument("val")]])
        if self.rng.random() < 0.2:
            self.step(c, [[b"UNWATCH"]])
        self.step(c, [[b"GET", key], [b"MULTI"], [b"SET", key, b"by transaction"], [b"GET", key],
                      [self.rng.choice([b"EXEC", b"EXEC", b"DISCARD"])]])
        self.step(self.connection(), [[b"GET", key]])

    # ---- Waiting

    def wait_for_push(self):
        """A blocking command, and the write that ends it: alone, in a transaction, in a script."""
        if self.connections < 2:
            return
        sleeper = self.connection()
        waker = self.connection([sleeper])
        key, other = b"waiting:1", b"waiting:2"
        make, wait = self.rng.choice([
            ([b"RPUSH", key, b"x", b"y"], [b"BLPOP", other, key, b"0"]),
            ([b"LPUSH", key, b"x"], [b"brpop", key, b"100"]),
            ([b"RPUSH", key, b"x"], [b"BLMOVE", key, other, b"LEFT", b"RIGHT", b"0"]),
            ([b"RPUSH", key, b"x"], [b"BRPOPLPUSH", key, b"list:1", b"0"]),
            ([b"RPUSH", key, b"x", b"y"], [b"BLMPOP", b"0", b"2", other, key, b"LEFT", b"COUNT", b"2"]),
            ([b"ZADD", key, b"1.5", b"x"], [b"BZPOPMIN", key, b"0"]),
            ([b"ZADD", key, b"1", b"x", b"2", b"y"], [b"BZPOPMAX", key, other, b"0"]),
            ([b"ZADD", key, b"1", b"x"], [b"BZMPOP", b"0", b"1", key, b"MIN"]),
        ])
        before = [self.exact()] if self.rng.random() < 0.3 else []
        self.step(sleeper, before + [wait])
        for _ in range(self.rng.randint(0, 2)):
            self.step(waker, [self.exact()])
        how = self.rng.random()
        if how < 0.15 and "client" in self.groups:
            self.step(waker, [[b"CLIENT", b"UNBLOCK", ("id", sleeper),
                               self.rng.choice([b"ERROR", b"TIMEOUT"])]])
        elif how < 0.4:
            self.step(waker, [[b"MULTI"], make, [b"EXISTS", key], [b"EXEC"]])
        elif how < 0.55:
            script = b"return redis.call(unpack(ARGV))"
            self.step(waker, [[b"EVAL", script, b"1", key] + make])
        else:
            self.step(waker, [make])
        self.step(sleeper, [[b"DEL", key, other]])

    def may_be_blocked(self, connection):
        """Was anything sent on it that blocks? Then a time-out may begin later than it was sent."""
        return any(step.connection == connection and
                   any(isinstance(request, bytes) or request[0].upper() in BLOCKING
                       for request in step.requests)
                   for step in self.steps)

    def wait_in_vain(self):
        free = [c for c in range(self.connections) if not self.may_be_blocked(c)]
        if not free:
            return
        self.step(self.rng.choice(free), [self.rng.choice([
            [b"BLPOP", b"missing:1", b"0.02"], [b"BRPOP", b"missing:1", b"missing:2", b"0.03"],
            [b"BLMOVE", b"missing:1", b"list:1", b"LEFT", b"LEFT", b"0.02"],
            [b"BZPOPMIN", b"missing:1", b"0.02"], [b"BZMPOP", b"0.02", b"1", b"missing:1", b"MAX"],
            [b"XREAD", b"BLOCK", b"20", b"STREAMS", b"missing:1", b"$"],
        ])], settle=True)

    def wait_for_stream(self):
        if self.connections < 2:
            return
        sleeper = self.connection()
        waker = self.connection([sleeper])
        key = b"waiting:stream"
        if self.rng.random() < 0.5:
            wait = [b"XREAD", b"BLOCK", b"0", b"STREAMS", key, b"$"]
        else:
            self.step(waker, [[b"XGROUP", b"CREATE", key, b"g", b"$", b"MKSTREAM"]])
            wait = [b"XREADGROUP", b"GROUP", b"g", b"c", b"BLOCK", b"0", b"STREAMS", key, b">"]
        self.step(sleeper, [wait])
        self.step(waker, [[b"XADD", key, b"1000-1", b"f", self.values.argument("val")]])
        self.step(waker, [[b"DEL", key]])

    def wait_for_replicas(self):
        connection = self.connection()
        if self.may_be_blocked(connection):
            return
        self.step(connection, [[b"SET", b"str:1", b"waited"], [b"WAIT", b"1", b"20"]],
                  settle=True)

    # ---- Pub/Sub

    def listen(self):
        """A subscriber, publishers, what a subscriber may say, and the end of it."""
        c = self.connection()
        channel, pattern = self.values.argument("channel"), self.values.argument("chanpattern")
        for_all, name = self.rng.choice([(b"SUBSCRIBE", channel), (b"PSUBSCRIBE", pattern),
                                         (b"SSUBSCRIBE", channel)])
        publish = b"SPUBLISH" if for_all == b"SSUBSCRIBE" else b"PUBLISH"
        self.step(c, [[for_all, name] + ([self.values.argument("channel")]
                                         if self.rng.random() < 0.3 else [])])
        for _ in range(self.rng.randint(1, 4)):
            chance = self.rng.random()
            if chance < 0.6:
                by = self.connection()
                self.step(by, [[publish, self.rng.choice([channel, self.values.argument("channel")]),
                                self.values.argument("val")]])
            elif chance < 0.75:
                self.step(c, [self.rng.choice([[b"PING"], [b"PING", b"are you there"], [b"GET", b"str:1"],
                                               [b"SUBSCRIBE", channel], [b"PSUBSCRIBE", b"*"]])])
            else:
                self.step(self.connection(), [self.exact()])
        if self.rng.random() < 0.9:
            for end in (b"UNSUBSCRIBE", b"PUNSUBSCRIBE", b"SUNSUBSCRIBE"):
                self.step(c, [[end]])

    # ---- The connection

    def switch(self):
        c = self.connection()
        version = self.rng.choice([b"3", b"3", b"2"])
        hello = self.rng.choice([
            [b"HELLO", version], [b"hello", version, b"SETNAME", b"me"], [b"HELLO"],
            [b"HELLO", version, b"AUTH", b"default", b"any"],
            [b"HELLO", version, b"AUTH", b"nobody", b"wrong"], [b"HELLO", version, b"SETNAME"],
            [b"HELLO", version, b"AUTH", b"carol", b"secret"], [b"AUTH", b"carol", b"secret"],
            [b"HELLO", b"4"], [b"HELLO", version, b"SETNAME", b"not allowed"],
        ])
        self.step(c, [hello])
        self.send(c, [self.some(self.vocabulary.all), [b"HGETALL", b"hash:1"],
                      [b"ZRANGE", b"zset:1", b"0", b"-1", b"WITHSCORES"], [b"GET", b"missing:1"],
                      [b"GET", b"str:1"], [b"SMEMBERS", b"set:1"]][:self.rng.randint(1, 6)])

    def silence(self):
        c = self.connection()
        quiet = [self.exact() for _ in range(self.rng.randint(1, 4))]
        if self.rng.random() < 0.5:
            self.step(c, [[b"CLIENT", b"REPLY", b"OFF"]] + quiet + [[b"CLIENT", b"REPLY", b"ON"]])
        else:
            self.step(c, [[b"CLIENT", b"REPLY", b"SKIP"], quiet[0], [b"ECHO", b"heard again"]])
        self.step(self.connection(), [self.exact()])

    def monitor(self):
        c = self.connection()
        self.step(c, [[b"MONITOR"]])
        self.step(self.connection(), [self.exact()])
        self.step(c, [[b"RESET"]])

    def inline(self):
        self.step(self.connection(), [self.rng.choice([
            b"PING\r\n", b"SET str:1 inline\r\n", b"get str:1\n", b"  GET   str:1  \r\n",
            b'SET str:1 "two words \\x41\\n"\r\n', b"SET str:1 'it''s'\r\nPING\r\n", b"\r\nPING\r\n",
            b"\r\n\r\nECHO x\r\n", b"*0\r\nPING\r\n", b"*-1\r\nPING\r\n", b"nosuch a b\r\n",
            b'ECHO ""\r\n', b"MGET str:1 str:2 num:1\r\n", b"INCR num:1\r\nINCR num:1\r\n",
        ])])

    def nonsense(self):
        """What ends a connection, with good requests before it."""
        before = [self.exact()] if self.rng.random() < 0.5 else []
        bad = self.rng.choice([
            b"*abc\r\n", b"*1\r\n:5\r\n", b"*1\r\n$-1\r\n", b"*1\r\n$abc\r\n", b"*2000000000\r\n",
            b"*1\r\n$600000000\r\n", b"SET 'unbalanced\r\n", b'GET "str:1"x\r\n', b"*1\r\n*1\r\n",
            b"x" * 70000, b"*2147483648\r\n", b"*1\r\n$9999999999999999999\r\n",
        ])
        if self.rng.random() < 0.15:
            before, bad = [], self.rng.choice([b"POST / HTTP/1.1\r\n", b"Host: x\r\n",
                                               b"POST\r\n", b"host: evil\r\n"])
        self.step(self.connection(), before + [bad])

    def leave(self):
        c = self.connection()
        self.step(c, [self.exact(), [b"QUIT"]] + ([[b"PING"]] if self.rng.random() < 0.3 else []))
