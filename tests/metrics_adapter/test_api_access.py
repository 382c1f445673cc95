"""Who may ask, over real TLS."""

from __future__ import annotations

import aiohttp
import pytest

from shared.certificates import make_leaf
from shared.errors import KubernetesUnavailable
from tests.metrics_adapter.api_server import ADMIN, DEMAND, GROUP, HPA, Adapter, is_status
from tests.metrics_adapter.certificates import expired, namesake


@pytest.mark.parametrize("path", ["/healthz", "/livez", "/readyz"])
async def test_health_is_for_everybody(adapter: Adapter, path: str) -> None:
    """The kubelet has no certificate to show."""
    assert (await adapter.ask_bare(path)).code == 200


@pytest.mark.parametrize("path", [GROUP, DEMAND, "/apis", "/openapi/v2", "/nothing"])
async def test_who_is_nobody_may_nothing(adapter: Adapter, path: str) -> None:
    """Remote headers without the front proxy's certificate are not even looked at."""
    answer = await adapter.ask_bare(path, headers=ADMIN)
    assert is_status(answer, 403, "Forbidden")
    assert 'User "system:anonymous"' in answer.body["message"]


async def test_a_refused_user_is_told_what_is_missing(adapter: Adapter) -> None:
    adapter.cluster.is_allowed = lambda spec: False
    answer = await adapter.ask(DEMAND, headers=[("X-Remote-User", "alice")])
    assert is_status(answer, 403, "Forbidden")
    assert answer.body["message"] == (
        'celery_demand.external.metrics.k8s.io is forbidden: User "alice" cannot list resource '
        '"celery_demand" in API group "external.metrics.k8s.io" in the namespace "airflow"'
    )


async def test_a_user_who_may_no_metric_may_still_discover(adapter: Adapter) -> None:
    """kube-apiserver's own discovery comes from users without rights; refusing it floods its log."""
    adapter.cluster.is_allowed = lambda spec: False
    nobody = [("X-Remote-User", "system:aggregator")]
    codes = [(await adapter.ask(path, headers=nobody)).code for path in (GROUP, "/apis", "/openapi/v2")]
    assert codes == [200, 200, 200]


async def test_without_a_verdict_nothing_is_served(adapter: Adapter) -> None:
    adapter.cluster.broken["subject_access_review"] = KubernetesUnavailable("gone", status=503)
    answer = await adapter.ask(DEMAND, headers=HPA)
    assert is_status(answer, 500, "InternalError")
    assert "gone" not in answer.body["message"]


async def test_a_client_certificate_is_a_user(adapter: Adapter) -> None:
    """One that does not come through the API server, as a person debugging with curl."""
    adapter.cluster.is_allowed = lambda spec: (spec["user"], spec["groups"][0]) == ("alice", "dev")
    answer = await adapter.ask_bare(DEMAND, certificate=adapter.authority.client("alice", "dev"))
    assert answer.code == 200


async def test_a_client_of_the_cluster_cannot_pretend_to_be_the_front_proxy(adapter: Adapter) -> None:
    """Its certificate passes the handshake; what its headers say is ignored."""
    impostor = adapter.authority.client("front-proxy-client")
    adapter.cluster.is_allowed = lambda spec: spec["user"] == "admin"
    answer = await adapter.ask(DEMAND, certificate=impostor)
    assert is_status(answer, 403, "Forbidden")
    assert 'User "front-proxy-client"' in answer.body["message"]


async def test_a_certificate_that_is_not_allowed_is_unauthorized(adapter: Adapter) -> None:
    answer = await adapter.ask(DEMAND, certificate=adapter.authority.front_proxy("other"))
    assert is_status(answer, 401, "Unauthorized")


async def test_a_certificate_of_nobody_we_know_ends_at_the_handshake(adapter: Adapter) -> None:
    """Python cannot ask for a certificate without checking it: a stranger's is no 401 but no connection."""
    ca = namesake(adapter.authority.proxy_ca)
    stranger = make_leaf(ca, common_name="front-proxy-client", is_client=True)
    with pytest.raises(aiohttp.ClientError):
        await adapter.ask(DEMAND, certificate=stranger)


async def test_an_expired_certificate_gets_nothing(adapter: Adapter) -> None:
    with pytest.raises(aiohttp.ClientError):
        await adapter.ask(DEMAND, certificate=expired(adapter.authority.proxy_ca, "front-proxy-client"))


async def test_a_user_in_many_groups_is_heard(adapter: Adapter) -> None:
    """The front proxy sends one header for each."""
    adapter.cluster.is_allowed = lambda spec: len(spec["groups"]) == 501
    groups = [("X-Remote-Group", f"group-{number}") for number in range(500)]
    assert (await adapter.ask(DEMAND, headers=[HPA[0], *groups])).code == 200
