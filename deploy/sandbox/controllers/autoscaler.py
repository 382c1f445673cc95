"""The HorizontalPodAutoscaler controller for external metrics, asking and writing through the API server.

The sentences of its conditions and events are Kubernetes' own, since people and tests look for them.
"""

import asyncio
import logging
import time
from dataclasses import dataclass
from datetime import UTC, datetime

from deploy.sandbox.client import ApiClient
from deploy.sandbox.controllers.autoscaler_metrics import MetricsReader, Target
from deploy.sandbox.controllers.autoscaler_status import AutoscalerStatus, metric_status
from deploy.sandbox.controllers.autoscaling import Condition, Decision, MetricFailure, combine
from deploy.sandbox.controllers.scaling_behavior import (
    ABLE_TO_SCALE,
    History,
    limits_of,
    normalize,
    outside_limits,
    rescale_reason,
)
from deploy.sandbox.errors import ApiError
from deploy.sandbox.event_recorder import EventRecorder
from deploy.sandbox.informers import UNREACHABLE, Informer, Key, cancel, key_of
from deploy.sandbox.objects import timestamp
from deploy.sandbox.resources import (
    AUTOSCALERS,
    CLONE_SETS,
    DEPLOYMENTS,
    REPLICA_SETS,
    STATEFUL_SETS,
    Document,
    Resource,
)

log = logging.getLogger(__name__)

SCALABLE: dict[tuple[str, str], Resource] = {
    ("apps/v1", "Deployment"): DEPLOYMENTS,
    ("apps/v1", "ReplicaSet"): REPLICA_SETS,
    ("apps/v1", "StatefulSet"): STATEFUL_SETS,
    ("apps.kruise.io/v1alpha1", "CloneSet"): CLONE_SETS,
}
CONFLICT_ATTEMPTS = 5
CONFLICT_PAUSE_S = 0.01
WORKERS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """The size to ask for and why, with what the metrics said; `replicas` is None to leave the size alone."""

    replicas: int | None
    reason: str = ""
    metrics: tuple[Document, ...] = ()
    error: str | None = None


