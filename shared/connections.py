"""What clients may take from a server before anybody knows who they are: memory, connections and time.

aiohttp limits each header and their number, yet not all of them together, nor connections, nor how long a
request may take to arrive.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from aiohttp import web

LARGEST_HEAD = 1 << 20
"""Bytes of a request line and its headers, as in Go's servers."""
SMALL_REQUEST = 16 << 10
"""So much is always taken: kube-apiserver's own requests have a few kilobytes."""
HANDSHAKE_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Of one listener."""

    largest_head: int = LARGEST_HEAD
    largest_request: int = 5 << 20
    """With its body, and whatever else is sent ahead of the answer."""
    most_unfinished: int = 32 << 20
    """Of all connections together; looked at when one goes beyond SMALL_REQUEST."""
    head_s: float = 32.0
    """From the first byte of a request to the end of its headers, as in kube-apiserver."""
    connections: int = 400
    """One in TLS holds about 300 kB, even if it says nothing."""


_REFUSAL = b"HTTP/1.1 431 Request Header Fields Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class Connection(web.RequestHandler):
    """One client's connection; it is closed when a request is too large or its headers take too long."""

    __slots__ = ("_connections", "_head_timer", "_limits", "_received", "descriptor", "since")

    def __init__(
        self,
        manager: web.Server,
        *,
        loop: asyncio.AbstractEventLoop,
        listener: Listener,
        **options: Any,
    ) -> None:
        super().__init__(manager, loop=loop, **options)
        self._connections, self._limits = listener.connections, listener.limits
        self._received = 0
        self._head_timer: asyncio.TimerHandle | None = None
        self.since = 0.0
        """When it opened, or when its latest request had come."""
        self.descriptor = -1

    @property
    def is_waiting(self) -> bool:
        """For a request, or for the rest of its headers."""
        return self._waiter is not None and not self._waiter.done()

    @property
    def held(self) -> int:
        """Bytes of requests that are not answered yet."""
        return 0 if self._is_idle else self._received

    @property
    def _is_idle(self) -> bool:
        return self.is_waiting and self._head_timer is None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.since = time.monotonic()
        super().connection_made(transport)
        self.descriptor = transport.get_extra_info("socket").fileno()
        self._connections.add(self)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._connections.discard(self)
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._is_idle:
            self._received = 0
        self._received += len(data)
        if self._is_too_much():
            self._refuse()
            return
        before = self._request_count
        super().data_received(data)
        if self._request_count > before:
            self.since = time.monotonic()
            self._stop_timer()
        elif data and self.is_waiting:
            self._headers_go_on()

    def _headers_go_on(self) -> None:
        if self._received > self._limits.largest_head:
            self._refuse()
        elif self._head_timer is None:
            self._head_timer = self._loop.call_later(self._limits.head_s, self.drop)

    def _is_too_much(self) -> bool:
        """The budget of all is looked at for large requests only, so that small ones always get through."""
        limits, received = self._limits, self._received
        return received > limits.largest_request or (
            received > SMALL_REQUEST and sum(each.held for each in self._connections) > limits.most_unfinished
        )

    def _refuse(self) -> None:
        if self.transport is not None and self.is_waiting:
            self.transport.write(_REFUSAL)
        self.force_close()

    def drop(self) -> None:
        """Close it at once: whoever says nothing does not say goodbye either."""
        transport = self.transport
        self.force_close()
        if isinstance(transport, asyncio.Transport):
            transport.abort()

    def _stop_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None


class Listener(socket.socket):
    """A listening socket that has only so many connections open, TLS handshakes included.

    asyncio asks it for each new connection, before anything is spent on it. For one too many the one that has
    waited longest goes; where all are being answered, it is turned away.
    """

    def __init__(self, family: int, limits: Limits) -> None:
        super().__init__(family, socket.SOCK_STREAM)
        self.limits = limits
        self.connections: set[Connection] = set()
        """Those whose handshake is done."""
        self._accepted: dict[socket.socket, float] = {}

    def accept(self) -> tuple[socket.socket, Any]:
        """Raises ConnectionAbortedError, which asyncio takes for a client that has gone already."""
        connection, address = super().accept()
        if len(self._accepted) >= self.limits.connections:
            self._accepted = {each: since for each, since in self._accepted.items() if each.fileno() >= 0}
        if len(self._accepted) >= self.limits.connections and not self._make_room():
            connection.close()
            raise ConnectionAbortedError
        self._accepted[connection] = time.monotonic()
        return connection, address

    def _make_room(self) -> bool:
        opened = {each.descriptor: each for each in self.connections}
        found = [(opened.get(each.fileno()), each, since) for each, since in self._accepted.items()]
        waiting = [
            (client.since if client else since, each, client.drop if client else partial(_hang_up, each))
            for client, each, since in found
            if client is None or client.is_waiting
        ]
        if not waiting:
            return False
        _since, accepted, drop = min(waiting, key=lambda each: each[0])
        del self._accepted[accepted]
        drop()
        return True


def _hang_up(accepted: socket.socket) -> None:
    """Amid its handshake; asyncio closes it when it hears so."""
    with suppress(OSError):  # the client has hung up
        accepted.shutdown(socket.SHUT_RDWR)


class LimitedSite(web.SockSite):
    """Where an application listens, within the limits above."""

    def __init__(
        self, runner: web.BaseRunner, listener: Listener, *, ssl_context: ssl.SSLContext | None
    ) -> None:
        super().__init__(runner, listener, ssl_context=ssl_context)
        self._listener = listener

    async def start(self) -> None:
        await web.BaseSite.start(self)
        try:
            self._server = await asyncio.get_running_loop().create_server(
                self._factory(),
                sock=self._listener,
                ssl=self._ssl_context,
                backlog=self._backlog,
                ssl_handshake_timeout=HANDSHAKE_S if self._ssl_context else None,
            )
        except OSError:
            self._listener.close()
            raise

    def _factory(self) -> Callable[[], Connection]:
        server, loop = self._runner.server, asyncio.get_running_loop()
        assert server is not None, "the runner is set up before its sites start"

        def connection() -> Connection:
            return Connection(server, loop=loop, listener=self._listener, **server._kwargs)

        return connection


def listeners(host: str, port: int, limits: Limits) -> Iterator[Listener]:
    """One bound to each address of `host`; raises OSError."""
    addresses = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    for family, _type, _protocol, _name, address in dict.fromkeys(addresses):
        listener = Listener(family, limits)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listener.bind(address)
        except OSError:
            listener.close()
            raise
        yield listener
