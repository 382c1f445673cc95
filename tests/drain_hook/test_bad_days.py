"""A Kubernetes API that is slow, overloaded, restarted or forgetful, in front of two whole hooks."""

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from aiohttp import web

from tests.drain_hook.replicas import PODS, Answer, Replicas
from tests.drain_hook.stages import eventually, node, running
from tests.fakes.celery import FakeCelery, fake_worker
from tests.fakes.kubernetes_documents import pod_document
from tests.shared.kubernetes_stages import sandbox_stage

TIMEOUT_S = 5
OURS = "celery-hpa"
"""How the user agent of our clients begins; everybody else has a good day."""


def status(code: int, message: str, *, retry_after: str = "") -> web.Response:
    body = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message, "code": code}
    headers = {"Retry-After": retry_after} if retry_after else {}
    return web.json_response(body, status=code, headers=headers)


def is_watch(http: web.Request) -> bool:
    return http.query.get("watch") == "true"


@dataclass(kw_only=True)
class BadDay:
    """What happens to our requests while it lasts; and every watch that we have open can be cut."""

    is_on: bool = False
    met: int = 0
    """Requests that something happened to."""
    watches: list[web.Request] = field(default_factory=list)
    turns: Iterator[bool] = field(default_factory=lambda: itertools.cycle((False, True)))

    async def __call__(self, http: web.Request) -> web.StreamResponse | None:
        if not http.headers.get("User-Agent", "").startswith(OURS):
            return None
        if is_watch(http):
            self.watches.append(http)
        return await self.spoil(http) if self.is_on else None

    async def spoil(self, http: web.Request) -> web.StreamResponse | None:
        raise NotImplementedError

    def cut_watches(self) -> None:
        for http in self.watches:
            if http.transport is not None:
                http.transport.abort()
        self.watches.clear()


class Slow(BadDay):
    """Every answer takes a third of a second."""

    async def spoil(self, http: web.Request) -> None:
        self.met += 1
        await asyncio.sleep(0.3)


class Hanging(BadDay):
    """No answer at all, for longer than anybody waits."""

    async def spoil(self, http: web.Request) -> None:
        self.met += 1
        await asyncio.sleep(60)


class Overloaded(BadDay):
    """Priority and fairness turns everything away, and says for how long."""

    async def spoil(self, http: web.Request) -> web.Response:
        self.met += 1
        return status(429, "too many requests, please try again later.", retry_after="1")


class Flaky(BadDay):
    """Every other request fails."""

    async def spoil(self, http: web.Request) -> web.Response | None:
        if is_watch(http) or not next(self.turns):
            return None
        self.met += 1
        return status(500, "etcdserver: request timed out")


class Refusing(BadDay):
    """The connection is reset before there is an answer, as while the API server restarts."""

    async def spoil(self, http: web.Request) -> web.Response:
        self.met += 1
        assert http.transport is not None
        http.transport.abort()
        return status(503, "nobody reads this")


class Forgetful(BadDay):
    """Watches are too old, whatever they ask for: 410 at once, or as their first line."""

    async def spoil(self, http: web.Request) -> web.Response | None:
        if not is_watch(http):
            return None
        self.met += 1
        if next(self.turns):
            return status(410, "too old resource version")
        error = {"type": "ERROR", "object": {"kind": "Status", "code": 410, "message": "too old"}}
        return web.Response(text=json.dumps(error) + "\n", content_type="application/json")


BAD_DAYS = [Slow, Hanging, Overloaded, Flaky, Refusing, Forgetful]


@asynccontextmanager
async def replicas(directory: Path, bad_day: BadDay) -> AsyncIterator[Replicas]:
    """Three workers, the first of them busy."""
    celery = FakeCelery.of(
        fake_worker(node("w0-0"), running()), fake_worker(node("w0-1")), fake_worker(node("w0-2"))
    )
    async with sandbox_stage(directory) as stage:
        stage.server.trouble = bad_day
        lab = Replicas(
            stage=stage,
            directory=directory,
            celery=celery,
            pools={"w0": 3},
            timeout_s=TIMEOUT_S,
            round_ttl="3s",
        )
        async with lab.running():
            yield lab
            bad_day.is_on = False


