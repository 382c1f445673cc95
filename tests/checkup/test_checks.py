"""What the checks see in a picture of which one thing is wrong."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from deploy.sandbox import manifests
from shared.checkup.checks import check
from shared.checkup.cluster_look import failed_rehearsal
from shared.checkup.findings import Finding, Level
from shared.checkup.permissions import ADAPTER, HOOK, needed
from shared.checkup.picture import (
    Backend,
    ExternalMetric,
    MetricAnswer,
    Picture,
    PoolPicture,
    Registration,
    Rehearsal,
    ScaledObject,
    Unread,
    Workers,
)
from shared.checkup.report import as_json, as_text, exit_code
from shared.hook_warnings import DRY_RUN
from shared.workers import Software
from tests.checkup.builders import (
    METRIC,
    NOW,
    api_service,
    autoscaler,
    picture,
    pod,
    pool,
    pool_picture,
    running,
    state,
    workers,
)
from tests.fakes.celery import fake_worker

NOT_ALLOWED = Unread(reason="forbidden (403)")
MISSING = Unread(reason="not found (404)", is_missing=True)


def only(found: tuple[Finding, ...]) -> Finding:
    """The one finding that is not good."""
    (finding,) = [finding for finding in found if finding.level is not Level.OK]
    return finding


def wrong_with(**changes: Any) -> Finding:
    """The one finding about a cluster that differs so."""
    return only(check(picture(**changes)))


def wrong_with_pool(**changes: Any) -> Finding:
    """The one finding about a pool that differs so."""
    return wrong_with(pools=(pool_picture(**changes),))


def test_a_healthy_cluster_is_all_good() -> None:
    found = check(picture())
    assert {finding.level for finding in found} == {Level.OK}
    assert all(finding.message and not finding.advice for finding in found)
    assert exit_code(found) == 0
    assert as_text(found).endswith("\nAll good.")


def test_every_finding_says_what_to_do_in_one_line() -> None:
    found = check(picture(denied=NOT_ALLOWED, pools=(pool_picture(workers=Unread(reason="no\nway.")),)))
    lines = as_text(found).splitlines()
    assert [line for line in lines if "no way. If only" in line]
    assert all(finding.advice.endswith(".") for finding in found if finding.level is not Level.OK)
    assert lines[-1] == "1 problem, 1 warning."
    assert exit_code(found) == 1
    document = json.loads(as_json(found))
    assert document["allGood"] is False
    assert document["findings"][0]["check"] == "kubernetes"


def test_an_old_kubernetes() -> None:
    assert "1.27" in wrong_with(version=(1, 27)).message


def test_without_kubernetes_the_brokers_are_still_looked_at() -> None:
    """And nothing is said of what hangs on it."""
    found = check(picture(version=NOT_ALLOWED, pools=(pool_picture(state=NOT_ALLOWED),)))
    assert [(finding.check, finding.level) for finding in found] == [
        ("kubernetes", Level.PROBLEM),
        ("broker", Level.OK),
    ]


def service_of(**changes: Any) -> Registration:
    backend = Backend(**({"namespace": "celery-hpa", "name": ADAPTER} | changes))
    return Registration(document=api_service(), backends=(backend,))


@pytest.mark.parametrize(
    ("registration", "words"),
    [
        (Registration(document=MISSING), "There is no APIService"),
        (Registration(document=NOT_ALLOWED), "could not be read: forbidden"),
        (Registration(document=api_service()), "leads to the API server itself"),
        (service_of(namespace="keda", name="keda"), "leads to keda/keda, not to celery-hpa/metrics-adapter"),
        (service_of(problem="Service x has no endpoint that is ready."), "no endpoint that is ready"),
        (service_of(has_ca=False), "has no caBundle"),
        (service_of(tls_problem="self-signed certificate"), "does not fit the certificate"),
    ],
)
def test_the_api_service_is_wrong(registration: Registration, words: str) -> None:
    finding = wrong_with(api_service=registration)
    assert finding.check == "api-service"
    assert words in finding.message


def test_the_api_server_says_why_it_is_not_available() -> None:
    condition = {"status": "False", "reason": "MissingEndpoints", "message": "no endpoints"}
    registration = replace(service_of(), document=api_service(condition=condition))
    assert "MissingEndpoints: no endpoints" in wrong_with(api_service=registration).message


def test_a_certificate_that_cannot_be_seen_from_here_is_no_finding() -> None:
    found = check(picture(api_service=service_of(tls_problem=None)))
    assert "cannot be reached from here" in as_text(found)
    assert exit_code(found) == 0


def test_the_webhook_is_not_there() -> None:
    finding = wrong_with(webhooks=Registration(document=MISSING))
    assert (finding.check, finding.level) == ("webhook", Level.PROBLEM)
    assert "scale-downs hit busy workers" in finding.message


def test_failures_are_ignored() -> None:
    document = manifests.webhook_configuration(port=443, ca_pem=b"CA", failure_policy="Ignore")
    finding = wrong_with(webhooks=replace(picture().webhooks, document=document))
    assert (finding.check, finding.level) == ("failure-policy", Level.WARNING)


def test_what_is_not_allowed_is_named_by_account_and_manifest() -> None:
    """One line for each account and place, not for each verb."""
    pods = [
        p for p in needed([pool()], services_in="celery-hpa") if p.account == HOOK and p.resource == "pods"
    ]
    finding = wrong_with(denied=tuple(pods))
    assert f"{HOOK} may not list pods, watch pods, patch pods in namespace default" in finding.message
    assert "deploy/base/pool-namespace.yaml" in finding.advice


def test_who_may_not_ask_is_told_so() -> None:
    assert wrong_with(denied=NOT_ALLOWED).level is Level.WARNING


# Who scales


def test_no_autoscaler() -> None:
    assert "No HPA scales Deployment default/worker" in wrong_with(autoscalers=()).message


def test_an_autoscaler_in_another_namespace() -> None:
    assert "another namespace" in wrong_with(autoscalers=(autoscaler(namespace="other"),)).message


def test_somebody_elses_autoscaler_of_the_same_name_is_not_meant() -> None:
    """Another namespace may have a Deployment of the same name that scales by CPU."""
    finding = wrong_with(autoscalers=(autoscaler(namespace="other", metrics=()),))
    assert "No HPA scales" in finding.message


def test_an_autoscaler_of_another_workload() -> None:
    finding = wrong_with(autoscalers=(autoscaler(target="web"),))
    assert "scales Deployment web" in finding.message


KEDA = ScaledObject(namespace="default", name="keda", kind="Deployment", target="worker")


def test_keda_beside_an_autoscaler() -> None:
    """The HPA that KEDA makes is no third."""
    both = (autoscaler(), autoscaler(name="keda-hpa-keda", metrics=(), is_kedas=True))
    finding = wrong_with(autoscalers=both, scaled_objects=(KEDA,))
    assert "HPA default/worker, ScaledObject default/keda all scale" in finding.message


def test_keda_alone() -> None:
    assert wrong_with(autoscalers=(), scaled_objects=(KEDA,)).level is Level.WARNING


@pytest.mark.parametrize(
    ("metric", "answer", "words"),
    [
        (METRIC, MetricAnswer(), "selects nothing"),
        (METRIC, MetricAnswer(pools=("other",)), "which is pool other, not this one"),
        (METRIC, MetricAnswer(pools=("",)), "which is several pools together"),
        (METRIC, MetricAnswer(problem="too old (503)"), "gets no value: too old (503)"),
        (ExternalMetric(name="celery_demnd"), None, "which nobody serves"),
        (ExternalMetric(name="queue"), None, "none of our metrics. It reads queue."),
        (replace(METRIC, target="AverageValue"), MetricAnswer(pools=("worker",)), "type AverageValue"),
    ],
)
def test_an_autoscaler_reads_the_wrong_thing(
    metric: ExternalMetric, answer: MetricAnswer | None, words: str
) -> None:
    answers = {} if answer is None else {metric: answer}
    finding = wrong_with(autoscalers=(autoscaler(metrics=(metric,), answers=answers),))
    assert finding.check == "autoscaler"
    assert words in finding.message


def test_what_an_autoscaler_complains_of_is_told() -> None:
    assert "quota" in wrong_with(autoscalers=(autoscaler(trouble="exceeded quota"),)).message


# The hook

OURS = "scale.drain.celery-hpa.io"


def with_webhooks(*changes: dict[str, Any]) -> Registration:
    """Our configuration, with webhook after webhook changed so."""
    document = manifests.webhook_configuration(port=443, ca_pem=b"CA")
    webhook = document["webhooks"][0]
    document["webhooks"] = [webhook | change for change in changes]
    return replace(picture().webhooks, document=document)


def test_a_hook_that_was_heard() -> None:
    """Its own warning shows that, and that alone."""
    said = f"{DRY_RUN} allowed now."
    found = check(picture(pools=(pool_picture(rehearsal=Rehearsal(replicas=1, said=said)),)))
    assert f"reached the hook. {said}" in as_text(found)
    assert exit_code(found) == 0


def test_a_dry_run_that_is_allowed_without_a_word_of_the_hook() -> None:
    """As by a match condition that never holds, or a hook that fails and is ignored."""
    finding = wrong_with_pool(rehearsal=Rehearsal(replicas=1))
    assert finding.level is Level.PROBLEM
    assert "without a word of the hook" in finding.message
    assert "matchConditions" in finding.advice


def test_a_refusal_by_somebody_elses_webhook_shows_nothing_of_the_hook() -> None:
    """And is told as theirs."""
    sentence = (
        'PATCH /x: admission webhook "validation.gatekeeper.sh" denied the request: '
        'failed calling webhook "scale.drain.celery-hpa.io" is not allowed (403)'
    )
    finding = wrong_with_pool(rehearsal=failed_rehearsal(1, sentence))
    assert finding.level is Level.WARNING
    assert "refused by webhook validation.gatekeeper.sh, which is none of ours" in finding.message
    assert finding.message.endswith("is not allowed")


def test_a_failure_of_somebody_elses_webhook_is_not_put_down_to_the_hook() -> None:
    sentence = (
        'PATCH /x: Internal error occurred: failed calling webhook "validate.kyverno.svc-fail": failed to '
        "call webhook: connection refused (500)"
    )
    finding = wrong_with_pool(rehearsal=failed_rehearsal(1, sentence))
    assert finding.level is Level.PROBLEM
    assert "failed at webhook validate.kyverno.svc-fail, which is none of ours" in finding.message
    assert "drain-hook" not in finding.advice


@pytest.mark.parametrize(
    ("sentence", "expected"),
    [
        (f'admission webhook "{OURS}" denied the request: Busy (2). (403)', {"refusal": "Busy (2)."}),
        (
            f'admission webhook "{OURS}" denied the request without explanation (400)',
            {"refusal": "denied the request without explanation"},
        ),
        (f'failed calling webhook "{OURS}": EOF (500)', {"failure": f'failed calling webhook "{OURS}": EOF'}),
    ],
)
def test_what_an_error_says_of_a_webhook(sentence: str, expected: dict[str, str]) -> None:
    """In the API server's words."""
    rehearsal = failed_rehearsal(1, f"PATCH /x: {sentence}")
    assert rehearsal == Rehearsal(replicas=1, webhook=OURS, **expected)


