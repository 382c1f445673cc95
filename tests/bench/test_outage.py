"""The table of the outage says how many were answered how, and how fast."""

from tests.bench.asking import VALUES
from tests.bench.outage import cells, table
from tests.metrics_adapter.aggregator import Answer


def answer(code: int, *, path: str = VALUES.path, seconds: float = 0.002) -> Answer:
    return Answer(path, code, seconds, "")


def test_the_p99_is_what_one_in_a_hundred_exceeds() -> None:
    assert cells([number / 1000 for number in range(101)]) == ["101", "50.0", "99.0", "100.0"]


def test_what_was_answered_otherwise_is_not_hidden() -> None:
    before = [answer(200), answer(200, path="/readyz")]
    during = [answer(200), answer(503), answer(503), answer(500), answer(0, path="/readyz")]
    lines = table(before, during)
    assert [(line.split()[-4], line.strip().partition("  ")[0]) for line in lines] == [
        ("1", "values, everything up"),
        ("1", "discovery and health, everything up"),
        ("1", "values before maxAge, in the outage"),
        ("2", "values after maxAge: 503"),
        ("1", "anything else"),
        ("1", "anything else of discovery and health"),
    ]
