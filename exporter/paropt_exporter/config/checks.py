"""Check what no single key can tell: names that must exist, needs that go in circles, work that is missing.

It works on the plain values, not on the models, so that it runs also where single keys are wrong; whatever has the
wrong type here is passed over, since its own check reports it.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from paropt_exporter.config.bounds import bounds
from paropt_exporter.config.faults import Fault, Location, did_you_mean
from paropt_exporter.config.model import Lane, Workers
from paropt_exporter.config.units import shown, size_bytes
from paropt_exporter.records import Strategy

ITEM = "{item}"
_WORK = ("run", "call", "steps")
_SOURCES = ("list", "glob", "command")
_COMMANDS_ONLY = ("env", "cwd", "shell", "file")


_Stage = tuple[Location, dict[str, object]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What the stages may ask for: cores, and memory (0: unknown)."""

    cores: int
    memory_bytes: int


def cross_check(value: object, *, defaults: Mapping[str, Lane], machine: Machine) -> Iterator[Fault]:
    """Yield the faults of a file's plain value; `defaults` are the lanes that exist unless replaced."""
    file = _mapping(value)
    stages: list[_Stage] = [
        (("stages", index), _mapping(stage)) for index, stage in enumerate(_list(file.get("stages")))
    ]
    lanes = {name: _mapping(lane) for name, lane in _mapping(file.get("lanes")).items()}
    yield from _duplicates(stages)
    for place, stage in stages:
        yield from _work(place, stage)
        yield from _items(place, stage)
        yield from _memory(place, stage, machine)
    yield from _needs(stages)
    yield from _cycles(stages)
    yield from _lanes(lanes, stages)
    yield from _slots(lanes, stages, defaults, machine)
    yield from _feedback(_mapping(file.get("feedback")))


def _duplicates(stages: list[_Stage]) -> Iterator[Fault]:
    for key in ("name", "number"):
        first: dict[object, int] = {}
        for index, (place, stage) in enumerate(stages):
            value = stage.get(key)
            if not isinstance(value, str | int) or isinstance(value, bool):
                continue
            if value in first:
                message = f"{shown(value)} is also the {key} of stages[{first[value]}]"
                yield Fault(location=(*place, key), message=message)
            first.setdefault(value, index)


def _work(place: Location, stage: dict[str, object]) -> Iterator[Fault]:
    kinds = [key for key in _WORK if key in stage]
    if not stage:
        return
    if not kinds:
        yield Fault(location=place, message="no work: it needs one of run, call and steps")
    for extra in kinds[1:]:
        yield Fault(
            location=(*place, extra),
            message=f"only one of run, call and steps; {kinds[0]!r} is there already",
            on_key=True,
        )
    if "call" in stage:
        for key in _COMMANDS_ONLY:
            if key in stage:
                yield Fault(location=(*place, key), message=f"{key!r} is for commands: a call has none", on_key=True)
    for where, command in _commands(place, stage):
        yield from _command(where, command, shell=stage.get("shell") is True)


def _commands(place: Location, stage: dict[str, object]) -> Iterator[tuple[Location, object]]:
    if "run" in stage:
        yield (*place, "run"), stage["run"]
    for index, step in enumerate(_list(stage.get("steps"))):
        yield (*place, "steps", index), step


def _command(place: Location, command: object, *, shell: bool) -> Iterator[Fault]:
    if isinstance(command, list):
        if shell:
            yield Fault(location=place, message="shell: true needs a line, found a list of words: write one string")
        elif not command:
            yield Fault(location=place, message="the command is empty")
        elif command[0] == "":
            yield Fault(location=(*place, 0), message="the command's first word is empty")
    elif isinstance(command, str) and command.strip() and not shell:
        yield from _line(place, command)


