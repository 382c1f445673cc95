"""What the hook tells people: one log line for each verdict, Events on the workload, figures."""

from __future__ import annotations

import logging
from collections.abc import Collection

from drain_hook.admission import Review, ScaleDown, Verdict
from drain_hook.events import Events
from drain_hook.explanations import describe_victim, enumerate_some
from drain_hook.rounds import Round
from drain_hook.telemetry import Telemetry
from shared.pods import Pod, Workload
from shared.pools import Pool

log = logging.getLogger(__name__)

MOST_PODS_TOLD = 20
"""Pods of one round that get an Event of their own; the annotation is on all of them."""

_WITH_WORK_LEFT = frozenset({"Busy", "Proceeding"})
_WHY_IN_A_ROUND = {
    "Unused": "other workers go in this scale-down",
    "TakenBack": "the scale-down was not allowed",
}


class Announcer:
    """Says each thing where whom it concerns will look."""

    def __init__(self, events: Events, telemetry: Telemetry) -> None:
        self._events = events
        self._telemetry = telemetry

    def passed(self, verdict: Verdict, review: Review, pool: Pool | None) -> None:
        """What is let through without a round; only where a pool is concerned is it worth a line."""
        if pool is None or review.scale_down is None:
            log.debug("Review %s passes: %s", review.uid, verdict.message)
            return
        self._telemetry.verdict(pool, verdict, seconds=0.0)
        log.info("%s", verdict.message, extra=_claim(verdict, review.scale_down, pool))

    def verdict(self, verdict: Verdict, round_: Round, *, seconds: float) -> None:
        """Once for each answer to a review of one of our workloads."""
        scale_down, workload = round_.scale_down, round_.workload
        self._telemetry.verdict(round_.pool, verdict, seconds=seconds)
        log.info(
            "Scale-down of %s %s/%s from %d to %d replicas %s (%s) after %.3f s: %s",
            scale_down.kind,
            scale_down.namespace,
            scale_down.name,
            scale_down.from_replicas,
            scale_down.to_replicas,
            "allowed" if verdict.allowed else "refused",
            verdict.reason,
            seconds,
            verdict.message,
            extra=_fields(verdict, round_, seconds=seconds),
        )
        if workload is not None and not scale_down.is_dry_run:
            self._events.tell(
                workload,
                _event_reason(verdict),
                verdict.message,
                about=f"{_change(scale_down)} {verdict.reason} at {workload.generation}",
                type="Normal" if verdict.allowed else "Warning",
            )
            if verdict.reason in _WITH_WORK_LEFT:
                self._tell_busy_pods(round_)

    def given_back(self, round_: Round) -> None:
        """What a round released, once it has ended."""
        for reason, pods in round_.given_back.items():
            if round_.workload is not None and pods:
                self.released(round_.workload, pods, _WHY_IN_A_ROUND[reason])

    def released(self, workload: Workload, pods: Collection[Pod], why: str) -> None:
        """Pods that were given back, and why in half a sentence."""
        message = f"Given back: {enumerate_some([pod.name for pod in pods])}, because {why}."
        log.info("%s %s/%s: %s", workload.kind, workload.namespace, workload.name, message)
        self._events.tell(workload, "DrainReleased", message, about=message, type="Normal")
        for pod in list(pods)[:MOST_PODS_TOLD]:
            free = f"Not draining any more, because {why}."
            self._events.tell(pod, "DrainReleased", free, about=why, type="Normal")

    async def close(self) -> None:
        """Wait for Events that are on their way."""
        await self._events.close()

    def _tell_busy_pods(self, round_: Round) -> None:
        """What `kubectl describe pod` should show of a worker that is waited for."""
        busy, change = round_.plan.busy if round_.plan else (), _change(round_.scale_down)
        for victim in busy[:MOST_PODS_TOLD]:
            message = f"For the scale-down of {change}: {describe_victim(victim)}."
            self._events.tell(victim.pod, "Draining", message, about=change, type="Normal")


def _change(claim: ScaleDown) -> str:
    return f"{claim.kind} {claim.name} from {claim.from_replicas} to {claim.to_replicas} replicas"


def _event_reason(verdict: Verdict) -> str:
    """Nobody was drained for a scale-down that was let through with work left, or by the break-glass."""
    if not verdict.allowed:
        return "ScaleDownRefused"
    return "ScaleDownDrained" if verdict.reason == "Drained" else "ScaleDownAllowed"


def _fields(verdict: Verdict, round_: Round, *, seconds: float) -> dict[str, object]:
    """The plan as fields of the log line; task names are in the message, arguments nowhere."""
    plan = round_.plan
    fields = _claim(verdict, round_.scale_down, round_.pool) | {
        "seconds": round(seconds, 4),
        "phases": {name: round(spent, 4) for name, spent in round_.seconds.items()},
    }
    if plan is not None:
        fields |= {
            "round": plan.round,
            "is_adopted": plan.adopts,
            "possible_replicas": plan.refusal.possible_replicas if plan.refusal else None,
            "victims": [victim.pod.name for victim in plan.victims],
            "forced": [victim.pod.name for victim in plan.victims if victim.is_forced],
            "busy": [victim.pod.name for victim in plan.busy],
            "silent": list(plan.silent),
            "protected": list(plan.protected),
            "unused": [pod.name for pod in plan.releases],
            "costs": {victim.pod.name: victim.cost for victim in plan.victims},
            "waited_for_since": plan.since,
        }
    return fields


def _claim(verdict: Verdict, scale_down: ScaleDown, pool: Pool) -> dict[str, object]:
    """Who asked for what, and what became of it."""
    return {
        "allowed": verdict.allowed,
        "reason": verdict.reason,
        "namespace": scale_down.namespace,
        "workload": scale_down.name,
        "pool": pool.name,
        "from_replicas": scale_down.from_replicas,
        "to_replicas": scale_down.to_replicas,
        "user": scale_down.username,
        "dry_run": scale_down.is_dry_run,
    }
