"""Labels from serialized DAGs: their hashes are asked for each time, a document only when its hash is new."""

from __future__ import annotations

import json
import logging
import threading
import zlib
from collections import OrderedDict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from shared import airflow_queries as queries
from shared.airflow_connections import Transaction, in_steps
from shared.airflow_labels import (
    EXECUTOR_CONFIG_KEY,
    NO_CODE,
    UNREADABLE,
    CodeLabels,
    labels_of_serialized_dag,
    mistakes_in_serialized_dag,
)
from shared.airflow_queries import Document, Slot, Stored

log = logging.getLogger(__name__)

_AT_A_TIME = 20
"""Documents in one query: what was read before a deadline is kept for the next reading."""
_MOST_KNOWN = 20_000
"""Documents whose labels are kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Serialized:
    """What is said in the serialized DAGs that a reading is about."""

    by_version: Mapping[Any, CodeLabels]
    """By dag_version_id; empty for Airflow 2, which has no versions."""
    by_dag: Mapping[str, CodeLabels]
    """By dag_id: of the newest version of those that task instances name, else of the newest there is."""
    has_versions: bool

    def of(self, slot: Slot) -> CodeLabels:
        """The code of the version that a task instance names, where it names one."""
        if self.has_versions and slot.dag_version_id is not None:
            return self.by_version.get(slot.dag_version_id, NO_CODE)
        return self.of_dag(slot.dag_id)

    def of_dag(self, dag_id: str) -> CodeLabels:
        """Airflow 2 deletes the document of a DAG that it does not find any more, while its tasks run on."""
        return self.by_dag.get(dag_id, NO_CODE)


class LabelCache:
    """The labels of documents by their hash, the least recently used dropped first."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: OrderedDict[tuple[str, str], CodeLabels] = OrderedDict()
        """By dag_id and dag_hash."""

    def read(
        self, transaction: Transaction, *, slots: Iterable[Slot], dag_ids: Collection[str]
    ) -> Serialized:
        """The labels of the versions that task instances name, and of the newest of DAGs that none names."""
        has_versions = transaction.schema.has_versions
        versions = _versions(slots) if has_versions else frozenset()
        found = transaction.ask(queries.hashes_of_versions(), versions) if versions else []
        others = set(dag_ids).difference(stored.dag_id for stored in found)
        found += transaction.ask(queries.hashes_of_latest(transaction.schema), others) if others else []
        found.sort(key=lambda stored: stored.written_at)
        # The last of a DAG stays; older ones are needed only as versions.
        newest = {stored.dag_id: stored for stored in found}
        needed = [one for one in found if one.id in versions or one is newest[one.dag_id]]
        labels = self._labels(transaction, needed)
        return Serialized(
            by_version={one.id: labels.get(one.id, NO_CODE) for one in needed if one.id in versions},
            by_dag={dag_id: labels.get(stored.id, NO_CODE) for dag_id, stored in newest.items()},
            has_versions=has_versions,
        )

    def _labels(self, transaction: Transaction, needed: Iterable[Stored]) -> Mapping[Any, CodeLabels]:
        """By their id; a document that has just gone is missing."""
        labels: dict[Any, CodeLabels] = {}
        unknown: list[Any] = []
        for stored in needed:
            key = (stored.dag_id, stored.dag_hash)
            with self._lock:
                if key in self._known:
                    self._known.move_to_end(key)
                    labels[stored.id] = self._known[key]
                else:
                    unknown.append(stored.id)
        query = queries.documents(transaction.schema, word=EXECUTOR_CONFIG_KEY)
        for some in in_steps(unknown, most=_AT_A_TIME):
            for document in transaction.ask(query, some):
                labels[document.id] = self._learn(document)
        return labels

    def _learn(self, document: Document) -> CodeLabels:
        labels = _labels_in(document)
        with self._lock:
            self._known[document.dag_id, document.dag_hash] = labels
            while len(self._known) > _MOST_KNOWN:
                self._known.popitem(last=False)
        return labels


def _versions(slots: Iterable[Slot]) -> frozenset[Any]:
    return frozenset(slot.dag_version_id for slot in slots if slot.dag_version_id is not None)


def _labels_in(stored: Document) -> CodeLabels:
    """What a document says; it is looked into only when it has our word in it."""
    try:
        text = stored.data or _decompressed(stored.data_compressed)
        if f'"{EXECUTOR_CONFIG_KEY}"' not in text:
            return CodeLabels()
        document = json.loads(text)
        for mistake in mistakes_in_serialized_dag(document):
            log.warning("DAG %s: %s", stored.dag_id, mistake)
        return labels_of_serialized_dag(document)
    except (ValueError, zlib.error, RecursionError):
        log.warning(
            "The serialized DAG %s cannot be read, so all its tasks count as protected: let Airflow write it "
            "again with `airflow dags reserialize`.",
            stored.dag_id,
        )
        return UNREADABLE


def _decompressed(data: bytes | memoryview | None) -> str:
    """With [core] compress_serialized_dags it is zlib's."""
    return "" if data is None else zlib.decompress(bytes(data)).decode()
