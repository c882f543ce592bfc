// SPDX-License-Identifier: Apache-2.0
//
// node-redis as it is out of the box: RESP3, an offline queue, one pipeline for all (see run).

import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import {
    close as closeAll, expect, expectError, load, main, server, until, watched,
} from './feature.mjs';

const { createClient, createClientPool, defineScript, WatchError } = load('redis');

async function open(host, port, options = {}) {
    const client = watched(createClient({ url: `redis://${host}:${port}`, ...options }));
    // It would try again without end: the first error is enough here.
    await Promise.race([client.connect(), once(client, 'error').then(([error]) => {
        throw error;
    })]);
    return client;
}

const close = (...clients) => closeAll((client) => client.close(), clients);

async function connect(host, port) {
    const client = await open(host, port);
    expect(client.isReady, true);
    expect(await client.ping(), 'PONG');
    expect(await client.echo('hello'), 'hello');
    expect((await client.sendCommand(['HELLO'])).proto, 3);
    expect(/redis_version:\d/.test(await client.info()), true);
    expect(Number.isInteger(await client.clientId()), true);
    await close(client);
}

async function get_set(host, port) {
    const client = await open(host, port);
    expect(await client.get('missing'), null);
    expect(await client.get('missing'), null);
    expect(await client.set('k', 'one'), 'OK');
    expect(await client.get('k'), 'one');
    expect(await client.get('k'), 'one');
    expect(await client.set('k', 'two'), 'OK');
    expect(await client.get('k'), 'two');
    expect(await client.set('k', 'three', { NX: true }), null);
    expect(await client.set('k', 'three', { GET: true }), 'two');
    expect(await client.get('k'), 'three');

    const bytes = Buffer.from([0, 13, 10, 255, 36, 42, 0]);
    await client.set('bytes', bytes);
    const binary = client.withTypeMapping({ 36: Buffer });
    expect(await binary.get('bytes'), bytes);
    expect(await binary.get('bytes'), bytes);
    const large = 'x'.repeat(300000);
    await client.set('large', large);
    expect((await client.get('large')) === large, true);
    expect((await client.get('large')) === large, true);

    expect(await client.mSet({ a: '1', b: '2' }), 'OK');
    expect(await client.mGet(['a', 'missing', 'b']), ['1', null, '2']);
    expect(await client.set('short', 'v', { PX: 50 }), 'OK');
    await until('expired', async () => (await client.get('short')) === null);
    expect(await client.del(['a', 'b', 'missing']), 2);
    expect(await client.mGet(['a', 'b']), [null, null]);
    await close(client);
}

async function types(host, port) {
    const client = await open(host, port);
    expect(await client.hSet('hash', { f: '1', g: '2' }), 2);
    expect(await client.hGetAll('hash'), { f: '1', g: '2' });
    expect(await client.hmGet('hash', ['g', 'none']), ['2', null]);
    expect(await client.hGetAll('missing'), {});
    expect(await client.rPush('list', ['a', 'b', 'c']), 3);
    expect(await client.lRange('list', 0, -1), ['a', 'b', 'c']);
    expect(await client.lPop('list'), 'a');
    expect(await client.sAdd('set', ['x', 'y', 'x']), 2);
    expect((await client.sMembers('set')).sort(), ['x', 'y']); // a RESP3 set
    expect(await client.sIsMember('set', 'x'), 1);
    expect(await client.zAdd('zset', [{ value: 'a', score: 1.5 }, { value: 'b', score: 2 }]), 2);
    expect(await client.zRangeWithScores('zset', 0, -1),
        [{ value: 'a', score: 1.5 }, { value: 'b', score: 2 }]);
    expect(await client.sendCommand(['ZSCORE', 'zset', 'a']), 1.5); // a RESP3 double
    expect(await client.incrBy('n', 41), 41);
    expect(await client.incr('n'), 42);
    expect(await client.get('n'), '42');
    expect(await client.incrByFloat('n', 0.5), '42.5');
    expect(await client.get('n'), '42.5');
    expect(await client.xAdd('stream', '1-1', { f: 'v' }), '1-1');
    const [entry] = (await client.xRead({ key: 'stream', id: '0' }))[0].messages;
    expect([entry.id, { ...entry.message }], ['1-1', { f: 'v' }]);
    expect(await client.expire('list', 100), 1);
    expect((await client.ttl('list')) > 90, true);
    expect(await client.type('zset'), 'zset');
    await expectError('WRONGTYPE', client.get('list'));
    await close(client);
}

