"""Check the keys of a `paropt.yml` against each other.

The faults are unknown names, cycles of needs, and sizes beyond the machine's. The checks read plain values instead of
the models, so that they also run on a file with faults in single keys. They skip values of a wrong type, which the
models report.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterator

from msgspec import Struct

from paropt_exporter.config import model, raw_yaml
from paropt_exporter.config.defaults import build_default_lanes, resolve_workers
from paropt_exporter.config.faults import Fault, Location, suggest_name
from paropt_exporter.config.lanes import AUTO
from paropt_exporter.config.needs import find_reachable
from paropt_exporter.config.raw_yaml import RawStage
from paropt_exporter.config.server_urls import LOOPBACK
from paropt_exporter.config.stage_checks import check_stage
from paropt_exporter.config.units import MOST_STAGES, MOST_WORKERS, format_value, parse_size
from paropt_exporter.config.values import ALL_STAGES, Lane, Sla, Workers
from paropt_exporter.events import Strategy

# A cycle that depends on another cycle is found one round later. Ten rounds report enough faults.
_MOST_ROUNDS = 10
_Needs = dict[str, list[str]]


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
        yield from check_stage(place, stage)
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
    """Yield a fault for each list that is empty or too long. Pydantic would count only the valid entries."""
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
        for index, name in enumerate(_list_chosen(keys, stages) if stages else []):
            if name not in names:
                message = f"unknown stage {format_value(name)}{suggest_name(name, names)}"
                yield Fault(location=("lanes", lane, "stages", index), message=message)


def _check_limits(lane: str, keys: dict[str, object], stages: list[RawStage]) -> Iterator[Fault]:
    """Yield a fault for each limit of a stage that the lane does not run."""
    sla = raw_yaml.as_mapping(keys.get("sla"))
    if not stages or sla.keys() & {*Sla.__struct_fields__}:
        return
    members = raw_yaml.list_names(stages)
    if keys.get("stages"):
        found = _find_members(keys, stages)
        members = {name: None for name in members if name in found}
    for name in sla:
        if name != ALL_STAGES and name not in members:
            message = f"lane {lane} has no stage {format_value(name)}{suggest_name(name, members)}"
            yield Fault(location=("lanes", lane, "sla", name), message=message, on_key=True)


def _find_members(lane: dict[str, object], stages: list[RawStage]) -> set[str]:
    """Return the names of the stages under a lane's `stages`, and of those that they need."""
    needs = {raw_yaml.get_name(stage): raw_yaml.list_words(stage.get("needs")) for _, stage in stages}
    return find_reachable(_list_chosen(lane, stages), lambda name: needs.get(name, ()))


def _list_chosen(lane: dict[str, object], stages: list[RawStage]) -> list[str]:
    """Return the names under a lane's `stages`. A number means the stage with that number, unless that is a name."""
    names = {str(stage.get("number")): raw_yaml.get_name(stage) for _, stage in stages if raw_yaml.get_name(stage)}
    names |= {name: name for name in raw_yaml.list_names(stages)}
    return [names.get(word, word) for word in raw_yaml.list_words(lane.get("stages"))]


def _check_slots(lanes: dict[str, dict[str, object]], stages: list[RawStage], machine: Machine) -> Iterator[Fault]:
    """Yield a fault for each stage that a lane of this file could never start. Default lanes don't count.

    A lane of one worker runs any stage.
    """
    most = {name: _find_max_workers(name, lane, machine) for name, lane in lanes.items()}
    members = {name: _find_members(lane, stages) for name, lane in lanes.items() if lane.get("stages")}
    for place, stage in stages:
        slots = stage.get("slots")
        if not isinstance(slots, int) or isinstance(slots, bool) or slots > MOST_WORKERS:
            continue
        narrow = [
            f"{lane} ({count})"
            for lane, count in most.items()
            if 1 < count < slots and (lane not in members or raw_yaml.get_name(stage) in members[lane])
        ]
        if narrow:
            message = f"{slots} slots are more than the most workers of lane {', '.join(narrow)}: it could never start"
            yield Fault(location=(*place, "slots"), message=message)


def _find_max_workers(name: str, lane: dict[str, object], machine: Machine) -> int:
    default = build_default_lanes().get(name, Lane())
    try:
        strategy = Strategy(str(lane.get("strategy", default.strategy)))
        workers = model.parse_section(Workers, lane["workers"]) if "workers" in lane else default.workers
    except ValueError:  # also pydantic's ValidationError; the model reports it
        return MOST_WORKERS
    return resolve_workers(workers, strategy, machine.cores)[1]


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
    """Remove the stages that can start. Return the others, each with its needs that can't start, either."""
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
    """Return the cycles that are reached by following each stage's first need. Each stage here has a need."""
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
