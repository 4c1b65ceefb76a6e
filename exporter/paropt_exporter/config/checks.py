"""Validate the text of a `paropt.yml`: each key by its model, then keys against each other.

The latter are unknown names, cycles of needs, missing work, and sizes beyond the machine's. These checks read plain
values instead of the models, so that they also run on a file with faults in single keys. They skip values of a wrong
type, which the models report.

This module loads pydantic and PyYAML, for which a run with an unchanged config has no need (`parsed_configs`).
"""

from __future__ import annotations

import posixpath
import re
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import islice
from types import MappingProxyType
from typing import Any

from msgspec import Struct
from msgspec.structs import replace
from pydantic import BaseModel, ValidationError

from paropt_exporter.config import messages, model, raw_yaml, values
from paropt_exporter.config.defaults import build_default_lanes, resolve_workers
from paropt_exporter.config.document import Document, Unreadable, decode_text
from paropt_exporter.config.faults import MOST_FAULTS, Fault, Location, suggest_name
from paropt_exporter.config.lanes import AUTO
from paropt_exporter.config.model import MOST_STAGES
from paropt_exporter.config.placeholders import ARGS, ITEM, ITEMS, drop_quoted, find_unprotected
from paropt_exporter.config.raw_yaml import RawStage
from paropt_exporter.config.server_urls import LOOPBACK
from paropt_exporter.config.units import MOST_WORKERS, format_value, parse_size
from paropt_exporter.config.values import ALL_STAGES, AUTO_INPUTS, Lane, Workers
from paropt_exporter.events import Strategy

# A cycle that depends on another cycle is found one round later. Ten rounds report enough faults.
_MOST_ROUNDS = 10
_Needs = dict[str, list[str]]
_EMPTY = "the file is empty: `paropt-exporter init --force` writes one for this project"
_WORK = ("run", "call", "steps")
_SOURCES = ("list", "glob", "command", "changed")
_COMMANDS_ONLY = ("env", "cwd", "shell", "file")
# Outside of quotes; `foo>=1.0`, `?a=1&b=2` and `a|b` may be meant as they are. An indented line continues the one
# before: YAML's folded style leaves such lines apart.
_OPERATOR = re.compile(r"&&|\|\||[;&](?!\S)|(?<!\S)(?:\|(?!\S)|(?:\d+|&)?[<>]+)|\\\n|\n(?![ \t])")
# Variables, commands and the home folder, outside of quotes.
_SUBSTITUTION = re.compile(r"\$(?:\w+|\{[^}\s]*\}?|\([^)]*\)?)|`[^`]*`?|(?<!\S)~(?:/\S*)?(?!\S)")


class Machine(Struct, frozen=True, kw_only=True):
    """The machine's cores and memory. The memory (0: unknown) is read only if a stage needs some."""

    cores: int
    memory_bytes: Callable[[], int]


def cross_check(value: object, machine: Machine) -> Iterator[Fault]:
    """Yield the faults between the keys of a file, given as plain values."""
    file = raw_yaml.as_mapping(value)
    stages, lanes = raw_yaml.list_stages(file), raw_yaml.get_lanes(file)
    has_cluster = any(lane.get("strategy") == Strategy.DASK for lane in lanes.values())
    yield from _check_list_lengths(stages, lanes, file.get("stages"))
    yield from _find_duplicates(stages)
    yield from _find_shared_files(stages)
    for place, stage in stages:
        yield from check_work(place, stage)
        if not has_cluster:
            yield from _check_memory(place, stage, machine)
    yield from _find_unknown_needs(stages)
    yield from _find_cycles(stages)
    yield from _check_lanes(lanes, stages)
    yield from _check_slots(lanes, stages, machine)
    yield from _check_feedback(raw_yaml.as_mapping(file.get("feedback")))
    yield from check_server(("push",), raw_yaml.as_mapping(file.get("push")))
    yield from _check_dask(raw_yaml.as_mapping(file.get("dask")))


