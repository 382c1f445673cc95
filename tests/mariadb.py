"""A real MariaDB server for the tests, from Debian: private, on a port and in a directory of its own."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from functools import partial
from pathlib import Path

import pymysql

from deploy.sandbox.processes import free_port
from tests.brokers import Server, require_server
from tests.postgres import server_directory, unprivileged

_SERVER = Path("/usr/sbin/mariadbd")
_INSTALL = Path("/usr/bin/mariadb-install-db")


@contextmanager
def mariadb() -> Iterator[Server]:
    """A server with an empty database `airflow`, where root needs no password; skips where there is none."""
    require_server(_is_installed, "mariadb-server-core", "mariadb-client-core", name="MariaDB server")
    with server_directory() as directory:
        data, port = directory / "data", free_port()
        initialize = [str(_INSTALL), "--no-defaults", f"--datadir={data}", "--skip-test-db"]
        subprocess.run(
            unprivileged([*initialize, "--auth-root-authentication-method=normal"]),
            cwd=directory,
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        command = [str(_SERVER), "--no-defaults", f"--datadir={data}", f"--socket={directory}/socket"]
        network = [f"--port={port}", "--bind-address=127.0.0.1", f"--pid-file={directory}/pid"]
        # Another time zone than ours: what the server shows depends on the session's.
        quick = [
            "--innodb-flush-log-at-trx-commit=0",
            "--innodb-fast-shutdown=2",
            "--default-time-zone=+05:00",
        ]
        server = Server(
            unprivileged([*command, *network, *quick]),
            url=f"mysql+pymysql://root@127.0.0.1:{port}/airflow",
            answers=partial(_answers, port),
            within_s=60,
        )
        with server.running():
            yield server


def _answers(port: int) -> bool:
    with (
        suppress(pymysql.MySQLError),
        closing(pymysql.connect(host="127.0.0.1", port=port, user="root", connect_timeout=2)) as connection,
        connection.cursor() as cursor,
    ):
        cursor.execute("CREATE DATABASE IF NOT EXISTS airflow CHARACTER SET utf8mb4")
        return True
    return False


def _is_installed() -> bool:
    return _SERVER.exists() and _INSTALL.exists()
