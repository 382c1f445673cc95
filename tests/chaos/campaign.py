"""Chaos on several brokers side by side: most of the time is spent waiting until all is well again."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

import pytest

from tests.brokers import Server, rabbitmq, valkey
from tests.chaos.arena import arena
from tests.chaos.storms import Effort, Outcome, weather
from tests.chaos.traffic import Tally

Results = Mapping[str, tuple[Outcome, Tally, int]]
"""By broker: what came of it, what callers were told, how many pods were deleted."""


def persistent_valkey(directory: Path) -> AbstractContextManager[Server]:
    """What it has answered to is on disk: killing it must not lose tasks."""
    return valkey("--dir", str(directory), "--appendonly", "yes")


BROKERS: Mapping[str, Callable[[Path], AbstractContextManager[Server]]] = {
    "valkey": persistent_valkey,
    "rabbitmq": rabbitmq,
}


def rage(names: Iterable[str], effort: Effort, *, directory: Path, seed: int) -> Results:
    """Everything, on those of the brokers that can be had; each keeps its logs in a directory of its name."""
    with ExitStack() as stack:
        brokers = {name: _broker(name, directory / name, stack) for name in names}
        present = {name: broker for name, broker in brokers.items() if broker is not None}
        return asyncio.run(_rage(present, effort, directory=directory, seed=seed))


def _broker(name: str, directory: Path, stack: ExitStack) -> Server | None:
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    try:
        return stack.enter_context(BROKERS[name](directory))
    except pytest.skip.Exception as reason:
        print(f"{name} is left out: {reason}", flush=True)
        return None


async def _rage(brokers: Mapping[str, Server], effort: Effort, *, directory: Path, seed: int) -> Results:
    async def on(name: str, broker: Server) -> tuple[Outcome, Tally, int]:
        async with arena(directory / name, broker, seed=seed) as here:
            outcome = await weather(here, effort, name=name)
            return outcome, here.tally, len(here.record.deleted)

    done = await asyncio.gather(*(on(name, broker) for name, broker in brokers.items()))
    return dict(zip(brokers, done, strict=True))
