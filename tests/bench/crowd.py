"""`python -m tests.bench.crowd URL QUEUE`: answers remote control for every worker that is asked.

Each answer is a message of its own, as a real worker's is, and what is cancelled stays cancelled: whoever
asks sees no difference. A worker comes to be with the first command that names it, and from then on hears
those to everybody, too. Several processes share the names when each is told its part: 0/2 and 1/2.

What is not simulated is the broker's own work for a thousand mailboxes: a part has one for all its names.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zlib import crc32

from kombu import Connection
from kombu.messaging import Producer
from kombu.pidbox import Mailbox, Node
from kombu.transport.redis import Channel as RedisChannel

from deploy.sandbox.processes import running

RECORDING = Path(__file__).parent.parent / "recordings" / "celery" / "redis_prefork.json"
RECORDED = "celery@podA"
SETTINGS = "".join(f"setting_{number}: 'what it is set to'\n" for number in range(100))
REPORT = f"software -> celery:5.6.0 (recovery) kombu:5.6.0 py:3.13.0\n{SETTINGS}"
LISTENS = "The crowd listens."
EFFECT_S = 0.005
"""From a worker's "ok" until it has obeyed; half of the real ones take 4 to 8 ms."""
Json = Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """Of what a worker consumes: acknowledged, and to take effect in a moment."""

    method: str
    queue: str
    due: float


@dataclass(slots=True)
class Worker:
    """What one name consumes."""

    queues: dict[str, Json]
    """Declarations by name, as active_queues lists them."""
    template: Json
    """Of a declaration, for queues that are added."""
    changes: list[Change] = field(default_factory=list)

    def obey(self, method: str, queue: str, *, due: float) -> Json:
        """The acknowledgement, in the words of a real worker."""
        self.changes.append(Change(method=method, queue=queue, due=due))
        return {"ok": {"add_consumer": "add consumer", "cancel_consumer": "no longer consuming from"}[method]}

    def consumed(self, now: float) -> list[Json]:
        while self.changes and self.changes[0].due <= now:
            change = self.changes.pop(0)
            if change.method == "add_consumer":
                self.queues.setdefault(change.queue, self.template | {"name": change.queue})
            else:
                self.queues.pop(change.queue, None)
        return list(self.queues.values())


class Fleet:
    """The workers of one part, by name. Pure, but for what it remembers."""

    def __init__(
        self, recorded: Mapping[str, Json], *, queue: str, is_idle: bool, part: tuple[int, int] = (0, 1)
    ) -> None:
        self._recorded = dict(recorded)
        self._template: Json = recorded["active_queues"][0]
        if is_idle:
            self._recorded |= {"active": [], "reserved": [], "scheduled": []}
        self._queue = queue
        self._number, self._parts = part
        self._workers: dict[str, Worker] = {}

    def addressed(self, destination: Sequence[str] | None) -> list[str]:
        """Who of this part is to answer; None addresses everybody."""
        if destination is None:
            return list(self._workers)
        return [name for name in destination if crc32(name.encode()) % self._parts == self._number]

    def answer(self, name: str, method: str, arguments: Mapping[str, Json], *, now: float) -> Json:
        worker = self._workers.get(name)
        if worker is None:
            queues = {self._queue: self._template | {"name": self._queue}}
            worker = self._workers[name] = Worker(queues, self._template)
        if method in ("cancel_consumer", "add_consumer"):
            return worker.obey(method, str(arguments["queue"]), due=now + EFFECT_S)
        if method == "active_queues":
            return worker.consumed(now)
        if method == "report":
            return {"ok": REPORT}
        if method == "ping":
            return {"ok": "pong"}
        return self._recorded.get(method, {"ok": "done"})


