"""`python -m tests.bench.crowd URL QUEUE`: answers remote control for every worker that is asked.

Each answer is a message of its own, a recorded one of a real worker: whoever asks sees no difference.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kombu import Connection
from kombu.pidbox import Mailbox, Node

RECORDING = Path(__file__).parent.parent / "recordings" / "celery" / "redis_prefork.json"
RECORDED = "celery@podA"
SETTINGS = "".join(f"setting_{number}: 'what it is set to'\n" for number in range(100))
REPORT = f"software -> celery:5.6.0 (recovery) kombu:5.6.0 py:3.13.0\n{SETTINGS}"


class Crowd(Node):  # type: ignore[misc]  # kombu has no types
    """One listener with many names."""

    def __init__(self, mailbox: Mailbox, channel: Any, *, queue: str) -> None:
        super().__init__("celery@crowd", mailbox=mailbox, channel=channel)
        recorded = json.loads(RECORDING.read_text())
        self._answers = {
            method: recorded[method][RECORDED] for method in ("stats", "active", "reserved", "scheduled")
        }
        (one, *_) = recorded["active_queues"][RECORDED]
        self._queues = [one | {"name": queue}]
        self._cancelled: set[str] = set()

    def handle_message(self, body: dict[str, Any], message: Any = None) -> None:
        where, method = body["reply_to"], body["method"]
        for name in body["destination"] or ():
            answer = self._answer(name, method)
            self.reply({name: answer}, where["exchange"], where["routing_key"], body["ticket"])

    def _answer(self, name: str, method: str) -> Any:
        if method == "cancel_consumer":
            self._cancelled.add(name)
        elif method == "add_consumer":
            self._cancelled.discard(name)
        elif method == "active_queues":
            return [] if name in self._cancelled else self._queues
        elif method == "report":
            return {"ok": REPORT}
        return self._answers.get(method, {"ok": "done"})


def answer(url: str, queue: str, *, ready: Callable[[], None]) -> None:
    """Until killed."""
    with Connection(url) as connection:
        channel = connection.channel()
        mailbox = Mailbox("celery", type="fanout", connection=connection, accept=["json"], serializer="json")
        Crowd(mailbox, channel, queue=queue).listen(channel)
        ready()
        while True:
            connection.drain_events()


if __name__ == "__main__":
    answer(*sys.argv[1:], ready=lambda: print("The crowd listens.", flush=True))
