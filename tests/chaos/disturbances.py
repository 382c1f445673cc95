"""What is done to the cluster while it is busy; each undoes itself, so that what is left is ours to mend."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable
from contextlib import suppress

import aiohttp

from deploy.sandbox import manifests
from deploy.sandbox.errors import ApiError
from deploy.sandbox.resources import PODS
from shared.pods import DELETION_COST
from tests.chaos.arena import Arena
from tests.chaos.pools import POOLS
from tests.chaos.replicas import signal_worker

Disturbance = Callable[[Arena], Awaitable[None]]

PAUSED_LEASE_S = 34.0
"""Longer than the Lease of a round lasts: another replica takes over, and then the first one wakes up."""


async def kill_hook(arena: Arena) -> None:
    """At any instant; but never the last one, where those that are killed stay away."""
    ready = [replica for replica in arena.replicas if replica.is_ready]
    if len(ready) > 1 or not all(replica.is_held_down for replica in ready):
        arena.chance.choice(ready).signal(signal.SIGKILL)


async def freeze_hook(arena: Arena) -> None:
    await _freeze_hook(arena, seconds=arena.chance.uniform(3.0, 8.0))


async def pause_hook_beyond_its_lease(arena: Arena) -> None:
    await _freeze_hook(arena, seconds=PAUSED_LEASE_S)


async def freeze_worker(arena: Arena) -> None:
    """It answers nothing, and hears later what it was told meanwhile."""
    pod = _any_pod(arena)
    signal_worker(pod, signal.SIGSTOP)
    try:
        await asyncio.sleep(arena.chance.uniform(3.0, 9.0))
    finally:
        signal_worker(pod, signal.SIGCONT)


async def kill_worker(arena: Arena) -> None:
    """The kubelet starts its container again; it then consumes, whatever it was told before."""
    pod = _any_pod(arena)
    if pod:
        arena.kill_worker(pod)


async def kill_broker(arena: Arena) -> None:
    with arena.outage():
        arena.broker.kill()
        await asyncio.sleep(arena.chance.uniform(1.0, 3.0))
        await asyncio.to_thread(arena.broker.start_again)


async def freeze_broker(arena: Arena) -> None:
    with arena.outage():
        arena.broker.freeze()
        try:
            await asyncio.sleep(arena.chance.uniform(2.0, 6.0))
        finally:
            arena.broker.thaw()


async def write_foreign_costs(arena: Arena) -> None:
    """Somebody else has preferences, also about pods that are being drained.

    Never the -1 that the hook itself writes as a rule: that change would be none, so nobody could tell of it.
    """
    for _ in range(4):
        pod, cost = _any_pod(arena), str(arena.chance.choice((-50, -7, 7, 1000)))
        if pod:
            with suppress(ApiError, aiohttp.ClientError):
                change = {"metadata": {"annotations": {DELETION_COST: cost}}}
                await arena.kube.patch(PODS, manifests.NAMESPACE, pod, change)
                arena.foreign_costs[pod] = cost
        await asyncio.sleep(arena.chance.uniform(0.2, 1.5))


NAMES: dict[Disturbance, str] = {
    kill_hook: "hook killed at a random instant",
    freeze_hook: "hook stopped for seconds",
    pause_hook_beyond_its_lease: "hook stopped beyond its Lease",
    freeze_worker: "worker stopped for seconds",
    kill_worker: "worker killed",
    kill_broker: "broker killed",
    freeze_broker: "broker stopped for seconds",
    write_foreign_costs: "foreign costs written",
}


async def _freeze_hook(arena: Arena, *, seconds: float) -> None:
    replica = arena.chance.choice(arena.replicas)
    replica.signal(signal.SIGSTOP)
    try:
        await asyncio.sleep(seconds)
    finally:
        replica.signal(signal.SIGCONT)


def _any_pod(arena: Arena) -> str:
    """One that is not being deleted: the tasks of those are their grace period's affair."""
    names = [
        pod.name for pool in POOLS for pod in arena.pods(pool) if pod.is_ready and not pod.is_terminating
    ]
    return arena.chance.choice(names) if names else ""
