"""`python -m tests.bench.page`: puts tables and pictures of the last run, in out/bench, into docs.

A table goes between `<!-- NAME -->` and `<!-- /NAME -->`; one of a benchmark that has not been run stays.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from tests.bench import background, planning, queries, scale_downs, soak
from tests.bench.asker import Answers
from tests.bench.figures import RESULTS, Figures, saved_targets, targets_table
from tests.bench.growth import Points, draw

DOCS = Path("docs")
PAGE = DOCS / "performance.md"
Measured = TypeVar("Measured")


def main() -> int:
    page = PAGE.read_text()
    for name, lines in tables(RESULTS):
        page = with_table(page, name, lines)
    PAGE.write_text(page)
    for name, picture in pictures(RESULTS):
        (DOCS / f"performance-{name}.svg").write_text(picture)
    return 0


def tables(results: Path) -> Iterator[tuple[str, Sequence[str]]]:
    """By the name of their place in the page."""
    if targets := saved_targets(results):
        yield "targets", targets_table(targets)
    if measured := _scale_downs(results / "real-workers.json"):
        yield "real-workers", [*scale_downs.table(measured), "", *scale_downs.phases_table(measured)]
    if measured := _scale_downs(results / "scale-downs.json"):
        yield "scale-downs", scale_downs.table(measured)
        yield "scale-downs-phases", scale_downs.phases_table(measured)
        yield "scale-downs-growth", scale_downs.growth_table(measured)
    if planned := _planned(results):
        yield "planning", planning.table(planned)
    if asked := _measured(results / "queries.json", _asked):
        yield "queries", queries.table(asked)
    if fleets := _fleets(results):
        yield "background", background.table(fleets)
    if samples := _measured(results / "soak.json", lambda one: soak.Sample(**one)):
        yield "soak", soak.table(samples)


def pictures(results: Path) -> Iterator[tuple[str, str]]:
    """As SVG; none of what was measured at one size only."""
    if drawn := _drawable(scale_downs.curves(_scale_downs(results / "scale-downs.json"))):
        yield "scale-downs", draw("A scale-down by number of workers", drawn, unit="milliseconds, median")
    if drawn := _drawable(planning.curves(_planned(results))):
        yield "planning", draw("A plan by number of pods", drawn, unit="milliseconds of CPU", over="pods")
    if drawn := _drawable({"one pool": background.by_workers(_fleets(results))}):
        yield "background", draw("The adapter, while nobody asks", drawn, unit="thousandths of a core")


def _drawable(curves: Mapping[str, Points]) -> Mapping[str, Points]:
    return {name: points for name, points in curves.items() if len(points) > 1}


def with_table(page: str, name: str, lines: Sequence[str]) -> str:
    """Raises ValueError when the page has no place for it."""
    begin, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
    before, begin, rest = page.partition(begin)
    _, end, after = rest.partition(end)
    if not end:
        raise ValueError(f"{PAGE} has no place for the table {name}.")
    text = "\n".join(line.rstrip() for line in lines)
    return f"{before}{begin}```text\n{text}\n```\n{end}{after}"


def _scale_downs(path: Path) -> list[scale_downs.Measured]:
    return _measured(path, lambda one: scale_downs.Measured(**_with_figures(one)))


def _planned(results: Path) -> list[planning.Measured]:
    return _measured(results / "planning.json", lambda one: planning.Measured(**_with_figures(one)))


def _fleets(results: Path) -> list[background.Measured]:
    figures = _figures(results / "background.json") or {"fleets": []}
    return [background.Measured(**one) for one in figures["fleets"]]


def _asked(document: Mapping[str, Any]) -> queries.Measured:
    return queries.Measured(**{**document, "answers": Answers(**document["answers"])})


def _measured(path: Path, read: Callable[[Mapping[str, Any]], Measured]) -> list[Measured]:
    """Empty when the benchmark has not been run."""
    return [read(one) for one in _figures(path) or ()]


def _figures(path: Path) -> Any:
    return json.loads(path.read_text())["figures"] if path.exists() else None


def _with_figures(document: Mapping[str, Any]) -> dict[str, Any]:
    return {**document, "figures": Figures(**document["figures"])}


if __name__ == "__main__":
    sys.exit(main())
