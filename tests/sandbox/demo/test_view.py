"""What a person sees while it happens: lines where output is no terminal, a screen where it is."""

from io import StringIO

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from deploy.sandbox.demo.scene import Scene, WorkerRow
from deploy.sandbox.demo.story import SHORT
from deploy.sandbox.demo.view import STYLES, LiveView, PlainView, open_view, render, round_sentence
from tests.sandbox.demo.stories import scene, verdict


def row(pod: str = "w-0", state: str = "idle", *tasks: tuple[str, float]) -> WorkerRow:
    return WorkerRow(pod=pod, state=state, tasks=tasks)


def console(*, terminal: bool = False, width: int = 160) -> Console:
    return Console(file=StringIO(), force_terminal=terminal, width=width, height=50, color_system=None)


def printed(on: Console) -> str:
    assert isinstance(on.file, StringIO)
    return on.file.getvalue()


def lines_of(*scenes: Scene) -> list[str]:
    on = console()
    view = PlainView(on)
    for one in scenes:
        view.show(one)
    return printed(on).splitlines()


def screen(shown: Scene, *, width: int = 160) -> str:
    on = console(width=width)
    on.print(render(shown))
    return printed(on)


def test_a_scene_is_a_line() -> None:
    workers = (row("w-0"), row("w-1"), row("w-2", "draining", (SHORT, 3)))
    shown = scene(*workers, elapsed_s=12.4, chapter="burst", wanted=5, submitted=9, finished=4, waiting=2)
    assert lines_of(shown) == [
        "   12 s  burst: load factor 0.500, replicas 3 (HPA wants 5), workers: 2 idle, 1 draining; "
        "tasks 4 of 9 finished, 2 waiting, 0 killed"
    ]


def test_a_value_that_the_adapter_does_not_serve_is_unknown() -> None:
    """Never zero: nobody knows."""
    (line,) = lines_of(scene(load_factor=None))
    assert "load factor unknown" in line
    assert "workers: none" in line
    assert "load factor unknown" in screen(scene(load_factor=None))


def test_every_verdict_is_a_line_and_only_once() -> None:
    first, second = verdict(8, 5), verdict(5, 4, allowed=False)
    lines = lines_of(scene(rounds=(first,)), scene(rounds=(first, second)), scene(rounds=(first, second)))
    said = [line.split("s  ", 1)[1] for line in lines if "scale-down" in line]
    assert said == ["scale-down 8 to 5 allowed: Drained", "scale-down 5 to 4 refused: Busy"]


def test_a_scene_like_the_one_before_is_not_repeated() -> None:
    """Task counts change all the time; a line every ten seconds is enough for them."""
    assert len(lines_of(scene(), scene(finished=3), scene(waiting=9))) == 1
    assert len(lines_of(scene(elapsed_s=9), scene(elapsed_s=10))) == 2


@pytest.mark.parametrize(
    "change", [scene(chapter="quiet"), scene(row()), scene(killed=1), scene(replicas=2)], ids=repr
)
def test_a_scene_that_is_news_is_a_line(change: Scene) -> None:
    assert len(lines_of(scene(), change)) == 2


@pytest.mark.parametrize("state", STYLES)
def test_the_screen_shows_each_worker_with_its_tasks(state: str) -> None:
    text = screen(scene(row("worker-x7", state, (SHORT, 3.2), ("reports.render", 40.0))))
    (line,) = [line for line in text.splitlines() if "worker-x7" in line]
    assert state in line
    assert "orders.import 3 s  reports.render 40 s" in line


def test_a_narrow_terminal_cuts_tasks_and_no_names() -> None:
    """Only the end of a pod's name tells it from the others."""
    pod = "worker-7scc29nnlx-l4rq9"
    shown = screen(
        scene(row(pod, "terminating", ("reports.render", 10), ("billing.close_month", 6))), width=80
    )
    assert f"{pod}  terminating  reports.render 10 s" in shown


def test_the_screen_shows_the_last_verdicts() -> None:
    text = screen(scene(rounds=tuple(verdict(n + 1, n) for n in range(9, 0, -1))))
    assert round_sentence(verdict(2, 1)) in text
    assert round_sentence(verdict(10, 9)) not in text


@given(name=st.text(st.sampled_from("ab[]/=\\:"), min_size=1, max_size=12))
def test_names_are_text_and_never_markup(name: str) -> None:
    """Square brackets mean colours to the terminal library, unless it is told that they do not."""
    shown = scene(row(name, "busy", (name, 1)), rounds=(verdict(reason=name),), chapter=name)
    assert screen(shown).count(name) >= 4
    assert sum(name in line for line in lines_of(shown)) == 2


def test_lines_are_shown_where_there_is_no_terminal() -> None:
    on = console()
    with open_view(on) as view:
        assert isinstance(view, PlainView)
        view.say("151 tasks [submitted].")
    assert printed(on) == "151 tasks [submitted].\n"


def test_a_screen_is_shown_on_a_terminal() -> None:
    on = console(terminal=True)
    with open_view(on) as view:
        assert isinstance(view, LiveView)
        view.say("151 tasks [submitted].")
        view.show(scene(row("worker-x7")))
    assert "151 tasks [submitted]." in printed(on)
    assert "worker-x7" in printed(on)