async function select(host, port) {
    const client = await open(host, port);
    const other = await open(host, port, { database: 2, name: 'billing' });
    await client.set('k', 'zero');
    await other.set('k', 'two');
    expect(await client.get('k'), 'zero');
    expect(await client.get('k'), 'zero');
    expect(await other.get('k'), 'two');
    expect(await other.clientGetName(), 'billing');
    await client.select(2);
    expect(await client.get('k'), 'two');
    await client.select(0);
    expect(await client.get('k'), 'zero');
    await close(client, other);
}

// Commands of one tick are one pipeline.
async function pipeline(host, port) {
    const client = await open(host, port);
    const replies = [];
    for (let i = 0; i < 500; i++) {
        replies.push(client.set(`k${i}`, `v${i}`), client.get(`k${i}`), client.incr('n'));
    }
    const wrong = expectError('WRONGTYPE', client.lPush('k0', 'x'));
    const last = client.get('k1');
    const all = await Promise.all(replies);
    for (let i = 0; i < 500; i++) {
        expect(all.slice(3 * i, 3 * i + 3), ['OK', `v${i}`, i + 1]);
    }
    await wrong;
    expect(await last, 'v1');
    expect(await client.multi().get('k0').get('missing').incr('n').execAsPipeline(),
        ['v0', null, 501]);
    await close(client);
}

async function transaction(host, port) {
    const client = await open(host, port);
    await client.set('k', 'before');
    expect(await client.get('k'), 'before');
    expect(await client.multi().set('k', 'a').get('k').rPush('l', ['1', '2']).hSet('h', 'f', 'v')
        .hGetAll('h').exec(), ['OK', 'a', 2, 1, { f: 'v' }]);
    expect(await client.get('k'), 'a');

    const error = await expectError('commands failed', client.multi().set('k', 'b').incr('k').get('k')
        .exec());
    expect(error.replies.map((reply) => reply.message ?? reply),
        ['OK', 'ERR value is not an integer or out of range', 'b']);
    expect(await client.get('k'), 'b');

    await expectError('wrong number', client.multi().set('k', 'c').addCommand(['SET', 'k']).exec());
    expect(await client.get('k'), 'b');

    expect(await client.sendCommand(['MULTI']), 'OK');
    expect(await client.sendCommand(['SET', 'k', 'd']), 'QUEUED');
    expect(await client.sendCommand(['DISCARD']), 'OK');
    expect(await client.get('k'), 'b');
    await close(client);
}

async function watch_retry(host, port) {
    const client = await open(host, port);
    const rival = await open(host, port);
    await client.set('n', '10');
    expect(await client.get('n'), '10');
    let attempts = 0;
    for (let done = false; !done; ) {
        attempts++;
        await client.watch('n');
        const n = Number(await client.get('n'));
        if (attempts === 1) {
            expect(await rival.set('n', '20'), 'OK');
        }
        try {
            expect(await client.multi().set('n', String(n + 1)).exec(), ['OK']);
            done = true;
        } catch (error) {
            if (!(error instanceof WatchError)) {
                throw error;
            }
        }
    }
    expect(attempts, 2);
    expect(await rival.get('n'), '21');
    await client.watch('n');
    await client.unwatch();
    await rival.set('n', '30');
    expect(await client.multi().get('n').exec(), ['30']);
    await close(client, rival);
}

