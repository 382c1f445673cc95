"""The SQL that is sent to Airflow's metadata database, made for the columns and the dialect it has. Pure.

Only these tables are read, and never task_instance.executor_config, which is a pickle.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, NamedTuple, TypeVar

Dialect = Literal["postgresql", "mysql", "mariadb", "sqlite"]

TABLES = ("task_instance", "dag_tag", "serialized_dag")
"""All that a user of ours must be allowed to read."""

COLUMNS: Mapping[Dialect, str] = {
    "postgresql": (
        "SELECT name, attname FROM unnest(ARRAY['task_instance', 'dag_tag', 'serialized_dag']) AS name "
        "JOIN pg_attribute ON attrelid = to_regclass(name) WHERE attnum > 0 AND NOT attisdropped"
    ),
    "mysql": (
        "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = DATABASE() "
        "AND table_name IN ('task_instance', 'dag_tag', 'serialized_dag')"
    ),
    "sqlite": (
        "SELECT m.name, c.name FROM sqlite_master AS m, pragma_table_info(m.name) AS c "
        "WHERE m.name IN ('task_instance', 'dag_tag', 'serialized_dag')"
    ),
}
"""Which columns there are, as pairs of table and column."""

_AGE = {
    "postgresql": "EXTRACT(EPOCH FROM clock_timestamp() - {since})",
    "mysql": "TIMESTAMPDIFF(MICROSECOND, {since}, UTC_TIMESTAMP(6)) / 1000000",
    "sqlite": "(julianday('now') - julianday({since})) * 86400",
}
"""Seconds by the database's clock; sessions on MySQL are in UTC."""
_SINCE = (
    "(CASE WHEN state = 'running' AND (queued_dttm IS NULL OR start_date >= queued_dttm) "
    "THEN start_date ELSE queued_dttm END)"
)
"""A task that was deferred or rescheduled keeps its first start, though it held no slot in between."""
_TEXT = {"postgresql": "TEXT", "mysql": "CHAR", "sqlite": "TEXT"}
_OPTIONAL = ("executor", "external_executor_id", "dag_version_id", "try_number")
"""Columns of task_instance that not every version has, or that we can do without."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Schema:
    """The columns that were found; they say which Airflow this is, as far as it matters."""

    dialect: Dialect
    task_instance: frozenset[str] = frozenset()
    dag_tag: frozenset[str] = frozenset()
    serialized_dag: frozenset[str] = frozenset()

    @property
    def has_versions(self) -> bool:
        """Airflow 3: a serialized DAG for each version, and tasks that know theirs."""
        return "dag_version_id" in self.task_instance and "dag_version_id" in self.serialized_dag

    @property
    def missing(self) -> tuple[str, ...]:
        """Tables that are not there, or of which this user may not know."""
        return tuple(table for table in TABLES if not getattr(self, table))

    @property
    def family(self) -> Dialect:
        """MariaDB speaks as MySQL does, but for its timeouts."""
        return "mysql" if self.dialect == "mariadb" else self.dialect


class Slot(NamedTuple):
    """A task instance that holds or waits for a slot, as `slots` has its columns."""

    dag_id: str
    task_id: str
    run_id: str
    map_index: int
    state: Literal["queued", "running"]
    queue: str | None
    hostname: str | None
    executor: str | None
    external_executor_id: str | None
    dag_version_id: Any
    try_number: int | None
    age_s: Any

    @property
    def instance(self) -> tuple[str, str, str, int]:
        """Which task instance it is."""
        return self[:4]


class Tag(NamedTuple):
    """A tag of a DAG."""

    dag_id: str
    name: str


class Stored(NamedTuple):
    """Which serialized DAG there is."""

    id: Any
    """Its dag_version_id, or for Airflow 2 its dag_id."""
    dag_id: str
    dag_hash: str
    written_at: Any


class Document(NamedTuple):
    """A serialized DAG."""

    id: Any
    dag_id: str
    dag_hash: str
    data: str | None
    data_compressed: bytes | memoryview | None


Found = TypeVar("Found")


@dataclass(frozen=True, slots=True, kw_only=True)
class Query(Generic[Found]):
    """A statement, and the table whose permission it needs."""

    table: str
    sql: str
    """With the named parameters :keys, a list, where it has one."""
    row: Callable[[Iterable[Any]], Found]
    """Makes what was found of the columns of a row."""
    parameters: Mapping[str, str] = field(default_factory=dict)
    """Others."""


def schema_of(dialect: Dialect, found: Iterable[tuple[str, str]]) -> Schema:
    """The schema with these pairs of table and column."""
    pairs = [(str(table).lower(), str(column).lower()) for table, column in found]
    columns = {table: frozenset(column for t, column in pairs if t == table) for table in TABLES}
    return Schema(dialect=dialect, **columns)


def begin(dialect: Dialect, *, timeout_s: float) -> tuple[str, ...]:
    """What makes the transaction one that only reads, and whose statements end by themselves.

    On PostgreSQL both hold for the transaction alone, so a pooler may give the connection to others after it.
    """
    milliseconds = max(1, int(timeout_s * 1000))
    match dialect:
        case "postgresql":
            return (f"SET TRANSACTION READ ONLY; SET LOCAL statement_timeout = {milliseconds}",)
        case "mysql":
            return (f"SET SESSION max_execution_time = {milliseconds}", "START TRANSACTION READ ONLY")
        case "mariadb":
            return (
                f"SET SESSION max_statement_time = {milliseconds / 1000:.3f}",
                "START TRANSACTION READ ONLY",
            )
        case "sqlite":
            return ("PRAGMA query_only = ON",)


def slots(schema: Schema) -> Query[Slot]:
    """Every task instance that holds or waits for a slot, through the index on state."""
    missing = set(_OPTIONAL) - schema.task_instance
    others = {name: f"NULL AS {name}" for name in missing}
    others["age_s"] = f"{_AGE[schema.family].format(since=_SINCE)} AS age_s"
    columns = (others.get(name, name) for name in Slot._fields)
    return Query(
        table="task_instance",
        sql=f"SELECT {', '.join(columns)} FROM task_instance WHERE state IN ('running', 'queued')",
        row=Slot._make,
    )


def tags(*, prefix: str) -> Query[Tag]:
    """The tags of DAGs, by dag_id, that may be labels."""
    return Query(
        table="dag_tag",
        sql="SELECT dag_id, name FROM dag_tag WHERE dag_id IN :keys AND name LIKE :pattern",
        row=Tag._make,
        parameters={"pattern": f"%{prefix}%"},
    )


def hashes_of_versions() -> Query[Stored]:
    """Of serialized DAGs by dag_version_id."""
    return _hashes("dag_version_id", by="dag_version_id", written_at="created_at")


def hashes_of_latest(schema: Schema) -> Query[Stored]:
    """Of serialized DAGs by dag_id: all versions that there are.

    Airflow 3 has no index for that: it is asked for DAGs only of which no task instance names a version.
    """
    if schema.has_versions:
        return _hashes("dag_version_id", by="dag_id", written_at="created_at")
    return _hashes("dag_id", by="dag_id", written_at="last_updated")


def documents(schema: Schema, *, word: str) -> Query[Document]:
    """Serialized DAGs by what the queries above call `id`; plain ones only where `word` is a string in them.

    Most DAGs have no labels: their documents, of megabytes at times, stay where they are.
    """
    key = "dag_version_id" if schema.has_versions else "dag_id"
    text = f"CAST(data AS {_TEXT[schema.family]})"
    compressed = "data_compressed" if "data_compressed" in schema.serialized_dag else "NULL"
    return Query(
        table="serialized_dag",
        sql=f"SELECT {key} AS id, dag_id, dag_hash, CASE WHEN {text} LIKE :pattern THEN {text} END AS data, "
        f"{compressed} AS data_compressed FROM serialized_dag WHERE {key} IN :keys",
        row=Document._make,
        parameters={"pattern": f'%"{word}"%'},
    )


def _hashes(id: str, *, by: str, written_at: str) -> Query[Stored]:
    return Query(
        table="serialized_dag",
        sql=f"SELECT {id} AS id, dag_id, dag_hash, {written_at} AS written_at FROM serialized_dag "
        f"WHERE {by} IN :keys",
        row=Stored._make,
    )
