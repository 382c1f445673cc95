"""Labels from serialized DAGs: their hashes are asked for each time, a document only when its hash is new."""

from __future__ import annotations

import json
import logging
import threading
import zlib
from collections import OrderedDict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

from shared import airflow_queries as queries
from shared.airflow_connections import Row, Transaction
from shared.airflow_labels import EXECUTOR_CONFIG_KEY, labels_of_serialized_dag, mistakes_in_serialized_dag
from shared.workers import Label

log = logging.getLogger(__name__)

Labels = Mapping[str, Label] | None
"""Of the tasks of a DAG, by task_id; None when its document cannot be read."""

_AT_A_TIME = 20
"""Documents in one query: what was read before a deadline is kept for the next reading."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Serialized:
    """The labels in the serialized DAGs that a reading is about."""

    by_version: Mapping[Any, Labels]
    """By dag_version_id; empty for Airflow 2, which has no versions."""
    by_dag: Mapping[str, Labels]
    """By dag_id: of the newest version of those that task instances name, else of the newest there is."""


class LabelCache:
    """The labels of up to `most` documents by their hash, the least recently used dropped first."""

    def __init__(self, *, most: int = 20_000) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._known: OrderedDict[tuple[str, str], Labels] = OrderedDict()
        """By dag_id and dag_hash."""

    def read(self, transaction: Transaction, *, rows: Iterable[Row], dag_ids: Collection[str]) -> Serialized:
        """The labels of the versions that task instances name, and of the newest of DAGs that none names."""
        versions = _versions(rows) if transaction.schema.has_versions else frozenset()
        found = list(transaction.ask(queries.hashes_of_versions(), versions)) if versions else []
        others = set(dag_ids).difference(row["dag_id"] for row in found)
        found += transaction.ask(queries.hashes_of_latest(transaction.schema), others) if others else []
        found.sort(key=lambda row: row["written_at"])
        # The last of a DAG stays; older ones are needed only as versions.
        newest = {row["dag_id"]: row for row in found}
        needed = [row for row in found if row["id"] in versions or row is newest[row["dag_id"]]]
        labels = self._labels(transaction, needed)
        return Serialized(
            by_version={row["id"]: labels.get(row["id"], {}) for row in needed if row["id"] in versions},
            by_dag={dag_id: labels.get(row["id"], {}) for dag_id, row in newest.items()},
        )

    def _labels(self, transaction: Transaction, rows: Iterable[Row]) -> Mapping[Any, Labels]:
        """By the id of the rows; a document that has just gone is missing."""
        labels: dict[Any, Labels] = {}
        unknown: list[Any] = []
        for row in rows:
            key = (row["dag_id"], row["dag_hash"])
            with self._lock:
                if key in self._known:
                    self._known.move_to_end(key)
                    labels[row["id"]] = self._known[key]
                else:
                    unknown.append(row["id"])
        query = queries.documents(transaction.schema, word=EXECUTOR_CONFIG_KEY)
        left = iter(unknown)
        while some := list(islice(left, _AT_A_TIME)):
            for row in transaction.ask(query, some):
                labels[row["id"]] = self._learn(row)
        return labels

    def _learn(self, row: Row) -> Labels:
        labels = _labels_in(row)
        with self._lock:
            self._known[row["dag_id"], row["dag_hash"]] = labels
            while len(self._known) > self._most:
                self._known.popitem(last=False)
        return labels


def _versions(rows: Iterable[Row]) -> frozenset[Any]:
    return frozenset(row["dag_version_id"] for row in rows if row["dag_version_id"] is not None)


def _labels_in(row: Row) -> Labels:
    """What a document says; it is looked into only when it has our word in it."""
    try:
        text = row["data"] or _decompressed(row["data_compressed"])
        if f'"{EXECUTOR_CONFIG_KEY}"' not in text:
            return {}
        document = json.loads(text)
        for mistake in mistakes_in_serialized_dag(document):
            log.warning("DAG %s: %s", row["dag_id"], mistake)
        return labels_of_serialized_dag(document)
    except (ValueError, zlib.error, RecursionError):
        log.warning(
            "The serialized DAG %s cannot be read, so all its tasks count as protected: let Airflow write it "
            "again with `airflow dags reserialize`.",
            row["dag_id"],
        )
        return None


def _decompressed(data: bytes | memoryview | None) -> str:
    """With [core] compress_serialized_dags it is zlib's."""
    return "" if data is None else zlib.decompress(bytes(data)).decode()
