"""Labels that DAG authors gave, read from tags and from serialized DAGs. Pure; nothing is unpickled.

Tags of a DAG, which are about all its tasks or the one that they name:

    drain:protect    drain:protect=TASK_ID    drain:weight=5    drain:weight=5=TASK_ID

A task in a task group is named as `group.task`. Of a task itself, in the DAG's code:

    executor_config={"drain": {"protect": True, "weight": 5}}

What is malformed counts nothing, and is told by the functions named mistakes_…, for a door to log. Where tags
contradict each other the heaviest counts, whatever their order.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from shared.airflow_tasks import DagLabels
from shared.workers import NO_LABEL, Label

Json = Any
"""Decoded JSON of a serialized DAG, of any version."""

TAG_PREFIX = "drain:"
"""Of the tags that are ours."""
EXECUTOR_CONFIG_KEY = "drain"
"""Of what is ours in a task's executor_config."""

_TAG = re.compile(r"drain:(?:protect|weight=(?P<weight>[^=\s]+))(?:=(?P<task>[\w.-]+))?")


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeLabels:
    """What the code of a DAG says of its tasks, as far as Airflow has stored it."""

    tasks: Mapping[str, Label] = field(default_factory=dict)
    """By task_id: those that say something."""
    task_ids: frozenset[str] | None = None
    """Of all its tasks; None where none says anything, so that nobody looked for them."""

    def of(self, task_id: str) -> Label | None:
        """None for a task that is not in the code."""
        if self.task_ids is None or task_id in self.task_ids:
            return self.tasks.get(task_id, NO_LABEL)
        return None


NO_CODE = CodeLabels(task_ids=frozenset())
"""Of a DAG that is not stored any more: there may have been any task in it."""
UNREADABLE = CodeLabels(task_ids=frozenset())
"""Of a DAG of which somebody has been told already that nobody can read it; there may be any task in it."""


def labels_of_tags(tags: Iterable[str]) -> DagLabels:
    """What the tags of a DAG say of it and its tasks."""
    dag, tasks = NO_LABEL, dict[str, Label]()
    for tag in tags:
        match parse_tag(tag):
            case (None, label):
                dag = _both(dag, label)
            case (task_id, label):
                tasks[task_id] = _both(tasks.get(task_id, NO_LABEL), label)
    return DagLabels(dag=dag, tasks=tasks)


def labels_of_serialized_dag(data: Mapping[str, Json]) -> CodeLabels:
    """What tasks of a serialized DAG say of themselves, and which tasks there are."""
    read = ((task_id, _label_in(drain)[0]) for task_id, drain in _drains(data))
    task_ids = (task.get("task_id") for task in _tasks(data))
    return CodeLabels(
        tasks={task_id: label for task_id, label in read if label != NO_LABEL},
        task_ids=frozenset(task_id for task_id in task_ids if isinstance(task_id, str)),
    )


def merged(tags: DagLabels, code: CodeLabels) -> DagLabels:
    """Both together: protection adds up, and a weight in the code of a task goes before one in a tag."""
    task_ids = tags.tasks.keys() | code.tasks.keys()
    return DagLabels(
        dag=tags.dag,
        tasks={
            task_id: code.tasks.get(task_id, NO_LABEL).over(tags.tasks.get(task_id, NO_LABEL))
            for task_id in task_ids
        },
        task_ids=code.task_ids,
    )


def mistakes_in_tags(tags: Iterable[str]) -> tuple[str, ...]:
    """A sentence about each tag that begins as ours do and is none."""
    return tuple(
        f"The tag {tag!r} is ignored: write drain:protect or drain:weight=5, or with =TASK_ID after it."
        for tag in tags
        if tag.strip().startswith(TAG_PREFIX) and parse_tag(tag) is None
    )


def mistakes_in_serialized_dag(data: Mapping[str, Json]) -> tuple[str, ...]:
    """A sentence about each task whose executor_config has something in our place that we cannot read."""
    return tuple(
        f"Of the executor_config of task {task_id!r} {', '.join(ignored)} is ignored: "
        'write {"drain": {"protect": True, "weight": 5}}.'
        for task_id, drain in _drains(data)
        if (ignored := _label_in(drain)[1])
    )


def parse_tag(tag: str) -> tuple[str | None, Label] | None:
    """The task that a tag names, None for the whole DAG, and its label; None when the tag is none of ours."""
    found = _TAG.fullmatch(tag.strip())
    if found is None:
        return None
    text = found["weight"]
    if text is None:
        return found["task"], Label(protect=True)
    weight = _weight(text)
    return None if weight is None else (found["task"], Label(weight=weight))


def _both(one: Label, other: Label) -> Label:
    weights = [label.weight for label in (one, other) if label.weight is not None]
    return Label(protect=one.protect or other.protect, weight=max(weights, default=None))


def _drains(data: Json) -> Iterator[tuple[str, Json]]:
    """task_id and what stands in our place of its executor_config, for each task that has something there."""
    for task in _tasks(data):
        # A mapped task keeps what was given to partial() apart.
        given = _mapping(task.get("partial_kwargs")) if "_is_mapped" in task else task
        config = _mapping(given.get("executor_config"))
        if isinstance(task.get("task_id"), str) and EXECUTOR_CONFIG_KEY in config:
            yield task["task_id"], config[EXECUTOR_CONFIG_KEY]


def _tasks(data: Json) -> Iterator[Mapping[str, Json]]:
    tasks = _mapping(_mapping(data).get("dag")).get("tasks")
    return map(_mapping, tasks if isinstance(tasks, list) else ())


def _label_in(drain: Json) -> tuple[Label, list[str]]:
    """The label in `{"protect": …, "weight": …}`, and what of it is ignored."""
    plain = _plain(drain)
    if not isinstance(plain, Mapping):
        return NO_LABEL, [EXECUTOR_CONFIG_KEY]
    protect, weight = plain.get("protect", False), plain.get("weight")
    read_weight = None if isinstance(weight, str | bool) else _weight(weight)
    ignored = {
        "protect": not isinstance(protect, bool),
        "weight": weight is not None and read_weight is None,
        **{repr(key): True for key in plain.keys() - {"protect", "weight"}},
    }
    return Label(protect=protect is True, weight=read_weight), sorted(
        k for k, is_so in ignored.items() if is_so
    )


def _weight(value: Json) -> float | None:
    """A finite number that is not negative, or None."""
    try:
        weight = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return abs(weight) if math.isfinite(weight) and weight >= 0 else None


def _mapping(value: Json) -> Mapping[str, Json]:
    plain = _plain(value)
    return plain if isinstance(plain, Mapping) else {}


def _plain(value: Json) -> Json:
    """A value without the envelope that Airflow's JSON gives to what has a type."""
    is_wrapped = isinstance(value, Mapping) and value.keys() == {"__var", "__type"}
    return value["__var"] if is_wrapped else value