async function script(host, port) {
    // A client with a script sends EVALSHA, and EVAL after NOSCRIPT.
    const swap = defineScript({
        NUMBER_OF_KEYS: 1,
        SCRIPT: `-- ${randomUUID()}
            local old = redis.call('GET', KEYS[1])
            redis.call('SET', KEYS[1], ARGV[1])
            return {old, #ARGV, redis.call('GET', KEYS[1])}`,
        parseCommand(parser, key, value) {
            parser.pushKey(key);
            parser.push(value);
        },
        transformReply: (reply) => reply,
    });
    const client = await open(host, port, { scripts: { swap } });
    await client.set('k', 'old');
    expect(await client.get('k'), 'old');
    const unknown = 'f'.repeat(40);
    await expectError('NOSCRIPT', client.evalSha(unknown));
    expect(await client.swap('k', 'new'), ['old', 1, 'new']);
    expect(await client.get('k'), 'new');
    expect(await client.swap('k', 'newer'), ['new', 1, 'newer']);
    expect(await client.get('k'), 'newer');
    const sha = await client.scriptLoad(`return redis.call('INCRBY', KEYS[1], ARGV[1])`);
    expect(await client.scriptExists([sha, unknown]), [1, 0]);
    expect(await client.evalSha(sha, { keys: ['n'], arguments: ['5'] }), 5);
    expect(await client.get('n'), '5');
    await expectError('my word', client.eval(`return redis.error_reply('ERR my word')`));
    await close(client);
}

async function pubsub(host, port) {
    const client = await open(host, port);
    const subscriber = await open(host, port);
    const seen = [];
    const listener = (message, channel) => seen.push([channel, message]);
    await subscriber.subscribe(['news', 'weather'], listener);
    await subscriber.pSubscribe('log.*', listener);
    expect({ ...(await client.pubSubNumSub(['news'])) }, { news: 1 });
    expect(await client.publish('news', 'one'), 1);
    expect(await client.publish('log.app', 'two'), 1);
    expect(await client.publish('nobody', 'three'), 0);
    expect(await client.publish('weather', 'four'), 1);
    await until('three messages', () => seen.length >= 3);
    expect(seen, [['news', 'one'], ['log.app', 'two'], ['weather', 'four']]);
    await subscriber.unsubscribe('news');
    expect(await client.publish('news', 'five'), 0);
    // RESP3: a subscribed connection serves commands too.
    expect(await subscriber.set('k', 'v'), 'OK');
    expect(await subscriber.get('k'), 'v');
    await subscriber.unsubscribe();
    await subscriber.pUnsubscribe();
    expect(await client.publish('weather', 'six'), 0);
    expect(await subscriber.get('k'), 'v');
    expect(seen.length, 3);
    await close(subscriber, client);
}

async function blocking_pop(host, port) {
    const client = await open(host, port);
    // A pool: what its documentation recommends for commands that block.
    const pool = createClientPool({ url: `redis://${host}:${port}` });
    await pool.connect();
    expect(await pool.set('k', 'v'), 'OK');
    const job = pool.blPop(['jobs', 'more'], 20);
    await until('blocked', async () => /blocked_clients:1\r/.test(await client.info('clients')));
    expect(await client.get('k'), 'v');
    expect(await client.rPush('more', 'job'), 1);
    expect({ ...(await job) }, { key: 'more', element: 'job' });
    expect(await pool.get('k'), 'v');
    const moved = pool.blMove('jobs', 'done', 'LEFT', 'RIGHT', 0);
    await until('blocked', async () => /blocked_clients:1\r/.test(await client.info('clients')));
    expect(await client.lPush('jobs', 'second'), 1);
    expect(await moved, 'second');
    expect(await client.lRange('done', 0, -1), ['second']);
    expect(await pool.brPop('jobs', 0.1), null);
    expect(await pool.get('k'), 'v');
    await pool.close();
    await close(client);
}

