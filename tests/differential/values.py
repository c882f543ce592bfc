# SPDX-License-Identifier: Apache-2.0
"""What stands for a word of a command pattern: keys, values, numbers, good ones and bad ones.

Every method named kind_X yields one argument for the word X of a pattern (patterns.py). Keys come
from small pools, one for each type, so that reads repeat (and L1 hits) and types collide.

Two things are never produced, because two runs would differ by them: a time to live that could end
during a case, and random members outside the keys that begin with "volatile:", which are compared by
shape and deleted before the keyspaces are compared.
"""

import hashlib

from scripts import LIBRARIES, SCRIPTS

BINARY = b"\x00\xff\r\n$-1\r\n\x80bin"

KEYS = {
    "str": [b"str:1", b"str:2", b"str:3", b"str:" + BINARY],
    "num": [b"num:1", b"num:2"],
    "list": [b"list:1", b"list:2", b"list:" + BINARY],
    "set": [b"set:1", b"set:2", b"set:3"],
    "zset": [b"zset:1", b"zset:2", b"zset with spaces"],
    "hash": [b"hash:1", b"hash:2", b"hash:" + BINARY],
    "stream": [b"stream:1", b"stream:2"],
    "geo": [b"geo:1", b"geo:2"],
    "hll": [b"hll:1", b"hll:2"],
}
ALL_KEYS = [key for pool in KEYS.values() for key in pool]
MISSING = [b"missing:1", b"missing:2", b"missing:" + BINARY]

#: Arguments that are wrong nearly everywhere. None is a small positive number: such a one may end up
#: as a time to live.
JUNK = [b"", b"abc", b"-1", b"0", b"-0", b"+1", b" 1", b"0x10", b"3.5", b"nan", b"inf", b"-inf",
        b"1e400", b"123456789", b"9223372036854775807", b"9223372036854775808",
        b"-9223372036854775809", b"18446744073709551616", b"99999999999999999999999999",
        BINARY, b"\r\n", b"*", b"(", b"[", b"-", b"+", b"$", b"COUNT", b"EX", b"STORE", b"STREAMS",
        b"\xc3\x28", b"a" * 300]


def sha1(source):
    return hashlib.sha1(source).hexdigest().encode()


