"""A real pgbouncer for the tests, from Debian, in the mode in which it is used with Airflow."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from deploy.sandbox.processes import free_port
from tests.brokers import Server, require_server
from tests.postgres import PostgresServer, server_directory, unprivileged

_PROGRAM = Path("/usr/sbin/pgbouncer")


@contextmanager
def pgbouncer(behind: PostgresServer) -> Iterator[Server]:
    """In transaction mode, with one connection to the server for everybody; its URL names no database."""
    require_server(_PROGRAM.exists, "pgbouncer", name="pgbouncer")
    port = free_port()
    with server_directory() as directory:
        settings = directory / "pgbouncer.ini"
        settings.write_text(
            "[databases]\n"
            f"* = host=127.0.0.1 port={behind.port} user=postgres\n"
            "[pgbouncer]\n"
            f"listen_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n"
            "auth_type = any\npool_mode = transaction\ndefault_pool_size = 1\n"
        )
        server = Server(
            unprivileged([str(_PROGRAM), "--quiet", str(settings)]),
            url=f"postgresql://postgres@127.0.0.1:{port}",
            answers=partial(_listens, port),
            within_s=10,
        )
        with server.running():
            yield server


def _listens(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False
