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


def map_needs_among(chosen: Collection[str], needs: Mapping[str, Sequence[str]]) -> dict[str, tuple[str, ...]]:
    """Return the chosen stages that each of these needs, directly or through stages that are not chosen.

    `needs` has the needs of all stages. Stages with the same needs share a tuple, since a thousand of them may need a
    stage that is not chosen and needs a thousand others.
    """
    shared = {own: _find_among(chosen, own, needs) for own in {tuple(needs.get(name, ())) for name in chosen}}
    return {name: shared[tuple(needs.get(name, ()))] for name in chosen}


def _find_among(chosen: Collection[str], own: tuple[str, ...], needs: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    if all(need in chosen for need in own):
        return own
    found = find_reachable(own, lambda each: () if each in chosen else needs.get(each, ()))
    return tuple(sorted(each for each in found if each in chosen))
