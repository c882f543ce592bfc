# SPDX-License-Identifier: Apache-2.0
"""redis-cli as it is out of the box: one-shot commands, pipes, and a terminal (see run)."""
import contextlib
import fcntl
import os
import re
import select as io
import signal
import struct
import subprocess
import tempfile
import termios
import time
import uuid

from feature import expect, main, server, until


class Client:
    """redis-cli with the address of the server."""

    def __init__(self, host, port):
        self.command = ['redis-cli', '-h', host, '-p', str(port)]
        self.prompt = f'{host}:{port}'

    def __call__(self, *words, text=None):
        """Its output, the line end taken off."""
        done = subprocess.run(self.command + list(words), input=text, capture_output=True, text=True,
                              stdin=subprocess.DEVNULL if text is None else None, timeout=50)
        expect(done.stderr, '')
        expect(done.returncode, 0)
        return done.stdout.rstrip('\n')

    @contextlib.contextmanager
    def running(self, *words):
        """Beside us; ended by its process id."""
        process = subprocess.Popen(self.command + list(words), stdin=subprocess.DEVNULL,
                                   stdout=subprocess.PIPE, text=True)
        try:
            yield process
        finally:
            if process.poll() is None:
                process.terminate()
            process.wait()
            process.stdout.close()

    def info(self, section, field):
        return re.search(f'^{field}:(.*?)\r?$', self('INFO', section), re.M).group(1)


class Terminal:
    """redis-cli, interactive, on a terminal of its own."""

    def __init__(self, client, *words):
        self.pid, self.file = os.forkpty()
        if self.pid == 0:
            os.environ['TERM'] = 'xterm'
            # Without a size it would ask the terminal for one, and wait for the answer.
            fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack('HHHH', 50, 200, 0, 0))
            os.execvp(client.command[0], client.command + list(words))
        self.status = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.status is None:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self.file)

    def read_until(self, prompt):
        """What it prints before prompt, without what moves the cursor."""
        seen = text = ''
        end = time.monotonic() + 20
        while not text.endswith(prompt):
            if not io.select([self.file], [], [], max(0, end - time.monotonic()))[0]:
                raise AssertionError(f'no {prompt!r} within 20 s, but {text!r}')
            seen += os.read(self.file, 65536).decode(errors='replace')
            text = re.sub(r'\x1b\[[0-9;?]*[A-Za-z]', '', seen)
            text = re.sub(r'\r+\n', '\n', text)
            # The line editor draws the whole line again for each key: what counts is the last one.
            text = re.sub(r'[^\n]*\r(?!\r*$)', '', text)
        return text[:-len(prompt)]

    def type(self, line):
        os.write(self.file, (line + '\r').encode())

    def ask(self, line, prompt):
        """The answer to one line: all between its echo and the next prompt."""
        self.type(line)
        return self.read_until(f'{prompt}> ').split('\n', 1)[1].strip()

    def wait(self):
        """Its exit status, once it ends."""
        with contextlib.suppress(OSError):  # EIO: nobody holds the other side any more
            while os.read(self.file, 65536):
                pass
        self.status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self.status


def connect(host, port):
    cli = Client(host, port)
    expect(cli('PING'), 'PONG')
    expect(cli('ECHO', 'hello'), 'hello')
    expect('redis_version:' in cli('INFO'), True)
    expect(int(cli('COMMAND', 'COUNT')) > 200, True)
    expect('Get the value of a key' in cli('COMMAND', 'DOCS', 'get'), True)
    url = ['redis-cli', '-u', f'redis://{host}:{port}/0', 'PING']
    expect(subprocess.run(url, capture_output=True, text=True, check=True).stdout, 'PONG\n')


def get_set(host, port):
    cli = Client(host, port)
    expect(cli('--no-raw', 'GET', 'missing'), '(nil)')
    expect(cli('SET', 'k', 'one'), 'OK')
    expect(cli('GET', 'k'), 'one')
    expect(cli('--no-raw', 'GET', 'k'), '"one"')
    expect(cli('SET', 'k', 'two'), 'OK')
    expect(cli('GET', 'k'), 'two')
    large = 'x' * 300000
    expect(cli('-x', 'SET', 'large', text=large), 'OK')
    expect(cli('GET', 'large') == large, True)
    expect(cli('GET', 'large') == large, True)
    expect(cli('MSET', 'a', '1', 'b', '2'), 'OK')
    expect(cli('--no-raw', 'MGET', 'a', 'missing', 'b'), '1) "1"\n2) (nil)\n3) "2"')
    expect(cli('DEL', 'a', 'b', 'missing'), '2')
    expect(cli('-r', '3', 'INCR', 'n'), '1\n2\n3')
    expect(cli('GET', 'n'), '3')


