"""What people see of a drain: on the pods, on the workload, in the log and in figures."""

import logging
import re
from dataclasses import replace
from typing import Any

import pytest

from drain_hook.admission import parse_review
from drain_hook.announcements import MOST_PODS_TOLD
from drain_hook.events import RAISED_EVERY_S
from drain_hook.explanations import moment
from shared.errors import KubernetesUnavailable
from shared.marks import SUMMARY_ANNOTATION
from tests.drain_hook.stages import NAMESPACE, Stage, node, running, stage
from tests.drain_hook.test_admission import NEW_IMAGE, update

POOL = {"pool": "default", "namespace": NAMESPACE}


def summary(scene: Stage, pod: str) -> str | None:
    return scene.cluster.annotations_of(pod, namespace=NAMESPACE).get(SUMMARY_ANNOTATION)


def told(scene: Stage, name: str) -> list[tuple[str, str]]:
    return [(event.reason, event.message) for event in scene.events_of(name)]


def all_busy(replicas: int, **settings: Any) -> Stage:
    return stage(replicas, busy={f"worker-{i}": [running()] for i in range(replicas)}, **settings)


# On the pods: `kubectl describe pod`


async def test_a_draining_pod_says_why_and_since_when() -> None:
    """In an annotation, which lasts as long as the drain does; an Event is gone after an hour."""
    scene = all_busy(2)
    await scene.ask(2, 1)
    (leaving,) = scene.marked
    assert re.fullmatch(
        r"since 20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ, for the scale-down from 2 to 1 replicas"
        r" \(round 2to1-g\d+\): it takes no new tasks",
        summary(scene, leaving) or "",
    )
    (stays,) = scene.pods.keys() - scene.marked
    assert summary(scene, stays) is None


async def test_since_is_when_draining_began_not_when_it_was_asked_for_last() -> None:
    """The HPA asks every 15 s."""
    scene = all_busy(2)
    await scene.ask(2, 1)
    (leaving,) = scene.marked
    began = summary(scene, leaving)
    scene.clock.ahead_s = 15.0
    await scene.ask(2, 1)
    assert summary(scene, leaving) == began


async def test_a_pod_that_is_given_back_says_nothing_any_more() -> None:
    scene = all_busy(2)
    await scene.ask(2, 1)
    (leaving,) = scene.marked
    scene.scale(3)
    await scene.reconciler.reconcile()
    await scene.settle()
    assert summary(scene, leaving) is None


async def test_a_worker_that_is_waited_for_says_for_what() -> None:
    """An Event on its pod names the task, since when it runs, and the scale-down."""
    scene = all_busy(2)
    await scene.ask(2, 1)
    (leaving,) = scene.marked
    (task,) = scene.celery.workers[node(leaving)].active
    assert task.started_at is not None
    ((reason, message),) = told(scene, leaving)
    assert reason == "Draining"
    assert message == (
        "For the scale-down of Deployment worker from 2 to 1 replicas:"
        f" {leaving} runs reports.build (3f2a91bc), since {moment(task.started_at)}."
    )


async def test_an_idle_victim_has_no_time_for_an_event() -> None:
    """It is deleted at once; what became of it is said on the workload."""
    scene = stage(3)
    await scene.ask(3, 1)
    assert {event.involved.name for event in scene.cluster.events} == {"worker"}


async def test_a_large_scale_down_is_no_flood_of_events() -> None:
    """The annotation is on every pod."""
    scene = all_busy(MOST_PODS_TOLD + 10)
    await scene.ask(MOST_PODS_TOLD + 10, 0)
    events = [event for event in scene.cluster.events if event.involved.name != "worker"]
    assert len(events) == MOST_PODS_TOLD
    assert all(summary(scene, pod) for pod in scene.pods)


async def test_a_dry_run_tells_nobody_but_who_asked() -> None:
    scene = all_busy(2)
    await scene.ask(2, 1, is_dry_run=True)
    assert scene.cluster.events == []


async def test_a_pod_that_the_reconciler_gives_back_says_so() -> None:
    """On the pod and on the workload, with why."""
    scene = all_busy(2)
    await scene.ask(2, 1)
    (leaving,) = scene.marked
    scene.scale(3)
    await scene.reconciler.reconcile()
    await scene.settle()
    why = "because the workload was scaled up again, or further."
    assert told(scene, leaving)[-1] == ("DrainReleased", f"Not draining any more, {why}")
    assert told(scene, "worker")[-1] == ("DrainReleased", f"Given back: {leaving}, {why}")


