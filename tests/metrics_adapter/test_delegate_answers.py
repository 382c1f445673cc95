"""Which answers of a delegate are passed back."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metrics_adapter.delegate_answers import (
    MOST_NAMES,
    Answer,
    NoAnswer,
    answer_from,
    is_path_segment,
    names_from,
)
from tests.metrics_adapter.provider import RESOURCES, VALUES, status


def body(content: Any) -> bytes:
    return json.dumps(content).encode()


def test_what_a_real_hpa_was_content_with_is_passed_back(recording: Callable[[str], Any]) -> None:
    """Odd ones, too: several items, old timestamps, none at all."""
    passed = 0
    for case in recording("b4")["cases"].values():
        reply = (case["sample_response"] or {}).get("body")
        if isinstance(reply, dict) and reply.get("kind") == VALUES["kind"]:
            assert answer_from(200, body(reply)).body == body(reply)
            passed += 1
    assert passed > 2


@pytest.mark.parametrize("code", [400, 403, 404, 429, 500, 503])
def test_its_errors_are_passed_back(code: int) -> None:
    said = body(status(code, "Whatever", "no metric s0-kafka"))
    assert answer_from(code, said) == Answer(code=code, body=said)


def test_that_we_are_refused_is_no_fault_of_who_asks() -> None:
    with pytest.raises(NoAnswer, match="does not accept the token of our service account"):
        answer_from(401, body(status(401, "Unauthorized", "Unauthorized")))


NO_ANSWERS = {
    "an HTML page": (200, b"<html>504</html>"),
    "nothing": (200, b""),
    "a list": (200, b"[]"),
    "another kind": (200, body(RESOURCES)),
    "an error without a Status": (500, b'{"error": "boom"}'),
    "a Status that is no error": (200, body(status(200, "", "fine"))),
    "values that are an error": (500, body(VALUES)),
    "a redirect": (302, b""),
    "what nests without end": (200, b"[" * 100_000),
    "a number of many digits": (200, b'{"kind": %s}' % (b"9" * 10_000)),
    "bytes that are no text": (200, b'{"kind": "\xff\xfe"}'),
}


@pytest.mark.parametrize(("code", "said"), NO_ANSWERS.values(), ids=NO_ANSWERS.keys())
def test_garbage_is_no_answer(code: int, said: bytes) -> None:
    with pytest.raises(NoAnswer):
        answer_from(code, said)


@pytest.mark.parametrize(("code", "said"), [(200, body(VALUES)), (404, body(RESOURCES)), (200, b"[[")])
def test_garbage_is_no_discovery(code: int, said: bytes) -> None:
    with pytest.raises(NoAnswer):
        names_from(code, said)


@given(code=st.integers(100, 599), said=st.binary(max_size=200))
def test_nothing_that_is_sent_surprises_us(code: int, said: bytes) -> None:
    """NoAnswer, and no other error."""
    for read in (answer_from, names_from):
        with pytest.raises(NoAnswer):
            read(code, said)


def test_names_are_those_of_discovery(recording: Callable[[str], Any]) -> None:
    (reply, *_) = (
        r["response"] for r in recording("a5")["requests"] if "/apis/external" in r["request_line"]
    )
    assert names_from(200, body(reply["body"])) == ("queue_depth",)


def test_odd_names_are_left_out() -> None:
    odd = ["a", "a", "b/status", "..", "", "50%", None, 7]
    resources = [*({"name": name} for name in odd), "text", {}]
    assert names_from(200, body(RESOURCES | {"resources": resources})) == ("a",)


def test_names_are_bounded() -> None:
    many = [{"name": f"metric-{index}"} for index in range(MOST_NAMES + 1)]
    assert len(names_from(200, body(RESOURCES | {"resources": many}))) == MOST_NAMES


@pytest.mark.parametrize("name", ["s0-kafka", "datadogmetric@default:hits", "a.b|c", "UPPER", "ümlaut"])
def test_real_names_go_through_a_path(name: str) -> None:
    assert is_path_segment(name)
