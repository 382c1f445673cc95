"""Who answers for external.metrics.k8s.io, and what is said and left alone when it is somebody else."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest

from metrics_adapter.ownership import Ownership
from shared.errors import Forbidden, KubernetesError, KubernetesUnavailable, NotFound
from shared.kube_documents import CaBundles, ServiceName
from shared.pools import Delegate

NAME = "v1beta1.external.metrics.k8s.io"
OURS = ServiceName(namespace="celery-hpa", name="metrics-adapter")
KEDA = ServiceName(namespace="keda", name="keda-operator-metrics-apiserver")
CA = CaBundles(bundles=(b"whose CA ever",), resource_version="7", owner=OURS)


@dataclass
class Registered:
    """An APIService that leads to `owner`, or cannot be read."""

    owner: ServiceName | None = OURS
    broken: KubernetesError | None = None
    asked: list[str] = field(default_factory=list)

    async def api_service_owner(self, name: str) -> ServiceName | None:
        self.asked.append(name)
        if self.broken:
            raise self.broken
        return self.owner

    async def api_service_ca(self, name: str) -> CaBundles:
        return replace(CA, owner=self.owner)


def ownership(
    registered: Registered, *, namespace: str | None = "celery-hpa", delegate: Delegate | None = None
) -> Ownership:
    return Ownership(
        registered,
        api_service=NAME,
        service="metrics-adapter",
        namespace=namespace,
        delegate=lambda: delegate,
    )


async def problem(registered: Registered, **fields: object) -> str:
    owner = ownership(registered, **fields)  # type: ignore[arg-type]
    await owner.look()
    return owner.problem or ""


async def test_nothing_is_said_while_it_is_ours() -> None:
    registered = Registered()
    assert await problem(registered) == ""
    assert registered.asked == [NAME]


async def test_outside_of_a_cluster_the_name_must_do() -> None:
    elsewhere = Registered(ServiceName(namespace="default", name="metrics-adapter"))
    assert await problem(elsewhere, namespace=None) == ""
    assert "leads to the Service default/metrics-adapter and not to celery-hpa" in await problem(elsewhere)


async def test_another_owner_is_named_with_what_to_do() -> None:
    assert await problem(Registered(KEDA)) == (
        f"APIService {NAME} leads to the Service keda/keda-operator-metrics-apiserver and not to "
        "celery-hpa/metrics-adapter: HPAs get none of our metrics. Have it lead to us with "
        "deploy/base/api-service.yaml; to have both served, first name keda/keda-operator-metrics-apiserver "
        "as delegate in the configuration (docs/delegate.md)."
    )


async def test_one_that_is_our_delegate_is_half_done() -> None:
    delegate = Delegate.model_validate(
        {"namespace": KEDA.namespace, "name": KEDA.name, "insecureSkipTLSVerify": True}
    )
    assert "is our delegate already" in await problem(Registered(KEDA), delegate=delegate)


async def test_a_local_one_is_not_ours() -> None:
    assert "leads to the API server itself" in await problem(Registered(None))


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (NotFound("not found", status=404), "There is no APIService"),
        (Forbidden("no", status=403), "allow us to get this APIService"),
        (KubernetesUnavailable("down", status=503), "cannot be seen: down"),
    ],
)
async def test_what_cannot_be_seen_is_said(error: KubernetesError, sentence: str) -> None:
    assert sentence in await problem(Registered(broken=error))


async def test_it_is_logged_once_and_until_it_is_over(caplog: pytest.LogCaptureFixture) -> None:
    registered = Registered(KEDA)
    owner = ownership(registered)
    for _ in range(3):
        await owner.look()
    registered.owner = OURS
    await owner.look()
    assert (len(caplog.records), owner.problem) == (1, None)


async def test_the_ca_of_another_provider_is_left_alone() -> None:
    """Ours in its place would cut off every HPA that relies on it."""
    assert await ownership(Registered()).registered_ca() == CA
    assert (await ownership(Registered(KEDA)).registered_ca()).bundles == ()
