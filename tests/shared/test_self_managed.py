"""The certificate kept in a Secret: made once, shared, renewed in time, healed."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from shared.certificates import KeyPair, load_key_pair, make_ca
from shared.errors import Conflict, Forbidden, KubernetesError
from shared.self_managed import CertificateKeeper, Registration, own_namespace, with_certificate
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
            registration=registration(cluster),
            directory=directory,
            now=lambda: self.now,
        )

    async def refresh(self) -> KeyPair:
        await self.keeper.refresh()
        return load_key_pair(certificate_file=self.keeper.certificate_file, key_file=self.keeper.key_file)


def registration(cluster: FakeCluster) -> Registration:
    return Registration(
        read=lambda: cluster.webhook_ca("hook"),
        replace=lambda bundle, found: cluster.replace_webhook_ca("hook", bundle, found),
    )


@pytest.fixture
def cluster() -> FakeCluster:
    """Two webhooks are registered, as they are written in a manifest: without a CA."""
    cluster = FakeCluster()
    cluster.register_cas("hook", b"", b"")
    return cluster


def registered(cluster: FakeCluster) -> bytes:
    """What both webhooks have."""
    (bundle,) = set(cluster.ca_bundles["hook"].bundles)
    return bundle


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
    assert registered(cluster) == ca_of(cluster).certificate_pem


async def test_later_starts_use_what_is_there(cluster: FakeCluster, replica: Replica) -> None:
    first = await replica.refresh()
    assert await replica.refresh() == first
    assert len(cluster.calls_of("create_secret", "replace_secret")) == 1


async def test_all_replicas_serve_the_same(cluster: FakeCluster, replica: Replica, tmp_path: Path) -> None:
    """Both start at once; the one that comes second takes what the first has made."""
    other = Replica(cluster, tmp_path / "two")
    one, two = await asyncio.gather(replica.refresh(), other.refresh())
    assert one == two


async def test_a_leaf_of_a_year_is_renewed_90_days_ahead(
    cluster: FakeCluster, replica: Replica, tmp_path: Path
) -> None:
    """Callers need not learn of a new CA."""
    first = await replica.refresh()
    ca = ca_of(cluster)
    assert first.lasts_until() == NOW + timedelta(days=365)
    replica.now = NOW + timedelta(days=275)
    assert await replica.refresh() == first
    replica.now = NOW + timedelta(days=276)
    second = await replica.refresh()
    assert second.lasts_until() == replica.now + timedelta(days=365)
    assert ca_of(cluster) == ca
    other = Replica(cluster, tmp_path / "two")
    other.now = replica.now
    assert await other.refresh() == second


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
    cluster: FakeCluster,
    replica: Replica,
    tmp_path: Path,
    damage: Callable[[dict[str, bytes]], dict[str, bytes]],
) -> None:
    """Who starts has nothing else to serve; who serves goes on with what callers trust."""
    first = await replica.refresh()
    stored = cluster.secrets[SECRET]
    cluster.secrets[SECRET] = replace(stored, data=damage(dict(stored.data)))
    assert await replica.refresh() == first
    other = Replica(cluster, tmp_path / "two")
    assert (await other.refresh()).is_under(ca_of(cluster))


async def test_a_ca_bundle_that_was_lost_is_put_back(cluster: FakeCluster, replica: Replica) -> None:
    """Somebody applied the manifest again, in which there is none."""
    await replica.refresh()
    cluster.register_cas("hook", b"", b"")
    await replica.refresh()
    assert registered(cluster) == ca_of(cluster).certificate_pem


async def test_a_webhook_that_is_added_gets_our_ca(cluster: FakeCluster, replica: Replica) -> None:
    await replica.refresh()
    cluster.register_cas("hook", registered(cluster), b"")
    await replica.refresh()
    assert registered(cluster) == ca_of(cluster).certificate_pem


async def test_who_registers_us_may_come_later(
    cluster: FakeCluster, replica: Replica, caplog: pytest.LogCaptureFixture
) -> None:
    cluster.ca_bundles.clear()
    await replica.refresh()
    assert "cannot be read which CA is registered" in caplog.text
    cluster.register_cas("hook", b"")
    await replica.refresh()
    assert registered(cluster) == ca_of(cluster).certificate_pem


@pytest.mark.parametrize("error", [Forbidden("may not", status=403), Conflict("others write", status=409)])
async def test_it_serves_although_its_ca_cannot_be_registered(
    cluster: FakeCluster, replica: Replica, caplog: pytest.LogCaptureFixture, error: KubernetesError
) -> None:
    cluster.broken["replace_webhook_ca"] = error
    assert (await replica.refresh()).is_under(ca_of(cluster))
    assert "could not be registered" in caplog.text


async def test_whoever_is_overtaken_looks_again(
    cluster: FakeCluster, replica: Replica, tmp_path: Path
) -> None:
    """Two replicas start together, and register the one CA that there is."""
    other = Replica(cluster, tmp_path / "two")
    gate = cluster.gates["replace_webhook_ca"] = asyncio.Event()
    both = asyncio.gather(replica.refresh(), other.refresh())
    while len(cluster.calls_of("replace_webhook_ca")) < 2:  # noqa: ASYNC110 - a fake has no event for it
        await asyncio.sleep(0)
    gate.set()
    await both
    assert registered(cluster) == ca_of(cluster).certificate_pem


async def test_a_lost_race_is_run_again(cluster: FakeCluster, replica: Replica) -> None:
    cluster.refusals["create_secret"] = [Conflict("somebody was faster", status=409)]
    await replica.refresh()
    assert len(cluster.calls_of("create_secret")) == 2


async def test_the_longest_namespace_fits(cluster: FakeCluster, tmp_path: Path) -> None:
    """A subject has at most 64 characters; whoever calls looks at the other names."""
    namespace = "n" * 63
    async with with_certificate(
        settings(tls_self_managed=True),
        secrets=cluster,
        service="hook",
        registration=registration(cluster),
        namespace=namespace,
    ) as certified:
        result = certified.settings
        assert result.tls_cert_file is not None
        assert result.tls_private_key_file is not None
        leaf = load_key_pair(certificate_file=result.tls_cert_file, key_file=result.tls_private_key_file)
    assert f"hook.{namespace}.svc" in leaf.names()


async def test_without_permission_the_start_fails(cluster: FakeCluster, tmp_path: Path) -> None:
    cluster.broken["secret"] = Forbidden("may not", status=403)
    with pytest.raises(Forbidden):
        async with with_certificate(
            settings(tls_self_managed=True),
            secrets=cluster,
            service="hook",
            registration=registration(cluster),
        ):
            pass


async def test_files_that_were_given_are_left_as_they_are(cluster: FakeCluster) -> None:
    given = settings(tls_cert_file=Path("c"), tls_private_key_file=Path("k"))
    async with with_certificate(
        given, secrets=cluster, service="hook", registration=registration(cluster)
    ) as certified:
        assert certified.settings is given
        assert certified.problem() is None
    assert cluster.calls == []


async def test_self_managed_settings_name_files_while_the_service_runs(cluster: FakeCluster) -> None:
    wanted = settings(tls_self_managed=True)
    async with with_certificate(
        wanted, secrets=cluster, service="hook", registration=registration(cluster), namespace="system"
    ) as certified:
        result = certified.settings
        assert result.tls_cert_file is not None
        assert result.tls_cert_file.exists()
    assert not result.tls_cert_file.exists(), "no key stays behind"


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (Forbidden("may not", status=403), "cannot be looked at; the old one stays: may not"),
        (OSError("No space left on device"), "could not be looked after (OSError); the old one stays"),
    ],
)
async def test_whatever_goes_wrong_later_it_is_said_and_looked_again(
    cluster: FakeCluster, caplog: pytest.LogCaptureFixture, error: Exception, said: str
) -> None:
    """In the log and, for as long as it lasts, as a problem of the service, which goes on serving."""
    async with with_certificate(
        settings(tls_self_managed=True),
        secrets=cluster,
        service="hook",
        registration=registration(cluster),
        look_every_s=0,
    ) as certified:
        cluster.broken["secret"] = error
        while not certified.problem():  # noqa: ASYNC110 - there is no event for it
            await asyncio.sleep(0)
        assert said in (certified.problem() or "")
        assert said in caplog.text
        del cluster.broken["secret"]
        while certified.problem():  # noqa: ASYNC110 - there is no event for it
            await asyncio.sleep(0)


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
