"""Which form of an answer an Accept header asks for. Pure.

We speak JSON alone. The HPA controller prefers protobuf and takes `*/*`; kubectl prefers a Table and takes
plain JSON.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from metrics_adapter.documents import DISCOVERY_GROUP, DISCOVERY_VERSIONS, JSON

LONGEST = 4096
"""Characters of an Accept header; a longer one counts as none. A megabyte takes seconds to read."""
LONGEST_REMEMBERED = 256
"""Characters of a header; each client sends the same one again and again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MediaRange:
    """One entry of an Accept header."""

    type: str
    parameters: Mapping[str, str]
    quality: float = 1.0


def media_ranges(accept: str) -> tuple[MediaRange, ...]:
    """The entries in the client's order of preference; those it refuses (q=0) are left out."""
    ranges = (_media_range(entry) for entry in accept.split(",") if entry.strip())
    return tuple(sorted((r for r in ranges if r.quality > 0), key=lambda r: -r.quality))


def _media_range(entry: str) -> MediaRange:
    type_, *rest = (part.strip() for part in entry.split(";"))
    parameters = {
        key.strip().lower(): value.strip().strip('"')
        for key, _, value in (part.partition("=") for part in rest)
    }
    return MediaRange(type=type_.lower(), parameters=parameters, quality=_quality(parameters.get("q", "1")))


def _quality(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0


def accepts_json(accept: str) -> bool:
    """Whether plain JSON will do; without a header it will."""
    if len(accept) > LONGEST:
        return True
    return _known_to_accept_json(accept) if len(accept) <= LONGEST_REMEMBERED else _accepts_json(accept)


def _accepts_json(accept: str) -> bool:
    if not accept.strip():
        return True
    return any(r.type in (JSON, "application/*", "*/*") for r in media_ranges(accept))


_known_to_accept_json = lru_cache(maxsize=64)(_accepts_json)


def discovery_version(accept: str) -> str | None:
    """The version of aggregated discovery that is wanted most; None when the plain form is."""
    if len(accept) > LONGEST:
        return None
    for wanted in media_ranges(accept):
        if wanted.type != JSON:
            continue
        parameters = wanted.parameters
        if "as" not in parameters:
            return None
        if parameters["as"] == "APIGroupDiscoveryList" and parameters.get("g") == DISCOVERY_GROUP:
            version = parameters.get("v", "")
            if version in DISCOVERY_VERSIONS:
                return version
    return None
