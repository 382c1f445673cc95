"""What docs/airflow.md shows, for the tests that do what it says."""

from __future__ import annotations

import re
from pathlib import Path

PAGE = Path(__file__).parents[1] / "docs" / "airflow.md"


def snippets(language: str) -> list[str]:
    """The blocks of code of a language, as ```sql."""
    return re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)


def grants(dialect: str) -> str:
    """The statements that make the role; the first line of their block names the dialect."""
    (found,) = [text for text in snippets("sql") if text.lower().startswith(f"-- {dialect}")]
    return found
