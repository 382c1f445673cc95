"""`python -m tests.chaos [BROKER …]`: break everything for ten minutes; QUICK=1 for three."""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

import pytest

from tests.brokers import Server, rabbitmq, valkey
from tests.chaos.arena import arena
from tests.chaos.report import evidence, table
from tests.chaos.storms import QUICK, WHOLE, Effort, Outcome, weather
from tests.chaos.traffic import Tally


def persistent_valkey(directory: Path) -> AbstractContextManager[Server]:
    """What it has answered to is on disk: killing it must not lose tasks."""
    return valkey("--dir", str(directory), "--appendonly", "yes")


BROKERS: dict[str, Callable[[Path], AbstractContextManager[Server]]] = {
    "valkey": persistent_valkey,
    "rabbitmq": rabbitmq,
}


def main(arguments: list[str] | None = None) -> int:
    """1 when a promise was broken, 130 when it was interrupted."""
    options = _parser().parse_args(arguments)
    seed = options.seed if options.seed is not None else int(time.time())
    print(f"Seed {seed}; what happens depends on time, too. Logs are in out/chaos.", flush=True)
    with ExitStack() as stack:
        brokers = _brokers(options.brokers or list(BROKERS), stack)
        effort = QUICK if os.environ.get("QUICK") else WHOLE
        try:
            outcomes = asyncio.run(_rage(brokers, effort, seed=seed))
        except KeyboardInterrupt:
            return 130
    print("\n" + "\n".join(table(outcomes)))
    broken = evidence({name: outcome for name, (outcome, _, _) in outcomes.items()})
    print("\n".join(["", *broken]) if broken else "\nNo promise was broken.")
    return 1 if broken else 0


def _brokers(names: Sequence[str], stack: ExitStack) -> dict[str, Server]:
    """Those that can be had."""
    brokers: dict[str, Server] = {}
    for name in names:
        shutil.rmtree(_directory(name), ignore_errors=True)
        _directory(name).mkdir(parents=True)
        try:
            brokers[name] = stack.enter_context(BROKERS[name](_directory(name)))
        except pytest.skip.Exception as reason:
            print(f"{name} is left out: {reason}", flush=True)
    return brokers


async def _rage(
    brokers: Mapping[str, Server], effort: Effort, *, seed: int
) -> dict[str, tuple[Outcome, Tally, int]]:
    """Side by side: most of the time is spent waiting until all is well again."""

    async def rage(name: str, broker: Server) -> tuple[Outcome, Tally, int]:
        async with arena(_directory(name), broker, seed=seed) as here:
            outcome = await weather(here, effort, name=name)
            return outcome, here.tally, len(here.record.deleted)

    done = await asyncio.gather(*(rage(name, broker) for name, broker in brokers.items()))
    return dict(zip(brokers, done, strict=True))


def _directory(name: str) -> Path:
    return Path("out", "chaos", name).resolve()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.chaos", description="Break everything, and see whether the promises hold."
    )
    parser.add_argument("brokers", nargs="*", type=_known, metavar="BROKER", help=f"of {', '.join(BROKERS)}")
    parser.add_argument("--seed", type=int, help="of what is left to chance (the time)")
    return parser


def _known(text: str) -> str:
    """`choices` of argparse would refuse an empty list of names."""
    if text not in BROKERS:
        raise argparse.ArgumentTypeError(f"there is no {text}; name one of {', '.join(BROKERS)}")
    return text


if __name__ == "__main__":
    sys.exit(main())
