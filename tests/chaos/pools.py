"""The pools that chaos reigns over. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from deploy.sandbox import manifests
from deploy.sandbox.cluster import worker_environment

ROUND_TTL = "20s"
VISIBILITY_S = 60
"""On Redis, until a task whose worker was killed runs elsewhere: longer than any task waits and runs here."""
GRACE_S = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """Workers of one Deployment."""

    name: str
    fewest: int
    most: int
    slots: int
    queues: tuple[str, ...]
    tasks_per_s: float


POOLS = (
    # Two queues: between two cancels a worker consumes half of them.
    Pool(name="orders", fewest=1, most=4, slots=1, queues=("orders", "orders-fast"), tasks_per_s=0.9),
    Pool(name="reports", fewest=1, most=4, slots=2, queues=("reports",), tasks_per_s=1.5),
    Pool(name="mail", fewest=0, most=3, slots=1, queues=("mail", "mail-bulk", "mail-retry"), tasks_per_s=0.5),
)


def configuration(broker_url: str) -> manifests.Document:
    """The file that the hook reads."""
    pools = (
        manifests.pool(
            name=pool.name,
            workload=pool.name,
            broker_url=broker_url,
            slots=pool.slots,
            queues=pool.queues,
            drain={"whenBusy": "wait", "holdSeconds": 1},
        )
        for pool in POOLS
    )
    return manifests.configuration(*pools) | {"roundTtl": ROUND_TTL}


def deployment(pool: Pool, *, broker_url: str, journal_url: str) -> manifests.Document:
    """Real workers, that keep their journal where nothing happens to it."""
    environment = worker_environment(broker_url) | {
        "JOURNAL_URL": journal_url,
        "VISIBILITY_TIMEOUT": str(VISIBILITY_S) if broker_url.startswith("redis") else "",
    }
    return manifests.worker_deployment(
        name=pool.name,
        replicas=pool.most,
        command=manifests.worker_command(slots=pool.slots, queues=pool.queues, pool="threads"),
        environment=environment,
        grace_seconds=GRACE_S,
    )
