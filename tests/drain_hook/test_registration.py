"""Which webhooks of our registration get our CA: those that lead to us."""

from typing import Any

import pytest

from drain_hook.registration import OwnWebhooks
from shared.kube_documents import webhook_cas_from
from tests.fakes.kubernetes import FakeCluster

NAME = "celery-hpa-drain"
OURS = {"service": {"namespace": "celery-hpa", "name": "drain-hook"}}
OLD = {"service": {"namespace": "celery-hpa-old", "name": "drain-hook"}}
OTHER = {"service": {"namespace": "celery-hpa", "name": "gatekeeper"}}
PROXY = {"url": "https://proxy.example.com/validate"}
LOCAL = {"url": "https://localhost:8443/validate"}


def registered(*clients: dict[str, Any]) -> FakeCluster:
    """With a webhook for each of these, called 0.example.com, 1.example.com, …"""
    webhooks = [
        {"name": f"{index}.example.com", "clientConfig": client} for index, client in enumerate(clients)
    ]
    cluster = FakeCluster()
    document = {"metadata": {"resourceVersion": "1"}, "webhooks": webhooks}
    cluster.ca_bundles[NAME] = webhook_cas_from(document)
    return cluster


async def written(cluster: FakeCluster, *, namespace: str | None = "celery-hpa") -> tuple[bytes, ...]:
    """Every caBundle, after ours was registered."""
    found = await OwnWebhooks(cluster, name=NAME, service="drain-hook", namespace=namespace).registered_ca()
    await cluster.replace_webhook_ca(NAME, b"ours", found)
    return cluster.ca_bundles[NAME].bundles


async def test_a_webhook_that_leads_to_somebody_else_keeps_its_ca() -> None:
    """Of an installation in another namespace, of another service, of a proxy: ours would cut each off."""
    cluster = registered(OLD, OURS, OTHER, PROXY, LOCAL, OURS)
    assert await written(cluster) == (b"", b"ours", b"", b"", b"", b"ours")


async def test_two_installations_do_not_write_over_each_other() -> None:
    """Each has its own; otherwise they would take turns for ever, with scale-downs refused by half."""
    cluster = registered(OURS, OLD)
    old = OwnWebhooks(cluster, name=NAME, service="drain-hook", namespace="celery-hpa-old")
    await cluster.replace_webhook_ca(NAME, b"old", await old.registered_ca())
    assert await written(cluster) == (b"ours", b"old")


async def test_outside_of_a_cluster_the_name_must_do_and_localhost_is_us() -> None:
    """Our certificate is good for that name, too; nobody knows of a namespace there."""
    assert await written(registered(OURS, OTHER, PROXY, LOCAL), namespace=None) == (
        b"ours",
        b"",
        b"",
        b"ours",
    )


async def test_those_of_others_are_said_once(caplog: pytest.LogCaptureFixture) -> None:
    """And again when they change."""
    cluster = registered(OURS, OLD, PROXY)
    webhooks = OwnWebhooks(cluster, name=NAME, service="drain-hook", namespace="celery-hpa")
    for _ in range(3):
        await webhooks.registered_ca()
    assert [record.getMessage() for record in caplog.records] == [
        "Webhook 1.example.com of celery-hpa-drain leads to celery-hpa-old/drain-hook and not to "
        "celery-hpa/drain-hook: its caBundle stays as it is.",
        "Webhook 2.example.com of celery-hpa-drain leads to https://proxy.example.com/validate and not to "
        "celery-hpa/drain-hook: its caBundle stays as it is.",
    ]
    cluster.ca_bundles |= registered(OURS, OTHER).ca_bundles
    await webhooks.registered_ca()
    assert "leads to celery-hpa/gatekeeper" in caplog.messages[-1]
    assert len(caplog.messages) == 3
