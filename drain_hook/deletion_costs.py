"""Whether this cluster honours pod-deletion-cost, as its API server shows by what it refuses."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Mapping
from typing import Protocol

from drain_hook.own_order import Costs
from drain_hook.telemetry import Telemetry
from drain_hook.warm_fleet import WorkloadStates
from shared.errors import KubernetesError
from shared.pods import DELETION_COST, Pod
from shared.pools import Configuration

log = logging.getLogger(__name__)

INVALID = 422
NO_COST = "celery-hpa asks whether PodDeletionCost is on"
"""No number, so it is refused where costs count; in an audit log it says what it is for."""
LOOK_EVERY_S = 3600.0
"""Feature gates change when the control plane is restarted."""
LOOK_AGAIN_S = 60.0
"""While costs do not count, or nobody could tell."""
LOOK_FOR_PODS_S = 1.0
"""As long as there was no pod to ask about; that costs no request."""
FIRST_VERSION = (1, 22)
"""Of Kubernetes with costs by default, and with ages compared by powers of two."""


class Trials(Protocol):
    async def patch_pod(
        self,
        *,
        namespace: str,
        name: str,
        uid: str,
        annotations: Mapping[str, str | None],
        resource_version: str = "",
        dry_run: bool = False,
    ) -> Pod: ...

    async def server_version(self) -> tuple[int, int]: ...


class DeletionCosts:
    """Asks by a PATCH that the API server would never store: a dry run with a cost that is no number.

    With the feature gate PodDeletionCost on, the API server refuses it (422); with the gate off, and before
    1.21, it does not look. Update validation passes over a value that was invalid before, so a pod is asked
    about that has none or a valid one, in the very version that we know. Controllers are believed to be
    started with the gates of their API server.
    """

    def __init__(
        self,
        trials: Trials,
        *,
        cache: WorkloadStates,
        configuration: Callable[[], Configuration],
        telemetry: Telemetry,
    ) -> None:
        self._trials = trials
        self._cache = cache
        self._configuration = configuration
        self._telemetry = telemetry
        self._pause_s = LOOK_FOR_PODS_S
        self._problem = ""
        self.costs = Costs.COUNT
        """What was found last; at first what is so by default."""

    @property
    def problem(self) -> str:
        """A sentence for people; empty while costs count."""
        return _SENTENCES[self.costs]

    async def run(self) -> None:
        """Look for ever, and seldom: most clusters have costs and keep them."""
        while True:
            await asyncio.sleep(self._pause_s)
            await self.refresh()

    async def refresh(self) -> None:
        """Look once, where there is a Deployment with a pod; what was found stays when that fails."""
        if (pod := next(self._fit_pods(), None)) is None:
            return
        self._pause_s = LOOK_AGAIN_S
        try:
            costs = await self._ask(*pod)
        except KubernetesError as error:
            self._tell(str(error))
            return
        self._problem = ""
        if costs is Costs.COUNT:
            self._pause_s = LOOK_EVERY_S
        if costs is not self.costs:
            self.costs = costs
            self._announce()

    async def _ask(self, namespace: str, pod: Pod) -> Costs:
        """Raises KubernetesError when the answer does not tell."""
        try:
            patched = await self._trials.patch_pod(
                namespace=namespace,
                name=pod.name,
                uid=pod.uid,
                annotations={DELETION_COST: NO_COST},
                resource_version=pod.resource_version,
                dry_run=True,
            )
        except KubernetesError as error:
            if error.status == INVALID and DELETION_COST in str(error):
                return Costs.COUNT
            raise
        if patched.cost_annotation != NO_COST:
            raise KubernetesError("somebody else's admission changes the annotations of pods")
        return Costs.IGNORED if await self._is_recent() else Costs.UNKNOWN

    async def _is_recent(self) -> bool:
        """Where the version is not told, the order of an old one must be reckoned with."""
        try:
            return await self._trials.server_version() >= FIRST_VERSION
        except KubernetesError as error:
            log.warning("The API server does not tell its version: %s", error)
            return False

    def _fit_pods(self) -> Iterator[tuple[str, Pod]]:
        """Pods of Deployments, with their namespace, whose cost is no obstacle to the question."""
        for pool in self._configuration().pools:
            state = self._cache.state(**pool.workload_key._asdict())
            if pool.workload.kind == "Deployment" and state is not None:
                for pod in state.pods:
                    if pod.is_active and pod.cost_annotation in (None, str(pod.deletion_cost)):
                        yield pool.namespace, pod

    def _announce(self) -> None:
        self._telemetry.ignores_costs(self.costs is not Costs.COUNT)
        if self.costs is Costs.COUNT:
            log.info("This cluster honours %s: the hook chooses who leaves again.", DELETION_COST)
        else:
            log.warning("%s", self.problem)

    def _tell(self, problem: str) -> None:
        """Each once, not every time."""
        if problem != self._problem:
            log.warning(
                "Whether this cluster honours %s could not be found out, and is taken to be %s: %s",
                DELETION_COST,
                "so" if self.costs is Costs.COUNT else "not so",
                problem,
            )
        self._problem = problem


_SENTENCES = {
    Costs.COUNT: "",
    Costs.IGNORED: (
        f"This cluster ignores {DELETION_COST}: the feature gate PodDeletionCost of its API server is off."
        " Who leaves a Deployment cannot be chosen; those whom Kubernetes picks by itself are drained and"
        " waited for. Turn the gate on for kube-apiserver and kube-controller-manager."
    ),
    Costs.UNKNOWN: (
        f"This cluster has no {DELETION_COST}, which came with Kubernetes 1.22, or does not tell its version:"
        " scale-downs of Deployments are refused. Upgrade, allow GET /version, or run the workers as a"
        " StatefulSet or as an OpenKruise CloneSet."
    ),
}
