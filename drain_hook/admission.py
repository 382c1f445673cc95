"""AdmissionReviews: what is asked, and how a verdict is written as an answer. Pure.

Whatever JSON comes in, the only error raised is MalformedReview: it becomes HTTP 400 to the API server, whereas
a refused scale-down is a well-formed answer with a sentence for the person who asked.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from shared.errors import CeleryHpaError
from shared.pods import INT32_MAX, Workload
from shared.pools import Pool

API_VERSION = "admission.k8s.io/v1"
KINDS = {("apps", "deployments"): "Deployment"}
"""Kind of the scaled object by group and resource of a review."""


class MalformedReview(CeleryHpaError):
    """The request is no AdmissionReview that an API server would send."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScaleDown:
    """A request to lower a workload's replicas, as the review claims it."""

    review_uid: str
    """New for every call, also for retries of one request: it identifies the answer, not the round."""
    kind: str
    namespace: str
    name: str
    workload_uid: str
    from_replicas: int
    to_replicas: int
    is_dry_run: bool = False
    username: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Our answer, before it is written as an AdmissionReview."""

    allowed: bool
    reason: str
    """One machine word for logs, telemetry and Events."""
    message: str
    """A sentence for people; a refusal's says what to do next."""
    code: int = 403
    """HTTP status of a refusal. Never 409: the HPA and kubectl would retry at once."""
    warnings: tuple[str, ...] = ()
    """Shown by kubectl."""
    audit: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    """Annotations of the audit event."""

    def __post_init__(self) -> None:
        if self.code == 409:
            raise ValueError("a refusal with 409 makes the HPA and kubectl retry at once; use 403 or 429")


@dataclass(frozen=True, slots=True, kw_only=True)
class Review:
    """A well-formed AdmissionReview."""

    uid: str
    api_version: str
    scale_down: ScaleDown | None
    """None when there is nothing for us to decide."""
    pass_reason: str = ""
    """Why there is nothing to decide: NotOurs or NotADecrease."""


def parse_review(body: object) -> Review:
    """The review in a decoded JSON body. Raises MalformedReview with a sentence."""
    raise NotImplementedError


def render_review(review_uid: str, verdict: Verdict) -> dict[str, Any]:
    """The answer as an AdmissionReview.

    There is no status.reason, since kubectl prints it before the sentence, and no retryAfterSeconds, with which
    clients would retry by themselves.
    """
    raise NotImplementedError


def early_verdict(review: Review, *, pool: Pool | None) -> Verdict | None:
    """Allowed at once (NotOurs, NotADecrease, Disabled), or None when the workload has to be looked at."""
    raise NotImplementedError


def check_claim(scale_down: ScaleDown, workload: Workload | None) -> Verdict | None:
    """ClaimMismatch when the live workload is not what the review says, Bypassed with the break-glass, else None."""
    raise NotImplementedError
