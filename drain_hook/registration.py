"""Our own webhooks in the ValidatingWebhookConfiguration that has our name: those that lead to us."""

from __future__ import annotations

import logging
from typing import Protocol
from urllib.parse import urlsplit

from shared.kube_documents import CaBundles, WebhookClient

log = logging.getLogger(__name__)


class Registrations(Protocol):
    async def webhook_ca(self, name: str) -> CaBundles: ...


class OwnWebhooks:
    """Looks through the configuration `name`; who else stands there is said once."""

    def __init__(
        self, registrations: Registrations, *, name: str, service: str, namespace: str | None
    ) -> None:
        """`service` is ours; without its namespace, as outside of a cluster, its name must do."""
        self._registrations = registrations
        self._name = name
        self._service = service
        self._namespace = namespace
        self._others: frozenset[WebhookClient] = frozenset()

    async def registered_ca(self) -> CaBundles:
        """What the webhooks trust that lead to us; of somebody else's nothing that we would change."""
        found = await self._registrations.webhook_ca(self._name)
        ours = frozenset(filter(self._is_ours, found.clients))
        self._tell(frozenset(found.clients) - ours)
        return found.only(ours)

    def _is_ours(self, client: WebhookClient) -> bool:
        if client.service:
            return client.service.is_named(self._service, namespace=self._namespace)
        # Our certificate is good for localhost, too, which inside of a cluster is the API server's own.
        return self._namespace is None and urlsplit(client.url).hostname == "localhost"

    def _tell(self, others: frozenset[WebhookClient]) -> None:
        ours = f"{self._namespace}/{self._service}" if self._namespace else self._service
        for other in sorted(others - self._others, key=lambda client: client.index):
            log.warning(
                "Webhook %s of %s leads to %s and not to %s: its caBundle stays as it is.",
                other.name,
                self._name,
                other.service or other.url,
                ours,
            )
        self._others = others
