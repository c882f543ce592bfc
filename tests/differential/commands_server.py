# SPDX-License-Identifier: Apache-2.0
"""The commands on connections and on the server, and those that are left out, with the reason.

Most rows here are fixed: made-up arguments could stop the server, pause everybody, or close the
connections of the test itself.
"""

from patterns import Row, fixed, rare, table
from scripts import eval_arguments

SCRIPTS = table("scripts", {
    "eval": Row(lambda values: eval_arguments(values, True), weight=3.0),
    "eval_ro": Row(lambda values: eval_arguments(values, True)),
    "evalsha": Row(lambda values: eval_arguments(values, False), weight=2.0),
    "evalsha_ro": Row(lambda values: eval_arguments(values, False)),
    "fcall": "function 1 str val | function 1 key | function 0 | function 2 str str val | function junk",
    "fcall_ro": "function 1 str | function 0 | function 1 str val",
    "function": "junk",
    "function|delete": "libname",
    "function|dump": "",
    "function|flush": fixed(" | ASYNC | SYNC | junk"),
    "function|help": rare(""),
    "function|kill": fixed(" | junk"),
    "function|list": " | WITHCODE | LIBRARYNAME libname | LIBRARYNAME 'o*' WITHCODE",
    "function|load": "library | REPLACE library | library junk",
    "function|restore": "libraries | libraries REPLACE | libraries APPEND | libraries FLUSH | junk",
    "function|stats": "",
    "script": "junk",
    # YES and SYNC turn the connection into a debugger's.
    "script|debug": Row("NO | junk | ", fixed=True, alone=True),
    "script|exists": "sha | ( sha )*",
    "script|flush": fixed(" | ASYNC | SYNC | junk", 0.5),
    "script|help": rare(""),
    "script|kill": fixed(" | junk"),
    "script|load": "script",
})

#: The ways of a transaction are in generator.py; here they come unasked.
TRANSACTIONS = table("multi", {
    "discard": rare(""),
    "exec": rare(""),
    "multi": fixed("junk", 0.2),
    "unwatch": rare(""),
    "watch": fixed("key | ( key )* | ", 0.4),
})

PUBSUB = table("pubsub", {
    "psubscribe": fixed("chanpattern | ( chanpattern )* | ", 0.3),
    "publish": "channel val",
    "pubsub": "junk",
    "pubsub|channels": " | chanpattern",
    "pubsub|help": rare(""),
    "pubsub|numpat": "",
    "pubsub|numsub": " | ( channel )*",
    "pubsub|shardchannels": " | chanpattern",
    "pubsub|shardnumsub": " | ( channel )*",
    "punsubscribe": fixed(" | ( chanpattern )*", 0.3),
    "spublish": "channel val",
    "ssubscribe": fixed("channel | ( channel )* | ", 0.3),
    "subscribe": fixed("channel | ( channel )* | ", 0.3),
    "sunsubscribe": fixed(" | ( channel )*", 0.3),
    "unsubscribe": fixed(" | ( channel )*", 0.3),
})

CONNECTION = table("connection", {
    "auth": fixed("val | 'default' val | user val | 'default' '' | 'a' 'b' 'c' | "),
    "echo": "val",
    # Other forms, and the good one, are in generator.py.
    "hello": fixed("2 | 4 | 1 | junk | 2 SETNAME word | 2 SETNAME | 2 AUTH | 2 AUTH user val | 2 NOSUCH"
                   " | 2 AUTH 'default' val SETNAME word | 2 SETNAME badname | 3000000000"),
    "ping": " | val | val val",
    "quit": fixed(" | junk", 0.15),
    "asking": fixed(" | junk", 0.3),
    "readonly": fixed(" | junk", 0.3),
    "readwrite": fixed(" | junk", 0.3),
    "reset": fixed(" | junk", 0.4),
    "select": fixed("db | 0 | 0 | 15 | 16 | -1 | junk | | 1 2"),
})

