"""What a round must not believe: its own memory of pods, when others have written to them since."""

from shared.errors import BrokerUnavailable, Conflict
from shared.marks import MARK_ANNOTATION, SUMMARY_ANNOTATION
from shared.pods import DELETION_COST
from tests.drain_hook.stages import NAMESPACE, QUEUES, node, running, stage
from tests.fakes.celery import Call

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
