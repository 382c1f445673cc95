"""The configuration file: pools, how they scale and drain. One frozen model; all mistakes reported at once.

Reading files and the environment is the shell's work (shared.settings); here text becomes values.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Hashable, Iterable
from decimal import Decimal
from fnmatch import fnmatchcase
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)
from pydantic.alias_generators import to_camel

from shared.errors import ConfigurationError, Mistake
from shared.workers import Task

_DURATION = re.compile(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+(?:\.\d+)?)s)?")
_NAME = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"

BROKER_SCHEMES = ("redis", "rediss", "redis+socket", "sentinel", "amqp", "amqps", "pyamqp")
"""Celery's remote control works on Redis and RabbitMQ only."""


def _seconds(value: object) -> object:
    """`90`, `"90s"`, `"1h30m"` to seconds."""
    if isinstance(value, bool):
        raise ValueError("write a duration as 90s, 5m or 1h30m")
    if isinstance(value, int | float):
        return float(value)
    match = _DURATION.fullmatch(value) if isinstance(value, str) and value else None
    if match is None:
        raise ValueError("write a duration as 90s, 5m or 1h30m")
    hours, minutes, seconds = (float(part or 0) for part in match.groups())
    return hours * 3600 + minutes * 60 + seconds


def _ratio(value: object) -> object:
    """`"0.8"` or `0.8`; a string so that 0.8 means eight tenths and not a float near it."""
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


def _no_finer_than_a_milli(value: Decimal) -> Decimal:
    if value != value.quantize(Decimal("0.001")):
        raise ValueError("at most three decimals: Kubernetes rounds finer quantities up")
    return value


Seconds = Annotated[float, BeforeValidator(_seconds), Field(ge=0, allow_inf_nan=False)]
PositiveSeconds = Annotated[float, BeforeValidator(_seconds), Field(gt=0, allow_inf_nan=False)]
Ratio = Annotated[
    Decimal,
    BeforeValidator(_ratio),
    Field(gt=0, le=100, allow_inf_nan=False),
    AfterValidator(_no_finer_than_a_milli),
]
Name = Annotated[str, Field(pattern=_NAME, max_length=253)]
Text = Annotated[str, Field(min_length=1)]


class _Model(BaseModel):
    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        alias_generator=to_camel,
        validate_default=True,
        hide_input_in_errors=True,
    )


class SecretSource(_Model):
    """Where a secret is read from: a mounted file or an environment variable."""

    file: Text | None = None
    env: Text | None = None

    @model_validator(mode="after")
    def _exactly_one(self) -> SecretSource:
        if (self.file is None) == (self.env is None):
            raise ValueError("name exactly one of file and env")
        return self


class Broker(_Model):
    """How the workers' broker is reached."""

    url: Text | None = Field(default=None, repr=False)
    url_from: SecretSource | None = None
    transport_options: dict[str, Any] = Field(default_factory=dict)
    """Celery's broker_transport_options, where workers set them (global_keyprefix, priority_steps, …)."""
    control_exchange: Text = "celery"
    """Celery's control_exchange, where workers set it."""

    @model_validator(mode="after")
    def _exactly_one(self) -> Broker:
        if (self.url is None) == (self.url_from is None):
            raise ValueError("name exactly one of url and urlFrom")
        return self


class WorkloadReference(_Model):
    """The object whose replicas the HPA sets."""

    kind: Literal["Deployment"] = "Deployment"
    name: Name


class Algorithm(_Model):
    """How celery_desired_workers is computed, and the dead band of celery_load_factor."""

    name: Literal["load_factor"] = "load_factor"
    target: Ratio = Decimal("0.8")
    """Load factor wanted: demand / slots."""
    scale_up_above: Ratio | None = None
    scale_down_below: Ratio | None = None
    """Between these two nothing changes: the load factor reads as exactly the target."""

    @model_validator(mode="after")
    def _ordered(self) -> Algorithm:
        if self.scale_up_above is not None and self.scale_up_above < self.target:
            raise ValueError("scaleUpAbove must not be below target")
        if self.scale_down_below is not None and self.scale_down_below > self.target:
            raise ValueError("scaleDownBelow must not be above target")
        return self


class LabelRule(_Model):
    """Protects or weighs tasks by Celery task name."""

    task: Text
    """Glob over the task name, as `billing.*`."""
    protect: bool = False
    weight: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1.0


class CostRule(_Model):
    """Cost of a task: weight * (1 + (running seconds / unitSeconds) ** exponent)."""

    exponent: Annotated[float, Field(ge=0, le=10, allow_inf_nan=False)] = 2.0
    unit_seconds: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 60.0


class Drain(_Model):
    """How a scale-down waits for busy workers."""

    enabled: bool = True
    when_busy: Literal["wait", "proceed"] = "wait"
    """wait: refuse until the victims are idle; proceed: allow, they finish in their grace period."""
    max_wait: PositiveSeconds | None = None
    """After so long a round proceeds although victims are busy; None waits without limit."""
    hold_seconds: Annotated[float, Field(ge=0, le=25, allow_inf_nan=False)] = 2.0
    """How long one review may wait for victims that are about to finish."""
    during_rollout: Literal["deny", "allow"] = "deny"


