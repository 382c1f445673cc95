"""Request bodies: JSON, and the little protobuf that kubectl will not do without."""

import json
from typing import Any

from aiohttp import web

from deploy.sandbox.apiserver import protobuf
from deploy.sandbox.errors import bad_request, unsupported_media_type
from deploy.sandbox.resources import Document

JSON_BODIES = ("", "application/json", "application/octet-stream", "text/plain")


async def read_json(http: web.Request) -> Any:
    """The body as JSON, an empty object without one. Raises ApiError 400."""
    body = await http.read()
    try:
        return json.loads(body) if body else {}
    except ValueError as error:
        raise bad_request(f"the request's body is not JSON: {error}") from error


async def read_object(http: web.Request) -> Document:
    """The body as an object. Raises ApiError 400, or 415 for what is not JSON."""
    media_type = http.headers.get("Content-Type", "").partition(";")[0].strip()
    if media_type == protobuf.MEDIA_TYPE:
        return protobuf.decode_review(await http.read())
    if media_type not in JSON_BODIES:
        raise unsupported_media_type(f"this API server reads application/json, not {media_type}")
    document = await read_json(http)
    if not isinstance(document, dict):
        raise bad_request("the request's body is not an object")
    return document


async def read_delete_options(http: web.Request) -> Document:
    """The DeleteOptions of the body and the query together. Raises ApiError 400 or 415."""
    options = await read_object(http)
    query = http.query
    if grace := query.get("gracePeriodSeconds"):
        options = options | {"gracePeriodSeconds": int(grace)}
    if propagation := query.get("propagationPolicy"):
        options = options | {"propagationPolicy": propagation}
    return options