def _check_list_lengths(stages: list[RawStage], lanes: dict[str, dict[str, object]], listed: object) -> Iterator[Fault]:
    """Yield a fault for each list that is empty or too long. Pydantic would count only the entries without faults."""
    if len(stages) > MOST_STAGES:
        message = f"{len(stages):,} stages are more than {MOST_STAGES:,}, the most allowed"
        yield Fault(location=("stages",), message=message)
    lists: list[tuple[Location, object]] = [(("stages",), listed)]
    lists += [((*place, "steps"), stage.get("steps")) for place, stage in stages]
    lists += [(("lanes", name, "stages"), lane.get("stages")) for name, lane in lanes.items()]
    items = [(place, raw_yaml.as_mapping(stage.get("items"))) for place, stage in stages]
    lists += [((*place, "items", "list"), keys.get("list")) for place, keys in items if not keys.get("allow_empty")]
    for location, entries in lists:
        if entries == []:
            yield Fault(location=location, message="the list is empty")


def _find_duplicates(stages: list[RawStage]) -> Iterator[Fault]:
    for key in ("name", "number"):
        first: dict[object, int] = {}
        for index, (place, stage) in enumerate(stages):
            value = stage.get(key)
            if not isinstance(value, str | int) or isinstance(value, bool):
                continue
            if value in first:
                message = f"{format_value(value)} is also the {key} of stages[{first[value]}]"
                yield Fault(location=(*place, key), message=message)
            first.setdefault(value, index)


def _find_shared_files(stages: list[RawStage]) -> Iterator[Fault]:
    """Yield a fault for each output file that two stages share. Each run of a stage empties its file."""
    first: dict[str, int] = {}
    for index, (place, stage) in enumerate(stages):
        file = stage.get("file")
        if not isinstance(file, str) or not file:
            continue
        path = posixpath.normpath(file)
        if path in first:
            message = f"{format_value(file)} is also the file of stages[{first[path]}]: each stage needs its own"
            yield Fault(location=(*place, "file"), message=message)
        first.setdefault(path, index)


def _check_memory(place: Location, stage: dict[str, object], machine: Machine) -> Iterator[Fault]:
    try:
        memory = parse_size(stage["memory"])
    except (KeyError, ValueError):
        return
    if 0 < (most := machine.memory_bytes()) < memory:
        message = f"{memory:,} bytes are more than the machine has ({most:,}): the stage could never start"
        yield Fault(location=(*place, "memory"), message=message)


def _check_lanes(lanes: dict[str, dict[str, object]], stages: list[RawStage]) -> Iterator[Fault]:
    names = raw_yaml.list_names(stages)
    wanted = {raw_yaml.get_name(stage): raw_yaml.list_words(stage.get("needs")) for _, stage in stages}
    for lane, keys in lanes.items():
        if lane == AUTO:
            yield Fault(
                location=("lanes", lane), message="'auto' is reserved for --lane auto: choose another name", on_key=True
            )
        workers = keys.get("workers")
        if keys.get("strategy") == Strategy.SEQUENTIAL and workers not in (None, "auto", 1):
            yield Fault(
                location=("lanes", lane, "workers"), message="sequential runs one task at a time: leave workers out"
            )
        yield from _check_limits(lane, keys, stages)
        listed = _list_members(keys, stages)
        for index, name in enumerate(listed if stages else []):
            where = ("lanes", lane, "stages", index)
            if name not in names:
                yield Fault(location=where, message=f"unknown stage {format_value(name)}{suggest_name(name, names)}")
            for need in wanted.get(name, ()):
                if need in names and need not in listed:
                    message = f"{format_value(name)} needs {format_value(need)}, which is not in this lane: add it"
                    yield Fault(location=where, message=message)


def _check_limits(lane: str, keys: dict[str, object], stages: list[RawStage]) -> Iterator[Fault]:
    """Yield a fault for each limit of a stage that the lane does not run."""
    sla = raw_yaml.as_mapping(keys.get("sla"))
    if not stages or sla.keys() & model.Sla.model_fields.keys():
        return
    members = dict.fromkeys(_list_members(keys, stages)) if keys.get("stages") else raw_yaml.list_names(stages)
    for name in sla:
        if name != ALL_STAGES and name not in members:
            message = f"lane {lane} has no stage {format_value(name)}{suggest_name(name, members)}"
            yield Fault(location=("lanes", lane, "sla", name), message=message, on_key=True)


