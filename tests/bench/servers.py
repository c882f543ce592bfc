# SPDX-License-Identifier: Apache-2.0
"""Servers of a benchmark: started on free ports of 127.0.0.1, each on a CPU of its own choice, and
ended by their process ids. They end with us, whatever happens to us."""

import os
import random
import shutil
import socket
import subprocess
import tempfile
import time

HOST = "127.0.0.1"
START_SECONDS = 30


class Failure(Exception):
    """What stops a benchmark; the text says what to do about it."""


def need(program, group):
    """The path of a program, or a Failure that names the way to get it."""
    path = shutil.which(program)
    if path is None:
        raise Failure("%s is missing: run scripts/deps.sh %s" % (program, group))
    return path


def free_port():
    """Below the range the kernel takes ports of outgoing connections from."""
    while True:
        port = random.randrange(20000, 32000)
        with socket.socket() as probe:
            try:
                probe.bind((HOST, port))
                return port
            except OSError:
                continue


def cpu_ns(pid):
    """CPU time of a process so far, user and system: what clock_getcpuclockid(3) leads to."""
    return time.clock_gettime_ns((~pid << 3) | 2)


def memory_kb(pid):
    """Resident memory."""
    with open("/proc/%d/status" % pid, encoding="ascii") as status:
        for line in status:
            if line.startswith("VmRSS:"):
                return int(line.split()[1])
    raise Failure("process %d has no memory" % pid)


class Connection:
    """As much of RESP2 as it takes to look after a server."""

    def __init__(self, server):
        if server.startswith("unix:"):
            self.socket = socket.socket(socket.AF_UNIX)
            self.socket.settimeout(60)
            self.socket.connect(server[5:])
        else:
            host, port = server.rsplit(":", 1)
            self.socket = socket.create_connection((host, int(port)), timeout=60)
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.file = self.socket.makefile("rb")

    def send(self, *words):
        parts = [b"*%d\r\n" % len(words)]
        for word in words:
            word = word if isinstance(word, bytes) else str(word).encode()
            parts.append(b"$%d\r\n%s\r\n" % (len(word), word))
        self.socket.sendall(b"".join(parts))

    def read(self):
        line = self.file.readline()
        if not line.endswith(b"\r\n"):
            raise Failure("a server closed a connection")
        kind, rest = line[:1], line[1:-2]
        if kind == b"-":
            raise Failure("a server said: %s" % rest.decode("utf-8", "replace"))
        if kind == b"$":
            return None if rest == b"-1" else self.file.read(int(rest) + 2)[:-2]
        if kind == b"*":
            return None if rest == b"-1" else [self.read() for _ in range(int(rest))]
        return int(rest) if kind == b":" else rest

    def call(self, *words):
        self.send(*words)
        return self.read()

    def info(self, section):
        """INFO as a dictionary of texts."""
        lines = self.call("INFO", section).decode().split("\r\n")
        return dict(line.split(":", 1) for line in lines if ":" in line)

    def close(self):
        self.file.close()
        self.socket.close()


class Server:
    """A child process. `tcp` and `unix` are where it listens, as load takes it; unix may be None."""

    def __init__(self, name, command, folder, cpu=None, environment=None):
        self.name = name
        self.tcp = self.unix = None
        self.log = os.path.join(folder, name + ".log")
        prefix = ["setpriv", "--pdeathsig", "KILL"]
        if cpu is not None:
            prefix += ["taskset", "-c", str(cpu)]
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                prefix + command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=folder,
                env=dict(os.environ, **(environment or {})), start_new_session=True)
        self.pid = self.process.pid

    def says(self):
        with open(self.log, errors="replace") as log:
            return "".join(log.readlines()[-15:])

    def wait_until_ready(self, probe=("PING",)):
        end = time.monotonic() + START_SECONDS
        while True:
            if self.process.poll() is not None:
                raise Failure("%s does not start; it said:\n%s" % (self.name, self.says()))
            try:
                connection = Connection(self.tcp)
                connection.call(*probe)
                connection.close()
                return
            except (OSError, Failure):
                pass
            if time.monotonic() > end:
                raise Failure("%s does not answer; it said:\n%s" % (self.name, self.says()))
            time.sleep(0.02)

    def connect(self):
        return Connection(self.tcp)

    def stop(self):
        """Returns how it ended."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
        return self.process.wait()


class Servers:
    """Everything one benchmark starts, and its folder; a context."""

    def __init__(self):
        for program in ("setpriv", "taskset"):
            if shutil.which(program) is None:
                raise Failure("%s is missing: apt-get install util-linux" % program)
        self.running = []
        self.folder = tempfile.mkdtemp(prefix="nearside-bench.")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        while self.running:
            self.running.pop().stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def stop(self, server):
        self.running.remove(server)
        return server.stop()

    def path(self, name):
        return os.path.join(self.folder, name)

    def start(self, name, command, tcp, unix=None, cpu=None, environment=None):
        server = Server(name, command, self.folder, cpu, environment)
        self.running.append(server)
        server.tcp, server.unix = tcp, unix
        server.wait_until_ready()
        return server

    def redis(self, name, cpu=None, *options):
        """A redis-server that keeps nothing on disk."""
        binary = need("redis-server", "servers")
        for attempt in range(5):
            port = free_port()
            path = self.path(name + ".sock")
            command = [binary, "--port", str(port), "--bind", HOST, "--unixsocket", path, "--save",
                       "", "--appendonly", "no", "--dir", self.folder, "--maxclients", "20000",
                       # a million fills would crowd out what hits are to find
                       "--tracking-table-max-keys", "0", *options]
            try:
                return self.start(name, command, "%s:%d" % (HOST, port), "unix:" + path, cpu)
            except Failure:
                if attempt == 4:
                    raise
        return None

    def ceiling(self, kind, binary, upstream, cpu=None):
        """ceiling.c, "hit" or "forward". `upstream`: over TCP."""
        port = free_port()
        return self.start("ceiling-" + kind, [os.path.abspath(binary), kind, str(port), upstream.rsplit(":", 1)[1]],
                          "%s:%d" % (HOST, port), None, cpu)

    def nearside(self, name, binary, upstream, cpu=None, settings=(), prefix=(), environment=None):
        """A Nearside with one worker unless the settings say otherwise. `prefix`: a program that
        runs it."""
        tcp, unix = "%s:%d" % (HOST, free_port()), "unix:" + self.path(name + ".sock")
        command = [*prefix, os.path.abspath(binary)]
        for setting in ("proxy.listen=" + tcp, "proxy.listen=" + unix, "upstream.servers=" + upstream,
                        "proxy.workers=1", "proxy.log_level=warn", *settings):
            command += ["--set", setting]
        return self.start(name, command, tcp, unix, cpu, environment)
