"""The CEL that match conditions are written in, and its errors."""

from typing import Any

import pytest

from deploy.sandbox.apiserver.match_conditions import ConditionError, ConditionSyntaxError, parse_condition

SAFE = "object.spec.?replicas.orValue(0) < oldObject.spec.?replicas.orValue(0)"
UNSAFE = "object.spec.replicas < oldObject.spec.replicas"


def evaluate(text: str, old: int = 5, new: int = 3) -> Any:
    """The condition's value for a scale from old to new replicas."""

    def scale(replicas: int) -> dict[str, Any]:
        spec = {"replicas": replicas} if replicas else {}
        return {"metadata": {"name": "w"}, "spec": spec, "status": {"selector": "app=w,pool=a"}}

    user = {"username": "alice", "groups": ["dev", "ops"]}
    request = {"dryRun": False, "name": "w", "userInfo": user}
    return parse_condition(text)({"object": scale(new), "oldObject": scale(old), "request": request})


@pytest.mark.parametrize(("old", "new", "down"), [(5, 3, True), (3, 5, False), (5, 0, True), (0, 5, False)])
def test_the_safe_comparison_is_right_in_all_cases(old: int, new: int, down: bool) -> None:
    """Zero replicas are absent from a Scale."""
    assert evaluate(SAFE, old, new) is down


def test_the_plain_comparison_fails_at_zero() -> None:
    """In CEL's words, which the client gets to see."""
    assert evaluate(UNSAFE) is True
    with pytest.raises(ConditionError, match=r"^no such key: replicas$"):
        evaluate(UNSAFE, new=0)


@pytest.mark.parametrize(
    "text",
    [
        "!(has(request.dryRun) && request.dryRun)",
        "has(object.status.selector) && object.status.selector.contains('pool=a')",
        "request.userInfo.username == \"alice\" || request.name in ['x', 'y']",
        "'ops' in request.userInfo.groups",
        "!has(object.spec.nothing)",
        "object.status['selector'].startsWith('app') && object.status.selector.endsWith('=a')",
        "object.spec.replicas >= 3 && object.spec.replicas != 4 && object.spec.replicas <= 3",
        "(object.spec.replicas > -1) == true",
        "request.userInfo.groups[0] == 'dev'",
        "object.?missing.?deeper.orValue('x') == 'x'",
    ],
)
def test_conditions_in_use_are_understood(text: str) -> None:
    """Each of these is true for alice's scale-down."""
    assert evaluate(text) is True


def test_a_part_that_decides_wins_over_a_part_that_fails() -> None:
    """CEL's logic does not depend on the order."""
    assert evaluate("object.spec.nothing == 1 || request.name == 'w'") is True
    assert evaluate("object.spec.nothing == 1 && request.name == 'x'") is False
    with pytest.raises(ConditionError):
        evaluate("object.spec.nothing == 1 && request.name == 'w'")


def test_comparing_what_cannot_be_compared_is_an_error() -> None:
    """No silent false."""
    with pytest.raises(ConditionError, match="no such overload"):
        evaluate("object.spec.replicas < 'three'")


@pytest.mark.parametrize(
    "text",
    [
        "size(object) > 1",
        "object.x.matches('a')",
        "a + b",
        "object.",
        "(object",
        "object object",
        "",
        "'open",
    ],
)
def test_everything_else_is_refused_when_it_is_read(text: str) -> None:
    """Better than a condition that means something else here."""
    with pytest.raises(ConditionSyntaxError):
        parse_condition(text)