async def test_a_pod_whose_place_another_takes_says_so() -> None:
    """A worker that became idle goes in place of the busy one that was being drained."""
    scene = all_busy(2)
    await scene.ask(2, 1)
    (spared,) = scene.marked
    (idle,) = scene.pods.keys() - scene.marked
    scene.finish(idle)
    await scene.warm_up()
    assert (await scene.ask(2, 1)).reason == "Drained"
    assert scene.marked == {idle}
    why = "because other workers go in this scale-down."
    assert told(scene, spared)[-1] == ("DrainReleased", f"Not draining any more, {why}")


async def test_a_round_that_is_taken_back_says_so(caplog: pytest.LogCaptureFixture) -> None:
    """A protected task has slipped in: nobody else can go, and whoever was marked works again."""
    scene = stage(1)
    scene.celery.before_answer = lambda call: (
        scene.celery.start(node("worker-0"), running("billing.charge"))
        if call.method == "cancel_consumer" and not scene.celery.workers[node("worker-0")].active
        else None
    )
    assert (await scene.ask(1, 0)).reason == "Protected"
    why = "because the scale-down was not allowed."
    assert told(scene, "worker-0") == [("DrainReleased", f"Not draining any more, {why}")]
    assert scene.cluster.annotations_of("worker-0", namespace=NAMESPACE) == {}


# Told again


async def test_what_is_said_again_is_one_event_with_a_count() -> None:
    """The HPA asks every 15 s for as long as a task runs; `kubectl get events` shows `x5 over 4m`."""
    scene = all_busy(2)
    for _ in range(5):
        await scene.ask(2, 1)
        scene.clock.ahead_s += RAISED_EVERY_S
    (leaving,) = scene.marked
    assert [(event.reason, event.count) for event in scene.cluster.events] == [
        ("ScaleDownRefused", 5),
        ("Draining", 5),
    ]
    assert {event.involved.name for event in scene.cluster.events} == {"worker", leaving}


async def test_it_says_what_is_true_now() -> None:
    """Of two tasks one has ended since."""
    scene = stage(1, busy={"worker-0": [running("reports.a", id="1"), running("reports.b", id="2")]})
    await scene.ask(1, 0)
    worker = scene.celery.workers[node("worker-0")]
    scene.celery.workers[node("worker-0")] = replace(worker, active=worker.active[1:])
    scene.clock.ahead_s += RAISED_EVERY_S
    await scene.ask(1, 0)
    (event,) = scene.events_of("worker")
    assert "reports.b" in event.message
    assert "reports.a" not in event.message


async def test_the_api_server_is_not_told_each_time() -> None:
    """What comes within a minute is counted, and written with the next."""
    scene = all_busy(2)
    for _ in range(4):
        await scene.ask(2, 1)
        scene.clock.ahead_s += 15
    assert scene.cluster.calls_of("repeat_event") == []
    await scene.ask(2, 1)
    assert scene.events_of("worker")[0].count == 5


async def test_another_state_is_another_event() -> None:
    """Refused, then drained; and a scale-down from other replicas is another one, too."""
    scene = all_busy(2)
    await scene.ask(2, 1)
    scene.finish(*scene.marked)
    await scene.ask(2, 1)
    await scene.ask(2, 0)
    assert [(event.reason, event.count) for event in scene.events_of("worker")] == [
        ("ScaleDownRefused", 1),
        ("ScaleDownDrained", 1),
        ("ScaleDownRefused", 1),
    ]


async def test_an_event_that_has_expired_is_told_anew() -> None:
    """Kubernetes forgets them an hour after they were told last."""
    scene = all_busy(2)
    await scene.ask(2, 1)
    scene.cluster.events.clear()
    scene.clock.ahead_s += RAISED_EVERY_S
    await scene.ask(2, 1)
    assert [event.count for event in scene.events_of("worker")] == [1]


async def test_one_that_could_not_be_written_is_written_later() -> None:
    scene = all_busy(2)
    scene.cluster.broken["create_event"] = KubernetesUnavailable("no answer")
    await scene.ask(2, 1)
    scene.cluster.broken.clear()
    scene.clock.ahead_s += RAISED_EVERY_S
    await scene.ask(2, 1)
    assert [event.reason for event in scene.events_of("worker")] == ["ScaleDownRefused"]


