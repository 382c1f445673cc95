"""One connection to the broker, speaking Celery's remote control protocol. Blocking; for one thread.

Four rules of this protocol shape the file:

- Our connection is never the shared pool's: ten concurrent users of that one lock each other out for ever.
- On Redis every consumer takes part in returning unacknowledged tasks to their queues after *its own*
  visibility timeout. Ours would hand out tasks a second time that run longer than an hour, so it looks at
  bookkeeping keys of its own, which are always empty.
- The reply queue exists only while somebody listens: a name left behind makes every later reply slower.
- Nothing retries by itself: kombu's default is to try for ever, and a caller's deadline is near.
- On Redis kombu fetches one message for each question to the server; replies come in thousands, so what waits
  beside the first is fetched together.
"""

# mypy: allow-untyped-calls
# kombu says that it is typed, and is in a few places.

from __future__ import annotations

import socket
from collections.abc import Callable, Collection, Mapping
from contextlib import ExitStack, suppress
from typing import Any
from uuid import uuid4

from kombu.connection import Connection
from kombu.entity import Exchange, Queue
from kombu.exceptions import ChannelError
from kombu.message import Message
from kombu.messaging import Consumer, Producer
from kombu.pidbox import Mailbox
from kombu.transport.redis import Channel as RedisChannel
from kombu.transport.virtual import Channel as VirtualChannel
from kombu.utils.json import loads
from redis.exceptions import ResponseError

from shared.celery_reply_queues import ReplyQueues

Heard = Callable[[str, Mapping[str, Any]], None]
"""Takes a ticket and the replies that came under it, by node name."""

_OWN_BOOKKEEPING = {
    "unacked_key": "unacked.celery-hpa",
    "unacked_index_key": "unacked_index.celery-hpa",
    "unacked_mutex_key": "unacked_mutex.celery-hpa",
}
_REPLY_QUEUE_EXPIRES_S = 10.0
_FETCHED_AT_ONCE = 64
"""Replies; a few milliseconds' work, so that other threads get their turn."""
_NOT_FOUND = 404
_LOCKED = 405
"""The queue is there, and another connection's alone."""


