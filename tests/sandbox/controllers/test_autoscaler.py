"""The autoscaler on the emulated API server, held against recordings of the real one, word by word."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from deploy.sandbox.apiserver.server import ApiServer
from deploy.sandbox.client import ApiClient
from deploy.sandbox.controllers.autoscaler import AutoscalerController
from deploy.sandbox.controllers.manager import Controllers
from deploy.sandbox.event_recorder import EventRecorder
from deploy.sandbox.informers import Informer
from deploy.sandbox.node.kubelet import Kubelet
from deploy.sandbox.resources import (
    AUTOSCALERS,
    DEPLOYMENTS,
    EVENTS,
    NAMESPACES,
    PODS,
    SERVICES,
    WEBHOOK_CONFIGURATIONS,
    Document,
)
from tests.sandbox import recordings
from tests.sandbox.api_clients import service_account
from tests.sandbox.apiserver import webhook as webhooks
from tests.sandbox.conftest import Cluster
from tests.sandbox.controllers.metrics_backend import MetricsBackend, registered
from tests.sandbox.waiting import until

NAMESPACE = "b"  # the namespace of the recordings, which their sentences name
HPA_USER = "system:serviceaccount:kube-system:horizontal-pod-autoscaler"
IMMEDIATE = recordings.read("b2_hpa_scales_up_and_down")["hpa"]["spec"]["behavior"]
ODD_REPLIES = recordings.read("b4_hpa_odd_replies")
FAILURES = [name for name, one in ODD_REPLIES["cases"].items() if "external" not in one["currentMetrics"][0]]


class Autoscaler:
    """The controller, its HPA `w` and the Deployment `w` that it scales; pods are the test's own business."""

    def __init__(
        self, controller: AutoscalerController, api: ApiClient, server: ApiServer, metrics: MetricsBackend
    ) -> None:
        self.controller = controller
        self.api = api
        self.server = server
        self.metrics = metrics

    async def configure(
        self, replicas: int, target: Document | None = None, selector: Any = None, **spec: Any
    ) -> None:
        """The Deployment with so many replicas that all exist, and an HPA over it."""
        template = {
            "metadata": {"labels": {"app": "w"}},
            "spec": {"containers": [{"name": "c", "image": "i"}]},
        }
        deployment = {"replicas": replicas, "selector": {"matchLabels": {"app": "w"}}, "template": template}
        metadata = {"name": "w", "namespace": NAMESPACE}
        await self.api.create(DEPLOYMENTS, {"metadata": metadata, "spec": deployment})
        await self.settle()
        metric = {"name": "queue_depth", **({} if selector is None else {"selector": selector})}
        wanted = target or {"type": "AverageValue", "averageValue": "5"}
        complete: Document = {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "w"},
            "minReplicas": 1,
            "maxReplicas": 20,
            "behavior": IMMEDIATE,
            "metrics": [{"type": "External", "external": {"metric": metric, "target": wanted}}],
        }
        await self.api.create(AUTOSCALERS, {"metadata": metadata, "spec": complete | spec})

    async def settle(self) -> None:
        """As if every replica were there."""
        deployment = await self.api.get(DEPLOYMENTS, NAMESPACE, "w")
        status = {"replicas": deployment["spec"]["replicas"]}
        change = {"status": status}
        await self.api.patch(DEPLOYMENTS, NAMESPACE, "w", change, subresource="status")

    async def look(self) -> Document:
        """One look at the HPA; its status after that."""
        await self.controller.reconcile(await self.api.get(AUTOSCALERS, NAMESPACE, "w"))
        return dict((await self.api.get(AUTOSCALERS, NAMESPACE, "w"))["status"])

    async def replicas(self) -> int:
        return int((await self.api.get(DEPLOYMENTS, NAMESPACE, "w"))["spec"]["replicas"])

    async def event(self, reason: str, count: int = 1) -> str:
        """The message of the event with this reason, once it was counted so often."""

        def find(events: list[Any]) -> Any:
            return [one for one in events if one["reason"] == reason and one["count"] == count]

        found = await until(self.server, EVENTS, find)
        return str(found[-1]["message"])


