"""Settings of the property tests."""

from hypothesis import HealthCheck, settings

# How long an example takes says nothing on a machine that others use, too.
settings.register_profile("drain_hook", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("drain_hook")
