"""What a review must not do, and how it ends when something fails."""

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from drain_hook.admission import Review
from drain_hook.drainer import MOST_OF_ONE_WORKLOAD
from drain_hook.round_locks import LEASE_DURATION_S
from shared.errors import BrokerUnavailable, KubernetesUnavailable
from shared.leases import Lease
from shared.marks import MARK_ANNOTATION
from shared.pods import BYPASS_ANNOTATION, Pod
from tests.drain_hook.stages import AT_ONCE, NAMESPACE, QUEUES, Stage, node, running, stage
from tests.fakes.celery import Call
from tests.fakes.kubernetes import FakeCluster

UNAVAILABLE = KubernetesUnavailable("the API server is gone", status=503)


class SlowPatch(FakeCluster):
    """The mark of one pod takes effect when the test says so; that of another fails."""

    slow, failing = "", ""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.was_asked, self.may_go_on = asyncio.Event(), asyncio.Event()

    async def patch_pod(
        self,
        *,
        namespace: str,
        name: str,
        uid: str,
        annotations: Mapping[str, str | None],
        resource_version: str = "",
    ) -> Pod:
        if annotations.get(MARK_ANNOTATION) and name == self.slow:
            self.was_asked.set()
            await self.may_go_on.wait()
        if annotations.get(MARK_ANNOTATION) and name == self.failing:
            raise UNAVAILABLE
        return await super().patch_pod(
            namespace=namespace,
            name=name,
            uid=uid,
            annotations=annotations,
            resource_version=resource_version,
        )


def slow_stage(replicas: int, **fields: Any) -> tuple[Stage, SlowPatch]:
    """A stage on which the mark of worker-0 is slow."""
    cluster = SlowPatch()
    cluster.slow = "worker-0"
    return stage(replicas, cluster=lambda: cluster, **fields), cluster


def is_untouched(scene: Stage) -> bool:
    """No command was sent, and nothing written but leases and Events."""
    return scene.commands == [] and scene.cluster.calls_of("patch_pod") == []


def is_clean(scene: Stage) -> bool:
    """Every worker consumes, and no pod bears a trace of us."""
    traces = [name for name in scene.pods if scene.cluster.annotations_of(name, namespace=NAMESPACE)]
    return not scene.draining and not traces


async def until(condition: asyncio.Event) -> None:
    async with asyncio.timeout(5):
        await condition.wait()


# Early exits


async def test_what_is_no_scale_down_of_ours_is_let_through() -> None:
    """Nothing is looked at, let alone touched."""
    scene = stage(2)
    review = Review(uid="u", api_version="v1", scale_down=None, pass_reason="NotADecrease")
    assert (await scene.drainer.review(review, deadline=0.0)).reason == "NotADecrease"
    assert (await scene.ask(2, 1, name="web")).reason == "NotOurs"
    assert scene.cluster.calls == []


async def test_draining_can_be_switched_off() -> None:
    """A pool with drain.enabled: false is scaled as if we were not there."""
    scene = stage(2, drain={"enabled": False})
    assert (await scene.ask(2, 1)).reason == "Disabled"
    assert scene.cluster.calls == []


async def test_the_break_glass_works_without_anything_else() -> None:
    """Neither the broker nor a Lease is needed to let a scale-down through in an emergency."""
    scene = stage(2, annotations={BYPASS_ANNOTATION: "true"})
    scene.celery.broken = True
    scene.cluster.broken["read_lease"] = UNAVAILABLE
    verdict = await scene.ask(2, 1)
    assert (verdict.allowed, verdict.reason) == (True, "Bypassed")


@pytest.mark.parametrize(
    "claim", [{"workload_uid": "another"}, {"from_replicas": 5}, {"name": "worker", "from_replicas": 1}]
)
async def test_a_claim_that_is_not_true_is_refused(claim: Mapping[str, object]) -> None:
    """Whoever can reach us could send a forged review: nothing is touched before the claim is checked."""
    scene = stage(2)
    fields = {"from_replicas": 2, "to_replicas": 0, **claim}
    verdict = await scene.ask(**fields)  # type: ignore[arg-type]  # a case of keywords
    assert (verdict.allowed, verdict.reason) == (False, "ClaimMismatch")
    assert is_untouched(scene)


async def test_a_workload_that_is_gone_is_refused() -> None:
    scene = stage(2)
    claim = scene.claim(2, 1)
    scene.cluster.delete_workload(namespace=NAMESPACE)
    verdict = await scene.ask(2, 1, workload_uid=claim.workload_uid)
    assert verdict.reason == "ClaimMismatch"


