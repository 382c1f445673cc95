"""A CA is renewed under two replicas, and none of them ever serves what callers do not trust."""

import asyncio
import random
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509 import verification

from shared.ca_rotation import OLD_CA_STAYS, SEEN_AFTER, Kept, may_serve, plan, still_seen
from shared.certificates import KeyPair, ca_name, certificates_in, load_key_pair, make_ca, make_leaf
from shared.errors import Conflict, KubernetesUnavailable
from shared.kube_documents import Secret
from shared.self_managed import LOOK_EVERY_S, CertificateKeeper, Registration
from tests.fakes.kubernetes import FakeCluster
from tests.shared.test_certificates import handshake

NOW = datetime(2030, 1, 1, tzinfo=UTC)
HOST = "hook.system.svc"
NAMES = frozenset({HOST})
SECRET = ("system", "hook-tls")
LOOK = timedelta(seconds=LOOK_EVERY_S)
LAG = SEEN_AFTER - LOOK
"""How much later than others the slowest API server sees what was written."""


@dataclass(kw_only=True)
class World:
    """Two replicas, what they wrote, and API servers that see it at once or late."""

    directory: Path
    cluster: FakeCluster = field(default_factory=FakeCluster)
    now: datetime = NOW
    keepers: list[CertificateKeeper] = field(default_factory=list)
    history: list[tuple[datetime, bytes]] = field(default_factory=list)
    started: count = field(default_factory=count)

    def __post_init__(self) -> None:
        self.cluster.register_cas("hook", b"")
        self.keepers = [self.start(), self.start()]

    def start(self) -> CertificateKeeper:
        directory = self.directory / str(next(self.started))
        directory.mkdir()
        return CertificateKeeper(
            secrets=self.cluster,
            namespace="system",
            service="hook",
            registration=Registration(
                read=lambda: self.cluster.webhook_ca("hook"),
                replace=lambda bundle, found: self.cluster.replace_webhook_ca("hook", bundle, found),
            ),
            directory=directory,
            now=lambda: self.now,
        )

    async def restart(self, index: int) -> None:
        """Another process takes its place as soon as it serves."""
        keeper = self.start()
        await keeper.refresh()
        self.keepers[index] = keeper

    async def looks(self, number: int, *, together: bool = False) -> None:
        """Each replica looks so many times; callers call all the time."""
        for _ in range(number):
            if together:
                await asyncio.gather(*(keeper.refresh() for keeper in self.keepers))
                self.check()
            else:
                for keeper in self.keepers:
                    await keeper.refresh()
                    self.check()
            self.now += LOOK
            self.check()

    def check(self) -> None:
        """Whoever serves is trusted: by what is registered now, and by what was a moment ago."""
        (bundle,) = self.cluster.ca_bundles["hook"].bundles
        if not self.history or self.history[-1][1] != bundle:
            self.history.append((self.now, bundle))
        late = [old for at, old in self.history if at <= self.now - LAG]
        for leaf in self.leaves():
            for view in {bundle, late[-1] if late else bundle}:
                verify(leaf, bundle=view, now=self.now)

    def leaves(self) -> list[KeyPair]:
        """What is served, by replicas that serve already."""
        files = [(keeper.certificate_file, keeper.key_file) for keeper in self.keepers]
        return [load_key_pair(certificate_file=c, key_file=k) for c, k in files if c.exists()]

    def trusted(self) -> tuple[x509.Certificate, ...]:
        (bundle,) = self.cluster.ca_bundles["hook"].bundles
        return certificates_in(bundle)

    def ca(self) -> KeyPair:
        data = self.cluster.secrets[SECRET].data
        return KeyPair(certificate_pem=data["ca.crt"], key_pem=data["ca.key"])


def verify(leaf: KeyPair, *, bundle: bytes, now: datetime) -> None:
    """As a caller does at this instant; raises VerificationError."""
    store = verification.Store(list(certificates_in(bundle)))
    verifier = verification.PolicyBuilder().store(store).time(now).build_server_verifier(x509.DNSName(HOST))
    verifier.verify(leaf.certificate, [])


def secret_with(ca: KeyPair) -> Secret:
    """As another process left it."""
    leaf = make_leaf(ca, common_name=HOST, names=[HOST, "hook.system", "localhost"], now=NOW)
    pairs = {"ca.crt": ca.certificate_pem, "ca.key": ca.key_pem}
    pairs |= {"tls.crt": leaf.certificate_pem, "tls.key": leaf.key_pem}
    return Secret(data=pairs, resource_version="0")


@pytest.fixture
async def world(tmp_path: Path) -> World:
    """Both replicas serve under a CA that is due in a day."""
    world = World(directory=tmp_path)
    world.cluster.secrets[SECRET] = secret_with(make_ca(f"{HOST} CA", days=2 * 365 + 1, now=NOW))
    for keeper in world.keepers:
        await keeper.refresh()
    await world.looks(8)
    return world


