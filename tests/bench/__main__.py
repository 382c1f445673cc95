"""`python -m tests.bench [NAME ...]`: measure on the sandbox and print figures; QUICK=1 measures less."""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, Protocol

from deploy.sandbox.processes import ServiceFailed
from tests.bench.hpa import measure_hpa
from tests.bench.outage import measure_outage
from tests.bench.resources import measure_resources
from tests.bench.verdicts import measure_verdicts

REPEATS, QUICK_REPEATS = 15, 5


class Benchmark(Protocol):
    """Measures so many times, keeps its logs in `directory`, prints its progress and its figures."""

    def __call__(self, directory: Path, *, repeats: int) -> Coroutine[Any, Any, None]: ...


BENCHMARKS: dict[str, Benchmark] = {
    "verdicts": measure_verdicts,
    "resources": measure_resources,
    "hpa": measure_hpa,
    "outage": measure_outage,
}


def main(arguments: list[str] | None = None) -> int:
    """0 when every benchmark has run; 2 when the sandbox could not be run."""
    options = _parser().parse_args(arguments)
    repeats = QUICK_REPEATS if os.environ.get("QUICK") else REPEATS
    for name in options.names or BENCHMARKS:
        directory = Path("out", "bench", name).resolve()
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)
        try:
            asyncio.run(BENCHMARKS[name](directory, repeats=repeats))
        except ServiceFailed as error:
            print(f"The sandbox could not be started. {error}", file=sys.stderr)
            return 2
        except KeyboardInterrupt:
            return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench",
        description=f"Measure on a sandbox, {REPEATS} times each; {QUICK_REPEATS} times with QUICK=1.",
    )
    parser.add_argument(
        "names", nargs="*", type=_known, metavar="NAME", help=f"of {', '.join(BENCHMARKS)}; all"
    )
    return parser


def _known(text: str) -> str:
    """`choices` of argparse would refuse an empty list of names."""
    if text not in BENCHMARKS:
        raise argparse.ArgumentTypeError(f"there is no {text}; name one of {', '.join(BENCHMARKS)}")
    return text


if __name__ == "__main__":
    sys.exit(main())