@pytest.fixture
async def autoscaler(cluster: Cluster, api: ApiClient, server: ApiServer) -> AsyncIterator[Autoscaler]:
    """A controller under its own service account, before an external metrics API."""
    await api.create(NAMESPACES, {"metadata": {"name": NAMESPACE}})
    async with (
        service_account(cluster, server, "horizontal-pod-autoscaler") as own,
        EventRecorder(own, component="horizontal-pod-autoscaler") as events,
        registered(cluster, api, server) as metrics,
    ):
        controller = AutoscalerController(own, autoscalers=Informer(own, AUTOSCALERS), events=events)
        yield Autoscaler(controller, api, server, metrics)


def conditions(status: Document) -> list[tuple[str, str, str, str]]:
    return [(one["type"], one["status"], one["reason"], one["message"]) for one in status["conditions"]]


def observed(recording: str, moment: int) -> list[tuple[str, ...]]:
    """The conditions at one of a recording's observations."""
    return [tuple(one) for one in recordings.read(recording)["observed"][moment]["conds"]]


async def test_a_fleet_follows_its_metric_as_recorded(autoscaler: Autoscaler) -> None:
    """1, 8, 20, 3, 1: the recorded sizes, reasons and final status."""
    recorded = recordings.read("b2_hpa_scales_up_and_down")
    await autoscaler.configure(1)
    steps = []
    for value in (40, 100, 12, 0):
        autoscaler.metrics.say(str(value))
        status = await autoscaler.look()
        steps.append(await autoscaler.replicas())
        await autoscaler.settle()
    assert steps == [8, 20, 3, 1]
    expected = recorded["hpa"]["status"]
    assert conditions(status) == conditions(expected)
    for field in ("currentReplicas", "desiredReplicas", "currentMetrics"):
        assert status[field] == expected[field]
    said = {one["message"] for one in recorded["events"] if one["reason"] == "SuccessfulRescale"}
    events = await until(autoscaler.server, EVENTS, lambda found: found if len(found) == 4 else [])
    assert {one["message"] for one in events} == said


async def test_the_metric_is_asked_for_as_the_real_controller_asks(autoscaler: Autoscaler) -> None:
    """Path, query and identity of the recorded request, as the adapter sees them."""
    selector = {"matchLabels": {"queue": "high", "app.kubernetes.io/name": "w"}}
    await autoscaler.configure(2, {"type": "Value", "value": "10"}, selector)
    autoscaler.metrics.say("10")
    await autoscaler.look()
    case = recordings.read("b1_hpa_external_queries")["cases"]["value_matchLabels"]
    recorded = case["requests"][0]
    (query,) = autoscaler.metrics.queries
    assert f"GET {query.line} HTTP/1.1" == recorded["request_line"]
    for name in ("X-Remote-User", "X-Remote-Group", "Accept"):
        expected = [value for header, value in recorded["headers"] if header == name]
        assert [value for header, value in query.headers if header == name] == expected


@pytest.mark.parametrize("name", FAILURES)
async def test_a_failing_metric_freezes_the_fleet_in_the_recorded_words(
    autoscaler: Autoscaler, name: str
) -> None:
    """Whatever the adapter fails with, the size stays and the condition and both events say why."""
    case = ODD_REPLIES["cases"][name]
    await autoscaler.configure(4)
    autoscaler.metrics.say("20")
    await autoscaler.look()
    autoscaler.metrics.status = case["sample_response"]["status"]
    autoscaler.metrics.body = case["sample_response"]["body"]
    status = await autoscaler.look()
    assert await autoscaler.replicas() == 4
    assert conditions(status) == conditions({"conditions": case["hpa_conditions"]})
    assert status["currentMetrics"] == case["currentMetrics"]
    cause = case["hpa_conditions"][1]["message"].partition("replica count: ")[2]
    assert await autoscaler.event("FailedGetExternalMetric") == cause
    assert await autoscaler.event("FailedComputeMetricsReplicas") == (
        "invalid metrics (1 invalid out of 1), first error is: failed to get queue_depth external metric "
        f"value: failed to get queue_depth external metric: {cause}"
    )


