"""The API server over its real TLS port, one request at a time."""

import json

import pytest

from deploy.sandbox.apiserver.server import ApiServer
from tests.sandbox import recordings
from tests.sandbox.apiserver.documents import DEPLOYMENTS, PODS, deployment, pod
from tests.sandbox.http_client import Client

W = f"{DEPLOYMENTS}/w"


async def test_an_object_is_created_read_listed_and_deleted(client: Client) -> None:
    """What was posted comes back with an identity, and is gone after its deletion."""
    created = await client.post(DEPLOYMENTS, deployment())
    assert created.status == 201
    assert created.body["metadata"]["generation"] == 1
    assert (await client.get(W)).body == created.body
    listed = (await client.get(DEPLOYMENTS)).body
    assert listed["kind"] == "DeploymentList"
    assert [item["metadata"]["name"] for item in listed["items"]] == ["w"]
    deleted = await client.delete(W)
    uid = created.body["metadata"]["uid"]
    assert deleted.body["details"] == {"name": "w", "group": "apps", "kind": "deployments", "uid": uid}
    gone = await client.get(W)
    assert (gone.status, gone.body["message"]) == (404, 'deployments.apps "w" not found')


async def test_a_stale_body_is_a_conflict_in_the_real_servers_words(client: Client) -> None:
    """Optimistic concurrency: a PUT or PATCH that names an older resourceVersion changes nothing."""
    first = (await client.post(DEPLOYMENTS, deployment())).body
    await client.patch(W, {"metadata": {"annotations": {"a": "b"}}})
    refused = await client.put(W, first)
    expected = recordings.read("c42_conflict_put_with_resourceversion")["result"]
    assert [refused.status, refused.body] == expected
    version = first["metadata"]["resourceVersion"]
    patched = await client.patch(W, {"metadata": {"resourceVersion": version}, "spec": {"replicas": 1}})
    assert patched.status == 409


async def test_a_body_of_another_object_is_a_conflict(client: Client) -> None:
    """A name that was deleted and used again is not the object the writer had in mind."""
    old = (await client.post(DEPLOYMENTS, deployment())).body
    await client.delete(W)
    await client.post(DEPLOYMENTS, deployment())
    del old["metadata"]["resourceVersion"]
    refused = await client.put(W, old)
    assert refused.status == 409
    assert "UID in precondition" in refused.body["message"]


async def test_generation_follows_the_specification_and_not_the_status(client: Client) -> None:
    """Controllers compare observedGeneration with it, so that their own status must not move it."""
    await client.post(DEPLOYMENTS, deployment())
    scaled = await client.patch(W, {"spec": {"replicas": 3}})
    assert scaled.body["metadata"]["generation"] == 2
    status = await client.patch(f"{W}/status", {"status": {"replicas": 3}, "spec": {"replicas": 9}})
    assert status.body["metadata"]["generation"] == 2
    assert (status.body["spec"]["replicas"], status.body["status"]) == (3, {"replicas": 3})
    annotated = await client.patch(W, {"metadata": {"annotations": {"a": "b"}}, "status": {"replicas": 9}})
    assert annotated.body["metadata"]["generation"] == 3
    assert annotated.body["status"] == {"replicas": 3}


async def test_a_write_that_changes_nothing_is_not_stored(client: Client) -> None:
    """No new resourceVersion, so that nobody wakes up for it."""
    created = (await client.post(DEPLOYMENTS, deployment())).body
    again = await client.patch(W, {"spec": {"replicas": 5}})
    assert again.body["metadata"]["resourceVersion"] == created["metadata"]["resourceVersion"]


async def test_a_dry_run_is_answered_and_forgotten(client: Client) -> None:
    """dryRun=All shows what would be stored."""
    assert (await client.post(f"{DEPLOYMENTS}?dryRun=All", deployment())).status == 201
    assert (await client.get(W)).status == 404
    await client.post(DEPLOYMENTS, deployment())
    dry = await client.patch(f"{W}/scale?dryRun=All", {"spec": {"replicas": 1}})
    assert dry.body["spec"] == {"replicas": 1}
    assert (await client.get(W)).body["spec"]["replicas"] == 5
    assert (await client.delete(f"{W}?dryRun=All")).status == 200
    assert (await client.get(W)).status == 200


async def test_the_scale_of_a_workload_leaves_zero_out(client: Client) -> None:
    """autoscaling/v1 Scale: the selector as a string, spec.replicas absent when it is 0."""
    await client.post(DEPLOYMENTS, deployment())
    scale = (await client.get(f"{W}/scale")).body
    assert scale["spec"] == {"replicas": 5}
    assert scale["status"] == {"replicas": 0, "selector": "app=w"}
    scale["spec"] = {}
    emptied = await client.put(f"{W}/scale", scale)
    assert emptied.body["spec"] == {}
    assert (await client.get(W)).body["spec"]["replicas"] == 0


async def test_a_namespace_that_is_not_there_takes_no_objects(client: Client) -> None:
    """As the NamespaceLifecycle admission of a real cluster."""
    refused = await client.post("/api/v1/namespaces/nowhere/pods", pod("p"))
    assert (refused.status, refused.body["message"]) == (404, 'namespaces "nowhere" not found')


async def test_a_generated_name_begins_with_its_prefix(client: Client) -> None:
    """generateName, as controllers name pods."""
    created = [(await client.post(PODS, pod("", generateName="w-"))).body for _ in range(2)]
    names = {body["metadata"]["name"] for body in created}
    assert len(names) == 2
    assert all(name.startswith("w-") and len(name) == 7 for name in names)


