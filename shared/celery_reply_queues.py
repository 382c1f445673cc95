"""Reply queues on Redis that nobody listens at any more. Blocking; for the thread of one connection.

Redis knows no exclusive queues: of a process that is killed amid a question, the queue and its binding stay
for ever, and each worker reads all bindings for each answer it sends. So whoever listens says so, with the
time of the broker's own clock, and sweeps up after those of us who have not said so for long.
"""

# mypy: allow-untyped-calls
# kombu says that it is typed, and is in a few places.

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from kombu.transport.redis import Channel
from kombu.utils.encoding import bytes_to_str
from redis.exceptions import ResponseError

LISTENERS = "celery-hpa.listeners"
"""A hash: when each reply queue of ours was last known to be listened at, in seconds."""
DEAD_AFTER_S = 300.0
"""Far longer than any question, and than what a machine may be paused for."""
SAY_EVERY_S = 60.0


class ReplyQueues:
    """Says that one queue is listened at, and removes those of the dead.

    A user without the permission for that does without: the commands are nobody's but ours.
    """

    def __init__(
        self,
        channel: Channel,
        *,
        exchange: str,
        queue: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._channel = channel
        self._bindings = channel.keyprefix_queue % exchange
        self._queue = queue
        self._clock = clock
        self._is_permitted = True
        self._said_at: float | None = None
        self._swept_at: float | None = None

    def listening(self) -> None:
        """To be called before the queue is bound, and now and then while it is."""
        now = self._clock()
        if self._is_permitted and (self._said_at is None or now - self._said_at > SAY_EVERY_S):
            self._try(self._say)
            self._said_at = now

    def gone(self) -> None:
        """To be called when it is not bound any more."""
        if self._is_permitted:
            self._try(lambda client: client.hdel(LISTENERS, self._queue))
        self._said_at = None

    def _say(self, client: Any) -> None:
        seconds, microseconds = client.time()
        broker_time = seconds + microseconds / 1e6
        client.hset(LISTENERS, self._queue, broker_time)
        now = self._clock()
        if self._swept_at is None or now - self._swept_at > SAY_EVERY_S:
            self._swept_at = now
            self._sweep(client, broker_time)

    def _sweep(self, client: Any, broker_time: float) -> None:
        """Only what has an entry in LISTENERS: other bindings are those of others."""
        # kombu's client puts the prefix before the keys of those commands that kombu itself uses.
        entries = client.hgetall(f"{self._channel.global_keyprefix}{LISTENERS}")
        dead = {
            bytes_to_str(queue)
            for queue, said_at in entries.items()
            if broker_time - float(said_at) > DEAD_AFTER_S
        }
        for binding in client.smembers(self._bindings) if dead else ():
            if bytes_to_str(binding).rpartition(self._channel.sep)[2] in dead:
                client.srem(self._bindings, binding)
        for queue in dead:
            client.delete(queue)
            client.hdel(LISTENERS, queue)

    def _try(self, action: Callable[[Any], Any]) -> None:
        try:
            with self._channel.conn_or_acquire() as client:
                action(client)
        except ResponseError:
            self._is_permitted = False
