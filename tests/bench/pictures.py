"""`python -m tests.bench.pictures`: draws the curves of the last run, in out/bench, into docs."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from tests.bench.figures import Figures
from tests.bench.growth import draw
from tests.bench.scale_downs import Measured, curves

RESULTS, DOCS = Path("out", "bench"), Path("docs")


def main() -> int:
    """1 when a benchmark has not been run."""
    results = RESULTS / "scale-downs.json"
    if not results.exists():
        print(f"There is no {results}. Run: make bench ARGS=scale-downs", file=sys.stderr)
        return 1
    measured = [_measured(one) for one in json.loads(results.read_text())["figures"]]
    picture = draw(
        "A scale-down by number of workers, one in ten to go", curves(measured), unit="milliseconds"
    )
    (DOCS / "performance-scale-downs.svg").write_text(picture)
    return 0


def _measured(document: dict[str, Any]) -> Measured:
    return Measured(**{**document, "figures": Figures(**document["figures"])})


if __name__ == "__main__":
    sys.exit(main())
