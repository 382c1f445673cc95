"""What every door to Celery keeps to: the fake in memory, and the real one with real workers and brokers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

import pytest

from deploy.sandbox.processes import free_port
from shared.celery_control import CeleryControl
from shared.errors import BrokerUnavailable
from shared.workers import Fleet, Software, Task
from tests.brokers import Server
from tests.fakes.celery import FakeCelery, fake_worker
from tests.workers import Worker, celery_workers, send_tasks

ONE, TWO = "celery@one", "celery@two"
QUEUES = {ONE: ("shared", "only-one", "größe"), TWO: ("shared", "only-two")}
SLOTS = 2
PATIENCE_S = 20.0
"""For answers that must come; a test that waits so long fails."""
BRIEFLY_S = 1.5
"""For answers that cannot come."""


class Control(Protocol):
    """The door, real or not."""

    async def inspect(self, nodes: Collection[str], *, timeout_s: float) -> Fleet: ...
    async def active_queues(
        self, nodes: Collection[str], *, timeout_s: float
    ) -> Mapping[str, frozenset[str]]: ...
    async def consumers(self, *, timeout_s: float) -> Mapping[str, frozenset[str]]: ...
    async def listening(self, nodes: Collection[str], *, timeout_s: float) -> frozenset[str]: ...
    async def software(self, nodes: Collection[str], *, timeout_s: float) -> Mapping[str, Software]: ...
    async def cancel_consumers(
        self, queues: Mapping[str, Collection[str]], *, timeout_s: float
    ) -> frozenset[str]: ...
    async def add_consumers(
        self, queues: Mapping[str, Collection[str]], *, timeout_s: float
    ) -> frozenset[str]: ...
    async def queue_lengths(self, queues: Collection[str], *, timeout_s: float) -> Mapping[str, int]: ...
    async def close(self) -> None: ...


class Scene(Protocol):
    """Two workers of two slots each, and what a test does to them."""

    control: Control
    pool: str

    def occupy(self, node: str, *, tasks: int) -> None: ...
    def finish(self) -> None: ...
    def enqueue(self, queue: str, *, messages: int) -> None: ...
    def freeze(self, node: str) -> None: ...
    def thaw(self, node: str) -> None: ...
    def unreachable(self) -> Control: ...


class FakeScene:
    """The scene in memory."""

    pool = "prefork"

    def __init__(self) -> None:
        self._fake = FakeCelery.of(
            *(fake_worker(node, slots=SLOTS, queues=frozenset(names)) for node, names in QUEUES.items()),
            waits_for_silent=True,
        )
        self.control: Control = self._fake

    def occupy(self, node: str, *, tasks: int) -> None:
        numbered = [Task(id=str(number), name="tests.wait_for_file") for number in range(tasks)]
        running = tuple(Task(id=task.id, name=task.name, started_at=1.0) for task in numbered[:SLOTS])
        self._fake.change(node, active=running, reserved=tuple(numbered[SLOTS:]))

    def finish(self) -> None:
        for node in QUEUES:
            self._fake.finish(node)

    def enqueue(self, queue: str, *, messages: int) -> None:
        self._fake.lengths[queue] = messages

    def freeze(self, node: str) -> None:
        self._fake.silent.add(node)

    def thaw(self, node: str) -> None:
        self._fake.wake(node)

    def unreachable(self) -> Control:
        return FakeCelery(broken=True)


class RealScene:
    """The scene on a broker: only `only-…` queues have one consumer, so that a test can choose who works."""

    def __init__(self, url: str, pool: str, workers: Mapping[str, Worker], gate: Path) -> None:
        self.pool = pool
        self.control: Control = CeleryControl(url)
        self._url = url
        self._workers = workers
        self._gate = gate

    def occupy(self, node: str, *, tasks: int) -> None:
        queue = next(name for name in QUEUES[node] if name.startswith("only-"))
        send_tasks(self._url, "tests.wait_for_file", str(self._gate), queue=queue, count=tasks)

    def finish(self) -> None:
        self._gate.touch()

    def enqueue(self, queue: str, *, messages: int) -> None:
        send_tasks(self._url, "tests.fail", queue=queue, count=messages)

    def freeze(self, node: str) -> None:
        self._workers[node].freeze()

    def thaw(self, node: str) -> None:
        self._workers[node].thaw()

    def unreachable(self) -> Control:
        return CeleryControl(
            self._url.replace(self._url.rpartition(":")[2].partition("/")[0], str(free_port()))
        )


class Fleets:
    """Real workers by broker and pool, started when first wanted and kept for the whole session."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._started: dict[tuple[str, str], Mapping[str, Worker]] = {}

    def on(self, url: str, pool: str) -> Mapping[str, Worker]:
        if (url, pool) not in self._started:
            workers = self._stack.enter_context(celery_workers(url, QUEUES, pool=pool, concurrency=SLOTS))
            self._started[url, pool] = workers
        return self._started[url, pool]


