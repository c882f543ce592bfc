<?php
// SPDX-License-Identifier: Apache-2.0
//
// php-redis (phpredis) as it is out of the box: RESP2, one retry after a lost connection (see run).
// What has to happen while this process waits is done by a child, this file again with a fourth
// argument.

[, $host, $port, $feature] = $argv;

require __DIR__ . '/feature.php';

function open(): Redis
{
    global $host, $port;
    $redis = new Redis();
    expect($redis->connect($host, (int)$port), true);
    return $redis;
}

function expect_error(string $text, callable $call): void
{
    try {
        $result = $call();
    } catch (RedisException $e) {
        if (!str_contains($e->getMessage(), $text)) {
            throw new Exception("got the error {$e->getMessage()}, wanted $text");
        }
        return;
    }
    throw new Exception('got ' . json_encode($result) . ", wanted the error $text");
}

// phpredis returns false for an error reply and keeps its text.
function expect_reply(string $text, Redis $redis, mixed $got): void
{
    expect($got, false);
    $error = (string)$redis->getLastError();
    $redis->clearLastError();
    if (!str_contains($error, $text)) {
        throw new Exception("got the error '$error', wanted $text");
    }
}

// Runs one of the functions child_* beside us; join() says how it went.
function spawn(string $task)
{
    global $host, $port, $feature;
    $command = [PHP_BINARY, __FILE__, $host, $port, $feature, $task];
    return proc_open($command, [['file', '/dev/null', 'r'], STDERR, STDERR], $pipes);
}

function join_child($child): void
{
    expect(proc_close($child), 0);
}

function connect(): void
{
    $redis = open();
    expect($redis->ping(), true);
    expect($redis->echo('hello'), 'hello');
    expect(array_key_exists('redis_version', $redis->info()), true);
    expect($redis->isConnected(), true);
    expect($redis->close(), true);
}

function get_set(): void
{
    $redis = open();
    expect($redis->get('missing'), false);
    expect($redis->get('missing'), false);
    expect($redis->set('k', 'one'), true);
    expect($redis->get('k'), 'one');
    expect($redis->get('k'), 'one');
    expect($redis->set('k', 'two'), true);
    expect($redis->get('k'), 'two');
    expect($redis->set('k', 'three', ['nx']), false);
    expect($redis->getSet('k', 'three'), 'two');
    expect($redis->get('k'), 'three');

    foreach (["\0\r\n\xff$*\0", '', str_repeat('x', 300000)] as $value) {
        $redis->set('bytes', $value);
        expect($redis->get('bytes') === $value, true);
        expect($redis->get('bytes') === $value, true);
    }

    expect($redis->mSet(['a' => 1, 'b' => 2]), true);
    expect($redis->mGet(['a', 'missing', 'b']), ['1', false, '2']);
    expect($redis->set('short', 'v', ['px' => 50]), true);
    until('expired', fn() => $redis->get('short') === false);
    expect($redis->del('a', 'b', 'missing'), 2);
    expect($redis->mGet(['a', 'b']), [false, false]);
    expect($redis->exists('k'), 1);
}

function types(): void
{
    $redis = open();
    expect($redis->hMSet('hash', ['f' => 1, 'g' => 2]), true);
    expect($redis->hGetAll('hash'), ['f' => '1', 'g' => '2']);
    expect($redis->hMGet('hash', ['g', 'none']), ['g' => '2', 'none' => false]);
    expect($redis->hGetAll('missing'), []);
    expect($redis->rPush('list', 'a', 'b', 'c'), 3);
    expect($redis->lRange('list', 0, -1), ['a', 'b', 'c']);
    expect($redis->lPop('list'), 'a');
    expect($redis->sAdd('set', 'x', 'y', 'x'), 2);
    $members = $redis->sMembers('set');
    sort($members);
    expect($members, ['x', 'y']);
    expect($redis->sIsMember('set', 'x'), true);
    expect($redis->zAdd('zset', 1.5, 'a', 2, 'b'), 2);
    expect($redis->zRange('zset', 0, -1, true), ['a' => 1.5, 'b' => 2.0]);
    expect($redis->incrBy('n', 41), 41);
    expect($redis->incr('n'), 42);
    expect($redis->get('n'), '42');
    expect($redis->incrByFloat('n', 0.5), 42.5);
    expect($redis->get('n'), '42.5');
    expect($redis->xAdd('stream', '1-1', ['f' => 'v']), '1-1');
    expect($redis->xRead(['stream' => '0']), ['stream' => ['1-1' => ['f' => 'v']]]);
    expect($redis->expire('list', 100), true);
    expect($redis->ttl('list') > 90, true);
    expect($redis->type('zset'), Redis::REDIS_ZSET);
    expect_reply('WRONGTYPE', $redis, $redis->get('list'));
}