class AutoscalerController:
    """Looks at every HPA once per sync period, at most five at a time, as kube-controller-manager does."""

    def __init__(
        self,
        client: ApiClient,
        *,
        autoscalers: Informer,
        events: EventRecorder,
        sync_period_s: float = 15.0,
        tolerance: float = 0.1,
    ) -> None:
        self._client = client
        self._autoscalers = autoscalers
        self._events = events
        self._sync_period_s = sync_period_s
        self._metrics = MetricsReader(client, tolerance=tolerance)
        self._slots = asyncio.Semaphore(WORKERS)
        self._histories: dict[str, History] = {}
        self._tasks: dict[Key, asyncio.Task[None]] = {}
        autoscalers.on_change(self._changed)

    async def stop(self) -> None:
        """Look no more; a look that is under way is given up."""
        await cancel(self._tasks.values())
        self._tasks.clear()

    def _changed(self, kind: str, autoscaler: Document) -> None:
        key = key_of(autoscaler)
        if kind == "DELETED":
            self._histories.pop(autoscaler["metadata"]["uid"], None)
            if task := self._tasks.pop(key, None):
                task.cancel()
        elif key not in self._tasks:
            self._tasks[key] = asyncio.create_task(self._look_after(key), name=f"hpa {key[1]}")

    async def _look_after(self, key: Key) -> None:
        while True:
            await asyncio.sleep(self._sync_period_s)
            autoscaler = self._autoscalers.get(key)
            if autoscaler is None:
                return
            async with self._slots:
                try:
                    await self.reconcile(autoscaler)
                except UNREACHABLE as error:
                    log.warning("The autoscaler %s could not be looked after: %s", key[1], error)
                except Exception:
                    log.exception("Looking after the autoscaler %s failed.", key[1])

    async def reconcile(self, autoscaler: Document) -> None:
        """One look: read the scale and the metrics, decide, rescale, and write the status."""
        status = AutoscalerStatus(autoscaler, stamp=timestamp(datetime.now(UTC)))
        try:
            target = await self._get_target(autoscaler)
        except UNREACHABLE as error:
            self._warn(autoscaler, "FailedGetScale", str(error))
            message = f"the HPA controller was unable to get the target's current scale: {error}"
            status.set_condition(_able(False, "FailedGetScale", message))
        else:
            message = "the HPA controller was able to get the target's current scale"
            status.set_condition(_able(True, "SucceededGetScale", message))
            wish = await self._wish(autoscaler, target, status)
            await self._fulfil(autoscaler, target, wish, status)
        await self._write_status(autoscaler, status)

    async def _get_target(self, autoscaler: Document) -> Target:
        reference = autoscaler["spec"]["scaleTargetRef"]
        resource = SCALABLE.get((reference.get("apiVersion", "apps/v1"), reference["kind"]))
        if resource is None:
            group = reference.get("apiVersion", "").partition("/")[0]
            raise ApiError(404, "NotFound", f'no matches for kind "{reference["kind"]}" in group "{group}"')
        namespace = autoscaler["metadata"]["namespace"]
        scale = await self._client.get(resource, namespace, reference["name"], subresource="scale")
        return Target(resource=resource, scale=scale)

    async def _wish(self, autoscaler: Document, target: Target, status: AutoscalerStatus) -> Wish:
        limits = limits_of(autoscaler["spec"])
        current = target.spec_replicas
        if current == 0:
            message = "scaling is disabled since the replica count of the target is zero"
            status.set_condition(
                Condition(type="ScalingActive", status=False, reason="ScalingDisabled", message=message)
            )
            return Wish(replicas=None)
        history = self._history(autoscaler, current)
        bounded = outside_limits(current, limits)
        if bounded is not None:
            return Wish(replicas=bounded[0], reason=bounded[1])
        decision, metrics = await self._decide(autoscaler, target)
        status.set_condition(decision.condition)
        if decision.replicas is None:
            return Wish(replicas=None, metrics=metrics, error=decision.error)
        wanted = max(0, decision.replicas)
        result = normalize(wanted, current=current, limits=limits, history=history, now_s=time.monotonic())
        self._histories[autoscaler["metadata"]["uid"]] = result.history
        for condition in result.conditions:
            status.set_condition(condition)
        reason = rescale_reason(wanted, current=current, metric=decision.metric)
        return Wish(replicas=result.replicas, reason=reason, metrics=metrics)

    def _history(self, autoscaler: Document, current: int) -> History:
        history = self._histories.get(autoscaler["metadata"]["uid"], History())
        started = history.starting_at(current, time.monotonic())
        self._histories[autoscaler["metadata"]["uid"]] = started
        return started

    async def _fulfil(
        self, autoscaler: Document, target: Target, wish: Wish, status: AutoscalerStatus
    ) -> None:
        current = target.spec_replicas
        if wish.error is not None:
            self._warn(autoscaler, "FailedComputeMetricsReplicas", wish.error)
            desired = status.desired_replicas
        elif wish.replicas is None or wish.replicas == current:
            desired = current
        else:
            return await self._rescale(autoscaler, target, wish, status)
        status.set_sizes(current=current, desired=desired, metrics=wish.metrics)

    async def _rescale(
        self, autoscaler: Document, target: Target, wish: Wish, status: AutoscalerStatus
    ) -> None:
        current, size = target.spec_replicas, wish.replicas
        assert size is not None
        text = f"New size: {size}; reason: {wish.reason}"
        try:
            await self._update_scale(target, size)
        except UNREACHABLE as error:
            self._warn(autoscaler, "FailedRescale", f"{text}; error: {error}")
            message = f"the HPA controller was unable to update the target scale: {error}"
            status.set_condition(_able(False, "FailedUpdateScale", message))
            status.set_sizes(current=current, desired=status.desired_replicas, metrics=wish.metrics)
            return
        message = f"the HPA controller was able to update the target scale to {size}"
        status.set_condition(_able(True, "SucceededRescale", message))
        self._events.record(autoscaler, "SuccessfulRescale", text)
        uid = autoscaler["metadata"]["uid"]
        behavior = limits_of(autoscaler["spec"]).behavior
        self._histories[uid] = self._histories[uid].after_rescale(current, size, time.monotonic(), behavior)
        status.set_sizes(current=current, desired=size, metrics=wish.metrics, rescaled=True)

    async def _update_scale(self, target: Target, size: int) -> None:
        """PUT the scale; a conflict is tried again at once on the fresh one, five times in all."""
        scale, metadata = target.scale, target.scale["metadata"]
        for attempt in range(1, CONFLICT_ATTEMPTS + 1):
            changed = {**scale, "spec": {**(scale.get("spec") or {}), "replicas": size}}
            try:
                await self._client.update(target.resource, changed, subresource="scale")
            except ApiError as error:
                if error.code != 409 or attempt == CONFLICT_ATTEMPTS:
                    raise
            else:
                return
            await asyncio.sleep(CONFLICT_PAUSE_S)
            scale = await self._client.get(
                target.resource, metadata["namespace"], metadata["name"], subresource="scale"
            )

    async def _decide(self, autoscaler: Document, target: Target) -> tuple[Decision, tuple[Document, ...]]:
        outcomes = await self._metrics.read(autoscaler, target)
        for outcome in outcomes:
            if isinstance(outcome, MetricFailure):
                self._warn(autoscaler, outcome.reason, outcome.cause)
        decision = combine(outcomes, spec_replicas=target.spec_replicas)
        return decision, tuple(map(metric_status, autoscaler["spec"].get("metrics") or [], outcomes))

    def _warn(self, autoscaler: Document, reason: str, message: str) -> None:
        self._events.record(autoscaler, reason, message, severity="Warning")

    async def _write_status(self, autoscaler: Document, status: AutoscalerStatus) -> None:
        if not status.has_changed:
            return
        changed = {**autoscaler, "status": status.document}
        try:
            written = await self._client.update(AUTOSCALERS, changed, subresource="status")
        except UNREACHABLE as error:
            self._warn(autoscaler, "FailedUpdateStatus", str(error))
        else:
            self._autoscalers.observe(written)


def _able(status: bool, reason: str, message: str) -> Condition:
    return Condition(type=ABLE_TO_SCALE, status=status, reason=reason, message=message)
