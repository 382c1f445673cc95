"""The picture at the end of the demo: a row for each worker, a bar for each task, a dot for each verdict."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape

from deploy.sandbox.demo.journal import Run
from deploy.sandbox.demo.story import LONG, PROTECTED, SHORT, Outcome, PodLife

INK = "#23272e"
WIDTH, LEFT, RIGHT = 1180, 190, 24
ROW, GAP = 26, 6
CHART_TOP, CHART_HEIGHT = 92, 120
COLOURS = {SHORT: "#5b8def", LONG: "#7c4dbe", PROTECTED: "#d9a514"}
NAMES = {SHORT: "short task", LONG: "long task (one in ten)", PROTECTED: "protected task"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """What was seen at one moment."""

    at: float
    replicas: int
    load_factor: float | None
    """None while the adapter serves no value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundMark:
    """One verdict of the hook."""

    at: float
    allowed: bool
    from_replicas: int
    to_replicas: int
    reason: str
    seconds: float = 0.0
    """How long the API server waited for it."""
    phases: Mapping[str, float] = field(default_factory=dict)
    """Seconds that each phase of the round took, by its name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """Seconds since the epoch to pixels."""

    begin: float
    end: float

    def x(self, at: float) -> float:
        share = (min(max(at, self.begin), self.end) - self.begin) / max(self.end - self.begin, 1e-9)
        return LEFT + share * (WIDTH - LEFT - RIGHT)


def draw_timeline(
    *,
    title: str,
    outcome: Outcome,
    pods: Mapping[str, PodLife],
    runs: Sequence[Run],
    samples: Sequence[Sample],
    rounds: Sequence[RoundMark],
    slots: int,
    end: float,
) -> str:
    """The whole picture as an SVG document."""
    order = sorted(pods.values(), key=lambda pod: pod.started_at)
    begin = min((s.at for s in samples), default=end - 1)
    scale = Scale(begin=begin, end=end)
    rows_top = CHART_TOP + CHART_HEIGHT + 54
    height = rows_top + len(order) * (ROW + GAP) + 48
    parts = [
        *_head(title, outcome),
        *_seconds(scale, top=CHART_TOP, bottom=height - 40),
        *_chart(samples, rounds, scale),
    ]
    for index, pod in enumerate(order):
        top = rows_top + index * (ROW + GAP)
        own = [run for run in runs if run.pod == pod.name]
        parts += _pod(pod, own, scale, top=top, slots=slots, end=end)
    parts += _legend(height - 14)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        f'width="{WIDTH}" height="{height}" font-size="12" font-family="system-ui, sans-serif" fill="{INK}">'
        f'<rect width="100%" height="100%" fill="#ffffff"/>{"".join(parts)}</svg>\n'
    )


def _text(x: float, y: float, text: str, **attributes: str) -> str:
    more = "".join(f' {key.replace("_", "-")}="{value}"' for key, value in attributes.items())
    return f'<text x="{x:.1f}" y="{y:.1f}"{more}>{escape(text)}</text>'


def _rect(x: float, y: float, width: float, height: float, fill: str, **attributes: str) -> str:
    more = "".join(f' {key.replace("_", "-")}="{value}"' for key, value in attributes.items())
    size = f'width="{max(width, 0.6):.1f}" height="{height:.1f}"'
    return f'<rect x="{x:.1f}" y="{y:.1f}" {size} fill="{fill}"{more}/>'


def _line(x1: float, y1: float, x2: float, y2: float, colour: str, **attributes: str) -> str:
    more = "".join(f' {key.replace("_", "-")}="{value}"' for key, value in attributes.items())
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}"{more}/>'


def _head(title: str, outcome: Outcome) -> Iterable[str]:
    yield _text(24, 32, title, font_size="19", font_weight="600")
    verdict = (
        f"{outcome.finished} of {outcome.submitted} tasks finished, {outcome.killed} killed, "
        f"{outcome.lost} lost, {outcome.run_twice} run twice; {outcome.worker_seconds:.0f} worker-seconds, "
        f"the least possible were {outcome.least_worker_seconds:.0f}."
    )
    yield _text(24, 54, verdict, fill="#b3261e" if outcome.killed or outcome.lost else "#1b7f3b")


def _chart(samples: Sequence[Sample], rounds: Sequence[RoundMark], scale: Scale) -> Iterable[str]:
    """Replicas as steps, load factor as a line, verdicts as ticks below."""
    bottom = CHART_TOP + CHART_HEIGHT
    top_replicas = max((s.replicas for s in samples), default=1) + 1
    top_load = max([1.2, *(min(s.load_factor, 4.0) for s in samples if s.load_factor is not None)])
    yield _line(LEFT, bottom, WIDTH - RIGHT, bottom, "#c3c8d0")
    yield _text(24, CHART_TOP + 16, "replicas", fill="#1f6f8b", font_weight="600")
    yield _text(24, CHART_TOP + 36, f"load factor (0 to {top_load:.1f})", fill="#c05621", font_weight="600")
    yield _text(24, bottom + 24, "verdicts of the hook", fill="#23272e")
    for level in range(0, top_replicas + 1, 2):
        y = bottom - level / top_replicas * CHART_HEIGHT
        yield _text(LEFT - 8, y + 4, str(level), text_anchor="end", fill="#1f6f8b")
    yield _steps([(s.at, s.replicas / top_replicas) for s in samples], scale, bottom, "#1f6f8b")
    loads = [(s.at, min(s.load_factor, 4.0) / top_load) for s in samples if s.load_factor is not None]
    points = " ".join(f"{scale.x(at):.1f},{bottom - share * CHART_HEIGHT:.1f}" for at, share in loads)
    yield f'<polyline points="{points}" fill="none" stroke="#c05621" stroke-width="1.5"/>'
    for mark in rounds:
        colour = "#1b7f3b" if mark.allowed else "#b3261e"
        words = f"{mark.from_replicas} to {mark.to_replicas}: {mark.reason}"
        x = scale.x(mark.at)
        tip = f"<title>{escape(words)}</title>"
        yield f'<circle cx="{x:.1f}" cy="{bottom + 20}" r="5" fill="{colour}">{tip}</circle>'


def _steps(points: Sequence[tuple[float, float]], scale: Scale, bottom: float, colour: str) -> str:
    path, last = [], None
    for at, share in points:
        x, y = scale.x(at), bottom - share * CHART_HEIGHT
        path.append(f"M{x:.1f} {y:.1f}" if last is None else f"H{x:.1f}V{y:.1f}")
        last = y
    return f'<path d="{"".join(path)}" fill="none" stroke="{colour}" stroke-width="2.5"/>'


def _seconds(scale: Scale, *, top: float, bottom: float) -> Iterable[str]:
    step = 10 if scale.end - scale.begin <= 150 else 30
    for second in range(0, int(scale.end - scale.begin) + 1, step):
        x = scale.x(scale.begin + second)
        yield _line(x, top, x, bottom, "#eceff3")
        yield _text(x, bottom + 12, f"{second} s", text_anchor="middle", fill="#7a828e", font_size="11")


def _pod(
    pod: PodLife, runs: Sequence[Run], scale: Scale, *, top: float, slots: int, end: float
) -> Iterable[str]:
    ended = pod.ended_at or end
    leaving = pod.terminating_since or ended
    yield _text(24, top + ROW / 2 + 4, pod.name, font_size="11")
    yield _span(scale, pod.started_at, ended, top, "#e8ebf0")
    if pod.draining_since is not None:
        yield _span(scale, pod.draining_since, leaving, top, "#ffe2b8")
    if pod.terminating_since is not None:
        yield _span(scale, leaving, ended, top, "#f6c6c3")
    for run, lane in _lanes(runs, slots):
        yield _run(run, scale, top=top + lane * ROW / slots, height=ROW / slots, pod=pod, end=end)


def _span(scale: Scale, begin: float, end: float, top: float, colour: str) -> str:
    return _rect(scale.x(begin), top, scale.x(end) - scale.x(begin), ROW, colour)


def _lanes(runs: Sequence[Run], slots: int) -> Iterable[tuple[Run, int]]:
    """Put each run on the first slot that is free again."""
    free = [0.0] * slots
    for run in sorted(runs, key=lambda run: run.started_at):
        lane = next((i for i, at in enumerate(free) if at <= run.started_at), slots - 1)
        free[lane] = float("inf") if run.finished_at is None else run.finished_at
        yield run, lane


def _run(run: Run, scale: Scale, *, top: float, height: float, pod: PodLife, end: float) -> str:
    was_killed = run.finished_at is None and pod.ended_at is not None
    end = run.finished_at or pod.ended_at or end
    left, width = scale.x(run.started_at), scale.x(end) - scale.x(run.started_at)
    bar = _rect(left, top + 1.5, width, height - 3, COLOURS.get(run.name, "#888888"), rx="2")
    if not was_killed:
        return bar
    x, y = left + width, top + height / 2
    return (
        bar
        + _line(x - 5, y - 5, x + 5, y + 5, "#b3261e", stroke_width="2.5")
        + _line(x - 5, y + 5, x + 5, y - 5, "#b3261e", stroke_width="2.5")
    )


def _legend(y: float) -> Iterable[str]:
    entries = [(COLOURS[name], NAMES[name]) for name in (SHORT, LONG, PROTECTED)]
    entries += [("#e8ebf0", "worker"), ("#ffe2b8", "drained by the hook"), ("#f6c6c3", "terminating")]
    entries += [("#1b7f3b", "allowed"), ("#b3261e", "refused, or killed (x)")]
    x = 24.0
    for colour, words in entries:
        yield _rect(x, y - 10, 12, 12, colour, rx="2")
        yield _text(x + 17, y, words, font_size="11")
        x += 30 + 6.4 * len(words)
