"""JSON answers, with the warnings that kubectl prints."""

import json
from collections.abc import Iterable

from aiohttp import web

from deploy.sandbox.resources import Document


def json_response(
    document: Document,
    *,
    status: int = 200,
    warnings: Iterable[str] = (),
    content_type: str = "application/json",
) -> web.Response:
    """An answer with a JSON body."""
    body = json.dumps(document, separators=(",", ":")).encode()
    response = web.Response(body=body, status=status, headers={"Content-Type": content_type})
    for warning in warnings:
        escaped = warning.replace("\\", "\\\\").replace('"', '\\"').replace("\n", " ")
        response.headers.add("Warning", f'299 - "{escaped}"')
    return response