#: REPLY is in generator.py. Killing by kind, by user or by address of the server would close the
#: test's own control connection; a pause would stop everybody.
CLIENT = table("client", {
    "client": fixed(" | 'nosuch' | 'nosuch' 'x'"),
    "client|caching": fixed("YES | NO | junk | "),
    "client|capa": fixed("'redirect' | junk | "),
    "client|getname": fixed(" | junk"),
    "client|getredir": fixed(" | junk"),
    "client|help": fixed("", 0.3),
    "client|id": fixed(" | junk"),
    "client|info": fixed(" | junk"),
    "client|kill": fixed("conn_addr | ID conn_id SKIPME NO | ID conn_id | ADDR conn_addr | ID junk | ID 99999999"
                         " | ADDR 1.2.3.4:5 | 1.2.3.4:5 | TYPE junk | 'nosuch' 'x' | SKIPME YES ID 99999999 | "),
    "client|list": fixed(" | TYPE 'normal' | ID conn_id | ID junk | TYPE junk | 'nosuch'"),
    "client|no-evict": fixed("ON | OFF | junk | "),
    "client|no-touch": fixed("ON | OFF | junk | "),
    "client|pause": fixed("-1 | 'abc' | | 0 'nosuch'"),
    "client|reply": fixed("junk | ON | | ON ON"),
    "client|setinfo": fixed("LIB-NAME word | LIB-VER 1.2 | 'nosuch' word | LIB-NAME badname | LIB-NAME"),
    "client|setname": fixed("word | '' | junk | badname | | word word"),
    "client|tracking": fixed("OFF | junk | | ON OPTIN OPTOUT"),
    "client|trackinginfo": fixed(" | junk"),
    "client|unblock": fixed("conn_id | conn_id ERROR | conn_id junk | 99999999 | junk | "),
    "client|unpause": fixed(" | junk"),
})

CLUSTER = table("cluster", {name: rare(pattern) for name, pattern in {
    "cluster": "junk",
    "cluster|addslots": "1 2",
    "cluster|addslotsrange": "1 5",
    "cluster|bumpepoch": "",
    "cluster|count-failure-reports": "val",
    "cluster|countkeysinslot": "5",
    "cluster|delslots": "1",
    "cluster|delslotsrange": "1 5",
    "cluster|failover": " | FORCE",
    "cluster|flushslots": "",
    "cluster|forget": "val",
    "cluster|getkeysinslot": "1 count",
    "cluster|help": "",
    "cluster|info": "",
    "cluster|keyslot": "key",
    "cluster|links": "",
    "cluster|meet": "127.0.0.1 1",
    "cluster|myid": "",
    "cluster|myshardid": "",
    "cluster|nodes": "",
    "cluster|replicas": "val",
    "cluster|replicate": "val",
    "cluster|reset": " | SOFT",
    "cluster|saveconfig": "",
    "cluster|set-config-epoch": "1",
    "cluster|setslot": "1 STABLE",
    "cluster|shards": "",
    "cluster|slaves": "val",
    "cluster|slots": "",
}.items()})

