"""For whom the front proxy speaks, remembered: an HPA's requests name the same user for ever."""

from __future__ import annotations

from metrics_adapter.client_trust import ClientTrust, Headers, user_of_headers
from metrics_adapter.users import User

MOST_REMEMBERED = 256
"""Users; those of a cluster who ask for metrics are few."""
LARGEST_REMEMBERED = 4096
"""Characters of the headers that name one."""


class FrontProxyUsers:
    """Users by the headers that name them, under the trust in force."""

    def __init__(self) -> None:
        self._trust: ClientTrust | None = None
        self._users: dict[tuple[str, ...], User | None] = {}

    def user_of(self, headers: Headers, trust: ClientTrust) -> User | None:
        """As `user_of_headers`."""
        if trust is not self._trust:
            self._trust = trust
            self._users.clear()
            names = (*trust.username_headers, *trust.uid_headers, *trust.group_headers)
            self._names = frozenset(map(str.lower, names))
            self._prefixes = tuple(map(str.lower, trust.extra_header_prefixes))
        telling = tuple(part for header in headers.items() if self._tells(header[0]) for part in header)
        if telling in self._users:
            return self._users[telling]
        user = user_of_headers(headers, trust)
        if sum(map(len, telling)) <= LARGEST_REMEMBERED:
            if len(self._users) >= MOST_REMEMBERED:
                self._users.clear()
            self._users[telling] = user
        return user

    def _tells(self, name: str) -> bool:
        lowered = name.lower()
        return lowered in self._names or lowered.startswith(self._prefixes)
