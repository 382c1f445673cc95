"""Runs a service of ours as its own process, as a cluster would, and never leaves it behind."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

PR_SET_PDEATHSIG = 1
STOP_SECONDS = 20.0


class ServiceFailed(Exception):
    """The process ended before it served; the text holds the end of its log."""


@asynccontextmanager
async def running(
    command: Sequence[str],
    *,
    log: Path,
    ready: str,
    environment: Mapping[str, str] | None = None,
    timeout_s: float = 30.0,
) -> AsyncIterator[asyncio.subprocess.Process]:
    """The process, from the moment its output contains `ready`; stopped with SIGTERM at the end.

    Raises ServiceFailed when it ends, or says nothing of the kind in time.
    """
    with log.open("ab") as output:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdout=output,
            stderr=output,
            stdin=asyncio.subprocess.DEVNULL,
            env={**os.environ, **(environment or {})},
            preexec_fn=_die_with_parent,
        )
    try:
        await _wait_until(ready, process, log=log, timeout_s=timeout_s)
        yield process
    finally:
        await stop(process)


async def stop(process: asyncio.subprocess.Process) -> None:
    """SIGTERM, patience, SIGKILL."""
    if process.returncode is not None:
        return
    process.terminate()
    try:
        await asyncio.wait_for(process.wait(), STOP_SECONDS)
    except TimeoutError:
        process.kill()
        await process.wait()


def free_port() -> int:
    """A port of the loopback interface that nobody listens on now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


async def _wait_until(
    ready: str, process: asyncio.subprocess.Process, *, log: Path, timeout_s: float
) -> None:
    deadline = asyncio.get_running_loop().time() + timeout_s
    while ready not in _text(log):
        if process.returncode is not None:
            raise ServiceFailed(f"{log.stem} ended with {process.returncode}:\n{_tail(log)}")
        if asyncio.get_running_loop().time() > deadline:
            raise ServiceFailed(f"{log.stem} did not serve within {timeout_s:.0f} s:\n{_tail(log)}")
        await asyncio.sleep(0.05)


def _text(log: Path) -> str:
    return log.read_text(errors="replace")


def _tail(log: Path, *, lines: int = 20) -> str:
    return "\n".join(_text(log).splitlines()[-lines:])


def _die_with_parent() -> None:
    """Linux ends the child when the thread that made it is gone, however that came about."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
