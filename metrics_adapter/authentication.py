"""Who asks: the API server's front proxy, a client certificate, a bearer token, or nobody.

In the order of Kubernetes' own extension API servers; the first that recognises the caller decides. One
that was given something and does not accept it is remembered: if nobody else accepts the caller either, the
answer is 401.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import random
import secrets
import time
from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime
from typing import Protocol

from metrics_adapter.client_trust import (
    CONFIG_MAP,
    ClientTrust,
    Headers,
    client_trust_from,
    user_of_certificate,
    user_of_headers,
)
from metrics_adapter.review_cache import ReviewCache
from metrics_adapter.statuses import unauthorized
from metrics_adapter.users import ANONYMOUS, User, with_authenticated_group
from shared.client_certificates import Presented, Vouching
from shared.errors import CertificateError, Forbidden, KubernetesError
from shared.kube_documents import TokenUser

log = logging.getLogger(__name__)

TRUST_PERIOD_S = 60.0
TRUST_RETRY_S = 2.0


class ConfigMaps(Protocol):
    async def config_map(self, *, namespace: str, name: str) -> Mapping[str, str]: ...


class TokenReviews(Protocol):
    async def token_review(self, token: str, *, audiences: Collection[str] = ()) -> TokenUser | None: ...


class TrustSource:
    """Keeps the ClientTrust in force; `problem` says why it could not be read, until it could."""

    def __init__(self, config_maps: ConfigMaps) -> None:
        self._config_maps = config_maps
        self.current = ClientTrust()
        self.is_loaded = False
        self.problem: str | None = None

    async def load(self) -> None:
        """Read it once; what cannot be read leaves the last one in force."""
        try:
            self.current = client_trust_from(await self._config_maps.config_map(**CONFIG_MAP))
        except (KubernetesError, CertificateError) as error:
            self._report(_reading_failed(error))
        else:
            self.is_loaded = True
            self._report(None)

    async def watch(self) -> None:
        """Read it again and again, until cancelled."""
        while True:
            await asyncio.sleep(
                (TRUST_PERIOD_S if self.is_loaded else TRUST_RETRY_S) * random.uniform(0.9, 1.1)
            )
            await self.load()

    def _report(self, problem: str | None) -> None:
        if problem is not None and problem != self.problem:
            log.error(problem)
        self.problem = problem


def _reading_failed(error: Exception) -> str:
    where = f"ConfigMap {CONFIG_MAP['namespace']}/{CONFIG_MAP['name']}"
    hint = (
        " Bind our service account to the Role extension-apiserver-authentication-reader in kube-system."
        if isinstance(error, Forbidden)
        else ""
    )
    return f"{where} cannot be read, which says whose requests to believe: {error}{hint}"


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
        self._tokens: ReviewCache[TokenUser | None] = ReviewCache(clock=clock)
        # Tokens are secrets: what is kept is a digest that is worth nothing outside this process.
        self._digest_key = secrets.token_bytes(32)

    async def authenticate(self, headers: Headers, presented: Presented | None) -> User:
        """The caller, or ANONYMOUS.

        Raises ApiError 401 when what it presented is refused, KubernetesError when no token can be reviewed.
        """
        user = self._certified(headers, presented, self._trust()) if presented else None
        token = _bearer_token(headers)
        if user is None and token:
            user = await self._bearer(token)
        if user is not None:
            return with_authenticated_group(user)
        if presented or token:
            raise unauthorized()
        return ANONYMOUS

    def _certified(self, headers: Headers, presented: Presented, trust: ClientTrust) -> User | None:
        user, now = None, self._wall_clock()
        if trust.allows(presented.leaf) and self._front_proxies.vouch(
            presented, cas=trust.proxy_cas, now=now
        ):
            user = user_of_headers(headers, trust)
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
    scheme, _, token = next(iter(headers.getall("Authorization", [])), "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""
