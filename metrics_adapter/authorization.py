"""May this user read this metric? The API server decides, by SubjectAccessReview."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

from metrics_adapter.external_metrics import GROUP, VERSION
from metrics_adapter.review_cache import ReviewCache
from metrics_adapter.users import MASTERS, User


class AccessReviews(Protocol):
    async def subject_access_review(self, spec: Mapping[str, Any]) -> bool: ...


STALE_ALLOW_S = 300.0
"""As long as kube-apiserver itself relies on what its own authorization webhook allowed."""
LARGEST_QUESTION = 10_000
"""Bytes of a question whose answer is remembered, as in Kubernetes' own extension API servers."""


class Authorizer:
    """Answers from memory for ten seconds, both ways, as Kubernetes' own extension API servers do.

    What was allowed counts up to STALE_ALLOW_S longer while the API server cannot be asked; a denial never.
    """

    def __init__(self, access_reviews: AccessReviews, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._access_reviews = access_reviews
        self.answers: ReviewCache[bool] = ReviewCache(
            clock=clock,
            what="who may read a metric",
            lasts=lambda is_allowed: is_allowed,
            stale_s=STALE_ALLOW_S,
        )

    async def may_read(self, user: User, *, metric: str, namespace: str) -> bool:
        """An empty namespace means all of them.

        Raises KubernetesError when nobody can tell, ApiError 503 when this user makes us ask too much.
        """
        if MASTERS in user.groups:
            return True
        key = _key(user, metric, namespace)

        def ask() -> Awaitable[bool]:
            spec = access_review_spec(user, metric=metric, namespace=namespace)
            return self._access_reviews.subject_access_review(spec)

        if key is None:
            return await self.answers.get_once(ask, asker=user.name)
        return await self.answers.get(key, ask, asker=user.name)


def _key(user: User, metric: str, namespace: str) -> str | None:
    """A digest, for names may be long and many; None when the answer is not to be remembered."""
    question = repr((user.name, user.uid, user.groups, user.extra, metric, namespace)).encode()
    return hashlib.sha256(question).hexdigest() if len(question) <= LARGEST_QUESTION else None


def access_review_spec(user: User, *, metric: str, namespace: str) -> dict[str, Any]:
    """The verb is `list`, although discovery says `get`: a metric is read as a list of values."""
    return {
        "user": user.name,
        **({"uid": user.uid} if user.uid else {}),
        "groups": list(user.groups),
        **({"extra": {key: list(values) for key, values in user.extra}} if user.extra else {}),
        "resourceAttributes": {
            "group": GROUP,
            "version": VERSION,
            "resource": metric,
            "verb": "list",
            **({"namespace": namespace} if namespace else {}),
        },
    }
