"""A setting without documentation, or with another default than it says, fails here."""

import re
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from shared.configuration_mistakes import model_in
from shared.pools import Configuration, parse_configuration

REFERENCE = (Path(__file__).parents[2] / "docs" / "configuration.md").read_text()
ROWS: dict[str, str] = dict(re.findall(r"^\| `([^`]+)` \| (\S.*?) \| \S.*\|$", REFERENCE, flags=re.MULTILINE))


def keys_of(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Path and default of every key that holds a value."""
    for name, info in model.model_fields.items():
        is_list = "tuple" in str(info.annotation)
        path = f"{prefix}{info.alias or name}"
        inner = model_in(info.annotation)
        if inner is None or is_list:
            yield path, info.get_default(call_default_factory=True)
        if inner is not None:
            yield from keys_of(inner, f"{path}[]." if is_list else f"{path}.")


def as_documented(default: Any) -> str:
    if default is PydanticUndefined:
        return "required"
    if default is None:
        return "none"
    if isinstance(default, bool | dict | tuple):
        return f"`{yaml.safe_dump(list(default) if isinstance(default, tuple) else default).split()[0]}`"
    return f"`{default}`" if isinstance(default, str | Decimal) else f"`{default:g}`"


def documented(path: str) -> str:
    """Durations are documented as they are written."""
    return {"`5s`": "`5`", "`1m`": "`60`", "`40s`": "`40`", "`1h`": "`3600`"}.get(ROWS[path], ROWS[path])


def test_every_key_is_documented_with_its_default() -> None:
    expected = {path: as_documented(default) for path, default in keys_of(Configuration)}
    assert {path: documented(path) for path in ROWS} == expected


def test_the_example_is_a_configuration() -> None:
    (example,) = re.findall(r"```yaml\n(.*?)```", REFERENCE, flags=re.DOTALL)
    assert parse_configuration(example).pools[0].drain.max_wait == 6 * 3600
