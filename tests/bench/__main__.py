"""`python -m tests.bench [NAME ...]`: measure and print figures; QUICK=1 measures less."""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import sys
import time
from collections.abc import Coroutine, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import pytest

from deploy.sandbox.processes import ServiceFailed
from tests.bench.background import measure_background
from tests.bench.database import measure_database
from tests.bench.figures import RESULTS, Target, save_targets, targets_table
from tests.bench.hpa import measure_hpa
from tests.bench.outage import measure_outage
from tests.bench.planning import measure_planning
from tests.bench.queries import measure_queries
from tests.bench.real_workers import measure_real_workers
from tests.bench.resources import measure_resources
from tests.bench.scale_downs import measure_scale_downs
from tests.bench.soak import measure_soak
from tests.bench.verdicts import measure_verdicts

REPEATS, QUICK_REPEATS = 10, 3
SOAK_MINUTES, QUICK_SOAK_MINUTES = 1.0, 0.2


class Benchmark(Protocol):
    """Measures `repeats` times, or as often as it says itself; prints its progress and its figures.

    It keeps what it writes in `directory`, and returns those of its figures that have to be good enough.
    """

    def __call__(self, directory: Path, *, repeats: int) -> Coroutine[Any, Any, Sequence[Target]]: ...


BENCHMARKS: dict[str, Benchmark] = {
    "planning": measure_planning,
    "verdicts": measure_verdicts,
    "scale-downs": measure_scale_downs,
    "real-workers": measure_real_workers,
    "database": measure_database,
    "resources": measure_resources,
    "hpa": measure_hpa,
    "outage": measure_outage,
    "queries": measure_queries,
    "background": measure_background,
    "soak": measure_soak,
}

BY_NAME_ONLY = frozenset({"real-workers", "resources", "hpa", "outage"})
"""They take minutes, for what rarely changes, or much memory."""


def main(arguments: list[str] | None = None) -> int:
    """0 when all have run, 1 when a target was missed for no known reason, 2 when a benchmark cannot run."""
    options = _parser().parse_args(arguments)
    is_quick = bool(os.environ.get("QUICK"))
    minutes = options.minutes or (QUICK_SOAK_MINUTES if is_quick else SOAK_MINUTES)
    benchmarks = BENCHMARKS | {"soak": partial(measure_soak, minutes=minutes)}
    targets: dict[str, Sequence[Target]] = {}
    started = time.monotonic()
    if not options.names:
        (RESULTS / "targets.json").unlink(missing_ok=True)
    try:
        for name in options.names or [name for name in BENCHMARKS if name not in BY_NAME_ONLY]:
            began = time.monotonic()
            targets[name] = _run(benchmarks[name], name, repeats=QUICK_REPEATS if is_quick else REPEATS)
            print(f"\n{name} took {time.monotonic() - began:.0f} s.\n", flush=True)
    except ServiceFailed as error:
        print(f"The sandbox could not be started. {error}", file=sys.stderr)
        return 2
    except (RuntimeError, pytest.skip.Exception, pytest.fail.Exception) as reason:
        print(reason, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    finally:
        # Of whatever was measured before something else went wrong, too.
        _report(targets, minutes=(time.monotonic() - started) / 60)
    return int(any(target.is_failure for of_one in targets.values() for target in of_one))


def _report(targets: Mapping[str, Sequence[Target]], *, minutes: float) -> None:
    if every := [target for of_one in targets.values() for target in of_one]:
        print("\n".join(targets_table(every)))
        save_targets(RESULTS, targets)
    print(f"\nAll of it took {minutes:.1f} minutes.")


def _run(benchmark: Benchmark, name: str, *, repeats: int) -> Sequence[Target]:
    print(f"--- {name}", flush=True)
    directory = (RESULTS / name).resolve()
    shutil.rmtree(directory, ignore_errors=True)
    directory.with_suffix(".json").unlink(missing_ok=True)
    directory.mkdir(parents=True)
    return asyncio.run(benchmark(directory, repeats=repeats))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench",
        description="Measure, print figures, and hold them against targets; less of it with QUICK=1.",
    )
    parser.add_argument(
        "names",
        nargs="*",
        type=_known,
        metavar="NAME",
        help=f"of {', '.join(BENCHMARKS)}; all but {', '.join(sorted(BY_NAME_ONLY))}",
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
