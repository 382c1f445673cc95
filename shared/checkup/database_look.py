"""Asks the metadata databases of Airflow pools whether they can be read."""

from __future__ import annotations

from collections.abc import Callable

from shared.checkup.picture import Database, Unread
from shared.databases import metadata_database
from shared.errors import ConfigurationError, DatabaseUnavailable
from shared.pools import Pool
from shared.urls import database_address


class DatabaseLook:
    """Looks at the databases of the pools; one that cannot be read becomes Unread."""

    def __init__(self, *, url_of: Callable[[Pool], str | None], timeout_s: float) -> None:
        self._url_of = url_of
        self._timeout_s = timeout_s

    async def database(self, pool: Pool) -> Database | Unread | None:
        """One reading, as both services make it; None for a pool that has no database."""
        try:
            url = self._url_of(pool)
        except ConfigurationError as error:
            return Unread(reason=f"{error}.")
        if url is None:
            return None
        door = metadata_database(url)
        try:
            read = await door.read(timeout_s=self._timeout_s)
        except DatabaseUnavailable as error:
            return Unread(reason=str(error))
        finally:
            await door.close()
        return Database(address=database_address(url), task_instances=len(read.instances))
