"""What both services do with the Kubernetes API, each by the code that does it; and what it complains of.

A feature raises KubernetesError or logs a warning when it may not do what it needs. It is small enough that
the first complaint tells what the missing permission is for.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from prometheus_client import CollectorRegistry

from drain_hook.admission import Review, ScaleDown
from drain_hook.app import SERVICE as HOOK
from drain_hook.app import WEBHOOK_CONFIGURATION, Hook
from drain_hook.events import RAISED_EVERY_S, Events
from drain_hook.failure_policy import FailurePolicy
from drain_hook.registration import OwnWebhooks
from drain_hook.round_locks import RoundLocks
from drain_hook.telemetry import Telemetry
from metrics_adapter.app import API_SERVICE
from metrics_adapter.app import SERVICE as ADAPTER
from metrics_adapter.authentication import Authenticator
from metrics_adapter.authorization import Authorizer
from metrics_adapter.client_trust import ClientTrust
from metrics_adapter.trust_source import TrustSource
from metrics_adapter.users import User
from shared.airflow_db import AirflowDatabase
from shared.brokers import Brokers
from shared.databases import Databases
from shared.errors import KubernetesError
from shared.leases import Lease
from shared.pods import WorkloadKey
from shared.pools import parse_configuration
from shared.self_managed import CertificateKeeper, Registration
from shared.settings import ConfigurationFile
from shared.workload_cache import WorkloadCache
from tests.deploy.manifests import BASE
from tests.deploy.permissions import SYSTEM, Site
from tests.fakes.celery import FakeCelery, fake_worker

LONG_AFTER = timedelta(days=360)
"""When a certificate of a year is renewed."""
Feature = Callable[[Site], Coroutine[Any, Any, None]]


class Complaints(logging.Handler):
    """What is logged for somebody to look at."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.texts: list[str] = []
        self.came = asyncio.Event()

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())
        self.came.set()


async def complaint_of(feature: Feature, site: Site) -> str:
    """The first thing that goes wrong; empty when all goes well. What never ends is ended by a complaint."""
    complaints = Complaints()
    logging.getLogger().addHandler(complaints)
    tasks = [asyncio.create_task(feature(site)), asyncio.create_task(_heard(complaints))]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if not complaints.texts:
            await tasks[0]
    except KubernetesError as error:
        return str(error)
    finally:
        logging.getLogger().removeHandler(complaints)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return "".join(complaints.texts[:1])


async def _heard(complaints: Complaints) -> None:
    await complaints.came.wait()


# Of both services


async def follow_the_workload(site: Site) -> None:
    """WorkloadCache: every list is watched once the state is as of now, whenever that is asked."""
    async with WorkloadCache(site.kube, [site.workload]) as cache:
        version = cache.version
        while not _is_live(cache, site.workload):
            version = await cache.wait_changed(version)


def _is_live(cache: WorkloadCache, key: WorkloadKey) -> bool:
    states = [cache.state(**key._asdict()) for _ in range(2)]
    return all(states) and len({state.as_of for state in states if state}) == len(states)


async def _keep_a_certificate(site: Site, service: str, registration: Registration) -> None:
    """One replica makes it, another finds it and renews it long after."""
    for ahead in (timedelta(), LONG_AFTER):
        directory = site.directory / str(ahead.days)
        directory.mkdir()
        keeper = CertificateKeeper(
            secrets=site.kube,
            namespace=SYSTEM,
            service=service,
            registration=registration,
            directory=directory,
            now=partial(_now, ahead),
        )
        await keeper.refresh()


def _now(ahead: timedelta) -> datetime:
    return datetime.now(UTC) + ahead


# Of the adapter


async def keep_the_adapters_certificate(site: Site) -> None:
    registration = Registration(
        read=partial(site.kube.api_service_ca, API_SERVICE),
        replace=partial(site.kube.replace_api_service_ca, API_SERVICE),
    )
    await _keep_a_certificate(site, ADAPTER, registration)


async def learn_whom_to_trust(site: Site) -> None:
    await TrustSource(site.kube).load()


async def ask_whose_a_token_is(site: Site) -> None:
    authenticator = Authenticator(trust=ClientTrust, token_reviews=site.kube)
    headers = {"Authorization": f"Bearer {site.stage.token_of('anna')}"}
    await authenticator.authenticate(_Headers(headers), None)


