"""Two hooks, many callers and an API server that repeats itself: one round at a time for each workload."""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.drain_hook.replicas import DEPLOYMENTS, Answer, Replicas
from tests.drain_hook.stages import eventually, node, running
from tests.fakes.celery import Call, FakeCelery, fake_worker
from tests.shared.kubernetes_stages import sandbox_stage

WORKLOADS, WORKERS = 20, 3


@asynccontextmanager
async def replicas(directory: Path, *, workloads: int = 1, **fields: Any) -> AsyncIterator[Replicas]:
    """Workloads w0, w1, … of three workers each; the first of each is busy."""
    pools = {f"w{index}": WORKERS for index in range(workloads)}
    celery = FakeCelery.of(
        *(
            fake_worker(node(f"{name}-{index}"), *([running()] if index == 0 else []))
            for name in pools
            for index in range(WORKERS)
        )
    )
    async with sandbox_stage(directory) as stage:
        lab = Replicas(stage=stage, directory=directory, celery=celery, pools=pools, **fields)
        async with lab.running():
            yield lab


def idle_pods(lab: Replicas) -> set[str]:
    return {f"{name}-{index}" for name in lab.pools for index in range(1, WORKERS)}


def cancelled(celery: FakeCelery) -> Counter[str]:
    """How often each worker was sent a cancel."""
    return Counter(
        name.removeprefix("celery@")
        for call in celery.calls
        if call.method == "cancel_consumer"
        for name in call.nodes
    )


async def until_allowed(lab: Replicas, caller: str, name: str, to_replicas: int) -> list[Answer]:
    """Ask again, like an autoscaler at each sync and a person who is refused; every answer on the way."""
    scale = lab.autoscaler if caller == "autoscaler" else lab.kubectl
    answers = [await scale(name, to_replicas)]
    async with asyncio.timeout(60):
        while answers[-1].code != 200:
            await asyncio.sleep(0.2)
            answers.append(await scale(name, to_replicas))
    return answers


async def test_twenty_workloads_and_two_callers_for_each(tmp_path: Path) -> None:
    """Idle ones go and nobody else, no worker is cancelled twice, and each refusal says to ask again."""
    async with replicas(tmp_path, workloads=WORKLOADS) as lab:
        answers = await asyncio.gather(
            *(
                until_allowed(lab, caller, name, 1)
                for name in lab.pools
                for caller in ("autoscaler", "kubectl")
            )
        )
        assert [await lab.replicas_of(name) for name in lab.pools] == [1] * WORKLOADS
        assert await lab.marked() == lab.draining == idle_pods(lab)
        assert cancelled(lab.celery) == Counter(idle_pods(lab))
        refusals = [answer for story in answers for answer in story if answer.code != 200]
        assert {answer.code for answer in refusals} <= {403, 429}
        assert all("ask again" in answer.message.lower() for answer in refusals), refusals
        assert await lab.telemetry("drain_hook_rounds_in_flight") == [0.0, 0.0]


async def test_an_api_server_that_repeats_its_review(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Somebody writes to the Deployment every 100 ms: each repetition, with a new uid, adopts the round."""
    async with replicas(tmp_path) as lab:
        # So that the first answer always comes after somebody else's write.
        lab.celery.late_cancel_s = 0.25
        with caplog.at_level(logging.INFO, logger="drain_hook.announcements"):
            async with restless(lab, "w0", every_s=0.1):
                answer = await lab.kubectl("w0", 1)
        assert answer.code == 200
        verdicts = [vars(record) for record in caplog.records if "is_adopted" in vars(record)]
        assert [fields["allowed"] for fields in verdicts] == [True] * len(verdicts)
        assert len(verdicts) >= 2, "the API server had no reason to repeat it"
        assert sum(await lab.telemetry("drain_hook_marks_total")) == 2
        assert cancelled(lab.celery).keys() == idle_pods(lab)
        assert await lab.marked() == lab.draining == idle_pods(lab)


@asynccontextmanager
async def restless(lab: Replicas, name: str, *, every_s: float) -> AsyncIterator[None]:
    """Somebody annotates the Deployment all the time; its controller observes that at once."""

    async def write() -> None:
        for number in range(10_000):
            change = {"metadata": {"annotations": {"example.com/touched": str(number)}}}
            written = await lab.stage.send("PATCH", f"{DEPLOYMENTS}/{name}", change)
            seen = {"status": {"observedGeneration": written["metadata"]["generation"]}}
            await lab.stage.send("PATCH", f"{DEPLOYMENTS}/{name}/status", seen)
            await asyncio.sleep(every_s)

    writer = asyncio.create_task(write())
    try:
        yield
    finally:
        writer.cancel()
        with suppress(asyncio.CancelledError):
            await writer


def freeze_once(celery: FakeCelery, seconds: float) -> None:
    """The whole process stands still as the first cancel arrives, as a paused or starved one would."""

    def pause(call: Call) -> None:
        if call.method == "cancel_consumer":
            celery.before_answer = None
            time.sleep(seconds)

    celery.before_answer = pause


async def test_with_fail_a_review_that_timed_out_is_taken_back(tmp_path: Path) -> None:
    """The API server refused it, and nobody asks again: all workers consume long before it is forgotten."""
    async with replicas(tmp_path, timeout_s=1, failure_policy="Fail") as lab:
        freeze_once(lab.celery, 1.3)
        answer = await lab.kubectl("w0", 1)
        assert (answer.code, await lab.replicas_of("w0")) == (500, 3)
        assert "context deadline exceeded" in answer.message
        await eventually(lab.marked, lambda marked: marked == set())
        assert lab.draining == set()
        assert (
            sum(await lab.telemetry('drain_hook_releases_total{namespace="default",pool="w0",reason="TakenB'))
            == 2
        )
        assert sum(await lab.telemetry("drain_hook_failure_policy_ignore")) == 0


async def test_with_ignore_a_review_that_timed_out_is_kept(tmp_path: Path) -> None:
    """The API server let it through: whom Kubernetes deletes now must be those that were drained."""
    async with replicas(tmp_path, timeout_s=1, failure_policy="Ignore") as lab:
        await eventually(
            lambda: lab.telemetry("drain_hook_failure_policy_ignore"), lambda gauges: gauges == [1.0, 1.0]
        )
        freeze_once(lab.celery, 1.3)
        answer = await lab.kubectl("w0", 1)
        assert (answer.code, await lab.replicas_of("w0")) == (200, 1)
        await eventually(lambda: lab.telemetry("drain_hook_rounds_in_flight"), lambda f: f == [0.0, 0.0])
        assert await lab.marked() == lab.draining == idle_pods(lab)
        assert sum(await lab.telemetry("drain_hook_releases_total")) == 0


@pytest.mark.parametrize("failure_policy", ["Fail", "Ignore"])
async def test_reviews_that_overlap_one_that_timed_out(tmp_path: Path, failure_policy: str) -> None:
    """Whoever asks while the late round still ends waits, is refused, or adopts: the idle ones go, once."""
    async with replicas(tmp_path, timeout_s=1, failure_policy=failure_policy) as lab:
        freeze_once(lab.celery, 1.3)
        callers = ("kubectl", "autoscaler", "kubectl", "autoscaler")
        await asyncio.gather(*(until_allowed(lab, caller, "w0", 1) for caller in callers))
        assert await lab.replicas_of("w0") == 1
        await eventually(lambda: lab.telemetry("drain_hook_rounds_in_flight"), lambda f: f == [0.0, 0.0])
        assert lab.draining <= idle_pods(lab), "the busy one was never touched"
        assert await lab.marked() == lab.draining
