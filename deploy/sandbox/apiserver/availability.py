"""Whether the server behind an APIService can be used: five questions at once, one good answer suffices."""

import asyncio
from dataclasses import dataclass

import aiohttp
from multidict import CIMultiDict

from deploy.sandbox.apiserver.backends import AGGREGATOR, Backends, identity
from deploy.sandbox.resources import Document

CHECK_TIMEOUT_S = 5.0
PARALLEL_CHECKS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Availability:
    """What a round of checks found."""

    available: bool
    reason: str
    message: str


async def check(backends: Backends, service: Document) -> Availability:
    """One round of checks."""
    try:
        backends.endpoint(service)
    except LookupError as error:
        return Availability(available=False, reason="ServiceNotFound", message=str(error))
    questions = [asyncio.ensure_future(_ask(backends, service)) for _ in range(PARALLEL_CHECKS)]
    problem = ""
    try:
        for answer in asyncio.as_completed(questions):
            problem = await answer
            if not problem:
                return Availability(available=True, reason="Passed", message="all checks passed")
    finally:
        for question in questions:
            question.cancel()
    message = f"failing or missing response from {problem}"
    return Availability(available=False, reason="FailedDiscoveryCheck", message=message)


async def _ask(backends: Backends, service: Document) -> str:
    """What is wrong with the answer; nothing for any 2xx."""
    path = group_version_path(service)
    url = f"https://{backends.endpoint(service).authority}{path}"
    headers = CIMultiDict({"User-Agent": "Go-http-client/1.1", "Accept-Encoding": "gzip"})
    headers.extend(identity(AGGREGATOR))
    try:
        answer = await backends.request(service, path, headers, timeout_s=CHECK_TIMEOUT_S)
    except (aiohttp.ClientError, OSError, LookupError) as error:
        return f'{url}: Get "{url}": {str(error) or "context deadline exceeded"}'
    return "" if 200 <= answer.status < 300 else f"{url}: bad status from {url}: {answer.status}"


def group_version_path(service: Document) -> str:
    """`/apis/<group>/<version>` of an APIService."""
    return f"/apis/{service['spec']['group']}/{service['spec']['version']}"


def available_condition(service: Document) -> Document:
    """An APIService's condition Available; empty while nobody has looked yet."""
    conditions = (service.get("status") or {}).get("conditions") or ()
    return next((condition for condition in conditions if condition["type"] == "Available"), {})


def is_available(service: Document) -> bool:
    """Whether requests are passed on to it."""
    return available_condition(service).get("status") == "True"
