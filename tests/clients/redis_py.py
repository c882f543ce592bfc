# SPDX-License-Identifier: Apache-2.0
"""redis-py (Debian's python3-redis) as it is out of the box: RESP2, a pool of connections (see run)."""
import threading
import uuid

import redis

from feature import expect, expect_error, main, server, until


def connect(host, port):
    client = redis.Redis(host, port)
    expect(client.ping(), True)
    expect(client.echo('hello'), b'hello')
    expect('redis_version' in client.info(), True)
    expect(isinstance(client.client_id(), int), True)
    expect(redis.from_url(f'redis://{host}:{port}/0').ping(), True)


def get_set(host, port):
    client = redis.Redis(host, port)
    expect(client.get('missing'), None)
    expect(client.get('missing'), None)
    expect(client.set('k', 'one'), True)
    expect(client.get('k'), b'one')
    expect(client.get('k'), b'one')
    expect(client.set('k', 'two'), True)
    expect(client.get('k'), b'two')
    expect(client.set('k', 'three', nx=True), None)
    expect(client.set('k', 'three', get=True), b'two')
    expect(client.get('k'), b'three')

    for value in (b'\0\r\n\xff$*\0', b'', b'x' * 300000):
        client.set('bytes', value)
        expect(client.get('bytes') == value, True)
        expect(client.get('bytes') == value, True)

    expect(client.mset({'a': 1, 'b': 2}), True)
    expect(client.mget('a', 'missing', 'b'), [b'1', None, b'2'])
    expect(client.set('short', 'v', px=50), True)
    until('expired', lambda: client.get('short') is None)
    expect(client.delete('a', 'b', 'missing'), 2)
    expect(client.mget('a', 'b'), [None, None])
    expect(client.exists('k', 'a'), 1)


def types(host, port):
    client = redis.Redis(host, port, decode_responses=True)
    expect(client.hset('hash', mapping={'f': 1, 'g': 2}), 2)
    expect(client.hgetall('hash'), {'f': '1', 'g': '2'})
    expect(client.hmget('hash', 'g', 'none'), ['2', None])
    expect(client.hgetall('missing'), {})
    expect(client.rpush('list', 'a', 'b', 'c'), 3)
    expect(client.lrange('list', 0, -1), ['a', 'b', 'c'])
    expect(client.lpop('list'), 'a')
    expect(client.sadd('set', 'x', 'y', 'x'), 2)
    expect(client.smembers('set'), {'x', 'y'})
    expect(client.sismember('set', 'x'), True)
    expect(client.zadd('zset', {'a': 1.5, 'b': 2}), 2)
    expect(client.zrange('zset', 0, -1, withscores=True), [('a', 1.5), ('b', 2.0)])
    expect(client.incrby('n', 41), 41)
    expect(client.incr('n'), 42)
    expect(client.get('n'), '42')
    expect(client.incrbyfloat('n', 0.5), 42.5)
    expect(client.get('n'), '42.5')
    expect(client.xadd('stream', {'f': 'v'}, id='1-1'), '1-1')
    expect(client.xread({'stream': '0'}), [['stream', [('1-1', {'f': 'v'})]]])
    expect(client.expire('list', 100), True)
    expect(client.ttl('list') > 90, True)
    expect(client.type('zset'), 'zset')
    expect_error('WRONGTYPE', redis.ResponseError, lambda: client.get('list'))


def select(host, port):
    client = redis.Redis(host, port)
    other = redis.Redis(host, port, db=2, client_name='billing')
    client.set('k', 'zero')
    other.set('k', 'two')
    expect(client.get('k'), b'zero')
    expect(client.get('k'), b'zero')
    expect(other.get('k'), b'two')
    expect(other.client_getname(), 'billing')
    expect(client.get('k'), b'zero')


def pipeline(host, port):
    client = redis.Redis(host, port)
    batch = client.pipeline(transaction=False)
    for i in range(500):
        batch.set(f'k{i}', f'v{i}').get(f'k{i}').incr('n')
    replies = batch.execute()
    wanted = [[True, f'v{i}'.encode(), i + 1] for i in range(500)]
    expect([replies[i:i + 3] for i in range(0, 1500, 3)], wanted)

    replies = batch.get('k0').lpush('k0', 'x').get('k1').execute(raise_on_error=False)
    expect([replies[0], type(replies[1]), replies[2]], [b'v0', redis.ResponseError, b'v1'])


