"""The configuration file: what it may say, what it says by default, and how its mistakes are told."""

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from shared.configuration_values import broker_url_mistake
from shared.errors import ConfigurationError
from shared.pools import Configuration, Pool, parse_configuration
from shared.workers import NO_LABEL, Label, Task, TaskKey


def pool(name: Any = "default", **fields: Any) -> dict[str, Any]:
    """The least that a pool needs; a field that is None is left out."""
    document = {
        "name": name,
        "namespace": "airflow",
        "workload": {"name": f"{name}-worker" if name in ("a", "b", "same") else "worker"},
        "queues": ["default"],
        "slotsPerWorker": 16,
        "broker": {"url": "redis://:secret@redis/0"},
    }
    return {key: value for key, value in (document | fields).items() if value is not None}


def read(*pools: dict[str, Any], **fields: Any) -> Configuration:
    return parse_configuration(yaml.safe_dump({"pools": list(pools), **fields}))


def read_pool(**fields: Any) -> Pool:
    return read(pool(**fields)).pools[0]


def mistakes(text: str) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        parse_configuration(text)
    return list(map(str, caught.value.mistakes))


def mistakes_in(*pools: dict[str, Any], **fields: Any) -> list[str]:
    return mistakes(yaml.safe_dump({"pools": list(pools), **fields}))


def test_the_least_that_is_needed_and_what_it_means() -> None:
    configuration = read(pool())
    only = configuration.pools[0]
    assert (configuration.refresh, configuration.max_age, configuration.round_ttl) == (5.0, 60.0, 40.0)
    assert (only.workload.kind, only.worker_name) == ("Deployment", "celery@{pod}")
    assert (only.algorithm.target, only.algorithm.scale_up_above) == (Decimal("0.8"), None)
    assert (only.drain.when_busy, only.drain.during_rollout, only.drain.max_wait) == ("wait", "deny", None)


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("1.5s", 1.5), ("5m", 300), ("1h30m", 5400), (90, 90), (0.5, 0.5)]
)
def test_durations(text: object, seconds: float) -> None:
    assert read_pool(drain={"maxWait": text}).drain.max_wait == seconds


@pytest.mark.parametrize("text", ["", "5", "5 m", "m", "1h 30m", "-5s", True, [], "1d"])
def test_what_is_no_duration(text: object) -> None:
    expected = ["pools[0].drain.maxWait: write a duration as 90s, 5m or 1h30m"]
    assert mistakes_in(pool(drain={"maxWait": text})) == expected


