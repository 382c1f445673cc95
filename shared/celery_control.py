"""The door to Celery workers: ask what they do, cancel and add their consumers, count what waits for them.

Only this module and celery_mailbox and celery_broker behind it know kombu.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import Any

from shared.celery_broker import BrokerConnection, Heard
from shared.celery_mailbox import Mailbox
from shared.celery_questions import Command, Replies
from shared.celery_replies import (
    parse_acknowledgement,
    parse_active_queues,
    parse_scheduled,
    parse_software,
    parse_stats,
    parse_tasks,
    snapshot,
)
from shared.faults import FaultPoint
from shared.workers import Fleet, Software

_PARSERS = {
    # In this order: tasks move from scheduled to reserved to active, and a worker answers in the order in
    # which it was asked, so none slips past between two answers. The queues come before the tasks: when a
    # worker consumes nothing, the tasks it names afterwards are all there will be (green pools: after 3 s).
    "stats": parse_stats,
    "active_queues": parse_active_queues,
    "scheduled": parse_scheduled,
    "reserved": parse_tasks,
    "active": parse_tasks,
}
_WITHOUT_ARGUMENTS = {"active": {"safe": True}}
"""Arguments as shortened text, where a worker offers that: it answers even if JSON cannot hold them."""
_FAULT_POINTS = {
    "cancel_consumer": FaultPoint.BETWEEN_CANCELS,
    "add_consumer": FaultPoint.BETWEEN_GIVE_BACKS,
}


class CeleryControl:
    """Remote control of the workers of one broker, for the coroutines of one event loop.

    It owns one thread and one connection, made by the first call and again after a failure; calls run side
    by side on it. Each returns as soon as everybody asked has answered, at `timeout_s` with what came until
    then, and half a second later at the very latest. All raise BrokerUnavailable when the broker fails.

    Celery's limits show: every worker of the broker reads every command, a solo pool is silent while it runs
    a task, and so is any worker after SIGTERM. On Redis, leave at least 20 ms between two looks at
    active_queues: tighter polling keeps the worker from executing the cancel that is polled for.
    """

    def __init__(
        self,
        url: str,
        *,
        control_exchange: str = "celery",
        transport_options: Mapping[str, Any] = MappingProxyType({}),
        connect_timeout_s: float = 5.0,
        with_arguments: bool = False,
    ) -> None:
        """`with_arguments` is for Airflow's tasks, which are told by them; they end in celery_replies."""

        def connect(heard: Heard) -> BrokerConnection:
            return BrokerConnection(
                url,
                control_exchange=control_exchange,
                transport_options=transport_options,
                timeout_s=connect_timeout_s,
                heard=heard,
            )

        self._arguments = {} if with_arguments else _WITHOUT_ARGUMENTS
        self._mailbox = Mailbox(url, connect=connect, connect_timeout_s=connect_timeout_s)

    async def inspect(self, nodes: Collection[str], *, timeout_s: float) -> Fleet:
        """What these workers do; those that did not answer everything are silent."""
        if not nodes:
            return Fleet()
        asked = frozenset(nodes)
        commands = [
            Command(method=method, nodes=asked, parse=parse, arguments=self._arguments.get(method, {}))
            for method, parse in _PARSERS.items()
        ]
        replies = await self._mailbox.ask(commands, timeout_s=timeout_s)
        return _fleet(asked, dict(zip(_PARSERS, replies, strict=True)))

    async def active_queues(
        self, nodes: Collection[str], *, timeout_s: float
    ) -> Mapping[str, frozenset[str]]:
        """The queues each of these workers consumes; a silent worker is missing."""
        if not nodes:
            return {}
        command = Command(method="active_queues", nodes=frozenset(nodes), parse=parse_active_queues)
        (replies,) = await self._mailbox.ask([command], timeout_s=timeout_s)
        return replies

    async def consumers(self, *, timeout_s: float) -> Mapping[str, frozenset[str]]:
        """The queues of every worker of the broker that answers, by node name. Lasts all of `timeout_s`."""
        command = Command(method="active_queues", nodes=None, parse=parse_active_queues)
        (replies,) = await self._mailbox.ask([command], timeout_s=timeout_s)
        return replies

    async def listening(self, nodes: Collection[str], *, timeout_s: float) -> frozenset[str]:
        """Those of these workers that have remote control at this broker, whether they answer or not."""
        return await self._mailbox.mailboxes(nodes, timeout_s=timeout_s) if nodes else frozenset()

    async def software(self, nodes: Collection[str], *, timeout_s: float) -> Mapping[str, Software]:
        """The versions each of these workers runs; one that does not tell them is missing.

        An answer is a report with all settings of its worker, several kB: ask each worker once.
        """
        if not nodes:
            return {}
        command = Command(method="report", nodes=frozenset(nodes), parse=parse_software)
        (replies,) = await self._mailbox.ask([command], timeout_s=timeout_s)
        return replies

    async def cancel_consumers(
        self, queues: Mapping[str, Collection[str]], *, timeout_s: float
    ) -> frozenset[str]:
        """Make each node stop consuming its queues; returns the nodes that acknowledged all of them.

        The acknowledgement comes before the effect: confirm with inspect or active_queues. What was
        prefetched still runs there. A silent worker may obey as late as it wakes up.
        """
        return await self._command("cancel_consumer", queues, timeout_s=timeout_s)

    async def add_consumers(
        self, queues: Mapping[str, Collection[str]], *, timeout_s: float
    ) -> frozenset[str]:
        """Undo cancel_consumers, by the queues' own declarations; returns the nodes that acknowledged."""
        return await self._command("add_consumer", queues, timeout_s=timeout_s)

    async def queue_lengths(self, queues: Collection[str], *, timeout_s: float) -> Mapping[str, int]:
        """Messages ready in each queue, without unacknowledged ones; 0 for a queue that is not there."""
        if not queues:
            return {}
        return await self._mailbox.count(sorted(set(queues)), timeout_s=timeout_s)

    async def close(self) -> None:
        """End the thread and leave nothing behind at the broker; calls still open fail."""
        await self._mailbox.close()

    async def _command(
        self, method: str, queues: Mapping[str, Collection[str]], *, timeout_s: float
    ) -> frozenset[str]:
        """Each command takes one queue: one for each queue, addressed to those who shall obey."""
        names = sorted({queue for of_node in queues.values() for queue in of_node})
        commands = [
            Command(
                method=method,
                nodes=frozenset(node for node, of_node in queues.items() if queue in of_node),
                parse=parse_acknowledgement,
                arguments={"queue": queue},
                fault_point=_FAULT_POINTS[method],
            )
            for queue in names
        ]
        if not commands:
            return frozenset(queues)
        replies = await self._mailbox.ask(commands, timeout_s=timeout_s)
        refused = [
            node
            for command, acknowledged in zip(commands, replies, strict=True)
            for node in command.nodes or ()
            if not acknowledged.get(node, False)
        ]
        return frozenset(queues).difference(refused)


def _fleet(asked: frozenset[str], replies: Mapping[str, Replies]) -> Fleet:
    whole = frozenset.intersection(asked, *(of_method.keys() for of_method in replies.values()))
    workers = {
        node: snapshot(node, **{method: of_method[node] for method, of_method in replies.items()})
        for node in sorted(whole)
    }
    return Fleet(workers=MappingProxyType(workers), silent=asked - whole)
