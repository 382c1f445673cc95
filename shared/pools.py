"""The configuration file: pools, how they scale and drain. One frozen model; all mistakes reported at once.

Reading files and the environment is the shell's work (shared.settings); here text becomes values. Rules
about several keys are validators of the last of them, so that they report beside all others.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from fnmatch import translate
from functools import cached_property, lru_cache
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic.alias_generators import to_camel

from shared.configuration_mistakes import mistakes_from
from shared.configuration_values import (
    Integer,
    Name,
    Number,
    PositiveSeconds,
    Ratio,
    Text,
    broker_url_mistake,
    database_url_mistake,
)
from shared.errors import ConfigurationError, Mistake
from shared.pods import WorkloadKey
from shared.strict_yaml import load_yaml
from shared.workers import Label, Task

_MOST_NAMES = 10_000
"""Task names whose label is remembered."""


class _Model(BaseModel):
    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        alias_generator=to_camel,
        validate_default=True,
        hide_input_in_errors=True,
    )


def _require_one(first: str, second: object, info: ValidationInfo) -> None:
    """Of the key `first` and the one that is being validated."""
    if first in info.data and (info.data[first] is None) == (second is None):
        raise ValueError(f"name exactly one of {first} and {to_camel(info.field_name or '')}")


class SecretSource(_Model):
    """Where a secret is read from: a mounted file or an environment variable."""

    file: Text | None = None
    env: Text | None = None

    @field_validator("env")
    @classmethod
    def _exactly_one(cls, env: str | None, info: ValidationInfo) -> str | None:
        _require_one("file", env, info)
        return env


class Broker(_Model):
    """How the workers' broker is reached."""

    url: Text | None = Field(default=None, repr=False)
    url_from: SecretSource | None = None
    transport_options: dict[str, Any] = Field(default_factory=dict, repr=False)
    """Celery's broker_transport_options, where workers set them (global_keyprefix, priority_steps, …)."""
    control_exchange: Text = "celery"
    """Celery's control_exchange, where workers set it."""

    @field_validator("url")
    @classmethod
    def _usable(cls, url: str | None) -> str | None:
        if url is not None and (sentence := broker_url_mistake(url)):
            raise ValueError(sentence)
        return url

    @field_validator("url_from")
    @classmethod
    def _exactly_one(cls, url_from: SecretSource | None, info: ValidationInfo) -> SecretSource | None:
        _require_one("url", url_from, info)
        return url_from


class WorkloadReference(_Model):
    """The object whose replicas the HPA sets."""

    kind: Literal["Deployment", "StatefulSet", "CloneSet"] = "Deployment"
    name: Name


class Algorithm(_Model):
    """How celery_desired_workers is computed, and the dead band of celery_load_factor."""

    name: Literal["load_factor"] = "load_factor"
    target: Ratio = Decimal("0.8")
    """Load factor wanted: demand / slots."""
    scale_up_above: Ratio | None = None
    scale_down_below: Ratio | None = None
    """Between these two nothing changes: the load factor reads as exactly the target."""

    @field_validator("scale_up_above")
    @classmethod
    def _not_below_target(cls, value: Decimal | None, info: ValidationInfo) -> Decimal | None:
        if value is not None and value < info.data.get("target", value):
            raise ValueError("write a number that is not below target")
        return value

    @field_validator("scale_down_below")
    @classmethod
    def _not_above_target(cls, value: Decimal | None, info: ValidationInfo) -> Decimal | None:
        if value is not None and value > info.data.get("target", value):
            raise ValueError("write a number that is not above target")
        return value


class Airflow(_Model):
    """That the workers are Airflow's, and where its metadata database is."""

    database: Text | None = Field(default=None, repr=False)
    """An SQLAlchemy URL."""
    database_from: SecretSource | None = None
    kubernetes_queue: Text = "kubernetes"
    """CeleryKubernetesExecutor's queue for pods of their own: its tasks are not ours."""
    executor: Text = "CeleryExecutor"
    """The executor whose tasks these workers run: short name, full path, or as `alias:path`."""
    is_default_executor: bool = True
    """Whether tasks that name no executor are its own."""

    @field_validator("database")
    @classmethod
    def _usable(cls, database: str | None) -> str | None:
        if database is not None and (sentence := database_url_mistake(database)):
            raise ValueError(sentence)
        return database

    @field_validator("database_from")
    @classmethod
    def _exactly_one(cls, database_from: SecretSource | None, info: ValidationInfo) -> SecretSource | None:
        _require_one("database", database_from, info)
        return database_from


