// SPDX-License-Identifier: Apache-2.0
//
// ioredis as it is out of the box: RESP3, a ready check by INFO, an offline queue (see run).

import { randomUUID } from 'node:crypto';
import {
    close as closeAll, expect, expectError, load, main, server, until, watched,
} from './feature.mjs';

const Redis = load('ioredis');

const open = (host, port, options = {}) => watched(new Redis(port, host, options));
const close = (...connections) =>
    closeAll(async (redis) => expect(await redis.quit(), 'OK'), connections);

async function connect(host, port) {
    const redis = open(host, port);
    await until('ready', () => redis.status === 'ready');
    expect(await redis.ping(), 'PONG');
    expect(await redis.echo('hello'), 'hello');
    const hello = await redis.call('HELLO');
    expect(hello[hello.indexOf('proto') + 1], 3);
    expect(/redis_version:\d/.test(await redis.info()), true);
    expect(Number.isInteger(await redis.client('ID')), true);
    await close(redis);
}

async function get_set(host, port) {
    const redis = open(host, port);
    expect(await redis.get('missing'), null);
    expect(await redis.get('missing'), null);
    expect(await redis.set('k', 'one'), 'OK');
    expect(await redis.get('k'), 'one');
    expect(await redis.get('k'), 'one');
    expect(await redis.set('k', 'two'), 'OK');
    expect(await redis.get('k'), 'two');
    expect(await redis.set('k', 'three', 'NX'), null);
    expect(await redis.set('k', 'three', 'GET'), 'two');
    expect(await redis.get('k'), 'three');

    const bytes = Buffer.from([0, 13, 10, 255, 36, 42, 0]);
    await redis.set('bytes', bytes);
    expect(await redis.getBuffer('bytes'), bytes);
    expect(await redis.getBuffer('bytes'), bytes);
    const large = 'x'.repeat(300000);
    await redis.set('large', large);
    expect((await redis.get('large')) === large, true);
    expect((await redis.get('large')) === large, true);

    expect(await redis.mset({ a: '1', b: '2' }), 'OK');
    expect(await redis.mget('a', 'missing', 'b'), ['1', null, '2']);
    expect(await redis.set('short', 'v', 'PX', 50), 'OK');
    await until('expired', async () => (await redis.get('short')) === null);
    expect(await redis.del('a', 'b', 'missing'), 2);
    expect(await redis.mget('a', 'b'), [null, null]);
    await close(redis);
}

async function types(host, port) {
    const redis = open(host, port);
    expect(await redis.hset('hash', { f: '1', g: '2' }), 2);
    expect(await redis.hgetall('hash'), { f: '1', g: '2' });
    expect(await redis.hmget('hash', 'g', 'none'), ['2', null]);
    expect(await redis.hgetall('missing'), {});
    expect(await redis.rpush('list', 'a', 'b', 'c'), 3);
    expect(await redis.lrange('list', 0, -1), ['a', 'b', 'c']);
    expect(await redis.lpop('list'), 'a');
    expect(await redis.sadd('set', 'x', 'y', 'x'), 2);
    expect((await redis.smembers('set')).sort(), ['x', 'y']);
    expect(await redis.sismember('set', 'x'), 1);
    expect(await redis.zadd('zset', 1.5, 'a', 2, 'b'), 2);
    expect(await redis.zrange('zset', 0, -1, 'WITHSCORES'), ['a', '1.5', 'b', '2']);
    expect(await redis.zscore('zset', 'a'), '1.5');
    expect(await redis.incrby('n', 41), 41);
    expect(await redis.incr('n'), 42);
    expect(await redis.get('n'), '42');
    expect(await redis.incrbyfloat('n', 0.5), '42.5');
    expect(await redis.get('n'), '42.5');
    expect(await redis.xadd('stream', '1-1', 'f', 'v'), '1-1');
    expect(await redis.xread('STREAMS', 'stream', '0'), [['stream', [['1-1', ['f', 'v']]]]]);
    expect(await redis.expire('list', 100), 1);
    expect((await redis.ttl('list')) > 90, true);
    expect(await redis.type('zset'), 'zset');
    await expectError('WRONGTYPE', redis.get('list'));
    await close(redis);
}

async function select(host, port) {
    const redis = open(host, port);
    const other = open(host, port, { db: 2, connectionName: 'billing' });
    await redis.set('k', 'zero');
    await other.set('k', 'two');
    expect(await redis.get('k'), 'zero');
    expect(await redis.get('k'), 'zero');
    expect(await other.get('k'), 'two');
    expect(await other.client('GETNAME'), 'billing');
    expect(await redis.select(2), 'OK');
    expect(await redis.get('k'), 'two');
    expect(await redis.select(0), 'OK');
    expect(await redis.get('k'), 'zero');
    await close(redis, other);
}

