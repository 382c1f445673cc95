"""Shows scenes as they happen: a live screen on a terminal, plain lines elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from deploy.sandbox.demo.scene import Scene, WorkerRow
from deploy.sandbox.demo.timeline import RoundMark

STYLES = {
    "starting": "dim",
    "idle": "green",
    "busy": "cyan",
    "protected": "bold yellow",
    "draining": "magenta",
    "terminating": "red",
}


class View(Protocol):
    """Where scenes go."""

    def say(self, sentence: str) -> None: ...

    def show(self, scene: Scene) -> None: ...


@contextmanager
def open_view(console: Console) -> Iterator[View]:
    """A live screen if `console` is a terminal, else lines."""
    if not console.is_terminal:
        yield PlainView(console)
        return
    with Live(console=console, refresh_per_second=4, transient=True) as live:
        yield LiveView(console, live)


class LiveView:
    """Redraws the whole scene."""

    def __init__(self, console: Console, live: Live) -> None:
        self._console, self._live = console, live

    def say(self, sentence: str) -> None:
        self._console.print(Text(sentence))

    def show(self, scene: Scene) -> None:
        self._live.update(render(scene))


class PlainView:
    """A line whenever something changed, and one every ten seconds."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._last: tuple[object, ...] = ()
        self._rounds = 0

    def say(self, sentence: str) -> None:
        self._console.print(Text(sentence), soft_wrap=True)

    def show(self, scene: Scene) -> None:
        for mark in scene.rounds[self._rounds :]:
            self.say(f"{scene.elapsed_s:5.0f} s  {round_sentence(mark)}")
        self._rounds = len(scene.rounds)
        now = (scene.chapter, scene.replicas, len(scene.workers), scene.killed, int(scene.elapsed_s / 10))
        if now != self._last:
            self.say(f"{scene.elapsed_s:5.0f} s  {scene_line(scene)}")
        self._last = now


def scene_line(scene: Scene) -> str:
    """A scene in one line."""
    states = [row.state for row in scene.workers]
    counted = ", ".join(f"{states.count(state)} {state}" for state in STYLES if state in states) or "none"
    return (
        f"{scene.chapter}: load factor {_number(scene.load_factor)}, replicas {scene.replicas} "
        f"(HPA wants {scene.wanted}), workers: {counted}; tasks {scene.finished} of {scene.submitted} "
        f"finished, {scene.waiting} waiting, {scene.killed} killed"
    )


def round_sentence(mark: RoundMark) -> str:
    """A verdict in one line."""
    word = "allowed" if mark.allowed else "refused"
    return f"scale-down {mark.from_replicas} to {mark.to_replicas} {word}: {mark.reason}"


def render(scene: Scene) -> Panel:
    """A scene as a screen."""
    head = Text.assemble(
        ("load factor ", "dim"),
        (_number(scene.load_factor), "bold"),
        ("   replicas ", "dim"),
        (f"{scene.replicas}", "bold"),
        (f" (HPA wants {scene.wanted})", "dim"),
        ("   tasks ", "dim"),
        (f"{scene.finished}/{scene.submitted} finished, {scene.waiting} waiting, ", ""),
        (f"{scene.killed} killed", "bold red" if scene.killed else "green"),
    )
    title = Text(f"celery-hpa  {scene.elapsed_s:.0f} s  {scene.chapter}")
    return Panel(
        Group(head, Text(), _workers(scene), Text(), _rounds(scene)), title=title, title_align="left"
    )


def _number(load: float | None) -> str:
    return "unknown" if load is None else f"{load:.3f}"


def _workers(scene: Scene) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    # On a narrow terminal tasks are cut: only the end of a pod's name tells it from the others.
    table.add_column("worker", no_wrap=True, min_width=_longest(row.pod for row in scene.workers))
    table.add_column("state", no_wrap=True, min_width=_longest(row.state for row in scene.workers))
    table.add_column("running", no_wrap=True)
    for row in scene.workers:
        table.add_row(Text(row.pod), Text(row.state, style=STYLES[row.state]), _tasks(row))
    return table


def _longest(words: Iterable[str]) -> int:
    return max(map(len, words), default=0)


def _tasks(row: WorkerRow) -> Text:
    return Text("  ").join(Text(f"{name} {seconds:.0f} s") for name, seconds in row.tasks)


def _rounds(scene: Scene) -> Group:
    recent = scene.rounds[-6:]
    lines = [Text(round_sentence(mark), style="green" if mark.allowed else "yellow") for mark in recent]
    return Group(Text("scale-downs reviewed by the hook", style="dim"), *lines)
