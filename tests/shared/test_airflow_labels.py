"""Labels of DAGs and tasks: against DAGs that real Airflow 2 and 3 serialized, and against anything else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.airflow_labels import (
    NO_CODE,
    CodeLabels,
    labels_of_serialized_dag,
    labels_of_tags,
    merged,
    mistakes_in_serialized_dag,
    mistakes_in_tags,
)
from shared.airflow_tasks import DagLabels
from shared.workers import NO_LABEL, Label

RECORDINGS = Path(__file__).parent.parent / "recordings" / "airflow"
PROTECT = Label(protect=True)
VERSIONS = pytest.mark.parametrize("version", [2, 3])

labels = st.builds(Label, protect=st.booleans(), weight=st.none() | st.floats(0, 1e9))
task_ids = st.sampled_from(["a", "b", "group.a"])
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


def recorded(name: str) -> dict[str, Any]:
    recording: dict[str, Any] = json.loads((RECORDINGS / f"{name}.json").read_text())
    return recording


def dag_with(executor_config: Any, *, is_mapped: bool = False) -> dict[str, Any]:
    """A DAG of one task t, written without the envelopes of types, as plain JSON may be."""
    config = {"executor_config": executor_config}
    task = {"_is_mapped": True, "partial_kwargs": config} if is_mapped else config
    return {"dag": {"tasks": [{"task_id": "t", **task}]}}


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ([], DagLabels()),
        (["team-x", "drain", "protect", "weight=5"], DagLabels()),
        (["drain:protect"], DagLabels(dag=PROTECT)),
        (["drain:weight=5"], DagLabels(dag=Label(weight=5))),
        (["drain:weight=0"], DagLabels(dag=Label(weight=0))),
        (["drain:weight=1e2", " drain:protect "], DagLabels(dag=Label(protect=True, weight=100))),
        (["drain:protect=report"], DagLabels(tasks={"report": PROTECT})),
        (["drain:protect=group.inner.v1.2"], DagLabels(tasks={"group.inner.v1.2": PROTECT})),
        (["drain:weight=0.5=load-all"], DagLabels(tasks={"load-all": Label(weight=0.5)})),
        (["drain:weight=5=größe"], DagLabels(tasks={"größe": Label(weight=5)})),
        (
            ["drain:weight=2=a", "drain:protect=a", "drain:weight=3"],
            DagLabels(dag=Label(weight=3), tasks={"a": Label(protect=True, weight=2)}),
        ),
    ],
)
def test_tags_of_a_dag(tags: list[str], expected: DagLabels) -> None:
    """They are about all tasks, or about the one that they name."""
    assert labels_of_tags(tags) == expected
    assert mistakes_in_tags(tags) == ()


@pytest.mark.parametrize(
    "tag",
    [
        *("drain:", "drain:protct", "drain:Protect", "drain:protect=", "drain:protect=two words"),
        *("drain:weight", "drain:weight=", "drain:weight=much", "drain:weight=-1", "drain:weight=nan"),
        *(
            "drain:weight=inf",
            "drain:weight=1e999",
            "drain:weight=5=",
            "drain:weight=5=a=b",
            "drain:weight==a",
        ),
    ],
)
def test_a_malformed_tag_is_ignored_and_told(tag: str) -> None:
    """A typing error must neither protect what nobody meant, nor pass unnoticed."""
    assert labels_of_tags([tag, "drain:protect=a"]) == DagLabels(tasks={"a": PROTECT})
    (mistake,) = mistakes_in_tags([tag, "drain:protect=a", "team-x"])
    assert repr(tag) in mistake


@given(
    tags=st.lists(
        st.sampled_from(
            [f"drain:{what}{of}" for what in ("protect", "weight=2", "weight=3") for of in ("", "=a")]
        )
    ).flatmap(lambda tags: st.tuples(st.just(tags), st.permutations(tags)))
)
def test_the_order_of_tags_does_not_matter(tags: tuple[list[str], list[str]]) -> None:
    """A database gives them in any; of two weights the heavier counts."""
    one, other = tags
    assert labels_of_tags(one) == labels_of_tags(other)
    assert labels_of_tags(one).dag.weight == max(
        (float(t[-1]) for t in one if t[-2:] in ("=2", "=3")), default=None
    )


@given(tags=st.lists(st.text() | st.text(max_size=10).map("drain:".__add__)))
def test_any_tag_is_a_label_or_a_mistake_or_none_of_ours(tags: list[str]) -> None:
    """What people write as a tag is theirs to choose."""
    for tag in tags:
        is_label = labels_of_tags([tag]) != DagLabels()
        is_mistake = bool(mistakes_in_tags([tag]))
        assert is_label + is_mistake == tag.strip().startswith("drain:")


@VERSIONS
def test_labels_in_the_code_of_tasks(version: int) -> None:
    """As Airflow writes them: mapped tasks, groups, default_args of DAG and group, beside a pod_override."""
    assert labels_of_serialized_dag(recorded(f"labelled_dag_v{version}")).tasks == {
        "by_default": Label(weight=3),
        "own": Label(protect=True, weight=5),
        "beside_pod_override": PROTECT,
        "mapped_by_default": Label(weight=3),
        "group.mapped": PROTECT,
        "group.decorated": Label(weight=7),
        "group.decorated_mapped": Label(weight=8),
        "group.inner.deep": Label(weight=9),
    }


@VERSIONS
def test_what_is_malformed_in_the_code_of_a_task_is_told(version: int) -> None:
    """By its task, and by what was not understood."""
    (mistake,) = mistakes_in_serialized_dag(recorded(f"labelled_dag_v{version}"))
    assert "task 'malformed' 'protct', weight is ignored" in mistake


@VERSIONS
def test_a_dag_that_ran(version: int) -> None:
    """Its task in a group is mapped, and has no label; neither have documentation and params any say."""
    dag = recorded(f"serialized_dag_v{version}")
    assert labels_of_serialized_dag(dag).tasks == {"prot": PROTECT}
    assert mistakes_in_serialized_dag(dag) == ()
    assert labels_of_tags(dag["dag"]["tags"]) == DagLabels(dag=Label(weight=5))


@pytest.mark.parametrize("is_mapped", [False, True])
@pytest.mark.parametrize(
    ("drain", "expected", "ignored"),
    [
        ({}, NO_LABEL, ""),
        ({"protect": False}, NO_LABEL, ""),
        ({"protect": True, "weight": None}, PROTECT, ""),
        ({"weight": 0}, Label(weight=0), ""),
        (True, NO_LABEL, "drain"),
        ([], NO_LABEL, "drain"),
        (None, NO_LABEL, "drain"),
        ({"protect": 1, "weight": 5}, Label(weight=5), "protect"),
        ({"protect": "yes"}, NO_LABEL, "protect"),
        ({"protect": True, "weight": "5"}, PROTECT, "weight"),
        ({"weight": True}, NO_LABEL, "weight"),
        ({"weight": -1}, NO_LABEL, "weight"),
        ({"weight": float("nan")}, NO_LABEL, "weight"),
        ({"weight": float("inf")}, NO_LABEL, "weight"),
        ({"weight": 10**400}, NO_LABEL, "weight"),
        ({"weight": [5]}, NO_LABEL, "weight"),
        ({"protected": True}, NO_LABEL, "'protected'"),
    ],
)
def test_what_of_an_executor_config_counts(
    drain: Any, expected: Label, ignored: str, is_mapped: bool
) -> None:
    """Exactly booleans and finite numbers; one mistake does not take the rest with it."""
    dag = dag_with({"drain": drain}, is_mapped=is_mapped)
    assert labels_of_serialized_dag(dag).tasks == ({} if expected == NO_LABEL else {"t": expected})
    told = mistakes_in_serialized_dag(dag)
    assert len(told) == bool(ignored)
    assert f"{ignored} is ignored" in "".join(told) or not ignored


def test_what_is_not_given_to_partial_is_no_label_of_a_mapped_task() -> None:
    """Airflow reads it there only."""
    dag = {
        "dag": {
            "tasks": [{"task_id": "t", "_is_mapped": True, "executor_config": {"drain": {"protect": True}}}]
        }
    }
    assert labels_of_serialized_dag(dag).tasks == {}


@given(data=json_values, drain=json_values, task_id=json_values)
def test_any_json_is_read(data: Any, drain: Any, task_id: Any) -> None:
    """Whatever a later version writes: no error, and no number that sorts nowhere."""
    envelope = {"__var": {"task_id": task_id, "executor_config": {"drain": drain}}, "__type": "operator"}
    for document in (data, {"dag": data}, {"dag": {"tasks": data}}, {"dag": {"tasks": [data, envelope]}}):
        found = labels_of_serialized_dag(document).tasks
        assert all(isinstance(key, str) for key in found)
        assert all(label.weight is None or 0 <= label.weight < float("inf") for label in found.values())
        assert all(isinstance(mistake, str) for mistake in mistakes_in_serialized_dag(document))


@given(
    tags=st.builds(DagLabels, dag=labels, tasks=st.dictionaries(task_ids, labels, max_size=4)),
    serialized=st.dictionaries(task_ids, labels, max_size=4),
    other=task_ids,
)
def test_both_sources_together(tags: DagLabels, serialized: dict[str, Label], other: str) -> None:
    """Protected when any says so; the weight of the code of a task, else of a tag of it, else of its DAG."""
    both = merged(tags, CodeLabels(tasks=serialized))
    for task_id in {other, *tags.tasks, *serialized}:
        said = [serialized.get(task_id, NO_LABEL), tags.tasks.get(task_id, NO_LABEL), tags.dag]
        weights = [label.weight for label in said if label.weight is not None]
        assert both.of(task_id) == Label(
            protect=any(label.protect for label in said), weight=weights[0] if weights else None
        )


@pytest.mark.parametrize("version", [2, 3])
def test_a_task_that_is_not_in_the_code_is_unknown(version: int) -> None:
    """It ran before its DAG was written anew: to say that it has no label would be a guess."""
    code = labels_of_serialized_dag(recorded(f"labelled_dag_v{version}"))
    tags = DagLabels(dag=Label(weight=5), tasks={"gone": Label(weight=2)})
    assert code.task_ids is not None
    for task_id in code.task_ids:
        assert code.of(task_id) == code.tasks.get(task_id, NO_LABEL)
    assert code.of("gone") is None
    assert merged(tags, code).of("gone") == Label(protect=True, weight=2)


def test_of_a_dag_without_code_any_task_may_be_protected() -> None:
    assert NO_CODE.of("build") is None
    assert merged(DagLabels(dag=Label(weight=5)), NO_CODE).of("build") == Label(protect=True, weight=5)
