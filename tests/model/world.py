"""The model's world: a Deployment, its workers, who scales it, two replicas of the hook, and what goes wrong.

Only the hook is real. Whatever it must never do is checked as it happens; see `violations`.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Coroutine
from dataclasses import dataclass, replace
from functools import partial
from random import Random
from typing import Any

from drain_hook.admission import Review, ScaleDown, Verdict
from drain_hook.cordon import Pace
from shared.marks import MARK_ANNOTATION
from shared.pods import DELETION_COST
from shared.workers import WorkerSnapshot
from tests.drain_hook import builders
from tests.drain_hook.stages import NAMESPACE, Stage, node
from tests.model.cluster import NAME, LaggingCache, ModelCluster
from tests.model.fleet import QUEUES, ModelFleet
from tests.model.metadata import ModelDatabase
from tests.model.processes import CALLER, Door, Process
from tests.model.virtual_time import VirtualLoop

TIMEOUT_S = 10.0
"""Of the webhook; the hook answers when nine tenths of it have passed."""
HPA_PERIOD_S = 15.0
LONGEST_LAG_S = 0.5
"""Of a watch that is connected."""
HEALED_S = 60.0
"""After the last disturbance nothing may be left of it for longer."""
TOUCHING = frozenset({"patch_pod", "cancel_consumers", "add_consumers"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """A scale-down that was allowed and took effect."""

    reason: str
    started_at: float
    """When its review began."""


class Replica:
    """One process of the hook."""

    def __init__(self, world: World, holder: str) -> None:
        self.process = Process(world.random, latency_s=world.latency)
        self.process.on_call = partial(world.on_call, holder)
        self.cache = LaggingCache(world.cluster)
        self.cache.lags_s = (world.lag(), world.lag(), world.lag())
        self.stage = Stage(
            cluster=Door(world.cluster, self.process, cache=self.cache),  # type: ignore[arg-type]
            celery=world.fleet,
            control=Door(world.fleet, self.process),  # type: ignore[arg-type]
            pool=world.pool,
            database=world.database,
            slow_database=Door(world.database, self.process),  # type: ignore[arg-type]
            clock=world.clock,  # type: ignore[arg-type]
            pace=replace(Pace(), patches_at_once=world.patches_at_once),
            holder=holder,
        )
        for work in (self.stage.warm.run(), self.stage.reconciler.run()):
            world.start(work)

    async def answer(self, review: Review) -> Verdict | None:
        """None when it dies before its answer has left."""
        deadline = asyncio.get_running_loop().time() + 0.9 * TIMEOUT_S
        answering = asyncio.ensure_future(self.stage.drainer.review(review, deadline=deadline))
        dying = asyncio.ensure_future(self.process.died.wait())
        await asyncio.wait({answering, dying}, return_when=asyncio.FIRST_COMPLETED)
        dying.cancel()
        if not answering.done():
            return None
        sending = asyncio.ensure_future(self.process.live())
        await asyncio.wait({sending}, timeout=TIMEOUT_S)
        return answering.result() if sending.done() else None


class World:
    """Everything, in virtual time; `end` it."""

    def __init__(
        self,
        *,
        seed: int,
        replicas: int,
        drain: dict[str, Any] | None = None,
        is_airflow: bool = False,
        patches_at_once: int = Pace().patches_at_once,
    ) -> None:
        self.loop = VirtualLoop()
        self.random = Random(seed)
        self.clock = self.loop
        self.cluster = ModelCluster(loop=self.loop, random=self.random)
        self.fleet = ModelFleet(loop=self.loop, random=self.random, is_airflow=is_airflow)
        self.database = ModelDatabase(fleet=self.fleet, clock=self.loop.wall)
        airflow = builders.AIRFLOW if is_airflow else {}
        self.pool = builders.pool(drain=drain or {}, queues=list(QUEUES), **airflow)
        self.violations: list[str] = []
        self.counts: Counter[str] = Counter()
        self.slow_s = 0.0
        """Added to the latency of every request."""
        self.slow_patches_s = 0.0
        """Added to that of each PATCH of a pod."""
        self.patches_at_once = patches_at_once
        """With one a handful of pods makes a queue, as hundreds do for 32."""
        self.controllers_rest_until = 0.0
        self.hpa_wants: int | None = None
        self._applied: list[Applied] = []
        """Those whose deletions may not be over."""
        self.upset_at = 0.0
        """When something last happened that changes Kubernetes' order, or a worker's queues."""
        self._holders = 0
        self._dead: list[Replica] = []
        """Kept, for what they were about to do is not to be collected as garbage."""
        self._tasks: set[asyncio.Task[Any]] = set()
        self.loop.set_exception_handler(self._fail)
        self.loop.run(self._begin(replicas))

    def end(self) -> None:
        self.loop.set_exception_handler(lambda loop, context: None)
        self.loop.end()

    # What happens to it.

    def ask(self, to_replicas: int, *, is_dry_run: bool = False) -> None:
        """Somebody at kubectl; asked once."""
        self.loop.run(self._starting(self._scale(to_replicas, is_dry_run=is_dry_run)))

    def pass_time(self, seconds: float) -> None:
        self.loop.pass_time(seconds)

    def kill(self, index: int, *, instants: int, back_after_s: float) -> None:
        """A replica dies after so many instants, and is replaced; see Process."""
        self.hooks[index].process.kill_after(instants)
        self.loop.run(self._starting(self._replace(index, back_after_s)))

    def freeze(self, index: int, seconds: float) -> None:
        self.counts["frozen replicas"] += 1
        process = self.hooks[index].process
        process.stop()

        def go_on() -> None:
            self.upset()
            process.go_on()

        self.loop.call_later(seconds, go_on)

    def silence(self, pod: str, seconds: float, *, frozen: bool) -> None:
        self.counts["silent workers"] += 1
        self.fleet.fall_silent(node(pod), frozen=frozen)
        self.loop.call_later(seconds, self.fleet.wake, node(pod))

    def restart_worker(self, pod: str) -> None:
        """Its container ends and starts again: it is not ready for a moment, and consumes everything."""
        self.counts["worker restarts"] += 1
        restarts = self.cluster.pods_now[pod].restarts + 1
        self.fleet.halt(node(pod))
        self._edit(pod, restarts=restarts, is_ready=False)
        self.loop.call_later(self.random.uniform(0.5, 5.0), self._is_up, pod)

    def flip_readiness(self, pod: str, seconds: float) -> None:
        self.counts["not ready"] += 1
        self._edit(pod, is_ready=False)
        self.loop.call_later(seconds, self._is_ready, pod)

    def evict(self, pod: str) -> None:
        self.counts["evictions"] += 1
        self.upset()
        self._remove(pod)

    def write_foreign_cost(self, pod: str, cost: str | None) -> None:
        self.counts["foreign costs"] += 1
        self.upset()
        self.cluster.write_foreign_cost(pod, cost)

    def copy_mark(self, source: str, target: str) -> None:
        """Somebody copies our record to another pod."""
        self.counts["copied records"] += 1
        record = self.cluster.annotations_of(source, namespace=NAMESPACE).get(MARK_ANNOTATION)
        self.cluster.annotate_pod(target, {MARK_ANNOTATION: record}, namespace=NAMESPACE)

    def recreate(self, replicas: int) -> None:
        """The Deployment is deleted with all its pods, and another of its name is made."""
        self.counts["workloads recreated"] += 1
        self.upset()
        for pod in self.cluster.pods_now:
            self.fleet.halt(node(pod))
        self.cluster.delete_workload(namespace=NAMESPACE)
        self.cluster.create(replicas)
        self._applied.clear()

    def break_broker(self, seconds: float) -> None:
        self.counts["broker down"] += 1
        self.fleet.broken = True
        self.loop.call_later(seconds, setattr, self.fleet, "broken", False)

    def break_database(self, seconds: float) -> None:
        """Nothing happens where the tasks are not Airflow's."""
        self.counts["database down"] += 1
        self.database.broken = True
        self.loop.call_later(seconds, setattr, self.database, "broken", False)

    def fail_patches(self, share: float, seconds: float) -> None:
        self.counts["Kubernetes API failing"] += 1
        self.cluster.failing = share
        self.loop.call_later(seconds, setattr, self.cluster, "failing", 0.0)

    def slow_down(self, latency_s: float, seconds: float) -> None:
        self.counts["everything slow"] += 1
        self.slow_s = latency_s
        self.loop.call_later(seconds, setattr, self, "slow_s", 0.0)

    def slow_down_patches(self, latency_s: float, seconds: float) -> None:
        self.counts["PATCHes slow"] += 1
        self.slow_patches_s = latency_s
        self.loop.call_later(seconds, setattr, self, "slow_patches_s", 0.0)

    def delay_commands(self, late_s: float, seconds: float) -> None:
        self.counts["late commands"] += 1
        self.fleet.late_s = late_s
        self.loop.call_later(seconds, setattr, self.fleet, "late_s", 0.0)

    def cut_watches(self, index: int, seconds: float) -> None:
        self.counts["watches cut"] += 1
        cache = self.hooks[index].cache
        cache.cut()
        self.loop.call_later(seconds, cache.connect)

    def rest_controllers(self, seconds: float) -> None:
        self.counts["controllers late"] += 1
        self.controllers_rest_until = self.loop.time() + seconds

    def annotate_workload(self) -> None:
        self.counts["conflicting writes"] += 1
        self.cluster.touch_workload()

    def upset(self) -> None:
        self.upset_at = self.loop.time()

    # What there is to check.

    def come_to_rest(self) -> None:
        """Nothing goes wrong any more and nobody asks for anything; after HEALED_S all must be well."""
        self.hpa_wants = None
        self._heal()
        self.pass_time(HEALED_S)
        self.violations += self.unhealed()

    def come_to_an_end(self, replicas: int) -> None:
        """Every task ends, and the HPA gets what it wants."""
        self._heal()
        self.hpa_wants = replicas
        self.fleet.end_all()
        self.pass_time(3 * HEALED_S)
        state = self.cluster.now_state
        if state is None or state.workload.replicas != replicas or len(state.pods) != replicas:
            self.violations.append(f"the HPA wants {replicas} replicas for minutes, and there is {state}")
        self.come_to_rest()
        if replicas and self.fleet.ended != self.fleet.sent:
            self.violations.append(f"{self.fleet.sent} tasks were sent, {self.fleet.ended} have ended")

    def unhealed(self) -> list[str]:
        """What is left of rounds that are over."""
        found = []
        for name, pod in self.cluster.pods_now.items():
            annotations = self.cluster.annotations_of(name, namespace=NAMESPACE)
            cost, foreign = annotations.get(DELETION_COST), self.cluster.foreign[name]
            if pod.is_terminating:
                continue
            if ours := annotations.keys() - {DELETION_COST}:
                found.append(f"{name} is marked by no round: {[annotations[key] for key in ours]}")
            if cost != foreign:
                found.append(f"the cost of {name} is {cost}, and was {foreign} without us")
            worker = self.fleet.workers.get(node(name))
            if worker is not None and not worker.queues.issuperset(QUEUES):
                found.append(f"{name} consumes {sorted(worker.queues)} only")
        return found

    # The replicas of the hook.

    def latency(self, method: str) -> float:
        usual = self.random.choice((0.001, 0.002, 0.005, 0.02))
        patch_s = self.slow_patches_s if method == "patch_pod" else 0.0
        return usual + patch_s + self.random.uniform(0.0, self.slow_s)

    def lag(self) -> float:
        return self.random.choice((0.0, 0.01, 0.05, LONGEST_LAG_S))

    def start(self, work: Coroutine[Any, Any, Any]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def on_call(self, holder: str, method: str, arguments: dict[str, Any]) -> None:
        if method in TOUCHING and CALLER.get() == "dry run":
            self.violations.append(f"a dry run called {method}")
        if method == "patch_pod" and MARK_ANNOTATION in arguments["annotations"]:
            self._check_lease(holder, arguments["name"])
        if method == "cancel_consumers":
            (queues,) = arguments["positional"]
            for name, pod in self.cluster.pods_now.items():
                if (
                    node(name) in queues
                    and not pod.has_mark_annotation
                    and not self.counts["frozen replicas"]
                ):
                    self.violations.append(f"{name} was cancelled without a record")

    def _check_lease(self, holder: str, pod: str) -> None:
        """Records are written and removed by whoever holds the Lease at that moment.

        One that was stopped in between cannot know; that it does no harm is what all other checks are for.
        """
        lease = self.cluster.leases.get((NAMESPACE, f"celery-hpa-drain-{NAME}"))
        if (lease is None or lease.holder != holder) and not self.counts["frozen replicas"]:
            self.violations.append(f"{holder} wrote to {pod}, and the Lease is {lease and lease.holder}'s")

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception():
            self.violations.append(f"a part of the model failed: {task.exception()!r}")

    def _fail(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """An error that nobody waits for."""
        self.violations.append(f"{context['message']} {context.get('exception')!r}")

    def _new_replica(self) -> Replica:
        self._holders += 1
        return Replica(self, f"hook-{self._holders}")

    async def _replace(self, index: int, back_after_s: float) -> None:
        await self.hooks[index].process.died.wait()
        self.counts["crashes"] += 1
        await asyncio.sleep(back_after_s)
        self._dead.append(self.hooks[index])
        self.hooks[index] = self._new_replica()

    # Whoever scales.

    async def _scale(self, to_replicas: int, *, is_dry_run: bool = False) -> None:
        """As the API server does it: asked once more for every write that came in between."""
        for _ in range(5):
            state, version = self.cluster.now_state, self.cluster.resource_version
            if state is None or state.workload.replicas == to_replicas:
                return
            claim = ScaleDown(
                review_uid=f"review-{self.counts['reviews']}",
                kind="Deployment",
                namespace=NAMESPACE,
                name=NAME,
                workload_uid=state.workload.uid,
                from_replicas=state.workload.replicas,
                to_replicas=to_replicas,
                is_dry_run=is_dry_run,
            )
            started_at, verdict = self.loop.time(), None
            if to_replicas < claim.from_replicas:
                verdict = await self._reviewed(claim)
                if verdict is None or not verdict.allowed or is_dry_run:
                    return
            if self.cluster.resource_version == version:
                self._apply(to_replicas, verdict, started_at)
                return
        self.counts["conflicts to the caller"] += 1

    async def _reviewed(self, claim: ScaleDown) -> Verdict | None:
        """None when no answer came; failurePolicy is Fail."""
        CALLER.set("dry run" if claim.is_dry_run else "review")
        self.counts["reviews"] += 1
        asked = self.loop.time()
        running = [hook for hook in self.hooks if not hook.process.died.is_set()]
        hook = self.random.choice(running or self.hooks)
        review = Review(uid=claim.review_uid, api_version="admission.k8s.io/v1", scale_down=claim)
        answering = asyncio.ensure_future(hook.answer(review))
        self._tasks.add(answering)
        answering.add_done_callback(self._ended)
        await asyncio.wait({answering}, timeout=TIMEOUT_S)
        verdict = answering.result() if answering.done() else None
        self._note(verdict, hook, seconds=self.loop.time() - asked)
        return verdict

    def _note(self, verdict: Verdict | None, hook: Replica, *, seconds: float) -> None:
        self.counts[f"verdict {verdict.reason if verdict else 'none'}"] += 1
        if verdict is None and hook.process.is_running:
            self.violations.append("a running hook gave no answer in time")
        if verdict is not None and verdict.reason == "Failed":
            self.violations.append("the hook failed; look at its log")

    def _apply(self, to_replicas: int, verdict: Verdict | None, started_at: float) -> None:
        self.cluster.scale(to_replicas, namespace=NAMESPACE)
        if verdict is None:
            self.counts["scale-ups"] += 1
            self.upset()
        else:
            self.counts["scale-downs"] += 1
            self._applied.append(Applied(reason=verdict.reason, started_at=started_at))

    async def _autoscale(self) -> None:
        """An HPA that wants something asks again at every sync."""
        while True:
            await asyncio.sleep(HPA_PERIOD_S)
            if self.hpa_wants is not None:
                await self._scale(self.hpa_wants)

    # Kubernetes' controllers and the kubelet.

    async def _control(self) -> None:
        while True:
            await asyncio.sleep(self.random.uniform(0.01, 0.3))
            if self.loop.time() >= self.controllers_rest_until and self.cluster.has_changed():
                self.cluster.deployment_controller()
                await asyncio.sleep(self.random.uniform(0.01, 0.1))
                self._replica_set_controller()
            self.fleet.work()

    def _replica_set_controller(self) -> None:
        victims, missing = self.cluster.surplus()
        if victims:
            self._check(victims)
        for pod in victims:
            self._remove(pod)
        for _ in range(missing):
            self.upset()
            pod = self.cluster.new_pod(is_ready=False)
            self.loop.call_later(self.random.uniform(0.5, 3.0), self._is_up, pod)
        if self.cluster.now_state and not self.cluster.surplus()[0] and not self._is_lowered():
            self._applied.clear()

    def _is_lowered(self) -> bool:
        """Whether the ReplicaSet has yet to hear of a smaller size."""
        state = self.cluster.now_state
        return state is not None and state.workload.replicas < state.replica_sets[0].replicas

    def _check(self, victims: list[str]) -> None:
        """The pods that Kubernetes deletes now: what the hook has allowed, unless the world has changed."""
        self.counts["pods deleted"] += len(victims)
        since = min((one.started_at for one in self._applied), default=self.loop.time())
        if self._was_upset_since(since):
            self.counts["pods deleted in an order that had changed"] += len(victims)
            return
        is_patient = all(one.reason == "Drained" for one in self._applied)
        for name in victims:
            worker = self.fleet.workers.get(node(name))
            if worker is None or worker.is_idle:
                continue
            if is_patient:
                self.violations.append(f"{name} was deleted with {worker.tasks}")
            elif not self._was_silent_since(name, since):
                self._check_busy(name, worker, victims, since)

    def _check_busy(self, name: str, worker: WorkerSnapshot, victims: list[str], since: float) -> None:
        """Busy ones may go when no idle one could, and protected ones never."""
        self.counts["busy workers that were let go"] += 1
        if any(map(self.fleet.is_protected, worker.tasks)):
            self.violations.append(f"{name} was deleted with a protected task")
        idle = [
            other
            for other, pod in self.cluster.pods_now.items()
            if other not in victims
            and pod.is_active
            and pod.is_ready
            and (unused := self.fleet.workers.get(node(other)))
            and unused.is_idle
            and self.fleet.busy_at.get(node(other), -1.0) < since - 10.0
            and not self._was_silent_since(other, since - 10.0)
        ]
        if idle and self.cluster.pods_now[name].is_ready:
            self.violations.append(f"{name} was deleted with {worker.tasks} while {idle} were idle")

    def _was_upset_since(self, since: float) -> bool:
        return self.upset_at >= since - LONGEST_LAG_S - 1.0

    def _was_silent_since(self, pod: str, since: float) -> bool:
        return node(pod) in self.fleet.silent or self.fleet.silent_at.get(node(pod), -1.0) >= since

    def _remove(self, pod: str) -> None:
        """Its deletion begins, and its worker's end with it."""
        self.counts["tasks hit"] += self.fleet.halt(node(pod))
        self.cluster.edit_pod(pod, namespace=NAMESPACE, is_terminating=True)
        self.loop.call_later(self.random.uniform(0.1, 2.0), self._is_gone, pod)

    def _is_gone(self, pod: str) -> None:
        if pod in self.cluster.pods_now:
            self.cluster.delete_pod(pod, namespace=NAMESPACE)

    def _is_up(self, pod: str) -> None:
        """Its worker consumes and, a moment later, it is ready."""
        if self._is_there(pod) and node(pod) not in self.fleet.workers:
            self.fleet.boot(node(pod))
            self._edit(pod, phase="Running", host=f"host-{self.random.randrange(3)}")
            self.loop.call_later(self.random.uniform(0.1, 2.0), self._is_ready, pod)

    def _is_ready(self, pod: str) -> None:
        if self._is_there(pod):
            self._edit(pod, is_ready=True)

    def _is_there(self, pod: str) -> bool:
        return pod in self.cluster.pods_now and not self.cluster.pods_now[pod].is_terminating

    def _edit(self, pod: str, **fields: Any) -> None:
        self.upset()
        self.cluster.edit_pod(pod, namespace=NAMESPACE, **fields)

    # Beginning and end.

    async def _begin(self, replicas: int) -> None:
        self.cluster.create(replicas)
        for _ in range(replicas):
            self.fleet.boot(node(self.cluster.new_pod(is_ready=True)))
        self.hooks = [self._new_replica(), self._new_replica()]
        self.start(self._control())
        self.start(self._autoscale())
        await asyncio.sleep(6.0)

    async def _starting(self, work: Coroutine[Any, Any, Any]) -> None:
        self.start(work)

    def _heal(self) -> None:
        self.fleet.broken, self.fleet.late_s, self.fleet.loses_commands = False, 0.0, False
        self.database.broken = False
        self.cluster.failing, self.slow_s, self.slow_patches_s = 0.0, 0.0, 0.0
        for silent in sorted(self.fleet.silent):
            self.fleet.wake(silent)
        for hook in self.hooks:
            hook.process.go_on()
            hook.process.spare()
            hook.cache.connect()