def _list_members(lane: dict[str, object], stages: list[RawStage]) -> list[str]:
    """Return the names of a lane's stages. A number names the stage that has it, unless it is another stage's name."""
    names = {str(stage.get("number")): raw_yaml.get_name(stage) for _, stage in stages if raw_yaml.get_name(stage)}
    names |= {name: name for name in raw_yaml.list_names(stages)}
    return [names.get(word, word) for word in raw_yaml.list_words(lane.get("stages"))]


def _check_slots(lanes: dict[str, dict[str, object]], stages: list[RawStage], machine: Machine) -> Iterator[Fault]:
    """Yield a fault for each stage that a lane of this file could never start. Default lanes don't count."""
    most = {name: _find_max_workers(name, lane, machine) for name, lane in lanes.items()}
    members = {name: set(_list_members(lane, stages)) for name, lane in lanes.items() if lane.get("stages")}
    for place, stage in stages:
        slots = stage.get("slots")
        if not isinstance(slots, int) or isinstance(slots, bool) or slots > MOST_WORKERS:
            continue
        narrow = [
            f"{lane} ({count})"
            for lane, count in most.items()
            if count < slots and (lane not in members or raw_yaml.get_name(stage) in members[lane])
        ]
        if narrow:
            message = f"{slots} slots are more than the most workers of lane {', '.join(narrow)}: it could never start"
            yield Fault(location=(*place, "slots"), message=message)


def _find_max_workers(name: str, lane: dict[str, object], machine: Machine) -> int:
    default = build_default_lanes().get(name, Lane())
    try:
        strategy = Strategy(str(lane.get("strategy", default.strategy)))
        workers = _parse_workers(lane["workers"]) if "workers" in lane else default.workers
    except ValueError:  # also pydantic's ValidationError; the model reports it
        return MOST_WORKERS
    # In a sequential lane each task may use all slots.
    return MOST_WORKERS if strategy is Strategy.SEQUENTIAL else resolve_workers(workers, strategy, machine.cores)[1]


def _parse_workers(value: object) -> Workers:
    return Workers(**model.convert_fields(model.Workers.model_validate(value)))


def _check_feedback(feedback: dict[str, object]) -> Iterator[Fault]:
    if "prometheus" in feedback:
        yield from check_server(("feedback", "prometheus"), raw_yaml.as_mapping(feedback["prometheus"]))
        return
    if feedback.get("source") in ("both", "prometheus"):
        message = f"source {format_value(feedback['source'])} needs a Prometheus: add `prometheus: {{url: ...}}`"
        yield Fault(location=("feedback", "source"), message=message)
    if feedback.get("signals"):
        message = "signals are queries and need a Prometheus: add `prometheus: {url: ...}`"
        yield Fault(location=("feedback", "signals"), message=message, on_key=True)


def check_server(place: Location, server: dict[str, object]) -> Iterator[Fault]:
    """Yield the faults of a server's URL and credentials."""
    url = server.get("url")
    if isinstance(url, str) and "@" in url.partition("://")[2].partition("/")[0]:
        message = "a URL with a password would be logged: use basic_auth with password_file"
        yield Fault(location=(*place, "url"), message=message)
    if isinstance(url, str) and ("?" in url or "#" in url):
        message = "a URL with a query would be logged, and its token with it: use bearer_token_file or header_files"
        yield Fault(location=(*place, "url"), message=message)
    ways = [key for key in ("bearer_token_file", "bearer_token_env", "basic_auth") if server.get(key) is not None]
    if len(ways) > 1:
        yield Fault(
            location=(*place, ways[1]), message=f"{ways[0]} is given too: give one kind of credentials", on_key=True
        )
    basic = raw_yaml.as_mapping(server.get("basic_auth"))
    secrets = [key for key in ("password_file", "password_env") if basic.get(key) is not None]
    if basic and len(secrets) != 1:
        message = "give exactly one of password_file and password_env"
        yield Fault(location=(*place, "basic_auth"), message=message, on_key=True)


