"""The Table representation, which is what `kubectl get` asks for."""

from collections.abc import Iterable
from datetime import datetime

from deploy.sandbox.apiserver.printers import Column, columns_of
from deploy.sandbox.resources import Document, Resource


def wants_table(accept: str) -> bool:
    """Whether a client asks for a Table in the version that is served."""
    return any(
        {"as=Table", "v=v1", "g=meta.k8s.io"} <= {part.strip() for part in offer.split(";")}
        for offer in accept.split(",")
    )


def table(
    resource: Resource,
    documents: Iterable[Document],
    *,
    resource_version: str,
    include_object: str,
    now: datetime,
) -> Document:
    """Objects as rows. `include_object` is Metadata, Object or None, as in the query."""
    columns = columns_of(resource)
    return {
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": {"resourceVersion": resource_version},
        "columnDefinitions": [_definition(column) for column in columns],
        "rows": [
            {"cells": [column.cell(document, now) for column in columns]} | _object(document, include_object)
            for document in documents
        ],
    }


def _definition(column: Column) -> Document:
    return {
        "name": column.name,
        "type": column.type,
        "format": "name" if column.name == "Name" else "",
        "description": "",
        "priority": int(column.wide),
    }


def _object(document: Document, include: str) -> Document:
    if include == "None":
        return {}
    if include == "Object":
        return {"object": document}
    kind = {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1"}
    return {"object": kind | {"metadata": document["metadata"]}}
