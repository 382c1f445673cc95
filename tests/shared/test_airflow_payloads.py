"""Which task instance a Celery task runs: against what real Airflow 2 and 3 sent, and anything else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.airflow_payloads import Payload, is_airflows, parse_payload
from shared.celery_replies import parse_tasks
from shared.workers import NO_LABEL, TaskKey

RECORDINGS = Path(__file__).parent.parent / "recordings" / "airflow"
AIRFLOW_2 = "airflow.providers.celery.executors.celery_executor_utils.execute_command"
AIRFLOW_3 = "execute_workload"
NAMES = st.sampled_from([AIRFLOW_2, AIRFLOW_3])
TI = {"dag_id": "d", "task_id": "group.t", "run_id": "manual__2026-01-01T00:00:00+00:00", "map_index": 3}
NO_WORKLOADS: list[Any] = [None, [], {}, "[]", [None], ["{"], ["[]"], ["[" * 100_000], [b"{}"]]
KEY = TaskKey(**TI)  # type: ignore[arg-type]
RUN = ["airflow", "tasks", "run", TI["dag_id"], TI["task_id"], TI["run_id"], "--local"]
NO_COMMANDS: list[Any] = [None, [], {}, "[]", [None], [[]], [RUN[:5]], [["airflow", *RUN]]]

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


def recorded(name: str) -> dict[str, Any]:
    recording: dict[str, Any] = json.loads((RECORDINGS / f"{name}.json").read_text())
    return recording


def workload(ti: Any, **fields: Any) -> list[Any]:
    return [json.dumps({"token": "secret", "type": "ExecuteTask", "ti": ti} | fields)]


@pytest.mark.parametrize("name", ["af2_running1", "af3_running1", "af3_running2"])
def test_tasks_that_ran(name: str) -> None:
    """The key from the payload is that of the row that has the Celery task's id."""
    recording = recorded(name)
    rows = {
        row["external_executor_id"]: TaskKey(**{part: row[part] for part in TI})
        for row in recording["db"]
        if row["state"] == "running"
    }
    tasks = [task for infos in recording["active"].values() for task in parse_tasks(infos)]
    assert {task.id: task.key for task in tasks} == rows
    assert {task.try_number for task in tasks} == ({1} if name.startswith("af3") else {None})
    assert all(task.label is None for task in tasks), "labels are the database's to tell"


@pytest.mark.parametrize(
    ("name", "args"),
    [
        (AIRFLOW_2, [[*RUN, "--subdir", "DAGS_FOLDER/x.py", "--map-index", "3"]]),
        (AIRFLOW_2, ([*RUN, "--pool", "p", "--map-index", "3", "--cfg-path", "x"],)),
        ("airflow.executors.celery_executor.execute_command", [[*RUN, "--map-index", "3"]]),
        (AIRFLOW_3, workload(TI)),
        (AIRFLOW_3, [json.dumps({"ti": TI})]),
    ],
)
def test_a_mapped_task(name: str, args: Any) -> None:
    """Its map index is part of what it is."""
    assert parse_payload(name, args) == Payload(key=KEY)


@pytest.mark.parametrize(("told", "kept"), [(2, 2), ("2", None), (True, None), (2.0, None), (None, None)])
def test_the_try_of_a_task(told: Any, kept: int | None) -> None:
    """A number, or nothing: its key counts in any case."""
    assert parse_payload(AIRFLOW_3, workload(TI | {"try_number": told})) == Payload(key=KEY, try_number=kept)


@pytest.mark.parametrize(
    ("name", "args"),
    [
        (AIRFLOW_2, [RUN]),
        (AIRFLOW_3, workload({part: value for part, value in TI.items() if part != "map_index"})),
    ],
)
def test_a_task_that_is_not_mapped(name: str, args: Any) -> None:
    """Airflow writes -1, or nothing."""
    payload = parse_payload(name, args)
    assert payload is not None
    assert payload.key is not None
    assert payload.key.map_index == -1


