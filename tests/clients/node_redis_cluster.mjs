// SPDX-License-Identifier: Apache-2.0
//
// node-redis's cluster client as it is out of the box: RESP3, the slot map by CLUSTER SLOTS (see run).

import {
    close as closeAll, expect, expectError, KEYS, load, main, server, setAndGetAll, survivesNode, swapScript,
    swapSome, until, watched,
} from './feature.mjs';

const { createCluster, defineScript } = load('redis');

async function open(host, port, options = {}) {
    const cluster = watched(createCluster({ rootNodes: [{ url: `redis://${host}:${port}` }], ...options }));
    await cluster.connect();
    return cluster;
}

const close = (...clusters) => closeAll((cluster) => cluster.close(), clusters);

async function connect(host, port) {
    const cluster = await open(host, port);
    expect(cluster.isOpen, true);
    expect(cluster.masters.length >= 1, true);
    expect(await cluster.sendCommand(undefined, true, ['PING']), 'PONG');
    const node = await cluster.nodeClient(cluster.masters[0]);
    expect(/cluster_state:ok/.test(await node.clusterInfo()), true);
    expect(await node.clusterKeySlot('k'), 7629);
    await close(cluster);
}

async function get_set(host, port) {
    const cluster = await open(host, port);
    await setAndGetAll(cluster);
    expect(await cluster.hSet('hash', { f: '1', g: '2' }), 2);
    expect(await cluster.hGetAll('hash'), { f: '1', g: '2' });
    await expectError('WRONGTYPE', cluster.get('hash'));
    await close(cluster);
}

async function pipeline(host, port) {
    const cluster = await open(host, port);
    const batch = cluster.multi();
    for (let i = 0; i < 500; i++) {
        batch.set(`{p}${i}`, `v${i}`).get(`{p}${i}`).incr('{p}n');
    }
    const replies = await batch.get('{p}1').execAsPipeline();
    expect(replies.length, 1501);
    for (let i = 0; i < 500; i++) {
        expect(replies.slice(3 * i, 3 * i + 3), ['OK', `v${i}`, i + 1]);
    }
    expect(replies[1500], 'v1');
    await close(cluster);
}

async function several_keys(host, port) {
    const cluster = await open(host, port);
    expect(await cluster.mSet({ '{t}a': '1', '{t}b': '2' }), 'OK');
    expect(await cluster.mGet(['{t}a', '{t}missing', '{t}b']), ['1', null, '2']);
    expect(await cluster.rename('{t}a', '{t}c'), 'OK');
    expect(await cluster.del(['{t}b', '{t}c', '{t}a']), 2);
    await expectError('CROSSSLOT', cluster.rename('a', 'b'));
    await close(cluster);
}

async function transaction(host, port) {
    const cluster = await open(host, port);
    await cluster.set('{t}k', 'before');
    expect(await cluster.get('{t}k'), 'before');
    expect(await cluster.multi().set('{t}k', 'a').get('{t}k').rPush('{t}l', ['1', '2']).exec(),
        ['OK', 'a', 2]);
    expect(await cluster.get('{t}k'), 'a');
    await close(cluster);
}

async function script(host, port) {
    const swap = defineScript({
        NUMBER_OF_KEYS: 1,
        FIRST_KEY_INDEX: 0,
        SCRIPT: swapScript(),
        parseCommand(parser, key, value) {
            parser.pushKey(key);
            parser.push(value);
        },
        transformReply: undefined,
    });
    const cluster = await open(host, port, { scripts: { swap } });
    await swapSome(cluster);
    await close(cluster);
}

async function pubsub(host, port) {
    const cluster = await open(host, port);
    const seen = [];
    await cluster.subscribe(['news', 'weather'], (message, channel) => seen.push([channel, message]));
    await cluster.pSubscribe('log.*', (message, channel) => seen.push([channel, message]));
    await cluster.publish('news', 'one');
    await until('a message', () => seen.length === 1);
    await cluster.publish('log.app', 'two');
    await until('two messages', () => seen.length === 2);
    expect(seen, [['news', 'one'], ['log.app', 'two']]);
    await cluster.unsubscribe('news');
    await cluster.publish('news', 'three');
    await cluster.publish('weather', 'four');
    await until('three messages', () => seen.length === 3);
    expect(seen[2], ['weather', 'four']);
    await cluster.unsubscribe();
    await cluster.pUnsubscribe();
    await close(cluster);
}

async function sharded_pubsub(host, port) {
    const cluster = await open(host, port);
    const seen = [];
    const channels = ['one', 'two', 'three', 'four', 'five']; // on all nodes
    for (const channel of channels) {
        await cluster.sSubscribe(channel, (message, from) => seen.push(`${from} ${message}`));
    }
    for (const channel of channels) {
        expect(await cluster.sPublish(channel, 'hello'), 1);
    }
    await until('all messages', () => seen.length === channels.length);
    expect(seen.sort(), channels.map((channel) => `${channel} hello`).sort());
    for (const channel of channels) {
        await cluster.sUnsubscribe(channel);
        expect(await cluster.sPublish(channel, 'hello'), 0);
    }
    await close(cluster);
}

async function scan(host, port) {
    const cluster = await open(host, port);
    await Promise.all(KEYS.map((key) => cluster.set(key, 'v')));
    const found = new Set();
    for (const master of cluster.masters) {
        const node = await cluster.nodeClient(master);
        for await (const keys of node.scanIterator({ MATCH: 'k*', COUNT: 50 })) {
            keys.forEach((key) => found.add(key));
        }
    }
    expect([...found].sort(), [...KEYS].sort());
    await close(cluster);
}

async function node_fails(host, port) {
    const cluster = await open(host, port);
    await survivesNode(cluster);
    await close(cluster);
}

async function reconnect(host, port) {
    const cluster = await open(host, port);
    expect(await cluster.set('k', 'kept'), 'OK');
    await server('stop');
    await server('start');
    await until('works again', () => cluster.get('k').then((value) => value === 'kept', () => false));
    cluster.problems = [];
    expect(await cluster.set('k', 'again'), 'OK');
    expect(await cluster.get('k'), 'again');
    await close(cluster);
}

await main({ connect, get_set, pipeline, several_keys, transaction, script, pubsub, sharded_pubsub, scan,
    node_fails, reconnect });