@pytest.mark.parametrize(
    "name",
    [name for name in ODD_REPLIES["cases"] if name not in FAILURES and name != "slow_12s"],
)
async def test_a_readable_reply_gives_the_recorded_size(autoscaler: Autoscaler, name: str) -> None:
    """Numbers, old timestamps, other names, a missing kind: all of it counts."""
    case = ODD_REPLIES["cases"][name]
    await autoscaler.configure(4)
    autoscaler.metrics.body = case["sample_response"]["body"]
    await autoscaler.look()
    assert await autoscaler.replicas() == case["replicas"]


async def test_value_multiplies_pods_that_are_ready_and_even_those_going_away(autoscaler: Autoscaler) -> None:
    """Three ready pods, one of them terminating, one not ready: a ratio of two asks for six."""
    await autoscaler.configure(4, {"type": "Value", "value": "10"})
    for number in range(4):
        await create_pod(autoscaler.api, f"w-{number}", ready=number > 0)
    await autoscaler.api.delete(PODS, NAMESPACE, "w-3")
    autoscaler.metrics.say("20")
    await autoscaler.look()
    assert await autoscaler.replicas() == 6


async def create_pod(api: ApiClient, name: str, *, ready: bool) -> None:
    metadata = {"name": name, "namespace": NAMESPACE, "labels": {"app": "w"}}
    spec = {"nodeName": "n", "containers": [{"name": "c", "image": "i"}]}
    await api.create(PODS, {"metadata": metadata, "spec": spec})
    condition = {"type": "Ready", "status": str(ready), "lastTransitionTime": "2026-11-23T12:00:00Z"}
    status = {"status": {"phase": "Running", "conditions": [condition]}}
    await api.patch(PODS, NAMESPACE, name, status, subresource="status")


async def test_a_fleet_of_zero_is_left_alone(autoscaler: Autoscaler) -> None:
    """Someone put it to sleep; no metric is read."""
    await autoscaler.configure(0)
    autoscaler.metrics.say("100")
    status = await autoscaler.look()
    reason = "scaling is disabled since the replica count of the target is zero"
    assert conditions(status)[1] == ("ScalingActive", "False", "ScalingDisabled", reason)
    assert (await autoscaler.replicas(), autoscaler.metrics.queries) == (0, [])


async def test_a_fleet_above_its_maximum_is_cut_without_asking(autoscaler: Autoscaler) -> None:
    """The limits come before all metrics."""
    await autoscaler.configure(9, maxReplicas=5)
    await autoscaler.look()
    assert (await autoscaler.replicas(), autoscaler.metrics.queries) == (5, [])
    message = "New size: 5; reason: Current number of replicas above Spec.MaxReplicas"
    assert await autoscaler.event("SuccessfulRescale") == message


async def test_a_missing_target_is_named(autoscaler: Autoscaler) -> None:
    """FailedGetScale, as condition and as event."""
    await autoscaler.configure(1, scaleTargetRef={"apiVersion": "apps/v1", "kind": "Deployment", "name": "x"})
    status = await autoscaler.look()
    assert [one["reason"] for one in status["conditions"]] == ["FailedGetScale"]
    assert await autoscaler.event("FailedGetScale") == 'deployments.apps "x" not found'


async def test_a_look_that_finds_nothing_new_writes_nothing(autoscaler: Autoscaler) -> None:
    """The status of a quiet HPA keeps its resourceVersion."""
    await autoscaler.configure(4)
    autoscaler.metrics.say("20")
    await autoscaler.look()
    before = await autoscaler.api.get(AUTOSCALERS, NAMESPACE, "w")
    await autoscaler.look()
    assert await autoscaler.api.get(AUTOSCALERS, NAMESPACE, "w") == before


@pytest.fixture
async def webhook(cluster: Cluster, autoscaler: Autoscaler) -> AsyncIterator[webhooks.Webhook]:
    """A webhook that is asked about every scale."""
    external_name = {"type": "ExternalName", "externalName": "localhost"}
    metadata = {"name": "drain-webhook", "namespace": "lab-sys"}
    await autoscaler.api.create(SERVICES, {"metadata": metadata, "spec": external_name})
    async with webhooks.serving(cluster.authority) as running:
        await autoscaler.api.create(WEBHOOK_CONFIGURATIONS, running.configuration())
        yield running