async def until_allowed(lab: Replicas, replicas: int) -> None:
    await eventually(lambda: lab.kubectl("w0", replicas), lambda answer: answer.code == 200)


def was_answered(answer: Answer) -> bool:
    """By us, in time; the API server has its own words for the opposite, and its code is 500."""
    return "failed calling webhook" not in answer.message


@pytest.mark.parametrize("kind", BAD_DAYS)
async def test_every_review_is_answered_and_nothing_stays_behind(tmp_path: Path, kind: type[BadDay]) -> None:
    """On the worst day a sentence comes in time; on the day after, the idle ones go and nobody else."""
    bad_day = kind()
    async with replicas(tmp_path, bad_day) as lab:
        bad_day.is_on = True
        bad_day.cut_watches()
        answer = await lab.kubectl("w0", 1)
        assert was_answered(answer), answer
        await eventually(lambda: _met(bad_day), lambda met: met > 0)
        bad_day.is_on = False
        bad_day.cut_watches()
        if answer.code != 200:
            await eventually(lab.marked, lambda marked: marked == set())
            await eventually(lambda: _draining(lab), lambda draining: draining == set())
            await until_allowed(lab, 1)
        assert await lab.marked() == lab.draining == {"w0-1", "w0-2"}


@pytest.mark.parametrize("kind", BAD_DAYS)
async def test_a_day_that_turns_bad_in_the_midst_of_a_round(tmp_path: Path, kind: type[BadDay]) -> None:
    """Marked and cancelled: a round that cannot see that it still holds its Lease is given back later."""
    bad_day = kind()
    async with replicas(tmp_path, bad_day) as lab:

        def turn_bad(call: object) -> None:
            if getattr(call, "method", "") == "cancel_consumer":
                bad_day.is_on = True
                bad_day.cut_watches()

        lab.celery.before_answer = turn_bad
        # Long enough for the round to look at its Lease once more before it allows.
        lab.celery.late_cancel_s = 1.1
        answer = await lab.kubectl("w0", 1)
        assert was_answered(answer), answer
        lab.celery.before_answer = None
        await asyncio.sleep(0.2)
        bad_day.is_on = False
        bad_day.cut_watches()
        if answer.code != 200:
            await eventually(lab.marked, lambda marked: marked == set())
            await eventually(lambda: _draining(lab), lambda draining: draining == set())
            await until_allowed(lab, 1)
        assert await lab.marked() == lab.draining == {"w0-1", "w0-2"}


async def _draining(lab: Replicas) -> set[str]:
    return lab.draining


async def _met(bad_day: BadDay) -> int:
    return bad_day.met


async def test_what_happened_while_nobody_watched_is_known_afterwards(tmp_path: Path) -> None:
    """A pod went and another came while every watch was too old: the plan is made on those that are there."""
    bad_day = Forgetful()
    async with replicas(tmp_path, bad_day) as lab:
        bad_day.is_on = True
        bad_day.cut_watches()
        await lab.stage.send("DELETE", f"{PODS}/w0-1?gracePeriodSeconds=0")
        del lab.celery.workers[node("w0-1")]
        owner = await lab.stage.send("GET", "/apis/apps/v1/namespaces/default/replicasets/w0-rs")
        pod = pod_document("w0-9", owner=owner)
        pod["spec"]["containers"] = [{"name": "worker"}]
        await lab.stage.create(PODS, pod)
        await lab.stage.send("PATCH", f"{PODS}/w0-9/status", {"status": pod["status"]})
        lab.celery.workers[node("w0-9")] = fake_worker(node("w0-9"))
        await until_allowed(lab, 1)
        # What an older plan has marked is given back after the answer.
        await eventually(lab.marked, lambda marked: marked == {"w0-2", "w0-9"})
        assert lab.draining == {"w0-2", "w0-9"}
