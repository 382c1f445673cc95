"""How failures of the Kubernetes API become ours: in time, once, and in a sentence."""

import asyncio
import base64
import json
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiohttp import web
from aiohttp.test_utils import TestServer

from shared.errors import (
    ConfigurationError,
    Conflict,
    Forbidden,
    Gone,
    KubernetesError,
    KubernetesUnavailable,
    NotFound,
)
from shared.kube_client import KubeClient
from shared.kube_documents import WatchEvent
from tests.shared.kubernetes_stages import SandboxStage, sandbox_stage

Answer = Callable[[web.Request], web.StreamResponse]


class Scripted:
    """An API server that answers every request in one way and remembers what it was asked."""

    def __init__(self) -> None:
        self.requests: list[web.Request] = []
        self.bodies: list[bytes] = []
        self.answer: Answer = lambda _: web.json_response({})
        self.is_silent = False
        self.url = ""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request)
        self.bodies.append(await request.read())
        if self.is_silent:
            await asyncio.Event().wait()
        return self.answer(request)


@pytest.fixture
async def api() -> Scripted:
    return Scripted()


@pytest.fixture
async def kube(api: Scripted, tmp_path: Path) -> AsyncIterator[KubeClient]:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", api.handle)
    async with TestServer(app, handler_cancellation=True) as server:
        api.url = str(server.make_url(""))
        path = kubeconfig(tmp_path, api.url)
        async with KubeClient.connect(str(path), timeout_s=5) as client:
            yield client


def kubeconfig(directory: Path, url: str, *, user: dict[str, object] | None = None) -> Path:
    path = directory / "kubeconfig"
    document = {
        "clusters": [{"name": "c", "cluster": {"server": url}}],
        "users": [{"name": "u", "user": user or {"token": "the-token"}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }
    path.write_text(yaml.safe_dump(document))
    return path


def status(code: int, message: str) -> Answer:
    body = {"kind": "Status", "status": "Failure", "message": message, "code": code}
    return lambda _: web.json_response(body, status=code)


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (401, Forbidden),
        (403, Forbidden),
        (404, NotFound),
        (409, Conflict),
        (410, Gone),
        (422, KubernetesError),
        (429, KubernetesUnavailable),
        (500, KubernetesUnavailable),
        (503, KubernetesUnavailable),
    ],
)
async def test_each_refusal_has_its_error_and_the_servers_sentence(
    api: Scripted, kube: KubeClient, code: int, error: type[KubernetesError]
) -> None:
    api.answer = status(code, "because of this")
    with pytest.raises(KubernetesError, match=f"because of this \\({code}\\)") as caught:
        await kube.pods(namespace="default", selector="")
    assert type(caught.value) is error
    assert caught.value.status == code


async def test_the_warnings_to_a_rehearsed_scale_are_kept(api: Scripted, kube: KubeClient) -> None:
    """One a header, as kube-apiserver writes them, or several, as a proxy may; with quotes and commas."""

    def answer(_: web.Request) -> web.Response:
        reply = web.json_response({})
        reply.headers.add("Warning", r'299 - "say \"yes\", or C:\\"')
        reply.headers.add("Warning", '299 - "one", 299 kube "two"')
        reply.headers.add("Warning", "no warning at all")
        return reply

    api.answer = answer
    warnings = await kube.rehearse_scale(kind="Deployment", namespace="default", name="worker", replicas=1)
    assert warnings == ('say "yes", or C:\\', "one", "two")
    assert api.requests[0].query == {"dryRun": "All"}


async def test_a_refusal_is_not_tried_again(api: Scripted, kube: KubeClient) -> None:
    """Retry-After would have a library wait past our deadline, and write twice."""
    api.answer = lambda _: web.Response(status=429, headers={"Retry-After": "1"})
    with pytest.raises(KubernetesUnavailable):
        await kube.patch_pod(namespace="default", name="p", uid="u", annotations={})
    with pytest.raises(KubernetesUnavailable):
        await kube.pods(namespace="default", selector="")
    assert len(api.requests) == 2


@pytest.mark.parametrize(
    ("header", "seconds"), [("1", 1.0), ("30", 30.0), ("-1", 0.0), ("Wed, 21 Oct 2026 07:28:00 GMT", 0.0)]
)
async def test_how_long_we_are_asked_to_wait_is_told(
    api: Scripted, kube: KubeClient, header: str, seconds: float
) -> None:
    """Whoever has the time waits so long; nobody waits here."""
    api.answer = lambda _: web.Response(status=429, headers={"Retry-After": header})
    with pytest.raises(KubernetesUnavailable) as caught:
        await kube.pods(namespace="default", selector="")
    assert caught.value.retry_after_s == seconds


async def test_an_answer_that_does_not_come_in_time_is_unavailable(api: Scripted, kube: KubeClient) -> None:
    api.is_silent = True
    with pytest.raises(KubernetesUnavailable):
        await kube.within(0.1).workload(kind="Deployment", namespace="default", name="worker")


