"""The table says what happened."""

from __future__ import annotations

from collections import Counter

from tests.chaos.evidence import Findings, Violation
from tests.chaos.report import evidence, table
from tests.chaos.storms import Outcome
from tests.chaos.traffic import Tally


def outcome(*violations: Violation, **disturbances: int) -> Outcome:
    return Outcome(
        disturbances=Counter(disturbances),
        heal_s=[2.0, 30.0, 4.0],
        violations=list(violations),
        findings=Findings(violations=(), tasks=9, cut_off_by_us=1, repeated=0),
        verdicts=Counter({"Drained": 2, "Busy": 1}),
    )


def cells(lines: list[str]) -> dict[str, list[str]]:
    return {line[:44].strip(): line[44:].split() for line in lines}


def test_each_broker_is_a_column() -> None:
    """What happened on one of them only is none on the other."""
    tally = Tally(answers=Counter(allowed=2, refused=1), ups=3)
    rows = cells(table({"one": (outcome(a=1), tally, 5), "other": (outcome(b=2), Tally(), 0)}))
    assert rows[""] == ["one", "other"]
    assert rows["scale-downs asked for"] == ["3", "0"]
    assert rows["pods deleted"] == ["5", "0"]
    assert rows["rounds, as the hook logs them"] == ["3", "3"]
    assert (rows["a"], rows["b"]) == (["1", "0"], ["0", "2"])
    assert rows["seconds until well, median"] == ["4.0", "4.0"]
    assert rows["seconds until well, longest"] == ["30.0", "30.0"]


def test_violations_are_counted_by_kind_and_told_with_their_evidence() -> None:
    lost = Violation(kind="task lost", evidence="t never ran")
    outcomes = {"one": outcome(lost, lost)}
    rows = cells(table({name: (found, Tally(), 0) for name, found in outcomes.items()}))
    assert (rows["violations"], rows["task lost"]) == (["2"], ["2"])
    assert evidence(outcomes) == ["one: task lost: t never ran"] * 2
