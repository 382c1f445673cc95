"""Connections to a metadata database: transactions that only read, made by threads that can be stopped.

Only this module knows SQLAlchemy. Everything in it blocks.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar, cast
from urllib.parse import quote

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from shared.airflow_deadlines import LINES, Deadline
from shared.airflow_queries import COLUMNS, TABLES, Dialect, Found, Query, Schema, begin, schema_of
from shared.configuration_values import DATABASE_SCHEMES
from shared.errors import DatabaseUnavailable
from shared.urls import database_address, redacted

Result = TypeVar("Result")

_RECYCLE_S = 300.0
"""A connection lives so long: columns are looked at once in its life, and Airflow may be upgraded."""
_STALLED_S = 10
"""After so long without a word of the server's a connection is given up, whoever waits for it."""
_MOST_KEYS = 500
"""In one IN (…)."""
_FORBIDDEN = {"42501", 1142, 1143}
"""SQLSTATE of PostgreSQL and error numbers of MySQL: no permission for a table or a column."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Transaction:
    """One that only reads, and what was found of the tables before."""

    schema: Schema
    name: str
    connection: sa.Connection

    def ask(self, query: Query[Found], keys: Collection[Any] | None = None) -> list[Found]:
        """The rows of a query; for any number of `keys`, where it takes them, in several steps."""
        if keys is None:
            return self._ask(query, {})
        return [row for some in in_steps(keys, most=_MOST_KEYS) for row in self._ask(query, {"keys": some})]

    def _ask(self, query: Query[Found], keys: Mapping[str, list[Any]]) -> list[Found]:
        statement = sa.text(query.sql)
        if keys:
            statement = statement.bindparams(sa.bindparam("keys", expanding=True))
        try:
            return list(map(query.row, self.connection.execute(statement, {**query.parameters, **keys})))
        except DBAPIError as error:
            if _code(error) in _FORBIDDEN:
                raise DatabaseUnavailable(
                    f"The user of the {self.name} may not read {query.table}: "
                    f"GRANT SELECT ON {', '.join(TABLES)} to it."
                ) from None
            raise


class Connections:
    """A few connections to one database, made when they are needed and again after it was away."""

    def __init__(self, url: str, *, most: int, connect_timeout_s: float) -> None:
        self._url = url
        self._name = f"metadata database at {database_address(url)}"
        self._most = most
        self._connect_timeout_s = connect_timeout_s
        self._lock = threading.Lock()
        self._made: sa.Engine | None = None
        self._is_closed = False
        self._thread = threading.local()
        """Its `deadline` is that of the work which the thread does."""

    @property
    def name(self) -> str:
        """Which database, for a sentence and without a secret."""
        return self._name

    def run(self, work: Callable[[Transaction], Result], *, deadline: Deadline) -> Result:
        """Do `work` in a transaction; if that fails once more, with a new look at the columns.

        So a connection that died while nobody used it, and a table that was changed, are no failures.
        Raises DatabaseUnavailable; `deadline` does not end it by itself.
        """
        try:
            try:
                return self._attempt(work, deadline)
            except DBAPIError:
                if not deadline.left_s:
                    raise
                return self._attempt(work, deadline)
        except SQLAlchemyError as error:
            raise DatabaseUnavailable(self._sentence(error)) from None
        except DatabaseUnavailable:
            raise
        except Exception as error:
            # A driver refuses what it cannot send, as NUL, with errors of Python's own.
            raise DatabaseUnavailable(f"The {self._name} failed: {type(error).__name__}.") from None

    def close(self) -> None:
        """Close the connections, those in use when their work is done."""
        self._is_closed = True
        if self._made is not None:
            self._made.dispose()

    def _attempt(self, work: Callable[[Transaction], Result], deadline: Deadline) -> Result:
        self._thread.deadline = deadline
        try:
            with self._connect() as connection:
                seen = connection.info
                try:
                    return work(self._begin(connection, seen, deadline))
                except DBAPIError:
                    seen.pop(_SCHEMA, None)
                    raise
                finally:
                    if self._is_closed:
                        connection.invalidate()
        finally:
            deadline.release()

    def _connect(self) -> sa.Connection:
        try:
            return self._engine().connect()
        except SQLAlchemyError:
            raise
        except Exception as error:
            # Drivers raise whatever they like for options in a URL that they do not know.
            raise DatabaseUnavailable(
                f"The {self._name} cannot be used as its URL is written ({type(error).__name__})."
            ) from None

    def _begin(self, connection: sa.Connection, seen: dict[Any, Any], deadline: Deadline) -> Transaction:
        dialect = _dialect(connection)
        for statement in begin(dialect, timeout_s=deadline.left_s):
            connection.exec_driver_sql(statement)
        if _SCHEMA not in seen:
            found = connection.exec_driver_sql(COLUMNS[Schema(dialect=dialect).family]).all()
            schema = schema_of(dialect, ((row[0], row[1]) for row in found))
            self._require_whole(schema)
            seen[_SCHEMA] = schema
        return Transaction(schema=seen[_SCHEMA], name=self._name, connection=connection)

    def _require_whole(self, schema: Schema) -> None:
        if schema.missing:
            raise DatabaseUnavailable(
                f"The user of the {self._name} sees no table {' and no table '.join(schema.missing)}: name "
                "Airflow's own database, and let the user read it with GRANT USAGE ON SCHEMA public "
                f"(on PostgreSQL) and GRANT SELECT ON {', '.join(TABLES)}."
            )

    def _engine(self) -> sa.Engine:
        with self._lock:
            if self._made is None:
                self._made = _engine(self._url, most=self._most, connect_timeout_s=self._connect_timeout_s)
                # The first, since SQLAlchemy asks a new connection things before it hands it out.
                sa.event.listen(self._made, "connect", self._hold, insert=True)
                sa.event.listen(self._made, "checkout", self._hold)
            return self._made

    def _hold(self, connection: Any, *_: Any) -> None:
        make_line = LINES.get(cast("sa.Engine", self._made).dialect.name)
        if make_line is not None:
            self._thread.deadline.hold(make_line(connection))

    def _sentence(self, error: SQLAlchemyError) -> str:
        """Of a foreign error the first line of what the database said: the rest may hold SQL."""
        text = type(error).__name__
        if isinstance(error, DBAPIError) and error.orig is not None and error.orig.args:
            text = str(error.orig.args[-1]).partition("\n")[0].strip() or text
        return f"The {self._name} failed: {redacted(text, url=self._url)}"


_SCHEMA = "celery_hpa_schema"


def _engine(url: str, *, most: int, connect_timeout_s: float) -> sa.Engine:
    scheme, _, rest = url.partition("://")
    parsed = sa.make_url(f"{DATABASE_SCHEMES.get(scheme, scheme)}://{rest}")
    options: dict[str, Any] = {}
    arguments: dict[str, Any] = {}
    match parsed.get_backend_name():
        case "postgresql":
            options = {"use_native_hstore": False}
            arguments = {
                "connect_timeout": max(2, round(connect_timeout_s)),
                "tcp_user_timeout": _STALLED_S * 1000,
                "keepalives_idle": _STALLED_S,
                "keepalives_interval": 3,
                "keepalives_count": 3,
                "application_name": "celery-hpa",
            }
        case "mysql":
            arguments = {
                "connect_timeout": max(1, round(connect_timeout_s)),
                "read_timeout": _STALLED_S,
                "write_timeout": _STALLED_S,
                "init_command": "SET time_zone = '+00:00'",
            }
        case "sqlite":
            file = f"file:{quote(parsed.database or '')}"
            parsed = parsed.set(database=file, query={"mode": "ro", "uri": "true"})
            arguments = {"timeout": 1.0}
    return sa.create_engine(
        parsed,
        pool_size=most,
        max_overflow=0,
        pool_recycle=_RECYCLE_S,
        pool_use_lifo=True,
        hide_parameters=True,
        connect_args={name: value for name, value in arguments.items() if name not in parsed.query},
        **options,
    )


def _dialect(connection: sa.Connection) -> Dialect:
    is_mariadb = getattr(connection.dialect, "is_mariadb", False)
    return cast("Dialect", "mariadb" if is_mariadb else connection.dialect.name)


def _code(error: DBAPIError) -> Any:
    """PostgreSQL's SQLSTATE, or MySQL's number."""
    state = getattr(error.orig, "pgcode", None)
    return state if state or error.orig is None or not error.orig.args else error.orig.args[0]


def in_steps(keys: Collection[Any], *, most: int) -> Iterator[list[Any]]:
    """All of these, so many at a time."""
    left = iter(keys)
    while some := list(islice(left, most)):
        yield some
