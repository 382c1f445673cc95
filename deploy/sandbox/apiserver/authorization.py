"""Who may do what. The seam is `Authorizer`; the sandbox lets every known user in unless a rule denies it."""

from dataclasses import dataclass
from typing import Protocol

from deploy.sandbox.apiserver.authentication import AUTHENTICATED, MASTERS, User

PUBLIC_PATHS = ("/healthz", "/livez", "/readyz", "/version")


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Denial:
    """One thing that is not allowed; `*` stands for everything. `resource` may be `deployments/scale`."""

    user: str = "*"
    verb: str = "*"
    group: str = "*"
    resource: str = "*"
    namespace: str = "*"

    def covers(self, user: User, attributes: Attributes) -> bool:
        """Whether this denial is about the request."""
        asked = (
            user.name,
            attributes.verb,
            attributes.group,
            attributes.whole_resource,
            attributes.namespace,
        )
        ruled = (self.user, self.verb, self.group, self.resource, self.namespace)
        return all(rule in ("*", value) for rule, value in zip(ruled, asked, strict=True))


class AllowKnownUsers:
    """system:masters may do all, known users what no denial covers, strangers ask for health and version."""

    def __init__(self, *denials: Denial) -> None:
        self.denials = list(denials)

    def authorize(self, user: User, attributes: Attributes) -> Decision:
        """Whether the user may do it."""
        if MASTERS in user.groups:
            return Decision(allowed=True)
        if any(denial.covers(user, attributes) for denial in self.denials):
            return Decision(allowed=False)
        public = attributes.path.startswith(PUBLIC_PATHS)
        return Decision(allowed=public or AUTHENTICATED in user.groups)


def refusal(user: User, attributes: Attributes) -> str:
    """The sentence that a forbidden request is answered with."""
    if attributes.path:
        return f'User "{user.name}" cannot {attributes.verb} path "{attributes.path}"'
    scope = f'in the namespace "{attributes.namespace}"' if attributes.namespace else "at the cluster scope"
    return (
        f'User "{user.name}" cannot {attributes.verb} resource "{attributes.whole_resource}" '
        f'in API group "{attributes.group}" {scope}'
    )
