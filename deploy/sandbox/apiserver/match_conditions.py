"""The part of CEL that match conditions of webhooks are written in.

Comparisons, `in`, `&&`, `||`, `!`, `has()`, fields with `.name`, `['name']` and the optional `.?name` with
`orValue()`, the string tests contains, startsWith and endsWith, and literals. Everything else is refused when
the configuration is written: better than a condition that means something else here than in a cluster.
"""

import operator
import re
from collections.abc import Callable, Mapping
from typing import Any

Variables = Mapping[str, Any]
Expression = Callable[[Variables], Any]

VARIABLES = ("object", "oldObject", "request")
_TOKEN = re.compile(
    r"\s*(?:(?P<number>\d+(?:\.\d+)?)|(?P<text>'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\")"
    r"|(?P<name>[A-Za-z_]\w*)|(?P<sign>&&|\|\||[=!<>]=|\.\?|[-<>!().,\[\]]))"
)
_COMPARISONS: Mapping[str, Callable[[Any, Any], Any]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "in": lambda item, collection: item in collection,
}
_STRING_TESTS: Mapping[str, Callable[[str, str], bool]] = {
    "contains": lambda text, part: part in text,
    "startsWith": str.startswith,
    "endsWith": str.endswith,
}
_CONSTANTS = {"true": True, "false": False, "null": None}


class ConditionSyntaxError(Exception):
    """An expression outside the grammar above; the text says where."""


class ConditionError(Exception):
    """An expression that cannot be evaluated on this object, in CEL's words."""


class _Absent:
    """What an optional field is when it is not there."""


ABSENT = _Absent()


def parse_condition(text: str) -> Expression:
    """The expression as a function of the variables, which raises ConditionError.

    Raises ConditionSyntaxError for what is not CEL, or is CEL that this sandbox does not know.
    """
    parser = _Parser(text)
    expression = parser.disjunction()
    parser.expect("")
    return expression


def _tokens(text: str) -> list[tuple[str, str]]:
    found, position, text = [], 0, text.rstrip()
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise ConditionSyntaxError(f"the sandbox cannot read {text!r} at character {position + 1}")
        found.append((str(match.lastgroup), match.group(str(match.lastgroup))))
        position = match.end()
    return [*found, ("end", "")]


class _Parser:
    """Recursive descent, one method for each level of precedence."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._rest = _tokens(text)

    def expect(self, sign: str) -> None:
        if not self._take(sign):
            found = self._rest[0][1] or "the end"
            wanted = sign or "the end"
            raise ConditionSyntaxError(f"the sandbox cannot read {self._text!r}: {wanted} instead of {found}")

    def _take(self, sign: str) -> bool:
        kind, value = self._rest[0]
        if value != sign or kind == "text":
            return False
        if kind != "end":
            del self._rest[0]
        return True

    def disjunction(self) -> Expression:
        return self._chain("||", self._conjunction, decides=True)

    def _conjunction(self) -> Expression:
        return self._chain("&&", self._comparison, decides=False)

    def _chain(self, sign: str, operand: Callable[[], Expression], *, decides: bool) -> Expression:
        parts = [operand()]
        while self._take(sign):
            parts.append(operand())
        return parts[0] if len(parts) == 1 else _logic(parts, decides)

    def _comparison(self) -> Expression:
        left = self._unary()
        for sign, compare in _COMPARISONS.items():
            if self._take(sign):
                return _binary(sign, compare, left, self._unary())
        return left

    def _unary(self) -> Expression:
        if self._take("!"):
            operand = self._unary()
            return lambda variables: not _boolean(operand(variables))
        if self._take("-"):
            operand = self._unary()
            return lambda variables: -operand(variables)
        return self._member(self._primary())

    def _primary(self) -> Expression:
        kind, value = self._rest.pop(0)
        if kind == "number":
            number: float = float(value) if "." in value else int(value)
            return lambda _: number
        if kind == "text":
            literal = re.sub(r"\\(.)", r"\1", value[1:-1])
            return lambda _: literal
        if value == "(":
            inner = self.disjunction()
            self.expect(")")
            return inner
        if value == "[":
            return self._list()
        if value == "has":
            return self._has()
        if value in _CONSTANTS:
            return lambda _: _CONSTANTS[value]
        if value in VARIABLES:
            return lambda variables: variables[value]
        raise ConditionSyntaxError(f"the sandbox does not know {value or 'the end'!r} in {self._text!r}")

    def _list(self) -> Expression:
        items: list[Expression] = []
        while not self._take("]"):
            items.append(self.disjunction())
            if not self._take(","):
                self.expect("]")
                break
        return lambda variables: [item(variables) for item in items]

    def _has(self) -> Expression:
        self.expect("(")
        field = self._unary()
        self.expect(")")

        def present(variables: Variables) -> bool:
            try:
                return field(variables) is not ABSENT
            except ConditionError:
                return False

        return present

    def _member(self, target: Expression) -> Expression:
        while True:
            if self._take(".?"):
                target = _field(target, self._name(), optional=True)
            elif self._take("."):
                name = self._name()
                target = self._call(target, name) if self._take("(") else _field(target, name)
            elif self._take("["):
                index = self.disjunction()
                self.expect("]")
                target = _index(target, index)
            else:
                return target

    def _name(self) -> str:
        kind, value = self._rest.pop(0)
        if kind != "name":
            raise ConditionSyntaxError(f"the sandbox misses a field name after the dot in {self._text!r}")
        return value

    def _call(self, target: Expression, method: str) -> Expression:
        if method not in (*_STRING_TESTS, "orValue"):
            raise ConditionSyntaxError(f"the sandbox does not know {method}() in {self._text!r}")
        argument = self.disjunction()
        self.expect(")")
        if method == "orValue":
            return lambda variables: _or_value(target(variables), argument(variables))
        return lambda variables: _STRING_TESTS[method](target(variables), argument(variables))


def _boolean(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ConditionError("no such overload")
    return value


def _logic(parts: list[Expression], decides: bool) -> Expression:
    # CEL's && and || do not mind the order: a part that decides wins over another part's error.
    def evaluate(variables: Variables) -> bool:
        failure = None
        for part in parts:
            try:
                if _boolean(part(variables)) is decides:
                    return decides
            except ConditionError as error:
                failure = failure or error
        if failure:
            raise failure
        return not decides

    return evaluate


def _binary(sign: str, compare: Callable[[Any, Any], Any], left: Expression, right: Expression) -> Expression:
    def evaluate(variables: Variables) -> Any:
        try:
            return compare(left(variables), right(variables))
        except TypeError as error:
            raise ConditionError(f"no such overload: _{sign}_") from error

    return evaluate


def _lookup(container: Any, key: Any) -> Any:
    if isinstance(container, Mapping):
        if key in container:
            return container[key]
    elif isinstance(container, list) and isinstance(key, int) and 0 <= key < len(container):
        return container[key]
    raise ConditionError(f"no such key: {key}")


def _field(target: Expression, name: str, *, optional: bool = False) -> Expression:
    def evaluate(variables: Variables) -> Any:
        container = target(variables)
        if container is ABSENT or (optional and name not in container):
            return ABSENT
        return _lookup(container, name)

    return evaluate


def _index(target: Expression, index: Expression) -> Expression:
    return lambda variables: _lookup(target(variables), index(variables))


def _or_value(value: Any, default: Any) -> Any:
    return default if value is ABSENT else value