def types(host, port):
    cli = Client(host, port)
    expect(cli('HSET', 'hash', 'f', '1', 'g', '2'), '2')
    expect(cli('HGETALL', 'hash'), 'f\n1\ng\n2')
    expect(cli('RPUSH', 'list', 'a', 'b', 'c'), '3')
    expect(cli('--no-raw', 'LRANGE', 'list', '0', '-1'), '1) "a"\n2) "b"\n3) "c"')
    expect(cli('--csv', 'LRANGE', 'list', '0', '-1'), '"a","b","c"')
    expect(cli('ZADD', 'zset', '1.5', 'a', '2', 'b'), '2')
    expect(cli('ZRANGE', 'zset', '0', '-1', 'WITHSCORES'), 'a\n1.5\nb\n2')
    expect(cli('--no-raw', 'HGETALL', 'missing'), '(empty array)')
    expect(cli('TYPE', 'zset'), 'zset')
    expect(cli('GET', 'list').startswith('WRONGTYPE'), True)


def select(host, port):
    cli = Client(host, port)
    expect(cli('SET', 'k', 'zero'), 'OK')
    expect(cli('-n', '2', 'SET', 'k', 'two'), 'OK')
    expect(cli('GET', 'k'), 'zero')
    expect(cli('GET', 'k'), 'zero')
    expect(cli('-n', '2', 'GET', 'k'), 'two')
    expect(cli(text='SELECT 2\nGET k\nSELECT 0\nGET k\n'), 'OK\ntwo\nOK\nzero')


def pipeline(host, port):
    """Commands from standard input, one per line."""
    cli = Client(host, port)
    lines = [f'SET k{i} v{i}\nGET k{i}\nINCR n' for i in range(200)]
    wanted = [f'OK\nv{i}\n{i + 1}' for i in range(200)]
    expect(cli(text='\n'.join(lines) + '\n'), '\n'.join(wanted))


def transaction(host, port):
    cli = Client(host, port)
    expect(cli(text='SET k before\nGET k\nMULTI\nSET k a\nGET k\nINCR k\nRPUSH l 1 2\nEXEC\nGET k\n'),
           'OK\nbefore\nOK\nQUEUED\nQUEUED\nQUEUED\nQUEUED\n'
           'OK\na\nERR value is not an integer or out of range\n\n2\na')
    expect(cli(text='MULTI\nSET k b\nDISCARD\nGET k\n'), 'OK\nQUEUED\nOK\na')
    with Terminal(cli) as terminal:
        terminal.read_until(f'{cli.prompt}> ')
        expect(terminal.ask('MULTI', f'{cli.prompt}(TX)'), 'OK')
        expect(terminal.ask('SET k c', f'{cli.prompt}(TX)'), 'QUEUED')
        expect(cli('GET', 'k'), 'a')
        expect(terminal.ask('EXEC', cli.prompt), '1) OK')
        expect(cli('GET', 'k'), 'c')


def watch_retry(host, port):
    cli = Client(host, port)
    expect(cli('SET', 'n', '10'), 'OK')
    expect(cli('GET', 'n'), '10')
    attempts = 0
    with Terminal(cli) as terminal:
        terminal.read_until(f'{cli.prompt}> ')
        result = '(nil)'
        while result == '(nil)':
            attempts += 1
            expect(terminal.ask('WATCH n', cli.prompt), 'OK')
            n = int(terminal.ask('GET n', cli.prompt).strip('"'))
            if attempts == 1:
                expect(cli('SET', 'n', '20'), 'OK')
            expect(terminal.ask('MULTI', f'{cli.prompt}(TX)'), 'OK')
            expect(terminal.ask(f'SET n {n + 1}', f'{cli.prompt}(TX)'), 'QUEUED')
            result = terminal.ask('EXEC', cli.prompt)
        expect(result, '1) OK')
    expect(attempts, 2)
    expect(cli('GET', 'n'), '21')


