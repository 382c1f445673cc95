"""What the door reads from a metadata database, of every version and on every server."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from shared.airflow_db import AirflowDatabase
from shared.airflow_tasks import DagLabels, TaskInstance
from shared.workers import NO_LABEL, Label, TaskKey
from tests.postgres import airflow_schema
from tests.shared.airflow_tables import (
    AirflowTables,
    compressed,
    mariadb_tables,
    recording,
    sqlite_tables,
)

Tables = Callable[[str], AirflowTables]
EVERYWHERE = ["postgresql-2", "postgresql-3", "sqlite-2", "sqlite-3", "mariadb-3"]
PROTECTED, HEAVY = Label(protect=True), Label(weight=5.0)
FOUND_PROTECTED = {"protect": True}


@pytest.fixture(scope="module")
def made() -> dict[str, AirflowTables]:
    """By name: it takes a second to make them all."""
    return {}


@pytest.fixture
def tables(made: dict[str, AirflowTables], new_tables: Tables) -> Tables:
    """Empty tables of an Airflow, named by server and major version."""

    def make(name: str) -> AirflowTables:
        if name not in made:
            made[name] = new_tables(name)
        made[name].empty()
        return made[name]

    return make


@pytest.fixture
def new_tables(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Tables:
    """Those that a test may alter."""

    def make(name: str) -> AirflowTables:
        server, _, major = name.partition("-")
        if server == "sqlite":
            return sqlite_tables(tmp_path_factory.mktemp("sqlite") / "airflow.db", int(major))
        if server == "postgresql":
            postgres = request.getfixturevalue("postgres_server")
            return AirflowTables(
                postgres.create_database(f"airflow_{uuid4().hex}", airflow_schema(int(major)))
            )
        return mariadb_tables(request.getfixturevalue("mariadb_server").url)

    return make


@pytest.fixture(params=EVERYWHERE)
def airflow(tables: Tables, request: pytest.FixtureRequest) -> AirflowTables:
    return tables(request.param)


Open = Callable[[AirflowTables], AirflowDatabase]


@pytest.fixture
async def opened() -> AsyncIterator[Open]:
    """Doors, closed at the end."""
    doors: list[AirflowDatabase] = []

    def door(tables: AirflowTables) -> AirflowDatabase:
        doors.append(AirflowDatabase(tables.url))
        return doors[-1]

    yield door
    for each in doors:
        await each.close()


def key(task_id: str = "build", *, dag_id: str = "reports", map_index: int = -1) -> TaskKey:
    return TaskKey(dag_id=dag_id, task_id=task_id, run_id="manual__1", map_index=map_index)


def document(task_id: str, drain: dict[str, Any] | None = None, *others: str) -> dict[str, Any]:
    """A serialized DAG with one task that may have a label, and others that have none."""
    wrapped = {"__var": {"drain": {"__var": drain, "__type": "dict"}}, "__type": "dict"}
    config = {} if drain is None else {"executor_config": wrapped}
    task = {"__var": {"task_id": task_id} | config, "__type": "operator"}
    rest = [{"__var": {"task_id": other}, "__type": "operator"} for other in others]
    return {"__version": 3, "dag": {"tasks": [task, *rest]}}


async def only(door: AirflowDatabase) -> TaskInstance:
    (instance,) = (await door.read(timeout_s=10)).instances
    return instance


async def test_tasks_that_run_or_wait_are_read_and_no_others(airflow: AirflowTables, opened: Open) -> None:
    """Nothing else holds a slot or will, as far as Airflow's executor has been told."""
    running, queued = key("running"), key("queued", map_index=3)
    airflow.task(running, "running", hostname="pod-a.workers.ns.svc", external_executor_id="c1", queue="high")
    airflow.task(queued, "queued", external_executor_id=None, queue=None)
    for state in ("scheduled", "deferred", "up_for_retry", "up_for_reschedule", "success", "failed"):
        airflow.task(key(state), state)
    instances = {i.key: i for i in (await opened(airflow).read(timeout_s=10)).instances}
    assert instances.keys() == {running, queued}
    one, other = instances[running], instances[queued]
    assert (one.state, one.host, one.celery_id, one.queue) == ("running", "pod-a", "c1", "high")
    assert (other.state, other.host, other.celery_id, other.queue) == ("queued", "", None, "")


