"""Figures of a benchmark, and the targets that they are held against."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median, quantiles
from typing import Self

RESULTS = Path("out", "bench-quick" if os.environ.get("QUICK") else "bench")
"""What QUICK=1 measures is never taken for more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A figure that has to be good enough."""

    what: str
    """With its unit."""
    measured: float
    limit: float
    """The most that it may be."""
    is_least: bool = False
    """The limit is the least that it may be."""
    reason: str = ""
    """Why it is known to be out of reach, in a sentence: what it would take."""

    @property
    def is_met(self) -> bool:
        return self.measured >= self.limit if self.is_least else self.measured <= self.limit

    @property
    def is_failure(self) -> bool:
        """Missed, and nobody knows why."""
        return not self.is_met and not self.reason

    def cells(self) -> list[str]:
        bound = "at least" if self.is_least else "at most"
        return [f"{bound} {self.limit:,g}", _number(self.measured), "met" if self.is_met else "MISSED"]


def targets_table(targets: Sequence[Target]) -> list[str]:
    """A line for each, and under it the reason of one that was missed."""
    lines = [row("Targets", ["limit", "measured", ""], width=60, column=16)]
    for target in targets:
        lines.append(row(target.what, target.cells(), width=60, column=16))
        if not target.is_met and target.reason:
            lines.append(f"  {target.reason}")
    return lines


def _number(value: float) -> str:
    """No more digits than a benchmark knows."""
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """Of durations in seconds."""

    count: int
    median_s: float
    p95_s: float

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Self:
        """At least one; of a single one all figures are the same."""
        p95_s = quantiles(seconds, n=20, method="inclusive")[-1] if len(seconds) > 1 else seconds[0]
        return cls(count=len(seconds), median_s=median(seconds), p95_s=p95_s)

    def cells(self) -> list[str]:
        """For a row of a table, in milliseconds."""
        return [str(self.count), f"{self.median_s * 1000:.1f}", f"{self.p95_s * 1000:.1f}"]


def save(directory: Path, figures: object) -> None:
    """As JSON beside the directory of the benchmark's logs, under its name."""
    document = {"cores": os.cpu_count(), "load": os.getloadavg()[0], "figures": figures}
    directory.with_suffix(".json").write_text(json.dumps(document, indent=1))


def save_targets(results: Path, targets: Mapping[str, Sequence[Target]]) -> None:
    """By benchmark; those of benchmarks that were not run this time stay."""
    path = results / "targets.json"
    before = json.loads(path.read_text()) if path.exists() else {}
    now = {name: [asdict(target) for target in of_one] for name, of_one in targets.items()}
    path.write_text(json.dumps(before | now, indent=1))


def saved_targets(results: Path) -> list[Target]:
    """Empty when no benchmark has been run."""
    path = results / "targets.json"
    documents = json.loads(path.read_text()) if path.exists() else {}
    return [Target(**document) for of_one in documents.values() for document in of_one]


def row(what: str, cells: Sequence[str], *, width: int = 44, column: int = 10) -> str:
    return f"{what:<{width}}" + "".join(f"{cell:>{column}}" for cell in cells)