class BrokerConnection:
    """Connects when made. Any exception of kombu's transports can leave any method: abandon it then."""

    def __init__(
        self,
        url: str,
        *,
        control_exchange: str,
        transport_options: Mapping[str, Any],
        timeout_s: float,
        heard: Heard,
    ) -> None:
        self._heard = heard
        self._connection = Connection(
            url,
            connect_timeout=timeout_s,
            heartbeat=0,
            transport_options=_timeouts(timeout_s) | dict(transport_options) | _OWN_BOOKKEEPING,
        )
        with ExitStack() as undo:
            undo.callback(self.abandon)
            self._connection.ensure_connection(
                max_retries=len(self._connection.alt) or 1,
                interval_start=0,
                interval_step=0,
                timeout=timeout_s,
            )
            self._open(Mailbox(control_exchange, type="fanout"))
            undo.pop_all()

    def _open(self, mailbox: Any) -> None:
        self._channel = self._connection.channel()
        # A channel of its own: RabbitMQ closes it over a missing queue, and the library opens it again.
        self._counting = self._connection.channel()
        self._mailbox = mailbox
        self._exchange: Exchange = mailbox.exchange(self._channel)
        self._exchange.declare()
        self._producer = Producer(self._channel, auto_declare=False, serializer="json")
        self._replies = _reply_queue(mailbox.reply_exchange)(self._channel)
        self._queues: ReplyQueues | None = None
        if isinstance(self._channel, RedisChannel):
            self._queues = ReplyQueues(
                self._channel, exchange=self._replies.exchange.name, queue=self._replies.name
            )
        self._consumer: Consumer | None = None
        self._fetches_many = isinstance(self._channel, RedisChannel)

    @property
    def channel_errors(self) -> tuple[type[Exception], ...]:
        """What says no to one request, on a connection that is well."""
        return tuple(self._connection.channel_errors)

    def listen(self) -> None:
        """Declare the reply queue; the broker's answer also proves that the connection is alive."""
        if self._consumer is None:
            consumer = Consumer(
                self._channel, [self._replies], accept=["json"], no_ack=True, auto_declare=False
            )
            consumer.register_callback(self._receive)
            if self._queues is not None:
                self._queues.listening()
            self._replies.declare()
            consumer.consume()
            self._consumer = consumer

    def hush(self) -> None:
        """Remove the reply queue, and with it whatever arrives too late."""
        if self._consumer is not None:
            consumer, self._consumer = self._consumer, None
            consumer.cancel()
            self._replies.delete()
            self._forget_binding()
            if self._queues is not None:
                self._queues.gone()

    def publish(
        self, method: str, arguments: Mapping[str, Any], *, nodes: Collection[str] | None, ticket: str
    ) -> None:
        """Send a command that only `nodes` obey, or with None whoever hears it.

        Replies come under `ticket` to whoever drains.
        """
        if self._queues is not None and self._consumer is not None:
            self._queues.listening()
        self._producer.publish(
            {
                "method": method,
                "arguments": dict(arguments),
                "destination": None if nodes is None else sorted(nodes),
                "pattern": None,
                "matcher": None,
                "ticket": ticket,
                "reply_to": {
                    "exchange": self._replies.exchange.name,
                    "routing_key": self._replies.routing_key,
                },
            },
            exchange=self._exchange.name,
            headers={"clock": 0, "expires": 0},
        )

    def drain(self, timeout_s: float) -> None:
        """Hand over what arrives; returns after some of it, or after `timeout_s` without any."""
        with suppress(socket.timeout):
            self._connection.drain_events(timeout=timeout_s)
            if self._fetches_many and self._consumer is not None:
                self._fetch_more(self._consumer)

    def _fetch_more(self, consumer: Consumer) -> None:
        """What waits beside the reply that has just come; all of it belongs to the same consumer."""
        try:
            with self._channel.conn_or_acquire() as client:
                waiting = client.rpop(self._replies.name, _FETCHED_AT_ONCE) or ()
        except ResponseError:  # before Redis 6.2 there was no such thing as many at once
            self._fetches_many = False
            return
        for raw in waiting:
            message = self._channel.message_to_python(loads(raw))
            message.accept = consumer.accept
            self._receive(message.decode(), message)

    def queue_length(self, queue: str) -> int:
        """Messages ready in the queue; 0 when there is no such queue."""
        try:
            return int(self._counting.queue_declare(queue=queue, passive=True).message_count)
        except ChannelError as error:
            if int(error.reply_code or 0) != _NOT_FOUND:
                raise
            return 0

    def mailboxes(self, nodes: Collection[str]) -> frozenset[str]:
        """Those of these workers that have a queue for commands here, whether they read it or not."""
        queues = {node: self._mailbox.get_queue(node).name for node in nodes}
        if isinstance(self._channel, VirtualChannel):
            bound = {binding[-1] for binding in self._channel.get_table(self._exchange.name)}
            return frozenset(node for node, queue in queues.items() if queue in bound)
        return frozenset(node for node, queue in queues.items() if self._is_there(queue))

    def _is_there(self, queue: str) -> bool:
        try:
            self._counting.queue_declare(queue=queue, passive=True)
        except ChannelError as error:
            if int(error.reply_code or 0) not in (_NOT_FOUND, _LOCKED):
                raise
            return int(error.reply_code or 0) == _LOCKED
        return True

    def close(self) -> None:
        """Leave nothing behind at the broker."""
        self.hush()
        self._connection.release()

    def abandon(self) -> None:
        """Close as far as a broken connection can be closed."""
        # Whatever goes wrong here is what was wrong before.
        with suppress(Exception):
            self._connection.collect()

    def _forget_binding(self) -> None:
        """kombu's virtual transports note every binding in memory and never strike it off."""
        if isinstance(self._channel, VirtualChannel):
            table = self._channel.state.exchanges[self._replies.exchange.name]["table"]
            table[:] = [binding for binding in table if binding[-1] != self._replies.name]

    def _receive(self, body: Any, message: Message) -> None:
        ticket = message.headers.get("ticket")
        if isinstance(ticket, str) and isinstance(body, dict):
            self._heard(ticket, body)


def _reply_queue(exchange: Exchange) -> Any:
    """Ours alone, by a new name each time: a dead connection may hold an exclusive queue for a while."""
    routing_key = str(uuid4())
    return Queue(
        f"{routing_key}.{exchange.name}",
        exchange=exchange,
        routing_key=routing_key,
        durable=False,
        exclusive=True,
        auto_delete=True,
        expires=_REPLY_QUEUE_EXPIRES_S,
    )


def _timeouts(timeout_s: float) -> dict[str, Any]:
    """For Redis and for AMQP; each transport leaves the other's aside."""
    return {
        "socket_timeout": timeout_s,
        "socket_connect_timeout": timeout_s,
        "socket_keepalive": True,
        "read_timeout": timeout_s,
        "write_timeout": timeout_s,
    }
