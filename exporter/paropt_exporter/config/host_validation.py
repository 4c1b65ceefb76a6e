"""Validate the text of a host config, which `host_config` finds and reads."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import ValidationError

from paropt_exporter.config import messages, model, raw_yaml, values
from paropt_exporter.config.checks import check_server
from paropt_exporter.config.document import Document, Unreadable, decode_text
from paropt_exporter.config.faults import Fault
from paropt_exporter.config.server_urls import parse_server_url


def validate(content: bytes) -> values.HostFile:
    """Return the values of a host config. Raises Unreadable with all its faults. An empty file has no values."""
    document = Document(decode_text(content))
    value = {} if document.value is None else document.value
    found: list[Fault] = []
    file = values.HostFile()
    try:
        file = model.to_record(model.HostFile.model_validate(value))
    except ValidationError as error:
        found += messages.iter_faults(error, document, model.HostFile)
    found += _check_servers(raw_yaml.as_mapping(value))
    if found:
        raise Unreadable([*dict.fromkeys(document.locate(fault) for fault in found)])
    return file


def _check_servers(file: dict[str, object]) -> Iterator[Fault]:
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
