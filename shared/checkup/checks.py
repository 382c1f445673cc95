"""Every check, in the order of the report. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from shared.checkup.autoscaler_checks import check_autoscalers
from shared.checkup.cluster_checks import check_cluster, check_kubernetes
from shared.checkup.findings import Check, Finding, counted
from shared.checkup.hook_checks import check_hook
from shared.checkup.picture import Database, Picture, PoolPicture, Unread
from shared.checkup.worker_checks import check_workers


def check(picture: Picture) -> tuple[Finding, ...]:
    """What is so in this cluster, first what all pools share, then pool by pool.

    Without Kubernetes only the brokers were looked at.
    """
    if isinstance(picture.version, Unread):
        found = [check_kubernetes(picture)]
        doors = (f for pool in picture.pools for f in _check_doors(picture, pool))
        return (*found, *doors)
    return (*check_cluster(picture), *(f for pool in picture.pools for f in check_pool(picture, pool)))


def check_pool(picture: Picture, pool: PoolPicture) -> Iterator[Finding]:
    yield _check_workload(pool)
    yield from check_hook(picture, pool)
    if not isinstance(pool.state, Unread):
        yield from check_autoscalers(picture, pool)
    yield from _check_doors(picture, pool)


def _check_doors(picture: Picture, pool: PoolPicture) -> Iterator[Finding]:
    """The database, the broker, and who is behind it."""
    if pool.database is not None:
        yield _check_database(pool, pool.database)
    yield from check_workers(picture, pool)


def _check_database(pool: PoolPicture, database: Database | Unread) -> Finding:
    check = Check(about=pool.about, name="database")
    if isinstance(database, Unread):
        return check.problem(
            f"The metadata database cannot be read from here: {database.reason}",
            "If only the cluster reaches it, run this check in a pod of metrics-adapter.",
        )
    return check.ok(
        f"The metadata database {database.address} can be read from here; "
        f"{counted(database.task_instances, 'task')} of Airflow run or are queued."
    )


def _check_workload(pool: PoolPicture) -> Finding:
    check = Check(about=pool.about, name="workload")
    if not isinstance(pool.state, Unread):
        replicas, pods = pool.state.workload.replicas, sum(pod.is_ready for pod in pool.state.pods)
        return check.ok(f"{pool.workload} has {counted(replicas, 'replica')}, {pods} ready.")
    if pool.state.is_missing:
        return check.problem(
            f"There is no {pool.workload}.", "Correct the pool's namespace and workload, or create it."
        )
    return check.warning(
        f"{pool.workload} could not be read: {pool.state.reason}", "Run this as somebody who may."
    )
