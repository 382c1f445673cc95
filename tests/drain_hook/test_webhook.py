"""The door of the webhook, asked as kube-apiserver asks."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession
from aiohttp.test_utils import TestClient, TestServer

from drain_hook.admission import Review, Verdict
from drain_hook.webhook import LARGEST_REVIEW, SHARE_OF_TIMEOUT, webhook_app
from tests.drain_hook.stages import eventually

RECORDINGS = Path(__file__).parent.parent / "recordings" / "kubernetes"


class Recorder:
    """Gives one verdict, and remembers what it was asked."""

    def __init__(self, verdict: Verdict) -> None:
        self.verdict = verdict
        self.asked: list[Review] = []
        self.seconds_left = 0.0

    async def review(self, review: Review, *, deadline: float, is_listened_to: Callable[[], bool]) -> Verdict:
        self.asked.append(review)
        self.seconds_left = deadline - asyncio.get_running_loop().time()
        return self.verdict


REFUSED = Verdict(allowed=False, reason="Busy", message="Waiting for worker-0.")


@asynccontextmanager
async def webhook(verdict: Verdict = REFUSED) -> AsyncIterator[tuple[Any, Recorder]]:
    recorder = Recorder(verdict)
    async with TestClient(TestServer(webhook_app(recorder))) as client:
        yield client, recorder


def recorded_review(name: str = "c01_kubectl_scale_down") -> dict[str, Any]:
    """The AdmissionReview that a real kube-apiserver sent."""
    recording = json.loads((RECORDINGS / f"{name}.json").read_text())
    return next(found for found in _walk(recording) if found.get("kind") == "AdmissionReview")


def _walk(node: object) -> Any:
    if isinstance(node, str) and node.startswith('{"kind":"AdmissionReview"'):
        node = json.loads(node)
    if isinstance(node, dict):
        yield node
        for child in node.values():
            yield from _walk(child)
    elif isinstance(node, list):
        for child in node:
            yield from _walk(child)


async def test_a_recorded_review_is_answered_with_its_own_uid() -> None:
    """The API server fails a call whose answer has another uid."""
    body = recorded_review()
    async with webhook() as (client, recorder):
        response = await client.post("/validate?timeout=10s", json=body)
        answer = await response.json()
    assert (response.status, response.content_type) == (200, "application/json")
    assert answer["response"] == {
        "uid": body["request"]["uid"],
        "allowed": False,
        "status": {"code": 403, "message": "Waiting for worker-0."},
    }
    assert [review.uid for review in recorder.asked] == [body["request"]["uid"]]


@pytest.mark.parametrize(
    ("path", "name"),
    [("/validate/update.drain.celery-hpa.io", "update.drain.celery-hpa.io"), ("/validate", "")],
)
async def test_the_path_says_which_webhook_asks(path: str, name: str) -> None:
    """Nothing else in a call does, and each has a failurePolicy of its own."""
    async with webhook() as (client, recorder):
        response = await client.post(f"{path}?timeout=10s", json=recorded_review())
    assert response.status == 200
    assert [review.webhook for review in recorder.asked] == [name]


async def test_nobody_is_told_to_retry() -> None:
    """With Retry-After the API server's client would send the review again by itself."""
    busy = Verdict(allowed=False, reason="Locked", message="Later.", code=429)
    async with webhook(busy) as (client, _):
        response = await client.post("/validate?timeout=10s", json=recorded_review())
    assert response.status == 200
    assert "Retry-After" not in response.headers


@pytest.mark.parametrize(
    ("query", "timeout_s"),
    [
        ("?timeout=5s", 5),
        ("?timeout=30s", 30),
        ("?timeout=9999s", 30),
        ("", 10),
        ("?timeout=soon", 10),
    ],
)
async def test_the_budget_is_a_share_of_what_the_api_server_waits(query: str, timeout_s: float) -> None:
    async with webhook() as (client, recorder):
        await client.post(f"/validate{query}", json=recorded_review())
    assert SHARE_OF_TIMEOUT * timeout_s - 2 < recorder.seconds_left <= SHARE_OF_TIMEOUT * timeout_s


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b'"review"', b'{"kind": "AdmissionReview"}', b"[" * 100_000, b"\xff\xfe"],
)
async def test_what_is_no_review_is_400_with_a_sentence(body: bytes) -> None:
    """And nobody else hears of it."""
    async with webhook() as (client, recorder):
        response = await client.post("/validate?timeout=10s", data=body)
        text = await response.text()
    assert (response.status, response.content_type) == (400, "text/plain")
    assert text.startswith("The body ")
    assert recorder.asked == []


