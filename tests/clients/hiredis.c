// SPDX-License-Identifier: Apache-2.0
/*
 * hiredis as it is out of the box, the version Nearside itself is built with: RESP2, blocking calls,
 * and its asynchronous client on libev (see run for how this is called and what it prints).
 *
 * Replies are compared as text (print_reply): OK for a status, "v" for a string, 1, nil, -ERR ...,
 * [...] for an array, {...} for a map, ~[...] for a set, >[...] for a push.
 */
#include <ev.h>
#include <hiredis/adapters/libev.h>
#include <hiredis/hiredis.h>
#include <poll.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static const char *host;
static int port;
static const char *feature;

__attribute__((format(printf, 1, 2), noreturn)) static void fail(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    printf("not ok %s: ", feature);
    vprintf(format, args);
    printf("\n");
    va_end(args);
    exit(1);
}

// ---- Replies ------------------------------------------------------------------------------------

static void print_bytes(FILE *out, const char *bytes, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)bytes[i];
        fprintf(out, c < ' ' || c > '~' ? "\\x%02x" : "%c", c);
    }
}

static void print_reply(FILE *out, const redisReply *reply)
{
    const char *open = "[";
    switch (reply->type) {
    case REDIS_REPLY_STRING:
    case REDIS_REPLY_VERB:
        fputc('"', out);
        print_bytes(out, reply->str, reply->len);
        fputc('"', out);
        return;
    case REDIS_REPLY_ERROR:
        fputc('-', out);
        // fallthrough
    case REDIS_REPLY_STATUS:
    case REDIS_REPLY_DOUBLE:
        print_bytes(out, reply->str, reply->len);
        return;
    case REDIS_REPLY_INTEGER:
        fprintf(out, "%lld", reply->integer);
        return;
    case REDIS_REPLY_BOOL:
        fputs(reply->integer ? "true" : "false", out);
        return;
    case REDIS_REPLY_NIL:
        fputs("nil", out);
        return;
    case REDIS_REPLY_MAP:
        open = "{";
        break;
    case REDIS_REPLY_SET:
        open = "~[";
        break;
    case REDIS_REPLY_PUSH:
        open = ">[";
        break;
    default:
        break;
    }
    fputs(open, out);
    for (size_t i = 0; i < reply->elements; i++) {
        fputs(i > 0 ? " " : "", out);
        print_reply(out, reply->element[i]);
    }
    fputc(reply->type == REDIS_REPLY_MAP ? '}' : ']', out);
}

// Takes reply; returns owned.
static char *reply_text(redisReply *reply)
{
    char *text;
    size_t size;
    FILE *out = open_memstream(&text, &size);
    if (!out) {
        fail("open_memstream");
    }
    print_reply(out, reply);
    fclose(out);
    freeReplyObject(reply);
    return text;
}

static redisReply *next_reply(redisContext *c)
{
    void *reply;
    if (redisGetReply(c, &reply) != REDIS_OK) {
        fail("no reply: %s", c->errstr);
    }
    return reply;
}

// The next reply reads wanted; wanted that ends with * is the beginning.
static void expect_next(redisContext *c, const char *wanted)
{
    char *got = reply_text(next_reply(c));
    size_t len = strlen(wanted);
    bool is_prefix = len > 0 && wanted[len - 1] == '*';
    if (is_prefix ? strncmp(got, wanted, len - 1) != 0 : strcmp(got, wanted) != 0) {
        fail("got %.200s, wanted %.200s", got, wanted);
    }
    free(got);
}

// Sends a command and compares its reply. The format is redisAppendCommand's, which is not printf's:
// %b takes a pointer and a length.
static void expect(redisContext *c, const char *wanted, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    if (redisvAppendCommand(c, format, args) != REDIS_OK) {
        fail("%s: %s", format, c->errstr);
    }
    va_end(args);
    expect_next(c, wanted);
}

static void expect_true(bool is_true, const char *what)
{
    if (!is_true) {
        fail("not so: %s", what);
    }
}

// Waits until cond(c) is true.
static void until(redisContext *c, bool (*cond)(redisContext *), const char *what)
{
    time_t end = time(NULL) + 20;
    while (!cond(c)) {
        if (time(NULL) > end) {
            fail("not within 20 s: %s", what);
        }
        poll(NULL, 0, 10);
    }
}

