"""How long a review takes when nobody has to be waited for: one victim among eight idle workers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from deploy.sandbox import manifests
from deploy.sandbox.cluster import Sandbox, sandbox
from deploy.sandbox.demo.timeline import RoundMark
from deploy.sandbox.demo.verdicts import verdicts_from
from deploy.sandbox.kubeconfigs import read_kubeconfig
from deploy.sandbox.resources import DEPLOYMENTS
from tests.bench.figures import Figures, Target, row
from tests.scenarios.crews import Cluster, Crew

POOL, WORKERS = "bench", 8
SETTLE_S = 2.5
"""The hook asks all workers every second: it is to know each of them, as it does at most times."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One scale-down."""

    patch_s: float
    """From the request to the API server until its answer."""
    reviews: tuple[RoundMark, ...]
    """As the hook logged them; more than one when somebody else wrote to the Deployment meanwhile."""

    @property
    def review_s(self) -> float:
        return sum(review.seconds for review in self.reviews)

    def phase_s(self, name: str) -> float:
        return sum(review.phases.get(name, 0.0) for review in self.reviews)


async def measure_verdicts(directory: Path, *, repeats: int) -> Sequence[Target]:
    """Scale eight idle workers down by one, and up again, `repeats` times; print what it took."""
    print(f"Starting a sandbox with {WORKERS} idle workers.", flush=True)
    samples: list[Sample] = []
    async with _crew(directory) as (box, crew):
        for number in range(1, repeats + 1):
            samples.append(await _scale_down(box, crew))
            print(f"{number:3d} of {repeats}: {samples[-1].review_s * 1000:6.1f} ms", flush=True)
            if number < repeats:
                await _scale_up(box, crew)
    print(f"\nA review for one victim among {WORKERS} idle workers, in milliseconds:\n")
    print("\n".join(table(samples)))
    return ()


def table(samples: Sequence[Sample]) -> list[str]:
    """The figures, a line each: the hook's own, the caller's, and the phases of the round."""
    phases = dict.fromkeys(name for sample in samples for review in sample.reviews for name in review.phases)
    measured = {
        "review, as the hook logs it": [sample.review_s for sample in samples],
        "PATCH of the scale, as its caller sees it": [sample.patch_s for sample in samples],
        **{f"phase {name}": [sample.phase_s(name) for sample in samples] for name in phases},
    }
    lines = [row("", ["n", "median", "p95"])]
    return lines + [row(what, Figures.of(seconds).cells()) for what, seconds in measured.items()]


@asynccontextmanager
async def _crew(directory: Path) -> AsyncIterator[tuple[Sandbox, Crew]]:
    async with sandbox(directory, configuration=_configuration) as box:
        cluster = Cluster(
            kube=box.kube,
            access=read_kubeconfig(box.kubeconfig),
            broker_url=box.broker_url,
            directory=directory,
        )
        async with cluster.crew(POOL, WORKERS) as crew:
            await asyncio.sleep(SETTLE_S)
            yield box, crew


def _configuration(broker_url: str) -> manifests.Document:
    pool = manifests.pool(name=POOL, workload=POOL, broker_url=broker_url, slots=1, queues=(POOL,))
    return manifests.configuration(pool)


async def _scale_down(box: Sandbox, crew: Crew) -> Sample:
    before = len(_reviews(box))
    started = time.perf_counter()
    await _scale(box, WORKERS - 1)
    patch_s = time.perf_counter() - started
    reviews = _reviews(box)[before:]
    if not reviews:
        raise RuntimeError(f"The hook logged no review; look at {box.services.hook_log}.")
    await crew.until(lambda pods: len(pods) == WORKERS - 1, "one pod is gone")
    return Sample(patch_s=patch_s, reviews=reviews)


async def _scale_up(box: Sandbox, crew: Crew) -> None:
    await _scale(box, WORKERS)
    await crew.at_work(WORKERS)
    await asyncio.sleep(SETTLE_S)


async def _scale(box: Sandbox, replicas: int) -> None:
    """On a connection that is there, as the HPA has one; a refusal ends the benchmark."""
    change = {"spec": {"replicas": replicas}}
    await box.kube.patch(DEPLOYMENTS, manifests.NAMESPACE, POOL, change, subresource="scale")


def _reviews(box: Sandbox) -> tuple[RoundMark, ...]:
    """The hook writes its log line before it answers."""
    return verdicts_from(box.services.hook_log.read_text(errors="replace"))