class Values:
    """The arguments of one case."""

    def __init__(self, rng, connections, payloads):
        self.rng = rng
        self.connections = connections
        self.payloads = payloads  # DUMPs of keys of each type, and one FUNCTION DUMP
        self.huge_left = 400 << 10 if rng.random() < 0.95 else 3 << 20

    def argument(self, kind):
        return getattr(self, "kind_" + kind)()

    def pick(self, items):
        return items[int(self.rng.random() * len(items))]

    def chance(self, share):
        return self.rng.random() < share

    def number(self, low, high):
        return b"%d" % self.rng.randint(low, high)

    # ---- Keys

    def key_of(self, kind):
        chance = self.rng.random()
        if chance < 0.91:
            return self.pick(KEYS[kind])
        if chance < 0.96:
            return self.pick(ALL_KEYS)
        return b"" if chance < 0.965 else self.pick(MISSING)

    def kind_str(self):
        return self.key_of("str")

    def kind_num(self):
        return self.key_of("num")

    def kind_list(self):
        return self.key_of("list")

    def kind_set(self):
        return self.key_of("set")

    def kind_zset(self):
        return self.key_of("zset")

    def kind_hash(self):
        return self.key_of("hash")

    def kind_stream(self):
        return self.key_of("stream")

    def kind_geo(self):
        return self.key_of("geo")

    def kind_hll(self):
        return self.key_of("hll")

    def kind_key(self):
        return self.pick(ALL_KEYS) if self.chance(0.95) else self.pick(MISSING)

    # ---- Contents

    def kind_val(self):
        chance = self.rng.random()
        if chance < 0.3:
            return self.number(-100, 1000)
        if chance < 0.7:
            return b"value-%d" % self.rng.randint(0, 99)
        if chance < 0.78:
            return b""
        if chance < 0.9:
            return BINARY * self.rng.randint(1, 4)
        if chance < 0.97:
            return b"v" * self.rng.randint(40, 5000)
        return self.kind_huge()

    def kind_huge(self):
        size = self.rng.randint(17 << 10, 140 << 10)
        if self.huge_left > 1 << 20 and self.chance(0.5):
            size = self.rng.randint(1 << 20, 2 << 20)
        if size > self.huge_left:
            return b"was huge"
        self.huge_left -= size
        return (b"huge\r\n!" * (size // 7 + 1))[:size]

    def kind_field(self):
        return self.pick([b"f1", b"f2", b"f3", b"field four", b"f\x00\xff", b""])

    def kind_member(self):
        return self.pick([b"a", b"b", b"c", b"d", b"e", b"10", b"20", b"m\x00\r\n", b""])

    def kind_place(self):
        return self.pick([b"Palermo", b"Catania", b"Rome", b"nowhere"])

    # ---- Numbers

    def kind_int(self):
        return self.pick([b"0", b"1", b"-1", b"7", b"-42", b"1000000", b"9223372036854775807",
                          b"-9223372036854775808"])

    def kind_float(self):
        return self.pick([b"0.1", b"-1.5", b"3", b"1e3", b"5.0e-2", b"1e308", b"1.5e3"])

    def kind_index(self):
        return self.number(-6, 6)

    def kind_count(self):
        return self.number(1, 6)

    def kind_count0(self):
        return self.number(-3, 6)

    def kind_offset(self):
        return self.pick([b"0", b"1", b"7", b"8", b"100", b"5000"])

    def kind_bit(self):
        return self.pick([b"0", b"1", b"1", b"2"])

    def kind_score(self):
        return self.pick([b"0", b"1", b"2.5", b"-3", b"1e10", b"inf", b"-inf", b"7"])

    def kind_bound(self):
        return self.pick([b"-inf", b"+inf", b"0", b"(1", b"2.5", b"(7", b"10"])

    def kind_lex(self):
        return self.pick([b"-", b"+", b"[a", b"(b", b"[c", b"(e"])

    def kind_db(self):
        return self.number(0, 3)

    def kind_timeout(self):
        return self.pick([b"0", b"0", b"100", b"60.5"])

    def kind_timeoutms(self):
        return self.pick([b"0", b"100000", b"60500"])

    # Times to live end long after a case, or before they begin.

    def kind_ttl(self):
        return self.pick([b"1000", b"5000", b"100000", b"100000"])

    def kind_anyttl(self):
        return self.pick([b"1000", b"5000", b"100000", b"0", b"-1", b"-5000", b"abc",
                          b"9223372036854775807", b"-9223372036854775808"])

    def kind_newttl(self):
        """Not one that the key has already: which of the two ends later is a matter of milliseconds."""
        return self.number(200000, 90000000)

    def kind_pttl(self):
        return self.kind_ttl() + b"000"

    def kind_anypttl(self):
        return self.pick([b"1000000", b"100000000", b"0", b"-1", b"9223372036854775807", b"1e5"])

    def kind_at(self):
        return self.pick([b"4102444800", b"4102444800", b"5000000000", b"1", b"0", b"-1"])

    def kind_pat(self):
        return self.pick([b"4102444800000", b"4102444800000", b"1000", b"0", b"-1"])

    # ---- Geography

    def kind_lon(self):
        return self.pick([b"13.361389", b"15.087269", b"12.5", b"-180", b"181", b"0"])

    def kind_lat(self):
        return self.pick([b"38.115556", b"37.502669", b"41.9", b"-85.05112878", b"86", b"0"])

    def kind_radius(self):
        return self.pick([b"100", b"200", b"1000", b"0", b"-1", b"50000"])

    def kind_unit(self):
        return self.pick([b"m", b"km", b"ft", b"mi", b"KM", b"yards"])

    # ---- Streams

    def kind_newid(self):
        """Mostly above the ones before it."""
        return b"%d-%d" % (self.rng.randint(1, 60), self.rng.randint(0, 3))

    def kind_id(self):
        return self.pick([b"1-0", b"5-1", b"10", b"20-2", b"0", b"0-0", b"60", b"1-x"])

    def kind_from(self):
        return self.pick([b"-", b"0", b"1-0", b"(5-1", b"10"])

    def kind_to(self):
        return self.pick([b"+", b"+", b"30", b"(60-0", b"5"])

    def kind_after(self):
        return self.pick([b"0", b"0-0", b"5", b"20-1", b"$"])

    def kind_group(self):
        return self.pick([b"g1", b"g2", b"g1", b"nogroup"])

    def kind_consumer(self):
        return self.pick([b"c1", b"c2", b"c\xff"])

    # ---- Scripts and functions

    def kind_script(self):
        return self.pick(SCRIPTS)[0]

    def sha_of(self, source):
        return sha1(source) if self.chance(0.95) else b"f" * 40

    def kind_sha(self):
        return self.sha_of(self.kind_script())

    def kind_library(self):
        return self.pick(LIBRARIES)

    def kind_libname(self):
        return self.pick([b"one", b"two", b"none"])

    def kind_function(self):
        return self.pick([b"f_get", b"f_set", b"f_echo", b"f_fail", b"f_none"])

    def kind_libraries(self):
        return self.payloads["functions"]

    def kind_payload(self):
        name = self.pick(["str", "list", "set", "zset", "hash", "stream", "str"])
        return self.payloads[name] if self.chance(0.85) else self.payloads[name][:-1] + b"x"

    # ---- Pub/Sub

    def kind_channel(self):
        return self.pick([b"news", b"weather", b"ch\x00\xff", b"news.art"])

    def kind_chanpattern(self):
        return self.pick([b"news*", b"*", b"w?ather", b"[nw]e*"])

    # ---- The rest

    def kind_glob(self):
        return self.pick([b"*", b"str:*", b"[hl]*", b"none*", b"zset w?th*", b"*\xff*"])

    def kind_word(self):
        return self.pick([b"alpha", b"Beta", b"gamma-3", b"delta"])

    def kind_badname(self):
        return self.pick([b"two words", b"a\nb", b"\xff"])

    def kind_newuser(self):
        return self.pick([b"alice", b"bob"])

    def kind_user(self):
        return self.pick([b"alice", b"bob", b"nobody"])

    def kind_junk(self):
        return self.pick(JUNK)

    def kind_command(self):
        return self.pick([b"get", b"SET", b"mget", b"zunionstore", b"eval", b"config|get", b"nosuch",
                          b"xread", b"sort"])

    def kind_conn_id(self):
        """Stands for CLIENT ID of one of the connections (execute.py puts it in)."""
        return ("id", self.rng.randrange(self.connections))

    def kind_conn_addr(self):
        return ("addr", self.rng.randrange(self.connections))