@pytest.mark.parametrize("text", ["0.8", 0.8])
def test_a_ratio_is_exact_in_quotes_or_without(text: object) -> None:
    assert read_pool(algorithm={"target": text}).algorithm.target == Decimal("0.8")


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"name": None}, "pools[0].name: this key is required"),
        ({"name": "Not_A_Name"}, "pools[0].name: write a Kubernetes name"),
        ({"name": 5}, "pools[0].name: write a text"),
        ({"queues": []}, "pools[0].queues: name at least 1"),
        ({"queues": "default"}, "pools[0].queues: write a list, as [a, b]"),
        ({"queues": ["a", "b", "a"]}, "pools[0].queues: name each queue once: a stands here more often"),
        ({"queues": [""]}, "pools[0].queues[0]: this must not be empty"),
        ({"slotsPerWorker": 0}, "pools[0].slotsPerWorker: write a number of at least 1"),
        ({"slotsPerWorker": "many"}, "pools[0].slotsPerWorker: write a whole number"),
        ({"slotsPerWorker": 1.5}, "pools[0].slotsPerWorker: write a whole number"),
        ({"slotsPerWorker": True}, "pools[0].slotsPerWorker: write a number"),
        ({"workload": "worker"}, "pools[0].workload: write a mapping, as {key: value}"),
        ({"workerName": "celery"}, 'pools[0].workerName: write {pod} in it once, as "celery@{pod}"'),
        ({"cost": {"exponent": 11}}, "pools[0].cost.exponent: write a number of at most 10"),
        ({"cost": {"unitSeconds": 0}}, "pools[0].cost.unitSeconds: write a number above 0"),
        ({"cost": {"exponent": "x"}}, "pools[0].cost.exponent: write a number"),
        ({"cost": {"exponent": float("inf")}}, "pools[0].cost.exponent: write a finite number"),
        ({"algorithm": {"target": "x"}}, "pools[0].algorithm.target: write a number, as 0.8"),
        ({"algorithm": {"target": "0.8001"}}, "pools[0].algorithm.target: at most three decimals"),
        (
            {"algorithm": {"scaleUpAbove": "0.7"}},
            "pools[0].algorithm.scaleUpAbove: write a number that is not below target",
        ),
        (
            {"algorithm": {"scaleDownBelow": "0.9"}},
            "pools[0].algorithm.scaleDownBelow: write a number that is not above target",
        ),
        ({"algorithm": {"name": "fuzzy"}}, "pools[0].algorithm.name: write 'load_factor'"),
        ({"drain": {"whenBusy": "hope"}}, "pools[0].drain.whenBusy: write 'wait' or 'proceed'"),
        ({"drain": {"enabled": "perhaps"}}, "pools[0].drain.enabled: write true or false"),
        ({"drain": {"holdSeconds": 26}}, "pools[0].drain.holdSeconds: write a number of at most 25"),
        ({"broker": {}}, "pools[0].broker.urlFrom: name exactly one of url and urlFrom"),
        (
            {"broker": {"url": "redis://r", "urlFrom": {"env": "E"}}},
            "pools[0].broker.urlFrom: name exactly one of url and urlFrom",
        ),
        ({"broker": {"urlFrom": {}}}, "pools[0].broker.urlFrom.env: name exactly one of file and env"),
        ({"broker": {"url": "sqs://"}}, "pools[0].broker.url: write the broker's URL beginning with"),
        *(
            (
                {"broker": {"url": url}},
                "pools[0].broker.url: write the broker's URL as redis://USER:PASSWORD@",
            )
            for url in ("redis://:se/cret@r", "redis://:se#cret@r", "redis://:1?cret@r", "redis://r:99999")
        ),
        ({"airflow": True}, "pools[0].airflow: write a mapping, as {key: value}"),
        ({"airflow": {}}, "pools[0].airflow.databaseFrom: name exactly one of database and databaseFrom"),
        (
            {"airflow": {"database": "postgresql://u:p@r/airflow", "databaseFrom": {"env": "E"}}},
            "pools[0].airflow.databaseFrom: name exactly one of database and databaseFrom",
        ),
        (
            {"queues": ["a", "kubernetes"], "airflow": {"databaseFrom": {"env": "E"}}},
            "pools[0].airflow: queues names kubernetesQueue, whose tasks run in pods of their own",
        ),
        ({"labels": [{"protect": True}]}, "pools[0].labels[0].dag: name task, dag or both"),
        ({"labels": [{"dag": ""}]}, "pools[0].labels[0].dag: this must not be empty"),
        ({"slotPerWorker": 5}, "pools[0].slotPerWorker: this key is not known; did you mean slotsPerWorker?"),
        (
            {"drain": {"zzz": 1}},
            "pools[0].drain.zzz: this key is not known; "
            "there are duringRollout, enabled, holdSeconds, maxRolloutWait, maxWait, whenBusy",
        ),
    ],
)
def test_each_mistake_is_told_with_its_path_and_what_would_be_right(
    fields: dict[str, Any], expected: str
) -> None:
    (mistake,) = mistakes_in(pool(**fields))
    assert mistake.startswith(expected)


def test_every_mistake_is_told_at_once_and_no_echo_of_one() -> None:
    """Mistakes in single keys hide neither each other, nor those between keys and between pools."""
    one = pool("same", slotsPerWorker=0, broker={"url": "redis://a", "urlFrom": {"env": "E"}, "urlfrom": 1})
    two = pool("same", queues=[], algorithm={"target": "0.5", "scaleUpAbove": "0.4", "name": "x"})
    assert mistakes_in(one, two, refresh="5m", maxAge="1m", roundTtl="soon") == [
        "pools[0].slotsPerWorker: write a number of at least 1",
        "pools[0].broker.urlFrom: name exactly one of url and urlFrom",
        "pools[0].broker.urlfrom: this key is not known; did you mean urlFrom?",
        "pools[1].queues: name at least 1",
        "pools[1].algorithm.name: write 'load_factor'",
        "pools[1].algorithm.scaleUpAbove: write a number that is not below target",
        "maxAge: write more than refresh is, or nothing is ever served",
        "roundTtl: write a duration as 90s, 5m or 1h30m",
        "pools[1].name: pools[0] of the same namespace has this name already: choose another",
        "pools[1].workload.name: this workload belongs to pools[0] already: a workload has one pool",
    ]