@pytest.mark.parametrize("kind", ["ExecuteCallback", "TestConnection", "SomethingNew"])
def test_what_else_airflow_runs_has_no_label(kind: str) -> None:
    """A callback is no task instance: no tag is about it, and none need be asked for."""
    assert parse_payload(AIRFLOW_3, workload(None, type=kind)) == Payload(is_other=True)
    info = {"id": "1", "name": AIRFLOW_3, "time_start": 1.0, "args": workload(None, type=kind)}
    (task,) = parse_tasks([info])
    assert (task.key, task.label) == (None, NO_LABEL)


@pytest.mark.parametrize(
    ("name", "args"),
    [
        *((AIRFLOW_3, args) for args in NO_WORKLOADS),
        *((AIRFLOW_3, workload(TI | {part: 5})) for part in ("dag_id", "task_id", "run_id")),
        *((AIRFLOW_3, workload(TI | {"map_index": value})) for value in ("3", 3.0, True, None)),
        *((AIRFLOW_3, workload(TI | {part: "x\x00y"})) for part in ("dag_id", "task_id", "run_id")),
        *((AIRFLOW_3, workload(TI | {part: "x\ud800y"})) for part in ("dag_id", "task_id", "run_id")),
        (AIRFLOW_2, [[*RUN[:3], "x\x00y", *RUN[4:]]]),
        (AIRFLOW_3, workload({})),
        (AIRFLOW_3, workload(TI | {"task_id": ""})),
        *((AIRFLOW_2, args) for args in NO_COMMANDS),
        (AIRFLOW_2, [[*RUN, "--map-index", "x"]]),
        (AIRFLOW_2, [[*RUN, 5]]),
        (AIRFLOW_2, [" ".join(map(str, RUN))]),
    ],
)
def test_a_payload_that_cannot_be_read(name: str, args: Any) -> None:
    """The task stays Airflow's, and its label unknown: it must not count as one without a label."""
    assert parse_payload(name, args) == Payload()
    info = {"id": "1", "name": name, "time_start": 1.0, "args": args}
    (task,) = parse_tasks([info])
    assert (task.key, task.label) == (None, None)


@pytest.mark.parametrize(
    "name", ["lab.sleep", "", "execute", "shop.execute_workload", "shop.execute_command"]
)
def test_tasks_of_others(name: str) -> None:
    """Whatever their arguments look like."""
    assert not is_airflows(name)
    assert parse_payload(name, workload(TI)) is None


@given(name=NAMES | st.text(), args=json_values, text=st.text())
def test_any_payload_is_read(name: str, args: Any, text: str) -> None:
    """One strange task must not hide what its worker runs."""
    for arguments in (args, [args], [json.dumps(args)], [text], [[*RUN[:3], args, text]], workload(args)):
        payload = parse_payload(name, arguments)
        assert (payload is None) == (not is_airflows(name))
        info = {"id": "1", "name": name, "time_start": None, "args": arguments}
        assert len(parse_tasks([info])) == 1


@given(
    secret=st.text("uvwxyz0123456789", min_size=12, max_size=24).map("secret-".__add__),
    ti=st.just(TI) | json_values,
    more=st.dictionaries(st.text(), json_values, max_size=3),
)
def test_the_token_never_passes(secret: str, ti: Any, more: dict[str, Any]) -> None:
    """It is good for the whole API of Airflow; nor does anything else but the ids of a task instance."""
    payloads = [
        (
            AIRFLOW_3,
            workload(ti, **more | {"token": secret, "log_path": secret, "bundle_info": {"name": secret}}),
        ),
        (AIRFLOW_3, [json.dumps({"ti": TI | {"context_carrier": {"traceparent": secret}, "queue": secret}})]),
        (AIRFLOW_3, [secret]),
        (AIRFLOW_2, [[*RUN, "--subdir", secret, "--cfg-path", secret]]),
        (AIRFLOW_2, [[*RUN, "--map-index", secret]]),
        ("lab.sleep", [secret]),
    ]
    infos = [
        {"id": "1", "name": name, "time_start": 1.0, "args": args, "kwargs": {"token": secret}}
        for name, args in payloads
    ]
    assert secret not in repr(parse_tasks(infos))
