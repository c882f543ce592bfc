# SPDX-License-Identifier: Apache-2.0
"""The two servers of a run: a redis-server of our own, and a Nearside in front of it.

Free ports of 127.0.0.1, a temporary folder that goes away, ended by their process ids.
"""

import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time

from framing import Framer, encode

START_TIMEOUT = 20.0
HOST = "127.0.0.1"
WORKERS = 2


class ServerGone(Exception):
    """One of the two servers has ended or does not answer."""


def free_port():
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return probe.getsockname()[1]


class Control:
    """A plain connection that waits for each reply."""

    def __init__(self, port):
        self.socket = socket.create_connection((HOST, port), timeout=30)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.framer = Framer()

    def read(self):
        while True:
            frame = self.framer.next_frame()
            if frame is not None:
                return frame
            try:
                chunk = self.socket.recv(1 << 20)
            except OSError as error:
                raise ServerGone("no reply on the control connection: %s" % error) from None
            if not chunk:
                raise ServerGone("the control connection was closed")
            self.framer.feed(chunk)

    def call(self, *args):
        """The frame that answers one command."""
        return self.call_all([args])[0]

    def call_all(self, commands):
        """The frames that answer a pipeline. An argument may be bytes or text."""
        try:
            self.socket.sendall(b"".join(
                encode([a.encode() if isinstance(a, str) else a for a in c]) for c in commands))
        except OSError as error:
            raise ServerGone("the control connection: %s" % error) from None
        return [self.read() for _ in commands]

    def text(self, *args):
        """The text of a bulk or status reply."""
        frame = self.call(*args)
        if frame[:1] == b"$":
            frame = frame[frame.index(b"\r\n") + 2:-2]
        return frame.decode("utf-8", "replace").strip()

    def close(self):
        self.socket.close()


class Server:
    """A child process that answers PING on a port."""

    def __init__(self, name, command, port, folder, environment=None):
        self.name = name
        self.port = port
        self.log = os.path.join(folder, name + ".log")
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder,
                                            stdin=subprocess.DEVNULL, env=environment)

    def wait_until_ready(self):
        deadline = time.monotonic() + START_TIMEOUT
        while True:
            if self.process.poll() is not None:
                raise ServerGone("%s ended at its start:\n%s" % (self.name, self.log_tail()))
            try:
                control = Control(self.port)
                if control.call("PING") == b"+PONG\r\n":
                    return control
                control.close()
            except (OSError, ServerGone):
                pass
            if time.monotonic() > deadline:
                raise ServerGone("%s does not answer:\n%s" % (self.name, self.log_tail()))
            time.sleep(0.01)

    def is_running(self):
        return self.process.poll() is None

    def log_tail(self, lines=30):
        with open(self.log, "rb") as log:
            return b"\n".join(log.read().splitlines()[-lines:]).decode("utf-8", "replace")

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(15)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        return self.process.returncode


def subscribers_of(settings):
    """How many connections of Nearside's own are subscribed, when all are up: one per worker where changes
    come as messages of a channel."""
    chosen = dict(setting.partition("=")[::2] for setting in settings)
    by_channel = chosen.get("invalidation.mode") in ("redirect", "broadcast", "keyspace")
    return int(chosen.get("proxy.workers", WORKERS)) if by_channel else 0


class Servers:
    """Redis and Nearside, with a control connection to each."""

    def __init__(self, redis_binary, nearside_binary, settings=(), cluster=False):
        self.folder = tempfile.mkdtemp(prefix="nearside-differential-")
        self.nearside_binary = os.path.realpath(nearside_binary)
        self.settings = settings
        self.subscribers = subscribers_of(settings)
        self.redis = self.nearside = self.control = self.through = None
        self.hits = 0  # of processes before the present one
        try:
            port = free_port()
            self.redis = Server("redis", [
                redis_binary, "--port", str(port), "--bind", HOST, "--save", "",
                "--appendonly", "no", "--enable-debug-command", "local", "--dir", self.folder,
                *(["--cluster-enabled", "yes", "--cluster-port", str(free_port())] if cluster else []),
            ], port, self.folder)
            self.control = self.redis.wait_until_ready()
            if cluster:
                self.form_cluster()
            self.start_nearside()
        except BaseException:
            self.stop()
            raise

    def form_cluster(self):
        """Of one node, which has all slots."""
        self.settings = ["upstream.mode=cluster", *self.settings]
        self.control.call("CLUSTER", "ADDSLOTSRANGE", "0", "16383")
        deadline = time.monotonic() + START_TIMEOUT
        while b"cluster_state:ok" not in self.control.call("CLUSTER", "INFO"):
            if time.monotonic() > deadline:
                raise ServerGone("the cluster does not form")

    def start_nearside(self):
        port = free_port()
        command = [self.nearside_binary, "--set", "proxy.listen=%s:%d" % (HOST, port),
                   "--set", "upstream.servers=%s:%d" % (HOST, self.redis.port),
                   "--set", "proxy.workers=%d" % WORKERS]
        for setting in self.settings:
            command += ["--set", setting]
        self.nearside = Server("nearside", command, port, self.folder)
        self.through = self.nearside.wait_until_ready()

    def restart_nearside(self):
        """After a case that left it in an unknown state."""
        self.hits = self.l1_hits()
        self.through.close()
        self.nearside.stop()
        self.start_nearside()

    def l1_hits(self):
        """How much was answered from L1, by INFO nearside."""
        found = re.findall(r"l1_(?:negative_)?hits:(\d+)", self.through.text("INFO", "nearside"))
        return self.hits + sum(map(int, found))

    def stop(self):
        """Returns how Nearside ended."""
        status = None
        for connection in (self.control, self.through):
            if connection is not None:
                connection.close()
        if self.nearside is not None:
            status = self.nearside.stop()
        if self.redis is not None:
            self.redis.stop()
        shutil.rmtree(self.folder, ignore_errors=True)
        return status
