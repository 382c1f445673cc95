"""What the code can say: its texts with `…` where something is filled in, to hold against what docs quote."""

import ast
import re
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

from tests.deploy.manifests import ROOT

PACKAGES = ("drain_hook", "metrics_adapter", "shared")
GAP = "…"
FEWEST_LETTERS = 10
"""Fewer say nothing: a text of gaps only would fit every sentence."""
_BETWEEN = re.compile(r"(?<=[.:;,|]) ")
_FILLED_IN = re.compile(r"%[-.\d]*[sdfgr]|\{[^{}]*\}")


@cache
def texts() -> tuple[str, ...]:
    """Every text in the code that may be part of a sentence."""
    found = {text for path in _sources() for text in _texts_in(ast.parse(path.read_text()))}
    return tuple(text for text in found if _letters(text))


@cache
def complaints() -> tuple[str, ...]:
    """What is logged as a warning or an error, but for texts that are made elsewhere."""
    found = {
        text
        for path in _sources()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and _is_complaint(node.func)
        for text in filter(None, [_text(node.args[0])])
    }
    return tuple(sorted(text for text in found if _letters(text) > len("Pool")))


def fits(quoted: str, text: str) -> bool:
    """Whether one is the other, or a part of it, with something filled in or left out."""
    if quoted == text:
        return True
    is_part = _letters(quoted) >= FEWEST_LETTERS and re.search(_pattern(quoted), text)
    return bool(is_part) or begets(text, quoted)


def begets(text: str, sentence: str) -> bool:
    """Whether the sentence is the text with something filled in."""
    return _letters(text) >= FEWEST_LETTERS and re.fullmatch(_pattern(text), sentence) is not None


def unknown_clauses(quoted: str, known: Sequence[str]) -> list[str]:
    """Clauses of a quotation that stand in none of the known texts; what is filled in is left out as `…`."""
    clauses = [clause.strip(" .:;,|") for part in quoted.split(GAP) for clause in _BETWEEN.split(part)]
    return [clause for clause in clauses if not any(clause in text for text in known)]


def _pattern(text: str) -> str:
    return ".*".join(map(re.escape, text.split(GAP)))


def _letters(text: str) -> int:
    return sum(character.isalpha() for character in text)


def _sources() -> Iterator[Path]:
    for package in PACKAGES:
        yield from (ROOT / package).rglob("*.py")


def _texts_in(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        text = _text(node)
        if text is not None:
            yield text


def _text(node: ast.AST) -> str | None:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return _FILLED_IN.sub(GAP, node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else GAP for part in node.values)
    return None


def _is_complaint(function: ast.expr) -> bool:
    return (
        isinstance(function, ast.Attribute)
        and isinstance(function.value, ast.Name)
        and function.value.id == "log"
        and function.attr in {"warning", "error", "exception"}
    )
