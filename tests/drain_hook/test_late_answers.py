"""Rounds whose answer nobody waited for: what the API server did then is its failurePolicy's matter."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from drain_hook.admission import Verdict
from drain_hook.late_answers import Answer, keeps_marks
from tests.drain_hook.stages import NAMESPACE, Stage, node, running, stage
from tests.fakes.celery import Call

ALLOWED = Verdict(allowed=True, reason="Drained", message="Drained.")
BUSY = Verdict(allowed=False, reason="Busy", message="Busy.")
PROTECTED = Verdict(allowed=False, reason="Protected", message="Protected.")
OUT_OF_TIME = Verdict(allowed=False, reason="OutOfTime", message="Too late.")


def answer(given: Verdict | None, *, is_listened_to: bool = True) -> Answer:
    answer = Answer(lambda: is_listened_to)
    if given is not None:
        answer.give(given)
    return answer


@pytest.mark.parametrize(
    ("verdict", "given", "is_heard", "fail", "ignore"),
    [
        pytest.param(ALLOWED, ALLOWED, True, True, True, id="allowed in time"),
        pytest.param(BUSY, BUSY, True, True, True, id="draining goes on"),
        pytest.param(BUSY, None, True, True, True, id="about to be refused as busy"),
        pytest.param(PROTECTED, None, True, False, False, id="about to be refused for good"),
        pytest.param(ALLOWED, OUT_OF_TIME, True, False, False, id="refused in time, allowed too late"),
        pytest.param(BUSY, OUT_OF_TIME, True, False, False, id="refused in time, busy too late"),
        pytest.param(OUT_OF_TIME, OUT_OF_TIME, True, False, False, id="refused in time"),
        pytest.param(ALLOWED, ALLOWED, False, False, True, id="allowed, and nobody was there"),
        pytest.param(ALLOWED, OUT_OF_TIME, False, False, True, id="allowed after nobody was there"),
        pytest.param(BUSY, None, False, False, True, id="busy, and nobody is there"),
        pytest.param(OUT_OF_TIME, None, False, False, True, id="out of time, and nobody is there"),
        pytest.param(PROTECTED, None, False, False, False, id="protected, and nobody is there"),
    ],
)
async def test_who_goes_on_draining(
    verdict: Verdict, given: Verdict | None, is_heard: bool, fail: bool, ignore: bool
) -> None:
    """Fail refuses what is not answered, so it is undone; Ignore lets it through, so it is kept."""
    for ignores_failures, expected in ((False, fail), (True, ignore)):
        heard = answer(given, is_listened_to=is_heard)
        assert keeps_marks(verdict, heard, ignores_failures=ignores_failures) is expected


async def test_the_first_verdict_is_the_answer() -> None:
    """And who listened is asked when it is given, not later."""
    listens = True
    answer = Answer(lambda: listens)
    answer.give(OUT_OF_TIME)
    listens = False
    answer.give(ALLOWED)
    assert await answer.wait(until=0.0, otherwise=lambda: BUSY) is OUT_OF_TIME
    assert answer.is_heard


def frozen_stage(
    *, ignores_failures: bool | Callable[[str], bool], **fields: Any
) -> tuple[Stage, list[bool]]:
    """A hook that is paused when it cancels consumers, until the API server has given up on it."""
    scene, listens = stage(2, ignores_failures=ignores_failures, **fields), [True]

    def pause(call: Call) -> None:
        if call.method == "cancel_consumer":
            listens[:] = [False]

    scene.celery.before_answer = pause
    return scene, listens


async def ask(scene: Stage, listens: list[bool], *, webhook: str = "") -> Verdict:
    return await scene.ask(2, 1, is_listened_to=lambda: listens[0], webhook=webhook)


async def test_with_fail_an_unheard_round_is_taken_back() -> None:
    """The API server has refused it; without this its victims would stand idle until they are forgotten."""
    scene, listens = frozen_stage(ignores_failures=False)
    assert (await ask(scene, listens)).allowed
    assert scene.marked == scene.draining == set()


async def test_with_ignore_an_unheard_round_is_kept() -> None:
    """The API server has let it through: Kubernetes must delete those that were drained, and no others."""
    scene, listens = frozen_stage(ignores_failures=True, busy={"worker-0": [running()]})
    await ask(scene, listens)
    assert scene.marked == scene.draining == {"worker-1"}
    scene.scale(1)
    await scene.reconciler.reconcile()
    assert scene.marked == {"worker-1"}, "it is about to be deleted"


async def test_the_policy_is_that_of_the_webhook_that_asked() -> None:
    """Of two, one of which ignores failures: the API server has refused what the other asked about."""
    for webhook, kept in (("scale.drain.celery-hpa.io", 0), ("update.drain.celery-hpa.io", 1)):
        scene, listens = frozen_stage(ignores_failures=lambda asking: asking.startswith("update."))
        await ask(scene, listens, webhook=webhook)
        assert len(scene.marked) == kept, webhook


async def test_with_ignore_a_round_that_was_not_applied_is_given_back() -> None:
    """Another webhook may have refused it: the replicas tell, and nobody asks again."""
    scene, listens = frozen_stage(ignores_failures=True)
    await ask(scene, listens)
    assert len(scene.marked) == 1
    scene.clock.ahead_s = scene.configuration.round_ttl + 1
    await scene.reconciler.reconcile()
    assert scene.marked == scene.draining == set()


@pytest.mark.parametrize("ignores_failures", [False, True])
async def test_a_refusal_in_time_is_taken_back_by_either_policy(ignores_failures: bool) -> None:
    """The API server heard that the time was up, and refused; there is nothing left to guess."""
    scene = stage(2, ignores_failures=ignores_failures)
    scene.cluster.gates["patch_pod"] = asyncio.Event()
    assert (await scene.ask(2, 1, within_s=0.1, tidy=False)).reason == "OutOfTime"
    scene.cluster.gates["patch_pod"].set()
    await scene.settle()
    assert scene.marked == scene.draining == set()


@pytest.mark.parametrize(("ignores_failures", "stays"), [(False, False), (True, True)])
async def test_a_review_that_overlaps_the_one_that_timed_out(ignores_failures: bool, stays: bool) -> None:
    """The second waits its turn; it plans on what the first one's end has left, and drains one worker."""
    scene, listens = frozen_stage(ignores_failures=ignores_failures)
    first, second = await asyncio.gather(ask(scene, listens), scene.ask(2, 1))
    assert (first.allowed, second.allowed) == (True, True)
    assert len(scene.marked) == 1
    assert scene.marked == scene.draining
    labels = {"pool": "default", "namespace": NAMESPACE, "reason": "TakenBack"}
    assert scene.sample("drain_hook_releases_total", **labels) == (0 if stays else 1)
    assert all(scene.celery.workers[node(pod)].queues for pod in scene.pods.keys() - scene.marked)
