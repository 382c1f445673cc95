"""Who answers for external.metrics.k8s.io: a cluster has one provider, and HPAs ask nobody else."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Protocol

from shared.errors import Forbidden, KubernetesError, NotFound
from shared.kube_documents import CaBundles, ServiceName
from shared.pools import Delegate

log = logging.getLogger(__name__)

LOOK_EVERY_S = 60.0
MANIFEST = "deploy/base/api-service.yaml"


class ApiServices(Protocol):
    async def api_service_owner(self, name: str) -> ServiceName | None: ...

    async def api_service_ca(self, name: str) -> CaBundles: ...


class Ownership:
    """Keeps an eye on our APIService; `problem` says what to do when it does not lead to us."""

    def __init__(
        self,
        api_services: ApiServices,
        *,
        api_service: str,
        service: str,
        namespace: str | None,
        delegate: Callable[[], Delegate | None],
    ) -> None:
        """`service` is ours; without its namespace, as outside of a cluster, its name must do."""
        self._api_services = api_services
        self._api_service = api_service
        self._service = service
        self._namespace = namespace
        self._delegate = delegate
        self.problem: str | None = None

    async def watch(self) -> None:
        """Look again and again, until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(LOOK_EVERY_S)

    async def look(self) -> None:
        problem = await self._look()
        if problem and problem != self.problem:
            log.warning("%s", problem)
        self.problem = problem

    async def registered_ca(self) -> CaBundles:
        """What an APIService of ours trusts; of somebody else's nothing that we would change."""
        found = await self._api_services.api_service_ca(self._api_service)
        return found if self._is_ours(found.owner) else CaBundles(bundles=(), resource_version="")

    async def _look(self) -> str | None:
        try:
            owner = await self._api_services.api_service_owner(self._api_service)
        except NotFound:
            return f"There is no APIService {self._api_service}, so no HPA reaches us: apply {MANIFEST}."
        except Forbidden as error:
            return f"{self._unseen}, allow us to get this APIService: {error}"
        except KubernetesError as error:
            return self.problem or f"{self._unseen}: {error}"
        return None if self._is_ours(owner) else self._foreign(owner)

    @property
    def _unseen(self) -> str:
        return f"Who answers for {self._api_service} cannot be seen"

    def _is_ours(self, owner: ServiceName | None) -> bool:
        return owner is not None and owner.is_named(self._service, namespace=self._namespace)

    def _foreign(self, owner: ServiceName | None) -> str:
        ours = f"{self._namespace}/{self._service}" if self._namespace else self._service
        where = f"the Service {owner}" if owner else "the API server itself"
        delegate = self._delegate()
        both = (
            "that Service is our delegate already, so both are served then"
            if owner and delegate and delegate.title == str(owner)
            else f"to have both served, first name {owner or 'the other provider'} as delegate in the "
            "configuration (docs/delegate.md)"
        )
        return (
            f"APIService {self._api_service} leads to {where} and not to {ours}: HPAs get none of our "
            f"metrics. Have it lead to us with {MANIFEST}; {both}."
        )
