"""Questions to workers, many at a time on one connection: a thread, tickets, deadlines of our own.

Coroutines hand questions over; the thread publishes each command under a ticket and listens for all tickets
at once, so that a question which some worker leaves unanswered never holds up the next. A question ends when
everybody who was asked has answered everything, or at its deadline with what came until then.

Every worker of a broker reads every command, whoever it is for. So what many ask at one moment, as pools do
that share a broker, is published once for all of them; each has its answer when its own workers gave it.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any

from shared.celery_broker import BrokerConnection, Heard
from shared.celery_questions import Broadcast, Command, Look, Question, Replies, Result, Work
from shared.errors import BrokerUnavailable
from shared.urls import address, redacted

Connect = Callable[[Heard], BrokerConnection]
"""How a connection is made; it blocks."""

_TICK_S = 0.01
"""How long a new question may wait while the thread listens for the answers to others."""
_GRACE_S = 0.5
"""How long past its deadline a caller waits for a thread that sits in a blocking call or gets no CPU."""
_ATTEMPTS = 2
"""A question that met a broken connection is asked once more on a new one: commands can be repeated."""


class Mailbox:
    """The asyncio side: hands work to the thread and waits for it. For the coroutines of one event loop."""

    def __init__(self, url: str, *, connect: Connect, connect_timeout_s: float) -> None:
        self._url = url
        self._connect_timeout_s = connect_timeout_s
        self._desk = _Desk(url, connect=connect)
        self._thread: threading.Thread | None = None
        self._outbox: list[Work[Any]] = []
        self._is_closed = False

    async def ask(self, commands: Sequence[Command], *, timeout_s: float) -> tuple[Replies, ...]:
        """The replies to each command; at the deadline, those that came. Raises BrokerUnavailable."""
        question = Question(commands, deadline=time.monotonic() + timeout_s)
        return await self._done(question, timeout_s=timeout_s)

    async def count(self, queues: Collection[str], *, timeout_s: float) -> Mapping[str, int]:
        """Ready messages by queue. Raises BrokerUnavailable."""

        def lengths(broker: BrokerConnection) -> Mapping[str, int]:
            return {queue: broker.queue_length(queue) for queue in queues}

        return await self._look(lengths, timeout_s=timeout_s)

    async def mailboxes(self, nodes: Collection[str], *, timeout_s: float) -> frozenset[str]:
        """Those of these workers that have a mailbox at the broker. Raises BrokerUnavailable."""
        return await self._look(lambda broker: broker.mailboxes(nodes), timeout_s=timeout_s)

    async def close(self) -> None:
        """Fail what is open, leave nothing at the broker, end the thread."""
        self._is_closed = True
        thread, self._thread = self._thread, None
        if thread is not None:
            self._send()
            self._desk.inbox.put(None)
            await asyncio.to_thread(thread.join, 2 * self._connect_timeout_s)

    async def _look(self, look: Callable[[BrokerConnection], Result], *, timeout_s: float) -> Result:
        return await self._done(Look(look, deadline=time.monotonic() + timeout_s), timeout_s=timeout_s)

    async def _done(self, work: Work[Result], *, timeout_s: float) -> Result:
        if self._is_closed:
            raise BrokerUnavailable("This connection to the broker has been closed.")
        if self._thread is None:
            self._thread = threading.Thread(target=self._desk.serve, name="celery-control", daemon=True)
            self._thread.start()
        self._post(work)
        try:
            return await asyncio.wait_for(asyncio.wrap_future(work.answer), timeout_s + _GRACE_S)
        except TimeoutError:
            where = address(self._url)
            raise BrokerUnavailable(
                f"The broker {where} did not answer within {timeout_s:g} s; look whether it runs."
            ) from None

    def _post(self, work: Work[Any]) -> None:
        """Together with whatever else is asked in this step of the event loop."""
        if not self._outbox:
            asyncio.get_running_loop().call_soon(self._send)
        self._outbox.append(work)

    def _send(self) -> None:
        outbox, self._outbox = self._outbox, []
        self._desk.inbox.put(outbox)


class _Desk:
    """The thread side: everything here runs in the one thread that owns the connection."""

    def __init__(self, url: str, *, connect: Connect) -> None:
        self.inbox: SimpleQueue[Sequence[Work[Any]] | None] = SimpleQueue()
        self._url = url
        self._connect = connect
        self._broker: BrokerConnection | None = None
        self._fresh: list[Work[Any]] = []
        self._open: list[Work[Any]] = []
        self._broadcasts: list[Broadcast] = []

    def serve(self) -> None:
        """Work until the inbox holds None."""
        while self._collect():
            try:
                self._turn()
            except Exception as error:  # kombu's transports raise what they like, and this thread must live
                self._lose(error)
        self._hang_up()

    def _collect(self) -> bool:
        """Take in new work; with nothing else to do, wait for it. False: stop."""
        try:
            works = self.inbox.get(block=not self._open and not self._fresh)
            while works is not None:
                self._fresh += works
                works = self.inbox.get_nowait()
        except Empty:
            return True
        return False

    def _turn(self) -> None:
        """Start what is new, listen for a moment, hand out what is done."""
        self._fresh = [work for work in self._fresh if not work.answer.cancelled()]
        while self._fresh:
            broker = self._connected()
            self._start(self._next(), broker)
        if self._broker is not None and not all(work.is_complete for work in self._open):
            self._broker.drain(self._patience_s())
        self._hand_out()

    def _next(self) -> list[Work[Any]]:
        """The longest waiting, with all that can be asked together with it."""
        first = self._fresh[0]
        topic = first.topic
        alike = [work for work in self._fresh if work is first or (topic and topic == work.topic)]
        self._fresh = [work for work in self._fresh if work not in alike]
        return alike

    def _start(self, works: Sequence[Work[Any]], broker: BrokerConnection) -> None:
        self._open += works
        for work in works:
            work.attempts += 1
            if isinstance(work, Look):
                self._take(work, broker)
        if questions := [work for work in works if isinstance(work, Question)]:
            broadcast = Broadcast(questions)
            self._broadcasts.append(broadcast)
            broadcast.publish(broker)

    def _take(self, look: Look[Any], broker: BrokerConnection) -> None:
        try:
            look.take(broker)
        except broker.channel_errors as error:
            # One pool's queue cannot be looked at; the connection is well, and others' questions with it.
            self._open.remove(look)
            look.fail(self._unavailable(error))

    def _connected(self) -> BrokerConnection:
        if self._broker is None:
            try:
                self._broker = self._connect(self._hear)
            except Exception:
                for work in self._fresh:
                    work.attempts = _ATTEMPTS
                raise
        return self._broker

    def _hear(self, ticket: str, replies: Mapping[str, Any]) -> None:
        for broadcast in self._broadcasts:
            broadcast.hear(ticket, replies)

    def _patience_s(self) -> float:
        deadline = min((work.deadline for work in self._open), default=0.0)
        return min(_TICK_S, max(0.001, deadline - time.monotonic()))

    def _hand_out(self) -> None:
        now = time.monotonic()
        done = {w for w in self._open if w.is_complete or w.deadline <= now or w.answer.cancelled()}
        self._open = [work for work in self._open if work not in done]
        for work in done:
            work.finish()
        self._broadcasts = [broadcast for broadcast in self._broadcasts if broadcast.is_awaited]
        if self._broker is not None and not self._open:
            self._broker.hush()

    def _lose(self, error: Exception) -> None:
        """The connection broke: ask everything once more that was not asked twice."""
        self._abandon()
        work, self._fresh, self._open, self._broadcasts = self._open + self._fresh, [], [], []
        for item in work:
            if item.attempts < _ATTEMPTS:
                self._fresh.append(item)
            else:
                item.fail(self._unavailable(error))

    def _abandon(self) -> None:
        broker, self._broker = self._broker, None
        if broker is not None:
            broker.abandon()

    def _hang_up(self) -> None:
        for work in self._open + self._fresh:
            work.fail(BrokerUnavailable("This connection to the broker has been closed."))
        if self._broker is not None:
            # What a broken connection leaves behind, the broker's own expiry removes.
            with suppress(Exception):
                self._broker.close()

    def _unavailable(self, error: Exception) -> BrokerUnavailable:
        reason = redacted(f"{type(error).__name__}: {error}", url=self._url)
        unavailable = BrokerUnavailable(
            f"The broker {address(self._url)} cannot be used ({reason}); "
            "look whether it runs and whether the pool's broker url is right."
        )
        unavailable.__cause__ = error
        return unavailable
