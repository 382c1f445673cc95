"""A fleet of Celery workers in memory, behind the same door as shared.celery_control.CeleryControl."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from shared.errors import BrokerUnavailable
from shared.workers import Fleet, Software, Task, WorkerSnapshot

Method = Literal["inspect", "active_queues", "queue_lengths", "report", "cancel_consumer", "add_consumer"]


def fake_worker(node: str, *tasks: Task, **fields: Any) -> WorkerSnapshot:
    """A worker of one queue, `default`, that runs `tasks`."""
    defaults: dict[str, Any] = {"slots": 4, "active": tasks, "queues": frozenset({"default"}), "pid": 1}
    return WorkerSnapshot(node=node, **(defaults | fields))


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One command or question; nodes of a cancel are those that were to lose `queue`."""

    method: Method
    nodes: frozenset[str] = frozenset()
    queue: str = ""


@dataclass(kw_only=True)
class FakeCelery:
    """Workers, their tasks and the broker's queues as plain data that a test sets and reads."""

    workers: dict[str, WorkerSnapshot] = field(default_factory=dict)
    silent: set[str] = field(default_factory=set)
    """Nodes that answer nothing. Commands to them wait, as for a frozen process: see `wake`."""
    without_mailbox: set[str] = field(default_factory=set)
    """Silent nodes whose remote control is off, so that the broker does not know them."""
    lengths: dict[str, int] = field(default_factory=dict)
    """Ready messages by queue."""
    versions: dict[str, Software | None] = field(default_factory=dict)
    """By node: None does not tell them; those that are not here run what is new."""
    broken: bool = False
    """The broker cannot be reached."""
    loses_commands: bool = False
    """A silent worker never sees what it was sent: Redis' fanout while the worker reconnects."""
    waits_for_silent: bool = False
    """Silence costs the whole time-out, as it does with real workers."""
    late_cancel_s: float = 0.0
    """How long after its "ok" a cancel takes effect."""
    holds_cancels: bool = False
    """Acknowledged cancels take no effect until `let_cancels_through`."""
    before_answer: Callable[[Call], None] | None = None
    """Called as each command or question arrives: the place to let a task slip in."""
    calls: list[Call] = field(default_factory=list)
    is_closed: bool = False
    _held: list[Call] = field(default_factory=list)
    _undelivered: list[Call] = field(default_factory=list)

    @classmethod
    def of(cls, *workers: WorkerSnapshot, **fields: Any) -> FakeCelery:
        return cls(workers={worker.node: worker for worker in workers}, **fields)

    # What a test does to the fleet.

    def change(self, node: str, **fields: Any) -> None:
        """Give the worker other tasks, queues, or a new pid."""
        self.workers[node] = replace(self.workers[node], **fields)

    def start(self, node: str, *tasks: Task) -> None:
        self.change(node, active=self.workers[node].active + tasks)

    def finish(self, node: str, *ids: str) -> None:
        """End the tasks with these ids; without ids, all of them."""
        worker = self.workers[node]
        active, reserved = (
            tuple(task for task in tasks if ids and task.id not in ids)
            for tasks in (worker.active, worker.reserved)
        )
        self.change(node, active=active, reserved=reserved)

    def wake(self, node: str) -> None:
        """A frozen worker runs again and executes what it was sent meanwhile, however late that is."""
        self.silent.discard(node)
        late = [call for call in self._undelivered if node in call.nodes]
        self._undelivered = [call for call in self._undelivered if node not in call.nodes]
        for call in late:
            self._take_effect(call)

    def let_cancels_through(self) -> None:
        """Held cancels take effect now."""
        self.holds_cancels = False
        held, self._held = self._held, []
        for call in held:
            self._take_effect(call)

    # The door.

    async def inspect(self, nodes: Collection[str], *, timeout_s: float) -> Fleet:
        if not nodes:
            return Fleet()
        answering = await self._answering(Call(method="inspect", nodes=frozenset(nodes)), timeout_s=timeout_s)
        return Fleet(
            workers={node: self.workers[node] for node in sorted(answering)},
            silent=frozenset(nodes) - answering,
        )

    async def active_queues(
        self, nodes: Collection[str], *, timeout_s: float
    ) -> Mapping[str, frozenset[str]]:
        if not nodes:
            return {}
        call = Call(method="active_queues", nodes=frozenset(nodes))
        answering = await self._answering(call, timeout_s=timeout_s)
        return {node: self.workers[node].queues for node in sorted(answering)}

    async def consumers(self, *, timeout_s: float) -> Mapping[str, frozenset[str]]:
        call = Call(method="active_queues", nodes=frozenset(self.workers))
        answering = await self._answering(call, timeout_s=timeout_s)
        return {node: self.workers[node].queues for node in sorted(answering)}

    async def listening(self, nodes: Collection[str], *, timeout_s: float) -> frozenset[str]:
        if not nodes:
            return frozenset()
        await self._answering(Call(method="queue_lengths"), timeout_s=timeout_s)
        return frozenset(nodes) & self.workers.keys() - self.without_mailbox

    async def software(self, nodes: Collection[str], *, timeout_s: float) -> Mapping[str, Software]:
        if not nodes:
            return {}
        call = Call(method="report", nodes=frozenset(nodes))
        answering = await self._answering(call, timeout_s=timeout_s)
        recent = Software(celery="5.6.2", kombu="5.6.1")
        said = {node: self.versions.get(node, recent) for node in sorted(answering)}
        return {node: versions for node, versions in said.items() if versions is not None}

    async def cancel_consumers(
        self, queues: Mapping[str, Collection[str]], *, timeout_s: float
    ) -> frozenset[str]:
        return await self._command("cancel_consumer", queues, timeout_s=timeout_s)

    async def add_consumers(
        self, queues: Mapping[str, Collection[str]], *, timeout_s: float
    ) -> frozenset[str]:
        return await self._command("add_consumer", queues, timeout_s=timeout_s)

    async def queue_lengths(self, queues: Collection[str], *, timeout_s: float) -> Mapping[str, int]:
        if not queues:
            return {}
        await self._answering(Call(method="queue_lengths"), timeout_s=timeout_s)
        return {queue: self.lengths.get(queue, 0) for queue in sorted(set(queues))}

    async def close(self) -> None:
        self.is_closed = True

    # What real workers would do.

    async def _answering(self, call: Call, *, timeout_s: float) -> frozenset[str]:
        await asyncio.sleep(0)
        if self.broken or self.is_closed:
            raise BrokerUnavailable("The broker of this test is switched off.")
        self.calls.append(call)
        if self.before_answer is not None:
            self.before_answer(call)
        answering = call.nodes & self.workers.keys() - self.silent
        if self.waits_for_silent and answering != call.nodes:
            await asyncio.sleep(timeout_s)
        return answering

    async def _command(
        self,
        method: Literal["cancel_consumer", "add_consumer"],
        queues: Mapping[str, Collection[str]],
        *,
        timeout_s: float,
    ) -> frozenset[str]:
        acknowledged = set(queues)
        for queue in sorted({queue for names in queues.values() for queue in names}):
            nodes = frozenset(node for node, names in queues.items() if queue in names)
            call = Call(method=method, nodes=nodes, queue=queue)
            answering = await self._answering(call, timeout_s=timeout_s)
            acknowledged -= nodes - answering
            self._deliver(replace(call, nodes=answering))
            if not self.loses_commands:
                self._undelivered.extend(_one_each(call, nodes & self.silent))
        return frozenset(acknowledged)

    def _deliver(self, call: Call) -> None:
        if call.method == "cancel_consumer" and self.holds_cancels:
            self._held.append(call)
        elif call.method == "cancel_consumer" and self.late_cancel_s:
            asyncio.get_running_loop().call_later(self.late_cancel_s, self._take_effect, call)
        else:
            self._take_effect(call)

    def _take_effect(self, call: Call) -> None:
        for node in call.nodes & self.workers.keys():
            queues = self.workers[node].queues - {call.queue}
            self.change(node, queues=queues if call.method == "cancel_consumer" else queues | {call.queue})


def _one_each(call: Call, nodes: Iterable[str]) -> list[Call]:
    return [replace(call, nodes=frozenset({node})) for node in nodes]
