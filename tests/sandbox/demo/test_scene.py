"""What is seen at one moment, and what a pod's life was over all of them."""

from dataclasses import replace

import pytest

from deploy.sandbox.demo.scene import follow, worker_rows
from deploy.sandbox.demo.story import PROTECTED, SHORT
from shared.pods import Pod
from tests.drain_hook.builders import mark, pod, unready
from tests.sandbox.demo.stories import life, run

MARKED = pod("w-0", mark=mark("w-0"))
TERMINATING = pod("w-0", is_terminating=True)


@pytest.mark.parametrize(
    ("seen", "names", "state"),
    [
        (pod("w-0"), [], "idle"),
        (unready("w-0"), [], "starting"),
        (pod("w-0"), [SHORT], "busy"),
        (pod("w-0"), [SHORT, PROTECTED], "protected"),
        (MARKED, [SHORT], "draining"),
        (replace(MARKED, is_terminating=True), [PROTECTED], "terminating"),
    ],
)
def test_a_worker_is_shown_by_what_matters_most(seen: Pod, names: list[str], state: str) -> None:
    """A pod that goes is going, whatever it runs; one that is drained is, whatever it runs."""
    runs = [run(f"t-{number}", 1, None, name=name) for number, name in enumerate(names)]
    (row,) = worker_rows([seen], runs, now=5)
    assert row.state == state


def test_a_worker_is_shown_with_the_tasks_it_runs_now() -> None:
    """Not with those that ended, nor those of others."""
    runs = [run("a", 1, 2), run("b", 2, None), run("c", 3, None, pod="w-1")]
    (row,) = worker_rows([pod("w-0")], runs, now=5)
    assert row.tasks == ((SHORT, 3),)


def test_the_oldest_worker_is_shown_first() -> None:
    rows = worker_rows([pod("b", created_at=2), pod("c", created_at=1), pod("a", created_at=2)], [], now=5)
    assert [row.pod for row in rows] == ["c", "a", "b"]


def test_a_life_begins_when_a_pod_is_first_seen() -> None:
    lives = follow({}, [pod("w-0")], now=3)
    assert follow(lives, [pod("w-0")], now=4) == {"w-0": life(started_at=3)}


def test_a_life_ends_when_its_pod_is_seen_no_more_and_stays_ended() -> None:
    lives = follow({"w-0": life()}, [], now=7)
    assert follow(lives, [], now=9) == {"w-0": life(ended_at=7)}


def test_a_mark_begins_a_drain() -> None:
    lives = follow(follow({"w-0": life()}, [MARKED], now=3), [MARKED], now=4)
    assert lives["w-0"].draining_since == 3


def test_a_mark_that_is_taken_back_ends_the_drain() -> None:
    """Its worker consumes again, so the picture shows it as any other."""
    lives = follow({"w-0": life(draining_since=3)}, [pod("w-0")], now=4)
    assert lives["w-0"].draining_since is None


def test_a_pod_that_terminates_keeps_the_time_its_drain_began() -> None:
    lives = follow({"w-0": life(draining_since=3)}, [TERMINATING], now=4)
    assert (lives["w-0"].draining_since, lives["w-0"].terminating_since) == (3, 4)


def test_a_pod_terminates_once() -> None:
    lives = follow({"w-0": life(terminating_since=4)}, [TERMINATING], now=6)
    assert lives["w-0"].terminating_since == 4
