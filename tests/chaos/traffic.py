"""What goes on in the cluster: tasks come in, an autoscaler and people scale."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from celery import Celery
from kombu.exceptions import OperationalError

from deploy.sandbox import manifests
from deploy.sandbox.client import ApiClient
from deploy.sandbox.demo.story import LONG, PROTECTED, SHORT
from deploy.sandbox.errors import ApiError
from deploy.sandbox.resources import DEPLOYMENTS
from tests.chaos.evidence import Record
from tests.chaos.pools import Pool

AUTOSCALER_PERIOD_S = 1.5
PATIENCE_S = 8.0
"""How long the autoscaler wants the same number, refused or not."""
CONFLICTS = 5
"""So often the HPA tries again at once."""


@dataclass(slots=True, kw_only=True)
class Tally:
    """What callers were told."""

    answers: Counter[str] = field(default_factory=Counter)
    """Scale-downs by answer: allowed, refused, busy (ask again), failed (no hook was there), conflict."""
    ups: int = 0
    unexpected: list[str] = field(default_factory=list)
    """Answers that no caller should get."""


class Tasks:
    """Submits tasks to real queues; most are short, few are long, few are protected."""

    def __init__(self, broker_url: str, record: Record, *, chance: random.Random) -> None:
        self._app = Celery(broker=broker_url, set_as_current=False)
        # A broker that is killed must not lose what it said it had taken.
        self._app.conf.broker_transport_options = (
            {"confirm_publish": True} if broker_url.startswith("amqp") else {}
        )
        self._broken = (OSError, OperationalError, *self._app.connection_for_write().connection_errors)
        self._record = record
        self._chance = chance

    async def keep_coming(self, pool: Pool) -> None:
        while True:
            await asyncio.sleep(self._chance.expovariate(pool.tasks_per_s))
            await asyncio.to_thread(self._submit, self._chance.choice(pool.queues))

    def _submit(self, queue: str) -> None:
        name, seconds = self._task()
        try:
            with self._app.connection_for_write(connect_timeout=2) as connection:
                sent = self._app.send_task(
                    name,
                    args=(seconds,),
                    queue=queue,
                    connection=connection,
                    ignore_result=True,
                    retry=False,
                )
        except self._broken:
            return  # the broker is away; whether it took the task nobody knows
        self._record.submitted[sent.id] = time.time()

    def _task(self) -> tuple[str, float]:
        uniform = self._chance.uniform
        kind = self._chance.choices(range(4), weights=(60, 25, 8, 7))[0]
        return (
            (SHORT, uniform(0.1, 1.0)),
            (SHORT, uniform(1.0, 4.0)),
            (LONG, uniform(5.0, 14.0)),
            (PROTECTED, uniform(2.0, 6.0)),
        )[kind]


class Callers:
    """An autoscaler for each pool, which insists for a while, and people who change their minds."""

    def __init__(self, kube: ApiClient, tally: Tally, *, chance: random.Random) -> None:
        self._kube = kube
        self._tally = tally
        self._chance = chance

    async def autoscale(self, pool: Pool) -> None:
        """As the HPA: GET the scale, PUT it with its resourceVersion, again at once after a conflict."""
        wanted, until = pool.most, 0.0
        while True:
            if time.monotonic() >= until:
                wanted = self._chance.randint(pool.fewest, pool.most)
                until = time.monotonic() + self._chance.uniform(0.5, 1.0) * PATIENCE_S
            for _ in range(CONFLICTS):
                if await self._put(pool, wanted) != "conflict":
                    break
            await asyncio.sleep(AUTOSCALER_PERIOD_S)

    async def meddle(self, pool: Pool) -> None:
        """As people with kubectl: a PATCH without a resourceVersion, now and then a dry run before it."""
        while True:
            await asyncio.sleep(self._chance.uniform(3.0, 9.0))
            replicas = self._chance.randint(pool.fewest, pool.most)
            await self._answered(self._patch(pool, replicas), is_down=await self._is_down(pool, replicas))

    async def raise_to_the_most(self, pool: Pool) -> None:
        """So that even a pool that was scaled to nothing has somebody for the tasks that wait."""
        await self._answered(self._patch(pool, pool.most), is_down=False)

    async def _put(self, pool: Pool, replicas: int) -> str:
        try:
            scale = await self._kube.get(DEPLOYMENTS, manifests.NAMESPACE, pool.name, subresource="scale")
        except (ApiError, aiohttp.ClientError, TimeoutError) as error:
            self._tally.unexpected.append(f"GET of the scale of {pool.name}: {error}")
            return "failed"
        before = scale["spec"].get("replicas", 0)
        if before == replicas:
            return "idle"
        scale["spec"]["replicas"] = replicas
        update = self._kube.update(DEPLOYMENTS, scale, subresource="scale")
        return await self._answered(update, is_down=replicas < before)

    async def _patch(self, pool: Pool, replicas: int) -> None:
        change = {"spec": {"replicas": replicas}}
        await self._kube.patch(DEPLOYMENTS, manifests.NAMESPACE, pool.name, change, subresource="scale")

    async def _is_down(self, pool: Pool, replicas: int) -> bool:
        now = await self._kube.get(DEPLOYMENTS, manifests.NAMESPACE, pool.name)
        return replicas < int(now["spec"]["replicas"])

    async def _answered(self, request: Any, *, is_down: bool) -> str:
        try:
            await request
        except ApiError as error:
            answer = {403: "refused", 429: "busy", 409: "conflict", 500: "failed"}.get(error.code, "")
            if not answer or (answer != "conflict" and not is_down):
                self._tally.unexpected.append(f"{error.code} {error}")
        except (aiohttp.ClientError, TimeoutError) as error:
            answer = "failed"
            self._tally.unexpected.append(f"no answer: {error!r}")
        else:
            answer = "allowed"
        if is_down:
            self._tally.answers[answer] += 1
        elif answer == "allowed":
            self._tally.ups += 1
        return answer