async def test_a_pod_on_a_node_is_deleted_in_two_steps(client: Client) -> None:
    """First it is told to end, and the kubelet's deletion without grace removes it."""
    await client.post(PODS, pod("p", node="n"))
    ending = await client.delete(f"{PODS}/p")
    assert ending.body["metadata"]["deletionGracePeriodSeconds"] == 30
    assert (await client.get(f"{PODS}/p")).body["metadata"]["deletionTimestamp"]
    await client.delete(f"{PODS}/p", {"gracePeriodSeconds": 0})
    assert (await client.get(f"{PODS}/p")).status == 404


async def test_a_pod_without_a_node_is_deleted_at_once(client: Client) -> None:
    """Nobody would finish its deletion."""
    await client.post(PODS, pod("p"))
    await client.delete(f"{PODS}/p")
    assert (await client.get(f"{PODS}/p")).status == 404


async def test_preconditions_protect_from_deleting_another_object(client: Client) -> None:
    """A uid that does not fit is a conflict."""
    await client.post(PODS, pod("p"))
    refused = await client.delete(f"{PODS}/p", {"preconditions": {"uid": "another"}})
    assert refused.status == 409


@pytest.mark.parametrize(("policy", "survives"), [("Background", False), ("Orphan", True)])
async def test_what_an_object_owns_goes_with_it(client: Client, policy: str, survives: bool) -> None:
    """ownerReferences, through several levels, unless the dependents are to be orphaned."""
    owner = (await client.post(DEPLOYMENTS, deployment())).body["metadata"]["uid"]
    reference = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "w", "uid": owner}
    middle = (await client.post(PODS, pod("a", ownerReferences=[reference]))).body["metadata"]["uid"]
    await client.post(PODS, pod("b", ownerReferences=[reference | {"uid": middle}]))
    await client.delete(W, {"propagationPolicy": policy})
    left = [item["metadata"] for item in (await client.get(PODS)).body["items"]]
    assert [metadata["name"] for metadata in left] == (["a", "b"] if survives else [])
    assert not survives or left[0]["ownerReferences"] == []


async def test_deletion_costs_are_held_to_the_real_rules(client: Client) -> None:
    """Canonical 32 bit integers only, refused with the real server's sentence."""
    await client.post(PODS, pod("o3-699c6cbd5b-bjpjj"))
    for cost, (status, outcome) in recordings.read("d4_cost_values")["patch_pod"].items():
        annotations = {"controller.kubernetes.io/pod-deletion-cost": cost}
        answer = await client.patch(f"{PODS}/o3-699c6cbd5b-bjpjj", {"metadata": {"annotations": annotations}})
        said = answer.body["message"] if status == 422 else cost
        assert (answer.status, said) == (status, outcome)


async def test_nonsense_is_answered_with_a_status(client: Client) -> None:
    """Unknown paths, methods and bodies are refusals that a client can show."""
    assert (await client.get("/apis/apps/v1/namespaces/default/elephants")).body["code"] == 404
    assert (await client.get("/nothing")).body["reason"] == "NotFound"
    assert (await client.send("PUT", DEPLOYMENTS, deployment())).status in (404, 405)
    assert (await client.post(DEPLOYMENTS, [])).status == 400
    assert (await client.post(DEPLOYMENTS, {"spec": "x", "metadata": {"name": "w"}})).status == 400
    refused = await client.send("PATCH", W, {}, Content_Type="application/apply-patch+yaml")
    assert refused.status in (404, 415)
    assert (await client.get(f"{PODS}?fieldSelector=spec.color%3Dred")).status == 400
    assert (await client.get(f"{PODS}?labelSelector=%3D%3D")).status == 400


async def test_a_collection_is_deleted_by_its_selector(client: Client) -> None:
    """deletecollection with a labelSelector leaves the others."""
    await client.post(PODS, pod("a", labels={"app": "x"}))
    await client.post(PODS, pod("b"))
    await client.delete(f"{PODS}?labelSelector=app%3Dx")
    assert [item["metadata"]["name"] for item in (await client.get(PODS)).body["items"]] == ["b"]


async def test_a_namespace_takes_its_objects_along(client: Client) -> None:
    """Deleting a namespace empties it."""
    await client.post("/api/v1/namespaces", {"metadata": {"name": "n"}})
    await client.post("/api/v1/namespaces/n/configmaps", {"metadata": {"name": "c"}, "data": {}})
    await client.delete("/api/v1/namespaces/n")
    assert (await client.get("/api/v1/namespaces/n/configmaps")).body["items"] == []
    assert (await client.get("/api/v1/namespaces/n")).status == 404


async def test_writes_are_audited_with_their_outcome(client: Client, server: ApiServer) -> None:
    """Who did what, and what came of it."""
    await client.post(DEPLOYMENTS, deployment())
    await client.post(DEPLOYMENTS, deployment())
    assert [(event.user.name, event.verb, event.code) for event in server.audit] == [
        ("lab-admin", "create", 201),
        ("lab-admin", "create", 409),
    ]


async def test_the_authentication_configmap_has_the_real_keys(client: Client) -> None:
    """Extension API servers read the front proxy's CA and header names from it."""
    found = await client.get("/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication")
    recorded = recordings.read("f1_extension_apiserver_authentication")["configmap"]["data"]
    assert found.body["data"].keys() == recorded.keys()
    names = [key for key in recorded if not key.endswith("-ca-file")]
    assert [json.loads(found.body["data"][key]) for key in names] == [
        json.loads(recorded[key]) for key in names
    ]