async function pipeline(host, port) {
    const redis = open(host, port);
    const batch = redis.pipeline();
    for (let i = 0; i < 500; i++) {
        batch.set(`k${i}`, `v${i}`).get(`k${i}`).incr('n');
    }
    batch.lpush('k0', 'x').get('k1');
    const replies = await batch.exec();
    expect(replies.length, 1502);
    for (let i = 0; i < 500; i++) {
        expect(replies.slice(3 * i, 3 * i + 3), [[null, 'OK'], [null, `v${i}`], [null, i + 1]]);
    }
    expect(replies[1500][0].message.startsWith('WRONGTYPE'), true);
    expect(replies[1501], [null, 'v1']);

    const values = await Promise.all(Array.from({ length: 500 }, (_, i) => redis.get(`k${i}`)));
    expect(values, Array.from({ length: 500 }, (_, i) => `v${i}`));
    await close(redis);
}

async function transaction(host, port) {
    const redis = open(host, port);
    await redis.set('k', 'before');
    expect(await redis.get('k'), 'before');
    const replies = await redis.multi().set('k', 'a').get('k').incr('k').rpush('l', '1', '2').exec();
    expect(replies.slice(0, 2), [[null, 'OK'], [null, 'a']]);
    expect(replies[2][0].message.includes('not an integer'), true);
    expect(replies[3], [null, 2]);
    expect(await redis.get('k'), 'a');

    await expectError('EXECABORT', redis.multi().set('k', 'b').call('SET', 'k').exec());
    expect(await redis.get('k'), 'a');

    expect(await redis.multi({ pipeline: false }), 'OK');
    expect(await redis.set('k', 'c'), 'QUEUED');
    expect(await redis.hset('h', 'f', '1'), 'QUEUED');
    expect(await redis.hgetall('h'), 'QUEUED');
    expect(await redis.exec(), [[null, 'OK'], [null, 1], [null, ['f', '1']]]);

    expect(await redis.multi({ pipeline: false }), 'OK');
    expect(await redis.set('k', 'd'), 'QUEUED');
    expect(await redis.discard(), 'OK');
    expect(await redis.get('k'), 'c');
    await close(redis);
}

async function watch_retry(host, port) {
    const redis = open(host, port);
    const rival = open(host, port);
    await redis.set('n', '10');
    expect(await redis.get('n'), '10');
    let attempts = 0;
    for (let done = false; !done; ) {
        attempts++;
        expect(await redis.watch('n'), 'OK');
        const n = Number(await redis.get('n'));
        if (attempts === 1) {
            expect(await rival.set('n', '20'), 'OK');
        }
        done = (await redis.multi().set('n', n + 1).exec()) !== null;
    }
    expect(attempts, 2);
    expect(await rival.get('n'), '21');
    expect(await redis.watch('n'), 'OK');
    expect(await redis.unwatch(), 'OK');
    await rival.set('n', '30');
    expect(await redis.multi().get('n').exec(), [[null, '30']]);
    await close(redis, rival);
}

async function script(host, port) {
    const redis = open(host, port);
    await redis.set('k', 'old');
    expect(await redis.get('k'), 'old');
    const unknown = 'f'.repeat(40);
    await expectError('NOSCRIPT', redis.evalsha(unknown, 0));
    // defineCommand sends EVALSHA, and EVAL after NOSCRIPT.
    redis.defineCommand('swap', {
        numberOfKeys: 1,
        lua: `-- ${randomUUID()}
            local old = redis.call('GET', KEYS[1])
            redis.call('SET', KEYS[1], ARGV[1])
            return {old, #ARGV, redis.call('GET', KEYS[1])}`,
    });
    expect(await redis.swap('k', 'new'), ['old', 1, 'new']);
    expect(await redis.get('k'), 'new');
    expect(await redis.swap('k', 'newer'), ['new', 1, 'newer']);
    expect(await redis.get('k'), 'newer');
    const sha = await redis.script('LOAD', `return redis.call('INCRBY', KEYS[1], ARGV[1])`);
    expect(await redis.script('EXISTS', sha, unknown), [1, 0]);
    expect(await redis.evalsha(sha, 1, 'n', 5), 5);
    expect(await redis.get('n'), '5');
    await expectError('my word', redis.eval(`return redis.error_reply('ERR my word')`, 0));
    await close(redis);
}

