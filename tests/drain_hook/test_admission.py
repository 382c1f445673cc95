"""What the API server asks, and what it is answered."""

import json
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drain_hook.admission import (
    MalformedReview,
    ScaleDown,
    Verdict,
    check_claim,
    early_verdict,
    parse_review,
    render_review,
)
from shared.hook_warnings import said_by_the_hook
from shared.pods import Workload
from tests.drain_hook.builders import pool, scale_down, workload

RECORDINGS = Path("tests/recordings/kubernetes")
HPA = "system:serviceaccount:kube-system:horizontal-pod-autoscaler"


def recorded(name: str) -> list[dict[str, Any]]:
    """The reviews of a recording, as the API server sent them."""
    (file,) = RECORDINGS.glob(f"{name}_*.json")
    document = json.loads(file.read_text())
    return [request["body"] for request in document.get("requests") or document["first_request"]]


def with_value(document: Any, path: tuple[str, ...], value: object) -> Any:
    """The document with one value replaced."""
    return value if not path else document | {path[0]: with_value(document.get(path[0]), path[1:], value)}


def paths(document: object) -> list[tuple[str, ...]]:
    """Where a review has values."""
    if not isinstance(document, dict):
        return [()]
    return [(), *((key, *rest) for key, value in document.items() for rest in paths(value))]


@pytest.mark.parametrize(
    ("name", "claims"),
    [
        ("c01", [(5, 3, False, "lab-admin")]),
        ("c06", [(5, 2, True, "lab-admin"), (5, 1, True, "lab-admin")]),
        ("c10", [(5, 4, False, "alice")]),
        ("c22", [(7, 4, False, "lab-admin"), (4, 2, False, "lab-admin")]),
        ("c27", [(5, 0, False, "lab-admin"), (4, 3, False, "lab-admin"), (3, 0, False, "lab-admin")]),
        ("c30", [(5, 2, False, "lab-admin")]),
        ("c31", [(5, 3, False, "lab-admin")]),
        ("c33", [(5, 3, False, "lab-admin")]),
        ("c34", [(5, 2, False, "lab-admin")]),
        ("c50", [(5, 2, False, HPA)]),
    ],
)
def test_a_scale_down_is_read_as_the_api_server_sends_it(name: str, claims: list[tuple[Any, ...]]) -> None:
    """Who asks, from how many replicas to how many, and whether it is a dry run.

    By a Scale, or by a whole Deployment that is patched, applied or put.
    """
    reviews = [parse_review(body).scale_down for body in recorded(name)]
    assert [
        (r.from_replicas, r.to_replicas, r.is_dry_run, r.username) for r in reviews if r is not None
    ] == claims


def test_a_scale_down_names_its_workload() -> None:
    """Kind, namespace, name and uid of the object that is scaled; the uid of the review for the answer."""
    review = parse_review(recorded("c01")[0])
    assert review.uid == "9e0d3845-3dbe-4c33-b3dd-4bd6b99b6bc7"
    assert review.scale_down == ScaleDown(
        review_uid="9e0d3845-3dbe-4c33-b3dd-4bd6b99b6bc7",
        kind="Deployment",
        namespace="c",
        name="w",
        workload_uid="a9e2dc84-4776-4bbc-bc54-492156def75f",
        from_replicas=5,
        to_replicas=3,
        username="lab-admin",
    )


def test_replicas_that_are_left_out_are_zero() -> None:
    """Kubernetes omits spec.replicas when it is 0, in the old object as in the new."""
    to_zero, from_zero = map(parse_review, recorded("c29"))
    assert to_zero.scale_down is not None
    assert (to_zero.scale_down.from_replicas, to_zero.scale_down.to_replicas) == (5, 0)
    assert (from_zero.scale_down, from_zero.pass_reason) == (None, "NotADecrease")


@pytest.mark.parametrize("name", ["c02", "c03", "c32"])
def test_what_is_no_scale_down_passes(name: str) -> None:
    """More replicas, as many as before, and a rollout by itself are not for us to decide."""
    review = parse_review(recorded(name)[0])
    verdict = early_verdict(review, pool=pool())
    assert verdict is not None
    assert (verdict.allowed, verdict.reason) == (True, "NotADecrease")