class Pool(_Model):
    """Workers of one workload that share queues."""

    name: Name
    namespace: Name
    workload: WorkloadReference
    queues: Annotated[tuple[Text, ...], Field(min_length=1)]
    slots_per_worker: Annotated[int, Field(ge=1, le=10_000)]
    broker: Broker
    worker_name: Text = "celery@{pod}"
    algorithm: Algorithm = Algorithm()
    labels: tuple[LabelRule, ...] = ()
    cost: CostRule = CostRule()
    drain: Drain = Drain()

    @model_validator(mode="after")
    def _sound(self) -> Pool:
        if self.worker_name.count("{pod}") != 1:
            raise ValueError('workerName must contain {pod} once, as "celery@{pod}"')
        if repeated := _repeated(self.queues):
            raise ValueError(f"queues names {', '.join(repeated)} more than once")
        return self

    @property
    def key(self) -> tuple[str, str]:
        return (self.namespace, self.name)

    def is_protected(self, task: Task) -> bool:
        """Whether a label says that this task must never be stopped."""
        return any(rule.protect for rule in self._rules(task))

    def weight(self, task: Task) -> float:
        """The weight of the first label rule that fits and does not merely protect; 1 without one."""
        return next((rule.weight for rule in self._rules(task) if "weight" in rule.model_fields_set), 1.0)

    def _rules(self, task: Task) -> Iterable[LabelRule]:
        return (rule for rule in self.labels if fnmatchcase(task.name, rule.task))


class Configuration(_Model):
    """The whole file."""

    pools: Annotated[tuple[Pool, ...], Field(min_length=1)]
    refresh: PositiveSeconds = 5.0
    """How often each pool is asked."""
    max_age: PositiveSeconds = 60.0
    """Values older than this are not served."""
    round_ttl: PositiveSeconds = 40.0
    """A refused round is taken back when no review has asked for it for so long."""

    @model_validator(mode="after")
    def _unique(self) -> Configuration:
        if names := _repeated(f"{p.namespace}/{p.name}" for p in self.pools):
            raise ValueError(f"pool names are unique in a namespace; repeated: {', '.join(names)}")
        workloads = (f"{p.workload.kind} {p.namespace}/{p.workload.name}" for p in self.pools)
        if repeated := _repeated(workloads):
            raise ValueError(f"a workload belongs to one pool; repeated: {', '.join(repeated)}")
        if self.max_age <= self.refresh:
            raise ValueError("maxAge must be longer than refresh, or nothing is ever served")
        return self

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

    def in_namespace(self, namespace: str) -> tuple[Pool, ...]:
        return tuple(pool for pool in self.pools if pool.namespace == namespace)


def broker_url_mistake(url: str) -> str | None:
    """What is wrong with a broker's URL, without a word of it; None when it can be used."""
    scheme, separator, _ = url.partition("://")
    if separator and scheme in BROKER_SCHEMES:
        return None
    return f"write the broker's URL beginning with one of {', '.join(f'{s}://' for s in BROKER_SCHEMES)}"


def parse_configuration(text: str) -> Configuration:
    """The configuration of a YAML text.

    Raises ConfigurationError with every mistake, its path and what would be right.
    """
    try:
        document = yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        raise ConfigurationError(
            (Mistake(path="", message=f"this is no YAML: {_yaml_sentence(error)}"),)
        ) from error
    if not isinstance(document, dict):
        raise ConfigurationError((Mistake(path="", message="the file must be a mapping with the key pools"),))
    try:
        return Configuration.model_validate(document)
    except ValidationError as error:
        raise ConfigurationError(tuple(map(_mistake, error.errors()))) from error


class _Loader(yaml.SafeLoader):
    """PyYAML keeps the last of two equal keys without a word; here that is a mistake."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        keys = [key.value for key, _ in node.value]
        if repeated := _repeated(keys):
            raise yaml.constructor.ConstructorError(
                None, None, f"the key {', '.join(repeated)} stands twice", node.start_mark
            )
        return super().construct_mapping(node, deep=deep)


def _yaml_sentence(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or str(error)
    return problem if mark is None else f"{problem} (line {mark.line + 1}, column {mark.column + 1})"


_SENTENCES = {
    "missing": "this key is required",
    "extra_forbidden": "this key is not known here; see the configuration reference for the keys that are",
}


def _mistake(error: Any) -> Mistake:
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in error["loc"]).lstrip(".")
    message = _SENTENCES.get(error["type"], error["msg"].removeprefix("Value error, "))
    return Mistake(path=path, message=message)


def _repeated(items: Iterable[str]) -> list[str]:
    return sorted(item for item, count in Counter(items).items() if count > 1)
