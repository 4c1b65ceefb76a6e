"""The keys of the host config with their meanings and types; `host_config` finds and reads the file.

The rest of the program reads `values`, whose classes have the same names and fields.
"""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import Field, StrictBool, ValidationError, model_validator

from paropt_exporter.config import messages, raw_yaml, values
from paropt_exporter.config.checks import check_server
from paropt_exporter.config.document import Document, Unreadable, decode_text
from paropt_exporter.config.faults import Fault
from paropt_exporter.config.fields import HeaderFiles, Headers, Text, Url, Variable
from paropt_exporter.config.model import BasicAuth, Section, Tls, convert_fields
from paropt_exporter.config.server_urls import parse_server_url


class Server(Section):
    """A server, and the credentials that this host sends to it and nowhere else."""

    url: Url = Field(description="Its URL. The entry is for this host and port, and for paths below this one.")
    bearer_token_file: Text | None = Field(default=None, description="A file with the token; read for each request.")
    bearer_token_env: Variable | None = Field(default=None, description="The environment variable with the token.")
    basic_auth: BasicAuth | None = Field(default=None, description="A name and a password instead of a token.")
    tls: Tls | None = Field(default=None, description="Certificates for https.")
    headers: Headers = Field(default={}, description="Headers sent with each request.")
    header_files: HeaderFiles = Field(default={}, description="Headers whose values are secret: each in a file.")


class DefaultUrl(Section):
    """The server for projects whose `paropt.yml` names none."""

    url: Url = Field(description="Its base URL; a path is kept.")


class RemoteCacheUrl(Section):
    """The remote cache of this host."""

    url: Url = Field(description="Its base URL; a path is kept.")
    write: StrictBool = Field(default=False, description="Whether results of this host are uploaded.")


class Permission(Section):
    """Where credentials may go that a `paropt.yml` names; with both keys, both must hold."""

    url: Url | None = Field(default=None, description="To this server, and paths below this one.")
    repository: Text | None = Field(default=None, description="If the project is in this folder, or below it.")

    @model_validator(mode="after")
    def _check_limits(self) -> Permission:
        if self.url is None and self.repository is None:
            raise ValueError("give url, repository or both: without them every paropt.yml could send any file anywhere")
        return self


class HostFile(Section):
    """The servers of a host, the credentials for them, and the projects that may name their own."""

    servers: tuple[Server, ...] = Field(default=(), description="Servers with their credentials.")
    prometheus: DefaultUrl | None = Field(default=None, description="Queried for lanes without feedback.prometheus.")
    push: DefaultUrl | None = Field(default=None, description="The Pushgateway of lanes without push.url.")
    cache: RemoteCacheUrl | None = Field(default=None, description="The remote cache of results.")
    allow: tuple[Permission, ...] = Field(default=(), description="Where credentials of a paropt.yml may go.")
    only_known_urls: StrictBool = Field(
        default=False, description="Whether a paropt.yml may name only URLs that are listed here."
    )


def validate(content: bytes) -> values.HostFile:
    """Return the values of a host config. Raises Unreadable with all its faults. An empty file has no values."""
    document = Document(decode_text(content))
    value = {} if document.value is None else document.value
    found: list[Fault] = []
    file = HostFile()
    try:
        file = HostFile.model_validate(value)
    except ValidationError as error:
        found += messages.iter_faults(error, document, HostFile)
    found += _check_servers(raw_yaml.as_mapping(value))
    if found:
        raise Unreadable([*dict.fromkeys(document.locate(fault) for fault in found)])
    return values.HostFile(**convert_fields(file))


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