function select(): void
{
    $redis = open();
    $other = open();
    expect($other->select(2), true);
    expect($other->client('setname', 'billing'), true);
    $redis->set('k', 'zero');
    $other->set('k', 'two');
    expect($redis->get('k'), 'zero');
    expect($redis->get('k'), 'zero');
    expect($other->get('k'), 'two');
    expect($other->client('getname'), 'billing');
    expect($redis->select(2), true);
    expect($redis->get('k'), 'two');
    expect($redis->select(0), true);
    expect($redis->get('k'), 'zero');
}

function pipeline(): void
{
    $redis = open();
    $batch = $redis->multi(Redis::PIPELINE);
    $wanted = [];
    for ($i = 0; $i < 500; $i++) {
        $batch->set("k$i", "v$i")->get("k$i")->incr('n');
        array_push($wanted, true, "v$i", $i + 1);
    }
    expect($batch->exec(), $wanted);
    $replies = $redis->pipeline()->get('k0')->lPush('k0', 'x')->get('missing')->get('k1')->exec();
    expect($replies, ['v0', false, false, 'v1']);
    expect(str_contains((string)$redis->getLastError(), 'WRONGTYPE'), true);
}

function transaction(): void
{
    $redis = open();
    $redis->set('k', 'before');
    expect($redis->get('k'), 'before');
    $replies = $redis->multi()->set('k', 'a')->get('k')->rPush('l', 1, 2)->hSet('h', 'f', 'v')
        ->hGetAll('h')->exec();
    expect($replies, [true, 'a', 2, 1, ['f' => 'v']]);
    expect($redis->get('k'), 'a');

    expect($redis->multi()->set('k', 'b')->incr('k')->get('k')->exec(), [true, false, 'b']);
    expect($redis->get('k'), 'b');

    $redis->multi();
    $redis->set('k', 'c');
    expect($redis->discard(), true);
    expect($redis->get('k'), 'b');

    // A transaction inside a pipeline: MULTI, its commands and EXEC in one write.
    $replies = $redis->pipeline()->get('k')->multi()->set('k', 'd')->get('k')->exec()->get('k')->exec();
    expect($replies, ['b', [true, 'd'], 'd']);
}

function watch_retry(): void
{
    $redis = open();
    $rival = open();
    $redis->set('n', 10);
    expect($redis->get('n'), '10');
    $seen = [];
    do {
        expect($redis->watch('n'), true);
        $n = (int)$redis->get('n');
        $seen[] = $n;
        if (count($seen) === 1) {
            expect($rival->set('n', 20), true);
        }
        $replies = $redis->multi()->set('n', $n + 1)->exec();
    } while ($replies === false);
    expect($replies, [true]);
    expect($seen, [10, 20]);
    expect($rival->get('n'), '21');
    expect($redis->watch('n'), true);
    expect($redis->unwatch(), true);
    $rival->set('n', 30);
    expect($redis->multi()->get('n')->exec(), ['30']);
}

