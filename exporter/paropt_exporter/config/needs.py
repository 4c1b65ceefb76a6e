"""Follow the needs of stages."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence


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


def find_needs_among(chosen: Collection[str], name: str, needs: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """Return the chosen stages that a stage needs, directly or through stages that are not chosen.

    `needs` has the needs of all stages.
    """
    own = needs.get(name, ())
    if all(need in chosen for need in own):
        return tuple(own)
    found = find_reachable(own, lambda each: () if each in chosen else needs.get(each, ()))
    return tuple(sorted(each for each in found if each in chosen))
