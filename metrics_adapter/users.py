"""Who asks: a user as Kubernetes knows one, and the groups it adds by itself. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace

AUTHENTICATED = "system:authenticated"
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
        return self == ANONYMOUS


ANONYMOUS = User(name="system:anonymous", groups=("system:unauthenticated",))


def with_authenticated_group(user: User) -> User:
    """kube-apiserver's discovery and OpenAPI requests come without any group, and mean this one."""
    return user if AUTHENTICATED in user.groups else replace(user, groups=(*user.groups, AUTHENTICATED))
