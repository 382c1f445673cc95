"""What is printed for those who stay: how to look around, and how to see a refusal. Pure."""

from __future__ import annotations

from pathlib import Path

from deploy.sandbox import manifests
from deploy.sandbox.demo.story import LONG

VALUE = f"/apis/external.metrics.k8s.io/v1beta1/namespaces/{manifests.NAMESPACE}/celery_load_factor"


def hints(*, kubeconfig: Path, directory: Path, broker_url: str, python: str, root: Path) -> list[str]:
    """Lines to copy into another terminal."""
    send = f"{python} -m celery --workdir {root} -A deploy.sandbox.tasks -b {broker_url} call {LONG}"
    return [
        "The sandbox goes on running; stop it with Ctrl-C. In another terminal:",
        "",
        f"  export KUBECONFIG={kubeconfig}",
        "  kubectl get deploy,hpa,pods",
        f'  kubectl get --raw "{VALUE}?labelSelector=pool%3Ddefault"',
        "  kubectl describe deploy worker",
        "  kubectl describe pod -l app=worker",
        "",
        "A refusal: have every worker run a task of a minute, and ask for fewer workers.",
        "",
        f"  for i in 1 2 3 4 5 6; do {send} --args '[60]' --queue default; done; sleep 6",
        "  kubectl scale deploy/worker --replicas=1",
        "  kubectl annotate deploy/worker celery-hpa.io/bypass=true     # from now on nothing is refused",
        "",
        f"Logs: {directory}/*.log, workers: {directory}/pods/",
    ]
