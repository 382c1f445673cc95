"""`python -m tests.chaos [BROKER …]`: break everything for ten minutes; QUICK=1 for two, on Valkey."""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
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
    """1 when a promise was broken."""
    options = _parser().parse_args(arguments)
    is_quick = bool(os.environ.get("QUICK"))
    names = options.brokers or (["valkey"] if is_quick else list(BROKERS))
    seed = options.seed if options.seed is not None else int(time.time())
    print(f"Seed {seed}; what happens also depends on time.", flush=True)
    outcomes: dict[str, tuple[Outcome, Tally, int]] = {}
    for name in names:
        try:
            outcomes[name] = _run(name, QUICK if is_quick else WHOLE, seed=seed)
        except pytest.skip.Exception as reason:
            print(f"{name} is left out: {reason}", flush=True)
    if not outcomes:
        return 2
    print("\n" + "\n".join(table(outcomes)))
    broken = evidence({name: outcome for name, (outcome, _, _) in outcomes.items()})
    print("\n".join(["", *broken]) if broken else "\nNo promise was broken.")
    return 1 if broken else 0


def _run(name: str, effort: Effort, *, seed: int) -> tuple[Outcome, Tally, int]:
    directory = Path("out", "chaos", name).resolve()
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    print(f"\nOn {name}; logs are in {directory}.", flush=True)

    async def rage(broker: Server) -> tuple[Outcome, Tally, int]:
        async with arena(directory, broker, seed=seed) as here:
            outcome = await weather(here, effort)
            return outcome, here.tally, len(here.record.deleted)

    with BROKERS[name](directory) as broker:
        return asyncio.run(rage(broker))


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
