"""Celery for the model: workers that take tasks from queues, end them, fall silent and obey late."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from random import Random

from shared.workers import Fleet, Task, TaskKey
from tests.fakes.celery import Call, FakeCelery, fake_worker
from tests.fakes.metadata import AIRFLOW_3_TASK
from tests.model.virtual_time import VirtualLoop

QUEUES = ("default", "reports")
SLOTS = 2
PROTECTED = "billing.close"
"""The name of a task that a label protects; see tests.drain_hook.builders.pool, and ModelDatabase."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """A task that waits in a queue."""

    id: str
    name: str
    queue: str
    seconds: float


@dataclass(kw_only=True)
class ModelFleet(FakeCelery):
    """Messages go to any worker that consumes their queue and has a free slot, or may prefetch one more."""

    loop: VirtualLoop = field(default_factory=VirtualLoop)
    random: Random = field(default_factory=Random)
    is_airflow: bool = False
    """Tasks are those of Airflow: called the same, whatever they run."""
    frozen: set[str] = field(default_factory=set)
    """Of the silent nodes, those that neither start nor end tasks."""
    late_s: float = 0.0
    """From a command's arrival to its effect; its "ok" comes at once."""
    waiting: list[Message] = field(default_factory=list)
    sent: int = 0
    ended: int = 0

    def __post_init__(self) -> None:
        self._ids = itertools.count(1)
        self._messages: dict[str, Message] = {}
        self._due_at = 0.0
        self.busy_at: dict[str, float] = {}
        """When each node was last seen with a task."""
        self.silent_at: dict[str, float] = {}

    # What happens to it.

    def boot(self, node: str) -> None:
        """A fresh process consumes what its command line says."""
        self.workers[node] = fake_worker(node, queues=frozenset(QUEUES), slots=SLOTS, pid=next(self._ids))

    def halt(self, node: str) -> int:
        """Its process ends; returns how many tasks that hit. They go back to their queues."""
        worker = self.workers.pop(node, None)
        hit = [self._messages.pop(task.id) for task in worker.tasks] if worker else []
        self.waiting.extend(hit)
        self.silent.discard(node)
        self.frozen.discard(node)
        self._undelivered = [call for call in self._undelivered if node not in call.nodes]
        return len(hit)

    def fall_silent(self, node: str, *, frozen: bool) -> None:
        self.silent.add(node)
        if frozen:
            self.frozen.add(node)

    def wake(self, node: str) -> None:
        self.silent_at[node] = self.loop.time()
        self.frozen.discard(node)
        super().wake(node)

    def send(self, name: str, seconds: float) -> None:
        queue = self.random.choice(QUEUES)
        self.waiting.append(Message(id=f"task-{next(self._ids)}", name=name, queue=queue, seconds=seconds))
        self.sent += 1
        self.work()

    def work(self) -> None:
        """End what is done, start what was prefetched, take what waits."""
        for node in self.workers.keys() - self.frozen:
            self._end_tasks(node)
        left = [message for message in self.waiting if not self._take(message)]
        self.waiting = left

    def end_all(self) -> None:
        """What runs and what waits takes no time any more."""
        self._messages = {id: replace(message, seconds=0.0) for id, message in self._messages.items()}
        self.waiting = [replace(message, seconds=0.0) for message in self.waiting]

    # The door.

    async def inspect(self, nodes: Collection[str], *, timeout_s: float) -> Fleet:
        fleet = await super().inspect(nodes, timeout_s=timeout_s)
        if fleet.silent:
            await asyncio.sleep(timeout_s)
        return fleet

    async def active_queues(
        self, nodes: Collection[str], *, timeout_s: float
    ) -> Mapping[str, frozenset[str]]:
        answers = await super().active_queues(nodes, timeout_s=timeout_s)
        if len(answers) < len(nodes):
            await asyncio.sleep(timeout_s)
        return answers

    async def cancel_consumers(
        self, queues: Mapping[str, Collection[str]], *, timeout_s: float
    ) -> frozenset[str]:
        return await self._patiently(
            await super().cancel_consumers(queues, timeout_s=timeout_s), queues, timeout_s
        )

    async def add_consumers(
        self, queues: Mapping[str, Collection[str]], *, timeout_s: float
    ) -> frozenset[str]:
        return await self._patiently(
            await super().add_consumers(queues, timeout_s=timeout_s), queues, timeout_s
        )

    # Behind the curtain.

    @staticmethod
    async def _patiently(
        done: frozenset[str], queues: Mapping[str, Collection[str]], timeout_s: float
    ) -> frozenset[str]:
        if len(done) < len(queues):
            await asyncio.sleep(timeout_s)
        return done

    def _deliver(self, call: Call) -> None:
        """Late, but in order."""
        if not self.late_s:
            self._take_effect(call)
            return
        self._due_at = max(self._due_at, self.loop.time() + self.late_s)
        self.loop.call_at(self._due_at, self._take_effect, call)

    def _take_effect(self, call: Call) -> None:
        super()._take_effect(call)
        self.work()

    def _end_tasks(self, node: str) -> None:
        worker, now = self.workers[node], self.loop.wall()
        if worker.tasks:
            self._note_busy(node)
        done = {
            task.id
            for task in worker.active
            if task.started_at is not None and now >= task.started_at + self._messages[task.id].seconds
        }
        if not done:
            return
        self.ended += len(done)
        kept = [task for task in worker.tasks if task.id not in done]
        started = tuple(
            task if task.started_at is not None else replace(task, started_at=now) for task in kept[:SLOTS]
        )
        self.change(node, active=started, reserved=tuple(kept[SLOTS:]))

    def _take(self, message: Message) -> bool:
        """One more than there are slots is prefetched."""
        takers = [
            node
            for node, worker in sorted(self.workers.items())
            if message.queue in worker.queues and node not in self.frozen and len(worker.tasks) <= SLOTS
        ]
        if not takers:
            return False
        node = self.random.choice(takers)
        worker = self.workers[node]
        self._messages[message.id] = message
        starts = len(worker.active) < SLOTS
        task = self._task(message, started_at=self.loop.wall() if starts else None)
        part = "active" if starts else "reserved"
        self.change(node, **{part: (*getattr(worker, part), task)})
        self._note_busy(node)
        return True

    def _task(self, message: Message, *, started_at: float | None) -> Task:
        if not self.is_airflow:
            return Task(id=message.id, name=message.name, started_at=started_at)
        dag_id, _, task_id = message.name.partition(".")
        key = TaskKey(dag_id=dag_id, task_id=task_id, run_id=message.id)
        return Task(id=message.id, name=AIRFLOW_3_TASK, key=key, started_at=started_at)

    def is_protected(self, task: Task) -> bool:
        return self._messages[task.id].name == PROTECTED

    def _note_busy(self, node: str) -> None:
        self.busy_at[node] = self.loop.time()