static bool is_one_blocked(redisContext *c)
{
    redisReply *reply = redisCommand(c, "INFO clients");
    bool is = reply && strstr(reply->str, "blocked_clients:1\r\n");
    freeReplyObject(reply);
    return is;
}

static bool is_expired(redisContext *c)
{
    redisReply *reply = redisCommand(c, "GET short");
    bool is = reply && reply->type == REDIS_REPLY_NIL;
    freeReplyObject(reply);
    return is;
}

// ---- Connections --------------------------------------------------------------------------------

static redisContext *open_context(void)
{
    redisContext *c = redisConnect(host, port);
    if (!c || c->err) {
        fail("connect: %s", c ? c->errstr : "no memory");
    }
    return c;
}

// Writes what was appended; the replies are read later.
static void flush(redisContext *c)
{
    int done = 0;
    while (!done) {
        if (redisBufferWrite(c, &done) != REDIS_OK) {
            fail("write: %s", c->errstr);
        }
    }
}

// Has the server stopped or started.
static void server(const char *word, const char *wanted)
{
    char line[32];
    printf("%s\n", word);
    fflush(stdout);
    if (!fgets(line, sizeof line, stdin) || strncmp(line, wanted, strlen(wanted)) != 0) {
        fail("%s was not done", word);
    }
}

// ---- Features -----------------------------------------------------------------------------------

static void test_connect(void)
{
    redisContext *c = open_context();
    expect(c, "PONG", "PING");
    expect(c, "\"hello\"", "ECHO %s", "hello");
    redisReply *info = redisCommand(c, "INFO");
    expect_true(info && strstr(info->str, "redis_version:"), "INFO has a version");
    freeReplyObject(info);
    expect(c, "OK", "QUIT");
    redisFree(c);
}

static void test_get_set(void)
{
    redisContext *c = open_context();
    expect(c, "nil", "GET missing");
    expect(c, "nil", "GET missing");
    expect(c, "OK", "SET k one");
    expect(c, "\"one\"", "GET k");
    expect(c, "\"one\"", "GET k");
    expect(c, "OK", "SET k two");
    expect(c, "\"two\"", "GET k");
    expect(c, "nil", "SET k three NX");
    expect(c, "\"two\"", "SET k three GET");
    expect(c, "\"three\"", "GET k");

    const char bytes[] = {0, '\r', '\n', '$', '*', '0', 0};
    for (int i = 0; i < 2; i++) {
        expect(c, "OK", "SET %b %b", "b\0", (size_t)2, bytes, sizeof bytes);
        expect(c, "\"\\x00\\x0d\\x0a$*0\\x00\"", "GET %b", "b\0", (size_t)2);
    }
    size_t size = 300000;
    char *large = malloc(size);
    expect_true(large != NULL, "memory");
    memset(large, 'x', size);
    expect(c, "OK", "SET large %b", large, size);
    for (int i = 0; i < 2; i++) {
        redisReply *reply = redisCommand(c, "GET large");
        expect_true(reply && reply->len == size && memcmp(reply->str, large, size) == 0, "large");
        freeReplyObject(reply);
    }
    free(large);

    expect(c, "OK", "MSET a 1 b 2");
    expect(c, "[\"1\" nil \"2\"]", "MGET a missing b");
    expect(c, "OK", "SET short v PX 50");
    until(c, is_expired, "expired");
    expect(c, "2", "DEL a b missing");
    expect(c, "[nil nil]", "MGET a b");
    redisFree(c);
}

static void test_types(void)
{
    redisContext *c = open_context();
    expect(c, "2", "HSET hash f 1 g 2");
    expect(c, "[\"f\" \"1\" \"g\" \"2\"]", "HGETALL hash");
    expect(c, "[]", "HGETALL missing");
    expect(c, "3", "RPUSH list a b c");
    expect(c, "[\"a\" \"b\" \"c\"]", "LRANGE list 0 -1");
    expect(c, "\"a\"", "LPOP list");
    expect(c, "1", "SADD set x");
    expect(c, "[\"x\"]", "SMEMBERS set");
    expect(c, "2", "ZADD zset 1.5 a 2 b");
    expect(c, "[\"a\" \"1.5\" \"b\" \"2\"]", "ZRANGE zset 0 -1 WITHSCORES");
    expect(c, "41", "INCRBY n 41");
    expect(c, "42", "INCR n");
    expect(c, "\"42\"", "GET n");
    expect(c, "\"1-1\"", "XADD stream 1-1 f v");
    expect(c, "[[\"stream\" [[\"1-1\" [\"f\" \"v\"]]]]]", "XREAD STREAMS stream 0");
    expect(c, "zset", "TYPE zset");
    expect(c, "-WRONGTYPE*", "GET list");
    redisFree(c);
}

