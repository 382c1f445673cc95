"""What is remembered of the code of tasks that run."""

from __future__ import annotations

import pytest

from shared.airflow_label_memory import LabelMemory, Run
from shared.workers import NO_LABEL, Label

KEY, OTHER = ("reports", "build", "r", -1), ("reports", "load", "r", -1)
PROTECTED, HEAVY = Label(protect=True), Label(weight=5.0)


def run(code: Label | None, *, celery_id: str | None = "c1", try_number: int | None = 1) -> Run:
    return Run(celery_id, try_number, code)


@pytest.mark.parametrize(
    ("first", "now", "told"),
    [
        (PROTECTED, NO_LABEL, PROTECTED),
        (PROTECTED, None, PROTECTED),
        (NO_LABEL, None, NO_LABEL),
        (NO_LABEL, HEAVY, HEAVY),
        (Label(weight=2), Label(protect=True, weight=5), Label(protect=True, weight=2)),
        (None, HEAVY, HEAVY),
        (None, None, None),
    ],
)
def test_the_code_that_was_seen_first_goes_before_that_of_now(
    first: Label | None, now: Label | None, told: Label | None
) -> None:
    """What a later version adds counts, too: it is the wish of now."""
    memory = LabelMemory()
    memory.recall({KEY: run(first)}, read_at=1)
    assert memory.recall({KEY: run(now)}, read_at=2) == {KEY: told}


def test_a_label_that_came_and_went_while_the_task_ran_is_gone() -> None:
    """Only the code that it began with is kept."""
    memory = LabelMemory()
    for read_at, code in enumerate([NO_LABEL, PROTECTED, NO_LABEL]):
        told = memory.recall({KEY: run(code)}, read_at=read_at)
    assert told == {KEY: NO_LABEL}


@pytest.mark.parametrize("later", [run(None, celery_id="c2"), run(None, try_number=2)])
def test_another_process_begins_anew(later: Run) -> None:
    memory = LabelMemory()
    memory.recall({KEY: run(PROTECTED)}, read_at=1)
    assert memory.recall({KEY: later}, read_at=2) == {KEY: None}


def test_an_id_that_is_written_down_later_is_of_the_same_process() -> None:
    memory = LabelMemory()
    memory.recall({KEY: run(PROTECTED, celery_id=None)}, read_at=1)
    memory.recall({KEY: run(NO_LABEL)}, read_at=2)
    assert memory.recall({KEY: run(NO_LABEL)}, read_at=3) == {KEY: PROTECTED}
    assert memory.recall({KEY: run(NO_LABEL, celery_id="c2")}, read_at=4) == {KEY: NO_LABEL}


def test_what_has_ended_is_forgotten() -> None:
    memory = LabelMemory()
    memory.recall({KEY: run(PROTECTED)}, read_at=1)
    memory.recall({OTHER: run(HEAVY)}, read_at=2)
    assert memory.recall({KEY: run(NO_LABEL)}, read_at=3) == {KEY: NO_LABEL}


def test_an_older_reading_that_is_late_changes_no_memory() -> None:
    """Two threads read: who is done last need not have begun last."""
    memory = LabelMemory()
    memory.recall({KEY: run(PROTECTED)}, read_at=2)
    assert memory.recall({OTHER: run(HEAVY)}, read_at=1) == {OTHER: HEAVY}
    assert memory.recall({KEY: run(None)}, read_at=3) == {KEY: PROTECTED}
