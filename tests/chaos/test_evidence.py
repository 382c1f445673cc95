"""What counts as a broken promise: chaos that overlooked it would prove nothing."""

from __future__ import annotations

from collections.abc import Sequence

from deploy.sandbox.demo.journal import Run
from deploy.sandbox.demo.story import PROTECTED, SHORT
from tests.chaos.evidence import MARGIN_S, Record, findings


def run(task: str, began: float, ended: float | None, *, pod: str = "a", name: str = SHORT) -> Run:
    return Run(id=task, name=name, pod=pod, started_at=began, finished_at=ended)


def record(
    *tasks: str,
    deleted: dict[str, float] | None = None,
    killed: dict[str, list[float]] | None = None,
    outages: list[tuple[float, float]] | None = None,
) -> Record:
    """All tasks were submitted at 0."""
    made = Record(submitted=dict.fromkeys(tasks, 0.0), deleted=deleted or {}, outages=outages or [])
    made.killed.update(killed or {})
    return made


def kinds(runs: Sequence[Run], record: Record) -> list[str]:
    return [violation.kind for violation in findings(runs, record).violations]


def test_a_task_that_ran_once_is_fine() -> None:
    """Also when its pod is deleted after its end, or before the next one begins elsewhere."""
    assert kinds([run("t", 1, 2)], record("t", deleted={"a": 2.0})) == []


def test_a_pod_deleted_while_its_task_runs_is_a_violation() -> None:
    """Although the task still ends in the grace period."""
    assert kinds([run("t", 1, 3)], record("t", deleted={"a": 2.0})) == ["busy worker deleted"]


def test_a_protected_task_has_its_own_name() -> None:
    runs = [run("t", 1, 3, name=PROTECTED)]
    assert kinds(runs, record("t", deleted={"a": 2.0})) == ["protected worker deleted"]


def test_a_task_that_the_deletion_cut_off_is_told_thrice() -> None:
    """Its worker was busy, it has no end, and nobody ran it again."""
    found = kinds([run("t", 1, None)], record("t", deleted={"a": 2.0}))
    assert found == ["busy worker deleted", "task cut off", "task lost"]


def test_a_task_that_never_ran_is_lost() -> None:
    assert kinds([], record("t")) == ["task lost"]


def test_a_task_that_ran_twice_is_a_violation() -> None:
    assert kinds([run("t", 1, 2), run("t", 3, 4, pod="b")], record("t")) == ["task ran twice"]


def test_what_we_killed_ourselves_is_no_violation() -> None:
    """Celery promises no more than "at least once" then; it is counted."""
    runs = [run("t", 1, None), run("t", 9, 10, pod="b")]
    found = findings(runs, record("t", deleted={"a": 5.0}, killed={"a": [2.0]}))
    assert (found.violations, found.cut_off_by_us, found.repeated) == ((), 1, 1)


def test_a_kill_excuses_nothing_that_began_after_it() -> None:
    runs = [run("t", 3, None)]
    assert "busy worker deleted" in kinds(runs, record("t", deleted={"a": 5.0}, killed={"a": [2.0]}))


def test_a_broker_that_was_away_may_have_handed_a_task_out_twice() -> None:
    twice = [run("t", 1, 2), run("t", 3, 4, pod="b")]
    assert kinds(twice, record("t", outages=[(1.5, 2.5)])) == []
    assert kinds(twice, record("t", outages=[(4 + 2 * MARGIN_S, 99.0)])) == ["task ran twice"]
