"""How Airflow is set up and run as pods of the sandbox. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from deploy.sandbox import manifests
from tests.airflow.releases import HERE, Release

WORKLOAD = POOL = "airflow-worker"
QUEUES = ("default", "high")
SLOTS = 2
MOST_WORKERS = 3
GRACE_SECONDS = 120
INSIDE = HERE / "inside"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """One Airflow: what it is installed as, and what it is told."""

    release: Release
    commands: Path
    home: Path
    """AIRFLOW_HOME; the pods of no other stack have it."""
    signals: Path
    """Files in it end the tasks that wait for them; the tasks fail when it is gone."""
    database_url: str
    broker_url: str
    api_port: int
    secret: str

    @property
    def environment(self) -> dict[str, str]:
        """All that its processes are told, as a Helm chart would."""
        settings = {**_COMMON, **self.release.settings, **self._addresses()}
        return {
            "AIRFLOW_HOME": str(self.home),
            "SIGNALS": str(self.signals),
            "PYTHONPATH": str(INSIDE),
            # Airflow 2 starts itself by name.
            "PATH": f"{self.commands}:/usr/local/bin:/usr/bin:/bin",
            **{_variable(name): value for name, value in settings.items()},
        }

    def command(self, *arguments: str) -> list[str]:
        return [str(self.commands / "airflow"), *arguments]

    def components(self) -> list[manifests.Document]:
        """Deployments of everything but the workers."""
        return [
            _deployment(f"airflow-{name}", self.command(*arguments), self.environment, grace_seconds=20)
            for name, arguments in self.release.components.items()
        ]

    def workers(self) -> manifests.Document:
        """The Deployment that is scaled; one worker at first."""
        queues = ",".join(QUEUES)
        command = self.command(
            *("celery", "worker", "--celery-hostname", "$(POD_NAME)", "--queues", queues),
            *("--pid", "$(POD_NAME).pid", "--skip-serve-logs"),
        )
        return _deployment(WORKLOAD, command, self.environment, grace_seconds=GRACE_SECONDS)

    def _addresses(self) -> Mapping[str, str]:
        url = f"http://127.0.0.1:{self.api_port}"
        return {
            "database.sql_alchemy_conn": self.database_url,
            "celery.broker_url": self.broker_url,
            "celery.result_backend": f"db+{self.database_url}",
            "api.port": str(self.api_port),
            "api.base_url": url,
            "core.execution_api_server_url": f"{url}/execution/",
            "api.secret_key": self.secret,
            "api_auth.jwt_secret": self.secret,
            "webserver.secret_key": self.secret,
        }


_COMMON = {
    "core.executor": "CeleryExecutor",
    "core.dags_folder": str(INSIDE / "dags"),
    "core.load_examples": "False",
    "core.dags_are_paused_at_creation": "True",
    "core.hostname_callable": "pod_name.pod_name",
    "database.load_default_connections": "False",
    "usage_data_collection.enabled": "False",
    "celery.worker_concurrency": str(SLOTS),
}


def configuration(broker_url: str, database_url: str) -> manifests.Document:
    """What both services read."""
    pool = manifests.pool(
        name=POOL,
        workload=WORKLOAD,
        broker_url=broker_url,
        slots=SLOTS,
        queues=QUEUES,
        drain={"whenBusy": "wait", "holdSeconds": 1},
    )
    del pool["labels"]  # all of them are Airflow's
    return manifests.configuration(pool | {"airflow": {"database": database_url}}) | {"maxAge": "8s"}


def autoscaler() -> manifests.Document:
    """A stock HPA that wants as many slots as there are tasks, and may not scale down yet."""
    document = manifests.autoscaler(
        name=WORKLOAD, pool=POOL, max_replicas=MOST_WORKERS, behavior=behavior(scale_down=False)
    )
    (metric,) = document["spec"]["metrics"]
    # In contrast to the load factor it is as exact in the seconds in which a new worker starts.
    metric["external"]["metric"]["name"] = "celery_demand"
    metric["external"]["target"] = {"type": "AverageValue", "averageValue": str(SLOTS)}
    return document


def behavior(*, scale_down: bool) -> manifests.Document:
    down = {"type": "Pods", "value": 1, "periodSeconds": 2}
    return {
        "scaleUp": {
            "stabilizationWindowSeconds": 0,
            "policies": [{"type": "Pods", "value": 2, "periodSeconds": 4}],
        },
        "scaleDown": {
            "stabilizationWindowSeconds": 2,
            "selectPolicy": "Max" if scale_down else "Disabled",
            "policies": [down],
        },
    }


def _deployment(
    name: str, command: list[str], environment: dict[str, str], *, grace_seconds: int
) -> manifests.Document:
    return manifests.worker_deployment(
        name=name, replicas=1, command=command, environment=environment, grace_seconds=grace_seconds
    )


def _variable(setting: str) -> str:
    section, _, key = setting.partition(".")
    return f"AIRFLOW__{section}__{key}".upper()
