"""Queries in PromQL, as far as they name figures and labels."""

from collections.abc import Iterator
from dataclasses import dataclass

import promql_parser
from promql_parser import AggregateExpr, Expr, Matcher, VectorSelector

GRAFANA = {"$__rate_interval": "5m", "$namespace": "default", "$pool": "default", "${datasource}": "ds"}
"""What Grafana puts in place of its variables."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """A series that a query selects."""

    name: str
    matchers: tuple[Matcher, ...]

    def alternatives(self, label: str) -> set[str]:
        """The values that a label is compared with, those of `a|b` one by one."""
        return {
            value for matcher in self.matchers if matcher.name == label for value in matcher.value.split("|")
        }


def parsed(query: str) -> Expr:
    """Raises ValueError for what Prometheus would not take."""
    for variable, value in GRAFANA.items():
        query = query.replace(variable, value)
    expression = promql_parser.parse(query)
    assert isinstance(expression, Expr)
    return expression


def parts(query: str) -> list[Expr]:
    found: list[Expr] = []
    promql_parser.walk(parsed(query), found.append)
    return found


def series(query: str) -> Iterator[Use]:
    for part in parts(query):
        if isinstance(part, VectorSelector):
            yield Use(name=part.name or "", matchers=tuple(part.matchers.matchers))


def grouped_by(query: str) -> set[str]:
    """Labels that an aggregation keeps."""
    return {
        label
        for part in parts(query)
        if isinstance(part, AggregateExpr) and part.modifier
        for label in part.modifier.labels
    }
