"""Kubernetes' own schemas, of the oldest version that we are for and the newest, and a validator for them.

It knows the words that these schemas are written in; another one is an error, and is not passed over.
A field that the schema does not know is one, too, as with `kubectl apply --validate=strict`.
"""

import base64
import binascii
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

from tests.deploy.manifests import ROOT, Document

DIRECTORY = ROOT / "tests" / "recordings" / "schemas"
OLDEST, NEWEST = "1.28", "1.37"
TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "array": (list,),
    "object": (dict,),
    "null": (type(None),),
}
WORDS = {"$ref", "additionalProperties", "enum", "format", "items", "oneOf", "properties", "required", "type"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Schemas:
    """The schemas of one version of Kubernetes."""

    kinds: dict[str, str]
    definitions: dict[str, Any]

    def problems(self, document: Document) -> list[str]:
        """Everything about a document that this version does not take, with the field."""
        kind = f"{document['apiVersion']} {document['kind']}"
        if kind not in self.kinds:
            return [f"{kind} is not known"]
        return list(self._problems({"$ref": self.kinds[kind]}, document, document["kind"]))

    def _problems(self, schema: Any, value: Any, field: str) -> Iterator[str]:
        if unknown := schema.keys() - WORDS:
            raise ValueError(f"schemas of {field} use words that are not understood: {sorted(unknown)}")
        if "$ref" in schema:
            yield from self._problems(self.definitions[schema["$ref"]], value, field)
            return
        if "oneOf" in schema:
            if all(list(self._problems(option, value, field)) for option in schema["oneOf"]):
                yield f"{field}: {value!r} is of none of the types it may have"
            return
        if not _is_of_type(schema, value):
            yield f"{field}: {value!r} is no {_types(schema)[0]}"
            return
        yield from _problems_of_value(schema, value, field)
        if isinstance(value, dict):
            yield from self._problems_of_object(schema, value, field)
        elif isinstance(value, list):
            for index, item in enumerate(value):
                yield from self._problems(schema.get("items", {}), item, f"{field}[{index}]")

    def _problems_of_object(self, schema: Any, value: Document, field: str) -> Iterator[str]:
        properties, others = schema.get("properties", {}), schema.get("additionalProperties", {})
        for name in schema.get("required", ()):
            if value.get(name) is None:
                yield f"{field}.{name} is required"
        for name, inner in value.items():
            known = properties.get(name, others)
            if known is False:
                yield f"{field}.{name} is not known"
            else:
                yield from self._problems(known, inner, f"{field}.{name}")


def _types(schema: Any) -> list[str]:
    declared = schema.get("type", [])
    return declared if isinstance(declared, list) else [declared]


def _is_of_type(schema: Any, value: Any) -> bool:
    types = _types(schema)
    if isinstance(value, bool):
        return not types or "boolean" in types
    return not types or any(isinstance(value, TYPES[name]) for name in types)


def _problems_of_value(schema: Any, value: Any, field: str) -> Iterator[str]:
    if value not in schema.get("enum", [value]):
        yield f"{field}: {value!r} is none of {schema['enum']}"
    if schema.get("format") == "int32" and isinstance(value, int) and not -(2**31) <= value < 2**31:
        yield f"{field}: {value} has more than 32 bits"
    if schema.get("format") == "byte" and isinstance(value, str) and not _is_base64(value):
        yield f"{field} is no base64"


def _is_base64(text: str) -> bool:
    try:
        base64.b64decode(text, validate=True)
    except binascii.Error:
        return False
    return True


@cache
def schemas_of(version: str) -> Schemas:
    """The schemas of a version of Kubernetes, such as "1.28"."""
    document = json.loads((DIRECTORY / f"kubernetes-{version}.json").read_text())
    return Schemas(kinds=document["kinds"], definitions=document["definitions"])
