"""Effort of the property-based tests: HYPOTHESIS_PROFILE is quick (the default) or long."""

import os

from hypothesis import HealthCheck, settings

settings.register_profile(
    "quick", max_examples=60, deadline=None, derandomize=True,
    suppress_health_check=list(HealthCheck), database=None,
)  # fmt: skip
settings.register_profile("long", settings.get_profile("quick"), max_examples=5000,
                          derandomize=False)  # fmt: skip
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))