@pytest.mark.parametrize("text", ["<html>", "[1, 2]", ""])
async def test_an_answer_that_is_no_object_is_unavailable(api: Scripted, kube: KubeClient, text: str) -> None:
    """A proxy in between that answers 200 with a page of its own."""
    api.answer = lambda _: web.Response(text=text)
    with pytest.raises(KubernetesUnavailable):
        await kube.config_map(namespace="default", name="m")


async def test_nobody_listening_is_unavailable(tmp_path: Path) -> None:
    async with KubeClient.connect(str(kubeconfig(tmp_path, "http://127.0.0.1:1"))) as kube:
        with pytest.raises(KubernetesUnavailable):
            await kube.pods(namespace="default", selector="")


async def test_a_mark_is_a_merge_patch_that_names_the_uid(api: Scripted, kube: KubeClient) -> None:
    """Strategic merge is not there for custom resources, and without the uid another pod could be hit."""
    api.answer = lambda _: web.json_response({"metadata": {"name": "p", "uid": "u"}})
    await kube.patch_pod(namespace="default", name="p", uid="u", annotations={"a": "1", "b": None})
    (request,) = api.requests
    assert request.headers["Content-Type"] == "application/merge-patch+json"
    assert request.headers["Authorization"] == "Bearer the-token"
    assert json.loads(api.bodies[0]) == {"metadata": {"uid": "u", "annotations": {"a": "1", "b": None}}}


@pytest.mark.usefixtures("kube")
async def test_a_kubeconfig_may_name_a_program_that_gives_the_token(api: Scripted, tmp_path: Path) -> None:
    """So EKS and GKE do it."""
    credential = {
        "apiVersion": "client.authentication.k8s.io/v1",
        "kind": "ExecCredential",
        "status": {"token": "from-a-program"},
    }
    plugin = {
        "apiVersion": "client.authentication.k8s.io/v1",
        "command": sys.executable,
        "args": ["-c", f"print({json.dumps(credential)!r})"],
        "interactiveMode": "Never",
    }
    path = kubeconfig(tmp_path, api.url, user={"exec": plugin})
    async with KubeClient.connect(str(path)) as kube:
        await kube.config_map(namespace="default", name="m")
    assert api.requests[0].headers["Authorization"] == "Bearer from-a-program"


async def test_names_cannot_leave_their_path_segment(api: Scripted, kube: KubeClient) -> None:
    api.answer = lambda _: web.json_response({"metadata": {"resourceVersion": "1"}})
    await kube.secret(namespace="a/b", name="../c?d")
    assert api.requests[0].raw_path == "/api/v1/namespaces/a%2Fb/secrets/..%2Fc%3Fd"


async def test_a_watch_that_is_too_old_is_gone(api: Scripted, kube: KubeClient) -> None:
    """kube-apiserver says so in a line of a watch that began with 200."""
    error = {"type": "ERROR", "object": {"kind": "Status", "code": 410, "message": "too old"}}
    api.answer = lambda _: web.Response(text=json.dumps(error) + "\n")
    with pytest.raises(Gone):
        await watched(kube)


async def test_a_watch_that_is_garbled_is_unavailable(api: Scripted, kube: KubeClient) -> None:
    api.answer = lambda _: web.Response(text='{"type": "ADD')
    with pytest.raises(KubernetesUnavailable):
        await watched(kube)


async def test_large_objects_pass_through_a_watch(api: Scripted, kube: KubeClient) -> None:
    """A line may be as long as the largest object etcd takes."""
    document = {"metadata": {"name": "p", "resourceVersion": "2"}, "data": "x" * 1_500_000}
    api.answer = lambda _: web.Response(text=json.dumps({"type": "ADDED", "object": document}) + "\n")
    first, second = await watched(kube)
    assert (first.type, second.object) == ("BOOKMARK", document)


async def test_a_watch_that_is_silent_has_ended(api: Scripted, kube: KubeClient) -> None:
    """kube-apiserver may say nothing for two minutes where nothing changes; whoever watches looks again."""
    api.answer = lambda _: web.Response(body=one_line_and_silence())
    first, second = await watched(kube, silence_s=0.2)
    assert (first.type, second.type) == ("BOOKMARK", "ADDED")


async def one_line_and_silence() -> AsyncIterator[bytes]:
    yield b'{"type": "ADDED", "object": {"metadata": {"name": "p", "resourceVersion": "2"}}}\n'
    await asyncio.Event().wait()


async def watched(kube: KubeClient, *, silence_s: float = 90.0) -> list[WatchEvent]:
    events = kube.watch("/api/v1/namespaces/default/pods", resource_version="1", silence_s=silence_s)
    async with aclosing(events):
        return [event async for event in events]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, "there is no such file"),
        ("a: [", "cannot be used"),
        ("{}", "cannot be used"),
        ("just text", "cannot be used"),
        ("current-context: x\ncontexts: []\nclusters: []\nusers: []", "cannot be used"),
    ],
)
async def test_a_kubeconfig_that_cannot_be_used_is_a_mistake(
    tmp_path: Path, text: str | None, expected: str
) -> None:
    path = tmp_path / "kubeconfig"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ConfigurationError, match=expected) as caught:
        async with KubeClient.connect(str(path)):
            pass
    assert caught.value.mistakes[0].path == "--kubeconfig"


