# SPDX-License-Identifier: Apache-2.0
"""redis-cli -c, which follows redirects, and what redis-cli --cluster says of the cluster (see run)."""
import re

from feature import expect, main, until
from redis_cli import Client


def cluster(host, port):
    client = Client(host, port)
    client.command.append('-c')
    return client


def connect(host, port):
    cli = cluster(host, port)
    expect(cli('PING'), 'PONG')
    expect(cli('CLUSTER', 'KEYSLOT', 'k'), '7629')
    expect('cluster_state:ok' in cli('CLUSTER', 'INFO'), True)
    expect(len(cli('CLUSTER', 'MYID')), 40)


def get_set(host, port):
    cli = cluster(host, port)
    words = ''.join(f'SET k{i} v{i}\nGET k{i}\n' for i in range(200))
    said = cli(text=words)
    lines = [line for line in said.split('\n') if not line.startswith('-> Redirected')]
    expect(lines, [line for i in range(200) for line in ('OK', f'v{i}')])


def several_keys(host, port):
    cli = cluster(host, port)
    expect(cli('MSET', '{t}a', '1', '{t}b', '2'), 'OK')
    expect(cli('MGET', '{t}a', '{t}missing', '{t}b'), '1\n\n2')
    expect(cli('DEL', '{t}a', '{t}b'), '2')
    expect('CROSSSLOT' in cli('RENAME', 'a', 'b'), True)


def transaction(host, port):
    cli = cluster(host, port)
    cli('SET', 'k', 'before')
    said = cli(text='GET k\nMULTI\nSET k a\nGET k\nEXEC\nGET k\n')
    lines = [line for line in said.split('\n') if not line.startswith('-> Redirected')]
    expect(lines, ['before', 'OK', 'QUEUED', 'QUEUED', 'OK', 'a', 'a'])


def sharded_pubsub(host, port):
    cli = cluster(host, port)
    with cli.running('SSUBSCRIBE', 'one') as subscriber:
        until('a subscriber', lambda: cli('SPUBLISH', 'one', 'hello') == '1')
        lines = []
        while lines[-1:] != ['hello']:
            lines.append(subscriber.stdout.readline().rstrip('\n'))
    expect([line for line in lines if not line.startswith(('-> ', 'Reading'))],
           ['ssubscribe', 'one', '1', 'smessage', 'one', 'hello'])


def scan(host, port):
    cli = cluster(host, port)
    cli(text=''.join(f'SET k{i} v\n' for i in range(300)))
    nodes = re.findall(r' ([\d.]+):(\d+)@\S* (?:myself,)?master ', cli('CLUSTER', 'NODES'))
    found = set()
    for address, number in nodes:
        found.update(Client(address, number)('--scan', '--pattern', 'k*').split('\n'))
    expect(found, {f'k{i}' for i in range(300)})


def check(host, port):
    """Its look at a cluster: every node asked, all slots covered, all of one mind."""
    cli = Client(host, port)
    said = cli('--cluster', 'check', f'{host}:{port}')
    expect('[OK] All nodes agree about slots configuration.' in said, True)
    expect('[OK] All 16384 slots covered.' in said, True)
    said = cli('--cluster', 'call', f'{host}:{port}', 'PING')
    expect('PONG' in said, True)
    expect('[OK]' in cli('--cluster', 'info', f'{host}:{port}'), True)


if __name__ == '__main__':
    main({function.__name__: function for function in (
        connect, get_set, several_keys, transaction, sharded_pubsub, scan, check)})
