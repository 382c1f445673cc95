"""The adapter put together: one place where every part meets those it needs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import partial

from prometheus_client import CollectorRegistry

from metrics_adapter.api import create_api
from metrics_adapter.authentication import Authenticator
from metrics_adapter.authorization import Authorizer
from metrics_adapter.collector import Collector, Workers
from metrics_adapter.delegate import connect as connect_delegate
from metrics_adapter.delegation import Delegation
from metrics_adapter.external_metrics import GROUP, VERSION
from metrics_adapter.ownership import Ownership
from metrics_adapter.telemetry import Telemetry
from metrics_adapter.trust_source import TrustSource
from shared.brokers import Brokers, Connect
from shared.celery_control import CeleryControl
from shared.databases import Databases, MetadataDatabase, metadata_database
from shared.kube_client import KubeClient
from shared.pools import Pool
from shared.self_managed import Certified, Registration, pod_namespace, with_certificate
from shared.serving import Health, serve
from shared.settings import ConfigurationFile, Settings
from shared.workload_cache import WorkloadCache

NAME = "metrics_adapter"
SERVICE = "metrics-adapter"
"""Name of the Service in front of us: a certificate of our own is made for it."""
API_SERVICE = f"{VERSION}.{GROUP}"

FIRST_SYNC_S = 2.0

MakeBrokers = Callable[[Callable[[Pool], str]], Brokers[Workers]]
"""From how a pool's broker URL is found."""
MakeDatabases = Callable[[Callable[[Pool], str]], Databases]
"""From how the URL of a pool's metadata database is found."""


async def run_adapter(
    settings: Settings,
    *,
    connect: Connect[Workers] = CeleryControl,
    connect_database: Callable[[str], MetadataDatabase] = metadata_database,
    stop: asyncio.Event | None = None,
) -> None:
    """Serve until SIGTERM, SIGINT or `stop`; `connect` opens the door to a broker.

    Raises ConfigurationError, CertificateError and KubernetesError when it cannot begin.
    """
    registry = CollectorRegistry()
    file = ConfigurationFile(settings.config, registry=registry)
    async with KubeClient.connect(settings.kubeconfig) as kube, WorkloadCache(kube) as cache:
        ownership = Ownership(
            kube,
            api_service=API_SERVICE,
            service=SERVICE,
            namespace=pod_namespace(),
            delegate=lambda: file.current.delegate,
        )
        registration = Registration(
            read=ownership.registered_ca,
            replace=partial(kube.replace_api_service_ca, API_SERVICE),
        )
        async with with_certificate(
            settings, secrets=kube, service=SERVICE, registration=registration
        ) as certified:
            await _serve(
                certified,
                registry=registry,
                file=file,
                kube=kube,
                cache=cache,
                brokers=partial(Brokers[Workers], connect=connect),
                databases=partial(Databases, connect=connect_database),
                ownership=ownership,
                stop=stop,
            )


async def _serve(
    certified: Certified,
    *,
    registry: CollectorRegistry,
    file: ConfigurationFile,
    kube: KubeClient,
    cache: WorkloadCache,
    brokers: MakeBrokers,
    databases: MakeDatabases,
    ownership: Ownership,
    stop: asyncio.Event | None,
) -> None:
    telemetry = Telemetry(registry)
    collector = Collector(cache, observer=telemetry)
    trust = TrustSource(kube)
    authorizer = Authorizer(kube)
    telemetry.show_pools(collector.states)
    telemetry.show_access_reviews(authorizer.answers)
    delegation = Delegation(partial(connect_delegate, authorization=kube.authorization), observer=telemetry)
    telemetry.show_delegate(lambda: delegation.is_answering)
    await trust.load()
    api = create_api(
        pools=collector,
        authenticator=Authenticator(trust=lambda: trust.current, token_reviews=kube),
        authorizer=authorizer,
        observer=telemetry,
        others=delegation,
    )
    async with asyncio.TaskGroup() as group:
        background = [
            group.create_task(file.watch()),
            group.create_task(trust.watch()),
            group.create_task(authorizer.answers.keep_fresh()),
            group.create_task(_collect(file, cache, brokers, databases, collector)),
            group.create_task(delegation.follow(file)),
            group.create_task(ownership.watch()),
        ]
        await serve(
            api,
            settings=certified.settings,
            name=NAME,
            registry=registry,
            health=partial(
                _health,
                file,
                trust,
                collector,
                lambda: (certified.problem(), ownership.problem, delegation.problem),
            ),
            client_ca=lambda: trust.current.ca_bundle,
            on_stranger=trust.hurry,
            stop=stop,
        )
        for task in background:
            task.cancel()


async def _collect(
    file: ConfigurationFile,
    cache: WorkloadCache,
    make_brokers: MakeBrokers,
    make_databases: MakeDatabases,
    collector: Collector,
) -> None:
    """Collect for the configuration in force; for another one, all of it begins anew."""
    while True:
        version, configuration = file.version, file.current
        # Those of this configuration: by the time they are used, another one may be in force.
        broker_urls, database_urls = file.broker_urls, file.database_urls
        cache.follow(pool.workload_key for pool in configuration.pools)
        await _first_sync(cache)
        brokers = make_brokers(partial(_url_of, broker_urls))
        databases = make_databases(partial(_url_of, database_urls))
        try:
            async with asyncio.TaskGroup() as group:
                collecting = group.create_task(collector.collect(configuration, brokers, databases))
                await file.wait_changed(version)
                collecting.cancel()
        finally:
            await brokers.keep_only(())
            await databases.keep_only(())


def _url_of(urls: Mapping[tuple[str, str], str], pool: Pool) -> str:
    return urls[pool.key]


async def _first_sync(cache: WorkloadCache) -> None:
    """Saves every pool a first refresh that fails, and a warning; what cannot be listed holds nobody up."""
    with suppress(TimeoutError):
        async with asyncio.timeout(FIRST_SYNC_S):
            await cache.wait_synced()


def _health(
    file: ConfigurationFile,
    trust: TrustSource,
    collector: Collector,
    others: Callable[[], Iterable[str | None]],
) -> Health:
    """Ready is who can tell its callers apart, whatever is wrong with pools.

    A replica that is not ready gets no requests, and without any the whole API group is unavailable, for the
    pools that are well too. What is wrong with one is in the details here, and in its 503.
    """
    complaints = (state.complaint(max_age_s=collector.max_age_s) for state in collector.states())
    details = filter(None, (trust.problem, file.problem, *others(), *complaints))
    return Health(is_ready=trust.is_loaded, details=tuple(details))
