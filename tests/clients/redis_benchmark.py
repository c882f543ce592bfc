# SPDX-License-Identifier: Apache-2.0
"""redis-benchmark as it is out of the box. It asks for CONFIG GET save and appendonly first (see run)."""
import re
import subprocess

from feature import expect, main, server

# What "redis-benchmark -q" runs unless told otherwise.
TESTS = ['PING_INLINE', 'PING_MBULK', 'SET', 'GET', 'INCR', 'LPUSH', 'RPUSH', 'LPOP', 'RPOP', 'SADD',
         'HSET', 'SPOP', 'ZADD', 'ZPOPMIN', 'LPUSH (needed to benchmark LRANGE)',
         'LRANGE_100 (first 100 elements)', 'LRANGE_300 (first 300 elements)',
         'LRANGE_500 (first 500 elements)', 'LRANGE_600 (first 600 elements)', 'MSET (10 keys)']
COUNTER = 'counter:__rand_int__'


def cli(host, port, *words):
    """One command, by redis-cli."""
    return subprocess.run(['redis-cli', '-h', host, '-p', str(port), *words], capture_output=True,
                          text=True, check=True, timeout=50).stdout.rstrip('\n')


def start(host, port, *words):
    return subprocess.run(['redis-benchmark', '-h', host, '-p', str(port), '-q', *words],
                          capture_output=True, text=True, timeout=55)


def benchmark(host, port, *words):
    """The names of the tests it ran, all of them to the end and without a word of complaint."""
    done = start(host, port, *words)
    expect(done.stderr, '')
    expect(done.returncode, 0)
    names = []
    for line in re.split('[\r\n]+', done.stdout):
        if not line.strip() or ': rps=' in line:
            continue  # while it runs
        found = re.fullmatch(r'(.*): \d+\.\d+ requests per second, p50=\d+\.\d+ msec\s*', line)
        if found is None:
            raise AssertionError(f'it said: {line!r}')
        names.append(found.group(1))
    return names


def connect(host, port):
    expect(benchmark(host, port, '-t', 'ping', '-n', '2000'), ['PING_INLINE', 'PING_MBULK'])


def get_set(host, port):
    expect(benchmark(host, port, '-t', 'set,get', '-n', '5000', '-d', '100', '-r', '50'),
           ['SET', 'GET'])
    keys = cli(host, port, 'KEYS', '*').split('\n')
    expect(sorted(keys), [f'key:{i:012}' for i in range(50)])
    expect(len(cli(host, port, 'GET', keys[0])), 100)
    expect(cli(host, port, 'STRLEN', keys[0]), '100')


def all_tests(host, port):
    expect(benchmark(host, port, '-n', '1000'), TESTS)
    expect(cli(host, port, 'GET', COUNTER), '1000')
    expect(cli(host, port, 'LLEN', 'mylist'), '1000')  # 2000 pushed, 2000 popped, 1000 pushed
    expect(cli(host, port, 'GET', 'key:__rand_int__'), 'VXK')
    expect(cli(host, port, 'HGET', 'myhash', 'element:__rand_int__'), 'VXK')


def pipeline(host, port):
    expect(benchmark(host, port, '-P', '16', '-t', 'set,get,incr', '-n', '32000'),
           ['SET', 'GET', 'INCR'])
    expect(cli(host, port, 'GET', COUNTER), '32000')


def threads(host, port):
    expect(benchmark(host, port, '--threads', '2', '-t', 'set,get,incr', '-n', '10000'),
           ['SET', 'GET', 'INCR'])
    # Its threads share the count of requests, and may send a few more.
    expect(10000 <= int(cli(host, port, 'GET', COUNTER)) <= 10050, True)


def script(host, port):
    source = "return redis.call('INCRBY', KEYS[1], ARGV[1])"
    name, = benchmark(host, port, '-n', '1000', 'EVAL', source, '1', 'n', '2')
    expect(name.startswith('EVAL'), True)
    expect(cli(host, port, 'GET', 'n'), '2000')
    sha = cli(host, port, 'SCRIPT', 'LOAD', source)
    benchmark(host, port, '-n', '1000', 'EVALSHA', sha, '1', 'n', '2')
    expect(cli(host, port, 'GET', 'n'), '4000')
    # An error reply ends it.
    done = start(host, port, '-n', '100', 'EVALSHA', 'f' * 40, '0')
    expect(done.returncode != 0 and 'NOSCRIPT' in done.stdout + done.stderr, True)


def resp3(host, port):
    expect(benchmark(host, port, '-3', '-t', 'set,get,incr', '-n', '3000', '-P', '4'),
           ['SET', 'GET', 'INCR'])
    expect(cli(host, port, 'GET', COUNTER), '3000')


def reconnect(host, port):
    expect(benchmark(host, port, '-t', 'incr', '-n', '1000'), ['INCR'])
    server('stop')
    server('start')
    expect(benchmark(host, port, '-t', 'incr', '-n', '1000'), ['INCR'])
    expect(cli(host, port, 'GET', COUNTER), '2000')


main({function.__name__: function for function in (
    connect, get_set, all_tests, pipeline, threads, script, resp3, reconnect)})
