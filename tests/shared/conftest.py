"""Brokers and databases that the tests of this package share; each starts when first asked for."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.brokers import Server, rabbitmq, valkey
from tests.mariadb import mariadb
from tests.postgres import PostgresServer, postgresql


@pytest.fixture(scope="session")
def valkey_server() -> Iterator[Server]:
    with valkey() as server:
        yield server


@pytest.fixture(scope="session")
def rabbitmq_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with rabbitmq(tmp_path_factory.mktemp("rabbitmq")) as server:
        yield server


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    with postgresql() as server:
        yield server


@pytest.fixture(scope="session")
def mariadb_server() -> Iterator[Server]:
    with mariadb() as server:
        yield server
