# SPDX-License-Identifier: Apache-2.0
"""The commands on keys: what arguments they take (patterns.py says how to read it).

Commands of newer servers are here too: an older one answers that it does not know them, and that
answer names their arguments.
"""

from patterns import fixed, often, rare, table

STRINGS = table("strings", {
    "append": "str val",
    "decr": "num",
    "decrby": "num int",
    "get": often("str | str | num | key", 12),
    "getdel": "str",
    "getex": "str | str EX ttl | str PX pttl | str EXAT at | str PXAT pat | str PERSIST | str EX anyttl",
    "getrange": "str index index",
    "getset": "str val",
    "incr": often("num | num | str", 2),
    "incrby": "num int",
    "incrbyfloat": "num float",
    "lcs": "str str | str str LEN | str str IDX [ MINMATCHLEN count ] [ WITHMATCHLEN ] | str str LEN IDX",
    "mget": often("( str )* | str num key | str str str", 4),
    "mset": often("( str val )* | str val num int", 2),
    "msetnx": "( str val )*",
    "psetex": "str pttl val | str anypttl val",
    "set": often("str val | str val | num int | str val EX ttl | str val PX pttl | str val NX | str val XX"
                 " | str val GET | str val KEEPTTL | str val EXAT at | str val PXAT pat | key val"
                 " | str val NX GET | str val NX XX | str val EX anyttl | str huge", 8),
    "setex": "str ttl val | str anyttl val",
    "setnx": "str val",
    "setrange": "str offset val",
    "strlen": "str",
    "substr": "str index index",
})

BITMAPS = table("bitmaps", {
    "bitcount": "str | str index index | str index index BIT | str index index BYTE",
    "bitfield": "str GET 'u8' 0 | str SET 'i5' #1 int | str OVERFLOW SAT INCRBY 'u2' 100 count GET 'u4' 0"
                " | str OVERFLOW FAIL INCRBY 'u2' 0 int | str GET 'u64' 0 | str",
    "bitfield_ro": "str GET 'u8' 0 | str GET 'i5' #1 GET 'u2' 3 | str SET 'u8' 0 1",
    "bitop": "AND str ( str )* | OR str str num | XOR str str str | NOT str str | NOT str str str | NAND str str",
    "bitpos": "str bit | str bit index | str bit index index | str bit index index BIT",
    "getbit": "str offset",
    "setbit": "str offset bit",
})

HASHES = table("hashes", {
    "hdel": "hash ( field )*",
    "hexists": "hash field",
    "hexpire": "hash ttl FIELDS 1 field",
    "hexpireat": "hash at FIELDS 1 field",
    "hexpiretime": "hash FIELDS 1 field",
    "hget": "hash field",
    "hgetall": "hash",
    "hgetdel": "hash FIELDS 1 field",
    "hgetex": "hash FIELDS 1 field",
    "hincrby": "hash F1 int | hash field int | hash F2 count",
    "hincrbyfloat": "hash F1 float | hash field float",
    "hkeys": "hash",
    "hlen": "hash",
    "hmget": "hash ( field )*",
    "hmset": "hash ( field val )*",
    "hpersist": "hash FIELDS 1 field",
    "hpexpire": "hash pttl FIELDS 1 field",
    "hpexpireat": "hash pat FIELDS 1 field",
    "hpexpiretime": "hash FIELDS 1 field",
    "hpttl": "hash FIELDS 1 field",
    "hrandfield": "hash | hash count0 | hash count0 WITHVALUES",
    "hscan": "hash 0 | hash 0 MATCH glob | hash 0 COUNT count",
    "hset": often("hash ( field val )* | hash F1 count", 2),
    "hsetex": "hash EX ttl FIELDS 1 field val",
    "hsetnx": "hash field val",
    "hstrlen": "hash field",
    "httl": "hash FIELDS 1 field",
    "hvals": "hash",
})

