"""What is wrong with a pool's workers and queues, as its broker and Kubernetes show them. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from shared.checkup.findings import Check, Finding, counted, enumerated
from shared.checkup.picture import Picture, PoolPicture, Unread, Workers
from shared.pods import Pod, WorkloadState, answering_nodes, celery_node
from shared.workers import OLDEST_TRIED

STARTING_S = 30.0
"""A pod without a readiness probe is ready before its worker is: silence of a younger one says nothing."""


def check_workers(picture: Picture, pool: PoolPicture) -> Iterator[Finding]:
    """Findings about the broker, the workers and the queues of one pool."""
    broker = Check(about=pool.about, name="broker")
    if isinstance(pool.workers, Unread):
        yield broker.problem(
            f"The broker cannot be used from here: {pool.workers.reason}",
            "If only the cluster reaches it, run this check in a pod of metrics-adapter.",
        )
        return
    yield broker.ok(f"The broker {pool.broker} can be reached from here.")
    if isinstance(pool.state, Unread):
        return
    yield from _check_answers(picture, pool, pool.state, pool.workers)
    yield from _check_queues(pool, pool.state, pool.workers)
    if pool.workers.fleet.workers:
        yield from _check_slots(pool, pool.workers)
        yield from _check_grace(picture, pool, pool.workers)
        yield from _check_versions(pool, pool.workers)


def _check_answers(
    picture: Picture, pool: PoolPicture, state: WorkloadState, workers: Workers
) -> Iterator[Finding]:
    check = Check(about=pool.about, name="workers")
    answering, silent = workers.fleet.workers, _late_nodes(picture, pool, state, workers)
    deaf, strangers = silent - workers.listening, _strangers(picture, pool, workers)
    if deaf and strangers:
        yield check.problem(
            f"Workers that consume this pool's queues call themselves {enumerated(strangers)}; by the names "
            f"of its pods they would be {enumerated(sorted(deaf))}.",
            _naming_advice(state, strangers),
        )
    elif deaf:
        yield check.problem(
            f"{_of_all(deaf, state)} remote control at this broker: {enumerated(sorted(deaf))}.",
            "Leave worker_enable_remote_control on, and see that they use this very broker, with the virtual "
            "host or database and the control_exchange that stand here.",
        )
    if mute := sorted(silent & workers.listening):
        yield check.warning(
            f"Workers that have remote control did not answer: {enumerated(mute)}.",
            "One of the pool solo is silent while it runs a task. See the logs of others: they may hang.",
        )
    if not silent:
        starting = len(workers.fleet.silent)
        yield check.ok(
            f"{counted(len(answering), 'worker')} answered, and none is missing."
            + (f" {starting} may be starting." if starting else "")
            if state.pods
            else "There are no pods, so nobody was asked."
        )


def _late_nodes(
    picture: Picture, pool: PoolPicture, state: WorkloadState, workers: Workers
) -> frozenset[str]:
    """Silent ones that should have answered."""
    return frozenset(
        node
        for pod in state.pods
        if _has_started(pod, picture.taken_at)
        and (node := celery_node(pod.name, worker_name=pool.pool.worker_name)) in workers.fleet.silent
    )


def _has_started(pod: Pod, now: float) -> bool:
    return pod.is_ready and pod.ready_since is not None and now - pod.ready_since >= STARTING_S


def _strangers(picture: Picture, pool: PoolPicture, workers: Workers) -> list[str]:
    """Who consumes a queue of the pool, and is by its name a worker of none."""
    known: set[str] = set()
    for other in picture.pools:
        if not isinstance(other.state, Unread):
            known |= answering_nodes(other.state.pods, worker_name=other.pool.worker_name)
    queues = set(pool.pool.queues)
    return sorted(node for node, names in workers.everyone.items() if node not in known and names & queues)


def _naming_advice(state: WorkloadState, strangers: Collection[str]) -> str:
    patterns = {
        node.replace(pod.name, "{pod}") for node in strangers for pod in state.pods if pod.name in node
    }
    if len(patterns) == 1:
        return f'Write workerName: "{patterns.pop()}" in this pool.'
    return (
        "Start them with --hostname celery@<name of the pod>, or write the pool's workerName as they do it."
    )


def _of_all(nodes: Collection[str], state: WorkloadState) -> str:
    total = sum(pod.is_active for pod in state.pods)
    return f"{len(nodes)} of {total} workers {'has' if len(nodes) == 1 else 'have'} no"


def _check_queues(pool: PoolPicture, state: WorkloadState, workers: Workers) -> Iterator[Finding]:
    check = Check(about=pool.about, name="queues")
    own = workers.fleet.workers.values()
    named = set(pool.pool.queues)
    unnamed = sorted({queue for worker in own for queue in worker.queues} - named)
    if unnamed:
        yield check.warning(
            f"Its workers also consume {enumerated(unnamed)}, whose waiting tasks count for no pool.",
            "Add them to the pool's queues, or take them from the workers' --queues.",
        )
    unconsumed = _unconsumed(state, workers, named)
    if unconsumed:
        yield check.problem(
            f"Nobody consumes {enumerated(unconsumed)}{_waiting(unconsumed, workers.waiting)}.",
            "Add them to the workers' --queues, or take them from the pool's queues.",
        )
    if own and not unnamed and not unconsumed:
        yield check.ok(f"The workers consume {enumerated(sorted(named))}.")


def _unconsumed(state: WorkloadState, workers: Workers, named: Collection[str]) -> list[str]:
    """Where some worker does not answer, or drains, a queue without consumer is no finding."""
    is_draining = any(pod.has_mark_annotation for pod in state.pods)
    if workers.fleet.silent or is_draining or not workers.fleet.workers:
        return []
    return sorted(set(named).difference(*workers.everyone.values(), *_own_queues(workers)))


def _own_queues(workers: Workers) -> list[frozenset[str]]:
    return [worker.queues for worker in workers.fleet.workers.values()]


def _waiting(queues: Collection[str], lengths: Mapping[str, int]) -> str:
    waiting = sum(lengths.get(queue, 0) for queue in queues)
    return f" ({counted(waiting, 'task')} waiting there)" if waiting else ""


def _check_slots(pool: PoolPicture, workers: Workers) -> Iterator[Finding]:
    check = Check(about=pool.about, name="slots")
    expected = pool.pool.slots_per_worker
    other = sorted({worker.slots for worker in workers.fleet.workers.values()} - {expected})
    if other:
        yield check.warning(
            f"slotsPerWorker is {expected}, and some workers have {counted(other[0], 'slot')}.",
            "Write what celery worker --concurrency says: it counts for workers that have not answered yet.",
        )
    else:
        yield check.ok(f"Each worker has {counted(expected, 'slot')}, as slotsPerWorker says.")


def _check_grace(picture: Picture, pool: PoolPicture, workers: Workers) -> Iterator[Finding]:
    """By the tasks that run just now: how long others take nobody knows."""
    check = Check(about=pool.about, name="grace-period")
    ages = [
        (task.running_seconds(picture.taken_at), task.name)
        for worker in workers.fleet.workers.values()
        for task in worker.active
    ]
    longest, name = max(ages, default=(0.0, ""))
    if longest > pool.grace_s:
        yield check.warning(
            f"A task {name} has run for {longest:.0f} s, and a pod that is deleted has {pool.grace_s:.0f} s "
            "to end its tasks.",
            "Raise terminationGracePeriodSeconds of the pod template: rollouts, evictions and node drains go "
            "past the hook.",
        )
    else:
        yield check.ok(f"No task seen now has run longer than the grace period of {pool.grace_s:.0f} s.")


def _check_versions(pool: PoolPicture, workers: Workers) -> Iterator[Finding]:
    check = Check(about=pool.about, name="versions")
    old = [
        f"{node} (celery {software.celery}, kombu {software.kombu})"
        for node, software in sorted(workers.software.items())
        if software.is_old
    ]
    if old:
        yield check.warning(
            f"Workers run versions with which draining was never tried: {enumerated(old)}.",
            "Upgrade celery and kombu to {}.{} or newer.".format(*OLDEST_TRIED),
        )
    elif workers.software:
        versions = sorted({software.celery for software in workers.software.values()})
        yield check.ok(f"The workers run celery {enumerated(versions)}.")