def script(host, port):
    cli = Client(host, port)
    source = (f"-- {uuid.uuid4()}\nlocal old = redis.call('GET', KEYS[1]) "
              "redis.call('SET', KEYS[1], ARGV[1]) return {old, #ARGV, redis.call('GET', KEYS[1])}")
    expect(cli('SET', 'k', 'old'), 'OK')
    expect(cli('GET', 'k'), 'old')
    sha = cli('SCRIPT', 'LOAD', source)
    expect(cli('SCRIPT', 'FLUSH'), 'OK')
    expect(cli('EVALSHA', sha, '1', 'k', 'new').startswith('NOSCRIPT'), True)
    expect(cli('GET', 'k'), 'old')
    expect(cli('EVAL', source, '1', 'k', 'new'), 'old\n1\nnew')
    expect(cli('GET', 'k'), 'new')
    expect(cli('EVALSHA', sha, '1', 'k', 'newer'), 'new\n1\nnewer')
    expect(cli('GET', 'k'), 'newer')
    expect(cli('SCRIPT', 'EXISTS', sha, 'f' * 40), '1\n0')
    with tempfile.NamedTemporaryFile('w', suffix='.lua') as file:
        file.write(source)
        file.flush()
        expect(cli('--eval', file.name, 'k', ',', 'newest'), 'newer\n1\nnewest')
    expect(cli('GET', 'k'), 'newest')


def pubsub(host, port):
    cli = Client(host, port)
    with cli.running('SUBSCRIBE', 'news', 'weather') as subscriber:
        with cli.running('PSUBSCRIBE', 'log.*') as listener:
            got = [subscriber.stdout.readline() for _ in range(6)]
            expect(''.join(got), 'subscribe\nnews\n1\nsubscribe\nweather\n2\n')
            expect([listener.stdout.readline() for _ in range(3)], ['psubscribe\n', 'log.*\n', '1\n'])
            expect(cli('PUBSUB', 'NUMSUB', 'news'), 'news\n1')
            expect(cli('PUBLISH', 'news', 'one'), '1')
            expect(cli('PUBLISH', 'log.app', 'two'), '1')
            expect(cli('PUBLISH', 'nobody', 'three'), '0')
            expect([subscriber.stdout.readline() for _ in range(3)], ['message\n', 'news\n', 'one\n'])
            expect([listener.stdout.readline() for _ in range(4)],
                   ['pmessage\n', 'log.*\n', 'log.app\n', 'two\n'])
    until('nobody is subscribed', lambda: cli('PUBLISH', 'news', 'four') == '0')
    until('nobody is subscribed', lambda: cli('PUBSUB', 'NUMPAT') == '0')


def blocking_pop(host, port):
    cli = Client(host, port)
    expect(cli('SET', 'k', 'v'), 'OK')
    with cli.running('BLPOP', 'jobs', 'more', '20') as worker:
        until('blocked', lambda: cli.info('clients', 'blocked_clients') == '1')
        expect(cli('GET', 'k'), 'v')
        expect(cli('RPUSH', 'more', 'job'), '1')
        expect(worker.stdout.read(), 'more\njob\n')
        expect(worker.wait(), 0)
    expect(cli('--no-raw', 'BRPOP', 'jobs', '0.1').startswith('(nil)'), True)
    # One that is ended while it blocks takes nothing any more.
    with cli.running('BLPOP', 'jobs', '0') as worker:
        until('blocked', lambda: cli.info('clients', 'blocked_clients') == '1')
        worker.terminate()
        worker.wait()
    until('no more', lambda: cli.info('clients', 'blocked_clients') == '0')
    expect(cli('RPUSH', 'jobs', 'kept'), '1')
    expect(cli('LRANGE', 'jobs', '0', '-1'), 'kept')


def scan(host, port):
    cli = Client(host, port)
    wanted = sorted(f'user:{i}' for i in range(1000))
    expect(cli(text=''.join(f'MSET {key} v other v\n' for key in wanted)), '\n'.join(['OK'] * 1000))
    found = cli('--scan', '--pattern', 'user:*').split('\n')
    expect(sorted(set(found)), wanted)
    expect(len(set(cli('--scan').split('\n'))), 1001)


def reconnect(host, port):
    cli = Client(host, port)
    with Terminal(cli) as terminal:
        terminal.read_until(f'{cli.prompt}> ')
        expect(terminal.ask('SET k kept', cli.prompt), 'OK')
        expect(terminal.ask('GET k', cli.prompt), '"kept"')
        server('stop')
        expect(terminal.ask('GET k', 'not connected').startswith('Error: '), True)
        expect('Connection refused' in terminal.ask('GET k', 'not connected'), True)
        server('start')
        expect(terminal.ask('GET k', cli.prompt), '"kept"')
        expect(terminal.ask('SELECT 1', f'{cli.prompt}[1]'), 'OK')
        server('stop')
        server('start')
        expect(terminal.ask('INCR n', 'not connected').startswith('Error: '), True)
        expect(terminal.ask('INCR n', f'{cli.prompt}[1]'), '(integer) 1')
        expect(terminal.ask('GET n', f'{cli.prompt}[1]'), '"1"')
    expect(cli('GET', 'k'), 'kept')


