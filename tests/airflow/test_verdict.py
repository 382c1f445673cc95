"""What is said to be as it must be, and what is not; the story itself is `make test-airflow`."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.airflow.releases import RELEASES, Release
from tests.airflow.verdict import Evidence, Fact, Instance, complaints, facts, table

IDLE, BUSY, GUARDED = "worker-a", "worker-b", "worker-c"


def instance(
    *,
    pod: str = BUSY,
    state: str = "success",
    tries: int = 1,
    started_at: float = 10.0,
    ended_at: float = 20.0,
) -> Instance:
    return Instance(
        dag_id="sales",
        task_id="load",
        map_index=-1,
        state=state,
        tries=tries,
        pod=pod,
        started_at=started_at,
        ended_at=ended_at,
    )


def evidence(**changes: object) -> Evidence:
    """All as it must be, but for the changes."""
    seen = Evidence(
        idle=frozenset({IDLE}),
        busy=frozenset({BUSY}),
        guarded=frozenset({GUARDED}),
        touched={IDLE, BUSY},
        deleted={IDLE: 15.0, BUSY: 30.0},
        most_workers=3,
        instances=(instance(),),
        refusals=Counter(LabelsUnknown=2, Protected=1, Busy=1),
        allowed=2,
        unavailable_s=8.0,
        recovered_s=1.0,
    )
    for name, value in changes.items():
        setattr(seen, name, value)
    return seen


def wrong(seen: Evidence) -> list[str]:
    return complaints(seen, facts(seen, instances=1, most_workers=3))


def test_all_is_as_it_must_be() -> None:
    assert wrong(evidence()) == []


@pytest.mark.parametrize(
    "changes",
    [
        {"instances": (instance(tries=2),)},
        {"instances": (instance(state="failed"),)},
        {"instances": ()},
        {"killed": (BUSY,)},
        {"deleted": {IDLE: 15.0, BUSY: 12.0}},
        {"deleted": {IDLE: 15.0}},
        {"touched": {IDLE, BUSY, GUARDED}},
        {"guarded": frozenset()},
        {"refusals": Counter(Protected=1)},
        {"refusals": Counter(LabelsUnknown=1)},
        {"most_workers": 2},
        {"unavailable_s": None},
        {"recovered_s": None},
        {"remarks": ["The story went wrong."]},
    ],
    ids=str,
)
def test_one_thing_that_is_wrong_is_said(changes: dict[str, object]) -> None:
    """A repeated or failed task, a killed or busy or protected worker that went, a refusal that was not."""
    assert wrong(evidence(**changes))


def test_a_worker_may_go_when_its_task_has_ended() -> None:
    assert wrong(evidence(deleted={IDLE: 15.0, BUSY: 20.0})) == []


def test_the_table_shows_what_is_wrong() -> None:
    columns = {
        "old": (Fact(name="killed", value=1, is_right=False),),
        "new": (Fact(name="seconds", value=9),),
    }
    lines = [line.split() for line in table(columns)]
    assert lines == [["old", "new"], ["killed", "1", "!", "-"], ["seconds", "-", "9"]]


@pytest.mark.parametrize("release", RELEASES.values(), ids=RELEASES)
def test_a_release_is_what_its_lock_file_names(release: Release) -> None:
    version = release.name.removeprefix("Airflow ")
    assert f"\napache-airflow=={version}." in release.lock.read_text()
