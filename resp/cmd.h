/* SPDX-License-Identifier: Apache-2.0
 *
 * cmd.h: what Nearside knows about a command: its class (what it does to L1 and which road it
 * takes), its arity, and where its keys are. One row per command and subcommand in commands.def;
 * the classes are those of the consistency protocol (ARCHITECTURE.md, "command classes").
 * Immutable after cmd_init, shared by all threads. Commands that are not in it: learnt.h.
 */
#pragma once

#include "parse.h"

enum cmd_class {
    CMD_GET,     /* answered from L1 (class R1) */
    CMD_MGET,    /* answered from L1 when all keys hit (class R1) */
    CMD_READ,    /* read with keys, forwarded; its reply is R7 for its keys (class R) */
    CMD_NONE,    /* no effect on keys: forwarded (class N) */
    CMD_WRITE,   /* write whose keys are known: write-begin and -end (class K) */
    CMD_UNKNOWN, /* effect unknown: declared keys begin and end, then what L1 may hold is suspect
                    (class U); also every command that has no row */
    CMD_FLUSH,   /* changes everything: L1 is emptied before the reply leaves (class F) */
    CMD_LOCAL,   /* answered here (class X, emulated) */
    CMD_PINNED,  /* needs a connection of its own; cmd.effect says what it does to keys */
};

/* Which local command a CMD_LOCAL row is; proxy/local.c has one function for each. INFO is relayed
 * and then completed here. */
enum cmd_local {
    LOCAL_NO,
    LOCAL_AUTH,
    LOCAL_CLIENT,
    LOCAL_ECHO,
    LOCAL_HELLO,
    LOCAL_HTTP,
    LOCAL_INFO,
    LOCAL_PING,
    LOCAL_QUIT,
    LOCAL_READONLY, /* and ASKING: nobody is sent an ASK from here */
    LOCAL_READWRITE,
    LOCAL_RESET,
    LOCAL_SELECT,
};

/* Where the keys are. Sharded channels count as keys: they have a slot as keys have. Option words
 * (STORE, STREAMS, KEYS ...) are told from arguments of other options, in any case. */
enum cmd_keys {
    KEYS_NONE,
    KEYS_RANGE,   /* argv[first], then every step up to argv[last]; last < 0 counts from the end */
    KEYS_COUNTED, /* argv[first] is how many keys follow it; 0 is a number (scripts) */
    KEYS_DEST_COUNTED, /* argv[1] and argv[first] counted: ZUNIONSTORE dst n k... */
    KEYS_SORT,         /* argv[1] and the key behind the last STORE, the one Redis obeys */
    KEYS_GEO,          /* argv[1] and the key behind the last STORE or STOREDIST */
    KEYS_STREAMS,      /* first half of what follows STREAMS */
    KEYS_MIGRATE,      /* without KEYS argv[3], even if empty; with KEYS all that follow it, and
                          argv[3] unless empty */
};

/* How a command is spread over the nodes of a cluster, and how one reply is made of theirs. An error of
 * one is the error of the whole: the first, in the order of the parts. spread.h does it. */
enum cmd_spread {
    SPREAD_NO, /* one node */
    /* By slot: */
    SPREAD_GETS,  /* MGET: a GET for each key; their values in order */
    SPREAD_SETS,  /* MSET: one for each slot */
    SPREAD_COUNT, /* DEL and the like: one for each slot; the sum */
    /* To every primary: */
    SPREAD_FIRST,      /* the first one's reply: they say the same */
    SPREAD_SUM,        /* of integers */
    SPREAD_LEAST,      /* of integers */
    SPREAD_LIST,       /* their elements one after another */
    SPREAD_UNION,      /* their elements, each once */
    SPREAD_EACH_LEAST, /* arrays of one length: the least integer in each place */
    SPREAD_EACH_SUM,   /* the same, the sum; what is no integer is as the first one has it */
    SPREAD_PICK,       /* one of those that are not null, by chance */
    /* To one primary after the other: */
    SPREAD_SCAN, /* the cursor says where it is */
};

