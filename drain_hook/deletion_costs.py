"""Whether this cluster honours pod-deletion-cost, as its API server shows by what it refuses."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Protocol

from drain_hook.own_order import Costs
from drain_hook.telemetry import Telemetry
from drain_hook.warm_fleet import WorkloadStates
from shared.errors import Conflict, KubernetesError, NotFound
from shared.pods import DELETION_COST, Pod, WorkloadState
from shared.pools import Configuration

log = logging.getLogger(__name__)

INVALID = 422
NO_COST = "celery-hpa asks whether PodDeletionCost is on"
"""No number, so it is refused where costs count; in an audit log it says what it is for."""
LOOK_EVERY_S = 600.0
"""Feature gates change when the control plane is restarted."""
LOOK_AGAIN_S = 60.0
"""While costs do not count, or nobody could tell for long."""
LOOK_FOR_PODS_S = 1.0
"""As long as there was no pod to ask about; that costs no request."""
RETRY_S = (1.0, 5.0)
"""The shortest and the longest pause while nothing was ever found out; each is twice the one before."""
MOST_FAILURES = 8
"""So often nothing was found out, half a minute; then it is taken to be as Kubernetes has it by default."""
MOST_ASKED = 3
"""Pods of one namespace that are asked about in a look, when our view of them is old."""
LOOK_S = 10.0
"""For a whole look."""
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
        self._failures = 0
        """In a row."""
        self._has_asked = False
        self._suspicion = asyncio.Event()
        self.costs = Costs.UNSEEN
        """What was found last."""

    @property
    def problem(self) -> str:
        """A sentence for people; empty while costs count."""
        if self.costs in _SENTENCES:
            return _SENTENCES[self.costs]
        if self._is_found or not self._problem:
            return ""
        return f"{_NOT_FOUND_OUT}; it is taken to be {_TAKEN_FOR[self.costs]}: {self._problem}"

    async def run(self) -> None:
        """Look for ever, and seldom: most clusters have costs and keep them."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._pause_s):
                    await self._suspicion.wait()
            self._suspicion.clear()
            await self.refresh()

    def look_again(self) -> None:
        """At once: Kubernetes left a pod that had the lowest cost."""
        self._suspicion.set()

    async def refresh(self) -> None:
        """Look once, where there is a Deployment with a pod; what was found stays when that fails."""
        states = self._deployments()
        if not states:
            return
        pods = _fit_pods(states)
        costs = await self._look(pods)
        if costs is not None:
            self._problem, self._failures = "", 0
            self._pause_s = LOOK_EVERY_S if costs is Costs.COUNT else LOOK_AGAIN_S
        elif self._is_found:
            self._pause_s = LOOK_AGAIN_S
        else:
            costs = await self._without_an_answer(has_asked=bool(pods))
        if costs is not None and costs is not self.costs:
            former, self.costs = self.costs, costs
            self._announce(former)

    @property
    def _is_found(self) -> bool:
        """Whether a pod has ever told."""
        return self.costs not in (Costs.UNSEEN, Costs.BELIEVED) and not self._failures

    async def _without_an_answer(self, *, has_asked: bool) -> Costs | None:
        """What to take it for when nobody has ever told; None to stay with what it is taken for."""
        if has_asked and not self._has_asked:
            # Without a pod nothing was learned, so it begins anew.
            self._has_asked, self._failures, self.costs = True, 0, Costs.UNSEEN
        self._failures += 1
        self._pause_s = _pause_s(self._failures) if has_asked else LOOK_FOR_PODS_S
        if self._failures < MOST_FAILURES or (self._failures > MOST_FAILURES and not has_asked):
            return None
        return Costs.BELIEVED if await self._is_recent() else Costs.UNKNOWN

    async def _look(self, pods: Mapping[str, Sequence[Pod]]) -> Costs | None:
        """Ask about a pod of each namespace until one tells; None when none does, and the first says why."""
        problems = []
        try:
            async with asyncio.timeout(LOOK_S):
                for namespace in pods:
                    try:
                        return await self._ask_one_of(namespace, pods[namespace])
                    except KubernetesError as error:
                        problems.append(str(error))
        except TimeoutError:
            problems.append(f"the API server did not answer in {LOOK_S:.0f} s")
        for problem in problems[:1]:
            self._tell(problem)
        return None

    async def _ask_one_of(self, namespace: str, pods: Sequence[Pod]) -> Costs:
        """Raises KubernetesError when the answers do not tell."""
        *others, last = pods[:MOST_ASKED]
        for pod in others:
            # Our view of it may be old.
            with suppress(Conflict, NotFound):
                return await self._ask(namespace, pod)
        return await self._ask(namespace, last)

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

    def _deployments(self) -> list[tuple[str, WorkloadState | None]]:
        """Those of the configuration with their namespaces; None for one that is not known."""
        pools = [pool for pool in self._configuration().pools if pool.workload.kind == "Deployment"]
        return [(pool.namespace, self._cache.state(**pool.workload_key._asdict())) for pool in pools]

    def _announce(self, former: Costs) -> None:
        self._telemetry.ignores_costs(self.costs in _SENTENCES)
        if self.problem:
            log.warning("%s", self.problem)
        elif former in _SENTENCES:
            log.info("This cluster honours %s: the hook chooses who leaves again.", DELETION_COST)

    def _tell(self, problem: str) -> None:
        """Each once, not every time."""
        if problem != self._problem:
            log.warning("%s; it is taken to be %s: %s", _NOT_FOUND_OUT, _TAKEN_FOR[self.costs], problem)
        self._problem = problem


def _pause_s(failures: int) -> float:
    shortest_s, longest_s = RETRY_S
    return LOOK_AGAIN_S if failures >= MOST_FAILURES else min(longest_s, shortest_s * 2 ** (failures - 1))


def _fit_pods(states: Sequence[tuple[str, WorkloadState | None]]) -> dict[str, list[Pod]]:
    """Pods of Deployments, by namespace, whose cost is no obstacle to the question."""
    fit: dict[str, list[Pod]] = {}
    for namespace, state in states:
        for pod in state.pods if state else ():
            if pod.is_active and pod.cost_annotation in (None, str(pod.deletion_cost)):
                fit.setdefault(namespace, []).append(pod)
    return fit


_NOT_FOUND_OUT = f"Whether this cluster honours {DELETION_COST} could not be found out"
_TAKEN_FOR = {
    Costs.COUNT: "so",
    Costs.IGNORED: "not so",
    Costs.UNKNOWN: "not so",
    Costs.UNSEEN: "unknown for half a minute, while scale-downs of Deployments are refused",
    Costs.BELIEVED: "so",
}

_SENTENCES = {
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