class LabelRule(_Model):
    """Protects or weighs tasks that fit `task`, `dag` or, where both stand, both."""

    task: Text | None = None
    """Glob over the name of a Celery task, as `billing.*`; over the task_id of an Airflow task.

    A task in a task group has the group's id before its own, as `group.task`.
    """
    dag: Text | None = None
    """Glob over the dag_id of an Airflow task; no other task fits."""
    protect: bool = False
    weight: Annotated[Number, Field(ge=0)] = 1.0

    @field_validator("dag")
    @classmethod
    def _fits_something(cls, dag: str | None, info: ValidationInfo) -> str | None:
        if dag is None and "task" in info.data and info.data["task"] is None:
            raise ValueError("name task, dag or both")
        return dag


def _glob(pattern: str | None) -> Callable[[str | None], bool]:
    """Whether a text fits; everything does where there is no pattern, and nothing that is not there."""
    if pattern is None:
        return lambda text: True
    fits = re.compile(translate(pattern)).match
    return lambda text: text is not None and fits(text) is not None


class CostRule(_Model):
    """Cost of a task: weight * (1 + (running seconds / unitSeconds) ** exponent)."""

    exponent: Annotated[Number, Field(ge=0, le=10)] = 2.0
    unit_seconds: Annotated[Number, Field(gt=0)] = 60.0


class Drain(_Model):
    """How a scale-down waits for busy workers."""

    enabled: bool = True
    when_busy: Literal["wait", "proceed"] = "wait"
    """wait: refuse until the victims are idle; proceed: allow, they finish in their grace period."""
    max_wait: PositiveSeconds | None = None
    """After so long a round proceeds although victims are busy; None waits without limit."""
    hold_seconds: Annotated[Number, Field(ge=0, le=25)] = 2.0
    """How long one review may wait for victims that are about to finish."""
    during_rollout: Literal["deny", "allow"] = "deny"
    max_rollout_wait: PositiveSeconds = 3600.0
    """A rollout that has made no progress for so long is stuck: scale-downs go on as with allow."""


class Pool(_Model):
    """Workers of one workload that share queues."""

    name: Name
    namespace: Name
    workload: WorkloadReference
    queues: Annotated[tuple[Text, ...], Field(min_length=1)]
    slots_per_worker: Annotated[Integer, Field(ge=1, le=10_000)]
    broker: Broker
    worker_name: Text = "celery@{pod}"
    airflow: Airflow | None = None
    """Leave out for plain Celery."""
    algorithm: Algorithm = Algorithm()
    labels: tuple[LabelRule, ...] = ()
    cost: CostRule = CostRule()
    drain: Drain = Drain()

    @field_validator("worker_name")
    @classmethod
    def _names_the_pod(cls, worker_name: str) -> str:
        if worker_name.count("{pod}") != 1:
            raise ValueError('write {pod} in it once, as "celery@{pod}"')
        return worker_name

    @field_validator("airflow")
    @classmethod
    def _not_for_kubernetes(cls, airflow: Airflow | None, info: ValidationInfo) -> Airflow | None:
        if airflow is not None and airflow.kubernetes_queue in info.data.get("queues", ()):
            raise ValueError(
                "queues names kubernetesQueue, whose tasks run in pods of their own: "
                "take it out there, or name another here"
            )
        return airflow

    @field_validator("queues")
    @classmethod
    def _distinct(cls, queues: tuple[str, ...]) -> tuple[str, ...]:
        if repeated := sorted(queue for queue, count in Counter(queues).items() if count > 1):
            raise ValueError(f"name each queue once: {', '.join(repeated)} stands here more often")
        return queues

    @property
    def workload_key(self) -> WorkloadKey:
        return WorkloadKey(self.workload.kind, self.namespace, self.workload.name)

    @property
    def key(self) -> tuple[str, str]:
        return (self.namespace, self.name)

    def is_protected(self, task: Task) -> bool:
        """Whether a rule here, or a label in Airflow, says that this task must never be stopped."""
        return self._label_of(task).protect

    def weight(self, task: Task) -> float:
        """That of the first rule here that fits and names one, else of its label in Airflow, else 1."""
        weight = self._label_of(task).weight
        return 1.0 if weight is None else weight

    def _label_of(self, task: Task) -> Label:
        name = (None, task.name) if task.key is None else (task.key.dag_id, task.key.task_id)
        rules = self._rules_for(*name)
        return rules if task.label is None else rules.over(task.label)

    @cached_property
    def _rules_for(self) -> Callable[[str | None, str], Label]:
        """What the rules say, by dag_id and name: names are few, and a plan asks for thousands of tasks."""
        rules = [(_glob(rule.dag), _glob(rule.task), rule) for rule in self.labels]

        @lru_cache(maxsize=_MOST_NAMES)
        def rules_for(dag_id: str | None, name: str) -> Label:
            fitting = [rule for fits_dag, fits_task, rule in rules if fits_dag(dag_id) and fits_task(name)]
            weights = (rule.weight for rule in fitting if "weight" in rule.model_fields_set)
            return Label(protect=any(rule.protect for rule in fitting), weight=next(weights, None))

        return rules_for


