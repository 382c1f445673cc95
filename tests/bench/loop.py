"""`python -m tests.bench.loop KUBECONFIG BROKER_URL POOL`: the loop of airflow-helm/charts#339, to compare.

As an engineer would write it in an afternoon, with the official clients: list the pods, ask the workers what
they run, then one PATCH and one cancel after another. It does not look whether a worker has obeyed. Each line
of standard input is a round to make, as JSON; what it took comes as a line of JSON.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable

from celery import Celery
from kubernetes import client, config

from deploy.sandbox.manifests import NAMESPACE
from shared.pods import DELETION_COST

TUNED_TIMEOUT_S = 10.0
"""It returns as soon as everybody in its destination list has answered."""


def scale_down(
    core: client.CoreV1Api, celery: Celery, *, pool: str, victims: int, is_tuned: bool
) -> dict[str, float]:
    """Seconds until the pods were listed, the workers had answered, and all victims were cancelled."""
    seconds, elapsed = {}, _stopwatch()
    pods = core.list_namespaced_pod(NAMESPACE, label_selector=f"app={pool}").items
    seconds["list"] = elapsed()
    nodes = {f"celery@{pod.metadata.name}": pod.metadata.name for pod in pods}
    inspect = (
        celery.control.inspect(destination=list(nodes), timeout=TUNED_TIMEOUT_S)
        if is_tuned
        else celery.control.inspect()
    )
    active = inspect.active() or {}
    seconds["ask"] = elapsed()
    for node in sorted(nodes, key=lambda node: len(active.get(node, ())))[:victims]:
        annotations = {"metadata": {"annotations": {DELETION_COST: "-1"}}}
        core.patch_namespaced_pod(nodes[node], NAMESPACE, annotations)
        celery.control.cancel_consumer(pool, destination=[node])
    seconds["mark and cancel"] = elapsed()
    return seconds | {"all": sum(seconds.values())}


def _stopwatch() -> Callable[[], float]:
    """Seconds since it was last asked."""
    last = time.perf_counter()

    def elapsed() -> float:
        nonlocal last
        before, last = last, time.perf_counter()
        return last - before

    return elapsed


def main(kubeconfig: str, broker_url: str, pool: str) -> None:
    config.load_kube_config(kubeconfig)
    core, celery = client.CoreV1Api(), Celery(broker=broker_url, set_as_current=False)
    for line in sys.stdin:
        order = json.loads(line)
        print(json.dumps(scale_down(core, celery, pool=pool, **order)), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
