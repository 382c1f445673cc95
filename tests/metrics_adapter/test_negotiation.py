"""What an Accept header asks for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from metrics_adapter.negotiation import LONGEST, accepts_json, discovery_version

V2 = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
V2BETA1 = "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList"


def accept_headers(document: object) -> Iterator[str]:
    """Every Accept header anywhere in a recording."""
    if isinstance(document, dict):
        yield from accept_headers(list(document.values()))
    elif isinstance(document, list):
        match document:
            case ["Accept", str(value)]:
                yield value
            case _:
                for each in document:
                    yield from accept_headers(each)


@pytest.mark.parametrize("prefix", ["a1", "a2", "a5", "b1"])
def test_every_client_recorded_on_a_real_cluster_takes_json(
    prefix: str, recording: Callable[[str], Any]
) -> None:
    headers = set(accept_headers(recording(prefix)))
    assert headers
    assert all(map(accepts_json, headers))


@pytest.mark.parametrize(
    ("accept", "accepted"),
    [
        ("", True),
        ("*/*", True),
        ("application/vnd.kubernetes.protobuf, */*", True),
        ("application/json;as=Table;v=v1;g=meta.k8s.io,application/json", True),
        ("application/*;q=0.1", True),
        ("APPLICATION/JSON", True),
        ("application/vnd.kubernetes.protobuf", False),
        ("application/yaml", False),
        ("text/html,application/xml;q=0.9", False),
        ("application/json;q=0", False),
        ("application/json;q=x", False),
    ],
)
def test_what_cannot_be_json_is_refused(accept: str, accepted: bool) -> None:
    assert accepts_json(accept) is accepted


@pytest.mark.parametrize(
    ("accept", "version"),
    [
        (f"{V2},{V2BETA1}", "v2"),
        (V2BETA1, "v2beta1"),
        (f"{V2BETA1},{V2}", "v2beta1"),
        (f"{V2};q=0.5,{V2BETA1}", "v2beta1"),
        (f"{V2},application/json", "v2"),
        (f"application/json,{V2};q=0.9", None),
        ("application/json;g=apidiscovery.k8s.io;v=v3;as=APIGroupDiscoveryList,application/json", None),
        ("application/json;as=Table;v=v1;g=meta.k8s.io,application/json", None),
        ("application/json", None),
        ("*/*", None),
        ("", None),
    ],
)
def test_aggregated_discovery_is_for_those_who_ask_for_it(accept: str, version: str | None) -> None:
    """Whoever asks for plain JSON gets the legacy form, and its fallback works."""
    assert discovery_version(accept) == version


def test_a_header_without_end_counts_as_none() -> None:
    accept = f"{V2},text/html".ljust(LONGEST + 1)
    assert (accepts_json(accept), discovery_version(accept)) == (True, None)
    assert not accepts_json("text/html".ljust(LONGEST))