class Delegate(_Model):
    """Another provider of external metrics: it is asked for those that are not ours."""

    namespace: Name
    name: Name
    """Of its Service."""
    port: Annotated[Integer, Field(ge=1, le=65535)] = 443
    address: Text | None = None
    """Where it is reached, if not at its Service; its certificate is for the Service all the same."""
    timeout: Annotated[PositiveSeconds, Field(le=30)] = 5.0
    ca: Text | None = Field(default=None, pattern="BEGIN CERTIFICATE")
    """As PEM: who vouches for its certificate."""
    ca_file: Text | None = None
    insecure_skip_tls_verify: bool = Field(default=False, alias="insecureSkipTLSVerify")

    @field_validator("insecure_skip_tls_verify")
    @classmethod
    def _exactly_one(cls, skips: bool, info: ValidationInfo) -> bool:
        named = [info.data.get("ca"), info.data.get("ca_file")]
        if {"ca", "ca_file"} <= info.data.keys() and (sum(one is not None for one in named) + skips) != 1:
            raise ValueError("name exactly one of ca, caFile and insecureSkipTLSVerify: true")
        return skips

    @property
    def host(self) -> str:
        """The name in its certificate, and in the DNS of the cluster."""
        return f"{self.name}.{self.namespace}.svc"

    @property
    def title(self) -> str:
        return f"{self.namespace}/{self.name}"


class Configuration(_Model):
    """The whole file."""

    pools: Annotated[tuple[Pool, ...], Field(min_length=1)]
    delegate: Delegate | None = None
    refresh: PositiveSeconds = 5.0
    """How often each pool is asked."""
    max_age: PositiveSeconds = 60.0
    """Values older than this are not served."""
    round_ttl: PositiveSeconds = 40.0
    """A refused round is taken back when no review has asked for it for so long."""

    @field_validator("max_age")
    @classmethod
    def _longer_than_refresh(cls, max_age: float, info: ValidationInfo) -> float:
        if max_age <= info.data.get("refresh", 0.0):
            raise ValueError("write more than refresh is, or nothing is ever served")
        return max_age

    def pool_of(self, *, kind: str, namespace: str, name: str) -> Pool | None:
        """The pool whose workload this is."""
        return next(
            (
                p
                for p in self.pools
                if (p.workload.kind, p.namespace, p.workload.name) == (kind, namespace, name)
            ),
            None,
        )


def parse_configuration(text: str) -> Configuration:
    """The configuration of a YAML text.

    Raises ConfigurationError with every mistake, its path and what would be right.
    """
    try:
        document = load_yaml(text)
    except ValueError as error:
        raise ConfigurationError((Mistake(path="", message=f"this is no YAML: {error}"),)) from error
    if not isinstance(document, dict):
        raise ConfigurationError((Mistake(path="", message="write a mapping with the key pools"),))
    mistakes = tuple(_repetitions(document))
    try:
        configuration = Configuration.model_validate(document)
    except ValidationError as error:
        mistakes = mistakes_from(error.errors(include_input=False), model=Configuration) + mistakes
    if mistakes:
        raise ConfigurationError(mistakes)
    return configuration


def _repetitions(document: Mapping[str, Any]) -> Iterator[Mistake]:
    """What no two pools may have in common, looked for in the raw document: its pools may have mistakes."""
    pools = document.get("pools")
    names: dict[object, int] = {}
    workloads: dict[object, int] = {}
    for index, pool in enumerate(pools if isinstance(pools, list) else ()):
        if not isinstance(pool, dict):
            continue
        namespace, workload = pool.get("namespace"), pool.get("workload")
        if (first := _first_use(names, (namespace, pool.get("name")), index)) is not None:
            message = f"pools[{first}] of the same namespace has this name already: choose another"
            yield Mistake(path=f"pools[{index}].name", message=message)
        reference = workload if isinstance(workload, dict) else {}
        key = (namespace, reference.get("kind", "Deployment"), reference.get("name"))
        if (first := _first_use(workloads, key, index)) is not None:
            message = f"this workload belongs to pools[{first}] already: a workload has one pool"
            yield Mistake(path=f"pools[{index}].workload.name", message=message)


def _first_use(seen: dict[object, int], key: tuple[object, ...], index: int) -> int | None:
    """The index that used the key first; None when this is the first, or no usable key."""
    if not all(isinstance(part, str) for part in key):
        return None
    first = seen.setdefault(key, index)
    return None if first == index else first
