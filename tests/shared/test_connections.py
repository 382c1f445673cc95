"""Nobody can take a server's memory, connections or time before it is known who asks."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from aiohttp import web

from shared.certificates import make_ca, make_leaf, save_key_pair
from shared.connections import SMALL_REQUEST, LimitedSite, Limits, listeners
from shared.tls import ReloadingTls

HEAD = b"GET / HTTP/1.1\r\nHost: x\r\n"
WHOLE = HEAD + b"\r\n"


@dataclass
class Client:
    """A connection that sends bytes as they are."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def send(self, *data: bytes) -> None:
        for each in data:
            self.writer.write(each)
            await self.writer.drain()

    async def answer(self) -> str:
        """The status line; empty when the connection was closed instead."""
        async with asyncio.timeout(10):
            try:
                head = await self.reader.readuntil(b"\r\n\r\n")
            except (asyncio.IncompleteReadError, ConnectionError):
                return ""
        return head.split(b"\r\n")[0].decode().removeprefix("HTTP/1.1 ")

    async def get(self) -> str:
        await self.send(WHOLE)
        return await self.answer()


@dataclass
class Server:
    """Answers 200 without a body, `/slow` when the test says so."""

    port: int = 0
    entered: asyncio.Event = field(default_factory=asyncio.Event)
    may_answer: asyncio.Event = field(default_factory=asyncio.Event)
    clients: list[Client] = field(default_factory=list)

    async def handle(self, request: web.Request) -> web.Response:
        if request.path == "/slow":
            self.entered.set()
            await self.may_answer.wait()
        elif request.can_read_body:
            await request.read()
        return web.Response()

    async def client(self, tls: ssl.SSLContext | None = None) -> Client:
        self.clients.append(Client(*await asyncio.open_connection("127.0.0.1", self.port, ssl=tls)))
        return self.clients[-1]


@asynccontextmanager
async def serving(tls: ssl.SSLContext | None = None, /, **limits: float) -> AsyncIterator[Server]:
    server = Server()
    app = web.Application(client_max_size=1 << 30)
    app.router.add_route("*", "/{path:.*}", server.handle)
    runner = web.AppRunner(app, max_line_size=1 << 20, max_field_size=1 << 20, max_headers=4096)
    await runner.setup()
    for listener in listeners("127.0.0.1", 0, Limits(**limits)):  # type: ignore[arg-type]  # some are int
        await LimitedSite(runner, listener, ssl_context=tls).start()
    server.port = runner.addresses[0][1]
    try:
        yield server
    finally:
        server.may_answer.set()
        for client in server.clients:
            client.writer.close()
        await runner.cleanup()


def header(size: int) -> bytes:
    return b"X-A: " + b"a" * size + b"\r\n"


async def test_headers_are_limited_all_together() -> None:
    """As in Go's servers: each of them may be large, all of them may not."""
    async with serving(largest_head=100_000) as server:
        client = await server.client()
        await client.send(HEAD, *[header(10_000)] * 9, b"\r\n")
        assert await client.answer() == "200 OK"
        await client.send(HEAD, *[header(10_000)] * 11)
        assert await client.answer() == "431 Request Header Fields Too Large"
        assert await client.answer() == ""


async def test_a_connection_may_send_any_number_of_requests_one_after_the_other() -> None:
    async with serving(largest_head=100_000, largest_request=100_000) as server:
        client = await server.client()
        for _ in range(20):
            await client.send(HEAD, header(20_000), b"\r\n")
            assert await client.answer() == "200 OK"


