"""Label selectors as Kubernetes writes them into `?labelSelector=`. Pure.

Grammar and meaning follow apimachinery's labels package: `=`, `==`, `!=`, `in`, `notin`, `key`, `!key`, `>`
and `<`; `!=` and `notin` also match where the key is absent; `>` and `<` compare whole numbers.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice

from shared.errors import SelectorSyntaxError

Labels = Mapping[str, str]

_NAME = r"[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
_KEY = rf"(?P<key>(?:[a-z0-9](?:[-a-z0-9.]{{0,251}}[a-z0-9])?/)?{_NAME})"
_VALUE = rf"(?:{_NAME})?"
_NUMBER = r"-?[0-9]{1,18}"
"""Kubernetes takes 64 bits, which is hardly more; Python refuses to read thousands of digits."""
_FORMS = (
    ("exists", re.compile(rf"\s*{_KEY}\s*")),
    ("!", re.compile(rf"\s*!\s*{_KEY}\s*")),
    ("in", re.compile(rf"\s*{_KEY}\s+in\s*\((?P<values>[^()]*)\)\s*")),
    ("notin", re.compile(rf"\s*{_KEY}\s+notin\s*\((?P<values>[^()]*)\)\s*")),
    ("=", re.compile(rf"\s*{_KEY}\s*==?\s*(?P<values>{_VALUE})\s*")),
    ("!=", re.compile(rf"\s*{_KEY}\s*!=\s*(?P<values>{_VALUE})\s*")),
    (">", re.compile(rf"\s*{_KEY}\s*>\s*(?P<values>{_NUMBER})\s*")),
    ("<", re.compile(rf"\s*{_KEY}\s*<\s*(?P<values>{_NUMBER})\s*")),
)
_TERM = re.compile(r"[^,(]*(?:\([^)]*\)?[^,(]*)*")
"""Up to the next comma outside parentheses; it never goes back, so a megabyte of it costs little."""
_WHOLE_VALUE = re.compile(_VALUE)
LONGEST = 16 << 10
MOST_REQUIREMENTS = 100
_LONGEST_SHOWN = 100
"""Characters of a term that an error repeats."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Requirement:
    """One term of a selector."""

    key: str
    operator: str
    """exists, !, in, notin, =, !=, > or <."""
    values: tuple[str, ...] = ()

    def matches(self, labels: Labels) -> bool:
        return _OPERATORS[self.operator](labels.get(self.key), self.values)


@dataclass(frozen=True, slots=True, kw_only=True)
class Selector:
    """All requirements hold; none at all selects everything."""

    requirements: tuple[Requirement, ...] = ()

    def matches(self, labels: Labels) -> bool:
        return all(requirement.matches(labels) for requirement in self.requirements)


def parse_selector(text: str) -> Selector:
    """The selector of a labelSelector parameter; raises SelectorSyntaxError, also if it is too long."""
    if not text.strip():
        return Selector()
    # A megabyte of it would take seconds, in which nobody else is answered.
    found = tuple(islice(terms(text), MOST_REQUIREMENTS + 1)) if len(text) <= LONGEST else ()
    if not 0 < len(found) <= MOST_REQUIREMENTS:
        raise SelectorSyntaxError(
            f"A label selector has at most {LONGEST} characters and {MOST_REQUIREMENTS} requirements: "
            f"{_shown(text)} has more."
        )
    return Selector(requirements=tuple(map(_requirement, found)))


def terms(text: str) -> Iterator[str]:
    """A selector's requirements as they stand there."""
    position = 0
    while match := _TERM.match(text, position):
        yield match[0]
        if match.end() == len(text):
            return
        position = match.end() + 1


def _requirement(term: str) -> Requirement:
    for operator, form in _FORMS:
        if match := form.fullmatch(term):
            values = match.groupdict().get("values")
            return Requirement(key=match["key"], operator=operator, values=_values(term, operator, values))
    raise SelectorSyntaxError(
        f"{_shown(term)} is no label requirement: write key=value, key!=value, key in (a,b), "
        "key notin (a,b), key, !key, key>1 or key<1."
    )


def _values(term: str, operator: str, text: str | None) -> tuple[str, ...]:
    if text is None:
        return ()
    values = tuple(value.strip() for value in text.split(",")) if operator in ("in", "notin") else (text,)
    if operator not in (">", "<") and not all(_WHOLE_VALUE.fullmatch(value) for value in values):
        raise SelectorSyntaxError(f"{_shown(term)} has a value that no label can have.")
    return values


def _shown(term: str) -> str:
    text = term.strip()
    return repr(text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}…")


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and re.fullmatch(_NUMBER, text) else None


def _compare(better: Callable[[int, int], bool]) -> Callable[[str | None, tuple[str, ...]], bool]:
    def matches(value: str | None, values: tuple[str, ...]) -> bool:
        number = _number(value)
        return number is not None and better(number, int(values[0]))

    return matches


_OPERATORS: Mapping[str, Callable[[str | None, tuple[str, ...]], bool]] = {
    "exists": lambda value, _: value is not None,
    "!": lambda value, _: value is None,
    "in": lambda value, values: value is not None and value in values,
    "notin": lambda value, values: value is None or value not in values,
    "=": lambda value, values: value == values[0],
    "!=": lambda value, values: value != values[0],
    ">": _compare(lambda number, bound: number > bound),
    "<": _compare(lambda number, bound: number < bound),
}