def test_the_same_name_in_another_namespace_is_another_pool() -> None:
    assert len(read(pool(), pool(namespace="other")).pools) == 2


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "write a mapping with the key pools"),
        ("[1]", "write a mapping with the key pools"),
        ("{}", "pools: this key is required"),
        ("pools: []", "pools: name at least 1"),
        ("pools: 5", "pools: write a list, as [a, b]"),
        ("pools: [5]", "pools[0]: write a mapping, as {key: value}"),
        ("5: x\npools: []", "pools: name at least 1"),
        ("pools: [\n", "this is no YAML: "),
        ("a: 1\na: 2", "this is no YAML: the key a stands twice (line 1, column 1)"),
        ("a: 2026-99-99", "this is no YAML: a date or a tagged value cannot be read"),
        ("a: !!python/object:os.system x", "this is no YAML: could not determine a constructor"),
        ("a: 1\n---\nb: 2", "this is no YAML: but found another document"),
        ("a: \x00", "this is no YAML: special characters are not allowed"),
        ("[" * 5000, "this is no YAML: it is nested too deeply"),
    ],
)
def test_a_file_that_is_something_else_altogether(text: str, expected: str) -> None:
    assert any(mistake.startswith(expected) for mistake in mistakes(text)), mistakes(text)


def test_no_mistake_repeats_a_value() -> None:
    """A password may stand anywhere: in the wrong key, in the wrong form."""
    told = mistakes_in(
        pool(name="hunter2 ", slotsPerWorker="hunter2", broker={"url": "hunter2", "urlFrom": "hunter2"}),
        pool(name={"hunter2": 1}, queues="hunter2", drain={"maxWait": "hunter2", "whenBusy": "hunter2"}),
    )
    assert len(told) >= 8
    assert "hunter2" not in "".join(told)


def test_a_password_shows_in_no_representation() -> None:
    options = {"sentinel_kwargs": {"password": "secret"}}
    assert "secret" not in repr(read_pool(broker={"url": "redis://:secret@r/0", "transportOptions": options}))


def seen(pool: Pool, task: Task) -> tuple[bool, float]:
    return pool.is_protected(task), pool.weight(task)


def airflow_task(dag_id: str, task_id: str, label: Label | None = None) -> Task:
    key = TaskKey(dag_id=dag_id, task_id=task_id, run_id="r")
    return Task(id="1", name="execute_workload", key=key, label=label)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("billing.charge", (True, 2.0)),
        ("billing.report", (True, 5.0)),
        ("other", (False, 2.0)),
    ],
)
def test_a_label_protects_or_weighs_by_the_name_of_the_task(name: str, expected: tuple[bool, float]) -> None:
    rules = [
        {"task": "billing.*", "protect": True},
        {"task": "*.report", "weight": 5},
        {"task": "*", "weight": 2},
    ]
    assert seen(read_pool(labels=rules), Task(id="1", name=name)) == expected


@pytest.mark.parametrize(
    ("task", "expected"),
    [
        (airflow_task("nightly_a", "load"), (True, 3.0)),
        (airflow_task("nightly_a", "report_all"), (True, 5.0)),
        (airflow_task("hourly", "report_all"), (False, 2.0)),
        (airflow_task("hourly", "group.report_all"), (False, 1.0)),
        (airflow_task("hourly", "load"), (False, 1.0)),
        (Task(id="1", name="report_all"), (False, 2.0)),
        (Task(id="1", name="nightly_a"), (False, 1.0)),
        (Task(id="1", name="execute_workload"), (False, 9.0)),
    ],
)
def test_a_label_by_dag_and_by_task_id(task: Task, expected: tuple[bool, float]) -> None:
    """A rule with both fits where both do; an Airflow task goes by its task_id, not by its name in Celery."""
    rules = [
        {"dag": "nightly_*", "protect": True},
        {"dag": "nightly_*", "task": "report*", "weight": 5},
        {"task": "report*", "weight": 2},
        {"dag": "nightly_*", "weight": 3},
        {"task": "execute_*", "weight": 9},
    ]
    assert seen(read_pool(labels=rules), task) == expected


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        (None, (False, 1.0)),
        (NO_LABEL, (False, 1.0)),
        (Label(weight=7), (False, 7.0)),
        (Label(weight=0), (False, 0.0)),
        (Label(protect=True), (True, 1.0)),
    ],
)
def test_a_label_in_airflow_counts_as_one_here(label: Label | None, expected: tuple[bool, float]) -> None:
    assert seen(read_pool(), airflow_task("hourly", "load", label)) == expected