SERVER = table("server", {
    "acl": rare("junk"),
    "acl|cat": " | 'string' | 'nosuch'",
    "acl|deluser": fixed("newuser | newuser newuser | 'default' | "),
    "acl|dryrun": "'default' GET key | user SET str val | user command",
    "acl|genpass": " | 128 | 0 | 5000",
    "acl|getuser": "'default' | user",
    "acl|help": rare(""),
    "acl|list": "",
    "acl|load": rare(""),
    "acl|log": " | 5 | RESET | junk",
    "acl|save": rare(""),
    # Only of users nobody is: clients do not become other users of Redis through Nearside.
    "acl|setuser": fixed("newuser | newuser ON >secret ~* +@all | newuser OFF -@all +get | newuser ~str:* %R~num:*"
                         " | newuser +nosuch | newuser RESET | "),
    "acl|users": "",
    "acl|whoami": "",
    "bgrewriteaof": fixed("junk", 0.2),
    "bgsave": fixed("junk", 0.2),
    "command": rare(" | junk", 0.15),
    "command|count": "",
    "command|docs": "command | ( command )*",
    "command|getkeys": "GET key | MSET key val key val | ZUNIONSTORE key 2 key key | EVAL script 1 key | command",
    "command|getkeysandflags": "SET key val | LMOVE key key LEFT RIGHT",
    "command|help": rare(""),
    "command|info": "command | ( command )*",
    "command|list": rare(" | FILTERBY ACLCAT 'hash' | FILTERBY PATTERN 'x*' | FILTERBY MODULE 'none'", 0.15),
    "config": rare("junk"),
    "config|get": "'hash-max-listpack-entries' | 'list-*' | 'maxmemory' 'appendonly' | junk",
    "config|help": rare(""),
    "config|resetstat": "",
    "config|rewrite": rare(""),
    # run.py puts these back.
    "config|set": fixed("'hash-max-listpack-entries' 2 | 'set-max-intset-entries' 3 | 'zset-max-listpack-entries' 128"
                        " | 'nosuch' 1 | 'hash-max-listpack-entries' junk | 'maxmemory-samples' 0"
                        " | 'port' | 'hash-max-listpack-entries' 2 'nosuch' 3"),
    # A read deletes what has expired (SET ... EXAT 1), and reads beside this one are done in any order.
    "dbsize": Row("", alone=True),
    "debug": fixed("'digest-value' key | 'object' key | 'set-active-expire' 0 | 'sleep' 0 | 'nosuch'"
                   " | 'protocol' 'string' | 'protocol' 'integer' | 'protocol' 'double' | 'protocol' 'null'"
                   " | 'protocol' 'array' | 'protocol' 'set' | 'protocol' 'map' | 'protocol' 'bignum'"
                   " | 'protocol' 'verbatim' | 'protocol' 'true' | 'protocol' 'false' | 'protocol' 'attrib'"
                   " | 'reload' | 'flushall' | 'stringmatch-len' 100 'a*' | 'error' 'MINE'"),
    "failover": fixed(" | ABORT | TO | junk", 0.3),
    "flushall": fixed(" | ASYNC | SYNC | junk", 0.3),
    "flushdb": fixed(" | ASYNC | SYNC | junk", 0.3),
    "info": fixed(" | 'server' | 'all' | 'everything' 'keyspace' | 'nosuch'"),
    "lastsave": "",
    "latency": rare("junk"),
    "latency|doctor": rare(""),
    "latency|graph": "'command' | junk",
    "latency|help": rare(""),
    "latency|histogram": " | command",
    "latency|history": "'command' | junk",
    "latency|latest": "",
    "latency|reset": " | junk",
    "lolwut": rare(" | VERSION 5 1 1 1 | VERSION 6 1 1 | VERSION 5 junk"),
    "memory": rare("junk"),
    "memory|doctor": rare(""),
    "memory|help": rare(""),
    "memory|malloc-stats": rare("", 0.15),
    "memory|purge": rare("", 0.15),
    "memory|stats": rare(""),
    "memory|usage": "key | key SAMPLES count",
    "module": rare("junk"),
    "module|help": rare(""),
    "module|list": "",
    "module|load": fixed("'/nonexistent.so'", 0.3),
    "module|loadex": fixed("'/nonexistent.so' CONFIG 'a' 'b'", 0.3),
    "module|unload": fixed("'nosuch'", 0.3),
    "replicaof": fixed("NO ONE | | NO | 127.0.0.1 'junkport'", 0.3),
    "restore-asking": "key 0 payload REPLACE | key 0 junk",
    "role": "",
    "save": fixed("junk", 0.2),
    # What would shut it down is left out.
    "shutdown": fixed("ABORT | 'nosuch' | SAVE NOSAVE | ABORT NOW", 0.3),
    "slaveof": fixed("NO ONE | NO", 0.3),
    "slowlog": rare("junk"),
    "slowlog|get": " | 5 | -1 | junk",
    "slowlog|help": rare(""),
    "slowlog|len": "",
    "slowlog|reset": "",
    "swapdb": "db db | 0 1 | 0 99",
    "time": "",
})

TABLES = [SCRIPTS, TRANSACTIONS, PUBSUB, CONNECTION, CLIENT, CLUSTER, SERVER]

#: Commands of commands.def that no table has: where they are instead, or why nowhere.
ELSEWHERE = {
    "monitor": "generator.py: its lines tell of other connections, so only that it is answered",
    "post": "generator.py: alone on its connection, which is closed without a word",
    "host:": "generator.py: as POST",
}
EXCLUDED = {
    "sync": "makes the connection a replica's: tests/integration/test_replication.c",
    "psync": "as SYNC",
    "replconf": "as SYNC",
}