async function scan(host, port) {
    const client = await open(host, port);
    const wanted = Array.from({ length: 1000 }, (_, i) => `user:${i}`).sort();
    await Promise.all([client.set('other', 'v'), ...wanted.map((key) => client.set(key, 'v')),
        client.hSet('hash', Object.fromEntries(wanted.map((key) => [key, 'v']))),
        client.sAdd('set', wanted)]);
    const collect = async (iterator) => {
        const found = [];
        for await (const batch of iterator) {
            found.push(...batch);
        }
        return found;
    };
    const keys = await collect(client.scanIterator({ MATCH: 'user:*', COUNT: 100 }));
    expect([...new Set(keys)].sort(), wanted);
    expect([...new Set(await collect(client.sScanIterator('set')))].sort(), wanted);
    const fields = await collect(client.hScanIterator('hash', { MATCH: 'user:99*' }));
    expect([...new Set(fields.map(({ field, value }) => field + value))].sort(),
        wanted.filter((key) => key.startsWith('user:99')).map((key) => `${key}v`).sort());
    await close(client);
}

async function reconnect(host, port) {
    const client = await open(host, port);
    expect(await client.set('k', 'kept'), 'OK');
    expect(await client.get('k'), 'kept');
    await server('stop');
    await until('disconnected', () => !client.isReady);
    const queued = [client.get('k'), client.incr('n')]; // into the offline queue
    await until('a refused attempt', () => client.problems.some((text) => text.includes('REFUSED')));
    await server('start');
    expect(await Promise.all(queued), ['kept', 1]);
    client.problems = [];
    expect(await client.set('k', 'again'), 'OK');
    expect(await client.get('k'), 'again');
    await close(client);
}

// A subscriber subscribes again by itself.
async function resubscribe(host, port) {
    const subscriber = await open(host, port);
    const seen = [];
    await subscriber.subscribe('news', (message) => seen.push(message));
    await subscriber.pSubscribe('log.*', (message) => seen.push(message));
    await server('stop');
    await until('disconnected', () => !subscriber.isReady);
    await server('start');
    const client = await open(host, port);
    await until('subscribed', async () => (await client.pubSubNumSub(['news'])).news === 1);
    await until('subscribed', async () => (await client.pubSubNumPat()) === 1);
    expect(await client.publish('news', 'one'), 1);
    expect(await client.publish('log.app', 'two'), 1);
    await until('both messages', () => seen.length >= 2);
    expect(seen, ['one', 'two']);
    subscriber.problems = [];
    await close(subscriber, client);
}

// 64 commands in flight on one connection, 90 % GET, on so many hot keys: every GET has the value of the
// SET sent before it, and at least 80 % of them are hits.
async function hitsOf(client, keys) {
    const counters = async () => {
        const info = await client.info('nearside');
        return ['l1_hits', 'l1_misses'].map((name) => {
            const found = info.match(new RegExp(`^${name}:(\\d+)`, 'm'));
            expect(found !== null, true);
            return Number(found[1]);
        });
    };
    const latest = Array.from({ length: keys }, (_, i) => `first ${i}`);
    await Promise.all(latest.map((value, i) => client.set(`hot:${i}`, value)));
    const [hits, misses] = await counters();

    let state = 1; // a fixed sequence (Lehmer), so that every run asks the same
    const random = (n) => (state = (state * 48271) % 0x7fffffff) % n;
    let left = 20000;
    let gets = 0;
    const worker = async () => {
        while (left > 0) {
            const number = left--;
            const key = random(keys);
            if (random(10) === 0) {
                latest[key] = `set ${number}`;
                expect(await client.set(`hot:${key}`, latest[key]), 'OK');
            } else {
                const wanted = latest[key];
                gets++;
                expect(await client.get(`hot:${key}`), wanted);
            }
        }
    };
    await Promise.all(Array.from({ length: 64 }, worker));

    const after = await counters();
    const hit = after[0] - hits;
    expect(hit + after[1] - misses, gets);
    if (hit < 0.8 * gets) {
        throw new Error(`${hit} hits of ${gets} GETs of ${keys} keys`);
    }
}

async function hits_in_flight(host, port) {
    const client = await open(host, port);
    for (const keys of [1, 5, 10, 100, 1000]) {
        await hitsOf(client, keys);
    }
    await close(client);
}

await main({ connect, get_set, types, select, pipeline, transaction, watch_retry, script, pubsub,
    blocking_pop, scan, reconnect, resubscribe, hits_in_flight });
