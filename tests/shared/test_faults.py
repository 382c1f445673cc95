"""A process ends at the point that it is told to, and at no other."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from shared import faults
from shared.errors import ConfigurationError
from shared.faults import FaultPoint

ROOT = Path(__file__).parents[2]
PROGRAM = """
from shared import faults
faults.arm()
for number in range(3):
    faults.reach(faults.FaultPoint.AFTER_PLAN)
    faults.reach(faults.FaultPoint.AFTER_MARKS)
    print(number, flush=True)
"""


def run(fault: str | None) -> tuple[int, str]:
    """The return code of a process that comes by two points three times, and what it said until then."""
    environment = {name: value for name, value in os.environ.items() if name != faults.VARIABLE}
    environment |= {} if fault is None else {faults.VARIABLE: fault}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=environment, cwd=ROOT, capture_output=True, text=True, timeout=30
    )
    return done.returncode, done.stdout


def test_nothing_happens_without_the_variable() -> None:
    assert run(None) == (0, "0\n1\n2\n")


def test_a_point_that_is_never_reached_ends_nothing() -> None:
    assert run("after-answer") == (0, "0\n1\n2\n")


def test_the_process_is_killed_at_its_point() -> None:
    """As by `kill -9`: nothing is tidied up."""
    assert run("after-marks") == (-signal.SIGKILL, "")


def test_the_nth_time_counts() -> None:
    assert run("after-marks:3") == (-signal.SIGKILL, "0\n1\n")


@pytest.mark.parametrize("text", ["", "nowhere", "after-marks:0", "after-marks:x", "after-marks:"])
def test_a_fault_that_is_none_is_a_mistake_of_the_configuration(text: str) -> None:
    """Whoever misspells a point would believe that everything survived it."""
    with pytest.raises(ConfigurationError) as caught:
        faults.arm({faults.VARIABLE: text})
    (mistake,) = caught.value.mistakes
    assert mistake.path == faults.VARIABLE
    assert all(point in mistake.message for point in FaultPoint)
