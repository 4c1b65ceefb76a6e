"""Check the graph that the stages' needs make: every name must exist, and nothing may wait for itself."""

from __future__ import annotations

from collections.abc import Iterator

from paropt_exporter.config import raw_yaml
from paropt_exporter.config.faults import Fault, Location, did_you_mean
from paropt_exporter.config.raw_yaml import RawStage
from paropt_exporter.config.units import shown

# Circles that hang on circles take a round each; a file with more of them than this has said enough.
_MOST_ROUNDS = 10

_Needs = dict[str, list[str]]


def unknown(stages: list[RawStage]) -> Iterator[Fault]:
    """Yield needs that name no other stage, or the same one twice."""
    names = raw_yaml.names(stages)
    for place, stage in stages:
        seen: set[object] = set()
        for index, need in enumerate(raw_yaml.words(stage.get("needs"))):
            where = (*place, "needs", index)
            if need in seen:
                yield Fault(location=where, message=f"{shown(need)} stands here twice")
            elif need == raw_yaml.name(stage):
                yield Fault(location=where, message="a stage can't need itself")
            elif need not in names:
                yield Fault(location=where, message=f"unknown stage {shown(need)}{did_you_mean(need, names)}")
            seen.add(need)


def circles(stages: list[RawStage]) -> Iterator[Fault]:
    """Yield a fault for each circle that the needs make."""
    names = raw_yaml.names(stages)
    needs: _Needs = {}
    places: dict[str, Location] = {}
    for place, stage in stages:
        name = raw_yaml.name(stage)
        if name and name not in needs:
            places[name] = place
            needs[name] = [
                need for need in dict.fromkeys(raw_yaml.words(stage.get("needs"))) if need in names and need != name
            ]
    for _ in range(_MOST_ROUNDS):
        needs = _waiting(needs)
        for circle in _walk(needs):
            message = f"the needs go in a circle: {' -> '.join(_shortened([*circle, circle[0]]))}"
            yield Fault(location=(*places[circle[0]], "needs"), message=message)
            for name in circle:
                del needs[name]


def _waiting(needs: _Needs) -> _Needs:
    """Return the stages that could never start, with those of their needs that never can either."""
    needs = {name: [need for need in wanted if need in needs] for name, wanted in needs.items()}
    unmet = {name: len(wanted) for name, wanted in needs.items()}
    dependents: dict[str, list[str]] = {}
    for name, wanted in needs.items():
        for need in wanted:
            dependents.setdefault(need, []).append(name)
    ready = [name for name, count in unmet.items() if count == 0]
    while ready:
        for dependent in dependents.get(ready.pop(), ()):
            unmet[dependent] -= 1
            if unmet[dependent] == 0:
                ready.append(dependent)
    return {name: [need for need in needs[name] if unmet[need] > 0] for name, count in unmet.items() if count > 0}


def _walk(needs: _Needs) -> list[list[str]]:
    """Follow the first need of each stage that waits: each has one, so every way ends in a circle or a known stage."""
    found: list[list[str]] = []
    seen: set[str] = set()
    for start in needs:
        path: dict[str, int] = {}
        name = start
        while name not in seen:
            seen.add(name)
            path[name] = len(path)
            name = needs[name][0]
        if name in path:
            found.append(_from_first([*path][path[name] :], needs))
    return found


def _from_first(circle: list[str], needs: _Needs) -> list[str]:
    """Turn a circle so that it begins with the stage that stands first in the file."""
    members = set(circle)
    first = circle.index(next(name for name in needs if name in members)) if len(circle) < 1000 else 0
    return circle[first:] + circle[:first]


def _shortened(circle: list[str]) -> list[str]:
    return circle if len(circle) <= 12 else [*circle[:6], "...", *circle[-5:]]
