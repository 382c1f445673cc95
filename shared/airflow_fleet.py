"""What Celery's workers say and what Airflow's metadata database says, held together. Pure.

Rules of the whole file:

- A worker that answers says itself what it runs. A row that calls a task running on such a worker, which does
  not have it, is believed only when the task may have started after the worker was asked; else its process
  has died, and Airflow will notice.
- Of a worker that does not answer, which it never does once it was told to stop, the database is believed.
- Where a task runs is told by its pod's name, never by its queue: queues are changed and shared. Where no
  pod has the name in its row, as with another hostname_callable, any worker without an answer may run it.
- A queued row whose task a worker has is not waiting any more: the database is seconds behind. An earlier try
  of the same task instance, whose heartbeats were missed, is another task.
- Ages are those of the database's clock, since the clocks of workers differ.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property

from shared.airflow_payloads import is_airflows
from shared.airflow_tasks import Metadata, TaskInstance
from shared.pods import WorkloadState, celery_node
from shared.pools import Airflow, Pool
from shared.workers import Fleet, Label, Task, TaskKey, WorkerSnapshot

YOUNG_S = 10.0
"""By how much a start may seem earlier than it was: workers write it down by their own clocks."""
_CELERY_EXECUTORS = frozenset({"CeleryExecutor", "CeleryKubernetesExecutor"})
"""Both run a task that is not for Kubernetes on the same workers."""


def with_metadata(
    fleet: Fleet,
    metadata: Metadata,
    *,
    pool: Pool,
    nodes: Collection[str],
    asked_at: float,
    asked_later: Collection[str] = (),
    elsewhere: Collection[str] = (),
) -> Fleet:
    """The fleet with keys, labels and ages of Airflow's tasks, and with what only the database knows.

    `nodes` are those of all pods that there are, terminating ones too: rows of others are no concern of this
    fleet. `asked_at` is when its oldest answer was asked for, in seconds since the epoch; workers in
    `asked_later` were asked after the database had answered, so their word is the last. `elsewhere` are the
    names of other pools' pods. A task whose label still cannot be told keeps None, as that of a DAG that was
    not asked for.
    """
    workers = {node: _told(worker, metadata) for node, worker in fleet.workers.items()}
    held = _Held(task for worker in workers.values() for task in worker.tasks)
    believed: dict[str, tuple[Task, ...]] = {}
    unplaced: list[TaskInstance] = []
    for host, rows in metadata.running_by_host.items():
        node = celery_node(host, worker_name=pool.worker_name)
        if node in workers:
            young = () if node in asked_later else _since(asked_at, rows, metadata)
            new = tuple(_task_of(row, metadata) for row in young if not held.has(row))
            if new:
                workers[node] = replace(workers[node], active=(*workers[node].active, *new))
        elif node in nodes or node in fleet.silent:
            believed[node] = tuple(_task_of(row, metadata) for row in rows)
        elif host not in elsewhere:
            unplaced += rows
    may_have_them = _is_taken_by(pool, fleet)
    return replace(
        fleet,
        workers=workers,
        believed=believed,
        unplaced=tuple(
            _task_of(row, metadata) for row in unplaced if may_have_them(row) and not held.has_surely(row)
        ),
    )


def with_what_may_have_begun(
    fleet: Fleet, metadata: Metadata, *, pool: Pool, nodes: Collection[str]
) -> Fleet:
    """The fleet where each worker without an answer has taken whatever is protected and may be on it.

    The database calls a task queued, on no worker, for seconds after one took it: nobody can tell which, nor
    from which queues a worker takes that does not say so.
    """
    mute = (fleet.silent | frozenset(nodes)) - fleet.workers.keys()
    if pool.airflow is None or not mute:
        return fleet
    held = _Held(_tasks(fleet))
    queued = ((row, _task_of(row, metadata)) for row in metadata.queued if belongs(row, pool.airflow))
    waiting = (task for row, task in queued if pool.is_protected(task) and not held.has_surely(row))
    tasks = (*waiting, *filter(pool.is_protected, fleet.unplaced))
    believed = {node: (*fleet.believed.get(node, ()), *tasks) for node in mute} if tasks else {}
    return replace(fleet, believed={**fleet.believed, **believed})


def belongs(instance: TaskInstance, airflow: Airflow) -> bool:
    """Whether a task instance is one of this executor's, as opposed to Kubernetes' or another executor's.

    A DAG's author may have written the executor's short name, its full path, or its alias.
    """
    if instance.queue == airflow.kubernetes_queue:
        return False
    if instance.executor is None:
        return airflow.is_default_executor
    return bool(_names_of(instance.executor) & _names_of(airflow.executor))


def queued_of(metadata: Metadata, *, pool: Pool) -> tuple[TaskInstance, ...]:
    """The queued task instances of an Airflow pool's queues, whether a worker has them already or not."""
    if pool.airflow is None:
        return ()
    queues, airflow = frozenset(pool.queues), pool.airflow
    return tuple(row for row in metadata.queued if row.queue in queues and belongs(row, airflow))


def hosts_of_others(
    pool: Pool, pools: Iterable[Pool], state_of: Callable[..., WorkloadState | None]
) -> frozenset[str]:
    """The pods of all other Airflow pools: what runs there runs on none of this one's workers."""
    others = (other for other in pools if other.airflow is not None and other.key != pool.key)
    states = (state_of(**other.workload_key._asdict()) for other in others)
    return frozenset(pod.name for state in states if state is not None for pod in state.pods)


def waiting_of(queued: Iterable[TaskInstance], tasks: Iterable[Task]) -> tuple[TaskInstance, ...]:
    """Those that none of these tasks is: give the tasks of all workers that may have taken them."""
    held = _Held(tasks)
    return tuple(row for row in queued if not held.has(row))


