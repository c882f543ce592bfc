// SPDX-License-Identifier: Apache-2.0
//
// ioredis's Cluster as it is out of the box: the slot map by CLUSTER SLOTS, a ready check by CLUSTER INFO
// (see run).

import {
    close as closeAll, expect, expectError, KEYS, load, main, server, setAndGetAll, survivesNode, swapScript,
    swapSome, until, watched,
} from './feature.mjs';

const { Cluster } = load('ioredis');

const open = (host, port, options = {}) => watched(new Cluster([{ host, port }], options));
const close = (...clusters) =>
    closeAll(async (cluster) => expect(await cluster.quit(), 'OK'), clusters);

async function connect(host, port) {
    const cluster = open(host, port);
    await until('ready', () => cluster.status === 'ready');
    expect(await cluster.ping(), 'PONG');
    expect(cluster.nodes('all').length >= 1, true);
    expect(await cluster.cluster('KEYSLOT', 'k'), 7629);
    expect(/cluster_state:ok/.test(await cluster.cluster('INFO')), true);
    await close(cluster);
}

async function get_set(host, port) {
    const cluster = open(host, port);
    await setAndGetAll(cluster);
    expect(await cluster.hset('hash', { f: '1', g: '2' }), 2);
    expect(await cluster.hgetall('hash'), { f: '1', g: '2' });
    await expectError('WRONGTYPE', cluster.get('hash'));
    await close(cluster);
}

// ioredis wants the keys of a pipeline on one node.
async function pipeline(host, port) {
    const cluster = open(host, port);
    const batch = cluster.pipeline();
    for (let i = 0; i < 500; i++) {
        batch.set(`{p}${i}`, `v${i}`).get(`{p}${i}`).incr('{p}n');
    }
    const replies = await batch.lpush('{p}0', 'x').get('{p}1').exec();
    for (let i = 0; i < 500; i++) {
        expect(replies.slice(3 * i, 3 * i + 3), [[null, 'OK'], [null, `v${i}`], [null, i + 1]]);
    }
    expect(replies[1500][0].message.startsWith('WRONGTYPE'), true);
    expect(replies[1501], [null, 'v1']);
    await close(cluster);
}

async function several_keys(host, port) {
    const cluster = open(host, port);
    expect(await cluster.mset({ '{t}a': '1', '{t}b': '2' }), 'OK');
    expect(await cluster.mget('{t}a', '{t}missing', '{t}b'), ['1', null, '2']);
    expect(await cluster.rename('{t}a', '{t}c'), 'OK');
    expect(await cluster.del('{t}b', '{t}c', '{t}a'), 2);
    await expectError('CROSSSLOT', cluster.rename('a', 'b'));
    await close(cluster);
}

async function transaction(host, port) {
    const cluster = open(host, port);
    await cluster.set('{t}k', 'before');
    expect(await cluster.get('{t}k'), 'before');
    const replies = await cluster.multi().set('{t}k', 'a').get('{t}k').rpush('{t}l', '1', '2').exec();
    expect(replies, [[null, 'OK'], [null, 'a'], [null, 2]]);
    expect(await cluster.get('{t}k'), 'a');
    await expectError('EXECABORT', cluster.multi().set('{t}k', 'b').call('SET', '{t}k').exec());
    expect(await cluster.get('{t}k'), 'a');
    await close(cluster);
}

async function script(host, port) {
    const cluster = open(host, port);
    cluster.defineCommand('swap', { numberOfKeys: 1, lua: swapScript() });
    await swapSome(cluster);
    await close(cluster);
}

async function pubsub(host, port) {
    const cluster = open(host, port);
    const subscriber = open(host, port);
    const seen = [];
    subscriber.on('message', (channel, message) => seen.push([channel, message]));
    subscriber.on('pmessage', (pattern, channel, message) => seen.push([pattern, channel, message]));
    expect(await subscriber.subscribe('news', 'weather'), 2);
    expect(await subscriber.psubscribe('log.*'), 3);
    await cluster.publish('news', 'one');
    await until('a message', () => seen.length === 1);
    await cluster.publish('log.app', 'two');
    await until('two messages', () => seen.length === 2);
    expect(seen, [['news', 'one'], ['log.*', 'log.app', 'two']]);
    expect(await subscriber.set('k', 'v'), 'OK'); // on other connections
    expect(await subscriber.unsubscribe('news'), 2);
    await close(subscriber, cluster);
}

async function sharded_pubsub(host, port) {
    const cluster = open(host, port);
    const subscriber = open(host, port, { shardedSubscribers: true });
    const seen = [];
    const channels = ['one', 'two', 'three', 'four', 'five']; // on all nodes
    subscriber.on('smessage', (channel, message) => seen.push(`${channel} ${message}`));
    await until('ready', () => subscriber.status === 'ready');
    for (const channel of channels) {
        await subscriber.ssubscribe(channel);
    }
    for (const channel of channels) {
        expect(await cluster.spublish(channel, 'hello'), 1);
    }
    await until('all messages', () => seen.length === channels.length);
    expect(seen.sort(), channels.map((channel) => `${channel} hello`).sort());
    for (const channel of channels) {
        await subscriber.sunsubscribe(channel);
        expect(await cluster.spublish(channel, 'hello'), 0);
    }
    await close(subscriber, cluster);
}

async function scan(host, port) {
    const cluster = open(host, port);
    await Promise.all(KEYS.map((key) => cluster.set(key, 'v')));
    const found = new Set();
    for (const node of cluster.nodes('master')) {
        for await (const keys of node.scanStream({ match: 'k*', count: 50 })) {
            keys.forEach((key) => found.add(key));
        }
    }
    expect([...found].sort(), [...KEYS].sort());
    await close(cluster);
}

async function node_fails(host, port) {
    const cluster = open(host, port);
    await survivesNode(cluster);
    await close(cluster);
}

async function reconnect(host, port) {
    const cluster = open(host, port);
    expect(await cluster.set('k', 'kept'), 'OK');
    await server('stop');
    await until('noticed', () => cluster.status !== 'ready');
    const queued = [cluster.get('k'), cluster.incr('n')]; // into the offline queue
    await server('start');
    expect(await Promise.all(queued), ['kept', 1]);
    cluster.problems = [];
    expect(await cluster.set('k', 'again'), 'OK');
    expect(await cluster.get('k'), 'again');
    await close(cluster);
}

await main({ connect, get_set, pipeline, several_keys, transaction, script, pubsub, sharded_pubsub, scan,
    node_fails, reconnect });
