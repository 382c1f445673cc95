"""The objects of the demo fit each other, and what the services and the workers take."""

import subprocess
import sys
from itertools import pairwise

import yaml

from deploy.sandbox import manifests
from deploy.sandbox.cluster import ROOT, worker_environment
from deploy.sandbox.demo.story import LONG, PROTECTED, SHORT
from shared.pools import parse_configuration
from shared.workers import Task

POOL = manifests.pool(
    name="default", workload="worker", broker_url="redis://127.0.0.1/0", slots=2, queues=("default",)
)


def test_the_configuration_is_one() -> None:
    """As it is written for both services."""
    configuration = parse_configuration(yaml.safe_dump(manifests.configuration(POOL)))
    (pool,) = configuration.pools
    assert (pool.namespace, pool.workload.name, pool.slots_per_worker) == (manifests.NAMESPACE, "worker", 2)


def test_one_of_the_three_tasks_is_protected() -> None:
    (pool,) = parse_configuration(yaml.safe_dump(manifests.configuration(POOL))).pools
    tasks = [Task(id="t", name=name) for name in (SHORT, LONG, PROTECTED)]
    assert [task.name for task in tasks if pool.is_protected(task)] == [PROTECTED]


def test_workers_know_the_tasks_that_are_submitted() -> None:
    """From the module that their command names, in nothing but the environment that their pods have."""
    command = manifests.worker_command(slots=2, queues=("default",))
    module = command[command.index("--app") + 1]
    source = f"import {module} as m; print(*sorted(name for name in m.app.tasks if name[:7] != 'celery.'))"
    environment = worker_environment("redis://127.0.0.1:1/0")
    done = subprocess.run(
        [sys.executable, "-c", source], env=environment, cwd="/", capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == sorted([SHORT, LONG, PROTECTED])
    assert environment["PYTHONPATH"] == str(ROOT)


def test_a_worker_consumes_the_queues_of_its_pool_under_its_pods_name() -> None:
    """The name is how a pod and its worker find each other."""
    command = manifests.worker_command(slots=2, queues=("default", "reports"))
    options = dict(pairwise(command))
    assert options["--queues"] == "default,reports"
    assert options["--concurrency"] == "2"
    assert options["--hostname"] == "celery@$(POD_NAME)"
    deployment = manifests.worker_deployment(
        name="worker", replicas=1, command=command, environment={}, grace_seconds=1
    )
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert container["env"][0]["valueFrom"] == {"fieldRef": {"fieldPath": "metadata.name"}}
