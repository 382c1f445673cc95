"""How long a thread may wait for a database, and how it is stopped from outside when that time is up."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Protocol


class Deadline:
    """By when a thread must be done, and how another one stops it before."""

    def __init__(self, timeout_s: float) -> None:
        self._at = time.monotonic() + timeout_s
        self._lock = threading.Lock()
        self._line: _Line | None = None
        self._is_over = False

    @property
    def left_s(self) -> float:
        return 0.0 if self._is_over else max(0.0, self._at - time.monotonic())

    def end(self) -> None:
        """Whatever the thread waits for, it waits no more; nothing happens when it is done."""
        with self._lock:
            self._is_over = True
            if self._line is not None:
                self._line.cut()

    def hold(self, line: _Line) -> None:
        """The thread begins to wait on this."""
        self.release()
        with self._lock:
            self._line = line
            if self._is_over:
                line.cut()

    def release(self) -> None:
        """The thread waits no more."""
        with self._lock:
            if self._line is not None:
                self._line.close()
            self._line = None


class _Line(Protocol):
    """What a thread waits on."""

    def cut(self) -> None: ...

    def close(self) -> None: ...


class _Socket:
    """Of a connection to PostgreSQL: when it is shut down, whoever waits on it gets an error."""

    def __init__(self, connection: Any) -> None:
        # A duplicate: the number of the connection's own may be another file's by the time it is cut.
        self._socket = socket.socket(fileno=os.dup(connection.fileno()))

    def cut(self) -> None:
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._socket.close()


class _Statement:
    """Of SQLite."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def cut(self) -> None:
        self._connection.interrupt()

    def close(self) -> None: ...


LINES: Mapping[str, Callable[[Any], _Line]] = {"postgresql": _Socket, "sqlite": _Statement}
"""By SQLAlchemy's name of a dialect. PyMySQL has no way in: its sockets have a timeout instead."""
