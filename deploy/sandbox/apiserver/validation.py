"""The rules an object is held to before it is stored: those that users of this project can trip over."""

import re
from collections.abc import Iterator

from deploy.sandbox.apiserver.match_conditions import ConditionSyntaxError, parse_condition
from deploy.sandbox.errors import invalid
from deploy.sandbox.label_selectors import matches_labels
from deploy.sandbox.resources import (
    AUTOSCALERS,
    CLONE_SETS,
    DEPLOYMENTS,
    PODS,
    REPLICA_SETS,
    STATEFUL_SETS,
    WEBHOOK_CONFIGURATIONS,
    Document,
    Resource,
)

Problems = Iterator[tuple[str, str]]

DELETION_COST = "controller.kubernetes.io/pod-deletion-cost"
_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
# Kubernetes refuses other spellings of the same number, so that a cost reads the same everywhere.
_COST = re.compile(r"-?[1-9][0-9]*|-?0")


def validate(
    resource: Resource, document: Document, current: Document | None = None, *, honours_costs: bool = True
) -> None:
    """Raises ApiError 422 that names everything that is wrong.

    Without `honours_costs`, the feature gate PodDeletionCost, nobody looks at costs. An update of a pod may
    keep or change one that was wrong before.
    """
    metadata = document["metadata"]
    problems = list(_name(metadata["name"]))
    if resource is PODS and not (current and any(_pod_cost(current["metadata"]))):
        problems += _pod_cost(metadata)
    check = CHECKS.get(resource)
    problems += check(document) if check else ()
    if not honours_costs:
        problems = [problem for problem in problems if DELETION_COST not in problem[0]]
    if problems:
        raise invalid(resource, metadata["name"], problems)


def _name(name: str) -> Problems:
    if len(name) > 253 or not _SUBDOMAIN.fullmatch(name.replace(":", "-")):
        rule = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.'"
        yield "metadata.name", f'Invalid value: "{name}": {rule}'


def _pod_cost(metadata: Document) -> Problems:
    return _deletion_cost("metadata.annotations", metadata)


def _deletion_cost(field: str, metadata: Document) -> Problems:
    cost = (metadata.get("annotations") or {}).get(DELETION_COST)
    if cost is not None and not (_COST.fullmatch(cost) and -(2**31) <= int(cost) < 2**31):
        yield f"{field}[{DELETION_COST}]", f'Invalid value: "{cost}": must be a 32bit integer'


def _workload(document: Document) -> Problems:
    spec = document["spec"]
    if spec["replicas"] < 0:
        rule = "must be greater than or equal to 0"
        yield "spec.replicas", f"Invalid value: {spec['replicas']}: {rule}"
    if not spec.get("selector"):
        yield "spec.selector", "Required value"
        return
    labels = (spec["template"].get("metadata") or {}).get("labels") or {}
    if not matches_labels(spec["selector"], labels):
        rule = "`selector` does not match template `labels`"
        yield "spec.template.metadata.labels", f"Invalid value: {labels}: {rule}"
    if not spec["template"]["spec"]["containers"]:
        yield "spec.template.spec.containers", "Required value"
    yield from _deletion_cost("spec.template.annotations", spec["template"].get("metadata") or {})


def _autoscaler(document: Document) -> Problems:
    spec = document["spec"]
    least, most = spec["minReplicas"], spec.get("maxReplicas", 0)
    if least < 1:
        yield "spec.minReplicas", f"Invalid value: {least}: must be greater than or equal to 1"
    if most < max(least, 1):
        rule = "must be greater than or equal to `minReplicas`"
        yield "spec.maxReplicas", f"Invalid value: {most}: {rule}"
    for index, metric in enumerate(spec.get("metrics") or ()):
        name = (metric.get("external") or {}).get("metric", {}).get("name", "")
        if "/" in name or "%" in name:
            field = f"spec.metrics[{index}].external.metric.name"
            yield field, f'Invalid value: "{name}": must not contain "/" or "%"'


def _webhooks(document: Document) -> Problems:
    for index, webhook in enumerate(document["webhooks"]):
        yield from _webhook(f"webhooks[{index}]", webhook)


def _webhook(field: str, webhook: Document) -> Problems:
    if webhook.get("sideEffects") not in ("None", "NoneOnDryRun"):
        given = webhook.get("sideEffects", "")
        yield (
            f"{field}.sideEffects",
            f'Unsupported value: "{given}": supported values: "None", "NoneOnDryRun"',
        )
    if not 1 <= webhook["timeoutSeconds"] <= 30:
        rule = "the timeout value must be between 1 and 30 seconds"
        yield f"{field}.timeoutSeconds", f"Invalid value: {webhook['timeoutSeconds']}: {rule}"
    if "v1" not in (webhook.get("admissionReviewVersions") or ()):
        yield f"{field}.admissionReviewVersions", "Invalid value: must include at least one of v1"
    if len({"url", "service"} & webhook["clientConfig"].keys()) != 1:
        yield f"{field}.clientConfig", "Required value: exactly one of url or service is required"
    for index, condition in enumerate(webhook.get("matchConditions") or ()):
        try:
            parse_condition(condition["expression"])
        except ConditionSyntaxError as error:
            yield f"{field}.matchConditions[{index}].expression", f"Invalid value: {error}"


CHECKS = {
    AUTOSCALERS: _autoscaler,
    CLONE_SETS: _workload,
    DEPLOYMENTS: _workload,
    REPLICA_SETS: _workload,
    STATEFUL_SETS: _workload,
    WEBHOOK_CONFIGURATIONS: _webhooks,
}