UPDATE = recorded("c30")[0]


def update(*changes: tuple[tuple[str, ...], object]) -> Any:
    """A recorded update of a Deployment from five replicas to two, with values replaced."""
    document = UPDATE
    for path, value in changes:
        document = with_value(document, ("request", *path), value)
    return document


def without(document: Any, path: tuple[str, ...]) -> Any:
    """The document without one value."""
    key, *rest = path
    if not rest:
        return {name: value for name, value in document.items() if name != key}
    return document | {key: without(document[key], tuple(rest))}


def test_an_update_of_a_deployment_is_the_same_round_as_a_scale() -> None:
    """Workload, numbers and uid make the round; by which way they were written does not matter."""
    scaled = parse_review(recorded("c01")[0]).scale_down
    updated = parse_review(update((("object", "spec", "replicas"), 3))).scale_down
    assert scaled is not None
    assert updated is not None
    assert replace(updated, review_uid=scaled.review_uid) == scaled


@pytest.mark.parametrize(
    ("left_out", "change"), [("object", (5, 1)), ("oldObject", None)], ids=["the new one", "the old one"]
)
def test_a_deployment_has_one_replica_where_none_are_named(
    left_out: str, change: tuple[int, int] | None
) -> None:
    """Other than a Scale, which leaves out 0."""
    claim = parse_review(without(UPDATE, ("request", left_out, "spec", "replicas"))).scale_down
    assert (None if claim is None else (claim.from_replicas, claim.to_replicas)) == change


def test_a_deployment_may_be_updated_to_no_replicas() -> None:
    claim = parse_review(update((("object", "spec", "replicas"), 0))).scale_down
    assert claim is not None
    assert (claim.from_replicas, claim.to_replicas) == (5, 0)


NEW_IMAGE = ("object", "spec", "template", "spec", "containers"), [{"name": "c", "image": "new"}]


@pytest.mark.parametrize("is_dry_run", [False, True])
def test_fewer_replicas_with_a_new_template_are_a_rollout(is_dry_run: bool) -> None:
    """All workers are replaced: it is let through, and whoever asked is told that nobody was drained."""
    verdict = early_verdict(parse_review(update(NEW_IMAGE, (("dryRun",), is_dry_run))), pool=pool())
    assert verdict is not None
    assert (verdict.allowed, verdict.reason, verdict.warnings) == (True, "Rollout", (verdict.message,))
    assert "go from 5 to 2 together with a change of its pod template" in verdict.message


def test_a_paused_deployment_is_scaled_and_not_rolled_out() -> None:
    """Its pods stay those of the old template, so somebody has to choose among them."""
    review = parse_review(update(NEW_IMAGE, (("object", "spec", "paused"), True)))
    assert review.scale_down is not None
    assert early_verdict(review, pool=pool()) is None


def test_a_rollout_of_a_workload_of_no_pool_is_none_of_our_business() -> None:
    """No warning either."""
    verdict = early_verdict(parse_review(update(NEW_IMAGE)), pool=None)
    assert verdict is not None
    assert (verdict.reason, verdict.warnings) == ("NotOurs", ())


@pytest.mark.parametrize(("value", "is_bypassed"), [("true", True), ("false", False), (True, False)])
def test_an_update_may_bring_the_break_glass_with_it(value: object, is_bypassed: bool) -> None:
    """Whoever applies a manifest writes all of it at once."""
    annotations = ("object", "metadata", "annotations"), {"celery-hpa.io/bypass": value}
    claim = parse_review(update(annotations)).scale_down
    assert claim is not None
    verdict = check_claim(claim, workload(uid=claim.workload_uid, replicas=5))
    assert (verdict.reason if verdict else None) == ("Bypassed" if is_bypassed else None)