def _line(place: Location, line: str) -> Iterator[Fault]:
    try:
        words = shlex.split(line)
    except ValueError as error:
        yield Fault(
            location=place, message=f"the line can't be split into words ({str(error).lower()}): close the quote"
        )
        return
    if not words or not words[0]:
        yield Fault(location=place, message="the command is empty")
    operators = [word for word in words if word in ("|", "||", "&&", ";", "&", ">", ">>", "<", "2>&1")]
    if operators:
        message = f"{operators[0]!r} means something to a shell only: add `shell: true`, or use `steps`"
        yield Fault(location=place, message=message)


def _items(place: Location, stage: dict[str, object]) -> Iterator[Fault]:
    if "items" in stage:
        items = stage["items"]
        if not isinstance(items, dict):
            return
        kinds = [key for key in _SOURCES if key in items]
        if len(kinds) != 1:
            found = "none" if not kinds else " and ".join(kinds)
            yield Fault(location=(*place, "items"), message=f"exactly one of list, glob and command; found {found}")
        yield from _command((*place, "items", "command"), items.get("command"), shell=False)
        return
    for where, command in _commands(place, stage):
        if any(ITEM in word for word in _list(command) or [command] if isinstance(word, str)):
            yield Fault(location=where, message="{item} stands here, but the stage has no items: add `items`")


def _memory(place: Location, stage: dict[str, object], machine: Machine) -> Iterator[Fault]:
    try:
        memory = size_bytes(stage["memory"])
    except (KeyError, ValueError):
        return
    if 0 < machine.memory_bytes < memory:
        message = (
            f"{memory:,} bytes are more than the machine has ({machine.memory_bytes:,}): the stage could never start"
        )
        yield Fault(location=(*place, "memory"), message=message)


def _needs(stages: list[_Stage]) -> Iterator[Fault]:
    names = _names(stages)
    for place, stage in stages:
        seen: set[object] = set()
        for index, need in enumerate(_words(stage.get("needs"))):
            where = (*place, "needs", index)
            if need in seen:
                yield Fault(location=where, message=f"{shown(need)} stands here twice")
            elif need == stage.get("name"):
                yield Fault(location=where, message="a stage can't need itself")
            elif need not in names:
                yield Fault(location=where, message=f"unknown stage {shown(need)}{did_you_mean(need, names)}")
            seen.add(need)


def _cycles(stages: list[_Stage]) -> Iterator[Fault]:
    """Yield one fault for each circle: take away what waits for nothing until only circles are left."""
    needs: dict[str, set[str]] = {}
    places: dict[str, Location] = {}
    names = _names(stages)
    for place, stage in stages:
        name = stage.get("name")
        if isinstance(name, str) and name not in needs:
            places[name] = place
            needs[name] = {need for need in _words(stage.get("needs")) if need in names and need != name}
    remaining = _waiting(needs)
    while remaining:
        circle = _circle(remaining, needs)
        message = f"the needs go in a circle: {' -> '.join(_shortened([*circle, circle[0]]))}"
        yield Fault(location=(*places[circle[0]], "needs"), message=message)
        needs = {name: needs[name] - set(circle) for name in remaining if name not in circle}
        remaining = _waiting(needs)


def _waiting(needs: dict[str, set[str]]) -> dict[str, None]:
    """Return, in order, the stages that could never start."""
    open_needs = {name: len(wanted) for name, wanted in needs.items()}
    dependents: dict[str, list[str]] = {}
    for name, wanted in needs.items():
        for need in wanted:
            dependents.setdefault(need, []).append(name)
    ready = [name for name, count in open_needs.items() if count == 0]
    while ready:
        for dependent in dependents.get(ready.pop(), ()):
            open_needs[dependent] -= 1
            if open_needs[dependent] == 0:
                ready.append(dependent)
    return {name: None for name, count in open_needs.items() if count > 0}


