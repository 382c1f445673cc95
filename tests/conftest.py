"""How thoroughly rules are tried out: quickly at home, more in CI, as asked with --hypothesis-profile."""

import os

from hypothesis import HealthCheck, settings

# How long an example takes says nothing on a machine that others use, too.
settings.register_profile("thorough", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("quick", parent=settings.get_profile("thorough"), max_examples=30)
settings.load_profile("thorough" if os.environ.get("CI") else "quick")