#: Rows that may block are fixed, and with timeouts no case lives to see: generator.py has blocking
#: on purpose.
LISTS = table("lists", {
    "blmove": fixed("list list LEFT RIGHT timeout | list list RIGHT UP timeout | list list LEFT LEFT junk"
                    " | list list LEFT RIGHT | list list LEFT RIGHT timeout junk", 0.3),
    "blmpop": fixed("timeout 1 list LEFT | timeout 2 list list RIGHT COUNT count | timeout 0 list LEFT"
                    " | junk 1 list LEFT | timeout 1 list UP | timeout 5 list | timeout 1", 0.3),
    "blpop": fixed("list timeout | list list timeout | list junk | list | str timeout | list -1", 0.3),
    "brpop": fixed("list timeout | list list timeout | list junk | list | str timeout | list -1", 0.3),
    "brpoplpush": fixed("list list timeout | list list junk | list list | list str timeout", 0.3),
    "lindex": "list index",
    "linsert": "list BEFORE val val | list AFTER word word | list BEHIND val val",
    "llen": "list",
    "lmove": "list list LEFT RIGHT | list list RIGHT RIGHT | list list LEFT UP | list set LEFT LEFT",
    "lmpop": "1 list LEFT | 2 list list RIGHT COUNT count | 2 list LEFT | 0 list LEFT | 1 list LEFT COUNT count0",
    "lpop": "list | list count | list count0",
    "lpos": "list word | list word RANK index | list word COUNT count0 | list word MAXLEN count0 RANK -1",
    "lpush": often("list ( val )* | list ( word )*", 2),
    "lpushx": "list ( word )*",
    "lrange": often("list 0 -1 | list index index", 2),
    "lrem": "list index word",
    "lset": "list index val",
    "ltrim": "list index index | list 0 20",
    "rpop": "list | list count | list count0",
    "rpoplpush": "list list | list str",
    "rpush": often("list ( val )* | list ( word )*", 2),
    "rpushx": "list ( word )*",
})

SETS = table("sets", {
    "sadd": often("set ( member )* | set ( int )* | set val", 2),
    "scard": "set",
    "sdiff": "( set )*",
    "sdiffstore": "set ( set )*",
    "sinter": "( set )*",
    "sintercard": "1 set | 2 set set | 2 set set LIMIT count0 | 3 set",
    "sinterstore": "set ( set )*",
    "sismember": "set member",
    "smembers": "set",
    "smismember": "set ( member )*",
    "smove": "set set member",
    # SPOP of a random member goes only to a volatile key (generator.py).
    "spop": fixed("set 1000 | set 0 | set -1 | set 'abc' | set 1000 junk | MISSING | MISSING 2"),
    "srandmember": "set | set count0",
    "srem": "set ( member )*",
    "sscan": "set 0 | set 0 MATCH glob | set 0 COUNT count | set junk",
    "sunion": "( set )*",
    "sunionstore": "set ( set )*",
})

ZSETS = table("zsets", {
    "bzmpop": fixed("timeout 1 zset MIN | timeout 2 zset zset MAX COUNT count | junk 1 zset MIN"
                    " | timeout 1 zset MID | timeout 0 zset MIN | timeout 1", 0.3),
    "bzpopmax": fixed("zset timeout | zset zset timeout | zset junk | zset | str timeout", 0.3),
    "bzpopmin": fixed("zset timeout | zset zset timeout | zset junk | zset | str timeout", 0.3),
    "zadd": often("zset ( score member )* | zset NX score member | zset XX CH score member | zset GT score member"
                  " | zset LT CH score member | zset INCR score member | zset NX GT score member", 2),
    "zcard": "zset",
    "zcount": "zset bound bound",
    "zdiff": "1 zset | 2 zset zset | 2 zset zset WITHSCORES | 2 zset set",
    "zdiffstore": "zset 2 zset zset | zset 1 zset | zset 0 zset",
    "zincrby": "zset score member",
    "zinter": "2 zset zset | 2 zset set WEIGHTS count score | 2 zset zset AGGREGATE MAX WITHSCORES",
    "zintercard": "2 zset zset | 2 zset zset LIMIT count0 | 1 set",
    "zinterstore": "zset 2 zset zset | zset 2 zset zset WEIGHTS 2 score | zset 1 zset AGGREGATE MIN",
    "zlexcount": "zset lex lex",
    "zmpop": "1 zset MIN | 2 zset zset MAX COUNT count | 1 zset MID",
    "zmscore": "zset ( member )*",
    "zpopmax": "zset | zset count0",
    "zpopmin": "zset | zset count0",
    "zrandmember": "zset | zset count0 | zset count0 WITHSCORES",
    "zrange": often("zset index index | zset 0 -1 WITHSCORES | zset bound bound BYSCORE | zset lex lex BYLEX"
                    " | zset bound bound BYSCORE LIMIT 0 count | zset index index REV | zset lex lex BYLEX REV", 2),
    "zrangebylex": "zset lex lex | zset lex lex LIMIT index count",
    "zrangebyscore": "zset bound bound | zset bound bound WITHSCORES LIMIT 1 count",
    "zrangestore": "zset zset index index | zset zset bound bound BYSCORE | zset zset lex lex BYLEX LIMIT 0 2",
    "zrank": "zset member | zset member WITHSCORE",
    "zrem": "zset ( member )*",
    "zremrangebylex": "zset lex lex",
    "zremrangebyrank": "zset index index",
    "zremrangebyscore": "zset bound bound",
    "zrevrange": "zset index index | zset index index WITHSCORES",
    "zrevrangebylex": "zset lex lex",
    "zrevrangebyscore": "zset bound bound | zset bound bound WITHSCORES",
    "zrevrank": "zset member",
    "zscan": "zset 0 | zset 0 MATCH glob | zset 0 COUNT count",
    "zscore": "zset member",
    "zunion": "2 zset zset | 2 zset set WITHSCORES | 1 zset WEIGHTS score",
    "zunionstore": "zset 2 zset zset | zset 2 set zset WEIGHTS score score AGGREGATE SUM",
})

