"""A figure of our own without documentation, or documentation without a figure, fails here."""

import re

from tests.deploy.telemetry import TELEMETRY, figures


def test_every_figure_is_documented() -> None:
    """By the name that a query needs."""
    documented = re.findall(r"^\| `(\w+)` \|", TELEMETRY, flags=re.MULTILINE)
    assert sorted(documented) == sorted(figures())
