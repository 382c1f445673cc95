"""What holds for all tests: how thoroughly rules are tried out, and that logging is left as it was."""

import logging
import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

# How long an example takes says nothing on a machine that others use, too.
settings.register_profile("thorough", deadline=None, suppress_health_check=[HealthCheck.too_slow])
# Quickly at home, more in CI, as asked with --hypothesis-profile.
settings.register_profile("quick", parent=settings.get_profile("thorough"), max_examples=30)
settings.load_profile("thorough" if os.environ.get("CI") else "quick")


@pytest.fixture(autouse=True)
def logging_as_it_was() -> Iterator[None]:
    """A test that runs a whole program also sets up its logging, and later ones read what is logged."""
    root = logging.getLogger()
    level, handlers = root.level, root.handlers[:]
    yield
    root.setLevel(level)
    root.handlers[:] = handlers
