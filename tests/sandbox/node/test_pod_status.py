"""What the kubelet reports, without any pod running."""

from typing import Any

import pytest

from deploy.sandbox.node.pod_status import ContainerReport, pod_status
from deploy.sandbox.node.process_guard import remaining


def report(*containers: ContainerReport, before: Any = None, now: str = "T1") -> Any:
    return pod_status(containers, before=before or {}, ip="127.10.0.1", started_at="T0", now=now)


def container(name: str = "main", **fields: Any) -> ContainerReport:
    return ContainerReport(**{"name": name, "state": "running", "started_at": "T0", **fields})


def ready(status: Any) -> Any:
    return next(one for one in status["conditions"] if one["type"] == "Ready")


@pytest.mark.parametrize(
    ("containers", "phase"),
    [
        ([container()], "Running"),
        ([container(), ContainerReport(name="late")], "Pending"),
        ([container(has_ended_for_good=True)], "Succeeded"),
        ([container(has_ended_for_good=True), container(has_ended_for_good=True, exit_code=1)], "Failed"),
        ([container(has_ended_for_good=True), container()], "Running"),
    ],
)
def test_the_phase_follows_the_containers(containers: list[ContainerReport], phase: str) -> None:
    """Pending until all have begun, ended once all have ended for good."""
    assert report(*containers)["phase"] == phase


def test_a_pod_is_ready_when_every_container_is() -> None:
    """One that is not holds back the pod."""
    assert ready(report(container(is_ready=True), container("b", is_ready=True)))["status"] == "True"
    assert ready(report(container(is_ready=True), container("b")))["status"] == "False"


def test_a_condition_keeps_its_time_until_it_changes() -> None:
    """The age of readiness is what a ReplicaSet chooses victims by."""
    first = report(container(is_ready=True), now="T1")
    second = report(container(is_ready=True, restarts=1), before=first, now="T2")
    third = report(container(), before=second, now="T3")
    assert [ready(one)["lastTransitionTime"] for one in (first, second, third)] == ["T1", "T1", "T3"]


def test_a_pod_that_ran_once_does_not_become_pending_again() -> None:
    """A restart is no return to Pending."""
    waiting = ContainerReport(name="main", reason="CrashLoopBackOff", started_at="T0")
    status = report(waiting, before={"phase": "Running"})
    assert status["phase"] == "Running"
    assert status["containerStatuses"][0]["state"] == {"waiting": {"reason": "CrashLoopBackOff"}}


def test_the_guard_remembers_groups_until_they_are_released() -> None:
    """Only what was not released is killed in the end; a number may come again."""
    assert remaining(["+10\n", "+11\n", "-10\n", "+12\n", "-12\n", "+12\n"]) == {11, 12}