@given(
    protect=st.booleans(), weight=st.none() | st.floats(0, 100), label=st.builds(Label, protect=st.booleans())
)
def test_rules_go_before_labels_in_airflow_and_protection_adds_up(
    protect: bool, weight: float | None, label: Label
) -> None:
    """The file is the operator's, who has the last word on weights; nobody can take protection away."""
    rule = {"dag": "*", "protect": protect} | ({} if weight is None else {"weight": weight})
    found = seen(read_pool(labels=[rule]), airflow_task("d", "t", replace(label, weight=7)))
    assert found == (protect or label.protect, 7 if weight is None else weight)


def test_an_airflow_pool() -> None:
    """What it means when only the database is named."""
    airflow = read_pool(airflow={"database": "postgresql://u:secret@r/airflow"}).airflow
    assert airflow is not None
    assert (airflow.kubernetes_queue, airflow.executor, airflow.is_default_executor) == (
        "kubernetes",
        "CeleryExecutor",
        True,
    )
    assert "secret" not in repr(airflow)


def test_the_pool_of_a_workload() -> None:
    configuration = read(pool("a"), pool("b"))
    found = configuration.pool_of(kind="Deployment", namespace="airflow", name="b-worker")
    assert found == configuration.pools[1]
    assert configuration.pool_of(kind="Deployment", namespace="other", name="b-worker") is None
    assert configuration.pool_of(kind="StatefulSet", namespace="airflow", name="b-worker") is None


KEYS = st.sampled_from(
    [
        *("pools", "name", "namespace", "workload", "kind", "queues", "slotsPerWorker", "broker", "url"),
        *("urlFrom", "file", "env", "algorithm", "target", "scaleUpAbove", "labels", "task", "weight"),
        *("cost", "exponent", "drain", "maxWait", "holdSeconds", "refresh", "maxAge", "zzz"),
        *("airflow", "database", "databaseFrom", "kubernetesQueue", "executor", "isDefaultExecutor", "dag"),
    ]
)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(["Deployment", "1h", "0.8", "redis://r/0", "celery@{pod}", 10**400, "9" * 400 + "h"])
    | st.binary(max_size=4)
    | st.datetimes()
)
DOCUMENTS = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(KEYS | st.text(max_size=5) | st.integers(), inner, max_size=6)
    ),
    max_leaves=30,
)


def is_read_or_told(text: str) -> bool:
    """Anything but ConfigurationError would be a traceback for whoever wrote the file."""
    try:
        return bool(parse_configuration(text).pools)
    except ConfigurationError as error:
        return bool(error.mistakes)


@given(DOCUMENTS.map(yaml.safe_dump) | st.text(max_size=200))
def test_whatever_is_in_the_file_it_is_a_configuration_or_mistakes(text: str) -> None:
    assert is_read_or_told(text)


@given(st.dictionaries(KEYS, DOCUMENTS, max_size=8))
def test_whatever_is_in_a_pool_it_is_a_pool_or_mistakes(fields: dict[str, Any]) -> None:
    assert is_read_or_told(yaml.safe_dump({"pools": [pool() | fields], **fields}))


@pytest.mark.parametrize(
    "url",
    [
        "redis://",
        "redis:///0",
        "redis://:p%2Fss@host:6379/0",
        "redis://user:p@ss@host",
        "redis+socket:///run/redis.sock?virtual_host=0",
        "sentinel://:a@one:26379;sentinel://two:26379",
        "amqp://u:p@one:5672//;u:p@two:5672//",
        "amqp://[::1]:5672",
    ],
)
def test_broker_urls_that_kombu_can_read(url: str) -> None:
    assert broker_url_mistake(url) is None
