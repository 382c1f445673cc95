"""What really ran where, from the workers' own journal. Pure, but for `read_journal`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from redis.asyncio import Redis

JOURNAL = "sandbox:journal"


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One execution of a task; `finished_at` stays None when its process was killed."""

    id: str
    name: str
    pod: str
    started_at: float
    finished_at: float | None = None


def runs_from(entries: Iterable[Mapping[str, Any]]) -> tuple[Run, ...]:
    """Pair starts with ends; a task that ran twice gives two runs, even in one worker at a time.

    That happens: a broker that lost its connection to a worker hands the task out again, perhaps to it.
    """
    open_runs: dict[str, Run] = {}
    done: list[Run] = []
    for entry in entries:
        if entry["event"] == "started":
            run = Run(id=entry["id"], name=entry["name"], pod=entry["pod"], started_at=entry["at"])
            open_runs[entry["run"]] = run
        elif begun := open_runs.pop(entry["run"], None):
            done.append(replace(begun, finished_at=entry["at"]))
    return tuple(sorted((*done, *open_runs.values()), key=lambda run: run.started_at))


async def read_journal(valkey: Redis) -> tuple[Run, ...]:
    """Every run so far."""
    entries = await valkey.lrange(JOURNAL, 0, -1)
    return runs_from(json.loads(entry) for entry in entries)
