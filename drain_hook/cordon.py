"""What a round does to pods and workers, and the inverse of it: mark and cancel, give back and release.

The record is on the pod before any command is sent to its worker, and stays until the worker consumes again:
it must outlive the undo. All of this runs to its end; nothing is cut off while it may still take effect.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

from drain_hook.explanations import describe_mark
from shared.errors import Conflict, KubernetesUnavailable, NotFound
from shared.faults import FaultPoint, reach
from shared.marks import MARK_ANNOTATION, SUMMARY_ANNOTATION, Mark, render_mark
from shared.pods import DELETION_COST, Pod, celery_node
from shared.pools import Pool
from shared.workers import Fleet, WorkerSnapshot

Annotations = Mapping[str, str | None]
Change = Callable[[Pod], Annotations]
"""What to write on a pod, by what stands there by now; may raise Conflict."""
Queues = Mapping[str, Collection[str]]
"""Queue names by Celery node."""


class PodWriter(Protocol):
    async def patch_pod(
        self,
        *,
        namespace: str,
        name: str,
        uid: str,
        annotations: Annotations,
        resource_version: str = "",
    ) -> Pod: ...


class Workers(Protocol):
    async def inspect(self, nodes: Collection[str], *, timeout_s: float) -> Fleet: ...

    async def active_queues(
        self, nodes: Collection[str], *, timeout_s: float
    ) -> Mapping[str, frozenset[str]]: ...

    async def cancel_consumers(
        self, queues: Mapping[str, Collection[str]], *, timeout_s: float
    ) -> frozenset[str]: ...

    async def add_consumers(
        self, queues: Mapping[str, Collection[str]], *, timeout_s: float
    ) -> frozenset[str]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How long we wait for what. On Redis a worker asked without a pause does not get to its cancel."""

    answer_s: float = 0.5
    """For an answer to a command; a silent worker costs all of it."""
    answer_of_each_s: float = 0.002
    """More time for each that is asked: a thousand answers take their time to arrive, and to read."""
    unheard_s: float = 0.05
    """For workers that are known to be silent."""
    first_look_s: float = 0.01
    """Before the first look whether a command has taken effect; half of them have after 4 to 8 ms."""
    confirm_pause_s: float = 0.04
    """Before each further look."""
    resend_after_s: float = 0.3
    """Then a command without effect is sent once more: Redis loses those to a worker that reconnects."""
    confirm_s: float = 1.5
    """For a command to take effect."""
    confirm_green_s: float = 3.5
    """The same for gevent and eventlet: an idle one looks at its commands every 2 s."""
    settle_green_s: float = 2.5
    """A green worker may start one more message for so long after it stopped consuming."""
    give_back_s: float = 2.5
    """For a worker to consume again; one that needs longer is left to the reconciler's next try."""
    hold_pause_s: float = 0.3
    """Between two looks at victims that are about to finish."""
    patches_at_once: int = 32
    """PATCH requests in flight."""
    most_conflicts: int = 4
    """So often a pod is looked at again when others write to it."""
    longest_retry_pause_s: float = 1.0
    """An API server that asks for a longer one is not asked again: a review has no time for it."""

    def answers_within_s(self, workers: int) -> float:
        """For answers of so many."""
        return self.answer_s + workers * self.answer_of_each_s

    def confirm_within_s(self, *, is_green: bool) -> float:
        """For a cancel to take effect, with green workers among those who got it or without."""
        return self.confirm_green_s if is_green else self.confirm_s


