"""Validate the text of a `paropt.yml` or a host config: each key by its model, then keys against each other.

This module loads pydantic and PyYAML, for which a run with an unchanged config has no need (`parsed_configs`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from types import MappingProxyType
from typing import Any

from msgspec.structs import replace
from pydantic import BaseModel, ValidationError

from paropt_exporter.config import messages, model, raw_yaml, values
from paropt_exporter.config.checks import Machine, check_server, cross_check
from paropt_exporter.config.defaults import build_default_lanes
from paropt_exporter.config.document import Document, Unreadable, decode_text
from paropt_exporter.config.faults import MOST_FAULTS, Fault
from paropt_exporter.config.server_urls import parse_server_url
from paropt_exporter.config.stage_checks import check_stage

_EMPTY = "the file is empty: `paropt-exporter init --force` writes one for this project"


def validate(content: bytes, machine: Machine) -> values.CheckedFile:
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


def read_valid_parts(content: bytes) -> values.CheckedFile | None:
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
        if _is_valid(model.Stage, stage) and not any(check_stage(place, stage))
    ]
    return {**parts, "stages": stages}


def _is_valid(section: type[BaseModel], value: dict[str, object]) -> bool:
    try:
        section.model_validate(value)
    except ValidationError:
        return False
    return True


def _build_file(file: model.Section, document: Document) -> values.CheckedFile:
    places = {
        raw_yaml.get_name(stage): document.locate(Fault(location=location, message=""))
        for location, stage in raw_yaml.list_stages(raw_yaml.as_mapping(document.value))
    }
    keys = model.convert_fields(file)
    lanes = raw_yaml.get_lanes(raw_yaml.as_mapping(document.value))
    keys["lanes"] = MappingProxyType(_add_default_lanes(keys.get("lanes", {}), lanes))
    keys["places"] = MappingProxyType({name: place.format("").removesuffix(": ") for name, place in places.items()})
    return values.CheckedFile(**keys)


def _add_default_lanes(
    lanes: Mapping[str, values.Lane], written: Mapping[str, Mapping[str, object]]
) -> dict[str, values.Lane]:
    """Return the default lanes and those of a file; one of a default lane's name has its values for missing keys."""
    known = build_default_lanes()
    merged = {name: _merge_lane(known[name], lane, written[name]) for name, lane in lanes.items() if name in known}
    return {**known, **lanes, **merged}


def _merge_lane(default: values.Lane, lane: values.Lane, written: Iterable[str]) -> values.Lane:
    """Return a default lane with the keys that a file gives; limits by stage leave other stages the default's limit."""
    given: dict[str, Any] = {key: getattr(lane, key) for key in written}
    if isinstance(lane.sla, Mapping) and default.sla is not None:
        given["sla"] = MappingProxyType({values.ALL_STAGES: default.sla, **lane.sla})
    return replace(default, **given)


def validate_host_file(content: bytes) -> values.HostFile:
    """Return the values of a host config. Raises Unreadable with all its faults. An empty file has no values."""
    document = Document(decode_text(content))
    value = {} if document.value is None else document.value
    found: list[Fault] = []
    file = values.HostFile()
    try:
        file = model.to_record(model.HostFile.model_validate(value))
    except ValidationError as error:
        found += messages.iter_faults(error, document, model.HostFile)
    found += _check_host_servers(raw_yaml.as_mapping(value))
    if found:
        raise Unreadable([*dict.fromkeys(document.locate(fault) for fault in found)])
    return file


def _check_host_servers(file: dict[str, object]) -> Iterator[Fault]:
    servers = file.get("servers")
    for index, server in enumerate(servers if isinstance(servers, list) else ()):
        yield from check_server(("servers", index), raw_yaml.as_mapping(server))
    for key in ("prometheus", "push", "cache"):
        yield from check_server((key,), raw_yaml.as_mapping(file.get(key)))
    for key in ("servers", "allow"):
        listed = file.get(key)
        for index, entry in enumerate(listed if isinstance(listed, list) else ()):
            url = raw_yaml.as_mapping(entry).get("url")
            if isinstance(url, str) and parse_server_url(url) is None:
                message = "expected a plain URL: scheme, host, port, path; no user, query, `..`, `%` or backslash"
                yield Fault(location=(key, index, "url"), message=message)
