"""Looks at the running sandbox as a user could: through its API, the journal and the hook's log."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from pathlib import Path

from redis.asyncio import Redis

from deploy.sandbox import manifests
from deploy.sandbox.client import ApiClient
from deploy.sandbox.controllers.quantities import parse_milli
from deploy.sandbox.demo.journal import Run, read_journal
from deploy.sandbox.demo.scene import Scene, follow, worker_rows
from deploy.sandbox.demo.story import Outcome, PodLife, outcome
from deploy.sandbox.demo.timeline import RoundMark, Sample
from deploy.sandbox.demo.verdicts import verdicts_from
from deploy.sandbox.errors import ApiError
from deploy.sandbox.resources import AUTOSCALERS, DEPLOYMENTS, PODS
from shared.pods import Pod, pod_from

VALUES = f"/apis/external.metrics.k8s.io/v1beta1/namespaces/{manifests.NAMESPACE}/"


@dataclass(kw_only=True)
class Observer:
    """Everything seen since the story began."""

    kube: ApiClient
    valkey: Redis
    hook_log: Path
    slots: int
    workload: str = "worker"
    began_at: float = field(default_factory=time.time)
    submitted: set[str] = field(default_factory=set)
    lives: dict[str, PodLife] = field(default_factory=dict)
    samples: list[Sample] = field(default_factory=list)
    runs: tuple[Run, ...] = ()
    rounds: tuple[RoundMark, ...] = ()
    pods: tuple[Pod, ...] = ()

    async def look(self, chapter: str) -> Scene:
        """One look at everything; remembered for the summary and the picture."""
        pods, deployment, wanted, load, waiting, self.runs = await asyncio.gather(
            self._pods(),
            self.kube.get(DEPLOYMENTS, manifests.NAMESPACE, self.workload),
            self._wanted(),
            self._value("celery_load_factor"),
            self._value("celery_waiting_tasks"),
            read_journal(self.valkey),
        )
        now = time.time()
        self.pods = pods
        self.rounds = verdicts_from(await asyncio.to_thread(self.hook_log.read_text, errors="replace"))
        self.lives = follow(self.lives, pods, now=now)
        replicas = int(deployment["spec"].get("replicas", 0))
        self.samples.append(Sample(at=now, replicas=replicas, load_factor=load))
        figures = self.outcome()
        return Scene(
            elapsed_s=now - self.began_at,
            chapter=chapter,
            load_factor=load,
            waiting=int(waiting or 0),
            replicas=replicas,
            wanted=wanted,
            submitted=figures.submitted,
            finished=figures.finished,
            killed=figures.killed,
            workers=worker_rows(pods, self.runs, now=now),
            rounds=self.rounds,
        )

    def outcome(self) -> Outcome:
        """The figures so far."""
        return outcome(
            submitted=frozenset(self.submitted),
            runs=self.runs,
            pods=self.lives,
            slots=self.slots,
            now=time.time(),
        )

    async def _pods(self) -> tuple[Pod, ...]:
        listing = await self.kube.list(PODS, manifests.NAMESPACE, labelSelector=f"app={self.workload}")
        return tuple(map(pod_from, listing["items"]))

    async def _wanted(self) -> int:
        autoscaler = await self.kube.get(AUTOSCALERS, manifests.NAMESPACE, self.workload)
        return int(autoscaler.get("status", {}).get("desiredReplicas", 0))

    async def _value(self, metric: str) -> float | None:
        """As the HPA gets it: through the API server."""
        try:
            document = await self.kube.request(
                "GET", VALUES + metric, query={"labelSelector": "pool=default"}
            )
        except ApiError:
            return None
        return parse_milli(document["items"][0]["value"]) / 1000
