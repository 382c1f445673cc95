"""Kills process groups whose starter is gone: no pod's process outlives the kubelet, however that ends.

Run as a process of its own it reads `+PGID` and `-PGID` lines; at the end of its input it kills what is left.
"""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Iterable
from types import TracebackType
from typing import Self


class ProcessGuard:
    """The guarding process, while entered; leaving ends it after it has killed what is still watched."""

    def __init__(self) -> None:
        self._process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> Self:
        # In a session of its own: a Ctrl-C at the terminal must not end it before its work is done.
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-S", __file__),
            stdin=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()  # communicate() without input leaves it open before Python 3.12
            await self._process.wait()

    def watch(self, group: int) -> None:
        """Kill this process group should we be gone."""
        self._say(f"+{group}")

    def release(self, group: int) -> None:
        """The process group has ended; its number may be used again by strangers."""
        self._say(f"-{group}")

    def _say(self, line: str) -> None:
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.write(f"{line}\n".encode())


def kill_group(group: int) -> None:
    """SIGKILL to every process of a group, if there still is one."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)


def remaining(lines: Iterable[str]) -> set[int]:
    """The groups that were watched and not released."""
    groups: set[int] = set()
    for line in lines:
        change = groups.add if line.startswith("+") else groups.discard
        change(int(line[1:]))
    return groups


if __name__ == "__main__":
    for orphan in remaining(sys.stdin):
        kill_group(orphan)
