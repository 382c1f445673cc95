"""docs/performance.md holds what was measured, at the places made for it."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from tests.bench.figures import Figures, save
from tests.bench.page import PAGE, tables, with_table
from tests.bench.planning import Measured


def test_a_table_takes_the_place_of_the_one_before() -> None:
    page = "Before.\n<!-- one -->\nold\n<!-- /one -->\nAfter.\n"
    expected = "Before.\n<!-- one -->\n```text\nhead\nrow\n```\n<!-- /one -->\nAfter.\n"
    assert with_table(page, "one", ["head  ", "row"]) == expected
    assert with_table(expected, "one", ["head", "row"]) == expected
    with pytest.raises(ValueError, match="no place for the table two"):
        with_table(page, "two", [])


def test_what_has_not_been_run_leaves_the_page_as_it_is(tmp_path: Path) -> None:
    assert list(tables(tmp_path)) == []


def test_tables_are_those_that_the_run_printed(tmp_path: Path) -> None:
    measured = [Measured(pods=pods, busy=0.5, figures=Figures.of([pods / 1e5])) for pods in (10, 1_000)]
    (tmp_path / "planning").mkdir()
    save(tmp_path / "planning", [asdict(one) for one in measured])
    assert json.loads((tmp_path / "planning.json").read_text())["cores"] > 0
    ((name, lines),) = tables(tmp_path)
    assert name == "planning"
    assert lines[2].split() == ["1000", "pods,", "50%", "busy", "1", "10.0", "10.0", "1.00"]


@pytest.mark.parametrize("name", ["scale-downs", "scale-downs-phases", "scale-downs-growth", "planning"])
def test_the_page_has_a_place_for_each_table(name: str) -> None:
    assert with_table(PAGE.read_text(), name, ["a table"]) != PAGE.read_text()
