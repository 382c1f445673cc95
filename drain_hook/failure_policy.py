"""What the API server does with a scale-down that we give no answer to, as our registration tells it."""

from __future__ import annotations

import asyncio
import logging
from typing import Protocol

from drain_hook.telemetry import Telemetry
from shared.errors import KubernetesError
from shared.kube_documents import WebhookTerms

log = logging.getLogger(__name__)

LOOK_EVERY_S = 30.0


class Registrations(Protocol):
    async def webhook_terms(self, name: str) -> tuple[WebhookTerms, ...]: ...


class FailurePolicy:
    """Follows the ValidatingWebhookConfiguration `name`."""

    def __init__(self, registrations: Registrations, *, name: str, telemetry: Telemetry) -> None:
        self._registrations = registrations
        self._name = name
        self._telemetry = telemetry
        self._terms: tuple[WebhookTerms, ...] = ()
        self._problem = ""

    def ignores_failures(self, webhook: str = "") -> bool:
        """Whether a scale-down goes through that `webhook` asked about and nobody answered.

        Until we have read it, what we ship: it does not. Where the name is none of ours, one that ignores
        failures speaks for all: marks that are kept for nothing end with `roundTtl`, while a drained worker
        that is given back too early is deleted with the task it took.
        """
        asking = [terms for terms in self._terms if terms.name == webhook] or self._terms
        return any(terms.failure_policy == "Ignore" for terms in asking)

    async def run(self) -> None:
        """Look for ever."""
        while True:
            await self.refresh()
            await asyncio.sleep(LOOK_EVERY_S)

    async def refresh(self) -> None:
        """Look once; what was read before stays when that fails."""
        try:
            terms = await self._registrations.webhook_terms(self._name)
        except KubernetesError as error:
            self._tell(str(error))
            return
        self._problem = ""
        if terms != self._terms:
            self._terms = terms
            self._announce()

    def _announce(self) -> None:
        self._telemetry.fails_open(self.ignores_failures())
        for terms in self._terms:
            if terms.failure_policy == "Ignore":
                log.warning(
                    "Webhook %s has failurePolicy: Ignore: a scale-down that is not answered within %.0f s "
                    "deletes workers that were not drained. Set it to Fail unless you mean this.",
                    terms.name,
                    terms.timeout_s,
                )
            else:
                log.info(
                    "Webhook %s has failurePolicy: %s and is waited for %.0f s.",
                    terms.name,
                    terms.failure_policy,
                    terms.timeout_s,
                )

    def _tell(self, problem: str) -> None:
        """Each once, not every time."""
        if problem != self._problem:
            log.warning("The failurePolicy in force could not be read, the last one is kept to: %s", problem)
        self._problem = problem
