"""What many ask at one moment is said once, and each hears its own workers."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from shared.celery_broker import BrokerConnection
from shared.celery_questions import Broadcast, Command, Question
from shared.celery_replies import MalformedReply
from shared.faults import FaultPoint

ONE, TWO, THREE = "celery@one", "celery@two", "celery@three"


@dataclass
class Published:
    """A connection that notes what is sent."""

    methods: list[str] = field(default_factory=list)
    nodes: list[Collection[str] | None] = field(default_factory=list)
    tickets: list[str] = field(default_factory=list)

    def listen(self) -> None:
        pass

    def publish(
        self, method: str, arguments: Mapping[str, Any], *, nodes: Collection[str] | None, ticket: str
    ) -> None:
        self.methods.append(method)
        self.nodes.append(nodes)
        self.tickets.append(ticket)


def question(*nodes: str, methods: Collection[str] = ("reserved", "active")) -> Question:
    asked = frozenset(nodes)
    return Question([Command(method=m, nodes=asked, parse=parsed) for m in methods], deadline=0.0)


def parsed(reply: str) -> str:
    if reply == "riddle":
        raise MalformedReply
    return reply.upper()


def published(*questions: Question) -> tuple[Broadcast, Published]:
    broker, broadcast = Published(), Broadcast(questions)
    broadcast.publish(cast(BrokerConnection, broker))
    return broadcast, broker


def test_each_command_is_published_once_for_the_workers_of_all() -> None:
    _, broker = published(question(ONE, TWO), question(THREE), question(TWO))
    assert broker.methods == ["reserved", "active"]
    assert broker.nodes == [{ONE, TWO, THREE}] * 2


def test_each_question_is_done_when_its_own_workers_have_answered_everything() -> None:
    quick, slow = question(ONE), question(ONE, TWO)
    broadcast, broker = published(quick, slow)
    for ticket in broker.tickets:
        broadcast.hear(ticket, {ONE: "idle"})
    assert (quick.is_complete, slow.is_complete) == (True, False)
    assert quick.result() == slow.result() == ({ONE: "IDLE"}, {ONE: "IDLE"})
    for ticket in broker.tickets:
        broadcast.hear(ticket, {TWO: "busy"})
    assert slow.is_complete


def test_a_reply_counts_once_and_only_of_who_was_asked() -> None:
    alone = question(ONE, methods=["active"])
    broadcast, broker = published(alone)
    broadcast.hear("somebody else's", {ONE: "busy"})
    assert not alone.is_complete
    for reply in ({TWO: "busy"}, {ONE: "idle"}, {ONE: "busy"}):
        broadcast.hear(broker.tickets[0], reply)
    assert (alone.is_complete, alone.result()) == (True, ({ONE: "IDLE"},))


def test_what_was_handed_out_stays_as_it_was() -> None:
    """A question that ended at its deadline; its broadcast is still awaited by another one."""
    early, late = question(ONE, methods=["active"]), question(TWO, methods=["active"])
    broadcast, broker = published(early, late)
    early.finish()
    broadcast.hear(broker.tickets[0], {ONE: "busy", TWO: "idle"})
    assert early.answer.result() == ({},)
    assert (early.result(), late.result()) == (({},), ({TWO: "IDLE"},))


def test_a_reply_that_is_none_leaves_its_worker_unanswered() -> None:
    alone = question(ONE, methods=["active"])
    broadcast, broker = published(alone)
    broadcast.hear(broker.tickets[0], {ONE: "riddle"})
    assert (alone.is_complete, alone.result()) == (True, ({},))


def test_a_question_that_is_asked_again_begins_anew() -> None:
    """As after a broken connection: what came before may be of workers that are gone."""
    again = question(ONE, methods=["active"])
    broadcast, broker = published(again)
    broadcast.hear(broker.tickets[0], {ONE: "idle"})
    published(again)
    assert (again.is_complete, again.result()) == (False, ({},))


def test_whoever_hears_it_may_answer_a_question_to_everybody() -> None:
    everybody = Question([Command(method="active_queues", nodes=None, parse=parsed)], deadline=0.0)
    broadcast, broker = published(everybody)
    broadcast.hear(broker.tickets[0], {ONE: "a"})
    broadcast.hear(broker.tickets[0], {TWO: "b"})
    assert broker.nodes == [None]
    assert everybody.result() == ({ONE: "A", TWO: "B"},)
    assert not everybody.is_complete, "nobody knows how many there are"


@pytest.mark.parametrize(
    ("command", "is_alone"),
    [
        (Command(method="active", nodes=frozenset({ONE}), parse=parsed), False),
        (Command(method="active", nodes=None, parse=parsed), True),
        (
            Command(
                method="cancel_consumer",
                nodes=frozenset({ONE}),
                parse=parsed,
                arguments={"queue": "default"},
                fault_point=FaultPoint.BETWEEN_CANCELS,
            ),
            True,
        ),
    ],
)
def test_only_questions_to_workers_by_name_are_asked_together(command: Command, is_alone: bool) -> None:
    """A command is its sender's alone: each is sent, and acknowledged, by itself."""
    assert (Question([command], deadline=0.0).topic is None) is is_alone


def test_other_arguments_are_another_topic() -> None:
    asked = frozenset({ONE})
    plain, safe = (
        Question([Command(method="active", nodes=asked, parse=parsed, arguments=arguments)], deadline=0.0)
        for arguments in ({}, {"safe": True})
    )
    assert plain.topic != safe.topic
