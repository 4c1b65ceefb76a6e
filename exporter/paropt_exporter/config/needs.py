"""Follow the needs of stages."""

from __future__ import annotations

from collections.abc import Callable, Iterable


def find_reachable(starts: Iterable[str], get_next: Callable[[str], Iterable[str]]) -> set[str]:
    """Return all stages that can be reached from `starts` by `get_next`, including `starts`."""
    found: set[str] = set()
    waiting = [*starts]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += get_next(name)
    return found
