"""The code of a ProcessPool's fork server and worker processes, which import this package and little more."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def run_chunk(function: Callable[..., Any], chunk: tuple[tuple[Any, ...], ...]) -> list[Any]:
    """Return the function's results for a chunk of a map, a tuple of argument tuples."""
    return [function(*arguments) for arguments in chunk]
