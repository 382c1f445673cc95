"""Figures of a benchmark: how many, the middle one, and the one that few exceed."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles
from typing import Self


class Missed(Exception):
    """The figures are not as good as they have to be; the text says which."""


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


def row(what: str, cells: Sequence[str]) -> str:
    return f"{what:<44}" + "".join(f"{cell:>10}" for cell in cells)
