"""What a round must not believe: its own memory of pods, when others have written to them since."""

from collections.abc import Mapping

import pytest

from drain_hook.victims import deletion_order
from shared.errors import BrokerUnavailable, Conflict
from shared.marks import MARK_ANNOTATION, SUMMARY_ANNOTATION
from shared.pods import DELETION_COST, Pod
from tests.drain_hook.stages import AT_ONCE, NAMESPACE, QUEUES, Stage, node, running, stage
from tests.fakes.celery import Call
from tests.fakes.kubernetes import FakeCluster

MODIFIED = Conflict("the object has been modified", status=409)


async def test_a_victim_that_was_given_back_unseen_is_marked_anew() -> None:
    """The cache still shows its mark, but it consumes: a cancel alone would leave it without its cost."""
    scene = stage(2, busy={"worker-0": [running()], "worker-1": [running()]})
    await scene.ask(2, 1)
    (victim,) = scene.marked
    scene.cluster.cache.freeze()
    given_back = {MARK_ANNOTATION: None, SUMMARY_ANNOTATION: None, DELETION_COST: None}
    scene.cluster.annotate_pod(victim, given_back, namespace=NAMESPACE)
    scene.celery.change(node(victim), queues=QUEUES, active=())

    traces = []

    def look(call: Call) -> None:
        if call.method == "cancel_consumer":
            traces.append(set(scene.cluster.annotations_of(victim, namespace=NAMESPACE)))

    scene.celery.before_answer = look
    assert (await scene.ask(2, 1)).reason == "Drained"
    assert traces == [{MARK_ANNOTATION, SUMMARY_ANNOTATION, DELETION_COST}]


async def test_a_pod_that_somebody_else_writes_to_is_not_taken_for_gone() -> None:
    """409 may mean that too many write at once. A victim without its cost would be a wrong prediction."""
    scene = stage(4)
    scene.cluster.refusals["patch_pod"] = [MODIFIED]
    assert (await scene.ask(4, 2)).reason == "Drained"
    assert len(scene.marked) == 2


async def test_a_victim_that_cannot_be_written_to_for_conflicts_ends_the_round() -> None:
    scene = stage(1)
    scene.cluster.refusals["patch_pod"] = [MODIFIED, MODIFIED]
    verdict = await scene.ask(1, 0)
    assert (verdict.allowed, verdict.reason) == (False, "KubernetesUnavailable")
    assert scene.commands == []


async def test_a_cost_that_is_written_during_a_round_stays_when_it_is_taken_back() -> None:
    """What is undone is what stands on the pod then, not what the round remembers of it."""
    scene = stage(1)

    def write_and_fail(call: Call) -> None:
        if call.method == "cancel_consumer":
            scene.celery.before_answer = None
            scene.cluster.annotate_pod("worker-0", {DELETION_COST: "42"}, namespace=NAMESPACE)
            raise BrokerUnavailable("The connection broke.")

    scene.celery.before_answer = write_and_fail
    assert (await scene.ask(1, 0)).reason == "BrokerUnavailable"
    assert scene.cluster.annotations_of("worker-0", namespace=NAMESPACE) == {DELETION_COST: "42"}


async def test_a_cost_that_is_written_just_before_a_mark_is_kept_in_its_record() -> None:
    """The cache does not show it yet; the PATCH must not pass over it."""
    scene = stage(1)
    scene.cluster.cache.freeze()
    scene.cluster.annotate_pod("worker-0", {DELETION_COST: "42"}, namespace=NAMESPACE)
    assert (await scene.ask(1, 0)).reason == "Drained"
    (pod,) = await scene.cluster.pods(namespace=NAMESPACE, selector="app=worker")
    assert pod.mark is not None
    assert pod.mark.foreign_cost == "42"
    assert pod.cost_annotation == str(pod.mark.cost)


async def test_a_cost_that_is_written_while_consumers_are_given_back_stays() -> None:
    """That may take seconds, and only then the record and our cost are removed."""
    scene = stage(2)
    assert (await scene.ask(2, 1)).allowed
    (victim,) = scene.marked
    scene.scale(3)

    def write(call: Call) -> None:
        if call.method == "add_consumer":
            scene.cluster.annotate_pod(victim, {DELETION_COST: "42"}, namespace=NAMESPACE)

    scene.celery.before_answer = write
    await scene.reconciler.reconcile()
    assert scene.cluster.annotations_of(victim, namespace=NAMESPACE) == {DELETION_COST: "42"}