async def test_a_dry_run_touches_nothing() -> None:
    """No write of any kind, no command; the warnings say who would go."""
    scene = stage(3, busy={"worker-0": [running()]})
    verdict = await scene.ask(3, 2, is_dry_run=True)
    assert verdict.allowed
    assert "worker-1" in " ".join(verdict.warnings) or "worker-2" in " ".join(verdict.warnings)
    assert scene.cluster.writes == []
    assert scene.commands == []


async def test_a_dry_run_knows_what_began_a_moment_ago() -> None:
    """It does not name a worker that took a task since it was last asked."""
    scene = stage(3)
    await scene.warm_up()
    for pod in ("worker-0", "worker-1"):
        scene.celery.start(f"celery@{pod}", running(id=pod))
    verdict = await scene.ask(3, 2, is_dry_run=True)
    assert verdict.warnings[0].endswith("these go, with nothing left to do: worker-2.")
    assert "worker-0" not in " ".join(verdict.warnings)


# One at a time


async def test_a_dry_run_asks_the_workers_themselves() -> None:
    """What was true a second ago may name a worker that has taken a task since."""
    scene = stage(2, busy={"worker-0": [running()]})
    await scene.warm_up()
    scene.finish("worker-0")
    scene.celery.start(node("worker-1"), running())
    verdict = await scene.ask(2, 1, is_dry_run=True)
    assert verdict.warnings[0].endswith("these go, with nothing left to do: worker-0.")


async def test_a_workload_that_another_replica_drains_is_refused() -> None:
    """429 and no Retry-After: nobody tries again by himself before the HPA's next sync."""
    scene = stage(2)
    theirs = Lease(
        scene.cluster, namespace=NAMESPACE, name="celery-hpa-drain-worker", holder="hook-2", duration_s=30
    )
    assert await theirs.acquire()
    verdict = await scene.ask(2, 1, within_s=0.2)
    assert (verdict.allowed, verdict.reason, verdict.code) == (False, "Locked", 429)
    assert "hook-2" in verdict.message
    assert is_untouched(scene)


async def test_two_reviews_of_one_workload_take_turns() -> None:
    """The second waits for the first; the claim being true still, it adopts what the first has done."""
    scene = stage(4)
    first, second = await asyncio.gather(scene.ask(4, 3, tidy=False), scene.ask(4, 3, tidy=False))
    assert (first.allowed, second.allowed) == (True, True)
    assert len(scene.marked) == 1
    assert scene.commands == ["cancel_consumer"]


async def test_too_many_rounds_are_refused_at_once() -> None:
    """The HPA has five workers for the whole cluster: better a fast no than a queue."""
    scene, cluster = slow_stage(1, most_rounds=1)
    first = asyncio.create_task(scene.ask(1, 0))
    await until(cluster.was_asked)
    verdict = await scene.ask(1, 0, tidy=False)
    assert (verdict.reason, verdict.code) == ("Full", 429)
    labels = {"pool": "default", "namespace": NAMESPACE, "allowed": "false", "reason": "Full"}
    assert scene.sample("drain_hook_verdicts_total", **labels) == 1
    cluster.may_go_on.set()
    assert (await first).allowed


async def test_one_workload_does_not_take_all_places() -> None:
    """Somebody who asks again and again is refused; there is room for other workloads."""
    scene, cluster = slow_stage(1)
    asking = [asyncio.create_task(scene.ask(1, 0, tidy=False)) for _ in range(MOST_OF_ONE_WORKLOAD + 1)]
    await until(cluster.was_asked)
    verdict = await asking[-1]
    assert (verdict.reason, verdict.code) == ("Locked", 429)
    cluster.may_go_on.set()
    assert all(answer.allowed for answer in await asyncio.gather(*asking[:-1]))


# Failures


async def test_without_the_broker_nobody_goes() -> None:
    """Nothing can be known, so nothing is allowed."""
    scene = stage(2)
    scene.celery.broken = True
    verdict = await scene.ask(2, 1)
    assert (verdict.allowed, verdict.reason) == (False, "BrokerUnavailable")
    assert is_untouched(scene)


async def test_a_broker_that_fails_midway_leaves_the_records() -> None:
    """Some worker may have got its cancel: what was begun stays on the pods until it can be undone."""
    scene = stage(2)

    def fail(call: Call) -> None:
        if call.method == "cancel_consumer":
            scene.celery.broken = True
            raise BrokerUnavailable("The connection broke.")

    scene.celery.before_answer = fail
    verdict = await scene.ask(2, 1)
    assert verdict.reason == "BrokerUnavailable"
    assert len(scene.marked) == 1


