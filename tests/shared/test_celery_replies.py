"""Workers' answers become values: against recordings of every pool, and against whatever else may come."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.celery_replies import (
    MalformedReply,
    Stats,
    parse_acknowledgement,
    parse_active_queues,
    parse_scheduled,
    parse_software,
    parse_stats,
    parse_tasks,
    snapshot,
)
from shared.workers import Software, Task

RECORDINGS = Path(__file__).parent.parent / "recordings" / "celery"
NODE = "celery@podA"
PARSERS = (
    parse_stats,
    parse_tasks,
    parse_scheduled,
    parse_active_queues,
    parse_acknowledgement,
    parse_software,
)

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


def recorded(name: str) -> dict[str, Any]:
    recording: dict[str, Any] = json.loads((RECORDINGS / f"{name}.json").read_text())
    return recording


@pytest.mark.parametrize(
    ("name", "slots", "pool"),
    [
        ("amqp_prefork", 2, "prefork"),
        ("redis_prefork", 2, "prefork"),
        ("redis_prefork_as", 5, "prefork"),
        ("redis_threads", 3, "threads"),
        ("redis_gevent", 3, "gevent"),
        ("redis_solo", 1, "solo"),
    ],
)
def test_slots_of_each_pool(name: str, slots: int, pool: str) -> None:
    """An autoscaler's maximum counts; else prefork's processes; else max-concurrency."""
    stats = recorded(name)["stats"][NODE]
    assert parse_stats(stats) == Stats(slots=slots, pool=pool, pid=stats["pid"])


def test_a_grown_prefork_pool_counts_its_processes() -> None:
    """pool_grow leaves max-concurrency at what the worker was started with."""
    stats = recorded("redis_prefork")["stats"][NODE]
    stats["pool"]["processes"] = [1, 2, 3, 4]
    assert parse_stats(stats).slots == 4


@pytest.mark.parametrize(
    ("name", "active", "reserved"),
    [
        ("amqp_prefork", 2, 4),
        ("redis_prefork", 2, 4),
        ("redis_prefork_as", 5, 1),
        ("redis_threads", 3, 3),
        ("redis_gevent", 3, 1),
        ("redis_solo", 0, 0),
    ],
)
def test_tasks_of_each_pool(name: str, active: int, reserved: int) -> None:
    """Running tasks know when they started, prefetched ones have not."""
    recording = recorded(name)
    running, prefetched = parse_tasks(recording["active"][NODE]), parse_tasks(recording["reserved"][NODE])
    assert (len(running), len(prefetched)) == (active, reserved)
    assert all(task.started_at is not None and task.started_at < recording["now"]["time"] for task in running)
    assert all(task.started_at is None for task in prefetched)
    assert {task.name for task in (*running, *prefetched)} <= {"lab.sleep"}


def test_a_task_held_for_its_eta() -> None:
    """scheduled wraps each task in its eta."""
    (task,) = parse_scheduled(recorded("redis_prefork")["scheduled"][NODE])
    assert (task.name, task.started_at) == ("lab.sleep", None)


def test_queues_of_a_worker() -> None:
    """Queues are known by name, whatever exchange they hang on."""
    queues = parse_active_queues(recorded("redis_prefork")["active_queues"][NODE])
    assert queues == {"celery", "prio", "topicq"}


@pytest.mark.parametrize("key", ["cancel_ok", "cancel_again", "cancel_unknown", "add_ok", "add_unknown"])
def test_every_ok_is_an_acknowledgement(key: str) -> None:
    """Workers say ok to a repeated command and to an unknown queue as well."""
    assert parse_acknowledgement(recorded("redis_prefork")[key][0][NODE])


@pytest.mark.parametrize("key", ["bad_cmd", "bad_args"])
def test_an_error_is_no_acknowledgement(key: str) -> None:
    """A worker that did not understand has not obeyed."""
    assert not parse_acknowledgement(recorded("redis_prefork")[key][0][NODE])


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf, 10**400, "nan"])
def test_numbers_that_are_none_are_malformed(number: Any) -> None:
    """Python's JSON lets them through; they must neither end the connection nor get into a cost."""
    with pytest.raises(MalformedReply):
        parse_tasks([{"id": "1", "name": "a", "time_start": number}])
    with pytest.raises(MalformedReply):
        parse_stats({"pool": {"max-concurrency": number}, "pid": math.inf})


@pytest.mark.parametrize("parse", PARSERS[:4])
def test_an_error_is_no_answer(parse: Any) -> None:
    """{'error': …} where tasks were asked for must not read as no tasks."""
    with pytest.raises(MalformedReply):
        parse({"error": "KeyError('active')"})


@given(reply=json_values)
def test_a_strange_reply_is_a_value_or_malformed(reply: Any) -> None:
    """Whatever a worker sends, a parser returns a value or raises MalformedReply."""
    for parse in PARSERS:
        try:
            parse(reply)
        except MalformedReply as error:
            assert error.__cause__ is None  # noqa: PT017 - the point is that nothing else is raised


@given(secret=st.text("uvwxyz0123456789", min_size=12, max_size=24).map("secret-".__add__))
def test_arguments_never_pass(secret: str) -> None:
    """Airflow's arguments hold a token; neither a task nor a complaint about one may repeat them."""
    info = recorded("redis_prefork")["active"][NODE][0] | {"args": [secret], "kwargs": {"token": secret}}
    assert secret not in repr(parse_tasks([info]))
    with pytest.raises(MalformedReply) as caught:
        parse_tasks([info | {"time_start": secret}])
    assert secret not in str(caught.value)
    assert caught.value.__suppress_context__


tasks = st.lists(st.builds(Task, id=st.sampled_from("abcdefgh"), name=st.just("t")), unique_by=lambda t: t.id)


@given(scheduled=tasks, reserved=tasks, active=tasks)
def test_a_task_that_moved_on_between_two_answers_counts_once(
    scheduled: list[Task], reserved: list[Task], active: list[Task]
) -> None:
    """Tasks move from scheduled to reserved to active; none is lost, none is double, the later place wins."""
    worker = snapshot(
        NODE,
        stats=Stats(slots=1, pool="prefork", pid=1),
        active_queues=frozenset(),
        scheduled=tuple(scheduled),
        reserved=tuple(reserved),
        active=tuple(active),
    )
    everywhere = [task.id for task in (*worker.active, *worker.reserved, *worker.eta)]
    assert sorted(everywhere) == sorted({task.id for task in (*scheduled, *reserved, *active)})
    assert worker.active == tuple(active)
    assert {task.id for task in worker.reserved} == {t.id for t in reserved} - {t.id for t in active}


def test_a_report_is_read_no_further_than_its_versions() -> None:
    """As celery 5 writes it; its settings may hold what nobody should see."""
    report = (
        "\nsoftware -> celery:5.4.0 (opalescent) kombu:5.4.2 py:3.12.4\n            billiard:4.2.0"
        "\nplatform -> system:Linux arch:64bit\nsettings -> transport:redis\n\ntoken: 's3cret'\n"
    )
    assert parse_software({"ok": report}) == Software(celery="5.4.0", kombu="5.4.2")


@pytest.mark.parametrize("report", ["", "token: 's3cret'", "\nsoftware -> s3cret", {"error": "s3cret"}, None])
def test_another_report_is_malformed_and_not_repeated(report: Any) -> None:
    with pytest.raises(MalformedReply) as caught:
        parse_software({"ok": report})
    assert "s3cret" not in str(caught.value)
    assert caught.value.__cause__ is None
