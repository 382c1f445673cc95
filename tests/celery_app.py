"""The Celery application whose workers the tests start: `celery -A tests.celery_app worker`."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from celery import Celery

app = Celery("tests", broker=os.environ.get("CELERY_BROKER_URL", "memory://"))
app.conf.update(
    broker_connection_retry_on_startup=True,
    task_ignore_result=True,
    worker_prefetch_multiplier=1,
    task_acks_late=os.environ.get("CELERY_ACKS_LATE") == "1",
)


@app.task(name="tests.sleep")  # type: ignore[untyped-decorator]  # celery ships no types
def sleep(seconds: float, **_: Any) -> None:
    """Run for so long."""
    time.sleep(seconds)


@app.task(name="tests.wait_for_file")  # type: ignore[untyped-decorator]  # as above
def wait_for_file(path: str, **_: Any) -> None:
    """Run until the file exists."""
    while not Path(path).exists():
        time.sleep(0.01)


@app.task(name="execute_workload")  # type: ignore[untyped-decorator]  # as above
def execute_workload(workload: str) -> None:
    """Run until the file exists that a workload of Airflow 3 names as its log."""
    wait_for_file(json.loads(workload)["log_path"])


@app.task(name="tests.fail")  # type: ignore[untyped-decorator]  # as above
def fail() -> None:
    """Fail at once."""
    raise RuntimeError("This task fails on purpose.")