# In the log


async def test_the_line_of_a_verdict_has_the_whole_plan(caplog: pytest.LogCaptureFixture) -> None:
    """Who asked for what, who goes at which cost, who is busy or protected, and the seconds of each step."""
    scene = stage(
        4, busy={"worker-1": [running()], "worker-2": [running("billing.charge")]}, drain={"holdSeconds": 0}
    )
    with caplog.at_level(logging.INFO, logger="drain_hook"):
        await scene.ask(4, 1, username="alice")
    (record,) = caplog.records
    fields = vars(record)
    assert set(fields["victims"]) == {"worker-0", "worker-1", "worker-3"}
    assert {
        name: fields[name]
        for name in (
            "reason",
            "user",
            "from_replicas",
            "to_replicas",
            "busy",
            "protected",
            "silent",
            "unused",
        )
    } == {
        "reason": "Busy",
        "user": "alice",
        "from_replicas": 4,
        "to_replicas": 1,
        "busy": ["worker-1"],
        "protected": [node("worker-2")],
        "silent": [],
        "unused": [],
    }
    assert fields["costs"] == dict.fromkeys(fields["victims"], -1)
    assert set(fields["phases"]) >= {"gather", "plan", "mark", "cancel"}


async def test_a_rollout_with_fewer_replicas_is_a_line_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    """Nobody was drained, and the figures say so."""
    scene = stage(5)
    review = parse_review(update(NEW_IMAGE, (("namespace",), NAMESPACE), (("name",), "worker")))
    with caplog.at_level(logging.INFO, logger="drain_hook"):
        verdict = await scene.drainer.review(review, deadline=0.0)
    assert verdict.reason == "Rollout"
    (record,) = caplog.records
    assert (vars(record)["reason"], vars(record)["to_replicas"]) == ("Rollout", 2)
    assert scene.sample("drain_hook_verdicts_total", **POOL, allowed="true", reason="Rollout") == 1
    assert scene.cluster.writes == []


async def test_what_does_not_concern_a_pool_is_no_line(caplog: pytest.LogCaptureFixture) -> None:
    """Every Deployment of the cluster may be asked about."""
    scene = stage(5)
    review = parse_review(update((("namespace",), "elsewhere")))
    with caplog.at_level(logging.INFO, logger="drain_hook"):
        assert (await scene.drainer.review(review, deadline=0.0)).reason == "NotOurs"
    assert caplog.records == []


# In figures


async def test_every_phase_of_a_round_is_measured() -> None:
    """The seconds of each step, by name; the round as a whole by its outcome."""
    scene = all_busy(2, drain={"holdSeconds": 0.05})
    await scene.ask(2, 1)
    await scene.ask(2, 1)
    for phase in ("gather", "plan", "mark", "cancel", "hold", "adopt"):
        assert scene.sample("drain_hook_phase_seconds_count", phase=phase) > 0, phase
    assert scene.sample("drain_hook_round_seconds_count", allowed="false") == 2


async def test_what_is_given_back_is_counted_by_why() -> None:
    """In a round and by the reconciler."""
    scene = all_busy(2)
    await scene.ask(2, 1)
    (idle,) = scene.pods.keys() - scene.marked
    scene.finish(idle)
    await scene.warm_up()
    await scene.ask(2, 1)
    assert scene.sample("drain_hook_releases_total", **POOL, reason="Unused") == 1
    assert scene.sample("drain_hook_phase_seconds_count", phase="release") == 1
    scene.scale(2)
    scene.scale(3)
    await scene.reconciler.reconcile()
    assert scene.sample("drain_hook_releases_total", **POOL, reason="ScaledUp") == 1


async def test_rounds_in_flight_are_counted_while_they_last() -> None:
    scene = stage(2)
    during: list[float] = []
    scene.celery.before_answer = lambda call: during.append(scene.sample("drain_hook_rounds_in_flight"))
    await scene.ask(2, 1)
    assert set(during) == {1.0}
    assert scene.sample("drain_hook_rounds_in_flight") == 0


async def test_the_pods_that_drain_now_are_a_figure() -> None:
    scene = all_busy(3)
    await scene.ask(3, 1)
    await scene.reconciler.reconcile()
    assert scene.sample("drain_hook_marked_pods", **POOL) == 2