async def test_ages_are_by_the_database_s_clock(airflow: AirflowTables, opened: Open) -> None:
    """Whatever time zone a server is in: seconds since the start, or since it was queued."""
    airflow.task(key("running"), "running", seconds=7200)
    airflow.task(key("queued"), "queued", seconds=30)
    ages = {i.key.task_id: i.age_s for i in (await opened(airflow).read(timeout_s=10)).instances}
    assert ages == {"running": pytest.approx(7200, abs=60), "queued": pytest.approx(30, abs=25)}


async def test_an_age_is_never_negative_and_may_be_unknown(airflow: AirflowTables, opened: Open) -> None:
    """The worker that wrote the start may have another clock than the database."""
    airflow.task(key("ahead"), "running", seconds=-3600)
    airflow.task(key("never"), "queued", queued_dttm=None)
    ages = {i.key.task_id: i.age_s for i in (await opened(airflow).read(timeout_s=10)).instances}
    assert ages == {"ahead": 0.0, "never": None}


async def test_tags_and_serialized_dags_label_tasks(airflow: AirflowTables, opened: Open) -> None:
    version = uuid4()
    airflow.serialize("reports", document("build", FOUND_PROTECTED, "other"), version=version)
    airflow.serialize("plain", document("build"))
    airflow.tag("reports", "drain:weight=5", "team-x")
    airflow.task(key("build"), "running", version=version)
    airflow.task(key("other"), "queued", version=version)
    metadata = await opened(airflow).read(["plain"], timeout_s=10)
    labels = {i.key.task_id: i.label for i in metadata.instances}
    assert labels == {"build": Label(protect=True, weight=5.0), "other": HEAVY}
    assert metadata.labels == {
        "reports": DagLabels(dag=HEAVY, tasks={"build": PROTECTED}, task_ids=frozenset({"build", "other"})),
        "plain": DagLabels(),
    }


async def test_dags_without_a_row_are_labelled_when_they_are_asked_for(
    airflow: AirflowTables, opened: Open
) -> None:
    """A worker may still be busy with what the database calls finished; then the newest version counts."""
    airflow.serialize("reports", document("build", FOUND_PROTECTED), minutes=0)
    if airflow.has_versions:
        airflow.serialize("reports", document("build", {"weight": 5}), minutes=2)
        airflow.serialize("reports", document("build", {"weight": 3}), minutes=1)
    expected = HEAVY if airflow.has_versions else PROTECTED
    assert (await opened(airflow).read(["reports"], timeout_s=10)).labels["reports"].of("build") == expected


@pytest.mark.parametrize("name", ["postgresql-3", "sqlite-3", "mariadb-3"])
async def test_a_task_has_the_label_of_the_version_it_runs(name: str, tables: Tables, opened: Open) -> None:
    """Whoever changes the DAG while it runs does not change what runs; tasks of Airflow 2 have no version."""
    airflow, old, new = tables(name), uuid4(), uuid4()
    airflow.serialize("reports", document("build", FOUND_PROTECTED), version=old)
    airflow.serialize("reports", document("build", {"weight": 5}), version=new, minutes=1)
    airflow.task(key("build", map_index=0), "running", version=old)
    airflow.task(key("build", map_index=1), "running", version=new)
    airflow.task(key("build", map_index=2), "running", version=None)
    metadata = await opened(airflow).read(timeout_s=10)
    labels = {i.key.map_index: i.label for i in metadata.instances}
    assert labels == {0: PROTECTED, 1: HEAVY, 2: HEAVY}
    assert metadata.labels["reports"].of("build") == HEAVY


async def test_a_changed_tag_counts_at_the_next_reading(airflow: AirflowTables, opened: Open) -> None:
    airflow.serialize("reports", document("build"))
    airflow.task(key(), "running")
    door = opened(airflow)
    assert (await only(door)).label == NO_LABEL
    airflow.tag("reports", "drain:protect")
    assert (await only(door)).label == PROTECTED
    airflow.untag("reports")
    assert (await only(door)).label == NO_LABEL


