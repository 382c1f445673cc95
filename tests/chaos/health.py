"""What is not as it should be when nobody asks for anything any more. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from shared.pods import Pod

SILENT = "has a worker that does not answer"


def complaints(
    pods: Iterable[Pod],
    *,
    queues: Collection[str],
    consumed: Mapping[str, Collection[str]],
    foreign_costs: Mapping[str, str],
) -> tuple[str, ...]:
    """A sentence for each thing. `consumed` has the queues of each pod's worker; a silent one is missing."""
    staying = [pod for pod in pods if not pod.is_terminating]
    return tuple(
        f"{pod.name} {complaint}"
        for pod in staying
        for complaint in (
            *_about_marks(pod, foreign_costs.get(pod.name)),
            *_about_consumers(pod, frozenset(queues), consumed.get(pod.name)),
        )
    )


def _about_marks(pod: Pod, foreign_cost: str | None) -> Iterable[str]:
    if pod.has_mark_annotation:
        yield "is marked, and no round wants it"
    elif pod.cost_annotation != foreign_cost:
        yield f"has the pod-deletion-cost {pod.cost_annotation}, and others gave it {foreign_cost}"


def _about_consumers(pod: Pod, queues: frozenset[str], consumed: Collection[str] | None) -> Iterable[str]:
    if not pod.is_ready:
        yield "is not ready"
    elif consumed is None:
        yield SILENT
    elif missing := queues.difference(consumed):
        yield f"has a worker that does not consume {', '.join(sorted(missing))}"