async def test_a_body_may_be_larger_than_headers_but_not_without_end() -> None:
    async with serving(largest_head=100_000, largest_request=1_000_000) as server:
        for size, answer in ((800_000, "200 OK"), (1_100_000, "")):
            client = await server.client()
            await client.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % size)
            await client.send(*[b"a" * 10_000] * (size // 10_000))
            assert await client.answer() == answer


async def test_requests_sent_ahead_of_an_answer_count_together() -> None:
    """Thirty-two of them wait, each with a megabyte of headers."""
    async with serving(largest_request=100_000) as server:
        client = await server.client()
        await client.send(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
        await server.entered.wait()
        await client.send(*[HEAD + header(20_000) + b"\r\n"] * 6)
        assert await client.answer() == ""


async def test_many_connections_cannot_do_together_what_one_cannot() -> None:
    """Small requests are answered all the same: kube-apiserver's are small."""
    async with serving(most_unfinished=100_000) as server:
        large = [await server.client() for _ in range(6)]
        for client in large:
            await client.send(HEAD, header(SMALL_REQUEST + 4_000))
        small = await server.client()
        assert await small.get() == "200 OK"
        done, held = await asyncio.wait(
            [asyncio.create_task(client.answer()) for client in large],
            return_when=asyncio.FIRST_COMPLETED,
        )
        assert {task.result() for task in done} == {"431 Request Header Fields Too Large"}
        for task in held:
            task.cancel()


async def test_headers_that_do_not_end_close_the_connection() -> None:
    """Whoever says nothing at all may stay: Go's clients keep spare connections."""
    async with serving(head_s=0.05) as server:
        silent, half = await server.client(), await server.client()
        await half.send(HEAD)
        assert await half.answer() == ""
        assert await silent.get() == "200 OK"
        await silent.send(HEAD)
        assert await silent.answer() == ""


async def test_a_request_that_takes_long_to_answer_is_not_cut_off() -> None:
    async with serving(head_s=0.05) as server:
        slow, half = await server.client(), await server.client()
        await slow.send(b"GET /slow HTTP/1.1\r\n", b"Host: x\r\n\r\n")
        await server.entered.wait()
        await half.send(HEAD)
        assert await half.answer() == ""
        server.may_answer.set()
        assert await slow.answer() == "200 OK"
        assert await slow.get() == "200 OK"


async def test_for_one_connection_too_many_the_one_that_waited_longest_goes() -> None:
    """Silent ones cannot keep kube-apiserver out."""
    async with serving(connections=3) as server:
        used, silent, half = [await server.client() for _ in range(3)]
        await half.send(HEAD)
        assert await used.get() == "200 OK"
        newcomers = [await server.client() for _ in range(2)]
        assert [await each.get() for each in newcomers] == ["200 OK"] * 2
        assert (await silent.answer(), await half.answer()) == ("", "")
        assert await used.get() == "200 OK"


async def test_whoever_does_not_even_shake_hands_goes_as_well(tmp_path: Path) -> None:
    """A listener in TLS: nobody sees a request before the handshake is done."""
    ca = make_ca("CA")
    leaf, certificate, key = (
        make_leaf(ca, common_name="server", addresses=["127.0.0.1"]),
        tmp_path / "crt",
        tmp_path / "key",
    )
    save_key_pair(leaf, certificate_file=certificate, key_file=key)
    context = ReloadingTls(certificate_file=certificate, key_file=key).context
    tls = ssl.create_default_context(cadata=ca.certificate_pem.decode())
    async with serving(context, connections=3) as server:
        silent = [await server.client() for _ in range(3)]
        used = await server.client(tls)
        assert await used.get() == "200 OK"
        assert await silent[0].answer() == ""
        assert await (await server.client(tls)).get() == "200 OK"
        assert await silent[1].answer() == ""
        assert await used.get() == "200 OK"


async def test_who_is_being_answered_is_never_cut_off_for_a_newcomer() -> None:
    async with serving(connections=1) as server:
        slow = await server.client()
        await slow.send(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
        await server.entered.wait()
        newcomer = await server.client()
        assert await newcomer.answer() == ""
        server.may_answer.set()
        assert await slow.answer() == "200 OK"
        later = await server.client()
        assert await later.get() == "200 OK"


def test_a_port_that_is_taken_is_an_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other, pytest.raises(OSError, match="in use"):
        list(listeners("127.0.0.1", other.getsockname()[1], Limits()))


def test_a_name_may_have_several_addresses() -> None:
    found = list(listeners("localhost", 0, Limits()))
    assert {each.getsockname()[0] for each in found} >= {"127.0.0.1"}
    for each in found:
        each.close()
