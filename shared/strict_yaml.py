"""YAML read so that what looks like a slip is one: a key that stands twice is refused. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable
from typing import Any

import yaml


def load_yaml(text: str) -> Any:
    """The document of a YAML text; raises ValueError with a sentence that repeats no value of the text."""
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        raise ValueError(_sentence(error)) from error
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        # PyYAML lets through what Python says of impossible dates and odd tags.
        raise ValueError("a date or a tagged value cannot be read; put it in quotes") from error


class _Loader(yaml.SafeLoader):
    """PyYAML keeps the last of two equal keys without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        keys = Counter(key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode))
        if repeated := sorted(key for key, count in keys.items() if count > 1):
            raise yaml.constructor.ConstructorError(
                None, None, f"the key {', '.join(repeated)} stands twice", node.start_mark
            )
        return super().construct_mapping(node, deep=deep)


def _sentence(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or getattr(error, "reason", None) or "it cannot be read"
    return problem if mark is None else f"{problem} (line {mark.line + 1}, column {mark.column + 1})"
