"""What is wrong with who scales a pool's workload: no HPA, the wrong one, or two. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from difflib import get_close_matches

from shared.checkup.findings import Check, Finding, enumerated
from shared.checkup.picture import (
    OUR_PREFIX,
    Autoscaler,
    ExternalMetric,
    Picture,
    PoolPicture,
    ScaledObject,
    Unread,
)

_RATIO = "celery_load_factor"
_TARGETS = {_RATIO: "Value", "celery_demand": "AverageValue", "celery_desired_workers": "AverageValue"}
"""How an HPA must read what is made for scaling: a total is divided by the replicas, a ratio must not be."""


def check_autoscalers(picture: Picture, pool: PoolPicture) -> Iterator[Finding]:
    """Findings about the HPAs of one pool's workload."""
    check = Check(about=pool.about, name="autoscaler")
    if isinstance(picture.autoscalers, Unread):
        yield check.warning(
            f"HPAs could not be listed: {picture.autoscalers.reason}", "Run this as somebody who may."
        )
        return
    own = [a for a in picture.autoscalers if _scales(a, pool)]
    if not own and not _kedas(picture, pool):
        yield _nobody(check, picture.autoscalers, pool)
        return
    found = [*_rivals(check, picture, pool, own)]
    for autoscaler in own:
        found += [] if autoscaler.is_kedas else _check_one(check, picture, pool, autoscaler)
    yield from found
    if not found:
        yield check.ok(f"HPA {own[0]} scales {pool.workload} by {_names(own[0].metrics)}.")


def _scales(scaler: Autoscaler | ScaledObject, pool: PoolPicture) -> bool:
    return (scaler.kind, scaler.namespace, scaler.target) == pool.pool.workload_key


def _kedas(picture: Picture, pool: PoolPicture) -> list[str]:
    return [str(s) for s in picture.scaled_objects if _scales(s, pool)]


def _nobody(check: Check, autoscalers: Sequence[Autoscaler], pool: PoolPicture) -> Finding:
    """No HPA; or one that was meant to be it."""
    meant = [a for a in autoscalers if _is_meant_for(a, pool)]
    where = pool.pool.namespace
    if any(a.namespace != where for a in meant):
        astray = next(a for a in meant if a.namespace != where)
        return check.problem(
            f"HPA {astray} is in another namespace than {pool.workload}: an HPA sees its own only.",
            f"Create it in namespace {where}.",
        )
    if meant:
        return check.problem(
            f"HPA {meant[0]} reads the metrics of this pool, but scales {meant[0].kind} {meant[0].target}.",
            f"Name {pool.pool.workload.kind} {pool.pool.workload.name} in its scaleTargetRef.",
        )
    return check.problem(
        f"No HPA scales {pool.workload}.",
        f"Create one in namespace {where} whose metric selects pool {pool.pool.name}, as README.md shows.",
    )


def _is_meant_for(autoscaler: Autoscaler, pool: PoolPicture) -> bool:
    """By the pool it selects; or, of another namespace, by its target and a metric of ours."""
    ours = [metric for metric in autoscaler.metrics if metric.name.startswith(OUR_PREFIX)]
    selects = any(f"pool={pool.pool.name}" in metric.selector.split(",") for metric in ours)
    targets = (autoscaler.kind, autoscaler.target) == (pool.pool.workload.kind, pool.pool.workload.name)
    return bool(ours) and (targets or (selects and autoscaler.namespace == pool.pool.namespace))


def _rivals(
    check: Check, picture: Picture, pool: PoolPicture, own: Sequence[Autoscaler]
) -> Iterator[Finding]:
    kedas = _kedas(picture, pool)
    names = [f"HPA {a}" for a in own if not (a.is_kedas and kedas)] + [f"ScaledObject {k}" for k in kedas]
    if len(names) > 1:
        yield check.problem(
            f"{enumerated(names)} all scale {pool.workload}, each undoing what the other did.",
            "Delete all but one.",
        )
    elif kedas:
        yield check.warning(
            f"KEDA scales {pool.workload} (ScaledObject {kedas[0]}), by what it measures itself.",
            "To scale by tasks delete the ScaledObject and create an HPA, as README.md shows.",
        )


def _check_one(check: Check, picture: Picture, pool: PoolPicture, autoscaler: Autoscaler) -> list[Finding]:
    wanted = [m for m in autoscaler.metrics if m.is_ours]
    found = [f for m in wanted for f in _check_metric(check, picture, pool, autoscaler, m)]
    if not wanted:
        found.append(_none_of_ours(check, picture, autoscaler))
    if not found and autoscaler.trouble:
        found.append(
            check.problem(
                f"HPA {autoscaler} does not scale: {autoscaler.trouble}", "See kubectl describe hpa."
            )
        )
    return found


def _none_of_ours(check: Check, picture: Picture, autoscaler: Autoscaler) -> Finding:
    read = f"It reads {_names(autoscaler.metrics)}." if autoscaler.metrics else "It has no External metric."
    guess = _guess(picture, autoscaler.metrics[0].name if autoscaler.metrics else "") or _RATIO
    return check.problem(
        f"HPA {autoscaler} scales by none of our metrics. {read}", f"Name the External metric {guess} in it."
    )


def _check_metric(
    check: Check, picture: Picture, pool: PoolPicture, autoscaler: Autoscaler, metric: ExternalMetric
) -> Iterator[Finding]:
    name = metric.name.lower()
    if not isinstance(picture.metrics, Unread) and picture.metrics and name not in picture.metrics:
        guess = _guess(picture, name)
        yield check.problem(
            f"HPA {autoscaler} reads {metric.name}, which nobody serves.",
            f"Did you mean {guess}?" if guess else "docs/metrics.md lists ours.",
        )
        return
    wanted = _TARGETS.get(name, metric.target)
    if metric.target != wanted:
        yield check.problem(
            f"HPA {autoscaler} reads {metric.name} with a target of type {metric.target}.",
            f"Write type: {wanted}, or the HPA arrives at wrong numbers.",
        )
    yield from _check_answer(check, pool, autoscaler, metric)


def _check_answer(
    check: Check, pool: PoolPicture, autoscaler: Autoscaler, metric: ExternalMetric
) -> Iterator[Finding]:
    """What the HPA would hear, unless nobody answers at all: that is said of the APIService."""
    answer = autoscaler.answers.get(metric)
    if answer is None:
        return
    what = f"HPA {autoscaler} reads {metric.name}" + (f" of {metric.selector}" if metric.selector else "")
    labels = f"Select with matchLabels: {{pool: {pool.pool.name}}}."
    if answer.problem:
        yield check.problem(f"{what}, and gets no value: {answer.problem}", "See to what it says.")
    elif not answer.pools:
        yield check.problem(f"{what}, which selects nothing: no pool here has these labels.", labels)
    elif others := [name for name in answer.pools if name != pool.pool.name]:
        whose = f"pool {others[0]}" if others[0] else "several pools together"
        yield check.problem(f"{what}, which is {whose}, not this one.", labels)


def _guess(picture: Picture, name: str) -> str:
    known = [] if isinstance(picture.metrics, Unread) else sorted(picture.metrics)
    return next(iter(get_close_matches(name, [n for n in known if n.startswith(OUR_PREFIX)], n=1)), "")


def _names(metrics: Sequence[ExternalMetric]) -> str:
    return enumerated([metric.name for metric in metrics])
