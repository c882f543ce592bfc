<?php
// SPDX-License-Identifier: Apache-2.0
//
// php-redis's RedisCluster as it is out of the box: the slot map by CLUSTER SLOTS (see run). A second
// process, this file again with a fourth argument, publishes while this one waits.

[, $host, $port, $feature] = $argv;
const KEYS = 500; // in as many slots or nearly

require __DIR__ . '/feature.php';

function open(): RedisCluster
{
    global $host, $port;
    return new RedisCluster(null, ["$host:$port"], 5, 5);
}

function connect(): void
{
    $cluster = open();
    $masters = $cluster->_masters();
    expect(count($masters) >= 1, true);
    expect($cluster->ping($masters[0]), true);
    expect($cluster->echo($masters[0], 'hello'), 'hello');
    expect($cluster->cluster($masters[0], 'KEYSLOT', 'k'), 7629);
    expect(str_contains($cluster->cluster($masters[0], 'INFO'), 'cluster_state:ok'), true);
}

function get_set(): void
{
    $cluster = open();
    for ($i = 0; $i < KEYS; $i++) {
        expect($cluster->set("k$i", "v$i"), true);
        expect($cluster->get("k$i"), "v$i");
    }
    expect($cluster->hMSet('hash', ['f' => 1, 'g' => 2]), true);
    expect($cluster->hGetAll('hash'), ['f' => '1', 'g' => '2']);
    expect($cluster->get('hash'), false);
    expect(str_contains((string)$cluster->getLastError(), 'WRONGTYPE'), true);
}

// RedisCluster has no pipelines: many keys, one by one, and in a MULTI.
function pipeline(): void
{
    $cluster = open();
    $cluster->multi();
    $wanted = [];
    for ($i = 0; $i < 200; $i++) {
        $cluster->set("{p}$i", "v$i")->get("{p}$i")->incr('{p}n');
        array_push($wanted, true, "v$i", $i + 1);
    }
    expect($cluster->exec(), $wanted);
}

// It splits MGET, MSET and DEL by slot itself.
function several_keys(): void
{
    $cluster = open();
    expect($cluster->mSet(['a' => 1, 'b' => 2, 'c' => 3]), true);
    expect($cluster->mGet(['a', 'missing', 'b']), ['1', false, '2']);
    expect($cluster->del('a', 'b', 'missing'), 2);
    expect($cluster->rename('{t}a', '{t}b'), false);
    expect($cluster->set('{t}a', 'v'), true);
    expect($cluster->rename('{t}a', '{t}b'), true);
    expect($cluster->get('{t}b'), 'v');
}

function transaction(): void
{
    $cluster = open();
    $cluster->set('{t}k', 'before');
    expect($cluster->get('{t}k'), 'before');
    expect($cluster->multi()->set('{t}k', 'a')->get('{t}k')->rPush('{t}l', 1, 2)->exec(),
        [true, 'a', 2]);
    expect($cluster->get('{t}k'), 'a');
    expect($cluster->watch('{t}k'), true);
    expect($cluster->multi()->set('{t}k', 'b')->exec(), [true]);
    expect($cluster->get('{t}k'), 'b');
}

function script(): void
{
    $cluster = open();
    $source = '-- ' . bin2hex(random_bytes(16)) . "
        local old = redis.call('GET', KEYS[1])
        redis.call('SET', KEYS[1], ARGV[1])
        return {old, redis.call('GET', KEYS[1])}";
    for ($i = 0; $i < 20; $i++) {
        $cluster->set("k$i", 'old');
        expect($cluster->get("k$i"), 'old');
        expect($cluster->eval($source, ["k$i", 'new'], 1), ['old', 'new']);
        expect($cluster->get("k$i"), 'new');
        expect($cluster->evalSha(sha1($source), ["k$i", 'newer'], 1), ['new', 'newer']);
        expect($cluster->get("k$i"), 'newer');
    }
}

function pubsub(): void
{
    global $host, $port, $feature;
    $child = proc_open([PHP_BINARY, __FILE__, $host, $port, $feature, 'publish'],
        [['file', '/dev/null', 'r'], STDERR, STDERR], $pipes);
    $seen = [];
    $cluster = open();
    $cluster->subscribe(['news', 'weather'], function ($cluster, $channel, $message) use (&$seen) {
        $seen[$channel] = $message;
        if (count($seen) === 2) {
            $cluster->unsubscribe(['news', 'weather']);
        }
    });
    ksort($seen); // the two may be published by different nodes
    expect($seen, ['news' => 'one', 'weather' => 'two']);
    expect(proc_close($child), 0);
}

function publish(): void
{
    $cluster = open();
    $master = $cluster->_masters()[0];
    until('subscribed', fn() => $cluster->pubsub($master, 'numsub', 'weather') === ['weather', 1]);
    $cluster->publish('news', 'one');
    $cluster->publish('weather', 'two');
}

function scan(): void
{
    $cluster = open();
    $wanted = [];
    for ($i = 0; $i < KEYS; $i++) {
        $cluster->set("k$i", 'v');
        $wanted[] = "k$i";
    }
    $found = [];
    foreach ($cluster->_masters() as $master) {
        $cursor = null;
        while (($part = $cluster->scan($cursor, $master, 'k*', 50)) !== false) {
            array_push($found, ...$part);
        }
    }
    sort($wanted);
    $found = array_values(array_unique($found));
    sort($found);
    expect($found, $wanted);
}

// Every key can be read and written again while the client stays as it is.
function node_fails(): void
{
    $cluster = open();
    for ($i = 0; $i < KEYS; $i++) {
        $cluster->set("k$i", '1');
    }
    server('fail');
    until('all can be written', function () use ($cluster) {
        try {
            for ($i = 0; $i < KEYS; $i++) {
                if ($cluster->set("k$i", '2') !== true) {
                    return false;
                }
            }
            return true;
        } catch (Exception) {
            return false;
        }
    }, 40);
    for ($i = 0; $i < KEYS; $i++) {
        expect($cluster->get("k$i"), '2');
    }
}

function reconnect(): void
{
    $cluster = open();
    expect($cluster->set('k', 'kept'), true);
    server('stop');
    server('start');
    until('works again', function () use ($cluster) {
        try {
            return $cluster->get('k') === 'kept';
        } catch (Exception) {
            return false;
        }
    });
    expect($cluster->incr('n'), 1);
}

main(['connect', 'get_set', 'pipeline', 'several_keys', 'transaction', 'script', 'pubsub', 'scan',
    'node_fails', 'reconnect']);
