"""Questions to the adapter are answered by all connections, in time, and with 200, or a target is missed."""

from collections.abc import Mapping

import pytest

from tests.bench.asker import Answers
from tests.bench.queries import Measured, targets_of


def measured(
    *, per_second: float, p99_ms: float, memory_mib: float = 79.0, statuses: Mapping[str, int] | None = None
) -> Measured:
    answers = Answers(
        per_second=per_second,
        p50_ms=1.0,
        p99_ms=p99_ms,
        slowest_ms=p99_ms,
        statuses=statuses or {"200": 100},
        sent=100,
    )
    return Measured(what="asked", answers=answers, cpu_us=130.0, memory_mib=memory_mib, load=1.0)


ONE = measured(per_second=3_000.0, p99_ms=0.5)
MANY = measured(per_second=7_000.0, p99_ms=8.0, memory_mib=80.0)
WELL = measured(per_second=100.0, p99_ms=2.0)
OUTAGE = measured(per_second=99.0, p99_ms=10.0)


def test_targets_are_met_at_their_limits() -> None:
    assert [target.is_met for target in targets_of([ONE, MANY, WELL, OUTAGE])] == [True] * 6


@pytest.mark.parametrize(
    ("many", "outage"),
    [
        (measured(per_second=6_999.0, p99_ms=8.0), OUTAGE),
        (measured(per_second=7_000.0, p99_ms=8.1), OUTAGE),
        (measured(per_second=7_000.0, p99_ms=8.0, memory_mib=80.1), OUTAGE),
        (MANY, measured(per_second=100.0, p99_ms=10.1)),
        (MANY, measured(per_second=90.0, p99_ms=1.0)),
        (MANY, measured(per_second=100.0, p99_ms=1.0, statuses={"200": 99, "503": 1})),
    ],
)
def test_a_single_figure_beyond_its_limit_is_a_failure(many: Measured, outage: Measured) -> None:
    """An adapter that freezes amid the outage answers fast, but few."""
    assert [target.is_failure for target in targets_of([ONE, many, WELL, outage])].count(True) == 1
