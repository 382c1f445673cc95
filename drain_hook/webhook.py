"""POST /validate/WEBHOOK: an AdmissionReview in, an AdmissionReview out, before the API server gives up."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from aiohttp import web

from drain_hook.admission import MalformedReview, Review, Verdict, parse_review, render_review
from shared.faults import FaultPoint, reach

LARGEST_REVIEW = 3 * 2**20
"""Bytes. An object of Kubernetes has at most 1.5 MiB, and an update brings two of them."""
DEFAULT_TIMEOUT_S = 10.0
"""The API server's own default, for whoever sends no timeout."""
LONGEST_TIMEOUT_S = 30.0
"""Kubernetes allows no webhook a longer one, so whoever claims it is not the API server."""
SHARE_OF_TIMEOUT = 0.9
"""The rest is for the way back."""

_TIMEOUT = re.compile(r"(\d{1,4}(?:\.\d+)?)s")


class Reviewer(Protocol):
    async def review(
        self, review: Review, *, deadline: float, is_listened_to: Callable[[], bool]
    ) -> Verdict: ...


REVIEWER = web.AppKey("REVIEWER", Reviewer)


async def validate(request: web.Request) -> web.Response:
    """The verdict as JSON; 400 with a sentence for what is no review. Retry-After is never sent."""
    # From its arrival: reading the body counts.
    now, timeout_s = asyncio.get_running_loop().time, timeout_of(request)
    deadline, gives_up_at = now() + SHARE_OF_TIMEOUT * timeout_s, now() + timeout_s

    def is_listened_to() -> bool:
        # An API server that gives up, or whose own caller does, closes the connection.
        return now() < gives_up_at and request.transport is not None and not request.transport.is_closing()

    try:
        review = parse_review(_decode(await _body(request, deadline=deadline)), webhook=webhook_of(request))
    except MalformedReview as error:
        return web.Response(status=400, text=f"{error}\n")
    verdict = await request.app[REVIEWER].review(review, deadline=deadline, is_listened_to=is_listened_to)
    reach(FaultPoint.BEFORE_ANSWER)
    return await _sent(web.json_response(render_review(review.uid, verdict)), request)


def timeout_of(request: web.Request) -> float:
    """Seconds the API server waits for us, as it says in `?timeout=10s`; never above LONGEST_TIMEOUT_S."""
    match = _TIMEOUT.fullmatch(request.query.get("timeout", ""))
    return min(float(match[1]), LONGEST_TIMEOUT_S) if match else DEFAULT_TIMEOUT_S


def webhook_of(request: web.Request) -> str:
    """Which webhook of our registration asks: each has a path of its own, and nothing else tells."""
    return request.match_info.get("webhook", "")


def webhook_app(reviewer: Reviewer) -> web.Application:
    """An application that answers reviews, of whichever webhook; its name may be left out."""
    app = web.Application(client_max_size=LARGEST_REVIEW)
    app[REVIEWER] = reviewer
    app.router.add_post("/validate", validate)
    app.router.add_post("/validate/{webhook}", validate)
    return app


async def _sent(response: web.Response, request: web.Request) -> web.Response:
    """Send it ourselves rather than on return, so that there is a point right after it."""
    with suppress(ConnectionError):  # whoever asked has hung up
        await response.prepare(request)
        await response.write_eof()
    reach(FaultPoint.AFTER_ANSWER)
    return response


async def _body(request: web.Request, *, deadline: float) -> bytes:
    """All of it, at `deadline` at the latest: whoever sends half a body must not keep us waiting for ever."""
    try:
        async with asyncio.timeout_at(deadline):
            return await request.read()
    except (TimeoutError, ConnectionError, web.RequestPayloadError) as error:
        raise MalformedReview("The body did not arrive whole, or cannot be decoded.") from error


def _decode(body: bytes) -> object:
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise MalformedReview("The body is no JSON.") from error
