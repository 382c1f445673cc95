"""What a benchmark prints is what it measured."""

from pathlib import Path

import pytest

from deploy.sandbox.demo.timeline import RoundMark
from tests.bench.figures import Figures, Target, save_targets, saved_targets, targets_table
from tests.bench.verdicts import Sample, table


def review(seconds: float, **phases: float) -> RoundMark:
    return RoundMark(
        at=0.0, allowed=True, from_replicas=8, to_replicas=7, reason="Drained", seconds=seconds, phases=phases
    )


def cells(lines: list[str]) -> dict[str, list[str]]:
    """By what the line is about; the last three words are figures."""
    return {line.rsplit(maxsplit=3)[0].strip(): line.split()[-3:] for line in lines[1:]}


def test_the_p95_is_what_one_in_twenty_exceeds() -> None:
    figures = Figures.of([float(number) for number in range(21)])
    assert (figures.count, figures.median_s, figures.p95_s) == (21, 10.0, 19.0)


def test_a_single_measurement_is_all_its_figures() -> None:
    assert Figures.of([0.3]) == Figures(count=1, median_s=0.3, p95_s=0.3)


def test_the_table_is_in_milliseconds() -> None:
    samples = [Sample(patch_s=0.05, reviews=(review(0.04, mark=0.01, cancel=0.03),))] * 3
    assert cells(table(samples)) == {
        "review, as the hook logs it": ["3", "40.0", "40.0"],
        "PATCH of the scale, as its caller sees it": ["3", "50.0", "50.0"],
        "phase mark": ["3", "10.0", "10.0"],
        "phase cancel": ["3", "30.0", "30.0"],
    }


def test_a_scale_that_was_reviewed_twice_took_both_reviews() -> None:
    """The second finds the round prepared; it alone would flatter."""
    sample = Sample(patch_s=0.1, reviews=(review(0.04, mark=0.01), review(0.002)))
    assert cells(table([sample]))["review, as the hook logs it"] == ["1", "42.0", "42.0"]
    assert cells(table([sample]))["phase mark"] == ["1", "10.0", "10.0"]


@pytest.mark.parametrize(
    ("measured", "is_least", "is_met"),
    [
        (99.0, False, True),
        (100.0, False, True),
        (101.0, False, False),
        (99.0, True, False),
        (100.0, True, True),
    ],
)
def test_a_target_is_a_limit_from_one_side(measured: float, is_least: bool, is_met: bool) -> None:
    target = Target(what="ms", measured=measured, limit=100.0, is_least=is_least)
    assert (target.is_met, target.is_failure) == (is_met, not is_met)


def test_a_missed_target_comes_with_its_reason_and_is_no_surprise() -> None:
    target = Target(what="ms", measured=0.1234, limit=0.1, reason="It would take a faster clock.")
    _, line, reason = targets_table([target])
    assert line.split() == ["ms", "at", "most", "0.1", "0.123", "MISSED"]
    assert (reason.strip(), target.is_failure) == ("It would take a faster clock.", False)


def test_targets_of_a_benchmark_that_was_not_run_again_stay(tmp_path: Path) -> None:
    one, two, three = (Target(what=what, measured=1.0, limit=2.0) for what in ("one", "two", "three"))
    save_targets(tmp_path, {"a": [one], "b": [two]})
    save_targets(tmp_path, {"a": [three]})
    assert saved_targets(tmp_path) == [three, two]
    assert saved_targets(tmp_path / "elsewhere") == []