async def test_a_broker_that_fails_for_a_moment_is_undone_at_once() -> None:
    scene = stage(2)

    def fail_once(call: Call) -> None:
        if call.method == "cancel_consumer":
            scene.celery.before_answer = None
            raise BrokerUnavailable("The connection broke.")

    scene.celery.before_answer = fail_once
    assert (await scene.ask(2, 1)).reason == "BrokerUnavailable"
    assert is_clean(scene)


async def test_without_kubernetes_nobody_goes() -> None:
    scene = stage(2)
    scene.cluster.broken["*"] = UNAVAILABLE
    verdict = await scene.ask(2, 1)
    assert (verdict.allowed, verdict.reason) == (False, "KubernetesUnavailable")
    assert scene.commands == []


async def test_a_failed_patch_is_tried_once_more() -> None:
    scene = stage(2)
    scene.cluster.refusals["patch_pod"] = [UNAVAILABLE]
    assert (await scene.ask(2, 1)).allowed
    assert len(scene.cluster.calls_of("patch_pod")) == 2


async def test_a_patch_is_tried_again_when_the_api_server_says_so() -> None:
    """It asked for a moment's patience, which a review has."""
    scene = stage(2, pace=replace(AT_ONCE, longest_retry_pause_s=0.05))
    scene.cluster.refusals["patch_pod"] = [KubernetesUnavailable("busy", status=429, retry_after_s=0.05)]
    started = asyncio.get_running_loop().time()
    assert (await scene.ask(2, 1)).allowed
    assert asyncio.get_running_loop().time() - started >= 0.05


async def test_an_api_server_that_wants_long_peace_is_left_in_it() -> None:
    """No review has time for that: refused at once, and what was marked is given back."""
    scene = stage(2)
    scene.cluster.refusals["patch_pod"] = [KubernetesUnavailable("busy", status=429, retry_after_s=60.0)]
    assert (await scene.ask(2, 1)).reason == "KubernetesUnavailable"
    assert is_clean(scene)


async def test_a_victim_that_cannot_be_marked_ends_the_round() -> None:
    """One uncovered victim is a wrong prediction; those that were marked are taken back."""
    scene = stage(4)
    scene.cluster.refusals["patch_pod"] = [UNAVAILABLE] * 4
    verdict = await scene.ask(4, 1)
    assert (verdict.allowed, verdict.reason) == (False, "KubernetesUnavailable")
    assert is_clean(scene)


async def test_an_error_of_ours_is_refused_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    """A worker is not stopped because we have a bug; the person at kubectl is told where to look."""
    scene = stage(2)

    def stumble(call: Call) -> None:
        if call.method == "cancel_consumer":
            scene.celery.before_answer = None
            raise ZeroDivisionError

    scene.celery.before_answer = stumble
    verdict = await scene.ask(2, 1)
    assert (verdict.allowed, verdict.reason, verdict.code) == (False, "Failed", 500)
    assert "ZeroDivisionError" in caplog.text
    assert is_clean(scene)


async def test_an_undo_waits_for_what_it_undoes() -> None:
    """One mark fails while another is on its way: taking back begins when that one has arrived."""
    scene, cluster = slow_stage(3)
    cluster.failing = "worker-1"
    review = asyncio.create_task(scene.ask(3, 0))
    await until(cluster.was_asked)
    for _ in range(50):
        await asyncio.sleep(0)
    assert not review.done(), "the failed PATCH alone is no end"
    cluster.may_go_on.set()
    assert (await review).reason == "KubernetesUnavailable"
    assert is_clean(scene)


# Deadlines


async def test_a_review_is_answered_in_time_and_taken_back_later() -> None:
    """The API server does not wait; a step that is under way is waited for, and then undone."""
    scene = stage(2)
    scene.cluster.gates["patch_pod"] = asyncio.Event()
    verdict = await scene.ask(2, 1, within_s=0.1, tidy=False)
    assert (verdict.allowed, verdict.reason) == (False, "OutOfTime")
    assert scene.commands == []
    scene.cluster.gates["patch_pod"].set()
    await scene.settle()
    assert is_clean(scene)


async def test_a_late_round_that_was_applied_all_the_same_stays() -> None:
    """With failurePolicy: Ignore the API server lets it through: then the victims must go on draining."""
    scene = stage(2, busy={"worker-0": [running()]})
    scene.cluster.gates["patch_pod"] = asyncio.Event()
    await scene.ask(2, 1, within_s=0.1, tidy=False)
    scene.scale(1)
    scene.cluster.gates["patch_pod"].set()
    await scene.settle()
    assert scene.marked == {"worker-1"}