static void test_select(void)
{
    redisContext *c = open_context();
    redisContext *other = open_context();
    expect(other, "OK", "SELECT 2");
    expect(other, "OK", "CLIENT SETNAME billing");
    expect(c, "OK", "SET k zero");
    expect(other, "OK", "SET k two");
    expect(c, "\"zero\"", "GET k");
    expect(c, "\"zero\"", "GET k");
    expect(other, "\"two\"", "GET k");
    expect(other, "\"billing\"", "CLIENT GETNAME");
    expect(c, "OK", "SELECT 2");
    expect(c, "\"two\"", "GET k");
    expect(c, "OK", "SELECT 0");
    expect(c, "\"zero\"", "GET k");
    redisFree(c);
    redisFree(other);
}

static void test_pipeline(void)
{
    redisContext *c = open_context();
    char wanted[32];
    for (int i = 0; i < 500; i++) {
        redisAppendCommand(c, "SET k%d v%d", i, i);
        redisAppendCommand(c, "GET k%d", i);
        redisAppendCommand(c, "INCR n");
    }
    redisAppendCommand(c, "LPUSH k0 x");
    redisAppendCommand(c, "GET k1");
    for (int i = 0; i < 500; i++) {
        expect_next(c, "OK");
        snprintf(wanted, sizeof wanted, "\"v%d\"", i);
        expect_next(c, wanted);
        snprintf(wanted, sizeof wanted, "%d", i + 1);
        expect_next(c, wanted);
    }
    expect_next(c, "-WRONGTYPE*");
    expect_next(c, "\"v1\"");
    redisFree(c);
}

static void test_transaction(void)
{
    redisContext *c = open_context();
    expect(c, "OK", "SET k before");
    expect(c, "\"before\"", "GET k");
    expect(c, "OK", "MULTI");
    expect(c, "QUEUED", "SET k a");
    expect(c, "QUEUED", "GET k");
    expect(c, "QUEUED", "INCR k");
    expect(c, "QUEUED", "RPUSH l 1 2");
    expect(c, "[OK \"a\" -ERR value is not an integer or out of range 2]", "EXEC");
    expect(c, "\"a\"", "GET k");

    expect(c, "OK", "MULTI");
    expect(c, "QUEUED", "SET k b");
    expect(c, "-ERR wrong number*", "SET k");
    expect(c, "-EXECABORT*", "EXEC");
    expect(c, "\"a\"", "GET k");

    expect(c, "OK", "MULTI");
    expect(c, "QUEUED", "SET k c");
    expect(c, "OK", "DISCARD");
    expect(c, "\"a\"", "GET k");

    // All in one write.
    redisAppendCommand(c, "MULTI");
    redisAppendCommand(c, "SET k d");
    redisAppendCommand(c, "GET k");
    redisAppendCommand(c, "EXEC");
    redisAppendCommand(c, "GET k");
    expect_next(c, "OK");
    expect_next(c, "QUEUED");
    expect_next(c, "QUEUED");
    expect_next(c, "[OK \"d\"]");
    expect_next(c, "\"d\"");
    expect(c, "-ERR EXEC without MULTI", "EXEC");
    redisFree(c);
}