async def test_outside_of_a_cluster_a_kubeconfig_is_needed() -> None:
    with pytest.raises(ConfigurationError, match="name a kubeconfig file"):
        async with KubeClient.connect(None):
            pass


async def test_our_ca_is_registered_with_every_webhook(tmp_path: Path) -> None:
    """Each webhook of a configuration has a caBundle of its own."""
    async with sandbox_stage(tmp_path) as stage:
        path = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations"
        await stage.create(path, webhook_configuration("first.example.com", "second.example.com"))
        for ca in (b"one CA", b"one CA", b"another CA"):
            await stage.kube.replace_webhook_ca("hook", ca, await stage.kube.webhook_ca("hook"))
            document = await stage.send("GET", f"{path}/hook")
            bundles = {webhook["clientConfig"]["caBundle"] for webhook in document["webhooks"]}
            assert bundles == {encoded(ca)}
            assert (await stage.kube.webhook_ca("hook")).bundles == (ca, ca)


async def test_only_webhooks_that_were_chosen_get_our_ca(tmp_path: Path) -> None:
    """In a configuration where others stand, too, before ours and behind it."""
    async with sandbox_stage(tmp_path) as stage:
        path = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations"
        document = webhook_configuration("first.example.com", "ours.example.com", "third.example.com")
        document["webhooks"][1]["clientConfig"] = {"service": {"namespace": "system", "name": "hook"}}
        await stage.create(path, document)
        found = await stage.kube.webhook_ca("hook")
        assert [(client.index, client.name) for client in found.clients] == [
            (0, "first.example.com"),
            (1, "ours.example.com"),
            (2, "third.example.com"),
        ]
        assert [str(client.service or client.url) for client in found.clients][:2] == [
            "https://127.0.0.1:1/validate",
            "system/hook",
        ]
        await stage.kube.replace_webhook_ca("hook", b"our CA", found.only(found.clients[1:2]))
        assert (await stage.kube.webhook_ca("hook")).bundles == (b"", b"our CA", b"")


async def test_a_ca_of_webhooks_that_somebody_wrote_since_is_not_overwritten(tmp_path: Path) -> None:
    """It may be the CA of a newer certificate than ours."""
    async with sandbox_stage(tmp_path) as stage:
        path = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations"
        await stage.create(path, webhook_configuration("first.example.com"))
        found = await stage.kube.webhook_ca("hook")
        assert found.bundles == (b"",)
        await stage.kube.replace_webhook_ca("hook", b"newer CA", found)
        with pytest.raises(Conflict):
            await stage.kube.replace_webhook_ca("hook", b"older CA", found)
        assert (await stage.kube.webhook_ca("hook")).bundles == (b"newer CA",)


async def test_our_ca_is_registered_with_the_api_service(tmp_path: Path) -> None:
    """And none that somebody wrote since is overwritten."""
    name = "v1beta1.external.metrics.k8s.io"
    async with sandbox_stage(tmp_path) as stage:
        await add_api_service(stage)
        found = await stage.kube.api_service_ca(name)
        await stage.kube.replace_api_service_ca(name, b"a CA", found)
        assert (await stage.kube.api_service_ca(name)).bundles == (b"a CA",)
        with pytest.raises(Conflict):
            await stage.kube.replace_api_service_ca(name, b"older CA", found)
        path = f"/apis/apiregistration.k8s.io/v1/apiservices/{name}"
        assert (await stage.send("GET", path))["spec"]["caBundle"] == encoded(b"a CA")


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


def webhook_configuration(*names: str) -> dict[str, Any]:
    rule = {
        "apiGroups": ["apps"],
        "apiVersions": ["v1"],
        "operations": ["UPDATE"],
        "resources": ["deployments/scale"],
    }
    webhooks = [
        {
            "name": name,
            "clientConfig": {"url": "https://127.0.0.1:1/validate"},
            "rules": [rule],
            "sideEffects": "NoneOnDryRun",
            "admissionReviewVersions": ["v1"],
        }
        for name in names
    ]
    return {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": "hook"},
        "webhooks": webhooks,
    }


async def add_api_service(stage: SandboxStage) -> None:
    document = {
        "apiVersion": "apiregistration.k8s.io/v1",
        "kind": "APIService",
        "metadata": {"name": "v1beta1.external.metrics.k8s.io"},
        "spec": {
            "group": "external.metrics.k8s.io",
            "version": "v1beta1",
            "groupPriorityMinimum": 100,
            "versionPriority": 100,
            "service": {"namespace": "default", "name": "metrics-adapter", "port": 443},
        },
    }
    await stage.create("/apis/apiregistration.k8s.io/v1/apiservices", document)
