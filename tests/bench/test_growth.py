"""Exponents and pictures say of figures what they are."""

from xml.etree import ElementTree

import pytest

from tests.bench.growth import draw, exponent, per_worker

SVG = "{http://www.w3.org/2000/svg}"
SIZES = (5, 20, 50, 200, 500, 1_000)


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0, 2.0])
def test_the_exponent_is_the_power_by_which_a_figure_grows(power: float) -> None:
    assert exponent([(x, 3.0 * x**power) for x in SIZES]) == pytest.approx(power)


def test_a_fixed_part_and_what_each_worker_adds_are_told_apart() -> None:
    assert per_worker([(x, 50.0 + 0.2 * x) for x in SIZES]) == pytest.approx((50.0, 0.2))


def test_a_picture_names_each_curve_with_its_exponent() -> None:
    """Names are text, whatever they hold; bigger figures stand higher."""
    curves = {"hook & co": [(x, 10.0 * x) for x in SIZES], "flat": [(x, 40.0) for x in SIZES]}
    picture = ElementTree.fromstring(draw("Growth", curves, unit="ms"))
    texts = [text.text for text in picture.iter(f"{SVG}text")]
    assert {"Growth", "ms", "workers", "hook & co", "flat", "exponent 1.00", "exponent 0.00"} <= set(texts)
    heights = [float(dot.get("cy", "")) for dot in picture.iter(f"{SVG}circle")]
    assert len(heights) == 2 * len(SIZES)
    assert heights[: len(SIZES)] == sorted(heights[: len(SIZES)], reverse=True)
