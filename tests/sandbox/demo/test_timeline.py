"""The picture: well-formed whatever happened, and true to it."""

from collections.abc import Sequence
from typing import Any
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.sandbox.demo.journal import Run
from deploy.sandbox.demo.story import LONG, PROTECTED, PodLife
from deploy.sandbox.demo.timeline import (
    COLOURS,
    LEFT,
    RIGHT,
    ROW,
    WIDTH,
    RoundMark,
    Sample,
    Scale,
    draw_timeline,
)
from tests.sandbox.demo.stories import END, life, lives, outcome, run, told, verdict

SVG = "{http://www.w3.org/2000/svg}"
SAMPLES = (Sample(at=0, replicas=1, load_factor=None), Sample(at=50, replicas=3, load_factor=1.5))
DRAINED, TERMINATING = "#ffe2b8", "#f6c6c3"
MARKUP = st.text(st.sampled_from("ab-<>&\"'[]/"), min_size=1, max_size=12)
Story = tuple[tuple[Run, ...], dict[str, PodLife], int]


def picture(
    *runs: Run,
    pods: dict[str, PodLife] | None = None,
    samples: Sequence[Sample] = SAMPLES,
    rounds: Sequence[RoundMark] = (),
    slots: int = 1,
    title: str = "A story",
    **figures: Any,
) -> Element:
    """The drawn picture, parsed."""
    return ElementTree.fromstring(
        draw_timeline(
            title=title,
            outcome=outcome(**figures),
            pods=lives(life()) if pods is None else pods,
            runs=runs,
            samples=samples,
            rounds=rounds,
            slots=slots,
            end=END,
        )
    )


def texts(svg: Element) -> list[str]:
    return [element.text or "" for element in svg.iter(f"{SVG}text")]


def bars(svg: Element, colour: str) -> list[dict[str, float]]:
    """Place and size of what is drawn in a colour, without its sample in the legend."""
    keys = ("x", "y", "width", "height")
    drawn = [rect for rect in svg.iter(f"{SVG}rect") if rect.get("fill") == colour]
    return [{key: float(rect.attrib[key]) for key in keys} for rect in drawn if rect.get("width") != "12.0"]


def crosses(svg: Element) -> int:
    strokes = [line for line in svg.iter(f"{SVG}line") if line.get("stroke") == "#b3261e"]
    return len(strokes) // 2


def test_a_killed_task_ends_in_a_cross() -> None:
    assert crosses(picture(run("a", 10, None), pods=lives(life(ended_at=40)))) == 1


def test_a_task_that_finished_has_no_cross() -> None:
    assert crosses(picture(run("a", 10, 20), pods=lives(life(ended_at=40)))) == 0


def test_a_task_that_still_runs_has_no_cross() -> None:
    assert crosses(picture(run("a", 10, None))) == 0


def test_a_task_is_a_bar_as_long_as_it_ran() -> None:
    svg = picture(run("a", 25, 75, name=LONG))
    (bar,) = bars(svg, COLOURS[LONG])
    chart = WIDTH - LEFT - RIGHT
    assert bar["x"] == pytest.approx(LEFT + chart / 4, abs=0.1)
    assert bar["width"] == pytest.approx(chart / 2, abs=0.1)


def test_tasks_that_ran_at_once_lie_beside_each_other() -> None:
    """A worker's row has a lane for each of its slots."""
    svg = picture(run("a", 10, 30, name=LONG), run("b", 20, 40, name=LONG), slots=2)
    first, second = bars(svg, COLOURS[LONG])
    assert second["y"] - first["y"] == pytest.approx(ROW / 2)


def test_a_slot_that_is_free_again_is_used_again() -> None:
    svg = picture(run("a", 10, 20, name=LONG), run("b", 20, 40, name=LONG), slots=2)
    first, second = bars(svg, COLOURS[LONG])
    assert second["y"] == first["y"]


def test_a_pod_shows_when_it_was_drained_and_when_it_terminated() -> None:
    svg = picture(pods=lives(life(ended_at=100, draining_since=25, terminating_since=75)))
    (drained,), (terminating,) = bars(svg, DRAINED), bars(svg, TERMINATING)
    assert drained["width"] == pytest.approx(2 * terminating["width"], abs=0.2)
    assert terminating["x"] == pytest.approx(drained["x"] + drained["width"], abs=0.2)


def test_every_verdict_is_a_dot_that_says_what_it_was() -> None:
    svg = picture(rounds=[verdict(8, 5), verdict(5, 4, allowed=False)])
    dots = list(svg.iter(f"{SVG}circle"))
    assert [dot.findtext(f"{SVG}title") for dot in dots] == ["8 to 5: Drained", "5 to 4: Busy"]
    assert len({dot.get("fill") for dot in dots}) == 2


def test_the_head_is_red_when_a_task_was_killed() -> None:
    """And says how many."""
    svg = picture(killed=3, lost=4)
    (head,) = [element for element in svg.iter(f"{SVG}text") if "3 killed, 4 lost" in (element.text or "")]
    assert head.get("fill") == "#b3261e"


def test_the_axis_of_the_load_factor_is_as_high_as_it_says() -> None:
    """A spike beyond 4 is cut: it would press everything else to the floor."""
    spike = Sample(at=60, replicas=1, load_factor=37.0)
    assert "load factor (0 to 1.5)" in texts(picture())
    assert "load factor (0 to 4.0)" in texts(picture(samples=[*SAMPLES, spike]))


def test_a_story_without_anything_is_a_picture() -> None:
    assert "A story" in texts(picture(pods={}, samples=()))


@given(name=MARKUP, reason=MARKUP, title=MARKUP)
def test_names_are_text_and_never_markup(name: str, reason: str, title: str) -> None:
    svg = picture(pods=lives(life(name)), rounds=[verdict(reason=reason)], title=title)
    assert {name, title} <= set(texts(svg))
    assert [dot.findtext(f"{SVG}title") for dot in svg.iter(f"{SVG}circle")] == [f"3 to 2: {reason}"]


@given(story=told())
def test_a_cross_for_each_killed_task_whatever_happened(story: Story) -> None:
    runs, pods, slots = story
    killed = [one for one in runs if one.finished_at is None and pods[one.pod].ended_at is not None]
    assert crosses(picture(*runs, pods=pods, slots=slots)) == len(killed)


@given(begin=st.floats(0, 50), length=st.floats(0, 50), at=st.floats(-1000, 1000))
def test_every_moment_lies_within_the_chart(begin: float, length: float, at: float) -> None:
    """What was before the first look, or after the last, lies at its edge."""
    x = Scale(begin=begin, end=begin + length).x(at)
    assert LEFT <= x <= WIDTH - RIGHT


def test_the_protected_task_has_a_colour_of_its_own() -> None:
    assert len(bars(picture(run("a", 10, 20, name=PROTECTED)), COLOURS[PROTECTED])) == 1
    assert len(set(COLOURS.values())) == len(COLOURS)