def interactive(host, port):
    """Its start sends COMMAND DOCS; then a session as one types it."""
    cli = Client(host, port)
    with Terminal(cli) as terminal:
        expect(terminal.read_until(f'{cli.prompt}> ').strip(), '')
        expect(terminal.ask('set k "a value"', cli.prompt), 'OK')
        expect(terminal.ask('get k', cli.prompt), '"a value"')
        expect(terminal.ask('get missing', cli.prompt), '(nil)')
        expect(terminal.ask('incr n', cli.prompt), '(integer) 1')
        expect(terminal.ask('rpush l a b', cli.prompt), '(integer) 2')
        expect(terminal.ask('lrange l 0 -1', cli.prompt), '1) "a"\n2) "b"')
        expect(terminal.ask('incr l', cli.prompt),
               '(error) WRONGTYPE Operation against a key holding the wrong kind of value')
        expect('Get the value of a key' in terminal.ask('help get', cli.prompt), True)
        expect(terminal.ask('select 2', f'{cli.prompt}[2]'), 'OK')
        expect(terminal.ask('get k', f'{cli.prompt}[2]'), '(nil)')
        expect(terminal.ask('select 0', cli.prompt), 'OK')
        expect('redis_version:' in terminal.ask('info server', cli.prompt), True)
        expect(terminal.ask('hello 3', cli.prompt).startswith('1# "server" => "redis"'), True)
        expect(terminal.ask('get k', cli.prompt), '"a value"')
        terminal.type('exit')
        expect(terminal.wait(), 0)


def bulk_load(host, port):
    """--pipe: all commands without waiting, and an ECHO to know the end."""
    cli = Client(host, port)
    commands = ''.join(f'*3\r\n$3\r\nSET\r\n${len(str(i)) + 1}\r\nk{i}\r\n${len(str(i)) + 1}\r\nv{i}\r\n'
                       for i in range(20000))
    report = cli('--pipe', text=commands)
    expect('errors: 0, replies: 20000' in report, True)
    expect(cli('DBSIZE'), '20000')
    expect(cli('MGET', 'k0', 'k19999'), 'v0\nv19999')


def resp3(host, port):
    cli = Client(host, port)
    expect(cli('-3', 'HSET', 'hash', 'f', '1'), '1')
    expect(cli('-3', '--no-raw', 'HGETALL', 'hash'), '1# "f" => "1"')
    expect(cli('-3', '--no-raw', 'GET', 'missing'), '(nil)')
    expect(cli('-3', 'SET', 'k', 'v'), 'OK')
    expect(cli('-3', '--no-raw', 'GET', 'k'), '"v"')
    expect(cli('-3', '--no-raw', 'GET', 'k'), '"v"')
    expect(cli('-3', 'SADD', 'set', 'x'), '1')
    expect(cli('-3', '--no-raw', 'SMEMBERS', 'set'), '1~ "x"')
    expect(cli('-3', 'ZADD', 'zset', '1.5', 'a'), '1')
    expect(cli('-3', '--no-raw', 'ZSCORE', 'zset', 'a'), '(double) 1.5')
    with cli.running('-3', 'SUBSCRIBE', 'news') as subscriber:
        expect([subscriber.stdout.readline() for _ in range(3)], ['subscribe\n', 'news\n', '1\n'])
        expect(cli('PUBLISH', 'news', 'one'), '1')
        expect([subscriber.stdout.readline() for _ in range(3)], ['message\n', 'news\n', 'one\n'])


def big_keys(host, port):
    cli = Client(host, port)
    expect(cli('SET', 'large', 'x' * 5000), 'OK')
    expect(cli('SET', 'small', 'x'), 'OK')
    expect(cli('RPUSH', 'list', *'abcdef'), '6')
    report = cli('--bigkeys')
    expect('Biggest string found \'"large"\' has 5000 bytes' in report, True)
    expect('Biggest   list found \'"list"\' has 6 items' in report, True)
    expect("Sampled 3 keys" in report, True)
    expect('Biggest string found \'"large"\' has' in cli('--memkeys'), True)


def stat(host, port):
    cli = Client(host, port)
    expect(cli('MSET', 'a', '1', 'b', '2', 'c', '3'), 'OK')
    with cli.running('--stat', '-i', '0.1') as process:
        lines = [process.stdout.readline() for _ in range(4)]
    expect(lines[0].startswith('------- data ------'), True)
    expect([line.split()[0] for line in lines[2:]], ['3', '3'])


if __name__ == '__main__':
    main({function.__name__: function for function in (
        connect, get_set, types, select, pipeline, transaction, watch_retry, script, pubsub, blocking_pop,
        scan, reconnect, interactive, bulk_load, resp3, big_keys, stat)})
