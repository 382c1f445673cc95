"""docs/airflow.md: who does what it says gets what it promises."""

import ast
from collections.abc import Iterator

import psycopg2
import pymysql
import pytest
import yaml
from sqlalchemy.engine import URL, make_url

from metrics_adapter.catalogue import METRICS
from shared.airflow_labels import parse_tag
from shared.airflow_queries import TABLES
from shared.pools import Pool, parse_configuration
from tests.airflow_page import PAGE, grants, snippets
from tests.deploy.manifests import Document, container
from tests.mariadb import mariadb
from tests.postgres import PostgresServer, airflow_schema, postgresql

ROLE = "celery_hpa"


def documents() -> list[Document]:
    return [yaml.safe_load(text) for text in snippets("yaml")]


def configurations() -> list[Pool]:
    found = [text for text in snippets("yaml") if "pools" in yaml.safe_load(text)]
    return [pool for text in found for pool in parse_configuration(text).pools]


def autoscaler() -> Document:
    (found,) = [document for document in documents() if document.get("kind") == "HorizontalPodAutoscaler"]
    return found


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with postgresql() as server:
        server.create_database("airflow", airflow_schema(3))
        server.execute(grants("postgresql"), database="airflow")
        yield server


@pytest.mark.parametrize("pool", configurations())
def test_its_configurations_are_taken(pool: Pool) -> None:
    assert pool.airflow is not None


@pytest.mark.parametrize("service", ["metrics-adapter", "drain-hook"])
def test_its_secrets_are_what_the_services_get(service: str) -> None:
    """Under the names that its configuration takes them by."""
    variables = {one["name"]: one["valueFrom"].get("secretKeyRef") for one in container(service)["env"]}
    for pool in configurations():
        assert pool.broker.url_from is not None
        assert pool.airflow is not None
        assert pool.airflow.database_from is not None
        for source in (pool.broker.url_from, pool.airflow.database_from):
            secret = variables[source.env]
            assert secret["optional"] is True
            assert f"create secret generic {secret['name']} " in PAGE.read_text()
            assert f"--from-literal={secret['key']}=" in PAGE.read_text()


def test_its_autoscaler_is_of_its_pool() -> None:
    pool, spec = configurations()[0], autoscaler()["spec"]
    (metric,) = spec["metrics"]
    assert metric["external"]["metric"]["selector"]["matchLabels"] == {"pool": pool.name}
    assert metric["external"]["metric"]["name"] in METRICS
    assert (spec["scaleTargetRef"]["kind"], spec["scaleTargetRef"]["name"]) == (
        pool.workload.kind,
        pool.workload.name,
    )
    assert autoscaler()["metadata"]["namespace"] == pool.namespace


def test_its_target_is_the_slots_of_a_worker_times_the_load_wanted() -> None:
    pool, (metric,) = configurations()[0], autoscaler()["spec"]["metrics"]
    wanted = pool.slots_per_worker * pool.algorithm.target * 1000
    assert metric["external"]["target"] == {"type": "AverageValue", "averageValue": f"{int(wanted)}m"}


def test_the_charts_values_make_the_same_autoscaler() -> None:
    (values,) = [document for document in documents() if "workers" in document]
    hpa, spec = values["workers"]["celery"]["hpa"], autoscaler()["spec"]
    assert (hpa["minReplicaCount"], hpa["maxReplicaCount"]) == (spec["minReplicas"], spec["maxReplicas"])
    assert (hpa["metrics"], hpa["behavior"]) == (spec["metrics"], spec["behavior"])


def test_its_role_may_read_what_is_read(server: PostgresServer) -> None:
    """And who it is need not be known to anybody else: nothing is granted to all."""
    for table in TABLES:
        assert server.execute(f"SELECT count(*) FROM {table}", database="airflow", user=ROLE) == [(0,)]


@pytest.mark.parametrize("statement", ["SELECT 1 FROM connection", "DELETE FROM task_instance"])
def test_its_role_may_do_nothing_else(server: PostgresServer, statement: str) -> None:
    with pytest.raises(psycopg2.errors.InsufficientPrivilege):
        server.execute(statement, database="airflow", user=ROLE)


def test_its_role_on_mysql_may_read_that_and_nothing_else() -> None:
    with mariadb() as server:
        root = make_url(server.url)
        _run(root, *(f"CREATE TABLE {table} (dag_id INT)" for table in (*TABLES, "connection")))
        _run(root, *filter(str.strip, grants("mysql").split(";")))
        reader = root.set(username=ROLE, password="change-me")
        _run(reader, *(f"SELECT count(*) FROM {table}" for table in TABLES))
        for refused in ("SELECT 1 FROM connection", "DELETE FROM task_instance"):
            with pytest.raises(pymysql.err.OperationalError, match="denied"):
                _run(reader, refused)


def _run(url: URL, *statements: str) -> None:
    connection = pymysql.connect(
        host=url.host, port=url.port, user=url.username, password=url.password or "", database=url.database
    )
    with connection, connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)


def test_its_dag_is_python_with_tags_that_are_labels() -> None:
    (text,) = snippets("python")
    values = [node.value for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Constant)]
    tags = [value for value in values if isinstance(value, str) and value.startswith("drain:")]
    assert [parse_tag(tag) is not None for tag in tags] == [True, True]


def test_every_metric_that_it_names_is_served() -> None:
    named = {word.strip("`,:") for word in PAGE.read_text().split() if word.startswith("`celery_")}
    assert named - {"`celery_hpa`", "celery_hpa"} <= set(METRICS)