async def test_a_document_with_another_hash_counts_at_the_next_reading(
    airflow: AirflowTables, opened: Open
) -> None:
    """Airflow writes over a serialized DAG of which no task has run yet."""
    version = uuid4()
    airflow.task(key(), "queued", version=version)
    door = opened(airflow)
    for drain, label in [(FOUND_PROTECTED, PROTECTED), ({"weight": 5}, HEAVY)]:
        airflow.forget("reports")
        airflow.serialize("reports", document("build", drain), version=version)
        assert (await only(door)).label == label


async def test_a_document_is_read_once_for_each_hash(airflow: AirflowTables, opened: Open) -> None:
    """It may have megabytes. That it was not read again shows in this: it changed, and its hash did not."""
    version = uuid4()
    airflow.serialize("reports", document("build", FOUND_PROTECTED), version=version)
    airflow.task(key(), "running", version=version)
    door = opened(airflow)
    assert (await only(door)).label == PROTECTED
    airflow.execute("UPDATE serialized_dag SET data = NULL")
    assert (await only(door)).label == PROTECTED
    assert (await only(opened(airflow))).label == NO_LABEL


async def test_compressed_documents_are_read(airflow: AirflowTables, opened: Open) -> None:
    """[core] compress_serialized_dags."""
    version = uuid4()
    airflow.serialize("reports", version=version, compressed=compressed(document("build", FOUND_PROTECTED)))
    airflow.task(key(), "running", version=version)
    assert (await only(opened(airflow))).label == PROTECTED


async def test_a_document_that_cannot_be_read_protects(
    airflow: AirflowTables, opened: Open, caplog: pytest.LogCaptureFixture
) -> None:
    """It may say so of any task. It is told once, with what to do about it."""
    version = uuid4()
    airflow.serialize("reports", version=version, compressed=b"no zlib")
    airflow.task(key(), "running", version=version)
    door = opened(airflow)
    assert [(await only(door)).label for _ in range(2)] == [PROTECTED, PROTECTED]
    (record,) = caplog.records
    assert "airflow dags reserialize" in record.getMessage()


async def test_a_malformed_tag_is_told_once(
    airflow: AirflowTables, opened: Open, caplog: pytest.LogCaptureFixture
) -> None:
    airflow.tag("reports", "drain:protekt")
    airflow.serialize("reports", document("build"))
    airflow.task(key(), "running")
    door = opened(airflow)
    with caplog.at_level(logging.WARNING):
        assert [(await only(door)).label for _ in range(2)] == [NO_LABEL, NO_LABEL]
    (record,) = caplog.records
    assert "reports" in record.getMessage()
    assert "drain:protekt" in record.getMessage()


RENAMED = document("build_all", FOUND_PROTECTED)
UNLABELLED = document("build")


@pytest.mark.parametrize("change", [None, RENAMED, UNLABELLED])
async def test_a_task_that_runs_keeps_the_label_it_began_with(
    change: dict[str, Any] | None, airflow: AirflowTables, opened: Open
) -> None:
    """Its process has the code that there was; that its DAG is written anew, or gone, protects it no less."""
    version = uuid4()
    airflow.serialize("reports", document("build", {"protect": True, "weight": 5}), version=version)
    airflow.tag("reports", "drain:weight=2")
    airflow.task(key(), "running", external_executor_id="c1", version=version)
    door = opened(airflow)
    before = (await only(door)).label
    if change is None:
        airflow.forget("reports")
    else:
        airflow.write_anew("reports", change)
    airflow.untag("reports")
    assert (
        [(await only(door)).label for _ in range(2)]
        == [before, before]
        == [Label(protect=True, weight=5)] * 2
    )


async def test_of_the_next_try_the_new_code_counts(airflow: AirflowTables, opened: Open) -> None:
    version = uuid4()
    airflow.serialize("reports", document("build", FOUND_PROTECTED), version=version)
    airflow.task(key(), "running", external_executor_id="c1", version=version)
    door = opened(airflow)
    assert (await only(door)).label == PROTECTED
    airflow.write_anew("reports", document("build", {"weight": 5}))
    airflow.execute("UPDATE task_instance SET try_number = 2, external_executor_id = 'c2'")
    assert (await only(door)).label == HEAVY


