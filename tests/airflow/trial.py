"""One Airflow, from nothing to the evidence: installed, migrated, started, played with, cleared away."""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path

import pytest

from deploy.sandbox.cluster import Sandbox, sandbox
from deploy.sandbox.processes import ServiceFailed, free_port
from deploy.sandbox.services import apply
from tests.airflow.installation import LeftOut, install
from tests.airflow.metadata import MetadataDatabase
from tests.airflow.releases import Release
from tests.airflow.stack import Stack, configuration
from tests.airflow.story import Stuck, gather, play, stage
from tests.airflow.verdict import Evidence
from tests.bench.processes import processes_with
from tests.postgres import PostgresServer, postgresql

HPA_SYNC_PERIOD_S = 2.0
MIGRATION_S = 300.0
START_ATTEMPTS, PORT_TAKEN = 3, "address already in use"


class Failed(Exception):
    """Airflow could not be set up; the text says what failed, and where its log is."""


def try_out(release: Release, *, directory: Path, say: Callable[[str], None]) -> Evidence:
    """Play the story on one Airflow; logs are kept in `directory`. Raises LeftOut, NotInstalled, Failed."""
    say("installing")
    commands = install(release)
    shutil.rmtree(directory, ignore_errors=True)
    home, signals = directory / "home", directory / "signals"
    home.mkdir(parents=True)
    signals.mkdir()
    with _postgresql() as server, _nothing_left_of(home, signals):
        say("starting PostgreSQL")
        return asyncio.run(_try_out(release, commands, server, directory, say))


async def _try_out(
    release: Release, commands: Path, server: PostgresServer, directory: Path, say: Callable[[str], None]
) -> Evidence:
    database = MetadataDatabase(server)

    def stack_on(broker_url: str) -> Stack:
        return Stack(
            release=release,
            commands=commands,
            home=directory / "home",
            signals=directory / "signals",
            database_url=database.url,
            broker_url=broker_url,
            api_port=free_port(),
            secret=secrets.token_urlsafe(48),
        )

    say("creating Airflow's tables")
    await _migrate(stack_on("redis://127.0.0.1:1/0"), log=directory / "migration.log")
    database.admit_reader()
    say("starting the sandbox, metrics_adapter and drain_hook")
    async with _sandbox(directory, database) as box:
        stack = stack_on(box.broker_url)
        say(f"starting a worker, {', '.join(release.components)}")
        for deployment in (*stack.components(), stack.workers()):
            await apply(box.kube, deployment)
        async with stage(box, stack, database, say) as here:
            try:
                await play(here)
            except Stuck as error:
                here.seen.remarks.append(str(error))
            return await gather(here)


@asynccontextmanager
async def _sandbox(directory: Path, database: MetadataDatabase) -> AsyncIterator[Sandbox]:
    """Both services use a role that may read what docs/airflow.md says, and nothing else."""
    async with AsyncExitStack() as stack:
        yield await _enter_sandbox(stack, directory, database)


async def _enter_sandbox(stack: AsyncExitStack, directory: Path, database: MetadataDatabase) -> Sandbox:
    """A port that was free may be taken before the service that shall have it is there: then once more."""
    for _ in range(START_ATTEMPTS):
        try:
            return await stack.enter_async_context(
                sandbox(
                    directory,
                    configuration=lambda broker_url: configuration(broker_url, database.reader_url),
                    hpa_sync_period_s=HPA_SYNC_PERIOD_S,
                )
            )
        except ServiceFailed as error:
            failure = error
            if PORT_TAKEN not in str(error):
                break
    raise Failed(f"The sandbox could not be started. {failure}")


async def _migrate(stack: Stack, *, log: Path) -> None:
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            *stack.command("db", "migrate"),
            env=stack.environment | {"POD_NAME": "migration", "HOME": str(stack.home)},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
        try:
            code = await asyncio.wait_for(process.wait(), MIGRATION_S)
        finally:
            with suppress(ProcessLookupError):
                process.kill()
    if code != 0:
        raise Failed(f"`airflow db migrate` ended with {code}; its output is in {log}.")


@contextmanager
def _postgresql() -> Iterator[PostgresServer]:
    try:
        with postgresql() as server:
            yield server
    except (pytest.skip.Exception, pytest.fail.Exception) as reason:
        raise LeftOut(str(reason)) from reason


@contextmanager
def _nothing_left_of(home: Path, signals: Path) -> Iterator[None]:
    """Airflow's processes leave the process group they are started in; AIRFLOW_HOME tells whose they are."""
    try:
        yield
    finally:
        shutil.rmtree(signals, ignore_errors=True)
        deadline = time.monotonic() + 10
        while (left := list(processes_with(f"AIRFLOW_HOME={home}"))) and time.monotonic() < deadline:
            for process in left:
                with suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
            time.sleep(0.1)
