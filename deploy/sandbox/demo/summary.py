"""What is printed at the end. Pure."""

from __future__ import annotations

from deploy.sandbox.demo.story import Outcome
from deploy.sandbox.demo.timeline import RoundMark
from deploy.sandbox.demo.verdicts import median_seconds


def summary_lines(outcome: Outcome, rounds: tuple[RoundMark, ...], *, with_hook: bool) -> list[str]:
    """The summary, a fact a line."""
    refused = sum(1 for mark in rounds if not mark.allowed)
    lines = [
        f"tasks submitted     {outcome.submitted}",
        f"tasks finished      {outcome.finished}",
        f"tasks killed        {outcome.killed}",
        f"tasks lost          {outcome.lost}",
        f"tasks run twice     {outcome.run_twice}",
    ]
    if with_hook:
        lines += [
            f"rounds allowed      {len(rounds) - refused}",
            f"rounds refused      {refused}",
            f"seconds per verdict {median_seconds(rounds):.3f} (median), {_longest(rounds):.3f} (longest)",
        ]
    lines += [
        f"worker-seconds      {outcome.worker_seconds:.0f}",
        f"least possible      {outcome.least_worker_seconds:.0f}",
    ]
    return lines


def closing_sentence(outcome: Outcome, *, with_hook: bool) -> str:
    """What the figures mean."""
    if not outcome.killed and not outcome.lost:
        return "No task was killed or lost."
    how = (
        ""
        if with_hook
        else " That is what a plain HPA does; run `make demo` to see the same tasks with the hook."
    )
    killed = "1 task was killed" if outcome.killed == 1 else f"{outcome.killed} tasks were killed"
    return f"{killed} and {outcome.lost} never finished.{how}"


def _longest(rounds: tuple[RoundMark, ...]) -> float:
    return max((mark.seconds for mark in rounds), default=0.0)
