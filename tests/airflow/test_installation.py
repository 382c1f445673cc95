"""What is said where an Airflow cannot be installed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.airflow.installation import LeftOut, install
from tests.airflow.releases import AIRFLOW_2


def test_a_release_without_its_python_is_left_out() -> None:
    """With what would be right, and before anything is downloaded."""
    release = replace(AIRFLOW_2, pythons=((3, 98), (3, 99)))
    with pytest.raises(LeftOut, match=r"runs on Python 3\.98 or 3\.99, .* only 3\."):
        install(release)