def by_name(*names: str) -> dict[str, Any]:
    expression = {"key": "kubernetes.io/metadata.name", "operator": "In", "values": list(names)}
    return {"matchExpressions": [expression]}


def by_expression(operator: str, *values: str) -> dict[str, Any]:
    return {"matchExpressions": [{"key": "team", "operator": operator, "values": list(values)}]}


@pytest.mark.parametrize(
    ("selector", "is_asked"),
    [
        ({"matchLabels": {"kubernetes.io/metadata.name": "airflow"}}, False),
        ({"matchLabels": {"kubernetes.io/metadata.name": "default", "team": "a"}}, True),
        ({"matchLabels": {"celery-hpa.io/pools": "true"}}, False),
        (by_expression("In", "a", "b"), True),
        (by_expression("In", "b"), False),
        (by_expression("NotIn", "a"), False),
        (by_expression("NotIn", "b"), True),
        (by_expression("Exists"), True),
        (by_expression("DoesNotExist"), False),
        ({"matchLabels": {"team": "a"}, **by_name("airflow")}, False),
    ],
)
def test_a_namespace_is_selected_by_all_of_its_labels(selector: dict[str, Any], is_asked: bool) -> None:
    """The namespace has the label team=a, and its name, which is always one."""
    pools = (pool_picture(namespace_labels={"team": "a"}),)
    found = check(picture(webhooks=with_webhooks({"namespaceSelector": selector}), pools=pools))
    assert ("namespaceSelector leaves out default" in as_text(found)) is not is_asked
    assert (exit_code(found) == 0) is is_asked