class Cordon:
    """The writes of a round, or of the reconciler, on one pool."""

    def __init__(
        self,
        pool: Pool,
        *,
        cluster: PodWriter,
        workers: Workers,
        pace: Pace,
        may_go_on: Callable[[], None],
    ) -> None:
        """`may_go_on` is asked before each PATCH, since these queue; it raises what ends the work."""
        self._pool = pool
        self._cluster = cluster
        self._workers = workers
        self._pace = pace
        self._may_go_on = may_go_on

    async def mark(
        self, marks: Iterable[tuple[Pod, Mark]], *, each: Callable[[], None] = lambda: None
    ) -> tuple[Pod, ...]:
        """Write cost and record on these pods; returns them as they are now, without those that are gone.

        `each` is called for every pod that is done. Raises KubernetesError, also where another round's record
        stands by now, and what `may_go_on` raises; after every request has ended.
        """
        return await self._patch_all(((pod, partial(_marked, mark, pod)) for pod, mark in marks), each=each)

    async def cancel(
        self, queues: Queues, *, within_s: float, acknowledged: Callable[[], None] = lambda: None
    ) -> Fleet:
        """Cancel these consumers; the answers of those that consume nothing any more, the others as silent.

        `acknowledged` is called when there is an answer to the command, and what is left is to see it obeyed.
        Their tasks were asked for after their queues, so these are all there will be; only a green worker may
        start one more, for a little while. Raises BrokerUnavailable.
        """
        drained: dict[str, WorkerSnapshot] = {}

        async def command(queues: Queues, *, timeout_s: float) -> frozenset[str]:
            heard = await self._workers.cancel_consumers(queues, timeout_s=timeout_s)
            acknowledged()
            reach(FaultPoint.AFTER_CANCELS)
            return heard

        async def consume_nothing(nodes: Collection[str]) -> Collection[str]:
            timeout_s = self._pace.answers_within_s(len(nodes))
            fleet = await self._workers.inspect(nodes, timeout_s=timeout_s)
            drained.update((node, worker) for node, worker in fleet.workers.items() if not worker.queues)
            return drained.keys()

        await self._command_until(command, queues, consume_nothing, within_s=within_s)
        reach(FaultPoint.AFTER_CONFIRM)
        return Fleet(workers=drained, silent=frozenset(queues.keys() - drained.keys()))

    async def cancel_unheard(self, queues: Queues) -> None:
        """Tell workers that do not answer; a busy solo one obeys after its task. Raises BrokerUnavailable."""
        if queues:
            await self._workers.cancel_consumers(queues, timeout_s=self._pace.unheard_s)

    async def release(self, pods: Collection[Pod]) -> tuple[Pod, ...]:
        """Give the consumers back, then take cost and record away; returns the pods that are free now.

        The others keep their record, for the next try, or have another one by now, which is not ours to take.
        Raises BrokerUnavailable, KubernetesError, and what `may_go_on` raises.
        """
        queues = {self._node(pod): pod.mark.queues for pod in pods if pod.mark and pod.phase == "Running"}
        back = await self.give_back(queues)
        reach(FaultPoint.AFTER_GIVE_BACK)
        free = [pod for pod in pods if self._node(pod) not in queues or self._node(pod) in back]
        patched = await self._patch_all((pod, partial(_released, pod)) for pod in free)
        taken = {pod.uid for pod in patched if pod.has_mark_annotation}
        return tuple(pod for pod in free if pod.uid not in taken)

    async def give_back(self, queues: Queues) -> frozenset[str]:
        """Add these consumers; returns the nodes seen to have them all. Raises BrokerUnavailable."""

        async def consume_again(nodes: Collection[str]) -> Collection[str]:
            timeout_s = self._pace.answers_within_s(len(nodes))
            consumed = await self._workers.active_queues(nodes, timeout_s=timeout_s)
            return [node for node, names in consumed.items() if names.issuperset(queues[node])]

        return await self._command_until(
            self._workers.add_consumers, queues, consume_again, within_s=self._pace.give_back_s
        )

    async def _command_until(
        self,
        command: Callable[..., Awaitable[frozenset[str]]],
        queues: Queues,
        are_done: Callable[[Collection[str]], Awaitable[Collection[str]]],
        *,
        within_s: float,
    ) -> frozenset[str]:
        """Send a command and look until it has taken effect, for the "ok" of a worker comes before that."""
        now = asyncio.get_running_loop().time
        started, was_sent_again = now(), False
        pause_s = self._pace.first_look_s
        waiting = dict(queues)
        if waiting:
            await command(waiting, timeout_s=self._pace.answers_within_s(len(waiting)))
        while waiting:
            await asyncio.sleep(pause_s)
            pause_s = self._pace.confirm_pause_s
            done = await are_done(waiting)
            waiting = {node: names for node, names in waiting.items() if node not in done}
            if now() - started >= within_s:
                break
            if waiting and not was_sent_again and now() - started >= self._pace.resend_after_s:
                await command(waiting, timeout_s=self._pace.answers_within_s(len(waiting)))
                was_sent_again = True
        return frozenset(queues.keys() - waiting.keys())

    async def _patch_all(
        self, patches: Iterable[tuple[Pod, Change]], *, each: Callable[[], None] = lambda: None
    ) -> tuple[Pod, ...]:
        limit = asyncio.Semaphore(self._pace.patches_at_once)

        async def patch(pod: Pod, change: Change) -> Pod | None:
            patched = await self._patch(pod, change, limit)
            each()
            return patched

        results = await asyncio.gather(
            *(patch(pod, change) for pod, change in patches),
            return_exceptions=True,
        )
        # All have ended: an undo that starts now cannot be overtaken by one of them.
        for failure in results:
            if isinstance(failure, BaseException):
                raise failure
        return tuple(pod for pod in results if isinstance(pod, Pod))

    async def _patch(self, pod: Pod, change: Change, limit: asyncio.Semaphore) -> Pod | None:
        """None when the pod is gone, which is fine."""
        async with limit:
            try:
                patched = await self._change(pod, change)
            except NotFound:
                return None
        reach(FaultPoint.BETWEEN_PATCHES)
        return patched

    async def _change(self, pod: Pod, change: Change) -> Pod:
        """Compare and swap: what somebody else has written since we looked must not be passed over."""
        for _ in range(self._pace.most_conflicts):
            try:
                return await self._patch_twice(pod, change(pod), resource_version=pod.resource_version)
            except Conflict:
                # A PATCH of nothing reads it, and needs no other permission. Another conflict is not as good
                # as gone: it may be another pod of its name, or too many who write to this one.
                pod = await self._patch_twice(pod, {})
        return await self._patch_twice(pod, change(pod), resource_version=pod.resource_version)

    async def _patch_twice(self, pod: Pod, annotations: Annotations, *, resource_version: str = "") -> Pod:
        async def patch() -> Pod:
            self._may_go_on()
            return await self._cluster.patch_pod(
                namespace=self._pool.namespace,
                name=pod.name,
                uid=pod.uid,
                annotations=annotations,
                resource_version=resource_version,
            )

        try:
            return await patch()
        except KubernetesUnavailable as error:
            if error.retry_after_s > self._pace.longest_retry_pause_s:
                raise
            await asyncio.sleep(error.retry_after_s)
            return await patch()

    def _node(self, pod: Pod) -> str:
        return celery_node(pod.name, worker_name=self._pool.worker_name)


