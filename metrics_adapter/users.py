"""Who asks: a user as Kubernetes knows one, and the groups it adds by itself. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace

AUTHENTICATED = "system:authenticated"
UNAUTHENTICATED = "system:unauthenticated"
MASTERS = "system:masters"


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """An authenticated user, or ANONYMOUS."""

    name: str
    uid: str = ""
    groups: tuple[str, ...] = ()
    extra: tuple[tuple[str, tuple[str, ...]], ...] = ()
    """Keys in lower case, each with its values."""

    @property
    def is_anonymous(self) -> bool:
        """Also where the front proxy says so: it passes on those that the API server itself let in."""
        return self.name == ANONYMOUS.name or UNAUTHENTICATED in self.groups


ANONYMOUS = User(name="system:anonymous", groups=(UNAUTHENTICATED,))


def with_authenticated_group(user: User) -> User:
    """kube-apiserver's discovery and OpenAPI requests come without any group, and mean this one."""
    if user.is_anonymous or AUTHENTICATED in user.groups:
        return user
    return replace(user, groups=(*user.groups, AUTHENTICATED))
