"""Scale-downs of real workers, hook and loop beside each other: what a simulated crowd leaves out.

Every worker reads every command of remote control, and on this machine all of them share its cores.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from tests.bench.figures import Target, save
from tests.bench.scale_downs import QUICK_ROUNDS, ROUNDS, loop_beside, phases_table, rows, table
from tests.bench.simulated import simulation

WORKERS, QUICK_WORKERS = 50, 10


async def measure_real_workers(directory: Path, *, repeats: int) -> Sequence[Target]:
    """Of fifty, with a process for each of their two slots."""
    is_quick = bool(os.environ.get("QUICK"))
    workers, rounds = (QUICK_WORKERS, QUICK_ROUNDS) if is_quick else (WORKERS, ROUNDS)
    print(f"Starting {workers} workers.", flush=True)
    async with (
        simulation(directory, has_real_workers=True) as fleet,
        loop_beside(directory, fleet) as loop,
    ):
        await fleet.scale_up(workers)
        await fleet.until_all_consume(workers)
        measured = [one async for one in rows(fleet, loop, broker="valkey", workers=workers, rounds=rounds)]
    print("\n" + "\n".join(table(measured)) + "\n")
    print("\n".join(phases_table(measured)))
    save(directory, [asdict(one) for one in measured])
    return ()
