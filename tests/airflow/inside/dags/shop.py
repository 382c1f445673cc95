"""A shop's DAGs: short tasks, long ones, and two that must not be stopped. Airflow 2 and 3 load this file.

Each runs once, as soon as it is unpaused. Tasks that must outlast something end when they are told to, by a
file: nobody has to guess how long a machine takes.
"""

import os
import time
from pathlib import Path

try:
    from airflow.sdk import DAG, TaskGroup, task
except ImportError:  # Airflow 2
    from airflow.decorators import task
    from airflow.models.dag import DAG
    from airflow.utils.task_group import TaskGroup

from datetime import datetime, timezone

SIGNALS = Path(os.environ["SIGNALS"])
LONGEST_S = 900
ONCE = {
    "schedule": "@once",
    "start_date": datetime(2026, 1, 1, tzinfo=timezone.utc),  # noqa: UP017 (as Airflow's users write it)
    "catchup": False,
    "default_args": {"retries": 0},
}


def wait_for(signal):
    """Until the file is there; fails when nobody is left who could write it."""
    deadline = time.monotonic() + LONGEST_S
    while not (SIGNALS / signal).exists():
        if time.monotonic() > deadline or not SIGNALS.exists():
            raise RuntimeError(f"Nobody wrote {signal}.")
        time.sleep(0.2)


with DAG("opening", **ONCE):

    @task
    def unlock(door):
        wait_for("opening")

    unlock.expand(door=["front", "back"])


with DAG("reports", tags=["drain:weight=5"], **ONCE):

    @task
    def yearly():
        wait_for("reports")

    @task
    def weekly():
        wait_for("opening")

    yearly()
    weekly()


with DAG("backup", tags=["drain:protect"], **ONCE):

    @task
    def dump():
        wait_for("backup")

    dump()


with DAG("closing", **ONCE):
    with TaskGroup("books"):

        @task(queue="high", executor_config={"drain": {"protect": True}})
        def ledger():
            wait_for("closing")

        booked = ledger()

    @task
    def announce():
        pass

    booked >> announce()


def burst(dag_id, seconds):
    """Many short tasks at once, mapped."""
    with DAG(dag_id, **ONCE) as dag:

        @task
        def send(seconds):
            time.sleep(seconds)

        send.expand(seconds=seconds)
    return dag


morning = burst("morning", [1] * 6)
evening = burst("evening", [1] * 4)
