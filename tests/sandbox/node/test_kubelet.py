"""Pods as processes of this machine, from binding to the last DELETE."""

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from deploy.sandbox.apiserver.server import ApiServer
from deploy.sandbox.client import ApiClient
from deploy.sandbox.node.kubelet import NODE_NAME, Kubelet
from deploy.sandbox.resources import EVENTS, NODES, PODS, SECRETS
from tests.sandbox.node.conftest import IGNORES_SIGTERM, SAYS_ITS_PID, SLEEPS, TestNode
from tests.sandbox.waiting import is_ready, until


def running(pod: Any) -> bool:
    return bool(pod.get("status", {}).get("phase") == "Running")


def container_status(pod: Any) -> Any:
    return (pod.get("status", {}).get("containerStatuses") or [{}])[0]


async def ended(pid: int) -> None:
    """Until no such process is left; a zombie counts as gone."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        gone = asyncio.Event()
        asyncio.get_running_loop().add_reader(descriptor, gone.set)
        await gone.wait()
        asyncio.get_running_loop().remove_reader(descriptor)
    finally:
        os.close(descriptor)


async def test_a_pod_without_a_command_is_ready_and_runs_nothing(node: TestNode) -> None:
    """Bound to the node, Running and Ready, and gone at once when deleted."""
    await node.create("idle")
    pod = await node.until("idle", is_ready)
    assert pod["spec"]["nodeName"] == NODE_NAME
    assert pod["status"]["podIP"].startswith("127.10.")
    assert [one["type"] for one in pod["status"]["conditions"] if one["status"] == "True"] == [
        "PodScheduled",
        "Initialized",
        "ContainersReady",
        "Ready",
    ]
    await node.api.delete(PODS, "default", "idle")
    await node.until_gone("idle")
    assert node.kubelet.terminations == []


async def test_a_process_gets_what_its_pod_spells_out_and_nothing_of_ours(node: TestNode) -> None:
    """Values, fields and references; the environment of the kubelet stays with it, but for PATH."""
    env: list[Any] = [
        {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
        {"name": "WHO", "value": "celery@$(POD_NAME)"},
    ]
    source = "import json, os, sys; print(json.dumps([dict(os.environ), sys.argv[1:]]))"
    container = {"env": env, "args": ["$(WHO)", "$$(WHO)", "$(OTHER)"]}
    await node.run_python("talker", source, container=container, restartPolicy="Never")
    pod = await node.until("talker", lambda one: one.get("status", {}).get("phase") == "Succeeded")
    environment, arguments = json.loads(node.log("talker").splitlines()[0])
    assert arguments == ["celery@talker", "$(WHO)", "$(OTHER)"]
    assert environment == {
        "PATH": os.environ["PATH"],
        "LANG": "C.UTF-8",
        "HOSTNAME": "talker",
        "HOME": str(node.directory / pod["metadata"]["uid"]),
        "POD_NAME": "talker",
        "POD_IP": pod["status"]["podIP"],
        "WHO": "celery@talker",
    }


async def test_a_pod_waits_for_the_secret_it_needs(node: TestNode) -> None:
    """It stays Pending and says why; once the Secret is there it starts."""
    reference = {"secretKeyRef": {"name": "broker", "key": "url"}}
    container = {"env": [{"name": "BROKER", "valueFrom": reference}]}
    source = "import os, time; print(os.environ['BROKER'], flush=True); time.sleep(600)"
    await node.run_python("waiter", source, container=container)
    failed = await until(
        node.server, EVENTS, lambda found: [one for one in found if one["reason"] == "Failed"]
    )
    assert failed[0]["message"] == "Error: the Secret broker has no key url; create it"
    metadata = {"name": "broker", "namespace": "default"}
    await node.api.create(SECRETS, {"metadata": metadata, "data": {"url": "cmVkaXM6Ly8="}})
    await node.until("waiter", running)


async def test_a_process_that_ends_on_sigterm_is_not_killed(node: TestNode) -> None:
    """The container's end is on record with its exit code."""
    await node.create("polite", "sleep", "600")
    await node.until("polite", running)
    await node.api.delete(PODS, "default", "polite")
    await node.until_gone("polite")
    (end,) = node.kubelet.terminations
    assert (end.pod, end.container, end.was_killed, end.exit_code) == ("polite", "main", False, -15)