#: XADD with an id made by the server's clock goes only to a volatile key (generator.py).
STREAMS = table("streams", {
    "xack": "stream group id | stream group id id",
    "xadd": fixed("stream newid field val | stream newid field val field val | stream NOMKSTREAM newid field val"
                  " | stream MAXLEN 3 newid field val | stream MINID ~ 5 newid F val | stream newid field"
                  " | stream 'abc' field val | stream 0-0 field val | list newid field val | stream newid", 3),
    "xautoclaim": fixed("stream group consumer 0 0 | stream group consumer 0 id COUNT count JUSTID"
                        " | stream group consumer junk 0 | stream group consumer 0"),
    "xclaim": fixed("stream group consumer 0 id | stream group consumer 0 id id JUSTID"
                    " | stream group consumer 0 id FORCE RETRYCOUNT count | stream group consumer junk id"),
    "xdel": "stream id | stream ( id )*",
    "xgroup": "junk | junk stream",
    "xgroup|create": "stream group after | stream group 0 MKSTREAM | stream group $ ENTRIESREAD count",
    "xgroup|createconsumer": "stream group consumer",
    "xgroup|delconsumer": "stream group consumer",
    "xgroup|destroy": "stream group",
    "xgroup|help": rare(""),
    "xgroup|setid": "stream group after | stream group id ENTRIESREAD count",
    "xinfo": "junk | junk stream",
    "xinfo|consumers": "stream group",
    "xinfo|groups": "stream",
    "xinfo|help": rare(""),
    "xinfo|stream": "stream | stream FULL | stream FULL COUNT count",
    "xlen": "stream",
    "xpending": "stream group | stream group - + count | stream group IDLE 0 - + 10 consumer",
    "xrange": "stream from to | stream from to COUNT count | stream - +",
    "xread": fixed("STREAMS stream after | COUNT count STREAMS stream stream after after | STREAMS stream"
                   " | COUNT junk STREAMS stream 0 | STREAMS stream junk | BLOCK timeoutms STREAMS stream 0"
                   " | BLOCK junk STREAMS stream $ | STREAMS list 0"),
    "xreadgroup": fixed("GROUP group consumer STREAMS stream > | GROUP group consumer COUNT count STREAMS stream after"
                        " | GROUP group consumer NOACK STREAMS stream > | GROUP group consumer STREAMS stream"
                        " | GROUP group STREAMS stream > | GROUP 'g1' 'c1' COUNT count STREAMS stream stream > 0", 2),
    "xrevrange": "stream to from | stream + - COUNT count",
    "xsetid": "stream 70-0 | stream id | stream 90-1 ENTRIESADDED 100 MAXDELETEDID 3-0",
    "xtrim": "stream MAXLEN count | stream MAXLEN ~ 2 | stream MINID id | stream MINID = id LIMIT 2",
})

