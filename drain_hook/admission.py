"""AdmissionReviews: what is asked, and how a verdict is written as an answer. Pure.

Whatever JSON comes in, the only error raised is MalformedReview, which becomes HTTP 400 to the API server. A
refused scale-down is a well-formed answer with a sentence for the person who asked.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from shared.errors import CeleryHpaError
from shared.hook_warnings import BYPASSED
from shared.pods import BYPASS_ANNOTATION, INT32_MAX, Workload
from shared.pools import Pool

API_VERSION = "admission.k8s.io/v1"
KINDS = {
    ("apps", "deployments"): "Deployment",
    ("apps", "statefulsets"): "StatefulSet",
    ("apps.kruise.io", "clonesets"): "CloneSet",
}
"""Kind of the scaled object by group and resource of a review."""
UPDATED_KINDS = frozenset({"Deployment"})
"""Kinds whose replicas are looked at in an update of the whole object, too: kubectl apply and edit, Helm."""

_LEFT_OUT = {"scale": 0, "": 1}
"""Replicas where none are named, by subresource: a Scale omits 0, and 1 is the default of a Deployment."""

_PASS_SENTENCES = {
    "NotOurs": "This is no workload of a configured pool.",
    "NotADecrease": "The replicas do not go down.",
}


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
    changes_template: bool = False
    """An update of the whole object that starts a rollout as well."""
    is_bypassed: bool = False
    """An update of the whole object that brings the break-glass with it."""


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
    webhook: str = ""
    """Name of the webhook that asks, by the path it was called at; empty when that names none."""


def parse_review(body: object, *, webhook: str = "") -> Review:
    """The review in a decoded JSON body. Raises MalformedReview with a sentence."""
    if not isinstance(body, dict):
        raise MalformedReview("The body must be a JSON object holding an AdmissionReview.")
    if (body.get("apiVersion"), body.get("kind")) != (API_VERSION, "AdmissionReview"):
        raise MalformedReview(f"The body must be an AdmissionReview of {API_VERSION}.")
    request = _mapping(body, "request")
    uid = _text(request, "request.uid")
    target = _target(request)
    if target is None:
        return Review(uid=uid, api_version=API_VERSION, scale_down=None, pass_reason="NotOurs")
    scale_down = _scale_down(request, uid=uid, target=target)
    if scale_down.to_replicas >= scale_down.from_replicas:
        return Review(uid=uid, api_version=API_VERSION, scale_down=None, pass_reason="NotADecrease")
    return Review(uid=uid, api_version=API_VERSION, scale_down=scale_down, webhook=webhook)


def render_review(review_uid: str, verdict: Verdict) -> dict[str, Any]:
    """The answer as an AdmissionReview.

    There is no status.reason, since kubectl prints it before the sentence, and no retryAfterSeconds, with
    which clients would retry by themselves.
    """
    response: dict[str, Any] = {"uid": review_uid, "allowed": verdict.allowed}
    if not verdict.allowed:
        response["status"] = {"code": verdict.code, "message": verdict.message}
    if verdict.warnings:
        response["warnings"] = list(verdict.warnings)
    if verdict.audit:
        response["auditAnnotations"] = dict(verdict.audit)
    return {"apiVersion": API_VERSION, "kind": "AdmissionReview", "response": response}


def early_verdict(review: Review, *, pool: Pool | None) -> Verdict | None:
    """Allowed at once (NotOurs, NotADecrease, Disabled, Rollout); None: look at the workload."""
    if review.scale_down is None:
        return Verdict(allowed=True, reason=review.pass_reason, message=_PASS_SENTENCES[review.pass_reason])
    if pool is None:
        return Verdict(allowed=True, reason="NotOurs", message=_PASS_SENTENCES["NotOurs"])
    if not pool.drain.enabled:
        message = f"Draining is switched off for pool {pool.name} (drain.enabled: false)."
        return Verdict(allowed=True, reason="Disabled", message=message)
    return _rollout(review.scale_down) if review.scale_down.changes_template else None


def check_claim(scale_down: ScaleDown, workload: Workload | None) -> Verdict | None:
    """ClaimMismatch if the workload is not as the review says, Bypassed with the break-glass, else None."""
    what = f"{scale_down.kind} {scale_down.namespace}/{scale_down.name}"
    if workload is None or workload.uid != scale_down.workload_uid:
        return _mismatch(f"The {what} of this request does not exist (any more).")
    if workload.replicas != scale_down.from_replicas:
        return _mismatch(
            f"The {what} has {workload.replicas} replicas to keep now, and this request is about"
            f" {scale_down.from_replicas}."
        )
    if workload.is_bypassed or scale_down.is_bypassed:
        message = f"{BYPASSED} the annotation {BYPASS_ANNOTATION} of the {what} is true."
        return Verdict(allowed=True, reason="Bypassed", message=message, warnings=(message,))
    return None


def _mismatch(sentence: str) -> Verdict:
    message = f"{sentence} Nothing was touched; look at the workload and ask again."
    return Verdict(allowed=False, reason="ClaimMismatch", message=message)


def _rollout(scale_down: ScaleDown) -> Verdict:
    """All pods are replaced in any case: there is nobody to choose, and no reason to hold it up."""
    message = (
        f"The replicas of {scale_down.kind} {scale_down.namespace}/{scale_down.name} go from"
        f" {scale_down.from_replicas} to {scale_down.to_replicas} together with a change of its pod template:"
        " a rollout, which replaces all workers; none was drained. Lower the replicas in an update of its own"
        " to have workers drained."
    )
    return Verdict(allowed=True, reason="Rollout", message=message, warnings=(message,))


def _target(request: Mapping[str, Any]) -> tuple[str, str] | None:
    """Kind of the workload and subresource by which its replicas are set; None for anything else."""
    resource, subresource = request.get("resource"), request.get("subResource") or ""
    if request.get("operation") != "UPDATE" or not isinstance(resource, dict):
        return None
    names = (resource.get("group"), resource.get("resource"))
    kind = next((kind for of, kind in KINDS.items() if of == names), None)
    if kind is None or not (subresource == "scale" or (subresource == "" and kind in UPDATED_KINDS)):
        return None
    return kind, subresource


def _scale_down(request: Mapping[str, Any], *, uid: str, target: tuple[str, str]) -> ScaleDown:
    """The claim of an update of a Scale or a whole object; its replicas may as well go up or stay."""
    kind, subresource = target
    new, old = (_mapping(request, f"request.{key}") for key in ("object", "oldObject"))
    metadata = _mapping(old, "request.oldObject.metadata")
    left_out = _LEFT_OUT[subresource]
    is_dry_run = request.get("dryRun") or False
    if not isinstance(is_dry_run, bool):
        raise MalformedReview("request.dryRun must be true or false.")
    return ScaleDown(
        review_uid=uid,
        kind=kind,
        namespace=_text(request, "request.namespace"),
        name=_text(request, "request.name"),
        workload_uid=_text(metadata, "request.oldObject.metadata.uid"),
        from_replicas=_replicas(old, "request.oldObject.spec", left_out=left_out),
        to_replicas=_replicas(new, "request.object.spec", left_out=left_out),
        is_dry_run=is_dry_run,
        username=_username(request),
        changes_template=not subresource and _starts_rollout(new, old),
        is_bypassed=not subresource and _is_bypassed(new),
    )


def _starts_rollout(new: Mapping[str, Any], old: Mapping[str, Any]) -> bool:
    """Both sides have their defaults filled in by now, so any difference counts.

    While a Deployment is paused it is scaled all the same, and its pods stay those of the old template.
    """
    differs = _template(new, "object") != _template(old, "oldObject")
    return differs and new["spec"].get("paused") is not True


def _template(workload: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    return _mapping(_mapping(workload, f"request.{key}.spec"), f"request.{key}.spec.template")


def _is_bypassed(workload: Mapping[str, Any]) -> bool:
    annotations = _mapping(workload, "request.object.metadata").get("annotations")
    return isinstance(annotations, dict) and annotations.get(BYPASS_ANNOTATION) == "true"


def _replicas(workload: Mapping[str, Any], path: str, *, left_out: int) -> int:
    """spec.replicas of a Scale or a whole object."""
    replicas = _mapping(workload, path).get("replicas", left_out)
    if not isinstance(replicas, int) or isinstance(replicas, bool) or not 0 <= replicas <= INT32_MAX:
        raise MalformedReview(f"{path}.replicas must be a whole number from 0 to {INT32_MAX}.")
    return replicas


def _username(request: Mapping[str, Any]) -> str:
    user = request.get("userInfo")
    name = user.get("username") if isinstance(user, dict) else None
    return name if isinstance(name, str) else ""


def _mapping(parent: Mapping[str, Any], path: str) -> Mapping[str, Any]:
    value = parent.get(path.rpartition(".")[2])
    if not isinstance(value, dict):
        raise MalformedReview(f"{path} must be an object.")
    return value


def _text(parent: Mapping[str, Any], path: str) -> str:
    value = parent.get(path.rpartition(".")[2])
    if not isinstance(value, str) or not value:
        raise MalformedReview(f"{path} must be a text that is not empty.")
    return value