static void test_watch_retry(void)
{
    redisContext *c = open_context();
    redisContext *rival = open_context();
    expect(c, "OK", "SET n 10");
    expect(c, "\"10\"", "GET n");
    int attempts = 0;
    for (bool done = false; !done;) {
        expect(c, "OK", "WATCH n");
        redisReply *n = redisCommand(c, "GET n");
        expect_true(n && n->type == REDIS_REPLY_STRING, "GET n");
        if (attempts++ == 0) {
            expect(rival, "OK", "SET n 20");
        }
        expect(c, "OK", "MULTI");
        expect(c, "QUEUED", "SET n %d", atoi(n->str) + 1);
        freeReplyObject(n);
        redisReply *result = redisCommand(c, "EXEC");
        expect_true(result != NULL, "EXEC");
        done = result->type == REDIS_REPLY_ARRAY;
        expect_true(done || result->type == REDIS_REPLY_NIL, "EXEC is nil or executed");
        freeReplyObject(result);
    }
    expect_true(attempts == 2, "two attempts");
    expect(rival, "\"21\"", "GET n");
    expect(c, "OK", "WATCH n");
    expect(c, "OK", "UNWATCH");
    expect(rival, "OK", "SET n 30");
    expect(c, "OK", "MULTI");
    expect(c, "QUEUED", "GET n");
    expect(c, "[\"30\"]", "EXEC");
    redisFree(c);
    redisFree(rival);
}

static void test_script(void)
{
    redisContext *c = open_context();
    char source[256];
    // Of this process alone, so that no server knows it yet.
    snprintf(source, sizeof source,
             "local is = '%d %lld' local old = redis.call('GET', KEYS[1]) "
             "redis.call('SET', KEYS[1], ARGV[1]) return {old, #ARGV, redis.call('GET', KEYS[1])}",
             (int)getpid(), (long long)time(NULL));
    expect(c, "OK", "SET k old");
    expect(c, "\"old\"", "GET k");
    expect(c, "-NOSCRIPT*", "EVALSHA %s 0", "ffffffffffffffffffffffffffffffffffffffff");
    redisReply *sha = redisCommand(c, "SCRIPT LOAD %s", source);
    expect_true(sha && sha->type == REDIS_REPLY_STRING && sha->len == 40, "SCRIPT LOAD");
    expect(c, "OK", "SCRIPT FLUSH");
    expect(c, "-NOSCRIPT*", "EVALSHA %s 1 k new", sha->str);
    expect(c, "\"old\"", "GET k");
    expect(c, "[\"old\" 1 \"new\"]", "EVAL %s 1 k new", source);
    expect(c, "\"new\"", "GET k");
    expect(c, "[\"new\" 1 \"newer\"]", "EVALSHA %s 1 k newer", sha->str);
    expect(c, "\"newer\"", "GET k");
    expect(c, "[1 0]", "SCRIPT EXISTS %s ffffffffffffffffffffffffffffffffffffffff", sha->str);
    expect(c, "-ERR my word", "EVAL %s 0", "return redis.error_reply('ERR my word')");
    freeReplyObject(sha);
    redisFree(c);
}

static void test_pubsub(void)
{
    redisContext *c = open_context();
    redisContext *subscriber = open_context();
    expect(subscriber, "[\"subscribe\" \"news\" 1]", "SUBSCRIBE news weather");
    expect_next(subscriber, "[\"subscribe\" \"weather\" 2]");
    expect(subscriber, "[\"psubscribe\" \"log.*\" 3]", "PSUBSCRIBE log.*");
    expect(subscriber, "-ERR Can't execute 'get'*", "GET k");
    expect(subscriber, "[\"pong\" \"\"]", "PING");
    expect(c, "[\"news\" 1]", "PUBSUB NUMSUB news");
    expect(c, "1", "PUBLISH news one");
    expect(c, "1", "PUBLISH log.app two");
    expect(c, "0", "PUBLISH nobody three");
    expect_next(subscriber, "[\"message\" \"news\" \"one\"]");
    expect_next(subscriber, "[\"pmessage\" \"log.*\" \"log.app\" \"two\"]");
    expect(subscriber, "[\"unsubscribe\" \"news\" 2]", "UNSUBSCRIBE news");
    expect(c, "0", "PUBLISH news four");
    expect(subscriber, "[\"unsubscribe\" \"weather\" 1]", "UNSUBSCRIBE");
    expect(subscriber, "[\"punsubscribe\" \"log.*\" 0]", "PUNSUBSCRIBE");
    expect(subscriber, "OK", "SET k v");
    expect(subscriber, "\"v\"", "GET k");
    expect(c, "0", "PUBLISH weather five");
    redisFree(subscriber);
    redisFree(c);
}

