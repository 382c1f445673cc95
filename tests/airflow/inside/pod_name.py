"""Airflow's `hostname_callable`: pods of the sandbox share a machine, whose name tells nothing."""

import os


def pod_name() -> str:
    return os.environ["POD_NAME"]
