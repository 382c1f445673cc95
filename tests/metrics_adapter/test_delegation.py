"""How requests for other metrics fare with a delegate that is slow, away, flapping, or gone from the file."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry

from metrics_adapter.catalogue import METRICS
from metrics_adapter.delegate_answers import Answer, NoAnswer
from metrics_adapter.delegation import LOOK_EVERY_S, MOST_AT_ONCE, Delegation
from metrics_adapter.statuses import ApiError
from shared.pools import Delegate
from shared.settings import ConfigurationFile
from tests.metrics_adapter.builders import pool
from tests.model.virtual_time import VirtualLoop

FINE = Answer(code=200, body=b"{}")


def keda(name: str = "keda-metrics") -> Delegate:
    return Delegate.model_validate({"namespace": "keda", "name": name, "insecureSkipTLSVerify": True})


@dataclass
class FakeProvider:
    """Answers, unless it is away (at once) or stuck (until somebody lets go)."""

    is_away: bool = False
    has_no_values: bool = False
    discovery: tuple[str, ...] = ("s0-kafka", "celery_demand", "CELERY_SLOTS")
    has_bug: bool = False
    stuck: asyncio.Event | None = None
    asked: int = 0
    looks: list[float] = field(default_factory=list)
    is_open: bool = False
    delegates: list[Delegate] = field(default_factory=list)

    @asynccontextmanager
    async def connect(self, delegate: Delegate) -> AsyncIterator[FakeProvider]:
        self.delegates.append(delegate)
        self.is_open = True
        try:
            yield self
        finally:
            self.is_open = False

    async def values(self, *, namespace: str, metric: str, selector: str) -> Answer:
        self.asked += 1
        if self.stuck:
            await self.stuck.wait()
        if self.is_away or self.has_no_values:
            raise NoAnswer("did not answer within 5 s")
        return FINE

    async def names(self) -> tuple[str, ...]:
        self.looks.append(asyncio.get_running_loop().time())
        if self.has_bug:
            raise RuntimeError("nobody thought of this")
        if self.is_away:
            raise NoAnswer("cannot be asked: connection refused")
        return self.discovery


@dataclass
class Outcomes:
    seen: list[str] = field(default_factory=list)

    def delegated(self, *, outcome: str) -> None:
        self.seen.append(outcome)


@dataclass
class Scene:
    """A delegation in virtual time; `run` plays while it is kept up."""

    loop: VirtualLoop
    provider: FakeProvider = field(default_factory=FakeProvider)
    outcomes: Outcomes = field(default_factory=Outcomes)

    def __post_init__(self) -> None:
        self.delegation = Delegation(self.provider.connect, observer=self.outcomes, clock=self.loop.time)

    def run(self, play: Callable[[], Coroutine[Any, Any, None]], delegate: Delegate | None = None) -> None:
        async def played() -> None:
            keeping = asyncio.create_task(self.delegation.keep(delegate or keda()))
            await asyncio.sleep(0.01)
            await play()
            keeping.cancel()
            await asyncio.gather(keeping, return_exceptions=True)

        self.loop.run(played())

    async def ask(self) -> str:
        """What comes of a request: `answered`, or the sentence of its 503."""
        try:
            answer = await self.delegation.read(namespace="default", metric="s0-kafka", selector="")
        except ApiError as error:
            return str(error) if error.code == 503 else "another error"
        return "answered" if answer == FINE else "nobody"


@pytest.fixture
def scene() -> Iterator[Scene]:
    loop = VirtualLoop()
    yield Scene(loop)
    loop.end()


def shown(delegation: Delegation) -> list[str]:
    return [] if delegation.discovery is None else str(delegation.discovery.resources.body).split('"name":"')


def test_ours_win_in_discovery(scene: Scene) -> None:
    """In any case: HPAs lower the names they ask for."""

    async def play() -> None:
        assert [part.partition('"')[0] for part in shown(scene.delegation)[1:]] == [*METRICS, "s0-kafka"]

    scene.run(play)


def test_without_a_delegate_there_is_nobody(scene: Scene) -> None:
    async def play() -> None:
        await scene.delegation.keep(None)
        assert await scene.ask() == "nobody"
        assert scene.delegation.is_answering is None

    scene.loop.run(play())


def test_a_dead_one_is_left_alone_and_found_again(scene: Scene) -> None:
    """Who asks meanwhile is refused at once; a look after the rest finds that it is back."""

    async def play() -> None:
        scene.provider.is_away = True
        assert [await scene.ask() for _ in range(5)] == [
            "The delegate keda/keda-metrics did not answer within 5 s."
        ] * 5
        assert "left alone for a moment" in await scene.ask()
        assert (scene.provider.asked, scene.delegation.is_answering) == (5, False)
        await asyncio.sleep(5.5)  # its rest ends, a look finds nothing: five seconds more
        assert "connection refused. It is left alone" in await scene.ask()
        scene.provider.is_away = False
        await asyncio.sleep(5)
        assert await scene.ask() == "answered"
        assert scene.delegation.is_answering
        assert scene.outcomes.seen == ["failed"] * 5 + ["refused"] * 2 + ["answered"]

    scene.run(play)


def test_a_flapping_one_is_asked_whenever_it_is_there(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    """An hour in which it comes and goes every 40 s: each time five requests wait in vain, and no more.

    It is found again within six seconds, and one line is logged.
    """

    async def play() -> None:
        for second in range(3600):
            scene.provider.is_away = second // 40 % 2 == 1
            await scene.ask()
            await asyncio.sleep(1)
        seen = scene.outcomes.seen
        assert seen.count("failed") <= 5 * 45
        assert seen.count("answered") >= 1800 - 6 * 45

    scene.run(play)
    assert len([r for r in caplog.records if r.levelname == "WARNING"]) <= 45


def test_one_whose_values_fail_while_discovery_answers_rests_longer_each_time(scene: Scene) -> None:
    async def play() -> None:
        scene.provider.has_no_values = True
        for _ in range(3600):
            await scene.ask()
            await asyncio.sleep(1)
        assert scene.provider.asked <= 5 * (5 + 3600 // 60)

    scene.run(play)


def test_its_discovery_stays_while_it_is_away(scene: Scene) -> None:
    """kubectl and the aggregator would take it for gone."""

    async def play() -> None:
        scene.provider.is_away = True
        await asyncio.sleep(3 * LOOK_EVERY_S)
        assert shown(scene.delegation)[-1].startswith("s0-kafka")
        assert "connection refused" in (scene.delegation.problem or "")

    scene.run(play)


def test_its_discovery_is_followed(scene: Scene) -> None:
    async def play() -> None:
        scene.provider.discovery = ("other",)
        await asyncio.sleep(LOOK_EVERY_S + 1)
        assert shown(scene.delegation)[-1].startswith("other")
        scene.provider.discovery = ()
        await asyncio.sleep(LOOK_EVERY_S + 1)
        assert shown(scene.delegation) == []  # ours alone, which are never nothing
        assert len(scene.provider.looks) == 3

    scene.run(play)


def test_nothing_that_it_sends_ends_us(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    async def play() -> None:
        scene.provider.has_bug = True
        await asyncio.sleep(LOOK_EVERY_S + 1)
        assert "our log says more" in (scene.delegation.problem or "")
        scene.provider.has_bug = False
        await asyncio.sleep(LOOK_EVERY_S)
        assert scene.delegation.is_answering

    scene.run(play)
    assert "nobody thought of this" in caplog.text


def test_a_slow_one_does_not_fill_our_memory(scene: Scene) -> None:
    async def play() -> None:
        scene.provider.stuck = asyncio.Event()
        waiting = [asyncio.create_task(scene.ask()) for _ in range(MOST_AT_ONCE)]
        await asyncio.sleep(0.01)
        assert "is slow: 32 requests wait" in await scene.ask()
        scene.provider.stuck.set()
        assert await asyncio.gather(*waiting) == ["answered"] * MOST_AT_ONCE

    scene.run(play)


def test_what_became_of_a_former_delegate_tells_nothing_of_the_next(scene: Scene) -> None:
    """Requests to it that fail after it has left the configuration."""
    scene.provider.stuck = asyncio.Event()
    waiting: list[asyncio.Task[str]] = []

    async def play() -> None:
        waiting.extend(asyncio.create_task(scene.ask()) for _ in range(6))
        await asyncio.sleep(0.01)

    scene.run(play)

    async def later() -> None:
        scene.provider.is_away = True
        assert scene.provider.stuck
        scene.provider.stuck.set()
        await asyncio.gather(*waiting)
        assert (scene.delegation.problem, scene.delegation.is_answering) == (None, None)
        assert await scene.ask() == "nobody"

    scene.loop.run(later())


async def test_the_configuration_in_force_says_who(tmp_path: Path) -> None:
    """A file that changes elsewhere opens no connection anew."""
    path, provider = tmp_path / "config.yaml", FakeProvider()

    def write(delegate: dict[str, Any] | None, refresh: int = 5) -> None:
        pools = [pool().model_dump(mode="json", by_alias=True, exclude_unset=True)]
        path.write_text(yaml.safe_dump({"pools": pools, "delegate": delegate, "refresh": refresh}))

    async def settled(count: int, *, is_open: bool) -> None:
        for _ in range(100):  # turns of the loop, for everything that is due to happen
            await asyncio.sleep(0)
        assert (len(provider.delegates), provider.is_open) == (count, is_open)

    write(None)
    file = ConfigurationFile(path, registry=CollectorRegistry())
    delegation = Delegation(provider.connect, observer=Outcomes())
    following = asyncio.create_task(delegation.follow(file))
    first = {"namespace": "keda", "name": "first", "insecureSkipTLSVerify": True}
    for delegate, refresh, count, is_open in [
        (first, 5, 1, True),
        (first, 7, 1, True),
        (first | {"name": "second"}, 7, 2, True),
        (None, 7, 2, False),
    ]:
        write(delegate, refresh)
        file.reload()
        await settled(count, is_open=is_open)
    assert [one.name for one in provider.delegates] == ["first", "second"]
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)