@pytest.fixture(scope="session")
def fleets() -> Iterator[Fleets]:
    with ExitStack() as stack:
        yield Fleets(stack)


@pytest.fixture(
    params=[
        "fake",
        "valkey-prefork",
        "valkey-threads",
        pytest.param("rabbitmq-prefork", marks=pytest.mark.rabbitmq),
    ]
)
async def scene(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Scene]:
    if request.param == "fake":
        yield FakeScene()
        return
    broker, pool = request.param.split("-")
    server: Server = request.getfixturevalue(f"{broker}_server")
    # Two fleets on one Valkey: databases keep them apart, as Celery's fanout names theirs.
    url = server.url.replace("/0", "/1") if pool == "threads" else server.url
    workers = request.getfixturevalue("fleets").on(url, pool)
    scene = RealScene(url, pool, workers, tmp_path / "gate")
    yield scene
    for worker in workers.values():
        worker.thaw()
    scene.finish()
    await scene.control.add_consumers(QUEUES, timeout_s=PATIENCE_S)
    await fleet_when(scene, lambda fleet: all(worker.is_idle for worker in fleet.workers.values()))
    await scene.control.close()


async def fleet_when(scene: Scene, holds: Callable[[Fleet], bool]) -> Fleet:
    """The fleet as soon as it is so; looks with pauses, as Redis needs them."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            fleet = await scene.control.inspect(QUEUES, timeout_s=PATIENCE_S)
            if holds(fleet):
                return fleet
            await asyncio.sleep(0.03)


async def queues_when(scene: Scene, node: str, expected: Collection[str]) -> frozenset[str]:
    """What the node consumes, as soon as it is what is expected."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            queues = await scene.control.active_queues([node], timeout_s=PATIENCE_S)
            if queues[node] == frozenset(expected):
                return queues[node]
            await asyncio.sleep(0.03)


async def test_an_idle_fleet_is_whole(scene: Scene) -> None:
    """Every worker that was asked is there, with its slots, queues and pool, and without tasks."""
    fleet = await scene.control.inspect(QUEUES, timeout_s=PATIENCE_S)
    assert fleet.silent == frozenset()
    assert {node: worker.queues for node, worker in fleet.workers.items()} == {
        node: frozenset(names) for node, names in QUEUES.items()
    }
    assert {(worker.slots, worker.pool) for worker in fleet.workers.values()} == {(SLOTS, scene.pool)}
    assert all(worker.is_idle and worker.pid > 0 for worker in fleet.workers.values())


async def test_only_who_was_asked_answers(scene: Scene) -> None:
    """The rest of the broker's workers are somebody else's."""
    fleet = await scene.control.inspect([TWO], timeout_s=PATIENCE_S)
    assert (set(fleet.workers), fleet.silent) == ({TWO}, frozenset())


async def test_workers_tell_their_versions(scene: Scene) -> None:
    """Two numbers out of a report that is full of settings; a silent worker is missing."""
    said = await scene.control.software([ONE, TWO], timeout_s=PATIENCE_S)
    assert said.keys() == {ONE, TWO}
    assert all(software.celery >= "5.6" and not software.is_old for software in said.values())
    scene.freeze(TWO)
    assert (await scene.control.software([ONE, TWO], timeout_s=BRIEFLY_S)).keys() == {ONE}


async def test_whoever_answers_tells_its_queues(scene: Scene) -> None:
    """Also workers of whose names nobody knew; a silent one is missing."""
    said = await scene.control.consumers(timeout_s=BRIEFLY_S)
    assert said == {node: frozenset(names) for node, names in QUEUES.items()}
    scene.freeze(TWO)
    assert (await scene.control.consumers(timeout_s=BRIEFLY_S)).keys() == {ONE}