def deny(**status: Any) -> Any:
    return lambda uid: webhooks.answered(uid, allowed=False, status=status)


async def test_a_refusal_is_reported_as_recorded_and_uses_up_no_policy(
    autoscaler: Autoscaler, webhook: webhooks.Webhook
) -> None:
    """One call per look, the size kept, the sentence passed on; once allowed, the policy is still whole."""
    policy = {"policies": [{"type": "Pods", "value": 3, "periodSeconds": 600}]}
    behavior = {"scaleDown": {"stabilizationWindowSeconds": 0, **policy}}
    await autoscaler.configure(5, behavior=behavior)
    autoscaler.metrics.say("25")
    await autoscaler.look()
    autoscaler.metrics.say("10")
    webhook.answer = deny(message="drain in progress: 2 of 3 workers still busy", code=403)
    for count in (1, 2):
        status = await autoscaler.look()
        assert conditions(status) == observed("c52_hpa_denied", 1)
        assert (status["currentReplicas"], status["desiredReplicas"]) == (5, 5)
        message = recordings.read("c52_hpa_denied")["events"][0]["message"]
        assert await autoscaler.event("FailedRescale", count) == message
    assert len(webhook.calls) == 2
    webhook.answer = webhooks.allow
    await autoscaler.look()
    assert await autoscaler.replicas() == 2
    assert webhook.calls[0].request["userInfo"]["username"] == HPA_USER


async def test_a_refusal_with_409_is_asked_for_five_times_at_once(
    autoscaler: Autoscaler, webhook: webhooks.Webhook
) -> None:
    """The controller takes it for a conflict, which is why a webhook should never say so."""
    await autoscaler.configure(5)
    autoscaler.metrics.say("10")
    webhook.answer = deny(message="busy", code=409, reason="Conflict")
    await autoscaler.look()
    assert len(webhook.calls) == 5
    assert await autoscaler.replicas() == 5


async def test_a_conflicting_write_is_tried_again_on_the_fresh_scale(
    autoscaler: Autoscaler, webhook: webhooks.Webhook
) -> None:
    """One write during the review costs one more attempt."""

    async def annotate_once(call: webhooks.Call) -> None:
        webhook.during = None
        change = {"metadata": {"annotations": {"other": "writer"}}}
        await autoscaler.api.patch(DEPLOYMENTS, NAMESPACE, "w", change)

    await autoscaler.configure(5)
    autoscaler.metrics.say("10")
    webhook.during = annotate_once
    status = await autoscaler.look()
    assert (await autoscaler.replicas(), len(webhook.calls)) == (2, 2)
    assert status["conditions"][0]["reason"] == "SucceededRescale"


async def test_endless_conflicts_are_given_up_as_recorded(
    autoscaler: Autoscaler, webhook: webhooks.Webhook
) -> None:
    """After five attempts the look ends, in the recorded words."""

    async def annotate(call: webhooks.Call) -> None:
        change = {"metadata": {"annotations": {"written": call.request["uid"]}}}
        await autoscaler.api.patch(DEPLOYMENTS, NAMESPACE, "w", change)

    await autoscaler.configure(5)
    autoscaler.metrics.say("25")
    await autoscaler.look()
    autoscaler.metrics.say("10")
    webhook.during = annotate
    status = await autoscaler.look()
    assert conditions(status) == observed("c58_hpa_conflicts_writer_26s", 1)
    recorded = recordings.read("c58_hpa_conflicts_writer_26s")["events"][0]["message"]
    assert await autoscaler.event("FailedRescale") == recorded
    assert len(webhook.calls) == 5


async def test_the_whole_loop_runs_by_itself(
    autoscaler: Autoscaler, api: ApiClient, server: ApiServer, node: Kubelet
) -> None:
    """Metric, autoscaler, Deployment, ReplicaSet, pods: up and down again in step with the sync period."""
    async with Controllers(api, hpa_sync_period_s=0.05):
        await autoscaler.configure(1)
        autoscaler.metrics.say("40")
        await until(server, PODS, lambda pods: len(pods) == 8)
        autoscaler.metrics.say("12")
        await until(server, PODS, lambda pods: len(pods) == 3)