def _circle(remaining: dict[str, None], needs: dict[str, set[str]]) -> list[str]:
    """Walk along needs that can never be met until a stage comes again; begin with the circle's first in the file."""
    order = {name: index for index, name in enumerate(remaining)}
    path: dict[str, int] = {}
    name = next(iter(remaining))
    while name not in path:
        path[name] = len(path)
        name = min((need for need in needs[name] if need in remaining), key=order.__getitem__)
    circle = [*path][path[name] :]
    first = circle.index(min(circle, key=order.__getitem__))
    return circle[first:] + circle[:first]


def _shortened(circle: list[str]) -> list[str]:
    return circle if len(circle) <= 12 else [*circle[:6], "...", *circle[-5:]]


def _lanes(lanes: dict[str, dict[str, object]], stages: list[_Stage]) -> Iterator[Fault]:
    names = _names(stages)
    needs = {stage.get("name"): _words(stage.get("needs")) for _, stage in stages}
    for lane, keys in lanes.items():
        if lane == "auto":
            yield Fault(
                location=("lanes", lane), message="'auto' is what --lane auto means: choose another name", on_key=True
            )
        workers = keys.get("workers")
        if keys.get("strategy") == Strategy.SEQUENTIAL and workers not in (None, "auto", 1):
            yield Fault(
                location=("lanes", lane, "workers"), message="sequential runs one task at a time: leave workers out"
            )
        listed = _words(keys.get("stages"))
        for index, name in enumerate(listed if stages else []):
            where = ("lanes", lane, "stages", index)
            if name not in names:
                yield Fault(location=where, message=f"unknown stage {shown(name)}{did_you_mean(name, names)}")
            for need in needs.get(name, ()):
                if need in names and need not in listed:
                    message = f"{shown(name)} needs {shown(need)}, which is not in this lane: add it"
                    yield Fault(location=where, message=message)


def _slots(
    lanes: dict[str, dict[str, object]], stages: list[_Stage], defaults: Mapping[str, Lane], machine: Machine
) -> Iterator[Fault]:
    most = {name: bounds(lane.workers, lane.strategy, machine.cores)[1] for name, lane in defaults.items()}
    most.update({name: _most_workers(lane, machine) for name, lane in lanes.items()})
    members = {name: set(_words(lane.get("stages"))) for name, lane in lanes.items() if lane.get("stages")}
    for place, stage in stages:
        slots = stage.get("slots")
        if not isinstance(slots, int) or isinstance(slots, bool):
            continue
        narrow = [
            f"{lane} ({count})"
            for lane, count in most.items()
            if count < slots and (lane not in members or stage.get("name") in members[lane])
        ]
        if narrow:
            message = f"{slots} slots are more than the lane {', '.join(narrow)} may have workers: it could never start"
            yield Fault(location=(*place, "slots"), message=message)


def _most_workers(lane: dict[str, object], machine: Machine) -> int:
    try:
        strategy = Strategy(str(lane.get("strategy", Strategy.ADAPTIVE)))
        return bounds(Workers.model_validate(lane.get("workers", "auto")), strategy, machine.cores)[1]
    except ValueError:  # pydantic's errors are ValueErrors; the key's own check reports it
        return 1 << 30


def _feedback(feedback: dict[str, object]) -> Iterator[Fault]:
    if "prometheus" in feedback:
        return
    if feedback.get("source") in ("both", "prometheus"):
        message = f"source {shown(feedback['source'])} needs a Prometheus: add `prometheus: {{url: ...}}`"
        yield Fault(location=("feedback", "source"), message=message)
    if feedback.get("signals"):
        message = "signals are queries and need a Prometheus: add `prometheus: {url: ...}`"
        yield Fault(location=("feedback", "signals"), message=message, on_key=True)


def _names(stages: list[_Stage]) -> dict[str, None]:
    return {name: None for _, stage in stages if isinstance(name := stage.get("name"), str)}


def _mapping(value: object) -> dict[str, object]:
    return value if isinstance(value, dict) else {}


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else []


def _words(value: object) -> list[str]:
    return [str(getattr(word, "text", word)) for word in _list(value) if not isinstance(word, dict | list)]