def transaction(host, port):
    client = redis.Redis(host, port)
    client.set('k', 'before')
    expect(client.get('k'), b'before')
    batch = client.pipeline()  # MULTI and EXEC unless told otherwise
    replies = batch.set('k', 'a').get('k').rpush('l', 1, 2).hset('h', 'f', 'v').hgetall('h').execute()
    expect(replies, [True, b'a', 2, 1, {b'f': b'v'}])
    expect(client.get('k'), b'a')

    replies = batch.set('k', 'b').incr('k').get('k').execute(raise_on_error=False)
    expect([replies[0], type(replies[1]), replies[2]], [True, redis.ResponseError, b'b'])
    expect(client.get('k'), b'b')

    batch.set('k', 'c').execute_command('SET', 'k')
    expect_error('wrong number of arguments', redis.ResponseError, batch.execute)
    expect(client.get('k'), b'b')


def watch_retry(host, port):
    client = redis.Redis(host, port)
    rival = redis.Redis(host, port)
    client.set('n', 10)
    expect(client.get('n'), b'10')
    attempts = []

    def increment(batch):
        n = int(batch.get('n'))
        attempts.append(n)
        if len(attempts) == 1:
            expect(rival.set('n', 20), True)
        batch.multi()
        batch.set('n', n + 1)

    expect(client.transaction(increment, 'n'), [True])  # watches, and again after a WatchError
    expect(attempts, [10, 20])
    expect(rival.get('n'), b'21')

    with client.pipeline() as batch:
        batch.watch('n')
        rival.set('n', 30)
        batch.multi()
        batch.set('n', 0)
        expect_error('Watched variable changed', redis.WatchError, batch.execute)
        batch.watch('n')
        batch.unwatch()
        rival.set('n', 40)
        batch.multi()
        expect(batch.get('n').execute(), [b'40'])


def script(host, port):
    client = redis.Redis(host, port)
    client.set('k', 'old')
    expect(client.get('k'), b'old')
    unknown = 'f' * 40
    expect_error('No matching script', redis.exceptions.NoScriptError,
                 lambda: client.evalsha(unknown, 0))
    # A registered script is sent as EVALSHA; after NOSCRIPT, as SCRIPT LOAD and EVALSHA.
    swap = client.register_script(f'''-- {uuid.uuid4()}
        local old = redis.call('GET', KEYS[1])
        redis.call('SET', KEYS[1], ARGV[1])
        return {{old, #ARGV, redis.call('GET', KEYS[1])}}''')
    expect(client.script_exists(swap.sha), [False])
    expect(swap(keys=['k'], args=['new']), [b'old', 1, b'new'])
    expect(client.script_exists(swap.sha, unknown), [True, False])
    expect(client.get('k'), b'new')
    expect(swap(keys=['k'], args=['newer']), [b'new', 1, b'newer'])
    expect(client.get('k'), b'newer')
    expect(client.eval("return redis.call('INCRBY', KEYS[1], ARGV[1])", 1, 'n', 5), 5)
    expect(client.get('n'), b'5')
    expect_error('my word', redis.ResponseError,
                 lambda: client.eval("return redis.error_reply('ERR my word')", 0))


def next_message(subscriber):
    return until('a message', lambda: subscriber.get_message(timeout=1))


def pubsub(host, port):
    client = redis.Redis(host, port, decode_responses=True)
    subscriber = client.pubsub()
    subscriber.subscribe('news', 'weather')
    subscriber.psubscribe('log.*')
    got = [next_message(subscriber) for _ in range(3)]
    expect(sorted((m['type'], m['channel']) for m in got),
           [('psubscribe', 'log.*'), ('subscribe', 'news'), ('subscribe', 'weather')])
    expect([m['data'] for m in got], [1, 2, 3])
    expect(client.pubsub_numsub('news'), [('news', 1)])
    expect(client.publish('news', 'one'), 1)
    expect(client.publish('log.app', 'two'), 1)
    expect(client.publish('nobody', 'three'), 0)
    expect(next_message(subscriber),
           {'type': 'message', 'pattern': None, 'channel': 'news', 'data': 'one'})
    expect(next_message(subscriber),
           {'type': 'pmessage', 'pattern': 'log.*', 'channel': 'log.app', 'data': 'two'})
    subscriber.ping()
    expect(next_message(subscriber)['type'], 'pong')
    subscriber.unsubscribe('news')
    expect(next_message(subscriber)['type'], 'unsubscribe')
    expect(client.publish('news', 'four'), 0)
    subscriber.unsubscribe()
    subscriber.punsubscribe()
    expect([next_message(subscriber)['data'] for _ in range(2)], [1, 0])
    # Out of the subscription, the connection goes back to the pool and serves commands.
    expect(subscriber.connection.send_command('GET', 'missing'), None)
    expect(subscriber.connection.read_response(), None)
    subscriber.close()
    expect(client.publish('weather', 'five'), 0)

    heard = []
    subscriber = client.pubsub(ignore_subscribe_messages=True)
    subscriber.subscribe(news=heard.append)
    thread = subscriber.run_in_thread(sleep_time=0.01)
    until('somebody hears', lambda: client.publish('news', 'six') == 1)
    until('heard', lambda: heard)
    thread.stop()
    thread.join()
    expect(heard[0]['data'], 'six')


