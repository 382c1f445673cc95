"""How a figure grows with the number of workers: its exponent, and its curve as a picture. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape

Points = Sequence[tuple[float, float]]
"""Of workers and a figure, both above 0."""

WIDTH, HEIGHT = 760, 420
LEFT, RIGHT, TOP, BOTTOM = 78, 210, 56, 54
INK, FAINT = "#23272e", "#d9dde3"
COLOURS = ("#5b8def", "#c05621", "#7c4dbe", "#1b7f3b", "#b3261e", "#d9a514")


def exponent(points: Points) -> float:
    """The slope of a straight line through the points where both scales are logarithmic.

    0 is a figure that does not grow, 1 one that doubles when the workers do. Of a fixed part and a growing
    one it is something between: look at the last points, too.
    """
    xs, ys = zip(*((math.log(x), math.log(y)) for x, y in points), strict=True)
    x_mean, y_mean = sum(xs) / len(xs), sum(ys) / len(ys)
    spread = sum((x - x_mean) ** 2 for x in xs)
    return sum((x - x_mean) * (y - y_mean) for x, y in zip(xs, ys, strict=True)) / spread


def per_worker(points: Points) -> tuple[float, float]:
    """The fixed part of a figure and what each worker adds, by least squares of the relative errors."""
    weights = [1 / y**2 for _, y in points]
    total = sum(weights)
    x_mean = sum(w * x for w, (x, _) in zip(weights, points, strict=True)) / total
    y_mean = sum(w * y for w, (_, y) in zip(weights, points, strict=True)) / total
    spread = sum(w * (x - x_mean) ** 2 for w, (x, _) in zip(weights, points, strict=True))
    slope = sum(w * (x - x_mean) * (y - y_mean) for w, (x, y) in zip(weights, points, strict=True)) / spread
    return y_mean - slope * x_mean, slope


def draw(title: str, curves: Mapping[str, Points], *, unit: str, over: str = "workers") -> str:
    """An SVG with logarithmic scales, a curve for each name, and its exponent beside it."""
    every = [point for points in curves.values() for point in points]
    x_scale = _Scale([x for x, _ in every], begin=LEFT, end=WIDTH - RIGHT)
    y_scale = _Scale([y for _, y in every], begin=HEIGHT - BOTTOM, end=TOP)
    parts = [
        _text(24, 30, title, font_size="17", font_weight="600"),
        *_grid(x_scale, y_scale, unit=unit, over=over),
        *(
            part
            for (name, points), colour in zip(curves.items(), COLOURS, strict=False)
            for part in _curve(points, x_scale, y_scale, colour)
        ),
        *_legend(curves, y_scale),
    ]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'font-family="sans-serif" font-size="12" fill="{INK}">'
        f'<rect width="100%" height="100%" fill="#ffffff"/>{"".join(parts)}</svg>\n'
    )


class _Scale:
    """Values to pixels, by their logarithm."""

    def __init__(self, values: Sequence[float], *, begin: float, end: float) -> None:
        self.low, self.high = min(values), max(values) * 1.05
        self._begin, self._end = begin, end

    def __call__(self, value: float) -> float:
        share = math.log(value / self.low) / math.log(self.high / self.low)
        return self._begin + share * (self._end - self._begin)

    def ticks(self) -> Iterable[float]:
        """1, 2 and 5 of each power of ten."""
        for power in range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1):
            yield from (tick for digit in (1, 2, 5) if self.low <= (tick := digit * 10.0**power) <= self.high)


def _grid(x_scale: _Scale, y_scale: _Scale, *, unit: str, over: str) -> Iterable[str]:
    for tick in x_scale.ticks():
        x = x_scale(tick)
        yield _line([(x, TOP), (x, HEIGHT - BOTTOM)], FAINT)
        yield _text(x, HEIGHT - BOTTOM + 18, f"{tick:g}", text_anchor="middle")
    for tick in y_scale.ticks():
        y = y_scale(tick)
        yield _line([(LEFT, y), (WIDTH - RIGHT, y)], FAINT)
        yield _text(LEFT - 8, y + 4, f"{tick:g}", text_anchor="end")
    yield _text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 14, over, text_anchor="middle")
    yield _text(24, TOP - 10, unit)


def _curve(points: Points, x_scale: _Scale, y_scale: _Scale, colour: str) -> Iterable[str]:
    pixels = [(x_scale(x), y_scale(y)) for x, y in points]
    yield _line(pixels, colour, stroke_width="2")
    for x, y in pixels:
        yield f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{colour}"/>'


def _legend(curves: Mapping[str, Points], y_scale: _Scale) -> Iterable[str]:
    """At the height where the curves end, and never one over the other."""
    ends = sorted(
        (y_scale(points[-1][1]), name, points, colour)
        for (name, points), colour in zip(curves.items(), COLOURS, strict=False)
    )
    lowest = float("-inf")
    for end, name, points, colour in ends:
        y = lowest = max(end, lowest + 34)
        yield _text(WIDTH - RIGHT + 12, y, name, fill=colour, font_weight="600")
        yield _text(WIDTH - RIGHT + 12, y + 14, f"exponent {exponent(points):.2f}", font_size="11")


def _line(points: Points, colour: str, **attributes: str) -> str:
    where = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<polyline points="{where}" fill="none" stroke="{colour}"{_attributes(attributes)}/>'


def _text(x: float, y: float, text: str, **attributes: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}"{_attributes(attributes)}>{escape(text)}</text>'


def _attributes(attributes: Mapping[str, str]) -> str:
    return "".join(f' {name.replace("_", "-")}="{value}"' for name, value in attributes.items())
