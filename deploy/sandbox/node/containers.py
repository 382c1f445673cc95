"""One container as a local process group: started, probed, restarted and stopped."""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from deploy.sandbox.node.pod_environment import command_line, expand
from deploy.sandbox.node.pod_status import ContainerReport
from deploy.sandbox.node.process_guard import ProcessGuard, kill_group
from deploy.sandbox.objects import timestamp
from deploy.sandbox.resources import Document

LONGEST_BACKOFF_S = 300.0
CANNOT_START = 128  # the exit code of a command that is not there


@dataclass(frozen=True, slots=True, kw_only=True)
class Stopped:
    """How a container's process ended when it was told to: by itself, or killed when its time was over."""

    container: str
    was_killed: bool
    exit_code: int
    seconds: float


class Container:
    """Runs a container's command until stopped; `report` says how it is, `changed` is called upon news."""

    def __init__(
        self,
        spec: Document,
        *,
        directory: Path,
        log_file: Path,
        guard: ProcessGuard,
        changed: Callable[[], None],
        restart_backoff_s: float,
        restart_policy: str = "Always",
    ) -> None:
        self.report = ContainerReport(name=spec["name"], image=spec.get("image", ""))
        self.has_command = bool(spec.get("command"))
        self._spec = spec
        self._directory = directory
        self._log_file = log_file
        self._guard = guard
        self._changed = changed
        self._restart_backoff_s = restart_backoff_s
        self._restart_policy = restart_policy
        self._process: asyncio.subprocess.Process | None = None
        self._ended = asyncio.Event()
        self._is_stopping = False
        self._environment: Mapping[str, str] = {}

    async def run(self, environment: Callable[[], Awaitable[Mapping[str, str]]]) -> None:
        """Start, and start again after a growing pause as the restart policy says, until stopped."""
        backoff_s = self._restart_backoff_s
        while not self._is_stopping:
            self._environment = await environment()
            if not self.has_command:
                self._set(state="running", started_at=_stamp(), is_ready=True)
                return
            exit_code = await self._run_once()
            if self._is_stopping or not self._restarts_after(exit_code):
                self._set(has_ended_for_good=not self._is_stopping)
                return
            self._set(state="waiting", reason="CrashLoopBackOff", is_ready=False)
            await asyncio.sleep(backoff_s)
            backoff_s = min(LONGEST_BACKOFF_S, 2 * backoff_s)
            self._set(restarts=self.report.restarts + 1)

    async def stop(self, remaining_s: Callable[[], float]) -> Stopped | None:
        """preStop, SIGTERM to the main process, SIGKILL to its group when time is up; None if none runs."""
        self._is_stopping = True
        process, began = self._process, time.monotonic()
        if process is None:
            return None
        await self._before_stop(remaining_s)
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        was_killed = not await self._ends_within(remaining_s)
        kill_group(process.pid)
        await self._ended.wait()
        return Stopped(
            container=self.report.name,
            was_killed=was_killed,
            exit_code=process.returncode or 0,
            seconds=time.monotonic() - began,
        )

    async def kill(self) -> bool:
        """SIGKILL to the whole group at once; False if nothing ran."""
        self._is_stopping = True
        if self._process is None:
            return False
        kill_group(self._process.pid)
        await self._ended.wait()
        return True

    async def probe(self) -> None:
        """Keep readiness up to date by the container's exec probe; without one it is ready while it runs."""
        probe = self._spec.get("readinessProbe") or {}
        if "exec" not in probe:
            return
        await asyncio.sleep(probe.get("initialDelaySeconds", 0))
        failures = 0
        while True:
            is_ok = await self._execute(probe["exec"]["command"], timeout_s=probe.get("timeoutSeconds", 1))
            failures = 0 if is_ok else failures + 1
            is_running = self.report.state == "running"
            if is_running and is_ok:
                self._set(is_ready=True)
            elif not is_running or failures >= probe.get("failureThreshold", 3):
                self._set(is_ready=False)
            await asyncio.sleep(probe.get("periodSeconds", 10))

    async def _run_once(self) -> int:
        self._ended.clear()
        try:
            process = await self._spawn(command_line(self._spec, self._environment))
        except OSError as error:
            self._log(f"cannot start: {error.strerror}")
            self._ended.set()
            self._set(state="terminated", exit_code=CANNOT_START, started_at=_stamp(), finished_at=_stamp())
            return CANNOT_START
        self._process = process
        self._guard.watch(process.pid)
        if self._is_stopping:  # it was told to stop while it was being started
            kill_group(process.pid)
        is_ready = "exec" not in (self._spec.get("readinessProbe") or {})
        self._set(state="running", started_at=_stamp(), is_ready=is_ready)
        try:
            exit_code = await process.wait()
        finally:
            kill_group(process.pid)  # a container ends with its main process
            self._guard.release(process.pid)
            self._process = None
        self._log(f"ended with exit code {exit_code}")
        self._set(state="terminated", exit_code=exit_code, finished_at=_stamp(), is_ready=False)
        self._ended.set()
        return exit_code

    async def _spawn(self, command: list[str]) -> asyncio.subprocess.Process:
        with self._log_file.open("ab") as log:
            return await asyncio.create_subprocess_exec(
                *command,
                cwd=self._spec.get("workingDir") or self._directory,
                env=dict(self._environment),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    async def _before_stop(self, remaining_s: Callable[[], float]) -> None:
        hook = (self._spec.get("lifecycle") or {}).get("preStop") or {}
        if "exec" in hook:
            await self._execute(hook["exec"]["command"], timeout_s=max(0.0, remaining_s()))

    async def _execute(self, command: list[str], *, timeout_s: float) -> bool:
        """Whether a command in the container's environment succeeds in time."""
        try:
            process = await self._spawn([expand(part, self._environment) for part in command])
        except OSError as error:
            self._log(f"cannot execute {command[0]}: {error.strerror}")
            return False
        try:
            async with asyncio.timeout(timeout_s):
                return await process.wait() == 0
        except TimeoutError:
            return False
        finally:
            kill_group(process.pid)
            await asyncio.shield(process.wait())

    async def _ends_within(self, remaining_s: Callable[[], float]) -> bool:
        """Whether the process ends before its time is over; the time may be cut short while we wait."""
        while (left_s := remaining_s()) > 0:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._ended.wait(), min(left_s, 0.5))
                return True
        return self._ended.is_set()

    def _restarts_after(self, exit_code: int) -> bool:
        return self._restart_policy == "Always" or (self._restart_policy == "OnFailure" and exit_code != 0)

    def _set(self, **fields: Any) -> None:
        report = replace(self.report, **fields)
        if report != self.report:
            self.report = report
            self._changed()

    def _log(self, text: str) -> None:
        with self._log_file.open("ab") as log:
            log.write(f"--- {_stamp()} container {self.report.name} {text}\n".encode())


def _stamp() -> str:
    return timestamp(datetime.now(UTC))


def search_path() -> str:
    """The PATH that every container gets; the rest of our environment stays ours."""
    return os.environ.get("PATH", "/usr/local/bin:/usr/bin:/bin")
