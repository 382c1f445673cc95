"""What a service does not need is not in its memory."""

import subprocess
import sys

import pytest

HEAVY = ("sqlalchemy", "requests", "oauthlib", "websocket", "rich", "celery.app")


@pytest.mark.parametrize("service", ["metrics_adapter", "drain_hook"])
def test_a_service_without_airflow_loads_no_library_that_it_does_not_use(service: str) -> None:
    """Some 20 MB: SQLAlchemy is loaded for the first Airflow pool, the others never."""
    code = f"import sys, {service}.__main__; print(*[name for name in {HEAVY} if name in sys.modules])"
    command = [sys.executable, "-c", code]
    loaded = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert loaded.stdout.split() == []