@pytest.mark.parametrize("change", [None, RENAMED])
@pytest.mark.parametrize("state", ["running", "queued"])
async def test_a_task_whose_code_nobody_saw_is_protected(
    state: str,
    change: dict[str, Any] | None,
    airflow: AirflowTables,
    opened: Open,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Its DAG was renamed or removed before we asked: a label that may have been there is not denied."""
    airflow.task(key(), state)
    airflow.tag("reports", "drain:weight=5")
    if change is not None:
        airflow.write_anew("reports", change)
    door = opened(airflow)
    for _ in range(2):
        metadata = await door.read(["reports"], timeout_s=10)
        assert (
            metadata.instances[0].label
            == metadata.labels["reports"].of("build")
            == Label(protect=True, weight=5)
        )
    (record,) = caplog.records
    assert "reports" in record.getMessage()
    assert "no task build" in record.getMessage()


async def test_a_task_that_was_seen_without_a_label_stays_without(
    airflow: AirflowTables, opened: Open
) -> None:
    """A DAG that is removed while it runs holds up nothing, if somebody saw it before."""
    airflow.serialize("reports", document("build"))
    airflow.task(key(), "running")
    door = opened(airflow)
    assert (await only(door)).label == NO_LABEL
    airflow.forget("reports")
    assert (await only(door)).label == NO_LABEL


async def test_any_number_of_dags_is_labelled(airflow: AirflowTables, opened: Open) -> None:
    """More than any server takes in one list."""
    dag_ids = [f"dag_{number}" for number in range(1201)]
    airflow.tag("dag_0", "drain:protect")
    airflow.tag("dag_1200", "drain:protect")
    labels = (await opened(airflow).read(dag_ids, timeout_s=10)).labels
    assert labels.keys() == set(dag_ids)
    assert [dag_id for dag_id in dag_ids if labels[dag_id].dag == PROTECTED] == ["dag_0", "dag_1200"]


@pytest.mark.parametrize("name", ["postgresql-2", "sqlite-2"])
async def test_airflow_2_9_has_no_executor(name: str, new_tables: Tables, opened: Open) -> None:
    airflow = new_tables(name)
    airflow.execute("ALTER TABLE task_instance DROP COLUMN executor")
    AirflowTables(airflow.url).task(key(), "running")
    assert (await only(opened(airflow))).executor is None


@pytest.mark.parametrize("name", ["postgresql-3", "sqlite-3", "mariadb-3"])
async def test_the_executor_is_as_its_author_wrote_it(name: str, tables: Tables, opened: Open) -> None:
    airflow = tables(name)
    airflow.task(key(), "running", executor="KubernetesExecutor")
    assert (await only(opened(airflow))).executor == "KubernetesExecutor"


@pytest.mark.parametrize(
    ("name", "rows", "dag"),
    [
        ("postgresql-2", "af2_running1.json", "serialized_dag_v2.json"),
        ("postgresql-3", "af3_running1.json", "serialized_dag_v3.json"),
        ("sqlite-3", "af3_running2.json", "serialized_dag_v3.json"),
    ],
)
async def test_recorded_rows_are_read(name: str, rows: str, dag: str, tables: Tables, opened: Open) -> None:
    """Of a real Airflow: the DAG has the tag drain:weight=5, its task `prot` protects itself."""
    airflow, recorded = tables(name), recording(rows)["db"]
    airflow.recorded(recorded)
    airflow.serialize("lab_sleep", recording(dag))
    airflow.tag("lab_sleep", "drain:weight=5", "team-x")
    instances = (await opened(airflow).read(timeout_s=10)).instances
    expected = [row for row in recorded if row["state"] in ("running", "queued")]
    assert {
        (i.key.task_id, i.key.run_id, i.key.map_index, i.state, i.host, i.celery_id) for i in instances
    } == {
        (r["task_id"], r["run_id"], r["map_index"], r["state"], r["hostname"], r["external_executor_id"])
        for r in expected
    }
    assert {i.label for i in instances if i.key.task_id == "prot"} == {Label(protect=True, weight=5.0)}
    assert {i.label for i in instances if i.key.task_id.startswith("s")} == {HEAVY}


async def test_when_it_was_read_is_by_our_clock(airflow: AirflowTables, opened: Open) -> None:
    before = datetime.now(UTC)
    read_at = datetime.fromtimestamp((await opened(airflow).read(timeout_s=10)).read_at, UTC)
    assert before <= read_at <= before + timedelta(seconds=10)