async def test_a_client_that_hangs_up_does_not_stop_a_round_half_way() -> None:
    """The round goes on to its end, on its own."""
    scene, cluster = slow_stage(1)
    review = asyncio.create_task(scene.ask(1, 0, tidy=False))
    await until(cluster.was_asked)
    review.cancel()
    await asyncio.gather(review, return_exceptions=True)
    cluster.may_go_on.set()
    await scene.settle()
    assert scene.marked == scene.draining != set()


async def test_the_lease_is_free_again_after_a_round() -> None:
    scene = stage(2)
    await scene.ask(2, 1)
    assert scene.cluster.leases[NAMESPACE, "celery-hpa-drain-worker"].holder == ""


async def test_a_round_that_lost_its_lease_allows_nothing() -> None:
    """A process that was frozen may find that another replica has taken over."""
    scene = stage(2)

    def freeze(call: Call) -> None:
        if call.method == "cancel_consumer":
            scene.clock.ahead_s += LEASE_DURATION_S + 1

    scene.celery.before_answer = freeze
    verdict = await scene.ask(2, 1)
    assert (verdict.allowed, verdict.reason) == (False, "Locked")
    assert len(scene.marked) == 1, "what stands on the pods is now for the other replica to judge"


# What people are told


async def test_verdicts_are_events_on_the_workload() -> None:
    scene = stage(2, busy={"worker-0": [running()], "worker-1": [running()]})
    await scene.ask(2, 1)
    scene.finish("worker-0", "worker-1")
    await scene.ask(2, 1)
    assert [(event.reason, event.type) for event in scene.events_of("worker")] == [
        ("ScaleDownRefused", "Warning"),
        ("ScaleDownDrained", "Normal"),
    ]


async def test_the_same_refusal_is_an_event_once() -> None:
    """The HPA asks every 15 s, and while nothing changes gets the same sentence."""
    scene, said = stage(1, busy={"worker-0": [running()]}), set()
    for ahead_s in (0.0, 15.0, 30.0):
        scene.clock.ahead_s = ahead_s
        said.add((await scene.ask(1, 0)).message)
    assert len(said) == 1
    assert len(scene.events_of("worker")) == len(scene.events_of("worker-0")) == 1


async def test_what_was_not_drained_is_not_called_so() -> None:
    """Let through with work left is another Event than drained."""
    scene = stage(1, busy={"worker-0": [running()]}, drain={"whenBusy": "proceed", "holdSeconds": 0})
    assert (await scene.ask(1, 0)).reason == "Proceeding"
    assert [event.reason for event in scene.events_of("worker")] == ["ScaleDownAllowed"]


async def test_a_review_that_is_repeated_is_an_event_once() -> None:
    """The API server asks again whenever somebody else wrote to the workload in between."""
    scene = stage(2)
    assert (await scene.ask(2, 1)).allowed
    assert (await scene.ask(2, 1)).allowed
    assert len(scene.cluster.events) == 1


async def test_a_failed_event_is_no_failure(caplog: pytest.LogCaptureFixture) -> None:
    scene = stage(2)
    scene.cluster.broken["create_event"] = UNAVAILABLE
    assert (await scene.ask(2, 1)).allowed
    assert "An Event could not be written" in caplog.text


async def test_every_verdict_is_one_line_with_the_plan(caplog: pytest.LogCaptureFixture) -> None:
    scene = stage(2, busy={"worker-0": [running()]})
    with caplog.at_level(logging.INFO, logger="drain_hook"):
        await scene.ask(2, 1)
    (record,) = caplog.records
    fields = vars(record)
    assert (fields["allowed"], fields["reason"], fields["victims"]) == (True, "Drained", ["worker-1"])
    assert set(fields["phases"]) >= {"gather", "plan", "mark", "cancel"}


async def test_verdicts_are_counted() -> None:
    scene = stage(2)
    await scene.ask(2, 1)
    labels = {"pool": "default", "namespace": NAMESPACE, "allowed": "true", "reason": "Drained"}
    assert scene.sample("drain_hook_verdicts_total", **labels) == 1
    assert scene.sample("drain_hook_marks_total", pool="default", namespace=NAMESPACE) == 1
    assert scene.sample("drain_hook_round_seconds_count", allowed="true") == 1
    assert scene.sample("drain_hook_rounds_in_flight") == 0


async def test_workers_are_asked_only_where_it_matters() -> None:
    """A verdict costs as much as it has victims: the rest is planned on from memory."""
    scene = stage(8)
    await scene.warm_up()
    scene.celery.calls.clear()
    await scene.ask(8, 7)
    asked = {name for call in scene.celery.calls for name in call.nodes}
    assert asked == {node(name) for name in scene.marked}
    assert scene.celery.workers[next(iter(asked))].queues != QUEUES