function script(): void
{
    $redis = open();
    $redis->set('k', 'old');
    expect($redis->get('k'), 'old');
    $source = '-- ' . bin2hex(random_bytes(16)) . "
        local old = redis.call('GET', KEYS[1])
        redis.call('SET', KEYS[1], ARGV[1])
        return {old, #ARGV, redis.call('GET', KEYS[1])}";
    $sha = sha1($source);
    expect_reply('NOSCRIPT', $redis, $redis->evalSha($sha, ['k', 'new'], 1));
    expect($redis->get('k'), 'old');
    expect($redis->eval($source, ['k', 'new'], 1), ['old', 1, 'new']);
    expect($redis->get('k'), 'new');
    expect($redis->evalSha($sha, ['k', 'newer'], 1), ['new', 1, 'newer']);
    expect($redis->get('k'), 'newer');
    $adder = $redis->script('load', "return redis.call('INCRBY', KEYS[1], ARGV[1])");
    expect($redis->script('exists', $adder, str_repeat('f', 40)), [1, 0]);
    expect($redis->evalSha($adder, ['n', 5], 1), 5);
    expect($redis->get('n'), '5');
    expect_reply('my word', $redis, $redis->eval("return redis.error_reply('ERR my word')"));
}

// subscribe() goes on until its connection ends: the callback closes it.
function pubsub(): void
{
    $redis = open();
    $subscriber = open();
    $subscriber->setOption(Redis::OPT_READ_TIMEOUT, 20);
    $child = spawn('child_publish');
    $seen = [];
    expect_error('Connection closed', function () use ($subscriber, &$seen) {
        $subscriber->subscribe(['news', 'weather'], function ($redis, $channel, $message) use (&$seen) {
            $seen[] = [$channel, $message];
            if ($message === 'end') {
                expect($redis->unsubscribe(['news', 'weather']), ['news' => true, 'weather' => true]);
                $redis->close();
            }
        });
    });
    expect($seen, [['news', 'one'], ['weather', 'end']]);

    $seen = [];
    $subscriber = open();
    $subscriber->setOption(Redis::OPT_READ_TIMEOUT, 20);
    expect_error('Connection closed', function () use ($subscriber, &$seen) {
        $subscriber->psubscribe(['log.*'], function ($redis, $pattern, $channel, $message) use (&$seen) {
            $seen[] = [$pattern, $channel, $message];
            $redis->close();
        });
    });
    expect($seen, [['log.*', 'log.app', 'two']]);
    join_child($child);
    until('nobody subscribed', fn() => $redis->pubsub('numpat') === 0);
    expect($redis->publish('log.app', 'three'), 0);
}

function child_publish(): void
{
    $redis = open();
    until('subscribed', fn() => $redis->pubsub('numsub', ['weather'])['weather'] === 1);
    expect($redis->publish('news', 'one'), 1);
    expect($redis->publish('nobody', 'x'), 0);
    expect($redis->publish('weather', 'end'), 1);
    until('subscribed', fn() => $redis->pubsub('numpat') === 1);
    expect($redis->publish('log.app', 'two'), 1);
}

function blocking_pop(): void
{
    $redis = open();
    $redis->set('k', 'v');
    $child = spawn('child_push');
    expect($redis->blPop(['jobs', 'more'], 20), ['more', 'job']);
    expect($redis->get('k'), 'v');
    expect($redis->brpoplpush('jobs', 'done', 20), 'second');
    expect($redis->lRange('done', 0, -1), ['second']);
    join_child($child);
    expect($redis->brPop(['jobs'], 1), []);
    expect($redis->get('k'), 'v');
}

function child_push(): void
{
    $redis = open();
    $blocked = fn() => $redis->info('clients')['blocked_clients'] === 1;
    until('blocked', $blocked);
    expect($redis->get('k'), 'v');
    expect($redis->rPush('more', 'job'), 1);
    until('blocked', $blocked);
    expect($redis->lPush('jobs', 'second'), 1);
}

function scan(): void
{
    $redis = open();
    $batch = $redis->pipeline();
    $batch->set('other', 'v');
    $wanted = [];
    for ($i = 0; $i < 1000; $i++) {
        $key = "user:$i";
        $wanted[] = $key;
        $batch->set($key, 'v')->hSet('hash', $key, 'v')->sAdd('set', $key);
    }
    $batch->exec();
    sort($wanted);
    $collect = function (callable $step): array {
        $found = [];
        $cursor = null;
        while (($part = $step($cursor)) !== false) {
            array_push($found, ...array_values($part));
        }
        $found = array_values(array_unique($found));
        sort($found);
        return $found;
    };
    $keys = $collect(function (&$cursor) use ($redis) {
        return $redis->scan($cursor, 'user:*', 100);
    });
    expect($keys, $wanted);
    $members = $collect(function (&$cursor) use ($redis) {
        return $redis->sScan('set', $cursor);
    });
    expect($members, $wanted);
    $fields = $collect(function (&$cursor) use ($redis) {
        $part = $redis->hScan('hash', $cursor);
        return $part === false ? false : array_keys($part);
    });
    expect($fields, $wanted);
}

function reconnect(): void
{
    $redis = open();
    expect($redis->set('k', 'kept'), true);
    expect($redis->get('k'), 'kept');
    server('stop');
    expect_error('', fn() => $redis->get('k'));
    server('start');
    $redis = open();
    expect($redis->get('k'), 'kept');
    expect($redis->incr('n'), 1);
    expect($redis->select(1), true);
    server('stop');
    server('start');
    expect($redis->incr('n'), 1); // tried again: no error, in the same database
    $redis->select(0);
    expect($redis->incr('n'), 2);
    expect($redis->set('k', 'again'), true);
    expect($redis->get('k'), 'again');
}

// pconnect: the connection outlives its object, and is looked after with ECHO when it is taken again.
function persistent(): void
{
    global $host, $port;
    $ids = [];
    for ($i = 0; $i < 3; $i++) {
        $redis = new Redis();
        expect($redis->pconnect($host, (int)$port), true);
        expect($redis->set('k', "v$i"), true);
        expect($redis->get('k'), "v$i");
        $ids[] = $redis->client('id');
        unset($redis);
    }
    expect(count(array_unique($ids)), 1);
    server('stop');
    server('start');
    $redis = new Redis();
    expect($redis->pconnect($host, (int)$port), true);
    expect($redis->get('k'), 'v2');
}

main(['connect', 'get_set', 'types', 'select', 'pipeline', 'transaction', 'watch_retry', 'script',
    'pubsub', 'blocking_pop', 'scan', 'reconnect', 'persistent']);
