"""What a delegate answers: which of it is passed back, which names it brings, and what is no answer. Pure."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from metrics_adapter.external_metrics import KIND
from shared.errors import CeleryHpaError

MOST_BYTES = 256 << 10
"""Of values: reading more would hold up those who ask for our own metrics. Usual ones have 300."""
MOST_BYTES_OF_DISCOVERY = 1 << 20
"""Which is read in the background, and only when it has changed."""
MOST_NAMES = 1000
"""That are shown of it; the others can be asked for all the same."""


class NoAnswer(CeleryHpaError):
    """The delegate gave no usable answer; the text ends a sentence that begins with its name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A list of values, or a Status, as it came."""

    code: int
    body: bytes


def answer_from(code: int, body: bytes) -> Answer:
    """The answer to a request for a metric. Raises NoAnswer for what no provider of metrics would say."""
    kind = _json_object(code, body).get("kind")
    if code == 401:
        # To whoever asked it would seem that their own credentials are refused.
        raise NoAnswer("does not accept the token of our service account (401)")
    if (code == 200 and kind == KIND) or (400 <= code <= 599 and kind == "Status"):
        return Answer(code=code, body=body)
    raise NoAnswer(f"answered {code} with what is neither values nor a Status")


def names_from(code: int, body: bytes) -> tuple[str, ...]:
    """The metrics in its discovery document, each once. Raises NoAnswer when it is none."""
    document = _json_object(code, body)
    resources = document.get("resources")
    if code != 200 or document.get("kind") != "APIResourceList" or not isinstance(resources, list):
        raise NoAnswer(f"answered {code} with what is no discovery document")
    names = (one.get("name") for one in resources if isinstance(one, dict))
    usable = (name for name in names if isinstance(name, str) and is_path_segment(name))
    return tuple(dict.fromkeys(usable))[:MOST_NAMES]


def is_path_segment(name: str) -> bool:
    """Whether Kubernetes takes this for a name in a path, and we can pass it on as one."""
    return name not in ("", ".", "..") and "/" not in name and "%" not in name


def _json_object(code: int, body: bytes) -> dict[str, Any]:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise NoAnswer(f"answered {code} with what is no JSON") from error
    if not isinstance(document, dict):
        raise NoAnswer(f"answered {code} with what is no JSON object")
    return document
