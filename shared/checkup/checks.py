"""Every check, in the order of the report. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from shared.checkup.autoscaler_checks import check_autoscalers
from shared.checkup.cluster_checks import check_cluster, check_kubernetes
from shared.checkup.findings import Check, Finding, counted
from shared.checkup.picture import Database, Picture, PoolPicture, Unread
from shared.checkup.worker_checks import check_workers
from shared.kube_documents import WORKLOAD_RESOURCES, webhook_terms_from
from shared.pods import Document

_COMPONENTS = {"StatefulSet": "deploy/components/statefulset", "CloneSet": "deploy/components/cloneset"}


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
    yield from _check_hook(picture, pool)
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


def _check_hook(picture: Picture, pool: PoolPicture) -> Iterator[Finding]:
    check = Check(about=pool.about, name="hook")
    document = picture.webhooks.document
    if isinstance(document, Unread):
        return
    if not pool.pool.drain.enabled:
        yield check.ok("Draining is switched off for this pool (drain.enabled: false).")
        return
    kind = pool.pool.workload.kind
    if deaf := _leaving_out(document, pool.pool.namespace):
        yield check.problem(
            f"The namespaceSelector leaves out {pool.pool.namespace} in {', '.join(deaf)}, "
            "so the hook is not asked.",
            "Name it there, or move the workers; deploy/example shows how.",
        )
        return
    if not _asks_about(document, kind):
        manifest = _COMPONENTS.get(kind, "deploy/base/webhook.yaml")
        yield check.problem(f"The hook is not asked about scale-downs of a {kind}.", f"Apply {manifest}.")
        return
    yield from _check_rehearsal(check, pool, ignores=_ignores_failures(document))


def _check_rehearsal(check: Check, pool: PoolPicture, *, ignores: bool) -> Iterator[Finding]:
    rehearsal = pool.rehearsal
    if rehearsal is None:
        return
    what = f"A scale-down to {rehearsal.replicas}, asked for as a dry run,"
    if rehearsal.failure:
        yield check.problem(
            f"{what} failed, so real ones do: {rehearsal.failure}",
            "Look at the pods, Service and log of drain-hook. docs/draining.md says how to break the glass.",
        )
    elif rehearsal.not_asked:
        yield check.warning(
            f"{what} was not possible: {rehearsal.not_asked}", "Run this as somebody who may scale it."
        )
    elif rehearsal.refusal:
        yield check.ok(f"{what} reached the hook, which would refuse it now: {rehearsal.refusal}")
    elif ignores:
        yield check.ok(f"{what} was allowed, which with failurePolicy Ignore says little of the hook.")
    else:
        yield check.ok(f"{what} was allowed.")


def _ignores_failures(document: Document) -> bool:
    terms = map(webhook_terms_from, document.get("webhooks") or ())
    return any(one.failure_policy == "Ignore" for one in terms)


def _leaving_out(document: Document, namespace: str) -> list[str]:
    """Webhooks that are not asked there, as far as selectors go by the name of the namespace."""
    return [
        webhook["name"]
        for webhook in document.get("webhooks") or ()
        for selector in [webhook.get("namespaceSelector") or {}]
        if not all(_admits(expression, namespace) for expression in selector.get("matchExpressions") or ())
    ]


def _admits(expression: Document, namespace: str) -> bool:
    if expression["key"] != "kubernetes.io/metadata.name" or expression["operator"] not in ("In", "NotIn"):
        return True
    is_named = namespace in (expression.get("values") or ())
    return is_named if expression["operator"] == "In" else not is_named


def _asks_about(document: Document, kind: str) -> bool:
    group_version, plural = WORKLOAD_RESOURCES[kind]
    group = group_version.partition("/")[0]
    return any(
        {group, "*"} & set(rule.get("apiGroups") or ())
        and {f"{plural}/scale", "*/scale", "*/*", f"{plural}/*"} & set(rule.get("resources") or ())
        and {"UPDATE", "*"} & set(rule.get("operations") or ())
        for webhook in document.get("webhooks") or ()
        for rule in webhook.get("rules") or ()
    )
