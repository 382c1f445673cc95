"""FAILURES.md says which test shows what the hook does in each fault; here it is held to that."""

import ast
import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
FAILURES = TESTS / "drain_hook" / "FAILURES.md"
ROWS = 50
_NAMED = re.compile(r"`([\w/]+\.py)::(\w+)`")
_ROW = re.compile(r"^\| (\d+) \|(.*)\|$", re.MULTILINE)


def test_every_fault_has_its_row() -> None:
    rows = [int(number) for number, _ in _ROW.findall(FAILURES.read_text())]
    assert rows == list(range(1, ROWS + 1))


@pytest.mark.parametrize(("number", "row"), _ROW.findall(FAILURES.read_text()))
def test_a_row_names_a_test(number: str, row: str) -> None:
    """A gap beside a test is said as one; a row without any would be a silent gap."""
    assert _NAMED.search(row), number


@pytest.mark.parametrize(("path", "name"), sorted(set(_NAMED.findall(FAILURES.read_text()))))
def test_every_test_it_names_exists(path: str, name: str) -> None:
    tree = ast.parse((TESTS / path).read_text())
    functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    variables = {
        target.id
        for node in tree.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    assert name.lower().startswith("test")
    assert name in functions | variables