_NO_RECORD: Annotations = {MARK_ANNOTATION: None, SUMMARY_ANNOTATION: None}


def _record_of(mark: Mark) -> Annotations:
    """For us and for people, in one write: whoever sees a worker draining can see why."""
    return {MARK_ANNOTATION: render_mark(mark), SUMMARY_ANNOTATION: describe_mark(mark)}


def _marked(mark: Mark, planned: Pod, pod: Pod) -> Annotations:
    """Record and cost for the pod as it is; where costs choose nobody, the cost as it was without us.

    Raises Conflict where another round has written its record since the pod was planned with.
    """
    if pod.mark is not None and _gist(pod.mark) not in (_gist(mark), _gist(planned.mark)):
        raise Conflict(f"pod {pod.name} was marked by another round meanwhile")
    cost = _former_cost(pod) if mark.cost is None else {DELETION_COST: str(mark.cost)}
    return {**_record_of(replace(mark, foreign_cost=pod.foreign_cost)), **cost}


def _released(planned: Pod, pod: Pod) -> Annotations:
    """Nothing where a newer record stands: whoever wrote that counts on it."""
    is_newer = pod.mark is not None and pod.mark != planned.mark
    return {} if is_newer else {**_NO_RECORD, **_former_cost(pod)}


def _gist(mark: Mark | None) -> Mark | None:
    """Without what differs between two records of one round: when it was asked for, and others' costs."""
    return mark and replace(mark, asked_at=0.0, foreign_cost=None)


def _former_cost(pod: Pod) -> Annotations:
    """The cost as it was before the mark; nothing to write when somebody else has changed it since."""
    return {} if pod.own_cost is None else {DELETION_COST: pod.foreign_cost}
