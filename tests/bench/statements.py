"""What is really sent to a database: each statement, how long it took, and PostgreSQL's plan for it."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg2
from sqlalchemy import event
from sqlalchemy.engine import Engine

Parameters = Mapping[str, Any] | Sequence[Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """A statement with what was filled in."""

    sql: str
    parameters: Parameters
    seconds: float
    """Until all its rows were here."""

    @property
    def shape(self) -> str:
        """The same for statements that differ in how many values they look for."""
        return re.sub(r"\bIN \([^()]*(?:\(\w+\)[^()]*)+\)", "IN (…)", " ".join(self.sql.split()))

    @property
    def tables(self) -> tuple[str, ...]:
        """Of Airflow, not of PostgreSQL."""
        return tuple(dict.fromkeys(re.findall(r"\b(?:FROM|JOIN) (?!pg_)(\w+)\b(?!\()", self.sql)))

    @property
    def name(self) -> str:
        """Its table, by what it is looked up, and whether the documents are read."""
        by = next(iter(re.findall(r"\bWHERE (\w+)", self.sql)), "nothing")
        documents = ", documents" if "data_compressed" in self.sql else ""
        return f"{', '.join(self.tables)} by {by}{documents}"


@contextmanager
def sent_statements() -> Iterator[list[Sent]]:
    """Fills with what any engine of this process sends while the block lasts."""
    sent: list[Sent] = []
    started: dict[int, float] = {}

    def before(_: Any, cursor: Any, *__: Any) -> None:
        started[id(cursor)] = time.perf_counter()

    def after(_: Any, cursor: Any, sql: str, parameters: Parameters, *__: Any) -> None:
        seconds = time.perf_counter() - started.pop(id(cursor))
        sent.append(Sent(sql=sql, parameters=parameters, seconds=seconds))

    event.listen(Engine, "before_cursor_execute", before)
    event.listen(Engine, "after_cursor_execute", after)
    try:
        yield sent
    finally:
        event.remove(Engine, "before_cursor_execute", before)
        event.remove(Engine, "after_cursor_execute", after)


def plan_of(statement: Sent, *, url: str) -> str:
    """How PostgreSQL runs it now, as EXPLAIN (ANALYZE, BUFFERS) prints it, with long lists made short."""
    with closing(psycopg2.connect(url)) as connection, connection.cursor() as cursor:
        cursor.execute(f"EXPLAIN (ANALYZE, BUFFERS) {statement.sql}", statement.parameters)
        return "\n".join(re.sub(r"('\{[^,}]*),[^}]*,", r"\1, …, ", line) for (line,) in cursor.fetchall())


def sequential_scans(plan: str) -> frozenset[str]:
    """Tables that a plan reads from one end to the other."""
    return frozenset(re.findall(r"Seq Scan on (?:\w+\.)?(\w+)", plan))
