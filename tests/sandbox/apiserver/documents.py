"""Small objects to send to the API server."""

from typing import Any

DEPLOYMENTS = "/apis/apps/v1/namespaces/default/deployments"
PODS = "/api/v1/namespaces/default/pods"
CONTAINERS = {"containers": [{"name": "c", "image": "none"}]}


def deployment(name: str = "w", replicas: int = 5) -> dict[str, Any]:
    template = {"metadata": {"labels": {"app": name}}, "spec": CONTAINERS}
    spec = {"replicas": replicas, "selector": {"matchLabels": {"app": name}}, "template": template}
    return {"metadata": {"name": name, "labels": {"app": name}}, "spec": spec}


def pod(name: str, node: str = "", **metadata: Any) -> dict[str, Any]:
    spec = CONTAINERS | ({"nodeName": node} if node else {})
    return {"metadata": {"name": name, **metadata}, "spec": spec}