def turn_due(world: World) -> KeyPair:
    """The old CA, which is due from now on."""
    world.now += timedelta(days=1)
    world.check()
    return world.ca()


async def test_leaves_are_renewed_for_years_and_then_the_ca(tmp_path: Path) -> None:
    """Whoever calls knows nothing of it."""
    world = World(directory=tmp_path)
    await asyncio.gather(*(keeper.refresh() for keeper in world.keepers))
    cas, leaves = {world.ca()}, set(world.leaves())
    while world.now < NOW + timedelta(days=20 * 365):
        await world.looks(8)
        cas.add(world.ca())
        leaves.update(world.leaves())
        world.now += timedelta(days=80)
    assert len(cas) == 3
    assert len(leaves) > 20
    assert world.trusted() == (world.ca().certificate,)


@pytest.mark.parametrize("together", [False, True])
async def test_a_whole_rotation_leaves_nobody_untrusted(world: World, together: bool) -> None:
    """Announced, then served by all, then alone; and no key of the old CA stays in the Secret meanwhile."""
    old = turn_due(world)
    await world.looks(2, together=together)
    new = world.ca()
    assert new != old
    assert world.trusted() == (new.certificate, old.certificate)
    assert {leaf.is_under(old) for leaf in world.leaves()} == {True}, "it is announced, no more"
    await world.looks(10, together=together)
    assert {leaf.is_under(new) for leaf in world.leaves()} == {True}
    assert len(set(world.leaves())) == 1
    assert old.key_pem not in world.cluster.secrets[SECRET].data.values()
    world.now += OLD_CA_STAYS - timedelta(hours=1)
    await world.looks(2, together=together)
    assert world.trusted() == (new.certificate, old.certificate)
    world.now += timedelta(hours=1)
    await world.looks(2, together=together)
    assert world.trusted() == (new.certificate,)
    assert world.cluster.secrets[SECRET].data["old-ca.crt"] == b""


@pytest.mark.parametrize("seed", range(20))
async def test_whatever_happens_meanwhile(world: World, seed: int) -> None:
    """Replicas restart, look in any order, are overtaken, and cannot read or write for a while."""
    dice = random.Random(seed)
    old = turn_due(world)
    for _ in range(40):
        match dice.randrange(6):
            case 0:
                await world.restart(dice.randrange(2))
            case 1:
                method = dice.choice(["webhook_ca", "replace_webhook_ca"])
                world.cluster.refusals.setdefault(method, []).append(KubernetesUnavailable("down"))
            case 2:
                method = dice.choice(["replace_secret", "replace_webhook_ca"])
                world.cluster.refusals.setdefault(method, []).append(Conflict("overtaken", status=409))
            case _:
                dice.shuffle(world.keepers)
        world.check()
        await world.looks(1, together=dice.random() < 0.5)
    assert not world.ca().is_under(old)
    assert {leaf.is_under(world.ca()) for leaf in world.leaves()} == {True}


async def test_a_replica_that_cannot_look_goes_on_with_the_old_leaf(world: World) -> None:
    """The old CA is trusted for so long."""
    turn_due(world)
    cut_off = world.keepers.pop()
    await world.looks(20)
    world.keepers.append(cut_off)
    world.now += OLD_CA_STAYS - timedelta(hours=1)
    world.check()
    assert len(set(world.leaves())) == 2
    await world.looks(10)
    assert len(set(world.leaves())) == 1


async def test_a_replica_with_an_old_view_does_not_take_the_new_ca_away(world: World) -> None:
    """It has read Secret and caBundle before they changed, and writes after that."""
    old = world.ca()
    world.cluster.register_cas("hook", b"")  # so that it has something to write
    late, other = world.keepers
    gate = world.cluster.gates["replace_webhook_ca"] = asyncio.Event()
    writing = asyncio.create_task(late.refresh())
    while not world.cluster.calls_of("replace_webhook_ca"):  # noqa: ASYNC110 - a fake has no event for it
        await asyncio.sleep(0)
    world.now += timedelta(days=1)
    del world.cluster.gates["replace_webhook_ca"]
    await other.refresh()
    assert world.ca() != old
    gate.set()
    await writing
    assert world.trusted() == (world.ca().certificate, old.certificate)
    await world.looks(10)


@pytest.mark.parametrize("damage", [dict.clear, lambda data: data.update({"ca.key": b"rubbish"})])
async def test_a_secret_that_is_lost_is_replaced_in_the_same_way(
    world: World, damage: Callable[[dict[str, bytes]], None]
) -> None:
    """The CA that is registered stays beside the new one, until nobody serves the leaf that is lost."""
    old = world.ca()
    stored = world.cluster.secrets[SECRET]
    data = dict(stored.data)
    damage(data)
    world.cluster.secrets[SECRET] = replace(stored, data=data)
    await world.looks(1)
    assert world.trusted() == (world.ca().certificate, old.certificate)
    await world.looks(10)
    assert {leaf.is_under(world.ca()) for leaf in world.leaves()} == {True}
    world.now += OLD_CA_STAYS
    await world.looks(1)
    assert world.trusted() == (world.ca().certificate,)


