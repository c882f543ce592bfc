// SPDX-License-Identifier: Apache-2.0
//
// What the programs for Node share: how they are called and how they check (see run).

import { randomUUID } from 'node:crypto';
import { createRequire } from 'node:module';
import { createInterface } from 'node:readline';
import { isDeepStrictEqual, inspect } from 'node:util';

// Finds packages in NODE_PATH, which import does not.
export const load = createRequire(import.meta.url);

export function expect(got, wanted) {
    // Replies may be objects without a prototype.
    const plain = (value) =>
        value !== null && typeof value === 'object' && Object.getPrototypeOf(value) === null
            ? { ...value }
            : value;
    if (!isDeepStrictEqual(plain(got), wanted)) {
        throw new Error(`got ${inspect(got)}, wanted ${inspect(wanted)}`);
    }
}

// The promise is rejected, and the message contains text.
export async function expectError(text, promise) {
    let result;
    try {
        result = await promise;
    } catch (error) {
        if (!error.message.includes(text)) {
            throw new Error(`got the error ${error.message}, wanted ${text}`);
        }
        return error;
    }
    throw new Error(`got ${inspect(result)}, wanted the error ${text}`);
}

export const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

// The first true value of condition().
export async function until(what, condition, seconds = 20) {
    const end = Date.now() + seconds * 1000;
    for (;;) {
        const result = await condition();
        if (result) {
            return result;
        }
        if (Date.now() > end) {
            throw new Error(`not within ${seconds} s: ${what}`);
        }
        await pause(10);
    }
}

// Every error a connection reports fails the feature when it is closed, but for those it forgets
// (problems = []) because a server was down.
export function watched(connection) {
    connection.problems = [];
    connection.on('error', (error) => connection.problems.push(error.message || error.code));
    return connection;
}

export async function close(end, connections) {
    for (const connection of connections) {
        await end(connection);
        expect(connection.problems, []);
    }
}

// A text nobody has loaded yet: it sets the key, and says what it was and is.
export const swapScript = () => `-- ${randomUUID()}
    local old = redis.call('GET', KEYS[1])
    redis.call('SET', KEYS[1], ARGV[1])
    return {old, redis.call('GET', KEYS[1])}`;

// ---- What clients for clusters have alike ----

export const KEYS = Array.from({ length: 500 }, (_, i) => `k${i}`); // in some 500 slots

export async function setAndGetAll(cluster) {
    for (const key of KEYS) {
        expect(await cluster.set(key, `v${key}`), 'OK');
        expect(await cluster.get(key), `v${key}`);
    }
    // In one turn: what goes to one connection is one pipeline.
    const values = await Promise.all(KEYS.map((key) => cluster.get(key)));
    expect(values, KEYS.map((key) => `v${key}`));
}

// The cluster has a command swap, which is swapScript.
export async function swapSome(cluster) {
    for (const key of KEYS.slice(0, 20)) {
        await cluster.set(key, 'old');
        expect(await cluster.get(key), 'old');
        expect(await cluster.swap(key, 'new'), ['old', 'new']);
        expect(await cluster.get(key), 'new');
    }
}

// Every key can be read and written again while the client stays as it is.
export async function survivesNode(cluster) {
    await Promise.all(KEYS.map((key) => cluster.set(key, '1')));
    await server('fail');
    const writable = (key) => cluster.set(key, '2').then(() => true, () => false);
    await until('all can be written', async () =>
        (await Promise.all(KEYS.map(writable))).every(Boolean), 40);
    expect(await Promise.all(KEYS.map((key) => cluster.get(key))), KEYS.map(() => '2'));
    cluster.problems = [];
}

// ----

// Has the server stopped or started, or a node of the cluster fail.
export async function server(word) {
    const input = createInterface({ input: process.stdin });
    const answer = new Promise((resolve) => input.once('line', resolve));
    console.log(word);
    expect(await answer, { stop: 'stopped', start: 'started', fail: 'failed' }[word]);
    input.close();
    process.stdin.pause();
}

// features: asynchronous functions of (host, port), by name.
export async function main(features) {
    const [host, port, name] = process.argv.slice(2);
    try {
        await features[name](host, Number(port));
    } catch (error) {
        console.log(`not ok ${name}: ${error.message}`);
        console.error(error);
        process.exit(1);
    }
    console.log(`ok ${name}`); // and ends by itself: every connection was closed
}