static void test_blocking_pop(void)
{
    redisContext *c = open_context();
    redisContext *worker = open_context();
    expect(worker, "OK", "SET k v");
    redisAppendCommand(worker, "BLPOP jobs more 20");
    flush(worker);
    until(c, is_one_blocked, "blocked");
    expect(c, "\"v\"", "GET k");
    expect(c, "1", "RPUSH more job");
    expect_next(worker, "[\"more\" \"job\"]");
    expect(worker, "\"v\"", "GET k");
    // What follows in the pipeline waits for the reply.
    redisAppendCommand(worker, "BLMOVE jobs done LEFT RIGHT 0");
    redisAppendCommand(worker, "LRANGE done 0 -1");
    flush(worker);
    until(c, is_one_blocked, "blocked");
    expect(c, "1", "LPUSH jobs second");
    expect_next(worker, "\"second\"");
    expect_next(worker, "[\"second\"]");
    expect(worker, "nil", "BRPOP jobs 0.1");
    expect(worker, "\"v\"", "GET k");
    redisFree(worker);
    redisFree(c);
}

static void test_scan(void)
{
    redisContext *c = open_context();
    enum { KEYS = 1000 };
    bool seen[KEYS] = {false};
    int distinct = 0;
    for (int i = 0; i < KEYS; i++) {
        redisAppendCommand(c, "SET user:%d v", i);
    }
    redisAppendCommand(c, "SET other v");
    for (int i = 0; i <= KEYS; i++) {
        expect_next(c, "OK");
    }
    char cursor[32] = "0";
    do {
        redisReply *part = redisCommand(c, "SCAN %s MATCH user:* COUNT 100", cursor);
        expect_true(part && part->type == REDIS_REPLY_ARRAY && part->elements == 2, "SCAN");
        snprintf(cursor, sizeof cursor, "%s", part->element[0]->str);
        const redisReply *keys = part->element[1];
        for (size_t i = 0; i < keys->elements; i++) {
            int number = atoi(keys->element[i]->str + strlen("user:"));
            expect_true(number >= 0 && number < KEYS, "a key that was set");
            distinct += !seen[number];
            seen[number] = true;
        }
        freeReplyObject(part);
    } while (strcmp(cursor, "0") != 0);
    expect_true(distinct == KEYS, "every key is found");
    redisFree(c);
}

static void test_reconnect(void)
{
    redisContext *c = open_context();
    expect(c, "OK", "SET k kept");
    expect(c, "\"kept\"", "GET k");
    server("stop", "stopped");
    redisReply *reply = redisCommand(c, "GET k");
    expect_true(!reply && c->err != 0, "an error while the server is down");
    expect_true(redisReconnect(c) != REDIS_OK, "no connection while the server is down");
    server("start", "started");
    expect_true(redisReconnect(c) == REDIS_OK, "a connection when it is back");
    expect(c, "\"kept\"", "GET k");
    expect(c, "OK", "SET k again");
    expect(c, "\"again\"", "GET k");
    redisFree(c);
}

// ---- RESP3 --------------------------------------------------------------------------------------

static char *pushed;

static void on_push(void *privdata, void *reply)
{
    (void)privdata;
    free(pushed);
    pushed = reply_text(reply);
}

static void test_resp3(void)
{
    redisContext *c = open_context();
    expect(c, "{\"server\" \"redis\" \"version\"*", "HELLO 3");
    expect(c, "nil", "GET missing");
    expect(c, "OK", "SET k v");
    expect(c, "\"v\"", "GET k");
    expect(c, "\"v\"", "GET k");
    expect(c, "1", "HSET hash f 1");
    expect(c, "{\"f\" \"1\"}", "HGETALL hash");
    expect(c, "1", "SADD set x");
    expect(c, "~[\"x\"]", "SMEMBERS set");
    expect(c, "1", "ZADD zset 1.5 a");
    expect(c, "1.5", "ZSCORE zset a");
    expect(c, "true", "EVAL %s 0", "redis.setresp(3) return true");
    expect(c, "[\"v\" nil]", "MGET k missing");
    // A subscribed connection serves commands, and its messages are pushes.
    redisSetPushCallback(c, on_push);
    redisAppendCommand(c, "SUBSCRIBE news");
    redisAppendCommand(c, "GET k");
    expect_next(c, "\"v\"");
    expect_true(pushed && strcmp(pushed, ">[\"subscribe\" \"news\" 1]") == 0, "a subscribe push");
    redisContext *other = open_context();
    expect(other, "1", "PUBLISH news one");
    redisFree(other);
    while (pushed && strcmp(pushed, ">[\"message\" \"news\" \"one\"]") != 0) {
        expect(c, "\"v\"", "GET k");
    }
    expect(c, "[\"server\" \"redis\" \"version\"*", "HELLO 2");
    free(pushed);
    redisFree(c);
}

