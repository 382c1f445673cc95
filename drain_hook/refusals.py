"""Refusals that are no decision about workers: something is missing, taken, or too slow. Pure."""

from __future__ import annotations

from drain_hook.admission import ScaleDown, Verdict
from shared.errors import BrokerUnavailable, CeleryHpaError, Forbidden, KubernetesError
from shared.pods import BYPASS_ANNOTATION

TOO_MANY_REQUESTS = 429
"""Sent without Retry-After, so that nobody retries by himself; the HPA asks again at its next sync."""

BY_HAND = f"To scale down without draining, annotate the workload with {BYPASS_ANNOTATION}=true."


class OutOfTime(CeleryHpaError):
    """The budget of a review is used up."""


def out_of_time(scale_down: ScaleDown, *, step: int | None = None) -> Verdict:
    """`step`: how many workers at a time there is time for; None when that is not known to help."""
    advice = (
        "ask again, or raise the webhook's timeoutSeconds if this comes back."
        if step is None
        else _smaller(step)
    )
    return _refuse(
        "OutOfTime",
        f"Draining {_change(scale_down)} took longer than a review may last. What was done is taken back;"
        f" {advice}",
    )


def too_many(scale_down: ScaleDown, *, step: int) -> Verdict:
    """Before anything is touched."""
    return _refuse(
        "OutOfTime",
        f"Draining {_change(scale_down)} would take longer than a review may last, at the pace at which the"
        f" Kubernetes API took the last ones. Nothing was touched; {_smaller(step)}",
    )


def locked(scale_down: ScaleDown, by: str) -> Verdict:
    return _refuse(
        "Locked",
        f"{_name(scale_down)} cannot be scaled down at this moment: {by}. Ask again in a few seconds.",
        code=TOO_MANY_REQUESTS,
    )


def full(rounds: int) -> Verdict:
    return _refuse(
        "Full",
        f"{rounds} scale-downs are being prepared already, which is as many as are taken on at once. "
        "Ask again in a few seconds.",
        code=TOO_MANY_REQUESTS,
    )


def unsettled(scale_down: ScaleDown) -> Verdict:
    return _refuse(
        "Unsettled",
        f"While {_change(scale_down)} was being prepared, its workers kept changing and no choice of them "
        "stood firm. Ask again in a few seconds.",
    )


def lost_lock(scale_down: ScaleDown) -> Verdict:
    return locked(
        scale_down, "its Lease went to another replica of this hook while workers were being drained"
    )


def failed(scale_down: ScaleDown) -> Verdict:
    return _refuse(
        "Failed",
        f"An internal error stopped {_change(scale_down)}; the log of drain_hook has it. {BY_HAND}",
        code=500,
    )


def unavailable(scale_down: ScaleDown, error: CeleryHpaError) -> Verdict:
    """For an outside system that is down, or refuses us."""
    reason, what = _CAUSES[next(kind for kind in _CAUSES if isinstance(error, kind))]
    return _refuse(reason, f"{_name(scale_down)} cannot be drained: {what} {error} {BY_HAND}")


_CAUSES: dict[type[CeleryHpaError], tuple[str, str]] = {
    BrokerUnavailable: ("BrokerUnavailable", "its workers cannot be asked or told anything."),
    Forbidden: ("KubernetesUnavailable", "the Kubernetes API refuses this hook a permission."),
    KubernetesError: ("KubernetesUnavailable", "the Kubernetes API does not do what it is asked for."),
    CeleryHpaError: ("Failed", "an internal error came up."),
}


def _refuse(reason: str, message: str, *, code: int = 403) -> Verdict:
    return Verdict(allowed=False, reason=reason, message=message, code=code)


def _smaller(step: int) -> str:
    return (
        f"scale down by at most {step} at a time, for instance with a scaleDown policy of {step} Pods in the"
        " HorizontalPodAutoscaler's behavior, or raise the webhook's timeoutSeconds."
    )


def _name(scale_down: ScaleDown) -> str:
    return f"{scale_down.kind} {scale_down.namespace}/{scale_down.name}"


def _change(scale_down: ScaleDown) -> str:
    return f"{_name(scale_down)} from {scale_down.from_replicas} to {scale_down.to_replicas} replicas"
