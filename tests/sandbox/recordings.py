"""Recordings of a real cluster by their file names."""

import json
from pathlib import Path
from typing import Any

DIRECTORY = Path(__file__).parent.parent / "recordings" / "kubernetes"


def read(name: str) -> Any:
    """The recording's content."""
    return json.loads((DIRECTORY / f"{name}.json").read_text())
