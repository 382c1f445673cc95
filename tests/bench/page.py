"""`python -m tests.bench.page`: puts tables and pictures of the last run, in out/bench, into docs.

A table goes between `<!-- NAME -->` and `<!-- /NAME -->`; one of a benchmark that has not been run stays.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.bench import planning, scale_downs
from tests.bench.figures import Figures
from tests.bench.growth import draw

RESULTS, DOCS = Path("out", "bench"), Path("docs")
PAGE = DOCS / "performance.md"
PICTURE = "performance-scale-downs.svg"


def main() -> int:
    page = PAGE.read_text()
    for name, lines in tables(RESULTS):
        page = with_table(page, name, lines)
    PAGE.write_text(page)
    if (measured := _scale_downs(RESULTS)) is not None:
        curves = scale_downs.curves(measured)
        picture = draw("A scale-down by number of workers", curves, unit="milliseconds, median")
        (DOCS / PICTURE).write_text(picture)
    return 0


def tables(results: Path) -> Iterator[tuple[str, Sequence[str]]]:
    """By the name of their place in the page."""
    if (measured := _scale_downs(results)) is not None:
        yield "scale-downs", scale_downs.table(measured)
        yield "scale-downs-phases", scale_downs.phases_table(measured)
        yield "scale-downs-growth", scale_downs.growth_table(measured)
    if (planned := _figures(results / "planning.json")) is not None:
        yield "planning", planning.table([planning.Measured(**_with_figures(one)) for one in planned])


def with_table(page: str, name: str, lines: Sequence[str]) -> str:
    """Raises ValueError when the page has no place for it."""
    begin, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
    before, begin, rest = page.partition(begin)
    _, end, after = rest.partition(end)
    if not end:
        raise ValueError(f"{PAGE} has no place for the table {name}.")
    text = "\n".join(line.rstrip() for line in lines)
    return f"{before}{begin}```text\n{text}\n```\n{end}{after}"


def _scale_downs(results: Path) -> list[scale_downs.Measured] | None:
    figures = _figures(results / "scale-downs.json")
    return None if figures is None else [scale_downs.Measured(**_with_figures(one)) for one in figures]


def _figures(path: Path) -> list[dict[str, Any]] | None:
    return json.loads(path.read_text())["figures"] if path.exists() else None


def _with_figures(document: Mapping[str, Any]) -> dict[str, Any]:
    return {**document, "figures": Figures(**document["figures"])}


if __name__ == "__main__":
    sys.exit(main())
