"""What a service does on a Redis broker, and what is in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis

from shared.celery_reply_queues import LISTENERS

REPLY_BINDINGS = "_kombu.binding.reply.celery.pidbox"
"""A set of everybody who waits for answers; a member left behind makes every later answer slower."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """Of one process, until now."""

    connections: int
    commands: int


class BrokerView:
    """Looks on; its own connection does not count."""

    def __init__(self, url: str) -> None:
        self._client = redis.Redis.from_url(url, decode_responses=True)

    def __enter__(self) -> BrokerView:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def traffic_of(self, pid: int) -> Traffic:
        """Commands of connections that are gone are forgotten."""
        ports = _local_ports(pid)
        clients: list[Mapping[str, Any]] = self._client.client_list()
        ours = [one for one in clients if int(one["addr"].rpartition(":")[2]) in ports]
        return Traffic(connections=len(ours), commands=sum(int(one["tot-cmds"]) for one in ours))

    def contents(self) -> frozenset[str]:
        """Every key, and every queue that somebody bound to take answers from."""
        keys: list[str] = self._client.keys()
        return frozenset(keys) | {f"binding {member}" for member in self._client.smembers(REPLY_BINDINGS)}

    def age_listeners(self, seconds: float) -> None:
        """As if nobody had told for so long that they listen for answers."""
        entries: dict[str, str] = self._client.hgetall(LISTENERS)
        for queue, said_at in entries.items():
            self._client.hset(LISTENERS, queue, str(float(said_at) - seconds))


def _local_ports(pid: int) -> frozenset[int]:
    """Of the TCP connections of a process."""
    inodes = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        try:
            inodes.add(str(descriptor.readlink()).removeprefix("socket:[").rstrip("]"))
        except OSError:
            continue
    lines = Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]
    rows = [line.split() for line in lines]
    return frozenset(int(one[1].partition(":")[2], 16) for one in rows if one[9] in inodes)
