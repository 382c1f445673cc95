"""The API server's refusals: one exception that renders itself as the `metav1.Status` a client expects."""

from collections.abc import Mapping, Sequence
from typing import Any

from deploy.sandbox.resources import Document, Resource


class ApiError(Exception):
    """A request that fails with an HTTP code, a machine-readable reason and a message for people.

    `warnings` is what admission had to say besides.
    """

    def __init__(
        self, code: int, reason: str, message: str, *, details: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message
        self.details = dict(details or {})
        self.warnings: tuple[str, ...] = ()

    def status(self) -> Document:
        """The Status body, fields in the order the real server writes them."""
        body: Document = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
        }
        if self.reason:
            body["reason"] = self.reason
        if self.details:
            body["details"] = self.details
        return body | {"code": self.code}


def _details(resource: Resource, name: str) -> Document:
    details = {"name": name} if name else {}
    if resource.group:
        details["group"] = resource.group
    return details | {"kind": resource.plural}


def bad_request(message: str) -> ApiError:
    """The request cannot be understood."""
    return ApiError(400, "BadRequest", message)


def unauthorized() -> ApiError:
    """The credentials are unknown."""
    return ApiError(401, "Unauthorized", "Unauthorized")


def not_found(resource: Resource, name: str) -> ApiError:
    """No such object."""
    return ApiError(
        404, "NotFound", f'{resource.qualified} "{name}" not found', details=_details(resource, name)
    )


def unknown_path() -> ApiError:
    """No such path."""
    return ApiError(404, "NotFound", "the server could not find the requested resource")


def method_not_allowed(resource: Resource) -> ApiError:
    """The resource is there, the verb is not."""
    return ApiError(
        405,
        "MethodNotAllowed",
        "the server does not allow this method on the requested resource",
        details=_details(resource, ""),
    )


def already_exists(resource: Resource, name: str) -> ApiError:
    """A create of a name that is taken."""
    return ApiError(
        409,
        "AlreadyExists",
        f'{resource.qualified} "{name}" already exists',
        details=_details(resource, name),
    )


def conflict(resource: Resource, name: str, why: str = "") -> ApiError:
    """An optimistic lock that was lost, or a precondition that does not hold."""
    stale = "the object has been modified; please apply your changes to the latest version and try again"
    message = f'Operation cannot be fulfilled on {resource.qualified} "{name}": {why or stale}'
    return ApiError(409, "Conflict", message, details=_details(resource, name))


def forbidden(resource: Resource, name: str, why: str) -> ApiError:
    """An admission step or the authorizer refused."""
    subject = f'{resource.qualified} "{name}"' if name else resource.qualified
    return ApiError(403, "Forbidden", f"{subject} is forbidden: {why}", details=_details(resource, name))


def expired(requested: int, oldest: int) -> ApiError:
    """A watch from before the history that is kept: list again."""
    return ApiError(410, "Expired", f"too old resource version: {requested} ({oldest})")


def unsupported_media_type(message: str) -> ApiError:
    """A body or a patch type that is not served."""
    return ApiError(415, "UnsupportedMediaType", message)


def invalid(resource: Resource, name: str, problems: Sequence[tuple[str, str]]) -> ApiError:
    """An object that breaks rules: every (field, sentence) is reported at once."""
    sentences = [f"{field}: {sentence}" for field, sentence in problems]
    listed = sentences[0] if len(sentences) == 1 else f"[{', '.join(sentences)}]"
    causes = [{"reason": "FieldValueInvalid", "message": text, "field": field} for field, text in problems]
    details: Document = {"name": name, "group": resource.group, "kind": resource.kind, "causes": causes}
    kind = f"{resource.kind}.{resource.group}" if resource.group else resource.kind
    return ApiError(422, "Invalid", f'{kind} "{name}" is invalid: {listed}', details=details)


def internal(message: str) -> ApiError:
    """Something behind the API server failed."""
    return ApiError(
        500,
        "InternalError",
        f"Internal error occurred: {message}",
        details={"causes": [{"message": message}]},
    )


def unavailable() -> ApiError:
    """An aggregated API has no reachable backend."""
    return ApiError(503, "ServiceUnavailable", "the server is currently unable to handle the request")


def request_timeout() -> ApiError:
    """The request took longer than the API server grants one."""
    return ApiError(
        504,
        "Timeout",
        "Timeout: request did not complete within requested timeout - context deadline exceeded",
    )