async def ask_who_may_read_a_metric(site: Site) -> None:
    await Authorizer(site.kube).may_read(User(name="anna"), metric="celery_demand", namespace="default")


class _Headers(dict[str, str]):
    def getall(self, key: str, default: list[str], /) -> list[str]:
        return [self[key]] if key in self else default


# Of the hook


async def keep_the_hooks_certificate(site: Site) -> None:
    registration = Registration(
        read=OwnWebhooks(site.kube, name=WEBHOOK_CONFIGURATION, service=HOOK, namespace=SYSTEM).registered_ca,
        replace=partial(site.kube.replace_webhook_ca, WEBHOOK_CONFIGURATION),
    )
    await _keep_a_certificate(site, HOOK, registration)


async def read_the_failure_policy(site: Site) -> None:
    telemetry = Telemetry(CollectorRegistry())
    await FailurePolicy(site.kube, name=WEBHOOK_CONFIGURATION, telemetry=telemetry).refresh()


async def look_at_the_workload(site: Site) -> None:
    """Not from the cache: as Picture does where that is too old."""
    await site.kube.workload_state(**site.workload._asdict())


async def lock_the_workload(site: Site) -> None:
    """RoundLocks: a Lease that is made, found, held and given back."""
    (pool,) = parse_configuration((BASE / "config.yaml").read_text()).pools
    for holder in ("hook-1", "hook-2"):
        async with RoundLocks(site.kube, holder=holder).hold(pool, wait_s=0):
            pass


async def lead_the_reconcilers(site: Site) -> None:
    for holder in ("hook-1", "hook-2"):
        lease = Lease(
            site.kube, namespace=SYSTEM, name="celery-hpa-drain-reconciler", holder=holder, duration_s=1
        )
        await lease.acquire()
        await lease.release()


async def tell_of_a_scale_down_twice(site: Site) -> None:
    clock = [0.0]
    events = Events(site.kube, clock=lambda: clock[0])
    workload = await site.stage.kube.workload(**site.workload._asdict())
    for _ in range(2):
        events.tell(workload, "ScaleDownDrained", "3 to 2", about="", type="Normal")
        await events.close()
        clock[0] += RAISED_EVERY_S


async def drain_a_worker(site: Site) -> None:
    """Drainer: what it answers to a scale-down that cannot be prepared is what people read."""
    file = site.directory / "config.yaml"
    file.write_text((BASE / "config.yaml").read_text())
    registry, celery = (
        CollectorRegistry(),
        FakeCelery.of(*(fake_worker(f"celery@worker-{n}") for n in range(3))),
    )
    settings = ConfigurationFile(file, registry=registry, environment={"BROKER_URL": "redis://broker"})
    brokers = Brokers(settings.broker_url, connect=lambda url, **_: celery)
    async with WorkloadCache(site.kube, [site.workload]) as cache:
        await cache.wait_synced()
        hook = Hook(
            settings,
            site.kube,
            cache,
            brokers=brokers,
            databases=Databases(settings.database_url, connect=AirflowDatabase),
            registry=registry,
        )
        async with hook.running():
            verdict = await hook.drainer.review(_review(cache, site.workload), deadline=_in_s(5.0))
    if not verdict.allowed:
        raise KubernetesError(verdict.message)


def _review(cache: WorkloadCache, key: WorkloadKey) -> Review:
    state = cache.state(**key._asdict())
    assert state is not None
    scale_down = ScaleDown(
        review_uid="review",
        workload_uid=state.workload.uid,
        from_replicas=3,
        to_replicas=2,
        **key._asdict(),
    )
    return Review(uid="review", api_version="admission.k8s.io/v1", scale_down=scale_down)


def _in_s(seconds: float) -> float:
    return asyncio.get_running_loop().time() + seconds


def at_pods_of(namespace: str, write: dict[str, str] | None) -> Feature:
    """Reads the pods of a namespace or, with annotations, writes to one; no part of what the services do."""

    async def reach_for_pods(site: Site) -> None:
        if write is None:
            await site.kube.pods(namespace=namespace, selector="")
        else:
            await site.kube.patch_pod(namespace=namespace, name="worker-0", uid="", annotations=write)

    return reach_for_pods
