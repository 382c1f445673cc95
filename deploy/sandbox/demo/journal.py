"""What really ran where, from the workers' own journal. Pure, but for `read_journal`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from redis.asyncio import Redis

JOURNAL = "sandbox:journal"


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One execution of a task; `finished_at` stays None when its worker was killed."""

    id: str
    name: str
    pod: str
    started_at: float
    finished_at: float | None = None


def runs_from(entries: Iterable[Mapping[str, Any]]) -> tuple[Run, ...]:
    """Pair starts with ends; a task that ran twice gives two runs."""
    open_runs: dict[tuple[str, str], Run] = {}
    done: list[Run] = []
    for entry in entries:
        key = (entry["id"], entry["pod"])
        if entry["event"] == "started":
            open_runs[key] = Run(id=entry["id"], name=entry["name"], pod=entry["pod"], started_at=entry["at"])
        elif (run := open_runs.pop(key, None)) is not None:
            done.append(
                Run(id=run.id, name=run.name, pod=run.pod, started_at=run.started_at, finished_at=entry["at"])
            )
    return tuple(sorted((*done, *open_runs.values()), key=lambda run: run.started_at))


async def read_journal(valkey: Redis) -> tuple[Run, ...]:
    """Every run so far."""
    entries = await valkey.lrange(JOURNAL, 0, -1)
    return runs_from(json.loads(entry) for entry in entries)
