"""Two replicas of the hook that are killed and started again, and the Service in front of them."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from deploy.sandbox.demo.verdicts import verdicts_from
from deploy.sandbox.processes import ServiceFailed, running
from shared import faults
from tests.bench.processes import processes_with

RESTART_PAUSE_S = 1.0
SERVES = "drain_hook serves"
EXPECTED_CODES = frozenset({0, -signal.SIGKILL})
"""Stopped gracefully, or killed by us."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exit:
    """How a process of a replica ended."""

    fault: str
    """What it was to be killed at; empty for nothing."""
    code: int

    @property
    def is_by_fault(self) -> bool:
        return bool(self.fault) and self.code == -signal.SIGKILL


class Replica:
    """A process that is started anew whenever it has ended, as a kubelet does."""

    def __init__(self, number: int, *, command: Sequence[str], port: int, directory: Path) -> None:
        self.port = port
        self.exits: list[Exit] = []
        self.is_held_down = False
        """Whether it stays away once it has ended."""
        self._number = number
        self._command = command
        self._directory = directory
        self._fault = ""
        """Of the next life."""
        self._armed = ""
        """Of this one."""
        self._lives = 0
        self._process: asyncio.subprocess.Process | None = None
        self._is_up, self._is_down = asyncio.Event(), asyncio.Event()

    @property
    def is_ready(self) -> bool:
        return self._is_up.is_set()

    async def run(self) -> None:
        while True:
            if not self.is_held_down:
                with suppress(ServiceFailed):
                    await self._live()
            await asyncio.sleep(RESTART_PAUSE_S)

    async def wait_ready(self) -> None:
        await self._is_up.wait()

    async def roll(self, fault: str) -> None:
        """Stop it gracefully and have it start with a fault; returns when it serves again."""
        self._fault = fault
        if self.signal(signal.SIGTERM):
            await self._is_down.wait()
        await self.wait_ready()

    def signal(self, number: signal.Signals) -> bool:
        """False if nothing runs."""
        if self._process is None:
            return False
        if number is signal.SIGKILL:
            self._armed = ""
        self._process.send_signal(number)
        return True

    def errors(self) -> Iterator[str]:
        """What it logged as an error, which nothing that happens here should be."""
        for log in self._logs():
            for line in log.read_text(errors="replace").splitlines():
                if error := _error_in(line):
                    yield f"{log.name}: {error}"

    def verdicts(self) -> Counter[str]:
        """Reviews that it answered, by reason."""
        return Counter(
            verdict.reason
            for log in self._logs()
            for verdict in verdicts_from(log.read_text(errors="replace"))
        )

    def _logs(self) -> list[Path]:
        return sorted(self._directory.glob(f"drain_hook-{self._number}-*.log"))

    async def _live(self) -> None:
        self._armed, self._fault = self._fault, ""
        self._lives += 1
        log = self._directory / f"drain_hook-{self._number}-{self._lives}.log"
        environment = {faults.VARIABLE: self._armed} if self._armed else {}
        async with running(self._command, log=log, ready=SERVES, environment=environment) as process:
            self._process = process
            self._is_up.set()
            self._is_down.clear()
            try:
                code = await process.wait()
                self.exits.append(Exit(fault=self._armed, code=code))
            finally:
                # A frozen one could not hear that it is to stop.
                with suppress(ProcessLookupError):
                    process.send_signal(signal.SIGCONT)
                self._process = None
                self._is_up.clear()
                self._is_down.set()


class Balancer:
    """A Service: each connection goes to one of the replicas that are ready, whichever."""

    def __init__(self, replicas: Sequence[Replica], *, chance: random.Random) -> None:
        self._replicas = replicas
        self._chance = chance
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> int:
        """The port."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            opened = await self._open()
            if opened is not None:
                await asyncio.gather(_pipe(reader, opened[1]), _pipe(opened[0], writer))
        finally:
            writer.close()

    async def _open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        ready = [replica for replica in self._replicas if replica.is_ready]
        for replica in self._chance.sample(ready, len(ready)):
            with suppress(OSError):
                return await asyncio.open_connection("127.0.0.1", replica.port)
        return None


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while chunk := await reader.read(2**16):
            writer.write(chunk)
            await writer.drain()
    with suppress(OSError):
        writer.close()


def _error_in(line: str) -> str:
    try:
        entry = json.loads(line)
    except ValueError:
        return line if line.startswith("Traceback") else ""
    if not isinstance(entry, dict) or entry.get("level") not in ("ERROR", "CRITICAL"):
        return ""
    return f"{entry['message']} {entry.get('exception', '')[-400:]}"


def signal_worker(pod: str, number: signal.Signals) -> bool:
    """To the worker process of a pod, found by its environment; False if there is none. Linux only."""
    found = False
    for pid in processes_with(f"POD_NAME={pod}"):
        with suppress(OSError):  # it may be gone, or somebody else's
            os.kill(pid, number)
            found = True
    return found
