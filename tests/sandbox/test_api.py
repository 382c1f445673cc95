"""The API server over its real TLS port, one request at a time."""

from typing import Any

from tests.sandbox.conftest import Client

PODS = "/api/v1/namespaces/default/pods"
DEPLOYMENTS = "/apis/apps/v1/namespaces/default/deployments"


def deployment(name: str = "w", replicas: int = 5) -> dict[str, Any]:
    template = {"metadata": {"labels": {"app": name}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
    spec = {"replicas": replicas, "selector": {"matchLabels": {"app": name}}, "template": template}
    return {"metadata": {"name": name, "labels": {"app": name}}, "spec": spec}


def pod(name: str, **metadata: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, **metadata}, "spec": {"containers": [{"name": "c", "image": "i"}]}}


async def test_an_object_is_created_read_listed_and_deleted(client: Client) -> None:
    """What was posted comes back with an identity, and is gone after its deletion."""
    created = await client.post(DEPLOYMENTS, deployment())
    assert created.status == 201
    assert created.body["metadata"]["generation"] == 1
    assert (await client.get(f"{DEPLOYMENTS}/w")).body == created.body
    listed = (await client.get(DEPLOYMENTS)).body
    assert listed["kind"] == "DeploymentList"
    assert [item["metadata"]["name"] for item in listed["items"]] == ["w"]
    deleted = await client.delete(f"{DEPLOYMENTS}/w")
    assert deleted.body["details"] == {
        "name": "w",
        "group": "apps",
        "kind": "deployments",
        "uid": created.body["metadata"]["uid"],
    }
    gone = await client.get(f"{DEPLOYMENTS}/w")
    assert (gone.status, gone.body["message"]) == (404, 'deployments.apps "w" not found')
