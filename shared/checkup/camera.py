"""Takes the picture: everything at once, of the cluster and of the brokers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import replace

from shared.checkup.broker_look import BrokerLook
from shared.checkup.cluster_look import ClusterLook
from shared.checkup.database_look import DatabaseLook
from shared.checkup.picture import Picture, PoolPicture, Registration, Unread
from shared.pods import WorkloadState
from shared.pools import Pool
from shared.urls import address


async def take_picture(
    cluster: ClusterLook,
    brokers: BrokerLook,
    databases: DatabaseLook,
    *,
    pools: Sequence[Pool],
    namespace: str,
) -> Picture:
    """The cluster and the brokers as they are now; `namespace` is where both services should be."""
    version = await cluster.version()
    if isinstance(version, Unread):
        return await _without_kubernetes(brokers, databases, version, pools=pools, namespace=namespace)
    namespaces = [pool.namespace for pool in pools]
    async with asyncio.TaskGroup() as group:
        api_service = group.create_task(cluster.api_service())
        webhooks = group.create_task(cluster.webhooks())
        denied = group.create_task(cluster.denied(pools, services_in=namespace))
        autoscalers = group.create_task(cluster.autoscalers(namespaces))
        scaled_objects = group.create_task(cluster.scaled_objects(namespaces))
        metrics = group.create_task(cluster.metrics())
        pictures = [group.create_task(_pool(cluster, brokers, databases, pool)) for pool in pools]
    found = autoscalers.result()
    if not isinstance(found, Unread) and not isinstance(metrics.result(), Unread):
        found = tuple(await asyncio.gather(*map(cluster.with_answers, found)))
    return Picture(
        taken_at=time.time(),
        namespace=namespace,
        version=version,
        api_service=api_service.result(),
        webhooks=webhooks.result(),
        denied=denied.result(),
        autoscalers=found,
        scaled_objects=scaled_objects.result(),
        metrics=metrics.result(),
        pools=tuple(picture.result() for picture in pictures),
    )


async def _without_kubernetes(
    brokers: BrokerLook, databases: DatabaseLook, unread: Unread, *, pools: Sequence[Pool], namespace: str
) -> Picture:
    pictures = await asyncio.gather(*(_doors(brokers, databases, pool, unread) for pool in pools))
    return Picture(
        taken_at=time.time(),
        namespace=namespace,
        version=unread,
        api_service=Registration(document=unread),
        webhooks=Registration(document=unread),
        denied=unread,
        autoscalers=unread,
        metrics=unread,
        pools=tuple(pictures),
    )


async def _pool(
    cluster: ClusterLook, brokers: BrokerLook, databases: DatabaseLook, pool: Pool
) -> PoolPicture:
    state, grace_s = await cluster.workload(pool)
    seen = await _doors(brokers, databases, pool, state)
    return replace(
        seen,
        grace_s=grace_s,
        namespace_labels=await cluster.namespace_labels(pool.namespace),
        rehearsal=await cluster.rehearse(pool, state) if pool.drain.enabled else None,
    )


async def _doors(
    brokers: BrokerLook, databases: DatabaseLook, pool: Pool, state: WorkloadState | Unread
) -> PoolPicture:
    """The broker, who is behind it, and the database: what is seen without Kubernetes, too."""
    return PoolPicture(
        pool=pool,
        state=state,
        broker=_broker_of(brokers, pool),
        workers=await brokers.workers(pool, state),
        database=await databases.database(pool),
    )


def _broker_of(brokers: BrokerLook, pool: Pool) -> str:
    url = brokers.url(pool)
    return "" if isinstance(url, Unread) else address(url)