async def test_a_ca_of_others_is_not_kept(world: World) -> None:
    """Who wrote it there by mistake is not trusted by callers of ours."""
    world.cluster.register_cas("hook", make_ca("stranger").certificate_pem)
    del world.cluster.secrets[SECRET]
    for keeper in world.keepers:
        await keeper.refresh()
    assert world.trusted() == (world.ca().certificate,)


def kept_under(ca: KeyPair, *, now: datetime = NOW, of: KeyPair | None = None) -> Kept:
    leaf = make_leaf(of or ca, common_name=HOST, names=[HOST], now=now)
    old = (of.certificate,) if of else ()
    return Kept(ca=ca, leaf=leaf, old_cas=old)


def test_a_ca_counts_once_it_stands_in_every_ca_bundle() -> None:
    """A configuration has one for each of its webhooks."""
    one, two = make_ca("CA", now=NOW), make_ca("CA", now=NOW)
    seen = still_seen({}, [one.certificate_pem + two.certificate_pem, one.certificate_pem], now=NOW)
    assert seen == {one.certificate: NOW}
    later = still_seen(seen, [one.certificate_pem], now=NOW + SEEN_AFTER)
    assert later == seen
    assert still_seen(later, [b"rubbish"], now=NOW) == {}
    assert still_seen(later, [], now=NOW) == {}


def test_without_a_registration_the_leaf_is_renewed_when_it_has_expired() -> None:
    """Nobody can call us before there is one; and what has expired serves nobody."""
    old, new = make_ca("CA", now=NOW), make_ca("CA", now=NOW)
    kept = kept_under(new, of=old)
    almost = kept.leaf.lasts_until() - timedelta(minutes=1)
    for now, expected in ((almost, False), (kept.leaf.lasts_until(), True)):
        found = plan(kept, names=NAMES, registered=(), seen_since={}, now=now)
        assert found.makes_leaf is expected
        assert not found.makes_ca


def test_a_leaf_for_another_name_is_replaced_at_once() -> None:
    """Nobody that calls by the new name takes it."""
    ca = make_ca("CA", now=NOW)
    names = frozenset({"other.system.svc"})
    assert plan(kept_under(ca), names=names, registered=(), seen_since={}, now=NOW).makes_leaf


def test_a_leaf_is_served_once_its_own_ca_is_trusted() -> None:
    """That of an old CA, too; and at once where there is none to serve instead."""
    old, new = make_ca("CA", now=NOW), make_ca("CA", now=NOW)
    served = make_leaf(make_ca("CA", now=NOW), common_name=HOST, now=NOW)
    announced, now = kept_under(new, of=old), NOW + SEEN_AFTER
    assert may_serve(announced, instead_of=None, seen_since={}, now=now)
    assert not may_serve(announced, instead_of=served, seen_since={}, now=now)
    assert not may_serve(announced, instead_of=served, seen_since={new.certificate: NOW}, now=now)
    assert may_serve(announced, instead_of=served, seen_since={old.certificate: NOW}, now=now)
    assert may_serve(announced, instead_of=served, seen_since={}, now=served.lasts_until())


def test_a_leaf_of_the_ca_that_is_served_needs_no_look_at_the_registration() -> None:
    """Whoever trusts the one trusts the other; and a registration may be closed to us for years."""
    old, new = make_ca("CA", now=NOW), make_ca("CA", now=NOW)
    served, renewed = (make_leaf(old, common_name=HOST, now=NOW) for _ in range(2))
    for kept in (Kept(ca=old, leaf=renewed), Kept(ca=new, leaf=renewed, old_cas=(old.certificate,))):
        assert may_serve(kept, instead_of=served, seen_since={}, now=NOW)
    assert not may_serve(Kept(ca=new, leaf=renewed), instead_of=served, seen_since={}, now=NOW)


def test_a_caller_takes_either_certificate_while_both_cas_are_registered(tmp_path: Path) -> None:
    """Both have one name, and are told apart all the same."""
    old, new = make_ca("CA"), make_ca("CA")
    assert old.certificate.subject == new.certificate.subject == ca_name("CA")
    bundle = KeyPair(certificate_pem=kept_under(new, of=old, now=datetime.now(UTC)).ca_bundle, key_pem=b"")
    for ca in (old, new):
        leaf = make_leaf(ca, common_name=HOST, names=[HOST])
        handshake(leaf, ca=bundle, hostname=HOST, directory=tmp_path)
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(leaf, ca=old, hostname=HOST, directory=tmp_path)
