"""Who asks: the API server's front proxy, a client certificate, a bearer token, or nobody.

In the order of Kubernetes' own extension API servers; the first that recognises the caller decides. One
that was given something and does not accept it is remembered: if nobody else accepts the caller either, the
answer is 401.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import secrets
import time
from collections.abc import Callable, Collection
from datetime import UTC, datetime
from typing import Protocol

from metrics_adapter.client_trust import (
    ClientTrust,
    Headers,
    user_of_certificate,
)
from metrics_adapter.front_proxy_users import FrontProxyUsers
from metrics_adapter.review_cache import ReviewCache
from metrics_adapter.review_limits import MOST_AT_ONCE, ReviewLimits
from metrics_adapter.statuses import unauthorized
from metrics_adapter.users import ANONYMOUS, User, with_authenticated_group
from shared.client_certificates import Presented, Vouching, common_name, refusal_of
from shared.kube_documents import TokenUser

log = logging.getLogger(__name__)

MOST_TOLD = 100
"""Certificates of which the log says that they are refused."""
LARGEST_TOKEN = 16 << 10
"""Characters. Those of service accounts have one or two thousand."""


class TokenReviews(Protocol):
    async def token_review(self, token: str, *, audiences: Collection[str] = ()) -> TokenUser | None: ...


class Authenticator:
    """Finds out who asks."""

    def __init__(
        self,
        *,
        trust: Callable[[], ClientTrust],
        token_reviews: TokenReviews,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._trust = trust
        self._token_reviews = token_reviews
        self._wall_clock = wall_clock
        self._front_proxies, self._clients = Vouching(), Vouching()
        self._users = FrontProxyUsers()
        self._tokens: ReviewCache[TokenUser | None] = ReviewCache(
            clock=clock,
            what="whose a token is",
            # Nobody knows yet who asks: there is one asker.
            limits=ReviewLimits(clock=clock, most_of_one=MOST_AT_ONCE),
        )
        self._told: set[str] = set()
        # Tokens are secrets: what is kept is a digest that is worth nothing outside this process.
        self._digest_key = secrets.token_bytes(32)

    async def authenticate(self, headers: Headers, presented: Presented | None) -> User:
        """The caller, or ANONYMOUS.

        Raises ApiError 401 when what it presented is refused, 503 when there are too many tokens to review;
        KubernetesError when none can be.
        """
        user = self._certified(headers, presented, self._trust()) if presented else None
        token = "" if user else _bearer_token(headers)
        if token:
            user = await self._bearer(token)
        if user is not None:
            return with_authenticated_group(user)
        if presented:
            self._tell_refused(presented)
        if presented or token:
            raise unauthorized()
        return ANONYMOUS

    def _tell_refused(self, presented: Presented) -> None:
        """Once for each: TLS took the certificate, so whoever comes with it sees nothing but 401."""
        leaf, trust = presented.leaf, self._trust()
        reason = refusal_of(
            leaf,
            chain=presented.chain,
            cas=trust.proxy_cas if trust.allows(leaf) else trust.client_cas,
            now=self._wall_clock(),
        )
        sentence = (
            f"The client certificate with the common name {common_name(leaf)!r} is refused: "
            f"{reason or 'nothing says which user comes with it'}."
        )
        if sentence not in self._told and len(self._told) < MOST_TOLD:
            self._told.add(sentence)
            log.warning(sentence)

    def _certified(self, headers: Headers, presented: Presented, trust: ClientTrust) -> User | None:
        user, now = None, self._wall_clock()
        if trust.allows(presented.leaf) and self._front_proxies.vouch(
            presented, cas=trust.proxy_cas, now=now
        ):
            user = self._users.user_of(headers, trust)
        if user is None and self._clients.vouch(presented, cas=trust.client_cas, now=now):
            user = user_of_certificate(presented.leaf)
        return user

    async def _bearer(self, token: str) -> User | None:
        digest = hmac.new(self._digest_key, token.encode(), hashlib.sha256).hexdigest()
        known = await self._tokens.get(digest, lambda: self._token_reviews.token_review(token))
        if known is None:
            return None
        return User(
            name=known.username,
            uid=known.uid,
            groups=known.groups,
            extra=tuple(sorted(known.extra.items())),
        )


def _bearer_token(headers: Headers) -> str:
    """Empty without one; raises ApiError 401 for what cannot be a token."""
    scheme, _, text = next(iter(headers.getall("Authorization", [])), "").partition(" ")
    token = text.strip() if scheme.lower() == "bearer" else ""
    if len(token) > LARGEST_TOKEN or not token.isascii():
        raise unauthorized()
    return token