def test_labels_that_may_not_be_read_are_held_against_nobody() -> None:
    """The name is known all the same, and the dry run tells the rest."""
    pools = (pool_picture(namespace_labels=NOT_ALLOWED),)
    selector = {"matchLabels": {"team": "a"}}
    assert (
        exit_code(check(picture(webhooks=with_webhooks({"namespaceSelector": selector}), pools=pools))) == 0
    )
    selector |= by_name("other")
    assert (
        "leaves out default"
        in wrong_with(webhooks=with_webhooks({"namespaceSelector": selector}), pools=pools).message
    )


@pytest.mark.parametrize(
    ("selector", "is_asked"),
    [
        ({}, True),
        ({"matchLabels": {"app": "worker"}}, False),
        ({"matchExpressions": [{"key": "app", "operator": "DoesNotExist"}]}, True),
    ],
)
def test_an_object_selector_selects_no_scale(selector: dict[str, Any], is_asked: bool) -> None:
    """Whatever labels the workload has, its Scale has none."""
    found = check(picture(webhooks=with_webhooks({"objectSelector": selector})))
    assert ("The objectSelector of scale.drain.celery-hpa.io leaves out" in as_text(found)) is not is_asked
    assert (exit_code(found) == 0) is is_asked


def test_one_webhook_must_fit_in_all_respects() -> None:
    """That another is asked here about something else does not help."""
    updates = {"apiGroups": ["apps"], "apiVersions": ["v1"], "operations": ["UPDATE"]}
    elsewhere = {"namespaceSelector": by_name("airflow")}
    everywhere = {"name": "update", "rules": [updates | {"resources": ["deployments"]}]}
    finding = wrong_with(webhooks=with_webhooks(elsewhere, everywhere))
    assert f"leaves out default in {OURS}," in finding.message


