# SPDX-License-Identifier: Apache-2.0
"""redis-py's RedisCluster as it is out of the box: the slot map by CLUSTER SLOTS, keys by COMMAND
(see run). It has neither transactions nor sharded Pub/Sub."""
import uuid

import redis
from redis.cluster import RedisCluster

from feature import expect, expect_error, main, server, until

KEYS = [f'k{i}' for i in range(500)]  # in some 500 slots


def connect(host, port):
    client = RedisCluster(host, port)
    expect(client.ping(), True)
    expect(client.cluster_keyslot('k'), 7629)
    expect(client.cluster_info()['cluster_state'], 'ok')
    expect(len(client.get_primaries()) >= 1, True)
    expect(RedisCluster.from_url(f'redis://{host}:{port}').ping(), True)


def get_set(host, port):
    client = RedisCluster(host, port, decode_responses=True)
    for key in KEYS:
        expect(client.set(key, f'v{key}'), True)
        expect(client.get(key), f'v{key}')
    expect(client.hset('hash', mapping={'f': 1, 'g': 2}), 2)
    expect(client.hgetall('hash'), {'f': '1', 'g': '2'})
    expect_error('wrong kind of value', redis.ResponseError, lambda: client.get('hash'))
    sizes = client.dbsize(target_nodes=RedisCluster.PRIMARIES)
    expect(sum(sizes.values()) if isinstance(sizes, dict) else sizes, len(KEYS) + 1)


def pipeline(host, port):
    client = RedisCluster(host, port, decode_responses=True)
    with client.pipeline() as batch:
        for key in KEYS:
            batch.set(key, f'v{key}').get(key).incr('n')
        replies = batch.execute()
    wanted = []
    for i, key in enumerate(KEYS):
        wanted += [True, f'v{key}', i + 1]
    expect(replies, wanted)


def several_keys(host, port):
    client = RedisCluster(host, port, decode_responses=True)
    expect(client.mset({'{t}a': 1, '{t}b': 2}), True)
    expect(client.mget('{t}a', '{t}missing', '{t}b'), ['1', None, '2'])
    expect(client.mset_nonatomic({'a': 1, 'b': 2}) in (True, [True, True]), True)
    expect(client.mget_nonatomic('a', 'missing', 'b'), ['1', None, '2'])
    expect(client.rename('{t}a', '{t}c'), True)
    expect(client.delete('{t}b', '{t}c', '{t}a'), 2)
    expect(client.exists('a', 'b'), 2)


def transaction(host, port):
    """Its own it refuses; what is sent to a node by hand is one."""
    client = RedisCluster(host, port, decode_responses=True)
    expect(client.set('{t}k', 'before'), True)
    expect(client.get('{t}k'), 'before')
    node = client.get_redis_connection(client.get_node_from_key('{t}k'))
    with node.pipeline(transaction=True) as batch:
        replies = batch.set('{t}k', 'a').get('{t}k').rpush('{t}l', 1, 2).execute()
    expect([replies[0], *[str(reply) for reply in replies[1:]]], [True, "a", '2'])
    expect(client.get('{t}k'), 'a')


def script(host, port):
    client = RedisCluster(host, port, decode_responses=True)
    source = f"""-- {uuid.uuid4()}
        local old = redis.call('GET', KEYS[1])
        redis.call('SET', KEYS[1], ARGV[1])
        return {{old, redis.call('GET', KEYS[1])}}"""
    sha = client.script_load(source)
    for key in KEYS[:20]:
        client.set(key, 'old')
        expect(client.get(key), 'old')
        expect(client.evalsha(sha, 1, key, 'new'), ['old', 'new'])
        expect(client.get(key), 'new')
        expect(client.eval(source, 1, key, 'newer'), ['new', 'newer'])
        expect(client.get(key), 'newer')


def pubsub(host, port):
    client = RedisCluster(host, port, decode_responses=True)
    subscriber = client.pubsub(ignore_subscribe_messages=True)
    seen = []

    def next_message():
        message = subscriber.get_message(timeout=0.1)
        if message is not None:
            seen.append((message['channel'], message['data']))
        return message

    subscriber.subscribe('news', 'weather')
    subscriber.psubscribe('log.*')
    until('subscribed', lambda: (client.publish('log.app', 'one'), next_message())[1])
    client.publish('news', 'two')
    until('a message', lambda: next_message() and seen[-1] == ('news', 'two'))
    expect(set(seen[:-1]), {('log.app', 'one')})
    subscriber.close()


def scan(host, port):
    client = RedisCluster(host, port, decode_responses=True)
    with client.pipeline() as batch:
        for key in KEYS:
            batch.set(key, 'v')
        batch.execute()
    found = set()
    for node in client.get_primaries():
        found.update(client.get_redis_connection(node).scan_iter(match='k*', count=50))
    expect(sorted(found), sorted(KEYS))


def node_fails(host, port):
    """Every key can be read and written again while the client stays as it is."""
    client = RedisCluster(host, port, decode_responses=True)
    for key in KEYS:
        client.set(key, '1')
    server('fail')

    def all_are_written():
        try:
            return all([client.set(key, '2') for key in KEYS])
        except redis.RedisError:
            return False

    until('all can be written', all_are_written, 40)
    expect([client.get(key) for key in KEYS], ['2'] * len(KEYS))


def reconnect(host, port):
    client = RedisCluster(host, port, decode_responses=True)
    expect(client.set('k', 'kept'), True)
    server('stop')
    expect_error('', Exception, lambda: client.get('k'))  # 4.3 cannot be used after that
    server('start')
    client = RedisCluster(host, port, decode_responses=True)
    expect(client.get('k'), 'kept')
    expect(client.incr('n'), 1)


main({function.__name__: function for function in (
    connect, get_set, pipeline, several_keys, transaction, script, pubsub, scan, node_fails, reconnect)})
