"""Keeps the ClientTrust in force: whose requests to believe, as kube-apiserver publishes it now."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Protocol

from metrics_adapter.client_trust import CONFIG_MAP, ClientTrust, client_trust_from
from shared.errors import CertificateError, Forbidden, KubernetesError, NotFound
from shared.kube_documents import path_of
from shared.mirror import Mirror, Source
from shared.pods import Document

log = logging.getLogger(__name__)

POLL_S = 60.0
"""How often it is read while it cannot be watched."""
RETRY_S = 2.0
"""And until it was read for the first time."""
HURRY_S = 5.0
"""How often it is read at most, whoever makes us."""

Data = Mapping[str, str]


class ConfigMaps(Source, Protocol):
    """What is asked of the Kubernetes door."""

    async def config_map(self, *, namespace: str, name: str) -> Data: ...


class TrustSource:
    """Watches the ConfigMap, so that another CA counts at once, and reads it where it cannot be watched."""

    def __init__(
        self,
        config_maps: ConfigMaps,
        *,
        poll_s: float = POLL_S,
        retry_s: float = RETRY_S,
        hurry_s: float = HURRY_S,
    ) -> None:
        self._config_maps = config_maps
        self._hurry_s = hurry_s
        self._poll_s = poll_s
        self._retry_s = retry_s
        self._mirror = Mirror(
            config_maps,
            path_of("api/v1", CONFIG_MAP["namespace"], "configmaps"),
            field_selector=f"metadata.name={CONFIG_MAP['name']}",
            parse=_data,
            on_change=self._seen,
            clock=time.monotonic,
        )
        self._mirrored: Data | None = None
        self._is_hurried = asyncio.Event()
        self._taken: Data = {}
        self.current = ClientTrust()
        self.is_loaded = False
        self.problem: str | None = None
        """Why it could not be read, until it could."""

    async def load(self) -> None:
        """Read it once; what cannot be read leaves the last one in force."""
        mirrored = self._mirrored
        try:
            data = await self._config_maps.config_map(**CONFIG_MAP)
        except KubernetesError as error:
            self._report(_reading_failed(error))
            return
        if not self._is_watched or mirrored is self._mirrored:  # else the watch has brought a newer one
            self._take(data)

    def hurry(self) -> None:
        """A client came with a certificate of no CA that is known: read it soon, its CA may be new.

        So may it be where it is watched: a watch may have been cut without our knowing.
        """
        self._is_hurried.set()

    async def watch(self) -> None:
        """Keep it current, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._mirror.run())
            group.create_task(self._poll())

    async def _poll(self) -> None:
        while True:
            pause_s = self._poll_s if self.is_loaded else self._retry_s
            await self._pause(pause_s * random.uniform(0.9, 1.1))
            if not self._is_watched or self._is_hurried.is_set():
                self._is_hurried.clear()
                await self.load()

    async def _pause(self, pause_s: float) -> None:
        """Shorter when somebody hurries us, but never too short."""
        await asyncio.sleep(min(self._hurry_s, pause_s))
        with suppress(TimeoutError):
            async with asyncio.timeout(pause_s - self._hurry_s):
                await self._is_hurried.wait()

    @property
    def _is_watched(self) -> bool:
        return self._mirror.cut_at is None

    def _seen(self) -> None:
        """The mirror has changed, or was cut, or hears again.

        In the latter cases what it holds may be older than what was read meanwhile: an event will tell.
        """
        data = self._mirror.items.get(CONFIG_MAP["name"])
        if data is None:
            if self._mirror.is_synced:
                self._report(_reading_failed(NotFound("it is not there", status=404)))
        elif data is not self._mirrored or (self._is_watched and data == self._taken):
            self._mirrored = data
            self._take(data)

    def _take(self, data: Data) -> None:
        self._taken = data
        try:
            self.current = client_trust_from(data)
        except CertificateError as error:
            self._report(_reading_failed(error))
        else:
            self.is_loaded = True
            self._report(None)

    def _report(self, problem: str | None) -> None:
        if problem is not None and problem != self.problem:
            log.error(problem)
        self.problem = problem


def _data(document: Document) -> Data:
    return document.get("data") or {}


def _reading_failed(error: Exception) -> str:
    where = f"ConfigMap {CONFIG_MAP['namespace']}/{CONFIG_MAP['name']}"
    hint = (
        " Bind our service account to the Role extension-apiserver-authentication-reader in kube-system."
        if isinstance(error, Forbidden)
        else ""
    )
    return f"{where} cannot be read, which says whose requests to believe: {error}{hint}"
