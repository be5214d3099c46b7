"""Processes that need not import torch: forks of one that has, and waits for orders.

`Forked([sys.executable, '-m', 'selectq.cli', ...])` is a process with its id, its group, its files
and its end, as `subprocess.Popen` would start it, two seconds earlier. The server imports other
people's libraries alone: every process imports the package itself.
"""

import atexit
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

LIBRARIES = (
    "numpy pandas torch torch.utils.data numba pyarrow.parquet PIL.Image safetensors.torch "
    "pytorchcv.model_provider tqdm typer matplotlib.pyplot sklearn.cluster"
).split()


def serve(orders):
    """Fork a process for each order; report those that ended. In such a process: its words."""
    while True:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if not pid:
                break
            code = os.waitstatus_to_exitcode(status)
            orders.sendall(json.dumps([pid, code]).encode() + b"\n")
        if not select.select([orders], [], [], 0.01)[0]:
            continue
        order, fds, _, _ = socket.recv_fds(orders, 1 << 16, 2)
        if not order:
            os._exit(0)  # the tests have ended
        order = json.loads(order)
        if pid := os.fork():
            for fd in fds:
                os.close(fd)
            orders.sendall(json.dumps([pid, None]).encode() + b"\n")
            continue
        orders.close()
        os.setsid()
        os.dup2(fds[0], 1)
        os.dup2(fds[1], 2)
        os.chdir(order["cwd"])
        os.environ.clear()
        os.environ.update(order["env"])
        if order["most"]:
            import resource

            resource.setrlimit(resource.RLIMIT_FSIZE, (order["most"], order["most"]))
        return order["words"]


def become(words):
    """Be the Python process that `words` start: of a module, of code or of a script."""
    if words[0] == "-m":
        sys.argv, sys.path[0] = words[1:], os.getcwd()
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    elif words[0] == "-c":
        sys.argv, sys.path[0] = ["-c", *words[2:]], ""
        exec(compile(words[1], "<string>", "exec"), {"__name__": "__main__"})
    else:
        sys.argv, sys.path[0] = words, str(Path(words[0]).parent)
        runpy.run_path(words[0], run_name="__main__")


class Server:
    """The process that forks."""

    current = None

    def __init__(self):
        self.orders, theirs = socket.socketpair()
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, __file__, str(theirs.fileno())], pass_fds=[theirs.fileno()]
            )
        self.ended, self.begun, self.rest = {}, [], b""
        atexit.register(self.stop)

    @classmethod
    def get(cls):
        """The one server of these tests."""
        cls.current = cls.current or cls()
        return cls.current

    def stop(self):
        """End it, and wait: its seconds, and those of its forks, are then counted as ours."""
        self.orders.close()
        self.process.wait(60)

    def read(self, seconds):
        """What it has reported within some time."""
        if select.select([self.orders], [], [], seconds)[0]:
            *lines, self.rest = (self.rest + self.orders.recv(1 << 16)).split(b"\n")
            for pid, code in map(json.loads, lines):
                if code is None:
                    self.begun.append(pid)
                else:
                    self.ended[pid] = code

    def start(self, order, files):
        """The id of a new process."""
        socket.send_fds(self.orders, [json.dumps(order).encode()], [f.fileno() for f in files])
        while not self.begun:
            self.read(60)
            assert self.process.poll() is None, "the server of forks has ended"
        return self.begun.pop()


class Forked:
    """A Python process; what it prints goes to files and is read when it has ended."""

    def __init__(self, args, cwd=None, env=None, most=None):
        assert args[0] == sys.executable, args
        words = [str(word) for word in args]
        self.args, self.returncode, self.server = words, None, Server.get()
        self.files = [tempfile.TemporaryFile() for _ in range(2)]
        order = dict(
            words=words[1:], cwd=str(cwd or os.getcwd()), env={**(env or os.environ)}, most=most
        )
        self.pid = self.server.start(order, self.files)

    def poll(self):
        """The exit code, or None while it runs."""
        if self.returncode is None:
            self.server.read(0)
            self.returncode = self.server.ended.pop(self.pid, None)
        return self.returncode

    def wait(self, timeout=None):
        """Its exit code."""
        end = time.monotonic() + (timeout or 1e9)
        while self.poll() is None:
            if time.monotonic() > end:
                raise subprocess.TimeoutExpired(self.args, timeout)
            self.server.read(0.1)
        return self.returncode

    def communicate(self, timeout=None):
        """What it printed, to stdout and to stderr."""
        self.wait(timeout)
        for file in self.files:
            file.seek(0)
        return tuple(file.read().decode() for file in self.files)

    def send_signal(self, number):
        """Signal it, while it runs."""
        if self.poll() is None:
            os.kill(self.pid, number)


def main():
    """The server; in every fork of it, the process that was asked for."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    orders = socket.socket(fileno=int(sys.argv[1]))
    for name in LIBRARIES:
        __import__(name)
    words = serve(orders)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    become(words)


if __name__ == "__main__":
    main()
