# SPDX-License-Identifier: Apache-2.0
"""Lua for EVAL and FUNCTION: (source, kinds of its keys, kinds of its arguments)."""

SCRIPTS = [
    (b"return redis.call('GET', KEYS[1])", ["str"], []),
    (b"return redis.call('SET', KEYS[1], ARGV[1])", ["str"], ["val"]),
    (b"return {redis.call('INCR', KEYS[1]), redis.call('GET', KEYS[1])}", ["num"], []),
    (b"return redis.call('MGET', unpack(KEYS))", ["str", "str", "num"], []),
    (b"return redis.call('LPUSH', KEYS[1], ARGV[1], ARGV[2])", ["list"], ["val", "val"]),
    (b"redis.call('DEL', KEYS[1]); redis.call('SET', KEYS[2], 'moved'); return 2",
     ["str", "str"], []),
    # keys that are not declared
    (b"return redis.call('SET', 'str:1', ARGV[1])", [], ["val"]),
    (b"redis.call('SET', 'str:' .. ARGV[1], 'x'); return redis.call('GET', 'str:2')", [], ["count"]),
    (b"redis.call('SELECT', ARGV[1]); return redis.call('SET', KEYS[1], 'in db')", ["str"], ["db"]),
    (b"return redis.call('FLUSHDB')", [], []),
    # kinds of replies
    (b"return {1, 'two', 3.9, false, true, {4, {'five'}}, nil, 6}", [], []),
    (b"return redis.status_reply('FINE')", [], []),
    (b"return redis.error_reply('MINE is an error')", [], []),
    (b"return redis.call('HGETALL', KEYS[1])", ["hash"], []),
    (b"redis.setresp(3); return redis.call('HGETALL', KEYS[1])", ["hash"], []),
    (b"redis.setresp(3); return redis.call('ZSCORE', KEYS[1], ARGV[1])", ["zset"], ["member"]),
    (b"return {double = 3.25}", [], []),
    (b"return {map = {a = 1}}", [], []),
    (b"return {set = {x = true}}", [], []),
    (b"return {big_number = '123456789012345678901234567890'}", [], []),
    (b"return {verbatim_string = {format = 'txt', string = 'plain'}}", [], []),
    (b"return ARGV", [], ["val", "val", "junk"]),
    (b"return #KEYS .. ':' .. #ARGV", ["key", "key"], ["val"]),
    # cut, or a huge word makes it half a minute of one call, which is a dead server (upstream.dead_after)
    (b"return string.rep(string.sub(ARGV[1], 1, 100), 3000)", [], ["word"]),
    (b"return redis.sha1hex(ARGV[1])", [], ["val"]),
    (b"return cjson.encode({1, 2, ARGV[1] == 'alpha'})", [], ["word"]),
    # errors
    (b"return redis.call('INCR', KEYS[1])", ["list"], []),
    (b"return redis.pcall('INCR', KEYS[1])", ["list"], []),
    (b"redis.call('SET', KEYS[1], 'half'); error('on purpose')", ["str"], []),
    (b"return redis.call('nosuch')", [], []),
    (b"this is no lua", [], []),
    (b"return redis.call('SUBSCRIBE', 'news')", [], []),
    (b"return redis.call('BLPOP', KEYS[1], 0)", ["list"], []),
    # flags
    (b"#!lua flags=no-writes\nreturn redis.call('GET', KEYS[1])", ["str"], []),
    (b"#!lua flags=no-writes\nreturn redis.call('SET', KEYS[1], 1)", ["str"], []),
    (b"#!lua flags=nosuch\nreturn 1", [], []),
    # others hear of it
    (b"return redis.call('PUBLISH', 'news', ARGV[1])", [], ["val"]),
]

LIBRARIES = [
    b"#!lua name=one\n"
    b"redis.register_function('f_set', function(k, a) return redis.call('SET', k[1], a[1]) end)\n"
    b"redis.register_function{function_name='f_get', flags={'no-writes'},\n"
    b"  callback=function(k, a) return redis.call('GET', k[1]) end}\n",
    b"#!lua name=two\n"
    b"redis.register_function{function_name='f_echo', flags={'no-writes', 'allow-stale'},\n"
    b"  callback=function(k, a) return {#k, #a, k, a} end}\n"
    b"redis.register_function('f_fail', function(k, a)\n"
    b"  redis.call('SET', 'str:2', 'not declared'); error('on purpose') end)\n",
    b"#!lua name=one\nredis.register_function('f_get', function() return 'other' end)\n",
    b"#!lua name=bad\nthis is no lua\n",
    b"redis.register_function('f', function() end)",
    b"#!lua name=empty\n",
]


def eval_arguments(values, with_source):
    """The arguments of EVAL or EVALSHA: mostly what the script expects."""
    source, keys, args = values.pick(SCRIPTS)
    keys = [values.argument(kind) for kind in keys]
    args = [values.argument(kind) for kind in args]
    count = b"%d" % len(keys)
    if values.chance(0.05):
        count = values.pick([b"-1", b"99", b"abc", b"0"])
    return [source if with_source else values.sha_of(source), count] + keys + args
