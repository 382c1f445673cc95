"""Who asks, in the order of Kubernetes' own extension API servers."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from multidict import CIMultiDict

from metrics_adapter.authentication import Authenticator, TrustSource
from metrics_adapter.statuses import ApiError
from metrics_adapter.users import ANONYMOUS, User
from shared.certificates import KeyPair
from shared.errors import Forbidden, KubernetesUnavailable
from shared.kube_documents import TokenUser
from tests.fakes.kubernetes import FakeCluster
from tests.metrics_adapter.certificates import Authority, expired, for_servers, presented

REMOTE = CIMultiDict([("X-Remote-User", "bob"), ("X-Remote-Group", "dev")])
NO_HEADERS: CIMultiDict[str] = CIMultiDict()
WHERE = ("kube-system", "extension-apiserver-authentication")


def authenticator(authority: Authority, cluster: FakeCluster | None = None, **changes: str) -> Authenticator:
    trust = authority.trust(**changes)
    return Authenticator(trust=lambda: trust, token_reviews=cluster or FakeCluster())


async def who(
    authority: Authority,
    certificate: KeyPair | None,
    headers: CIMultiDict[str] = NO_HEADERS,
    cluster: FakeCluster | None = None,
    **changes: str,
) -> User:
    door = authenticator(authority, cluster, **changes)
    return await door.authenticate(headers, presented(certificate) if certificate else None)


async def test_the_front_proxy_says_who_asks(authority: Authority) -> None:
    assert await who(authority, authority.front_proxy(), REMOTE) == User(
        name="bob", groups=("dev", "system:authenticated")
    )


async def test_callers_without_groups_are_authenticated_all_the_same(authority: Authority) -> None:
    """kube-apiserver fetches discovery and OpenAPI as users without any group."""
    headers = CIMultiDict([("X-Remote-User", "system:kube-aggregator")])
    user = await who(authority, authority.front_proxy(), headers)
    assert user.groups == ("system:authenticated",)


async def test_a_client_of_the_cluster_cannot_act_as_the_front_proxy(authority: Authority) -> None:
    """It is taken for itself, whatever headers it sends and whatever it calls itself."""
    impostor = authority.client("front-proxy-client", "dev")
    assert (await who(authority, impostor, REMOTE)).name == "front-proxy-client"


async def test_a_name_that_is_not_allowed_is_no_front_proxy(authority: Authority) -> None:
    with pytest.raises(ApiError) as refusal:
        await who(authority, authority.front_proxy("other"), REMOTE)
    assert refusal.value.code == 401


async def test_an_empty_list_of_names_allows_all_of_the_ca(authority: Authority) -> None:
    user = await who(authority, authority.front_proxy("other"), REMOTE, requestheader_allowed_names="[]")
    assert user.name == "bob"


async def test_without_a_certificate_the_headers_are_ignored(authority: Authority) -> None:
    assert await who(authority, None, REMOTE) == ANONYMOUS


async def test_a_certificate_without_headers_is_a_user_of_its_own(authority: Authority) -> None:
    user = await who(authority, authority.client("alice", "dev"))
    assert user == User(name="alice", groups=("dev", "system:authenticated"))


@pytest.mark.parametrize("make", [expired, for_servers])
async def test_a_bad_certificate_is_refused(authority: Authority, make: type) -> None:
    """401, although nobody at all would be anonymous."""
    with pytest.raises(ApiError) as refusal:
        await who(authority, make(authority.client_ca, "alice"))
    assert refusal.value.document["reason"] == "Unauthorized"


async def test_a_front_proxy_that_names_nobody_is_refused(authority: Authority) -> None:
    with pytest.raises(ApiError, match="Unauthorized"):
        await who(authority, authority.front_proxy())


def bearer(token: str) -> CIMultiDict[str]:
    return CIMultiDict([("authorization", f"bearer {token}")])


async def test_a_token_is_reviewed(authority: Authority) -> None:
    known = TokenUser(username="sa", uid="u1", groups=("g",), extra={"k": ("v",)})
    user = await who(authority, None, bearer("t0"), FakeCluster(tokens={"t0": known}))
    assert user == User(name="sa", uid="u1", groups=("g", "system:authenticated"), extra=(("k", ("v",)),))


async def test_an_unknown_token_is_refused(authority: Authority) -> None:
    with pytest.raises(ApiError, match="Unauthorized"):
        await who(authority, None, bearer("t1"))


async def test_a_token_makes_up_for_a_bad_certificate(authority: Authority) -> None:
    cluster = FakeCluster(tokens={"t0": TokenUser(username="sa")})
    user = await who(authority, expired(authority.client_ca, "alice"), bearer("t0"), cluster)
    assert user.name == "sa"


async def test_a_token_is_reviewed_once_in_ten_seconds(authority: Authority) -> None:
    """Both ways: an unknown token costs no more than a known one."""
    cluster = FakeCluster(tokens={"t0": TokenUser(username="sa")})
    door = authenticator(authority, cluster)
    for _ in range(3):
        await door.authenticate(bearer("t0"), None)
        with pytest.raises(ApiError):
            await door.authenticate(bearer("t1"), None)
    assert len(cluster.calls_of("token_review")) == 2


async def test_a_token_that_cannot_be_reviewed_is_no_verdict(authority: Authority) -> None:
    cluster = FakeCluster(broken={"token_review": KubernetesUnavailable("gone", status=503)})
    with pytest.raises(KubernetesUnavailable):
        await who(authority, None, bearer("t0"), cluster)


async def test_other_schemes_are_no_bearer_tokens(authority: Authority) -> None:
    assert await who(authority, None, CIMultiDict([("Authorization", "Basic YWxhZGRpbg==")])) == ANONYMOUS


async def test_a_certificate_is_checked_at_each_request(authority: Authority) -> None:
    """A connection may outlive its certificate."""
    later = datetime.now(UTC) + timedelta(days=400)
    trust = authority.trust()
    door = Authenticator(trust=lambda: trust, token_reviews=FakeCluster(), wall_clock=lambda: later)
    with pytest.raises(ApiError):
        await door.authenticate(NO_HEADERS, presented(authority.client()))


async def test_the_config_map_is_read_again(authority: Authority) -> None:
    """A new front-proxy CA is believed without a restart, and the old one no longer."""
    cluster = FakeCluster(config_maps={WHERE: authority.config_map()})
    source = TrustSource(cluster)
    await source.load()
    renewed = Authority.make()
    cluster.config_maps[WHERE] = renewed.config_map()
    await source.load()
    door = Authenticator(trust=lambda: source.current, token_reviews=cluster)
    assert (await door.authenticate(REMOTE, presented(renewed.front_proxy()))).name == "bob"
    with pytest.raises(ApiError):
        await door.authenticate(REMOTE, presented(authority.front_proxy()))


async def test_what_cannot_be_read_leaves_the_last_one_in_force(authority: Authority) -> None:
    cluster = FakeCluster(config_maps={WHERE: authority.config_map()})
    source = TrustSource(cluster)
    await source.load()
    cluster.broken["config_map"] = KubernetesUnavailable("gone")
    await source.load()
    assert source.is_loaded
    assert source.current == authority.trust()
    assert source.problem is not None
    assert "gone" in source.problem
    del cluster.broken["config_map"]
    await source.load()
    assert source.problem is None


async def test_a_missing_permission_is_named_with_its_cure(caplog: pytest.LogCaptureFixture) -> None:
    cluster = FakeCluster(broken={"config_map": Forbidden("configmaps is forbidden", status=403)})
    source = TrustSource(cluster)
    await source.load()
    await source.load()
    assert not source.is_loaded
    assert "extension-apiserver-authentication-reader" in (source.problem or "")
    assert len(caplog.records) == 1


async def test_watching_ends_when_it_is_cancelled(authority: Authority) -> None:
    watching = asyncio.create_task(TrustSource(FakeCluster()).watch())
    await asyncio.sleep(0)
    watching.cancel()
    with pytest.raises(asyncio.CancelledError):
        await watching
