"""A lease as a lock: one holder at a time, and a dead one is replaced."""

import asyncio
from dataclasses import replace

import pytest

from shared.errors import KubernetesUnavailable
from shared.kube_documents import LeaseRecord
from shared.leases import Lease
from tests.fakes.kubernetes import FakeCluster

WHERE = {"namespace": "default", "name": "a-lease"}


class Clocks:
    """Time that passes when a test says so. Each replica has a wall clock of its own."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


def lease(cluster: FakeCluster, holder: str, clocks: Clocks, *, wall_clock: float = 1_000_000.0) -> Lease:
    return Lease(
        cluster,
        **WHERE,
        holder=holder,
        duration_s=15,
        clock=clocks.monotonic,
        wall_clock=lambda: wall_clock,
    )


@pytest.fixture
def cluster() -> FakeCluster:
    return FakeCluster()


@pytest.fixture
def clocks() -> Clocks:
    return Clocks()


async def test_the_first_one_gets_it_and_the_second_does_not(cluster: FakeCluster, clocks: Clocks) -> None:
    first, second = lease(cluster, "one", clocks), lease(cluster, "two", clocks)
    assert await first.acquire()
    assert not await second.acquire()
    assert (first.is_held, second.is_held) == (True, False)
    assert second.seen_holder == "one"


async def test_released_it_is_free_at_once(cluster: FakeCluster, clocks: Clocks) -> None:
    first, second = lease(cluster, "one", clocks), lease(cluster, "two", clocks)
    await first.acquire()
    await first.release()
    assert not first.is_held
    assert await second.acquire()
    assert cluster.leases["default", "a-lease"].transitions == 1


async def test_taking_it_again_after_release_costs_one_call(cluster: FakeCluster, clocks: Clocks) -> None:
    """Rounds come one after another on one replica; the lock must not cost each a read."""
    first = lease(cluster, "one", clocks)
    await first.acquire()
    await first.release()
    cluster.calls.clear()
    assert await first.acquire()
    assert [call.method for call in cluster.calls] == ["replace_lease"]


async def test_a_dead_holder_is_replaced_when_it_has_not_moved_for_the_duration(
    cluster: FakeCluster, clocks: Clocks
) -> None:
    first, second = lease(cluster, "one", clocks), lease(cluster, "two", clocks)
    await first.acquire()
    assert not await second.acquire()
    clocks.now += 14.9
    assert not await second.acquire()
    clocks.now += 0.1
    assert await second.acquire()
    assert not first.is_held


async def test_the_wait_for_a_dead_holder_begins_with_a_look(cluster: FakeCluster, clocks: Clocks) -> None:
    """Whoever looks in time need not wait when it wants the lock; there may be none yet."""
    first, second = lease(cluster, "one", clocks), lease(cluster, "two", clocks)
    await second.look()
    await first.acquire()
    await second.look()
    clocks.now += 15
    assert await second.acquire()


async def test_a_holder_that_renews_is_never_replaced(cluster: FakeCluster, clocks: Clocks) -> None:
    """What counts is the last change that we saw, not when we first looked."""
    first, second = lease(cluster, "one", clocks), lease(cluster, "two", clocks)
    await first.acquire()
    for _ in range(10):
        assert not await second.acquire()
        clocks.now += 10
        assert await first.renew()
    assert not await second.acquire()


async def test_the_time_stamps_of_another_clock_mean_nothing(cluster: FakeCluster, clocks: Clocks) -> None:
    """A holder whose clock is a day behind looks long expired, and is not."""
    first = lease(cluster, "one", clocks, wall_clock=0.0)
    await first.acquire()
    assert not await lease(cluster, "two", clocks, wall_clock=86400.0).acquire()


async def test_one_that_was_overtaken_finds_out_when_it_renews(cluster: FakeCluster, clocks: Clocks) -> None:
    first, second = lease(cluster, "one", clocks), lease(cluster, "two", clocks)
    await first.acquire()
    await second.acquire()
    clocks.now += 15
    await second.acquire()
    assert not await first.renew()
    assert not first.is_held


async def test_a_write_in_between_by_somebody_else_makes_a_renewal_fail(
    cluster: FakeCluster, clocks: Clocks
) -> None:
    first = lease(cluster, "one", clocks)
    await first.acquire()
    stolen = replace(cluster.leases["default", "a-lease"], holder="two", resource_version="another")
    cluster.leases["default", "a-lease"] = stolen
    assert not await first.renew()


async def test_two_who_create_it_at_once_get_it_once(cluster: FakeCluster, clocks: Clocks) -> None:
    """The one that comes second sees 409 and does not hold it."""
    first, second = lease(cluster, "one", clocks), lease(cluster, "two", clocks)
    taken = await asyncio.gather(first.acquire(), second.acquire())
    assert sorted(taken) == [False, True]


async def test_release_leaves_the_lease_of_another_alone(cluster: FakeCluster, clocks: Clocks) -> None:
    first, second = lease(cluster, "one", clocks), lease(cluster, "two", clocks)
    await first.acquire()
    await second.acquire()
    clocks.now += 15
    await second.acquire()
    await first.release()
    assert cluster.leases["default", "a-lease"].holder == "two"


async def test_without_an_answer_it_is_not_held(cluster: FakeCluster, clocks: Clocks) -> None:
    """The write may have arrived: the next try finds our own name there and takes it."""
    cluster.refusals["create_lease"] = [KubernetesUnavailable("no answer")]
    first = lease(cluster, "one", clocks)
    with pytest.raises(KubernetesUnavailable):
        await first.acquire()
    assert not first.is_held
    assert await first.acquire()


async def test_it_is_held_no_longer_than_others_would_wait(cluster: FakeCluster, clocks: Clocks) -> None:
    first = lease(cluster, "one", clocks)
    await first.acquire()
    clocks.now += 15
    assert not first.is_held
    assert not await first.renew()
    assert await first.acquire()


async def test_it_is_confirmed_without_a_call_for_a_moment(cluster: FakeCluster, clocks: Clocks) -> None:
    """Most rounds are over by then."""
    first = lease(cluster, "one", clocks)
    await first.acquire()
    cluster.calls.clear()
    clocks.now += 0.9
    assert await first.confirm(after_s=1.0)
    assert cluster.calls == []


async def test_after_that_the_api_server_is_asked(cluster: FakeCluster, clocks: Clocks) -> None:
    """Whoever took it meanwhile is seen, whatever our own clock says about how long it lasts."""
    first = lease(cluster, "one", clocks)
    await first.acquire()
    clocks.now += 1.0
    assert await first.confirm(after_s=1.0)
    stolen = replace(cluster.leases["default", "a-lease"], holder="two", resource_version="another")
    cluster.leases["default", "a-lease"] = stolen
    clocks.now += 1.0
    assert not await first.confirm(after_s=1.0)


async def test_a_pause_of_the_whole_machine_is_noticed(cluster: FakeCluster, clocks: Clocks) -> None:
    """The monotonic clock of a suspended machine stands still, so by it nothing has happened."""
    wall_clock = [1_000_000.0]
    first = Lease(
        cluster,
        **WHERE,
        holder="one",
        duration_s=15,
        clock=clocks.monotonic,
        wall_clock=lambda: wall_clock[0],
    )
    await first.acquire()
    stolen = replace(cluster.leases["default", "a-lease"], holder="two", resource_version="another")
    cluster.leases["default", "a-lease"] = stolen
    wall_clock[0] += 60.0
    assert first.is_held
    assert not await first.confirm(after_s=1.0)


class ForgetfulCluster(FakeCluster):
    """Writes of leases take effect, and the answer to the first is lost."""

    is_lost = True

    async def create_lease(self, *, namespace: str, name: str, record: LeaseRecord) -> LeaseRecord:
        written = await super().create_lease(namespace=namespace, name=name, record=record)
        if self.is_lost:
            self.is_lost = False
            raise KubernetesUnavailable("no answer")
        return written


async def test_what_may_have_been_taken_is_given_back(clocks: Clocks) -> None:
    """Otherwise every other replica would have to wait until it runs out."""
    cluster = ForgetfulCluster()
    first, second = lease(cluster, "one", clocks), lease(cluster, "two", clocks)
    with pytest.raises(KubernetesUnavailable):
        await first.acquire()
    assert cluster.leases["default", "a-lease"].holder == "one"
    await first.release()
    assert await second.acquire()


async def test_what_may_have_been_taken_is_left_to_whoever_has_it(clocks: Clocks) -> None:
    cluster = FakeCluster(refusals={"create_lease": [KubernetesUnavailable("no answer")]})
    first, second = lease(cluster, "one", clocks), lease(cluster, "two", clocks)
    with pytest.raises(KubernetesUnavailable):
        await first.acquire()
    assert await second.acquire()
    await first.release()
    assert cluster.leases["default", "a-lease"].holder == "two"
