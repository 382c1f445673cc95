"""The Celery app of the sandbox's workers: tasks that wait, and a journal of what really ran.

The journal is a list in a Valkey, the broker itself or the one of JOURNAL_URL: every start and every end of a
task, told by the process that runs it. Nothing else can say afterwards that a task was killed half way or ran
twice.
"""

from __future__ import annotations

import json
import os
import time
from functools import cache
from typing import Any
from uuid import uuid4

import redis
from celery import Celery
from celery.signals import task_postrun, task_prerun

from deploy.sandbox.demo.journal import JOURNAL

app = Celery("sandbox", broker=os.environ.get("BROKER_URL", "redis://127.0.0.1:6379/0"))
app.conf.update(
    # What Airflow sets: a task is acknowledged when it ended, and nothing is prefetched beyond the slots.
    task_acks_late=True,
    worker_prefetch_multiplier=1,
    task_ignore_result=True,
    broker_connection_retry_on_startup=True,
    worker_hijack_root_logger=False,
)
if seconds := os.environ.get("VISIBILITY_TIMEOUT"):
    # On Redis: until a task whose worker was killed is handed out again; an hour by default.
    app.conf.broker_transport_options = {"visibility_timeout": int(seconds)}


@app.task(name="orders.import")
def import_order(seconds: float) -> None:
    """The common, short task."""
    time.sleep(seconds)


@app.task(name="reports.render")
def render_report(seconds: float) -> None:
    """The long tail."""
    time.sleep(seconds)


@app.task(name="billing.close_month")
def close_month(seconds: float) -> None:
    """The task that the sandbox's pool protects."""
    time.sleep(seconds)


@cache
def _journal_of(process: int) -> redis.Redis:
    """One connection per process: a forked pool process must not share its parent's socket."""
    return redis.Redis.from_url(os.environ.get("JOURNAL_URL", app.conf.broker_url))


def _write(event: str, task: Any) -> None:
    entry = {
        "event": event,
        "run": task.request.sandbox_run,
        "id": task.request.id,
        "name": task.name,
        "pod": os.environ.get("POD_NAME", ""),
        "at": time.time(),
    }
    _journal_of(os.getpid()).rpush(JOURNAL, json.dumps(entry))


@task_prerun.connect
def _started(task: Any, **_: Any) -> None:
    # A task's id does not name its run: it may run twice, and in one worker at the same time.
    task.request.sandbox_run = uuid4().hex
    _write("started", task)


@task_postrun.connect
def _finished(task: Any, **_: Any) -> None:
    _write("finished", task)
