// SPDX-License-Identifier: Apache-2.0
//
// What the programs for Node share: how they are called and how they check (see run).

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
