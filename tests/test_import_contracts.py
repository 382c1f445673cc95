"""What a module says of itself is what import-linter holds it to."""

import ast
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_every_module_that_calls_itself_pure_is_held_to_it() -> None:
    """Otherwise a new decision could read the clock, and nobody would notice."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (held,) = (set(c["source_modules"]) for c in contracts if c["name"].startswith("Decisions"))
    pure = {
        ".".join(file.relative_to(ROOT).with_suffix("").parts)
        for package in ("shared", "metrics_adapter", "drain_hook")
        for file in (ROOT / package).rglob("*.py")
        if "Pure" in (ast.get_docstring(ast.parse(file.read_text())) or "")
    }
    assert pure - held == set()
