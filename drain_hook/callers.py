"""Who may ask for a review: whoever has the client certificate that the API server was given."""

from __future__ import annotations

import logging
from typing import Protocol

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from shared.client_certificates import Presented
from shared.serving import HEALTH_PATHS
from shared.tls import presented_by

log = logging.getLogger(__name__)


class Clients(Protocol):
    def objection(self, presented: Presented | None) -> str | None: ...


def only_for(clients: Clients) -> Middleware:
    """401 without a certificate, 403 with another one; health is for everybody, as probes have none."""
    told: set[str] = set()

    @web.middleware
    async def checked(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path in HEALTH_PATHS:
            return await handler(request)
        presented = presented_by(request.transport)
        objection = clients.objection(presented)
        if objection is None:
            return await handler(request)
        if objection not in told:  # once: whoever sends many of them must not fill the log
            told.add(objection)
            log.warning("A review from %s was turned away. %s", request.remote, objection)
        return web.Response(status=403 if presented else 401, text=f"{objection}\n")

    return checked
