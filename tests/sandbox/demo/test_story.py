"""What is submitted, and what is said to have become of it."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.sandbox.demo.journal import Run
from deploy.sandbox.demo.story import LONG, PROTECTED, SHORT, Outcome, PodLife, burst
from deploy.sandbox.demo.story import outcome as outcome_of
from tests.sandbox.demo.stories import END, life, lives, run, told

Story = tuple[tuple[Run, ...], dict[str, PodLife], int]


def ended(
    *runs: Run, submitted: str = "ab", pods: dict[str, PodLife] | None = None, slots: int = 1
) -> Outcome:
    return outcome_of(
        submitted=frozenset(submitted), runs=runs, pods=pods or lives(life()), slots=slots, now=END
    )


@given(tens=st.integers(1, 30), short_s=st.floats(0.1, 10))
def test_one_task_in_ten_runs_ten_times_as_long(tens: int, short_s: float) -> None:
    tasks = burst(count=10 * tens, short_s=short_s, protected_s=1)
    assert Counter(task.name for task in tasks) == {SHORT: 9 * tens, LONG: tens, PROTECTED: 1}
    assert {task.seconds for task in tasks if task.name == SHORT} == {short_s}
    assert {task.seconds for task in tasks if task.name == LONG} == {10 * short_s}


def test_the_same_tasks_are_submitted_every_time() -> None:
    """Else the story with the hook and the one without could not be compared."""
    first, second = (burst(count=150, short_s=1.5, protected_s=45) for _ in range(2))
    assert first == second


def test_most_long_tasks_come_late() -> None:
    """Were they all among the first, no scale-down would meet any."""
    names = [task.name for task in burst(count=150, short_s=1, protected_s=1)]
    assert (names[:75].count(LONG), names[75:].count(LONG)) == (3, 12)


def test_tasks_that_finished_are_neither_killed_nor_lost() -> None:
    figures = ended(run("a", 0, 10), run("b", 10, 30))
    assert (figures.submitted, figures.finished) == (2, 2)
    assert (figures.killed, figures.lost, figures.run_twice) == (0, 0, 0)


def test_a_task_whose_pod_went_first_is_killed_and_lost() -> None:
    figures = ended(run("a", 0, 10), run("b", 10, None), pods=lives(life(ended_at=20)))
    assert (figures.finished, figures.killed, figures.lost) == (1, 1, 1)


def test_a_task_that_still_runs_is_not_killed() -> None:
    """It is not finished either; when the story ends with it, it counts as lost."""
    figures = ended(run("a", 0, 10), run("b", 10, None))
    assert (figures.finished, figures.killed, figures.lost) == (1, 0, 1)


def test_a_task_on_a_pod_that_was_never_seen_and_did_not_finish_is_killed() -> None:
    """It came and went between two looks."""
    assert ended(run("b", 10, None, pod="w-7")).killed == 1


def test_a_task_that_never_started_is_lost() -> None:
    figures = ended(run("a", 0, 10))
    assert (figures.killed, figures.lost) == (0, 1)


def test_a_task_that_was_killed_and_ran_again_is_run_twice_and_not_lost() -> None:
    pods = lives(life(ended_at=5), life("w-1"))
    figures = ended(run("a", 0, None), run("a", 6, 9, pod="w-1"), submitted="a", pods=pods)
    assert (figures.finished, figures.killed, figures.lost, figures.run_twice) == (1, 1, 0, 1)


def test_worker_seconds_count_every_pod_while_it_lives() -> None:
    """To now for one that still does."""
    assert ended(pods=lives(life(ended_at=30), life("w-1", 20))).worker_seconds == pytest.approx(30 + 80)


def test_the_least_worker_seconds_follow_what_ran() -> None:
    """Two slots: three tasks at once need two workers, and nothing to do needs the HPA's minReplicas."""
    runs = (run("a", 10, 30), run("b", 10, 30), run("c", 20, 40, pod="w-1"))
    figures = ended(*runs, pods=lives(life(), life("w-1", 15)), slots=2)
    assert figures.least_worker_seconds == pytest.approx(END + 10)


def test_nothing_seen_took_nothing() -> None:
    figures = outcome_of(submitted=frozenset(), runs=(), pods={}, slots=1, now=END)
    assert (figures.worker_seconds, figures.least_worker_seconds) == (0, 0)


@given(story=told())
def test_no_story_takes_less_than_the_least_possible(story: Story) -> None:
    """What happened was possible, so the least possible is not more; and never less than one worker."""
    runs, pods, slots = story
    figures = outcome_of(submitted=frozenset(), runs=runs, pods=pods, slots=slots, now=END)
    assert figures.least_worker_seconds <= figures.worker_seconds + 1e-6
    assert figures.least_worker_seconds >= END - 1e-6


@given(story=told())
def test_every_task_has_one_end(story: Story) -> None:
    """Finished, or lost; and what was killed, once, is among the lost."""
    runs, pods, slots = story
    submitted = frozenset(one.id for one in runs) | {"never started"}
    figures = outcome_of(submitted=submitted, runs=runs, pods=pods, slots=slots, now=END)
    assert figures.finished + figures.lost == figures.submitted
    assert figures.killed < figures.lost
    assert figures.run_twice == 0
