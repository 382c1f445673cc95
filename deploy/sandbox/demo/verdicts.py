"""The hook's verdicts, read from its log: one JSON line each. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime
from statistics import median

from deploy.sandbox.demo.timeline import RoundMark


def verdicts_from(log: str) -> tuple[RoundMark, ...]:
    """Every verdict on a scale-down, in the order they were given."""
    return tuple(
        _verdict(line) for line in _lines(log) if {"allowed", "from_replicas", "dry_run"} <= line.keys()
    )


def _lines(log: str) -> Iterator[dict[str, object]]:
    for text in log.splitlines():
        try:
            line = json.loads(text)
        except ValueError:
            continue  # the one line that says where the service serves
        if isinstance(line, dict):
            yield line


def _verdict(line: dict[str, object]) -> RoundMark:
    return RoundMark(
        at=datetime.fromisoformat(str(line["time"])).timestamp(),
        allowed=bool(line["allowed"]),
        from_replicas=int(str(line["from_replicas"])),
        to_replicas=int(str(line["to_replicas"])),
        reason=str(line["reason"]),
        seconds=float(str(line["seconds"])),
        phases=_phases(line.get("phases")),
    )


def _phases(logged: object) -> dict[str, float]:
    return {str(name): float(spent) for name, spent in logged.items()} if isinstance(logged, dict) else {}


def median_seconds(rounds: tuple[RoundMark, ...]) -> float:
    """Seconds of the middle verdict; 0 without any."""
    return median(mark.seconds for mark in rounds) if rounds else 0.0
