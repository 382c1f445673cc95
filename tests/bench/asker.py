"""`python -m tests.bench.asker`: asks an HTTPS server as fast as it answers, or at a rate; prints figures.

Standard input holds an Errand as JSON. A process of its own with bare sockets: what is measured shall be the
server: a client library would need more of the cores than the server does.
"""

from __future__ import annotations

import json
import select
import socket
import ssl
import sys
import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from functools import cached_property
from statistics import quantiles
from typing import Any, Self

AUDIT_ID = "Audit-Id"
"""The header that is another one in each request, as a real aggregator's is."""
WARM_UP_S = 0.5
PATIENCE_S = 5.0
_WOULD_BLOCK = (ssl.SSLWantReadError, BlockingIOError)


@dataclass(frozen=True, slots=True, kw_only=True)
class Errand:
    """What to ask, of whom, and how often."""

    port: int
    ca_pem: str
    certificate_file: str
    key_file: str
    path: str
    headers: Sequence[Sequence[str]]
    connections: int
    seconds: float
    rate: float | None = None
    """Requests a second, by the clock; None to ask again as soon as there is an answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """What came of an errand."""

    per_second: float
    p50_ms: float
    p99_ms: float
    slowest_ms: float
    statuses: Mapping[str, int]
    """How many answers there were of each; anything but 200 is no success."""
    sent: int
    """Requests, with those before anything was measured."""

    @classmethod
    def of(
        cls, latencies_s: Sequence[float], *, statuses: Mapping[str, int], seconds: float, sent: int
    ) -> Self:
        """Of at least two answers."""
        percentiles = quantiles(latencies_s, n=100, method="inclusive")
        return cls(
            per_second=len(latencies_s) / seconds,
            p50_ms=percentiles[49] * 1000,
            p99_ms=percentiles[98] * 1000,
            slowest_ms=max(latencies_s) * 1000,
            statuses=dict(statuses),
            sent=sent,
        )


@dataclass(slots=True)
class Line:
    """A connection, with the answer that is coming in."""

    socket: ssl.SSLSocket
    asked_at: float = 0.0
    received: bytes = b""

    def ask(self, request: bytes, *, at: float) -> None:
        self.asked_at, self.received = at, b""
        self.socket.sendall(request)

    def status(self) -> str | None:
        """That of the answer, when it is whole."""
        try:
            while chunk := self.socket.recv(65536):
                self.received += chunk
                if self._is_whole():
                    return self.received[9:12].decode()
        except _WOULD_BLOCK:
            return None
        raise ConnectionError("The server closed a connection.")

    def _is_whole(self) -> bool:
        head, separator, body = self.received.partition(b"\r\n\r\n")
        if not separator:
            return False
        _, _, rest = head.lower().partition(b"content-length:")
        return len(body) >= int(rest.partition(b"\r\n")[0])


@dataclass
class Asker:
    """Runs one errand."""

    errand: Errand
    latencies_s: list[float] = field(default_factory=list)
    statuses: Counter[str] = field(default_factory=Counter)
    _number: int = 0

    def run(self) -> Answers:
        with ExitStack() as connections, select.epoll() as poll:
            self._ask({line.socket.fileno(): line for line in self._connected(connections)}, poll)
        return Answers.of(
            self.latencies_s, statuses=self.statuses, seconds=self.errand.seconds, sent=self._number
        )

    def _ask(self, lines: Mapping[int, Line], poll: select.epoll) -> None:
        for number in lines:
            poll.register(number, select.EPOLLIN)
        idle = deque(lines.values())
        started = time.perf_counter()
        measured_from, end = started + WARM_UP_S, started + WARM_UP_S + self.errand.seconds
        due = self._due(started)
        next_at = next(due)
        while (now := time.perf_counter()) < end:
            while idle and next_at <= now:
                # By the clock: a stall delays all who would have asked meanwhile.
                idle.popleft().ask(self._request(), at=next_at if self.errand.rate else time.perf_counter())
                next_at = next(due)
            for number, _ in poll.poll(max(0.0, next_at - now) if idle else PATIENCE_S):
                line = lines[number]
                if status := line.status():
                    idle.append(line)
                    if line.asked_at >= measured_from:
                        self.latencies_s.append(time.perf_counter() - line.asked_at)
                        self.statuses[status] += 1

    def _due(self, started: float) -> Iterator[float]:
        """When each request is to be sent."""
        number = 0
        while True:
            yield started + number / self.errand.rate if self.errand.rate else 0.0
            number += 1

    def _connected(self, connections: ExitStack) -> Iterator[Line]:
        context = ssl.create_default_context(cadata=self.errand.ca_pem)
        context.load_cert_chain(self.errand.certificate_file, self.errand.key_file)
        for _ in range(self.errand.connections):
            plain = socket.create_connection(("127.0.0.1", self.errand.port))
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection = connections.enter_context(context.wrap_socket(plain, server_hostname="127.0.0.1"))
            connection.setblocking(False)
            yield Line(connection)

    def _request(self) -> bytes:
        self._number += 1
        return self._head + b"%s: %036d\r\n\r\n" % (AUDIT_ID.encode(), self._number)

    @cached_property
    def _head(self) -> bytes:
        lines = [f"{name}: {value}" for name, value in self.errand.headers if name != AUDIT_ID]
        start = f"GET {self.errand.path} HTTP/1.1"
        return "".join(
            f"{line}\r\n" for line in (start, f"Host: 127.0.0.1:{self.errand.port}", *lines)
        ).encode()


def main() -> None:
    errand: dict[str, Any] = json.load(sys.stdin)
    print(json.dumps(asdict(Asker(Errand(**errand)).run())))


if __name__ == "__main__":
    main()
