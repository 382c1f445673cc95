"""Real Celery workers for the tests, each a process tree of its own, and a way to give them tasks."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from celery import Celery

_ROOT = Path(__file__).parent.parent
_PATIENCE_S = 60.0


class Worker:
    """A running `celery worker` process."""

    def __init__(self, node: str, process: subprocess.Popen[str]) -> None:
        self.node = node
        self._process = process
        self._reader: threading.Thread | None = None

    @property
    def pid(self) -> int:
        return self._process.pid

    def wait_until_ready(self) -> None:
        assert self._process.stdout is not None
        said = []
        for line in self._process.stdout:
            said.append(line)
            if " ready." in line:
                # It would stop at a full pipe.
                self._reader = threading.Thread(target=self._process.stdout.read, daemon=True)
                self._reader.start()
                return
        raise RuntimeError(f"The worker {self.node} did not start:\n{''.join(said)}")

    def freeze(self) -> None:
        """It answers nothing, and reads later what it was sent meanwhile."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()
        if self._reader is not None:
            self._reader.join()
        if self._process.stdout is not None:
            self._process.stdout.close()


@contextmanager
def celery_workers(
    broker_url: str, queues: Mapping[str, Sequence[str]], *, pool: str = "prefork", concurrency: int = 2
) -> Iterator[dict[str, Worker]]:
    """Ready workers by node name, started side by side; `queues` says by node name what each consumes."""
    with ExitStack() as stack:
        workers = {node: _start(broker_url, node, names, pool, concurrency) for node, names in queues.items()}
        for worker in workers.values():
            stack.callback(worker.kill)
        for worker in workers.values():
            worker.wait_until_ready()
        _wait_until_all_answer(broker_url, workers)
        yield workers


def _wait_until_all_answer(broker_url: str, nodes: Iterable[str]) -> None:
    """On Redis a worker says that it is ready before it listens, and what it is asked meanwhile is lost."""
    silent = set(nodes)
    deadline = time.monotonic() + _PATIENCE_S
    app = Celery(broker=broker_url, set_as_current=False)
    # A connection of its own: pooled ones are kept by URL, and may lead to a broker that is gone.
    with app.connection_for_write() as connection:
        while silent:
            assert time.monotonic() < deadline, f"no answer from {', '.join(sorted(silent))}"
            for reply in app.control.ping(destination=sorted(silent), timeout=0.5, connection=connection):
                silent -= reply.keys()


def _start(broker_url: str, node: str, queues: Sequence[str], pool: str, concurrency: int) -> Worker:
    command = [
        *(sys.executable, "-m", "celery", "-A", "tests.celery_app", "worker"),
        *("--hostname", node, "--queues", ",".join(queues)),
        *("--pool", pool, "--concurrency", str(concurrency), "--loglevel", "INFO"),
        *("--without-mingle", "--without-gossip", "--without-heartbeat"),
    ]
    process = subprocess.Popen(
        command,
        cwd=_ROOT,
        env=os.environ | {"CELERY_BROKER_URL": broker_url, "PYTHONUNBUFFERED": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    return Worker(node, process)


def send_tasks(broker_url: str, name: str, *arguments: object, queue: str, count: int = 1) -> list[str]:
    """Publish so many tasks; their ids."""
    app = Celery(broker=broker_url, set_as_current=False)
    with app.connection_for_write() as connection:
        return [
            str(app.send_task(name, arguments, queue=queue, connection=connection).id) for _ in range(count)
        ]
