"""What the table of the adapter's own work says of how it grows."""

from tests.bench.background import Measured, table, targets_of


def measured(workers: int, pools: int, cpu: float) -> Measured:
    return Measured(
        workers=workers, pools=pools, cpu=cpu, memory_mib=80.0, connections=4, commands=40.0, load=0.5
    )


def test_the_exponent_stands_at_the_end_of_each_curve() -> None:
    """Over workers in one pool, and over pools of the largest fleet."""
    fleets = [measured(10, 1, 0.001), measured(1_000, 1, 0.1), measured(1_000, 10, 0.1)]
    lines = table(fleets)
    assert [line.split()[-6:] for line in lines[1:]] == [
        ["pool", "1", "80", "4", "40.0", "0.5"],
        ["100", "80", "4", "40.0", "1.00", "0.5"],
        ["100", "80", "4", "40.0", "0.00", "0.5"],
    ]


def test_a_single_fleet_has_no_exponent() -> None:
    (line,) = table([measured(200, 20, 0.02)])[1:]
    assert line.split()[-5:] == ["20", "80", "4", "40.0", "0.5"]


def test_each_fleet_may_take_fifteen_hundredths_of_a_core() -> None:
    met, missed = targets_of([measured(1_000, 1, 0.15), measured(1_000, 100, 0.16)])
    assert (met.is_met, missed.is_failure, round(missed.measured)) == (True, True, 16)
