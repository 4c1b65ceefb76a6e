"""Copy the environment while other threads may change it."""

from __future__ import annotations

import os


def copy_environment() -> dict[str, str]:
    """Return a copy of this process's environment. `dict(os.environ)` raises KeyError if a variable is removed.

    A variable with an empty name, which `env =x` makes, is left out: Python starts no program with it.
    """
    return {name: value for name in os.environ if name and (value := os.environ.get(name)) is not None}
