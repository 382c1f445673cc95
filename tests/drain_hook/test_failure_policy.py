"""What our registration says becomes of reviews that are not answered."""

import logging

import pytest
from prometheus_client import CollectorRegistry

from drain_hook.failure_policy import FailurePolicy
from drain_hook.telemetry import Telemetry
from shared.errors import KubernetesUnavailable
from shared.kube_documents import WebhookTerms, webhook_terms_from
from tests.fakes.kubernetes import FakeCluster

NAME = "celery-hpa-drain"
FAIL = WebhookTerms(name="scale.drain.celery-hpa.io", failure_policy="Fail", timeout_s=10.0)
IGNORE = WebhookTerms(name="updates.drain.celery-hpa.io", failure_policy="Ignore", timeout_s=5.0)


def followed(*terms: WebhookTerms) -> tuple[FailurePolicy, FakeCluster, CollectorRegistry]:
    cluster, registry = FakeCluster(webhooks={NAME: terms} if terms else {}), CollectorRegistry()
    return FailurePolicy(cluster, name=NAME, telemetry=Telemetry(registry)), cluster, registry


def gauge(registry: CollectorRegistry) -> float | None:
    return registry.get_sample_value("drain_hook_failure_policy_ignore")


async def test_fail_is_what_we_ship() -> None:
    policy, _, registry = followed(FAIL)
    await policy.refresh()
    assert (policy.ignores_failures(), gauge(registry)) == (False, 0)


async def test_one_webhook_that_is_ignored_is_enough(caplog: pytest.LogCaptureFixture) -> None:
    """And said, with what it means: it is rarely meant."""
    policy, _, registry = followed(FAIL, IGNORE)
    await policy.refresh()
    assert (policy.ignores_failures(), gauge(registry)) == (True, 1)
    (warning,) = (record for record in caplog.records if record.levelno == logging.WARNING)
    assert "updates.drain.celery-hpa.io has failurePolicy: Ignore" in warning.getMessage()
    assert "within 5 s" in warning.getMessage()


async def test_each_webhook_has_the_policy_that_it_names() -> None:
    """Scales may be held up while the hook is down, and updates not: then a late answer differs, too."""
    policy, _, _ = followed(FAIL, IGNORE)
    await policy.refresh()
    assert not policy.ignores_failures(FAIL.name)
    assert policy.ignores_failures(IGNORE.name)


async def test_a_caller_that_is_none_of_them_is_taken_for_the_one_that_ignores() -> None:
    """To keep marks for nothing costs `roundTtl`; to give them back too early costs a task."""
    policy, _, _ = followed(FAIL, IGNORE)
    await policy.refresh()
    assert policy.ignores_failures("somebody.else.io")


async def test_a_change_is_followed_and_said_once(caplog: pytest.LogCaptureFixture) -> None:
    policy, cluster, registry = followed(IGNORE)
    for _ in range(3):
        await policy.refresh()
    assert len(caplog.records) == 1
    cluster.webhooks[NAME] = (FAIL,)
    await policy.refresh()
    assert (policy.ignores_failures(), gauge(registry)) == (False, 0)


async def test_what_was_read_stays_while_it_cannot_be_read(caplog: pytest.LogCaptureFixture) -> None:
    """An API server that is slow is just when it matters; each problem is said once."""
    policy, cluster, _ = followed(IGNORE)
    await policy.refresh()
    caplog.clear()
    cluster.broken["webhook_terms"] = KubernetesUnavailable("no answer")
    for _ in range(3):
        await policy.refresh()
    assert policy.ignores_failures()
    assert [record.getMessage() for record in caplog.records] == [
        "The failurePolicy in force could not be read, the last one is kept to: no answer"
    ]


async def test_without_a_registration_it_is_taken_for_fail() -> None:
    policy, _, _ = followed()
    await policy.refresh()
    assert not policy.ignores_failures()


def test_what_is_left_out_has_the_defaults_of_the_api() -> None:
    """Of admissionregistration.k8s.io/v1: Fail, and ten seconds."""
    assert webhook_terms_from({"name": "w"}) == WebhookTerms(name="w", failure_policy="Fail", timeout_s=10.0)