async def test_a_process_that_ignores_sigterm_is_killed_after_its_grace_period(node: TestNode) -> None:
    """SIGKILL, and that is on record too."""
    await node.run_until_up("stubborn", IGNORES_SIGTERM, terminationGracePeriodSeconds=1)
    await node.api.delete(PODS, "default", "stubborn")
    await node.until_gone("stubborn")
    (end,) = node.kubelet.kills
    assert (end.pod, end.exit_code) == ("stubborn", -9)


async def test_a_terminating_pod_stays_ready_while_its_process_works_on(node: TestNode) -> None:
    """Readiness is reported until the process has gone; then the pod goes too."""
    done = node.directory / "done"
    source = f"""
import os, signal, sys, time
def finish(*_):
    while not os.path.exists({str(done)!r}): time.sleep(0.01)
    sys.exit(0)
signal.signal(signal.SIGTERM, finish)
{SLEEPS}"""
    await node.run_until_up("worker", source)
    await node.api.delete(PODS, "default", "worker")
    await until(node.server, EVENTS, lambda found: any(one["reason"] == "Killing" for one in found))
    pod = await node.api.get(PODS, "default", "worker")
    assert is_ready(pod)
    assert "deletionTimestamp" in pod["metadata"]
    done.touch()
    await node.until_gone("worker")
    assert node.kubelet.kills == []


async def test_a_second_deletion_may_shorten_the_grace_period(node: TestNode) -> None:
    """Ten minutes become one second."""
    await node.run_until_up("slow", IGNORES_SIGTERM, terminationGracePeriodSeconds=600)
    await node.api.delete(PODS, "default", "slow")
    await until(node.server, EVENTS, lambda found: any(one["reason"] == "Killing" for one in found))
    await node.api.delete(PODS, "default", "slow", grace_s=1)
    await node.until_gone("slow")
    assert [one.pod for one in node.kubelet.kills] == ["slow"]


async def test_a_deletion_without_grace_kills_at_once(node: TestNode) -> None:
    """The object is gone before the process; the process follows."""
    await node.run_until_up("doomed", SAYS_ITS_PID + SLEEPS)
    await node.api.delete(PODS, "default", "doomed", grace_s=0)
    await ended(int(node.log("doomed").split()[0]))


async def test_what_a_process_started_ends_with_it(node: TestNode) -> None:
    """A container is its whole process group."""
    source = "import subprocess; print(subprocess.Popen(['sleep', '600']).pid, flush=True)\n"
    await node.run_until_up("parent", source + SLEEPS)
    await node.api.delete(PODS, "default", "parent")
    await node.until_gone("parent")
    await ended(int(node.log("parent").split()[0]))


async def test_a_crashing_process_is_started_again(node: TestNode) -> None:
    """The status counts restarts and shows the state between them."""
    await node.run_python("crashing", "raise SystemExit(3)")
    pod = await node.until("crashing", lambda one: container_status(one).get("restartCount", 0) >= 2)
    assert is_ready(pod) == (container_status(pod)["state"].keys() == {"running"})


async def test_a_command_that_is_not_there_is_a_crash(node: TestNode) -> None:
    """The log says what is wrong."""
    await node.create("typo", "/no/such/command")
    await node.until("typo", lambda one: container_status(one).get("restartCount", 0) >= 1)
    assert "cannot start: No such file or directory" in node.log("typo")


@pytest.mark.parametrize(("code", "phase"), [(0, "Succeeded"), (3, "Failed")])
async def test_a_pod_that_is_not_to_restart_ends(node: TestNode, code: int, phase: str) -> None:
    """restartPolicy Never: the exit code decides on the phase."""
    await node.run_python("once", f"raise SystemExit({code})", restartPolicy="Never")
    pod = await node.until("once", lambda one: one.get("status", {}).get("phase") == phase)
    assert container_status(pod)["state"]["terminated"]["exitCode"] == code


async def test_readiness_follows_the_probe(node: TestNode) -> None:
    """Ready when the probe succeeds, not ready again when it fails often enough."""
    flag = node.directory / "ready"
    probe = {"exec": {"command": ["test", "-e", str(flag)]}, "periodSeconds": 0.02, "failureThreshold": 1}
    await node.create("probed", "sleep", "600", container={"readinessProbe": probe})
    assert not is_ready(await node.until("probed", running))
    flag.touch()
    await node.until("probed", is_ready)
    flag.unlink()
    await node.until("probed", lambda one: not is_ready(one))


