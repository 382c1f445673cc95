"""What the tests start ends with them, however that comes about."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

_ROOT = Path(__file__).parent.parent
_HOLDS_A_BROKER = """
from tests.brokers import valkey
with valkey() as server:
    print(server._process.pid, flush=True)
    input()
"""


@pytest.mark.skipif(not Path("/proc").exists(), reason="sees processes through /proc")
def test_a_broker_does_not_outlive_a_test_run_that_is_killed() -> None:
    """By SIGKILL, after which nothing of ours runs any more."""
    holder = subprocess.Popen(
        [sys.executable, "-c", _HOLDS_A_BROKER],
        cwd=_ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with holder:
        assert holder.stdout is not None
        broker = int(holder.stdout.readline())
        os.kill(broker, 0)
        holder.kill()
    deadline = time.monotonic() + 20
    while _runs(broker):
        assert time.monotonic() < deadline, f"process {broker} is still there"
        time.sleep(0.05)


def _runs(pid: int) -> bool:
    """A zombie does not: whoever adopts orphans may take its time to bury them."""
    stat = Path(f"/proc/{pid}/stat")
    try:
        return stat.read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
