"""Who asks, in the order of Kubernetes' own extension API servers."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Collection
from datetime import UTC, datetime, timedelta

import pytest
from multidict import CIMultiDict

from metrics_adapter.authentication import LARGEST_TOKEN, Authenticator
from metrics_adapter.statuses import ApiError
from metrics_adapter.users import ANONYMOUS, User
from shared.certificates import KeyPair
from shared.errors import KubernetesUnavailable
from shared.kube_documents import TokenUser
from tests.fakes.kubernetes import FakeCluster
from tests.metrics_adapter.builders import Clock
from tests.metrics_adapter.certificates import Authority, expired, for_servers, presented

REMOTE = CIMultiDict([("X-Remote-User", "bob"), ("X-Remote-Group", "dev")])
NO_HEADERS: CIMultiDict[str] = CIMultiDict()


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


@pytest.mark.parametrize(
    "headers",
    [
        [("X-Remote-User", "system:anonymous"), ("X-Remote-Group", "system:unauthenticated")],
        [("X-Remote-User", "system:anonymous")],
        [("X-Remote-User", "bob"), ("X-Remote-Group", "system:unauthenticated")],
    ],
)
async def test_whom_the_api_server_does_not_know_we_do_not_know_either(
    authority: Authority, headers: list[tuple[str, str]]
) -> None:
    """It passes on whom it lets in without a name; what every user may do is not for them."""
    user = await who(authority, authority.front_proxy(), CIMultiDict(headers))
    assert user.is_anonymous
    assert "system:authenticated" not in user.groups


async def test_two_hundred_groups_uid_and_extras_come_through(authority: Authority) -> None:
    groups = tuple(f"group-{number}" for number in range(200))
    headers = CIMultiDict(
        [
            ("X-Remote-User", "bob"),
            ("X-Remote-Uid", "u-1"),
            ("X-Remote-Extra-Example.com%2fScope", "a"),
            *(("X-Remote-Group", group) for group in groups),
        ]
    )
    user = await who(
        authority, authority.front_proxy(), headers, requestheader_uid_headers='["X-Remote-Uid"]'
    )
    assert user == User(
        name="bob",
        uid="u-1",
        groups=(*groups, "system:authenticated"),
        extra=(("example.com/scope", ("a",)),),
    )


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


async def test_why_a_certificate_is_refused_is_told_once(
    authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    """Its owner only sees 401, and TLS has taken it."""
    door = authenticator(authority)
    for certificate in (for_servers(authority.proxy_ca, "front-proxy-client"), authority.front_proxy()):
        for _ in range(3):
            with pytest.raises(ApiError):
                await door.authenticate(NO_HEADERS, presented(certificate))
    assert caplog.messages == [
        "The client certificate with the common name 'front-proxy-client' is refused: "
        "its extended key usage is not that of clients.",
        "The client certificate with the common name 'front-proxy-client' is refused: "
        "nothing says which user comes with it.",
    ]
    await door.authenticate(REMOTE, presented(authority.front_proxy()))
    assert len(caplog.messages) == 2


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


@pytest.mark.parametrize("token", ["t" * (LARGEST_TOKEN + 1), "t\udcff", "tökén"])
async def test_what_cannot_be_a_token_is_refused_without_a_review(authority: Authority, token: str) -> None:
    """aiohttp reads bytes that are no UTF-8 as surrogates, which cannot be encoded again."""
    cluster = FakeCluster()
    with pytest.raises(ApiError) as refusal:
        await who(authority, None, bearer(token), cluster)
    assert refusal.value.code == 401
    assert cluster.calls == []
    assert (await who(authority, authority.client("alice"), bearer(token))).name == "alice"


class SlowReviews:
    """Knows the token `good`, and answers when the test says so."""

    def __init__(self) -> None:
        self.may_answer = asyncio.Event()
        self.asked = 0

    async def token_review(self, token: str, *, audiences: Collection[str] = ()) -> TokenUser | None:
        self.asked += 1
        await self.may_answer.wait()
        return TokenUser(username="sa") if token == "good" else None


async def test_tokens_that_nobody_knows_cannot_make_us_ask_without_end(authority: Authority) -> None:
    """At the priority of the cluster's own controllers the API server would have to answer all of them."""
    reviews, clock = SlowReviews(), Clock()
    trust = authority.trust()
    door = Authenticator(trust=lambda: trust, token_reviews=reviews, clock=clock)
    flood = [asyncio.create_task(door.authenticate(bearer(f"t{n}"), None)) for n in range(1000)]
    await asyncio.sleep(0.01)
    reviews.may_answer.set()
    results = await asyncio.gather(*flood, return_exceptions=True)
    assert Counter(r.code for r in results if isinstance(r, ApiError)) == {401: 50, 503: 950}
    assert reviews.asked == 50
    clock.now = 5.0
    assert (await door.authenticate(bearer("good"), None)).name == "sa"
    assert (await door.authenticate(NO_HEADERS, presented(authority.client("alice")))).name == "alice"


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
