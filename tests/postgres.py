"""A real PostgreSQL server for the tests, from Debian: private, on a port and in a directory of its own."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import psycopg2

from deploy.sandbox.processes import free_port
from tests.brokers import Server, require_server

SUPERUSER = "postgres"
_UNPRIVILEGED = ("postgres", "nobody")
"""PostgreSQL refuses to run as root: then it is one of these."""
_SCHEMAS = Path(__file__).parent / "recordings" / "airflow"
_OTHER_DIALECT = "-- ==================== SQLite"
"""What follows in a recorded schema is not for PostgreSQL."""


@contextmanager
def postgresql(*settings: str) -> Iterator[PostgresServer]:
    """A server with an empty cluster, and settings as `shared_buffers=512MB`; skips where there is none.

    Everybody on this machine may connect as anybody, without a password.
    """
    binaries = require_server(_binaries, "postgresql", name="PostgreSQL server")
    with server_directory() as directory:
        data, port = directory / "data", free_port()
        initialize = [str(binaries / "initdb"), "--pgdata", str(data), "--username", SUPERUSER]
        subprocess.run(
            unprivileged([*initialize, "--auth", "trust", "--encoding", "UTF8", "--no-locale", "--no-sync"]),
            cwd=directory,
            check=True,
            stdout=subprocess.DEVNULL,
        )
        server = PostgresServer(unprivileged(_start(binaries, data, port, settings)), port=port)
        with server.running():
            yield server


class PostgresServer(Server):
    """A running server; its superuser is `postgres`."""

    def __init__(self, command: Sequence[str], *, port: int) -> None:
        self.port = port
        url = f"postgresql://{SUPERUSER}@127.0.0.1:{port}/postgres"
        super().__init__(command, url=url, answers=partial(_answers, url), within_s=30)

    def url_of(self, database: str, *, user: str = SUPERUSER) -> str:
        return f"postgresql://{user}@127.0.0.1:{self.port}/{database}"

    def create_database(self, name: str, *files: Path) -> str:
        """Its URL; filled from SQL files."""
        self.execute(f'CREATE DATABASE "{name}"')
        for file in files:
            self.execute(_statements(file), database=name)
        return self.url_of(name)

    def execute(
        self, sql: str, *, database: str = "postgres", user: str = SUPERUSER
    ) -> list[tuple[Any, ...]]:
        """Run statements, each committed unless it comes with others; the rows of the last one."""
        with closing(psycopg2.connect(self.url_of(database, user=user))) as connection:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(sql)
                return list(cursor.fetchall()) if cursor.description else []

    def kill(self) -> None:
        """At once, with the processes of all connections: a new one could not start beside them."""
        children = self._children()
        super().kill()
        _signal(children, signal.SIGKILL)
        while any(Path("/proc", str(child)).exists() for child in children):
            time.sleep(0.01)

    def freeze(self) -> None:
        """Connections that are there hang, and new ones do."""
        super().freeze()
        _signal(self._children(), signal.SIGSTOP)

    def thaw(self) -> None:
        _signal(self._children(), signal.SIGCONT)
        super().thaw()

    def stop(self) -> None:
        """Without waiting for anybody's connection to be closed, as SIGTERM would."""
        with suppress(ProcessLookupError, subprocess.TimeoutExpired):
            self.thaw()
            os.kill(self._process.pid, signal.SIGINT)
            self._process.wait(10)
        super().stop()

    def _children(self) -> list[int]:
        """Each has a process group of its own."""
        with suppress(FileNotFoundError, ProcessLookupError):
            pid = self._process.pid
            return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
        return []


def airflow_schema(major: int) -> Path:
    """The tables of Airflow 2 (2.10) or 3 (3.3), as `create_database` takes it."""
    return _SCHEMAS / f"schema_{major}.sql"


def _start(binaries: Path, data: Path, port: int, settings: Sequence[str]) -> list[str]:
    """No data is worth an fsync: the machine will not fail, only the server."""
    command = [str(binaries / "postgres"), "-D", str(data), "-p", str(port)]
    ours = ("listen_addresses=127.0.0.1", "unix_socket_directories=", "fsync=off", "full_page_writes=off")
    return command + [word for setting in (*ours, *settings) for word in ("-c", setting)]


def _statements(file: Path) -> str:
    """Of a dump: psql's own commands mean nothing to the server, and its search_path is for itself."""
    text = file.read_text().split(_OTHER_DIALECT, 1)[0]
    return "\n".join(line for line in text.splitlines() if not line.startswith("\\"))


def _answers(url: str) -> bool:
    with suppress(psycopg2.OperationalError):
        psycopg2.connect(url, connect_timeout=2).close()
        return True
    return False


def _signal(processes: Sequence[int], number: int) -> None:
    for process in processes:
        with suppress(ProcessLookupError):
            os.kill(process, number)


@contextmanager
def server_directory() -> Iterator[Path]:
    """One that the server's user may enter and write to: pytest's are closed to others."""
    with tempfile.TemporaryDirectory(prefix="celery-hpa-postgres-", ignore_cleanup_errors=True) as name:
        if os.geteuid() == 0:
            user = _unprivileged_user()
            os.chown(name, user.pw_uid, user.pw_gid)
        yield Path(name)


def unprivileged(command: Sequence[str]) -> list[str]:
    """The command, in the place of which another user runs it when we are root."""
    if os.geteuid() != 0:
        return list(command)
    user = _unprivileged_user()
    who = [f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]
    return ["setpriv", *who, "--", *command]


def _unprivileged_user() -> pwd.struct_passwd:
    for name in _UNPRIVILEGED:
        with suppress(KeyError):
            return pwd.getpwnam(name)
    raise RuntimeError(f"PostgreSQL does not run as root: add a user named {' or '.join(_UNPRIVILEGED)}.")


def _binaries() -> Path | None:
    """The newest directory of initdb and postgres: Debian keeps them out of PATH, one for each version."""
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[4]))
    candidates = [*map(str, debian), shutil.which("postgres")]
    return next((Path(path).parent for path in candidates[::-1] if path), None)