@pytest.mark.parametrize(
    ("group", "resource", "kind"),
    [("apps", "statefulsets", "StatefulSet"), ("apps.kruise.io", "clonesets", "CloneSet")],
)
def test_scales_of_other_kinds_of_workloads_are_ours_too(group: str, resource: str, kind: str) -> None:
    """A custom resource's Scale looks like any other; updates of the whole object are not asked for."""
    body = recorded("c01")[0]
    names = {"resource": {"group": group, "version": "v1", "resource": resource}}
    claim = parse_review(body | {"request": body["request"] | names}).scale_down
    assert claim is not None
    assert (claim.kind, claim.from_replicas, claim.to_replicas) == (kind, 5, 3)
    whole = body["request"] | names | {"subResource": ""}
    assert parse_review(body | {"request": whole}).pass_reason == "NotOurs"


@pytest.mark.parametrize(
    "change",
    [
        {"operation": "CREATE"},
        {"subResource": "status"},
        {"resource": {"group": "apps", "version": "v1", "resource": "replicasets"}},
        {"resource": {"group": "apps.kruise.io", "version": "v1beta1", "resource": "statefulsets"}},
        {"resource": None},
    ],
)
def test_other_objects_and_operations_pass(change: dict[str, Any]) -> None:
    """A webhook configuration that lets through more than it should stops nobody."""
    body = recorded("c01")[0]
    review = parse_review(body | {"request": body["request"] | change})
    assert (review.scale_down, review.pass_reason) == (None, "NotOurs")


@pytest.mark.parametrize(
    ("path", "value", "sentence"),
    [
        ((), [], "JSON object"),
        (("apiVersion",), "admission.k8s.io/v1beta1", r"AdmissionReview of admission.k8s.io/v1"),
        (("kind",), "Pod", "AdmissionReview"),
        (("request",), None, "request must be an object"),
        (("request", "uid"), "", "request.uid must be a text"),
        (("request", "name"), 7, "request.name must be a text"),
        (("request", "namespace"), None, "request.namespace must be a text"),
        (("request", "object"), "x", "request.object must be an object"),
        (("request", "oldObject"), None, "request.oldObject must be an object"),
        (("request", "oldObject", "metadata", "uid"), None, "request.oldObject.metadata.uid must be"),
        (("request", "object", "spec"), 3, "request.object.spec must be an object"),
        (("request", "object", "spec", "replicas"), "3", "request.object.spec.replicas must be a whole"),
        (("request", "object", "spec", "replicas"), True, "replicas must be a whole number"),
        (("request", "object", "spec", "replicas"), -1, "replicas must be a whole number"),
        (("request", "object", "spec", "replicas"), 2**31, "replicas must be a whole number"),
        (("request", "dryRun"), "yes", "request.dryRun must be true or false"),
    ],
)
def test_a_malformed_review_of_a_scale_is_told_what_is_wrong(
    path: tuple[str, ...], value: object, sentence: str
) -> None:
    """No API server sends this; whoever does learns which field is wrong."""
    with pytest.raises(MalformedReview, match=sentence):
        parse_review(with_value(recorded("c01")[0], path, value))


@pytest.mark.parametrize(
    ("path", "value", "sentence"),
    [
        (("object",), None, "request.object must be an object"),
        (("object", "metadata"), None, "request.object.metadata must be an object"),
        (("object", "spec"), None, "request.object.spec must be an object"),
        (("object", "spec", "replicas"), None, "request.object.spec.replicas must be a whole number"),
        (("object", "spec", "template"), [], "request.object.spec.template must be an object"),
        (("oldObject", "metadata", "uid"), 7, "request.oldObject.metadata.uid must be a text"),
        (("oldObject", "spec", "replicas"), "5", "request.oldObject.spec.replicas must be a whole number"),
        (("oldObject", "spec", "template"), None, "request.oldObject.spec.template must be an object"),
    ],
)
def test_a_malformed_review_of_an_update_is_told_what_is_wrong(
    path: tuple[str, ...], value: object, sentence: str
) -> None:
    """The same for whole Deployments."""
    with pytest.raises(MalformedReview, match=sentence):
        parse_review(update((path, value)))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(body=JSON)