def test_a_webhook_for_each_namespace_is_fine() -> None:
    """As with a failurePolicy for each."""
    webhooks = with_webhooks(
        {"namespaceSelector": by_name("airflow")},
        {"name": "second", "namespaceSelector": by_name("default")},
    )
    assert exit_code(check(picture(webhooks=webhooks))) == 0


def test_a_refusal_shows_that_the_hook_is_heard() -> None:
    """It is what the hook is for."""
    refusal = Rehearsal(replicas=1, webhook=OURS, refusal="Busy.")
    found = check(picture(pools=(pool_picture(rehearsal=refusal),)))
    assert "would refuse it now: Busy." in as_text(found)
    assert exit_code(found) == 0


def test_a_hook_that_is_not_reached() -> None:
    failure = "failed calling webhook: connection refused"
    finding = wrong_with_pool(rehearsal=Rehearsal(replicas=1, webhook=OURS, failure=failure))
    assert finding.level is Level.PROBLEM
    assert failure in finding.message


def test_whoever_may_not_scale_learns_nothing_of_the_hook() -> None:
    assert wrong_with_pool(rehearsal=Rehearsal(replicas=1, not_asked="no (403)")).level is Level.WARNING


def test_a_kind_that_the_hook_is_not_asked_about() -> None:
    stateful = pool(workload={"kind": "StatefulSet", "name": "worker"})
    pools = (pool_picture(pool=stateful, state=state(pod("worker-0"), pod("worker-1"))),)
    finding = wrong_with(pools=pools, autoscalers=(autoscaler(kind="StatefulSet"),))
    assert "not asked about scale-downs of a StatefulSet" in finding.message
    assert "deploy/components/statefulset" in finding.advice


@pytest.mark.parametrize(
    ("operator", "values", "is_asked"),
    [
        ("NotIn", ["default"], False),
        ("NotIn", ["other"], True),
        ("In", ["other"], False),
        ("Exists", [], True),
    ],
)
def test_a_namespace_that_the_hook_is_not_asked_about(
    operator: str, values: list[str], is_asked: bool
) -> None:
    document = manifests.webhook_configuration(port=443, ca_pem=b"CA")
    expression = {"key": "kubernetes.io/metadata.name", "operator": operator, "values": values}
    document["webhooks"][0]["namespaceSelector"] = {"matchExpressions": [expression]}
    found = check(picture(webhooks=replace(picture().webhooks, document=document)))
    assert ("namespaceSelector leaves out default" in as_text(found)) is not is_asked
    assert (exit_code(found) == 0) is is_asked


def test_a_namespace_that_only_one_of_its_webhooks_leaves_out() -> None:
    """Each has a selector of its own, and whoever adds a namespace may forget one."""
    document = manifests.webhook_configuration(port=443, ca_pem=b"CA", with_updates=True)
    _, updates = document["webhooks"]
    expression = {"key": "kubernetes.io/metadata.name", "operator": "In", "values": ["other"]}
    updates["namespaceSelector"] = {"matchExpressions": [expression]}
    finding = wrong_with(webhooks=replace(picture().webhooks, document=document))
    assert finding.level is Level.PROBLEM
    assert "namespaceSelector leaves out default in update.drain.celery-hpa.io," in finding.message


def test_a_pool_that_does_not_drain_needs_no_hook() -> None:
    assert exit_code(check(picture(pools=(pool_picture(pool=pool(drain={"enabled": False})),)))) == 0


# Workers


def test_the_workload_is_not_there() -> None:
    """Nothing else is said of it."""
    finding = wrong_with_pool(state=MISSING, workers=Workers())
    assert "There is no Deployment default/worker" in finding.message