async def test_who_has_remote_control_is_known_of_the_silent_too(scene: Scene) -> None:
    """The broker keeps a worker's mailbox while it is frozen, and has none of a name that nobody has."""
    scene.freeze(TWO)
    nodes = [ONE, TWO, "celery@nobody"]
    assert await scene.control.listening(nodes, timeout_s=PATIENCE_S) == {ONE, TWO}
    assert await scene.control.listening(["celery@nobody"], timeout_s=PATIENCE_S) == frozenset()


async def test_nobody_was_asked(scene: Scene) -> None:
    """No question needs no broker."""
    control = scene.unreachable()
    assert await control.inspect([], timeout_s=BRIEFLY_S) == Fleet()
    assert await control.active_queues([], timeout_s=BRIEFLY_S) == {}
    assert await control.listening([], timeout_s=BRIEFLY_S) == frozenset()
    assert await control.cancel_consumers({}, timeout_s=BRIEFLY_S) == frozenset()
    assert await control.queue_lengths([], timeout_s=BRIEFLY_S) == {}
    await control.close()


async def test_running_and_prefetched_tasks(scene: Scene) -> None:
    """Two run and know since when; those that were prefetched wait on the same worker."""
    scene.occupy(ONE, tasks=SLOTS + 2)
    fleet = await fleet_when(
        scene, lambda fleet: len(fleet.workers[ONE].active) == SLOTS and len(fleet.workers[ONE].reserved) == 2
    )
    busy, other = fleet.workers[ONE], fleet.workers[TWO]
    assert all(task.started_at is not None for task in busy.active)
    assert all(task.started_at is None for task in busy.reserved)
    assert {task.name for task in busy.tasks} == {"tests.wait_for_file"}
    assert len({task.id for task in busy.tasks}) == SLOTS + 2
    assert other.is_idle


async def test_arguments_stay_behind(scene: Scene, tmp_path: Path) -> None:
    """What a task was called with is nobody's business here."""
    scene.occupy(ONE, tasks=1)
    fleet = await fleet_when(scene, lambda fleet: not fleet.workers[ONE].is_idle)
    assert str(tmp_path) not in repr(fleet)


async def test_cancel_and_give_back(scene: Scene) -> None:
    """A cancelled worker consumes the rest of its queues; what was added again, it consumes again."""
    cancelled = await scene.control.cancel_consumers({ONE: ["shared", "größe"]}, timeout_s=PATIENCE_S)
    assert cancelled == {ONE}
    assert await queues_when(scene, ONE, ["only-one"]) == {"only-one"}
    assert await queues_when(scene, TWO, QUEUES[TWO]) == set(QUEUES[TWO])
    assert await scene.control.add_consumers({ONE: ["shared", "größe"]}, timeout_s=PATIENCE_S) == {ONE}
    assert await queues_when(scene, ONE, QUEUES[ONE]) == set(QUEUES[ONE])


async def test_each_node_loses_its_own_queues(scene: Scene) -> None:
    """One call drains several workers, each of what it consumes."""
    assert await scene.control.cancel_consumers(QUEUES, timeout_s=PATIENCE_S) == {ONE, TWO}
    assert await queues_when(scene, ONE, []) == frozenset()
    assert await queues_when(scene, TWO, []) == frozenset()


async def test_commands_can_be_repeated(scene: Scene) -> None:
    """A repeated command, and one for a queue the worker never had, is acknowledged and changes nothing."""
    for _ in range(2):
        done = await scene.control.cancel_consumers({TWO: ["shared", "unheard-of"]}, timeout_s=PATIENCE_S)
        assert done == {TWO}
    assert await queues_when(scene, TWO, ["only-two"]) == {"only-two"}


async def test_a_cancelled_worker_keeps_its_tasks(scene: Scene) -> None:
    """Running and prefetched tasks stay where they are."""
    scene.occupy(ONE, tasks=SLOTS + 1)
    before = await fleet_when(scene, lambda fleet: len(fleet.workers[ONE].tasks) == SLOTS + 1)
    await scene.control.cancel_consumers({ONE: QUEUES[ONE]}, timeout_s=PATIENCE_S)
    await queues_when(scene, ONE, [])
    after = await scene.control.inspect([ONE], timeout_s=PATIENCE_S)
    assert {task.id for task in after.workers[ONE].tasks} == {task.id for task in before.workers[ONE].tasks}


