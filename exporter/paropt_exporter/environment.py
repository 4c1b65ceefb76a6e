"""Copy the environment while other threads may change it."""

from __future__ import annotations

import os


def copy_environment() -> dict[str, str]:
    """Return a copy of this process's environment. `dict(os.environ)` raises KeyError if a variable is removed."""
    return {name: value for name in os.environ if (value := os.environ.get(name)) is not None}
