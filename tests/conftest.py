"""What holds for all tests: no network, and the same examples on every run, however busy the machine is."""

from __future__ import annotations

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_VERBOSITY"] = "error"

from hypothesis import HealthCheck, settings

settings.register_profile("ionbed", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("ionbed")
