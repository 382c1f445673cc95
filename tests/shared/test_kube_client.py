"""What the Kubernetes door promises, on the sandbox's API server; the in-memory cluster promises the same."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from shared.errors import Conflict, NotFound
from shared.kube_documents import LeaseRecord
from shared.pods import DELETION_COST, Pod
from tests.shared.kubernetes_stages import WORKER, FakeStage, Stage, sandbox_stage

WHERE = {"kind": "Deployment", "namespace": "default", "name": "worker"}
LEASE = {"namespace": "default", "name": "a-lease"}


@pytest.fixture(params=["fake", "sandbox"])
async def stage(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Stage]:
    if request.param == "fake":
        yield FakeStage()
        return
    async with sandbox_stage(tmp_path) as running:
        yield running


async def test_a_workload_is_read_with_its_selector_and_replicas(stage: Stage) -> None:
    await stage.add_workload(replicas=2)
    workload = await stage.kube.workload(**WHERE)
    assert (workload.name, workload.namespace, workload.replicas) == ("worker", "default", 2)
    assert workload.selector == "app=worker"
    assert workload.uid


async def test_a_workload_that_does_not_exist_is_not_found(stage: Stage) -> None:
    with pytest.raises(NotFound) as caught:
        await stage.kube.workload(**WHERE)
    assert caught.value.status == 404


async def test_replica_sets_can_be_narrowed_to_one_owner(stage: Stage) -> None:
    await stage.add_workload(replicas=1)
    owner = (await stage.kube.workload(**WHERE)).uid
    listed = await stage.kube.replica_sets(namespace="default", selector="app=worker", owner_uid=owner)
    assert [(s.name, s.owner_uid) for s in listed] == [("worker-rs", owner)]
    assert await stage.kube.replica_sets(namespace="default", selector="app=worker", owner_uid="other") == ()


async def test_pods_come_by_name_and_only_those_selected(stage: Stage) -> None:
    await stage.add_workload(replicas=2)
    pods = await stage.kube.pods(namespace="default", selector="app=worker")
    assert [pod.name for pod in pods] == ["worker-0", "worker-1"]
    assert all(pod.is_ready and pod.phase == "Running" and pod.host == "host-1" for pod in pods)
    assert await stage.kube.pods(namespace="default", selector="app=other") == ()


async def test_the_whole_state_holds_what_belongs_to_the_workload(stage: Stage) -> None:
    await stage.add_workload(replicas=2)
    state = await stage.kube.workload_state(**WHERE)
    assert [s.name for s in state.replica_sets] == ["worker-rs"]
    assert [p.owner_uid for p in state.pods] == [state.replica_sets[0].uid] * 2
    assert state.as_of > 0


async def test_the_state_of_a_workload_that_does_not_exist_is_not_found(stage: Stage) -> None:
    with pytest.raises(NotFound):
        await stage.kube.workload_state(**WHERE)


async def test_annotations_are_set_and_removed_and_others_stay(stage: Stage) -> None:
    await stage.add_workload(replicas=1)
    (pod,) = await stage.kube.pods(namespace="default", selector="app=worker")

    async def patch(annotations: dict[str, str | None]) -> str | None:
        patched = await stage.kube.patch_pod(
            namespace="default", name=pod.name, uid=pod.uid, annotations=annotations
        )
        return patched.cost_annotation

    assert await patch({DELETION_COST: "-100"}) == "-100"
    assert await patch({"example.com/other": "x"}) == "-100"
    assert await patch({DELETION_COST: None}) is None


async def test_a_pod_with_another_uid_is_not_touched(stage: Stage) -> None:
    """The pod we knew is gone and another one took its name."""
    await stage.add_workload(replicas=1)
    with pytest.raises(Conflict):
        await stage.kube.patch_pod(
            namespace="default", name="worker-0", uid="another", annotations={DELETION_COST: "-1"}
        )
    (pod,) = await stage.kube.pods(namespace="default", selector="app=worker")
    assert pod.cost_annotation is None


async def test_a_pod_that_was_written_to_since_is_not_touched(stage: Stage) -> None:
    """Where the caller names the state that it has seen."""
    await stage.add_workload(replicas=1)
    (seen,) = await stage.kube.pods(namespace="default", selector="app=worker")

    async def patch(cost: str, resource_version: str) -> Pod:
        return await stage.kube.patch_pod(
            namespace="default",
            name=seen.name,
            uid=seen.uid,
            annotations={DELETION_COST: cost},
            resource_version=resource_version,
        )

    newer = await patch("1", seen.resource_version)
    with pytest.raises(Conflict):
        await patch("2", seen.resource_version)
    assert (await patch("3", newer.resource_version)).cost_annotation == "3"


async def test_a_pod_that_is_gone_is_not_found(stage: Stage) -> None:
    await stage.add_workload(replicas=1)
    with pytest.raises(NotFound):
        await stage.kube.patch_pod(namespace="default", name="worker-9", uid="any", annotations={"a": "b"})


async def test_events_are_cut_to_what_kubernetes_takes(stage: Stage) -> None:
    await stage.add_workload(replicas=0)
    workload = await stage.kube.workload(**WHERE)
    for kind, message in (("Normal", "It is drained."), ("Warning", "x" * 3000)):
        await stage.kube.create_event(
            involved=workload, reason="Reason", message=message, component="drain-hook", type=kind
        )
    expected = [("Reason", "It is drained.", "Normal"), ("Reason", "x" * 1024, "Warning")]
    assert sorted(await stage.events()) == expected


async def test_an_event_that_is_told_again_is_counted(stage: Stage) -> None:
    """It stays one, with what was said last; one that has expired is not found."""
    await stage.add_workload(replicas=0)
    workload = await stage.kube.workload(**WHERE)
    name, _ = [
        await stage.kube.create_event(involved=workload, reason="Reason", message=message, component="us")
        for message in ("First.", "Other.")
    ]
    await stage.kube.repeat_event(namespace="default", name=name, message="Second.", count=7)
    assert await stage.event_counts() == {"Second.": 7, "Other.": 1}
    with pytest.raises(NotFound):
        await stage.kube.repeat_event(namespace="default", name="worker.gone", message="Third.", count=8)


async def test_a_lease_is_written_by_compare_and_swap(stage: Stage) -> None:
    with pytest.raises(NotFound):
        await stage.kube.read_lease(**LEASE)
    record = LeaseRecord(holder="one", duration_s=15, acquired_at=1000.5, renewed_at=1001.25, transitions=2)
    created = await stage.kube.create_lease(**LEASE, record=record)
    assert await stage.kube.read_lease(**LEASE) == created
    assert (created.holder, created.renewed_at, created.transitions) == ("one", 1001.25, 2)
    with pytest.raises(Conflict):
        await stage.kube.create_lease(**LEASE, record=record)
    replaced = await stage.kube.replace_lease(**LEASE, record=created)
    assert replaced.resource_version
    stale = LeaseRecord(holder="two", duration_s=1, acquired_at=0, renewed_at=0, resource_version="999999")
    with pytest.raises(Conflict):
        await stage.kube.replace_lease(**LEASE, record=stale)


async def test_secrets_keep_bytes_and_refuse_stale_writes(stage: Stage) -> None:
    where = {"namespace": "default", "name": "a-secret"}
    with pytest.raises(NotFound):
        await stage.kube.secret(**where)
    created = await stage.kube.create_secret(**where, data={"k": b"\x00\xff"})
    assert (await stage.kube.secret(**where)).data == {"k": b"\x00\xff"}
    version = created.resource_version
    await stage.kube.replace_secret(**where, data={"k": b"2"}, resource_version=version)
    assert (await stage.kube.secret(**where)).data == {"k": b"2"}
    with pytest.raises(Conflict):
        await stage.kube.replace_secret(**where, data={"k": b"3"}, resource_version=version)
    with pytest.raises(Conflict):
        await stage.kube.create_secret(**where, data={})


async def test_a_secret_does_not_show_itself(stage: Stage) -> None:
    created = await stage.kube.create_secret(namespace="default", name="s", data={"k": b"hidden"})
    assert "hidden" not in repr(created)


async def test_config_maps_are_read(stage: Stage) -> None:
    await stage.add_config_map("a-map", {"key": "value"})
    assert await stage.kube.config_map(namespace="default", name="a-map") == {"key": "value"}
    with pytest.raises(NotFound):
        await stage.kube.config_map(namespace="default", name="none")


async def test_token_review_names_the_user_or_nobody(stage: Stage) -> None:
    user = await stage.kube.token_review(stage.token_of("alice"))
    assert user is not None
    assert user.username == "alice"
    assert await stage.kube.token_review("no such token") is None


async def test_subject_access_review_answers(stage: Stage) -> None:
    attributes = {"verb": "list", "group": "external.metrics.k8s.io", "resource": "m", "namespace": "default"}
    spec = {"user": "alice", "groups": ["system:authenticated"], "resourceAttributes": attributes}
    assert await stage.kube.subject_access_review(spec) is False
    await stage.grant("alice", verb="list", group="external.metrics.k8s.io", resource="m")
    assert await stage.kube.subject_access_review(spec) is True


async def test_the_cache_follows_pods_and_replicas(stage: Stage) -> None:
    await stage.add_workload(replicas=1)
    await _until(stage, lambda: _pod_names(stage) == ["worker-0"])
    await stage.add_pod("worker-1")
    await _until(stage, lambda: _pod_names(stage) == ["worker-0", "worker-1"])
    await stage.delete_pod("worker-0")
    await _until(stage, lambda: _pod_names(stage) == ["worker-1"])
    await stage.scale(7)
    await _until(stage, lambda: _replicas(stage) == 7)


async def test_the_cache_knows_what_it_wrote_itself(stage: Stage) -> None:
    """Our own marks come back through the watch like anybody's."""
    await stage.add_workload(replicas=1)
    await _until(stage, lambda: _pod_names(stage) == ["worker-0"])
    state = stage.cache.state(**WHERE)
    assert state is not None
    await stage.kube.patch_pod(
        namespace="default", name="worker-0", uid=state.pods[0].uid, annotations={DELETION_COST: "-5"}
    )
    await _until(stage, lambda: _costs(stage) == [-5])