async def test_a_name_nobody_has_is_silent(scene: Scene) -> None:
    """Others are told in full; a worker that does not answer is neither idle nor obedient."""
    nodes = [ONE, "celery@nobody", TWO]
    fleet, queues, obedient = await asyncio.gather(
        scene.control.inspect(nodes, timeout_s=BRIEFLY_S),
        scene.control.active_queues(nodes, timeout_s=BRIEFLY_S),
        scene.control.add_consumers({node: ["shared"] for node in nodes}, timeout_s=BRIEFLY_S),
    )
    assert set(fleet.workers) == set(queues) == set(obedient) == {ONE, TWO}
    assert set(fleet.silent) == {"celery@nobody"}


async def test_a_frozen_worker_obeys_late(scene: Scene) -> None:
    """It is silent; what it was told meanwhile it does when it wakes, and its late answers harm no one."""
    scene.freeze(ONE)
    fleet, obedient = await asyncio.gather(
        scene.control.inspect(QUEUES, timeout_s=BRIEFLY_S),
        scene.control.cancel_consumers({ONE: ["shared"]}, timeout_s=BRIEFLY_S),
    )
    assert (set(fleet.workers), set(fleet.silent), set(obedient)) == ({TWO}, {ONE}, set())
    scene.thaw(ONE)
    assert await queues_when(scene, ONE, ["only-one", "größe"]) == {"only-one", "größe"}
    assert (await scene.control.inspect(QUEUES, timeout_s=PATIENCE_S)).silent == frozenset()


async def test_a_slow_question_holds_up_nobody(scene: Scene) -> None:
    """While one call waits for a silent worker, another is asked, answered and done."""
    slow = asyncio.create_task(scene.control.inspect(["celery@nobody"], timeout_s=4 * PATIENCE_S))
    await asyncio.sleep(0)
    assert await scene.control.cancel_consumers({ONE: ["shared"]}, timeout_s=PATIENCE_S) == {ONE}
    assert await scene.control.queue_lengths(["shared"], timeout_s=PATIENCE_S) == {"shared": 0}
    assert not slow.done()
    slow.cancel()


async def test_many_callers_at_once(scene: Scene) -> None:
    """Answers find their own question."""
    asked = [[ONE], [TWO], [ONE, TWO]] * 8
    fleets = await asyncio.gather(*(scene.control.inspect(nodes, timeout_s=PATIENCE_S) for nodes in asked))
    assert [sorted(fleet.workers) for fleet in fleets] == asked


async def test_a_caller_that_goes_away(scene: Scene) -> None:
    """A cancelled call leaves the door usable."""
    gone = asyncio.create_task(scene.control.inspect(["celery@nobody"], timeout_s=PATIENCE_S))
    await asyncio.sleep(0.05)
    gone.cancel()
    with pytest.raises(asyncio.CancelledError):
        await gone
    assert (await scene.control.inspect(QUEUES, timeout_s=PATIENCE_S)).silent == frozenset()


async def test_ready_messages_are_counted(scene: Scene) -> None:
    """A queue that is not there is empty; asking for it spoils nothing for the next."""
    scene.enqueue("nobody-consumes", messages=3)
    queues = ["missing", "nobody-consumes", "missing-too"]
    for _ in range(2):
        lengths = await scene.control.queue_lengths(queues, timeout_s=PATIENCE_S)
        assert lengths == {"missing": 0, "nobody-consumes": 3, "missing-too": 0}


async def test_a_broker_that_is_not_there(scene: Scene) -> None:
    """Every call says so, and none makes up an answer."""
    control = scene.unreachable()
    with pytest.raises(BrokerUnavailable):
        await control.inspect([ONE], timeout_s=PATIENCE_S)
    with pytest.raises(BrokerUnavailable):
        await control.cancel_consumers({ONE: ["shared"]}, timeout_s=PATIENCE_S)
    with pytest.raises(BrokerUnavailable):
        await control.queue_lengths(["shared"], timeout_s=PATIENCE_S)
    await control.close()


async def test_a_closed_door(scene: Scene) -> None:
    """After close no call works, and closing again is harmless."""
    control = scene.unreachable()
    await control.close()
    await control.close()
    with pytest.raises(BrokerUnavailable):
        await control.inspect([ONE], timeout_s=PATIENCE_S)
