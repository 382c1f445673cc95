"""Label selectors mean what they mean in Kubernetes."""

from __future__ import annotations

import json
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metrics_adapter.selectors import LONGEST, MOST_REQUIREMENTS, parse_selector, terms
from shared.errors import SelectorSyntaxError

RECORDINGS = Path(__file__).parents[1] / "recordings" / "kubernetes"
LABELS = {"pool": "default", "workload": "worker", "size": "5", "empty": ""}


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "pool=default",
        "pool==default",
        " pool = default , size=5 ",
        "pool in (default,other)",
        "pool in ( other , default )",
        "pool notin (other)",
        "pool!=other",
        "pool",
        "!absent",
        "! absent",
        "absent!=x",
        "absent notin (x,y)",
        "size>4",
        "size<6",
        "size > -1",
        "empty=",
        "empty",
        "empty in (,x)",
        "absent notin ()",
        "pool in (default),!absent,size>4,workload=worker",
    ],
)
def test_what_matches(text: str) -> None:
    """`!=` and `notin` also match where the key is absent; nothing at all selects everything."""
    assert parse_selector(text).matches(LABELS)


@pytest.mark.parametrize(
    "text",
    [
        "pool=other",
        "pool in (other)",
        "pool notin (default,x)",
        "pool!=default",
        "!pool",
        "absent",
        "absent=",
        "absent in (x)",
        "size>5",
        "size<5",
        "pool>1",
        "absent<1",
        "pool=default,absent",
        "example.com/pool=default",
    ],
)
def test_what_does_not_match(text: str) -> None:
    assert not parse_selector(text).matches(LABELS)


@pytest.mark.parametrize(
    "text",
    [
        "pool=default,",
        ",",
        "pool in default",
        "pool in (default",
        "pool in default)",
        "=default",
        "pool=de fault",
        "pool=-x",
        "a b",
        "!",
        "!pool=x",
        "size>x",
        "size>1.5",
        "pool in (a b)",
        "a/b/c=d",
        "/b=c",
        "pool=" + "x" * 64,
        "pöol=x",
        "pool=a=b",
        "pool>",
        "((",
    ],
)
def test_what_is_no_selector(text: str) -> None:
    with pytest.raises(SelectorSyntaxError):
        parse_selector(text)


def test_the_selectors_of_a_real_hpa_controller_are_understood() -> None:
    """matchLabels and matchExpressions as it serialises them into its queries."""
    cases = json.loads((RECORDINGS / "b1_hpa_external_queries.json").read_text())["cases"]
    lines = [line for case in cases.values() for line in case.get("requests", ())]
    queries = [urlsplit(line["request_line"].split()[1]).query for line in lines]
    selectors = [parse_qs(query)["labelSelector"][0] for query in queries if query]
    assert len(selectors) >= 2
    terms = {parse_selector(text).requirements for text in selectors}
    assert all(terms)


@given(st.text(alphabet="ab()!=<>,. in notin/-_1", max_size=30))
def test_any_text_is_a_selector_or_a_syntax_error(text: str) -> None:
    try:
        selector = parse_selector(text)
    except SelectorSyntaxError:
        return
    assert selector.matches(LABELS) in (True, False)


@given(
    st.sampled_from(["=", "!=", "in", "notin"]),
    st.sampled_from(["default", "other", ""]),
    st.sampled_from(["pool", "absent"]),
)
def test_each_operator_is_the_negation_of_its_opposite(operator: str, value: str, key: str) -> None:
    opposite = {"=": "!=", "!=": "=", "in": "notin", "notin": "in"}

    def term(operator: str) -> str:
        return f"{key} {operator} ({value})" if operator.isalpha() else f"{key}{operator}{value}"

    assert parse_selector(term(operator)).matches(LABELS) != parse_selector(term(opposite[operator])).matches(
        LABELS
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("pool", ["pool"]),
        ("a,b , c", ["a", "b ", " c"]),
        (",a,", ["", "a", ""]),
        ("a in (x,y),b", ["a in (x,y)", "b"]),
        ("a in (x,y)b in (z,w),c", ["a in (x,y)b in (z,w)", "c"]),
        ("a),b", ["a)", "b"]),
        ("a,b in (x,y", ["a", "b in (x,y"]),
    ],
)
def test_terms_end_at_commas_outside_parentheses(text: str, expected: list[str]) -> None:
    assert list(terms(text)) == expected


def test_a_long_selector_is_taken_apart_in_one_go() -> None:
    """Going back at each comma took minutes."""
    assert len(list(terms(",".join(["pool in (default,other)", *["pool=default"] * 50_000])))) == 50_001


@pytest.mark.parametrize(
    ("text", "is_taken"),
    [
        (",".join(["pool=default"] * MOST_REQUIREMENTS), True),
        (",".join(["pool=default"] * (MOST_REQUIREMENTS + 1)), False),
        ("pool in (default".ljust(LONGEST - 1) + ")", True),
        ("pool in (default".ljust(LONGEST) + ")", False),
        ("," * 1_000_000, False),
    ],
)
def test_a_selector_without_end_is_refused_at_once(text: str, is_taken: bool) -> None:
    """Anybody who may read a metric can send a megabyte of it; meanwhile nobody else would be answered."""
    if is_taken:
        assert parse_selector(text).matches(LABELS)
    else:
        with pytest.raises(SelectorSyntaxError, match="at most 16384 characters and 100 requirements"):
            parse_selector(text)


@pytest.mark.parametrize("number", ["9" * 5000, "-" + "9" * 19, "٣"])
def test_numbers_that_no_label_is_compared_with(number: str) -> None:
    """Kubernetes reads 64 bits in ASCII."""
    with pytest.raises(SelectorSyntaxError):
        parse_selector(f"size>{number}")


def test_an_error_repeats_no_more_than_the_beginning() -> None:
    """It becomes the condition of an HPA."""
    with pytest.raises(SelectorSyntaxError) as caught:
        parse_selector("(" * 10_000)
    assert len(str(caught.value)) < 400
