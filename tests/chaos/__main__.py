"""`python -m tests.chaos [BROKER …]`: break everything for ten minutes; QUICK=1 for three."""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

from tests.chaos.campaign import BROKERS, rage
from tests.chaos.report import evidence, table
from tests.chaos.storms import QUICK, WHOLE

DIRECTORY = Path("out", "chaos")


def main(arguments: list[str] | None = None) -> int:
    """1 when a promise was broken, 130 when it was interrupted."""
    options = _parser().parse_args(arguments)
    seed = options.seed if options.seed is not None else int(time.time())
    print(f"Seed {seed}; what happens depends on time, too. Logs are in {DIRECTORY}.", flush=True)
    effort = QUICK if os.environ.get("QUICK") else WHOLE
    try:
        results = rage(options.brokers or BROKERS, effort, directory=DIRECTORY.resolve(), seed=seed)
    except KeyboardInterrupt:
        return 130
    print("\n" + "\n".join(table(results)))
    broken = evidence({name: outcome for name, (outcome, _, _) in results.items()})
    print("\n".join(["", *broken]) if broken else "\nNo promise was broken.")
    return 1 if broken else 0


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
