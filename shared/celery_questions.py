"""What is asked of a broker and its workers, and how the answers come together. No thread, no clock."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar
from uuid import uuid4

from shared.celery_broker import BrokerConnection
from shared.celery_replies import MalformedReply
from shared.errors import BrokerUnavailable
from shared.faults import FaultPoint, reach

Result = TypeVar("Result")
Replies = Mapping[str, Any]
"""What the workers answered to one command, parsed, by node name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """One remote control command for some workers, or for all of the broker."""

    method: str
    nodes: frozenset[str] | None
    """None: whoever hears it. Nobody knows how many these are, so such a question lasts to its deadline."""
    parse: Callable[[Any], Any]
    """Turns a reply into a value; raises MalformedReply, which leaves the node unanswered."""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    fault_point: FaultPoint | None = None
    """Comes after it was sent."""


class Work(Generic[Result]):
    """Something the thread is to do, by when, and who waits for it."""

    def __init__(self, *, deadline: float) -> None:
        self.deadline = deadline
        self.attempts = 0
        self.answer: Future[Result] = Future()

    @property
    def topic(self) -> Hashable | None:
        """Equal for what can be asked together; None for what is asked alone."""
        return None

    @property
    def is_complete(self) -> bool:
        return True

    def result(self) -> Result:
        raise NotImplementedError

    def finish(self) -> None:
        if self.answer.set_running_or_notify_cancel():
            self.answer.set_result(self.result())

    def fail(self, error: BrokerUnavailable) -> None:
        if self.answer.set_running_or_notify_cancel():
            self.answer.set_exception(error)


class Question(Work[tuple[Replies, ...]]):
    """Commands published back to back, whose answers are awaited together."""

    def __init__(self, commands: Sequence[Command], *, deadline: float) -> None:
        super().__init__(deadline=deadline)
        self.commands = commands
        self._replies: list[dict[str, Any]] = []
        self._missing: list[set[str] | None] = []

    @property
    def topic(self) -> Hashable | None:
        """Only of what changes nothing and is for workers by name."""
        if any(command.nodes is None or command.fault_point for command in self.commands):
            return None
        return tuple((command.method, repr(command.arguments)) for command in self.commands)

    @property
    def nodes(self) -> frozenset[str] | None:
        """Who may answer; None: anybody."""
        every = [command.nodes for command in self.commands if command.nodes is not None]
        return frozenset().union(*every) if len(every) == len(self.commands) else None

    def begin(self) -> None:
        self._replies = [{} for _ in self.commands]
        self._missing = [None if c.nodes is None else set(c.nodes) for c in self.commands]

    def hear(self, index: int, node: str, reply: Any) -> None:
        """Take what this worker answered to a command of ours; again, or unasked, it does not count."""
        if self.answer.done():
            return
        missing = self._missing[index]
        if missing is not None:
            if node not in missing:
                return
            missing.discard(node)
        with suppress(MalformedReply):
            self._replies[index][node] = self.commands[index].parse(reply)

    @property
    def is_complete(self) -> bool:
        return all(missing is not None and not missing for missing in self._missing)

    def result(self) -> tuple[Replies, ...]:
        """A copy: whoever has it reads it while this thread listens on, for others."""
        return tuple(map(dict, self._replies))


class Broadcast:
    """The commands of questions on one topic, each published once, for the workers of all of them."""

    def __init__(self, questions: Sequence[Question]) -> None:
        self._questions = questions
        self._tickets: dict[str, int] = {}
        self._askers: dict[str, list[Question]] = defaultdict(list)
        self._asking_anybody = [question for question in questions if question.nodes is None]
        for question in questions:
            question.begin()
            for node in question.nodes or ():
                self._askers[node].append(question)

    @property
    def is_awaited(self) -> bool:
        return not all(question.answer.done() for question in self._questions)

    def publish(self, broker: BrokerConnection) -> None:
        broker.listen()
        for index, alike in enumerate(zip(*(question.commands for question in self._questions), strict=True)):
            ticket, command = uuid4().hex, alike[0]
            self._tickets[ticket] = index
            nodes = None if command.nodes is None else frozenset().union(*(c.nodes or () for c in alike))
            broker.publish(command.method, command.arguments, nodes=nodes, ticket=ticket)
            if command.fault_point is not None:
                reach(command.fault_point)

    def hear(self, ticket: str, replies: Mapping[str, Any]) -> None:
        """Take what came under `ticket`, unless that is somebody else's."""
        index = self._tickets.get(ticket)
        if index is None:
            return
        for node, reply in replies.items():
            for question in self._askers.get(node, self._asking_anybody):
                question.hear(index, node, reply)


class Look(Work[Result]):
    """What the broker itself answers, at once."""

    def __init__(self, look: Callable[[BrokerConnection], Result], *, deadline: float) -> None:
        super().__init__(deadline=deadline)
        self._look = look

    def take(self, broker: BrokerConnection) -> None:
        self._found = self._look(broker)

    def result(self) -> Result:
        return self._found