class Crowd(Node):  # type: ignore[misc]  # kombu has no types
    """One listener with many names."""

    def __init__(self, mailbox: Mailbox, channel: Any, *, fleet: Fleet, part: int) -> None:
        super().__init__(f"celery@crowd-{part}", mailbox=mailbox, channel=channel)
        self._fleet = fleet

    def handle_message(self, body: dict[str, Any], message: Any = None) -> None:
        method, arguments, now = body["method"], body.get("arguments") or {}, time.monotonic()
        names = self._fleet.addressed(body["destination"])
        answers = [{name: self._fleet.answer(name, method, arguments, now=now)} for name in names]
        if answers and (where := body.get("reply_to")):
            self._reply_all(answers, where["exchange"], where["routing_key"], body["ticket"])

    def _reply_all(self, answers: Sequence[Json], exchange: str, routing_key: str, ticket: str) -> None:
        """A thousand workers would share this work, so it is made cheap: on Redis all go in one write."""
        headers = {"ticket": ticket, "clock": 0}
        if not isinstance(self.channel, RedisChannel):
            producer = Producer(self.channel, auto_declare=False, serializer="json")
            for answer in answers:
                producer.publish(answer, exchange=exchange, routing_key=routing_key, headers=headers)
            return
        messages = [self._redis_message(answer, exchange, routing_key, headers) for answer in answers]
        # As kombu does it for each message: nothing is kept for a queue that is not bound any more.
        for queue in self.channel.typeof(exchange).lookup(
            self.channel.get_table(exchange), exchange, routing_key, None
        ):
            with self.channel.conn_or_acquire() as client:
                client.lpush(queue, *messages)

    def _redis_message(self, answer: Json, exchange: str, routing_key: str, headers: Json) -> str:
        message = self.channel.prepare_message(
            json.dumps(answer),
            priority=0,
            content_type="application/json",
            content_encoding="utf-8",
            headers=headers,
            properties={"delivery_mode": 1},
        )
        self.channel._inplace_augment_message(message, exchange, routing_key)
        return json.dumps(message)


def recorded_answers() -> dict[str, Json]:
    """Of a real worker that runs two tasks, by method."""
    recorded = json.loads(RECORDING.read_text())
    methods = ("stats", "active", "reserved", "scheduled", "active_queues")
    return {method: recorded[method][RECORDED] for method in methods}


def serve(url: str, fleet: Fleet, *, part: int, ready: Callable[[], None]) -> None:
    """Until killed."""
    with Connection(url) as connection:
        channel = connection.channel()
        mailbox = Mailbox("celery", type="fanout", connection=connection, accept=["json"], serializer="json")
        Crowd(mailbox, channel, fleet=fleet, part=part).listen(channel)
        ready()
        while True:
            connection.drain_events()


@asynccontextmanager
async def crowd(
    directory: Path, url: str, queue: str, *, processes: int = 1, is_idle: bool = False
) -> AsyncIterator[None]:
    """So many processes that answer for every worker of a broker, while the block lasts."""
    idle = ("--idle",) if is_idle else ()
    async with AsyncExitStack() as stack:
        for part in range(processes):
            command = [sys.executable, "-m", "tests.bench.crowd", url, queue]
            command += ["--part", f"{part}/{processes}", *idle]
            log = directory / f"crowd-{part}.log"
            await stack.enter_async_context(running(command, log=log, ready=LISTENS))
        yield


def _part(text: str) -> tuple[int, int]:
    number, _, parts = text.partition("/")
    return int(number), int(parts)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.crowd")
    parser.add_argument("url")
    parser.add_argument("queue")
    parser.add_argument("--part", type=_part, default=(0, 1), metavar="N/OF")
    parser.add_argument("--idle", action="store_true", help="no worker has a task")
    options = parser.parse_args(arguments)
    fleet = Fleet(recorded_answers(), queue=options.queue, is_idle=options.idle, part=options.part)
    serve(options.url, fleet, part=options.part[0], ready=lambda: print(LISTENS, flush=True))


if __name__ == "__main__":
    main()
