"""Every error of the API as a metav1.Status, in the words of kube-apiserver: clients show nothing else. Pure.

No Retry-After ever goes with them: client-go would sleep and try again, inside one of the HPA controller's
five workers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from metrics_adapter.external_metrics import GROUP
from metrics_adapter.users import User
from shared.errors import CeleryHpaError


class ApiError(CeleryHpaError):
    """An answer other than the one that was asked for; `code` is the HTTP status."""

    def __init__(self, code: int, reason: str, message: str, *, details: Mapping[str, Any] = {}) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.details = details

    @property
    def document(self) -> dict[str, Any]:
        """The Status."""
        return {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": str(self),
            "reason": self.reason,
            **({"details": dict(self.details)} if self.details else {}),
            "code": self.code,
        }


def bad_request(message: str) -> ApiError:
    return ApiError(400, "BadRequest", message)


def unauthorized() -> ApiError:
    return ApiError(401, "Unauthorized", "Unauthorized")


def forbidden_path(user: User, path: str) -> ApiError:
    return ApiError(403, "Forbidden", f'forbidden: User "{user.name}" cannot get path "{path}"')


def forbidden_metric(user: User, *, metric: str, namespace: str) -> ApiError:
    scope = f'in the namespace "{namespace}"' if namespace else "at the cluster scope"
    message = (
        f'{metric}.{GROUP} is forbidden: User "{user.name}" cannot list resource "{metric}" '
        f'in API group "{GROUP}" {scope}'
    )
    return ApiError(403, "Forbidden", message, details={"group": GROUP, "kind": metric})


def not_found() -> ApiError:
    return ApiError(404, "NotFound", "the server could not find the requested resource")


def unknown_metric(name: str, *, known: Mapping[str, object]) -> ApiError:
    message = f"there is no metric {name}; those that there are: {', '.join(known)}"
    return ApiError(404, "NotFound", message, details={"name": name, "group": GROUP})


def no_pool(metric: str, *, namespace: str) -> ApiError:
    message = (
        f"{metric} has no value in the namespace {namespace}: no pool of the configuration is in it. "
        "Metrics are served in the namespace of their pool, where its HPA is, too"
    )
    return ApiError(404, "NotFound", message, details={"name": metric, "group": GROUP})


def method_not_allowed() -> ApiError:
    message = "the server does not allow this method on the requested resource"
    return ApiError(405, "MethodNotAllowed", message)


def not_acceptable() -> ApiError:
    message = "only the following media types are accepted: application/json"
    return ApiError(406, "NotAcceptable", message)


def internal_error(message: str) -> ApiError:
    return ApiError(500, "InternalError", f"Internal error occurred: {message}")


def unavailable(message: str) -> ApiError:
    return ApiError(503, "ServiceUnavailable", message)
