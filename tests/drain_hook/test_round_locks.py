import asyncio

import pytest

from drain_hook.round_locks import (
    LAST_WRITE_S,
    LEASE_DURATION_S,
    RoundLocks,
    WorkloadLocked,
    ensure_held,
)
from shared.errors import KubernetesUnavailable
from shared.kube_documents import LeaseRecord
from tests.drain_hook.builders import pool
from tests.drain_hook.stages import Clock
from tests.drain_hook.test_budgets import LoopClock
from tests.fakes.kubernetes import FakeCluster
from tests.model.virtual_time import VirtualLoop

POOL, OTHER = pool(), pool(name="other", workload={"name": "other"})
LEASE = ("apps", "celery-hpa-drain-worker")


def replica(cluster: FakeCluster, holder: str, clock: Clock | None = None) -> RoundLocks:
    return RoundLocks(cluster, holder=holder, retry_pause_s=0.001, clock=(clock or Clock()).monotonic)


async def test_one_round_at_a_time_in_a_process() -> None:
    locks = replica(FakeCluster(), "one")
    async with locks.hold(POOL, wait_s=1.0):
        with pytest.raises(WorkloadLocked, match="here"):
            async with locks.hold(POOL, wait_s=0.0):
                pytest.fail("two rounds at once")


async def test_one_round_at_a_time_among_replicas() -> None:
    cluster = FakeCluster()
    one, two = replica(cluster, "one"), replica(cluster, "two")
    async with one.hold(POOL, wait_s=1.0):
        with pytest.raises(WorkloadLocked, match="one is preparing"):
            async with two.hold(POOL, wait_s=0.01):
                pytest.fail("two rounds at once")
    async with two.hold(POOL, wait_s=1.0):
        assert cluster.leases[LEASE].holder == "two"


async def test_workloads_do_not_wait_for_each_other() -> None:
    locks = replica(FakeCluster(), "one")
    async with locks.hold(POOL, wait_s=0.0), locks.hold(OTHER, wait_s=0.0) as lease:
        assert lease.is_held


async def test_the_next_one_gets_it_as_soon_as_it_is_free() -> None:
    cluster = FakeCluster()
    one, two = replica(cluster, "one"), replica(cluster, "two")
    order = []

    async def hold(locks: RoundLocks, name: str) -> None:
        async with locks.hold(POOL, wait_s=5.0):
            order.append(name)
            await asyncio.sleep(0)

    await asyncio.gather(hold(one, "one"), hold(two, "two"), hold(one, "one again"))
    assert sorted(order) == ["one", "one again", "two"]


async def test_a_replica_that_died_is_succeeded() -> None:
    """As soon as its Lease has not changed for as long as it lasts."""
    cluster, clock = FakeCluster(), Clock()
    dead, alive = replica(cluster, "dead", clock), replica(cluster, "alive", clock)
    cluster.broken["replace_lease"] = KubernetesUnavailable("gone")
    async with dead.hold(POOL, wait_s=1.0):
        pass
    del cluster.broken["replace_lease"]
    with pytest.raises(WorkloadLocked):
        async with alive.hold(POOL, wait_s=0.01):
            pytest.fail("it may still be alive")
    clock.ahead_s = LEASE_DURATION_S + 1
    async with alive.hold(POOL, wait_s=0.01):
        assert cluster.leases[LEASE].holder == "alive"


async def test_a_failure_leaves_the_lock_free() -> None:
    cluster = FakeCluster()
    locks = replica(cluster, "one")
    cluster.refusals["read_lease"] = [KubernetesUnavailable("gone")]
    with pytest.raises(KubernetesUnavailable):
        async with locks.hold(POOL, wait_s=1.0):
            pytest.fail("there is no lease")
    async with locks.hold(POOL, wait_s=1.0) as lease:
        assert lease.is_held


async def test_a_look_does_not_disturb_the_round_of_this_process() -> None:
    """What it sees would be older than what the round writes, and its renewal would fail."""
    cluster = FakeCluster()
    locks = replica(cluster, "one")
    async with locks.hold(POOL, wait_s=1.0) as lease:
        cluster.calls.clear()
        await locks.look(POOL)
        assert not cluster.calls
        assert await lease.renew()


def test_a_lease_is_renewed_for_as_long_as_the_work_takes() -> None:
    """Nobody else can tell slow work from a dead replica; and afterwards it is free at once."""
    loop = VirtualLoop()
    try:
        cluster, clock = FakeCluster(), LoopClock(loop=loop)
        one, two = replica(cluster, "one", clock), replica(cluster, "two", clock)

        async def work_for_long() -> None:
            async with one.hold(POOL, wait_s=0.0) as lease:
                for _ in range(10):
                    await two.look(POOL)
                    await asyncio.sleep(LEASE_DURATION_S / 2)
                    with pytest.raises(WorkloadLocked):
                        async with two.hold(POOL, wait_s=0.0):
                            pytest.fail("two rounds at once")
                    ensure_held(lease)
            async with two.hold(POOL, wait_s=0.0):
                await asyncio.sleep(2 * LEASE_DURATION_S)

        loop.run(work_for_long())
    finally:
        loop.end()


def test_it_outlives_an_api_server_that_is_away_for_a_moment() -> None:
    """Also when a renewal did arrive whose answer was lost."""
    loop = VirtualLoop()
    try:
        cluster = Unheard()
        locks = replica(cluster, "one", LoopClock(loop=loop))

        async def work() -> None:
            async with locks.hold(POOL, wait_s=0.0) as lease:
                cluster.lost = 1
                await asyncio.sleep(2 * LEASE_DURATION_S)
                ensure_held(lease)

        loop.run(work())
        assert cluster.lost == 0
    finally:
        loop.end()


class Unheard(FakeCluster):
    """So many renewals take effect without an answer."""

    lost = 0

    async def replace_lease(self, *, namespace: str, name: str, record: LeaseRecord) -> LeaseRecord:
        written = await super().replace_lease(namespace=namespace, name=name, record=record)
        if self.lost:
            self.lost -= 1
            raise KubernetesUnavailable("no answer")
        return written


async def test_nothing_is_sent_that_may_arrive_after_the_lease() -> None:
    """A request may be under way for as long as we wait for its answer."""
    clock = Clock()
    async with replica(FakeCluster(), "one", clock).hold(POOL, wait_s=0.0) as lease:
        ensure_held(lease)
        clock.ahead_s = LEASE_DURATION_S - LAST_WRITE_S
        with pytest.raises(WorkloadLocked):
            ensure_held(lease)
        assert lease.is_held


async def test_a_lease_that_may_have_been_taken_is_given_back() -> None:
    """The answer to the request that took it was lost; the other replica need not wait for half a minute."""

    class Forgetful(FakeCluster):
        async def create_lease(self, *, namespace: str, name: str, record: LeaseRecord) -> LeaseRecord:
            await super().create_lease(namespace=namespace, name=name, record=record)
            raise KubernetesUnavailable("no answer")

    cluster = Forgetful()
    one, two = replica(cluster, "one"), replica(cluster, "two")
    with pytest.raises(KubernetesUnavailable):
        async with one.hold(POOL, wait_s=1.0):
            pytest.fail("nobody knows whether it is ours")
    async with two.hold(POOL, wait_s=0.0) as lease:
        assert lease.is_held