def _find_unknown_needs(stages: list[RawStage]) -> Iterator[Fault]:
    """Yield a fault for each need that names no other stage, or repeats one."""
    names = raw_yaml.list_names(stages)
    for place, stage in stages:
        seen: set[object] = set()
        for index, need in enumerate(raw_yaml.list_words(stage.get("needs"))):
            where = (*place, "needs", index)
            if need in seen:
                yield Fault(location=where, message=f"{format_value(need)} is listed twice")
            elif need == raw_yaml.get_name(stage):
                yield Fault(location=where, message="a stage can't need itself")
            elif need not in names:
                yield Fault(location=where, message=f"unknown stage {format_value(need)}{suggest_name(need, names)}")
            seen.add(need)


def _find_cycles(stages: list[RawStage]) -> Iterator[Fault]:
    """Yield a fault for each cycle of needs."""
    names = raw_yaml.list_names(stages)
    needs: _Needs = {}
    places: dict[str, Location] = {}
    for place, stage in stages:
        name = raw_yaml.get_name(stage)
        if name and name not in needs:
            places[name] = place
            needs[name] = [
                need
                for need in dict.fromkeys(raw_yaml.list_words(stage.get("needs")))
                if need in names and need != name
            ]
    for _ in range(_MOST_ROUNDS):
        needs = _drop_startable(needs)
        for circle in _follow_needs(needs):
            message = f"the needs form a cycle: {' -> '.join(_shorten_cycle([*circle, circle[0]]))}"
            yield Fault(location=(*places[circle[0]], "needs"), message=message)
            for name in circle:
                del needs[name]


def _drop_startable(needs: _Needs) -> _Needs:
    """Remove the stages that can start. Return the others, each with those of its needs that can't start either."""
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


def _follow_needs(needs: _Needs) -> list[list[str]]:
    """Return the cycles that the first needs of the stages lead to. Each stage here has at least one need."""
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
            found.append(_rotate_to_first([*path][path[name] :], needs))
    return found


def _rotate_to_first(circle: list[str], needs: _Needs) -> list[str]:
    """Rotate a cycle so that it starts with the stage that is first in the file."""
    members = set(circle)
    first = circle.index(next(name for name in needs if name in members)) if len(circle) < 1000 else 0
    return circle[first:] + circle[:first]


def _shorten_cycle(circle: list[str]) -> list[str]:
    return circle if len(circle) <= 12 else [*circle[:6], "...", *circle[-5:]]


def _check_dask(dask: dict[str, object]) -> Iterator[Fault]:
    """Yield the faults of a cluster: several kinds of it, or a scheduler that any host on the network could use."""
    kinds = [key for key in ("scheduler", "file", "cluster") if dask.get(key) is not None]
    if len(kinds) > 1:
        yield Fault(location=("dask", kinds[1]), message=f"{kinds[0]} is given too: give one of them", on_key=True)
    scheduler = dask.get("scheduler")
    if not isinstance(scheduler, str):
        return
    scheme, _, rest = scheduler.partition("://")
    if scheme == "tls" and dask.get("tls") is None:
        message = "tls:// needs certificates: add `tls: {ca: ..., cert: ..., key: ...}`"
        yield Fault(location=("dask", "scheduler"), message=message)
    if scheme == "tcp" and rest.rpartition(":")[0] not in LOOPBACK and dask.get("insecure") is not True:
        message = (
            "without TLS, anyone who reaches the scheduler runs code on its workers: use tls://, or write "
            "`insecure: true` if the network is yours alone"
        )
        yield Fault(location=("dask", "scheduler"), message=message)