struct cmd {
    const char *name; /* lower case; "config|get" for a subcommand */
    int arity; /* as Redis's: n = exactly n arguments, -n = at least n; the name counts. Where 7.0
                  and 7.4 differ, the one that allows more */
    enum cmd_class class;
    enum cmd_class effect; /* what it does to keys whatever its road. Of a CMD_PINNED row: READ,
                              NONE, WRITE, UNKNOWN or FLUSH (EXEC is UNKNOWN: what was queued
                              decides); of any other its class */
    enum cmd_local local;
    bool readonly; /* Redis's readonly flag: may be sent again when its connection dies. Of the
                           writes only PFCOUNT has it: it may refresh the sum kept in its key */
    bool has_sub;  /* a container: rows "name|sub" say more than this one */
    enum cmd_keys keys;
    int first, last, step;
    bool varies;   /* the class depends on the request: cmd_effective_class */
    bool blocking; /* may wait for other clients: pinned when it would (XREAD only with BLOCK) */
};

/* Builds the index cmd_find needs. Once, before the threads start; again is harmless. */
void cmd_init(void);

/* The row for a request, by its first one or two arguments, whatever their case; never NULL: what
 * has no row in commands.def gets the one that was learnt from the server (learnt.h), or else one
 * shared row of class CMD_UNKNOWN, name "unknown"; a container with a missing or unknown subcommand
 * its own row. */
const struct cmd *cmd_find(const struct request_view *v);

/* The row of a command that is no more than a GET, a read or a write of its first argument, as a key, in
 * every form it has; NULL for all others and for long names. */
const struct cmd *cmd_find_plain(struct slice name);
/* The row of GET. */
const struct cmd *cmd_get(void);

/* Has commands.def a row for this command or container? */
bool cmd_is_built_in(struct slice name);

/* A row's line in spread.def; NO if it has none, and for what was learnt. */
enum cmd_spread cmd_spread(const struct cmd *cmd);

/* Does argc satisfy the row's arity? */
bool cmd_arity_ok(const struct cmd *cmd, int64_t argc);

/* cmd_effective_class of a row that varies. */
enum cmd_class cmd_varying_class(const struct cmd *cmd, const struct request_view *v);
/* The class to act on. It is the row's, but XREAD and XREADGROUP are CMD_PINNED only with BLOCK;
 * without it they are what their effect says, a read (XREAD) or a write (XREADGROUP). EVAL of a
 * script that says it cannot write ("#!lua flags=no-writes", which the server enforces), or EVALSHA of the
 * name of one (scripts.h), is a read. */
static inline enum cmd_class cmd_effective_class(const struct cmd *cmd,
                                                 const struct request_view *v)
{
    return likely(!cmd->varies) ? cmd->class : cmd_varying_class(cmd, v);
}

/* Walks the keys of a request. cmd_keys_init returns false when the positions make no sense (bad
 * number of keys, arguments missing): Redis will refuse such a command, but a write is then to be
 * treated as one of unknown effect; the walk yields nothing. Otherwise cmd_keys_next yields each
 * key argument once, in order, until it returns false. Keys borrow from the request. The fields are
 * private. */
struct cmd_key_walk {
    const struct request_view *view;
    struct arg_walk args; /* beyond argv; started when `at` >= 0 */
    int64_t at;           /* index of the argument `args` yields next */
    int64_t next;         /* index of the next key, or -1 */
    int64_t resume;       /* `next` is a key on its own; a range begins here after it; or -1 */
    int64_t last;         /* index the range does not pass */
    int64_t step;
};
MUST_CHECK bool cmd_keys_init(struct cmd_key_walk *w, const struct cmd *cmd,
                              const struct request_view *v);
bool cmd_keys_next(struct cmd_key_walk *w, struct slice *key);
