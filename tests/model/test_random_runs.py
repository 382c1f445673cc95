import pytest

from tests.model.random_runs import POLICIES, run_one, run_one_with_slow_patches, run_until

ENOUGH = 1000
HAPPENED = (
    "verdict Busy",
    "verdict Protected",
    "verdict LabelsUnknown",
    "verdict none",
    "crashes",
    "verdict Proceeding",
)


@pytest.mark.timeout(600)
def test_a_thousand_random_scale_downs_hit_nobody() -> None:
    """No busy worker goes while an idle unprotected one is there, no protected one ever, and nothing is lost.

    Beside the scale-downs there are crashes, frozen replicas, silent workers, brokers that are down, watches
    that are cut, and everything else of FAULTS; `python -m tests.model` prints the figures.
    """
    outcome = run_until(ENOUGH)
    assert outcome.violations == []
    assert outcome.counts["scale-downs"] >= ENOUGH
    # It was no idle walk: rounds were refused, broken off by crashes, and let busy workers go where they may.
    for happened in HAPPENED:
        assert outcome.counts[happened] > 20, happened


def test_rounds_that_outlast_their_time_and_their_lease_write_nothing_late() -> None:
    """Whatever is marked or released is so by whoever holds the Lease, and what was refused is taken back."""
    worlds = [run_one_with_slow_patches(seed) for seed in range(20)]
    assert [violation for world in worlds for violation in world.violations] == []
    assert sum(world.counts["verdict OutOfTime"] for world in worlds) > 50
    assert sum(world.counts["scale-downs"] for world in worlds) > 20


def test_the_same_seed_gives_the_same_world() -> None:
    """A violation can be looked at again: everything in a world comes from its seed."""
    assert run_one(3).counts == run_one(3).counts


def test_every_policy_has_its_turn() -> None:
    """Waiting, with and without a hold, proceeding, and waiting for so long only."""
    assert len({str(run_one(seed, steps=0).pool.drain) for seed in range(30)}) == len(POLICIES)