def validate(content: bytes, machine: Machine) -> values.File:
    """Return the values of a file. Raises Unreadable with all its faults."""
    document = Document(decode_text(content))
    value = raw_yaml.number_stages(document.value)
    if value is None:
        raise Unreadable([document.locate(Fault(location=(), message=_EMPTY))])
    if isinstance(value, dict):
        value = {key: child for key, child in value.items() if not key.startswith("x-")}  # users keep anchors there
    found: list[Fault] = []
    file = None
    try:
        file = model.File.model_validate(value)
    except ValidationError as error:
        found += messages.iter_faults(error, document, model.File)
    found += islice(cross_check(value, machine), MOST_FAULTS)
    if found or file is None:
        raise Unreadable([*dict.fromkeys(document.locate(fault) for fault in found)])
    return _build_file(file, document)


def read_valid_parts(content: bytes) -> values.File | None:
    """Return the keys and stages without faults of a file that has some, or None if nothing can be read."""
    try:
        document = Document(decode_text(content))
        return _build_file(model.File.model_validate(_keep_valid_parts(document.value)), document)
    except (Unreadable, ValidationError):
        return None


def _keep_valid_parts(value: object) -> dict[str, object]:
    file = raw_yaml.as_mapping(raw_yaml.number_stages(value))
    known = {key: file[key] for key in model.File.model_fields if key in file}
    parts = {key: child for key, child in known.items() if _is_valid(model.File, {key: child})}
    stages = [
        stage
        for place, stage in raw_yaml.list_stages(file)
        if _is_valid(model.Stage, stage) and not any(check_work(place, stage))
    ]
    return {**parts, "stages": stages}


def _is_valid(section: type[BaseModel], value: dict[str, object]) -> bool:
    try:
        section.model_validate(value)
    except ValidationError:
        return False
    return True


def _build_file(file: model.File, document: Document) -> values.File:
    places = {
        raw_yaml.get_name(stage): document.locate(Fault(location=location, message=""))
        for location, stage in raw_yaml.list_stages(raw_yaml.as_mapping(document.value))
    }
    return replace(
        model.to_values(file),
        lanes=MappingProxyType(_add_default_lanes(file.lanes)),
        places=MappingProxyType({name: place.format("").removesuffix(": ") for name, place in places.items()}),
    )


def _add_default_lanes(lanes: Mapping[str, model.Lane]) -> dict[str, values.Lane]:
    """Return the default lanes and those of a file; one of a default lane's name has its values for missing keys."""
    known = build_default_lanes()
    return {**known, **{name: _merge_lane(known.get(name, values.Lane()), lane) for name, lane in lanes.items()}}


def _merge_lane(default: values.Lane, lane: model.Lane) -> values.Lane:
    """Return a default lane with the keys that a file gives; limits by stage leave other stages the default's limit."""
    given: dict[str, Any] = model.convert_fields(lane)
    if isinstance(lane.sla, dict) and default.sla is not None:
        given["sla"] = MappingProxyType({values.ALL_STAGES: default.sla, **given["sla"]})
    return replace(default, **given)


def check_work(place: Location, stage: dict[str, object]) -> Iterator[Fault]:
    """Yield the faults of one stage's run, call, steps and items."""
    if not stage or messages.is_named_by_key(stage):
        return  # not a mapping, or one without a key of a stage: the model reports it
    yield from _check_kind(place, stage)
    for where, command in _iter_commands(place, stage):
        yield from _check_command(where, command, shell=stage.get("shell") is True)
    yield from _check_items(place, stage)
    yield from _check_arguments(place, stage)
    yield from _check_cache(place, stage)
    yield from _check_quarantine(place, stage)


def _check_kind(place: Location, stage: dict[str, object]) -> Iterator[Fault]:
    kinds = [key for key in _WORK if stage.get(key) is not None]
    if not kinds and not any(map(messages.is_work_of_others, stage)):  # whose fault names the right key
        empty = [key for key in _WORK if key in stage][:1]
        message = f"{empty[0]} is empty" if empty else "it needs one of run, call and steps"
        yield Fault(location=(*place, *empty), message=f"the stage does nothing: {message}")
    for extra in kinds[1:]:
        message = f"only one of run, call and steps: the stage already has {kinds[0]!r}"
        yield Fault(location=(*place, extra), message=message, on_key=True)
    for key in _COMMANDS_ONLY if "call" in stage else ():
        if key in stage:
            yield Fault(location=(*place, key), message=f"{key!r} works for commands only, not for a call", on_key=True)


