"""What holds for every test: hypothesis finds the same examples each time, and no machine is too slow for it."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("steady", derandomize=True, deadline=None)
settings.load_profile("steady")