async def test_a_workload_that_does_not_exist_has_no_state(stage: Stage) -> None:
    await asyncio.wait_for(stage.cache.wait_synced(), 10)
    assert stage.cache.state(**WHERE) is None


async def test_a_workload_that_is_deleted_loses_its_state(stage: Stage) -> None:
    await stage.add_workload(replicas=1)
    await _until(stage, lambda: _pod_names(stage) == ["worker-0"])
    await stage.delete_workload()
    await _until(stage, lambda: stage.cache.state(**WHERE) is None)


async def test_only_followed_workloads_have_a_state(stage: Stage) -> None:
    await stage.add_workload(replicas=1)
    await _until(stage, lambda: stage.cache.state(**WHERE) is not None)
    assert stage.cache.state(kind="Deployment", namespace="other", name=WORKER.name) is None


async def _until(stage: Stage, condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        version = stage.cache.version
        while not condition():
            version = await stage.cache.wait_changed(version)


def _pod_names(stage: Stage) -> list[str]:
    state = stage.cache.state(**WHERE)
    return [pod.name for pod in state.pods] if state else []


def _replicas(stage: Stage) -> int | None:
    state = stage.cache.state(**WHERE)
    return state.workload.replicas if state else None


def _costs(stage: Stage) -> list[int]:
    state = stage.cache.state(**WHERE)
    return [pod.deletion_cost for pod in state.pods] if state else []