async def test_a_prestop_hook_runs_before_sigterm(node: TestNode) -> None:
    """In the container's environment, within the grace period."""
    mark = node.directory / "stopped"
    hook = {"preStop": {"exec": {"command": ["touch", str(mark)]}}}
    await node.create("hooked", "sleep", "600", container={"lifecycle": hook})
    await node.until("hooked", running)
    await node.api.delete(PODS, "default", "hooked")
    await node.until_gone("hooked")
    assert mark.exists()


@pytest.mark.parametrize(
    ("hold", "phase", "node_name"),
    [("unscheduled", "Pending", None), ("pending", "Pending", NODE_NAME), ("unready", "Running", NODE_NAME)],
)
async def test_a_held_pod_goes_on_when_it_is_released(
    node: TestNode, hold: str, phase: str, node_name: str | None
) -> None:
    """The annotation lab/hold stops a pod at the stage it names."""
    await node.create("held", metadata={"annotations": {"lab/hold": hold}})
    await node.create("free")
    await node.until("free", is_ready)
    pod = await node.until(
        "held", lambda one: one["status"]["phase"] == phase and one["spec"].get("nodeName") == node_name
    )
    assert not is_ready(pod)
    await node.api.patch(PODS, "default", "held", {"metadata": {"annotations": {"lab/hold": None}}})
    await node.until("held", is_ready)


@pytest.mark.parametrize("hold", ["unscheduled", "pending", "unready"])
async def test_a_held_pod_can_be_deleted(node: TestNode, hold: str) -> None:
    """Nothing waits for a release that will not come."""
    await node.create("held", metadata={"annotations": {"lab/hold": hold}})
    await node.create("free")
    await node.until("free", is_ready)
    await node.api.delete(PODS, "default", "held")
    await node.until_gone("held")


async def test_pods_of_other_nodes_are_left_alone(node: TestNode) -> None:
    """Only what is bound to this node, or to none, is ours."""
    await node.create("foreign", nodeName="another")
    await node.create("own")
    await node.until("own", is_ready)
    assert (await node.api.get(PODS, "default", "foreign"))["status"]["phase"] == "Pending"


async def test_the_node_is_registered_and_ready(node: TestNode) -> None:
    """As kubectl get nodes shows it."""
    found = await node.api.get(NODES, "", NODE_NAME)
    assert is_ready(found)


async def test_no_process_outlives_its_kubelet(api: ApiClient, server: ApiServer, tmp_path: Path) -> None:
    """Leaving the block ends the stubborn ones too; their pods stay in the API as they were."""
    async with Kubelet(api, directory=tmp_path, stop_grace_s=0.1) as kubelet:
        own = TestNode(api=api, server=server, kubelet=kubelet, directory=tmp_path)
        await own.run_until_up("stubborn", SAYS_ITS_PID + IGNORES_SIGTERM)
    await ended(int(own.log("stubborn").split()[0]))
    assert (await api.get(PODS, "default", "stubborn"))["status"]["phase"] == "Running"


async def test_no_process_outlives_a_kubelet_that_is_killed(tmp_path: Path) -> None:
    """SIGKILL leaves no time for anything, so another process sees to it."""
    source = """
import asyncio, subprocess, sys
from deploy.sandbox.node.process_guard import ProcessGuard
async def main():
    async with ProcessGuard() as guard:
        child = subprocess.Popen(["sleep", "600"], start_new_session=True)
        guard.watch(child.pid)
        print(child.pid, flush=True)
        await asyncio.sleep(600)
asyncio.run(main())
"""
    root = str(Path(__file__).parents[3])
    environment = {**os.environ, "PYTHONPATH": root}
    kubelet = await asyncio.create_subprocess_exec(
        sys.executable, "-c", source, stdout=asyncio.subprocess.PIPE, env=environment, cwd=tmp_path
    )
    assert kubelet.stdout is not None
    orphan = int(await kubelet.stdout.readline())
    kubelet.kill()
    await kubelet.wait()
    await ended(orphan)