def dags_of(fleet: Fleet) -> frozenset[str]:
    """The dag_ids of the tasks that workers have: their labels are wanted, whether they have rows or not."""
    return frozenset(task.key.dag_id for task in _tasks(fleet) if task.key is not None)


def has_unknown_label(task: Task) -> bool:
    """Whether Airflow may know a label of it that we do not."""
    return task.label is None and (task.key is not None or is_airflows(task.name))


class _Held:
    """Tasks that workers have; looked through when first asked for one, which is seldom."""

    def __init__(self, tasks: Iterable[Task]) -> None:
        self._tasks = tasks

    def has(self, row: TaskInstance) -> bool:
        """Whether one of them is this, unless their tries differ; an id may be written down late."""
        return self._any(lambda task: _is_same_try(task, row) is not False, row)

    def has_surely(self, row: TaskInstance) -> bool:
        """Whether one of them is this, and not another try of it as far as can be told."""
        return self._any(lambda task: _is_same_try(task, row) or _fits_id(task, row), row)

    def _any(self, fits: Callable[[Task], bool], row: TaskInstance) -> bool:
        by_id, by_key = self._found
        same_id, same_key = by_id.get(row.celery_id), by_key.get(row.key, ())
        return (same_id is not None and fits(same_id)) or any(map(fits, same_key))

    @cached_property
    def _found(self) -> tuple[Mapping[str | None, Task], Mapping[TaskKey | None, Sequence[Task]]]:
        """By Celery's id and by key."""
        by_id: dict[str | None, Task] = {}
        by_key: dict[TaskKey | None, list[Task]] = {}
        for task in self._tasks:
            by_id[task.id] = task
            if task.key is not None:
                by_key.setdefault(task.key, []).append(task)
        return by_id, by_key


def _is_same_try(task: Task, row: TaskInstance) -> bool | None:
    """None where it cannot be told, as with Airflow 2."""
    if task.try_number is None or row.try_number is None:
        return None
    return task.try_number == row.try_number


def _fits_id(task: Task, row: TaskInstance) -> bool:
    return _is_same_try(task, row) is None and row.celery_id in (None, task.id)


def _is_taken_by(pool: Pool, fleet: Fleet) -> Callable[[TaskInstance], bool]:
    """Whether a task instance would be run by workers of this pool, by what is known of their queues."""
    queues = frozenset(pool.queues).union(*(worker.queues for worker in fleet.workers.values()))
    airflow = pool.airflow
    return lambda row: airflow is not None and row.queue in queues and belongs(row, airflow)


def _told(worker: WorkerSnapshot, metadata: Metadata) -> WorkerSnapshot:
    return replace(
        worker,
        active=tuple(_known(task, metadata) for task in worker.active),
        reserved=tuple(_known(task, metadata) for task in worker.reserved),
        eta=tuple(_known(task, metadata) for task in worker.eta),
    )


def _known(task: Task, metadata: Metadata) -> Task:
    row = _row_of(task, metadata)
    key = task.key or (row.key if row else None)
    if key is None:
        return task
    return replace(
        task,
        key=key,
        label=row.label if row else _label_of(key, metadata),
        started_at=_started_at(task, row, metadata),
    )


def _row_of(task: Task, metadata: Metadata) -> TaskInstance | None:
    """What a payload says goes before the id: an id is written down later."""
    return metadata.by_key.get(task.key) if task.key else metadata.by_celery_id.get(task.id)


def _label_of(key: TaskKey, metadata: Metadata) -> Label | None:
    """Of a task without a row: by its DAG's latest version, if that was asked for."""
    labels = metadata.labels.get(key.dag_id)
    return labels.of(key.task_id) if labels else None


def _started_at(task: Task, row: TaskInstance | None, metadata: Metadata) -> float | None:
    """By the database's clock, where the row is of this very try; a reserved task has not started."""
    if task.started_at is None or row is None or row.celery_id not in (None, task.id):
        return task.started_at
    start = None if _is_same_try(task, row) is False else _start_of(row, metadata)
    return task.started_at if start is None else start


def _start_of(row: TaskInstance, metadata: Metadata) -> float | None:
    if row.state != "running" or row.age_s is None:
        return None
    return metadata.read_at - row.age_s


def _since(asked_at: float, rows: Iterable[TaskInstance], metadata: Metadata) -> Iterator[TaskInstance]:
    """Those that may have started after that."""
    for row in rows:
        start = _start_of(row, metadata)
        if start is not None and start > asked_at - YOUNG_S:
            yield row


def _task_of(row: TaskInstance, metadata: Metadata) -> Task:
    """A task that only the database knows."""
    key = row.key
    name = f"{key.dag_id}.{key.task_id}"
    return Task(
        id=row.celery_id or f"{name}/{key.run_id}/{key.map_index}",
        name=name,
        key=key,
        try_number=row.try_number,
        label=row.label,
        started_at=None if row.state == "queued" else metadata.read_at - (row.age_s or 0.0),
    )


def _tasks(fleet: Fleet) -> Iterator[Task]:
    for worker in fleet.workers.values():
        yield from worker.tasks
    for tasks in fleet.believed.values():
        yield from tasks


def _names_of(executor: str) -> frozenset[str]:
    """What an executor may be called; an alias is a name like any other."""
    names = frozenset(
        part for name in executor.split(":") for part in (name.strip(), name.strip().rpartition(".")[2])
    )
    return names | (_CELERY_EXECUTORS if names & _CELERY_EXECUTORS else frozenset())