async def test_a_body_that_never_ends_is_not_waited_for() -> None:
    """A client that sends half of one and nothing more would hold its connection for ever."""
    is_over = asyncio.Event()

    async def half() -> AsyncIterator[bytes]:
        yield b'{"kind": '
        await is_over.wait()

    async with webhook() as (client, recorder):
        response = await client.post("/validate?timeout=0.1s", data=half())
        text = await response.text()
        is_over.set()
    assert (response.status, text) == (400, "The body did not arrive whole, or cannot be decoded.\n")
    assert recorder.asked == []


async def test_whoever_hangs_up_before_the_answer_is_no_error(caplog: pytest.LogCaptureFixture) -> None:
    """The API server does when its own caller has given up; the log is for what somebody should mend."""
    is_asked, has_hung_up = asyncio.Event(), asyncio.Event()

    class Slow(Recorder):
        async def review(
            self, review: Review, *, deadline: float, is_listened_to: Callable[[], bool]
        ) -> Verdict:
            is_asked.set()
            await has_hung_up.wait()
            while is_listened_to():  # noqa: ASYNC110  (no event tells that a transport closes)
                await asyncio.sleep(0)
            return self.verdict

    async with TestServer(webhook_app(Slow(REFUSED))) as server, ClientSession() as session:
        asking = asyncio.create_task(session.post(server.make_url("/validate"), json=recorded_review()))
        await is_asked.wait()
        asking.cancel()
        await asyncio.wait({asking})
        has_hung_up.set()
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == []


async def test_a_body_in_another_encoding_than_it_says_is_400() -> None:
    async with webhook() as (client, _):
        response = await client.post("/validate", data=b"{}", headers={"Content-Encoding": "gzip"})
    assert response.status == 400


async def test_a_review_that_is_too_large_is_413() -> None:
    """Two objects of etcd's largest size fit."""
    async with webhook() as (client, recorder):
        response = await client.post("/validate", data=io.BytesIO(b" " * (LARGEST_REVIEW + 1)))
    assert response.status == 413
    assert recorder.asked == []


async def test_only_this_path_and_verb_are_served() -> None:
    async with webhook() as (client, _):
        assert (await client.get("/validate")).status == 405
        assert (await client.post("/mutate")).status == 404


class Dawdler:
    """Takes its time, and says whether anybody still listens when it is told to."""

    def __init__(self) -> None:
        self.was_asked, self.may_answer = asyncio.Event(), asyncio.Event()
        self.is_listened_to: Callable[[], bool] = lambda: True

    async def review(self, review: Review, *, deadline: float, is_listened_to: Callable[[], bool]) -> Verdict:
        self.is_listened_to = is_listened_to
        self.was_asked.set()
        await self.may_answer.wait()
        return REFUSED


@pytest.mark.parametrize("closes", [False, True])
async def test_whoever_hangs_up_does_not_listen(closes: bool) -> None:
    """The API server closes the connection of a call that it gave up; what it does then is not our answer."""
    dawdler, body = Dawdler(), json.dumps(recorded_review()).encode()
    head = f"POST /validate?timeout=30s HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
    async with TestServer(webhook_app(dawdler)) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(head.encode() + body)
        await asyncio.wait_for(dawdler.was_asked.wait(), 10)
        assert dawdler.is_listened_to()
        if closes:
            writer.close()
            await writer.wait_closed()
            await eventually(lambda: _now(dawdler.is_listened_to), lambda listens: not listens)
        dawdler.may_answer.set()
        assert (await reader.read(12) == b"HTTP/1.1 200") is not closes
        writer.close()


async def test_nobody_listens_once_the_time_is_up() -> None:
    """A connection that is still open proves nothing: a process that was paused has not heard of its end."""
    dawdler = Dawdler()
    async with TestClient(TestServer(webhook_app(dawdler))) as client:
        call = asyncio.create_task(client.post("/validate?timeout=0.2s", json=recorded_review()))
        await asyncio.wait_for(dawdler.was_asked.wait(), 10)
        await eventually(lambda: _now(dawdler.is_listened_to), lambda listens: not listens)
        dawdler.may_answer.set()
        await call


async def _now(ask: Callable[[], bool]) -> bool:
    return ask()
