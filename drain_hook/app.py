"""The hook put together: one place where every part meets those it needs."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Protocol
from uuid import uuid4

from prometheus_client import CollectorRegistry

from drain_hook.announcements import Announcer
from drain_hook.callers import only_for
from drain_hook.cordon import Pace, Workers
from drain_hook.deletion_costs import DeletionCosts
from drain_hook.drainer import Drainer
from drain_hook.events import Events
from drain_hook.failure_policy import FailurePolicy
from drain_hook.label_learning import LabelLearning
from drain_hook.metadata_watch import MetadataWatch
from drain_hook.reconciler import LEADER_LEASE_S, Reconciler
from drain_hook.registration import OwnWebhooks
from drain_hook.round_locks import RoundLocks
from drain_hook.rounds import Surroundings
from drain_hook.telemetry import Telemetry
from drain_hook.warm_fleet import WarmFleet
from drain_hook.webhook import webhook_app
from drain_hook.worker_software import Reporter, WorkerSoftware
from shared import faults
from shared.allowed_clients import AllowedClients
from shared.brokers import Brokers, Connect
from shared.celery_control import CeleryControl
from shared.databases import Databases, MetadataDatabase, metadata_database
from shared.kube_client import KubeClient
from shared.leases import Lease
from shared.pools import Configuration, Pool
from shared.self_managed import Registration, own_namespace, pod_namespace, with_certificate
from shared.serving import Health, serve
from shared.settings import ConfigurationFile, Settings
from shared.workload_cache import WorkloadCache

log = logging.getLogger(__name__)

NAME = "drain_hook"
SERVICE = "drain-hook"
"""Name of the Service in front of us: a certificate of our own is made for it."""
WEBHOOK_CONFIGURATION = "celery-hpa-drain"
KUBERNETES_S = 3.0
"""For one call to the Kubernetes API: a review has 10 s for all of them."""
FIRST_SYNC_S = 10.0
"""How long to wait for the first lists before serving; without them every round lists anew."""
LAST_ROUNDS_S = 15.0
"""For rounds that still tidy up when we stop; what they leave, the reconciler of another replica does."""


class Control(Workers, Reporter, Protocol):
    """The door to the workers of a broker."""

    async def close(self) -> None: ...


async def run_hook(
    settings: Settings,
    *,
    connect: Connect[Control] = CeleryControl,
    connect_database: Callable[[str], MetadataDatabase] = metadata_database,
    stop: asyncio.Event | None = None,
) -> None:
    """Serve until SIGTERM, SIGINT or `stop`; `connect` opens the door to a broker, by its URL.

    Raises ConfigurationError, CertificateError and KubernetesError when it cannot begin.
    """
    faults.arm()
    registry = CollectorRegistry()
    file = ConfigurationFile(settings.config, registry=registry)
    clients = _clients(settings)
    async with KubeClient.connect(settings.kubeconfig) as kube, WorkloadCache(kube) as cache:
        registration = Registration(
            read=OwnWebhooks(
                kube, name=WEBHOOK_CONFIGURATION, service=SERVICE, namespace=pod_namespace()
            ).registered_ca,
            replace=partial(kube.replace_webhook_ca, WEBHOOK_CONFIGURATION),
        )
        async with with_certificate(
            settings, secrets=kube, service=SERVICE, registration=registration
        ) as certified:
            brokers = Brokers(file.broker_url, connect=connect)
            databases = Databases(file.database_url, connect=connect_database)
            hook = Hook(
                file,
                kube.within(KUBERNETES_S),
                cache,
                brokers=brokers,
                databases=databases,
                registry=registry,
            )
            async with hook.running():
                app = webhook_app(hook.drainer)
                if clients:
                    app.middlewares.append(only_for(clients))
                await serve(
                    app,
                    settings=certified.settings,
                    name=NAME,
                    registry=registry,
                    health=lambda: hook.health(certified.problem()),
                    client_ca=clients.ca_bundle if clients else None,
                    stop=stop,
                )


def _clients(settings: Settings) -> AllowedClients | None:
    """None lets in everybody; raises CertificateError."""
    if settings.client_ca_file is None:
        return None
    return AllowedClients(settings.client_ca_file, names=settings.client_allowed_names)


class Hook:
    """All parts but the server."""

    def __init__(
        self,
        file: ConfigurationFile,
        kube: KubeClient,
        cache: WorkloadCache,
        *,
        brokers: Brokers[Control],
        databases: Databases,
        registry: CollectorRegistry,
    ) -> None:
        self._file = file
        self._cache = cache
        self._brokers = brokers
        self._databases = databases
        telemetry = Telemetry(registry)
        self._metadata = MetadataWatch(databases.live, telemetry=telemetry)
        self._labels = LabelLearning(databases, configuration=self._configuration)
        self._warm = WarmFleet(
            configuration=self._configuration,
            cache=cache,
            workers=brokers.control_of,
            software=WorkerSoftware(telemetry.old_workers),
        )
        self._costs = DeletionCosts(kube, cache=cache, configuration=self._configuration, telemetry=telemetry)
        around = Surroundings(
            cluster=kube,
            cache=cache,
            warm=self._warm,
            workers=brokers.control_of,
            metadata=self._metadata,
            telemetry=telemetry,
            pace=Pace(),
            clock=time.time,
            costs=lambda: self._costs.costs,
        )
        holder = f"{socket.gethostname()}_{uuid4().hex[:8]}"
        locks = RoundLocks(kube, holder=holder)
        self._announcer = Announcer(Events(kube), around.telemetry)
        self._failure_policy = FailurePolicy(kube, name=WEBHOOK_CONFIGURATION, telemetry=around.telemetry)
        self.drainer = Drainer(
            around,
            configuration=self._configuration,
            locks=locks,
            announcer=self._announcer,
            ignores_failures=self._failure_policy.ignores_failures,
        )
        self._reconciler = Reconciler(
            around,
            changes=cache,
            configuration=self._configuration,
            locks=locks,
            leadership=Lease(
                kube,
                namespace=own_namespace(),
                name="celery-hpa-drain-reconciler",
                holder=holder,
                duration_s=LEADER_LEASE_S,
            ),
            announcer=self._announcer,
            on_misprediction=self._costs.look_again,
        )

    def _configuration(self) -> Configuration:
        return self._file.current

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Everything in the background, from before the first review until after the last round."""
        self._follow()
        await self._sync()
        await self._costs.refresh()
        async with _one_error(), asyncio.TaskGroup() as group:
            background = [
                group.create_task(work)
                for work in (
                    self._file.watch(),
                    self._adopt(),
                    self._failure_policy.run(),
                    self._costs.run(),
                    self._warm.run(),
                    self._labels.run(),
                    self._reconciler.run(),
                )
            ]
            try:
                yield
                with suppress(TimeoutError):
                    async with asyncio.timeout(LAST_ROUNDS_S):
                        await self.drainer.close()
                        await self._announcer.close()
            finally:
                for task in background:
                    task.cancel()
        await self._keep_only(())

    def health(self, *others: str | None) -> Health:
        """Ready as soon as it serves: whoever is not asked cannot refuse with a sentence that says why.

        `others` are problems of others, to be said as well.
        """
        lists = None if self._cache.is_synced else "Not all workloads and their pods could be listed yet."
        details = (self._file.problem, lists, self._costs.problem, *self._metadata.problems, *others)
        return Health(details=tuple(filter(None, details)))

    def _follow(self) -> None:
        self._cache.follow(pool.workload_key for pool in self._configuration().pools)

    async def _sync(self) -> None:
        try:
            async with asyncio.timeout(FIRST_SYNC_S):
                await self._cache.wait_synced()
        except TimeoutError:
            log.warning(
                "Not all workloads could be listed in %.0f s. Look whether our service account may list and "
                "watch deployments, replicasets and pods in every namespace of the configuration.",
                FIRST_SYNC_S,
            )

    async def _adopt(self) -> None:
        """Follow the workloads, and keep to the brokers and databases, of the configuration in force."""
        version, former = self._file.version, self._doors()
        while True:
            version = await self._file.wait_changed(version)
            self._follow()
            for pool, workers in former:
                if not self._is_ours(pool):
                    await self._reconciler.dismiss(pool, workers)
            await self._keep_only(self._configuration().pools)
            former = self._doors()

    async def _keep_only(self, pools: Collection[Pool]) -> None:
        """Close whatever no pool is on any more."""
        self._metadata.keep_only(pools)
        await self._brokers.keep_only(pools)
        await self._databases.keep_only(pools)

    def _is_ours(self, pool: Pool) -> bool:
        return self._configuration().pool_of(**pool.workload_key._asdict()) is not None

    def _doors(self) -> list[tuple[Pool, Control]]:
        """How each pool's workers are reached now: the address of one that is removed cannot be looked up."""
        return [(pool, self._brokers.control_of(pool)) for pool in self._configuration().pools]


@asynccontextmanager
async def _one_error() -> AsyncIterator[None]:
    """A single error out of a group of tasks as itself: it becomes a sentence at the end of the process."""
    try:
        yield
    except BaseExceptionGroup as group:
        if len(group.exceptions) > 1:
            raise
        raise group.exceptions[0] from None
