"""`python -m tests.bench [NAME ...]`: measure and print figures; QUICK=1 measures less."""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import sys
from collections.abc import Coroutine
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import pytest

from deploy.sandbox.processes import ServiceFailed
from tests.bench.background import measure_background
from tests.bench.database import measure_database
from tests.bench.figures import Missed
from tests.bench.hpa import measure_hpa
from tests.bench.outage import measure_outage
from tests.bench.planning import measure_planning
from tests.bench.queries import measure_queries
from tests.bench.resources import measure_resources
from tests.bench.scale_downs import measure_scale_downs
from tests.bench.soak import measure_soak
from tests.bench.verdicts import measure_verdicts

REPEATS, QUICK_REPEATS = 15, 5
SOAK_MINUTES, QUICK_SOAK_MINUTES = 2.0, 0.25


class Benchmark(Protocol):
    """Measures so many times, keeps what it writes in `directory`, prints its progress and its figures.

    Raises Missed when the figures have to be better.
    """

    def __call__(self, directory: Path, *, repeats: int) -> Coroutine[Any, Any, None]: ...


BENCHMARKS: dict[str, Benchmark] = {
    "planning": measure_planning,
    "verdicts": measure_verdicts,
    "scale-downs": measure_scale_downs,
    "database": measure_database,
    "resources": measure_resources,
    "hpa": measure_hpa,
    "outage": measure_outage,
    "queries": measure_queries,
    "background": measure_background,
    "soak": measure_soak,
}


def main(arguments: list[str] | None = None) -> int:
    """0 when every benchmark has run, 1 when one missed what it must reach, 2 when one could not be run."""
    options = _parser().parse_args(arguments)
    repeats = QUICK_REPEATS if os.environ.get("QUICK") else REPEATS
    soak_minutes = options.minutes or (QUICK_SOAK_MINUTES if os.environ.get("QUICK") else SOAK_MINUTES)
    benchmarks = BENCHMARKS | {"soak": partial(measure_soak, minutes=soak_minutes)}
    missed = False
    for name in options.names or BENCHMARKS:
        directory = Path("out", "bench", name).resolve()
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)
        try:
            asyncio.run(benchmarks[name](directory, repeats=repeats))
        except Missed as error:
            print(f"\n{error}", file=sys.stderr)
            missed = True
        except ServiceFailed as error:
            print(f"The sandbox could not be started. {error}", file=sys.stderr)
            return 2
        except (pytest.skip.Exception, pytest.fail.Exception) as reason:
            print(reason, file=sys.stderr)
            return 2
        except KeyboardInterrupt:
            return 130
    return int(missed)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench",
        description=f"Measure {REPEATS} times each; {QUICK_REPEATS} times, and less, with QUICK=1.",
    )
    parser.add_argument(
        "names", nargs="*", type=_known, metavar="NAME", help=f"of {', '.join(BENCHMARKS)}; all"
    )
    parser.add_argument(
        "--minutes", type=float, help=f"that soak lasts; {SOAK_MINUTES:g}, and less with QUICK=1"
    )
    return parser


def _known(text: str) -> str:
    """`choices` of argparse would refuse an empty list of names."""
    if text not in BENCHMARKS:
        raise argparse.ArgumentTypeError(f"there is no {text}; name one of {', '.join(BENCHMARKS)}")
    return text


if __name__ == "__main__":
    sys.exit(main())