async function pubsub(host, port) {
    const redis = open(host, port);
    const subscriber = open(host, port);
    const seen = [];
    subscriber.on('message', (channel, message) => seen.push([channel, message]));
    subscriber.on('pmessage', (pattern, channel, message) => seen.push([pattern, channel, message]));
    expect(await subscriber.subscribe('news', 'weather'), 2);
    expect(await subscriber.psubscribe('log.*'), 3);
    expect(await redis.pubsub('NUMSUB', 'news'), ['news', 1]);
    expect(await redis.publish('news', 'one'), 1);
    expect(await redis.publish('log.app', 'two'), 1);
    expect(await redis.publish('nobody', 'three'), 0);
    expect(await redis.publish('weather', 'four'), 1);
    await until('three messages', () => seen.length >= 3);
    expect(seen, [['news', 'one'], ['log.*', 'log.app', 'two'], ['weather', 'four']]);
    expect(await subscriber.unsubscribe('news'), 2);
    expect(await redis.publish('news', 'five'), 0);
    // RESP3: a subscribed connection serves commands too.
    expect(await subscriber.set('k', 'v'), 'OK');
    expect(await subscriber.get('k'), 'v');
    // In this order: ioredis waits for a count of 0 after one without names.
    expect(await subscriber.punsubscribe('log.*'), 1);
    expect(await subscriber.unsubscribe(), 0);
    expect(await redis.publish('weather', 'six'), 0);
    expect(await subscriber.get('k'), 'v');
    expect(seen.length, 3);
    await close(subscriber, redis);
}

async function blocking_pop(host, port) {
    const redis = open(host, port);
    const worker = open(host, port);
    expect(await worker.set('k', 'v'), 'OK');
    const job = worker.blpop('jobs', 'more', 20);
    await until('blocked', async () => /blocked_clients:1\r/.test(await redis.info('clients')));
    expect(await redis.get('k'), 'v');
    expect(await redis.rpush('more', 'job'), 1);
    expect(await job, ['more', 'job']);
    expect(await worker.get('k'), 'v');
    const moved = worker.blmove('jobs', 'done', 'LEFT', 'RIGHT', 0);
    await until('blocked', async () => /blocked_clients:1\r/.test(await redis.info('clients')));
    expect(await redis.lpush('jobs', 'second'), 1);
    expect(await moved, 'second');
    expect(await redis.lrange('done', 0, -1), ['second']);
    expect(await worker.brpop('jobs', 0.1), null);
    expect(await worker.get('k'), 'v');
    await close(worker, redis);
}

async function scan(host, port) {
    const redis = open(host, port);
    const wanted = Array.from({ length: 1000 }, (_, i) => `user:${i}`).sort();
    const batch = redis.pipeline().set('other', 'v');
    wanted.forEach((key) => batch.set(key, 'v').hset('hash', key, 'v').sadd('set', key));
    await batch.exec();
    const collect = async (stream) => {
        const found = [];
        for await (const keys of stream) {
            found.push(...keys);
        }
        return found;
    };
    const keys = await collect(redis.scanStream({ match: 'user:*', count: 100 }));
    expect([...new Set(keys)].sort(), wanted);
    expect([...new Set(await collect(redis.sscanStream('set')))].sort(), wanted);
    const fields = await collect(redis.hscanStream('hash', { match: 'user:99*' }));
    expect([...new Set(fields)].sort(), ['v', ...wanted.filter((k) => k.startsWith('user:99'))].sort());
    await close(redis);
}

async function reconnect(host, port) {
    const redis = open(host, port);
    expect(await redis.set('k', 'kept'), 'OK');
    expect(await redis.get('k'), 'kept');
    await server('stop');
    await until('disconnected', () => redis.status !== 'ready');
    const queued = [redis.get('k'), redis.incr('n')]; // into the offline queue
    await until('a refused attempt', () => redis.problems.length > 0);
    await server('start');
    expect(await Promise.all(queued), ['kept', 1]);
    expect(redis.problems.filter((text) => !text.includes('ECONNREFUSED')), []);
    redis.problems = [];
    expect(await redis.set('k', 'again'), 'OK');
    expect(await redis.get('k'), 'again');
    await close(redis);
}

// A subscriber subscribes again by itself (autoResubscribe).
async function resubscribe(host, port) {
    const subscriber = open(host, port);
    const seen = [];
    subscriber.on('message', (channel, message) => seen.push(message));
    subscriber.on('pmessage', (pattern, channel, message) => seen.push(message));
    await subscriber.subscribe('news');
    await subscriber.psubscribe('log.*');
    await server('stop');
    await until('disconnected', () => subscriber.status !== 'ready');
    await server('start');
    const redis = open(host, port);
    await until('subscribed', async () => (await redis.pubsub('NUMSUB', 'news'))[1] === 1);
    await until('subscribed', async () => (await redis.pubsub('NUMPAT')) === 1);
    expect(await redis.publish('news', 'one'), 1);
    expect(await redis.publish('log.app', 'two'), 1);
    await until('both messages', () => seen.length >= 2);
    expect(seen, ['one', 'two']);
    subscriber.problems = [];
    await close(subscriber, redis);
}

await main({ connect, get_set, types, select, pipeline, transaction, watch_retry, script, pubsub,
    blocking_pop, scan, reconnect, resubscribe });
