"""What the checks say: one finding each, good or bad, with what to do about it. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

_NAMED = 4
"""Names in one sentence; a line is no place for a hundred."""


class Level(StrEnum):
    """How a finding is meant."""

    OK = "ok"
    WARNING = "warning"
    """It works, or may, but not as well as it could; or it could not be looked at."""
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One line of the report."""

    about: str
    """`cluster`, or a pool as `default/worker`."""
    check: str
    """Short name of what was looked at, for machines."""
    level: Level
    message: str
    """A sentence that says what is so."""
    advice: str = ""
    """A sentence that says what to do; empty where all is good."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """Makes the findings of one check about one thing."""

    about: str
    name: str

    def ok(self, message: str) -> Finding:
        return Finding(about=self.about, check=self.name, level=Level.OK, message=message)

    def warning(self, message: str, advice: str) -> Finding:
        return Finding(about=self.about, check=self.name, level=Level.WARNING, message=message, advice=advice)

    def problem(self, message: str, advice: str) -> Finding:
        return Finding(about=self.about, check=self.name, level=Level.PROBLEM, message=message, advice=advice)


CLUSTER = "cluster"


def enumerated(names: Sequence[str]) -> str:
    """The first names, and how many there are beyond them."""
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")


def counted(count: int, what: str) -> str:
    """As `1 slot`, `2 slots`."""
    return f"{count} {what}{'' if count == 1 else 's'}"
