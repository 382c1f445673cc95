"""What can be asked of an authorizer, and how a refusal reads. `rbac.RoleBasedAccess` is the one there is."""

from dataclasses import dataclass
from typing import Protocol

from deploy.sandbox.apiserver.authentication import User


@dataclass(frozen=True, slots=True, kw_only=True)
class Attributes:
    """What a user wants to do. `path` is set for requests that are about no resource."""

    verb: str
    group: str = ""
    version: str = ""
    resource: str = ""
    subresource: str = ""
    namespace: str = ""
    name: str = ""
    path: str = ""

    @property
    def whole_resource(self) -> str:
        """`deployments/scale`, as rules name it."""
        return f"{self.resource}/{self.subresource}" if self.subresource else self.resource


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """The answer, with a reason for people."""

    allowed: bool
    reason: str = ""


class Authorizer(Protocol):
    """Decides on requests and on access reviews alike."""

    def authorize(self, user: User, attributes: Attributes) -> Decision:
        """Whether the user may do it."""
        ...


def refusal(user: User, attributes: Attributes, reason: str = "") -> str:
    """The sentence that a forbidden request is answered with."""
    sentence = _refusal(user, attributes)
    return f"{sentence}: {reason}" if reason else sentence


def _refusal(user: User, attributes: Attributes) -> str:
    if attributes.path:
        return f'User "{user.name}" cannot {attributes.verb} path "{attributes.path}"'
    scope = f'in the namespace "{attributes.namespace}"' if attributes.namespace else "at the cluster scope"
    return (
        f'User "{user.name}" cannot {attributes.verb} resource "{attributes.whole_resource}" '
        f'in API group "{attributes.group}" {scope}'
    )