@pytest.mark.parametrize(("pod", "cost"), [("worker-1", "100"), ("worker-2", "-5")])
async def test_a_cost_that_is_written_while_a_victim_is_drained_is_seen_before_it_is_let_go(
    pod: str, cost: str
) -> None:
    """On the victim or on another: Kubernetes would take a busy worker. The watch has told of it by then."""
    scene = stage(3, busy={"worker-0": [running(id="a")], "worker-2": [running(id="c")]})
    await scene.warm_up()
    once = write_once(scene, pod, {DELETION_COST: cost})
    assert (await scene.ask(3, 2)).reason == "Unsettled"
    assert once == [pod]
    assert (await scene.ask(3, 2)).reason == "Drained"
    assert deletion_order(scene.pods.values(), now=scene.clock.wall())[0].name == "worker-1"


async def test_a_survivor_that_is_not_ready_any_more_is_seen_before_anybody_is_let_go() -> None:
    """It would go in the place of the one that was drained."""
    scene = stage(3, busy={"worker-0": [running(id="a")], "worker-2": [running(id="c")]})
    await scene.warm_up()

    def turn(call: Call) -> None:
        if call.method == "cancel_consumer":
            scene.cluster.edit_pod("worker-2", namespace=NAMESPACE, is_ready=False)

    scene.celery.before_answer = turn
    assert not (await scene.ask(3, 2)).allowed


async def test_what_others_write_on_pods_meanwhile_does_not_matter_where_it_changes_nothing() -> None:
    """And nothing is asked for it."""
    scene = stage(3)
    await scene.warm_up()
    once = write_once(scene, "worker-2", {"example.com/seen": "yes"})
    assert (await scene.ask(3, 2)).reason == "Drained"
    assert once == ["worker-2"]
    assert scene.cluster.calls_of("workload_state") == []


def write_once(scene: Stage, pod: str, annotations: Mapping[str, str]) -> list[str]:
    """Somebody annotates the pod when the first consumer is cancelled; returns where, once that is done."""
    written: list[str] = []

    def write(call: Call) -> None:
        if call.method == "cancel_consumer" and not written:
            written.append(pod)
            scene.cluster.annotate_pod(pod, annotations, namespace=NAMESPACE)

    scene.celery.before_answer = write
    return written


class Restless(FakeCluster):
    """Somebody writes to the pod before each of the first PATCHes that name a version."""

    writes_left = 0

    async def patch_pod(
        self,
        *,
        namespace: str,
        name: str,
        uid: str,
        annotations: Mapping[str, str | None],
        resource_version: str = "",
    ) -> Pod:
        if resource_version and self.writes_left:
            self.writes_left -= 1
            self.annotate_pod(name, {DELETION_COST: str(self.writes_left)}, namespace=namespace)
        return await super().patch_pod(
            namespace=namespace,
            name=name,
            uid=uid,
            annotations=annotations,
            resource_version=resource_version,
        )


async def test_others_may_write_to_a_pod_several_times_while_it_is_marked() -> None:
    """The kubelet alone does so while a pod starts. What was written last is what is kept."""
    cluster = Restless()
    cluster.writes_left = AT_ONCE.most_conflicts
    scene = stage(1, cluster=lambda: cluster)
    assert (await scene.ask(1, 0)).reason == "Drained"
    (pod,) = await cluster.pods(namespace=NAMESPACE, selector="app=worker")
    assert pod.mark is not None
    assert pod.mark.foreign_cost == "0"


async def test_a_pod_that_others_write_to_without_end_ends_the_round() -> None:
    """Rather than that their cost is lost."""
    cluster = Restless()
    cluster.writes_left = 10 * AT_ONCE.most_conflicts
    scene = stage(1, cluster=lambda: cluster)
    assert (await scene.ask(1, 0)).reason == "KubernetesUnavailable"
    assert scene.commands == []