def test_any_json_is_a_review_or_malformed(body: object) -> None:
    """Nothing but MalformedReview is raised, whatever is posted."""
    with pytest.raises(MalformedReview):
        parse_review(body)


@pytest.mark.parametrize("name", ["c01", "c30"])
@given(data=st.data(), value=JSON)
def test_a_review_with_anything_anywhere_is_a_review_or_malformed(
    name: str, data: st.DataObject, value: object
) -> None:
    """A real review in which one value is replaced by any other is read or refused, and nothing else."""
    body = recorded(name)[0]
    changed = with_value(body, data.draw(st.sampled_from(paths(body))), value)
    with suppress(MalformedReview):
        claim = parse_review(changed).scale_down
        assert claim is None or claim.to_replicas < claim.from_replicas


def test_a_permission_is_written_with_its_warnings_and_annotations() -> None:
    """The answer names the review it belongs to; there is no status on what is allowed."""
    verdict = Verdict(
        allowed=True, reason="Drained", message="Gone.", warnings=("w-1 leaves",), audit={"victims": "w-1"}
    )
    assert render_review("r-1", verdict) == {
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "response": {
            "uid": "r-1",
            "allowed": True,
            "warnings": ["w-1 leaves"],
            "auditAnnotations": {"victims": "w-1"},
        },
    }


def test_a_refusal_carries_a_code_and_a_sentence_and_nothing_that_makes_clients_retry() -> None:
    """No reason, which kubectl would print in brackets, and no retryAfterSeconds."""
    answer = render_review("r-1", Verdict(allowed=False, reason="Busy", message="w-1 is busy."))
    assert answer["response"] == {
        "uid": "r-1",
        "allowed": False,
        "status": {"code": 403, "message": "w-1 is busy."},
    }


def test_no_refusal_can_say_409() -> None:
    """With 409 the HPA and kubectl would ask again at once, for minutes."""
    with pytest.raises(ValueError, match="use 403 or 429"):
        Verdict(allowed=False, reason="Busy", message="Busy.", code=409)


def test_a_workload_of_no_pool_passes() -> None:
    """Whose workers we do not know we do not hold up."""
    verdict = early_verdict(parse_review(recorded("c01")[0]), pool=None)
    assert verdict is not None
    assert (verdict.allowed, verdict.reason) == (True, "NotOurs")


def test_a_pool_with_draining_switched_off_passes() -> None:
    """drain.enabled: false."""
    verdict = early_verdict(parse_review(recorded("c01")[0]), pool=pool(drain={"enabled": False}))
    assert verdict is not None
    assert (verdict.allowed, verdict.reason) == (True, "Disabled")


def test_a_scale_down_of_a_pool_has_to_be_looked_at() -> None:
    """Only then does anybody ask Kubernetes or the broker."""
    assert early_verdict(parse_review(recorded("c01")[0]), pool=pool()) is None


@pytest.mark.parametrize(
    "live", [None, workload(uid="another"), workload(replicas=7)], ids=["gone", "recreated", "scaled since"]
)
def test_a_claim_that_does_not_fit_the_live_workload_is_refused(live: Workload | None) -> None:
    """A forged or outdated review must not cancel anybody's consumers."""
    verdict = check_claim(scale_down(8, 5), live)
    assert verdict is not None
    assert (verdict.allowed, verdict.reason, verdict.code) == (False, "ClaimMismatch", 403)
    assert "Nothing was touched" in verdict.message


def test_the_break_glass_lets_a_scale_down_through() -> None:
    """The annotation on the workload, in case the hook itself is the trouble; kubectl shows a warning."""
    verdict = check_claim(scale_down(8, 5), workload(is_bypassed=True))
    assert verdict is not None
    assert said_by_the_hook(verdict.warnings) == verdict.message
    assert (verdict.allowed, verdict.reason) == (True, "Bypassed")
    assert verdict.warnings == (verdict.message,)


def test_a_claim_that_fits_is_planned() -> None:
    """Same uid, same replicas: go on."""
    assert check_claim(scale_down(8, 5), workload()) is None
