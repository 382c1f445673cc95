"""What the checks look at: a cluster and its brokers at one moment. Pure values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from shared.checkup.permissions import Permission
from shared.pods import Document, WorkloadState
from shared.pools import Pool
from shared.workers import Fleet, Software

OUR_PREFIX = "celery_"


@dataclass(frozen=True, slots=True, kw_only=True)
class Unread:
    """What could not be looked at, and why."""

    reason: str
    is_missing: bool = False
    """There is no such object."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Backend:
    """The Service that a registration names, and the server behind it."""

    namespace: str
    name: str
    problem: str = ""
    """Why no request can reach it, as far as its Service and endpoints tell."""
    has_ca: bool = True
    """False for a registration without a caBundle."""
    tls_problem: str | None = ""
    """Why the caBundle does not fit what it serves with; None when it could not be reached from here."""

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Registration:
    """The APIService, or the ValidatingWebhookConfiguration."""

    document: Document | Unread
    backends: tuple[Backend, ...] = ()
    """Of the APIService one, or none when it is built in; of the other one for each of its webhooks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExternalMetric:
    """A metric of an HPA that is read from external.metrics.k8s.io."""

    name: str
    selector: str = ""
    target: str = ""
    """`Value` or `AverageValue`."""

    @property
    def is_ours(self) -> bool:
        """By its name, which the API server takes in small letters."""
        return self.name.lower().startswith(OUR_PREFIX)


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricAnswer:
    """What the API server answers to who reads a metric as the HPA does."""

    problem: str = ""
    pools: tuple[str, ...] = ()
    """The label `pool` of each item; empty of a total."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Autoscaler:
    """A HorizontalPodAutoscaler."""

    namespace: str
    name: str
    kind: str
    """Of its target."""
    target: str
    """Name of its target."""
    metrics: tuple[ExternalMetric, ...] = ()
    answers: Mapping[ExternalMetric, MetricAnswer] = field(default_factory=dict)
    """To those of its metrics that were read."""
    is_kedas: bool = False
    """A ScaledObject made it."""
    trouble: str = ""
    """What its conditions complain of."""

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ScaledObject:
    """A workload that KEDA scales."""

    namespace: str
    name: str
    kind: str
    target: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rehearsal:
    """What came of a scale-down by one that was asked for as a dry run."""

    replicas: int
    """What was asked for."""
    webhook: str = ""
    """Name of the webhook that refused, or could not be asked: anybody's."""
    refusal: str = ""
    """Its sentence, when it refused."""
    failure: str = ""
    """Why the API server could not ask it."""
    said: str = ""
    """The hook's own warning, when nobody refused; empty when the hook said nothing."""
    not_asked: str = ""
    """Why it could not be asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Workers:
    """What one broker and the workers of one pool said."""

    fleet: Fleet = field(default_factory=Fleet)
    """The pool's own, by the names its pods should have."""
    listening: frozenset[str] = frozenset()
    """Of the silent ones those that the broker keeps a mailbox for: their remote control is on."""
    everyone: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """The queues of every worker of the broker that answered, by node name."""
    software: Mapping[str, Software] = field(default_factory=dict)
    waiting: Mapping[str, int] = field(default_factory=dict)
    """Messages ready in the pool's queues."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Database:
    """The metadata database of an Airflow pool, which was read."""

    address: str
    """Without user and password."""
    task_instances: int
    """That are running or queued."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolPicture:
    """One pool."""

    pool: Pool
    state: WorkloadState | Unread
    grace_s: float = 30.0
    """terminationGracePeriodSeconds of the pod template."""
    namespace_labels: Mapping[str, str] | Unread = field(default_factory=dict)
    rehearsal: Rehearsal | None = None
    """None when there is no replica that could go."""
    broker: str = ""
    """Where it is, without user and password."""
    workers: Workers | Unread = field(default_factory=Workers)
    database: Database | Unread | None = None
    """None for a pool without one."""

    @property
    def about(self) -> str:
        return f"{self.pool.namespace}/{self.pool.name}"

    @property
    def workload(self) -> str:
        """As `Deployment default/worker`."""
        return f"{self.pool.workload.kind} {self.pool.namespace}/{self.pool.workload.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """Everything."""

    taken_at: float
    """Seconds since the epoch."""
    namespace: str
    """Where both services are said to be."""
    version: tuple[int, int] | Unread
    """Of Kubernetes."""
    api_service: Registration
    webhooks: Registration
    denied: tuple[Permission, ...] | Unread
    """What our service accounts must be allowed and are not."""
    autoscalers: tuple[Autoscaler, ...] | Unread
    scaled_objects: tuple[ScaledObject, ...] = ()
    metrics: frozenset[str] | Unread = frozenset()
    """Names of the external metrics that are served."""
    pools: tuple[PoolPicture, ...] = ()
