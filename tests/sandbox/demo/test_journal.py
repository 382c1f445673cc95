"""From the workers' journal to runs: nothing else can say that a task was killed half way, or ran twice."""

import asyncio
import sys
from typing import Any

from redis.asyncio import Redis

from deploy.sandbox.cluster import ROOT
from deploy.sandbox.demo.journal import read_journal, runs_from
from deploy.sandbox.demo.story import SHORT
from tests.sandbox.demo.stories import run


def entry(event: str, task: str, at: float, pod: str = "w-0", run: str = "r") -> dict[str, Any]:
    return {"event": event, "run": run, "id": task, "name": SHORT, "pod": pod, "at": at}


def test_a_start_and_an_end_make_a_run() -> None:
    assert runs_from([entry("started", "a", 1), entry("finished", "a", 3)]) == (run("a", 1, 3),)


def test_a_killed_task_has_no_end() -> None:
    """Its process could not write one."""
    assert runs_from([entry("started", "a", 1)]) == (run("a", 1, None),)


def test_a_task_that_ran_on_two_pods_gives_two_runs() -> None:
    """The broker delivers it again when the first worker never acknowledged it."""
    entries = [
        entry("started", "a", 1, run="first"),
        entry("started", "a", 5, "w-1", run="second"),
        entry("finished", "a", 7, "w-1", run="second"),
    ]
    assert runs_from(entries) == (run("a", 1, None), run("a", 5, 7, pod="w-1"))


def test_a_task_that_began_twice_in_one_pod_gives_two_runs() -> None:
    """Its container was killed and started again: the end belongs to the second start."""
    entries = [
        entry("started", "a", 1, run="first"),
        entry("started", "a", 5, run="second"),
        entry("finished", "a", 7, run="second"),
    ]
    assert runs_from(entries) == (run("a", 1, None), run("a", 5, 7))


def test_a_task_may_run_twice_at_the_same_time_in_one_worker() -> None:
    """A broker that lost its connection to the worker hands the task out again, to the same one."""
    entries = [
        entry("started", "a", 1, run="first"),
        entry("started", "a", 5, run="second"),
        entry("finished", "a", 7, run="first"),
        entry("finished", "a", 9, run="second"),
    ]
    assert runs_from(entries) == (run("a", 1, 7), run("a", 5, 9))


def test_an_end_without_a_start_is_no_run() -> None:
    assert runs_from([entry("finished", "a", 3)]) == ()


def test_runs_are_in_the_order_of_their_starts() -> None:
    """Each process writes for itself: the journal's own order is that of the entries' arrival."""
    entries = [entry("started", "b", 2), entry("started", "a", 1, run="x"), entry("finished", "b", 3)]
    assert [one.id for one in runs_from(entries)] == ["a", "b"]


async def test_a_worker_writes_what_is_read(valkey_url: str) -> None:
    """The process that runs a task tells its start and its end, with the pod it is in."""
    async with Redis.from_url(valkey_url) as valkey:
        assert await read_journal(valkey) == ()
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", "from deploy.sandbox.tasks import import_order as t; t.apply((0.01,))"),
            env={"BROKER_URL": valkey_url, "POD_NAME": "w-3", "PYTHONPATH": str(ROOT)},
        )
        assert await process.wait() == 0
        (seen,) = await read_journal(valkey)
    assert (seen.name, seen.pod) == (SHORT, "w-3")
    assert seen.finished_at is not None
    assert seen.finished_at - seen.started_at >= 0.01