def _iter_commands(place: Location, stage: dict[str, object]) -> Iterator[tuple[Location, object]]:
    if "run" in stage:
        yield (*place, "run"), stage["run"]
    for index, step in enumerate(raw_yaml.as_list(stage.get("steps"))):
        yield (*place, "steps", index), step


def _check_command(place: Location, command: object, *, shell: bool) -> Iterator[Fault]:
    if isinstance(command, list):
        if shell:
            yield Fault(location=place, message="shell: true needs a string, found a list of words")
        elif not command:
            yield Fault(location=place, message="the command is empty")
        elif command[0] == "":
            yield Fault(location=(*place, 0), message="the command's first word is empty")
    elif isinstance(command, str) and command.strip() and not shell:
        yield from _check_line(place, command)
    elif isinstance(command, str) and shell and (found := find_unprotected(command)) is not None:
        item, around = found
        each = "each argument" if item == ARGS else "each item"
        message = f"{item} is in {around}: {each} is quoted already, and in them its name could be run as code"
        yield Fault(location=place, message=f"{message}; take {item} out of them")


def _check_line(place: Location, line: str) -> Iterator[Fault]:
    try:
        words = _split_line(line)
    except ValueError as error:
        yield Fault(
            location=place, message=f"the line can't be split into words ({str(error).lower()}): close the quote"
        )
        return
    if not words or not words[0]:
        yield Fault(location=place, message="the command is empty")
    if (message := _describe_shell_syntax(line, words, lists_items="items" in place)) is not None:
        yield Fault(location=place, message=message)


def _describe_shell_syntax(line: str, words: Sequence[str], *, lists_items: bool) -> str | None:
    """Return what only a shell would understand in a line, and the remedy. `lists_items`: it is a command of items."""
    shell = "write `[sh, -c, ...]`" if lists_items else "add `shell: true`"
    operator = _OPERATOR.search(drop_quoted(line.strip()))
    if operator is not None and operator[0].endswith("\n"):
        steps = "" if lists_items else "use `steps`, "
        return f"only a shell understands a line break: {steps}fold the lines with `>-`, or {shell}"
    if operator is not None:
        remedy = shell
        if words[:1] == ["cd"] and not lists_items:
            remedy += ", or put the folder into `cwd`"
        elif operator[0] in ("&&", ";") and not lists_items:
            remedy += ", or use `steps`"
        return f"only a shell understands {operator[0]!r}: {remedy}"
    if (found := _SUBSTITUTION.search(drop_quoted(line))) is not None:
        return f"only a shell replaces {found[0]}: {shell}, or put it in single quotes if it is meant as it is"
    return None


def _check_items(place: Location, stage: dict[str, object]) -> Iterator[Fault]:
    if "items" in stage:
        items = stage["items"]
        if not isinstance(items, dict):
            return
        kinds = [key for key in _SOURCES if key in items]
        if len(kinds) != 1:
            found = "none" if not kinds else " and ".join(kinds)
            yield Fault(
                location=(*place, "items"), message=f"exactly one of list, glob, command and changed; found {found}"
            )
        yield from _check_command((*place, "items", "command"), items.get("command"), shell=False)
        yield from _check_batched_items(place, stage)
        return
    for where, command in _iter_commands(place, stage):
        for wanted in (ITEM, ITEMS):
            if any(wanted in word for word in _split_words(command)):
                yield Fault(location=where, message=f"the stage has no items for {wanted}: add `items`")


def _check_batched_items(place: Location, stage: dict[str, object]) -> Iterator[Fault]:
    """Yield a fault where `{items}` is not a word of its own, or is used together with `{item}`."""
    commands = [(where, _split_words(command)) for where, command in _iter_commands(place, stage)]
    if not any(ITEMS in word for _, words in commands for word in words):
        return
    for where, words in commands:
        if any(ITEM in word for word in words):
            message = "a stage can't use both {item} and {items}: a task has either one item or several"
            yield Fault(location=where, message=message)
        if stage.get("shell") is True:
            continue
        yield from _check_own_word(ITEMS, words, where)


