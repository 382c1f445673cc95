"""What is said of scale-downs is what was measured."""

from dataclasses import replace

from tests.bench.figures import Figures
from tests.bench.growth import exponent
from tests.bench.scale_downs import (
    HOOK,
    LOOP,
    TUNED,
    Measured,
    curves,
    growth_table,
    phases_table,
    table,
    targets,
)


def measured(
    workers: int, victims: int, seconds: float, *, who: str = HOOK, broker: str = "valkey"
) -> Measured:
    return Measured(
        broker=broker,
        who=who,
        workers=workers,
        victims=victims,
        figures=Figures.of([seconds]),
        phases={"mark": seconds / 2, "answer": seconds / 2},
        load=1.0,
    )


def test_a_target_is_missed_by_the_median_on_valkey() -> None:
    met = list(targets([measured(50, 5, 0.1), measured(1_000, 100, 0.6)]))
    missed = list(targets([measured(50, 5, 0.11), measured(1_000, 100, 0.61)]))
    assert [target.is_met for target in met] == [True, True]
    assert [(target.is_met, target.is_failure) for target in missed] == [(False, True)] * 2
    assert list(targets([measured(50, 5, 9.0, who=TUNED), measured(50, 5, 9.0, broker="rabbitmq")])) == []


def test_one_victim_must_not_cost_more_than_twice_as_much_among_many() -> None:
    (met,) = targets([measured(20, 1, 0.05), measured(1_000, 1, 0.1)])
    (missed,) = targets([measured(20, 1, 0.05), measured(1_000, 1, 0.11)])
    assert (met.is_met, missed.is_failure, round(missed.measured, 1)) == (True, True, 2.2)


def test_the_hook_has_to_be_faster_than_the_loop() -> None:
    """Than the tuned one among few it is not, and the table says why."""
    rounds = [measured(50, 5, 0.05), measured(50, 5, 1.0, who=LOOP), measured(50, 5, 0.05, who=TUNED)]
    _, plain, tuned = targets(rounds)
    assert (plain.is_met, round(plain.measured)) == (True, 20)
    assert (tuned.is_met, tuned.is_failure, tuned.measured) == (False, False, 1.0)
    assert "25 ms" in tuned.reason, "what the hook needs for its lock, of 20 that it may take"
    slow, beside = measured(50, 5, 0.09), measured(50, 5, 0.2, who=TUNED)
    _, unexplained = targets([replace(slow, phases={"answer": 0.01, "confirm": 0.02}), beside])
    assert unexplained.is_failure, "these two are no reason to be late"
    _, many = targets([measured(1_000, 100, 0.3), measured(1_000, 100, 0.6, who=TUNED)])
    assert many.is_failure


def test_one_victim_and_a_tenth_are_different_curves() -> None:
    """Of five workers one is both."""
    found = curves([measured(5, 1, 0.05), measured(50, 1, 0.05), measured(50, 5, 0.5)])
    assert found == {
        "hook, 10 %": [(5, 50.0), (50, 500.0)],
        "hook, one victim": [(5, 50.0), (50, 50.0)],
    }
    assert exponent(found["hook, 10 %"]) > 0.99


def test_tables_are_in_milliseconds() -> None:
    rounds = [measured(5, 1, 0.05), measured(50, 5, 0.5)]
    assert [line.split()[-6:] for line in table(rounds)[1:]] == [
        ["5", "1", "1", "50.0", "50.0", "1.0"],
        ["50", "5", "1", "500.0", "500.0", "1.0"],
    ]
    assert phases_table(rounds)[1].split()[-7:] == ["0.0", "0.0", "25.0", "0.0", "0.0", "0.0", "25.0"]
    assert growth_table(rounds)[1].split()[-3:] == ["1.00", "0.0", "10.000"]
