"""The two Airflows that are tried, and how they differ. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).parent


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """One line of Airflow's releases; its lock file names the very versions."""

    major: int
    name: str
    pythons: tuple[tuple[int, int], ...]
    """On which it runs, of those that we do."""
    components: Mapping[str, tuple[str, ...]]
    """What runs beside the workers, by name: arguments of `airflow`."""
    settings: Mapping[str, str] = field(default_factory=dict)
    """Its own, by section and key."""

    @property
    def lock(self) -> Path:
        return HERE / f"requirements-{self.major}.lock"


AIRFLOW_3 = Release(
    major=3,
    name="Airflow 3.3",
    pythons=((3, 11), (3, 12), (3, 13), (3, 14)),
    components={
        "scheduler": ("scheduler", "--skip-serve-logs"),
        "dag-processor": ("dag-processor",),
        "api-server": ("api-server", "--apps", "execution"),
    },
    settings={
        "dag_processor.refresh_interval": "600",
        "dag_processor.min_file_process_interval": "600",
        "dag_processor.parsing_processes": "1",
        "api.host": "127.0.0.1",
        "api.workers": "1",
        # A task whose heartbeat fails three times stops itself; the database is away for longer than that.
        "workers.max_failed_heartbeats": "60",
    },
)
AIRFLOW_2 = Release(
    major=2,
    name="Airflow 2.10",
    pythons=((3, 11), (3, 12)),
    components={"scheduler": ("scheduler", "--skip-serve-logs")},
    settings={
        "scheduler.dag_dir_list_interval": "600",
        "scheduler.min_file_process_interval": "600",
        "scheduler.parsing_processes": "1",
    },
)
RELEASES: Mapping[str, Release] = {"3": AIRFLOW_3, "2": AIRFLOW_2}
