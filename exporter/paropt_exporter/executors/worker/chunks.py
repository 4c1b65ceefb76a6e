"""Runs a chunk of a map in a worker."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


def run_chunk(function: Callable[..., T], chunk: tuple[tuple[Any, ...], ...]) -> list[T]:
    """Return the function's results for a chunk of argument tuples."""
    return [function(*arguments) for arguments in chunk]