// ---- Asynchronous, on libev ---------------------------------------------------------------------

static int async_values;
static int async_messages;
static redisAsyncContext *publisher;

static void on_async_disconnect(const redisAsyncContext *c, int status)
{
    if (status != REDIS_OK) {
        fail("disconnected: %s", c->errstr);
    }
}

static void on_async_value(redisAsyncContext *c, void *reply, void *wanted)
{
    (void)c;
    const redisReply *r = reply;
    if (!r || r->type != REDIS_REPLY_INTEGER || r->integer != *(int *)wanted) {
        fail("an asynchronous INCR is out of order");
    }
    async_values++;
}

static void on_async_message(redisAsyncContext *c, void *reply, void *unused)
{
    (void)unused;
    const redisReply *r = reply;
    if (!r) {
        return; // the connection is going away
    }
    expect_true(r->type == REDIS_REPLY_ARRAY && r->elements == 3, "a message");
    if (strcmp(r->element[0]->str, "subscribe") == 0) {
        redisAsyncCommand(publisher, NULL, NULL, "PUBLISH news one");
        redisAsyncCommand(publisher, NULL, NULL, "PUBLISH news two");
        return;
    }
    if (strcmp(r->element[0]->str, "unsubscribe") == 0) {
        redisAsyncDisconnect(c);
        redisAsyncDisconnect(publisher);
        return;
    }
    expect_true(strcmp(r->element[2]->str, async_messages == 0 ? "one" : "two") == 0, "in order");
    if (++async_messages == 2) {
        redisAsyncCommand(c, on_async_message, NULL, "UNSUBSCRIBE news");
    }
}

static redisAsyncContext *open_async(void)
{
    redisAsyncContext *c = redisAsyncConnect(host, port);
    if (!c || c->err) {
        fail("connect: %s", c ? c->errstr : "no memory");
    }
    redisLibevAttach(EV_DEFAULT_ c);
    redisAsyncSetDisconnectCallback(c, on_async_disconnect);
    return c;
}

static void test_asynchronous(void)
{
    enum { COMMANDS = 2000 };
    static int numbers[COMMANDS];
    publisher = open_async();
    redisAsyncContext *subscriber = open_async();
    for (int i = 0; i < COMMANDS; i++) {
        numbers[i] = i + 1;
        redisAsyncCommand(publisher, on_async_value, &numbers[i], "INCR n");
    }
    redisAsyncCommand(subscriber, on_async_message, NULL, "SUBSCRIBE news");
    ev_run(EV_DEFAULT_ 0); // until both are disconnected
    expect_true(async_values == COMMANDS, "all values");
    expect_true(async_messages == 2, "both messages");
}

static const struct {
    const char *name;
    void (*run)(void);
} features[] = {
    {"connect", test_connect},
    {"get_set", test_get_set},
    {"types", test_types},
    {"select", test_select},
    {"pipeline", test_pipeline},
    {"transaction", test_transaction},
    {"watch_retry", test_watch_retry},
    {"script", test_script},
    {"pubsub", test_pubsub},
    {"blocking_pop", test_blocking_pop},
    {"scan", test_scan},
    {"reconnect", test_reconnect},
    {"resp3", test_resp3},
    {"asynchronous", test_asynchronous},
};

int main(int argc, char **argv)
{
    if (argc != 4) {
        fprintf(stderr, "usage: hiredis HOST PORT FEATURE\n");
        return 2;
    }
    host = argv[1];
    port = atoi(argv[2]);
    feature = argv[3];
    for (size_t i = 0; i < sizeof features / sizeof features[0]; i++) {
        if (strcmp(features[i].name, feature) == 0) {
            features[i].run();
            printf("ok %s\n", feature);
            return 0;
        }
    }
    fail("no such feature");
}