GEO = table("geo", {
    "geoadd": often("geo lon lat place | geo 13.361389 38.115556 Palermo 15.087269 37.502669 Catania"
                    " | geo NX lon lat place | geo XX CH lon lat place", 2),
    "geodist": "geo place place | geo place place unit",
    "geohash": "geo ( place )*",
    "geopos": "geo ( place )*",
    "georadius": "geo lon lat radius unit | geo lon lat radius KM WITHDIST WITHCOORD COUNT count ASC"
                 " | geo lon lat radius KM STORE geo | geo lon lat radius KM STOREDIST zset",
    "georadius_ro": "geo lon lat radius unit WITHHASH | geo lon lat radius unit STORE geo",
    "georadiusbymember": "geo place radius unit | geo place radius KM STORE geo | geo place radius KM DESC",
    "georadiusbymember_ro": "geo place radius unit",
    "geosearch": "geo FROMMEMBER place BYRADIUS radius unit ASC | geo FROMLONLAT lon lat BYBOX radius radius KM DESC"
                 " WITHDIST | geo FROMMEMBER place BYRADIUS 500 KM COUNT 1 ANY",
    "geosearchstore": "geo geo FROMMEMBER place BYRADIUS radius KM | zset geo FROMLONLAT lon lat BYRADIUS radius KM"
                      " STOREDIST",
})

HYPERLOGLOG = table("hyperloglog", {
    "pfadd": often("hll ( member )* | hll | str val", 2),
    "pfcount": "hll | ( hll )*",
    "pfdebug": "ENCODING hll | DECODE hll | GETREG hll | TODENSE hll | WHAT hll",
    "pfmerge": "hll ( hll )* | hll",
    "pfselftest": rare("", 0.15),
})

ANY_TYPE = table("keys", {
    "copy": "key key | str str REPLACE | key key DB db REPLACE | key key DB 99",
    "del": often("key | ( key )* | str", 2),
    "dump": "key | str",
    "exists": often("key | ( key )*", 2),
    "expire": "key ttl | key anyttl | key ttl NX | key ttl XX | key newttl GT | key newttl LT | key ttl NX XX",
    "expireat": "key at | key at NX | key at GT",
    "expiretime": "key",
    "keys": "glob",
    # Port 1 refuses at once; a key that is missing is not sent at all.
    "migrate": fixed("127.0.0.1 1 MISSING 0 1000 | 127.0.0.1 1 str 0 1000 | 127.0.0.1 1 '' 0 1000 KEYS MISSING"
                     " | 127.0.0.1 1 str 0 | 127.0.0.1 junk MISSING 0 1000 | 127.0.0.1 1 str 0 1000 KEYS str"
                     " | 127.0.0.1 1 MISSING junk 1000 COPY", 0.5),
    "move": "key db | str db",
    "object": "junk | junk key",
    "object|encoding": "key",
    "object|freq": "key",
    "object|help": rare(""),
    "object|idletime": "key",
    "object|refcount": "str",
    "persist": "key",
    "pexpire": "key pttl | key anypttl | key newttl GT",
    "pexpireat": "key pat | key pat XX",
    "pexpiretime": "key",
    "pttl": "key",
    "randomkey": "",
    "rename": "key key | str str",
    "renamenx": "key key | str str",
    "restore": "str 0 payload REPLACE | key 0 payload | key pttl payload REPLACE | key pat payload REPLACE ABSTTL"
               " | str 0 payload REPLACE IDLETIME 5 FREQ 3 | str 0 junk REPLACE",
    "scan": "0 | 0 COUNT 1000 | 0 MATCH glob COUNT 100 | 0 TYPE 'hash' | junk",
    "sort": "list ALPHA | list ALPHA DESC LIMIT 0 count | set ALPHA | zset BY 'nosort'"
            " | list BY 'str:*' GET # GET 'str:*' | list ALPHA STORE list | set BY 'num:*' STORE list | hash | list",
    "sort_ro": "list ALPHA | set ALPHA DESC | list | list ALPHA STORE list",
    "touch": "key | ( key )*",
    "ttl": "key",
    "type": "key",
    "unlink": "key | ( key )*",
    # A wait that lasts is in generator.py.
    "wait": fixed("0 0 | 0 100 | -1 0 | 'abc' 0 | 0 'abc' | 0 | 0 0 0", 0.5),
    "waitaof": fixed("0 0 0 | 0 0 | 2 0 0 | 0 junk 0", 0.5),
})

TABLES = [STRINGS, BITMAPS, HASHES, LISTS, SETS, ZSETS, STREAMS, GEO, HYPERLOGLOG, ANY_TYPE]