def _check_arguments(place: Location, stage: dict[str, object]) -> Iterator[Fault]:
    """Yield a fault where `{args}` is not a word of its own."""
    if stage.get("shell") is True:
        return
    for where, command in _iter_commands(place, stage):
        words = _split_words(command)
        yield from _check_own_word(ARGS, words, where)


def _check_own_word(placeholder: str, words: Sequence[str], where: Location) -> Iterator[Fault]:
    """Yield a fault if a placeholder for several words is the program of a command, or a part of a word."""
    if words and placeholder in words[0]:
        yield Fault(location=where, message=f"{placeholder} is in the program's place: put a program before it")
    elif any(placeholder in word and word != placeholder for word in words):
        message = f"{placeholder} becomes several words, so it must be a word of its own: put spaces around it"
        yield Fault(location=where, message=message)


def _check_quarantine(place: Location, stage: dict[str, object]) -> Iterator[Fault]:
    """Yield the faults between a stage's items and those that it names as flaky."""
    entries = raw_yaml.as_list(stage.get("quarantine"))
    if entries and "items" not in stage:
        message = "the stage has no items to put in quarantine: add `items`"
        yield Fault(location=(*place, "quarantine"), message=message, on_key=True)
        return
    listed = raw_yaml.as_list(raw_yaml.as_mapping(stage.get("items")).get("list"))
    named: set[object] = set()
    for index, entry in enumerate(entries):
        item = raw_yaml.as_mapping(entry).get("item")
        if not isinstance(item, str):
            continue
        where = (*place, "quarantine", index, "item")
        if item in named:
            yield Fault(location=where, message=f"{item!r} is already in quarantine")
        elif listed and item not in map(str, listed):
            yield Fault(location=where, message=f"{item!r} is not an item of the stage")
        named.add(item)


def _check_cache(place: Location, stage: dict[str, object]) -> Iterator[Fault]:
    """Yield the faults between a stage's inputs, outputs, cache and work."""
    cache = stage.get("cache")
    if "call" in stage and cache is True:
        message = "a call can't be cached: it sees the state of this process; use `run: python -c ...` for a cached one"
        yield Fault(location=(*place, "cache"), message=message)
    if stage.get("outputs") and cache != "never" and cache is not True and not stage.get("inputs"):
        message = "outputs are kept only for a cached stage: add `inputs`, or `cache: true`"
        yield Fault(location=(*place, "outputs"), message=message, on_key=True)
    for key in ("inputs", "outputs"):
        patterns = raw_yaml.list_words(stage.get(key))
        if key == "inputs" and (AUTO_INPUTS in patterns or stage.get(key) == AUTO_INPUTS):
            if any(pattern.startswith("!") for pattern in patterns) and not _has_own_pattern(patterns):
                what = "a pattern without '!' is missing: it counts where commands can't be traced"
                yield Fault(location=(*place, key), message=what)
        elif key == "inputs" and stage.get(key) == []:
            yield Fault(location=(*place, key), message="the list is empty")
        elif patterns and all(pattern.startswith("!") for pattern in patterns):
            what = "each pattern leaves files out: add one without '!'"
            yield Fault(location=(*place, key), message=what)
        for index, pattern in enumerate(patterns):
            if ITEM in pattern and "items" not in stage:
                message = f"the stage has no items for {ITEM}: add `items`"
                yield Fault(location=(*place, key, index), message=message)


def _has_own_pattern(patterns: list[str]) -> bool:
    return any(pattern != AUTO_INPUTS and not pattern.startswith("!") for pattern in patterns)


def _split_words(command: object) -> list[str]:
    """Return a command's words. A line that can't be split counts as one word here; `_check_line` reports it."""
    if isinstance(command, str):
        try:
            return _split_line(command)
        except ValueError:
            return [command]
    return raw_yaml.list_words(command)


@lru_cache(maxsize=16)  # the checks of a stage split its lines one after another
def _split_line(line: str) -> list[str]:
    return shlex.split(line)
