"""`python -m tests.model [COUNT]`: so many random scale-downs, their figures, and 1 when any went wrong."""

from __future__ import annotations

import argparse
import logging
import sys
import time

from tests.model.random_runs import run_until
from tests.model.virtual_time import table


def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    logging.disable(logging.CRITICAL)  # what the hook says of a thousand rounds is of no use here
    started = time.perf_counter()
    outcome = run_until(options.count, first_seed=options.seed)
    print(table(outcome.figures() | {"seconds": round(time.perf_counter() - started, 1)}))
    for violation in outcome.violations:
        print(violation, file=sys.stderr)
    return int(bool(outcome.violations))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.model", description=__doc__)
    parser.add_argument("count", nargs="?", type=int, default=1000, help="scale-downs that take effect")
    parser.add_argument("--seed", type=int, default=0, help="of the first world")
    return parser


if __name__ == "__main__":
    sys.exit(main())
