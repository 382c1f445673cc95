"""docs/performance.md holds what was measured, at the places made for it."""

import json
import re
from dataclasses import asdict
from pathlib import Path

import pytest

from tests.bench import queries, soak
from tests.bench.asker import Answers
from tests.bench.figures import Figures, Target, save, save_targets
from tests.bench.page import PAGE, pictures, tables, with_table
from tests.bench.planning import Measured
from tests.bench.test_asker import sample
from tests.bench.test_background import measured as fleet
from tests.bench.test_scale_downs import measured as scale_down


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


def test_the_page_has_a_place_for_each_table_and_shows_each_picture(tmp_path: Path) -> None:
    figures, sizes = Figures.of([0.1]), (10, 1_000)
    answers = Answers(per_second=1.0, p50_ms=1.0, p99_ms=1.0, slowest_ms=1.0, statuses={"200": 1}, sent=1)
    results = {
        "planning": [asdict(Measured(pods=pods, busy=0.5, figures=figures)) for pods in sizes],
        "scale-downs": [asdict(scale_down(workers, max(1, workers // 10), 0.1)) for workers in sizes],
        "real-workers": [asdict(scale_down(50, 5, 0.1))],
        "queries": [
            asdict(queries.Measured(what="one", answers=answers, cpu_us=1.0, memory_mib=1.0, load=1.0))
        ],
        "background": {"fleets": [asdict(fleet(workers, 1, 0.1)) for workers in sizes], "left": {}},
        "soak": [asdict(sample(module)) for module in soak.MODULES],
    }
    for name, document in results.items():
        save(tmp_path / name, document)
    save_targets(tmp_path, {"soak": [Target(what="files", measured=1.0, limit=2.0)]})
    page = PAGE.read_text()
    found = dict(tables(tmp_path))
    assert len(found) == len(results) + 3, "the scale-downs have three, the targets one"
    assert set(re.findall(r"<!-- ([a-z-]+) -->", page)) == found.keys()
    assert [name for name, _ in pictures(tmp_path) if f"performance-{name}.svg" not in page] == []
