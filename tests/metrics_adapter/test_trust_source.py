"""Whose requests are believed follows what kube-apiserver publishes, without a restart."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from multidict import CIMultiDict

from deploy.sandbox.apiserver.authentication import User
from deploy.sandbox.kubeconfigs import Access, read_kubeconfig, write_kubeconfig
from metrics_adapter.authentication import Authenticator
from metrics_adapter.client_trust import ClientTrust
from metrics_adapter.statuses import ApiError
from metrics_adapter.trust_source import TrustSource
from shared.errors import Forbidden, KubernetesUnavailable
from shared.kube_client import KubeClient
from shared.kube_documents import Listing, WatchEvent
from tests.fakes.kubernetes import FakeCluster
from tests.metrics_adapter.certificates import Authority, presented
from tests.shared.kubernetes_stages import RBAC, SandboxStage, sandbox_stage

WHERE = ("kube-system", "extension-apiserver-authentication")
PATH = "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication"
REMOTE = CIMultiDict([("X-Remote-User", "bob"), ("X-Remote-Group", "dev")])
NEVER_S = 3600.0


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[SandboxStage]:
    async with sandbox_stage(tmp_path) as running:
        yield running


@asynccontextmanager
async def watching(source: TrustSource) -> AsyncIterator[TrustSource]:
    task = asyncio.create_task(source.watch())
    try:
        yield source
    finally:
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while True:
            if condition():
                return
            await asyncio.sleep(0.01)


async def publish(stage: SandboxStage, authority: Authority, **changes: str) -> ClientTrust:
    """As kube-apiserver does when its CAs change; returns what it means."""
    await stage.send("PATCH", PATH, {"data": authority.config_map(**changes)})
    return authority.trust(**changes)


async def may_only_get(stage: SandboxStage, directory: Path) -> Path:
    """The kubeconfig of somebody who may read the ConfigMap, and neither list nor watch it."""
    name, where = {"name": "getter"}, "/apis/rbac.authorization.k8s.io/v1/namespaces/kube-system"
    rule = {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get"], "resourceNames": [WHERE[1]]}
    await stage.create(f"{where}/roles", {"metadata": name, "rules": [rule]})
    binding = {
        "metadata": name,
        "roleRef": {"apiGroup": RBAC, "kind": "Role", **name},
        "subjects": [{"apiGroup": RBAC, "kind": "User", **name}],
    }
    await stage.create(f"{where}/rolebindings", binding)
    admin = read_kubeconfig(directory / "kubeconfig")
    token = stage.server.tokens.issue(User(name="getter"))
    access = Access(url=admin.url, ca_pem=admin.ca_pem, token=token)
    return write_kubeconfig(directory / "getter.kubeconfig", access)


async def test_the_config_map_is_read_again(authority: Authority) -> None:
    """A new front-proxy CA is believed without a restart, and the old one no longer."""
    cluster = FakeCluster(config_maps={WHERE: authority.config_map()})
    source = TrustSource(cluster)
    await source.load()
    renewed = Authority.make()
    cluster.config_maps[WHERE] = renewed.config_map()
    await source.load()
    door = Authenticator(trust=lambda: source.current, token_reviews=cluster)
    assert (await door.authenticate(REMOTE, presented(renewed.front_proxy()))).name == "bob"
    with pytest.raises(ApiError):
        await door.authenticate(REMOTE, presented(authority.front_proxy()))


async def test_a_change_counts_at_once(authority: Authority, stage: SandboxStage) -> None:
    """It is watched: nobody waits for the next look."""
    source = TrustSource(stage.kube, poll_s=NEVER_S, retry_s=NEVER_S)
    async with watching(source):
        await until(lambda: source.is_loaded)
        trust = await publish(stage, authority)
        await until(lambda: source.current == trust)
        open_to_all = await publish(stage, authority, requestheader_allowed_names="[]")
        await until(lambda: source.current == open_to_all)
        assert source.problem is None


async def test_what_cannot_be_used_leaves_the_last_one_in_force_and_is_told(
    authority: Authority, stage: SandboxStage
) -> None:
    source = TrustSource(stage.kube, poll_s=NEVER_S, retry_s=NEVER_S)
    trust = await publish(stage, authority)
    async with watching(source):
        await until(lambda: source.is_loaded)
        await stage.send("PATCH", PATH, {"data": {"requestheader-group-headers": "no list"}})
        await until(lambda: "requestheader-group-headers" in (source.problem or ""))
        assert source.current == trust
        await publish(stage, authority)
        await until(lambda: source.problem is None)


async def test_a_config_map_that_is_deleted_leaves_the_last_one_in_force(
    authority: Authority, stage: SandboxStage
) -> None:
    """An API server that restarts writes it anew; nobody is locked out meanwhile."""
    source = TrustSource(stage.kube, poll_s=NEVER_S, retry_s=NEVER_S)
    trust = await publish(stage, authority)
    async with watching(source):
        await until(lambda: source.is_loaded)
        await stage.send("DELETE", PATH)
        await until(lambda: "is not there" in (source.problem or ""))
        assert source.current == trust


async def test_where_it_may_not_be_watched_it_is_read_again_and_again(
    authority: Authority, stage: SandboxStage, tmp_path: Path
) -> None:
    kubeconfig = await may_only_get(stage, tmp_path)
    async with KubeClient.connect(str(kubeconfig)) as kube:
        source = TrustSource(kube, poll_s=0.05, retry_s=0.05)
        async with watching(source):
            await until(lambda: source.is_loaded)
            trust = await publish(stage, authority)
            await until(lambda: source.current == trust)
            assert source.problem is None


async def test_a_client_of_an_unknown_ca_makes_us_read_it_at_once(
    authority: Authority, stage: SandboxStage, tmp_path: Path
) -> None:
    """The new CA of a front proxy that did not wait for us."""
    kubeconfig = await may_only_get(stage, tmp_path)
    await publish(stage, authority)
    async with KubeClient.connect(str(kubeconfig)) as kube:
        source = TrustSource(kube, poll_s=NEVER_S, retry_s=0.01, hurry_s=0.01)
        async with watching(source):
            await until(lambda: source.is_loaded)
            renewed = await publish(stage, Authority.make())
            source.hurry()
            await until(lambda: source.current == renewed)


@dataclass
class Silent:
    """The watch tells nothing any more; a GET does, and is counted."""

    data: Mapping[str, str]
    gets: int = 0
    is_watched: asyncio.Event = field(default_factory=asyncio.Event)
    is_read: asyncio.Event = field(default_factory=asyncio.Event)

    async def config_map(self, *, namespace: str, name: str) -> Mapping[str, str]:
        self.gets += 1
        self.is_read.set()
        return self.data

    async def list_objects(self, path: str, *, label_selector: str = "", field_selector: str = "") -> Listing:
        document = {"metadata": {"name": WHERE[1], "resourceVersion": "1"}, "data": self.data}
        return Listing(items=(document,), resource_version="1")

    async def watch(
        self, path: str, *, resource_version: str, label_selector: str = "", field_selector: str = ""
    ) -> AsyncGenerator[WatchEvent, None]:
        self.is_watched.set()
        await asyncio.Event().wait()
        yield WatchEvent(type="BOOKMARK", object={})


async def test_a_watch_that_has_died_unnoticed_is_made_up_for_and_nobody_makes_us_read_without_end(
    authority: Authority,
) -> None:
    kube, renewed = Silent(data=authority.config_map()), Authority.make()
    source = TrustSource(kube, poll_s=NEVER_S, retry_s=NEVER_S, hurry_s=0.2)
    async with watching(source):
        await asyncio.wait_for(kube.is_watched.wait(), 20)
        assert (source.current, kube.gets) == (authority.trust(), 0)
        kube.data = renewed.config_map()
        for _ in range(100):
            source.hurry()
        await asyncio.wait_for(kube.is_read.wait(), 20)
        await until(lambda: source.current == renewed.trust())
        for _ in range(100):
            source.hurry()
            await asyncio.sleep(0)
        assert kube.gets == 1


@dataclass
class CutAndBack:
    """The watch is cut at once and comes back; meanwhile another CA is published, which only a GET tells."""

    old: Mapping[str, str]
    new: Mapping[str, str]
    cut: asyncio.Event = field(default_factory=asyncio.Event)
    back: asyncio.Event = field(default_factory=asyncio.Event)
    is_back: asyncio.Event = field(default_factory=asyncio.Event)
    watches: int = 0

    def document(self, version: str, data: Mapping[str, str]) -> dict[str, Any]:
        return {"metadata": {"name": WHERE[1], "resourceVersion": version}, "data": data}

    async def config_map(self, *, namespace: str, name: str) -> Mapping[str, str]:
        return self.new if self.cut.is_set() else self.old

    async def list_objects(self, path: str, *, label_selector: str = "", field_selector: str = "") -> Listing:
        return Listing(items=(self.document("1", self.old),), resource_version="1")

    async def watch(
        self, path: str, *, resource_version: str, label_selector: str = "", field_selector: str = ""
    ) -> AsyncGenerator[WatchEvent, None]:
        self.watches += 1
        if self.watches == 1:
            self.cut.set()
            raise KubernetesUnavailable("cut")
        await self.back.wait()
        yield WatchEvent(type="BOOKMARK", object=self.document(resource_version, {}))
        self.is_back.set()
        await asyncio.Event().wait()


async def test_what_was_read_while_the_watch_was_cut_is_not_undone_when_it_is_back(
    authority: Authority,
) -> None:
    """What it holds then is what it held before; the event that tells of the change is still to come."""
    renewed = Authority.make()
    kube = CutAndBack(old=authority.config_map(), new=renewed.config_map())
    source = TrustSource(kube, poll_s=0.01, retry_s=0.01)
    async with watching(source):
        await until(lambda: source.current == renewed.trust())
        kube.back.set()
        await asyncio.wait_for(kube.is_back.wait(), 20)
        assert source.current == renewed.trust()


async def test_what_cannot_be_read_leaves_the_last_one_in_force(authority: Authority) -> None:
    cluster = FakeCluster(config_maps={WHERE: authority.config_map()})
    source = TrustSource(cluster)
    await source.load()
    cluster.broken["config_map"] = KubernetesUnavailable("gone")
    await source.load()
    assert source.is_loaded
    assert source.current == authority.trust()
    assert source.problem is not None
    assert "gone" in source.problem
    del cluster.broken["config_map"]
    await source.load()
    assert source.problem is None


async def test_a_missing_permission_is_named_with_its_cure(caplog: pytest.LogCaptureFixture) -> None:
    cluster = FakeCluster(broken={"config_map": Forbidden("configmaps is forbidden", status=403)})
    source = TrustSource(cluster)
    await source.load()
    await source.load()
    assert not source.is_loaded
    assert "extension-apiserver-authentication-reader" in (source.problem or "")
    assert len(caplog.records) == 1