def blocking_pop(host, port):
    client = redis.Redis(host, port, decode_responses=True)
    client.set('k', 'v')
    got = []

    def blocked():
        return client.info('clients')['blocked_clients'] == 1

    worker = threading.Thread(target=lambda: got.append(client.blpop(['jobs', 'more'], 20)))
    worker.start()
    until('blocked', blocked)
    expect(client.get('k'), 'v')
    expect(client.rpush('more', 'job'), 1)
    worker.join()
    worker = threading.Thread(target=lambda: got.append(client.blmove('jobs', 'done', 0)))
    worker.start()
    until('blocked', blocked)
    expect(client.lpush('jobs', 'second'), 1)
    worker.join()
    expect(got, [('more', 'job'), 'second'])
    expect(client.lrange('done', 0, -1), ['second'])
    expect(client.brpop('jobs', 0.1), None)
    expect(client.get('k'), 'v')


def scan(host, port):
    client = redis.Redis(host, port, decode_responses=True)
    wanted = sorted(f'user:{i}' for i in range(1000))
    batch = client.pipeline(transaction=False).set('other', 'v')
    for key in wanted:
        batch.set(key, 'v').hset('hash', key, 'v').sadd('set', key).zadd('zset', {key: 1})
    batch.execute()
    expect(sorted(set(client.scan_iter('user:*', count=100))), wanted)
    expect(sorted(set(client.sscan_iter('set'))), wanted)
    expect(dict(client.hscan_iter('hash')), {key: 'v' for key in wanted})
    expect(dict(client.zscan_iter('zset', 'user:99*')),
           {key: 1.0 for key in wanted if key.startswith('user:99')})


def reconnect(host, port):
    client = redis.Redis(host, port)
    expect(client.set('k', 'kept'), True)
    expect(client.get('k'), b'kept')
    server('stop')
    expect_error('refused', redis.ConnectionError, lambda: client.get('k'))
    server('start')
    expect(client.get('k'), b'kept')
    expect(client.incr('n'), 1)
    server('stop')
    server('start')
    expect(client.incr('n'), 2)  # the pool noticed: no error
    expect(client.set('k', 'again'), True)
    expect(client.get('k'), b'again')


def resubscribe(host, port):
    """A subscriber gets one error, then connects and subscribes again by itself."""
    client = redis.Redis(host, port, decode_responses=True)
    subscriber = client.pubsub(ignore_subscribe_messages=True)
    subscriber.subscribe('news')
    subscriber.psubscribe('log.*')
    until('subscribed', lambda: client.publish('log.x', 'first') == 1)
    expect(next_message(subscriber)['data'], 'first')
    server('stop')
    server('start')
    expect_error('', redis.ConnectionError, lambda: next_message(subscriber))
    subscriber.get_message()
    until('subscribed', lambda: client.pubsub_numsub('news') == [('news', 1)])
    until('subscribed', lambda: client.pubsub_numpat() == 1)
    expect(client.publish('news', 'one'), 1)
    expect(next_message(subscriber)['data'], 'one')
    expect(client.publish('log.app', 'two'), 1)
    expect(next_message(subscriber)['data'], 'two')


def lock(host, port):
    """SET NX PX to take it, a script to give it back."""
    client = redis.Redis(host, port)
    with client.lock('lock', timeout=10) as held:
        expect(held.owned(), True)
        other = client.lock('lock', timeout=10, blocking_timeout=0.2)
        expect(other.acquire(), False)
        expect(held.extend(10), True)
    expect(client.get('lock'), None)
    expect(other.acquire(), True)
    other.release()
    expect(client.get('lock'), None)


main({function.__name__: function for function in (
    connect, get_set, types, select, pipeline, transaction, watch_retry, script, pubsub, blocking_pop,
    scan, reconnect, resubscribe, lock)})
