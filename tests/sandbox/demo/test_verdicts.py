"""The hook's verdicts, out of its log."""

import json
from typing import Any

from deploy.sandbox.demo.verdicts import median_seconds, verdicts_from
from tests.sandbox.demo.stories import verdict

VERDICT = {
    "allowed": True,
    "reason": "Drained",
    "from_replicas": 8,
    "to_replicas": 7,
    "dry_run": False,
    "seconds": 0.0329,
    "phases": {"gather": 0.0014, "cancel": 0.0253},
    "time": "2026-11-24T22:49:33.953Z",
    "logger": "drain_hook.announcements",
    "message": "Scale-down of Deployment default/worker from 8 to 7 replicas allowed (Drained)",
}


def log(*lines: dict[str, Any] | str) -> str:
    return "".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines)


def test_a_verdict_is_read_with_its_time_and_its_phases() -> None:
    assert verdicts_from(log(VERDICT)) == (
        verdict(
            8,
            7,
            at=1795560573.953,
            seconds=0.0329,
            phases={"gather": 0.0014, "cancel": 0.0253},
        ),
    )


def test_verdicts_come_in_the_order_they_were_given() -> None:
    refused = VERDICT | {"allowed": False, "reason": "Busy"}
    assert [mark.reason for mark in verdicts_from(log(refused, VERDICT))] == ["Busy", "Drained"]


def test_what_is_no_verdict_is_passed_over() -> None:
    """The line printed at start, other log lines, and what a crash may print."""
    other = {"time": VERDICT["time"], "level": "INFO", "message": "drain_hook stops"}
    assert verdicts_from(log("drain_hook serves https://127.0.0.1:8443", other, "[1, 2]", "null", "")) == ()


def test_a_line_that_is_not_all_written_yet_is_passed_over() -> None:
    """The log is read while the hook writes it."""
    assert len(verdicts_from(log(VERDICT) + json.dumps(VERDICT)[:-20])) == 1


def test_a_verdict_without_phases_is_one_all_the_same() -> None:
    """An answer that needed no round has none."""
    line = {key: value for key, value in VERDICT.items() if key != "phases"}
    assert verdicts_from(log(line))[0].phases == {}


def test_the_middle_verdict_is_the_measure() -> None:
    assert median_seconds(tuple(verdict(seconds=s) for s in (0.9, 0.1, 0.2))) == 0.2
    assert median_seconds(()) == 0