def test_remote_control_is_off() -> None:
    """The broker has no mailbox of theirs."""
    finding = wrong_with_pool(workers=workers("worker-0", silent=("worker-1",)))
    assert "1 of 2 workers has no remote control" in finding.message
    assert "worker_enable_remote_control" in finding.advice


def test_a_worker_that_could_answer_and_does_not() -> None:
    listening = frozenset({"celery@worker-1"})
    finding = wrong_with_pool(workers=workers("worker-0", silent=("worker-1",), listening=listening))
    assert finding.level is Level.WARNING
    assert "celery@worker-1" in finding.message


def test_a_worker_that_starts_is_not_missed() -> None:
    young = state(pod("worker-0"), pod("worker-1", ready_since=NOW - 5))
    pools = (pool_picture(state=young, workers=workers("worker-0", silent=("worker-1",))),)
    found = check(picture(pools=pools))
    assert exit_code(found) == 0
    assert "1 may be starting" in as_text(found)


def test_names_that_do_not_match_pods() -> None:
    """Somebody consumes the queue, and it is no pod of any pool by its name."""
    everyone = {"w@worker-0": frozenset({"default"}), "celery@foreign": frozenset({"others"})}
    finding = wrong_with_pool(workers=workers(silent=("worker-0", "worker-1"), everyone=everyone))
    assert "call themselves w@worker-0;" in finding.message
    assert finding.advice == 'Write workerName: "w@{pod}" in this pool.'


def test_a_worker_of_another_pool_is_no_stranger() -> None:
    """Two pools may share a queue."""
    everyone = {"celery@other-0": frozenset({"default"})}
    other = pool_picture(
        pool=pool(name="other", workload={"name": "other"}),
        state=state(pod("other-0"), name="other"),
        workers=workers("other-0", everyone=everyone),
    )
    here = pool_picture(workers=workers(silent=("worker-0", "worker-1"), everyone=everyone))
    ours = autoscaler(target="other", answers={METRIC: MetricAnswer(pools=("other",))})
    finding = wrong_with(pools=(here, other), autoscalers=(autoscaler(), ours))
    assert "no remote control" in finding.message


def only_queues(**changes: Any) -> Finding:
    finding = wrong_with_pool(**changes)
    assert finding.check == "queues"
    return finding


def test_a_queue_that_nobody_consumes() -> None:
    finding = only_queues(
        pool=pool(queues=["default", "late"]),
        workers=workers("worker-0", "worker-1", waiting={"late": 3}),
    )
    assert finding.message == "Nobody consumes late (3 tasks waiting there)."


def test_a_queue_that_another_worker_consumes_is_consumed() -> None:
    everyone = {"celery@elsewhere": frozenset({"late"})}
    pools = (
        pool_picture(
            pool=pool(queues=["default", "late"]), workers=workers("worker-0", "worker-1", everyone=everyone)
        ),
    )
    assert exit_code(check(picture(pools=pools))) == 0


def test_while_workers_drain_a_queue_may_be_without_consumer() -> None:
    draining = replace(pod("worker-0"), has_mark_annotation=True)
    pools = (pool_picture(pool=pool(queues=["default", "late"]), state=state(draining, pod("worker-1"))),)
    assert exit_code(check(picture(pools=pools))) == 0


def test_a_queue_that_the_pool_does_not_name() -> None:
    both = fake_worker("celery@worker-0", queues=frozenset({"default", "mail"}))
    seen = workers("worker-0", "worker-1")
    fleet = replace(seen.fleet, workers={**seen.fleet.workers, both.node: both})
    assert "also consume mail" in only_queues(workers=replace(seen, fleet=fleet)).message


def one_pod(**changes: Any) -> PoolPicture:
    return pool_picture(state=state(pod("worker-0")), **changes)


def test_a_task_that_outlasts_the_grace_period() -> None:
    finding = wrong_with(pools=(one_pod(workers=running("worker-0", seconds=120), grace_s=60),))
    assert "A task reports.render has run for 120 s" in finding.message
    assert (
        exit_code(check(picture(pools=(one_pod(workers=running("worker-0", seconds=50), grace_s=60),)))) == 0
    )


def test_old_workers() -> None:
    old = {"celery@worker-0": Software(celery="5.2.7", kombu="5.2.4")}
    assert (
        "celery@worker-0 (celery 5.2.7"
        in wrong_with_pool(workers=workers("worker-0", "worker-1", software=old)).message
    )


def test_a_pool_without_pods_asks_nobody() -> None:
    empty: Picture = picture(pools=(pool_picture(state=state(), workers=workers()),))
    assert "There are no pods" in as_text(check(empty))
    assert exit_code(check(empty)) == 0
