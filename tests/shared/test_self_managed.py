"""The certificate kept in a Secret: made once, shared, renewed in time, healed."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from shared.certificates import KeyPair, load_key_pair, make_ca
from shared.errors import Conflict, Forbidden, KubernetesUnavailable
from shared.self_managed import CertificateKeeper, own_namespace, with_certificate
from shared.settings import Settings
from tests.fakes.kubernetes import FakeCluster

SECRET = ("system", "hook-tls")
NOW = datetime(2030, 1, 1, tzinfo=UTC)


class Replica:
    """One replica of a service, its files and its clock."""

    def __init__(self, cluster: FakeCluster, directory: Path) -> None:
        directory.mkdir()
        self.now = NOW
        self.keeper = CertificateKeeper(
            secrets=cluster,
            namespace="system",
            service="hook",
            publish=lambda ca: cluster.patch_webhook_ca("hook", ca),
            directory=directory,
            now=lambda: self.now,
        )

    async def refresh(self) -> KeyPair:
        await self.keeper.refresh()
        return load_key_pair(certificate_file=self.keeper.certificate_file, key_file=self.keeper.key_file)


@pytest.fixture
def cluster() -> FakeCluster:
    return FakeCluster()


@pytest.fixture
def replica(cluster: FakeCluster, tmp_path: Path) -> Replica:
    return Replica(cluster, tmp_path / "one")


def ca_of(cluster: FakeCluster) -> KeyPair:
    data = cluster.secrets[SECRET].data
    return KeyPair(certificate_pem=data["ca.crt"], key_pem=data["ca.key"])


async def test_the_first_start_makes_everything(cluster: FakeCluster, replica: Replica) -> None:
    leaf = await replica.refresh()
    assert "hook.system.svc" in leaf.names()
    assert leaf.is_under(ca_of(cluster))
    assert cluster.ca_bundles["webhook/hook"] == ca_of(cluster).certificate_pem


async def test_later_starts_use_what_is_there(cluster: FakeCluster, replica: Replica) -> None:
    first = await replica.refresh()
    assert await replica.refresh() == first
    assert len(cluster.calls_of("create_secret", "replace_secret")) == 1


async def test_all_replicas_serve_the_same(cluster: FakeCluster, replica: Replica, tmp_path: Path) -> None:
    """Both start at once; the one that comes second takes what the first has made."""
    other = Replica(cluster, tmp_path / "two")
    one, two = await asyncio.gather(replica.refresh(), other.refresh())
    assert one == two


async def test_a_leaf_is_renewed_when_a_third_of_its_life_is_left(
    cluster: FakeCluster, replica: Replica, tmp_path: Path
) -> None:
    first = await replica.refresh()
    ca = ca_of(cluster)
    replica.now = NOW + timedelta(days=59)
    assert await replica.refresh() == first
    replica.now = NOW + timedelta(days=61)
    second = await replica.refresh()
    assert second.lasts_until() > first.lasts_until()
    assert ca_of(cluster) == ca, "callers need not learn of a new CA"
    other = Replica(cluster, tmp_path / "two")
    other.now = replica.now
    assert await other.refresh() == second


async def test_an_old_ca_is_replaced_before_it_ends(cluster: FakeCluster, replica: Replica) -> None:
    await replica.refresh()
    old = ca_of(cluster)
    replica.now = old.lasts_until() - timedelta(days=20)
    leaf = await replica.refresh()
    assert ca_of(cluster) != old
    assert leaf.is_under(ca_of(cluster))
    assert cluster.ca_bundles["webhook/hook"] == ca_of(cluster).certificate_pem


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: {},
        lambda data: data | {"tls.crt": b"rubbish"},
        lambda data: data | {"ca.key": make_ca("x").key_pem},
        lambda data: data | {"ca.crt": make_ca("x").certificate_pem, "ca.key": b""},
    ],
)
async def test_a_secret_that_cannot_be_used_is_made_anew(
    cluster: FakeCluster, replica: Replica, damage: Callable[[dict[str, bytes]], dict[str, bytes]]
) -> None:
    await replica.refresh()
    stored = cluster.secrets[SECRET]
    cluster.secrets[SECRET] = replace(stored, data=damage(dict(stored.data)))
    leaf = await replica.refresh()
    assert leaf.is_under(ca_of(cluster))


async def test_a_ca_bundle_that_was_lost_is_put_back(cluster: FakeCluster, replica: Replica) -> None:
    """Somebody applied the manifest again, in which there is none."""
    await replica.refresh()
    cluster.ca_bundles.clear()
    await replica.refresh()
    assert cluster.ca_bundles["webhook/hook"] == ca_of(cluster).certificate_pem


async def test_who_registers_us_may_come_later(
    cluster: FakeCluster, replica: Replica, caplog: pytest.LogCaptureFixture
) -> None:
    cluster.broken["patch_webhook_ca"] = KubernetesUnavailable("not yet")
    await replica.refresh()
    assert "could not be registered" in caplog.text


async def test_a_lost_race_is_run_again(cluster: FakeCluster, replica: Replica) -> None:
    cluster.refusals["create_secret"] = [Conflict("somebody was faster", status=409)]
    await replica.refresh()
    assert len(cluster.calls_of("create_secret")) == 2


async def test_without_permission_the_start_fails(cluster: FakeCluster, tmp_path: Path) -> None:
    cluster.broken["secret"] = Forbidden("may not", status=403)
    with pytest.raises(Forbidden):
        async with with_certificate(
            settings(tls_self_managed=True), secrets=cluster, service="hook", publish=nowhere
        ):
            pass


async def test_files_that_were_given_are_left_as_they_are(cluster: FakeCluster) -> None:
    given = settings(tls_cert_file=Path("c"), tls_private_key_file=Path("k"))
    async with with_certificate(given, secrets=cluster, service="hook", publish=nowhere) as result:
        assert result is given
    assert cluster.calls == []


async def test_self_managed_settings_name_files_while_the_service_runs(cluster: FakeCluster) -> None:
    wanted = settings(tls_self_managed=True)
    async with with_certificate(
        wanted, secrets=cluster, service="hook", publish=nowhere, namespace="system"
    ) as result:
        assert result.tls_cert_file is not None
        assert result.tls_cert_file.exists()
    assert not result.tls_cert_file.exists(), "no key stays behind"


def test_the_namespace_is_the_pods() -> None:
    assert own_namespace({"POD_NAMESPACE": "system"}) == "system"
    assert own_namespace({}) == "default"


def settings(
    *,
    tls_self_managed: bool = False,
    tls_cert_file: Path | None = None,
    tls_private_key_file: Path | None = None,
) -> Settings:
    return Settings(
        config=Path("f"),
        port=0,
        telemetry_port=0,
        tls_self_managed=tls_self_managed,
        tls_cert_file=tls_cert_file,
        tls_private_key_file=tls_private_key_file,
    )


def nowhere(_ca: bytes) -> Awaitable[None]:
    return asyncio.sleep(0)
