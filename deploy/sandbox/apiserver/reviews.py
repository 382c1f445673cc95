"""The reviews that are answered and not stored: may this user do that, and whose token is this."""

from deploy.sandbox.apiserver.authentication import AUDIENCE, Tokens, User
from deploy.sandbox.apiserver.authorization import Attributes, Authorizer
from deploy.sandbox.errors import invalid
from deploy.sandbox.resources import (
    ACCESS_REVIEWS,
    SELF_ACCESS_REVIEWS,
    SELF_SUBJECT_REVIEWS,
    TOKEN_REVIEWS,
    Document,
    Resource,
)


def answer_review(
    resource: Resource, review: Document, *, user: User, authorizer: Authorizer, tokens: Tokens
) -> Document:
    """The review with its status filled in. Raises ApiError 400 or 422 for one that asks nothing."""
    spec = review.get("spec") or {}
    if resource is TOKEN_REVIEWS:
        status = _token_status(spec, tokens)
    elif resource is SELF_SUBJECT_REVIEWS:
        status = {"userInfo": user.info()}
    elif resource is SELF_ACCESS_REVIEWS:
        status = _access_status(resource, spec, user, authorizer)
    else:
        status = _access_status(ACCESS_REVIEWS, spec, _subject(spec), authorizer)
    answered = {"kind": resource.kind, "apiVersion": resource.api_version, "metadata": {}}
    return answered | ({"spec": spec} if spec else {}) | {"status": status}


def _subject(spec: Document) -> User:
    if not spec.get("user") and not spec.get("groups"):
        raise invalid(
            ACCESS_REVIEWS,
            "",
            [("spec.user", 'Invalid value: "": at least one of user or group must be specified')],
        )
    extra = {key: tuple(values) for key, values in (spec.get("extra") or {}).items()}
    return User(name=spec.get("user", ""), groups=tuple(spec.get("groups") or ()), extra=extra)


def _access_status(resource: Resource, spec: Document, user: User, authorizer: Authorizer) -> Document:
    attributes = spec.get("resourceAttributes"), spec.get("nonResourceAttributes")
    if (attributes[0] is None) is (attributes[1] is None):
        problem = "exactly one of nonResourceAttributes or resourceAttributes must be specified"
        raise invalid(resource, "", [("spec.resourceAttributes", f"Invalid value: {problem}")])
    decision = authorizer.authorize(user, _attributes(*attributes))
    return {"allowed": decision.allowed} | ({"reason": decision.reason} if decision.reason else {})


def _attributes(about_resource: Document | None, about_path: Document | None) -> Attributes:
    if about_path is not None:
        return Attributes(verb=about_path.get("verb", ""), path=about_path.get("path", ""))
    assert about_resource is not None
    fields = ("verb", "group", "version", "resource", "subresource", "namespace", "name")
    return Attributes(**{field: about_resource.get(field, "") for field in fields})


def _token_status(spec: Document, tokens: Tokens) -> Document:
    user = tokens.user(spec.get("token", ""))
    if user is None:
        return {"user": {}, "error": "invalid bearer token"}
    wanted = spec.get("audiences") or [AUDIENCE]
    if AUDIENCE not in wanted:
        listed = " ".join(f'"{audience}"' for audience in wanted)
        mismatch = f'token audiences ["{AUDIENCE}"] is invalid for the target audiences [{listed}]'
        return {"user": {}, "error": f"[invalid bearer token, {mismatch}]"}
    return {"authenticated": True, "user": user.info(), "audiences": [AUDIENCE]}
